//! The pages for people: login, consent, launch, account. Rendered here, without script; what they decide is decided in
//! `oauth`, and what they show of patients comes through interactions, as everything does.

mod account;
mod admin;
mod authorize;
mod factor;
mod invitation;
mod launch;
mod login;
mod outside;
mod passkey;
mod picker;
mod view;
mod words;

use axum::body::Body;
use axum::http::header::{
    ACCEPT, ALLOW, CACHE_CONTROL, CONTENT_TYPE, COOKIE, LOCATION, ORIGIN, RETRY_AFTER, SET_COOKIE, USER_AGENT,
};
use axum::http::request::Parts;
use axum::http::{HeaderValue, Response, StatusCode};

use super::dispatch::{Served, Server, below, facts_of};
use super::{body, outcome, reply};
use crate::error::{Error, Kind, Result};
use crate::interaction::form;
use crate::oauth::login::{Live, random_name};
use crate::oauth::{self, discovery};

use view::Page;

/// Forms of people are small.
const FORM_BYTES_MAX: usize = 64 * 1024;
/// Characters of the random name in a cookie.
const COOKIE_LENGTH: usize = 43;

/// One request of a browser.
struct Visit<'a> {
    pub server: &'a Server,
    pub parts: &'a Parts,
    pub request_id: &'a str,
    /// The browser's cookie, or the one it is given with this reply.
    pub cookie: String,
    pub is_new: bool,
    /// Decoded parameters of the query, or of the form.
    pub form: Vec<(String, String)>,
}

pub(super) type Route = &'static (&'static str, &'static str);

/// The page or document at an address.
pub(super) fn route(server: &Server, parts: &Parts) -> Option<Route> {
    let (path, issuer_path) = (parts.uri.path(), server.app.config.issuer_path());
    let path = match discovery::is_authorization_server(path, issuer_path) {
        true => ".well-known/oauth-authorization-server",
        false => below(path, issuer_path)?,
    };
    ROUTES.iter().chain(DOCUMENTS).find(|(known, _)| is_at(&known[1..], path))
}

/// Whether a path is the known one, or one part below it when that ends in a slash.
fn is_at(known: &str, path: &str) -> bool {
    match known.strip_suffix('/') {
        Some(folder) => {
            let below = path.strip_prefix(folder).and_then(|rest| rest.strip_prefix('/'));
            below.is_some_and(|part| !part.is_empty() && !part.contains('/'))
        }
        None => known == path,
    }
}

/// Whether an address is a page for people.
pub(super) fn is_page(server: &Server, parts: &Parts) -> bool {
    route(server, parts).is_some_and(|found| ROUTES.iter().any(|(page, _)| *page == found.0))
}

/// The page that tells a browser of an error, where it asks for a page or for what is not there; None where the address
/// answers apps, in a form of their own.
pub(super) fn refused(server: &Server, parts: &Parts, error: &Error, request_id: &str) -> Option<Response<Body>> {
    if route(server, parts).is_none() {
        let config = &server.app.config;
        let path = parts.uri.path();
        let of_apps = below(path, config.base_path()).is_some() || super::oauth::route(server, parts).is_some();
        let accepted = parts.headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
        if of_apps || !accepted.into_iter().any(|list| list.contains("text/html")) {
            return None;
        }
    } else if !is_page(server, parts) {
        return None;
    }
    Some(view::plain(server, error, request_id))
}

pub(super) async fn serve(server: &Server, found: Route, parts: &Parts, sent: Body, request_id: &str) -> Served {
    let (route, allowed) = *found;
    let method = parts.method.as_str();
    if !allowed.split(", ").any(|one| one == method) {
        return Served { reply: not_allowed(server, parts, allowed, request_id), route };
    }
    if DOCUMENTS.iter().any(|(known, _)| *known == route) {
        return Served { reply: document(server, route), route };
    }
    let reply = match visit(server, parts, sent, request_id).await {
        Ok(visit) => match visit.page(route).await {
            Ok(reply) => reply,
            Err(error) => visit.failed(&error),
        },
        Err(error) => view::plain(server, &error, request_id),
    };
    Served { reply, route }
}

/// Documents that say something of the server, not of anybody.
const DOCUMENTS: &[(&str, &str)] = &[
    ("/style.css", "GET, HEAD"),
    ("/icon.svg", "GET, HEAD"),
    ("/passkey.js", "GET, HEAD"),
    ("/smart-style-1.json", "GET, HEAD"),
    ("/.well-known/openid-configuration", "GET, HEAD"),
    ("/.well-known/oauth-authorization-server", "GET, HEAD"),
];

/// Address and methods of every page.
pub(super) const ROUTES: &[(&str, &str)] = &[
    ("/oauth/authorize", "GET, POST"),
    ("/oauth/continue", "GET"),
    ("/oauth/patient", "POST"),
    ("/oauth/encounter", "POST"),
    ("/oauth/decide", "POST"),
    ("/invitation", "GET, POST"),
    ("/login", "GET, POST"),
    ("/login/with/", "GET"),
    ("/login/back/", "GET"),
    ("/login/ended/", "POST"),
    ("/logout", "POST"),
    ("/account", "GET, POST"),
    ("/account/password", "GET, POST"),
    ("/account/passkey", "GET, POST"),
    ("/account/factor", "GET, POST"),
    ("/launch", "GET, POST"),
    ("/admin", "GET"),
    ("/admin/users", "GET"),
    ("/admin/user", "GET, POST"),
    ("/admin/invitations", "GET, POST"),
    ("/admin/clients", "GET, POST"),
    ("/admin/client", "GET, POST"),
    ("/admin/sessions", "GET, POST"),
    ("/admin/consents", "GET, POST"),
    ("/admin/keys", "GET, POST"),
    ("/admin/providers", "GET, POST"),
    ("/admin/reviews", "GET"),
    ("/admin/review", "GET, POST"),
];

fn document(server: &Server, route: &str) -> Response<Body> {
    let (content_type, bytes, may_be_kept) = match route {
        "/style.css" => ("text/css; charset=utf-8", view::STYLE.into(), true),
        "/passkey.js" => ("text/javascript; charset=utf-8", view::SCRIPT.into(), true),
        "/icon.svg" => ("image/svg+xml", view::ICON.into(), true),
        "/smart-style-1.json" => ("application/json", discovery::style(), true),
        _ => ("application/json", server.app.config.endpoints().openid_configuration(), false),
    };
    let mut reply = reply::document(StatusCode::OK, content_type, bytes);
    if may_be_kept {
        reply.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("public, max-age=3600"));
    }
    reply
}

fn not_allowed(server: &Server, parts: &Parts, allowed: &'static str, request_id: &str) -> Response<Body> {
    let error = Error::new(Kind::Method, "");
    let mut reply = refused(server, parts, &error, request_id).unwrap_or_else(|| {
        reply::document(StatusCode::METHOD_NOT_ALLOWED, "text/plain; charset=utf-8", "method not allowed\n")
    });
    reply.headers_mut().insert(ALLOW, HeaderValue::from_static(allowed));
    reply
}

async fn visit<'a>(server: &'a Server, parts: &'a Parts, sent: Body, request_id: &'a str) -> Result<Visit<'a>> {
    let form = if parts.method == "POST" {
        let kind = parts.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let kind = kind.split(';').next().unwrap_or_default().trim();
        if !kind.eq_ignore_ascii_case("application/x-www-form-urlencoded") {
            return Err(Error::new(Kind::MediaType, "A form is application/x-www-form-urlencoded."));
        }
        let bytes = body::read(&parts.headers, sent, FORM_BYTES_MAX).await?;
        form::decode(std::str::from_utf8(&bytes).map_err(|_| Error::invalid("The form is no UTF-8."))?)?
    } else {
        form::decode(parts.uri.query().unwrap_or_default())?
    };
    let found = cookie(server, parts);
    let is_new = found.is_none();
    let cookie = found.unwrap_or_else(|| random_name().to_string());
    Ok(Visit { server, parts, request_id, cookie, is_new, form })
}

/// Cookies with the prefix are bound to this host and to https; the prefix cannot be had without https.
fn cookie_name(server: &Server) -> &'static str {
    if is_https(server) { "__Host-phial" } else { "phial" }
}

fn is_https(server: &Server) -> bool {
    server.app.config.base_url.starts_with("https://")
}

fn cookie(server: &Server, parts: &Parts) -> Option<String> {
    let name = cookie_name(server);
    let all = parts.headers.get_all(COOKIE).iter().filter_map(|value| value.to_str().ok());
    let mut own = all.flat_map(|text| text.split(';')).filter_map(|pair| pair.trim().split_once('='));
    let value = own.find(|(key, _)| *key == name).map(|(_, value)| value)?;
    let plain = value.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte));
    (value.len() == COOKIE_LENGTH && plain).then(|| value.to_owned())
}

impl Visit<'_> {
    pub fn value(&self, name: &str) -> &str {
        self.form.iter().find(|(own, _)| own == name).map_or("", |(_, value)| value.as_str())
    }

    pub fn oauth(&self) -> &oauth::State {
        &self.server.app.oauth
    }

    pub fn facts(&self) -> crate::audit::Request {
        let mut request = facts_of(self.parts, self.request_id);
        // Parameters may hold secrets (codes, handles): the address alone is on record.
        request.raw = self.parts.uri.path().to_owned();
        request
    }

    pub fn agent(&self) -> &str {
        self.parts.headers.get(USER_AGENT).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    pub async fn live(&self) -> Result<Option<Live>> {
        if self.is_new { Ok(None) } else { self.oauth().session(&self.cookie).await }
    }

    /// An address of ours, below the issuer.
    pub fn url(&self, path: &str) -> String {
        format!("{}{path}", self.server.app.config.issuer_path())
    }

    async fn page(&self, route: &'static str) -> Result<Response<Body>> {
        let is_post = self.parts.method == "POST";
        // An app's page posts authorization requests from its own origin; every other form is one of ours.
        // Identity providers say by themselves that a login has ended, with a token of theirs as proof.
        if is_post && !["/oauth/authorize", "/login/ended/"].contains(&route) {
            self.check_origin()?;
        }
        // Boxed: each holds interactions, whose futures are large.
        match (route, is_post) {
            ("/oauth/authorize", _) => Box::pin(authorize::begin(self)).await,
            ("/oauth/continue", _) => Box::pin(authorize::go_on(self)).await,
            ("/oauth/patient" | "/oauth/encounter", _) => {
                Box::pin(authorize::choose(self, route == "/oauth/patient")).await
            }
            ("/oauth/decide", _) => Box::pin(authorize::decide(self)).await,
            ("/invitation", false) => Box::pin(invitation::show(self, StatusCode::OK, "")).await,
            ("/invitation", true) => Box::pin(invitation::take_up(self)).await,
            ("/login", false) => Box::pin(login::show(self)).await,
            ("/login", true) => Box::pin(login::step(self)).await,
            ("/login/with/", _) => Box::pin(outside::leave(self)).await,
            ("/login/back/", _) => Box::pin(outside::back(self)).await,
            ("/login/ended/", _) => Box::pin(outside::ended(self)).await,
            ("/logout", _) => Box::pin(login::logout(self)).await,
            ("/account", false) => Box::pin(account::show(self, None)).await,
            ("/account", true) => Box::pin(account::end(self)).await,
            ("/account/passkey", false) => Box::pin(passkey::show(self, StatusCode::OK, "")).await,
            ("/account/passkey", true) => Box::pin(passkey::change(self)).await,
            ("/account/factor", false) => Box::pin(factor::show(self, StatusCode::OK, "")).await,
            ("/account/factor", true) => Box::pin(factor::change(self)).await,
            ("/account/password", false) => Box::pin(account::password_page(self, StatusCode::OK, "")).await,
            ("/account/password", true) => Box::pin(account::password(self)).await,
            (route, is_post) if route.starts_with("/admin") => Box::pin(admin::serve(self, route, is_post)).await,
            ("/launch", false) => Box::pin(launch::show(self)).await,
            _ => Box::pin(launch::start(self)).await,
        }
    }

    /// A form must carry the token that this browser's cookie stands for, and come from a page of ours.
    fn check_origin(&self) -> Result<()> {
        let site = self.parts.headers.get("sec-fetch-site").and_then(|value| value.to_str().ok());
        let own_site = site.is_none_or(|site| matches!(site, "same-origin" | "none"));
        // Pages with `Referrer-Policy: no-referrer` post with the origin `null`.
        let origin = self.parts.headers.get(ORIGIN).and_then(|value| value.to_str().ok());
        let base = &self.server.app.config.base_url;
        let own_origin = origin.is_none_or(|origin| origin == "null" || origin_of(base) == origin);
        if self.is_new || !own_site || !own_origin || !self.oauth().is_form_token(&self.cookie, self.value("token")) {
            let text = "This form is not one that this server gave to this browser, or it is out of date. Go back, \
                        load the page again and try once more. Cookies must be allowed.";
            return Err(Error::new(Kind::Forbidden, text));
        }
        Ok(())
    }

    /// A page that shows an error.
    pub fn failed(&self, error: &Error) -> Response<Body> {
        outcome::log(error, self.request_id);
        let wait_s = (error.kind == Kind::Throttled).then(|| self.server.page_wait_s());
        let mut reply = self.error(outcome::status(error.kind), &view::text_of(error));
        if let Some(wait_s) = wait_s {
            reply.headers_mut().insert(RETRY_AFTER, HeaderValue::from(wait_s));
        }
        reply
    }

    pub fn error(&self, status: StatusCode, text: &str) -> Response<Body> {
        self.show(view::error(status, text, self.request_id))
    }

    /// Sends the browser on.
    pub fn redirect(&self, status: StatusCode, url: &str, cookie: Option<&str>) -> Response<Body> {
        let mut reply = Response::new(Body::empty());
        *reply.status_mut() = status;
        if let Ok(url) = HeaderValue::from_str(url) {
            reply.headers_mut().insert(LOCATION, url);
        }
        self.set_cookie(&mut reply, cookie);
        reply
    }

    pub fn see_other(&self, path: &str, cookie: Option<&str>) -> Response<Body> {
        self.redirect(StatusCode::SEE_OTHER, &self.url(path), cookie)
    }

    /// Gives the browser a new cookie, or its first one. A form that another site has sent comes without the cookie that
    /// the browser does have: it must not take its place.
    fn set_cookie(&self, reply: &mut Response<Body>, cookie: Option<&str>) {
        let value = match (cookie, self.is_new) {
            (Some(value), _) => value,
            (None, true) if self.parts.method != "POST" => &self.cookie,
            (None, _) => return,
        };
        let secure = if is_https(self.server) { "; Secure" } else { "" };
        let text = format!("{}={value}; Path=/; HttpOnly; SameSite=Lax{secure}", cookie_name(self.server));
        if let Ok(text) = HeaderValue::from_str(&text) {
            reply.headers_mut().insert(SET_COOKIE, text);
        }
    }

    pub fn show(&self, page: Page) -> Response<Body> {
        self.show_under(page, None)
    }

    /// Shows a page whose forms belong to a new cookie.
    pub fn show_under(&self, page: Page, cookie: Option<&str>) -> Response<Body> {
        let owner = cookie.unwrap_or(&self.cookie);
        let mut reply = page.render(&self.oauth().form_token(owner), self.server.app.config.issuer_path());
        self.set_cookie(&mut reply, cookie);
        reply
    }
}

/// `https://app.example:8443` of a URL; `com.example.app:` of one with a private scheme.
pub(super) fn origin_of(url: &str) -> String {
    match url.split_once("://") {
        Some((scheme @ ("http" | "https"), rest)) => {
            format!("{scheme}://{}", rest.split(['/', '?', '#']).next().unwrap_or_default())
        }
        _ => format!("{}:", url.split(':').next().unwrap_or_default()),
    }
}
