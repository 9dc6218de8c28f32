//! The token endpoint's form: parameters, the way the client authenticates, and the OAuth errors (RFC 6749, section
//! 5.2). Pure.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;
use zeroize::Zeroizing;

use super::assertion::{ASSERTION_TYPE, Why};

/// Ways to authenticate, as the discovery document names them.
pub const TOKEN_AUTH_METHODS: [&str; 3] = ["private_key_jwt", "client_secret_basic", "client_secret_post"];

/// Parameters that must never reach a log or the audit.
const SECRETS: [&str; 6] = ["client_secret", "client_assertion", "code", "code_verifier", "refresh_token", "password"];

/// A refused token request.
#[derive(Debug, PartialEq, Eq)]
pub struct Refusal {
    /// HTTP status: 400, 401, or 503 when the server itself cannot answer.
    pub status: u16,
    /// Error code of RFC 6749.
    pub error: &'static str,
    pub description: String,
    /// The client used HTTP Basic: a 401 then carries `WWW-Authenticate: Basic`.
    pub basic: bool,
}

impl Refusal {
    pub fn new(error: &'static str, description: impl Into<String>) -> Refusal {
        let status = match error {
            "invalid_client" => 401,
            "temporarily_unavailable" => 503,
            _ => 400,
        };
        Refusal { status, error, description: description.into(), basic: false }
    }

    /// The JSON body. `error_description` keeps to the characters RFC 6749 allows.
    pub fn body(&self) -> Vec<u8> {
        let plain = |c: char| matches!(c, ' '..='~') && c != '"' && c != '\\';
        let description: String = self.description.chars().map(|c| if plain(c) { c } else { '\'' }).collect();
        json!({ "error": self.error, "error_description": description }).to_string().into_bytes()
    }
}

/// How the client says who it is.
#[derive(Debug)]
pub enum Proof<'a> {
    Assertion(&'a str),
    Secret { client_id: String, secret: Zeroizing<String>, basic: bool },
}

/// A `client_credentials` request whose form is in order.
#[derive(Debug)]
pub struct ClientCredentials<'a> {
    pub proof: Proof<'a>,
    /// `client_id` of the form, if sent: it must be the one that is proven.
    pub client_id: Option<&'a str>,
    pub scope: &'a str,
}

impl<'a> ClientCredentials<'a> {
    /// Reads decoded form parameters and the `Authorization` header.
    ///
    /// # Errors
    /// The refusal to send.
    pub fn read(form: &'a [(String, String)], authorization: Option<&str>) -> Result<ClientCredentials<'a>, Refusal> {
        for (n, (name, _)) in form.iter().enumerate() {
            if form[..n].iter().any(|(other, _)| other == name) {
                return Err(Refusal::new("invalid_request", "A parameter is sent more than once."));
            }
        }
        // RFC 6749, section 3.2: a parameter without a value is as if it were not sent.
        let value = |name: &str| {
            form.iter().find(|(other, _)| other == name).map(|(_, value)| value.as_str()).filter(|v| !v.is_empty())
        };
        match value("grant_type") {
            Some("client_credentials") => {}
            Some(_) => {
                let text = "This server offers grant_type client_credentials.";
                return Err(Refusal::new("unsupported_grant_type", text));
            }
            None => return Err(Refusal::new("invalid_request", "The parameter grant_type is missing.")),
        }
        let proof = proof(&value, authorization)?;
        let scope = value("scope").ok_or_else(|| Refusal::new("invalid_scope", "The parameter scope is missing."))?;
        Ok(ClientCredentials { proof, client_id: value("client_id"), scope })
    }
}

fn unauthenticated(why: Why) -> Refusal {
    Refusal::new("invalid_client", why)
}

fn proof<'a>(value: &impl Fn(&str) -> Option<&'a str>, authorization: Option<&str>) -> Result<Proof<'a>, Refusal> {
    let assertion = match (value("client_assertion_type"), value("client_assertion")) {
        (Some(ASSERTION_TYPE), Some(assertion)) => Some(assertion),
        (Some(ASSERTION_TYPE), None) => return Err(unauthenticated("The parameter client_assertion is missing.")),
        (Some(_), _) => {
            return Err(unauthenticated("The client_assertion_type must be that of JWT assertions (RFC 7523)."));
        }
        (None, Some(_)) => return Err(unauthenticated("The parameter client_assertion_type is missing.")),
        (None, None) => None,
    };
    let secret = value("client_secret");
    let ways = [assertion.is_some(), secret.is_some(), authorization.is_some()];
    if ways.into_iter().filter(|used| *used).count() > 1 {
        return Err(Refusal::new("invalid_request", "The client authenticates in more than one way."));
    }
    if let Some(assertion) = assertion {
        return Ok(Proof::Assertion(assertion));
    }
    if let Some(header) = authorization {
        let refused = || Refusal { basic: true, ..unauthenticated("The Authorization header is not of form Basic.") };
        let (client_id, secret) = basic(header).ok_or_else(refused)?;
        return Ok(Proof::Secret { client_id, secret, basic: true });
    }
    match (secret, value("client_id")) {
        (Some(secret), Some(client_id)) => {
            let secret = Zeroizing::new(secret.to_owned());
            Ok(Proof::Secret { client_id: client_id.to_owned(), secret, basic: false })
        }
        _ => Err(unauthenticated("The client must authenticate, best with a signed assertion.")),
    }
}

/// `Basic` credentials, form-encoded as RFC 6749 asks or plain as many clients send them.
fn basic(header: &str) -> Option<(String, Zeroizing<String>)> {
    let (scheme, encoded) = header.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("Basic") {
        return None;
    }
    let decoded = Zeroizing::new(String::from_utf8(STANDARD.decode(encoded.trim()).ok()?).ok()?);
    let (id, secret) = decoded.split_once(':')?;
    // Ids and secrets that this server gives look the same in both forms; an id that was asked for may not.
    let id = form_decoded(id).unwrap_or_else(|| id.to_owned());
    Some((id, Zeroizing::new(secret.to_owned())))
}

fn form_decoded(text: &str) -> Option<String> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        out.push(match byte {
            b'+' => b' ',
            b'%' => {
                let (high, low) = (char::from(bytes.next()?).to_digit(16)?, char::from(bytes.next()?).to_digit(16)?);
                (high * 16 + low) as u8
            }
            other => other,
        });
    }
    String::from_utf8(out).ok()
}

/// The form for the audit: as sent, without anything secret, in form encoding.
pub fn without_secrets(form: &[(String, String)]) -> String {
    let encode = |text: &str| -> String {
        text.bytes()
            .map(|byte| match byte {
                b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'*' | b'/' => {
                    char::from(byte).to_string()
                }
                other => format!("%{other:02X}"),
            })
            .collect()
    };
    // Names that are unknown here could hold anything: their values stay out too.
    let known = ["grant_type", "scope", "client_id", "client_assertion_type", "redirect_uri"];
    let shown = form.iter().map(|(name, value)| {
        let value = if known.contains(&name.as_str()) { encode(value) } else { String::new() };
        if SECRETS.contains(&name.as_str()) || known.contains(&name.as_str()) {
            format!("{}={value}", encode(name))
        } else {
            "other=".to_owned()
        }
    });
    shown.collect::<Vec<_>>().join("&")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn form(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    const GOOD: [(&str, &str); 4] = [
        ("grant_type", "client_credentials"),
        ("client_assertion_type", ASSERTION_TYPE),
        ("client_assertion", "a.b.c"),
        ("scope", "system/*.rs"),
    ];

    fn with(name: &str, value: Option<&str>) -> Vec<(String, String)> {
        let mut pairs = form(&GOOD);
        pairs.retain(|(other, _)| other != name);
        pairs.extend(value.map(|value| (name.to_owned(), value.to_owned())));
        pairs
    }

    #[test]
    fn each_fault_has_its_error() {
        for (pairs, authorization, status, error) in [
            (with("grant_type", Some("not_a_grant_type")), None, 400, "unsupported_grant_type"),
            (with("grant_type", Some("authorization_code")), None, 400, "unsupported_grant_type"),
            (with("grant_type", None), None, 400, "invalid_request"),
            (with("grant_type", Some("")), None, 400, "invalid_request"),
            (with("client_assertion_type", Some("not_an_assertion_type")), None, 401, "invalid_client"),
            (with("client_assertion_type", None), None, 401, "invalid_client"),
            (with("client_assertion", None), None, 401, "invalid_client"),
            (with("scope", None), None, 400, "invalid_scope"),
            (with("client_secret", Some("s")), None, 400, "invalid_request"),
            (form(&GOOD), Some("Basic YTpi"), 400, "invalid_request"),
            (form(&[GOOD[0], GOOD[3]]), None, 401, "invalid_client"),
            (form(&[GOOD[0], GOOD[3]]), Some("Bearer x"), 401, "invalid_client"),
            (form(&[GOOD[0], GOOD[3]]), Some("Basic !"), 401, "invalid_client"),
            (form(&[GOOD[0], GOOD[3], ("client_id", "a")]), None, 401, "invalid_client"),
            (form(&[GOOD[0], GOOD[0]]), None, 400, "invalid_request"),
        ] {
            let refusal = ClientCredentials::read(&pairs, authorization).unwrap_err();
            assert_eq!((refusal.status, refusal.error), (status, error), "{pairs:?} {authorization:?}");
            assert_eq!(refusal.basic, status == 401 && authorization.is_some());
        }
        let good = form(&GOOD);
        let read = ClientCredentials::read(&good, None).unwrap();
        assert!(matches!(read.proof, Proof::Assertion("a.b.c")));
        assert_eq!(read.scope, "system/*.rs");
    }

    #[test]
    fn secrets_come_by_header_or_form() {
        let pairs = form(&[GOOD[0], GOOD[3]]);
        let read = ClientCredentials::read(&pairs, Some("basic YSUyMGI6czpz")).unwrap();
        assert!(matches!(&read.proof, Proof::Secret { client_id, secret, basic: true }
            if client_id == "a b" && secret.as_str() == "s:s"));
        let pairs = form(&[GOOD[0], GOOD[3], ("client_id", "a"), ("client_secret", "s")]);
        let read = ClientCredentials::read(&pairs, None).unwrap();
        assert!(matches!(&read.proof, Proof::Secret { client_id, basic: false, .. } if client_id == "a"));
    }

    #[test]
    fn nothing_secret_is_shown() {
        let mut pairs = form(&GOOD);
        pairs.extend(form(&[("client_secret", "CANARY1"), ("x-CANARY2", "CANARY3"), ("code", "CANARY4")]));
        let shown = without_secrets(&pairs);
        assert!(!shown.contains("CANARY") && !shown.contains("a.b.c"), "{shown}");
        assert!(shown.contains("scope=system/*.rs") && shown.contains("client_secret=&"), "{shown}");
    }

    #[test]
    fn a_refusal_keeps_to_the_characters_of_its_grammar() {
        let refusal = Refusal::new("invalid_scope", "The scope \"x\\\u{e4}\" cannot be read.");
        let body: serde_json::Value = serde_json::from_slice(&refusal.body()).unwrap();
        assert_eq!(body["error"], "invalid_scope");
        assert_eq!(body["error_description"], "The scope 'x''' cannot be read.");
    }
}
