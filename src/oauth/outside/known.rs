//! What a provider publishes of itself: its endpoints and keys, kept for a while and fetched anew when keys change.

use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use openidconnect::core::{
    CoreAuthDisplay, CoreClaimName, CoreClaimType, CoreClientAuthMethod, CoreGrantType, CoreJsonWebKey,
    CoreJweContentEncryptionAlgorithm, CoreJweKeyManagementAlgorithm, CoreResponseMode, CoreResponseType,
    CoreSubjectIdentifierType,
};
use openidconnect::{
    AdditionalProviderMetadata, AsyncHttpClient, HttpRequest, HttpResponse, IssuerUrl, ProviderMetadata,
};
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;

use super::refused::Refused;
use super::settings::Provider;
use crate::fetch::{self, Reach};
use crate::world::Instant;

/// What is known is fetched anew after so long,
const AGE_MS: i64 = 3_600_000;
/// goes on being used for so long when it cannot be,
const AGE_MAX_MS: i64 = 86_400_000;
/// and is fetched for the sake of an unknown key at most this often.
const KEYS_AGE_MS: i64 = 5_000;

/// What providers publish beside what the specification of discovery has.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct More {
    pub end_session_endpoint: Option<String>,
    #[serde(default)]
    pub authorization_response_iss_parameter_supported: bool,
}

impl AdditionalProviderMetadata for More {}

pub type Metadata = ProviderMetadata<
    More,
    CoreAuthDisplay,
    CoreClientAuthMethod,
    CoreClaimName,
    CoreClaimType,
    CoreGrantType,
    CoreJweContentEncryptionAlgorithm,
    CoreJweKeyManagementAlgorithm,
    CoreJsonWebKey,
    CoreResponseMode,
    CoreResponseType,
    CoreSubjectIdentifierType,
>;

/// A provider's own description, with its keys.
pub struct Known {
    pub metadata: Metadata,
    at: Instant,
}

/// Keeps what is known of one provider.
#[derive(Default)]
pub struct Keeper(Mutex<Kept>);

#[derive(Default)]
struct Kept {
    known: Option<Arc<Known>>,
    /// When it did not answer as it should, since what is known.
    failed: Option<Instant>,
}

/// Asks a provider, through the one client there is.
pub struct Asking<'a>(pub &'a fetch::Client);

impl<'c> AsyncHttpClient<'c> for Asking<'_> {
    type Error = fetch::Failure;
    type Future = BoxFuture<'c, Result<HttpResponse, fetch::Failure>>;

    fn call(&'c self, request: HttpRequest) -> Self::Future {
        self.0.send(request, Reach::Configured).boxed()
    }
}

impl Keeper {
    /// When the provider last said what it is, with how many keys; and when it failed to, if it has not since.
    pub async fn state(&self) -> (Option<(Instant, usize)>, Option<Instant>) {
        let kept = self.0.lock().await;
        (kept.known.as_ref().map(|known| (known.at, known.metadata.jwks().keys().len())), kept.failed)
    }

    /// What is known now. `anew`: its keys do not do.
    ///
    /// # Errors
    /// `Refused::Provider` when nothing is known and nothing can be fetched.
    pub async fn known(
        &self,
        provider: &Provider,
        client: &fetch::Client,
        anew: bool,
        now: Instant,
    ) -> Result<Arc<Known>, Refused> {
        // Held while it is fetched: one request is enough for everybody who waits.
        let mut kept = self.0.lock().await;
        let Kept { known: held, failed } = &mut *kept;
        let age = held.as_ref().map(|known| now.0 - known.at.0);
        if let (Some(known), Some(age)) = (held.as_ref(), age)
            && age < if anew { KEYS_AGE_MS } else { AGE_MS }
        {
            return Ok(known.clone());
        }
        match fetched(provider, client).await {
            Ok(metadata) => {
                let known = Arc::new(Known { metadata, at: now });
                (*held, *failed) = (Some(known.clone()), None);
                Ok(known)
            }
            Err(why) => {
                *failed = Some(now);
                tracing::warn!(provider = provider.id, why, "the identity provider cannot be asked what it is");
                held.clone().filter(|_| age.is_some_and(|age| age < AGE_MAX_MS)).ok_or(Refused::Provider)
            }
        }
    }
}

/// The error is for the log: it names no more than the operator has configured.
async fn fetched(provider: &Provider, client: &fetch::Client) -> Result<Metadata, String> {
    let issuer = IssuerUrl::new(provider.issuer.clone()).map_err(|error| error.to_string())?;
    let asking = Asking(client);
    let metadata = Metadata::discover_async(issuer, &asking).boxed().await.map_err(|error| {
        let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}")).unwrap_or_default();
        format!("{error}{cause}")
    })?;
    if metadata.token_endpoint().is_none() {
        return Err("it has no token endpoint".to_owned());
    }
    // Browsers are sent there: not without TLS, unless it is this machine.
    let end = metadata.additional_metadata().end_session_endpoint.as_deref();
    for address in [Some(metadata.authorization_endpoint().as_str()), end].into_iter().flatten() {
        if !address.starts_with("https://") && !provider.issuer.starts_with("http://") {
            return Err("it would have browsers sent to an address without TLS".to_owned());
        }
    }
    Ok(metadata)
}
