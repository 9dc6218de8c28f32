//! A person's own second step: an authenticator app set up, replaced or removed, and new recovery codes.

use axum::body::Body;
use axum::http::{Response, StatusCode};
use minijinja::{Value, context};
use qrcode::QrCode;
use qrcode::render::svg;
use zeroize::Zeroizing;

use super::view::Page;
use super::{Visit, account};
use crate::error::{Error, Kind, Result};
use crate::oauth::factors::DeviceSet;
use crate::oauth::login::Live;
use crate::oauth::totp;

/// What a page shows for an authenticator app to take a secret up.
pub(super) fn device(secret: &[u8], username: &str) -> Result<Value> {
    let uri = totp::uri(secret, "Phial", username);
    let code = QrCode::new(&uri).map_err(Error::internal)?;
    let picture = code.render::<svg::Color<'_>>().min_dimensions(200, 200).build();
    // The picture without the XML declaration, so that it can stand in a page.
    let picture = picture.find("<svg").map(|at| picture[at..].to_owned()).unwrap_or_default();
    let key = totp::base32(secret);
    let key = key.as_bytes().chunks(4).map(String::from_utf8_lossy).collect::<Vec<_>>().join(" ");
    Ok(context! { uri, key, picture })
}

/// New recovery codes, shown this once.
pub(super) fn codes(visit: &Visit<'_>, codes: &[Zeroizing<String>], next: &str) -> Page {
    let codes: Vec<String> = codes.iter().map(|code| code.to_string()).collect();
    let login = visit.value("step") == "enrol";
    Page::new("codes.html", context! { codes, next, login })
}

/// Whoever has proved themselves a moment ago; everybody else does so first.
pub(super) async fn fresh(visit: &Visit<'_>, to: &str) -> Result<Result<Live, Response<Body>>> {
    Ok(match visit.live().await?.filter(Live::is_in) {
        None => Err(visit.see_other(&format!("/login?to={to}"), None)),
        Some(live) if !visit.oauth().is_fresh(&live) => Err(visit.see_other(&format!("/login?to={to}&again=1"), None)),
        Some(live) => Ok(live),
    })
}

pub(super) async fn show(visit: &Visit<'_>, status: StatusCode, fault: &str) -> Result<Response<Body>> {
    let live = match fresh(visit, "factor").await? {
        Ok(live) => live,
        Err(elsewhere) => return Ok(elsewhere),
    };
    let replaces = live.user.device.is_some();
    if !visit.value("set").is_empty() {
        let secret = visit.oauth().offer_device(&visit.cookie).await?;
        let shown = device(&secret, &live.user.username)?;
        let page = Page::new("device.html", context! { fault, replaces, ..shown });
        return Ok(visit.show(page.status(status)));
    }
    let page = context! {
        fault, replaces,
        factor => live.user.has_factor(),
        passkeys => live.user.passkeys.len(),
        may_add => visit.oauth().site().is_some(),
        recovery => live.user.recovery.len(),
        needed => visit.oauth().needs_factor(live.user.role),
    };
    Ok(visit.show(Page::new("second.html", page).status(status)))
}

/// One change. What the person did wrong stands on the page.
pub(super) async fn change(visit: &Visit<'_>) -> Result<Response<Body>> {
    let live = match fresh(visit, "factor").await? {
        Ok(live) => live,
        Err(elsewhere) => return Ok(elsewhere),
    };
    match changed(visit, &live).await {
        Err(error) if error.kind == Kind::Invalid => {
            let fault = error.issues.first().map(|issue| issue.diagnostics.to_string()).unwrap_or_default();
            show(visit, StatusCode::BAD_REQUEST, &fault).await
        }
        done => done,
    }
}

async fn changed(visit: &Visit<'_>, live: &Live) -> Result<Response<Body>> {
    let oauth = visit.oauth();
    match visit.value("act") {
        "set" => match oauth.set_device(live, &visit.cookie, visit.value("code"), visit.facts()).await? {
            DeviceSet::No(fault) => show(visit, StatusCode::BAD_REQUEST, fault).await,
            DeviceSet::Yes(new) if new.is_empty() => {
                account::show(visit, Some("Codes come from this authenticator app from now on.")).await
            }
            DeviceSet::Yes(new) => Ok(visit.show(codes(visit, &new, "/account"))),
        },
        "remove" => {
            let removed = oauth.remove_device(live, visit.facts()).await?;
            let said = if removed { "The authenticator app counts no longer." } else { "There was none." };
            account::show(visit, Some(said)).await
        }
        "codes" => {
            let new = oauth.renew_recovery(live, visit.facts()).await?;
            Ok(visit.show(codes(visit, &new, "/account")))
        }
        _ => Err(Error::invalid("There is no such change.")),
    }
}
