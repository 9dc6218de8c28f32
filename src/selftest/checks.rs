//! The checks: what testers assert of a SMART authorization server, each with the rule of SMART App Launch 2.2 (or the RFC)
//! that it comes from. A check gives the words for what is wrong.

use super::subject::{Ask, Subject, granted};
use super::web::{Place, Said, value};
use super::{guard, token};
use crate::fhir::json::Node;

pub const PUBLIC: &str = "Test app (public)";
pub const SECRET: &str = "Test app (secret)";
pub const KEY: &str = "Test app (key)";
pub const EHR: &str = "Test EHR";
pub const FULL: &str = "launch/patient openid fhirUser offline_access patient/*.rs";

pub struct Check {
    pub area: &'static str,
    pub title: &'static str,
    pub run: fn(&mut Subject) -> Said<()>,
}

/// All of them, in the order in which they are run.
pub fn all() -> Vec<Check> {
    let mut out = Vec::new();
    for (area, checks) in [
        ("Discovery", DISCOVERY),
        ("Authorization", AUTHORIZATION),
        ("Tokens", token::CHECKS),
        ("Protection", guard::CHECKS),
    ] {
        out.extend(checks.iter().map(|(title, run)| Check { area, title, run: *run }));
    }
    out
}

/// Title, and what is run.
pub type Entry = (&'static str, fn(&mut Subject) -> Said<()>);

pub fn wants(holds: bool, otherwise: impl FnOnce() -> String) -> Said<()> {
    if holds { Ok(()) } else { Err(otherwise()) }
}

const DISCOVERY: &[Entry] = &[
    ("smart-configuration is JSON, open to everybody", configuration),
    ("smart-configuration names endpoints, grants and PKCE with S256 alone", endpoints),
    ("every capability of standalone and EHR launches is published", capabilities),
    ("the CapabilityStatement says the same as smart-configuration", statement),
    ("openid-configuration fits the issuer", openid),
    ("the keys are published without their private parts", jwks),
    ("data asks for a token", no_token),
];

fn configuration(s: &mut Subject) -> Said<()> {
    let url = format!("{}/.well-known/smart-configuration", s.base());
    for headers in [&[][..], &[("Accept", "application/json")]] {
        let reply = s.web.get(&url, headers)?;
        wants(reply.status == 200 && reply.header("content-type").starts_with("application/json"), || {
            format!("{url} answers {} as {}", reply.status, reply.header("content-type"))
        })?;
    }
    Ok(())
}

fn strings(node: &Node) -> Vec<&str> {
    node.as_array().into_iter().flatten().filter_map(Node::as_str).collect()
}

fn lacks(what: &str, node: &Node, wanted: &[&str]) -> Said<()> {
    let there = strings(node);
    let missing: Vec<&str> = wanted.iter().filter(|one| !there.contains(one)).copied().collect();
    wants(missing.is_empty(), || format!("{what} lacks {}", missing.join(", ")))
}

fn endpoints(s: &mut Subject) -> Said<()> {
    for name in [
        "issuer",
        "jwks_uri",
        "authorization_endpoint",
        "token_endpoint",
        "introspection_endpoint",
        "revocation_endpoint",
        "management_endpoint",
    ] {
        let url = s.endpoint(name)?;
        wants(url.starts_with("http"), || format!("{name} is no absolute address: {url}"))?;
    }
    lacks("grant_types_supported", &s.smart["grant_types_supported"], &["authorization_code", "client_credentials"])?;
    lacks(
        "token_endpoint_auth_methods_supported",
        &s.smart["token_endpoint_auth_methods_supported"],
        &["client_secret_basic", "private_key_jwt"],
    )?;
    let methods = strings(&s.smart["code_challenge_methods_supported"]);
    wants(methods == ["S256"], || format!("code_challenge_methods_supported must be S256 alone, and is {methods:?}"))
}

fn capabilities(s: &mut Subject) -> Said<()> {
    lacks(
        "capabilities",
        &s.smart["capabilities"],
        &[
            "launch-standalone",
            "launch-ehr",
            "client-public",
            "client-confidential-symmetric",
            "client-confidential-asymmetric",
            "sso-openid-connect",
            "context-banner",
            "context-style",
            "context-standalone-patient",
            "context-ehr-patient",
            "context-ehr-encounter",
            "permission-offline",
            "permission-patient",
            "permission-user",
            "permission-v1",
            "permission-v2",
            "authorize-post",
        ],
    )
}

fn statement(s: &mut Subject) -> Said<()> {
    let reply = s.web.get(&format!("{}/metadata", s.base()), &[("Accept", "application/fhir+json")])?;
    let security = &reply.json()["rest"][0]["security"];
    wants(security.to_string().contains("SMART-on-FHIR"), || "no service SMART-on-FHIR in rest.security".to_owned())?;
    let extensions = security["extension"].as_array().cloned().unwrap_or_default();
    let uris = extensions.iter().find(|one| one["url"].as_str().is_some_and(|url| url.ends_with("/oauth-uris")));
    let uris = uris.ok_or("rest.security has no extension oauth-uris")?;
    for (short, name) in [
        ("authorize", "authorization_endpoint"),
        ("token", "token_endpoint"),
        ("introspect", "introspection_endpoint"),
        ("revoke", "revocation_endpoint"),
        ("manage", "management_endpoint"),
    ] {
        let inner = uris["extension"].as_array().into_iter().flatten().find(|one| one["url"] == short);
        let url = inner.map_or("", |one| one["valueUri"].as_str().unwrap_or_default());
        wants(url == s.endpoint(name)?, || {
            format!("oauth-uris says {short} is at `{url}`, not as smart-configuration")
        })?;
    }
    Ok(())
}

fn openid(s: &mut Subject) -> Said<()> {
    let issuer = s.endpoint("issuer")?;
    let document = s.web.get(&format!("{issuer}/.well-known/openid-configuration"), &[])?.json();
    for name in ["issuer", "authorization_endpoint", "token_endpoint", "jwks_uri"] {
        wants(document[name] == s.smart[name], || {
            format!("openid-configuration has another {name}: {}", document[name])
        })?;
    }
    lacks("id_token_signing_alg_values_supported", &document["id_token_signing_alg_values_supported"], &["RS256"])?;
    lacks("response_types_supported", &document["response_types_supported"], &["code"])?;
    lacks("subject_types_supported", &document["subject_types_supported"], &["public"])
}

fn jwks(s: &mut Subject) -> Said<()> {
    let keys = s.web.get(&s.endpoint("jwks_uri")?, &[])?.json()["keys"].clone();
    let keys = keys.as_array().cloned().unwrap_or_default();
    wants(keys.iter().any(|key| key["kty"] == "RSA"), || "there is no RSA key for id_tokens".to_owned())?;
    let private = keys.iter().any(|key| ["d", "p", "q"].iter().any(|part| !key[*part].is_null()));
    wants(!private, || "a private key is published".to_owned())
}

fn no_token(s: &mut Subject) -> Said<()> {
    let url = format!("{}/Patient", s.base());
    for headers in [&[][..], &[("Authorization", "Bearer invalid")]] {
        let reply = s.web.get(&url, headers)?;
        wants(reply.status == 401 && reply.header("www-authenticate").starts_with("Bearer"), || {
            format!("without a genuine token {url} answers {}, not 401 with WWW-Authenticate: Bearer", reply.status)
        })?;
    }
    Ok(())
}

const AUTHORIZATION: &[Entry] = &[
    ("standalone launch of a public app: all scopes, a patient that can be read", public_app),
    ("the same by POST, for an app with a secret", secret_app),
    ("the same for an app with a key", key_app),
    ("a patient gets their own record without choosing", own_record),
    ("EHR launch with patient, encounter, banner and style", ehr_launch),
    ("a launch handle counts once", handle_once),
    ("a visit is chosen where the app asks for one, and can be read", visit),
    ("another aud gets no code", wrong_aud),
    ("an unknown app or redirect URI is never redirected to", no_open_redirect),
    ("no code without PKCE, or with plain", pkce_required),
    ("whoever says no gives nothing", denied),
    ("what is unticked is not granted, and not given", unticked),
    ("granular scopes are granted as asked, and hold", granular),
    ("scopes of version 1 work", version_one),
];

/// Launches, and reads the patient it is about.
fn launched(s: &mut Subject, ask: &Ask<'_>) -> Said<Node> {
    let body = s.launch(ask)?;
    let there: Vec<&str> = body["scope"].as_str().unwrap_or_default().split(' ').collect();
    for scope in ask.scope.split(' ') {
        wants(there.contains(&scope), || format!("the scope {scope} was not granted: {}", body["scope"]))?;
    }
    wants(body["token_type"].as_str().is_some_and(|kind| kind.eq_ignore_ascii_case("bearer")), || {
        "token_type is not Bearer".to_owned()
    })?;
    wants(body["expires_in"].as_i64().is_some_and(|seconds| (1..=3600).contains(&seconds)), || {
        format!("expires_in is {}: a number of seconds, an hour at most, is expected", body["expires_in"])
    })?;
    let (token, patient) = (text(&body, "access_token"), text(&body, "patient"));
    let reply = s.read(&token, &format!("Patient/{patient}"))?;
    wants(reply.status == 200 && reply.json()["id"] == patient.as_str(), || {
        format!("the patient of the launch cannot be read: {}", reply.status)
    })?;
    Ok(body)
}

pub fn text(node: &Node, name: &str) -> String {
    node[name].as_str().unwrap_or_default().to_owned()
}

fn public_app(s: &mut Subject) -> Said<()> {
    launched(s, &Ask::new(PUBLIC, "provider", FULL)).map(drop)
}

fn secret_app(s: &mut Subject) -> Said<()> {
    launched(s, &Ask { post: true, ..Ask::new(SECRET, "provider", FULL) }).map(drop)
}

fn key_app(s: &mut Subject) -> Said<()> {
    launched(s, &Ask::new(KEY, "provider", FULL)).map(drop)
}

fn own_record(s: &mut Subject) -> Said<()> {
    let body = launched(s, &Ask::new(PUBLIC, "patient", FULL))?;
    let users = s.demo["users"].as_array().cloned().unwrap_or_default();
    let own = users.iter().find(|user| user["username"] == "patient").map(|user| text(user, "fhirUser"));
    wants(own == Some(format!("Patient/{}", text(&body, "patient"))), || "the launch is about somebody else".to_owned())
}

/// Makes a launch context as an EHR does: its handle, patient and encounter.
fn handle(s: &mut Subject) -> Said<(String, String, String)> {
    let token = granted(&s.as_client(
        EHR,
        "token_endpoint",
        &[("grant_type", "client_credentials"), ("scope", "system/*.rs")],
    )?)?;
    let token = text(&token, "access_token");
    let own = launched(s, &Ask::new(PUBLIC, "patient", FULL))?;
    let patient = text(&own, "patient");
    let found = s.read(&token, &format!("Encounter?patient={patient}&_count=1"))?.json();
    let encounter = text(&found["entry"][0]["resource"], "id");
    let body = serde_json::json!({ "patient": patient, "encounter": encounter }).to_string();
    let url = format!("{}/oauth/launch", s.endpoint("issuer")?);
    let bearer = format!("Bearer {token}");
    let headers = [("Authorization", bearer.as_str()), ("Content-Type", "application/json")];
    let reply = s.web.send("POST", &url, &headers, Some(&body))?;
    let launch = text(&reply.json(), "launch");
    wants(reply.status == 201 && !launch.is_empty(), || {
        format!("no launch context: {} {}", reply.status, reply.text())
    })?;
    Ok((launch, patient, encounter))
}

const EHR_SCOPE: &str = "launch openid fhirUser user/*.rs";

fn ehr_launch(s: &mut Subject) -> Said<()> {
    let (launch, patient, encounter) = handle(s)?;
    let with = [("launch", launch.as_str())];
    let body = launched(s, &Ask { with: &with, post: true, ..Ask::new(SECRET, "provider", EHR_SCOPE) })?;
    wants(text(&body, "patient") == patient && text(&body, "encounter") == encounter, || {
        "the token response has another patient or encounter than the launch".to_owned()
    })?;
    wants(body["need_patient_banner"].is_boolean(), || "need_patient_banner is missing".to_owned())?;
    let reply = s.read(&text(&body, "access_token"), &format!("Encounter/{encounter}"))?;
    wants(reply.status == 200, || format!("the encounter of the launch cannot be read: {}", reply.status))?;
    let style = s.web.get(&text(&body, "smart_style_url"), &[])?;
    wants(style.status == 200 && style.json().is_object(), || "smart_style_url gives no JSON object".to_owned())
}

fn visit(s: &mut Subject) -> Said<()> {
    let scope = "launch/patient launch/encounter patient/*.rs";
    let body = launched(s, &Ask::new(PUBLIC, "patient", scope))?;
    let encounter = text(&body, "encounter");
    let reply = s.read(&text(&body, "access_token"), &format!("Encounter/{encounter}"))?;
    wants(reply.status == 200 && reply.json()["id"] == encounter.as_str(), || {
        format!("the visit `{encounter}` cannot be read: {}", reply.status)
    })
}

fn handle_once(s: &mut Subject) -> Said<()> {
    let (launch, ..) = handle(s)?;
    let with = [("launch", launch.as_str())];
    let ask = Ask { with: &with, ..Ask::new(SECRET, "provider", EHR_SCOPE) };
    s.code(&ask)?;
    wants(s.code(&ask).is_err(), || "the second use of a launch handle gave a code".to_owned())
}

/// No code may come of this request, to whatever address.
fn no_code(s: &mut Subject, ask: &Ask<'_>) -> Said<Place> {
    let (form, _) = s.request(ask)?;
    let place = s.walk(ask, &form)?;
    if let Place::Away(url) = &place
        && !value(&super::web::query(url), "code").is_empty()
    {
        return Err("a code was given".to_owned());
    }
    Ok(place)
}

fn wrong_aud(s: &mut Subject) -> Said<()> {
    for aud in ["https://inferno.example/invalid_aud", ""] {
        no_code(s, &Ask { with: &[("aud", aud)], ..Ask::new(PUBLIC, "provider", FULL) })?;
    }
    Ok(())
}

fn no_open_redirect(s: &mut Subject) -> Said<()> {
    for with in [[("client_id", "nobody")], [("redirect_uri", "https://evil.example/cb")]] {
        let place = no_code(s, &Ask { with: &with, ..Ask::new(PUBLIC, "provider", FULL) })?;
        wants(matches!(place, Place::Page { status: 400..=499, .. }), || {
            format!("with another {} the browser is redirected, not shown an error", with[0].0)
        })?;
    }
    Ok(())
}

fn pkce_required(s: &mut Subject) -> Said<()> {
    for with in [[("code_challenge", "")], [("code_challenge_method", "plain")], [("code_challenge_method", "")]] {
        no_code(s, &Ask { with: &with, ..Ask::new(SECRET, "provider", FULL) })?;
    }
    Ok(())
}

fn denied(s: &mut Subject) -> Said<()> {
    let decide = |sent: &mut Vec<(String, String)>| {
        sent.retain(|(name, _)| name != "decision");
        sent.push(("decision".to_owned(), "deny".to_owned()));
    };
    let answer = s.authorize(&Ask { decide, ..Ask::new(PUBLIC, "patient", FULL) })?;
    let error = value(&answer.parameters, "error");
    wants(error == "access_denied", || format!("the app is told `{error}`, not access_denied"))
}

fn unticked(s: &mut Subject) -> Said<()> {
    // The last of what is asked for is denied. Its box is called `s` and a number.
    let decide = |sent: &mut Vec<(String, String)>| {
        let is_box = |name: &str| name.strip_prefix('s').is_some_and(|rest| rest.parse::<usize>().is_ok());
        if let Some(last) = sent.iter().rposition(|(name, _)| is_box(name)) {
            sent.remove(last);
        }
    };
    let scope = "launch/patient patient/Patient.rs patient/Immunization.rs";
    let ask = Ask { decide, ..Ask::new(PUBLIC, "patient", scope) };
    let body = s.launch(&ask)?;
    let scope = text(&body, "scope");
    wants(!scope.contains("Immunization") && scope.contains("patient/Patient.rs"), || {
        format!("what was denied is in the scope: {scope}")
    })?;
    let reply = s.read(&text(&body, "access_token"), &format!("Immunization?patient={}", text(&body, "patient")))?;
    wants(reply.status == 403, || format!("a search of a denied type answers {}, not 403", reply.status))
}

fn granular(s: &mut Subject) -> Said<()> {
    let category = "http://terminology.hl7.org/CodeSystem/observation-category|vital-signs";
    let scope = format!("launch/patient patient/Observation.rs?category={category}");
    let body = s.launch(&Ask::new(PUBLIC, "patient", &scope))?;
    wants(text(&body, "scope").contains(&format!("Observation.rs?category={category}")), || {
        format!("the granular scope is not there as it was asked for: {}", text(&body, "scope"))
    })?;
    let (token, patient) = (text(&body, "access_token"), text(&body, "patient"));
    let found = s.read(&token, &format!("Observation?patient={patient}&_count=200"))?.json();
    let entries = found["entry"].as_array().cloned().unwrap_or_default();
    wants(!entries.is_empty(), || "no Observation of the granted category is found".to_owned())?;
    let outside = entries.iter().find(|one| !one["resource"]["category"].to_string().contains("vital-signs"));
    wants(outside.is_none(), || "a search gives an Observation of another category".to_owned())
}

fn version_one(s: &mut Subject) -> Said<()> {
    let body = s.launch(&Ask::new(PUBLIC, "patient", "launch/patient patient/*.read"))?;
    let reply = s.read(&text(&body, "access_token"), &format!("Condition?patient={}", text(&body, "patient")))?;
    wants(reply.status == 200, || format!("with patient/*.read a search answers {}", reply.status))
}
