//! What an administrator looks at and ends: other people's sessions and what they allow apps, locks, clients with all
//! that was given through them.

use super::State;
use super::authorization::Authorization;
use super::by::{By, facts};
use super::login::{Session, Stage, lock_name};
use super::ring::{KeyState, Ring};
use super::shelf::Held;
use super::users::{User, normal};
use crate::audit::What;
use crate::error::Result;

impl State {
    /// Everybody's sessions that are logged in, or one person's; the newest first.
    pub async fn all_sessions(&self, of: Option<&User>) -> Result<Vec<Held<Session>>> {
        if let Some(user) = of {
            return self.sessions_of(user).await;
        }
        let now = self.world.now().0;
        let mut all = self.sessions.all().await?;
        all.retain(|one| one.stage == Stage::In && one.until > now && now - one.seen < self.limits.session_idle_ms);
        all.sort_by_key(|one| std::cmp::Reverse(one.made));
        Ok(all)
    }

    /// Ends a session of anybody. False: there is none of this id.
    pub async fn end_any_session(&self, by: &By, id: &str) -> Result<bool> {
        let all = self.sessions.all().await?;
        let Some(session) = all.iter().find(|session| session.id == id) else { return Ok(false) };
        let Some(user) = self.users.get(&session.username).await? else { return Ok(false) };
        let mut about = user.facts();
        about.extend(facts(&[("session", id)]));
        self.trail.record(by.event(self.world.now(), What::SessionEnded, about)).await?;
        self.drop_session(&user, session).await?;
        Ok(true)
    }

    /// Ends all sessions of a user, and all they have allowed apps. Gives how many sessions there were.
    pub async fn end_sessions_of(&self, by: &By, user: &User) -> Result<usize> {
        let count = self.sessions_of(user).await?.len();
        let mut about = user.facts();
        about.extend(facts(&[("sessions", &count.to_string())]));
        self.trail.record(by.event(self.world.now(), What::SessionEnded, about)).await?;
        self.end_all(&user.id).await?;
        Ok(count)
    }

    /// What everybody has allowed apps, or one person; the newest first.
    pub async fn all_authorizations(&self, of: Option<&User>) -> Result<Vec<Held<Authorization>>> {
        if let Some(user) = of {
            return self.authorizations_of(user).await;
        }
        let mut all = self.authorizations.all().await?;
        all.sort_by_key(|one| std::cmp::Reverse(one.made));
        Ok(all)
    }

    /// Ends what anybody has allowed an app. False: there is none of this id.
    pub async fn end_any_authorization(&self, by: &By, id: &str) -> Result<bool> {
        let Some(held) = self.authorizations.get(id).await? else { return Ok(false) };
        let about = facts(&[("authorization", id), ("client", &held.client_id), ("username", &held.username)]);
        self.trail.record(by.event(self.world.now(), What::AuthorizationEnded, about)).await?;
        self.authorizations.delete(id).await
    }

    /// Forgets the failures of a name, so that its user may try again at once. False: there is no such user.
    pub async fn unlock(&self, by: &By, username: &str) -> Result<bool> {
        let Some(user) = self.users.get(username).await? else { return Ok(false) };
        self.trail.record(by.event(self.world.now(), What::UserUnlocked, user.facts())).await?;
        self.locks.delete(&lock_name(normal(username).as_deref())).await?;
        Ok(true)
    }

    /// Disables a client and ends what people have allowed it. False: there is no such client.
    pub async fn disable_client(&self, by: &By, client_id: &str) -> Result<bool> {
        let known = self.clients.by(by).disable(client_id).await?;
        self.end_authorizations_of(client_id).await?;
        Ok(known)
    }

    /// Forgets a client and ends what people have allowed it. False: there is no such client.
    pub async fn remove_client(&self, by: &By, client_id: &str) -> Result<bool> {
        let Some(client) = self.clients.get(client_id).await? else { return Ok(false) };
        self.clients.by(by).record(What::ClientDeleted, &client).await?;
        self.end_authorizations_of(client_id).await?;
        self.clients.delete(client_id).await
    }

    /// The keys that tokens are signed with, newest last.
    pub async fn signing_keys(&self) -> Result<Vec<KeyState>> {
        self.identity_ring().await?;
        Ring::list(&self.rings).await
    }

    /// Begins a new epoch of the key that wraps patients' keys; gives its number.
    pub async fn rotate_vault(&self, by: &By) -> Result<(u16, u64)> {
        let epoch = self.vault.begin_epoch().await?;
        let about = facts(&[("keys", "vault"), ("epoch", &epoch.to_string())]);
        self.trail.record(by.event(self.world.now(), What::KeysRotated, about)).await?;
        Ok((epoch, self.vault.rewrap().await?))
    }
}
