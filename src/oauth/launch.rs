//! EHR launch contexts: made by an EHR (or by our own launch page), handed through the app, taken once.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::State;
use super::authorization::Context;
use super::client::Client;
use super::login::random_name;
use crate::access::Who;
use crate::audit::{Event, Request, What};
use crate::error::{Error, Result};

pub(super) const SPACE: &str = "oauth-launch";
/// A handle works for so long, once.
const LIFE_MS: i64 = 300_000;
const INTENT_LENGTH_MAX: usize = 200;

/// What a handle stands for.
#[derive(Clone, Serialize, Deserialize)]
pub struct Launch {
    pub context: Context,
    /// The app it is for; None: whichever brings it.
    pub client_id: Option<String>,
    /// The user who launches; None: whoever logs in.
    pub username: Option<String>,
}

impl State {
    /// Makes a handle. The caller has made sure that whoever asks may launch with this context.
    ///
    /// # Errors
    /// `Kind::Invalid` with the place of the fault.
    pub async fn launch(&self, launch: Launch, who: Arc<Who>, request: Request) -> Result<String> {
        let id = |name: &str, id: &Option<String>| match id {
            Some(id) if !crate::fhir::reference::is_id(id) => {
                Err(Error::invalid("This is the logical id of a resource.").at(name.to_owned()))
            }
            _ => Ok(()),
        };
        id("patient", &launch.context.patient)?;
        id("encounter", &launch.context.encounter)?;
        if launch.context.intent.as_ref().is_some_and(|intent| intent.len() > INTENT_LENGTH_MAX) {
            return Err(Error::invalid("An intent has at most 200 characters.").at("intent"));
        }
        if let Some(client_id) = &launch.client_id {
            let known = self.clients.get(client_id).await?.is_some_and(|client| !client.redirect_uris.is_empty());
            if !known {
                return Err(Error::invalid("No app of this client_id is registered here.").at("client_id"));
            }
        }
        let now = self.world.now();
        let mut event = Event::new(now, What::LaunchMade, request);
        event.who = Some(who);
        event.patients.extend(launch.context.patient.clone());
        event.detail.extend(launch.client_id.clone().map(|client| ("client".to_owned(), client)));
        event.detail.extend(launch.username.clone().map(|username| ("username".to_owned(), username)));
        self.trail.record(event).await?;
        let handle = random_name();
        self.launches.insert(&handle, &launch, Some(now.plus_ms(LIFE_MS)), None).await?;
        Ok(handle.to_string())
    }

    /// What a handle stands for, for this app, once.
    pub(super) async fn take_launch(&self, handle: &str, client: &Client) -> Result<Option<Launch>> {
        let Some(launch) = self.launches.get(handle).await? else { return Ok(None) };
        if launch.client_id.as_ref().is_some_and(|own| *own != client.client_id) {
            return Ok(None);
        }
        Ok(self.launches.delete_by_key(launch.key()).await?.then(|| (*launch).clone()))
    }
}
