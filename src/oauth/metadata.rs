//! Client metadata (RFC 7591, section 2) that an app sends to register itself: read strictly, given back as it counts.
//! What is no metadata of this server is left out, as the specification says. Pure.

use serde_json::json;

use super::client::{Client, ClientKind, Registration};
use super::form::{EXCHANGE, GRANT_TYPES, Refusal};
use crate::access::scope::Context;
use crate::access::{Scope, Scopes};
use crate::error::Error;
use crate::fhir::json::Node;

const VALUES_MAX: usize = 20;
const VALUE_LENGTH_MAX: usize = 2_000;

/// What an app asks to be registered as.
pub struct Metadata {
    pub registration: Registration,
    /// As it counts: with defaults, without what was left out.
    pub registered: Node,
}

fn invalid(text: impl Into<String>) -> Refusal {
    Refusal::new("invalid_client_metadata", text)
}

/// What a check of the registration has against it, in the words of RFC 7591.
pub fn refused(error: &Error) -> Refusal {
    let place = error.issues.first().and_then(|issue| issue.expression.as_deref()).unwrap_or_default();
    match place.starts_with("redirect_uris") {
        true => Refusal::new("invalid_redirect_uri", error.to_string()),
        false => invalid(error.to_string()),
    }
}

struct Reader<'a>(&'a Node);

impl<'a> Reader<'a> {
    fn text(&self, name: &str) -> Result<Option<&'a str>, Refusal> {
        match self.0.get(name) {
            None | Some(Node::Null) => Ok(None),
            Some(Node::String(text)) if (1..=VALUE_LENGTH_MAX).contains(&text.len()) => Ok(Some(text)),
            Some(_) => Err(invalid(format!("{name} is a text of 1 to {VALUE_LENGTH_MAX} characters."))),
        }
    }

    fn texts(&self, name: &str) -> Result<Option<Vec<&'a str>>, Refusal> {
        let fault = || invalid(format!("{name} is a list of at most {VALUES_MAX} different texts."));
        let values = match self.0.get(name) {
            None | Some(Node::Null) => return Ok(None),
            Some(Node::Array(values)) if values.len() <= VALUES_MAX => values,
            Some(_) => return Err(fault()),
        };
        let mut texts: Vec<&str> = Vec::new();
        for value in values {
            let text = value.as_str().filter(|text| (1..=VALUE_LENGTH_MAX).contains(&text.len()));
            let text = text.filter(|text| !texts.contains(text)).ok_or_else(fault)?;
            texts.push(text);
        }
        Ok(Some(texts))
    }
}

/// Grant types with what follows from them.
struct Grants<'a> {
    types: Vec<&'a str>,
    code: bool,
    service: bool,
    refresh: bool,
}

impl<'a> Grants<'a> {
    fn read(reader: &Reader<'a>) -> Result<Grants<'a>, Refusal> {
        let types = reader.texts("grant_types")?.unwrap_or_else(|| vec!["authorization_code"]);
        if types.is_empty() || types.iter().any(|grant| !GRANT_TYPES.contains(grant)) {
            return Err(invalid(format!("grant_types: this server offers {}.", GRANT_TYPES.join(", "))));
        }
        let has = |grant: &str| types.contains(&grant);
        let (code, service, refresh) = (has("authorization_code"), has("client_credentials"), has("refresh_token"));
        if !code && (refresh || has(EXCHANGE)) {
            return Err(invalid("grant_types: what follows a login needs authorization_code."));
        }
        let responses = reader.texts("response_types")?.unwrap_or_else(|| if code { vec!["code"] } else { Vec::new() });
        if responses != if code { vec!["code"] } else { Vec::new() } {
            return Err(invalid("response_types: code goes with authorization_code, and nothing else is offered."));
        }
        Ok(Grants { types, code, service, refresh })
    }

    fn kind(&self, method: &str) -> Result<ClientKind, Refusal> {
        match (method, self.code) {
            ("none", true) if !self.service => Ok(ClientKind::Public),
            ("none", _) => Err(invalid("token_endpoint_auth_method: a service authenticates.")),
            ("private_key_jwt", true) => Ok(ClientKind::ConfidentialAsymmetric),
            ("private_key_jwt", false) => Ok(ClientKind::Backend),
            ("client_secret_basic" | "client_secret_post", _) => Ok(ClientKind::ConfidentialSymmetric),
            _ => Err(invalid(
                "token_endpoint_auth_method: none, private_key_jwt, client_secret_basic or client_secret_post.",
            )),
        }
    }

    /// Scopes must be those that the grant types can give: a client is registered for no more than it says.
    fn check(&self, scopes: &Scopes) -> Result<(), Refusal> {
        for scope in &scopes.0 {
            let fits = match scope {
                Scope::Resource(scope) if scope.context == Context::System => self.service,
                Scope::Other(word) if word == "offline_access" || word == "online_access" => self.refresh,
                _ => self.code,
            };
            if !fits {
                return Err(invalid(format!("scope: no grant type asked for can give {}.", scope.text())));
            }
        }
        Ok(())
    }
}

/// A web address, or one of the own machine. Private schemes, which any app on a phone can take, are for an
/// administrator to register.
fn is_web_or_loopback(uri: &str) -> bool {
    let (scheme, rest) = uri.split_once("://").unwrap_or_default();
    let host = rest.split(['/', '?']).next().unwrap_or_default();
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-.:[]".contains(&byte);
    (scheme == "https" || scheme == "http") && !host.is_empty() && host.bytes().all(plain)
}

/// Checks what is more in a change of a registration (RFC 7592, section 2.2) than in a new one.
///
/// # Errors
/// The refusal to send.
pub fn check_update(sent: &Node, registered: &Client) -> Result<(), Refusal> {
    if sent.get("client_id").and_then(Node::as_str) != Some(&registered.client_id) {
        return Err(invalid("client_id: a change names the client that it is of."));
    }
    for name in
        ["registration_access_token", "registration_client_uri", "client_secret_expires_at", "client_id_issued_at"]
    {
        if sent.get(name).is_some() {
            return Err(invalid(format!("{name} is the server's to say, and may not be sent.")));
        }
    }
    match sent.get("client_secret") {
        Some(secret) if !registered.has_secret(secret.as_str().unwrap_or_default()) => {
            Err(invalid("client_secret: this is not the client's; it cannot choose one."))
        }
        _ => Ok(()),
    }
}

/// Reads what an app sent.
///
/// # Errors
/// The refusal to send (RFC 7591, section 3.2.2).
pub fn read(sent: &Node) -> Result<Metadata, Refusal> {
    if sent.as_object().is_none() {
        return Err(invalid("Client metadata is a JSON object."));
    }
    let reader = Reader(sent);
    if sent.get("software_statement").is_some() {
        let text = "This server knows nobody whose software statements it could trust.";
        return Err(Refusal::new("unapproved_software_statement", text));
    }
    let method = reader.text("token_endpoint_auth_method")?.unwrap_or("client_secret_basic");
    let grants = Grants::read(&reader)?;
    let kind = grants.kind(method)?;
    let signing = reader.text("token_endpoint_auth_signing_alg")?;
    if signing.is_some_and(|alg| !kind.is_asymmetric() || !["RS384", "ES384"].contains(&alg)) {
        return Err(invalid("token_endpoint_auth_signing_alg: RS384 or ES384, for private_key_jwt."));
    }
    let uris = reader.texts("redirect_uris")?.unwrap_or_default();
    if uris.is_empty() == grants.code {
        let text = "redirect_uris go with authorization_code, and are needed for it.";
        return Err(Refusal::new("invalid_redirect_uri", text));
    }
    if let Some(uri) = uris.iter().find(|uri| !is_web_or_loopback(uri)) {
        let text = format!("A redirect URI is https, or http on the own machine; {uri} is not.");
        return Err(Refusal::new("invalid_redirect_uri", text));
    }
    let (jwks, jwks_url) = (sent.get("jwks").cloned(), reader.text("jwks_uri")?);
    if jwks.is_some() && jwks_url.is_some() {
        return Err(invalid("jwks and jwks_uri exclude each other."));
    }
    let scope = reader.text("scope")?.ok_or_else(|| invalid("scope: say what the app needs; there is no default."))?;
    let scopes = Scopes::parse(scope).map_err(|error| invalid(format!("scope: {error}")))?;
    grants.check(&scopes)?;
    let name = reader.text("client_name")?;
    let launch = reader.text("initiate_login_uri")?;
    let contacts = reader.texts("contacts")?;
    let mut registered = json!({
        "token_endpoint_auth_method": method,
        "grant_types": grants.types,
        "response_types": if grants.code { vec!["code"] } else { Vec::new() },
        "scope": scopes.to_string(),
    });
    let optional = [
        ("client_name", name.map(|name| json!(name))),
        ("redirect_uris", (!uris.is_empty()).then(|| json!(uris))),
        ("jwks", jwks.clone()),
        ("jwks_uri", jwks_url.map(|url| json!(url))),
        ("token_endpoint_auth_signing_alg", signing.map(|alg| json!(alg))),
        ("initiate_login_uri", launch.map(|uri| json!(uri))),
        ("contacts", contacts.map(|contacts| json!(contacts))),
    ];
    for (member, value) in optional {
        if let Some(value) = value {
            registered[member] = value;
        }
    }
    let registration = Registration {
        client_id: None,
        name: name.unwrap_or("An app without a name").to_owned(),
        kind,
        jwks,
        jwks_url: jwks_url.map(str::to_owned),
        scopes: scopes.to_string(),
        redirect_uris: uris.into_iter().map(str::to_owned).collect(),
        launch_uri: launch.map(str::to_owned),
        ehr: false,
        demo: false,
    };
    Ok(Metadata { registration, registered })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn app() -> Node {
        json!({
            "client_name": "Growth chart", "redirect_uris": ["https://app.example/cb"],
            "token_endpoint_auth_method": "none", "grant_types": ["authorization_code", "refresh_token"],
            "scope": "launch/patient patient/*.rs offline_access", "logo_uri": "https://app.example/logo.png",
        })
    }

    fn with(change: &Node) -> Node {
        let mut all = app();
        for (name, value) in change.as_object().unwrap() {
            all[name] = value.clone();
        }
        all
    }

    #[test]
    fn every_kind_of_client_can_be_asked_for() {
        let service = json!({
            "grant_types": ["client_credentials"], "scope": "system/*.rs", "redirect_uris": [],
            "token_endpoint_auth_method": "private_key_jwt", "jwks_uri": "https://app.example/jwks",
        });
        let secret = json!({"token_endpoint_auth_method": "client_secret_post"});
        let key = json!({"token_endpoint_auth_method": "private_key_jwt", "jwks": {"keys": []}});
        for (change, kind) in [
            (json!({}), ClientKind::Public),
            (service, ClientKind::Backend),
            (secret, ClientKind::ConfidentialSymmetric),
            (key, ClientKind::ConfidentialAsymmetric),
        ] {
            let read = read(&with(&change)).unwrap();
            assert_eq!(read.registration.kind, kind);
            assert!(read.registered.get("logo_uri").is_none(), "not known here, not said to be registered");
        }
        let least = json!({"redirect_uris": ["http://127.0.0.1:8000/cb"], "scope": "user/*.rs"});
        let read = read(&least).unwrap();
        assert_eq!(read.registered["token_endpoint_auth_method"], "client_secret_basic");
        assert_eq!(read.registered["grant_types"], json!(["authorization_code"]));
        assert_eq!(read.registered["response_types"], json!(["code"]));
    }

    #[test]
    fn what_does_not_fit_together_is_refused_by_its_name() {
        let redirect = "invalid_redirect_uri";
        let metadata = "invalid_client_metadata";
        for (change, error, says) in [
            (json!({"redirect_uris": []}), redirect, "redirect_uris"),
            (json!({"redirect_uris": ["http://app.example/cb"]}), "", ""),
            (json!({"redirect_uris": ["com.example.app:/cb"]}), redirect, "com.example.app"),
            (json!({"redirect_uris": ["https://user@app.example/cb"]}), redirect, "https://user@"),
            (json!({"redirect_uris": ["https://app.example;x/cb"]}), redirect, "https"),
            (json!({"redirect_uris": ["javascript:alert(1)"]}), redirect, "javascript"),
            (json!({"redirect_uris": "https://app.example/cb"}), metadata, "redirect_uris"),
            (json!({"redirect_uris": [1]}), metadata, "redirect_uris"),
            (json!({"grant_types": ["password"]}), metadata, "grant_types"),
            (json!({"grant_types": ["implicit"]}), metadata, "grant_types"),
            (json!({"grant_types": []}), metadata, "grant_types"),
            (json!({"grant_types": ["refresh_token"]}), metadata, "authorization_code"),
            (json!({"grant_types": [EXCHANGE]}), metadata, "authorization_code"),
            (json!({"response_types": ["token"]}), metadata, "response_types"),
            (json!({"response_types": ["code", "token"]}), metadata, "response_types"),
            (json!({"token_endpoint_auth_method": "tls_client_auth"}), metadata, "auth_method"),
            (json!({"grant_types": ["authorization_code", "client_credentials"]}), metadata, "authenticates"),
            (json!({"token_endpoint_auth_signing_alg": "RS384"}), metadata, "signing_alg"),
            (json!({"jwks": {"keys": []}, "jwks_uri": "https://app.example/jwks"}), metadata, "exclude"),
            (json!({"scope": null}), metadata, "scope"),
            (json!({"scope": "system/*.rs"}), metadata, "system/*.rs"),
            (json!({"grant_types": ["authorization_code"]}), metadata, "offline_access"),
            (json!({"scope": "patient/Nonsense.rs"}), metadata, "scope"),
            (json!({"client_name": ""}), metadata, "client_name"),
            (json!({"contacts": vec!["a"; 3]}), metadata, "contacts"),
            (json!({"software_statement": "eyJ"}), "unapproved_software_statement", "trust"),
        ] {
            match read(&with(&change)) {
                // Whether http is of the own machine is the registry's check, as for everybody.
                Ok(_) => assert_eq!(error, "", "{change}"),
                Err(refusal) => {
                    assert_eq!(refusal.error, error, "{change}: {}", refusal.description);
                    assert!(refusal.description.contains(says), "{change}: {}", refusal.description);
                }
            }
        }
        assert_eq!(read(&json!([])).err().unwrap().error, metadata);
    }
}
