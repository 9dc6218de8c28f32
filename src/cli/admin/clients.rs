//! `phial admin clients`.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use phial::error::Result;
use phial::jobs::credentials;
use phial::oauth::{Changed, Client, ClientKind, Waiting};
use serde_json::{Value, json};

use super::print::Said;
use super::{Office, unknown};
use crate::cli::read_json;

#[derive(Subcommand)]
pub enum ClientsCommand {
    /// List the clients.
    List,
    /// Register a client and print what it needs to ask for tokens; `--json > FILE` keeps that for `phial token`. For an
    /// asymmetric client without --jwks a key pair is made; its private half, like the secret of a symmetric client, is in
    /// what is printed and nowhere else.
    Add(AddArgs),
    /// Give it no more tokens, and end what people have allowed it.
    Disable(IdArgs),
    /// Give it tokens again.
    Enable(IdArgs),
    /// Give it a new secret or key pair, printed once; what it had no longer counts.
    RotateSecret(RotateArgs),
    /// Forget it, and end what people have allowed it.
    Remove(IdArgs),
    /// List those that have registered themselves and wait to be approved, and what waits to be changed of those that
    /// were: each with its old and its new value.
    Pending,
    /// Let one that waits ask for tokens.
    Approve(ApproveArgs),
    /// Turn one that waits away.
    Reject(IdArgs),
    /// Print a token with which one app may register itself.
    RegistrationToken,
}

#[derive(Args)]
pub struct IdArgs {
    #[arg(value_name = "CLIENT_ID")]
    id: String,
}

#[derive(Args)]
pub struct ApproveArgs {
    #[arg(value_name = "CLIENT_ID")]
    id: String,
    /// What `pending` gives as seen: it is not approved when the app asks for something else by now.
    #[arg(long, value_name = "HASH")]
    seen: Option<String>,
}

#[derive(Args)]
pub struct RotateArgs {
    #[arg(value_name = "CLIENT_ID")]
    id: String,
    /// File with its new public JWK Set.
    #[arg(long, value_name = "FILE")]
    jwks: Option<PathBuf>,
}

#[derive(Clone, clap::ValueEnum)]
enum KindOfClient {
    Backend,
    Public,
    ConfidentialSymmetric,
    ConfidentialAsymmetric,
}

#[derive(Args)]
pub struct AddArgs {
    /// How it proves who it is, and whether it has users.
    #[arg(long, value_enum, default_value = "backend")]
    kind: KindOfClient,
    /// Where an app with users gets its codes; may be given more than once.
    #[arg(long, value_name = "URI")]
    redirect_uri: Vec<String>,
    /// Where an EHR opens the app.
    #[arg(long, value_name = "URI")]
    launch_uri: Option<String>,
    /// It is an EHR, which may make launch contexts.
    #[arg(long)]
    ehr: bool,
    /// Scopes it may be granted, separated by spaces: `system/Patient.rs system/Observation.rs`.
    #[arg(long, value_name = "SCOPES")]
    scopes: String,
    /// Its client_id; a random one otherwise.
    #[arg(long, value_name = "ID")]
    id: Option<String>,
    /// A name for people.
    #[arg(long, value_name = "NAME", default_value = "Backend service")]
    name: String,
    /// File with its public JWK Set.
    #[arg(long, value_name = "FILE")]
    jwks: Option<PathBuf>,
    /// Where it publishes its JWK Set.
    #[arg(long, value_name = "URL", conflicts_with = "jwks")]
    jwks_url: Option<String>,
}

fn client(of: &Client) -> Result<Value> {
    Ok(json!({
        "client_id": of.client_id,
        "name": of.name,
        "kind": of.kind.to_string(),
        "status": if of.disabled { "disabled" } else { "active" },
        "scopes": of.scopes()?.to_string(),
    }))
}

/// One that waits; of a new client, `changes` has all that it asks for.
fn waits(of: &Waiting) -> Result<Value> {
    let mut row = client(&of.asked)?;
    let one = |one: &Changed| json!({ "what": one.what, "old": one.old, "new": one.new });
    row["status"] = json!(if of.is_change { "change" } else { "new" });
    row["changes"] = json!(of.changes.iter().map(one).collect::<Vec<_>>());
    row["seen"] = json!(of.seen);
    Ok(row)
}

fn new(args: AddArgs) -> Result<credentials::NewClient> {
    let kind = match args.kind {
        KindOfClient::Backend => ClientKind::Backend,
        KindOfClient::Public => ClientKind::Public,
        KindOfClient::ConfidentialSymmetric => ClientKind::ConfidentialSymmetric,
        KindOfClient::ConfidentialAsymmetric => ClientKind::ConfidentialAsymmetric,
    };
    Ok(credentials::NewClient {
        client_id: args.id,
        name: args.name,
        kind,
        scopes: args.scopes,
        jwks: args.jwks.as_deref().map(read_json).transpose()?,
        jwks_url: args.jwks_url,
        redirect_uris: args.redirect_uri,
        launch_uri: args.launch_uri,
        ehr: args.ehr,
        demo: false,
    })
}

pub async fn run(office: &Office, command: ClientsCommand) -> Result<Said> {
    let (oauth, by) = (&office.app.oauth, &office.by);
    let done = |known: bool, text: &str| if known { Ok(Said::Done(text.to_owned())) } else { Err(unknown("client")) };
    match command {
        ClientsCommand::List => {
            let rows: Result<Vec<Value>> = oauth.clients().list().await?.iter().map(client).collect();
            Ok(Said::Many(rows?))
        }
        ClientsCommand::Add(args) => Ok(Said::One(credentials::add_client(&office.app, by, new(args)?).await?)),
        ClientsCommand::Disable(args) => done(oauth.disable_client(by, &args.id).await?, "The client is disabled."),
        ClientsCommand::Enable(args) => {
            done(oauth.clients().by(by).enable(&args.id).await?, "The client may ask for tokens again.")
        }
        ClientsCommand::RotateSecret(args) => {
            let jwks = args.jwks.as_deref().map(read_json).transpose()?;
            let rotated = credentials::rotate_client(&office.app, by, &args.id, jwks).await?;
            rotated.map(Said::One).ok_or_else(|| unknown("client"))
        }
        ClientsCommand::Pending => {
            let rows: Result<Vec<Value>> = oauth.clients().waiting().await?.iter().map(waits).collect();
            Ok(Said::Many(rows?))
        }
        ClientsCommand::Approve(args) => {
            done(oauth.clients().by(by).approve(&args.id, args.seen.as_deref()).await?, "What it asked for counts.")
        }
        ClientsCommand::Reject(args) => {
            done(oauth.clients().by(by).reject(&args.id).await?, "The client is turned away.")
        }
        ClientsCommand::RegistrationToken => {
            Ok(Said::One(json!({ "registration_token": *oauth.clients().by(by).registration_token().await? })))
        }
        ClientsCommand::Remove(args) => done(oauth.remove_client(by, &args.id).await?, "The client is forgotten."),
    }
}
