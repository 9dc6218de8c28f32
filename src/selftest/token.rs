//! The checks of the token endpoint and of what it gives.

use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, decode_header};

use super::checks::{EHR, Entry, FULL, KEY, PUBLIC, SECRET, text, wants};
use super::subject::{Ask, Subject, granted, pairs};
use super::web::{Reply, Said};
use crate::fhir::json::Node;
use crate::oauth::assertion::ASSERTION_TYPE;

pub const CHECKS: &[Entry] = &[
    ("token responses are not to be kept", headers),
    ("a code counts once, and its second use ends what the first gave", code_once),
    ("a code needs its own verifier: none, a wrong one and the challenge itself are refused", verifiers),
    ("an unknown code is invalid_grant, an unknown app invalid_client", unknown_parts),
    ("a code is the app's that asked for it", other_app),
    ("an id_token is signed with RS256 and says who, for whom and until when", id_token),
    ("fhirUser can be read with the access token", fhir_user),
    ("refresh, with and without scope, keeps patient and scope", refresh),
    ("a refresh token counts once; its second use ends the authorization", refresh_reuse),
    ("refreshing asks for no more than was granted", refresh_wider),
    ("an unknown refresh token is refused", refresh_unknown),
    ("online_access gives a refresh token while the person is logged in", online),
    ("no refresh token without offline_access", no_offline),
    ("introspection says what a token is", introspection),
    ("of an unknown token introspection says that it is not active, and no more", introspection_unknown),
    ("introspection is not for everybody", introspection_closed),
    ("revoking acts at once, on the access token and on the refresh token", revocation),
    ("pages of apps elsewhere may ask the token endpoint", cors),
    ("backend services get a token with ES384", backend),
    ("a wrong grant type is unsupported_grant_type, a wrong assertion refused", backend_wrong),
    ("an assertion counts once", assertion_once),
    ("backend services have no user's scopes", backend_scopes),
];

fn refused(reply: &Reply, what: &str) -> Said<()> {
    let error = text(&reply.json(), "error");
    wants(matches!(reply.status, 400 | 401) && !error.is_empty(), || {
        format!("{what} is answered {} `{error}`, not refused with 400 or 401 and an OAuth error", reply.status)
    })
}

fn headers(s: &mut Subject) -> Said<()> {
    let ask = Ask::new(PUBLIC, "patient", FULL);
    let answer = s.code(&ask)?;
    let reply = s.exchange(PUBLIC, &answer, &answer.verifier)?;
    granted(&reply)?;
    wants(reply.header("cache-control").contains("no-store") && reply.header("pragma").contains("no-cache"), || {
        "Cache-Control: no-store or Pragma: no-cache is missing".to_owned()
    })
}

fn code_once(s: &mut Subject) -> Said<()> {
    let answer = s.code(&Ask::new(PUBLIC, "patient", FULL))?;
    let first = granted(&s.exchange(PUBLIC, &answer, &answer.verifier)?)?;
    refused(&s.exchange(PUBLIC, &answer, &answer.verifier)?, "the second use of a code")?;
    let reply = s.read(&text(&first, "access_token"), &format!("Patient/{}", text(&first, "patient")))?;
    wants(reply.status == 401, || format!("after a code was used twice its token still works: {}", reply.status))
}

fn verifiers(s: &mut Subject) -> Said<()> {
    for n in 0..4 {
        let ask = Ask::new(PUBLIC, "patient", FULL);
        let answer = s.code(&ask)?;
        let (verifier, what) = match n {
            0 => (String::new(), "no verifier"),
            1 => (" ".to_owned(), "a blank verifier"),
            2 => (s.random(), "a wrong verifier"),
            _ => (super::subject::challenge(&answer.verifier), "the challenge as verifier"),
        };
        refused(&s.exchange(PUBLIC, &answer, &verifier)?, what)?;
    }
    Ok(())
}

fn unknown_parts(s: &mut Subject) -> Said<()> {
    let mut answer = s.code(&Ask::new(PUBLIC, "patient", FULL))?;
    let url = s.endpoint("token_endpoint")?;
    let code = super::web::value(&answer.parameters, "code").to_owned();
    let form = [
        ("grant_type", "authorization_code"),
        ("code", code.as_str()),
        ("redirect_uri", answer.redirect_uri.as_str()),
        ("code_verifier", answer.verifier.as_str()),
        ("client_id", "nobody"),
    ];
    let reply = s.web.post(&url, &[], &pairs(&form))?;
    refused(&reply, "a code with an unknown client_id")?;
    answer.parameters = pairs(&[("code", "no-such-code")]);
    let reply = s.exchange(PUBLIC, &answer, &answer.verifier)?;
    wants(reply.status == 400 && reply.json()["error"] == "invalid_grant", || {
        format!("an unknown code is answered {} {}", reply.status, reply.json()["error"])
    })
}

fn other_app(s: &mut Subject) -> Said<()> {
    let answer = s.code(&Ask::new(PUBLIC, "patient", FULL))?;
    refused(&s.exchange(SECRET, &answer, &answer.verifier)?, "the code of another app")
}

fn id_token(s: &mut Subject) -> Said<()> {
    let with = [("nonce", "n-1")];
    let body = s.launch(&Ask { with: &with, ..Ask::new(PUBLIC, "patient", FULL) })?;
    let token = text(&body, "id_token");
    let header = decode_header(&token).map_err(|e| format!("the id_token is no JWT: {e}"))?;
    wants(header.alg == Algorithm::RS256, || format!("the id_token is signed with {:?}, not RS256", header.alg))?;
    let keys = s.web.get(&s.endpoint("jwks_uri")?, &[])?.json();
    let keys = keys["keys"].as_array().cloned().unwrap_or_default();
    let own = keys.iter().find(|key| key["kid"].as_str() == header.kid.as_deref() && key["kty"] == "RSA");
    let own = own.ok_or("the kid of the id_token names no published RSA key")?;
    let key = DecodingKey::from_rsa_components(&text(own, "n"), &text(own, "e")).map_err(|e| e.to_string())?;
    let mut rules = Validation::new(Algorithm::RS256);
    rules.set_issuer(&[s.endpoint("issuer")?]);
    rules.set_audience(&[text(&s.client(PUBLIC)?, "client_id")]);
    rules.set_required_spec_claims(&["iss", "sub", "aud", "exp"]);
    let claims = decode::<Node>(&token, &key, &rules).map_err(|e| format!("the id_token does not verify: {e}"))?.claims;
    wants((1..256).contains(&text(&claims, "sub").len()) && claims["iat"].is_number(), || "no sub or iat".to_owned())?;
    wants(claims["nonce"] == "n-1", || "the nonce is not in the id_token".to_owned())
}

/// The claims, not verified: `id_token` does that.
fn claims(token: &str) -> Node {
    use base64::Engine;
    let part = token.split('.').nth(1).unwrap_or_default();
    let bytes = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(part).unwrap_or_default();
    serde_json::from_slice(&bytes).unwrap_or_default()
}

fn fhir_user(s: &mut Subject) -> Said<()> {
    for (user, kind) in [("patient", "Patient"), ("provider", "Practitioner")] {
        let body = s.launch(&Ask::new(PUBLIC, user, "openid fhirUser launch/patient patient/Patient.rs"))?;
        let url = text(&claims(&text(&body, "id_token")), "fhirUser");
        let path = url.strip_prefix(&format!("{}/", s.base())).unwrap_or(&url).to_owned();
        wants(path.starts_with(&format!("{kind}/")), || format!("fhirUser of {user} is `{url}`"))?;
        let reply = s.read(&text(&body, "access_token"), &path)?;
        wants(reply.status == 200 && reply.json()["resourceType"] == kind, || {
            format!("fhirUser of {user} cannot be read: {}", reply.status)
        })?;
    }
    Ok(())
}

fn refreshed(s: &Subject, client: &str, token: &str, scope: Option<&str>) -> Said<Reply> {
    let mut form = vec![("grant_type", "refresh_token"), ("refresh_token", token)];
    form.extend(scope.map(|scope| ("scope", scope)));
    s.as_client(client, "token_endpoint", &form)
}

fn refresh(s: &mut Subject) -> Said<()> {
    for client in [PUBLIC, SECRET, KEY] {
        let first = s.launch(&Ask::new(client, "patient", FULL))?;
        let second = granted(&refreshed(s, client, &text(&first, "refresh_token"), None)?)?;
        let scope = text(&second, "scope");
        let third = granted(&refreshed(s, client, &text(&second, "refresh_token"), Some(&scope))?)?;
        wants(scope == text(&first, "scope") && third["patient"] == first["patient"], || {
            "a refresh gives another scope or patient".to_owned()
        })?;
        let reply = s.read(&text(&third, "access_token"), &format!("Patient/{}", text(&third, "patient")))?;
        wants(reply.status == 200, || format!("the refreshed token reads the patient with {}", reply.status))?;
    }
    Ok(())
}

fn refresh_reuse(s: &mut Subject) -> Said<()> {
    let first = s.launch(&Ask::new(SECRET, "patient", FULL))?;
    let old = text(&first, "refresh_token");
    let second = granted(&refreshed(s, SECRET, &old, None)?)?;
    refused(&refreshed(s, SECRET, &old, None)?, "a used refresh token")?;
    refused(
        &refreshed(s, SECRET, &text(&second, "refresh_token"), None)?,
        "the successor of a refresh token used twice",
    )
}

fn refresh_wider(s: &mut Subject) -> Said<()> {
    let scope = "launch/patient offline_access patient/Patient.rs";
    let first = s.launch(&Ask::new(SECRET, "patient", scope))?;
    refused(&refreshed(s, SECRET, &text(&first, "refresh_token"), Some("patient/*.rs"))?, "a wider scope at a refresh")
}

fn refresh_unknown(s: &mut Subject) -> Said<()> {
    refused(&refreshed(s, SECRET, "no-such-token", None)?, "an unknown refresh token")
}

fn online(s: &mut Subject) -> Said<()> {
    let first = s.launch(&Ask::new(PUBLIC, "patient", "launch/patient online_access patient/Patient.rs"))?;
    let second = granted(&refreshed(s, PUBLIC, &text(&first, "refresh_token"), None)?)?;
    wants(second["patient"] == first["patient"], || "a refresh gives another patient".to_owned())
}

fn no_offline(s: &mut Subject) -> Said<()> {
    let body = s.launch(&Ask::new(PUBLIC, "patient", "launch/patient patient/Patient.rs"))?;
    wants(body["refresh_token"].is_null(), || "a refresh token was given without offline_access".to_owned())
}

fn introspection(s: &mut Subject) -> Said<()> {
    let body = s.launch(&Ask::new(SECRET, "patient", FULL))?;
    let token = text(&body, "access_token");
    let said = s.as_client(SECRET, "introspection_endpoint", &[("token", &token)])?;
    let said =
        if said.status == 200 { said.json() } else { return Err(format!("introspection answers {}", said.status)) };
    wants(said["active"] == true, || format!("a live token is not active: {said}"))?;
    let set = |node: &Node| {
        let mut words: Vec<String> = text(node, "scope").split(' ').map(str::to_owned).collect();
        words.sort();
        words
    };
    wants(set(&said) == set(&body), || format!("another scope than in the token response: {}", said["scope"]))?;
    let identity = claims(&text(&body, "id_token"));
    for (name, wanted) in [("patient", &body["patient"]), ("iss", &identity["iss"]), ("sub", &identity["sub"])] {
        wants(said[name] == *wanted, || format!("{name} is {}, not {wanted}", said[name]))?;
    }
    wants(said["client_id"] == s.client(SECRET)?["client_id"] && said["exp"].is_number(), || {
        "client_id or exp is missing or wrong".to_owned()
    })
}

fn introspection_unknown(s: &mut Subject) -> Said<()> {
    let said = s.as_client(SECRET, "introspection_endpoint", &[("token", "invalid_token_value")])?;
    wants(said.status == 200 && said.json() == serde_json::json!({ "active": false }), || {
        format!("an unknown token is answered {} {}", said.status, said.text())
    })
}

fn introspection_closed(s: &mut Subject) -> Said<()> {
    let url = s.endpoint("introspection_endpoint")?;
    let reply = s.web.post(&url, &[], &pairs(&[("token", "x")]))?;
    wants(matches!(reply.status, 400 | 401), || {
        format!("without authentication introspection answers {}", reply.status)
    })
}

fn revocation(s: &mut Subject) -> Said<()> {
    let body = s.launch(&Ask::new(SECRET, "patient", FULL))?;
    let refresh = text(&body, "refresh_token");
    let reply = s.as_client(SECRET, "revocation_endpoint", &[("token", &refresh)])?;
    wants(reply.status == 200, || format!("revocation answers {}", reply.status))?;
    let read = s.read(&text(&body, "access_token"), &format!("Patient/{}", text(&body, "patient")))?;
    wants(read.status == 401, || format!("the access token still works after revocation: {}", read.status))?;
    refused(&refreshed(s, SECRET, &refresh, None)?, "a revoked refresh token")?;
    let reply = s.as_client(SECRET, "revocation_endpoint", &[("token", "no-such-token")])?;
    wants(reply.status == 200, || format!("revocation of an unknown token answers {}, not 200", reply.status))
}

fn cors(s: &mut Subject) -> Said<()> {
    let origin = ("Origin", "https://client.example");
    let allowed = |reply: &Reply| matches!(reply.header("access-control-allow-origin"), "*" | "https://client.example");
    let token = s.endpoint("token_endpoint")?;
    let reply = s.web.post(&token, &[origin], &pairs(&[("grant_type", "authorization_code")]))?;
    wants(allowed(&reply), || "the token endpoint has no Access-Control-Allow-Origin for a registered app".to_owned())?;
    for path in [".well-known/smart-configuration", "metadata"] {
        let reply = s.web.get(&format!("{}/{path}", s.base()), &[origin])?;
        wants(allowed(&reply), || format!("{path} has no Access-Control-Allow-Origin"))?;
    }
    Ok(())
}

const CREDENTIALS: (&str, &str) = ("grant_type", "client_credentials");

fn backend(s: &mut Subject) -> Said<()> {
    let body = granted(&s.as_client("backend", "token_endpoint", &[CREDENTIALS, ("scope", "system/Patient.rs")])?)?;
    wants(body["scope"] == "system/Patient.rs" && body["refresh_token"].is_null(), || {
        format!("scope is {}, or there is a refresh token", body["scope"])
    })?;
    wants(body["expires_in"].as_i64().is_some_and(|seconds| (1..=300).contains(&seconds)), || {
        format!("expires_in is {}: five minutes at most are expected", body["expires_in"])
    })?;
    let reply = s.read(&text(&body, "access_token"), "Patient?_count=1")?;
    wants(reply.status == 200, || format!("a search with the token answers {}", reply.status))
}

fn backend_wrong(s: &mut Subject) -> Said<()> {
    let reply = s.as_client("backend", "token_endpoint", &[("grant_type", "not_a_grant_type")])?;
    wants(reply.status == 400 && reply.json()["error"] == "unsupported_grant_type", || {
        format!("a wrong grant_type is answered {} {}", reply.status, reply.json()["error"])
    })?;
    let url = s.endpoint("token_endpoint")?;
    for kind in ["not_an_assertion_type", ASSERTION_TYPE] {
        let form =
            [CREDENTIALS, ("scope", "system/*.rs"), ("client_assertion_type", kind), ("client_assertion", "a.b.c")];
        refused(&s.web.post(&url, &[], &pairs(&form))?, "a wrong assertion")?;
    }
    Ok(())
}

fn assertion_once(s: &mut Subject) -> Said<()> {
    let url = s.endpoint("token_endpoint")?;
    let assertion = crate::jobs::credentials::assertion(&s.world, &s.client(EHR)?, &url).map_err(|e| e.to_string())?;
    let form = [
        CREDENTIALS,
        ("scope", "system/*.rs"),
        ("client_assertion_type", ASSERTION_TYPE),
        ("client_assertion", assertion.as_str()),
    ];
    granted(&s.web.post(&url, &[], &pairs(&form))?)?;
    refused(&s.web.post(&url, &[], &pairs(&form))?, "the second use of an assertion")
}

fn backend_scopes(s: &mut Subject) -> Said<()> {
    for scope in ["user/*.rs", "patient/*.rs", ""] {
        refused(
            &s.as_client("backend", "token_endpoint", &[CREDENTIALS, ("scope", scope)])?,
            "a scope without system/",
        )?;
    }
    Ok(())
}
