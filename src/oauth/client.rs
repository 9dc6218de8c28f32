//! One registered client, and the checks a registration must pass. Must not know where clients are kept.

use std::fmt;

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::jwks::Jwks;
use crate::access::{Scopes, filter};
use crate::error::{Error, Result};
use crate::fhir::json::Node;
use crate::world::{self, Instant};

const NAME_LENGTH_MAX: usize = 200;
const REDIRECT_URIS_MAX: usize = 20;
const SECRET_BYTES: usize = 32;
const URL_LENGTH_MAX: usize = 2_000;

/// How a client proves who it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ClientKind {
    /// SMART Backend Services: signed assertions, no user.
    Backend,
    /// An app with users and a key of its own.
    ConfidentialAsymmetric,
    /// An app with users and a shared secret.
    ConfidentialSymmetric,
    /// An app with users that cannot keep a secret.
    Public,
}

/// What a registration asks for.
#[derive(Clone)]
pub struct Registration {
    /// None: the server gives a random one.
    pub client_id: Option<String>,
    pub name: String,
    pub kind: ClientKind,
    /// JWK Set of an asymmetric client, inline.
    pub jwks: Option<Node>,
    /// Where the client publishes its JWK Set, which is fetched when there is none inline; what a `jku` header may say.
    pub jwks_url: Option<String>,
    /// Space-separated scopes the client may be granted.
    pub scopes: String,
    pub redirect_uris: Vec<String>,
    /// Where an EHR opens the app; None: it is not launched from one.
    pub launch_uri: Option<String>,
    /// An EHR, which may make launch contexts.
    pub ehr: bool,
    /// Made for a demonstration: `phial serve` refuses to start while there is one.
    pub demo: bool,
}

/// A registered client.
#[derive(Clone, Serialize, Deserialize)]
pub struct Client {
    pub client_id: String,
    pub name: String,
    pub kind: ClientKind,
    pub jwks: Option<Jwks>,
    pub jwks_url: Option<String>,
    scopes: String,
    pub redirect_uris: Vec<String>,
    #[serde(default)]
    pub launch_uri: Option<String>,
    #[serde(default)]
    pub ehr: bool,
    /// SHA-256 of the secret, which has 256 random bits.
    secret_hash: Option<[u8; 32]>,
    pub demo: bool,
    pub disabled: bool,
    /// Of an app that registered itself (RFC 7591).
    #[serde(default)]
    pub self_registered: Option<SelfRegistered>,
}

/// Something that would be otherwise in a client when a change of it is approved.
pub struct Changed {
    /// Member of the registration: `scopes`.
    pub what: &'static str,
    /// Its values, as they count and as they were asked for; empty: it has none.
    pub old: Vec<String>,
    pub new: Vec<String>,
}

/// How an app came to be registered by itself.
#[derive(Clone, Serialize, Deserialize)]
pub struct SelfRegistered {
    /// SHA-256 of the registration access token, which has 256 random bits.
    token_hash: [u8; 32],
    /// As it was registered, in the words of RFC 7591.
    pub metadata: Node,
    /// Milliseconds since 1970.
    pub at: i64,
    /// Network address it came from.
    pub from: String,
}

impl SelfRegistered {
    pub fn new(token: &str, metadata: Node, at: Instant, from: String) -> SelfRegistered {
        SelfRegistered { token_hash: secret_hash(token), metadata, at: at.0, from }
    }

    /// Whether this is its registration access token.
    pub fn has_token(&self, token: &str) -> bool {
        self.token_hash.ct_eq(&secret_hash(token)).into()
    }
}

/// A new client's secret, shown once.
pub type Secret = Zeroizing<String>;

impl ClientKind {
    pub fn is_asymmetric(self) -> bool {
        matches!(self, ClientKind::Backend | ClientKind::ConfidentialAsymmetric)
    }
}

impl fmt::Display for ClientKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ClientKind::Backend => "backend",
            ClientKind::ConfidentialAsymmetric => "confidential-asymmetric",
            ClientKind::ConfidentialSymmetric => "confidential-symmetric",
            ClientKind::Public => "public",
        })
    }
}

fn secret_hash(secret: &str) -> [u8; 32] {
    let mut out = [0u8; 32];
    out.copy_from_slice(digest(&SHA256, secret.as_bytes()).as_ref());
    out
}

fn new_secret() -> Secret {
    let mut bytes = Zeroizing::new([0u8; SECRET_BYTES]);
    world::secret(&mut *bytes);
    Zeroizing::new(URL_SAFE_NO_PAD.encode(*bytes))
}

impl Client {
    /// Checks a registration. `base` is the FHIR base URL, `random_id` the id to give when none is asked for. The
    /// secret is that of a confidential-symmetric client.
    ///
    /// # Errors
    /// `Kind::Invalid` / `Kind::Unsupported` that says what is wrong.
    pub fn check(asked: Registration, random_id: String, base: &str, now: Instant) -> Result<(Client, Option<Secret>)> {
        let client_id = asked.client_id.unwrap_or(random_id);
        if client_id.is_empty() || client_id.len() > 200 || !client_id.bytes().all(|b| matches!(b, 0x21..=0x7E)) {
            return Err(Error::invalid("A client_id has 1 to 200 visible ASCII characters.").at("client_id"));
        }
        if asked.name.trim().is_empty() || asked.name.len() > NAME_LENGTH_MAX {
            return Err(Error::invalid(format!("A name has 1 to {NAME_LENGTH_MAX} characters.")).at("name"));
        }
        let jwks = match (&asked.jwks, asked.kind.is_asymmetric()) {
            (Some(set), true) => Some(Jwks::check(set)?),
            (None, false) => None,
            (None, true) if asked.jwks_url.is_some() => None,
            (None, true) => return Err(Error::invalid("An asymmetric client needs a JWK Set.").at("jwks")),
            (Some(_), false) => {
                return Err(Error::invalid("Only asymmetric clients have a JWK Set.").at("jwks"));
            }
        };
        check_jwks_url(asked.kind, asked.jwks_url.as_deref())?;
        check_redirects(asked.kind, &asked.redirect_uris)?;
        if asked.launch_uri.as_deref().is_some_and(|uri| asked.redirect_uris.is_empty() || !is_app_address(uri)) {
            return Err(Error::invalid("A launch URI is an https address of an app with users.").at("launch_uri"));
        }
        if asked.ehr && asked.kind == ClientKind::Public {
            return Err(Error::invalid("An EHR is a client that authenticates.").at("ehr"));
        }
        let scopes = Scopes::parse(&asked.scopes)?;
        check_filters(&scopes, base, now)?;
        if scopes.is_empty() {
            return Err(Error::invalid("A client needs at least one scope.").at("scopes"));
        }
        let secret = (asked.kind == ClientKind::ConfidentialSymmetric).then(new_secret);
        let client = Client {
            client_id,
            name: asked.name,
            kind: asked.kind,
            jwks,
            jwks_url: asked.jwks_url,
            scopes: scopes.to_string(),
            redirect_uris: asked.redirect_uris,
            launch_uri: asked.launch_uri,
            ehr: asked.ehr,
            secret_hash: secret.as_deref().map(|secret| secret_hash(secret)),
            demo: asked.demo,
            disabled: false,
            self_registered: None,
        };
        Ok((client, secret))
    }

    /// The same client with a new secret, or with these keys.
    ///
    /// # Errors
    /// `Kind::Invalid` when it has nothing of the kind.
    pub(super) fn renewed(mut self, jwks: Option<&Node>) -> Result<(Client, Option<Secret>)> {
        match (self.kind, jwks) {
            (ClientKind::Public, _) => {
                Err(Error::invalid("A public client has no secret and no keys.").at("client_id"))
            }
            (ClientKind::ConfidentialSymmetric, None) => {
                let secret = new_secret();
                self.secret_hash = Some(secret_hash(&secret));
                Ok((self, Some(secret)))
            }
            (ClientKind::ConfidentialSymmetric, Some(_)) => {
                Err(Error::invalid("Only asymmetric clients have a JWK Set.").at("jwks"))
            }
            (_, Some(set)) if self.jwks.is_some() => {
                self.jwks = Some(Jwks::check(set)?);
                Ok((self, None))
            }
            _ => Err(Error::invalid("An asymmetric client needs a JWK Set.").at("jwks")),
        }
    }

    /// The same as the successor of what an app has registered under this id: it keeps its token, and the secret that it
    /// has. `secret` is a new one, of a client that had none.
    pub(super) fn after(mut self, before: &Client, metadata: Node, secret: Option<Secret>) -> (Client, Option<Secret>) {
        self.self_registered = before.self_registered.clone().map(|own| SelfRegistered { metadata, ..own });
        match before.secret_hash.filter(|_| self.secret_hash.is_some()) {
            Some(hash) => (Client { secret_hash: Some(hash), ..self }, None),
            None => (self, secret),
        }
    }

    /// Where it differs from an approved client in what the approval was about: its name, how it proves who it is, its
    /// addresses, its scopes. What is not among this counts without being approved.
    pub(super) fn changes(&self, live: &Client) -> Vec<Changed> {
        let pairs = live.facts().into_iter().zip(self.facts());
        let differ = pairs.filter(|((_, old), (_, new))| old != new);
        let mut all: Vec<Changed> = differ.map(|((what, old), (_, new))| Changed { what, old, new }).collect();
        if self.secret_hash != live.secret_hash {
            let held = |of: &Client, words: &str| of.secret_hash.iter().map(|_| words.to_owned()).collect();
            all.push(Changed { what: "secret", old: held(live, "the one it has"), new: held(self, "a new one") });
        }
        all
    }

    /// What a new client asks for: all of that.
    pub(super) fn asks(&self) -> Vec<Changed> {
        let given = self.facts().into_iter().filter(|(_, new)| !new.is_empty());
        given.map(|(what, new)| Changed { what, old: Vec::new(), new }).collect()
    }

    fn facts(&self) -> [(&'static str, Vec<String>); 7] {
        [
            ("name", vec![self.name.clone()]),
            ("kind", vec![self.kind.to_string()]),
            ("scopes", self.scopes.split(' ').map(str::to_owned).collect()),
            ("redirect_uris", self.redirect_uris.clone()),
            ("launch_uri", self.launch_uri.iter().cloned().collect()),
            ("jwks", self.jwks.as_ref().map_or_else(Vec::new, Jwks::thumbprints)),
            ("jwks_url", self.jwks_url.iter().cloned().collect()),
        ]
    }

    /// The scopes the client may be granted.
    pub fn scopes(&self) -> Result<Scopes> {
        Scopes::parse(&self.scopes)
    }

    /// Whether this is the client's secret; false for a client that has none. Takes the same time either way.
    pub fn has_secret(&self, secret: &str) -> bool {
        let stored = self.secret_hash.unwrap_or([0u8; 32]);
        let same: bool = stored.ct_eq(&secret_hash(secret)).into();
        same && self.secret_hash.is_some()
    }
}

/// Every filter of a granular scope must be readable before the scope is promised to anyone.
pub fn check_filters(scopes: &Scopes, base: &str, now: Instant) -> Result<()> {
    for scope in scopes.resources() {
        if let Some(kind) = scope.kind.filter(|_| !scope.filter.is_empty()) {
            filter::criteria(kind, &scope.filter, base, now)?;
        }
    }
    Ok(())
}

fn is_local(scheme_less: &str) -> bool {
    let tail = |host: &str| scheme_less.strip_prefix(host);
    let ends = |tail: &str| tail.is_empty() || tail.starts_with([':', '/', '?']);
    ["//localhost", "//127.0.0.1", "//[::1]"].into_iter().filter_map(tail).any(ends)
}

/// An address that keys may be fetched from: https, or http on the own machine, for trying things out. Whether it may
/// lead into the own network is for the settings to say.
fn check_jwks_url(kind: ClientKind, url: Option<&str>) -> Result<()> {
    let Some(url) = url else { return Ok(()) };
    let plain = url.len() <= URL_LENGTH_MAX && !url.contains('#') && url.bytes().all(|b| matches!(b, 0x21..=0x7E));
    let secure = url.starts_with("https://") || url.strip_prefix("http:").is_some_and(is_local);
    match plain && secure && kind.is_asymmetric() {
        true => Ok(()),
        false => Err(Error::invalid("A JWK Set URL is an https address, of an asymmetric client.").at("jwks_url")),
    }
}

/// An absolute address without fragment: https, http on the own machine, or the private scheme of an installed app
/// (RFC 8252: it has a dot).
fn is_app_address(uri: &str) -> bool {
    let (scheme, rest) = uri.split_once(':').unwrap_or(("", ""));
    let good = match scheme {
        "https" => rest.starts_with("//") && rest.len() > 2,
        "http" => is_local(rest),
        _ => scheme.contains('.') && !rest.is_empty(),
    };
    good && !uri.contains('#') && uri.bytes().all(|b| matches!(b, 0x21..=0x7E))
}

fn check_redirects(kind: ClientKind, uris: &[String]) -> Result<()> {
    let fits = match kind {
        ClientKind::Backend => uris.is_empty(),
        // May also be a service of its own that authenticates with a secret.
        ClientKind::ConfidentialSymmetric => true,
        ClientKind::ConfidentialAsymmetric | ClientKind::Public => !uris.is_empty(),
    };
    if !fits {
        let text = "Apps with users need redirect URIs; backend clients have none.";
        return Err(Error::invalid(text).at("redirect_uris"));
    }
    if uris.len() > REDIRECT_URIS_MAX {
        return Err(Error::invalid(format!("More than {REDIRECT_URIS_MAX} redirect URIs.")).at("redirect_uris"));
    }
    for (n, uri) in uris.iter().enumerate() {
        if !is_app_address(uri) {
            let text = "A redirect URI is absolute, without fragment, and https (http only on localhost).";
            return Err(Error::invalid(text).at(format!("redirect_uris[{n}]")));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::oauth::keys::generate_es384;

    const BASE: &str = "https://phial.example/fhir";

    fn registration(kind: ClientKind) -> Registration {
        let (_, public) = generate_es384().unwrap();
        Registration {
            client_id: Some("app".into()),
            name: "App".into(),
            kind,
            jwks: kind.is_asymmetric().then(|| json!({ "keys": [public] })),
            jwks_url: None,
            scopes: "system/*.rs".into(),
            redirect_uris: if kind == ClientKind::Backend { vec![] } else { vec!["https://app.example/cb".into()] },
            launch_uri: None,
            ehr: false,
            demo: false,
        }
    }

    fn check(asked: Registration) -> Result<(Client, Option<Secret>)> {
        Client::check(asked, "random".into(), BASE, Instant(0))
    }

    #[test]
    fn a_registration_that_holds_together_is_taken() {
        for kind in [
            ClientKind::Backend,
            ClientKind::ConfidentialAsymmetric,
            ClientKind::ConfidentialSymmetric,
            ClientKind::Public,
        ] {
            let (client, secret) = check(registration(kind)).unwrap();
            assert_eq!(secret.is_some(), kind == ClientKind::ConfidentialSymmetric);
            assert_eq!(client.scopes().unwrap().to_string(), "system/*.rs");
            assert!(!client.has_secret("") && !client.has_secret("x"));
            if let Some(secret) = secret {
                assert!(client.has_secret(&secret));
                let stored = serde_json::to_string(&client).unwrap();
                assert!(!stored.contains(secret.as_str()));
            }
        }
        let named = Registration { client_id: None, ..registration(ClientKind::Backend) };
        assert_eq!(check(named).unwrap().0.client_id, "random");
    }

    #[test]
    fn a_registration_that_does_not_is_refused_with_its_place() {
        type Change = fn(&mut Registration);
        let changes: [(&str, ClientKind, Change); 14] = [
            ("client_id", ClientKind::Backend, |r| r.client_id = Some(String::new())),
            ("client_id", ClientKind::Backend, |r| r.client_id = Some("a b".into())),
            ("name", ClientKind::Backend, |r| r.name = " ".into()),
            ("jwks", ClientKind::Backend, |r| r.jwks = None),
            ("jwks_url", ClientKind::Public, |r| r.jwks_url = Some("https://app.example/jwks".into())),
            ("jwks_url", ClientKind::Backend, |r| r.jwks_url = Some("http://app.example/jwks".into())),
            ("jwks", ClientKind::Public, |r| r.jwks = Some(json!({ "keys": [] }))),
            ("redirect_uris", ClientKind::Public, |r| r.redirect_uris.clear()),
            ("redirect_uris", ClientKind::Backend, |r| r.redirect_uris.push("https://app.example".into())),
            ("redirect_uris[0]", ClientKind::Public, |r| r.redirect_uris = vec!["http://app.example/cb".into()]),
            ("redirect_uris[0]", ClientKind::Public, |r| {
                r.redirect_uris = vec!["http://localhost.evil.example".into()]
            }),
            ("redirect_uris[0]", ClientKind::Public, |r| r.redirect_uris = vec!["https://a.example/#x".into()]),
            ("redirect_uris[0]", ClientKind::Public, |r| r.redirect_uris = vec!["javascript:alert(1)".into()]),
            ("scopes", ClientKind::Backend, |r| r.scopes = String::new()),
        ];
        for (place, kind, change) in changes {
            let mut asked = registration(kind);
            change(&mut asked);
            let error = check(asked).err().expect(place);
            assert!(error.issues[0].expression.as_deref().unwrap_or_default().starts_with(place), "{place}: {error}");
        }
        for scopes in ["system/Patient.sr", "system/Patient.rs?nonsense=1", "system/Patient.rs?_count=1"] {
            assert!(check(Registration { scopes: scopes.into(), ..registration(ClientKind::Backend) }).is_err());
        }
    }
}
