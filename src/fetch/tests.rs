//! Against small servers on this machine that answer what a test says.

use std::sync::atomic::{AtomicUsize, Ordering};

use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::*;

const SERVER: &[u8] = include_bytes!("tests/server.pem");
const SERVER_KEY: &[u8] = include_bytes!("tests/server-key.pem");

/// The port of a server that gives every connection this reply; then the requests it has seen.
async fn server(reply: Vec<u8>, tls: bool) -> (u16, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let seen = Arc::new(AtomicUsize::new(0));
    let count = seen.clone();
    let acceptor = tls.then(acceptor);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            count.fetch_add(1, Ordering::SeqCst);
            match &acceptor {
                Some(acceptor) => match acceptor.accept(stream).await {
                    Ok(stream) => answer(stream, &reply).await,
                    Err(_) => continue,
                },
                None => answer(stream, &reply).await,
            }
        }
    });
    (port, seen)
}

/// Serves as `localhost` with the certificate of these tests.
pub(crate) fn acceptor() -> TlsAcceptor {
    let chain = CertificateDer::pem_slice_iter(SERVER).map(Result::unwrap).collect();
    let key = PrivateKeyDer::from_pem_slice(SERVER_KEY).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    TlsAcceptor::from(Arc::new(config.with_no_client_auth().with_single_cert(chain, key).unwrap()))
}

async fn answer<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S, reply: &[u8]) {
    let mut seen = Vec::new();
    let mut part = [0u8; 4096];
    while !seen.windows(4).any(|four| four == b"\r\n\r\n") {
        match stream.read(&mut part).await {
            Ok(n) if n > 0 => seen.extend_from_slice(&part[..n]),
            _ => return,
        }
    }
    // A client may hang up before it has all: that is its right.
    let _ = stream.write_all(reply).await;
    let _ = stream.shutdown().await;
}

fn reply(head: &str, body: &[u8]) -> Vec<u8> {
    let mut bytes = format!("HTTP/1.1 {head}\r\nContent-Length: {}\r\n\r\n", body.len()).into_bytes();
    bytes.extend_from_slice(body);
    bytes
}

fn client(private_hosts: &[&str], authorities: Option<&str>) -> Client {
    let private_hosts = private_hosts.iter().map(|host| (*host).to_owned()).collect();
    let below = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/fetch/tests");
    Client::new(Settings { private_hosts, authorities: authorities.map(|name| below.join(name)) }).unwrap()
}

#[tokio::test]
async fn a_document_comes_with_its_age() {
    let (port, seen) = server(reply("200 OK\r\nCache-Control: public, max-age=60", b"{\"a\":1}"), false).await;
    let document = client(&[], None).json(&format!("http://127.0.0.1:{port}/x"), Reach::Configured).await.unwrap();
    assert_eq!((document.value["a"].as_i64(), document.max_age_s), (Some(1), Some(60)));
    assert_eq!(seen.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn what_others_name_does_not_lead_inside() {
    let (port, seen) = server(reply("200 OK", b"{}"), false).await;
    let closed = client(&[], None);
    for url in [
        format!("http://127.0.0.1:{port}/"),
        format!("https://127.0.0.1:{port}/"),
        format!("https://localhost:{port}/"),
        // The same address, written so that a careless reader does not see it.
        format!("https://2130706433:{port}/"),
        format!("https://0x7f.1:{port}/"),
        format!("https://[::ffff:127.0.0.1]:{port}/"),
    ] {
        let failure = closed.json(&url, Reach::Public).await.err();
        assert!(matches!(failure, Some(Failure::Forbidden | Failure::Name)), "{url}: {failure:?}");
    }
    assert_eq!(seen.load(Ordering::SeqCst), 0);
    let open = client(&[&format!("127.0.0.1:{port}")], None);
    open.json(&format!("http://127.0.0.1:{port}/"), Reach::Public).await.unwrap();
    assert_eq!(seen.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn redirects_are_not_followed() {
    let (inner, seen) = server(reply("200 OK", b"{}"), false).await;
    let (port, _) = server(reply(&format!("302 Found\r\nLocation: http://127.0.0.1:{inner}/"), b""), false).await;
    let url = format!("http://127.0.0.1:{port}/");
    let failure = client(&[], None).json(&url, Reach::Configured).await.err();
    assert_eq!(failure, Some(Failure::Status(StatusCode::FOUND)));
    assert_eq!(seen.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn replies_have_limits() {
    let large = reply("200 OK", &vec![b' '; BODY_BYTES_MAX + 1]);
    let mut endless = b"HTTP/1.1 200 OK\r\n\r\n".to_vec();
    endless.extend_from_slice(&vec![b' '; BODY_BYTES_MAX + 1]);
    let headers = reply(&format!("200 OK\r\nX: {}", "x".repeat(3 * HEADER_BYTES_MAX)), b"{}");
    let packed = reply("200 OK\r\nContent-Encoding: gzip", b"{}");
    for (bytes, expected) in [
        (large, Failure::TooLarge),
        (endless, Failure::TooLarge),
        (headers, Failure::Reply),
        (packed, Failure::Reply),
        (b"SSH-2.0-x\r\n".to_vec(), Failure::Reply),
        (reply("200 OK", b"<html>"), Failure::Json),
    ] {
        let (port, _) = server(bytes, false).await;
        let got = client(&[], None).json(&format!("http://127.0.0.1:{port}/"), Reach::Configured).await.err();
        assert_eq!(got, Some(expected));
    }
}

#[tokio::test]
async fn a_server_that_says_nothing_is_given_up() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let hasty = Client::with_time(Settings::default(), Duration::from_millis(200)).unwrap();
    let got = hasty.json(&url, Reach::Configured).await.err();
    assert_eq!(got, Some(Failure::Time));
}

#[tokio::test]
async fn only_trusted_certificates_of_the_right_name_are_taken() {
    let (port, seen) = server(reply("200 OK", b"{}"), true).await;
    let (right, wrong) = (format!("https://localhost:{port}/"), format!("https://127.0.0.2:{port}/"));
    let strange = client(&[], None).json(&right, Reach::Configured).await.err();
    assert_eq!(strange, Some(Failure::Tls));
    let trusting = client(&[], Some("authority.pem"));
    trusting.json(&right, Reach::Configured).await.unwrap();
    assert!(seen.load(Ordering::SeqCst) >= 2);
    let got = trusting.json(&wrong, Reach::Configured).await.err();
    assert!(matches!(got, Some(Failure::Tls | Failure::Connection)), "{got:?}");
}

#[test]
fn a_file_of_authorities_that_has_none_is_refused() {
    for name in ["server-key.pem", "nowhere.pem"] {
        let authorities = Some(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/fetch/tests").join(name));
        let error = Client::new(Settings { private_hosts: Vec::new(), authorities }).err().unwrap();
        assert!(error.to_string().contains(name), "{error}");
    }
}
