//! The settings: one table from which the [`Config`] type, `phial help config` and `docs/configuration.md` are made.
//! A setting comes from the command line, else from `PHIAL_*`, else from the file, else from its default. What is
//! unknown or wrong is an error that names the setting and where it came from.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use super::networks::{ClientRates, Networks};
use crate::error::{Error, Issue, Kind, Result};
use crate::fetch;
use crate::fhir::reference::is_scheme;
use crate::oauth::outside;
use crate::oauth::{Endpoints, Limits, Registering, Settings};

/// Variables of the environment that belong to the program itself and are no settings.
const ENV_PREFIX: &str = "PHIAL_";

/// One documented setting. Its variable is `PHIAL_` and the key in upper case.
pub struct Setting {
    pub key: &'static str,
    pub default: &'static str,
    pub doc: &'static str,
    /// Whether the value may hold a password and must not be shown.
    pub secret: bool,
}

impl Setting {
    /// `PHIAL_LISTEN` for `listen`.
    pub fn variable(&self) -> String {
        format!("{ENV_PREFIX}{}", self.key.to_ascii_uppercase())
    }
}

/// A type a setting can have: read from its text.
trait FromSetting: Sized {
    /// The error says what was expected, without quoting the text.
    fn from_setting(text: &str) -> std::result::Result<Self, String>;
}

impl FromSetting for String {
    fn from_setting(text: &str) -> std::result::Result<Self, String> {
        Ok(text.to_owned())
    }
}

impl FromSetting for PathBuf {
    fn from_setting(text: &str) -> std::result::Result<Self, String> {
        if text.is_empty() { Err("a path is expected".into()) } else { Ok(PathBuf::from(text)) }
    }
}

impl FromSetting for SocketAddr {
    fn from_setting(text: &str) -> std::result::Result<Self, String> {
        text.parse().map_err(|_| "an address and port is expected, such as 127.0.0.1:8080 or [::]:8080".into())
    }
}

impl FromSetting for Registering {
    fn from_setting(text: &str) -> std::result::Result<Self, String> {
        match text {
            "off" => Ok(Registering::Off),
            "token" => Ok(Registering::Token),
            "open" => Ok(Registering::Open),
            _ => Err("`off`, `token` or `open` is expected".into()),
        }
    }
}

impl FromSetting for LogFormat {
    fn from_setting(text: &str) -> std::result::Result<Self, String> {
        match text {
            "text" => Ok(LogFormat::Text),
            "json" => Ok(LogFormat::Json),
            _ => Err("`text` or `json` is expected".into()),
        }
    }
}

impl FromSetting for Need {
    fn from_setting(text: &str) -> std::result::Result<Self, String> {
        match text {
            "required" => Ok(Need::Required),
            "optional" => Ok(Need::Optional),
            _ => Err("`required` or `optional` is expected".into()),
        }
    }
}

impl FromSetting for Networks {
    fn from_setting(text: &str) -> std::result::Result<Self, String> {
        let wrong = "addresses or networks separated by spaces are expected: `10.0.0.0/8 2001:db8::1`";
        Networks::parse(text).ok_or_else(|| wrong.into())
    }
}

impl FromSetting for ClientRates {
    fn from_setting(text: &str) -> std::result::Result<Self, String> {
        let wrong = "client ids with numbers, separated by spaces, are expected: `loader=0 portal=50000`";
        ClientRates::parse(text, RATE_MAX).ok_or_else(|| wrong.into())
    }
}

impl FromSetting for ProxyHeader {
    fn from_setting(text: &str) -> std::result::Result<Self, String> {
        match text {
            "x-forwarded-for" => Ok(ProxyHeader::XForwardedFor),
            "forwarded" => Ok(ProxyHeader::Forwarded),
            _ => Err("`x-forwarded-for` or `forwarded` is expected".into()),
        }
    }
}

impl FromSetting for References {
    fn from_setting(text: &str) -> std::result::Result<Self, String> {
        match text {
            "reject" => Ok(References::Reject),
            "allow" => Ok(References::Allow),
            _ => Err("`reject` or `allow` is expected".into()),
        }
    }
}

/// A whole number within stated bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Within<const MIN: u64, const MAX: u64>(pub u64);

impl<const MIN: u64, const MAX: u64> Within<MIN, MAX> {
    pub fn get(self) -> u64 {
        self.0
    }

    /// For sizes and counts; the bounds of every setting fit.
    pub fn size(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

impl<const MIN: u64, const MAX: u64> FromSetting for Within<MIN, MAX> {
    fn from_setting(text: &str) -> std::result::Result<Self, String> {
        match text.parse::<u64>() {
            Ok(n) if (MIN..=MAX).contains(&n) => Ok(Within(n)),
            _ => Err(format!("a whole number from {MIN} to {MAX} is expected")),
        }
    }
}

/// Origins of browser apps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origins(Vec<String>);

impl Origins {
    pub fn allows_any(&self) -> bool {
        self.0.iter().any(|origin| origin == "*")
    }

    /// As a browser sends it: compared byte by byte.
    pub fn allows(&self, origin: &[u8]) -> bool {
        self.0.iter().any(|allowed| allowed.as_bytes() == origin)
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl FromSetting for Origins {
    fn from_setting(text: &str) -> std::result::Result<Self, String> {
        let origins: Vec<String> = text.split_ascii_whitespace().map(str::to_owned).collect();
        let plain = |origin: &String| {
            let rest = origin.strip_prefix("https://").or_else(|| origin.strip_prefix("http://"));
            origin == "*" || rest.is_some_and(|rest| !rest.is_empty() && !rest.contains(['/', '?', '#', '@', '*']))
        };
        match origins.iter().all(plain) {
            true => Ok(Origins(origins)),
            false => Err("origins separated by spaces are expected: `https://app.example.org`, or `*`".into()),
        }
    }
}

/// An address and port to listen on, or none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listen(pub Option<SocketAddr>);

impl FromSetting for Listen {
    fn from_setting(text: &str) -> std::result::Result<Self, String> {
        if text.is_empty() { Ok(Listen(None)) } else { SocketAddr::from_setting(text).map(|at| Listen(Some(at))) }
    }
}

/// An https address of something that the operator publishes; empty: nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Published(pub String);

impl FromSetting for Published {
    fn from_setting(text: &str) -> std::result::Result<Self, String> {
        let plain = text.bytes().all(|byte| matches!(byte, 0x21..=0x7E));
        let good = text.is_empty() || (plain && text.strip_prefix("https://").is_some_and(|rest| !rest.is_empty()));
        if good { Ok(Published(text.to_owned())) } else { Err("an https address is expected".into()) }
    }
}

/// Whom to ask: the `system` and `value` of a ContactPoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contact(pub Option<(&'static str, String)>);

impl FromSetting for Contact {
    fn from_setting(text: &str) -> std::result::Result<Self, String> {
        let system = match text {
            "" => return Ok(Contact(None)),
            _ if text.starts_with("https://") => "url",
            _ if text.starts_with('+') => "phone",
            _ if text.contains('@') && !text.contains(char::is_whitespace) => "email",
            _ => return Err("an address of mail, a telephone number with + or an https address is expected".into()),
        };
        Ok(Contact(Some((system, text.to_owned()))))
    }
}

/// Names of hosts, each with or without a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hosts(Vec<String>);

impl FromSetting for Hosts {
    fn from_setting(text: &str) -> std::result::Result<Self, String> {
        let hosts: Vec<String> = text.split_ascii_whitespace().map(str::to_owned).collect();
        match hosts.iter().any(|host| host.contains(['/', '*', '@', '?', ','])) {
            false => Ok(Hosts(hosts)),
            true => Err("hosts separated by spaces are expected: `keys.clinic.internal 10.0.0.7:8443`".into()),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    Text,
    Json,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    Required,
    Optional,
}

/// The header in which proxies say for whom they ask. One of the two: of the other, whatever the client sent may stand there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyHeader {
    XForwardedFor,
    Forwarded,
}

/// Largest number of requests in five minutes that a limit may state.
pub const RATE_MAX: u64 = 100_000_000;

/// A limit on requests in five minutes; 0: none.
pub type Rate = Within<0, RATE_MAX>;

/// What is done about references that lead nowhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum References {
    Reject,
    Allow,
}

macro_rules! settings {
    ($( $(#[doc = $doc:literal])+ $name:ident: $type:ty = $default:literal $($secret:ident)?; )+) => {
        /// The settings in force. No Debug: a database URL may hold a password.
        #[derive(Clone)]
        pub struct Config { $( $(#[doc = $doc])+ pub $name: $type, )+ }

        /// The table of settings, in the order of the documentation.
        pub const SETTINGS: &[Setting] = &[ $( Setting {
            key: stringify!($name),
            default: $default,
            doc: concat!($($doc),+),
            secret: settings!(@secret $($secret)?),
        }, )+ ];

        impl Config {
            fn read(given: &Given, faults: &mut Vec<Issue>) -> Option<Config> {
                $( let $name = given.value::<$type>(stringify!($name), $default, faults); )+
                Some(Config { $( $name: $name?, )+ })
            }
        }
    };
    (@secret) => { false };
    (@secret secret) => { true };
}

settings! {
    /// Address and port to listen on.
    listen: SocketAddr = "127.0.0.1:8080";
    /// The FHIR base URL as clients address it, without a trailing slash: it is in every absolute link, in
    /// `fullUrl`, and is the address tokens are made for. When empty: `http://<listen>/fhir`, with TLS `https://`.
    base_url: String = "";
    /// PEM file of the certificate to speak TLS with, followed by those between it and its authority. With it, what comes
    /// to `listen` is TLS 1.2 or 1.3 and nothing else. A renewed file is taken up within a minute, or at once on SIGHUP.
    /// When empty: plain HTTP, for a proxy in front that ends TLS.
    tls_cert: String = "";
    /// PEM file of the certificate's private key (PKCS#8, SEC 1 or PKCS#1), readable by the server's user alone.
    tls_key: String = "";
    /// Seconds that browsers are told to come back by TLS only (`Strict-Transport-Security`) when the server speaks it
    /// itself. 0: they are not told.
    tls_hsts_s: Within<0, 63072000> = "31536000";
    /// Address and port where plain HTTP is sent on to the TLS address (308; what carries credentials is refused). When
    /// empty, nobody listens for plain HTTP.
    tls_redirect_listen: Listen = "";
    /// The database: `sqlite:PATH` or `postgres://USER:PASSWORD@HOST/DATABASE`.
    database_url: String = "sqlite:phial-data/phial.db" secret;
    /// The key database, which holds wrapped keys only. Give it another place, other credentials and other backup
    /// rules than the database: who has only one of them has nothing.
    key_database_url: String = "sqlite:phial-data/keys.db" secret;
    /// The local keyring file that holds the root key (mode 0600; made on first start).
    keyring: PathBuf = "phial-data/keyring";
    /// Database connections for reading.
    readers: Within<1, 256> = "4";
    /// Writers that commit in groups; of several one takes accesses alone. SQLite always has one.
    lanes: Within<1, 64> = "4";
    /// IANA name of the time zone in which dates without an offset are read.
    time_zone: String = "UTC";
    /// Identifier system of the medical record numbers that this server gives. When empty:
    /// `<base_url>/NamingSystem/mrn`.
    mrn_system: String = "";
    /// Lifetime of an access token of a backend service, in seconds.
    token_lifetime_s: Within<30, 300> = "300";
    /// Lifetime of an access token of a person's app, in seconds. Revoking it acts at once.
    person_token_lifetime_s: Within<60, 3600> = "3600";
    /// A login session ends when it is not used for so many seconds.
    session_idle_s: Within<60, 86400> = "1800";
    /// A login session ends after so many seconds, used or not.
    session_max_s: Within<300, 604800> = "43200";
    /// Whether users of the provider must have a second factor: `required` or `optional`. Patients and guardians may.
    staff_second_factor: Need = "required";
    /// File of the identity providers at which people may log in (OpenID Connect), and of what their claims make of a
    /// person here: `docs/identity-providers.md`. When empty: none.
    identity_providers: String = "";
    /// Largest request body in bytes, before and after decompression.
    body_bytes_max: Within<1024, 1073741824> = "67108864";
    /// Most entries in a batch or transaction.
    bundle_entries_max: Within<1, 100000> = "25000";
    /// Most resources that one conditional delete (`DELETE Type?...`) may delete; what matches more is refused with
    /// 412 and nothing is deleted. With 1 the CapabilityStatement says `single`, else `multiple`.
    conditional_delete_max: Within<1, 1000> = "1";
    /// References to resources of this server that are not there, and deletions that would leave such: `reject` refuses
    /// them (422, 409), `allow` takes them. Give every server on one database the same. References to a type that the
    /// element does not allow, or to a contained resource that is not there, are refused always.
    references: References = "allow";
    /// Entries on a page of a search or history when the client names no `_count`.
    page_size: Within<1, 1000> = "50";
    /// Largest `_count`; a larger one is lowered to it, and the self link says so.
    page_size_max: Within<1, 10000> = "1000";
    /// How long a page link of a search works, in seconds.
    cursor_lifetime_s: Within<60, 86400> = "900";
    /// Most rows that one search may look through; past that the answer is 422 `too-costly` with advice.
    candidates_max: Within<1000, 10000000> = "200000";
    /// Requests worked on at the same time.
    requests_max: Within<1, 65536> = "256";
    /// Requests that may wait for a free place; further ones are answered 503 at once.
    queue_max: Within<0, 1000000> = "1024";
    /// Seconds after which a request is given up and answered 503. What it had begun to write is kept whole or not at all.
    request_timeout_s: Within<1, 3600> = "60";
    /// How long an asynchronous request (`Prefer: respond-async`) may take, and how long its answer waits to be fetched, in
    /// seconds.
    async_lifetime_s: Within<60, 86400> = "3600";
    /// Origins of browser apps that may call the FHIR and OAuth addresses (CORS), separated by spaces, such as
    /// `https://app.example.org`; `*` for any. Discovery and metadata may be read from every origin.
    cors_origins: Origins = "";
    /// Where developers of apps read about this installation: an https address, told in discovery
    /// (`service_documentation`) and in the CapabilityStatement. When empty: nowhere.
    documentation_url: Published = "";
    /// Whom they ask: an address of mail, a telephone number (`+1 555 0100`) or an https address, told in the
    /// CapabilityStatement (`contact`). When empty: nobody.
    contact: Contact = "";
    /// The Bundle of brands with the base URLs of this provider (User-access Brands of SMART App Launch 2.2): an https
    /// address, told in discovery (`user_access_brand_bundle`). When empty: none.
    brands_url: Published = "";
    /// Whether apps may ask to be registered (RFC 7591): `off`, `token` (with one of
    /// `phial admin clients registration-token`), or `open` (anybody). None counts until an administrator approves it.
    client_registration: Registering = "off";
    /// Hosts inside the own network that the server may fetch from although others name them, such as the key set of an
    /// app: `keys.clinic.internal` or `10.0.0.7:8443`, separated by spaces. All others must be in the public internet.
    private_hosts: Hosts = "";
    /// PEM file of certificate authorities that are trusted besides the public ones when the server asks others.
    trusted_authorities: String = "";
    /// Requests that one address (of IPv6: one /64) may make in five minutes; more are answered 429 with `Retry-After`.
    /// An allowance is used up at once or bit by bit, and fills again evenly. 0: no limit. Health addresses are never limited.
    rate_address_max: Rate = "2000";
    /// Requests in five minutes in the name of one person, whatever the app and address. 0: no limit.
    rate_user_max: Rate = "2000";
    /// Requests in five minutes with tokens of one client, whatever the person and address. 0: no limit.
    rate_client_max: Rate = "20000";
    /// Limits of single clients in place of `rate_client_max`, as `client_id=NUMBER` separated by spaces; 0: no limit, as
    /// for a service that loads data. Requests with a token of such a client do not count for their address.
    rate_clients: ClientRates = "";
    /// Failed steps of logins (password, code) of one address in five minutes. 0: no limit.
    rate_login_max: Rate = "30";
    /// Refused requests to the token, introspection and revocation endpoints of one address in five minutes. 0: no limit.
    rate_token_failures_max: Rate = "60";
    /// Launches and authorization requests of one address in five minutes. 0: no limit.
    rate_launch_max: Rate = "300";
    /// Addresses and networks (`10.1.0.0/16 2001:db8::7`) that no limit by address holds for, such as one's own gateway.
    rate_free_addresses: Networks = "";
    /// Addresses and networks of proxies that are believed when they say for whom they ask. When empty, a request comes from
    /// whoever opened the connection.
    trusted_proxies: Networks = "";
    /// The header in which they say it: `x-forwarded-for` or `forwarded` (RFC 7239). The other one is not looked at.
    proxy_header: ProxyHeader = "x-forwarded-for";
    /// Seconds that requests under way get to finish after SIGTERM.
    shutdown_grace_s: Within<1, 600> = "30";
    /// What is logged: `error`, `warn`, `info`, `debug`, or directives such as `info,phial::store=debug`. Logs hold no PHI at any level.
    log: String = "info";
    /// Form of the log: `text` or `json`, one line an event.
    log_format: LogFormat = "text";
}

/// Where a value came from, for messages.
struct Origin {
    value: String,
    place: String,
}

/// All that was given, by key.
#[derive(Default)]
struct Given(BTreeMap<String, Origin>);

impl Given {
    fn value<T: FromSetting>(&self, key: &'static str, default: &'static str, faults: &mut Vec<Issue>) -> Option<T> {
        let (text, place) = match self.0.get(key) {
            Some(origin) => (origin.value.as_str(), origin.place.as_str()),
            None => (default, "default"),
        };
        match T::from_setting(text) {
            Ok(value) => Some(value),
            Err(expected) => {
                faults.push(Issue::error("value", format!("setting {key} ({place}): {expected}")));
                None
            }
        }
    }
}

fn known(key: &str) -> bool {
    SETTINGS.iter().any(|setting| setting.key == key)
}

fn read_file(path: &Path, given: &mut Given, faults: &mut Vec<Issue>) -> Result<()> {
    let text = std::fs::read_to_string(path)
        .map_err(|e| Error::invalid(format!("cannot read the configuration file {}: {e}", path.display())))?;
    let table: toml::Table = text.parse().map_err(|e: toml::de::Error| {
        let line = e.span().map_or(0, |span| 1 + text[..span.start.min(text.len())].matches('\n').count());
        Error::invalid(format!("{}, line {line}: {}", path.display(), e.message()))
    })?;
    for (key, value) in table {
        let place = format!("file {}", path.display());
        let text = match value {
            _ if !known(&key) => {
                faults.push(Issue::error("not-found", format!("unknown setting {key} ({place})")));
                continue;
            }
            toml::Value::String(text) => text,
            toml::Value::Integer(n) => n.to_string(),
            toml::Value::Boolean(b) => b.to_string(),
            _ => {
                faults
                    .push(Issue::error("value", format!("setting {key} ({place}): a string or a number is expected")));
                continue;
            }
        };
        given.0.insert(key, Origin { value: text, place });
    }
    Ok(())
}

impl Config {
    /// Reads the settings. `set` are those of the command line, `env` the environment (only `PHIAL_*` is looked at).
    ///
    /// # Errors
    /// `Kind::Invalid` with one issue per unknown or wrong setting, naming it and its place.
    pub fn load(
        file: Option<&Path>,
        env: impl IntoIterator<Item = (OsString, OsString)>,
        set: &[(&'static str, String)],
    ) -> Result<Config> {
        let mut given = Given::default();
        let mut faults = Vec::new();
        if let Some(path) = file {
            read_file(path, &mut given, &mut faults)?;
        }
        for (name, value) in env {
            // The environment may hold anything; what is meant for us is text.
            let name = name.to_string_lossy().into_owned();
            #[cfg(feature = "bench-switches")]
            if name == crate::world::bench::VARIABLE {
                continue;
            }
            let Some(rest) = name.strip_prefix(ENV_PREFIX) else { continue };
            let key = rest.to_ascii_lowercase();
            let place = format!("variable {name}");
            if !known(&key) || rest != rest.to_ascii_uppercase() {
                faults.push(Issue::error("not-found", format!("unknown setting {key} ({place})")));
                continue;
            }
            match value.into_string() {
                Ok(value) => drop(given.0.insert(key, Origin { value, place })),
                Err(_) => faults.push(Issue::error("value", format!("setting {key} ({place}): it is not UTF-8"))),
            }
        }
        for (key, value) in set {
            given.0.insert((*key).to_owned(), Origin { value: value.clone(), place: "command line".into() });
        }
        let config = Config::read(&given, &mut faults);
        match config {
            Some(config) if faults.is_empty() => config.complete(),
            _ => Err(Error::with_issues(Kind::Invalid, faults)),
        }
    }

    /// Fills what follows from other settings and checks what must fit together.
    fn complete(mut self) -> Result<Config> {
        let mut faults = Vec::new();
        if self.base_url.is_empty() {
            let scheme = if self.speaks_tls() { "https" } else { "http" };
            self.base_url = format!("{scheme}://{}/fhir", self.listen);
        }
        faults.extend(self.tls_faults());
        let authority = self.base_url.strip_prefix("http://").or_else(|| self.base_url.strip_prefix("https://"));
        // It is written into links, headers and pages.
        let plain = self.base_url.bytes().all(|byte| byte.is_ascii_graphic() && !br#"?#@"'<>\^`{|}"#.contains(&byte));
        if authority.is_none_or(|rest| rest.is_empty() || rest.starts_with('/'))
            || !plain
            || self.base_url.ends_with('/')
        {
            faults.push("setting base_url: an http or https URL without user, query and trailing slash is expected");
        }
        if self.mrn_system.is_empty() {
            self.mrn_system = format!("{}/NamingSystem/mrn", self.base_url);
        } else if !is_absolute_uri(&self.mrn_system) {
            faults.push(
                "setting mrn_system: an absolute URI is expected, such as https://a.example/mrn or urn:oid:1.2.3",
            );
        }
        if self.page_size.get() > self.page_size_max.get() {
            faults.push("setting page_size: it may not be larger than page_size_max");
        }
        for (url, fault) in [
            (&self.database_url, "setting database_url: sqlite:PATH or postgres://... is expected"),
            (&self.key_database_url, "setting key_database_url: sqlite:PATH or postgres://... is expected"),
        ] {
            let known = ["sqlite:", "postgres://", "postgresql://"].iter().any(|scheme| url.starts_with(scheme));
            if !known {
                faults.push(fault);
            }
        }
        if self.database_url == self.key_database_url {
            faults.push("setting key_database_url: the keys must lie in another database than the data");
        }
        if jiff::tz::TimeZone::get(&self.time_zone).is_err() {
            faults.push("setting time_zone: the IANA name of a time zone is expected, such as Europe/Berlin");
        }
        if faults.is_empty() {
            return Ok(self);
        }
        Err(Error::with_issues(Kind::Invalid, faults.into_iter().map(|text| Issue::error("value", text)).collect()))
    }

    /// Whether the server ends TLS itself.
    pub fn speaks_tls(&self) -> bool {
        !self.tls_cert.is_empty()
    }

    fn tls_faults(&self) -> Option<&'static str> {
        if self.tls_cert.is_empty() != self.tls_key.is_empty() {
            return Some("setting tls_key: tls_cert and tls_key go together");
        }
        if self.speaks_tls() && self.base_url.starts_with("http://") {
            return Some("setting base_url: with tls_cert it begins with https://");
        }
        if !self.speaks_tls() && self.tls_redirect_listen.0.is_some() {
            return Some("setting tls_redirect_listen: without tls_cert there is no TLS to be sent on to");
        }
        None
    }

    /// Path of the base URL, without a trailing slash: `/fhir`; empty when the base is the root.
    pub fn base_path(&self) -> &str {
        path_of(&self.base_url)
    }

    /// Who issues tokens: the base URL without its last `/fhir`.
    pub fn issuer(&self) -> &str {
        self.base_url.strip_suffix("/fhir").unwrap_or(&self.base_url)
    }

    fn providers(&self) -> Result<Vec<outside::Provider>> {
        if self.identity_providers.is_empty() {
            Ok(Vec::new())
        } else {
            outside::load(Path::new(&self.identity_providers))
        }
    }

    /// The client that asks other servers.
    fn fetch(&self) -> Result<fetch::Client> {
        let authorities = (!self.trusted_authorities.is_empty()).then(|| PathBuf::from(&self.trusted_authorities));
        fetch::Client::new(fetch::Settings { private_hosts: self.private_hosts.0.clone(), authorities })
    }

    /// What the authorization server is opened with.
    ///
    /// # Errors
    /// When a file that a setting names cannot be read.
    pub fn oauth(&self) -> Result<Settings> {
        let seconds = |value: u64| i64::try_from(value).unwrap_or(i64::MAX / 1000);
        Ok(Settings {
            issuer: self.issuer().to_owned(),
            base: self.base_url.clone(),
            limits: Limits {
                backend_token_s: seconds(self.token_lifetime_s.get()),
                person_token_s: seconds(self.person_token_lifetime_s.get()),
                session_idle_ms: 1000 * seconds(self.session_idle_s.get()),
                session_max_ms: 1000 * seconds(self.session_max_s.get()),
            },
            staff_factor: self.staff_second_factor == Need::Required,
            registering: self.client_registration,
            fetch: self.fetch()?,
            providers: self.providers()?,
        })
    }

    /// Path of the issuer, without a trailing slash; empty when it is the root.
    pub fn issuer_path(&self) -> &str {
        path_of(self.issuer())
    }

    /// Addresses of the authorization server.
    pub fn endpoints(&self) -> Endpoints {
        let endpoints = Endpoints::of(self.issuer()).published(&self.documentation_url.0, &self.brands_url.0);
        if self.client_registration == Registering::Off { endpoints } else { endpoints.registering() }
    }

    /// The absolute address of the token endpoint.
    pub fn token_url(&self) -> String {
        Endpoints::of(self.issuer()).token
    }
}

fn is_absolute_uri(text: &str) -> bool {
    let plain = |rest: &str| !rest.contains(|c: char| c.is_whitespace() || c.is_control() || c == '|');
    text.split_once(':').is_some_and(|(scheme, rest)| is_scheme(scheme) && !rest.is_empty() && plain(rest))
}

fn path_of(url: &str) -> &str {
    let rest = url.split_once("://").map_or("", |(_, rest)| rest);
    rest.find('/').map_or("", |slash| &rest[slash..])
}

/// The table of settings as Markdown: `docs/configuration.md` and `phial help config`.
pub fn document() -> String {
    let mut out = String::from(
        "# Settings\n\n\
         A setting is given on the command line, else as a variable, else in the file of `--config FILE` (TOML), else \
         it has its default.\nAn unknown or wrong setting stops the start with a message that names it. This page is \
         made by `phial help config`.\n\n\
         | key in the file | variable | default | meaning |\n|---|---|---|---|\n",
    );
    for setting in SETTINGS {
        let default = if setting.default.is_empty() { "(empty)".to_owned() } else { format!("`{}`", setting.default) };
        let _ = writeln!(
            out,
            "| `{}` | `{}` | {default} | {} |",
            setting.key,
            setting.variable(),
            setting.doc.trim().replace('|', "\\|")
        );
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(file: &str, env: &[(&str, &str)]) -> Result<Config> {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let path = dir.path().join("phial.toml");
        std::fs::write(&path, file).expect("the file is written");
        Config::load(Some(&path), env.iter().map(|(k, v)| ((*k).into(), (*v).into())), &[])
    }

    fn faults(result: Result<Config>) -> Vec<String> {
        match result {
            Ok(_) => Vec::new(),
            Err(error) => error.issues.iter().map(|issue| issue.diagnostics.to_string()).collect(),
        }
    }

    #[test]
    fn defaults_stand_and_derived_values_follow_the_address() {
        let config = load("", &[("HOME", "/root")]).expect("defaults are valid");
        assert_eq!(config.base_url, "http://127.0.0.1:8080/fhir");
        assert_eq!(config.base_path(), "/fhir");
        assert_eq!(config.mrn_system, "http://127.0.0.1:8080/fhir/NamingSystem/mrn");
        assert_eq!(config.page_size.size(), 50);
    }

    #[test]
    fn variables_win_over_the_file() {
        let config = load("page_size = 10\nlog = \"debug\"", &[("PHIAL_PAGE_SIZE", "20")]).expect("valid");
        assert_eq!((config.page_size.size(), config.log.as_str()), (20, "debug"));
    }

    #[test]
    fn unknown_and_wrong_settings_are_named_all_at_once() {
        let faults = faults(load(
            "lisen = \"x\"\nlanes = 0\n[limits]\na = 1",
            &[("PHIAL_NO_SUCH", "1"), ("PHIAL_LISTEN", "here"), ("PHIAL_page_size", "7")],
        ));
        let all = faults.join("\n");
        for part in ["lisen (file", "limits (file", "no_such (variable PHIAL_NO_SUCH)", "lanes (file", "from 1 to 64"] {
            assert!(all.contains(part), "{part} in {all}");
        }
        assert!(all.contains("listen (variable PHIAL_LISTEN)") && all.contains("variable PHIAL_page_size"), "{all}");
        assert_eq!(faults.len(), 6, "{all}");
    }

    #[test]
    fn values_that_do_not_fit_together_are_refused() {
        let all = faults(load(
            "base_url = \"https://a.example/fhir/\"\ndatabase_url = \"mysql:x\"\ntime_zone = \"Mars/Olympus\"\n\
             page_size = 20\npage_size_max = 10",
            &[],
        ));
        assert_eq!(all.len(), 4, "{all:?}");
        assert_eq!(faults(load("database_url = \"sqlite:a\"\nkey_database_url = \"sqlite:a\"", &[])).len(), 1);
    }

    #[test]
    fn tls_needs_both_files_and_an_address_that_says_so() {
        let tls = "tls_cert = \"c.pem\"\ntls_key = \"k.pem\"\n";
        assert_eq!(load(tls, &[]).expect("valid").base_url, "https://127.0.0.1:8080/fhir");
        for (file, place) in [
            ("tls_cert = \"c.pem\"".to_owned(), "tls_key"),
            ("tls_key = \"k.pem\"".to_owned(), "tls_key"),
            (format!("{tls}base_url = \"http://a.example/fhir\""), "base_url"),
            ("tls_redirect_listen = \"127.0.0.1:80\"".to_owned(), "tls_redirect_listen"),
            (format!("{tls}tls_redirect_listen = \"here\""), "tls_redirect_listen"),
        ] {
            let all = faults(load(&file, &[]));
            assert!(all.len() == 1 && all[0].contains(place), "{file}: {all:?}");
        }
    }

    #[test]
    fn a_broken_file_names_its_line() {
        for file in ["page_size = 1\nlog = ", "page_size = 1\n= 2\n", "page_size = 1\npage_size = 2\nlog = \"info\""] {
            let all = faults(load(file, &[]));
            assert!(all[0].contains("line 2"), "{file}: {all:?}");
        }
    }

    #[test]
    fn what_is_no_text_in_the_environment_is_named_where_it_is_ours_and_left_alone_elsewhere() {
        use std::os::unix::ffi::OsStringExt;
        let odd = || OsString::from_vec(vec![b'x', 0xff]);
        let env = [("HOME".into(), odd()), (odd(), "1".into())];
        assert!(Config::load(None, env, &[]).is_ok());
        let all = faults(Config::load(None, [("PHIAL_LOG".into(), odd())], &[]));
        assert_eq!(all, ["setting log (variable PHIAL_LOG): it is not UTF-8"]);
    }

    #[test]
    fn addresses_that_would_break_what_they_are_written_into_are_refused() {
        for url in ["http://u:p@a.example/fhir", "http://a\"b/fhir", "http://a.example/f hir", "http://é.example/fhir"]
        {
            let all = faults(load("", &[("PHIAL_BASE_URL", url)]));
            assert!(all.len() == 1 && all[0].contains("base_url") && !all[0].contains(url), "{url}: {all:?}");
        }
        for system in ["mrn", "urn:", "not a uri", "urn:a|b", "1a:b"] {
            let all = faults(load("", &[("PHIAL_MRN_SYSTEM", system)]));
            assert!(all.len() == 1 && all[0].contains("mrn_system"), "{system}: {all:?}");
        }
        assert!(load("", &[("PHIAL_MRN_SYSTEM", "urn:oid:1.2.3")]).is_ok());
    }

    #[test]
    fn the_page_in_docs_is_the_one_of_this_table() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/configuration.md");
        let page = std::fs::read_to_string(path).expect("docs/configuration.md is there");
        assert!(page == document(), "make it anew: phial help config > docs/configuration.md");
    }

    #[test]
    fn every_setting_is_documented_with_its_default() {
        let page = document();
        for setting in SETTINGS {
            assert!(!setting.doc.trim().is_empty() && page.contains(&setting.variable()), "{}", setting.key);
        }
    }
}
