//! Token introspection (RFC 7662) and revocation (RFC 7009).

use serde_json::{Value as Json, json};

use super::authorization::{Presented, authorization_of};
use super::form::{ClientForm, Refusal, check_once, without_secrets};
use super::token::unavailable;
use super::{State, TokenRequest};
use crate::access::{Caller, Person};
use crate::audit::{Event, Outcome, What};
use crate::world::Instant;

impl State {
    /// Tells a client about a token. Clients prove themselves as at the token endpoint, or with an access token of
    /// their own. What is no live token of this server is not active, and nothing more is said of it.
    ///
    /// # Errors
    /// The refusal to send.
    pub async fn introspect(&self, request: TokenRequest<'_>) -> Result<Vec<u8>, Refusal> {
        let answer = self.introspected(&request).await;
        let TokenRequest { form, mut request, .. } = request;
        request.raw = without_secrets(form);
        let mut event = Event::new(self.world.now(), What::TokenIntrospected, request);
        if let Err(refusal) = &answer {
            event.outcome = if refusal.status == 503 { Outcome::Serious } else { Outcome::Minor };
            event.reason = Some(refusal.description.clone());
        }
        let (client, body) = match answer {
            Ok((client, body)) => (client, Ok(body)),
            Err(refusal) => (String::new(), Err(refusal)),
        };
        if !client.is_empty() {
            event.detail.push(("client".to_owned(), client));
        }
        self.trail.record(event).await.map_err(unavailable)?;
        body
    }

    async fn introspected(&self, request: &TokenRequest<'_>) -> Result<(String, Vec<u8>), Refusal> {
        let TokenRequest { form, authorization, .. } = request;
        let bearer = authorization
            .and_then(|header| header.split_once(' '))
            .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
        let (client, token) = match bearer {
            Some((_, own)) => {
                check_once(form)?;
                let refused = |_| Refusal::new("invalid_client", "The bearer token is not live.");
                let caller = self.caller(own.trim()).await.map_err(refused)?;
                let token = form.iter().find(|(name, _)| name == "token").map(|(_, value)| value.as_str());
                (caller.who().client_id.clone(), token)
            }
            None => {
                let asked = ClientForm::read(form, *authorization)?;
                let client = self.authenticated(&asked, self.world.now()).await?;
                if client.kind == super::ClientKind::Public {
                    let text = "A public client introspects with an access token of its own.";
                    return Err(Refusal::new("invalid_client", text));
                }
                (client.client_id, asked.value("token"))
            }
        };
        let token = token.filter(|token| !token.is_empty());
        let token = token.ok_or_else(|| Refusal::new("invalid_request", "The parameter token is missing."))?;
        let about = match self.caller(token).await {
            Ok(caller) => self.about(&caller).await.map_err(unavailable)?,
            Err(error) if error.kind == crate::error::Kind::Unauthenticated => self.about_refresh(token).await?,
            Err(error) => return Err(unavailable(error)),
        };
        Ok((client, about.unwrap_or_else(|| json!({ "active": false })).to_string().into_bytes()))
    }

    async fn about(&self, caller: &Caller) -> crate::error::Result<Option<Json>> {
        let who = caller.who();
        let Some(expires) = who.expires else { return Ok(None) };
        let mut about = json!({
            "active": true,
            "token_type": "Bearer",
            "client_id": who.client_id,
            "scope": caller.scopes().to_string(),
            "exp": expires.seconds(),
            "iss": self.keys.issuer(),
            "aud": self.keys.audience(),
            "jti": who.token_id,
            "sub": who.user.as_deref().unwrap_or(&who.client_id),
        });
        if let Some(Person { patient, encounter, fhir_user, authorization, .. }) = caller.person() {
            let url = fhir_user.as_ref().map(|record| format!("{}/{record}", self.keys.audience()));
            for (name, value) in [("patient", patient), ("encounter", encounter), ("fhirUser", &url)] {
                if let Some(value) = value {
                    about[name] = json!(value);
                }
            }
            // What the token itself does not carry.
            if let Some(held) = self.authorizations.get(authorization).await? {
                if let Some(intent) = &held.context.intent {
                    about["intent"] = json!(intent);
                }
                if !held.context.fhir_context.is_empty() {
                    about["fhirContext"] = json!(held.context.fhir_context);
                }
            }
        }
        Ok(Some(about))
    }

    async fn about_refresh(&self, token: &str) -> Result<Option<Json>, Refusal> {
        let Some(id) = authorization_of(token) else { return Ok(None) };
        let Some(held) = self.authorizations.get(id).await.map_err(unavailable)? else { return Ok(None) };
        let current = held.refresh.as_ref().is_some_and(|chain| chain.presented(id, token) == Presented::Current);
        let user = self.users.get(&held.username).await.map_err(unavailable)?;
        let live = user.is_some_and(|user| user.is_active() && held.made >= user.valid_from);
        Ok((current && live).then(|| {
            json!({
                "active": true,
                "client_id": held.client_id,
                "scope": held.scopes,
                "iss": self.keys.issuer(),
                "sub": held.user_id,
            })
        }))
    }

    /// Ends a token, and whatever else was given under the same authorization. What is no token of the client's own
    /// is none of its business, and told as if it had been ended.
    ///
    /// # Errors
    /// The refusal to send.
    pub async fn revoke(&self, request: TokenRequest<'_>) -> Result<(), Refusal> {
        let TokenRequest { form, authorization, mut request } = request;
        request.raw = without_secrets(form);
        let mut event = Event::new(self.world.now(), What::TokenRevoked, request);
        let answer = self.revoked(form, authorization, &mut event).await;
        if let Err(refusal) = &answer {
            event.outcome = if refusal.status == 503 { Outcome::Serious } else { Outcome::Minor };
            event.reason = Some(refusal.description.clone());
        }
        self.trail.record(event).await.map_err(unavailable)?;
        answer
    }

    async fn revoked(
        &self,
        form: &[(String, String)],
        authorization: Option<&str>,
        event: &mut Event,
    ) -> Result<(), Refusal> {
        let asked = ClientForm::read(form, authorization)?;
        let client = self.authenticated(&asked, self.world.now()).await?;
        event.detail.push(("client".to_owned(), client.client_id.clone()));
        let token = asked.required("token")?;
        let id = match authorization_of(token) {
            Some(id) => {
                let held = self.authorizations.get(id).await.map_err(unavailable)?;
                let chain = held.as_ref().and_then(|held| held.refresh.as_ref());
                // One that was used before ends it just as well: it was given to this client once.
                chain.is_some_and(|chain| chain.presented(id, token) != Presented::Forged).then(|| id.to_owned())
            }
            None => match crate::access::verify(token, &self.keys, self.world.now()) {
                Ok(caller) if caller.who().client_id != client.client_id => None,
                Ok(caller) => match caller.person() {
                    Some(person) => Some(person.authorization.clone()),
                    None => {
                        let text = "Tokens of backend services end by themselves within minutes.";
                        return Err(Refusal::new("unsupported_token_type", text));
                    }
                },
                Err(_) => None,
            },
        };
        let Some(id) = id else { return Ok(()) };
        let held = self.authorizations.get(&id).await.map_err(unavailable)?;
        if let Some(held) = held.filter(|held| held.client_id == client.client_id) {
            self.authorizations.delete_by_key(held.key()).await.map_err(unavailable)?;
            event.detail.push(("authorization-ended".to_owned(), id));
        }
        Ok(())
    }

    /// The time of this moment, for answers that name it.
    pub fn now(&self) -> Instant {
        self.world.now()
    }
}
