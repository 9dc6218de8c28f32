//! The commands. Each builds a [`Config`], opens an [`App`] and hands over to the room that does the work.

mod admin;
mod check;
mod log;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use phial::app::{App, Config, config};
use phial::error::{Error, Result};
use phial::fetch;
use phial::http::{SAMPLE_PLACE, Sample};
use phial::jobs::{credentials, demo, import};
use phial::selftest;
use phial::world::World;

/// A FHIR R4 server: sealed at rest, found by blind search, every access on record.
#[derive(Parser)]
#[command(name = "phial", version, disable_help_subcommand = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serve FHIR.
    Serve(WithConfig),
    /// Serve a synthetic population from a folder of its own, making it on the first start.
    Demo(DemoArgs),
    /// What to type to log in to a demonstration: user name, password, and the code of this moment.
    DemoLogin(DemoLoginArgs),
    /// Check a running server as testers would.
    #[command(subcommand)]
    Selftest(SelftestCommand),
    /// Load Bundles (JSON, XML), NDJSON and folders of them, gzip too.
    Import(ImportArgs),
    /// Users, clients, keys, sessions, consents.
    Admin(admin::AdminArgs),
    /// Ask a running server for an access token, as a registered client, and print it.
    Token(TokenArgs),
    /// The audit trail.
    #[command(subcommand)]
    Audit(AuditCommand),
    /// Bring the databases to this version's schema.
    Migrate(WithConfig),
    /// Check configuration, keyring, key database and database, and say what is wrong.
    Doctor(DoctorArgs),
    /// Explain a topic (`config`: every setting with its default).
    Help { topic: Option<Topic> },
}

#[derive(Args)]
struct WithConfig {
    /// TOML file of settings; `PHIAL_*` variables win over it.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

#[derive(Args)]
struct DoctorArgs {
    #[command(flatten)]
    with: WithConfig,
    /// Also go through every resource and what stands beside it: whether its year, terms, postings, compartment, number,
    /// domain row and line of the version log are those that were written; and whether clients, users and sessions open.
    #[arg(long)]
    index: bool,
}

#[derive(Args)]
struct DemoArgs {
    /// Folder for the databases, the keyring and demo.json.
    #[arg(long, value_name = "DIR", default_value = "phial-demo")]
    data: PathBuf,
    /// Address and port to listen on.
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:8080")]
    listen: SocketAddr,
    /// Patients to make on the first start.
    #[arg(long, value_name = "N", default_value_t = 120)]
    patients: usize,
    /// The same seed gives the same data.
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// The library of the sample app, from the npm package fhirclient.
    #[arg(long, value_name = "FILE", default_value = "target/npm/fhirclient/build/fhir-client.pure.min.js")]
    fhirclient: PathBuf,
}

#[derive(Args)]
struct DemoLoginArgs {
    /// Data folder of the demonstration.
    #[arg(long, value_name = "DIR", default_value = "phial-demo")]
    data: PathBuf,
    /// `provider`, `nurse`, `receptionist`, `staff`, `admin`, `patient` or `guardian`.
    #[arg(default_value = "provider")]
    user: String,
}

#[derive(Subcommand)]
enum SelftestCommand {
    /// Login, launches, tokens: every rule of the authorization server, with the clients and users of a demo.json.
    Smart(SelftestArgs),
}

#[derive(Args)]
struct SelftestArgs {
    /// Data folder of the demonstration that is served.
    #[arg(long, value_name = "DIR", default_value = "phial-demo")]
    data: PathBuf,
    /// FHIR base URL, when not the one in demo.json.
    #[arg(long, value_name = "URL")]
    url: Option<String>,
    /// PEM file of the authority of the server's certificate, trusted in place of the public ones.
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// Where to keep the report as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Where to keep the report as a page.
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
}

#[derive(Args)]
struct ImportArgs {
    #[command(flatten)]
    with: WithConfig,
    /// Files and folders.
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,
}

#[derive(Args)]
struct TokenArgs {
    /// What `phial admin clients add --json` printed.
    #[arg(value_name = "FILE", required_unless_present = "data")]
    client: Option<PathBuf>,
    /// Data folder of a demonstration, instead of a file.
    #[arg(long, value_name = "DIR", conflicts_with = "client")]
    data: Option<PathBuf>,
    /// Where to ask, when not at the token_url of the file.
    #[arg(long, value_name = "URL")]
    token_url: Option<String>,
    /// PEM file of the authority of the server's certificate, trusted besides the public ones.
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
}

#[derive(Subcommand)]
enum AuditCommand {
    /// Read every entry back and verify the instance chains.
    Verify(WithConfig),
}

#[derive(Clone, clap::ValueEnum)]
enum Topic {
    Config,
}

/// How long a thread for long work waits for more.
const THREADS_KEPT: Duration = Duration::from_secs(2);

/// Runs the command line; errors go to standard error, one line each.
pub fn run() -> ExitCode {
    log::quiet_panics();
    let cli = Cli::parse();
    #[cfg(feature = "bench-switches")]
    eprintln!("{}", phial::world::bench::warning());
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    // Each thread for long work keeps a heap and the workspace of a compressor as long as it lives.
    let runtime = match runtime.enable_all().thread_keep_alive(THREADS_KEPT).build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("phial: the runtime does not start: {error}");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(command(cli.command)) {
        Ok(code) => code,
        Err(error) => {
            for issue in &error.issues {
                eprintln!("phial: {}", issue.diagnostics);
            }
            let mut cause = error.cause().map(|cause| cause as &dyn std::error::Error);
            while let Some(current) = cause {
                eprintln!("phial:   because {current}");
                cause = current.source();
            }
            ExitCode::FAILURE
        }
    }
}

async fn command(command: Command) -> Result<ExitCode> {
    match command {
        Command::Serve(with) => serve(&with).await,
        Command::Demo(args) => run_demo(args).await,
        Command::DemoLogin(args) => {
            print!("{}", demo::login_of(&World::real(), &args.data, &args.user)?);
            Ok(ExitCode::SUCCESS)
        }
        Command::Selftest(SelftestCommand::Smart(args)) => selftest_smart(&args),
        Command::Import(args) => run_import(args).await,
        Command::Admin(args) => admin::run(args).await,
        Command::Token(args) => token(&args).await,
        Command::Audit(AuditCommand::Verify(with)) => {
            let app = open(&with).await?;
            let code = check::audit_verify(&app).await;
            app.close().await;
            code
        }
        Command::Migrate(with) => {
            open(&with).await?.close().await;
            println!("The databases have this version's schema.");
            Ok(ExitCode::SUCCESS)
        }
        Command::Doctor(args) => check::doctor(&settings(&args.with)?, args.index).await,
        Command::Help { topic } => {
            help(topic.as_ref());
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn help(topic: Option<&Topic>) {
    match topic {
        Some(Topic::Config) => print!("{}", config::document()),
        None => {
            let mut command = <Cli as clap::CommandFactory>::command();
            print!("{}", command.render_long_help());
        }
    }
}

fn load(file: Option<&Path>, set: &[(&'static str, String)]) -> Result<Config> {
    let config = Config::load(file, std::env::vars_os(), set)?;
    log::start(&config)?;
    Ok(config)
}

fn settings(with: &WithConfig) -> Result<Config> {
    load(with.config.as_deref(), &[])
}

async fn open(with: &WithConfig) -> Result<App> {
    App::open(settings(with)?, Arc::new(World::real())).await
}

async fn serve(with: &WithConfig) -> Result<ExitCode> {
    let app = open(with).await?;
    if demo::is_demo(&app).await? {
        app.close().await;
        return Err(Error::invalid(
            "this data was made by `phial demo` and its credentials are public: serve it with `phial demo`, or start on an empty database",
        ));
    }
    phial::http::serve(app, None).await?;
    Ok(ExitCode::SUCCESS)
}

async fn run_demo(args: DemoArgs) -> Result<ExitCode> {
    let at = |name: &str| args.data.join(name).display().to_string();
    let set = [
        ("listen", args.listen.to_string()),
        ("database_url", format!("sqlite:{}", at("phial.db"))),
        ("key_database_url", format!("sqlite:{}", at("keys.db"))),
        ("keyring", at("keyring")),
        // Apps that somebody writes and tries against it are served from anywhere.
        ("cors_origins", "*".to_owned()),
        // Nor do checks and loads from the own machine wait for anybody.
        ("rate_free_addresses", "127.0.0.0/8 ::1".to_owned()),
        ("rate_user_max", "0".to_owned()),
        ("rate_client_max", "0".to_owned()),
    ];
    demo::folder(&args.data, &["phial.db", "keys.db"])?;
    let app = App::open(load(None, &set)?, Arc::new(World::real())).await?;
    let asked = demo::Demo { data: args.data, patients: args.patients, seed: args.seed };
    let prepared = demo::prepare(&app, &asked, SAMPLE_PLACE).await?;
    println!("{}", prepared.text);
    let library = match std::fs::read(&args.fhirclient) {
        Ok(bytes) => Some(bytes.into()),
        Err(error) => {
            println!(
                "The sample app is without its library ({}: {error}): `make app` fetches it.",
                args.fhirclient.display()
            );
            None
        }
    };
    phial::http::serve(app, Some(Sample { client_id: prepared.sample_client_id, library })).await?;
    Ok(ExitCode::SUCCESS)
}

fn selftest_smart(args: &SelftestArgs) -> Result<ExitCode> {
    let mut demo = read_json(&args.data.join("demo.json"))?;
    if let Some(url) = &args.url {
        demo["base_url"] = serde_json::json!(url);
    }
    let report = selftest::smart(demo, args.ca.as_deref(), |finding| match &finding.fault {
        None => println!("passed  {}: {}", finding.area, finding.title),
        Some(fault) => println!("FAILED  {}: {}\n        {fault}", finding.area, finding.title),
    })?;
    for (file, text) in [(&args.json, format!("{:#}\n", report.json())), (&args.html, report.html())] {
        if let Some(file) = file {
            std::fs::write(file, text).map_err(|e| Error::invalid(format!("{}: {e}", file.display())))?;
        }
    }
    println!("{} checks, {} failed.", report.findings.len(), report.failures());
    Ok(if report.failures() == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn run_import(args: ImportArgs) -> Result<ExitCode> {
    let app = open(&args.with).await?;
    let summary = import::run(&app, &args.paths).await;
    app.close().await;
    Ok(if summary?.refused == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn token(args: &TokenArgs) -> Result<ExitCode> {
    let (client, own_url) = match (&args.data, &args.client) {
        (Some(data), _) => demo::described_client(data)?,
        (None, Some(file)) => {
            let client = read_json(file)?;
            let url = client["token_url"].as_str().unwrap_or_default().to_owned();
            (client, url)
        }
        (None, None) => return Err(Error::invalid("a file or --data is expected")),
    };
    let url = args.token_url.as_deref().unwrap_or(&own_url);
    let fetch = fetch::Client::new(fetch::Settings { authorities: args.ca.clone(), ..Default::default() })?;
    println!("{}", *credentials::fetch_token(&World::real(), &client, url, &fetch).await?);
    Ok(ExitCode::SUCCESS)
}

fn read_json(file: &Path) -> Result<serde_json::Value> {
    let bytes = std::fs::read(file).map_err(|e| Error::invalid(format!("{}: {e}", file.display())))?;
    serde_json::from_slice(&bytes).map_err(|e| Error::invalid(format!("{}: {e}", file.display())))
}
