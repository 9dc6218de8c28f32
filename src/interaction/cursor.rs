//! Page links of a search: the whole query and the position, sealed, so that an address reveals nothing of either.
//! A cursor opens for the client it was made for, for its type, until it expires.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::json;

use super::{Pairs, Scene, form};
use crate::error::{Error, Result};
use crate::fhir::{TypeId, definitions};
use crate::store::Position;
use crate::vault::{Rid, SystemKey};

/// Longest cursor that is looked at.
const TEXT_MAX: usize = 16 * 1024;

fn bound_to(scene: Scene<'_>, kind: TypeId) -> Vec<u8> {
    let who = scene.caller.who();
    // Lengths first: no two callers can give the same bytes.
    let parts = [
        "phial-cursor-1",
        definitions().type_name(kind),
        &who.client_id,
        who.user.as_deref().unwrap_or_default(),
        who.issuer.as_deref().unwrap_or_default(),
    ];
    parts.iter().flat_map(|part| [part.len().to_string().as_bytes(), b":", part.as_bytes()].concat()).collect()
}

/// Seals where the next page starts.
pub(super) async fn seal(scene: Scene<'_>, kind: TypeId, applied: &Pairs, next: &Position) -> Result<String> {
    let expires_ms = i64::try_from(scene.app.config.cursor_lifetime_s.get() * 1000).unwrap_or(i64::MAX);
    let plain = json!([
        scene.app.world.now().plus_ms(expires_ms).0,
        next.rid.0,
        URL_SAFE_NO_PAD.encode(&next.key),
        form::encode(applied),
    ]);
    let aad = bound_to(scene, kind);
    let sealed = scene.app.vault.seal_system(SystemKey::Cursor, &aad, plain.to_string().as_bytes()).await?;
    Ok(URL_SAFE_NO_PAD.encode(sealed))
}

/// Opens a page link: the query it continues and where.
///
/// # Errors
/// `Kind::Invalid` when it was made for somebody else, was altered or has expired.
pub(super) async fn open(scene: Scene<'_>, kind: TypeId, text: &str) -> Result<(Pairs, Position)> {
    let foreign = || Error::invalid("This page link was altered or made for another caller or address.");
    if text.len() > TEXT_MAX {
        return Err(foreign());
    }
    let sealed = URL_SAFE_NO_PAD.decode(text).map_err(|_| foreign())?;
    let aad = bound_to(scene, kind);
    let plain = scene.app.vault.open_system(SystemKey::Cursor, &aad, &sealed).await.map_err(|_| foreign())?;
    let (expires, rid, key, query): (i64, i64, String, String) =
        serde_json::from_slice(&plain).map_err(|_| foreign())?;
    if expires < scene.app.world.now().0 {
        return Err(Error::invalid("This page link has expired: start the search again."));
    }
    let key = URL_SAFE_NO_PAD.decode(key).map_err(|_| foreign())?;
    Ok((form::decode(&query)?, Position { key, rid: Rid(rid) }))
}
