//! `phial demo`: a synthetic population and credentials in a folder of their own. The first start makes them, a start
//! after an interrupted one completes them, every other one just serves.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use jiff::civil::Date;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::credentials::{self, NewClient};
use super::import::source::Origin;
use super::import::unit::{Piece, Unit};
use super::import::{Give, pipeline};
use super::population::Plan;
use super::progress::Progress;
use crate::access::Role;
use crate::app::App;
use crate::error::{Error, Result};
use crate::fhir::json::Node;
use crate::oauth::users::random_password;
use crate::oauth::{ClientKind, NewUser, totp};

/// Everything a system may do: what the demonstration's backend client is registered for.
const SCOPES: &str = "system/*.cruds";
/// And its apps.
const APP_SCOPES: &str = "openid fhirUser profile launch launch/patient launch/encounter offline_access online_access \
                          patient/*.cruds user/*.cruds";
/// Where the apps are: conformance tests and a sample on this machine.
const REDIRECTS: [&str; 4] = [
    "http://127.0.0.1:4567/custom/smart/redirect",
    "http://127.0.0.1:4567/custom/smart_stu2/redirect",
    "http://127.0.0.1:4567/custom/smart_stu2_2/redirect",
    "http://127.0.0.1:8000/callback",
];
const LAUNCH: &str = "http://127.0.0.1:4567/custom/smart/launch";
/// Bundles of the population that are looked through for the users' records.
const RESOURCES_LOOKED_AT: usize = 60;
const DESCRIPTION: &str = "demo.json";
const STATE: &str = "population.json";

/// What `phial demo` was asked for.
pub struct Demo {
    /// Holds the databases, the keyring and `demo.json`.
    pub data: PathBuf,
    pub patients: usize,
    pub seed: u64,
}

/// What the folder holds, or will hold when the load is complete.
#[derive(Clone, Serialize, Deserialize)]
struct State {
    seed: u64,
    patients: usize,
    /// The day the population was made for: `2026-01-31`.
    today: String,
    complete: bool,
}

impl State {
    fn plan(&self) -> Result<Plan> {
        let today: Date = self.today.parse().map_err(|e| Error::invalid(format!("{STATE}: no date")).caused_by(e))?;
        Ok(Plan { seed: self.seed, patients: self.patients, today })
    }
}

/// Makes the data folder (0700) and the database files (0600), unless they are there. To be called before the
/// databases are opened.
///
/// # Errors
/// What the file system has against it.
pub fn folder(data: &Path, databases: &[&str]) -> Result<()> {
    let failed = |e: io::Error| Error::invalid(format!("the data folder {}: {e}", data.display()));
    fs::DirBuilder::new().recursive(true).mode(0o700).create(data).map_err(failed)?;
    fs::set_permissions(data, fs::Permissions::from_mode(0o700)).map_err(failed)?;
    for name in databases {
        // SQLite gives its journal files the mode of the database file.
        OpenOptions::new().append(true).create(true).mode(0o600).open(data.join(name)).map_err(failed)?;
    }
    Ok(())
}

/// Makes the population and the credentials unless the data folder has them already, and gives the text to print
/// (addresses, and how to get a token).
///
/// # Errors
/// Whatever stopped the load.
pub async fn prepare(app: &App, demo: &Demo) -> Result<String> {
    let mut state = state(app, demo)?;
    let file = demo.data.join(DESCRIPTION);
    let described = read(&file)?.unwrap_or_default();
    let clients = clients(app, &demo.data, &described).await?;
    let plan = state.plan()?;
    if !state.complete {
        load(app, &plan)?;
        state.complete = true;
        write(&demo.data.join(STATE), &json!(state))?;
    }
    let patients = match &described["patients"] {
        known @ Node::Array(_) => known.clone(),
        _ => plan.bundles().filter_map(|bundle| patient_id(&bundle)).collect(),
    };
    let users = users(app, &plan, &described).await?;
    let config = &app.config;
    let description = json!({
        "base_url": config.base_url,
        "issuer": config.issuer(),
        "token_url": credentials::token_url(app),
        "clients": clients,
        "users": users,
        "patients": patients,
    });
    write(&file, &description)?;
    Ok(greeting(app, &file, &state, demo))
}

/// Whether a database was filled by `phial demo`: `phial serve` refuses to start on its public credentials.
///
/// # Errors
/// When the database does not answer.
pub async fn is_demo(app: &App) -> Result<bool> {
    Ok(app.oauth.clients().any_demo().await? || app.oauth.users().any_demo().await?)
}

/// The client that `DIR/demo.json` describes, for `phial token --data DIR`, and the token endpoint.
///
/// # Errors
/// When there is no such file or it is not ours.
pub fn described_client(data: &Path) -> Result<(Node, String)> {
    let description = read(&data.join(DESCRIPTION))?
        .ok_or_else(|| Error::invalid(format!("there is no {DESCRIPTION} in {}", data.display())))?;
    let token_url = description["token_url"].as_str().map(str::to_owned);
    match (description["clients"].get(0), token_url) {
        (Some(client), Some(url)) => Ok((client.clone(), url)),
        _ => Err(Error::invalid(format!("{DESCRIPTION} in {} describes no client", data.display()))),
    }
}

fn state(app: &App, demo: &Demo) -> Result<State> {
    let file = demo.data.join(STATE);
    if let Some(stored) = read(&file)? {
        let text = format!("{} is not what this program writes", file.display());
        return serde_json::from_value(stored).map_err(|e| Error::invalid(text).caused_by(e));
    }
    let now = jiff::Timestamp::from_millisecond(app.world.now().0).map_err(Error::internal)?;
    let today = now.to_zoned(jiff::tz::TimeZone::UTC).date().to_string();
    let state = State { seed: demo.seed, patients: demo.patients, today, complete: false };
    write(&file, &json!(state))?;
    Ok(state)
}

/// The registered clients: those of `demo.json`, or new ones; the backend client first.
async fn clients(app: &App, data: &Path, described: &Node) -> Result<Vec<Node>> {
    let known = described["clients"].as_array().cloned().unwrap_or_default();
    let mut clients = Vec::new();
    let kinds = [
        ("Demonstration", ClientKind::Backend),
        ("Demonstration app", ClientKind::Public),
        ("Demonstration app with a secret", ClientKind::ConfidentialSymmetric),
        ("Demonstration app with a key", ClientKind::ConfidentialAsymmetric),
    ];
    for (name, kind) in kinds {
        let word = kind.to_string();
        let own = known.iter().find(|client| client["kind"] == word.as_str());
        let id = own.and_then(|client| client["client_id"].as_str()).unwrap_or_default();
        if let Some(own) = own.filter(|_| !id.is_empty())
            && app.oauth.clients().get(id).await?.is_some()
        {
            clients.push(own.clone());
            continue;
        }
        let has_users = kind != ClientKind::Backend;
        let asked = NewClient {
            client_id: None,
            name: name.into(),
            kind,
            scopes: if has_users { APP_SCOPES } else { SCOPES }.into(),
            jwks: None,
            redirect_uris: REDIRECTS.iter().filter(|_| has_users).map(|uri| (*uri).to_owned()).collect(),
            launch_uri: has_users.then(|| LAUNCH.to_owned()),
            ehr: !has_users,
            demo: true,
        };
        let mut client = credentials::add_client(app, asked).await?;
        if let Node::Object(members) = &mut client {
            // Stands once for all clients, beside them.
            members.shift_remove("token_url");
        }
        clients.push(client);
        // Before the load: an interrupted first start must not leave a client behind that nobody knows.
        write(&data.join(DESCRIPTION), &json!({"token_url": credentials::token_url(app), "clients": clients}))?;
    }
    Ok(clients)
}

/// One user of every role, tied to records of the population, each with a password of this folder's alone: those of
/// `demo.json` as far as they are registered, else new ones.
async fn users(app: &App, plan: &Plan, described: &Node) -> Result<Vec<Node>> {
    let known = described["users"].as_array().cloned().unwrap_or_default();
    let resources: Vec<Node> = plan.bundles().take(RESOURCES_LOOKED_AT).flat_map(resources_of).collect();
    let of = |kind: &str, n: usize| {
        let mut all = resources.iter().filter(|one| one["resourceType"] == kind);
        all.nth(n).and_then(|one| one["id"].as_str()).map(|id| format!("{kind}/{id}"))
    };
    let general = resources.iter().find(|one| one["resourceType"] == "Patient");
    let doctor = general.and_then(|one| one["generalPractitioner"][0]["reference"].as_str()).map(str::to_owned);
    let mut users = Vec::new();
    for (username, role, record) in [
        ("admin", Role::Admin, None),
        ("doctor", Role::Provider, doctor),
        ("nurse", Role::Nurse, of("Practitioner", 1)),
        ("reception", Role::Receptionist, of("Practitioner", 2)),
        ("staff", Role::Staff, of("Practitioner", 3)),
        ("patient", Role::Patient, of("Patient", 0)),
        ("guardian", Role::Guardian, of("RelatedPerson", 0)),
    ] {
        let registered = app.oauth.users().get(username).await?.is_some();
        if let Some(own) = known.iter().find(|user| user["username"] == username).filter(|_| registered) {
            users.push(own.clone());
            continue;
        }
        if registered || (record.is_none() && !role.is_staff()) {
            // A start that was interrupted between the two; or a population without a child.
            continue;
        }
        let password = random_password();
        let secret = role.is_staff().then(totp::secret);
        let new = NewUser {
            username: username.into(),
            role,
            fhir_user: record.clone(),
            password: Some(password.clone()),
            totp_secret: secret.as_ref().map(|secret| secret.to_vec()),
            demo: true,
        };
        app.oauth.users().add(new).await?;
        users.push(json!({
            "username": username,
            "password": *password,
            "role": role.name(),
            "fhir_user": record,
            "totp_secret": secret.map(|secret| totp::base32(&secret)),
        }));
    }
    Ok(users)
}

fn resources_of(mut bundle: Node) -> Vec<Node> {
    let Node::Array(entries) = bundle["entry"].take() else { return Vec::new() };
    entries.into_iter().map(|mut entry| entry["resource"].take()).collect()
}

fn load(app: &App, plan: &Plan) -> Result<()> {
    let progress = Progress::new(&app.world, "population", plan.bundle_count() as u64);
    let done = std::sync::atomic::AtomicU64::new(0);
    let produce = |give: Give<'_>| {
        for (n, mut bundle) in plan.bundles().enumerate() {
            let origin = Origin { file: format!("population bundle {n}").into(), line: None, entry: None };
            let Node::Array(entries) = bundle["entry"].take() else { continue };
            let piece = |(n, entry)| Piece { origin: Origin { entry: Some(n), ..origin.clone() }, entry };
            let pieces = entries.into_iter().enumerate().map(piece).collect();
            if !give(Unit::Transaction { origin, pieces }) {
                return;
            }
            done.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        }
    };
    let position = || done.load(std::sync::atomic::Ordering::Relaxed);
    let tallies = pipeline(app, "demo", &progress, &produce, &position)?;
    progress.finish();
    if tallies.refused() > 0 {
        return Err(Error::internal("the server refused a part of its own population"));
    }
    eprintln!("population: {} resources of {} patients in {:.1} s", tallies.done, plan.patients, progress.seconds());
    Ok(())
}

fn patient_id(bundle: &Node) -> Option<Node> {
    let entries = bundle["entry"].as_array()?;
    let patient = entries.iter().map(|entry| &entry["resource"]).find(|one| one["resourceType"] == "Patient")?;
    Some(patient["id"].clone())
}

fn read(file: &Path) -> Result<Option<Node>> {
    let unreadable = |e: &dyn std::fmt::Display| Error::invalid(format!("{}: {e}", file.display()));
    match fs::read(file) {
        Ok(bytes) => serde_json::from_slice(&bytes).map(Some).map_err(|e| unreadable(&e)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(unreadable(&error)),
    }
}

/// Writes a file of mode 0600 as a whole: what was there before stays until all of it is on the disk.
fn write(file: &Path, content: &Node) -> Result<()> {
    let failed = |e: io::Error| Error::invalid(format!("{}: {e}", file.display()));
    let new = file.with_extension("new");
    let text = serde_json::to_vec_pretty(content).map_err(Error::internal)?;
    let mut open = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new).map_err(failed)?;
    open.write_all(&text).and_then(|()| open.sync_all()).map_err(failed)?;
    fs::rename(&new, file).map_err(failed)
}

fn greeting(app: &App, file: &Path, state: &State, demo: &Demo) -> String {
    let base = &app.config.base_url;
    let data = demo.data.display();
    let mut out = String::new();
    if (state.patients, state.seed) != (demo.patients, demo.seed) {
        out += &format!(
            "{data} holds {} patients of seed {}: it is served as it is. Give --data another folder for other data.\n",
            state.patients, state.seed
        );
    }
    out + &format!(
        "\nPhial serves {} synthetic patients.\n\
         \x20 FHIR base    {base}\n\
         \x20 metadata     {base}/metadata\n\
         \x20 token        {}\n\
         \x20 log in       {}/account\n\
         \x20 launch       {}/launch\n\
         \x20 credentials  {} (clients and users of every role; this demonstration's alone)\n\n\
         Try it from another terminal:\n\
         \x20 TOKEN=$({} token --data {data})\n\
         \x20 curl -H \"Authorization: Bearer $TOKEN\" '{base}/Patient?_count=3'\n",
        state.patients,
        credentials::token_url(app),
        app.config.issuer(),
        app.config.issuer(),
        file.display(),
        program(),
    )
}

/// How this program was called, for commands that can be pasted.
fn program() -> String {
    std::env::args().next().unwrap_or_else(|| "phial".into())
}
