//! From a provider's code to claims that can be believed: the code is redeemed, the id_token verified, and userinfo
//! asked where the configuration says so. A back-channel logout is verified here too.

use std::str::FromStr;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::{DateTime, Utc};
use futures_util::FutureExt;
use http::header::{ACCEPT, AUTHORIZATION};
use openidconnect::core::{
    CoreClient, CoreClientAuthMethod, CoreIdToken, CoreIdTokenVerifier, CoreJwsSigningAlgorithm,
};
use openidconnect::{
    AccessToken, AccessTokenHash, AuthType, AuthorizationCode, ClaimsVerificationError, ClientId, ClientSecret,
    EndpointMaybeSet, EndpointNotSet, EndpointSet, Nonce, OAuth2TokenResponse, PkceCodeVerifier, RedirectUrl,
    RequestTokenError, SignatureVerificationError, TokenResponse,
};
use serde_json::{Value, json};

use super::known::{Asking, Known};
use super::mapping::{Claims, text};
use super::refused::{Fault, Refused};
use super::settings::{Proof, Provider};
use super::{Outgoing, random};
use crate::fetch::{self, Reach};
use crate::oauth::assertion::ASSERTION_TYPE;
use crate::world::Instant;

/// Signatures that providers' tokens may have: none with a shared secret.
const ALGORITHMS: [CoreJwsSigningAlgorithm; 9] = [
    CoreJwsSigningAlgorithm::RsaSsaPkcs1V15Sha256,
    CoreJwsSigningAlgorithm::RsaSsaPkcs1V15Sha384,
    CoreJwsSigningAlgorithm::RsaSsaPkcs1V15Sha512,
    CoreJwsSigningAlgorithm::RsaSsaPssSha256,
    CoreJwsSigningAlgorithm::RsaSsaPssSha384,
    CoreJwsSigningAlgorithm::RsaSsaPssSha512,
    CoreJwsSigningAlgorithm::EcdsaP256Sha256,
    CoreJwsSigningAlgorithm::EcdsaP384Sha384,
    CoreJwsSigningAlgorithm::EdDsa,
];
/// A token counts for so long after it was issued, and no longer, whatever it says.
const ISSUED_MS: i64 = 600_000;
/// Life of the assertion that this server authenticates with.
const ASSERTION_S: i64 = 60;
/// Characters of a token of a provider.
const LENGTH_MAX: usize = 16 * 1024;

pub type Client =
    CoreClient<EndpointSet, EndpointNotSet, EndpointNotSet, EndpointNotSet, EndpointMaybeSet, EndpointMaybeSet>;

/// What a login at a provider has shown.
pub struct Identity {
    pub subject: String,
    /// The provider's session, if it names it.
    pub session: Option<String>,
    pub claims: Claims,
    /// As it came, for the logout there.
    pub id_token: String,
}

/// Whose sessions end by a back-channel logout.
pub struct Ended {
    pub subject: String,
    pub session: Option<String>,
    /// A logout counts once.
    pub jti: String,
}

/// This server as a client of a provider.
pub fn client(provider: &Provider, known: &Known, back: &str) -> Result<Client, Refused> {
    let secret = match &provider.proof {
        Proof::Secret(secret) => Some(ClientSecret::new(secret.to_string())),
        Proof::Key(_) => None,
    };
    let basic = known
        .metadata
        .token_endpoint_auth_methods_supported()
        .is_none_or(|methods| methods.contains(&CoreClientAuthMethod::ClientSecretBasic));
    let back = RedirectUrl::new(back.to_owned()).map_err(|_| Refused::Provider)?;
    let id = ClientId::new(provider.client_id.clone());
    let client = CoreClient::from_provider_metadata(known.metadata.clone(), id, secret).set_redirect_uri(back);
    Ok(client.set_auth_type(if basic { AuthType::BasicAuth } else { AuthType::RequestBody }))
}

/// The provider's two tokens for a code.
pub async fn redeem(
    http: &fetch::Client,
    provider: &Provider,
    known: &Known,
    client: &Client,
    code: &str,
    outgoing: &Outgoing,
    now: Instant,
) -> Result<(CoreIdToken, AccessToken), Refused> {
    let request = client.exchange_code(AuthorizationCode::new(code.to_owned())).map_err(|_| Refused::Provider)?;
    let mut request = request.set_pkce_verifier(PkceCodeVerifier::new(outgoing.verifier.clone()));
    if let Proof::Key(key) = &provider.proof {
        let endpoint = known.metadata.token_endpoint().map(|url| url.as_str()).unwrap_or_default();
        let claims = json!({
            "iss": provider.client_id, "sub": provider.client_id, "aud": endpoint, "jti": random(),
            "iat": now.seconds(), "exp": now.seconds() + ASSERTION_S,
        });
        let assertion = key.sign("JWT", &claims).map_err(|_| Refused::Provider)?;
        request = request.add_extra_param("client_assertion_type", ASSERTION_TYPE);
        request = request.add_extra_param("client_assertion", assertion);
    }
    let asking = Asking(http);
    // Neither the answer nor its parts are logged: they are the person's.
    let answer = request.request_async(&asking).boxed().await.map_err(|error| match error {
        RequestTokenError::ServerResponse(answer) => {
            tracing::warn!(provider = provider.id, error = %answer.error(), "the identity provider takes no code");
            Refused::Code
        }
        RequestTokenError::Request(failure) => {
            tracing::warn!(provider = provider.id, %failure, "the identity provider's token endpoint");
            Refused::Provider
        }
        RequestTokenError::Parse(..) | RequestTokenError::Other(_) => Refused::Token(Fault::Form),
    })?;
    let id_token = answer.id_token().ok_or(Refused::Token(Fault::Missing))?;
    Ok((id_token.clone(), answer.access_token().clone()))
}

fn time(at_ms: i64) -> DateTime<Utc> {
    DateTime::from_timestamp_millis(at_ms).unwrap_or_default()
}

fn verifier<'a>(provider: &'a Provider, client: &'a Client, now: Instant) -> CoreIdTokenVerifier<'a> {
    let skew_ms = provider.skew_s * 1000;
    let (oldest, youngest) = (time(now.0 - ISSUED_MS - skew_ms), time(now.0 + skew_ms));
    client
        .id_token_verifier()
        .set_allowed_algs(ALGORITHMS)
        .set_other_audience_verifier_fn(|other| provider.audiences.iter().any(|trusted| trusted == other.as_str()))
        .set_time_fn(move || time(now.0 - skew_ms))
        .set_issue_time_verifier_fn(
            move |issued| {
                if issued < oldest || issued > youngest { Err(ISSUED.to_owned()) } else { Ok(()) }
            },
        )
}

/// How the two faults of time are told apart.
const ISSUED: &str = "issued";

fn fault(error: ClaimsVerificationError) -> Fault {
    match error {
        ClaimsVerificationError::Expired(why) if why == ISSUED => Fault::Time,
        ClaimsVerificationError::Expired(_) => Fault::Expired,
        ClaimsVerificationError::InvalidAudience(_) => Fault::Audience,
        ClaimsVerificationError::InvalidIssuer(_) => Fault::Issuer,
        ClaimsVerificationError::InvalidNonce(_) => Fault::Nonce,
        ClaimsVerificationError::SignatureVerification(_) => Fault::Signature,
        _ => Fault::Form,
    }
}

/// Whether other keys of the provider might do.
fn needs_keys(error: &ClaimsVerificationError) -> bool {
    matches!(error, ClaimsVerificationError::SignatureVerification(SignatureVerificationError::NoMatchingKey))
}

/// What a token says, once it has been verified.
fn payload(token: &str) -> Result<Claims, Fault> {
    let part = token.split('.').nth(1).ok_or(Fault::Form)?;
    let bytes = URL_SAFE_NO_PAD.decode(part).map_err(|_| Fault::Form)?;
    match serde_json::from_slice(&bytes) {
        Ok(Value::Object(claims)) => Ok(claims),
        _ => Err(Fault::Form),
    }
}

/// Why a token is not taken, and whether it is worth looking at the provider's keys again.
pub struct Unverified {
    pub fault: Fault,
    pub keys: bool,
}

impl From<Fault> for Unverified {
    fn from(fault: Fault) -> Unverified {
        Unverified { fault, keys: false }
    }
}

/// The claims of a genuine id_token for the login that was begun with this nonce.
pub fn verified(
    provider: &Provider,
    client: &Client,
    id_token: &CoreIdToken,
    access_token: &AccessToken,
    nonce: &str,
    now: Instant,
) -> Result<Identity, Unverified> {
    let text_of = id_token.to_string();
    if text_of.len() > LENGTH_MAX {
        return Err(Fault::Form.into());
    }
    let verifier = verifier(provider, client, now);
    let nonce = Nonce::new(nonce.to_owned());
    let believed = id_token.claims(&verifier, &nonce).map_err(|error| {
        tracing::warn!(provider = provider.id, fault = ?fault(error.clone()), "an id_token is not taken");
        Unverified { keys: needs_keys(&error), fault: fault(error) }
    })?;
    if let Some(expected) = believed.access_token_hash() {
        let made = id_token.signing_alg().ok().zip(id_token.signing_key(&verifier).ok());
        let made = made.and_then(|(alg, key)| AccessTokenHash::from_token(access_token, alg, key).ok());
        let same = made.is_some_and(|made| {
            verify_slices_are_equal(made.as_str().as_bytes(), expected.as_str().as_bytes()).is_ok()
        });
        if !same {
            return Err(Fault::AccessToken.into());
        }
    }
    let subject = believed.subject().to_string();
    let claims = payload(&text_of)?;
    check_parties(provider, &claims)?;
    if claims.get("nbf").and_then(Value::as_i64).is_some_and(|from| from > now.seconds() + provider.skew_s) {
        return Err(Fault::Time.into());
    }
    if provider.claims.iter().any(|(name, value)| text(&claims, name).as_ref() != Some(value)) {
        return Err(Fault::Claims.into());
    }
    let session = text(&claims, "sid");
    Ok(Identity { subject, session, claims, id_token: text_of })
}

/// The party that the token was made for, where it says so or must.
fn check_parties(provider: &Provider, claims: &Claims) -> Result<(), Fault> {
    let several = claims.get("aud").and_then(Value::as_array).is_some_and(|audiences| audiences.len() > 1);
    match claims.get("azp") {
        Some(party) if party.as_str() == Some(provider.client_id.as_str()) => Ok(()),
        None if !several => Ok(()),
        _ => Err(Fault::Audience),
    }
}

/// Adds what the provider's userinfo endpoint says of the same person.
pub async fn add_userinfo(
    http: &fetch::Client,
    known: &Known,
    access_token: &AccessToken,
    identity: &mut Identity,
) -> Result<(), Refused> {
    let endpoint = known.metadata.userinfo_endpoint().ok_or(Refused::Provider)?;
    let request = http::Request::get(endpoint.as_str())
        .header(ACCEPT, "application/json")
        .header(AUTHORIZATION, format!("Bearer {}", access_token.secret()))
        .body(Vec::new())
        .map_err(|_| Refused::Provider)?;
    let reply = http.send(request, Reach::Configured).await.map_err(|_| Refused::Provider)?;
    let answered: Value = serde_json::from_slice(reply.body()).map_err(|_| Refused::Token(Fault::Userinfo))?;
    let Value::Object(answered) = answered else { return Err(Refused::Token(Fault::Userinfo)) };
    if reply.status() != http::StatusCode::OK || text(&answered, "sub").as_ref() != Some(&identity.subject) {
        return Err(Refused::Token(Fault::Userinfo));
    }
    // What the signed token says stands.
    for (name, value) in answered {
        identity.claims.entry(name).or_insert(value);
    }
    Ok(())
}

/// What a logout token says (OpenID Connect Back-Channel Logout 1.0, section 2.6).
pub fn ended(provider: &Provider, client: &Client, token: &str, now: Instant) -> Result<Ended, Unverified> {
    if token.len() > LENGTH_MAX {
        return Err(Fault::Form.into());
    }
    let parsed = CoreIdToken::from_str(token).map_err(|_| Fault::Form)?;
    let verifier = verifier(provider, client, now).allow_all_jose_types();
    let none = |nonce: Option<&Nonce>| if nonce.is_some() { Err("a nonce".to_owned()) } else { Ok(()) };
    let believed =
        parsed.claims(&verifier, none).map_err(|error| Unverified { keys: needs_keys(&error), fault: fault(error) })?;
    let claims = payload(token)?;
    // A login's token has no such event: it cannot be passed off as a logout.
    let event = "http://schemas.openid.net/event/backchannel-logout";
    if !claims.get("events").and_then(|events| events.get(event)).is_some_and(Value::is_object) {
        return Err(Fault::Claims.into());
    }
    let jti = text(&claims, "jti").filter(|jti| (1..=256).contains(&jti.len())).ok_or(Fault::Claims)?;
    Ok(Ended { subject: believed.subject().to_string(), session: text(&claims, "sid"), jti })
}
