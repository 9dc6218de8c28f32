//! Emergency tokens (break-glass): short, for one patient, under the authorization that the person has already, so that
//! revoking that ends this one too. Whether one may be given is `interaction`'s to decide, and to put on record. They
//! are asked for by the operation `$emergency-access`, or here by token exchange (RFC 8693).

use std::sync::Arc;

use serde_json::json;

use super::State;
use super::client::Client;
use super::exchange::narrowed;
use super::form::{ClientForm, Refusal};
use super::token::{Granted, unavailable};
use crate::access::{Caller, Claims, Person};
use crate::audit::Event;
use crate::error::{Error, Kind, Result};
use crate::world::Instant;

/// The one type of token that is exchanged, and given (RFC 8693, section 3).
const ACCESS_TOKEN: &str = "urn:ietf:params:oauth:token-type:access_token";
/// Characters of a logical id.
const ID_LENGTH_MAX: usize = 64;

/// An emergency token, not yet given to anybody.
pub struct Emergency {
    pub access_token: String,
    pub token_id: String,
    pub scope: String,
    pub expires: Instant,
}

/// What a token exchange asks for; who may, for which purposes, is not looked at yet.
pub struct EmergencyAsked {
    /// Of the token that is exchanged.
    pub caller: Caller,
    /// Logical id.
    pub patient: String,
    pub purpose: String,
    pub reason: String,
    /// Those of the token that is exchanged, or fewer.
    pub scope: String,
}

/// An emergency token with its access on record.
pub struct EmergencyGiven {
    pub token: Emergency,
    /// The order to review the access: `Task/1`.
    pub review: String,
}

impl State {
    /// A token for the same person and client that is about this patient alone, with these scopes of the caller's.
    ///
    /// # Errors
    /// `Kind::Forbidden` when the caller is nobody.
    pub fn emergency(
        &self,
        caller: &Caller,
        [patient, purpose]: [&str; 2],
        scope: String,
        seconds: i64,
    ) -> Result<Emergency> {
        let nobody = || Error::new(Kind::Forbidden, "Emergency access is for people, not for backend services.");
        let person = caller.person().ok_or_else(nobody)?;
        let user = caller.who().user.clone().ok_or_else(nobody)?;
        let person = Person {
            patient: Some(patient.to_owned()),
            encounter: None,
            emergency: Some(purpose.to_owned()),
            ..person.clone()
        };
        let now = self.world.now();
        let claims = Claims {
            sub: user,
            exp: now.seconds() + seconds,
            person: Some(person),
            ..self.claims(caller.who().client_id.clone(), scope.clone(), now)
        };
        let access_token = self.ring().access().sign("at+jwt", &claims)?;
        Ok(Emergency { access_token, token_id: claims.jti, scope, expires: Instant(claims.exp * 1000) })
    }

    /// Reads a token exchange of this client. What is wrong with the token is not told apart from other faults of the
    /// request (RFC 8693, section 2.2.2).
    pub(super) async fn exchange_asked(
        &self,
        client: &Client,
        form: &ClientForm<'_>,
    ) -> Result<EmergencyAsked, Refusal> {
        let invalid = |text: &str| Refusal::new("invalid_request", text);
        if form.required("subject_token_type")? != ACCESS_TOKEN
            || form.value("requested_token_type").is_some_and(|wanted| wanted != ACCESS_TOKEN)
        {
            return Err(invalid("Access tokens are exchanged for access tokens: name their type (RFC 8693)."));
        }
        if form.value("actor_token").is_some() || form.value("actor_token_type").is_some() {
            return Err(invalid("Nobody acts for somebody else here: no actor_token is taken."));
        }
        let ours = |name: &str| form.value(name).is_none_or(|target| target == self.keys.audience());
        if !ours("resource") || !ours("audience") {
            return Err(Refusal::new("invalid_target", "Tokens are given for the FHIR base of this server only."));
        }
        let caller = match self.caller(form.required("subject_token")?).await {
            Ok(caller) if caller.who().client_id == client.client_id => caller,
            Ok(_) => return Err(invalid("The subject_token is not one of this client.")),
            Err(error) if error.kind == Kind::Unauthenticated => {
                return Err(invalid("The subject_token is not a live access token of this server."));
            }
            Err(error) => return Err(unavailable(error)),
        };
        let patient = form.required("patient")?;
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-.".contains(&byte);
        if patient.len() > ID_LENGTH_MAX || !patient.bytes().all(plain) {
            return Err(invalid("The parameter patient is the logical id of a Patient."));
        }
        Ok(EmergencyAsked {
            patient: patient.to_owned(),
            purpose: form.required("purpose")?.to_owned(),
            reason: form.required("reason")?.to_owned(),
            scope: narrowed(&caller.scopes().to_string(), form.value("scope"))?,
            caller,
        })
    }

    /// The answer of the token endpoint, stated in the event.
    pub(super) fn exchanged(&self, given: EmergencyGiven, asked: &[String; 2], event: &mut Event) -> Granted {
        let [patient, purpose] = asked;
        let EmergencyGiven { token, review } = given;
        if let Some(who) = &mut event.who {
            let who = Arc::make_mut(who);
            who.token_id = Some(token.token_id);
            who.expires = Some(token.expires);
        }
        let facts = [("scope", token.scope.as_str()), ("emergency", purpose)];
        event.detail.extend(facts.map(|(name, value)| (name.to_owned(), value.to_owned())));
        let expires_in = token.expires.seconds() - self.world.now().seconds();
        let mut granted = Granted::new(token.access_token, token.scope, expires_in);
        for (name, value) in [("issued_token_type", ACCESS_TOKEN), ("patient", patient), ("review", &review)] {
            granted.more.insert(name.to_owned(), json!(value));
        }
        granted
    }
}

/// Why no emergency token is given, as the token endpoint says it.
pub(super) fn refused(error: Error) -> Refusal {
    match error.kind {
        Kind::Invalid | Kind::Forbidden | Kind::NotFound | Kind::Gone => {
            Refusal::new("invalid_request", error.to_string())
        }
        _ => unavailable(error),
    }
}
