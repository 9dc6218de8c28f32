//! Identity providers of the settings: what is known of each, and the switch that shuts one.

use axum::body::Body;
use axum::http::Response;
use minijinja::{Value, context};

use super::super::words;
use super::{Desk, Said, gone};
use crate::error::{Error, Result};

pub(super) async fn list(desk: &Desk<'_, '_>, said: Said) -> Result<Response<Body>> {
    let oauth = desk.visit.oauth();
    let mut rows: Vec<Value> = Vec::new();
    for provider in oauth.outside().described() {
        let Some(state) = oauth.provider_state(provider.id, false).await? else { continue };
        rows.push(context! {
            id => provider.id,
            name => provider.name,
            issuer => provider.issuer,
            client_id => provider.client_id,
            back => oauth.back_address(provider.id),
            rules => provider.rules,
            second_factor => provider.second_factor,
            closed => state.is_closed(),
            switched => state.switch.as_ref().map(|switch| format!("{} by {}", words::time(switch.at), switch.by)),
            known => state.known.map(|(at, _)| words::time(at.0)),
            keys => state.known.map(|(_, keys)| keys),
            failed => state.failed.map(|at| words::time(at.0)),
            users => state.users,
        });
    }
    desk.show("admin-providers.html", said, context! { rows })
}

/// Asks a provider what it is, shuts one, or opens it again.
pub(super) async fn change(desk: &Desk<'_, '_>) -> Result<Said> {
    let (oauth, id) = (desk.visit.oauth(), desk.visit.value("id"));
    match desk.visit.value("act") {
        "check" => {
            let state = oauth.provider_state(id, true).await?.ok_or_else(gone)?;
            match state.failed {
                None => Ok(Said::done("The provider answers as it should.")),
                Some(_) => Err(Error::invalid("The provider does not answer as it should: the log says why.")),
            }
        }
        "disable" => Said::found(
            oauth.switch_provider(&desk.by, id, true).await?,
            "Nobody logs in through the provider any more, and what people who came through it had open has ended.",
        ),
        "enable" => {
            Said::found(oauth.switch_provider(&desk.by, id, false).await?, "People may log in through it again.")
        }
        _ => Err(Error::invalid("There is no such change.")),
    }
}
