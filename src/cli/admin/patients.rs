//! `phial admin patients`.

use clap::{Args, Subcommand};
use phial::error::{Error, Result};
use phial::jobs::erase;
use serde_json::json;

use super::Office;
use super::print::Said;

#[derive(Subcommand)]
pub enum PatientsCommand {
    /// Erase a patient for good, with every copy in backups of the database. Without --confirm: what would be erased.
    Erase(EraseArgs),
}

#[derive(Args)]
pub struct EraseArgs {
    /// Logical id.
    #[arg(value_name = "ID")]
    id: String,
    /// The id once more: only then it is done. It cannot be undone.
    #[arg(long, value_name = "ID")]
    confirm: Option<String>,
    /// Also what belongs to other patients too, for all of them.
    #[arg(long)]
    shared: bool,
}

pub async fn run(office: &Office, command: PatientsCommand) -> Result<Said> {
    let PatientsCommand::Erase(args) = command;
    let plan = erase::plan(&office.app, &args.id).await?;
    let Some(confirmed) = args.confirm else {
        return Ok(Said::One(json!({
            "patient": args.id,
            "resources": plan.resources,
            "of_others_too": plan.shared,
            "users": plan.users,
            "erased": false,
        })));
    };
    if confirmed != args.id {
        return Err(Error::invalid("--confirm names another patient: nothing was erased"));
    }
    erase::erase(&office.app, &office.by, &plan, args.shared).await?;
    Ok(Said::Done("The patient is erased. Running servers forget the last keys within ten minutes.".to_owned()))
}
