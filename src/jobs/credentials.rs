//! Clients of this server from the command line: registering one, and asking for a token as one.

use std::fmt::Display;

use aws_lc_rs::signature::{ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::Request;
use http::header::{ACCEPT, CONTENT_TYPE};
use serde_json::json;
use zeroize::Zeroizing;

use crate::app::App;
use crate::error::{Error, Kind, Result};
use crate::fetch::{self, Reach};
use crate::fhir::json::Node;
use crate::oauth::assertion::ASSERTION_TYPE;
use crate::oauth::{By, ClientKind, Registered, Registration, SigningKey, generate_es384};
use crate::world::World;

/// Seconds that an assertion of ours may be used.
const ASSERTION_SECONDS: i64 = 240;

/// What a client is registered with.
pub struct NewClient {
    /// None: the server gives a random one.
    pub client_id: Option<String>,
    pub name: String,
    pub kind: ClientKind,
    pub scopes: String,
    /// An asymmetric client's public JWK Set; None: a key pair is made, and its private half is in the answer, nowhere
    /// else.
    pub jwks: Option<Node>,
    /// Where it publishes its JWK Set; no key pair is made then.
    pub jwks_url: Option<String>,
    pub redirect_uris: Vec<String>,
    pub launch_uri: Option<String>,
    pub ehr: bool,
    pub demo: bool,
}

/// The token endpoint of this server.
pub fn token_url(app: &App) -> String {
    app.config.token_url()
}

/// Gives a client new credentials: a secret, or the key pair that `jwks` is the public half of; without `jwks` a pair is
/// made. None: there is no such client.
///
/// # Errors
/// What the registry has against it.
pub async fn rotate_client(app: &App, by: &By, client_id: &str, jwks: Option<Node>) -> Result<Option<Node>> {
    let clients = app.oauth.clients().by(by);
    let Some(client) = clients.get(client_id).await? else { return Ok(None) };
    let (private, public) = match jwks {
        None if client.kind.is_asymmetric() => pair()?,
        given => (None, given),
    };
    let Some(rotated) = clients.rotate(client_id, public.as_ref()).await? else { return Ok(None) };
    let scopes = rotated.client.scopes()?.to_string();
    Ok(Some(description(app, &rotated, &scopes, private)))
}

/// A new private key, and the JWK Set of its public half.
fn pair() -> Result<(Option<Node>, Option<Node>)> {
    let (private, public) = generate_es384()?;
    Ok((Some(private), Some(json!({"keys": [public]}))))
}

/// What a client needs to ask for tokens, in the form of `demo.json`.
fn description(app: &App, registered: &Registered, scopes: &str, private: Option<Node>) -> Node {
    let client = &registered.client;
    let mut out = json!({
        "client_id": client.client_id,
        "kind": client.kind.to_string(),
        "scopes": scopes,
        "redirect_uris": client.redirect_uris,
        "token_url": token_url(app),
    });
    if let Some(private) = private {
        out["jwk"] = private;
    }
    if let Some(secret) = &registered.secret {
        out["client_secret"] = json!(**secret);
    }
    out
}

/// Registers a client and gives what it needs to ask for tokens, in the form of `demo.json`.
///
/// # Errors
/// What the registry has against it.
pub async fn add_client(app: &App, by: &By, asked: NewClient) -> Result<Node> {
    let (private, public) = match asked.jwks {
        Some(set) => (None, Some(set)),
        None if asked.jwks_url.is_some() => (None, None),
        None if asked.kind.is_asymmetric() => pair()?,
        None => (None, None),
    };
    let registration = Registration {
        client_id: asked.client_id,
        name: asked.name,
        kind: asked.kind,
        jwks: public,
        jwks_url: asked.jwks_url,
        scopes: asked.scopes.clone(),
        redirect_uris: asked.redirect_uris,
        launch_uri: asked.launch_uri,
        ehr: asked.ehr,
        demo: asked.demo,
    };
    let registered = app.oauth.clients().by(by).add(registration).await?;
    Ok(description(app, &registered, &asked.scopes, private))
}

/// Asks the token endpoint of a running server for a token, as the client that `client` describes (as
/// [`add_client`] gave it).
///
/// # Errors
/// A description that lacks something, a server that does not answer, or its refusal.
pub async fn fetch_token(
    world: &World,
    client: &Node,
    token_url: &str,
    fetch: &fetch::Client,
) -> Result<Zeroizing<String>> {
    let text = |name: &str| {
        client[name].as_str().ok_or_else(|| Error::invalid(format!("the client's description has no {name}")))
    };
    // For whom the assertion is: the address the server knows itself by, wherever it is reached.
    let audience = client["token_url"].as_str().unwrap_or(token_url);
    let assertion = assertion(world, client, audience)?;
    let form = [
        ("grant_type", "client_credentials"),
        ("scope", text("scopes")?),
        ("client_assertion_type", ASSERTION_TYPE),
        ("client_assertion", &assertion),
    ];
    let form: Vec<String> = form.iter().map(|(name, value)| format!("{name}={}", percent(value))).collect();
    let failed = |why: &dyn Display| Error::new(Kind::Unavailable, format!("{token_url} gives no token: {why}"));
    let request = Request::post(token_url)
        .header(ACCEPT, "application/json")
        .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
        .body(form.join("&").into_bytes())
        .map_err(|error| failed(&error))?;
    let answer = fetch.send(request, Reach::Configured).await.map_err(|failure| failed(&failure))?;
    let answer: Node = serde_json::from_slice(answer.body()).map_err(|_| failed(&"it answers no JSON"))?;
    match answer["access_token"].as_str() {
        Some(token) => Ok(Zeroizing::new(token.to_owned())),
        None => {
            let part = |name: &str| answer[name].as_str().unwrap_or_default();
            let text = format!("the server refuses a token: {} {}", part("error"), part("error_description"));
            Err(Error::new(Kind::Unauthenticated, text))
        }
    }
}

/// A signed assertion of the client that `client` describes, for the token endpoint at `audience`.
///
/// # Errors
/// A description without client_id or private key.
pub fn assertion(world: &World, client: &Node, audience: &str) -> Result<String> {
    let client_id = client["client_id"].as_str();
    let client_id = client_id.ok_or_else(|| Error::invalid("the client's description has no client_id"))?;
    let key = private_key(&client["jwk"])?;
    let now = world.now().seconds();
    let claims = json!({
        "iss": client_id, "sub": client_id, "aud": audience, "jti": world.uuid(),
        "iat": now, "exp": now + ASSERTION_SECONDS,
    });
    key.sign("JWT", &claims)
}

fn private_key(jwk: &Node) -> Result<SigningKey> {
    let wrong = || Error::invalid("the client's jwk is no private P-384 key (kty EC, crv P-384, x, y, d)");
    if jwk["kty"] != "EC" || jwk["crv"] != "P-384" {
        return Err(wrong());
    }
    let part = |name: &str| -> Result<Zeroizing<Vec<u8>>> {
        let bytes = jwk[name].as_str().and_then(|text| URL_SAFE_NO_PAD.decode(text).ok());
        bytes.map(Zeroizing::new).ok_or_else(wrong)
    };
    let point = [&[4u8][..], &part("x")?, &part("y")?].concat();
    let pair = EcdsaKeyPair::from_private_key_and_public_key(&ECDSA_P384_SHA384_FIXED_SIGNING, &part("d")?, &point)
        .map_err(|_| wrong())?;
    SigningKey::from_pkcs8(pair.to_pkcs8v1().map_err(Error::internal)?.as_ref())
}

fn percent(value: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    value.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_generated_key_signs_and_one_of_another_curve_is_refused() {
        let (private, public) = generate_es384().unwrap();
        assert_eq!(Some(private_key(&private).unwrap().kid()), public["kid"].as_str());
        let mut other = private.clone();
        other["crv"] = json!("P-256");
        assert!(private_key(&other).is_err());
        assert!(private_key(&public).is_err());
    }

    #[test]
    fn forms_are_escaped() {
        assert_eq!(percent("system/*.cruds a"), "system%2F%2A.cruds%20a");
    }
}
