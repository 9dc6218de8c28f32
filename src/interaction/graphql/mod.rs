//! `$graphql` (graphql.html of R4): a query over resources, their references both ways, and searches. Resources are
//! found and disclosed as everywhere: each under its own grant, none before an entry of the trail names it. Must not
//! know HTTP.
//!
//! A query is read (`document`), checked against the definitions (`check`), and then passed over as often as it takes
//! (`run`): each pass says what it lacks, `fetch` looks that up, and when nothing but content is lacking, one entry
//! names everything found so far and it is opened. A query that follows no references has one entry; each step along
//! references that content alone tells of adds one, under the same request id (`docs/adr`).

mod arguments;
mod check;
mod document;
mod fetch;
mod memo;
mod output;
mod run;
mod schema;
mod types;

use std::collections::HashMap;

use serde_json::json;

use super::{About, Answer, Body, Done, Scene, is_audit, refuse};
use crate::audit::What;
use crate::error::{Error, Kind, Result};
use crate::fhir::TypeId;
use crate::fhir::json::{self, Node};

use check::Checker;
use document::Pos;
use fetch::Fetched;
use memo::{Address, FieldError, Road, Start};
use run::Pass;
use types::Type;

pub use document::Request;

/// What a query is answered: `data`, `errors` or both.
pub struct Reply {
    /// As JSON.
    pub body: Vec<u8>,
    /// Why there is no data.
    pub refused: Option<Kind>,
}

/// What ends a query, with its place in the text.
pub struct Fault {
    error: Error,
    at: Option<Pos>,
}

impl From<Error> for Fault {
    fn from(error: Error) -> Fault {
        Fault { error, at: None }
    }
}

impl Fault {
    fn invalid(text: impl Into<std::borrow::Cow<'static, str>>) -> Fault {
        Error::invalid(text).into()
    }

    /// Keeps the first place that is said.
    fn at(mut self, at: Pos) -> Fault {
        self.at = self.at.or(Some(at));
        self
    }
}

/// Answers a query, on the system or on one resource.
///
/// # Errors
/// `Kind::Audit` only: every other fault is answered in the form of GraphQL.
pub(super) async fn perform(scene: Scene<'_>, on: Option<(TypeId, String)>, asked: &Request) -> Result<Answer> {
    let about = About {
        what: What::Operation,
        kind: on.as_ref().map(|(kind, _)| *kind),
        id: on.as_ref().map(|(_, id)| id.clone()),
    };
    let reply = match answered(scene, on, asked).await {
        Ok(body) => Reply { body, refused: None },
        Err(Fault { error, at }) => {
            let error = refuse(scene.app, Some(scene.caller.who().clone()), scene.facts, about, error).await;
            if error.kind == Kind::Audit {
                return Err(error);
            }
            refusal(&error, at)
        }
    };
    Ok(Answer { done: Done::Ok, version: None, body: Body::GraphQl(Box::new(reply)) })
}

async fn answered(scene: Scene<'_>, on: Option<(TypeId, String)>, asked: &Request) -> Result<Vec<u8>, Fault> {
    let selections = document::parse(asked)?;
    let (start, kind) = start(on)?;
    let mut checker = Checker::new(fetch::options(scene));
    checker.selections(&selections, kind)?;
    // Of some size: on a thread of its own.
    let (selections, told) = tokio::task::spawn_blocking(move || (schema::answers(&selections), selections))
        .await
        .map(|(told, selections)| (selections, told))
        .map_err(Error::internal)?;
    let told = told?;
    let mut fetched = Fetched::new(scene);
    let (base, now) = (scene.app.config.base_url.as_str(), scene.app.world.now());
    loop {
        let mut pass = Pass::new(&fetched.memo, &mut checker, base, now);
        let data = pass.answer(&start, &selections)?.ok_or_else(Error::not_found)?;
        let Pass { wants, errors, .. } = pass;
        if !wants.is_empty() {
            fetched.look_up(wants).await?;
        } else if !fetched.disclose().await? {
            fetched.close().await?;
            return document(data, errors, &told);
        }
    }
}

fn start(on: Option<(TypeId, String)>) -> Result<(Start, Type), Fault> {
    let Some((kind, id)) = on else { return Ok((Start::System, Type::Query)) };
    if is_audit(kind) {
        return Err(Error::unsupported("AuditEvents are not reached by GraphQL.").into());
    }
    let of = Type::of_resource(kind).ok_or_else(Error::not_found)?;
    Ok((Start::Resource(Address { road: Road::Read, kind, id, version: None }), of))
}

/// `told` stands in the places of what was asked of the schema.
fn document(data: Node, errors: Vec<FieldError>, told: &HashMap<String, Vec<u8>>) -> Result<Vec<u8>, Fault> {
    let mut out = br#"{"data":{"#.to_vec();
    let Node::Object(members) = data else { return Err(Error::internal("an answer is an object").into()) };
    for (n, (key, value)) in members.iter().enumerate() {
        if n > 0 {
            out.push(b',');
        }
        out.extend(json::write(&Node::from(key.as_str())));
        out.push(b':');
        match told.get(key) {
            Some(text) => out.extend_from_slice(text),
            None => out.extend(json::write(value)),
        }
    }
    out.push(b'}');
    if !errors.is_empty() {
        let errors = errors.into_iter().map(|error| {
            json!({
                "message": error.text,
                "locations": [place(error.at)],
                "path": error.path,
                "extensions": {"code": error.code},
            })
        });
        out.extend_from_slice(br#","errors":"#);
        out.extend(json::write(&errors.collect()));
    }
    out.push(b'}');
    Ok(out)
}

fn place(at: Pos) -> Node {
    json!({"line": at.line, "column": at.column})
}

/// A query that is not answered at all.
fn refusal(error: &Error, at: Option<Pos>) -> Reply {
    let errors = error.issues.iter().map(|issue| {
        let mut one = json!({"message": issue.diagnostics, "extensions": {"code": issue.code}});
        if let Some(at) = at {
            one["locations"] = json!([place(at)]);
        }
        one
    });
    Reply { body: json::write(&json!({"errors": errors.collect::<Vec<_>>()})), refused: Some(error.kind) }
}
