//! Discovery and scopes as the checklists of testers have them; `conformance/smart/rules.md` says which rule each test
//! proves.

use std::collections::BTreeSet;

use axum::body::Body;
use axum::http::Request;
use serde_json::{Value, json};

use super::browser::{Browser, parameter};
use super::smart::{clinic, text};
use super::{Reply, TestApp};
use crate::oauth::ClientKind;

async fn get(app: &TestApp, path: &str, headers: &[(&str, &str)]) -> Reply {
    let mut request = Request::get(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    app.send(request.body(Body::empty()).unwrap()).await
}

fn words(node: &Value) -> Vec<&str> {
    node.as_array().into_iter().flatten().filter_map(Value::as_str).collect()
}

const STANDALONE: &str = "launch-standalone client-public client-confidential-symmetric client-confidential-asymmetric \
     sso-openid-connect context-standalone-patient permission-offline permission-patient authorize-post permission-v2 \
     permission-v1";
const EHR: &str = "launch-ehr client-confidential-symmetric client-confidential-asymmetric sso-openid-connect \
     context-banner context-style context-ehr-patient permission-offline permission-user authorize-post permission-v2 \
     permission-v1 context-ehr-encounter";

#[tokio::test]
async fn discovery_says_what_testers_look_for() {
    let app = TestApp::new().await;
    for headers in [&[][..], &[("accept", "application/json")], &[("origin", "https://inferno.example")]] {
        let reply = get(&app, "/fhir/.well-known/smart-configuration", headers).await;
        assert_eq!((reply.status, reply.header("content-type")), (200, "application/json"));
    }
    let smart = get(&app, "/fhir/.well-known/smart-configuration", &[]).await.json();
    for name in [
        "issuer",
        "jwks_uri",
        "authorization_endpoint",
        "token_endpoint",
        "introspection_endpoint",
        "revocation_endpoint",
        "management_endpoint",
    ] {
        assert!(text(&smart, name).starts_with("http://phial.test"), "{name} is absolute");
    }
    let has = |name: &str, wanted: &str| {
        let there = words(&smart[name]);
        assert!(wanted.split_ascii_whitespace().all(|one| there.contains(&one)), "{name}: {wanted} in {there:?}");
    };
    has("capabilities", STANDALONE);
    has("capabilities", EHR);
    has("capabilities", "permission-online context-standalone-encounter");
    has("grant_types_supported", "authorization_code client_credentials refresh_token");
    has("token_endpoint_auth_methods_supported", "client_secret_basic client_secret_post private_key_jwt");
    has("token_endpoint_auth_signing_alg_values_supported", "RS384 ES384");
    has("response_types_supported", "code");
    has("scopes_supported", "openid fhirUser launch launch/patient offline_access patient/*.rs user/*.rs system/*.rs");
    assert_eq!(words(&smart["code_challenge_methods_supported"]), ["S256"], "and no plain");
    assert_eq!(smart["authorization_response_iss_parameter_supported"], true);
    let openid = get(&app, "/.well-known/openid-configuration", &[]).await;
    assert_eq!((openid.status, openid.header("content-type")), (200, "application/json"));
    let openid = openid.json();
    for name in ["issuer", "authorization_endpoint", "token_endpoint", "jwks_uri", "response_types_supported"] {
        assert_eq!(openid[name], smart[name], "{name}");
    }
    assert_eq!(words(&openid["subject_types_supported"]), ["public"]);
    assert!(words(&openid["id_token_signing_alg_values_supported"]).contains(&"RS256"));
    assert_eq!(text(&openid, "issuer"), "http://phial.test", "it is where this document is");
    let jwks = get(&app, "/oauth/jwks", &[]).await.json();
    let private = ["d", "p", "q", "dp", "dq", "qi", "k"];
    let keys = jwks["keys"].as_array().unwrap();
    assert!(keys.iter().any(|key| key["kty"] == "RSA"));
    assert!(keys.iter().all(|key| private.iter().all(|part| key.get(*part).is_none()) && key["kid"].is_string()));
}

#[tokio::test]
async fn metadata_of_the_authorization_server_is_where_rfc_8414_has_it() {
    let well_known = "/.well-known/oauth-authorization-server";
    for (base, there, elsewhere) in [
        (
            "http://phial.test/fhir",
            vec![well_known.to_owned()],
            vec![format!("{well_known}/north"), format!("{well_known}/fhir")],
        ),
        (
            "http://phial.test/north/fhir",
            vec![format!("{well_known}/north"), format!("/north{well_known}")],
            vec![well_known.to_owned(), format!("{well_known}/south"), format!("{well_known}north")],
        ),
    ] {
        let app = TestApp::with(&[("base_url", base)]).await;
        let issuer = base.strip_suffix("/fhir").unwrap();
        let openid = format!("{}/.well-known/openid-configuration", issuer.strip_prefix("http://phial.test").unwrap());
        let openid = get(&app, &openid, &[]).await.json();
        for path in there {
            let reply = get(&app, &path, &[("origin", "https://any.example")]).await;
            assert_eq!((reply.status, reply.header("content-type")), (200, "application/json"), "{base} {path}");
            assert_eq!(reply.header("access-control-allow-origin"), "*", "{base} {path}");
            let metadata = reply.json();
            assert_eq!((text(&metadata, "issuer"), &metadata), (issuer, &openid), "{base} {path}");
        }
        for path in elsewhere {
            assert_eq!(get(&app, &path, &[]).await.status, 404, "{base} {path}: not this issuer's");
        }
    }
}

#[tokio::test]
async fn what_the_operator_publishes_is_told_where_the_standards_have_a_place() {
    let plain = TestApp::new().await;
    let (docs, brands) = ("https://hospital.example/developers", "https://hospital.example/brands.json");
    let set = [("documentation_url", docs), ("brands_url", brands), ("contact", "fhir@hospital.example")];
    let told = TestApp::with(&set).await;
    let (smart, openid) = ("/fhir/.well-known/smart-configuration", "/.well-known/openid-configuration");
    for (path, member, value) in [
        (smart, "service_documentation", docs.into()),
        (openid, "service_documentation", docs.into()),
        (smart, "user_access_brand_bundle", brands.into()),
        ("/fhir/metadata", "description", format!("Documentation: {docs}").into()),
        (
            "/fhir/metadata",
            "contact",
            serde_json::json!([{"telecom": [{"system": "email", "value": "fhir@hospital.example"}]}]),
        ),
    ] {
        assert_eq!(get(&told, path, &[]).await.json()[member], value, "{path} {member}");
        assert!(get(&plain, path, &[]).await.json().get(member).is_none(), "{path} {member}: nothing is made up");
    }
}

#[tokio::test]
async fn the_capability_statement_says_the_same() {
    let app = TestApp::new().await;
    let smart = get(&app, "/fhir/.well-known/smart-configuration", &[]).await.json();
    let security = get(&app, "/fhir/metadata", &[]).await.json()["rest"][0]["security"].clone();
    let coding = &security["service"][0]["coding"][0];
    assert_eq!(coding["code"], "SMART-on-FHIR");
    assert_eq!(coding["system"], "http://terminology.hl7.org/CodeSystem/restful-security-service");
    let said = text(&security["service"][0], "text");
    assert!(said.contains("standalone and EHR launch") && said.contains("Backend Services"), "{said}");
    let uris = &security["extension"][0];
    assert_eq!(text(uris, "url"), "http://fhir-registry.smarthealthit.org/StructureDefinition/oauth-uris");
    let of = |name: &str| {
        let all = uris["extension"].as_array().unwrap().iter();
        all.filter(|one| one["url"] == name).map(|one| one["valueUri"].clone()).next().unwrap_or_default()
    };
    // Absent in both is equal.
    for (name, endpoint) in [
        ("authorize", "authorization_endpoint"),
        ("token", "token_endpoint"),
        ("introspect", "introspection_endpoint"),
        ("manage", "management_endpoint"),
        ("register", "registration_endpoint"),
        ("revoke", "revocation_endpoint"),
    ] {
        assert_eq!(of(name), smart[endpoint], "{name}");
    }
    for endpoint in ["authorization_endpoint", "token_endpoint", "introspection_endpoint", "revocation_endpoint"] {
        let path = text(&smart, endpoint).strip_prefix("http://phial.test").unwrap().to_owned();
        assert_ne!(get(&app, &path, &[]).await.status, 404, "{endpoint} is there");
    }
}

/// A launch of the app by the patient, with these fields on the consent page.
async fn decided(app: &TestApp, scope: &str, fields: &[(&str, &str)]) -> Value {
    let mut browser = Browser::new(app);
    let page = browser.open(&app.authorize("app", scope, &[])).await;
    let page = browser.login(&page, "adams").await;
    let mut all = vec![("decision", "allow")];
    all.extend(fields);
    let reply = browser.submit(&page, "/oauth/decide", &all).await;
    let code = parameter(reply.header("location"), "code").unwrap_or_else(|| panic!("{}", reply.header("location")));
    app.redeem("app", &code).await.json()
}

const OBSERVATION: &str = "http://terminology.hl7.org/CodeSystem/observation-category";
const CONDITION: &str = "http://terminology.hl7.org/CodeSystem/condition-category";
const US_CONDITION: &str = "http://hl7.org/fhir/us/core/CodeSystem/condition-category";
const US_CORE: &str = "http://hl7.org/fhir/us/core/CodeSystem/us-core-category";

/// Type, system and code of each category, one resource of each for `p1`, and one that has none.
const FILED: [(&str, &str, &str); 10] = [
    ("Condition", CONDITION, "encounter-diagnosis"),
    ("Condition", US_CONDITION, "health-concern"),
    ("Condition", CONDITION, "problem-list-item"),
    ("Condition", CONDITION, "other"),
    ("Observation", OBSERVATION, "laboratory"),
    ("Observation", OBSERVATION, "social-history"),
    ("Observation", OBSERVATION, "vital-signs"),
    ("Observation", OBSERVATION, "survey"),
    ("Observation", US_CORE, "sdoh"),
    ("Observation", OBSERVATION, "imaging"),
];

async fn filed(app: &TestApp) {
    let writer = clinic(app).await;
    app.client("granular", ClientKind::Public, "launch/patient patient/*.rs").await;
    for (kind, system, code) in FILED {
        let mut node = json!({"resourceType": kind, "id": code, "subject": {"reference": "Patient/p1"},
            "category": [{"coding": [{"system": system, "code": code}]}], "code": {"text": code}});
        if kind == "Observation" {
            node["status"] = json!("final");
        }
        let reply = writer.put(&format!("{kind}/{code}"), &node).await;
        assert_eq!(reply.status, 201, "{}", reply.text());
    }
}

#[tokio::test]
async fn granular_scopes_are_granted_literally_and_hold() {
    let app = TestApp::new().await;
    filed(&app).await;
    let groups: [&[usize]; 2] = [&[0, 1, 4, 5], &[2, 6, 7, 8]];
    for group in groups {
        let granular: Vec<String> = group
            .iter()
            .map(|n| format!("patient/{}.rs?category={}|{}", FILED[*n].0, FILED[*n].1, FILED[*n].2))
            .collect();
        let scope = format!("launch/patient patient/Patient.rs {}", granular.join(" "));
        let answer = app.launched("app", "adams", &scope, None).await;
        let given: BTreeSet<&str> = text(&answer, "scope").split(' ').collect();
        assert_eq!(given, scope.split(' ').collect::<BTreeSet<_>>(), "literally, and nothing wider");
        let token = text(&answer, "access_token");
        for kind in ["Condition", "Observation"] {
            let mine: BTreeSet<String> =
                group.iter().filter(|n| FILED[**n].0 == kind).map(|n| FILED[*n].2.to_owned()).collect();
            for search in ["patient=p1", "patient=Patient/p1&_count=100", "_id=laboratory,survey,other,health-concern"]
            {
                let reply = app.fhir(token, &format!("{kind}?{search}")).await;
                assert_eq!(reply.status, 200, "{kind}?{search}");
                let found: BTreeSet<String> = reply.ids().into_iter().collect();
                assert!(found.is_subset(&mine), "{kind}?{search}: {found:?}");
                assert!(search.starts_with("_id") || found == mine, "all of them: {kind}?{search}: {found:?}");
            }
            for (n, (_, system, code)) in FILED.iter().enumerate().filter(|(_, filed)| filed.0 == kind) {
                let granted = group.contains(&n);
                let one = app.fhir(token, &format!("{kind}/{code}")).await;
                assert_eq!(one.status, if granted { 200 } else { 404 }, "{kind}/{code}");
                assert!(granted || one.json()["resourceType"] == "OperationOutcome");
                let search = format!("{kind}?patient=p1&category={system}%7C{code}");
                assert_eq!(app.fhir(token, &search).await.ids().len(), usize::from(granted), "{search}");
            }
        }
        assert_eq!(app.fhir(token, "Patient/p1").await.status, 200);
        assert_eq!(app.fhir(token, "Encounter?patient=p1").await.status, 403);
    }
}

#[tokio::test]
async fn categories_are_picked_on_the_consent_page() {
    let app = TestApp::new().await;
    filed(&app).await;
    let scope = "launch/patient patient/Condition.rs patient/Observation.rs patient/Patient.rs";
    let fields = [("s1", "some"), ("p1", "1"), ("s2", "some"), ("p2", "0"), ("p2", "2"), ("s3", "all")];
    let answer = decided(&app, scope, &fields).await;
    let expected = format!(
        "launch/patient patient/Condition.rs?category={CONDITION}|problem-list-item \
         patient/Observation.rs?category={OBSERVATION}|laboratory patient/Observation.rs?category={OBSERVATION}|vital-signs \
         patient/Patient.rs"
    );
    assert_eq!(text(&answer, "scope"), expected);
    let token = text(&answer, "access_token");
    assert_eq!(app.fhir(token, "Condition?patient=p1").await.ids(), ["problem-list-item"]);
    assert_eq!(app.fhir(token, "Observation?patient=p1").await.ids().len(), 2);
}

#[tokio::test]
async fn single_types_are_denied_on_the_consent_page() {
    let app = TestApp::new().await;
    filed(&app).await;
    // Patient, Condition and Observation out of everything, as the limited app of the (g)(10) tests is given.
    let page = {
        let mut browser = Browser::new(&app);
        let page = browser.open(&app.authorize("app", "launch/patient patient/*.rs", &[])).await;
        browser.login(&page, "adams").await.text()
    };
    for words in ["The app app", "All records", "Diagnoses and problems", "Do not allow"] {
        assert!(page.contains(words), "{words} in {page}");
    }
    let fields = [("s1", "some"), ("p1", "0"), ("p1", "5"), ("p1", "16")];
    let answer = decided(&app, "launch/patient patient/*.rs", &fields).await;
    assert_eq!(text(&answer, "scope"), "launch/patient patient/Patient.rs patient/Condition.rs patient/Observation.rs");
    let token = text(&answer, "access_token");
    for (path, status) in [
        ("Patient/p1", 200),
        ("Condition?patient=p1", 200),
        ("Observation?patient=p1", 200),
        ("AllergyIntolerance?patient=p1", 403),
        ("CarePlan?patient=p1", 403),
        ("CareTeam?patient=p1", 403),
        ("Device?patient=p1", 403),
        ("DiagnosticReport?patient=p1", 403),
        ("DocumentReference?patient=p1", 403),
        ("Encounter?patient=p1", 403),
        ("Goal?patient=p1", 403),
        ("Immunization?patient=p1", 403),
        ("MedicationRequest?patient=p1", 403),
        ("Procedure?patient=p1", 403),
        ("ServiceRequest?patient=p1", 403),
        ("Coverage?patient=p1", 403),
    ] {
        assert_eq!(app.fhir(token, path).await.status, status, "{path}");
    }
}

#[tokio::test]
async fn scopes_of_version_one_mean_what_they_meant() {
    let app = TestApp::new().await;
    let writer = clinic(&app).await;
    app.client("old", ClientKind::Public, "launch/patient patient/*.* user/*.* openid").await;
    let observation = super::observation("o1", "p1", "1-1");
    assert_eq!(writer.put("Observation/o1", &observation).await.status, 201);
    for (scope, read, write) in [
        ("patient/*.read", 200, 403),
        ("patient/Observation.read", 200, 403),
        ("patient/Observation.write", 403, 200),
        ("patient/Observation.*", 200, 200),
        ("patient/Observation.rs", 200, 403),
        ("patient/Observation.u", 403, 200),
    ] {
        let answer = app.launched("old", "doctor", &format!("launch/patient {scope}"), Some("p1")).await;
        assert_eq!(text(&answer, "scope"), format!("launch/patient {scope}"), "as it was asked for");
        let token = text(&answer, "access_token");
        let bearer = app.bearer(token);
        assert_eq!(app.fhir(token, "Observation/o1").await.status, read, "{scope}");
        assert_eq!(app.fhir(token, "Observation?patient=p1").await.status, read, "{scope}");
        assert_eq!(bearer.put("Observation/o1", &observation).await.status, write, "{scope}");
    }
}

#[tokio::test]
async fn what_is_no_scope_is_left_out_and_the_rest_is_granted() {
    let app = TestApp::new().await;
    clinic(&app).await;
    for (asked, granted) in [
        ("launch/patient patient/Patient.rs nonsense", "launch/patient patient/Patient.rs"),
        ("launch/patient patient/Patient.rs patient/Patient.sr", "launch/patient patient/Patient.rs"),
        ("launch/patient patient/Patient.rs patient/Nothing.rs", "launch/patient patient/Patient.rs"),
        ("launch/patient patient/Patient.rs system/*.rs", "launch/patient patient/Patient.rs"),
        ("launch/patient patient/Patient.cruds", "launch/patient patient/Patient.rs"),
        ("launch/patient patient/Patient.rs launch/imagingstudy", "launch/patient patient/Patient.rs"),
        ("launch/patient  patient/Patient.rs ", "launch/patient patient/Patient.rs"),
    ] {
        let answer = app.launched("app", "adams", asked, None).await;
        assert_eq!(text(&answer, "scope"), granted, "{asked}");
        assert!(answer.get("refresh_token").is_none() && answer.get("id_token").is_none());
    }
}

#[tokio::test]
async fn lists_of_a_token_have_no_patients_but_its_own() {
    let app = TestApp::new().await;
    clinic(&app).await;
    assert_eq!(get(&app, "/fhir/Patient/p1", &[]).await.status, 401);
    let answer = app.launched("app", "doctor", "launch/patient patient/*.rs", Some("p2")).await;
    let token = text(&answer, "access_token");
    assert_eq!(app.fhir(token, "Patient/p2").await.status, 200);
    assert_eq!(app.fhir(token, "Patient").await.ids(), ["p2"]);
    assert_eq!(app.fhir(token, "Encounter").await.ids(), ["p2-e"]);
    assert_eq!(app.fhir(token, "Patient/p1").await.status, 404);
    // Entries of a batch are decided one by one.
    let batch = json!({"resourceType": "Bundle", "type": "batch", "entry": [
        {"request": {"method": "GET", "url": "Patient/p2"}},
        {"request": {"method": "GET", "url": "Patient/p1"}},
        {"request": {"method": "DELETE", "url": "Patient/p2"}},
    ]});
    let reply = app.bearer(token).post("", &batch).await.json();
    let statuses: Vec<String> =
        reply["entry"].as_array().unwrap().iter().map(|one| text(&one["response"], "status")[..3].to_owned()).collect();
    assert_eq!(statuses, ["200", "404", "403"], "{reply}");
}
