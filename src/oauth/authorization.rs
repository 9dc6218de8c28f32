//! What a person has allowed an app: the one-time code that is given for it, and the refresh tokens that follow, each
//! of which counts once. Ending an authorization ends every token that was given under it.

use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq;

use crate::access::Role;
use crate::fhir::json::Node;
use crate::world;

pub(super) const SPACE: &str = "oauth-authorization";
pub(super) const CODE_SPACE: &str = "oauth-code";
/// Life of a code.
pub const CODE_LIFE_MS: i64 = 60_000;
/// A used code is remembered so long, so that its second use is known for what it is.
pub const CODE_MEMORY_MS: i64 = 3600 * 1000;
/// A refresh token works for so long after the last one was given: a little more than three months.
pub const REFRESH_LIFE_MS: i64 = 100 * 24 * 3600 * 1000;

/// What a person has allowed an app, in one launch.
#[derive(Clone, Serialize, Deserialize)]
pub struct Authorization {
    pub id: String,
    pub client_id: String,
    pub username: String,
    pub user_id: String,
    pub role: Role,
    /// As granted.
    pub scopes: String,
    pub context: Context,
    /// Id of the login session it was given in.
    pub session: String,
    /// Milliseconds since 1970.
    pub made: i64,
    pub auth_time: i64,
    pub nonce: Option<String>,
    pub refresh: Option<Refresh>,
}

/// What a launch is about.
#[derive(Clone, Default, Serialize, Deserialize)]
pub struct Context {
    /// Logical ids.
    pub patient: Option<String>,
    pub encounter: Option<String>,
    pub intent: Option<String>,
    /// An EHR shows whom it is about: the app need not.
    pub need_patient_banner: Option<bool>,
    /// It came from an EHR, which has a style.
    pub ehr: bool,
    /// What else it is about, as [`super::context::entries`] lets it be.
    #[serde(default)]
    pub fhir_context: Vec<Node>,
}

/// The chain of refresh tokens: `number` is the one that counts.
#[derive(Clone, Serialize, Deserialize)]
pub struct Refresh {
    secret: [u8; 32],
    number: u64,
    /// Works without the person being logged in.
    pub offline: bool,
}

/// A code as it is kept.
#[derive(Clone, Serialize, Deserialize)]
pub struct Code {
    pub authorization: Authorization,
    pub redirect_uri: String,
    /// PKCE S256.
    pub challenge: String,
    pub used: bool,
    /// It was used again: whatever the first use gave has ended.
    pub replayed: bool,
}

/// What a refresh token turned out to be.
#[derive(Debug, PartialEq, Eq)]
pub enum Presented {
    Current,
    /// It was used before: somebody has stolen it, or its successor.
    Used,
    Forged,
}

impl Authorization {
    /// Whether it outlives the login session.
    pub fn is_offline(&self) -> bool {
        self.refresh.as_ref().is_some_and(|refresh| refresh.offline)
    }
}

/// The authorization that a refresh token says it is of; not yet believed.
pub fn authorization_of(token: &str) -> Option<&str> {
    let mut parts = token.split('.');
    match (parts.next(), parts.next(), parts.next(), parts.next()) {
        (Some("r1"), Some(id), Some(_), Some(_)) if parts.next().is_none() => Some(id),
        _ => None,
    }
}

impl Refresh {
    pub fn new(offline: bool) -> Refresh {
        let mut secret = [0u8; 32];
        world::secret(&mut secret);
        Refresh { secret, number: 1, offline }
    }

    /// The token that counts.
    pub fn token(&self, authorization: &str) -> String {
        self.numbered(authorization, self.number)
    }

    fn numbered(&self, authorization: &str, number: u64) -> String {
        let key = hmac::Key::new(hmac::HMAC_SHA256, &self.secret);
        let tag = hmac::sign(&key, &number.to_be_bytes());
        format!("r1.{authorization}.{number}.{}", URL_SAFE_NO_PAD.encode(tag))
    }

    pub fn presented(&self, authorization: &str, token: &str) -> Presented {
        let number = token.split('.').nth(2).and_then(|number| number.parse::<u64>().ok());
        let Some(number) = number.filter(|number| (1..=self.number).contains(number)) else {
            return Presented::Forged;
        };
        let genuine: bool = self.numbered(authorization, number).as_bytes().ct_eq(token.as_bytes()).into();
        match (genuine, number == self.number) {
            (false, _) => Presented::Forged,
            (true, true) => Presented::Current,
            (true, false) => Presented::Used,
        }
    }

    /// The chain after one use.
    pub fn next(&self) -> Refresh {
        Refresh { number: self.number + 1, ..self.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_token_of_the_chain_counts_once_and_none_can_be_forged() {
        let first = Refresh::new(true);
        let token = first.token("a1");
        assert_eq!(authorization_of(&token), Some("a1"));
        assert_eq!(first.presented("a1", &token), Presented::Current);
        let second = first.next();
        assert_eq!(second.presented("a1", &token), Presented::Used);
        assert_eq!(second.presented("a1", &second.token("a1")), Presented::Current);
        assert_eq!(first.presented("a1", &second.token("a1")), Presented::Forged, "of the future");
        assert_eq!(first.presented("a2", &token), Presented::Forged);
        assert_eq!(Refresh::new(true).presented("a1", &token), Presented::Forged);
        for forged in ["r1.a1.1.", "r1.a1.0.x", "r1.a1.x.y", "", "r1.a1.1.AAAA"] {
            assert_eq!(first.presented("a1", forged), Presented::Forged, "{forged}");
        }
        for other in ["", "r2.a.1.x", "r1.a.1", "r1.a.1.x.y", "eyJ.a.b"] {
            assert_eq!(authorization_of(other), None, "{other}");
        }
    }
}
