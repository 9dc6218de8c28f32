//! The pages of administration, for users of the role ADMIN. They show users, apps, keys and identity providers, and
//! nothing of any record but what the review of an emergency access needs. Whatever changes something asks for a login that is a few minutes old.

mod clients;
mod invitations;
mod keys;
mod open;
mod providers;
mod reviews;
mod users;

use axum::body::Body;
use axum::http::{Response, StatusCode};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use minijinja::{Value, context};

use super::Visit;
use super::view::Page;
use crate::access::Role;
use crate::error::{Error, Kind, Result};
use crate::oauth::By;
use crate::oauth::login::Live;

/// Rows of one page of a list.
const ROWS: usize = 50;

/// Pages of administration, and the title under which the menu leads there.
const MENU: &[(&str, &str)] = &[
    ("/admin/users", "Users"),
    ("/admin/invitations", "Invitations"),
    ("/admin/clients", "Apps"),
    ("/admin/sessions", "Sessions"),
    ("/admin/consents", "Consents"),
    ("/admin/keys", "Keys"),
    ("/admin/providers", "Providers"),
    ("/admin/reviews", "Reviews"),
];

/// An administrator at a page.
struct Desk<'a, 'v> {
    visit: &'a Visit<'v>,
    live: Live,
    by: By,
    route: &'static str,
    is_recent: bool,
}

/// What a change gives to be said on the page that follows.
#[derive(Default)]
struct Said {
    text: String,
    /// What is shown this once: a link or a secret, with the words before it.
    secret: Option<(&'static str, String)>,
    fault: String,
}

impl Said {
    fn done(text: &str) -> Said {
        Said { text: text.to_owned(), ..Said::default() }
    }

    /// What the person did wrong stands on the page; what else went wrong is an error.
    fn of(error: Error) -> Result<Said> {
        match error.kind {
            Kind::Invalid | Kind::Unsupported | Kind::Conflict | Kind::TooCostly | Kind::BusinessRule => {
                let fault = error.issues.first().map(|issue| issue.diagnostics.to_string()).unwrap_or_default();
                Ok(Said { fault, ..Said::default() })
            }
            _ => Err(error),
        }
    }

    /// Of a change that may find nothing to change.
    fn found(known: bool, text: &str) -> Result<Said> {
        if known { Ok(Said::done(text)) } else { Err(gone()) }
    }
}

fn gone() -> Error {
    Error::new(Kind::NotFound, "This is not there any more.")
}

pub(super) async fn serve(visit: &Visit<'_>, route: &'static str, is_post: bool) -> Result<Response<Body>> {
    let Some(live) = visit.live().await?.filter(Live::is_in) else {
        return Ok(visit.see_other("/login?to=admin", None));
    };
    if live.user.role != Role::Admin || !live.user.has_factor() {
        return Err(Error::new(Kind::Forbidden, "These pages are for administrators."));
    }
    let by = visit.oauth().by(&live, visit.facts());
    let is_recent = visit.oauth().is_recent(&live);
    let desk = Desk { visit, live, by, route, is_recent };
    if is_post && !is_recent {
        return Ok(visit.show(Page::new("admin-again.html", desk.frame(Said::default())).status(StatusCode::FORBIDDEN)));
    }
    let said = match (route, is_post) {
        (_, false) => Said::default(),
        ("/admin/user", _) => users::change(&desk).await.or_else(Said::of)?,
        ("/admin/invitations", _) => invitations::change(&desk).await.or_else(Said::of)?,
        ("/admin/clients", _) => clients::add(&desk).await.or_else(Said::of)?,
        ("/admin/client", _) => clients::change(&desk).await.or_else(Said::of)?,
        ("/admin/keys", _) => keys::rotate(&desk).await.or_else(Said::of)?,
        ("/admin/providers", _) => providers::change(&desk).await.or_else(Said::of)?,
        ("/admin/review", _) => reviews::close(&desk).await.or_else(Said::of)?,
        _ => open::end(&desk).await.or_else(Said::of)?,
    };
    match route {
        "/admin" => Ok(visit.see_other("/admin/users", None)),
        "/admin/users" => users::list(&desk).await,
        "/admin/user" => users::one(&desk, said).await,
        "/admin/invitations" => invitations::list(&desk, said).await,
        "/admin/clients" => clients::list(&desk, said).await,
        "/admin/client" => clients::one(&desk, said).await,
        "/admin/keys" => keys::list(&desk, said).await,
        "/admin/providers" => providers::list(&desk, said).await,
        "/admin/reviews" => reviews::list(&desk).await,
        "/admin/review" => reviews::one(&desk, said).await,
        "/admin/sessions" => open::sessions(&desk, said).await,
        _ => open::consents(&desk, said).await,
    }
}

impl Desk<'_, '_> {
    /// What every page of administration shows.
    fn frame(&self, said: Said) -> Value {
        let under = |route: &str| self.route.starts_with(route.trim_end_matches('s'));
        let menu: Vec<Value> =
            MENU.iter().map(|(path, title)| context! { path => *path, title => *title, here => under(path) }).collect();
        let (before, secret) = said.secret.unwrap_or_default();
        context! {
            administrator => self.live.user.username.clone(),
            menu,
            recent => self.is_recent,
            said => said.text,
            fault => said.fault,
            before,
            secret,
        }
    }

    fn show(&self, template: &'static str, said: Said, values: Value) -> Result<Response<Body>> {
        let status = if said.fault.is_empty() { StatusCode::OK } else { StatusCode::BAD_REQUEST };
        let frame = self.frame(said);
        Ok(self.visit.show(Page::new(template, context! { ..values, ..frame }).status(status)))
    }

    /// The rows of the page that was asked for, and what its links need.
    fn paged<T>(&self, all: Vec<T>, row: impl Fn(&T) -> Value) -> Value {
        let (total, asked) = (all.len(), self.visit.value("page").parse::<usize>().unwrap_or(1));
        let pages = total.div_ceil(ROWS).max(1);
        let page = asked.clamp(1, pages);
        let rows: Vec<Value> = all.iter().skip((page - 1) * ROWS).take(ROWS).map(row).collect();
        let q: String = self.visit.value("q").chars().take(100).collect();
        let kept = |page: usize| {
            crate::interaction::form::encode(&[("q".to_owned(), q.clone()), ("page".to_owned(), page.to_string())])
        };
        let (before, next) = ((page > 1).then(|| kept(page - 1)), (page < pages).then(|| kept(page + 1)));
        context! {
            rows, total, page, pages, q,
            path => self.route,
            before_page => before,
            next_page => next,
        }
    }

    /// What is searched for.
    fn words(&self) -> &str {
        let q = self.visit.value("q");
        q.char_indices().nth(100).map_or(q, |(end, _)| &q[..end])
    }

    /// Where the page begins, by the link of the one before; what is no such place is the first page.
    fn after(&self) -> Vec<u8> {
        URL_SAFE_NO_PAD.decode(self.visit.value("after")).unwrap_or_default()
    }

    /// What the links of a list need that is read page by page.
    fn keyset(&self, total: Option<usize>, next: Option<Vec<u8>>, kept: &[(&str, &str)]) -> Value {
        let link = |after: Option<String>| {
            let mut pairs = vec![("q".to_owned(), self.words().to_owned())];
            pairs.extend(kept.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
            pairs.extend(after.map(|after| ("after".to_owned(), after)));
            pairs.retain(|(_, value)| !value.is_empty());
            crate::interaction::form::encode(&pairs)
        };
        let first = (!self.visit.value("after").is_empty()).then(|| link(None));
        let next = next.map(|next| link(Some(URL_SAFE_NO_PAD.encode(next))));
        context! { q => self.words(), path => self.route, total, first, next }
    }

    /// Keeps of a list what contains the words that are searched for.
    fn searched<T>(&self, mut all: Vec<T>, text: impl Fn(&T) -> String) -> Vec<T> {
        let words: Vec<String> = self.visit.value("q").split_whitespace().map(str::to_lowercase).collect();
        all.retain(|one| {
            let text = text(one).to_lowercase();
            words.iter().all(|word| text.contains(word))
        });
        all
    }
}
