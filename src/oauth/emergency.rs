//! Emergency tokens (break-glass): short, for one patient, under the authorization that the person has already, so that
//! revoking that ends this one too. Whether one may be given is `interaction`'s to decide, and to put on record.

use super::State;
use crate::access::{Caller, Claims, Person};
use crate::error::{Error, Kind, Result};
use crate::world::Instant;

/// An emergency token, not yet given to anybody.
pub struct Emergency {
    pub access_token: String,
    pub token_id: String,
    pub scope: String,
    pub expires: Instant,
}

impl State {
    /// A token for the same person, client and scopes that is about this patient alone.
    ///
    /// # Errors
    /// `Kind::Forbidden` when the caller is nobody.
    pub fn emergency(&self, caller: &Caller, patient: &str, purpose: &str, seconds: i64) -> Result<Emergency> {
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
        let scope = caller.scopes().to_string();
        let claims = Claims {
            sub: user,
            exp: now.seconds() + seconds,
            person: Some(person),
            ..self.claims(caller.who().client_id.clone(), scope.clone(), now)
        };
        let access_token = self.ring().access().sign("at+jwt", &claims)?;
        Ok(Emergency { access_token, token_id: claims.jti, scope, expires: Instant(claims.exp * 1000) })
    }
}
