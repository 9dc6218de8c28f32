//! The file of identity providers: who they are, and what their claims make of a person here. What is wrong in it stops
//! the start with the line of the fault.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use toml::Spanned;
use zeroize::Zeroizing;

use super::mapping::{Factor, Record, Rule};
use crate::access::Role;
use crate::error::{Error, Issue, Kind, Result};
use crate::oauth::SigningKey;

/// Providers one server knows.
const PROVIDERS_MAX: usize = 16;
const RULES_MAX: usize = 200;
const ID_LENGTH_MAX: usize = 32;
const NAME_LENGTH_MAX: usize = 60;
const SKEW_S: u64 = 60;
const SKEW_S_MAX: u64 = 300;
const OFFLINE_DAYS: u64 = 30;
const OFFLINE_DAYS_MAX: u64 = 100;
const SCOPES: &str = "openid profile";

/// How this server proves to a provider who it is.
pub enum Proof {
    Secret(Zeroizing<String>),
    /// `private_key_jwt`.
    Key(SigningKey),
}

/// An identity provider, as the operator describes it.
pub struct Provider {
    /// Names it in addresses here.
    pub id: String,
    /// Names it to people.
    pub name: String,
    pub issuer: String,
    pub client_id: String,
    pub proof: Proof,
    /// Beside `openid`.
    pub scopes: Vec<String>,
    /// Whether claims are asked for at its userinfo endpoint too.
    pub userinfo: bool,
    /// Audiences of its tokens that are trusted beside the client_id.
    pub audiences: Vec<String>,
    /// Claims that every token must have.
    pub claims: BTreeMap<String, String>,
    pub skew_s: i64,
    /// The claim that user names are made of.
    pub username: String,
    /// Apps keep their offline access for so long after the last login there.
    pub offline_ms: i64,
    pub factor: Factor,
    /// Tried in order; the first that fits counts.
    pub rules: Vec<Rule>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct File {
    #[serde(default)]
    provider: Vec<Spanned<Described>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Described {
    id: Spanned<String>,
    name: Spanned<String>,
    issuer: Spanned<String>,
    client_id: Spanned<String>,
    client_secret_file: Option<Spanned<PathBuf>>,
    client_key_file: Option<Spanned<PathBuf>>,
    scopes: Option<Spanned<String>>,
    #[serde(default)]
    userinfo: bool,
    #[serde(default)]
    audiences: Vec<String>,
    #[serde(default)]
    claims: BTreeMap<String, String>,
    clock_skew_s: Option<Spanned<u64>>,
    offline_days: Option<Spanned<u64>>,
    username: Option<Spanned<String>>,
    second_factor: Option<Spanned<DescribedFactor>>,
    #[serde(default)]
    role: Vec<Spanned<DescribedRule>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct DescribedFactor {
    #[serde(default)]
    amr: Vec<String>,
    #[serde(default)]
    acr: Vec<String>,
    otherwise: Otherwise,
}

#[derive(Clone, Copy, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
enum Otherwise {
    Refused,
    Here,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct DescribedRule {
    claim: Spanned<String>,
    is: OneOrMany,
    role: Spanned<String>,
    fhir_user: Option<Spanned<String>>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

/// Gathers what is wrong, each with its line.
struct Faults<'a> {
    path: &'a Path,
    text: &'a str,
    found: Vec<Issue>,
}

impl Faults<'_> {
    fn at<T>(&mut self, place: &Spanned<T>, what: impl fmt::Display) {
        let line = line_of(self.text, place.span().start);
        self.found.push(Issue::error("value", format!("{}, line {line}: {what}", self.path.display())));
    }
}

fn line_of(text: &str, at: usize) -> usize {
    text.bytes().take(at).filter(|byte| *byte == b'\n').count() + 1
}

/// Reads the file. Secrets and keys lie in files of their own, named relative to it.
///
/// # Errors
/// `Kind::Invalid` with an issue for every fault, each with its line.
pub fn load(path: &Path) -> Result<Vec<Provider>> {
    let text = std::fs::read_to_string(path)
        .map_err(|e| Error::invalid(format!("setting identity_providers: cannot read {}: {e}", path.display())))?;
    let file: File = toml::from_str(&text).map_err(|e| {
        let line = e.span().map_or(1, |span| line_of(&text, span.start));
        Error::invalid(format!("{}, line {line}: {}", path.display(), e.message()))
    })?;
    let mut faults = Faults { path, text: &text, found: Vec::new() };
    let mut providers: Vec<Provider> = Vec::new();
    for described in file.provider {
        let taken = providers.iter().find(|known| {
            let (id, issuer, client) =
                (described.get_ref().id.get_ref(), &described.get_ref().issuer, &known.client_id);
            known.id == *id || (known.issuer == *issuer.get_ref() && client == described.get_ref().client_id.get_ref())
        });
        if let Some(known) = taken {
            faults.at(
                &described,
                format_args!("there is a provider of this id, or issuer and client, already ({})", known.id),
            );
        } else if providers.len() == PROVIDERS_MAX {
            faults.at(&described, format_args!("more than {PROVIDERS_MAX} providers"));
        }
        providers.extend(described.into_inner().checked(&mut faults));
    }
    if faults.found.is_empty() { Ok(providers) } else { Err(Error::with_issues(Kind::Invalid, faults.found)) }
}

impl Described {
    fn checked(self, faults: &mut Faults<'_>) -> Option<Provider> {
        let before = faults.found.len();
        let id = self.id.get_ref();
        let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        if id.is_empty() || id.len() > ID_LENGTH_MAX || !id.bytes().all(plain) {
            faults.at(&self.id, format_args!("an id has 1 to {ID_LENGTH_MAX} lower-case letters, digits and hyphens"));
        }
        let name = self.name.get_ref();
        if name.trim().is_empty() || name.chars().count() > NAME_LENGTH_MAX {
            faults.at(&self.name, format_args!("a name has 1 to {NAME_LENGTH_MAX} characters"));
        }
        if !is_issuer(self.issuer.get_ref()) {
            faults.at(&self.issuer, "an issuer is an https URL without query (http on the own machine only)");
        }
        if self.client_id.get_ref().is_empty() {
            faults.at(&self.client_id, "a client-id is expected");
        }
        let proof = self.proof(faults);
        let scopes = self.scopes.as_ref().map_or(SCOPES, |scopes| scopes.get_ref().as_str());
        let scopes: Vec<String> = scopes.split_whitespace().filter(|one| *one != "openid").map(str::to_owned).collect();
        let mut number = |given: &Option<Spanned<u64>>, default: u64, max: u64| match given {
            Some(given) if *given.get_ref() > max => {
                faults.at(given, format_args!("a whole number from 0 to {max} is expected"));
                default
            }
            Some(given) => *given.get_ref(),
            None => default,
        };
        let skew_s = number(&self.clock_skew_s, SKEW_S, SKEW_S_MAX).cast_signed();
        let offline_days = number(&self.offline_days, OFFLINE_DAYS, OFFLINE_DAYS_MAX).cast_signed();
        let factor = self.factor(faults);
        if self.role.is_empty() {
            faults.at(&self.id, "a provider without [[provider.role]] lets nobody in");
        }
        if self.role.len() > RULES_MAX {
            faults.at(&self.id, format_args!("more than {RULES_MAX} roles"));
        }
        let rules: Vec<Rule> = self.role.iter().filter_map(|rule| rule.get_ref().checked(faults)).collect();
        let provider = Provider {
            proof: proof?,
            id: self.id.into_inner(),
            name: self.name.into_inner(),
            issuer: self.issuer.into_inner(),
            client_id: self.client_id.into_inner(),
            scopes,
            userinfo: self.userinfo,
            audiences: self.audiences,
            claims: self.claims,
            skew_s,
            username: self.username.map_or_else(|| "preferred_username".to_owned(), Spanned::into_inner),
            offline_ms: offline_days * 86_400_000,
            factor,
            rules,
        };
        (faults.found.len() == before).then_some(provider)
    }

    fn proof(&self, faults: &mut Faults<'_>) -> Option<Proof> {
        let beside = |file: &Path| faults.path.parent().unwrap_or(Path::new("")).join(file);
        match (&self.client_secret_file, &self.client_key_file) {
            (Some(file), None) => match std::fs::read_to_string(beside(file.get_ref())).map(Zeroizing::new) {
                Ok(text) if !text.trim().is_empty() => Some(Proof::Secret(Zeroizing::new(text.trim().to_owned()))),
                Ok(_) => {
                    faults.at(file, "the file of the client secret is empty");
                    None
                }
                Err(error) => {
                    faults.at(file, format_args!("the file of the client secret cannot be read: {error}"));
                    None
                }
            },
            (None, Some(file)) => match std::fs::read_to_string(beside(file.get_ref())).map(Zeroizing::new) {
                Ok(text) => match key_of(&text) {
                    Some(key) => Some(Proof::Key(key)),
                    None => {
                        faults.at(file, "the file is no private key on P-384 in PEM (PKCS #8)");
                        None
                    }
                },
                Err(error) => {
                    faults.at(file, format_args!("the file of the client key cannot be read: {error}"));
                    None
                }
            },
            _ => {
                faults.at(&self.client_id, "either client-secret-file or client-key-file is expected");
                None
            }
        }
    }

    fn factor(&self, faults: &mut Faults<'_>) -> Factor {
        let Some(given) = &self.second_factor else { return Factor { amr: Vec::new(), acr: Vec::new(), here: true } };
        let DescribedFactor { amr, acr, otherwise } = given.get_ref();
        if *otherwise == Otherwise::Refused && amr.is_empty() && acr.is_empty() {
            faults.at(given, "without amr or acr that show a second factor nobody is let in");
        }
        Factor { amr: amr.clone(), acr: acr.clone(), here: *otherwise == Otherwise::Here }
    }
}

impl DescribedRule {
    fn checked(&self, faults: &mut Faults<'_>) -> Option<Rule> {
        let before = faults.found.len();
        if self.claim.get_ref().is_empty() {
            faults.at(&self.claim, "the name of a claim is expected, or its place, such as /realm_access/roles");
        }
        let values = match &self.is {
            OneOrMany::One(one) => vec![one.clone()],
            OneOrMany::Many(many) => many.clone(),
        };
        if values.iter().any(String::is_empty) || values.is_empty() {
            faults.at(&self.claim, "the value that the claim must have is empty");
        }
        let role = Role::parse(self.role.get_ref());
        let Some(role) = role else {
            let known: Vec<&str> = Role::ALL.iter().map(|role| role.name()).collect();
            faults.at(&self.role, format_args!("a role is one of {}", known.join(", ")));
            return None;
        };
        let record = match &self.fhir_user {
            None if !role.is_staff() => {
                faults.at(&self.role, "patients and guardians are tied to their record: fhir-user is expected");
                None
            }
            None => None,
            Some(text) => match Record::parse(text.get_ref(), role) {
                Ok(record) => Some(record),
                Err(why) => {
                    faults.at(text, why);
                    None
                }
            },
        };
        (faults.found.len() == before).then(|| Rule { claim: self.claim.get_ref().clone(), values, role, record })
    }
}

/// https, or http on the own machine; no query, no fragment.
fn is_issuer(url: &str) -> bool {
    let local = ["localhost", "127.0.0.1", "[::1]"].iter().any(|host| {
        let rest = url.strip_prefix("http://").and_then(|rest| rest.strip_prefix(host));
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with([':', '/']))
    });
    let secure = url.strip_prefix("https://").is_some_and(|rest| !rest.is_empty() && !rest.starts_with('/'));
    (local || secure) && url.bytes().all(|byte| matches!(byte, 0x21..=0x7E)) && !url.contains(['?', '#', '@'])
}

/// The key of a PEM file as `openssl genpkey` writes it.
fn key_of(pem: &str) -> Option<SigningKey> {
    let body = pem.split_once("-----BEGIN PRIVATE KEY-----")?.1.split_once("-----END PRIVATE KEY-----")?.0;
    let body: Zeroizing<String> = Zeroizing::new(body.split_ascii_whitespace().collect());
    let bytes = Zeroizing::new(STANDARD.decode(body.as_bytes()).ok()?);
    SigningKey::from_pkcs8(&bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"
[[provider]]
id = "clinic"
name = "Clinic"
issuer = "https://id.clinic.example/realms/staff"
client-id = "phial"
client-secret-file = "secret"
second-factor = { amr = ["mfa"], otherwise = "refused" }

[[provider.role]]
claim = "groups"
is = ["physicians", "residents"]
role = "PROVIDER"
fhir-user = "Practitioner/{npi}"

[[provider.role]]
claim = "/realm_access/roles"
is = "portal"
role = "patient"
fhir-user = "{fhirUser}"
"#;

    fn read(text: &str) -> Result<Vec<Provider>> {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("secret"), "quiet\n").unwrap();
        std::fs::write(dir.path().join("empty"), "\n").unwrap();
        std::fs::write(dir.path().join("key.pem"), KEY).unwrap();
        std::fs::write(dir.path().join("providers.toml"), text).unwrap();
        load(&dir.path().join("providers.toml"))
    }

    /// `openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-384`
    const KEY: &str = "-----BEGIN PRIVATE KEY-----\nMIG2AgEAMBAGByqGSM49AgEGBSuBBAAiBIGeMIGbAgEBBDA8/bqZRe2zG/LddGnM\n3JhfP7lhOiipVWUt0p34PsVSBpMyZYA9jql2lOh7eDv15X+hZANiAARmbLRXEOOL\nl3qqBvVQgJlploS5TtPd9N9vFhtMLPFN5MJ0fMzMM1M0gK+f8kmSq/SpX+89+qEI\nCr86wB52fyUxgyuH/wcrRfWMNoz1342T8KlRljTMVMtO66NAoGoEYHA=\n-----END PRIVATE KEY-----";

    #[test]
    fn a_good_file_is_read() {
        let providers = read(GOOD).unwrap();
        let [provider] = providers.as_slice() else { panic!("one provider") };
        assert!(matches!(&provider.proof, Proof::Secret(secret) if secret.as_str() == "quiet"));
        assert_eq!((provider.scopes.join(" ").as_str(), provider.skew_s), ("profile", 60));
        assert_eq!((provider.rules.len(), provider.factor.here), (2, false));
        assert!(read("").unwrap().is_empty());
        let with_key = GOOD.replace("client-secret-file = \"secret\"", "client-key-file = \"key.pem\"");
        assert!(matches!(&read(&with_key).unwrap()[0].proof, Proof::Key(_)));
    }

    #[test]
    fn what_is_wrong_is_named_with_its_line() {
        for (from, to, line, words) in [
            ("id = \"clinic\"", "id = \"Clinic A\"", 3, "lower-case"),
            ("name = \"Clinic\"", "name = \" \"", 4, "a name has"),
            ("https://id", "http://id", 5, "https URL"),
            ("client-id = \"phial\"", "client-id = \"\"", 6, "client-id"),
            ("\"secret\"", "\"nowhere\"", 7, "cannot be read"),
            ("\"secret\"", "\"empty\"", 7, "is empty"),
            ("client-secret-file = \"secret\"", "client-key-file = \"secret\"", 7, "P-384"),
            ("client-secret-file = \"secret\"", "", 6, "client-key-file is expected"),
            ("amr = [\"mfa\"]", "amr = []", 8, "nobody is let in"),
            ("otherwise = \"refused\"", "otherwise = \"never\"", 8, "never"),
            ("is = [\"physicians\", \"residents\"]", "is = []", 11, "is empty"),
            ("\"PROVIDER\"", "\"DOCTOR\"", 13, "ADMIN"),
            ("Practitioner/{npi}", "Patient/{npi}", 14, "PROVIDER"),
            ("Practitioner/{npi}", "Practitioner/{npi", 14, "brace"),
            ("fhir-user = \"{fhirUser}\"", "", 19, "fhir-user is expected"),
            ("claim = \"groups\"", "klaim = \"groups\"", 11, "klaim"),
            ("client-id = \"phial\"", "client-id = \"phial\"\nclock-skew-s = 900", 7, "0 to 300"),
        ] {
            assert!(GOOD.contains(from), "{from}");
            let error = read(&GOOD.replace(from, to)).err().unwrap_or_else(|| panic!("{to}"));
            let text = error.to_string();
            assert!(text.contains(&format!("line {line}:")) && text.contains(words), "{to}: {text}");
        }
        let twice = read(&format!("{GOOD}{GOOD}")).err().unwrap().to_string();
        assert!(twice.contains("already (clinic)"), "{twice}");
        let two = GOOD.replace("\"PROVIDER\"", "\"x\"").replace("\"patient\"", "\"y\"");
        assert_eq!(read(&two).err().unwrap().issues.len(), 2);
    }

    #[test]
    fn issuers_are_reached_through_tls() {
        for good in ["https://a.example", "https://a.example/x/", "http://127.0.0.1:9", "http://localhost/x"] {
            assert!(is_issuer(good), "{good}");
        }
        for bad in ["http://a.example", "https://", "https:///x", "http://localhost.a", "https://a/?x", "a.example"] {
            assert!(!is_issuer(bad), "{bad}");
        }
    }
}
