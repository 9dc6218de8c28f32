//! A small HTTP client: plain HTTP to this machine, statuses never errors.

use std::time::Duration;

use serde_json::Value;

/// Largest body the tests read.
const BODY_MAX: u64 = 512 << 20;

/// Speaks to one server. Clones share their connections.
#[derive(Clone)]
pub struct Client {
    agent: ureq::Agent,
    root: String,
    pub token: Option<String>,
}

/// What to send.
#[derive(Clone)]
pub struct Request<'a> {
    pub method: &'a str,
    /// From the root of the server: `/fhir/Patient`.
    pub path: &'a str,
    pub body: Option<&'a [u8]>,
    pub headers: Vec<(&'a str, &'a str)>,
}

pub struct Reply {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Reply {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// # Panics
    /// When the body is no JSON.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{} {e}: {:.300}", self.status, self.text()))
    }
}

impl Client {
    pub fn new(root: &str) -> Client {
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .allow_non_standard_methods(true)
            .max_redirects(0)
            .timeout_global(Some(Duration::from_secs(120)))
            .build();
        Client { agent: config.into(), root: root.to_owned(), token: None }
    }

    /// # Errors
    /// When there is no answer (a server that was killed).
    pub fn send(&self, request: &Request<'_>) -> Result<Reply, ureq::Error> {
        let mut out =
            ureq::http::Request::builder().method(request.method).uri(format!("{}{}", self.root, request.path));
        if let Some(token) = &self.token {
            out = out.header("Authorization", format!("Bearer {token}"));
        }
        for (name, value) in &request.headers {
            out = out.header(*name, *value);
        }
        let mut reply = match request.body {
            Some(body) => self.agent.run(out.body(body).expect("a request"))?,
            None => self.agent.run(out.body(()).expect("a request"))?,
        };
        let headers = reply.headers().iter();
        let headers =
            headers.map(|(name, value)| (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned()));
        let headers = headers.collect();
        let status = reply.status().as_u16();
        let body = reply.body_mut().with_config().limit(BODY_MAX).read_to_vec()?;
        Ok(Reply { status, headers, body })
    }

    pub fn get(&self, path: &str) -> Result<Reply, ureq::Error> {
        // A Binary would come as what it holds otherwise.
        let headers = vec![("Accept", "application/fhir+json, text/plain;q=0.5")];
        self.send(&Request { method: "GET", path, body: None, headers })
    }

    /// Sends a resource as JSON.
    pub fn put_json(&self, path: &str, resource: &Value) -> Result<Reply, ureq::Error> {
        self.json("PUT", path, resource)
    }

    pub fn post_json(&self, path: &str, resource: &Value) -> Result<Reply, ureq::Error> {
        self.json("POST", path, resource)
    }

    fn json(&self, method: &str, path: &str, resource: &Value) -> Result<Reply, ureq::Error> {
        let body = serde_json::to_vec(resource).expect("a tree can be written");
        let headers = vec![("Content-Type", "application/fhir+json"), ("Accept", "application/fhir+json")];
        self.send(&Request { method, path, body: Some(&body), headers })
    }
}
