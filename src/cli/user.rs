//! `phial user`: administration of the people who may log in.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use phial::access::Role;
use phial::app::App;
use phial::error::{Error, Kind, Result};
use phial::oauth::NewUser;
use phial::oauth::users::Status;

use super::WithConfig;

#[derive(Subcommand)]
pub enum UserCommand {
    /// Add a user and print a first password, to be changed at the first login.
    Add(AddArgs),
    /// List the users.
    List(WithConfig),
    /// No login and no token of this user works from now on.
    Disable(NameArgs),
    /// Give a new first password, forget the second factor, and let a disabled user in again.
    Reset(NameArgs),
}

#[derive(Args)]
pub struct AddArgs {
    #[command(flatten)]
    with: WithConfig,
    /// Letters, digits and signs of . _ - @ +
    #[arg(long, value_name = "NAME")]
    username: String,
    /// ADMIN, PROVIDER, NURSE, RECEPTIONIST, STAFF, PATIENT or GUARDIAN.
    #[arg(long, value_name = "ROLE")]
    role: String,
    /// The user's own record: `Practitioner/1`, `Patient/2`, `RelatedPerson/3`.
    #[arg(long, value_name = "REFERENCE")]
    fhir_user: Option<String>,
}

#[derive(Args)]
pub struct NameArgs {
    #[command(flatten)]
    with: WithConfig,
    #[arg(value_name = "NAME")]
    username: String,
}

pub async fn run(command: UserCommand) -> Result<ExitCode> {
    let with = match &command {
        UserCommand::Add(args) => &args.with,
        UserCommand::List(with) => with,
        UserCommand::Disable(args) | UserCommand::Reset(args) => &args.with,
    };
    let app = super::open(with).await?;
    let done = perform(&app, &command).await;
    app.close().await;
    done.map(|()| ExitCode::SUCCESS)
}

async fn perform(app: &App, command: &UserCommand) -> Result<()> {
    let users = app.oauth.users();
    let unknown = || Error::new(Kind::NotFound, "there is no such user");
    match command {
        UserCommand::Add(args) => {
            let role = Role::parse(&args.role).ok_or_else(|| Error::invalid("there is no such role"))?;
            let (username, fhir_user) = (args.username.clone(), args.fhir_user.clone());
            let new = NewUser { username, role, fhir_user, password: None, totp_secret: None, demo: false };
            let user = users.add(new).await?;
            let password = users.reset(&user.username).await?.ok_or_else(unknown)?;
            println!("{{\"username\": \"{}\", \"password\": \"{}\"}}", user.username, *password);
        }
        UserCommand::List(_) => {
            for user in users.list().await? {
                let status = if user.status == Status::Active { "active" } else { "disabled" };
                let factor = if user.device.is_some() { "second factor" } else { "no second factor" };
                let record = user.fhir_user.as_deref().unwrap_or("-");
                println!("{}\t{}\t{record}\t{status}\t{factor}", user.username, user.role.name());
            }
        }
        UserCommand::Disable(args) => {
            if !users.disable(&args.username).await? {
                return Err(unknown());
            }
        }
        UserCommand::Reset(args) => {
            let password = users.reset(&args.username).await?.ok_or_else(unknown)?;
            println!("{{\"username\": \"{}\", \"password\": \"{}\"}}", args.username, *password);
        }
    }
    Ok(())
}
