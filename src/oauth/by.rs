//! Who administers, for the record: the server itself, an operator at the console, an administrator at the pages, or the
//! person who takes up an invitation.

use std::sync::Arc;

use super::State;
use super::invitation::Invitation;
use super::login::{Live, PAGES_CLIENT};
use crate::access::{Caller, Who};
use crate::audit::{Event, Request, What};
use crate::world::Instant;

/// In whose name something is administered.
#[derive(Clone)]
pub struct By {
    who: Arc<Who>,
    request: Arc<Request>,
    /// What else the record says of them.
    named: Vec<(String, String)>,
}

/// Facts of an event from pairs of name and value.
pub(super) fn facts(of: &[(&str, &str)]) -> Vec<(String, String)> {
    of.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

impl By {
    /// The server itself, at its start or for a demonstration.
    pub fn server() -> By {
        By { who: Caller::task("administration").who().clone(), request: Arc::default(), named: Vec::new() }
    }

    /// An operator at the console, by the name that the operating system knows them under.
    pub fn operator(name: &str) -> By {
        By { named: facts(&[("operator", name)]), ..By::server() }
    }

    /// Whoever holds this invitation: nobody yet.
    pub(super) fn invited(invitation: &Invitation, issuer: &str, request: Request) -> By {
        let who = Who {
            client_id: PAGES_CLIENT.to_owned(),
            token_id: Some(invitation.id.clone()),
            issuer: Some(issuer.to_owned()),
            user: None,
            expires: None,
            task: None,
        };
        let named = facts(&[("invitation", &invitation.id), ("invitedBy", &invitation.by)]);
        By { who: who.into(), request: request.into(), named }
    }

    /// The id of the user who administers; None for operators and the server.
    pub(crate) fn user(&self) -> Option<&str> {
        self.who.user.as_deref()
    }

    /// The request that they make it with.
    pub(crate) fn request(&self) -> &Arc<Request> {
        &self.request
    }

    /// The same in words, for what is kept beside a thing: a user name, or `operator root`.
    pub fn name(&self) -> String {
        let named = |name: &str| self.named.iter().find(|(own, _)| own == name).map(|(_, value)| value.as_str());
        match (named("administrator"), named("operator")) {
            (Some(username), _) => username.to_owned(),
            (None, Some(operator)) => format!("operator {operator}"),
            (None, None) => "the server".to_owned(),
        }
    }

    /// What they did, ready to be recorded.
    pub(crate) fn event(&self, at: Instant, what: What, about: Vec<(String, String)>) -> Event {
        let mut event = Event::new(at, what, self.request.clone());
        event.who = Some(self.who.clone());
        event.detail = about;
        event.detail.extend(self.named.iter().cloned());
        event
    }
}

impl State {
    /// The administrator whose session this is.
    pub fn by(&self, live: &Live, request: Request) -> By {
        let named = facts(&[("administrator", &live.user.username)]);
        By { who: self.who(&live.user, &live.session.id).into(), request: request.into(), named }
    }
}
