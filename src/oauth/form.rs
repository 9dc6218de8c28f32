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
const SECRETS: [&str; 9] = [
    "client_secret",
    "client_assertion",
    "code",
    "code_verifier",
    "refresh_token",
    "password",
    "token",
    "subject_token",
    "actor_token",
];

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
    /// None: a public client only says who it is.
    Name(&'a str),
    Assertion(&'a str),
    Secret {
        client_id: String,
        secret: Zeroizing<String>,
        basic: bool,
    },
}

/// A request of a client whose form is in order: what it wants, and how it proves itself.
#[derive(Debug)]
pub struct ClientForm<'a> {
    pub proof: Proof<'a>,
    /// `client_id` of the form, if sent: it must be the one that is proven.
    pub client_id: Option<&'a str>,
    form: &'a [(String, String)],
}

/// What a token request is for.
#[derive(Debug, PartialEq, Eq)]
pub enum Wants<'a> {
    ClientCredentials {
        scope: &'a str,
    },
    Code {
        code: &'a str,
        redirect_uri: &'a str,
        verifier: &'a str,
    },
    Refresh {
        token: &'a str,
        scope: Option<&'a str>,
    },
    /// A token for an emergency.
    Exchange,
}

impl<'a> ClientForm<'a> {
    /// Reads decoded form parameters and the `Authorization` header.
    ///
    /// # Errors
    /// The refusal to send.
    pub fn read(form: &'a [(String, String)], authorization: Option<&str>) -> Result<ClientForm<'a>, Refusal> {
        check_once(form)?;
        let value = |name: &str| value(form, name);
        Ok(ClientForm { proof: proof(&value, authorization)?, client_id: value("client_id"), form })
    }

    /// A parameter; one without a value is as if it were not sent (RFC 6749, section 3.2).
    pub fn value(&self, name: &str) -> Option<&'a str> {
        value(self.form, name)
    }

    /// A parameter that has to be there.
    pub fn required(&self, name: &'static str) -> Result<&'a str, Refusal> {
        let missing = || Refusal::new("invalid_request", format!("The parameter {name} is missing."));
        self.value(name).ok_or_else(missing)
    }

    /// What the token request is for.
    ///
    /// # Errors
    /// The refusal to send.
    pub fn wants(&self) -> Result<Wants<'a>, Refusal> {
        match check_grant_type(self.form)? {
            "authorization_code" => Ok(Wants::Code {
                code: self.required("code")?,
                redirect_uri: self.required("redirect_uri")?,
                verifier: self.required("code_verifier")?,
            }),
            "refresh_token" => {
                Ok(Wants::Refresh { token: self.required("refresh_token")?, scope: self.value("scope") })
            }
            EXCHANGE => Ok(Wants::Exchange),
            _ => {
                let missing = || Refusal::new("invalid_scope", "The parameter scope is missing.");
                Ok(Wants::ClientCredentials { scope: self.value("scope").ok_or_else(missing)? })
            }
        }
    }
}

/// Of a parameter that is sent twice nobody knows which one counts.
///
/// # Errors
/// The refusal to send.
pub fn check_once(form: &[(String, String)]) -> Result<(), Refusal> {
    let twice = |n: usize| form[..n].iter().any(|(other, _)| *other == form[n].0);
    match (0..form.len()).any(twice) {
        true => Err(Refusal::new("invalid_request", "A parameter is sent more than once.")),
        false => Ok(()),
    }
}

fn value<'a>(form: &'a [(String, String)], name: &str) -> Option<&'a str> {
    form.iter().find(|(other, _)| other == name).map(|(_, value)| value.as_str()).filter(|v| !v.is_empty())
}

/// Grant types, as the discovery documents name them.
pub const GRANT_TYPES: [&str; 4] = ["authorization_code", "refresh_token", "client_credentials", EXCHANGE];
/// Token exchange (RFC 8693): here, for an emergency.
pub const EXCHANGE: &str = "urn:ietf:params:oauth:grant-type:token-exchange";

/// The grant type of a token request; looked at before the client is, so that a wrong one is named as such.
///
/// # Errors
/// The refusal to send.
pub fn check_grant_type(form: &[(String, String)]) -> Result<&str, Refusal> {
    match value(form, "grant_type") {
        Some(known) if GRANT_TYPES.contains(&known) => Ok(known),
        Some(_) => {
            let text = format!("This server offers the grant types {}.", GRANT_TYPES.join(", "));
            Err(Refusal::new("unsupported_grant_type", text))
        }
        None => Err(Refusal::new("invalid_request", "The parameter grant_type is missing.")),
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
        (None, Some(client_id)) => Ok(Proof::Name(client_id)),
        _ => {
            let text =
                "The client must say who it is: a public app by its client_id, others by a secret or an assertion.";
            Err(unauthenticated(text))
        }
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
    // Ids and secrets that this server gives look the same in both forms; an id that was asked for may not. No id has a
    // space, so that a plus sign is one.
    let id = percent_decoded(id).unwrap_or_else(|| id.to_owned());
    Some((id, Zeroizing::new(secret.to_owned())))
}

fn percent_decoded(text: &str) -> Option<String> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        out.push(match byte {
            b'%' => {
                let (high, low) = (char::from(bytes.next()?).to_digit(16)?, char::from(bytes.next()?).to_digit(16)?);
                (high * 16 + low) as u8
            }
            other => other,
        });
    }
    String::from_utf8(out).ok()
}

/// For a form or a query: everything but plain letters, digits and a few signs is escaped.
pub fn escaped(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'*' | b'/' => {
                char::from(byte).to_string()
            }
            other => format!("%{other:02X}"),
        })
        .collect()
}

/// The form for the audit: as sent, without anything secret, in form encoding.
pub fn without_secrets(form: &[(String, String)]) -> String {
    // Names that are unknown here could hold anything: their values stay out too.
    let known = [
        "grant_type",
        "scope",
        "client_id",
        "client_assertion_type",
        "redirect_uri",
        "subject_token_type",
        "requested_token_type",
        "purpose",
    ];
    let shown = form.iter().map(|(name, value)| {
        let value = if known.contains(&name.as_str()) { escaped(value) } else { String::new() };
        if SECRETS.contains(&name.as_str()) || known.contains(&name.as_str()) {
            format!("{}={value}", escaped(name))
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

    fn read(form: &[(String, String)], authorization: Option<&str>) -> Result<(), Refusal> {
        check_grant_type(form)?;
        ClientForm::read(form, authorization)?.wants().map(drop)
    }

    #[test]
    fn each_fault_has_its_error() {
        for (pairs, authorization, status, error) in [
            (with("grant_type", Some("not_a_grant_type")), None, 400, "unsupported_grant_type"),
            (with("grant_type", Some("password")), None, 400, "unsupported_grant_type"),
            (with("grant_type", Some("authorization_code")), None, 400, "invalid_request"),
            (with("grant_type", Some("refresh_token")), None, 400, "invalid_request"),
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
            (form(&[GOOD[0], GOOD[0]]), None, 400, "invalid_request"),
        ] {
            let refusal = read(&pairs, authorization).unwrap_err();
            assert_eq!((refusal.status, refusal.error), (status, error), "{pairs:?} {authorization:?}");
            assert_eq!(refusal.basic, status == 401 && authorization.is_some());
        }
        let good = form(&GOOD);
        let read = ClientForm::read(&good, None).unwrap();
        assert!(matches!(read.proof, Proof::Assertion("a.b.c")));
        assert_eq!(read.wants(), Ok(Wants::ClientCredentials { scope: "system/*.rs" }));
    }

    #[test]
    fn secrets_come_by_header_or_form() {
        let pairs = form(&[GOOD[0], GOOD[3]]);
        let read = ClientForm::read(&pairs, Some("basic YSUyMGI6czpz")).unwrap();
        assert!(matches!(&read.proof, Proof::Secret { client_id, secret, basic: true }
            if client_id == "a b" && secret.as_str() == "s:s"));
        // `app+1:s`, as it is and encoded.
        for header in ["Basic YXBwKzE6cw==", "Basic YXBwJTJCMTpz"] {
            let read = ClientForm::read(&pairs, Some(header)).unwrap();
            assert!(matches!(&read.proof, Proof::Secret { client_id, .. } if client_id == "app+1"), "{header}");
        }
        let pairs = form(&[GOOD[0], GOOD[3], ("client_id", "a"), ("client_secret", "s")]);
        let read = ClientForm::read(&pairs, None).unwrap();
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
