//! The token endpoint over a real store: what is granted, what is refused, and that every answer is on record.

use serde_json::{Value as Json, json};

use super::assertion::ASSERTION_TYPE;
use super::assertion::tests::{NOW, claims, registration};
use super::*;
use crate::access::token::TOKEN_SECONDS;
use crate::error::Kind;
use crate::store::StoreConfig;
use crate::vault::memory;

const ISSUER: &str = "https://phial.example";
const BASE: &str = "https://phial.example/fhir";

struct Bench {
    state: Arc<State>,
    world: Arc<World>,
    _dir: tempfile::TempDir,
}

async fn store(dir: &tempfile::TempDir, vault: &Vault, world: &Arc<World>) -> Store {
    let url = format!("sqlite:{}", dir.path().join("phial.db").display());
    let config = StoreConfig { url, base: BASE.into(), readers: 2, lanes: 1, candidates_max: 1000 };
    Store::open(config, vault.clone(), world.clone()).await.unwrap()
}

async fn open(store: Store, vault: Vault, world: Arc<World>) -> Arc<State> {
    let trail = Trail::new(store.clone(), vault.clone(), world.clone());
    let limits = Limits {
        backend_token_s: TOKEN_SECONDS,
        person_token_s: 3600,
        session_idle_ms: 1_800_000,
        session_max_ms: 43_200_000,
    };
    let fetch = crate::fetch::Client::new(crate::fetch::Settings::default()).unwrap();
    let settings = Settings {
        issuer: ISSUER.into(),
        base: BASE.into(),
        limits,
        staff_factor: true,
        registering: Registering::Off,
        fetch,
        providers: Vec::new(),
    };
    State::open(store, vault, trail, world, settings).await.unwrap()
}

async fn bench() -> Bench {
    let dir = tempfile::tempdir().unwrap();
    let world = Arc::new(World::held(NOW, 7));
    let vault = memory::vault();
    let store = store(&dir, &vault, &world).await;
    let state = open(store, vault, world.clone()).await;
    Bench { state, world, _dir: dir }
}

impl Bench {
    async fn client(&self, id: &str, scopes: &str) -> SigningKey {
        let key = SigningKey::generate().unwrap();
        self.state.clients().add(registration(id, &key, scopes)).await.unwrap();
        key
    }

    async fn ask(&self, form: &[(&str, &str)]) -> Result<Granted, Refusal> {
        let form: Vec<(String, String)> =
            form.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let request = Request { id: "r".into(), address: "192.0.2.1".into(), ..Request::default() };
        let no_emergency = |_| async { Err(Error::internal("no break-glass here")) };
        self.state.token(TokenRequest { form: &form, authorization: None, request }, no_emergency).await
    }

    async fn ask_with(&self, assertion: &str, scope: &str) -> Result<Granted, Refusal> {
        let form = [
            ("grant_type", "client_credentials"),
            ("client_assertion_type", ASSERTION_TYPE),
            ("client_assertion", assertion),
            ("scope", scope),
        ];
        self.ask(&form).await
    }

    async fn scope(&self, key: &SigningKey, client: &str, jti: &str, scope: &str) -> Result<String, &'static str> {
        let assertion = key.sign("JWT", &claims(client, jti)).unwrap();
        match self.ask_with(&assertion, scope).await {
            Ok(granted) => {
                let caller = self.state.caller(granted.access_token()).await.unwrap();
                assert_eq!(caller.scopes().to_string(), granted.scope);
                assert_eq!(caller.who().client_id, client);
                Ok(granted.scope)
            }
            Err(refusal) => Err(refusal.error),
        }
    }
}

#[tokio::test]
async fn a_backend_client_gets_a_token_that_works_until_it_expires() {
    let bench = bench().await;
    let key = bench.client("backend", "system/*.cruds").await;
    let assertion = key.sign("JWT", &claims("backend", "j1")).unwrap();
    let granted = bench.ask_with(&assertion, "system/*.rs").await.unwrap();
    let body: Json = serde_json::from_slice(&granted.body()).unwrap();
    assert_eq!(body["token_type"], "Bearer");
    assert_eq!(body["expires_in"], TOKEN_SECONDS);
    assert_eq!(body["scope"], "system/*.rs");
    assert!(body.get("refresh_token").is_none());
    let token = body["access_token"].as_str().unwrap();
    assert_eq!(bench.state.caller(token).await.unwrap().who().client_id, "backend");
    bench.world.set_now(NOW.plus_ms(TOKEN_SECONDS * 1000));
    assert_eq!(bench.state.caller(token).await.err().unwrap().kind, Kind::Unauthenticated);
    assert!(bench.state.caller(&assertion).await.is_err(), "an assertion is no access token");
}

#[tokio::test]
async fn what_is_granted_is_what_the_client_may_have() {
    let bench = bench().await;
    let wide = bench.client("wide", "system/*.cruds").await;
    let narrow = bench.client("narrow", "system/Patient.rs system/Observation.rs?category=laboratory user/*.rs").await;
    for (n, (key, client, asked, granted)) in [
        (&wide, "wide", "system/Patient.rs", Ok("system/Patient.rs")),
        (&wide, "wide", "system/Patient.read system/*.*", Ok("system/Patient.read system/*.*")),
        (&wide, "wide", "patient/Patient.rs system/Patient.r", Ok("system/Patient.r")),
        (&wide, "wide", "patient/Patient.rs user/*.cruds openid", Err("invalid_scope")),
        (&wide, "wide", "system/Nothing.rs", Err("invalid_scope")),
        (&wide, "wide", "system/Patient.sr", Err("invalid_scope")),
        (&wide, "wide", "system/Patient.rs?nonsense=1", Err("invalid_scope")),
        (&wide, "wide", "system/Patient.rs?_sort=name", Err("invalid_scope")),
        (&narrow, "narrow", "system/*.rs", Ok("system/Patient.rs system/Observation.rs?category=laboratory")),
        (&narrow, "narrow", "system/Patient.cruds", Ok("system/Patient.rs")),
        (&narrow, "narrow", "system/Observation.r", Ok("system/Observation.r?category=laboratory")),
        (&narrow, "narrow", "user/Patient.rs", Err("invalid_scope")),
        (&narrow, "narrow", "system/Patient.cud", Err("invalid_scope")),
        (&narrow, "narrow", "system/Condition.rs", Err("invalid_scope")),
    ]
    .into_iter()
    .enumerate()
    {
        let got = bench.scope(key, client, &format!("j{n}"), asked).await;
        assert_eq!(got.as_deref(), granted.as_ref().map(|text| *text), "{client}: {asked}");
    }
}

#[tokio::test]
async fn abuse_is_refused() {
    let bench = bench().await;
    let key = bench.client("backend", "system/*.rs").await;
    let stranger = SigningKey::generate().unwrap();
    let good = key.sign("JWT", &claims("backend", "once")).unwrap();
    assert!(bench.ask_with(&good, "system/*.rs").await.is_ok());
    let replayed = bench.ask_with(&good, "system/*.rs").await.err().unwrap();
    assert_eq!((replayed.status, replayed.error), (401, "invalid_client"));
    assert!(replayed.description.contains("jti"));
    // Still remembered at the last moment at which it could be taken.
    bench.world.set_now(NOW.plus_ms(299_999));
    assert!(bench.ask_with(&good, "system/*.rs").await.err().unwrap().description.contains("jti"));
    bench.world.set_now(NOW.plus_ms(300_000));
    assert!(bench.ask_with(&good, "system/*.rs").await.err().unwrap().description.contains("expired"));
    bench.world.set_now(NOW);

    let unknown = stranger.sign("JWT", &claims("nobody", "j")).unwrap();
    assert_eq!(bench.ask_with(&unknown, "system/*.rs").await.err().unwrap().error, "invalid_client");
    let forged = stranger.sign("JWT", &claims("backend", "j")).unwrap();
    assert_eq!(bench.ask_with(&forged, "system/*.rs").await.err().unwrap().error, "invalid_client");
    let form = [("grant_type", "not_a_grant_type")];
    let refusal = bench.ask(&form).await.err().unwrap();
    assert_eq!((refusal.status, refusal.error), (400, "unsupported_grant_type"));

    assert!(bench.state.clients().disable("backend").await.unwrap());
    let late = key.sign("JWT", &claims("backend", "late")).unwrap();
    assert_eq!(bench.ask_with(&late, "system/*.rs").await.err().unwrap().error, "invalid_client");
    assert!(!bench.state.clients().disable("nobody").await.unwrap());
}

#[tokio::test]
async fn a_secret_authenticates_its_own_client_only() {
    let bench = bench().await;
    let asked = Registration {
        kind: ClientKind::ConfidentialSymmetric,
        jwks: None,
        ..registration("symmetric", &SigningKey::generate().unwrap(), "system/*.rs")
    };
    let secret = bench.state.clients().add(asked).await.unwrap().secret.unwrap();
    let form = |secret: &str| {
        [
            ("grant_type", "client_credentials".to_owned()),
            ("client_id", "symmetric".to_owned()),
            ("client_secret", secret.to_owned()),
            ("scope", "system/Patient.rs".to_owned()),
        ]
    };
    let right = form(&secret);
    let right: Vec<(&str, &str)> = right.iter().map(|(name, value)| (*name, value.as_str())).collect();
    assert_eq!(bench.ask(&right).await.unwrap().scope, "system/Patient.rs");
    let wrong = form("wrong");
    let wrong: Vec<(&str, &str)> = wrong.iter().map(|(name, value)| (*name, value.as_str())).collect();
    assert_eq!(bench.ask(&wrong).await.err().unwrap().error, "invalid_client");
}

#[tokio::test]
async fn every_answer_is_on_record_without_secrets() {
    let bench = bench().await;
    let key = bench.client("backend", "system/*.rs").await;
    let assertion = key.sign("JWT", &claims("backend", "j1")).unwrap();
    let granted = bench.ask_with(&assertion, "system/Patient.rs").await.unwrap();
    bench.ask_with(&assertion, "system/Patient.rs").await.err().unwrap();
    bench.ask(&[("grant_type", "nonsense"), ("client_secret", "CANARY")]).await.err().unwrap();

    let rows = bench.state.store.audit_scan(&[], 0..=i32::MAX, None, false, 100).await.unwrap();
    let mut entries = Vec::new();
    for row in &rows {
        for entry in bench.state.store.audit_open(row).await.unwrap() {
            entries.push(String::from_utf8_lossy(&entry.bytes).into_owned());
        }
    }
    let tokens: Vec<&String> = entries.iter().filter(|entry| entry.contains("\"token-")).collect();
    assert_eq!(tokens.len(), 3);
    assert!(tokens[0].contains("token-issued") && tokens[0].contains("\"client\":\"backend\""));
    assert!(tokens[1].contains("token-refused") && tokens[1].contains("invalid_client"));
    assert!(!tokens[1].contains("\"client\""), "a client that did not prove itself is not named as one");
    assert!(tokens[2].contains("unsupported_grant_type"));
    let registered = entries.iter().filter(|entry| entry.contains("client-registered")).count();
    assert_eq!(registered, 1);
    for entry in entries {
        for secret in [granted.access_token(), assertion.as_str(), "CANARY"] {
            assert!(!entry.contains(secret));
        }
    }
}

#[tokio::test]
async fn used_assertions_are_swept_once_they_have_expired() {
    let bench = bench().await;
    let key = bench.client("backend", "system/*.rs").await;
    let used = || async { bench.state.store.kv_list("oauth-jti").await.unwrap().len() };
    bench.ask_with(&key.sign("JWT", &claims("backend", "j1")).unwrap(), "system/*.rs").await.ok().unwrap();
    assert_eq!(used().await, 1);
    assert_eq!(bench.state.store.kv_expire(NOW.plus_ms(300_000)).await.unwrap(), 0, "still to be remembered");
    bench.world.set_now(NOW.plus_ms(400_000));
    for _ in 0..99 {
        bench.ask(&[("grant_type", "nonsense")]).await.err().unwrap();
    }
    assert_eq!(bench.state.store.kv_expire(bench.world.now()).await.unwrap(), 0, "the hundredth answer swept");
}

#[tokio::test]
async fn a_used_assertion_is_remembered_over_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let world = Arc::new(World::held(NOW, 7));
    let vault = memory::vault();
    let before = open(store(&dir, &vault, &world).await, vault.clone(), world.clone()).await;
    let before = Bench { state: before, world: world.clone(), _dir: tempfile::tempdir().unwrap() };
    let key = before.client("backend", "system/*.rs").await;
    let assertion = key.sign("JWT", &claims("backend", "j1")).unwrap();
    let token = before.ask_with(&assertion, "system/*.rs").await.unwrap();
    before.state.store.close().await;
    let after = open(store(&dir, &vault, &world).await, vault, world.clone()).await;
    let after = Bench { state: after, world, _dir: dir };
    assert!(after.ask_with(&assertion, "system/*.rs").await.err().unwrap().description.contains("jti"));
    assert!(after.state.caller(token.access_token()).await.is_ok(), "tokens of before are good");
}

#[tokio::test]
async fn servers_of_one_database_share_key_clients_and_used_assertions() {
    let dir = tempfile::tempdir().unwrap();
    let world = Arc::new(World::held(NOW, 7));
    let vault = memory::vault();
    let here = store(&dir, &vault, &world).await;
    let there = store(&dir, &vault, &world).await;
    let (one, two) = tokio::join!(open(here, vault.clone(), world.clone()), open(there, vault, world.clone()));
    assert_eq!(one.jwks().await.unwrap(), two.jwks().await.unwrap());
    let first = Bench { state: one, world: world.clone(), _dir: dir };
    let key = first.client("backend", "system/*.rs").await;
    let assertion = key.sign("JWT", &claims("backend", "j1")).unwrap();
    let token = first.ask_with(&assertion, "system/*.rs").await.unwrap();
    assert!(two.caller(token.access_token()).await.is_ok());
    let second = Bench { state: two, world, _dir: tempfile::tempdir().unwrap() };
    assert!(second.ask_with(&assertion, "system/*.rs").await.err().unwrap().description.contains("jti"));
    let clients = second.state.clients();
    assert_eq!(clients.list().await.unwrap().len(), 1);
    assert!(!clients.any_demo().await.unwrap());
    let taken = clients.add(registration("backend", &key, "system/*.rs")).await.err().unwrap();
    assert_eq!(taken.kind, Kind::Conflict);
    let demo = Registration { demo: true, ..registration("demo", &key, "system/*.rs") };
    clients.add(demo).await.unwrap();
    assert!(first.state.clients().any_demo().await.unwrap());
    let jwks: Json = serde_json::from_slice(&first.state.jwks().await.unwrap()).unwrap();
    assert!(jwks["keys"][0].get("d").is_none() && jwks["keys"][0]["alg"] == json!("ES384"));
}
