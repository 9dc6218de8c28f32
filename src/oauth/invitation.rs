//! One-time links: an invitation to become a user, and the reset of a user's password. The secret is in the link alone;
//! the store knows a keyed hash of it. Nobody signs up without one.

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::State;
use super::by::{By, facts};
use super::login::{Step, random_name};
use super::password;
use super::shelf::Held;
use super::users::{NewUser, USERS_MAX, User, check_record, hashed, normal};
use crate::access::Role;
use crate::audit::{Event, Request, What};
use crate::error::{Error, Kind, Result};
use crate::world::Instant;

pub(super) const SPACE: &str = "oauth-invitation";
/// Life of the link of an invitation, and of a reset.
pub const INVITATION_LIFE_MS: i64 = 7 * 24 * 3600 * 1000;
pub const RESET_LIFE_MS: i64 = 24 * 3600 * 1000;
/// Links that are open at the same time.
const OPEN_MAX: usize = 10_000;
const NOTE_LENGTH_MAX: usize = 200;

pub const OVER: &str = "This link is over: it has been used, it has expired, or it was taken back. Ask your provider's \
                        administration for a new one.";
const TAKEN: &str = "There is a user of this name already. Choose another.";
const NO_NAME: &str = "A user name has 1 to 64 letters, digits and signs of . _ - @ +";

/// What a link is for.
#[derive(Clone, Serialize, Deserialize)]
pub enum Purpose {
    /// Becoming a user in this role, tied to this record.
    Join { role: Role, fhir_user: Option<String> },
    /// Choosing a new password.
    Reset { username: String },
}

/// A link that is open. No Debug: it names a record.
#[derive(Clone, Serialize, Deserialize)]
pub struct Invitation {
    /// Random; names it to administrators without being its secret.
    pub id: String,
    pub purpose: Purpose,
    /// For whom, in the words of whoever made it.
    pub note: String,
    /// Who made it, in words.
    pub by: String,
    /// Milliseconds since 1970.
    pub made: i64,
    pub until: i64,
}

/// A link as it is given out, once.
pub struct Issued {
    pub invitation: Invitation,
    pub link: Zeroizing<String>,
}

/// A person to be invited.
#[derive(Clone)]
pub struct Invite {
    pub role: Role,
    /// `Patient/1`, `RelatedPerson/2`, `Practitioner/3`.
    pub fhir_user: Option<String>,
    pub note: String,
}

impl Invitation {
    /// The record that whoever takes it up is tied to.
    pub fn fhir_user(&self) -> Option<&str> {
        match &self.purpose {
            Purpose::Join { fhir_user, .. } => fhir_user.as_deref(),
            Purpose::Reset { .. } => None,
        }
    }

    fn facts(&self) -> Vec<(String, String)> {
        let mut out = facts(&[("invitation", &self.id)]);
        match &self.purpose {
            Purpose::Join { role, fhir_user } => {
                out.extend(facts(&[("role", role.name()), ("fhirUser", fhir_user.as_deref().unwrap_or_default())]));
            }
            Purpose::Reset { username } => out.extend(facts(&[("username", username)])),
        }
        out
    }
}

impl State {
    /// Whether an invitation says what it must, without looking at records.
    ///
    /// # Errors
    /// `Kind::Invalid` with the place of the fault.
    pub fn check_invite(&self, asked: &Invite) -> Result<()> {
        check_record(asked.role, asked.fhir_user.as_deref())?;
        if asked.note.chars().count() > NOTE_LENGTH_MAX || asked.note.chars().any(char::is_control) {
            return Err(Error::invalid("A note has at most 200 characters, on one line.").at("note"));
        }
        Ok(())
    }

    /// Invites somebody. That the record is there and stands is checked by the caller (`interaction::people`).
    ///
    /// # Errors
    /// `Kind::Invalid` with the place of the fault.
    pub async fn invite(&self, by: &By, asked: Invite) -> Result<Issued> {
        self.check_invite(&asked)?;
        if self.users.count().await? >= USERS_MAX {
            return Err(Error::new(Kind::TooCostly, format!("A server keeps at most {USERS_MAX} users.")));
        }
        let purpose = Purpose::Join { role: asked.role, fhir_user: asked.fhir_user };
        self.issue(by, purpose, asked.note, None, INVITATION_LIFE_MS, What::InvitationMade).await
    }

    /// Ends whatever a user has open, takes password and second factor away, and gives the link by which the user
    /// chooses new ones. None: there is no such user.
    pub async fn reset(&self, by: &By, username: &str) -> Result<Option<Issued>> {
        if self.users.get(username).await?.is_some_and(|user| user.account.is_some()) {
            let text = "This user logs in at an identity provider and has no password here: it is reset there.";
            return Err(Error::new(Kind::BusinessRule, text).at("username"));
        }
        let Some(user) = self.users.strip(username).await? else { return Ok(None) };
        self.invitations.delete_owned(&user.id).await?;
        self.passkey_ids.delete_owned(&user.id).await?;
        self.end_all(&user.id).await?;
        let purpose = Purpose::Reset { username: user.username.clone() };
        self.issue(by, purpose, String::new(), Some(&user.id), RESET_LIFE_MS, What::PasswordReset).await.map(Some)
    }

    async fn issue(
        &self,
        by: &By,
        purpose: Purpose,
        note: String,
        owner: Option<&str>,
        life_ms: i64,
        what: What,
    ) -> Result<Issued> {
        if self.invitations.count(None).await? >= OPEN_MAX {
            return Err(Error::new(Kind::TooCostly, format!("At most {OPEN_MAX} links are open at the same time.")));
        }
        let now = self.world.now();
        let until = now.plus_ms(life_ms);
        let invitation =
            Invitation { id: self.world.uuid(), purpose, note, by: by.name(), made: now.0, until: until.0 };
        self.trail.record(by.event(now, what, invitation.facts())).await?;
        let secret = random_name();
        self.invitations.insert(&secret, &invitation, Some(until), owner).await?;
        let link = Zeroizing::new(format!("{}/invitation?code={}", self.issuer(), *secret));
        Ok(Issued { invitation, link })
    }

    /// The open link of this secret.
    pub async fn invitation(&self, code: &str) -> Result<Option<Held<Invitation>>> {
        let held = self.invitations.get(code).await?;
        Ok(held.filter(|held| held.until > self.world.now().0))
    }

    /// Open links, the newest first.
    pub async fn invitations(&self) -> Result<Vec<Held<Invitation>>> {
        let mut all = self.invitations.all().await?;
        all.retain(|held| held.until > self.world.now().0);
        all.sort_by_key(|held| std::cmp::Reverse(held.made));
        Ok(all)
    }

    /// Takes a link back. False: there is none of this id.
    pub async fn revoke_invitation(&self, by: &By, id: &str) -> Result<bool> {
        let all = self.invitations.all().await?;
        let Some(held) = all.iter().find(|held| held.id == id) else { return Ok(false) };
        self.trail.record(by.event(self.world.now(), What::InvitationRevoked, held.facts())).await?;
        self.invitations.delete_by_key(held.key()).await
    }

    /// Takes a link up: the holder becomes a user, or has a new password, and is logged in as far as the second factor.
    /// Of many who try at once with the same link one succeeds.
    ///
    /// # Errors
    /// When the server cannot tell, or cannot put it on record.
    pub async fn take_up(
        &self,
        code: &str,
        username: &str,
        password: Zeroizing<String>,
        agent: &str,
        request: Request,
    ) -> Result<Step> {
        let Some(held) = self.invitation(code).await? else { return Ok(Step::No(OVER, None)) };
        let own_name = match &held.purpose {
            Purpose::Join { .. } => username,
            Purpose::Reset { username } => username,
        };
        let Some(username) = normal(own_name) else { return Ok(Step::No(NO_NAME, None)) };
        if let Err(why) = password::check(&password, &username) {
            return Ok(Step::No(why, None));
        }
        let is_join = matches!(held.purpose, Purpose::Join { .. });
        if is_join && self.users.get(&username).await?.is_some() {
            return Ok(Step::No(TAKEN, None));
        }
        if !self.invitations.delete_by_key(held.key()).await? {
            return Ok(Step::No(OVER, None));
        }
        let _place = self.hashing.acquire().await.map_err(Error::internal)?;
        let done = match &held.purpose {
            Purpose::Join { role, fhir_user } => {
                self.join(&held, *role, fhir_user.clone(), username, password, &request).await
            }
            Purpose::Reset { username } => self.renew(&held, username, password, &request).await,
        };
        match done {
            Ok(Some(user)) => {
                let stage = self.stage_after_password(&user);
                self.begin(&user, stage, agent, request).await.map(Step::On)
            }
            Ok(None) => Ok(Step::No(OVER, None)),
            Err(error) => {
                // Nobody was made: the invitation stays good.
                if is_join {
                    self.invitations.insert(code, &held, Some(Instant(held.until)), None).await?;
                }
                if error.kind == Kind::Conflict { Ok(Step::No(TAKEN, None)) } else { Err(error) }
            }
        }
    }

    async fn join(
        &self,
        held: &Invitation,
        role: Role,
        fhir_user: Option<String>,
        username: String,
        password: Zeroizing<String>,
        request: &Request,
    ) -> Result<Option<User>> {
        let by = By::invited(held, self.issuer(), request.clone());
        let new = NewUser { username, role, fhir_user, password: Some(password), totp_secret: None, demo: false };
        self.users.by(&by).add(new).await.map(Some)
    }

    async fn renew(
        &self,
        held: &Invitation,
        username: &str,
        password: Zeroizing<String>,
        request: &Request,
    ) -> Result<Option<User>> {
        let hash = hashed(password).await?;
        let now = self.world.now();
        let changed = self.users.change(username, |user| {
            if user.is_active() {
                user.password = Some(hash.clone());
                user.valid_from = now.0;
            }
            Ok(())
        });
        let Some((user, ())) = changed.await?.filter(|(user, ())| user.is_active()) else { return Ok(None) };
        let event = Event::new(now, What::PasswordChanged, request.clone());
        self.record_of(&user, &held.id, event).await?;
        Ok(Some(user))
    }
}
