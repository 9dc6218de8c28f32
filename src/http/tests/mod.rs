//! The server in process: the real router over a SQLite of its own, with a held clock and held ids.

mod abuse;
mod administration;
mod attacks;
mod attacks_tokens;
mod smart;
mod smart_scopes;
mod across;
mod browser;
mod bundles;
mod coding;
mod conditions;
mod leak;
mod limits;
mod cross_origin;
mod coverage;
mod consents;
mod composites;
mod contained;
mod decisions;
mod erasing;
mod error_pages;
mod everything;
mod key_sets;
mod registering;
mod exchange;
mod operations;
mod outside;
mod overlaps;
mod pairs;
mod parameters;
mod passkeys;
mod people;
mod phonetic;
mod histories;
mod later;
mod graphql;
mod invitations;
mod queries;
mod room;
mod launches;
mod references;
mod refusals;
mod reviews;
mod searches;
mod second_step;
mod stopping;
mod verbs;
mod writes;

use std::sync::Arc;

use axum::body::{Body, to_bytes};
use axum::http::{HeaderMap, Request};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::Server;
use crate::access::{Caller, Person, Role};
use crate::app::{App, Config};
use crate::oauth::{ClientKind, Registration, SigningKey};
use crate::store::postgres;
use crate::world::{Instant, World};

/// Runs the cases of a module on both databases.
macro_rules! on_both {
    ($($case:ident),* $(,)?) => {
        mod sqlite {
            $(#[tokio::test]
            async fn $case() {
                super::$case().await;
            })*
        }
        mod postgres {
            $(#[tokio::test]
            async fn $case() {
                crate::http::tests::ON_POSTGRES.scope((), super::$case()).await;
            })*
        }
    };
}
use on_both;

tokio::task_local! {
    /// Set while a case runs whose servers are to store in PostgreSQL.
    static ON_POSTGRES: ();
}

/// 2026-01-31T08:15:30Z.
const NOW_MS: i64 = 1_769_847_330_000;

pub struct TestApp {
    server: Arc<Server>,
    folder: Arc<TempDir>,
}

pub struct Reply {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
}

impl Reply {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("JSON: {}", self.text()))
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().expect("a readable header"))
    }

    /// The ids of the resources in a Bundle, in order.
    pub fn ids(&self) -> Vec<String> {
        let entries = self.json()["entry"].as_array().cloned().unwrap_or_default();
        let ids = entries.iter().filter_map(|entry| entry["resource"]["id"].as_str());
        ids.map(str::to_owned).collect()
    }

    pub fn link(&self, relation: &str) -> Option<String> {
        let links = self.json()["link"].as_array().cloned().unwrap_or_default();
        let link = links.into_iter().find(|link| link["relation"] == relation)?;
        link["url"].as_str().map(str::to_owned)
    }

    /// The places that an OperationOutcome names.
    pub fn places(&self) -> Vec<String> {
        let issues = self.json()["issue"].as_array().cloned().unwrap_or_default();
        let places = issues.iter().filter_map(|issue| issue["expression"][0].as_str());
        places.map(str::to_owned).collect()
    }
}

/// A caller with a token.
pub struct Persona<'a> {
    app: &'a TestApp,
    token: String,
}

impl TestApp {
    pub async fn new() -> TestApp {
        TestApp::with(&[]).await
    }

    /// With further settings.
    pub async fn with(settings: &[(&'static str, &str)]) -> TestApp {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let at = |name: &str| folder.path().join(name).display().to_string();
        let mut set = vec![
            ("base_url", "http://phial.test/fhir".to_owned()),
            ("database_url", format!("sqlite:{}", at("phial.db"))),
            ("key_database_url", format!("sqlite:{}", at("keys.db"))),
            ("keyring", at("keyring")),
            // Requests of these tests come through no socket, as if all from one address; limits have tests of their own.
            ("rate_free_addresses", "0.0.0.0".to_owned()),
            ("rate_user_max", "0".to_owned()),
            ("rate_client_max", "0".to_owned()),
        ];
        if ON_POSTGRES.try_with(|()| ()).is_ok() {
            set[1].1 = postgres::database();
        }
        set.extend(settings.iter().map(|(key, value)| (*key, (*value).to_owned())));
        let config = Config::load(None, [], &set).expect("valid settings");
        let app = App::open(config, Arc::new(World::held(Instant(NOW_MS), 7))).await.expect("the app opens");
        TestApp { server: Server::new(app, None), folder: Arc::new(folder) }
    }

    /// Another server on the same databases, with the same clock.
    pub async fn again(&self) -> TestApp {
        let app = App::open(self.app().config.clone(), self.app().world.clone()).await.expect("the app opens");
        TestApp { server: Server::new(app, None), folder: self.folder.clone() }
    }

    /// The same on another copy of the data.
    pub async fn again_on(&self, database_url: String) -> TestApp {
        let config = Config { database_url, ..self.app().config.clone() };
        let app = App::open(config, self.app().world.clone()).await.expect("the app opens");
        TestApp { server: Server::new(app, None), folder: self.folder.clone() }
    }

    pub fn app(&self) -> &App {
        &self.server.app
    }

    pub fn server(&self) -> Arc<Server> {
        self.server.clone()
    }

    /// Moves the held clock.
    pub fn pass(&self, seconds: i64) {
        let now = self.app().world.now();
        self.app().world.set_now(now.plus_ms(seconds * 1000));
    }

    /// A registered backend client with these scopes, and its token.
    pub async fn persona(&self, scopes: &str) -> Persona<'_> {
        let key = SigningKey::generate().expect("a key");
        let registration = Registration {
            client_id: None,
            name: "test".into(),
            kind: ClientKind::Backend,
            jwks: Some(json!({"keys": [key.public_jwk()]})),
            jwks_url: None,
            scopes: scopes.into(),
            redirect_uris: Vec::new(),
            launch_uri: None,
            ehr: false,
            demo: false,
        };
        let client = self.app().oauth.clients().add(registration).await.expect("the client is registered").client;
        let now_s = self.app().world.now().seconds();
        let claims = json!({
            "iss": client.client_id, "sub": client.client_id, "aud": self.app().config.token_url(),
            "iat": now_s, "exp": now_s + 60, "jti": self.app().world.uuid(),
        });
        let assertion = key.sign("JWT", &claims).expect("a signature");
        let form = crate::interaction::form::encode(&[
            ("grant_type".into(), "client_credentials".into()),
            ("scope".into(), scopes.into()),
            ("client_assertion_type".into(), "urn:ietf:params:oauth:client-assertion-type:jwt-bearer".into()),
            ("client_assertion".into(), assertion),
        ]);
        let request = Request::post("/oauth/token").header("content-type", "application/x-www-form-urlencoded");
        let reply = self.send(request.body(Body::from(form)).expect("a request")).await;
        assert_eq!(reply.status, 200, "{}", reply.text());
        let token = reply.json()["access_token"].as_str().expect("a token").to_owned();
        Persona { app: self, token }
    }

    /// A person with these scopes, and with the patient of the launch where there is one.
    pub fn person(&self, role: Role, fhir_user: &str, launch: Option<&str>, scopes: &str) -> Persona<'_> {
        let person = Person {
            role,
            fhir_user: Some(fhir_user.to_owned()),
            patient: launch.map(str::to_owned),
            encounter: None,
            authorization: "test".to_owned(),
            emergency: None,
        };
        self.somebody(person, scopes)
    }

    /// Whoever has this token.
    pub fn bearer(&self, token: &str) -> Persona<'_> {
        Persona { app: self, token: token.to_owned() }
    }

    pub fn somebody(&self, person: Person, scopes: &str) -> Persona<'_> {
        let user = format!("user-of-{}", person.fhir_user.as_deref().unwrap_or_default());
        self.admit(Caller::stand_in_person(&user, person, scopes, &self.app().config.base_url))
    }

    /// Gives a caller a token.
    pub fn admit(&self, caller: Caller) -> Persona<'_> {
        let token = format!("test-{}", self.app().world.uuid());
        self.app().oauth.stand_in(&token, caller);
        Persona { app: self, token }
    }

    pub async fn send(&self, request: Request<Body>) -> Reply {
        let (parts, body) = Box::pin(self.server.clone().serve(request)).await.into_parts();
        let body = to_bytes(body, usize::MAX).await.expect("the reply's body");
        Reply { status: parts.status.as_u16(), headers: parts.headers, body: body.to_vec() }
    }
}

impl Persona<'_> {
    pub fn token(&self) -> &str {
        &self.token
    }

    /// Sends a request below the FHIR base; `headers` may name any.
    pub async fn call(&self, method: &str, path: &str, headers: &[(&str, &str)], body: impl Into<Body>) -> Reply {
        let path = path.strip_prefix("http://phial.test/fhir").unwrap_or(path).trim_start_matches('/');
        let joint = if path.is_empty() || path.starts_with('?') { "" } else { "/" };
        let uri = format!("/fhir{joint}{path}");
        let mut request = Request::builder().method(method).uri(uri);
        request = request.header("authorization", format!("Bearer {}", self.token));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.app.send(request.body(body.into()).expect("a request")).await
    }

    pub async fn get(&self, path: &str) -> Reply {
        self.call("GET", path, &[], Body::empty()).await
    }

    pub async fn delete(&self, path: &str) -> Reply {
        self.call("DELETE", path, &[], Body::empty()).await
    }

    pub async fn post(&self, path: &str, resource: &Value) -> Reply {
        self.call("POST", path, &[("content-type", "application/fhir+json")], resource.to_string()).await
    }

    pub async fn put(&self, path: &str, resource: &Value) -> Reply {
        self.call("PUT", path, &[("content-type", "application/fhir+json")], resource.to_string()).await
    }

    /// The AuditEvents of one request.
    pub async fn audit_of(&self, request_id: &str) -> Vec<Value> {
        let reply = self.get("AuditEvent?_count=1000").await;
        assert_eq!(reply.status, 200, "{}", reply.text());
        let entries = reply.json()["entry"].as_array().cloned().unwrap_or_default();
        let of_request = |event: &Value| {
            let entities = event["entity"].as_array().cloned().unwrap_or_default();
            entities.iter().any(|entity| entity["what"]["identifier"]["value"] == request_id)
        };
        entries.into_iter().map(|mut entry| entry["resource"].take()).filter(of_request).collect()
    }
}

pub fn patient(id: &str, family: &str) -> Value {
    json!({"resourceType": "Patient", "id": id, "name": [{"family": family}]})
}

/// An Observation of a patient.
pub fn observation(id: &str, patient: &str, code: &str) -> Value {
    json!({
        "resourceType": "Observation", "id": id, "status": "final",
        "code": {"coding": [{"system": "http://loinc.org", "code": code}]},
        "subject": {"reference": format!("Patient/{patient}")},
    })
}
