//! `DocumentReference/$docref` (US Core): the documents of a patient by date of care and type; without dates the most
//! recent one of each type.

use super::lastn::{choice, most_recent, narrowed};
use super::{Call, escaped, link, note, options, searchset};
use crate::access::Grants;
use crate::audit::{Event, What};
use crate::error::{Error, Kind, Result};
use crate::fhir::json::Node;
use crate::interaction::{Answer, Scene};
use crate::search::Criterion;

pub(super) async fn docref(scene: Scene<'_>, call: &Call) -> Result<Answer> {
    let kind = call.kind()?;
    let input = &call.input;
    let patient = input.text("patient").unwrap_or_default();
    let mut pairs = vec![("patient", format!("Patient/{patient}")), ("status", "current".to_owned())];
    let types: Vec<String> = input.all("type").flat_map(tokens).collect();
    if input.all("type").next().is_some() {
        if types.is_empty() {
            return Err(Error::invalid("A type needs a code or a system.").at(input.place("type")));
        }
        pairs.push(("type", types.join(",")));
    }
    let profiles: Vec<String> = input.texts("profile").map(escaped).collect();
    if !profiles.is_empty() {
        pairs.push(("_profile", profiles.join(",")));
    }
    let mut query = narrowed(scene, kind, &pairs)?;
    let (start, end) = input.care()?;
    if start.is_some() || end.is_some() {
        // Of care (context.period); where that is not said, of the document itself.
        let options = options(scene);
        let within = |date: &str| -> Result<Vec<Criterion>> {
            let bounds = [("ge", start), ("le", end)];
            let bounds = bounds.into_iter().filter_map(|(prefix, at)| Some(format!("{prefix}{}", at?)));
            bounds.map(|bound| Criterion::parse(kind, date, &bound, &options)).collect()
        };
        let mut by_document = within("date")?;
        by_document.push(Criterion::parse(kind, "period:missing", "true", &options)?);
        query.criteria.push(Criterion::AnyOf(vec![within("period")?, by_document]));
    }
    let grants = Grants::of(scene.caller, &query)?;
    let all = scene.app.store.survey(&grants, &query, choice(kind, "type", &["period", "date"])?).await?;
    let each = if start.is_none() && end.is_none() { 1 } else { usize::MAX };
    let demanded = input.flag("on-demand") == Some(true);
    let rids = if demanded { Vec::new() } else { most_recent(all, each) };
    let max = scene.app.config.page_size_max.size();
    if rids.len() > max {
        let text = format!("The answer would hold {} documents, more than {max}: narrow start and end.", rids.len());
        return Err(Error::new(Kind::TooCostly, text));
    }
    let matches = scene.app.store.pick(&grants, &query, &rids).await?;
    let event = Event { patients: vec![patient.to_owned()], ..scene.event(What::Operation, Some(kind)) };
    let notes =
        demanded.then(|| note("This server makes no documents on demand: leave out on-demand for stored ones."));
    let own = link(scene, &call.address()?, &input.pairs());
    searchset(scene, own, event, matches, notes.into_iter().collect()).await
}

/// The codings of a concept as values of a token parameter.
fn tokens(concept: &Node) -> Vec<String> {
    let codings = concept.get("coding").and_then(Node::as_array).into_iter().flatten();
    let part = |coding: &Node, name: &str| coding.get(name).and_then(Node::as_str).map(escaped);
    codings
        .filter_map(|coding| match (part(coding, "system"), part(coding, "code")) {
            (None, code) => code,
            (Some(system), code) => Some(format!("{system}|{}", code.unwrap_or_default())),
        })
        .collect()
}
