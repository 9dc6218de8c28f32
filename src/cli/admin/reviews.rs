//! `phial admin reviews`: emergency accesses that wait to be reviewed.

use clap::{Args, Subcommand, ValueEnum};
use phial::error::Result;
use phial::interaction::reviews::{self, Shown};
use phial::oauth::reviews::{Finding, Review};
use serde_json::{Value, json};

use super::Office;
use super::print::{Said, time};

/// Reviews of one reading.
const CHUNK: usize = 200;

#[derive(Subcommand)]
pub enum ReviewsCommand {
    /// List the emergency accesses that wait to be reviewed.
    List {
        /// Those that have been reviewed.
        #[arg(long)]
        closed: bool,
    },
    /// Show one: who, which patient, why, when, and what was done under it.
    Show {
        #[arg(value_name = "ID")]
        id: String,
    },
    /// Close one with what was found.
    Close(CloseArgs),
}

#[derive(Args)]
pub struct CloseArgs {
    #[arg(value_name = "ID")]
    id: String,
    #[arg(long, value_enum)]
    finding: Found,
    /// What was found, in words: 10 to 2,000 characters.
    #[arg(long, value_name = "TEXT")]
    note: String,
}

#[derive(Clone, Copy, ValueEnum)]
enum Found {
    Justified,
    NotJustified,
    FollowUp,
}

fn row(of: &Review) -> Value {
    json!({
        "id": of.task, "username": of.username, "fhir_user": of.fhir_user, "role": of.role, "purpose": of.purpose,
        "client_id": of.client_id, "from": time(of.made), "until": time(of.until),
        "finding": of.closed.as_ref().map(|closed| closed.finding.name()),
        "closed_by": of.closed.as_ref().map(|closed| closed.by.clone()),
        "closed": of.closed.as_ref().map(|closed| time(closed.at)),
    })
}

fn whole(shown: &Shown) -> Value {
    let mut row = row(&shown.review);
    let about = shown.about.as_ref();
    row["patient"] = json!(about.map(|about| format!("Patient/{}", about.patient)));
    row["patient_name"] = json!(about.map(|about| about.name.clone()));
    row["reason"] = json!(about.map(|about| about.reason.clone()));
    row["note"] = json!(about.and_then(|about| about.note.clone()));
    let accesses = shown.accesses.iter();
    let accesses =
        accesses.map(|one| json!({ "at": one.at, "what": one.what, "refused": one.refused, "of": one.things }));
    row["accesses"] = accesses.collect();
    row["more_accesses"] = json!(shown.more);
    row
}

pub async fn run(office: &Office, command: ReviewsCommand) -> Result<Said> {
    let (app, by) = (&office.app, &office.by);
    match command {
        ReviewsCommand::List { closed } => {
            let (mut rows, mut after) = (Vec::new(), Vec::new());
            loop {
                let page = reviews::list(app, by, closed, &after, CHUNK).await?;
                rows.extend(page.reviews.iter().map(|review| row(review)));
                match page.next {
                    Some(next) => after = next,
                    None => return Ok(Said::Many(rows)),
                }
            }
        }
        ReviewsCommand::Show { id } => Ok(Said::One(whole(&reviews::show(app, by, &id).await?))),
        ReviewsCommand::Close(args) => {
            let finding = match args.finding {
                Found::Justified => Finding::Justified,
                Found::NotJustified => Finding::NotJustified,
                Found::FollowUp => Finding::FollowUp,
            };
            reviews::close(app, by, &args.id, finding, &args.note).await?;
            Ok(Said::Done("The review is closed, and its finding is on record.".to_owned()))
        }
    }
}
