//! The keys that tokens are signed with. Those of the vault are administered at the console alone.

use axum::body::Body;
use axum::http::Response;
use minijinja::{Value, context};

use super::super::words;
use super::{Desk, Said};
use crate::error::Result;

pub(super) async fn list(desk: &Desk<'_, '_>, said: Said) -> Result<Response<Body>> {
    let keys = desk.visit.oauth().signing_keys().await?;
    let rows: Vec<Value> = keys
        .into_iter()
        .rev()
        .map(|key| context! { kid => key.kid, algorithm => key.algorithm, until => key.published_until.map(words::time) })
        .collect();
    let vault = desk.visit.server.app.vault.ping().await.is_ok();
    desk.show("admin-keys.html", said, context! { rows, vault })
}

pub(super) async fn rotate(desk: &Desk<'_, '_>) -> Result<Said> {
    desk.visit.oauth().rotate_keys(&desk.by).await?;
    Ok(Said::done("Tokens are signed with new keys. Those of before stay published for two hours."))
}
