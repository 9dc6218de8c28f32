//! The one HTTP client of the process: small requests to servers of others, such as identity providers and the key
//! sets of apps. No redirects, no proxy, no cookies; every reply has a limit of size and time. Must not know what a
//! request is for: who named its address ([`Reach`]) decides where it may lead.

mod address;
pub mod blocking;

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, CACHE_CONTROL, CONNECTION, CONTENT_ENCODING, HOST, USER_AGENT};
use http::{HeaderValue, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, lookup_host};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::error::{Error, Kind, Result};
use address::Target;

/// A reply may have so many bytes.
const BODY_BYTES_MAX: usize = 512 * 1024;
const HEADER_BYTES_MAX: usize = 64 * 1024;
/// Requests under way; further ones wait, within their time.
const REQUESTS_MAX: usize = 32;
/// Addresses of a host that are tried one after the other.
const ADDRESSES_MAX: usize = 4;
const CONNECT_TIME: Duration = Duration::from_secs(3);
/// For all of it: waiting, name, connection, TLS, request, reply.
const TIME: Duration = Duration::from_secs(10);

/// Who named an address: that decides where a request to it may lead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// The operator, in the configuration: anywhere.
    Configured,
    /// Somebody else, such as a client with the address of its keys: to the public internet, and to the hosts that the
    /// operator lists.
    Public,
}

/// Why there is no reply. Says nothing of what was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// What is wrong with the address.
    Address(&'static str),
    /// The address leads where it may not.
    Forbidden,
    /// The host has no address.
    Name,
    /// Nobody answers there.
    Connection,
    /// No TLS connection: most often a certificate that is not trusted.
    Tls,
    Time,
    TooLarge,
    /// What came back is no HTTP reply that can be read.
    Reply,
    /// Another status than 200.
    Status(StatusCode),
    /// No JSON.
    Json,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Address(expected) => f.write_str(expected),
            Failure::Forbidden => {
                f.write_str("the address leads to a private network, or does without TLS, which is not allowed for it")
            }
            Failure::Name => f.write_str("the host has no address"),
            Failure::Connection => f.write_str("nobody answers there"),
            Failure::Tls => f.write_str("no TLS connection could be made: is its certificate trusted here?"),
            Failure::Time => f.write_str("it took too long"),
            Failure::TooLarge => f.write_str("the reply is larger than allowed"),
            Failure::Reply => f.write_str("the reply is no HTTP that can be read"),
            Failure::Status(status) => write!(f, "it answered {}", status.as_u16()),
            Failure::Json => f.write_str("the reply is no JSON"),
        }
    }
}

impl std::error::Error for Failure {}

/// A JSON document of another server.
pub struct Document {
    pub value: serde_json::Value,
    /// How long it may be kept, if its server says so.
    pub max_age_s: Option<u64>,
}

/// What the client is made with.
#[derive(Clone, Default)]
pub struct Settings {
    /// `host` or `host:port`: inside the own network, and allowed all the same when others name them.
    pub private_hosts: Vec<String>,
    /// PEM file of certificate authorities that are trusted besides the public ones.
    pub authorities: Option<std::path::PathBuf>,
}

/// The client. Clones are cheap and share its limits.
#[derive(Clone)]
pub struct Client(Arc<Inner>);

struct Inner {
    tls: TlsConnector,
    private_hosts: Vec<String>,
    places: Semaphore,
    time: Duration,
}

impl Client {
    /// # Errors
    /// `Kind::Invalid` when the file of authorities cannot be read.
    pub fn new(settings: Settings) -> Result<Client> {
        Client::with_time(settings, TIME)
    }

    fn with_time(settings: Settings, time: Duration) -> Result<Client> {
        let mut roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
        if let Some(path) = &settings.authorities {
            add_authorities(&mut roots, path)?;
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(Error::internal)?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let tls = TlsConnector::from(Arc::new(config));
        let private_hosts = settings.private_hosts;
        Ok(Client(Arc::new(Inner { tls, private_hosts, places: Semaphore::new(REQUESTS_MAX), time })))
    }

    /// Sends a request to its absolute address. A redirect is a reply as any other.
    ///
    /// # Errors
    /// Why there is no reply.
    pub async fn send(&self, request: Request<Vec<u8>>, reach: Reach) -> Result<Response<Vec<u8>>, Failure> {
        timeout(self.0.time, self.exchange(request, reach)).await.unwrap_or(Err(Failure::Time))
    }

    /// Fetches a JSON document.
    ///
    /// # Errors
    /// Why there is none; any status but 200 is a failure.
    pub async fn json(&self, url: &str, reach: Reach) -> Result<Document, Failure> {
        let uri: Uri = url.parse().map_err(|_| Failure::Address("a URL is expected"))?;
        let mut request = Request::new(Vec::new());
        *request.uri_mut() = uri;
        request.headers_mut().insert(ACCEPT, HeaderValue::from_static("application/json"));
        let reply = self.send(request, reach).await?;
        if reply.status() != StatusCode::OK {
            return Err(Failure::Status(reply.status()));
        }
        let control = reply.headers().get(CACHE_CONTROL).and_then(|value| value.to_str().ok());
        let max_age_s = control.and_then(max_age);
        let value = serde_json::from_slice(reply.body()).map_err(|_| Failure::Json)?;
        Ok(Document { value, max_age_s })
    }

    async fn exchange(&self, request: Request<Vec<u8>>, reach: Reach) -> Result<Response<Vec<u8>>, Failure> {
        let target = Target::of(request.uri())?;
        let request = prepared(request)?;
        let _place = self.0.places.acquire().await.map_err(|_| Failure::Connection)?;
        let stream = self.connect(&target, reach).await?;
        let reply = if target.tls {
            let name = ServerName::try_from(target.host.clone()).map_err(|_| Failure::Name)?;
            let stream = self.0.tls.connect(name, stream).await.map_err(|error| {
                tracing::debug!(host = target.host, %error, "no TLS");
                Failure::Tls
            })?;
            talk(stream, request).await
        } else {
            talk(stream, request).await
        };
        let status = reply.as_ref().map(|reply| reply.status().as_u16()).ok();
        tracing::debug!(host = target.host, status, "asked another server");
        reply
    }

    /// The addresses that were judged are the ones that are connected to: a name cannot change its meaning in between.
    async fn connect(&self, target: &Target, reach: Reach) -> Result<TcpStream, Failure> {
        let found = lookup_host((target.host.as_str(), target.port)).await.map_err(|_| Failure::Name)?;
        let addresses: Vec<_> = found.collect();
        if !addresses.iter().all(|address| target.allows(*address, reach, &self.0.private_hosts)) {
            return Err(Failure::Forbidden);
        }
        for address in addresses.iter().take(ADDRESSES_MAX) {
            if let Ok(Ok(stream)) = timeout(CONNECT_TIME, TcpStream::connect(address)).await {
                return Ok(stream);
            }
        }
        Err(if addresses.is_empty() { Failure::Name } else { Failure::Connection })
    }
}

fn add_authorities(roots: &mut RootCertStore, path: &Path) -> Result<()> {
    let fault = |why: &dyn fmt::Display| {
        Error::new(Kind::Invalid, format!("setting trusted_authorities: {}: {why}", path.display()))
    };
    let mut any = false;
    for certificate in CertificateDer::pem_file_iter(path).map_err(|error| fault(&error))? {
        roots.add(certificate.map_err(|error| fault(&error))?).map_err(|error| fault(&error))?;
        any = true;
    }
    if any { Ok(()) } else { Err(fault(&"it has no certificate")) }
}

/// The request in the form that it has on the wire.
fn prepared(request: Request<Vec<u8>>) -> Result<Request<Full<Bytes>>, Failure> {
    let (mut parts, body) = request.into_parts();
    let host = parts.uri.authority().map(|authority| authority.as_str().to_owned()).unwrap_or_default();
    let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
    parts.uri = path.parse().map_err(|_| Failure::Address("a URL is expected"))?;
    let host = HeaderValue::from_str(&host).map_err(|_| Failure::Address("a URL is expected"))?;
    parts.headers.insert(HOST, host);
    parts.headers.insert(USER_AGENT, HeaderValue::from_static(concat!("phial/", env!("CARGO_PKG_VERSION"))));
    parts.headers.insert(CONNECTION, HeaderValue::from_static("close"));
    Ok(Request::from_parts(parts, Full::new(Bytes::from(body))))
}

/// One request and its reply on a connection of its own.
async fn talk<S>(stream: S, request: Request<Full<Bytes>>) -> Result<Response<Vec<u8>>, Failure>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut builder = http1::Builder::new();
    builder.max_buf_size(HEADER_BYTES_MAX);
    let (mut sender, connection) = builder.handshake(TokioIo::new(stream)).await.map_err(|_| Failure::Reply)?;
    // Ends with this function, also when the time is up.
    let mut driver = JoinSet::new();
    driver.spawn(connection);
    let reply = sender.send_request(request).await.map_err(|_| Failure::Reply)?;
    let (parts, body) = reply.into_parts();
    let plain = parts.headers.get(CONTENT_ENCODING).is_none_or(|coding| coding == "identity");
    if !plain {
        return Err(Failure::Reply);
    }
    let body = Limited::new(body, BODY_BYTES_MAX).collect().await.map_err(|error| {
        if error.is::<http_body_util::LengthLimitError>() { Failure::TooLarge } else { Failure::Reply }
    })?;
    Ok(Response::from_parts(parts, body.to_bytes().to_vec()))
}

fn max_age(control: &str) -> Option<u64> {
    let mut parts = control.split(',').map(str::trim);
    parts.find_map(|part| part.strip_prefix("max-age=")?.parse().ok())
}

#[cfg(test)]
pub(crate) mod tests;
