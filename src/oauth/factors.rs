//! What people do with their own second factor once they have an account: an authenticator app set up, replaced or removed,
//! new recovery codes. And what an administrator does for somebody who has lost theirs. All of it with a login that is
//! a few minutes old, so that an unlocked screen is not enough.

use zeroize::Zeroizing;

use super::by::{By, facts};
use super::login::Live;
use super::users::{Device, User};
use super::{State, totp};
use crate::audit::{Event, Request, What};
use crate::error::{Error, Kind, Result};

/// Whoever changes how they prove who they are has proved it no longer ago than this, by password (or identity provider)
/// and second factor.
const FRESH_MS: i64 = 10 * 60 * 1000;
/// An offered secret must be taken up in so much time.
const OFFER_LIFE_MS: i64 = 600_000;

pub(super) const AGAIN: &str = "Log in once more, then change your second step.";
pub(super) const LAST: &str = "This is your only second step, and your role needs one.";

/// What setting up an authenticator app gives.
pub enum DeviceSet {
    /// With recovery codes, when the user had none.
    Yes(Vec<Zeroizing<String>>),
    /// The fixed text to show.
    No(&'static str),
}

fn offer_name(cookie: &str) -> String {
    format!("device:{cookie}")
}

/// New recovery codes, and what is kept of them.
pub(super) fn recovery() -> (Vec<Zeroizing<String>>, Vec<[u8; 32]>) {
    let codes = totp::recovery_codes();
    let hashes = codes.iter().map(|code| totp::recovery_hash(code)).collect();
    (codes, hashes)
}

impl State {
    /// Whether the person has proved themselves a moment ago.
    pub fn is_fresh(&self, live: &Live) -> bool {
        live.is_in() && self.world.now().0 - live.session.made < FRESH_MS
    }

    fn check_fresh(&self, live: &Live) -> Result<()> {
        if self.is_fresh(live) { Ok(()) } else { Err(Error::invalid(AGAIN)) }
    }

    /// Whether somebody must not be left without a second factor. Else the recovery codes go with the last one.
    pub(super) fn check_left(&self, user: &mut User) -> Result<()> {
        if !user.has_factor() {
            if self.needs_factor(user.role) {
                return Err(Error::invalid(LAST));
            }
            user.recovery.clear();
        }
        Ok(())
    }

    /// The secret that this session is offered for an authenticator app: the same until it is taken up or too old.
    pub async fn offer_device(&self, cookie: &str) -> Result<Vec<u8>> {
        let name = offer_name(cookie);
        let secret = totp::secret().to_vec();
        let until = self.world.now().plus_ms(OFFER_LIFE_MS);
        if self.challenges.insert(&name, &secret, Some(until), None).await? {
            return Ok(secret);
        }
        let held = self.challenges.get(&name).await?;
        held.map(|held| held.to_vec()).ok_or_else(|| Error::invalid(AGAIN))
    }

    /// Takes the authenticator app that shows this code, in place of the one before.
    ///
    /// # Errors
    /// `Kind::Invalid` when the login is not fresh.
    pub async fn set_device(&self, live: &Live, cookie: &str, code: &str, request: Request) -> Result<DeviceSet> {
        self.check_fresh(live)?;
        let Some(offered) = self.challenges.get(&offer_name(cookie)).await? else {
            return Ok(DeviceSet::No("That took too long. Begin again with the new key."));
        };
        let secret = offered.to_vec();
        let Some(step) = totp::matched(&secret, code, 0, self.world.now()) else {
            return Ok(DeviceSet::No("This is not the code that the app should show now. Check its clock."));
        };
        // Of two who take the same offer up, one does.
        if !self.challenges.delete_by_key(offered.key()).await? {
            return Ok(DeviceSet::No("That took too long. Begin again with the new key."));
        }
        let (codes, hashes) = recovery();
        let changed = self.users.change(&live.user.username, |user| {
            let replaced = user.device.replace(Device { secret: secret.clone(), last_step: step }).is_some();
            let had_none = user.recovery.is_empty();
            if had_none {
                user.recovery.clone_from(&hashes);
            }
            Ok((replaced, had_none))
        });
        let (user, (replaced, had_none)) = changed.await?.ok_or_else(gone)?;
        let mut event = Event::new(self.world.now(), What::FactorEnrolled, request);
        event.detail = facts(&[("factor", "totp"), ("replaced", if replaced { "true" } else { "false" })]);
        self.record_of(&user, &live.session.id, event).await?;
        Ok(DeviceSet::Yes(if had_none { codes } else { Vec::new() }))
    }

    /// Removes the authenticator app. False: there is none.
    ///
    /// # Errors
    /// `Kind::Invalid` when it is the last factor of somebody who needs one, or the login is not fresh.
    pub async fn remove_device(&self, live: &Live, request: Request) -> Result<bool> {
        self.check_fresh(live)?;
        let changed = self.users.change(&live.user.username, |user| {
            if user.device.take().is_none() {
                return Ok(false);
            }
            self.check_left(user).map(|()| true)
        });
        let Some((user, true)) = changed.await? else { return Ok(false) };
        let mut event = Event::new(self.world.now(), What::FactorRemoved, request);
        event.detail = facts(&[("factor", "totp")]);
        self.record_of(&user, &live.session.id, event).await?;
        Ok(true)
    }

    /// New recovery codes: those of before count no longer.
    ///
    /// # Errors
    /// `Kind::Invalid` for somebody without a second factor, whom they would stand for, and when the login is not fresh.
    pub async fn renew_recovery(&self, live: &Live, request: Request) -> Result<Vec<Zeroizing<String>>> {
        self.check_fresh(live)?;
        let (codes, hashes) = recovery();
        let changed = self.users.change(&live.user.username, |user| {
            if !user.has_factor() {
                return Err(Error::invalid("Recovery codes stand in for a second step, and you have none."));
            }
            user.recovery.clone_from(&hashes);
            Ok(())
        });
        let (user, ()) = changed.await?.ok_or_else(gone)?;
        let event = Event::new(self.world.now(), What::RecoveryCodesMade, request);
        self.record_of(&user, &live.session.id, event).await?;
        Ok(codes)
    }

    /// Takes the lost second factor of somebody who comes through an identity provider away, and ends what they have open:
    /// the next login there sets up a new one here. False: there is no such user.
    ///
    /// # Errors
    /// `Kind::BusinessRule` for a user with a password here: who knows that alone could set up a factor of their own. A
    /// reset replaces both.
    pub async fn clear_factor(&self, by: &By, username: &str) -> Result<bool> {
        let now = self.world.now();
        let changed = self.users.change(username, |user| {
            if user.account.is_none() {
                let text = "This user has a password here: reset both, so that the password alone does not open the \
                            account.";
                return Err(Error::new(Kind::BusinessRule, text).at("username"));
            }
            let had = user.has_factor();
            user.device = None;
            user.passkeys.clear();
            user.recovery.clear();
            user.valid_from = now.0;
            Ok(had)
        });
        let Some((user, had)) = changed.await? else { return Ok(false) };
        self.passkey_ids.delete_owned(&user.id).await?;
        self.end_all(&user.id).await?;
        let mut about = user.facts();
        about.extend(facts(&[("factor", "all"), ("had", if had { "true" } else { "false" })]));
        self.trail.record(by.event(now, What::FactorRemoved, about)).await?;
        Ok(true)
    }
}

fn gone() -> Error {
    Error::new(Kind::Conflict, "The account is being changed. Log in again.")
}
