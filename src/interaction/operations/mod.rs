//! Operations (operations.html): `$name` at the base, on a type, on one resource. The table says what there is; an
//! operation authorizes every type it touches and ends on record like any interaction.

mod definition;
mod docref;
mod document;
mod emergency;
mod everything;
mod explain;
mod input;
mod lastn;
mod matching;
mod member;
mod meta;
mod standing;
mod table;
mod validate;

pub use emergency::exchange;
use input::Input;
use table::Run;
pub use table::{Is, OPERATIONS, Operation, Param, find};

pub(super) use definition::built_in;

use std::pin::Pin;

use serde_json::json;

use super::route::Method;
use super::search::full_url;
use super::{Answer, Bundle, BundleKind, Content, Entry, Mode, Pairs, Scene, Shape, form, graphql, read};
use crate::access::{Read, authorize};
use crate::audit::{Event, Released, What};
use crate::error::{Error, Issue, Result, Severity};
use crate::fhir::json::{self, Node};
use crate::fhir::{Resource, TypeId, definitions};
use crate::search::{Lookup, Query, QueryOptions};
use crate::store::{Found, Sealed};

/// One call, as it came in.
pub(super) struct Sent {
    pub operation: &'static Operation,
    pub method: Method,
    pub kind: Option<TypeId>,
    pub id: Option<String>,
}

/// One call, read.
struct Call {
    operation: &'static Operation,
    method: Method,
    kind: Option<TypeId>,
    id: Option<String>,
    input: Input,
}

pub(super) async fn perform(scene: Scene<'_>, sent: Sent, query: Pairs, body: Option<Node>) -> Result<Answer> {
    let Sent { operation, method, kind, id } = sent;
    let input = input::read(operation, query, body, scene.facts.prefer.lenient)?;
    let call = Call { operation, method, kind, id, input };
    // On the heap each: what an operation holds would otherwise lie in every request's future.
    let answer: Pin<Box<dyn Future<Output = Result<Answer>> + Send>> = match operation.run {
        Run::Everything => Box::pin(everything::everything(scene, &call)),
        Run::Meta => Box::pin(meta::meta(scene, &call)),
        Run::MetaAdd => Box::pin(meta::change(scene, call, meta::add)),
        Run::MetaDelete => Box::pin(meta::change(scene, call, meta::delete)),
        Run::LastN => Box::pin(lastn::lastn(scene, &call)),
        Run::DocRef => Box::pin(docref::docref(scene, &call)),
        Run::Document => Box::pin(document::document(scene, &call)),
        Run::Status => Box::pin(standing::status(scene, &call)),
        Run::Convert => Box::pin(convert(scene, call)),
        Run::Validate => Box::pin(validate::validate(scene, call)),
        Run::Emergency => Box::pin(emergency::emergency(scene, &call)),
        Run::Match => Box::pin(matching::patients(scene, call)),
        Run::Explain => Box::pin(explain::explain(scene, &call)),
        Run::MemberMatch => Box::pin(member::member_match(scene, call)),
        Run::GraphQl => {
            let text = |name: &str| call.input.text(name).map(str::to_owned);
            let variables = text("variables").filter(|text| !text.is_empty());
            let asked = graphql::Request {
                query: text("query").unwrap_or_default(),
                operation: text("operationName"),
                variables: variables.map_or(Ok(Node::Null), |text| json::parse(text.as_bytes()))?,
            };
            Box::pin(async move { graphql::perform(scene, call.kind.zip(call.id), &asked).await })
        }
    };
    answer.await
}

/// `$convert`: the form of the reply does the work. It touches nothing that is stored.
async fn convert(scene: Scene<'_>, mut call: Call) -> Result<Answer> {
    let place = call.input.place("input");
    let input = call.input.take("input").ok_or_else(|| Error::internal("an operation without its input"))?;
    let resource = Resource::check_at(input, &place)?;
    scene.app.trail.record(scene.event(What::Operation, None)).await?;
    Ok(Answer::made(resource.into_node()))
}

impl Call {
    fn kind(&self) -> Result<TypeId> {
        self.kind.ok_or_else(|| Error::internal("an operation without its type"))
    }

    /// `Patient/1/$everything`: relative to the base, and what a page link is bound to.
    fn address(&self) -> Result<String> {
        let (kind, name) = (definitions().type_name(self.kind()?), self.operation.name);
        Ok(match &self.id {
            Some(id) => format!("{kind}/{id}/${name}"),
            None => format!("{kind}/${name}"),
        })
    }

    fn id(&self) -> Result<&str> {
        self.id.as_deref().ok_or_else(|| Error::internal("an operation without its resource"))
    }
}

/// The link to a call with these parameters.
fn link(scene: Scene<'_>, address: &str, pairs: &Pairs) -> String {
    let format = scene.facts.format.iter().map(|format| ("_format".to_owned(), format.clone()));
    let pairs: Pairs = pairs.iter().cloned().chain(format).collect();
    let base = format!("{}/{address}", scene.app.config.base_url);
    if pairs.is_empty() { base } else { format!("{base}?{}", form::encode(&pairs)) }
}

/// A Parameters resource with one value.
fn returned(member: &str, value: Node) -> Node {
    json!({"resourceType": "Parameters", "parameter": [{"name": "return", member: value}]})
}

/// The one resource of an address, sealed: current, and within the caller's rows.
async fn stored(scene: Scene<'_>, kind: TypeId, id: &str) -> Result<Sealed> {
    let grant = authorize::<Read>(scene.caller, kind)?;
    match scene.app.store.find(&grant, id).await? {
        Found::Current(sealed) => Ok(sealed),
        Found::Deleted { version } => Err(read::gone(version)),
        Found::Absent => Err(Error::not_found()),
    }
}

/// Puts the disclosure of one resource on record and gives its tree.
async fn opened(scene: Scene<'_>, sealed: Sealed) -> Result<(Released, Node)> {
    let event = scene.event(What::Operation, Some(sealed.kind()));
    let released = scene.app.trail.disclose(event, vec![sealed]).await?.pop();
    let released = released.ok_or_else(|| Error::internal("a disclosure without content"))?;
    let node = json::parse(released.bytes())?;
    Ok((released, node))
}

/// Matches as a searchset without pages, their disclosure on record. `own` is the link to what was applied.
async fn searchset(
    scene: Scene<'_>,
    own: String,
    event: Event,
    matches: Vec<Sealed>,
    notes: Vec<Issue>,
) -> Result<Answer> {
    let matches = matches.into_iter().map(|sealed| (sealed, None)).collect();
    graded(scene, own, event, matches, notes).await
}

/// The same, each match with how well it matches, where that is known.
async fn graded(
    scene: Scene<'_>,
    own: String,
    event: Event,
    matches: Vec<(Sealed, Option<(f64, &'static str)>)>,
    notes: Vec<Issue>,
) -> Result<Answer> {
    let (matches, grades): (Vec<Sealed>, Vec<_>) = matches.into_iter().unzip();
    let released = match matches.is_empty() {
        true => scene.app.trail.record(event).await.map(|_| Vec::new())?,
        false => scene.app.trail.disclose(event, matches).await?,
    };
    let total = Some(released.len() as u64);
    let matched = released.into_iter().zip(grades).map(|(released, grade)| Entry {
        full_url: Some(full_url(scene, released.kind(), released.id())),
        content: Some(Content::Released(released, Shape::Full)),
        mode: Some(Mode::Match),
        grade,
        ..Entry::default()
    });
    let outcome = (!notes.is_empty()).then(|| Entry {
        content: Some(Content::Outcome(notes)),
        mode: Some(Mode::Outcome),
        ..Entry::default()
    });
    let entries = matched.chain(outcome).collect();
    let (id, at) = (scene.app.world.uuid(), scene.app.world.now());
    Ok(Answer::bundle(Bundle { id, kind: BundleKind::Searchset, at, total, links: vec![("self", own)], entries }))
}

fn note(text: impl Into<std::borrow::Cow<'static, str>>) -> Issue {
    Issue { severity: Severity::Information, ..Issue::error("informational", text) }
}

/// As one value of a search parameter.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for letter in text.chars() {
        if "\\,|$".contains(letter) {
            out.push('\\');
        }
        out.push(letter);
    }
    out
}

/// How a search inside an operation is read.
fn options(scene: Scene<'_>) -> QueryOptions {
    let config = &scene.app.config;
    QueryOptions {
        lenient: false,
        base: config.base_url.clone(),
        count_default: config.page_size_max.size(),
        count_max: config.page_size_max.size(),
        now: scene.app.world.now(),
        customs: Lookup::new(scene.app.store.customs()),
    }
}

/// A search for everything of a type, to be narrowed.
fn every(scene: Scene<'_>, kind: TypeId) -> Result<Query> {
    Query::parse(kind, &[], &options(scene))
}
