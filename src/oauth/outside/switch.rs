//! Providers as administrators see and switch them. A provider of the file can be shut, on all servers at once and
//! without a restart: the switch takes away and gives nothing that the file does not give.

use serde::{Deserialize, Serialize};

use super::settings::Provider;
use crate::audit::What;
use crate::error::Result;
use crate::oauth::State;
use crate::oauth::by::{By, facts};
use crate::oauth::users::User;
use crate::world::Instant;

/// How a provider was last switched. Without one it is open.
#[derive(Clone, Serialize, Deserialize)]
pub struct Switch {
    pub closed: bool,
    /// Milliseconds since 1970. What people who come through the provider opened before then has ended.
    pub at: i64,
    pub by: String,
}

/// What is known of a provider at this moment.
pub struct ProviderState {
    pub switch: Option<Switch>,
    /// When it last said what it is, and how many keys it had; None: not since this server started.
    pub known: Option<(Instant, usize)>,
    /// When it last did not answer as it should, if it has not answered since.
    pub failed: Option<Instant>,
    /// Users who came through it.
    pub users: usize,
}

impl ProviderState {
    pub fn is_closed(&self) -> bool {
        self.switch.as_ref().is_some_and(|switch| switch.closed)
    }
}

impl State {
    pub(super) async fn is_closed(&self, provider: &str) -> Result<bool> {
        Ok(self.switches.get(provider).await?.is_some_and(|switch| switch.closed))
    }

    /// Id and name of each provider that is open, in the order of the configuration.
    pub async fn open_providers(&self) -> Result<Vec<(&str, &str)>> {
        let mut open = Vec::new();
        for (Provider { id, name, .. }, _) in &self.outside.0 {
            if !self.is_closed(id).await? {
                open.push((id.as_str(), name.as_str()));
            }
        }
        Ok(open)
    }

    /// Whether what somebody opened at this time (milliseconds since 1970) counts still, as to the identity provider that
    /// they came through, if there is one: it must be one of this server's, open, and not shut since.
    pub(in crate::oauth) async fn may_come(&self, user: &User, opened: i64) -> Result<bool> {
        let Some(account) = &user.account else { return Ok(true) };
        if self.outside.find(&account.provider).is_none() {
            return Ok(false);
        }
        let switch = self.switches.get(&account.provider).await?;
        Ok(switch.is_none_or(|switch| !switch.closed && opened > switch.at))
    }

    /// What is known of a provider. `ask`: it is asked what it is before. None: there is no such provider.
    pub async fn provider_state(&self, id: &str, ask: bool) -> Result<Option<ProviderState>> {
        let Some((provider, keeper)) = self.outside.find(id) else { return Ok(None) };
        if ask {
            // What comes of it is kept.
            let _ = keeper.known(provider, &self.fetch, true, self.world.now()).await;
        }
        let (known, failed) = keeper.state().await;
        Ok(Some(ProviderState {
            switch: self.switches.get(id).await?.map(|switch| (*switch).clone()),
            known,
            failed,
            users: self.users.count_of_provider(id).await?,
        }))
    }

    /// Shuts a provider, or opens it again. Nobody comes in through one that is shut, and what people who came through it
    /// have open ends. False: there is no such provider.
    pub async fn switch_provider(&self, by: &By, id: &str, closed: bool) -> Result<bool> {
        let Some((provider, _)) = self.outside.find(id) else { return Ok(false) };
        let now = self.world.now();
        let what = if closed { What::ProviderDisabled } else { What::ProviderEnabled };
        let about = facts(&[("provider", id), ("issuer", &provider.issuer)]);
        self.trail.record(by.event(now, what, about)).await?;
        self.switches.put(id, &Switch { closed, at: now.0, by: by.name() }, None).await?;
        Ok(true)
    }
}
