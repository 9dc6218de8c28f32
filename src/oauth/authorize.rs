//! The authorization request (RFC 6749, PKCE, SMART App Launch): what is asked, what is still missing before the
//! person can decide, and the code that their decision gives. Must not know HTTP.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};

use super::authorization::{Authorization, CODE_LIFE_MS, Code, Context, Refresh};
use super::client::{Client, check_filters};
use super::consent::Choice;
use super::context::fulfils;
use super::form::escaped;
use super::login::{Live, random_name};
use super::{ClientKind, State};
use crate::access::scope::Context as About;
use crate::access::{Role, Scope, Scopes, offered};
use crate::audit::{Event, Outcome, Request, What};
use crate::error::{Error, Result};
use crate::world::Instant;

pub(super) const SPACE: &str = "oauth-request";
/// A person has so much time to log in and decide.
const LIFE_MS: i64 = 900_000;
const STATE_LENGTH_MAX: usize = 2048;

/// A request that was found in order and waits for the person.
#[derive(Clone, Serialize, Deserialize)]
pub struct Asked {
    pub id: String,
    pub client_id: String,
    pub redirect_uri: String,
    /// What the client may have of what it asks for.
    pub scopes: String,
    /// Words of the request that are no scopes of this server, or not this client's: they are not granted.
    pub refused: Vec<String>,
    state: String,
    challenge: String,
    nonce: Option<String>,
    /// From an EHR: context, and for whom it was made.
    launch: Option<Context>,
    launch_user: Option<String>,
    prompt_none: bool,
    prompt_login: bool,
    max_age_ms: Option<i64>,
    made: i64,
    /// What the person of this session has chosen so far.
    chosen: Option<Chosen>,
}

#[derive(Clone, Serialize, Deserialize)]
struct Chosen {
    session: String,
    patient: Option<String>,
    encounter: Option<String>,
}

/// Why a request goes no further.
#[derive(Debug)]
pub enum Stop {
    /// To be shown to the person: the client cannot be trusted with an answer.
    Page(&'static str),
    /// To be sent to the client.
    Redirect(String),
    /// The server cannot tell.
    Failed(Error),
}

impl From<Error> for Stop {
    fn from(error: Error) -> Stop {
        Stop::Failed(error)
    }
}

/// What comes next.
pub enum Next {
    Login,
    Patient,
    /// Of this patient.
    Encounter(String),
    Consent(Box<Ready>),
}

/// A request for which everything is there but the person's word.
pub struct Ready {
    pub asked: Asked,
    pub client: Client,
    pub scopes: Scopes,
    pub context: Context,
}

impl Asked {
    /// The address at the client for an answer with these parameters; `state` and `iss` (RFC 9207) go with it.
    fn answer(&self, issuer: &str, parameters: &[(&str, &str)]) -> String {
        answer(&self.redirect_uri, Some(&self.state), issuer, parameters)
    }

    fn parsed(&self) -> Result<Scopes> {
        Scopes::parse(&self.scopes)
    }
}

fn answer(redirect_uri: &str, state: Option<&str>, issuer: &str, parameters: &[(&str, &str)]) -> String {
    let mut url = redirect_uri.to_owned();
    let all = parameters.iter().copied().chain(state.map(|state| ("state", state))).chain([("iss", issuer)]);
    for (name, value) in all {
        url.push(if url.contains('?') { '&' } else { '?' });
        url += &format!("{name}={}", escaped(value));
    }
    url
}

fn has(scopes: &Scopes, name: &str) -> bool {
    scopes.0.iter().any(|scope| scope.text() == name)
}

fn needs_patient(scopes: &Scopes) -> bool {
    has(scopes, "launch/patient") || scopes.resources().any(|scope| scope.context == About::Patient)
}

impl State {
    /// Checks an authorization request and keeps it. `form` are the decoded parameters, of the query or the form.
    ///
    /// # Errors
    /// What to show or where to send the browser instead.
    pub async fn ask(&self, form: &[(String, String)], request: Request) -> Result<Asked, Stop> {
        let answer = self.checked(form).await;
        let (outcome, reason) = match &answer {
            Ok(_) => return answer,
            Err(Stop::Failed(_)) => (Outcome::Serious, "the server could not tell"),
            Err(Stop::Page(why)) => (Outcome::Minor, *why),
            Err(Stop::Redirect(_)) => (Outcome::Minor, "the client was sent an error"),
        };
        let mut event = Event::new(self.world.now(), What::AuthorizationRefused, request);
        event.outcome = outcome;
        event.reason = Some(reason.to_owned());
        self.trail.record(event).await?;
        answer
    }

    async fn checked(&self, form: &[(String, String)]) -> Result<Asked, Stop> {
        for (n, (name, _)) in form.iter().enumerate() {
            if form[..n].iter().any(|(other, _)| other == name) {
                return Err(Stop::Page("A parameter of the request is there more than once."));
            }
        }
        let value = |name: &str| {
            form.iter().find(|(other, _)| other == name).map(|(_, value)| value.as_str()).filter(|v| !v.is_empty())
        };
        let client_id = value("client_id").ok_or(Stop::Page("The request names no app (client_id)."))?;
        let client = self.clients.get(client_id).await?;
        let client = client.filter(|client| !client.disabled && client.kind != ClientKind::Backend);
        let client = client.ok_or(Stop::Page("No app of this client_id is registered here."))?;
        let redirect_uri = value("redirect_uri").ok_or(Stop::Page("The request names no redirect_uri."))?;
        if !client.redirect_uris.iter().any(|known| known == redirect_uri) {
            return Err(Stop::Page("The redirect_uri is not one that the app has registered."));
        }
        // From here on the client can be told.
        let state = value("state");
        let issuer = self.keys.issuer();
        let stop = |error: &str, text: &str| {
            let parameters = [("error", error), ("error_description", text)];
            Stop::Redirect(answer(redirect_uri, state, issuer, &parameters))
        };
        let (state, challenge) = self.terms(&value, &stop)?;
        let prompts: Vec<&str> = value("prompt").unwrap_or_default().split(' ').collect();
        if prompts.contains(&"none") && prompts.len() > 1 {
            return Err(stop("invalid_request", "With prompt=none nothing else can be asked for."));
        }
        let max_age = value("max_age").map(str::parse::<u32>).transpose();
        let max_age = max_age.map_err(|_| stop("invalid_request", "The max_age is a number of seconds."))?;
        let (scopes, refused) =
            self.scopes_for(&client, value("scope").unwrap_or_default()).map_err(|why| stop("invalid_scope", why))?;
        let launch = match value("launch") {
            Some(handle) => {
                let launch = self.take_launch(handle, &client).await?;
                Some(launch.ok_or_else(|| stop("invalid_request", "The launch is unknown, used or too old."))?)
            }
            None if has(&scopes, "launch") => {
                return Err(stop("invalid_request", "With the scope launch the parameter launch is required."));
            }
            None => None,
        };
        let now = self.world.now();
        let asked = Asked {
            id: random_name().to_string(),
            client_id: client.client_id.clone(),
            redirect_uri: redirect_uri.to_owned(),
            scopes: scopes.to_string(),
            refused,
            state: state.to_owned(),
            challenge: challenge.to_owned(),
            nonce: value("nonce").map(str::to_owned),
            launch_user: launch.as_ref().and_then(|launch| launch.username.clone()),
            launch: launch.map(|launch| launch.context),
            prompt_none: prompts.contains(&"none"),
            prompt_login: prompts.contains(&"login"),
            max_age_ms: max_age.map(|seconds| i64::from(seconds) * 1000),
            made: now.0,
            chosen: None,
        };
        self.asked.insert(&asked.id, &asked, Some(now.plus_ms(LIFE_MS)), None).await?;
        Ok(asked)
    }

    /// The parts of a request that are the same for every app: `state` and `code_challenge`.
    fn terms<'f>(
        &self,
        value: &impl Fn(&str) -> Option<&'f str>,
        stop: &impl Fn(&str, &str) -> Stop,
    ) -> Result<(&'f str, &'f str), Stop> {
        if value("request").is_some() || value("request_uri").is_some() {
            let error = if value("request").is_some() { "request_not_supported" } else { "request_uri_not_supported" };
            return Err(stop(error, "Request objects are not supported."));
        }
        match value("response_type") {
            Some("code") => {}
            None => return Err(stop("invalid_request", "The parameter response_type is missing.")),
            Some(_) => return Err(stop("unsupported_response_type", "The response_type must be code.")),
        }
        if value("response_mode").is_some_and(|mode| mode != "query") {
            return Err(stop("invalid_request", "The response_mode can only be query."));
        }
        let state = value("state").filter(|state| state.len() <= STATE_LENGTH_MAX);
        let state = state.ok_or_else(|| stop("invalid_request", "A state of at most 2048 characters is required."))?;
        if value("aud").map(|aud| aud.trim_end_matches('/')) != Some(self.keys.audience()) {
            return Err(stop("invalid_request", "The parameter aud must be the FHIR base URL of this server."));
        }
        let challenge = value("code_challenge")
            .filter(|text| URL_SAFE_NO_PAD.decode(text).is_ok_and(|bytes| bytes.len() == 32))
            .ok_or_else(|| stop("invalid_request", "PKCE is required: a code_challenge of 43 characters."))?;
        if value("code_challenge_method") != Some("S256") {
            return Err(stop("invalid_request", "The code_challenge_method must be S256."));
        }
        Ok((state, challenge))
    }

    /// What the client may be granted of a request's words, and the words that it may not.
    fn scopes_for(&self, client: &Client, text: &str) -> Result<(Scopes, Vec<String>), &'static str> {
        let allowed = client.scopes().map_err(|_| "The scopes of the client cannot be read.")?;
        let (mut asked, mut refused) = (Vec::new(), Vec::new());
        let words = text.split(' ').filter(|word| !word.is_empty());
        for word in words.take(crate::access::scope::SCOPES_MAX) {
            let readable = Scope::parse(word).ok().filter(|scope| {
                let filters = Scopes(vec![scope.clone()]);
                scope.resource().is_none_or(|scope| scope.context != About::System)
                    && check_filters(&filters, self.keys.audience(), self.world.now()).is_ok()
            });
            match readable {
                Some(scope) => asked.push(scope),
                None => refused.push(word.to_owned()),
            }
        }
        let granted = Scopes(asked.clone()).narrowed_by(&allowed);
        let kept = |scope: &Scope| granted.0.contains(scope);
        refused.extend(asked.iter().filter(|scope| !kept(scope)).map(|scope| scope.text().to_owned()));
        if granted.is_empty() {
            return Err("The client may have none of the scopes it asks for.");
        }
        Ok((granted, refused))
    }

    /// A request that waits; None when it is unknown, decided or too old.
    pub async fn asked(&self, id: &str) -> Result<Option<Asked>> {
        Ok(self.asked.get(id).await?.map(|asked| (*asked).clone()))
    }

    /// What comes next for a request in a browser with this session.
    ///
    /// # Errors
    /// What to show or where to send the browser instead.
    pub async fn next(&self, asked: Asked, live: Option<&Live>) -> Result<Next, Stop> {
        let stop = |error: &str, text: &str| {
            Stop::Redirect(asked.answer(self.keys.issuer(), &[("error", error), ("error_description", text)]))
        };
        let fresh = |live: &&Live| {
            let since = if asked.prompt_login { asked.made } else { i64::MIN };
            let oldest = asked.max_age_ms.map_or(i64::MIN, |age| asked.made - age);
            live.is_in() && live.session.made >= since.max(oldest)
        };
        let Some(live) = live.filter(fresh) else {
            return if asked.prompt_none {
                Err(stop("login_required", "The person is not logged in."))
            } else {
                Ok(Next::Login)
            };
        };
        if asked.prompt_none {
            return Err(stop("consent_required", "The person is always asked."));
        }
        if asked.launch_user.as_ref().is_some_and(|user| *user != live.user.username) {
            return Err(Stop::Page("This launch was made for another user. Log out, and log in as that user."));
        }
        let client = self.clients.get(&asked.client_id).await?.filter(|client| !client.disabled);
        let client = client.ok_or(Stop::Page("The app has been disabled meanwhile."))?;
        let scopes = offered(live.user.role, &asked.parsed()?);
        if scopes.resources().next().is_none() && !has(&scopes, "openid") {
            return Err(stop("access_denied", "The person's role allows none of what the app asks for."));
        }
        let mut context = asked.launch.clone().unwrap_or_default();
        let chosen = asked.chosen.as_ref().filter(|chosen| chosen.session == live.session.id);
        if context.patient.is_none() && needs_patient(&scopes) {
            context.patient = match (live.user.role, &live.user.fhir_user) {
                (Role::Patient, Some(own)) => own.strip_prefix("Patient/").map(str::to_owned),
                _ => chosen.and_then(|chosen| chosen.patient.clone()),
            };
            if context.patient.is_none() {
                return Ok(Next::Patient);
            }
        }
        if context.encounter.is_none() && has(&scopes, "launch/encounter") {
            context.encounter = chosen.and_then(|chosen| chosen.encounter.clone());
            if context.encounter.is_none() {
                return Ok(Next::Encounter(context.patient.unwrap_or_default()));
            }
        }
        // A context that nobody chose is not granted: only an EHR brings others than patient and encounter.
        let brought = |scope: &Scope| fulfils(scope.text(), &context.fhir_context) != Some(false);
        let scopes = Scopes(scopes.0.into_iter().filter(brought).collect());
        Ok(Next::Consent(Box::new(Ready { asked, client, scopes, context })))
    }

    /// Keeps what the person has chosen. The caller has made sure that the person may see it.
    pub async fn choose(
        &self,
        id: &str,
        live: &Live,
        patient: Option<String>,
        encounter: Option<String>,
    ) -> Result<Option<Asked>> {
        let Some(asked) = self.asked(id).await? else { return Ok(None) };
        let expires = Some(Instant(asked.made + LIFE_MS));
        let changed = self.asked.change(id, expires, |asked| {
            let before = asked.chosen.take().filter(|chosen| chosen.session == live.session.id);
            let before = before.unwrap_or(Chosen { session: live.session.id.clone(), patient: None, encounter: None });
            asked.chosen = Some(match (&patient, &encounter) {
                // Another patient has other encounters.
                (Some(patient), None) => Chosen { patient: Some(patient.clone()), encounter: None, ..before },
                _ => Chosen { encounter: encounter.clone(), ..before },
            });
            Ok(())
        });
        Ok(changed.await?.map(|(asked, ())| asked))
    }

    /// The person says no: the address to send the browser to.
    pub async fn deny(&self, asked: &Asked, live: &Live, request: Request) -> Result<String> {
        self.asked.delete(&asked.id).await?;
        let mut event = Event::new(self.world.now(), What::AuthorizationRefused, request);
        event.outcome = Outcome::Minor;
        event.reason = Some("the person refused".to_owned());
        event.detail.push(("client".to_owned(), asked.client_id.clone()));
        self.record_of(&live.user, &live.session.id, event).await?;
        let text = "The person refused.";
        Ok(asked.answer(self.keys.issuer(), &[("error", "access_denied"), ("error_description", text)]))
    }

    /// The person says yes to some of it: the address, with the code, to send the browser to.
    ///
    /// # Errors
    /// What to show or where to send the browser instead.
    pub async fn approve(&self, ready: Ready, choice: &Choice, live: &Live, request: Request) -> Result<String, Stop> {
        let Ready { asked, scopes, context, .. } = ready;
        let granted = choice.granted(&scopes);
        if granted.resources().next().is_none() && !has(&granted, "openid") {
            return Ok(self.deny(&asked, live, request).await?);
        }
        if !self.asked.delete(&asked.id).await? {
            return Err(Stop::Page("This request has been decided already."));
        }
        let now = self.world.now();
        let offline = has(&granted, "offline_access");
        let refresh = (offline || has(&granted, "online_access")).then(|| Refresh::new(offline));
        let authorization = Authorization {
            id: self.world.uuid(),
            client_id: asked.client_id.clone(),
            username: live.user.username.clone(),
            user_id: live.user.id.clone(),
            role: live.user.role,
            scopes: granted.to_string(),
            context,
            session: live.session.id.clone(),
            made: now.0,
            auth_time: live.session.made,
            nonce: asked.nonce.clone(),
            refresh,
        };
        let mut event = Event::new(now, What::AuthorizationGranted, request);
        event.patients.extend(authorization.context.patient.clone());
        for (name, value) in [
            ("client", &authorization.client_id),
            ("scope", &authorization.scopes),
            ("authorization", &authorization.id),
        ] {
            event.detail.push((name.to_owned(), value.clone()));
        }
        self.record_of(&live.user, &live.session.id, event).await?;
        let code = random_name();
        let kept = Code {
            authorization,
            redirect_uri: asked.redirect_uri.clone(),
            challenge: asked.challenge.clone(),
            used: false,
            replayed: false,
        };
        self.codes.insert(&code, &kept, Some(now.plus_ms(CODE_LIFE_MS)), Some(&live.user.id)).await?;
        Ok(asked.answer(self.keys.issuer(), &[("code", &code)]))
    }
}
