//! Passkeys as second factor, beside codes: each account may have several, with names. A challenge is for one session and
//! counts once; a credential belongs to one user; a refusal is on record with its reason.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::by::facts;
use super::login::{Live, Step};
use super::users::User;
use super::webauthn::{self, Assertion, PublicKey, Refused, Site};
use super::{State, factors};
use crate::audit::{Event, Outcome, Request, What};
use crate::error::{Error, Result};
use crate::world;

pub(super) const CHALLENGE_SPACE: &str = "oauth-challenge";
pub(super) const ID_SPACE: &str = "oauth-passkey";
/// Passkeys of one user.
pub const PASSKEYS_MAX: usize = 10;
const NAME_LENGTH_MAX: usize = 60;
const CHALLENGE_LIFE_MS: i64 = 300_000;
const CHALLENGE_BYTES: usize = 32;

/// One passkey of a user.
#[derive(Clone, Serialize, Deserialize)]
pub struct Passkey {
    pub id: Vec<u8>,
    key: PublicKey,
    count: u32,
    pub name: String,
    /// Milliseconds since 1970.
    pub made: i64,
    pub used: Option<i64>,
}

/// What a challenge is good for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Ceremony {
    Register,
    Login,
}

/// What a page hands to the browser for a ceremony, in base64url.
pub struct Offer {
    pub challenge: String,
    pub rp_id: String,
    pub user: String,
    /// Credentials of the user: to choose from, or not to make again.
    pub ids: Vec<String>,
}

/// What adding a passkey gives.
pub enum Added {
    /// With recovery codes, when the user had none.
    Yes(Vec<Zeroizing<String>>),
    /// The fixed text to show.
    No(&'static str),
}

const AGAIN: &str = "The passkey was not taken. Load the page again and try once more.";

impl Passkey {
    /// The id as pages name it.
    pub fn text_id(&self) -> String {
        URL_SAFE_NO_PAD.encode(&self.id)
    }
}

fn challenge_name(cookie: &str, ceremony: Ceremony) -> String {
    match ceremony {
        Ceremony::Register => format!("register:{cookie}"),
        Ceremony::Login => format!("login:{cookie}"),
    }
}

impl State {
    /// The server as passkeys know it; None: at its address browsers offer none.
    pub fn site(&self) -> Option<Site> {
        Site::of(self.issuer())
    }

    /// What a ceremony of this session begins with: a challenge that replaces the one before. None: there are no passkeys
    /// here.
    pub async fn offer(&self, live: &Live, cookie: &str, ceremony: Ceremony) -> Result<Option<Offer>> {
        let Some(site) = self.site() else { return Ok(None) };
        if ceremony == Ceremony::Login && live.user.passkeys.is_empty() {
            return Ok(None);
        }
        let mut bytes = vec![0u8; CHALLENGE_BYTES];
        world::secret(&mut bytes);
        let name = challenge_name(cookie, ceremony);
        let expires = self.world.now().plus_ms(CHALLENGE_LIFE_MS);
        self.challenges.delete(&name).await?;
        self.challenges.insert(&name, &bytes, Some(expires), None).await?;
        Ok(Some(Offer {
            challenge: URL_SAFE_NO_PAD.encode(&bytes),
            rp_id: site.rp_id,
            user: URL_SAFE_NO_PAD.encode(&live.user.id),
            ids: live.user.passkeys.iter().map(Passkey::text_id).collect(),
        }))
    }

    /// The challenge of this session, which counts once.
    async fn take_challenge(&self, cookie: &str, ceremony: Ceremony) -> Result<Option<Vec<u8>>> {
        let Some(held) = self.challenges.get(&challenge_name(cookie, ceremony)).await? else { return Ok(None) };
        Ok(self.challenges.delete_by_key(held.key()).await?.then(|| held.to_vec()))
    }

    /// Adds a passkey to the account of a session whose login is fresh.
    ///
    /// # Errors
    /// When the server cannot tell, or cannot put it on record.
    pub async fn add_passkey(
        &self,
        live: &Live,
        cookie: &str,
        name: &str,
        client_data: &[u8],
        attestation: &[u8],
        request: Request,
    ) -> Result<Added> {
        let challenge = self.take_challenge(cookie, Ceremony::Register).await?;
        let (Some(site), Some(challenge)) = (self.site(), challenge) else { return Ok(Added::No(AGAIN)) };
        if !self.is_fresh(live) {
            return Ok(Added::No(factors::AGAIN));
        }
        let made = match webauthn::register(&site, &challenge, client_data, attestation) {
            Ok(made) => made,
            Err(why) => return self.refused(live, why, request).await,
        };
        let name: String = name.trim().chars().filter(|c| !c.is_control()).take(NAME_LENGTH_MAX).collect();
        let name = if name.is_empty() { format!("Passkey {}", live.user.passkeys.len() + 1) } else { name };
        let now = self.world.now().0;
        let passkey = Passkey { id: made.id, key: made.key, count: made.count, name, made: now, used: None };
        let user = &live.user;
        if !self.passkey_ids.insert(&passkey.text_id(), &user.id, None, Some(&user.id)).await? {
            return self.refused(live, "the credential is registered already", request).await;
        }
        let (codes, hashes) = factors::recovery();
        let changed = self.users.change(&user.username, |user| {
            if user.passkeys.len() >= PASSKEYS_MAX {
                return Ok(None);
            }
            user.passkeys.push(passkey.clone());
            let has_none = user.recovery.is_empty();
            if has_none {
                user.recovery.clone_from(&hashes);
            }
            Ok(Some(has_none))
        });
        let Some((user, Some(has_none))) = changed.await? else {
            self.passkey_ids.delete(&passkey.text_id()).await?;
            return Ok(Added::No("There are ten passkeys already: remove one first."));
        };
        let mut event = Event::new(self.world.now(), What::FactorEnrolled, request);
        event.detail = facts(&[("factor", "passkey"), ("name", &passkey.name)]);
        self.record_of(&user, &live.session.id, event).await?;
        Ok(Added::Yes(if has_none { codes } else { Vec::new() }))
    }

    async fn refused(&self, live: &Live, why: Refused, request: Request) -> Result<Added> {
        let mut event = Event::new(self.world.now(), What::FactorEnrolled, request);
        event.outcome = Outcome::Minor;
        event.reason = Some("the passkey was refused".to_owned());
        event.detail = facts(&[("factor", "passkey"), ("why", why)]);
        self.record_of(&live.user, &live.session.id, event).await?;
        Ok(Added::No(AGAIN))
    }

    /// Removes a passkey. False: there is none of this id.
    ///
    /// # Errors
    /// `Kind::Invalid` when it is the last factor of somebody who needs one, or the login is not fresh.
    pub async fn remove_passkey(&self, live: &Live, id: &str, request: Request) -> Result<bool> {
        if !self.is_fresh(live) {
            return Err(Error::invalid(factors::AGAIN));
        }
        let changed = self.users.change(&live.user.username, |user: &mut User| {
            let Some(at) = user.passkeys.iter().position(|own| own.text_id() == id) else { return Ok(None) };
            let name = user.passkeys.remove(at).name;
            self.check_left(user)?;
            Ok(Some(name))
        });
        let Some((user, Some(name))) = changed.await? else { return Ok(false) };
        self.passkey_ids.delete(id).await?;
        let mut event = Event::new(self.world.now(), What::FactorRemoved, request);
        event.detail = facts(&[("factor", "passkey"), ("name", &name)]);
        self.record_of(&user, &live.session.id, event).await?;
        Ok(true)
    }

    /// Takes a passkey in place of a code.
    ///
    /// # Errors
    /// When the server cannot tell, or cannot put it on record.
    pub async fn passkey(&self, cookie: &str, given: &Assertion, agent: &str, request: Request) -> Result<Step> {
        let now = self.world.now();
        let live = match self.at_factor(cookie, now, &request).await? {
            Ok(live) => live,
            Err(step) => return Ok(step),
        };
        let user = &live.user;
        let challenge = self.take_challenge(cookie, Ceremony::Login).await?;
        let judged = match (self.site(), challenge) {
            (Some(site), Some(challenge)) => {
                let changed =
                    self.users.change(&user.username, |user| Ok(judge(user, &site, &challenge, given, now.0)));
                changed.await?.map_or(Err("the user is gone"), |(_, judged)| judged)
            }
            _ => Err("no challenge of this session is open"),
        };
        if let Err(why) = judged {
            let why = format!("passkey: {why}");
            self.login_failed(&why, Some(user.username.clone()), Some(user), request).await?;
            return Ok(Step::No("The passkey was not taken. Try again, or type a code.", None));
        }
        self.complete_factor(&live, cookie, agent, request).await
    }
}

/// Finds the credential, checks the assertion, and takes the counter over.
fn judge(user: &mut User, site: &Site, challenge: &[u8], given: &Assertion, now: i64) -> Result<(), Refused> {
    if !given.user_handle.is_empty() && given.user_handle != user.id.as_bytes() {
        return Err("the credential is another user's");
    }
    let own = user.passkeys.iter_mut().find(|own| own.id == given.id);
    let own = own.ok_or("the credential is not one of this user")?;
    own.count = webauthn::check(site, challenge, &own.key, own.count, given)?;
    own.used = Some(now);
    Ok(())
}
