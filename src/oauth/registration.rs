//! Dynamic client registration (RFC 7591) and its management (RFC 7592): an app asks to be registered, and waits for an
//! administrator. What waits lies apart from the registry, so that no road to a token knows of it.

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use serde_json::json;
use zeroize::Zeroizing;

use super::State;
use super::authorization::Authorization;
use super::client::{Changed, Client, Registration, SelfRegistered};
use super::form::Refusal;
use super::metadata::{self, Metadata};
use super::registry::Clients;
use super::shelf::Held;
use super::token::unavailable;
use crate::audit::{Event, Outcome, Request, What};
use crate::error::{Error, Kind, Result};
use crate::fhir::json::Node;
use crate::world::{self, Instant, hex};

pub(super) const PENDING_SPACE: &str = "oauth-client-pending";
pub(super) const TICKET_SPACE: &str = "oauth-registration-token";
/// Registrations that wait for an administrator at most, and of one address within an hour.
pub const PENDING_MAX: usize = 100;
pub const PENDING_OF_ADDRESS_MAX: usize = 10;
/// What nobody has approved by then is forgotten.
pub const PENDING_LIFE_MS: i64 = 30 * 24 * HOUR_MS;
/// An initial access token counts once, and so long.
pub const TICKET_LIFE_MS: i64 = 7 * 24 * HOUR_MS;
const HOUR_MS: i64 = 3600 * 1000;

/// Whether apps may ask to be registered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Registering {
    Off,
    /// With an initial access token that an administrator gave.
    Token,
    /// Anybody.
    Open,
}

/// What an app has registered.
struct Own {
    /// What it asked for last.
    latest: Client,
    /// Whether that waits for an administrator.
    waits: bool,
    /// What counts.
    live: Option<Client>,
}

/// A registration that waits for an administrator.
pub struct Waiting {
    pub asked: Held<Client>,
    /// It would change a client that counts already; else it would be a new one.
    pub is_change: bool,
    /// What would be otherwise: of a new one, all that it asks for.
    pub changes: Vec<Changed>,
    /// Names exactly what was looked at, for [`Clients::approve`].
    pub seen: String,
}

/// SHA-256 (hexadecimal) of a registration as it is kept: the app may ask for something else at any moment.
fn seen(asked: &Client) -> Result<String> {
    let bytes = Zeroizing::new(serde_json::to_vec(asked).map_err(Error::internal)?);
    Ok(hex(digest(&SHA256, &bytes).as_ref()))
}

/// Stands for an initial access token that was given and not used.
#[derive(Clone, Serialize, Deserialize)]
pub struct Ticket {
    made: i64,
}

fn random() -> Zeroizing<String> {
    let mut bytes = Zeroizing::new([0u8; 32]);
    world::secret(&mut *bytes);
    Zeroizing::new(URL_SAFE_NO_PAD.encode(*bytes))
}

fn invalid_token() -> Refusal {
    Refusal { status: 401, ..Refusal::new("invalid_token", "The bearer token is not one that is good for this.") }
}

impl Clients {
    /// An initial access token, to be given to somebody who may register one app.
    pub async fn registration_token(&self) -> Result<Zeroizing<String>> {
        let (token, now) = (random(), self.world.now());
        self.trail.record(self.by.event(self.world.now(), What::RegistrationTokenMade, Vec::new())).await?;
        let ticket = Ticket { made: now.0 };
        self.tickets.insert(&token, &ticket, Some(now.plus_ms(TICKET_LIFE_MS)), None).await?;
        Ok(token)
    }

    /// Registrations that wait, the oldest first.
    pub async fn pending(&self) -> Result<Vec<Held<Client>>> {
        let mut all = self.pending.all().await?;
        all.sort_by_key(|client| client.self_registered.as_ref().map(|own| own.at));
        Ok(all)
    }

    /// The same, each with what it would change.
    pub async fn waiting(&self) -> Result<Vec<Waiting>> {
        let mut all = Vec::new();
        for asked in self.pending().await? {
            let live = self.get(&asked.client_id).await?;
            let (is_change, seen) = (live.is_some(), seen(&asked)?);
            let changes = live.map_or_else(|| asked.asks(), |live| asked.changes(&live));
            all.push(Waiting { asked, is_change, changes, seen });
        }
        Ok(all)
    }

    /// Makes a registration that waits a client, or its change that waits count. `looked_at` is [`Waiting::seen`] of what the
    /// approval is about; None: of whatever waits. False: there is none of this id.
    ///
    /// # Errors
    /// `Kind::Conflict` when the app asks for something else by now; `Kind::TooCostly` when the server has as many clients as
    /// it keeps.
    pub async fn approve(&self, client_id: &str, looked_at: Option<&str>) -> Result<bool> {
        let Some(held) = self.pending.get(client_id).await? else { return Ok(false) };
        if let Some(looked_at) = looked_at
            && seen(&held)? != looked_at
        {
            let text = "The app asks for something else by now: look again, then decide.";
            return Err(Error::new(Kind::Conflict, text));
        }
        match self.get(client_id).await? {
            None => self.keep(&held, What::ClientApproved).await?,
            // A change of one that was approved before; whether it is disabled is not the app's to say.
            Some(live) => {
                let mut next = (*held).clone();
                next.disabled = live.disabled;
                self.replace(&next, What::ClientApproved).await?;
            }
        }
        self.pending.delete_by_key(held.key()).await?;
        Ok(true)
    }

    /// Forgets a registration that waits. False: there is none of this id.
    pub async fn reject(&self, client_id: &str) -> Result<bool> {
        let Some(held) = self.pending.get(client_id).await? else { return Ok(false) };
        self.record(What::ClientRejected, &held).await?;
        self.pending.delete_by_key(held.key()).await
    }
}

impl State {
    /// Answers a request to register (RFC 7591, section 3): the metadata as registered, with client_id and
    /// tokens. It is pending until an administrator approves it.
    ///
    /// # Errors
    /// The refusal to send.
    pub async fn register(&self, sent: &Node, bearer: Option<&str>, request: Request) -> Result<Vec<u8>, Refusal> {
        let mut event = Event::new(self.world.now(), What::RegistrationAsked, request);
        let answer = self.registered(sent, bearer, &mut event).await;
        self.answered(answer, event).await
    }

    async fn answered<T>(&self, answer: Result<T, Refusal>, mut event: Event) -> Result<T, Refusal> {
        if let Err(refusal) = &answer {
            event.outcome = if refusal.status == 503 { Outcome::Serious } else { Outcome::Minor };
            event.reason = Some(refusal.error.to_owned());
        }
        self.trail.record(event).await.map_err(unavailable)?;
        answer
    }

    async fn registered(&self, sent: &Node, bearer: Option<&str>, event: &mut Event) -> Result<Vec<u8>, Refusal> {
        let clients = &self.clients;
        let now = event.at;
        let ticket = match (self.registering, bearer) {
            (Registering::Open, _) => None,
            (Registering::Token, Some(token)) => {
                clients.tickets.get(token).await.map_err(unavailable)?.ok_or_else(invalid_token)?;
                Some(token)
            }
            (Registering::Token | Registering::Off, _) => return Err(invalid_token()),
        };
        let Metadata { registration, registered } = metadata::read(sent)?;
        let checked = Client::check(registration, self.world.uuid(), self.keys.audience(), now);
        let (mut client, secret) = checked.map_err(|error| metadata::refused(&error))?;
        self.room_for_one(&event.request.address, now).await?;
        let token = random();
        client.self_registered = Some(SelfRegistered::new(&token, registered, now, event.request.address.clone()));
        let facts = [("client_id", client.client_id.clone()), ("kind", client.kind.to_string())];
        event.detail.extend(facts.map(|(name, value)| (name.to_owned(), value)));
        // Last: a token is used up by what is registered with it, and by nothing else; of two who use it at once
        // one is first.
        if let Some(ticket) = ticket
            && !clients.tickets.delete(ticket).await.map_err(unavailable)?
        {
            return Err(invalid_token());
        }
        let expires = Some(now.plus_ms(PENDING_LIFE_MS));
        clients.pending.insert(&client.client_id, &client, expires, None).await.map_err(unavailable)?;
        Ok(self.told(&client, Some(&token), secret.as_deref().map(String::as_str)))
    }

    async fn room_for_one(&self, address: &str, now: Instant) -> Result<(), Refusal> {
        let waiting = self.clients.pending.all().await.map_err(unavailable)?;
        let lately = |own: &SelfRegistered| own.from == address && now.0 - own.at < HOUR_MS;
        let of_address = waiting.iter().filter(|client| client.self_registered.as_ref().is_some_and(lately)).count();
        if waiting.len() >= PENDING_MAX || of_address >= PENDING_OF_ADDRESS_MAX {
            let text = "As many registrations wait for approval as this server takes. Try again later.";
            return Err(Refusal { status: 429, ..Refusal::new("temporarily_unavailable", text) });
        }
        Ok(())
    }

    /// What an app is told of its own registration.
    fn shown(&self, client: &Client) -> Node {
        let own = client.self_registered.as_ref();
        let mut shown = own.map_or_else(|| json!({}), |own| own.metadata.clone());
        shown["client_id"] = json!(client.client_id);
        shown["client_id_issued_at"] = json!(own.map_or(0, |own| Instant(own.at).seconds()));
        shown["registration_client_uri"] = json!(format!("{}/oauth/register/{}", self.keys.issuer(), client.client_id));
        shown
    }

    /// What is registered under this id, for its registration access token.
    async fn own(&self, client_id: &str, bearer: Option<&str>) -> Result<Own, Refusal> {
        let live = self.clients.get(client_id).await.map_err(unavailable)?;
        let waits = self.clients.pending.get(client_id).await.map_err(unavailable)?;
        if live.as_ref().is_some_and(|live| live.disabled) {
            return Err(invalid_token());
        }
        let waits = waits.map(|held| (*held).clone());
        let own =
            Own { latest: waits.clone().or(live.clone()).ok_or_else(invalid_token)?, waits: waits.is_some(), live };
        let bearer = bearer.unwrap_or_default();
        let is_its = own.latest.self_registered.as_ref().is_some_and(|own| own.has_token(bearer));
        if is_its { Ok(own) } else { Err(invalid_token()) }
    }

    /// What is registered under an id (RFC 7592, section 2.1), for who holds its registration access token.
    ///
    /// # Errors
    /// The refusal to send.
    pub async fn registration(&self, id: &str, bearer: Option<&str>, request: Request) -> Result<Vec<u8>, Refusal> {
        let mut event = Event::new(self.world.now(), What::RegistrationRead, request);
        let answer = self.own(id, bearer).await.map(|own| {
            event.detail.push(("client_id".to_owned(), own.latest.client_id.clone()));
            self.told(&own.latest, bearer, None)
        });
        self.answered(answer, event).await
    }

    /// Replaces what is registered under an id (RFC 7592, section 2.2). What an administrator has approved counts on until
    /// the change is approved too; one that touches nothing of that counts at once.
    ///
    /// # Errors
    /// The refusal to send.
    pub async fn reregister(
        &self,
        id: &str,
        sent: &Node,
        bearer: Option<&str>,
        request: Request,
    ) -> Result<Vec<u8>, Refusal> {
        let mut event = Event::new(self.world.now(), What::RegistrationAsked, request);
        let answer = self.reregistered(id, sent, bearer, &mut event).await;
        self.answered(answer, event).await
    }

    async fn reregistered(
        &self,
        id: &str,
        sent: &Node,
        bearer: Option<&str>,
        event: &mut Event,
    ) -> Result<Vec<u8>, Refusal> {
        let (own, now) = (self.own(id, bearer).await?, event.at);
        metadata::check_update(sent, &own.latest)?;
        let Metadata { registration, registered } = metadata::read(sent)?;
        let registration = Registration { client_id: Some(id.to_owned()), ..registration };
        let checked = Client::check(registration, String::new(), self.keys.audience(), now);
        let (next, secret) = checked.map_err(|error| metadata::refused(&error))?;
        let (next, secret) = next.after(&own.latest, registered, secret);
        let at_once = own.live.as_ref().is_some_and(|live| next.changes(live).is_empty());
        let facts = [
            ("client_id", next.client_id.clone()),
            ("kind", next.kind.to_string()),
            ("change", if at_once { "counts at once" } else { "waits" }.to_owned()),
        ];
        event.detail.extend(facts.map(|(name, value)| (name.to_owned(), value)));
        if at_once {
            self.clients.replace(&next, What::ClientChanged).await.map_err(unavailable)?;
            self.clients.pending.delete(id).await.map_err(unavailable)?;
        } else {
            self.wait(&next, own.waits, now).await?;
        }
        Ok(self.told(&next, bearer, secret.as_deref().map(String::as_str)))
    }

    /// Puts a change where an administrator finds it, in place of an earlier one.
    async fn wait(&self, next: &Client, waits: bool, now: Instant) -> Result<(), Refusal> {
        let (pending, expires) = (&self.clients.pending, Some(now.plus_ms(PENDING_LIFE_MS)));
        if waits {
            let changed = pending.change(&next.client_id, expires, |held| {
                *held = next.clone();
                Ok(())
            });
            if changed.await.map_err(unavailable)?.is_some() {
                return Ok(());
            }
        } else {
            self.room_for_one("", now).await?;
        }
        match pending.insert(&next.client_id, next, expires, None).await.map_err(unavailable)? {
            true => Ok(()),
            false => Err(Refusal::new("invalid_client_metadata", "Another change was sent in this very moment.")),
        }
    }

    /// The answer about a registration. The token is the one that was shown: it stays the same.
    fn told(&self, client: &Client, bearer: Option<&str>, secret: Option<&str>) -> Vec<u8> {
        let mut shown = self.shown(client);
        shown["registration_access_token"] = json!(bearer);
        if let Some(secret) = secret {
            shown["client_secret"] = json!(secret);
            shown["client_secret_expires_at"] = json!(0);
        }
        shown.to_string().into_bytes()
    }

    /// Ends a registration (RFC 7592, section 2.3), and with it all that people have allowed the app.
    ///
    /// # Errors
    /// The refusal to send.
    pub async fn deregister(&self, id: &str, bearer: Option<&str>, request: Request) -> Result<(), Refusal> {
        let mut event = Event::new(self.world.now(), What::ClientDeleted, request);
        let answer = match self.own(id, bearer).await {
            Ok(own) => {
                event.detail.push(("client_id".to_owned(), own.latest.client_id.clone()));
                self.forget(&own).await.map_err(unavailable)
            }
            Err(refusal) => Err(refusal),
        };
        self.answered(answer, event).await
    }

    async fn forget(&self, own: &Own) -> Result<()> {
        let id = &own.latest.client_id;
        self.clients.pending.delete(id).await?;
        if own.live.is_some() {
            self.clients.delete(id).await?;
            self.end_authorizations_of(id).await?;
        }
        Ok(())
    }

    /// Ends all that people have allowed a client, and with it their tokens; gives how many authorizations there were.
    pub async fn end_authorizations_of(&self, client_id: &str) -> Result<usize> {
        self.end_authorizations_where(|held| held.client_id == client_id).await
    }

    /// Ends all that was allowed in launches about a patient.
    pub async fn end_authorizations_about(&self, patient: &str) -> Result<usize> {
        self.end_authorizations_where(|held| held.context.patient.as_deref() == Some(patient)).await
    }

    async fn end_authorizations_where(&self, ends: impl Fn(&Authorization) -> bool) -> Result<usize> {
        let mut ended = 0;
        for held in self.authorizations.all().await?.iter().filter(|held| ends(held)) {
            ended += usize::from(self.authorizations.delete_by_key(held.key()).await?);
        }
        Ok(ended)
    }
}
