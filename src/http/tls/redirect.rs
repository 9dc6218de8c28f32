//! Where plain HTTP is sent on to the TLS address. What may carry a credential is refused instead: a client that says
//! it in the clear is to be noticed, not served.

use std::convert::Infallible;
use std::time::Duration;

use axum::body::Body;
use axum::http::header::{AUTHORIZATION, CONNECTION, CONTENT_TYPE, COOKIE, HeaderValue, LOCATION};
use axum::http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::time::{sleep, timeout};

/// For the request and its answer.
const TIME: Duration = Duration::from_secs(10);

/// Answers until it is dropped. `origin` has no trailing slash: `https://fhir.example.org`.
pub async fn run(listener: TcpListener, origin: String) {
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            sleep(Duration::from_millis(50)).await;
            continue;
        };
        let origin = origin.clone();
        tokio::spawn(async move {
            let service = service_fn(|request: Request<Incoming>| {
                let reply = answer(&origin, &request);
                async move { Ok::<_, Infallible>(reply) }
            });
            let connection =
                http1::Builder::new().timer(TokioTimer::new()).serve_connection(TokioIo::new(stream), service);
            let _ = timeout(TIME, connection).await;
        });
    }
}

fn answer<B>(origin: &str, request: &Request<B>) -> Response<Body> {
    let says_secrets = [AUTHORIZATION, COOKIE].iter().any(|name| request.headers().contains_key(name));
    let looks = [Method::GET, Method::HEAD].contains(request.method());
    let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
    let to = HeaderValue::from_str(&format!("{origin}{path}")).ok().filter(|_| looks && !says_secrets);
    let mut reply = Response::new(Body::from("This server speaks TLS only.\n"));
    reply.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    reply.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    *reply.status_mut() = if to.is_some() { StatusCode::PERMANENT_REDIRECT } else { StatusCode::FORBIDDEN };
    reply.headers_mut().extend(to.map(|to| (LOCATION, to)));
    reply
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(method: &str, path: &str, headers: &[(&str, &str)]) -> (u16, String) {
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let reply = answer("https://a.example", &request.body(()).unwrap());
        let to = reply.headers().get(LOCATION).map_or("", |to| to.to_str().unwrap()).to_owned();
        (reply.status().as_u16(), to)
    }

    #[test]
    fn only_what_says_no_secret_is_sent_on_and_only_to_here() {
        assert_eq!(answered("GET", "/login?to=launch", &[]), (308, "https://a.example/login?to=launch".into()));
        assert_eq!(
            answered("GET", "//evil.example/", &[("host", "evil.example")]).1,
            "https://a.example//evil.example/"
        );
        assert_eq!(answered("HEAD", "http://evil.example/x", &[]).1, "https://a.example/x");
        for (method, headers) in [
            ("GET", &[("authorization", "Bearer x")][..]),
            ("GET", &[("cookie", "phial=x")]),
            ("POST", &[]),
            ("DELETE", &[]),
            ("CONNECT", &[]),
        ] {
            assert_eq!(answered(method, "/fhir/Patient/1", headers), (403, String::new()), "{method}");
        }
    }
}
