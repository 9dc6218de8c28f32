//! TLS of the server's own: 1.2 and 1.3 with the suites that rustls has, and a certificate that is renewed without a
//! restart. Must not know what is served.

pub(super) mod redirect;

use std::fmt;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use axum::http::HeaderValue;
use rustls::ServerConfig;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio::net::TcpStream;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::app::Config;
use crate::error::{Error, Kind, Result};

/// A client must have done its part of the handshake by then.
const HANDSHAKE_TIME: Duration = Duration::from_secs(10);
/// How often the files are looked at, besides at SIGHUP.
const RENEWED_WITHIN: Duration = Duration::from_secs(30);

/// What connections are accepted with. Clones are cheap and share the certificate.
#[derive(Clone)]
pub(super) struct Tls {
    acceptor: TlsAcceptor,
    shown: Arc<Shown>,
    provider: Arc<CryptoProvider>,
    files: Arc<[PathBuf; 2]>,
    hsts: Option<HeaderValue>,
}

/// The certificate of this moment.
struct Shown(RwLock<Arc<CertifiedKey>>);

impl fmt::Debug for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Shown")
    }
}

impl ResolvesServerCert for Shown {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.now())
    }
}

impl Shown {
    fn now(&self) -> Arc<CertifiedKey> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Tls {
    /// None: the settings name no certificate.
    ///
    /// # Errors
    /// `Kind::Invalid` that names the setting, when its file cannot be used.
    pub fn of(config: &Config) -> Result<Option<Tls>> {
        if !config.speaks_tls() {
            return Ok(None);
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let files = Arc::new([PathBuf::from(&config.tls_cert), PathBuf::from(&config.tls_key)]);
        let shown = Arc::new(Shown(RwLock::new(Arc::new(read(&files, &provider)?))));
        let mut tls = ServerConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .map_err(Error::internal)?
            .with_no_client_auth()
            .with_cert_resolver(shown.clone());
        tls.alpn_protocols = vec![b"http/1.1".to_vec()];
        let hsts = match config.tls_hsts_s.get() {
            0 => None,
            seconds => Some(HeaderValue::from_str(&format!("max-age={seconds}")).map_err(Error::internal)?),
        };
        Ok(Some(Tls { acceptor: TlsAcceptor::from(Arc::new(tls)), shown, provider, files, hsts }))
    }

    /// What every reply says of plain HTTP.
    pub fn hsts(&self) -> Option<HeaderValue> {
        self.hsts.clone()
    }

    /// # Errors
    /// When the client speaks no TLS, an old one, or takes too long.
    pub async fn accept(&self, stream: TcpStream) -> std::io::Result<TlsStream<TcpStream>> {
        timeout(HANDSHAKE_TIME, self.acceptor.accept(stream)).await?
    }

    /// Looks at the files again and again, and takes up what is new in them. What cannot be used changes nothing.
    ///
    /// # Errors
    /// When SIGHUP cannot be listened for.
    pub fn renewing(self) -> Result<impl Future<Output = ()>> {
        let mut hangup = signal(SignalKind::hangup()).map_err(Error::internal)?;
        Ok(async move {
            loop {
                tokio::select! {
                    _ = hangup.recv() => {}
                    () = sleep(RENEWED_WITHIN) => {}
                }
                self.renew();
            }
        })
    }

    fn renew(&self) {
        match read(&self.files, &self.provider) {
            Ok(key) if key.cert != self.shown.now().cert => {
                *self.shown.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(key);
                tracing::info!("the renewed certificate is shown from now on");
            }
            Ok(_) => {}
            Err(error) => tracing::error!(%error, "the certificate could not be renewed: the one before is kept"),
        }
    }
}

/// The certificate with its key, which belong together.
fn read([cert, key]: &[PathBuf; 2], provider: &CryptoProvider) -> Result<CertifiedKey> {
    let chain = CertificateDer::pem_file_iter(cert).and_then(Iterator::collect::<std::result::Result<Vec<_>, _>>);
    let chain = chain.map_err(|error| fault("tls_cert", cert, &error))?;
    if chain.is_empty() {
        return Err(fault("tls_cert", cert, &"it has no certificate"));
    }
    let private = PrivateKeyDer::from_pem_file(key).map_err(|error| fault("tls_key", key, &error))?;
    // Also finds out whether the key is that of the certificate.
    CertifiedKey::from_der(chain, private, provider).map_err(|error| fault("tls_key", key, &error))
}

fn fault(setting: &str, file: &Path, why: &dyn fmt::Display) -> Error {
    Error::new(Kind::Invalid, format!("setting {setting}: {}: {why}", file.display()))
}
