//! The token endpoint: clients prove themselves and get tokens, every answer on record.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use serde_json::{Map, Value as Json, json};

use super::assertion::Unverified;
use super::client::{Client, ClientKind, check_filters};
use super::emergency::{self, EmergencyAsked, EmergencyGiven};
use super::form::{ClientForm, Proof, Refusal, Wants, check_grant_type, without_secrets};
use super::{State, TokenRequest};
use crate::access::scope::Context;
use crate::access::{Claims, Scope, Scopes, Who};
use crate::audit::{Event, Outcome, What};
use crate::error::{self, Error};
use crate::world::Instant;

const JTI_SPACE: &str = "oauth-jti";
/// Answers of the token endpoint between two sweeps of used assertions.
const SWEEP_EVERY: u64 = 100;
/// Stands in the store for a client assertion that was used.
const USED: &[u8] = &[1];

/// A granted token, and what goes with it.
pub struct Granted {
    access_token: String,
    pub scope: String,
    pub expires_in: i64,
    /// Further members of the answer: `refresh_token`, `id_token`, the context of the launch.
    pub(super) more: Map<String, Json>,
}

impl Granted {
    pub(super) fn new(access_token: String, scope: String, expires_in: i64) -> Granted {
        Granted { access_token, scope, expires_in, more: Map::new() }
    }

    pub fn access_token(&self) -> &str {
        &self.access_token
    }

    /// The JSON body of the 200 (RFC 6749, section 5.1).
    pub fn body(&self) -> Vec<u8> {
        let mut body = json!({
            "access_token": self.access_token,
            "token_type": "Bearer",
            "expires_in": self.expires_in,
            "scope": self.scope
        });
        for (name, value) in &self.more {
            body[name] = value.clone();
        }
        body.to_string().into_bytes()
    }
}

pub(super) fn unavailable(error: Error) -> Refusal {
    tracing::error!(?error, "the token endpoint could not answer");
    Refusal::new("temporarily_unavailable", "The server cannot give tokens now.")
}

impl State {
    /// Answers a request to the token endpoint. Grants and refusals are on record before this returns. `emergency`
    /// decides about emergency tokens and puts the access on record.
    ///
    /// # Errors
    /// The refusal to send.
    pub async fn token<F>(
        &self,
        request: TokenRequest<'_>,
        emergency: impl FnOnce(EmergencyAsked) -> F,
    ) -> Result<Granted, Refusal>
    where
        F: Future<Output = error::Result<EmergencyGiven>>,
    {
        let now = self.world.now();
        let TokenRequest { form, authorization, mut request } = request;
        request.raw = without_secrets(form);
        let mut event = Event::new(now, What::TokenIssued, request);
        let answer = self.granted_for(form, authorization, emergency, &mut event).await;
        if let Err(refusal) = &answer {
            event.what = What::TokenRefused;
            event.outcome = if refusal.status == 503 { Outcome::Serious } else { Outcome::Minor };
            // Its text may quote the scope asked for, which the request on record holds anyway.
            event.reason = Some(refusal.description.clone());
            event.detail.push(("error".to_owned(), refusal.error.to_owned()));
        }
        self.trail.record(event).await.map_err(unavailable)?;
        if self.answers.fetch_add(1, Ordering::Relaxed) % SWEEP_EVERY == SWEEP_EVERY - 1 {
            self.sweep(now).await;
        }
        answer
    }

    async fn granted_for<F>(
        &self,
        form: &[(String, String)],
        authorization: Option<&str>,
        emergency: impl FnOnce(EmergencyAsked) -> F,
        event: &mut Event,
    ) -> Result<Granted, Refusal>
    where
        F: Future<Output = error::Result<EmergencyGiven>>,
    {
        let now = event.at;
        check_grant_type(form)?;
        let asked = ClientForm::read(form, authorization)?;
        let wants = asked.wants();
        let client = self.authenticated(&asked, now).await?;
        event.who = Some(self.client_who(&client).into());
        match wants? {
            Wants::ClientCredentials { scope } => self.client_credentials(client, scope, now, event).await,
            Wants::Code { code, redirect_uri, verifier } => {
                self.by_code(&client, [code, redirect_uri, verifier], now, event).await
            }
            Wants::Refresh { token, scope } => self.by_refresh(&client, token, scope, now, event).await,
            Wants::Exchange => {
                let asked = self.exchange_asked(&client, &asked).await?;
                if let Some(who) = &mut event.who {
                    Arc::make_mut(who).user = asked.caller.who().user.clone();
                }
                event.patients.push(asked.patient.clone());
                let about = [asked.patient.clone(), asked.purpose.clone()];
                let given = emergency(asked).await.map_err(emergency::refused)?;
                Ok(self.exchanged(given, &about, event))
            }
        }
    }

    fn client_who(&self, client: &Client) -> Who {
        Who {
            client_id: client.client_id.clone(),
            token_id: None,
            issuer: Some(self.keys.issuer().to_owned()),
            user: None,
            expires: None,
            task: None,
        }
    }

    async fn client_credentials(
        &self,
        client: Client,
        scope: &str,
        now: Instant,
        event: &mut Event,
    ) -> Result<Granted, Refusal> {
        if client.kind == ClientKind::Public {
            let text = "A public client cannot use grant_type client_credentials.";
            return Err(Refusal::new("unauthorized_client", text));
        }
        let scopes = self.granted(&client, scope, now)?;
        let claims = Claims {
            sub: client.client_id.clone(),
            exp: now.seconds() + self.limits.backend_token_s,
            ..self.claims(client.client_id, scopes.to_string(), now)
        };
        self.signed(claims, event)
    }

    /// Claims of a token of this moment; subject, end and person are to be set.
    pub(super) fn claims(&self, client_id: String, scope: String, now: Instant) -> Claims {
        Claims {
            iss: self.keys.issuer().to_owned(),
            aud: self.keys.audience().to_owned(),
            sub: String::new(),
            client_id,
            scope,
            jti: self.world.uuid(),
            iat: now.seconds(),
            exp: now.seconds(),
            person: None,
        }
    }

    /// Signs a token and states it in the event.
    pub(super) fn signed(&self, claims: Claims, event: &mut Event) -> Result<Granted, Refusal> {
        let access_token = self.ring().access().sign("at+jwt", &claims).map_err(unavailable)?;
        if let Some(who) = &mut event.who {
            let who = Arc::make_mut(who);
            who.token_id = Some(claims.jti.clone());
            who.expires = Some(Instant(claims.exp * 1000));
            who.user = claims.person.is_some().then(|| claims.sub.clone());
        }
        event.patients.extend(claims.person.as_ref().and_then(|person| person.patient.clone()));
        event.detail.push(("scope".to_owned(), claims.scope.clone()));
        let expires_in = claims.exp - claims.iat;
        Ok(Granted::new(access_token, claims.scope, expires_in))
    }

    /// The client that proves itself.
    pub(super) async fn authenticated(&self, asked: &ClientForm<'_>, now: Instant) -> Result<Client, Refusal> {
        let client = match &asked.proof {
            Proof::Assertion(text) => self.by_assertion(text, now).await?,
            Proof::Name(client_id) => {
                let client = self.clients.get(client_id).await.map_err(unavailable)?;
                let public = client.filter(|client| !client.disabled && client.kind == ClientKind::Public);
                let text = "There is no public client of this client_id; other clients must authenticate.";
                public.ok_or_else(|| Refusal::new("invalid_client", text))?
            }
            Proof::Secret { client_id, secret, basic } => {
                let refused = || Refusal {
                    basic: *basic,
                    ..Refusal::new("invalid_client", "The client_id or the client_secret is wrong.")
                };
                let client = self.clients.get(client_id).await.map_err(unavailable)?.ok_or_else(refused)?;
                if client.disabled || !client.has_secret(secret) {
                    return Err(refused());
                }
                client
            }
        };
        if asked.client_id.is_some_and(|client_id| client_id != client.client_id) {
            return Err(Refusal::new("invalid_client", "The client_id is not that of the client that authenticates."));
        }
        Ok(client)
    }

    async fn by_assertion(&self, text: &str, now: Instant) -> Result<Client, Refusal> {
        let refused = |why: &'static str| Refusal::new("invalid_client", why);
        let unverified = Unverified::read(text).map_err(refused)?;
        let client = self.clients.get(unverified.client_id()).await.map_err(unavailable)?;
        let client = client.filter(|client| !client.disabled);
        let client = client.ok_or_else(|| refused("The client assertion's iss is no client of this server."))?;
        let (kid, algorithm) = unverified.key_wanted(&client).map_err(refused)?;
        let key = match (&client.jwks, &client.jwks_url) {
            (Some(jwks), _) => jwks.find(kid, algorithm),
            (None, Some(url)) => self.key_sets.find(url, kid, algorithm).await,
            (None, None) => None,
        };
        let assertion = unverified.verify(&client, key, &self.token_url, now).map_err(refused)?;
        // Last, so that only genuine assertions are remembered; one-time on all servers of this database.
        let value = [client.client_id.as_bytes(), b"\0", assertion.jti.as_bytes()].concat();
        let key = self.vault.token(JTI_SPACE, &value);
        let inserted = self.store.kv_insert_new(JTI_SPACE, &key, USED, Some(assertion.forget_at)).await;
        if !inserted.map_err(unavailable)? {
            return Err(refused("The client assertion was used before: its jti must be new."));
        }
        Ok(client)
    }

    /// What is granted of the scopes asked for: `system/` only, narrowed to what the client may have.
    fn granted(&self, client: &Client, asked: &str, now: Instant) -> Result<Scopes, Refusal> {
        let invalid = |error: Error| Refusal::new("invalid_scope", error.to_string());
        let asked = Scopes::parse(asked).map_err(invalid)?;
        let system = |scope: &Scope| scope.resource().is_some_and(|scope| scope.context == Context::System);
        let asked = Scopes(asked.0.into_iter().filter(system).collect());
        if asked.is_empty() {
            return Err(Refusal::new("invalid_scope", "Without a user only system/ scopes can be granted."));
        }
        let granted = asked.narrowed_by(&client.scopes().map_err(unavailable)?);
        if granted.is_empty() {
            return Err(Refusal::new("invalid_scope", "The client may have none of the scopes it asks for."));
        }
        check_filters(&granted, self.keys.audience(), now).map_err(invalid)?;
        Ok(granted)
    }
}
