//! Tokens for what a person has allowed: by code (RFC 6749 with PKCE), by refresh token, and the id_token beside them.

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::json;
use subtle::ConstantTimeEq;

use super::State;
use super::authorization::{Authorization, CODE_MEMORY_MS, Code, Presented, REFRESH_LIFE_MS, authorization_of};
use super::client::Client;
use super::form::Refusal;
use super::shelf::Held;
use super::token::{Granted, unavailable};
use super::users::User;
use crate::access::{Claims, Person, Scopes};
use crate::audit::{Event, What};
use crate::error::Result as Outcome;
use crate::world::Instant;

/// Characters of a PKCE verifier (RFC 7636).
const VERIFIER_LENGTH: std::ops::RangeInclusive<usize> = 43..=128;
/// Life of an id_token: it is for the login of this moment.
const IDENTITY_SECONDS: i64 = 3600;

fn invalid_grant(text: &str) -> Refusal {
    Refusal::new("invalid_grant", text)
}

fn is_verified(verifier: &str, challenge: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    let hashed = URL_SAFE_NO_PAD.encode(digest(&SHA256, verifier.as_bytes()));
    let same: bool = hashed.as_bytes().ct_eq(challenge.as_bytes()).into();
    same && VERIFIER_LENGTH.contains(&verifier.len()) && verifier.bytes().all(plain)
}

impl State {
    /// Redeems a code: once, by the client it was given to, at the redirect_uri and with the verifier it was asked with.
    pub(super) async fn by_code(
        &self,
        client: &Client,
        [code, redirect_uri, verifier]: [&str; 3],
        now: Instant,
        event: &mut Event,
    ) -> Result<Granted, Refusal> {
        let unknown = || invalid_grant("The code is unknown, used or too old.");
        let twice = || invalid_grant("The code was used twice: what it gave has ended.");
        let held = self.codes.get(code).await.map_err(unavailable)?.ok_or_else(unknown)?;
        if held.used {
            self.replayed(code, &held, now, event).await.map_err(unavailable)?;
            return Err(invalid_grant("The code was used before: what it gave has ended."));
        }
        if held.authorization.client_id != client.client_id {
            return Err(unknown());
        }
        if held.redirect_uri != redirect_uri {
            return Err(invalid_grant("The redirect_uri is not the one of the authorization request."));
        }
        if !is_verified(verifier, &held.challenge) {
            return Err(invalid_grant("The code_verifier is not that of the code_challenge."));
        }
        let memory = Some(now.plus_ms(CODE_MEMORY_MS));
        let used = Code { used: true, ..held.clone() };
        if !self.codes.swap(&held, &used, memory).await.map_err(unavailable)? {
            // Somebody else uses it in this very moment, here or at another server: one of the two has stolen it.
            self.replayed(code, &held, now, event).await.map_err(unavailable)?;
            return Err(twice());
        }
        let authorization = &used.authorization;
        let user = self.user_of(authorization).await?;
        let granted = self.person_token(authorization, &user, &authorization.scopes, now, event).await?;
        let expires = Some(self.end_of(authorization, now));
        let id = &authorization.id;
        let kept = self.authorizations.insert(id, authorization, expires, Some(&user.id)).await;
        kept.map_err(unavailable)?;
        // A second use in this very moment finds nothing to end yet, but leaves its mark.
        let replayed = self.codes.get(code).await.map_err(unavailable)?.is_none_or(|code| code.replayed);
        if replayed {
            self.authorizations.delete(id).await.map_err(unavailable)?;
            return Err(twice());
        }
        Ok(granted)
    }

    /// A code that comes a second time was stolen by one of the two who have it: all it gave ends.
    async fn replayed(&self, code: &str, held: &Held<Code>, now: Instant, event: &mut Event) -> Outcome<()> {
        let memory = Some(now.plus_ms(CODE_MEMORY_MS));
        self.codes
            .change(code, memory, |code| {
                code.replayed = true;
                Ok(())
            })
            .await?;
        self.authorizations.delete(&held.authorization.id).await?;
        event.detail.push(("authorization-ended".to_owned(), held.authorization.id.clone()));
        Ok(())
    }

    /// The live user of an authorization.
    async fn user_of(&self, authorization: &Authorization) -> Result<Held<User>, Refusal> {
        let ended = || invalid_grant("The person's account does not allow this any more.");
        let user = self.users.get(&authorization.username).await.map_err(unavailable)?.ok_or_else(ended)?;
        let live = user.is_active()
            && user.id == authorization.user_id
            && authorization.made >= user.valid_from
            && self.may_come(&user, authorization.made).await.map_err(unavailable)?;
        if live { Ok(user) } else { Err(ended()) }
    }

    /// When an authorization is over if nothing more happens.
    fn end_of(&self, authorization: &Authorization, now: Instant) -> Instant {
        match &authorization.refresh {
            Some(refresh) if refresh.offline => now.plus_ms(REFRESH_LIFE_MS),
            Some(_) => now.plus_ms(self.limits.session_max_ms.max(self.limits.person_token_s * 1000)),
            None => now.plus_ms(self.limits.person_token_s * 1000),
        }
    }

    pub(super) async fn by_refresh(
        &self,
        client: &Client,
        token: &str,
        scope: Option<&str>,
        now: Instant,
        event: &mut Event,
    ) -> Result<Granted, Refusal> {
        let unknown = || invalid_grant("The refresh token is unknown, used, revoked or too old.");
        let id = authorization_of(token).ok_or_else(unknown)?;
        let held = self.authorizations.get(id).await.map_err(unavailable)?.ok_or_else(unknown)?;
        let chain = held.refresh.as_ref().ok_or_else(unknown)?;
        match chain.presented(id, token) {
            Presented::Forged => return Err(unknown()),
            Presented::Used => return Err(self.reused(id, event).await?),
            Presented::Current => {}
        }
        if held.client_id != client.client_id {
            return Err(unknown());
        }
        let user = self.user_of(&held).await?;
        if !chain.offline && !self.is_online(&held, now).await? {
            return Err(invalid_grant("The person is not logged in any more."));
        }
        if chain.offline && !self.may_stay_away(&user, now) {
            return Err(invalid_grant("The person has not logged in at the identity provider for too long."));
        }
        let scopes = within(client, &narrowed(&held.scopes, scope)?)?;
        let next = Authorization { refresh: Some(chain.next()), ..held.clone() };
        let granted = self.person_token(&next, &user, &scopes, now, event).await?;
        let expires = Some(self.end_of(&next, now));
        if !self.authorizations.swap(&held, &next, expires).await.map_err(unavailable)? {
            // Its second use in this very moment, here or at another server. Or what was allowed has ended meanwhile.
            return Err(self.reused(id, event).await?);
        }
        Ok(granted)
    }

    /// A refresh token that comes a second time was stolen by one of the two who have it: all that was given ends.
    async fn reused(&self, id: &str, event: &mut Event) -> Result<Refusal, Refusal> {
        self.authorizations.delete(id).await.map_err(unavailable)?;
        event.detail.push(("authorization-ended".to_owned(), id.to_owned()));
        Ok(invalid_grant("The refresh token was used before: what was allowed with it has ended."))
    }

    /// Whether the login session of an authorization is live.
    async fn is_online(&self, authorization: &Authorization, now: Instant) -> Result<bool, Refusal> {
        let sessions = self.sessions.owned(&authorization.user_id).await.map_err(unavailable)?;
        Ok(sessions.iter().any(|session| {
            session.id == authorization.session
                && session.until > now.0
                && now.0 - session.seen < self.limits.session_idle_ms
        }))
    }

    /// The answer of the token endpoint for a person.
    async fn person_token(
        &self,
        authorization: &Authorization,
        user: &User,
        scopes: &str,
        now: Instant,
        event: &mut Event,
    ) -> Result<Granted, Refusal> {
        let context = &authorization.context;
        let person = Person {
            role: user.role,
            fhir_user: user.fhir_user.clone(),
            patient: context.patient.clone(),
            encounter: context.encounter.clone(),
            authorization: authorization.id.clone(),
            emergency: None,
        };
        let claims = Claims {
            sub: user.id.clone(),
            exp: now.seconds() + self.limits.person_token_s,
            person: Some(person),
            ..self.claims(authorization.client_id.clone(), scopes.to_owned(), now)
        };
        let mut granted = self.signed(claims, event)?;
        event.detail.push(("authorization".to_owned(), authorization.id.clone()));
        let more = &mut granted.more;
        let mut put = |name: &str, value: Option<String>| {
            if let Some(value) = value {
                more.insert(name.to_owned(), json!(value));
            }
        };
        put("patient", context.patient.clone());
        put("encounter", context.encounter.clone());
        put("intent", context.intent.clone());
        if context.ehr {
            put("smart_style_url", Some(self.style_url.clone()));
        }
        put("refresh_token", authorization.refresh.as_ref().map(|refresh| refresh.token(&authorization.id)));
        if scopes.split(' ').any(|scope| scope == "openid") {
            put("id_token", Some(self.id_token(authorization, user, scopes, now).await.map_err(unavailable)?));
        }
        if !context.fhir_context.is_empty() {
            more.insert("fhirContext".to_owned(), json!(context.fhir_context));
        }
        if context.patient.is_some() {
            more.insert("need_patient_banner".to_owned(), json!(context.need_patient_banner.unwrap_or(true)));
        }
        Ok(granted)
    }

    async fn id_token(
        &self,
        authorization: &Authorization,
        user: &User,
        scopes: &str,
        now: Instant,
    ) -> Outcome<String> {
        let mut claims = json!({
            "iss": self.keys.issuer(),
            "sub": user.id,
            "aud": authorization.client_id,
            "iat": now.seconds(),
            "exp": now.seconds() + IDENTITY_SECONDS,
            "auth_time": Instant(authorization.auth_time).seconds(),
        });
        if let Some(nonce) = &authorization.nonce {
            claims["nonce"] = json!(nonce);
        }
        if let Some(record) = &user.fhir_user {
            let url = format!("{}/{record}", self.keys.audience());
            for (scope, claim) in [("fhirUser", "fhirUser"), ("profile", "profile")] {
                if scopes.split(' ').any(|own| own == scope) {
                    claims[claim] = json!(url);
                }
            }
        }
        self.identity_ring().await?.sign_identity(&claims)
    }

    /// Ends an authorization and all its tokens. False: there was none.
    pub async fn end_authorization(&self, user: &User, session: &str, id: &str, event: Event) -> Outcome<bool> {
        let own = self.authorizations.get(id).await?.filter(|held| held.user_id == user.id);
        let Some(own) = own else { return Ok(false) };
        let mut event = Event { what: What::AuthorizationEnded, ..event };
        event.detail.push(("authorization".to_owned(), id.to_owned()));
        event.detail.push(("client".to_owned(), own.client_id.clone()));
        self.record_of(user, session, event).await?;
        self.authorizations.delete(id).await
    }

    /// What a person has allowed, the newest first.
    pub async fn authorizations_of(&self, user: &User) -> Outcome<Vec<Held<Authorization>>> {
        let mut all = self.authorizations.owned(&user.id).await?;
        all.retain(|authorization| authorization.made >= user.valid_from);
        all.sort_by_key(|authorization| std::cmp::Reverse(authorization.made));
        Ok(all)
    }
}

/// The scopes of a token that follows another: those that were granted, or fewer of them.
pub(super) fn narrowed(granted: &str, asked: Option<&str>) -> Result<String, Refusal> {
    let Some(asked) = asked else { return Ok(granted.to_owned()) };
    let invalid = |text: String| Refusal::new("invalid_scope", text);
    let asked = Scopes::parse(asked).map_err(|error| invalid(error.to_string()))?;
    let granted = Scopes::parse(granted).map_err(unavailable)?;
    if asked.is_empty() || asked.narrowed_by(&granted) != asked {
        return Err(invalid("A token that follows another has the scopes of that one, or fewer.".to_owned()));
    }
    Ok(asked.to_string())
}

/// No more than what the client is registered for now: that may be less than when the person was asked.
fn within(client: &Client, scopes: &str) -> Result<String, Refusal> {
    let registered = client.scopes().map_err(unavailable)?;
    let still = Scopes::parse(scopes).map_err(unavailable)?.narrowed_by(&registered);
    match still.is_empty() {
        true => Err(invalid_grant("The app is not registered any more for what was allowed.")),
        false => Ok(still.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_verifier_is_the_one_whose_hash_was_sent() {
        // RFC 7636, appendix B.
        let (verifier, challenge) =
            ("dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk", "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM");
        assert!(is_verified(verifier, challenge));
        for wrong in ["", challenge, &verifier[1..], "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjX "] {
            assert!(!is_verified(wrong, challenge), "{wrong}");
        }
    }

    #[test]
    fn a_refresh_narrows_and_never_widens() {
        let granted = "openid patient/*.rs offline_access";
        assert_eq!(narrowed(granted, None).unwrap(), granted);
        assert_eq!(narrowed(granted, Some(granted)).unwrap(), granted);
        assert_eq!(narrowed(granted, Some("patient/Patient.r")).unwrap(), "patient/Patient.r");
        for wider in ["patient/*.cruds", "user/*.rs", "openid fhirUser", "patient/Patient.u", "system/*.rs", "nonsense"]
        {
            assert_eq!(narrowed(granted, Some(wider)).unwrap_err().error, "invalid_scope", "{wider}");
        }
    }
}
