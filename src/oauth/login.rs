//! Logging in: password, second factor, lock-out, and the sessions that come of it. Unknown names, wrong passwords and
//! locked users look alike and take alike long.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::outside::Visitor;
use super::password::{self, PasswordHash};
use super::shelf::Held;
use super::users::{Device, User, hashed, normal};
use super::{State, factors, totp};
use crate::access::{Caller, Claims, Person, Role, Who};
use crate::audit::{Event, Outcome, Request, What};
use crate::error::{Error, Kind, Result};
use crate::world::{self, Instant};

pub(super) const SESSION_SPACE: &str = "oauth-session";
pub(super) const LOCK_SPACE: &str = "oauth-lock";
/// The client that the server's own pages are, in the audit.
pub const PAGES_CLIENT: &str = "phial";
/// What the pages look at in the name of the person who is logged in.
const PAGES_SCOPES: &str = "user/Patient.rs user/Encounter.rs user/RelatedPerson.rs user/Practitioner.rs";
/// Failures after which one has to wait: in a row of one name, and of all names at one address.
const FREE_TRIES: u32 = 5;
const FREE_TRIES_OF_ADDRESS: u32 = 50;
/// The first wait; each further failure doubles it.
const WAIT_SECONDS: i64 = 30;
const WAIT_SECONDS_MAX: i64 = 3600;
/// Failures are forgotten after a day without a further one.
const LOCK_LIFE_MS: i64 = 86_400_000;
/// A login must be finished in so much time.
const STEP_LIFE_MS: i64 = 600_000;
/// A session is written again when its last use is this long ago.
const SEEN_EVERY_MS: i64 = 60_000;
/// A login that is older than this is not fresh: what is dangerous asks for another.
const RECENT_MS: i64 = 15 * 60 * 1000;
/// Password hashes computed at the same time: each takes 19 MB.
pub(super) const HASHES_MAX: usize = 4;

/// How far a login has come.
#[derive(Clone, Serialize, Deserialize, PartialEq, Eq)]
pub enum Stage {
    /// The code of the second factor is awaited.
    Factor,
    /// A second factor has to be enrolled; this is the secret that is offered.
    Enrol { secret: Vec<u8> },
    /// Logged in.
    In,
}

/// A session of a browser. The cookie holds its name; the store knows that blinded only.
#[derive(Clone, Serialize, Deserialize)]
pub struct Session {
    /// Random; names the session to its owner without being the cookie.
    pub id: String,
    pub username: String,
    pub stage: Stage,
    /// Milliseconds since 1970.
    pub made: i64,
    pub seen: i64,
    pub until: i64,
    pub address: String,
    pub agent: String,
    /// Of a login at an identity provider.
    #[serde(default)]
    pub visitor: Option<Visitor>,
}

/// A session that is live at this moment, with its user.
pub struct Live {
    pub session: Held<Session>,
    pub user: Held<User>,
}

/// The value of a session's cookie.
pub type Cookie = Zeroizing<String>;

/// What a step of a login gives.
pub enum Step {
    /// The login goes on, under a new cookie.
    On(Cookie),
    /// The fixed text to show. Some: how many seconds to wait first.
    No(&'static str, Option<i64>),
}

#[derive(Clone, Default, Serialize, Deserialize)]
pub struct Failures {
    count: u32,
    /// Milliseconds since 1970.
    until: i64,
}

pub(super) const WRONG: &str = "The user name or the password is wrong.";
const WAIT: &str = "Too many attempts. Wait a moment, then try again.";
const WRONG_CODE: &str = "The code is wrong, or was used before.";

/// 256 random bits as text.
pub fn random_name() -> Zeroizing<String> {
    let mut bytes = Zeroizing::new([0u8; 32]);
    world::secret(&mut *bytes);
    Zeroizing::new(URL_SAFE_NO_PAD.encode(*bytes))
}

/// Under what the failures of a user name are counted.
pub(super) fn lock_name(username: Option<&str>) -> String {
    format!("name:{}", username.unwrap_or("?"))
}

impl Live {
    pub fn is_in(&self) -> bool {
        self.session.stage == Stage::In
    }
}

impl State {
    /// Counts a try before it is made, so that many at once gain nothing. Some: the seconds to wait instead.
    async fn try_counted(&self, name: &str, free: u32, now: Instant) -> Result<Option<i64>> {
        let expires = Some(now.plus_ms(LOCK_LIFE_MS));
        for _ in 0..2 {
            let counted = self.locks.change(name, expires, |failures| {
                if failures.until > now.0 {
                    return Ok(Some((failures.until - now.0).div_euclid(1000) + 1));
                }
                failures.count = failures.count.saturating_add(1);
                if failures.count >= free {
                    let doublings = (failures.count - free).min(16);
                    failures.until = now.0 + 1000 * (WAIT_SECONDS << doublings).min(WAIT_SECONDS_MAX);
                }
                Ok(None)
            });
            match counted.await {
                Ok(Some((_, wait))) => return Ok(wait),
                Ok(None) => {}
                // So many at once, here and at other servers, that this one could not be counted: it is not made.
                Err(error) if error.kind == Kind::Conflict => return Ok(Some(1)),
                Err(error) => return Err(error),
            }
            self.locks.insert(name, &Failures::default(), expires, None).await?;
        }
        Ok(None)
    }

    /// Takes a try of an address back that was no guess: behind one address there may be a whole hospital.
    async fn give_back(&self, name: &str, free: u32, now: Instant) -> Result<()> {
        let expires = Some(now.plus_ms(LOCK_LIFE_MS));
        let given = self.locks.change(name, expires, |failures| {
            failures.count = failures.count.saturating_sub(1);
            if failures.count < free {
                failures.until = 0;
            }
            Ok(())
        });
        match given.await {
            Err(error) if error.kind != Kind::Conflict => Err(error),
            _ => Ok(()),
        }
    }

    /// Whether the hash is of this password. The same work for every hash, nobody's included.
    async fn is_password(&self, hash: PasswordHash, password: Zeroizing<String>) -> Result<bool> {
        let _place = self.hashing.acquire().await.map_err(Error::internal)?;
        #[cfg(test)]
        self.hashed.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        tokio::task::spawn_blocking(move || hash.is_of(&password)).await.map_err(Error::internal)?
    }

    /// Checks name and password.
    ///
    /// # Errors
    /// When the server cannot tell, or cannot put the outcome on record.
    pub async fn login(
        &self,
        username: &str,
        password: Zeroizing<String>,
        agent: &str,
        request: Request,
    ) -> Result<Step> {
        let now = self.world.now();
        let name = normal(username);
        let by_name = lock_name(name.as_deref());
        let by_address = format!("address:{}", request.address);
        let wait = match self.try_counted(&by_address, FREE_TRIES_OF_ADDRESS, now).await? {
            Some(wait) => Some(wait),
            None => self.try_counted(&by_name, FREE_TRIES, now).await?,
        };
        if let Some(wait) = wait {
            self.login_failed("locked", name, None, request).await?;
            return Ok(Step::No(WAIT, Some(wait)));
        }
        let user = self.users.get(username).await?;
        let hash = user.as_ref().and_then(|user| user.password.clone()).unwrap_or_else(PasswordHash::of_nobody);
        let same = self.is_password(hash, password).await?;
        let Some(user) = user.filter(|user| same && user.is_active() && user.account.is_none()) else {
            self.login_failed("password", name, None, request).await?;
            return Ok(Step::No(WRONG, None));
        };
        self.give_back(&by_address, FREE_TRIES_OF_ADDRESS, now).await?;
        let stage = self.stage_after_password(&user);
        if !user.has_factor() {
            self.locks.delete(&by_name).await?;
        }
        let cookie = self.begin(&user, stage, agent, request).await?;
        Ok(Step::On(cookie))
    }

    /// Whether the person has proved themselves a few minutes ago.
    pub fn is_recent(&self, live: &Live) -> bool {
        self.world.now().0 - live.session.made < RECENT_MS
    }

    /// Counts a try of this name. Some: the seconds to wait instead.
    pub(super) async fn wait_of_name(&self, username: &str, now: Instant) -> Result<Option<i64>> {
        self.try_counted(&lock_name(Some(username)), FREE_TRIES, now).await
    }

    /// The second factor was good: the session is replaced by one that is logged in.
    pub(super) async fn complete_factor(
        &self,
        live: &Live,
        cookie: &str,
        agent: &str,
        request: Request,
    ) -> Result<Step> {
        self.locks.delete(&lock_name(Some(&live.user.username))).await?;
        self.sessions.delete(cookie).await?;
        let visitor = live.session.visitor.clone();
        self.begin_from(&live.user, Stage::In, agent, request, visitor).await.map(Step::On)
    }

    /// Administrators need a second factor whatever the settings say.
    pub fn needs_factor(&self, role: Role) -> bool {
        role == Role::Admin || (role.is_staff() && self.staff_factor)
    }

    pub(super) fn stage_after_password(&self, user: &User) -> Stage {
        if user.has_factor() {
            return Stage::Factor;
        }
        if self.needs_factor(user.role) {
            return Stage::Enrol { secret: totp::secret().to_vec() };
        }
        Stage::In
    }

    /// A new session. A login that is complete with it goes on record.
    pub(super) async fn begin(&self, user: &User, stage: Stage, agent: &str, request: Request) -> Result<Cookie> {
        self.begin_from(user, stage, agent, request, None).await
    }

    /// The same, for somebody who comes from an identity provider.
    pub(super) async fn begin_from(
        &self,
        user: &User,
        stage: Stage,
        agent: &str,
        request: Request,
        visitor: Option<Visitor>,
    ) -> Result<Cookie> {
        let now = self.world.now();
        let life = if stage == Stage::In { self.limits.session_max_ms } else { STEP_LIFE_MS };
        let cookie = random_name();
        let session = Session {
            id: self.world.uuid(),
            username: user.username.clone(),
            stage,
            made: now.0,
            seen: now.0,
            until: now.0 + life,
            address: request.address.clone(),
            agent: agent.chars().filter(|c| !c.is_control()).take(120).collect(),
            visitor,
        };
        let expires = Some(Instant(session.until));
        if session.stage == Stage::In {
            let mut event = Event::new(now, What::LoginSuccess, request);
            let provider = session.visitor.as_ref().map(|visitor| visitor.provider.clone());
            event.detail.extend(provider.map(|provider| ("provider".to_owned(), provider)));
            self.record_of(user, &session.id, event).await?;
        }
        self.sessions.insert(&cookie, &session, expires, Some(&user.id)).await?;
        Ok(cookie)
    }

    /// Puts an event of a person on the server's own pages on record.
    pub(super) async fn record_of(&self, user: &User, session: &str, mut event: Event) -> Result<()> {
        event.who = Some(self.who(user, session).into());
        event.detail.push(("username".to_owned(), user.username.clone()));
        event.detail.push(("role".to_owned(), user.role.name().to_owned()));
        self.trail.record(event).await.map(drop)
    }

    pub(super) fn who(&self, user: &User, session: &str) -> Who {
        Who {
            client_id: PAGES_CLIENT.to_owned(),
            token_id: Some(session.to_owned()),
            issuer: Some(self.keys.issuer().to_owned()),
            user: Some(user.id.clone()),
            expires: None,
            task: None,
        }
    }

    pub(super) async fn login_failed(
        &self,
        why: &str,
        name: Option<String>,
        user: Option<&User>,
        request: Request,
    ) -> Result<()> {
        let mut event = Event::new(self.world.now(), What::LoginFailed, request);
        event.outcome = Outcome::Minor;
        event.reason = Some("the login was refused".to_owned());
        event.detail.push(("why".to_owned(), why.to_owned()));
        event.detail.extend(name.map(|name| ("username".to_owned(), name)));
        event.detail.extend(user.map(|user| ("user".to_owned(), user.id.clone())));
        self.trail.record(event).await.map(drop)
    }

    /// The live session of a cookie, at whatever stage; None when there is none.
    pub async fn session(&self, cookie: &str) -> Result<Option<Live>> {
        let now = self.world.now();
        let Some(session) = self.sessions.get(cookie).await? else { return Ok(None) };
        let idle = if session.stage == Stage::In { self.limits.session_idle_ms } else { STEP_LIFE_MS };
        let Some(user) = self.users.get(&session.username).await? else { return Ok(None) };
        let live = session.until > now.0
            && now.0 - session.seen < idle
            && user.is_active()
            && session.made >= user.valid_from
            && self.may_come(&user, session.made).await?;
        if !live {
            self.sessions.delete(cookie).await?;
            return Ok(None);
        }
        if now.0 - session.seen >= SEEN_EVERY_MS {
            let seen = Session { seen: now.0, ..session.clone() };
            // Another request of the same session may have been first: then it has been seen all the same.
            self.sessions.swap(&session, &seen, Some(Instant(session.until))).await?;
            let Some(session) = self.sessions.get(cookie).await? else { return Ok(None) };
            return Ok(Some(Live { session, user }));
        }
        Ok(Some(Live { session, user }))
    }

    /// The login that waits for its second factor. Err: what is shown instead, where none waits or the account has to.
    pub(super) async fn at_factor(
        &self,
        cookie: &str,
        now: Instant,
        request: &Request,
    ) -> Result<std::result::Result<Live, Step>> {
        let Some(live) = self.session(cookie).await?.filter(|live| live.session.stage == Stage::Factor) else {
            return Ok(Err(Step::No("The login took too long. Begin again.", None)));
        };
        let Some(wait) = self.wait_of_name(&live.user.username, now).await? else { return Ok(Ok(live)) };
        self.login_failed("locked", Some(live.user.username.clone()), Some(&live.user), request.clone()).await?;
        Ok(Err(Step::No(WAIT, Some(wait))))
    }

    /// Takes the code of the second factor, or a recovery code.
    pub async fn factor(&self, cookie: &str, code: &str, agent: &str, request: Request) -> Result<Step> {
        let now = self.world.now();
        let live = match self.at_factor(cookie, now, &request).await? {
            Ok(live) => live,
            Err(step) => return Ok(step),
        };
        let user = &live.user;
        if !self.users.take_code(&user.username, code, now).await? {
            self.login_failed("factor", Some(user.username.clone()), Some(user), request).await?;
            return Ok(Step::No(WRONG_CODE, None));
        }
        self.complete_factor(&live, cookie, agent, request).await
    }

    /// Enrols the device that shows this code; gives the recovery codes beside the new cookie.
    ///
    /// # Errors
    /// When the server cannot tell, or cannot put it on record.
    pub async fn enrol(
        &self,
        cookie: &str,
        code: &str,
        agent: &str,
        request: Request,
    ) -> Result<(Step, Vec<Zeroizing<String>>)> {
        let now = self.world.now();
        let live = self.session(cookie).await?;
        let Some((live, secret)) = live.and_then(|live| match live.session.stage.clone() {
            Stage::Enrol { secret } => Some((live, secret)),
            _ => None,
        }) else {
            return Ok((Step::No("The login took too long. Begin again.", None), Vec::new()));
        };
        let Some(step) = totp::matched(&secret, code, 0, now) else {
            return Ok((
                Step::No("This is not the code that the app should show now. Check its clock.", None),
                Vec::new(),
            ));
        };
        let (codes, hashes) = factors::recovery();
        let changed = self.users.change(&live.user.username, |user| {
            if user.device.is_some() {
                return Err(Error::new(Kind::Conflict, "A second factor is enrolled already."));
            }
            user.device = Some(Device { secret: secret.clone(), last_step: step });
            user.recovery = hashes.clone();
            Ok(())
        });
        let Some((user, ())) = changed.await? else { return Ok((Step::No(WRONG, None), Vec::new())) };
        let event = Event::new(now, What::FactorEnrolled, request.clone());
        self.record_of(&user, &live.session.id, event).await?;
        self.sessions.delete(cookie).await?;
        let visitor = live.session.visitor.clone();
        let cookie = self.begin_from(&user, Stage::In, agent, request, visitor).await?;
        Ok((Step::On(cookie), codes))
    }

    /// Changes the password of the person of a session; their other sessions and authorizations end.
    pub async fn change_password(
        &self,
        cookie: &str,
        old: Zeroizing<String>,
        new: Zeroizing<String>,
        agent: &str,
        request: Request,
    ) -> Result<Step> {
        let now = self.world.now();
        let live = self.session(cookie).await?;
        let Some(live) = live.filter(Live::is_in) else {
            return Ok(Step::No("The login took too long. Begin again.", None));
        };
        let user = &live.user;
        let by_name = lock_name(Some(&user.username));
        if let Some(wait) = self.try_counted(&by_name, FREE_TRIES, now).await? {
            return Ok(Step::No(WAIT, Some(wait)));
        }
        let same: bool = old.as_bytes().ct_eq(new.as_bytes()).into();
        let hash = user.password.clone().unwrap_or_else(PasswordHash::of_nobody);
        let is_old = self.is_password(hash, old).await?;
        if !is_old {
            self.login_failed("password", Some(user.username.clone()), Some(user), request).await?;
            return Ok(Step::No("The present password is wrong.", None));
        }
        if same {
            return Ok(Step::No("The new password is the old one.", None));
        }
        if let Err(why) = password::check(&new, &user.username) {
            return Ok(Step::No(why, None));
        }
        self.locks.delete(&by_name).await?;
        let hash = hashed(new).await?;
        let changed = self.users.change(&user.username, |user| {
            user.password = Some(hash.clone());
            user.valid_from = now.0;
            Ok(())
        });
        let Some((user, ())) = changed.await? else { return Ok(Step::No(WRONG, None)) };
        let event = Event::new(now, What::PasswordChanged, request.clone());
        self.record_of(&user, &live.session.id, event).await?;
        self.end_all(&user.id).await?;
        self.begin(&user, Stage::In, agent, request).await.map(Step::On)
    }

    /// Ends whatever a user has open.
    pub(super) async fn end_all(&self, user_id: &str) -> Result<()> {
        self.authorizations.delete_owned(user_id).await?;
        self.sessions.delete_owned(user_id).await.map(drop)
    }

    /// Ends a session, and with it what was authorized for no longer than it.
    pub async fn logout(&self, cookie: &str, request: Request) -> Result<()> {
        let Some(live) = self.session(cookie).await? else { return Ok(()) };
        self.end_session(&live.user, &live.session, request).await
    }

    pub(super) async fn end_session(&self, user: &User, session: &Held<Session>, request: Request) -> Result<()> {
        let event = Event::new(self.world.now(), What::Logout, request);
        self.record_of(user, &session.id, event).await?;
        self.drop_session(user, session).await
    }

    /// Removes a session, and what was authorized for no longer than it.
    pub(super) async fn drop_session(&self, user: &User, session: &Held<Session>) -> Result<()> {
        for authorization in self.authorizations.owned(&user.id).await? {
            if authorization.session == session.id && !authorization.is_offline() {
                self.authorizations.delete_by_key(authorization.key()).await?;
            }
        }
        self.sessions.delete_by_key(session.key()).await.map(drop)
    }

    /// The sessions of a person, the newest first.
    pub async fn sessions_of(&self, user: &User) -> Result<Vec<Held<Session>>> {
        let mut sessions = self.sessions.owned(&user.id).await?;
        sessions.retain(|session| session.stage == Stage::In && session.made >= user.valid_from);
        sessions.sort_by_key(|session| std::cmp::Reverse(session.made));
        Ok(sessions)
    }

    /// Ends another session of the same person. False: there is none of this id.
    pub async fn end_session_of(&self, user: &User, id: &str, request: Request) -> Result<bool> {
        for session in self.sessions.owned(&user.id).await? {
            if session.id == id {
                self.end_session(user, &session, request).await?;
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Who looks at data on the server's own pages: the person of a session that is logged in.
    ///
    /// # Errors
    /// `Kind::Unauthenticated` unless the login is complete.
    pub fn session_caller(&self, live: &Live) -> Result<Caller> {
        if !live.is_in() {
            return Err(Error::new(Kind::Unauthenticated, "The login is not complete."));
        }
        let now = self.world.now();
        let claims = Claims {
            iss: self.keys.issuer().to_owned(),
            aud: self.keys.audience().to_owned(),
            sub: live.user.id.clone(),
            client_id: PAGES_CLIENT.to_owned(),
            scope: PAGES_SCOPES.to_owned(),
            jti: live.session.id.clone(),
            iat: now.seconds(),
            exp: now.seconds() + 60,
            person: Some(Person {
                role: live.user.role,
                fhir_user: live.user.fhir_user.clone(),
                patient: None,
                encounter: None,
                authorization: live.session.id.clone(),
                emergency: None,
            }),
        };
        crate::access::token::of_session(claims, &self.keys, now)
    }

    /// The token that forms of a browser must carry: bound to its cookie, so that no other site can know it.
    pub fn form_token(&self, cookie: &str) -> String {
        URL_SAFE_NO_PAD.encode(self.vault.token("form-token", cookie.as_bytes()))
    }

    /// Whether a form carries its browser's token. Takes the same time either way.
    pub fn is_form_token(&self, cookie: &str, given: &str) -> bool {
        self.form_token(cookie).as_bytes().ct_eq(given.as_bytes()).into()
    }
}
