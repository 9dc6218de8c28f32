//! The registered clients, sealed in the store and shared by all servers on one database.

use std::sync::Arc;

use super::by::By;
use super::client::{Client, Registration, Secret};
use super::registration::{PENDING_SPACE, TICKET_SPACE, Ticket};
use super::shelf::Shelf;
use crate::audit::{Trail, What};
use crate::error::{Error, Kind, Result, unless_tampered};
use crate::fhir::json::Node;
use crate::store::Store;
use crate::vault::{SystemKey, Vault};
use crate::world::{World, hex};

const SPACE: &str = "oauth-client";
/// Clients one server keeps.
pub const CLIENTS_MAX: usize = 10_000;

/// What a registration gave.
pub struct Registered {
    pub client: Client,
    /// Of a confidential-symmetric client; it is not kept, and cannot be shown again.
    pub secret: Option<Secret>,
}

/// The registry. Clones are cheap.
#[derive(Clone)]
pub struct Clients {
    store: Store,
    vault: Vault,
    pub(super) trail: Trail,
    pub(super) world: Arc<World>,
    base: String,
    pub(super) pending: Shelf<Client>,
    pub(super) tickets: Shelf<Ticket>,
    pub(super) by: By,
}

impl Clients {
    /// `base` is the FHIR base URL, against which filters of scopes are read.
    pub fn new(store: Store, vault: Vault, trail: Trail, world: Arc<World>, base: &str) -> Clients {
        let pending = Shelf::new(&store, &vault, PENDING_SPACE);
        let tickets = Shelf::new(&store, &vault, TICKET_SPACE);
        Clients { store, vault, trail, world, base: base.to_owned(), pending, tickets, by: By::server() }
    }

    /// The same, with what is done recorded as theirs.
    pub fn by(&self, by: &By) -> Clients {
        Clients { by: by.clone(), ..self.clone() }
    }

    /// Registers a client.
    ///
    /// # Errors
    /// `Kind::Invalid` / `Kind::Unsupported` with the place of the fault; `Kind::Conflict` when the id is taken.
    pub async fn add(&self, asked: Registration) -> Result<Registered> {
        let (client, secret) = Client::check(asked, self.world.uuid(), &self.base, self.world.now())?;
        self.keep(&client, What::ClientRegistered).await?;
        Ok(Registered { client, secret })
    }

    /// Adds a checked client; on record as this.
    pub(super) async fn keep(&self, client: &Client, what: What) -> Result<()> {
        if self.store.kv_list(SPACE).await?.len() >= CLIENTS_MAX {
            return Err(Error::new(Kind::TooCostly, format!("A server keeps at most {CLIENTS_MAX} clients.")));
        }
        let (key, sealed) = self.sealed(client).await?;
        if !self.store.kv_insert_new(SPACE, &key, &sealed, None).await? {
            return Err(Error::new(Kind::Conflict, "There is a client of this client_id already.").at("client_id"));
        }
        if let Err(error) = self.record(what, client).await {
            self.store.kv_delete(SPACE, &key).await?;
            return Err(error);
        }
        Ok(())
    }

    /// Forgets a client; whoever asks for that puts it on record. False: there is no such client.
    pub(super) async fn delete(&self, client_id: &str) -> Result<bool> {
        self.store.kv_delete(SPACE, &self.key(client_id)).await
    }

    /// Changes to the registry are on record with all that is not secret.
    pub(super) async fn record(&self, what: What, client: &Client) -> Result<()> {
        let facts = [
            ("client_id", client.client_id.clone()),
            ("kind", client.kind.to_string()),
            ("scope", client.scopes()?.to_string()),
            ("demo", client.demo.to_string()),
        ];
        let facts = facts.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        self.trail.record(self.by.event(self.world.now(), what, facts)).await.map(drop)
    }

    pub async fn get(&self, client_id: &str) -> Result<Option<Client>> {
        let key = self.key(client_id);
        let Some(sealed) = self.store.kv_get(SPACE, &key).await? else { return Ok(None) };
        self.open(&key, &sealed).await.map(Some)
    }

    /// All clients, by client_id.
    /// As [`Shelf::altered`], of clients and what leads to them.
    pub(super) async fn altered(&self) -> Result<Vec<String>> {
        let mut altered = [self.pending.altered().await?, self.tickets.altered().await?].concat();
        for (key, sealed) in self.store.kv_list(SPACE).await? {
            if unless_tampered(self.open(&key, &sealed).await)?.is_none() {
                altered.push(format!("{SPACE} {}", hex(&key)));
            }
        }
        Ok(altered)
    }

    pub async fn list(&self) -> Result<Vec<Client>> {
        let mut clients = Vec::new();
        for (key, sealed) in self.store.kv_list(SPACE).await? {
            clients.push(self.open(&key, &sealed).await?);
        }
        clients.sort_by(|a, b| a.client_id.cmp(&b.client_id));
        Ok(clients)
    }

    /// Gives no more tokens to a client. Those it has for people end at once, its own last at most
    /// `access::token::TOKEN_SECONDS` longer. False: there is no such client.
    pub async fn disable(&self, client_id: &str) -> Result<bool> {
        self.switch(client_id, true, What::ClientDisabled).await
    }

    /// Gives tokens to a disabled client again.
    pub async fn enable(&self, client_id: &str) -> Result<bool> {
        self.switch(client_id, false, What::ClientEnabled).await
    }

    async fn switch(&self, client_id: &str, disabled: bool, what: What) -> Result<bool> {
        let Some(mut client) = self.get(client_id).await? else { return Ok(false) };
        client.disabled = disabled;
        self.put(&client).await?;
        self.record(what, &client).await?;
        Ok(true)
    }

    /// Gives a client a new secret, or `jwks` in place of its keys; what it had no longer counts. None: there is no such
    /// client.
    ///
    /// # Errors
    /// `Kind::Invalid` when the client has nothing of the kind.
    pub async fn rotate(&self, client_id: &str, jwks: Option<&Node>) -> Result<Option<Registered>> {
        let Some(client) = self.get(client_id).await? else { return Ok(None) };
        let (client, secret) = client.renewed(jwks)?;
        self.put(&client).await?;
        self.record(What::ClientChanged, &client).await?;
        Ok(Some(Registered { client, secret }))
    }

    /// Puts a client in place of the one of its id; on record as this.
    pub(super) async fn replace(&self, client: &Client, what: What) -> Result<()> {
        self.record(what, client).await?;
        self.put(client).await
    }

    async fn put(&self, client: &Client) -> Result<()> {
        let (key, sealed) = self.sealed(client).await?;
        self.store.kv_put(SPACE, &key, &sealed).await
    }

    /// Whether a client of a demonstration is registered: a real server must not start on such a database.
    pub async fn any_demo(&self) -> Result<bool> {
        Ok(self.list().await?.iter().any(|client| client.demo))
    }

    fn key(&self, client_id: &str) -> [u8; 16] {
        self.vault.token(SPACE, client_id.as_bytes())
    }

    async fn sealed(&self, client: &Client) -> Result<([u8; 16], Vec<u8>)> {
        let key = self.key(&client.client_id);
        let plain = serde_json::to_vec(client).map_err(Error::internal)?;
        Ok((key, self.vault.seal_system(SystemKey::Secret, &aad(&key), &plain).await?))
    }

    async fn open(&self, key: &[u8], sealed: &[u8]) -> Result<Client> {
        let plain = self.vault.open_system(SystemKey::Secret, &aad(key), sealed).await;
        let plain = plain.map_err(|error| error.of_tampered(SPACE))?;
        serde_json::from_slice(&plain).map_err(Error::internal)
    }
}

fn aad(key: &[u8]) -> Vec<u8> {
    [SPACE.as_bytes(), key].concat()
}
