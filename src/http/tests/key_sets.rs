//! Keys that clients publish at an address: fetched, kept, turned over, and not fetched from where they may not be.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::TestApp;
use crate::fetch::tests::acceptor;
use crate::oauth::{ClientKind, Registration, SigningKey};

/// For `localhost`, by an authority that nobody knows unless told.
const AUTHORITY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/fetch/tests/authority.pem");

/// A server of key sets: what it answers now, and how often it was asked.
struct Publisher {
    port: u16,
    tls: bool,
    reply: Arc<Mutex<String>>,
    asked: Arc<AtomicUsize>,
}

impl Publisher {
    async fn new() -> Publisher {
        Publisher::with(None).await
    }

    async fn with(tls: Option<TlsAcceptor>) -> Publisher {
        let is_tls = tls.is_some();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let reply = Arc::new(Mutex::new(String::new()));
        let asked = Arc::new(AtomicUsize::new(0));
        let (answer, count) = (reply.clone(), asked.clone());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                count.fetch_add(1, Ordering::SeqCst);
                let text = answer.lock().unwrap().clone();
                match &tls {
                    None => answered(stream, &text).await,
                    Some(tls) => {
                        if let Ok(stream) = tls.accept(stream).await {
                            answered(stream, &text).await;
                        }
                    }
                }
            }
        });
        Publisher { port, tls: is_tls, reply, asked }
    }

    fn says(&self, status: &str, headers: &str, body: &str) {
        let length = body.len();
        *self.reply.lock().unwrap() = format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\n{headers}\r\n{body}");
    }

    fn publishes(&self, keys: &[&SigningKey], headers: &str) {
        let keys: Vec<Value> = keys.iter().map(|key| key.public_jwk()).collect();
        self.says("200 OK", headers, &json!({ "keys": keys }).to_string());
    }

    fn url(&self) -> String {
        match self.tls {
            true => format!("https://localhost:{}/jwks", self.port),
            false => format!("http://127.0.0.1:{}/jwks", self.port),
        }
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

async fn answered(mut stream: impl AsyncRead + AsyncWrite + Unpin, text: &str) {
    let mut seen = [0u8; 4096];
    let _ = stream.read(&mut seen).await;
    let _ = stream.write_all(text.as_bytes()).await;
    let _ = stream.shutdown().await;
}

async fn client(app: &TestApp, url: &str) {
    let registration = Registration {
        client_id: Some("service".into()),
        name: "service".into(),
        kind: ClientKind::Backend,
        jwks: None,
        jwks_url: Some(url.into()),
        scopes: "system/*.rs".into(),
        redirect_uris: Vec::new(),
        launch_uri: None,
        ehr: false,
        demo: false,
    };
    app.app().oauth.clients().add(registration).await.expect("the client is registered");
}

/// The status of a token request with this key.
async fn token(app: &TestApp, key: &SigningKey) -> u16 {
    let world = &app.app().world;
    let claims = json!({
        "iss": "service", "sub": "service", "aud": app.app().config.token_url(),
        "exp": world.now().seconds() + 60, "jti": world.uuid(),
    });
    let assertion = key.sign("JWT", &claims).unwrap();
    let form = [
        ("grant_type", "client_credentials"),
        ("scope", "system/Patient.rs"),
        ("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"),
        ("client_assertion", assertion.as_str()),
    ];
    app.form("/oauth/token", &form, None).await.status
}

#[tokio::test]
async fn keys_are_turned_over_and_taken_back_within_the_time_their_server_says() {
    let publisher = Publisher::new().await;
    let app = TestApp::with(&[("private_hosts", &format!("127.0.0.1:{}", publisher.port))]).await;
    client(&app, &publisher.url()).await;
    let (one, two) = (SigningKey::generate().unwrap(), SigningKey::generate().unwrap());
    publisher.publishes(&[&one], "Cache-Control: public, max-age=600\r\n");
    assert_eq!((token(&app, &one).await, publisher.asked()), (200, 1));
    app.pass(500);
    assert_eq!((token(&app, &one).await, publisher.asked()), (200, 1), "kept");

    // A new key is found at once; one that nobody has does not make the server ask without end.
    publisher.publishes(&[&one, &two], "Cache-Control: max-age=600\r\n");
    assert_eq!((token(&app, &two).await, publisher.asked()), (200, 2));
    let stranger = SigningKey::generate().unwrap();
    for _ in 0..3 {
        assert_eq!((token(&app, &stranger).await, publisher.asked()), (401, 2));
    }
    app.pass(10);
    for _ in 0..3 {
        assert_eq!((token(&app, &stranger).await, publisher.asked()), (401, 3), "ten seconds later, once");
    }

    // A key that is taken back counts no longer than the set may be kept.
    publisher.publishes(&[&two], "Cache-Control: max-age=600\r\n");
    assert_eq!(token(&app, &one).await, 200);
    app.pass(601);
    assert_eq!((token(&app, &one).await, publisher.asked()), (401, 4));
    assert_eq!(token(&app, &two).await, 200);
}

#[tokio::test]
async fn the_last_set_is_good_for_hours_when_its_address_fails_and_no_longer() {
    let publisher = Publisher::new().await;
    let app = TestApp::with(&[("private_hosts", "127.0.0.1")]).await;
    client(&app, &publisher.url()).await;
    let key = SigningKey::generate().unwrap();
    publisher.says("500 No", "", "{}");
    assert_eq!((token(&app, &key).await, publisher.asked()), (401, 1));
    assert_eq!((token(&app, &key).await, publisher.asked()), (401, 1), "not asked again at once");
    publisher.publishes(&[&key], "");
    app.pass(10);
    assert_eq!((token(&app, &key).await, publisher.asked()), (200, 2));
    app.pass(299);
    assert_eq!((token(&app, &key).await, publisher.asked()), (200, 2), "five minutes, when it says nothing");
    for (status, headers, body) in [
        ("503 Away", "", ""),
        ("302 Found", "Location: http://127.0.0.1:1/\r\n", ""),
        ("200 OK", "", "<html>"),
        ("200 OK", "", "{\"error\": \"no\"}"),
    ] {
        app.pass(60);
        publisher.says(status, headers, body);
        let before = publisher.asked();
        assert_eq!((token(&app, &key).await, publisher.asked()), (200, before + 1), "{status} {body}");
    }
    app.pass(4 * 3600);
    assert_eq!(token(&app, &key).await, 401, "four hours after it was got");
    publisher.publishes(&[&key], "Cache-Control: max-age=999999999\r\n");
    app.pass(10);
    assert_eq!(token(&app, &key).await, 200);
    let before = publisher.asked();
    app.pass(3600);
    assert_eq!((token(&app, &key).await, publisher.asked()), (200, before + 1), "an hour at most");
    publisher.publishes(&[&key], "Cache-Control: max-age=0\r\n");
    app.pass(3600);
    assert_eq!(token(&app, &key).await, 200);
    app.pass(1);
    let before = publisher.asked();
    assert_eq!((token(&app, &key).await, publisher.asked()), (200, before + 1), "no longer than it says");
}

#[tokio::test]
async fn keys_come_over_tls_from_a_server_that_is_trusted_and_from_no_other() {
    let publisher = Publisher::with(Some(acceptor())).await;
    let key = SigningKey::generate().unwrap();
    publisher.publishes(&[&key], "");
    let trusting = [("private_hosts", "localhost"), ("trusted_authorities", AUTHORITY)];
    for (settings, status) in [(&trusting[..1], 401), (&trusting[..], 200)] {
        let app = TestApp::with(settings).await;
        client(&app, &publisher.url()).await;
        assert_eq!(token(&app, &key).await, status);
    }
}

#[tokio::test]
async fn no_client_makes_the_server_ask_inside_its_own_network() {
    let publisher = Publisher::new().await;
    let app = TestApp::new().await;
    client(&app, &publisher.url()).await;
    let key = SigningKey::generate().unwrap();
    publisher.publishes(&[&key], "");
    assert_eq!((token(&app, &key).await, publisher.asked()), (401, 0));
}
