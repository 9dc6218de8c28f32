//! `phial admin`: users, invitations, clients, keys, providers, reviews, sessions, consents. What it does is on record with the operator's
//! name. Prints lines for people, or JSON.

mod clients;
mod keys;
mod open;
mod operator;
mod patients;
mod print;
mod providers;
mod reviews;
mod users;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use phial::app::App;
use phial::error::{Error, Kind, Result};
use phial::oauth::By;

use super::WithConfig;
use print::Said;

#[derive(Args)]
pub struct AdminArgs {
    /// TOML file of settings; `PHIAL_*` variables win over it.
    #[arg(long, value_name = "FILE", global = true)]
    config: Option<PathBuf>,
    /// Print JSON.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    what: AdminCommand,
}

#[derive(Subcommand)]
enum AdminCommand {
    /// Who may log in, and as what.
    #[command(subcommand)]
    Users(users::UsersCommand),
    /// One-time links that are open: invitations and resets.
    #[command(subcommand)]
    Invitations(users::InvitationsCommand),
    /// Apps and services that may ask for tokens.
    #[command(subcommand)]
    Clients(clients::ClientsCommand),
    /// Keys: those that tokens are signed with, and those of the vault.
    #[command(subcommand)]
    Keys(keys::KeysCommand),
    /// Records of patients: erasing them.
    #[command(subcommand)]
    Patients(patients::PatientsCommand),
    /// Identity providers at which people may log in.
    #[command(subcommand)]
    Providers(providers::ProvidersCommand),
    /// Emergency accesses that wait to be reviewed.
    #[command(subcommand)]
    Reviews(reviews::ReviewsCommand),
    /// Where people are logged in.
    #[command(subcommand)]
    Sessions(open::SessionsCommand),
    /// What people have allowed apps.
    #[command(subcommand)]
    Consents(open::ConsentsCommand),
}

/// An opened installation, and in whose name it is administered.
struct Office {
    app: App,
    by: By,
}

/// There is no such thing.
fn unknown(what: &str) -> Error {
    Error::new(Kind::NotFound, format!("there is no such {what}"))
}

pub async fn run(args: AdminArgs) -> Result<ExitCode> {
    let with = WithConfig { config: args.config };
    if let AdminCommand::Keys(command) = &args.what
        && let Some(said) = keys::without_server(command, &with).await?
    {
        said.print(args.json);
        return Ok(ExitCode::SUCCESS);
    }
    let app = super::open(&with).await?;
    let office = Office { app, by: By::operator(&operator::name()) };
    let said = perform(&office, args.what).await;
    office.app.close().await;
    said?.print(args.json);
    Ok(ExitCode::SUCCESS)
}

async fn perform(office: &Office, command: AdminCommand) -> Result<Said> {
    match command {
        AdminCommand::Users(command) => users::run(office, command).await,
        AdminCommand::Invitations(command) => users::invitations(office, command).await,
        AdminCommand::Clients(command) => clients::run(office, command).await,
        AdminCommand::Keys(command) => keys::run(office, &command).await,
        AdminCommand::Patients(command) => patients::run(office, command).await,
        AdminCommand::Providers(command) => providers::run(office, &command).await,
        AdminCommand::Reviews(command) => reviews::run(office, command).await,
        AdminCommand::Sessions(command) => open::sessions(office, command).await,
        AdminCommand::Consents(command) => open::consents(office, command).await,
    }
}
