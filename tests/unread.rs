//! A request that is refused before its body came leaves a connection that can be used, or is said to end.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use crate::harness::{Data, Engine};

/// One reply, without its body; "" when the server has hung up.
fn reply(stream: &mut TcpStream) -> String {
    let mut buffer = vec![0; 64 << 10];
    let length = stream.read(&mut buffer).unwrap_or(0);
    String::from_utf8_lossy(&buffer[..length]).to_lowercase()
}

#[test]
fn a_refusal_leaves_the_connection_in_use_or_says_that_it_ends() {
    let data = Data::new(Engine::Sqlite);
    let server = data.serve();
    let connect = || {
        let stream = TcpStream::connect(("127.0.0.1", server.port())).expect("connects");
        stream.set_read_timeout(Some(Duration::from_secs(20))).expect("takes a timeout");
        stream
    };
    let post = |path: &str, length: usize, more: &str| {
        format!(
            "POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/fhir+json\r\n{more}Content-Length: {length}\r\n\r\n"
        )
    };
    // The body comes after the server has made up its mind.
    for path in ["/fhir/Patient", "/fhir/metadata", "/fhir/Nothing", "/nothing"] {
        let mut stream = connect();
        stream.write_all(post(path, 3000, "").as_bytes()).expect("sends");
        std::thread::sleep(Duration::from_millis(100));
        stream.write_all(&[b' '; 3000]).expect("sends the body");
        let refused = reply(&mut stream);
        assert!(refused.starts_with("http/1.1 4") && !refused.contains("connection: close"), "{path}: {refused}");
        stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").expect("sends");
        assert!(reply(&mut stream).starts_with("http/1.1 200"), "{path}");
    }
    // One that never comes, one that is too large to be read for nothing, and one that the server is to ask for.
    for (length, more) in [(3000, ""), (50 << 20, ""), (3000, "Expect: 100-continue\r\n")] {
        let mut stream = connect();
        stream.write_all(post("/fhir/Nothing", length, more).as_bytes()).expect("sends");
        let refused = reply(&mut stream);
        assert!(refused.starts_with("http/1.1 4") && refused.contains("connection: close"), "{length}: {refused}");
    }
}
