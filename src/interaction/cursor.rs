//! Page links of a search: the whole query and the position, sealed, so that an address reveals nothing of either.
//! A cursor opens for the client it was made for, for its type, until it expires.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::de::DeserializeOwned;
use serde_json::json;

use super::{Pairs, Scene, form};
use crate::error::{Error, Result};
use crate::fhir::json::Node;
use crate::fhir::{TypeId, definitions};
use crate::store::Position;
use crate::vault::{Rid, SystemKey};

/// Longest cursor that is looked at.
const TEXT_MAX: usize = 16 * 1024;

fn bound_to(scene: Scene<'_>, address: &str) -> Vec<u8> {
    let who = scene.caller.who();
    // Lengths first: no two callers can give the same bytes.
    let parts = [
        "phial-cursor-1",
        address,
        &who.client_id,
        who.user.as_deref().unwrap_or_default(),
        who.issuer.as_deref().unwrap_or_default(),
    ];
    parts.iter().flat_map(|part| [part.len().to_string().as_bytes(), b":", part.as_bytes()].concat()).collect()
}

/// Seals a state for this caller and address (what is paged through), until it expires.
pub(super) async fn seal_json(scene: Scene<'_>, address: &str, state: &Node) -> Result<String> {
    let expires_ms = i64::try_from(scene.app.config.cursor_lifetime_s.get() * 1000).unwrap_or(i64::MAX);
    let plain = json!([scene.app.world.now().plus_ms(expires_ms).0, state]);
    let aad = bound_to(scene, address);
    let sealed = scene.app.vault.seal_system(SystemKey::Cursor, &aad, plain.to_string().as_bytes()).await?;
    Ok(URL_SAFE_NO_PAD.encode(sealed))
}

fn foreign() -> Error {
    Error::invalid("This page link was altered or made for another caller or address.")
}

/// Opens what [`seal_json`] made.
///
/// # Errors
/// `Kind::Invalid` when it was made for somebody else, was altered or has expired.
pub(super) async fn open_json<T: DeserializeOwned>(scene: Scene<'_>, address: &str, text: &str) -> Result<T> {
    if text.len() > TEXT_MAX {
        return Err(foreign());
    }
    let sealed = URL_SAFE_NO_PAD.decode(text).map_err(|_| foreign())?;
    let aad = bound_to(scene, address);
    let plain = scene.app.vault.open_system(SystemKey::Cursor, &aad, &sealed).await.map_err(|_| foreign())?;
    let (expires, state): (i64, T) = serde_json::from_slice(&plain).map_err(|_| foreign())?;
    if expires < scene.app.world.now().0 {
        return Err(Error::invalid("This page link has expired: start the search again."));
    }
    Ok(state)
}

/// A position as part of a state.
pub(super) fn position_state(position: &Position) -> Node {
    json!([position.rid.0, key_text(position)])
}

/// The key of a position as text.
pub(super) fn key_text(position: &Position) -> String {
    URL_SAFE_NO_PAD.encode(&position.key)
}

/// Reads [`position_state`] back.
pub(super) fn position_of((rid, key): (i64, String)) -> Result<Position> {
    let key = URL_SAFE_NO_PAD.decode(key).map_err(|_| foreign())?;
    Ok(Position { key, rid: Rid(rid) })
}

/// Seals where the next page starts.
pub(super) async fn seal(scene: Scene<'_>, kind: TypeId, applied: &Pairs, next: &Position) -> Result<String> {
    let state = json!([position_state(next), form::encode(applied)]);
    seal_json(scene, definitions().type_name(kind), &state).await
}

/// Opens a page link: the query it continues and where.
///
/// # Errors
/// As [`open_json`].
pub(super) async fn open(scene: Scene<'_>, kind: TypeId, text: &str) -> Result<(Pairs, Position)> {
    let (position, query): ((i64, String), String) = open_json(scene, definitions().type_name(kind), text).await?;
    Ok((form::decode(&query)?, position_of(position)?))
}
