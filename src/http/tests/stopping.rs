//! The listener's stop.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::TestApp;
use crate::http::serve::run;

/// Reads until `part` has come.
async fn read_until(stream: &mut TcpStream, part: &str) -> String {
    let mut seen = Vec::new();
    let mut chunk = [0; 4096];
    loop {
        let n = timeout(Duration::from_secs(10), stream.read(&mut chunk)).await.expect("in time").expect("readable");
        seen.extend_from_slice(&chunk[..n]);
        let text = String::from_utf8_lossy(&seen).into_owned();
        if n == 0 || text.contains(part) {
            return text;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_finishes_what_is_under_way_and_does_not_wait_for_idle_connections() {
    let app = TestApp::new().await;
    let backend = app.persona("system/*.cruds").await;
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let (stop, stopped) = oneshot::channel::<()>();
    let server = tokio::spawn(run(app.server(), listener, None, async move {
        let _ = stopped.await;
    }));

    let _never_used = TcpStream::connect(address).await.expect("connects");
    let mut idle = TcpStream::connect(address).await.expect("connects");
    idle.write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n").await.expect("sent");
    assert!(read_until(&mut idle, "ok\n").await.starts_with("HTTP/1.1 200"));

    let body = "{\"resourceType\":\"Patient\",\"id\":\"late\"}";
    let mut busy = TcpStream::connect(address).await.expect("connects");
    let head = format!(
        "PUT /fhir/Patient/late HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\ncontent-type: application/fhir+json\r\n\
         content-length: {}\r\n\r\n",
        backend.token(),
        body.len()
    );
    busy.write_all(head.as_bytes()).await.expect("sent");
    busy.write_all(&body.as_bytes()[..10]).await.expect("sent");
    tokio::time::sleep(Duration::from_millis(200)).await;

    stop.send(()).expect("the server listens for it");
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(!server.is_finished(), "a request is under way");
    assert!(TcpStream::connect(address).await.is_err(), "nothing new is taken");
    busy.write_all(&body.as_bytes()[10..]).await.expect("sent");
    let reply = read_until(&mut busy, "\"late\"").await;
    assert!(reply.starts_with("HTTP/1.1 201"), "{reply}");
    timeout(Duration::from_secs(5), server).await.expect("idle connections do not hold it").expect("no panic");
    assert_eq!(backend.get("Patient/late").await.status, 200, "kept");
}
