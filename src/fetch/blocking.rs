//! The client of checks on the command line: it blocks, follows no redirects, and takes every status for a reply.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use ureq::Agent;
use ureq::tls::{PemItem, RootCerts, TlsConfig, parse_pem};

use crate::error::{Error, Result};

/// # Errors
/// `Kind::Invalid` when the file of authorities cannot be read. These are trusted in place of the public ones.
pub fn agent(authorities: Option<&Path>, time: Duration) -> Result<Agent> {
    let mut tls = TlsConfig::builder()
        .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()));
    if let Some(path) = authorities {
        let fault = |why: &dyn std::fmt::Display| Error::invalid(format!("{}: {why}", path.display()));
        let bytes = std::fs::read(path).map_err(|error| fault(&error))?;
        let mut roots = Vec::new();
        for item in parse_pem(&bytes) {
            if let PemItem::Certificate(certificate) = item.map_err(|error| fault(&error))? {
                roots.push(certificate);
            }
        }
        if roots.is_empty() {
            return Err(fault(&"it has no certificate"));
        }
        tls = tls.root_certs(RootCerts::new_with_certs(&roots));
    }
    let config = Agent::config_builder()
        .http_status_as_error(false)
        .max_redirects(0)
        .timeout_global(Some(time))
        .tls_config(tls.build());
    Ok(config.build().into())
}
