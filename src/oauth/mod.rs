//! SMART Backend Services: registered clients, their assertions, the token endpoint, the server's signing key. Must not
//! know FHIR storage, nor HTTP: forms come in decoded, answers go out as JSON and a status.

pub mod assertion;
pub mod client;
pub mod discovery;
pub mod form;
pub mod jwks;
pub mod keys;
pub mod registry;
mod token;

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use jsonwebtoken::Algorithm;
use serde_json::json;

use crate::access::{Caller, TokenKeys, VerifyingKey, verify};
use crate::audit::{Request, Trail};
use crate::error::{Error, Result};
use crate::store::Store;
use crate::vault::{SystemKey, Vault};
use crate::world::World;

pub use client::{Client, ClientKind, Registration, Secret};
pub use discovery::smart_configuration;
pub use form::Refusal;
pub use keys::{SigningKey, generate_es384};
pub use registry::{Clients, Registered};
pub use token::Granted;

const KEY_SPACE: &str = "oauth-signing-key";

/// A request to the token endpoint.
pub struct TokenRequest<'a> {
    /// Decoded form parameters, in order.
    pub form: &'a [(String, String)],
    /// The `Authorization` header, if sent.
    pub authorization: Option<&'a str>,
    /// For the audit; `raw` is replaced by the form without its secrets.
    pub request: Request,
}

/// The authorization server: one per process, equal on all servers of one database.
pub struct State {
    store: Store,
    vault: Vault,
    trail: Trail,
    world: Arc<World>,
    clients: Clients,
    signing: SigningKey,
    keys: TokenKeys,
    token_url: String,
    /// Answers of the token endpoint so far, so that now and then what is used up is swept away.
    answers: AtomicU64,
    /// Callers that tests made, by bearer text.
    #[cfg(test)]
    stand_ins: std::sync::Mutex<std::collections::HashMap<String, Caller>>,
}

impl State {
    /// Loads the signing key, making it on the first start. `issuer`, `base` (the FHIR base URL) and `token_url` are
    /// absolute URLs without trailing slash.
    pub async fn open(
        store: Store,
        vault: Vault,
        trail: Trail,
        world: Arc<World>,
        issuer: &str,
        base: &str,
        token_url: &str,
    ) -> Result<Arc<State>> {
        let signing = signing_key(&store, &vault).await?;
        let key =
            VerifyingKey { kid: signing.kid().to_owned(), algorithm: Algorithm::ES384, key: signing.verifying()? };
        let keys = TokenKeys::new(issuer, base, vec![key])?;
        let clients = Clients::new(store.clone(), vault.clone(), trail.clone(), world.clone(), base);
        let token_url = token_url.to_owned();
        Ok(Arc::new(State {
            store,
            vault,
            trail,
            world,
            clients,
            signing,
            keys,
            token_url,
            answers: AtomicU64::new(0),
            #[cfg(test)]
            stand_ins: Default::default(),
        }))
    }

    pub fn clients(&self) -> &Clients {
        &self.clients
    }

    /// The caller of a bearer token.
    ///
    /// # Errors
    /// `Kind::Unauthenticated` unless it is genuine and live.
    pub async fn caller(&self, bearer: &str) -> Result<Caller> {
        #[cfg(feature = "bench-switches")]
        if crate::world::bench::off().authorization {
            return Ok(Caller::task("bench"));
        }
        #[cfg(test)]
        if let Some(caller) = self.stand_ins.lock().expect("no test panicked within").get(bearer) {
            return Ok(caller.clone());
        }
        verify(bearer, &self.keys, self.world.now())
    }

    /// For tests of other rooms: whoever sends this text is that caller.
    #[cfg(test)]
    pub(crate) fn stand_in(&self, bearer: &str, caller: Caller) {
        self.stand_ins.lock().expect("no test panicked within").insert(bearer.to_owned(), caller);
    }

    /// The server's public keys as a JWK Set.
    pub fn jwks(&self) -> Vec<u8> {
        json!({ "keys": [self.signing.public_jwk()] }).to_string().into_bytes()
    }
}

/// The one signing key of the database. Servers that start at once agree on the first that was written.
async fn signing_key(store: &Store, vault: &Vault) -> Result<SigningKey> {
    let place = vault.token(KEY_SPACE, b"current");
    let aad = [KEY_SPACE.as_bytes(), &place].concat();
    let stored = store.kv_get(KEY_SPACE, &place).await?;
    let sealed = match stored {
        Some(sealed) => sealed,
        None => {
            let key = SigningKey::generate()?;
            let sealed = vault.seal_system(SystemKey::Secret, &aad, key.pkcs8()).await?;
            if store.kv_insert_new(KEY_SPACE, &place, &sealed, None).await? {
                return Ok(key);
            }
            let standing = store.kv_get(KEY_SPACE, &place).await?;
            standing.ok_or_else(|| Error::internal("the signing key that stood is gone"))?
        }
    };
    SigningKey::from_pkcs8(&vault.open_system(SystemKey::Secret, &aad, &sealed).await?)
}

#[cfg(test)]
mod tests;
