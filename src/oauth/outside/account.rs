//! The local users of people who log in at a provider: linked by issuer and subject, made at the first login that a
//! rule gives a role, brought in line at every further one.

use serde::{Deserialize, Serialize};

use super::mapping::{Mapped, mapped, text};
use super::refused::Refused;
use super::settings::Provider;
use super::token::Identity;
use crate::audit::{Event, Request, What};
use crate::error::{Error, Kind, Result};
use crate::oauth::State;
use crate::oauth::users::{NAME_LENGTH_MAX, USERS_MAX, User};

pub(in crate::oauth) const LINK_SPACE: &str = "oauth-account";
/// Names that are tried for a new user.
const NAMES_MAX: u32 = 20;

/// The account at a provider that a user logs in with.
#[derive(Clone, Serialize, Deserialize)]
pub struct Account {
    /// As the configuration names it.
    pub provider: String,
    pub issuer: String,
    pub subject: String,
    /// The last login there, in milliseconds since 1970.
    pub seen: i64,
}

/// Whose an account is.
#[derive(Clone, Serialize, Deserialize)]
pub struct Link {
    username: String,
}

/// A subject is its issuer's alone.
fn link_name(provider: &Provider, subject: &str) -> String {
    format!("{}\n{subject}", provider.issuer)
}

/// The name of a new user: what the provider calls the person, and the provider.
fn name_of(provider: &Provider, identity: &Identity, try_number: u32) -> String {
    let called = text(&identity.claims, &provider.username).unwrap_or_default().to_lowercase();
    let plain = |c: char| if c.is_ascii_alphanumeric() || "._-@".contains(c) { c } else { '-' };
    let called: String = called.trim().chars().map(plain).collect();
    let called = if called.is_empty() { "somebody".to_owned() } else { called };
    let number = if try_number == 0 { String::new() } else { format!("-{}", try_number + 1) };
    let suffix = format!("{number}+{}", provider.id);
    let room = NAME_LENGTH_MAX - suffix.len();
    format!("{}{suffix}", &called[..called.len().min(room)])
}

impl State {
    /// The user of an account; None when nobody has logged in with it.
    pub(super) async fn linked(&self, provider: &Provider, subject: &str) -> Result<Option<User>> {
        let Some(link) = self.links.get(&link_name(provider, subject)).await? else { return Ok(None) };
        let user = self.users.get(&link.username).await?;
        Ok(user.map(|user| (*user).clone()))
    }

    /// The user that a login is of, as the provider says that it is now.
    pub(super) async fn account(
        &self,
        provider: &Provider,
        identity: &Identity,
        request: &Request,
    ) -> Result<Result<User, Refused>> {
        let existing = self.linked(provider, &identity.subject).await?;
        let mapped = mapped(&identity.claims, &provider.rules, self.keys.audience());
        match (existing, mapped) {
            (None, Err(why)) => Ok(Err(why.into())),
            (Some(user), Err(why)) => {
                // Whoever has lost the role there has lost what is open here.
                self.changed(&user, provider, None, request).await?;
                Ok(Err(why.into()))
            }
            (Some(user), _) if !user.is_active() => Ok(Err(Refused::Disabled)),
            (Some(user), Ok(mapped)) => self.changed(&user, provider, Some(mapped), request).await.map(Ok),
            (None, Ok(mapped)) => self.added(provider, identity, mapped, request).await.map(Ok),
        }
    }

    /// Brings a user in line. `None`: there is no role any more.
    async fn changed(
        &self,
        user: &User,
        provider: &Provider,
        mapped: Option<Mapped>,
        request: &Request,
    ) -> Result<User> {
        let now = self.world.now().0;
        let is_same =
            |user: &User| mapped.as_ref().is_some_and(|new| new.role == user.role && new.fhir_user == user.fhir_user);
        let changed = self.users.change_found(&user.username, |user| {
            // What was opened with another role ends.
            if !is_same(user) {
                user.valid_from = now;
            }
            let Some(new) = &mapped else { return };
            user.role = new.role;
            user.fhir_user.clone_from(&new.fhir_user);
            if let Some(account) = &mut user.account {
                account.seen = now;
                account.provider.clone_from(&provider.id);
            }
        });
        let Some((before, user)) = changed.await? else {
            return Err(Error::new(Kind::Conflict, "The account is being changed. Log in again."));
        };
        let same = is_same(&before);
        if !same {
            self.end_all(&user.id).await?;
            self.record_account(What::UserChanged, &user, provider, request).await?;
        }
        Ok(user)
    }

    async fn added(&self, provider: &Provider, identity: &Identity, mapped: Mapped, request: &Request) -> Result<User> {
        if self.users.count().await? >= USERS_MAX {
            return Err(Error::new(Kind::TooCostly, format!("A server keeps at most {USERS_MAX} users.")));
        }
        for try_number in 0..NAMES_MAX {
            let account = Account {
                provider: provider.id.clone(),
                issuer: provider.issuer.clone(),
                subject: identity.subject.clone(),
                seen: self.world.now().0,
            };
            let name = name_of(provider, identity, try_number);
            let Some(user) = self.users.add_account(name, mapped.role, mapped.fhir_user.clone(), account).await? else {
                continue;
            };
            let link = Link { username: user.username.clone() };
            let name = link_name(provider, &identity.subject);
            // A link without its user is left when somebody has deleted that; it may be taken over.
            let mut kept = self.links.insert(&name, &link, None, None).await?;
            if !kept && self.linked(provider, &identity.subject).await?.is_none() {
                self.links.delete(&name).await?;
                kept = self.links.insert(&name, &link, None, None).await?;
            }
            if !kept {
                // Two first logins at once: the other one was first.
                self.users.forget(&user).await?;
                return Err(Error::new(Kind::Conflict, "You have just logged in elsewhere. Log in again."));
            }
            self.record_account(What::UserAdded, &user, provider, request).await?;
            return Ok(user);
        }
        Err(Error::new(Kind::Conflict, "There are too many users of this name. Ask your administration."))
    }

    async fn record_account(&self, what: What, user: &User, provider: &Provider, request: &Request) -> Result<()> {
        let mut event = Event::new(self.world.now(), what, request.clone());
        event.detail = user.facts();
        event.detail.push(("provider".to_owned(), provider.id.clone()));
        self.trail.record(event).await.map(drop)
    }
}
