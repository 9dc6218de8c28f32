//! The authorization server (OAuth 2.0, OpenID Connect, SMART App Launch): clients, users and their sessions, what
//! people allow apps, tokens, the server's signing keys. Must not know FHIR storage, nor HTTP: forms come in decoded,
//! answers go out as values for the pages, or as JSON and a status.

pub mod administration;
pub mod assertion;
pub mod authorization;
pub mod authorize;
mod by;
pub mod client;
pub mod consent;
pub mod context;
mod directory;
pub mod discovery;
pub mod emergency;
mod exchange;
pub mod factors;
pub mod form;
mod introspect;
pub mod invitation;
pub mod jwks;
pub mod keys;
mod keysets;
pub mod launch;
pub mod login;
mod metadata;
pub mod outside;
pub mod passkeys;
pub mod password;
pub mod registration;
pub mod registry;
pub mod reviews;
mod ring;
mod shelf;
mod token;
pub mod totp;
pub mod users;
pub mod webauthn;

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use serde_json::json;
use tokio::sync::Semaphore;

use crate::access::{Caller, Person, TokenKeys, verify};
use crate::audit::{Request, Trail, What};
use crate::error::{Error, Kind, Result};
use crate::fetch;
use crate::store::Store;
use crate::vault::Vault;
use crate::world::{Instant, World};

pub use by::By;
pub use client::{Changed, Client, ClientKind, Registration, Secret};
pub use directory::Find;
pub use discovery::Endpoints;
pub use emergency::{EmergencyAsked, EmergencyGiven};
pub use form::Refusal;
pub use keys::{SigningKey, generate_es384};
pub use registration::{Registering, Waiting};
pub use registry::{Clients, Registered};
pub use ring::KeyState;
pub use shelf::Held;
pub use token::Granted;
pub use users::{NewUser, User, UserPage, Users};

use keysets::KeySets;
use outside::Outside;
use ring::Ring;
use shelf::Shelf;

/// A server looks for keys that another one has begun to sign with at most this often.
const RING_LOOK_MS: i64 = 5_000;

/// A request to the token endpoint.
pub struct TokenRequest<'a> {
    /// Decoded form parameters, in order.
    pub form: &'a [(String, String)],
    /// The `Authorization` header, if sent.
    pub authorization: Option<&'a str>,
    /// For the audit; `raw` is replaced by the form without its secrets.
    pub request: Request,
}

/// Lives of what people have open.
#[derive(Clone, Copy)]
pub struct Limits {
    /// Access tokens of backend services and of people, in seconds.
    pub backend_token_s: i64,
    pub person_token_s: i64,
    /// Login sessions: without use, and at all.
    pub session_idle_ms: i64,
    pub session_max_ms: i64,
}

/// What a server is opened with.
pub struct Settings {
    /// Absolute URLs without trailing slash.
    pub issuer: String,
    pub base: String,
    pub limits: Limits,
    /// Whether users of the provider must have a second factor.
    pub staff_factor: bool,
    pub registering: Registering,
    /// What asks other servers.
    pub fetch: fetch::Client,
    /// Identity providers at which people may log in.
    pub providers: Vec<outside::Provider>,
}

/// The authorization server: one per process, equal on all servers of one database.
pub struct State {
    store: Store,
    vault: Vault,
    trail: Trail,
    world: Arc<World>,
    clients: Clients,
    users: Users,
    sessions: Shelf<login::Session>,
    locks: Shelf<login::Failures>,
    invitations: Shelf<invitation::Invitation>,
    /// Challenges of passkeys, by ceremony and session.
    challenges: Shelf<Vec<u8>>,
    /// Whose a passkey is, by its id.
    passkey_ids: Shelf<String>,
    asked: Shelf<authorize::Asked>,
    codes: Shelf<authorization::Code>,
    authorizations: Shelf<authorization::Authorization>,
    launches: Shelf<launch::Launch>,
    rings: Shelf<ring::Stored>,
    ring: RwLock<Arc<Ring>>,
    /// When the ring was last looked at in the store, in milliseconds since 1970.
    ring_seen: AtomicI64,
    keys: TokenKeys,
    token_url: String,
    style_url: String,
    limits: Limits,
    staff_factor: bool,
    registering: Registering,
    key_sets: KeySets,
    fetch: fetch::Client,
    outside: Outside,
    outgoing: Shelf<outside::Outgoing>,
    links: Shelf<outside::Link>,
    /// How administrators have switched identity providers.
    switches: Shelf<outside::Switch>,
    /// Emergency accesses whose review is open, and those that have been reviewed.
    reviews: Shelf<reviews::Review>,
    reviewed: Shelf<reviews::Review>,
    /// Back-channel logouts that have been taken.
    ended: Shelf<()>,
    /// Places for password hashing.
    hashing: Semaphore,
    /// Passwords that were hashed, for tests of what a refusal costs.
    #[cfg(test)]
    pub(crate) hashed: AtomicU64,
    /// Answers of the token endpoint so far, so that now and then what is used up is swept away.
    answers: AtomicU64,
    /// Callers that tests made, by bearer text.
    #[cfg(test)]
    stand_ins: std::sync::Mutex<std::collections::HashMap<String, Caller>>,
}

impl State {
    /// Loads the signing keys, making them on the first start.
    pub async fn open(
        store: Store,
        vault: Vault,
        trail: Trail,
        world: Arc<World>,
        settings: Settings,
    ) -> Result<Arc<State>> {
        let Settings { issuer, base, limits, staff_factor, registering, fetch, providers } = settings;
        let rings = Shelf::new(&store, &vault, ring::SPACE);
        let ring = Ring::load(&rings).await?;
        let keys = TokenKeys::new(&issuer, &base, ring.verifying())?;
        let endpoints = Endpoints::of(&issuer);
        let users = Users::new(&store, &vault, trail.clone(), world.clone());
        users.make_directory().await?;
        Ok(Arc::new(State {
            clients: Clients::new(store.clone(), vault.clone(), trail.clone(), world.clone(), &base),
            users,
            sessions: Shelf::new(&store, &vault, login::SESSION_SPACE),
            locks: Shelf::new(&store, &vault, login::LOCK_SPACE),
            invitations: Shelf::new(&store, &vault, invitation::SPACE),
            challenges: Shelf::new(&store, &vault, passkeys::CHALLENGE_SPACE),
            passkey_ids: Shelf::new(&store, &vault, passkeys::ID_SPACE),
            asked: Shelf::new(&store, &vault, authorize::SPACE),
            codes: Shelf::new(&store, &vault, authorization::CODE_SPACE),
            authorizations: Shelf::new(&store, &vault, authorization::SPACE),
            launches: Shelf::new(&store, &vault, launch::SPACE),
            rings,
            ring: RwLock::new(Arc::new(ring)),
            ring_seen: AtomicI64::new(world.now().0),
            keys,
            token_url: endpoints.token,
            style_url: endpoints.style,
            limits,
            staff_factor,
            registering,
            key_sets: KeySets::new(fetch.clone(), world.clone()),
            fetch,
            outside: Outside::new(providers),
            outgoing: Shelf::new(&store, &vault, outside::SPACE),
            links: Shelf::new(&store, &vault, outside::LINK_SPACE),
            switches: Shelf::new(&store, &vault, outside::SWITCH_SPACE),
            reviews: Shelf::new(&store, &vault, reviews::OPEN_SPACE),
            reviewed: Shelf::new(&store, &vault, reviews::CLOSED_SPACE),
            ended: Shelf::new(&store, &vault, outside::ENDED_SPACE),
            hashing: Semaphore::new(login::HASHES_MAX),
            #[cfg(test)]
            hashed: AtomicU64::new(0),
            answers: AtomicU64::new(0),
            #[cfg(test)]
            stand_ins: Default::default(),
            store,
            vault,
            trail,
            world,
        }))
    }

    /// What of all that is kept here does not open as it stands, by kind and blinded name. (Without the signing keys a
    /// server does not start.)
    pub async fn altered(&self) -> Result<Vec<String>> {
        let kinds = [
            self.clients.altered().await?,
            self.users.altered().await?,
            self.sessions.altered().await?,
            self.locks.altered().await?,
            self.invitations.altered().await?,
            self.challenges.altered().await?,
            self.passkey_ids.altered().await?,
            self.asked.altered().await?,
            self.codes.altered().await?,
            self.authorizations.altered().await?,
            self.launches.altered().await?,
            self.outgoing.altered().await?,
            self.links.altered().await?,
            self.switches.altered().await?,
            self.reviews.altered().await?,
            self.reviewed.altered().await?,
            self.ended.altered().await?,
        ];
        Ok(kinds.concat())
    }

    /// The client that asks other servers.
    pub fn fetch(&self) -> &fetch::Client {
        &self.fetch
    }

    pub fn clients(&self) -> &Clients {
        &self.clients
    }

    pub fn users(&self) -> &Users {
        &self.users
    }

    pub fn issuer(&self) -> &str {
        self.keys.issuer()
    }

    /// The caller of a bearer token. A token of a person is live as long as its authorization and its user are, and as
    /// the user is who the token says.
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
        let caller = match verify(bearer, &self.keys, self.world.now()) {
            Err(error) if error.kind == Kind::Unauthenticated && Box::pin(self.look_for_keys()).await? => {
                verify(bearer, &self.keys, self.world.now())?
            }
            verified => verified?,
        };
        // Boxed: services need none of it, and every request has room for this future.
        if let Some(person) = caller.person() {
            Box::pin(self.standing(&caller, person)).await?
        }
        Ok(caller)
    }

    /// Refuses a person whose authorization, account or client has ended since the token was given.
    async fn standing(&self, caller: &Caller, person: &Person) -> Result<()> {
        // The people of tests have logged in nowhere.
        #[cfg(test)]
        if person.authorization == "test" {
            return Ok(());
        }
        let ended = || Error::new(Kind::Unauthenticated, "The access token has been revoked.");
        let authorization = self.authorizations.get(&person.authorization).await?.ok_or_else(ended)?;
        let user = self.users.get(&authorization.username).await?.ok_or_else(ended)?;
        let live = user.is_active()
            && Some(&user.id) == caller.who().user.as_ref()
            && authorization.made >= user.valid_from
            && user.role == person.role
            && user.fhir_user == person.fhir_user
            && self.may_come(&user, authorization.made).await?;
        let client = self.clients.get(&caller.who().client_id).await?;
        if live && client.is_some_and(|client| !client.disabled) { Ok(()) } else { Err(ended()) }
    }

    /// For tests of other rooms: whoever sends this text is that caller.
    #[cfg(test)]
    pub(crate) fn stand_in(&self, bearer: &str, caller: Caller) {
        self.stand_ins.lock().expect("no test panicked within").insert(bearer.to_owned(), caller);
    }

    fn ring(&self) -> Arc<Ring> {
        self.ring.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn take_ring(&self, ring: Ring) -> Result<Arc<Ring>> {
        let ring = Arc::new(ring);
        self.keys.replace(ring.verifying())?;
        *self.ring.write().unwrap_or_else(PoisonError::into_inner) = ring.clone();
        Ok(ring)
    }

    /// Another server may have begun to sign with new keys. True: there are others than before.
    async fn look_for_keys(&self) -> Result<bool> {
        let now = self.world.now().0;
        let seen = self.ring_seen.load(Ordering::Relaxed);
        if now - seen < RING_LOOK_MS
            || self.ring_seen.compare_exchange(seen, now, Ordering::Relaxed, Ordering::Relaxed).is_err()
        {
            return Ok(false);
        }
        let ring = Ring::load(&self.rings).await?;
        let same = ring.public() == self.ring().public();
        if !same {
            self.take_ring(ring)?;
        }
        Ok(!same)
    }

    /// The ring with a key for id_tokens.
    async fn identity_ring(&self) -> Result<Arc<Ring>> {
        let ring = self.ring();
        if ring.has_identity() {
            return Ok(ring);
        }
        self.take_ring(Ring::with_identity(&self.rings).await?)
    }

    /// The server's public keys as a JWK Set.
    pub async fn jwks(&self) -> Result<Vec<u8>> {
        self.look_for_keys().await?;
        let ring = self.identity_ring().await?;
        Ok(json!({ "keys": ring.public() }).to_string().into_bytes())
    }

    /// Begins to sign with new keys; other servers follow when they meet the first token of these.
    pub async fn rotate_keys(&self, by: &By) -> Result<()> {
        let ring = self.take_ring(Ring::rotate(&self.rings, self.world.now()).await?)?;
        let about = by::facts(&[("keys", "signing"), ("kid", ring.access().kid())]);
        self.trail.record(by.event(self.world.now(), What::KeysRotated, about)).await.map(drop)
    }

    /// Forgets what is over. Nothing depends on it but the size of the table.
    pub(crate) async fn sweep(&self, now: Instant) {
        match self.store.kv_expire(now).await {
            Ok(rows) => tracing::debug!(rows, "expired entries swept"),
            Err(error) => tracing::warn!(?error, "expired entries could not be swept"),
        }
    }
}

#[cfg(test)]
mod tests;
