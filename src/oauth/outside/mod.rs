//! Logging in at identity providers of others (OpenID Connect, authorization code with PKCE): this server is a relying
//! party of several at once. What a provider says decides who a person is here at each login; the second factor, the
//! session and everything after it are this server's own.

mod account;
mod known;
mod mapping;
mod refused;
mod settings;
mod switch;
mod token;

use openidconnect::core::{CoreAuthPrompt, CoreAuthenticationFlow};
use openidconnect::{AuthenticationContextClass, CsrfToken, Nonce, PkceCodeChallenge, PkceCodeVerifier, Scope};
use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq;

use super::State;
use super::login::{Cookie, random_name};
use super::users::User;
use crate::audit::{Event, Outcome, Request, What};
use crate::error::Result;
use crate::fhir::json::Node;
use crate::world::Instant;

pub use account::Account;
pub use refused::Refused;
pub use settings::{Provider, load};
pub use switch::{ProviderState, Switch};

pub(super) use account::{LINK_SPACE, Link};
use known::Keeper;
use token::Identity;

pub(super) const SPACE: &str = "oauth-outgoing";
pub(super) const SWITCH_SPACE: &str = "oauth-provider";
pub(super) const ENDED_SPACE: &str = "oauth-ended";
/// A login at a provider must be finished in so much time.
const OUTGOING_LIFE_MS: i64 = 600_000;
/// A back-channel logout is remembered so long: longer than its token counts.
const ENDED_LIFE_MS: i64 = 3_600_000;
/// Longest code or state that a provider may send.
const PARAMETER_LENGTH_MAX: usize = 4096;

/// The providers of this server.
#[derive(Default)]
pub struct Outside(Vec<(Provider, Keeper)>);

/// A login that has been begun at a provider. Its name is the `state`.
#[derive(Clone, Serialize, Deserialize)]
pub struct Outgoing {
    provider: String,
    nonce: String,
    /// PKCE.
    verifier: String,
    /// Stands for the cookie of the browser that began it.
    browser: String,
    goal: Goal,
}

/// Where the login is to lead.
#[derive(Clone, Default, Serialize, Deserialize)]
pub struct Goal {
    pub request: String,
    pub to: String,
}

/// What a session keeps of the login at a provider.
#[derive(Clone, Serialize, Deserialize)]
pub struct Visitor {
    pub provider: String,
    /// The provider's own session.
    pub session: Option<String>,
    /// For the logout there.
    pub id_token: String,
}

/// What comes of a provider's answer.
pub struct Return {
    pub goal: Goal,
    /// The cookie of the new session; its second factor may still be due.
    pub outcome: Result<Cookie, Refused>,
}

/// A provider as administrators see it.
pub struct Described<'a> {
    pub id: &'a str,
    pub name: &'a str,
    pub issuer: &'a str,
    pub client_id: &'a str,
    /// To be registered there, when this server authenticates with a key.
    pub public_key: Option<Node>,
    /// What its claims make of people, rule by rule, in words.
    pub rules: Vec<String>,
    /// What counts as a second factor, in words.
    pub second_factor: String,
}

/// Where a person logs out at the provider too.
pub struct WayOut {
    pub name: String,
    pub url: String,
}

/// 256 random bits as text.
fn random() -> String {
    random_name().to_string()
}

impl Outside {
    pub fn new(providers: Vec<Provider>) -> Outside {
        Outside(providers.into_iter().map(|provider| (provider, Keeper::default())).collect())
    }

    fn find(&self, id: &str) -> Option<&(Provider, Keeper)> {
        self.0.iter().find(|(provider, _)| provider.id == id)
    }

    /// Each as administrators see it.
    pub fn described(&self) -> impl Iterator<Item = Described<'_>> {
        self.0.iter().map(|(provider, _)| Described {
            id: &provider.id,
            name: &provider.name,
            issuer: &provider.issuer,
            client_id: &provider.client_id,
            public_key: match &provider.proof {
                settings::Proof::Key(key) => Some(key.public_jwk()),
                settings::Proof::Secret(_) => None,
            },
            rules: provider.rules.iter().map(ToString::to_string).collect(),
            second_factor: provider.factor.to_string(),
        })
    }

    pub fn provider(&self, id: &str) -> Option<&Provider> {
        self.find(id).map(|(provider, _)| provider)
    }
}

fn value<'a>(form: &'a [(String, String)], name: &str) -> Option<&'a str> {
    let found = form.iter().find(|(own, _)| own == name).map(|(_, value)| value.as_str());
    found.filter(|value| !value.is_empty() && value.len() <= PARAMETER_LENGTH_MAX)
}

impl State {
    pub fn outside(&self) -> &Outside {
        &self.outside
    }

    /// Where a provider sends browsers back to.
    pub fn back_address(&self, provider: &str) -> String {
        format!("{}/login/back/{provider}", self.keys.issuer())
    }

    /// Begins a login at a provider: the address to send the browser to. `again`: whoever is logged in there has to
    /// prove it once more. None: there is no such provider.
    pub async fn leave(
        &self,
        id: &str,
        cookie: &str,
        goal: Goal,
        again: bool,
    ) -> Result<Option<Result<String, Refused>>> {
        let Some((provider, keeper)) = self.outside.find(id) else { return Ok(None) };
        if self.is_closed(id).await? {
            return Ok(Some(Err(Refused::Closed)));
        }
        let now = self.world.now();
        let known = match keeper.known(provider, &self.fetch, false, now).await {
            Ok(known) => known,
            Err(why) => return Ok(Some(Err(why))),
        };
        let client = match token::client(provider, &known, &self.back_address(id)) {
            Ok(client) => client,
            Err(why) => return Ok(Some(Err(why))),
        };
        let (state, nonce, verifier) = (random(), random(), random());
        let challenge = PkceCodeChallenge::from_code_verifier_sha256(&PkceCodeVerifier::new(verifier.clone()));
        let (csrf, own_nonce) = (CsrfToken::new(state.clone()), Nonce::new(nonce.clone()));
        let mut request = client
            .authorize_url(CoreAuthenticationFlow::AuthorizationCode, move || csrf, move || own_nonce)
            .set_pkce_challenge(challenge);
        for scope in &provider.scopes {
            request = request.add_scope(Scope::new(scope.clone()));
        }
        for acr in &provider.factor.acr {
            request = request.add_auth_context_value(AuthenticationContextClass::new(acr.clone()));
        }
        if again {
            request = request.add_prompt(CoreAuthPrompt::Login);
        }
        let (url, _, _) = request.url();
        let browser = self.form_token(cookie);
        let outgoing = Outgoing { provider: id.to_owned(), nonce, verifier, browser, goal };
        self.outgoing.insert(&state, &outgoing, Some(now.plus_ms(OUTGOING_LIFE_MS)), None).await?;
        Ok(Some(Ok(url.to_string())))
    }

    /// Whether an app may go on without the person: not for ever after the last login at an identity provider.
    pub(super) fn may_stay_away(&self, user: &User, now: Instant) -> bool {
        user.account.as_ref().is_none_or(|account| {
            let provider = self.outside.provider(&account.provider);
            provider.is_some_and(|provider| now.0 - account.seen < provider.offline_ms)
        })
    }

    /// Takes a provider's answer. None: there is no such provider.
    ///
    /// # Errors
    /// When the server cannot tell, or cannot put the outcome on record.
    pub async fn come_back(
        &self,
        id: &str,
        form: &[(String, String)],
        cookie: &str,
        agent: &str,
        request: Request,
    ) -> Result<Option<Return>> {
        let Some((provider, keeper)) = self.outside.find(id) else { return Ok(None) };
        let now = self.world.now();
        let refused = |why| Ok(Some(Return { goal: Goal::default(), outcome: Err(why) }));
        let Some(outgoing) = self.outgoing_of(form, provider, cookie).await? else {
            self.outside_failed(Refused::State, provider, None, request).await?;
            return refused(Refused::State);
        };
        let goal = outgoing.goal.clone();
        if self.is_closed(id).await? {
            self.outside_failed(Refused::Closed, provider, None, request).await?;
            return Ok(Some(Return { goal, outcome: Err(Refused::Closed) }));
        }
        let identity = match self.identity(provider, keeper, form, &outgoing, now).await {
            Ok(identity) => identity,
            Err(why) => {
                self.outside_failed(why, provider, None, request).await?;
                return Ok(Some(Return { goal, outcome: Err(why) }));
            }
        };
        let outcome = self.let_in(provider, identity, agent, request).await?;
        Ok(Some(Return { goal, outcome }))
    }

    /// The login that an answer belongs to: begun at this provider by this browser, and answered once.
    async fn outgoing_of(
        &self,
        form: &[(String, String)],
        provider: &Provider,
        cookie: &str,
    ) -> Result<Option<Outgoing>> {
        let Some(state) = value(form, "state") else { return Ok(None) };
        let Some(held) = self.outgoing.get(state).await? else { return Ok(None) };
        let same: bool = held.browser.as_bytes().ct_eq(self.form_token(cookie).as_bytes()).into();
        // Somebody else's answer does not use it up.
        if !same || held.provider != provider.id {
            return Ok(None);
        }
        let first = self.outgoing.delete(state).await?;
        Ok(first.then(|| (*held).clone()))
    }

    /// What the provider says of the person, verified.
    async fn identity(
        &self,
        provider: &Provider,
        keeper: &Keeper,
        form: &[(String, String)],
        outgoing: &Outgoing,
        now: Instant,
    ) -> Result<Identity, Refused> {
        let known = keeper.known(provider, &self.fetch, false, now).await?;
        // Against answers of one provider that are passed off as another's (RFC 9207).
        let issuer = value(form, "iss");
        let must = known.metadata.additional_metadata().authorization_response_iss_parameter_supported;
        if issuer.is_some_and(|issuer| issuer != provider.issuer) || (must && issuer.is_none()) {
            return Err(Refused::Issuer);
        }
        if value(form, "error").is_some() {
            return Err(Refused::Denied);
        }
        let code = value(form, "code").ok_or(Refused::Code)?;
        let back = self.back_address(&provider.id);
        let client = token::client(provider, &known, &back)?;
        let (id_token, access_token) =
            token::redeem(&self.fetch, provider, &known, &client, code, outgoing, now).await?;
        let verify =
            |client: &token::Client| token::verified(provider, client, &id_token, &access_token, &outgoing.nonce, now);
        let mut identity = match verify(&client) {
            Err(unverified) if unverified.keys => {
                let known = keeper.known(provider, &self.fetch, true, now).await?;
                verify(&token::client(provider, &known, &back)?)
            }
            verified => verified,
        }
        .map_err(|unverified| Refused::Token(unverified.fault))?;
        if provider.userinfo {
            token::add_userinfo(&self.fetch, &known, &access_token, &mut identity).await?;
        }
        Ok(identity)
    }

    async fn let_in(
        &self,
        provider: &Provider,
        identity: Identity,
        agent: &str,
        request: Request,
    ) -> Result<Result<Cookie, Refused>> {
        let shown = provider.factor.is_shown(&identity.claims);
        let found = if shown || provider.factor.here {
            self.account(provider, &identity, &request).await?
        } else {
            Err(Refused::SecondFactor)
        };
        let user = match found {
            Ok(user) => user,
            Err(why) => {
                self.outside_failed(why, provider, Some(&identity.subject), request).await?;
                return Ok(Err(why));
            }
        };
        let stage = if shown { super::login::Stage::In } else { self.stage_after_password(&user) };
        let visitor = Visitor { provider: provider.id.clone(), session: identity.session, id_token: identity.id_token };
        self.begin_from(&user, stage, agent, request, Some(visitor)).await.map(Ok)
    }

    async fn outside_failed(
        &self,
        why: Refused,
        provider: &Provider,
        subject: Option<&str>,
        request: Request,
    ) -> Result<()> {
        let mut event = Event::new(self.world.now(), What::LoginFailed, request);
        event.outcome = Outcome::Minor;
        event.reason = Some("the login was refused".to_owned());
        event.detail.push(("why".to_owned(), why.word().to_owned()));
        event.detail.push(("provider".to_owned(), provider.id.clone()));
        event.detail.extend(subject.map(|subject| ("subject".to_owned(), subject.to_owned())));
        self.trail.record(event).await.map(drop)
    }

    /// Where the person of a session logs out at the provider as well; None when there is no such place.
    pub async fn way_out(&self, cookie: &str) -> Result<Option<WayOut>> {
        let Some(live) = self.session(cookie).await? else { return Ok(None) };
        let Some(visitor) = &live.session.visitor else { return Ok(None) };
        let Some((provider, keeper)) = self.outside.find(&visitor.provider) else { return Ok(None) };
        // A provider that is away does not keep anybody from logging out here.
        let Ok(known) = keeper.known(provider, &self.fetch, false, self.world.now()).await else { return Ok(None) };
        let Some(end) = known.metadata.additional_metadata().end_session_endpoint.as_deref() else { return Ok(None) };
        let Ok(mut url) = openidconnect::url::Url::parse(end) else { return Ok(None) };
        url.query_pairs_mut()
            .append_pair("id_token_hint", &visitor.id_token)
            .append_pair("client_id", &provider.client_id)
            .append_pair("post_logout_redirect_uri", &format!("{}/login", self.keys.issuer()));
        Ok(Some(WayOut { name: provider.name.clone(), url: url.into() }))
    }

    /// Ends what a provider says has ended (OpenID Connect Back-Channel Logout). None: there is no such provider.
    pub async fn ended_outside(&self, id: &str, token: &str, request: Request) -> Result<Option<Result<(), Refused>>> {
        let Some((provider, keeper)) = self.outside.find(id) else { return Ok(None) };
        let now = self.world.now();
        let ended = match self.ended_of(provider, keeper, token, now).await {
            Ok(ended) => ended,
            Err(why) => return Ok(Some(Err(why))),
        };
        let name = format!("{id}\n{}", ended.jti);
        if !self.ended.insert(&name, &(), Some(now.plus_ms(ENDED_LIFE_MS)), None).await? {
            return Ok(Some(Err(Refused::State)));
        }
        let Some(user) = self.linked(provider, &ended.subject).await? else { return Ok(Some(Ok(()))) };
        for session in self.sessions.owned(&user.id).await? {
            let Some(visitor) = session.visitor.as_ref().filter(|visitor| visitor.provider == id) else { continue };
            let other = ended.session.as_ref().zip(visitor.session.as_ref()).is_some_and(|(one, two)| one != two);
            if !other {
                self.end_session(&user, &session, request.clone()).await?;
            }
        }
        Ok(Some(Ok(())))
    }

    async fn ended_of(
        &self,
        provider: &Provider,
        keeper: &Keeper,
        token: &str,
        now: Instant,
    ) -> Result<token::Ended, Refused> {
        let back = self.back_address(&provider.id);
        let known = keeper.known(provider, &self.fetch, false, now).await?;
        let ended = token::ended(provider, &token::client(provider, &known, &back)?, token, now);
        let ended = match ended {
            Err(unverified) if unverified.keys => {
                let known = keeper.known(provider, &self.fetch, true, now).await?;
                token::ended(provider, &token::client(provider, &known, &back)?, token, now)
            }
            ended => ended,
        };
        ended.map_err(|unverified| Refused::Token(unverified.fault))
    }
}
