//! Apps and services: the list, the form that registers one, and one of them.

use axum::body::Body;
use axum::http::Response;
use minijinja::{Value, context};

use super::{Desk, Said, gone};
use crate::error::{Error, Result};
use crate::fhir::json;
use crate::interaction::form;
use crate::jobs::credentials::{self, NewClient};
use crate::oauth::{Changed, Client, ClientKind, Waiting};

const KINDS: &[(&str, ClientKind, &str)] = &[
    ("public", ClientKind::Public, "App with users that keeps no secret (in a browser, on a phone)"),
    ("confidential-symmetric", ClientKind::ConfidentialSymmetric, "App with users and a secret"),
    ("confidential-asymmetric", ClientKind::ConfidentialAsymmetric, "App with users and a key of its own"),
    ("backend", ClientKind::Backend, "Service without users, with a key of its own"),
];

fn row(client: &Client) -> Value {
    context! {
        id => client.client_id.clone(),
        query => form::encode(&[("id".to_owned(), client.client_id.clone())]),
        name => client.name.clone(),
        kind => client.kind.to_string(),
        active => !client.disabled,
        demo => client.demo,
    }
}

/// What a change is about, as people call it.
fn changed(of: &Changed) -> Value {
    let what = match of.what {
        "name" => "Name",
        "kind" => "Kind",
        "scopes" => "Scopes",
        "redirect_uris" => "Redirects",
        "launch_uri" => "Launch",
        "jwks" => "Keys",
        "jwks_url" => "Keys at",
        "secret" => "Secret",
        other => other,
    };
    context! { what, old => of.old.clone(), new => of.new.clone() }
}

/// One that waits; under the name that people know when it is a change.
fn waits(of: &Waiting) -> Value {
    let changes: Vec<Value> = of.changes.iter().map(changed).collect();
    let renamed = of.changes.iter().find(|one| one.what == "name").and_then(|one| one.old.first());
    let known = renamed.cloned().unwrap_or_else(|| of.asked.name.clone());
    context! { known, changes, is_change => of.is_change, seen => of.seen.clone(), ..row(&of.asked) }
}

pub(super) async fn list(desk: &Desk<'_, '_>, said: Said) -> Result<Response<Body>> {
    let all = desk.visit.oauth().clients().list().await?;
    let all = desk.searched(all, |one| format!("{} {} {}", one.client_id, one.name, one.kind));
    let failed = !said.fault.is_empty();
    let kept = |name: &str| if failed { desk.visit.value(name).to_owned() } else { String::new() };
    let kind = kept("kind");
    let kinds: Vec<Value> = KINDS
        .iter()
        .map(|(name, _, words)| context! { name => *name, words => *words, chosen => *name == kind })
        .collect();
    let waiting = desk.visit.oauth().clients().waiting().await?;
    let waiting: Vec<Value> = waiting.iter().map(waits).collect();
    let fields = context! {
        kinds, failed, waiting,
        name => kept("name"), redirects => kept("redirects"), launch => kept("launch"), scopes => kept("scopes"),
        jwks => kept("jwks"), jwks_url => kept("jwks_url"), ehr => !kept("ehr").is_empty(),
    };
    desk.show("admin-clients.html", said, context! { ..fields, ..desk.paged(all, row) })
}

/// Registers a client, or decides about one that has registered itself.
pub(super) async fn add(desk: &Desk<'_, '_>) -> Result<Said> {
    let visit = desk.visit;
    let clients = visit.oauth().clients().by(&desk.by);
    match visit.value("act") {
        "approve" => {
            let done = clients.approve(visit.value("id"), Some(visit.value("seen"))).await?;
            return Said::found(done, "What it asked for counts.");
        }
        "reject" => return Said::found(clients.reject(visit.value("id")).await?, "The app is turned away."),
        _ => {}
    }
    let kind = KINDS.iter().find(|(name, ..)| *name == visit.value("kind")).map(|(_, kind, _)| *kind);
    let kind = kind.ok_or_else(|| Error::invalid("There is no such kind of client."))?;
    let text = |name: &str| Some(visit.value(name).trim().to_owned()).filter(|text| !text.is_empty());
    let jwks = match text("jwks") {
        Some(set) => Some(json::parse(set.as_bytes()).map_err(|_| Error::invalid("The JWK Set is no JSON."))?),
        // A private key does not travel through a page.
        None if kind.is_asymmetric() && text("jwks_url").is_none() => {
            return Err(Error::invalid("Give the public JWK Set of the client, or where it publishes that."));
        }
        None => None,
    };
    let asked = NewClient {
        client_id: text("client_id"),
        name: visit.value("name").trim().to_owned(),
        kind,
        scopes: visit.value("scopes").split_whitespace().collect::<Vec<_>>().join(" "),
        jwks,
        jwks_url: text("jwks_url"),
        redirect_uris: visit.value("redirects").split_whitespace().map(str::to_owned).collect(),
        launch_uri: text("launch"),
        ehr: !visit.value("ehr").is_empty(),
        demo: false,
    };
    let made = credentials::add_client(&visit.server.app, &desk.by, asked).await?;
    let id = made["client_id"].as_str().unwrap_or_default();
    let secret = made["client_secret"].as_str();
    let secret = secret.map(|secret| ("Its secret, shown this once:", secret.to_owned()));
    Ok(Said { text: format!("Registered, with the client_id {id}"), secret, fault: String::new() })
}

async fn asked(desk: &Desk<'_, '_>) -> Result<Client> {
    desk.visit.oauth().clients().get(desk.visit.value("id")).await?.ok_or_else(gone)
}

pub(super) async fn one(desk: &Desk<'_, '_>, said: Said) -> Result<Response<Body>> {
    if desk.visit.value("act") == "remove" && said.fault.is_empty() {
        return Ok(desk.visit.see_other("/admin/clients", None));
    }
    let client = asked(desk).await?;
    let values = context! {
        client => row(&client),
        symmetric => client.kind == ClientKind::ConfidentialSymmetric,
        asymmetric => client.kind.is_asymmetric(),
        redirects => client.redirect_uris.clone(),
        launch => client.launch_uri.clone(),
        ehr => client.ehr,
        scopes => client.scopes()?.to_string().split(' ').map(str::to_owned).collect::<Vec<_>>(),
    };
    desk.show("admin-client.html", said, values)
}

pub(super) async fn change(desk: &Desk<'_, '_>) -> Result<Said> {
    let (oauth, by) = (desk.visit.oauth(), &desk.by);
    let client = asked(desk).await?;
    let id = &client.client_id;
    match desk.visit.value("act") {
        "disable" => Said::found(
            oauth.disable_client(by, id).await?,
            "The app is disabled, and what people have allowed it has ended.",
        ),
        "enable" => Said::found(oauth.clients().by(by).enable(id).await?, "The app may ask for tokens again."),
        "remove" if desk.visit.value("sure").is_empty() => Err(Error::invalid("Tick the box to remove the app.")),
        "remove" => Said::found(oauth.remove_client(by, id).await?, "The app is forgotten."),
        "rotate" => {
            let set = desk.visit.value("jwks").trim();
            let set = match set.is_empty() {
                true if client.kind.is_asymmetric() => {
                    return Err(Error::invalid("Give the new public JWK Set of the client."));
                }
                true => None,
                false => Some(json::parse(set.as_bytes()).map_err(|_| Error::invalid("The JWK Set is no JSON."))?),
            };
            let rotated = oauth.clients().by(by).rotate(id, set.as_ref()).await?.ok_or_else(gone)?;
            let secret = rotated.secret.map(|secret| ("Its new secret, shown this once:", secret.to_string()));
            Ok(Said { text: "What it had counts no longer.".to_owned(), secret, fault: String::new() })
        }
        _ => Err(Error::invalid("There is no such change.")),
    }
}
