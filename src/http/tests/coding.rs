//! Compression of replies, which the listener adds.

use std::io::Read;

use tokio::net::TcpListener;
use tokio::sync::oneshot;

use super::TestApp;
use crate::http::serve::run;

/// Content-Encoding and body as they come over the wire.
fn fetch(address: &str, path: &str, accept: &str) -> (String, Vec<u8>) {
    let url = format!("http://{address}{path}");
    let mut reply = ureq::get(&url).header("accept-encoding", accept).call().expect("a reply");
    let coding = reply.headers().get("content-encoding").map(|value| value.to_str().expect("readable").to_owned());
    (coding.unwrap_or_default(), reply.body_mut().with_config().limit(16 << 20).read_to_vec().expect("a body"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replies_are_compressed_as_the_client_accepts() {
    let app = TestApp::new().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address").to_string();
    let (stop, stopped) = oneshot::channel::<()>();
    let server = tokio::spawn(run(app.server(), listener, None, async move {
        let _ = stopped.await;
    }));
    let fetched = tokio::task::spawn_blocking(move || {
        let (coding, plain) = fetch(&address, "/fhir/metadata", "identity");
        assert_eq!(coding, "");
        let (coding, zipped) = fetch(&address, "/fhir/metadata", "gzip");
        assert_eq!(coding, "gzip");
        let mut unzipped = Vec::new();
        flate2::read::MultiGzDecoder::new(zipped.as_slice()).read_to_end(&mut unzipped).expect("gzip");
        assert!(unzipped == plain && zipped.len() * 4 < plain.len());
        let (coding, packed) = fetch(&address, "/fhir/metadata", "zstd");
        assert_eq!(coding, "zstd");
        assert!(zstd::decode_all(packed.as_slice()).expect("zstd") == plain);
        assert_eq!(fetch(&address, "/healthz", "gzip").0, "", "not worth it");
    });
    fetched.await.expect("as expected");
    stop.send(()).expect("the server listens for it");
    server.await.expect("no panic");
}
