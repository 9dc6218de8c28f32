//! Adding and removing passkeys, and what a browser's script gives for one.

use axum::body::Body;
use axum::http::{Response, StatusCode};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use minijinja::{Value, context};

use super::view::Page;
use super::{Visit, account, factor};
use crate::error::{Kind, Result};
use crate::oauth::passkeys::{Added, Ceremony, Offer};
use crate::oauth::webauthn::Assertion;

/// A field as bytes; what is no base64url is empty, and no ceremony takes that.
fn bytes(visit: &Visit<'_>, name: &str) -> Vec<u8> {
    URL_SAFE_NO_PAD.decode(visit.value(name)).unwrap_or_default()
}

/// What a page hands to the script.
pub(super) fn offer(of: Option<Offer>) -> Value {
    of.map_or(Value::from(()), |offer| {
        context! { challenge => offer.challenge, rp => offer.rp_id, user => offer.user, ids => offer.ids.join(" ") }
    })
}

pub(super) fn assertion(visit: &Visit<'_>) -> Assertion {
    Assertion {
        id: bytes(visit, "id"),
        client_data: bytes(visit, "client_data"),
        auth_data: bytes(visit, "auth_data"),
        signature: bytes(visit, "signature"),
        user_handle: bytes(visit, "user_handle"),
    }
}

pub(super) async fn show(visit: &Visit<'_>, status: StatusCode, fault: &str) -> Result<Response<Body>> {
    let live = match factor::fresh(visit, "passkey").await? {
        Ok(live) => live,
        Err(elsewhere) => return Ok(elsewhere),
    };
    let offered = visit.oauth().offer(&live, &visit.cookie, Ceremony::Register).await?;
    let page = context! { fault, username => live.user.username.clone(), offer => offer(offered) };
    Ok(visit.show(Page::new("passkey.html", page).status(status).with_script()))
}

/// Adds the passkey, or removes one.
pub(super) async fn change(visit: &Visit<'_>) -> Result<Response<Body>> {
    let live = match factor::fresh(visit, "passkey").await? {
        Ok(live) => live,
        Err(elsewhere) => return Ok(elsewhere),
    };
    let oauth = visit.oauth();
    let remove = visit.value("remove");
    if !remove.is_empty() {
        let said = match oauth.remove_passkey(&live, remove, visit.facts()).await {
            Ok(true) => "The passkey opens nothing here any more.".to_owned(),
            Ok(false) => "There is no such passkey.".to_owned(),
            Err(error) if error.kind == Kind::Invalid => {
                error.issues.first().map(|issue| issue.diagnostics.to_string()).unwrap_or_default()
            }
            Err(error) => return Err(error),
        };
        return account::show(visit, Some(&said)).await;
    }
    let (client_data, attestation) = (bytes(visit, "client_data"), bytes(visit, "attestation"));
    let added = oauth.add_passkey(&live, &visit.cookie, visit.value("name"), &client_data, &attestation, visit.facts());
    match added.await? {
        Added::Yes(codes) if codes.is_empty() => account::show(visit, Some("The passkey is added.")).await,
        Added::Yes(codes) => Ok(visit.show(factor::codes(visit, &codes, "/account"))),
        Added::No(fault) => show(visit, StatusCode::BAD_REQUEST, fault).await,
    }
}
