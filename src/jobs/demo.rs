//! `phial demo`: a synthetic population and credentials in a folder of their own. The first start makes them, a start
//! after an interrupted one completes them, every other one just serves.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use jiff::civil::Date;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::cast;
use super::credentials::{self, NewClient};
use super::import::source::Origin;
use super::import::unit::{Piece, Unit};
use super::import::{Give, pipeline};
use super::population::Plan;
use super::progress::Progress;
use crate::app::App;
use crate::error::{Error, Result};
use crate::fhir::json::Node;
use crate::oauth::{By, ClientKind, totp};
use crate::world::World;

/// Everything a system may do: what the demonstration's backend client is registered for.
const SCOPES: &str = "system/*.cruds";
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

/// A demonstration that can be served.
pub struct Prepared {
    /// To be printed: addresses, and how to get a token.
    pub text: String,
    /// The sample app as it is registered.
    pub sample_client_id: String,
}

/// Makes the population and the credentials unless the data folder has them already. `sample_place` is where the sample
/// app is served, below the issuer.
///
/// # Errors
/// Whatever stopped the load.
pub async fn prepare(app: &App, demo: &Demo, sample_place: &str) -> Result<Prepared> {
    let mut state = state(app, demo)?;
    let file = demo.data.join(DESCRIPTION);
    let described = read(&file)?.unwrap_or_default();
    let client = client(app, &demo.data, &described).await?;
    let plan = state.plan()?;
    let config = &app.config;
    let mut description = json!({
        "base_url": config.base_url,
        "issuer": config.issuer(),
        "token_url": credentials::token_url(app),
        "clients": [client],
        "users": cast::users(&described, &plan)?,
        "patients": described["patients"],
    });
    // Before anybody is registered: what an interrupted start leaves behind must be known.
    write(&file, &description)?;
    let clients = cast::clients(app, &described, sample_place).await?;
    let sample_client_id = clients[0]["client_id"].as_str().unwrap_or_default().to_owned();
    if let Node::Array(all) = &mut description["clients"] {
        all.extend(clients);
    }
    cast::add_users(app, description["users"].as_array().map_or(&[], Vec::as_slice)).await?;
    write(&file, &description)?;
    if !state.complete {
        load(app, &plan)?;
        state.complete = true;
        write(&demo.data.join(STATE), &json!(state))?;
    }
    if !description["patients"].is_array() {
        description["patients"] = plan.bundles().filter_map(|bundle| patient_id(&bundle)).collect();
        write(&file, &description)?;
    }
    Ok(Prepared { text: greeting(app, &file, &state, demo, sample_place), sample_client_id })
}

/// Name, password and present code of a described user, to be typed at a login.
///
/// # Errors
/// When there is no such file or user.
pub fn login_of(world: &World, data: &Path, username: &str) -> Result<String> {
    let description = read(&data.join(DESCRIPTION))?
        .ok_or_else(|| Error::invalid(format!("there is no {DESCRIPTION} in {}", data.display())))?;
    let users = description["users"].as_array().map_or(&[][..], Vec::as_slice);
    let Some(user) = users.iter().find(|user| user["username"] == username) else {
        let names: Vec<&str> = users.iter().filter_map(|user| user["username"].as_str()).collect();
        return Err(Error::invalid(format!(
            "the demonstration has no user {username}: there are {}",
            names.join(", ")
        )));
    };
    let mut out = format!("user name  {username}\npassword   {}\n", user["password"].as_str().unwrap_or_default());
    if let Some(secret) = user["totp_secret"].as_str().and_then(totp::from_base32) {
        let now = world.now();
        let left = totp::STEP_SECONDS - now.seconds().rem_euclid(totp::STEP_SECONDS);
        out += &format!("code       {} (changes in {left} s; each counts once)\n", totp::code_at(&secret, now));
    }
    Ok(out)
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

/// The registered client: that of `demo.json`, or a new one.
async fn client(app: &App, data: &Path, described: &Node) -> Result<Node> {
    if let Some(client) = described["clients"].get(0).cloned() {
        let id = client["client_id"].as_str().unwrap_or_default();
        if app.oauth.clients().get(id).await?.is_some() {
            return Ok(client);
        }
    }
    let asked = NewClient { scopes: SCOPES.into(), ..cast::blank("Demonstration", ClientKind::Backend) };
    let mut client = credentials::add_client(app, &By::server(), asked).await?;
    if let Node::Object(members) = &mut client {
        // Stands once for all clients, beside them.
        members.shift_remove("token_url");
    }
    // Before the load: an interrupted first start must not leave a client behind that nobody knows.
    write(&data.join(DESCRIPTION), &json!({"token_url": credentials::token_url(app), "clients": [client]}))?;
    Ok(client)
}

fn load(app: &App, plan: &Plan) -> Result<()> {
    let progress = Progress::new(&app.world, "population", plan.bundle_count() as u64);
    let done = std::sync::atomic::AtomicU64::new(0);
    let produce = |give: Give<'_>| {
        for (n, mut bundle) in plan.bundles().enumerate() {
            let origin = Origin::of(format!("population bundle {n}"));
            let Node::Array(entries) = bundle["entry"].take() else { continue };
            let piece = |(n, entry)| Piece { origin: origin.entry(n), entry };
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

fn greeting(app: &App, file: &Path, state: &State, demo: &Demo, sample_place: &str) -> String {
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
         \x20 sample app   {}{sample_place}\n\
         \x20 launch page  {}/launch\n\
         \x20 credentials  {} (for people, apps and tests; this demonstration's alone)\n\n\
         Open the sample app and log in as a clinician; name, password and code are given by:\n\
         \x20 {} demo-login --data {data}\n\n\
         Or ask from another terminal:\n\
         \x20 TOKEN=$({} token --data {data})\n\
         \x20 curl -H \"Authorization: Bearer $TOKEN\" '{base}/Patient?_count=3'\n",
        state.patients,
        credentials::token_url(app),
        app.config.issuer(),
        app.config.issuer(),
        file.display(),
        program(),
        program(),
    )
}

/// How this program was called, for commands that can be pasted.
fn program() -> String {
    std::env::args().next().unwrap_or_else(|| "phial".into())
}
