//! Reviews of emergency accesses: which are open, what one was about and what was done under it, and its finding. The
//! order to review, the record and the audit trail are looked at as a named task of the server, so that neither consents nor
//! what has become of the Task hide anything; in whose name is on record before anything is told.

use serde_json::json;

use super::write::patch::Bases;
use super::write::stage::Change;
use super::{Body, Conditions, Content, Facts, Interaction, Pairs, Scene};
use crate::access::{Caller, Update, authorize};
use crate::app::App;
use crate::audit::{Event, What};
use crate::error::{Error, Kind, Result};
use crate::fhir::json::{self, Node};
use crate::fhir::{Resource, TypeId, definitions};
use crate::oauth::reviews::{Closed, Finding, Review};
use crate::oauth::{By, Held};
use crate::world::Instant;

const TASK: &str = "emergency review";
/// Characters of what a review has found.
const NOTE_LENGTH: std::ops::RangeInclusive<usize> = 10..=2_000;
/// Pages of audit events that are looked at, and events of one.
const PAGES_MAX: usize = 10;
const PAGE: usize = 200;
/// An access that began in time may end a little later.
const LATE_MS: i64 = 60_000;

/// Open or closed reviews, the oldest first.
pub struct Listed {
    pub reviews: Vec<Held<Review>>,
    pub next: Option<Vec<u8>>,
    pub open: usize,
    pub closed: usize,
}

/// A review with what it is about.
pub struct Shown {
    pub review: Review,
    /// None: the record has been erased.
    pub about: Option<About>,
    /// What was done with the token, the oldest first.
    pub accesses: Vec<Access>,
    /// There are more than are shown.
    pub more: bool,
}

pub struct About {
    /// Logical id.
    pub patient: String,
    pub name: String,
    pub born: String,
    pub reason: String,
    /// What the review has found, in words.
    pub note: Option<String>,
}

/// One access, as the audit trail has it.
pub struct Access {
    pub at: String,
    /// `read`, `search-type`.
    pub what: String,
    /// `Observation/1`.
    pub things: Vec<String>,
    pub refused: bool,
}

fn kind(name: &str) -> Result<TypeId> {
    definitions().type_id(name).ok_or_else(|| Error::internal("no such type"))
}

fn unknown() -> Error {
    Error::new(Kind::NotFound, "There is no such review.")
}

fn facts_of(review: &Review) -> Vec<(String, String)> {
    let facts = [("review", &review.task), ("token", &review.token), ("username", &review.username)];
    facts.into_iter().map(|(name, value)| (name.to_owned(), value.clone())).collect()
}

/// A page of the reviews that are open, or closed.
///
/// # Errors
/// `Kind::Audit` when it cannot be put on record.
pub async fn list(app: &App, by: &By, closed: bool, after: &[u8], limit: usize) -> Result<Listed> {
    let about = vec![("reviews".to_owned(), if closed { "closed" } else { "open" }.to_owned())];
    app.trail.record(by.event(app.world.now(), What::ReviewsListed, about)).await?;
    let (reviews, next) = app.oauth.reviews(closed, after, limit).await?;
    let (open, closed) = app.oauth.reviews_count().await?;
    Ok(Listed { reviews, next, open, closed })
}

/// Opens a review.
///
/// # Errors
/// `Kind::NotFound` when there is none of this id; `Kind::Audit` when it cannot be put on record.
pub async fn show(app: &App, by: &By, id: &str) -> Result<Shown> {
    let review = app.oauth.review(id).await?.ok_or_else(unknown)?;
    let desk = Desk { app, by, caller: Caller::task(TASK) };
    let ordered = desk.ordered(&review).await?;
    let mut event = by.event(app.world.now(), What::ReviewOpened, facts_of(&review));
    event.patients.extend(ordered.as_ref().map(|task| patient_of(task).to_owned()));
    app.trail.record(event).await?;
    let about = match &ordered {
        Some(task) => Some(desk.about(&review, task).await?),
        None => None,
    };
    let (accesses, more) = desk.accesses(&review).await?;
    Ok(Shown { review, about, accesses, more })
}

/// Closes a review with what it has found: on the Task and on the record of it.
///
/// # Errors
/// `Kind::NotFound` when there is none of this id, `Kind::Invalid` when the note will not do, `Kind::Forbidden` for whoever
/// had the access, `Kind::Conflict` when it has been closed or somebody else is closing it.
pub async fn close(app: &App, by: &By, id: &str, finding: Finding, note: &str) -> Result<()> {
    let note = note.trim();
    let review = app.oauth.review(id).await?.ok_or_else(unknown)?;
    if by.user() == Some(review.user.as_str()) {
        return Err(Error::new(Kind::Forbidden, "Nobody reviews an access of their own."));
    }
    if !NOTE_LENGTH.contains(&note.chars().count()) {
        return Err(Error::invalid("What was found must be said in 10 to 2,000 characters.").at("note"));
    }
    if !app.oauth.begin_closing(&review).await? {
        return Err(Error::new(Kind::Conflict, "Somebody else is closing this review in this very moment."));
    }
    let done = close_alone(app, by, id, finding, note).await;
    app.oauth.end_closing(&review).await?;
    done
}

/// Nobody else closes it meanwhile: else the Task could end with the finding of who came too late.
async fn close_alone(app: &App, by: &By, id: &str, finding: Finding, note: &str) -> Result<()> {
    let review = app.oauth.review(id).await?.ok_or_else(unknown)?;
    if review.closed.is_some() {
        return Err(closed_already());
    }
    let desk = Desk { app, by, caller: Caller::task(TASK) };
    let now = app.world.now();
    let mut event = by.event(now, What::ReviewClosed, facts_of(&review));
    event.detail.push(("finding".to_owned(), finding.name().to_owned()));
    if let Some(task) = desk.ordered(&review).await? {
        event.patients.push(patient_of(&task).to_owned());
        desk.write_down(&review, task, finding, note).await?;
    }
    // Closed only once that is on record.
    app.trail.record(event).await?;
    let closed = Closed { finding, by: by.name(), at: now.0 };
    if app.oauth.close_review(&review, closed).await? { Ok(()) } else { Err(closed_already()) }
}

fn closed_already() -> Error {
    Error::new(Kind::Conflict, "This review has been closed already.")
}

fn text<'n>(node: &'n Node, name: &str) -> &'n str {
    node[name].as_str().unwrap_or_default()
}

fn patient_of(task: &Node) -> &str {
    text(&task["for"], "reference").strip_prefix("Patient/").unwrap_or_default()
}

/// One reviewer at work.
struct Desk<'a> {
    app: &'a App,
    by: &'a By,
    caller: Caller,
}

impl Desk<'_> {
    fn facts(&self) -> Facts {
        Facts { request: self.by.request().clone(), operation: Some("emergency-review"), ..Facts::default() }
    }

    async fn perform(&self, asked: Interaction) -> Result<Body> {
        let answer = Box::pin(super::perform(self.app, &self.caller, &self.facts(), asked)).await?;
        Ok(answer.body)
    }

    /// A resource; None when it is gone, or its patient has been erased.
    async fn opened(&self, asked: Interaction) -> Result<Option<Node>> {
        match self.perform(asked).await {
            Ok(Body::Content(content)) => Ok(node_of(&content)),
            Ok(_) => Ok(None),
            Err(error) if matches!(error.kind, Kind::NotFound | Kind::Gone) => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn read(&self, name: &str, id: &str) -> Result<Option<Node>> {
        self.opened(Interaction::Read { kind: kind(name)?, id: id.to_owned(), query: Vec::new() }).await
    }

    /// The Task as the server wrote it, whatever has become of it since.
    async fn ordered(&self, review: &Review) -> Result<Option<Node>> {
        let first =
            Interaction::Vread { kind: kind("Task")?, id: review.task.clone(), vid: "1".to_owned(), query: Vec::new() };
        self.opened(first).await
    }

    async fn about(&self, review: &Review, task: &Node) -> Result<About> {
        let patient = patient_of(task);
        let record = self.read("Patient", patient).await?.unwrap_or_default();
        let note = match &review.closed {
            Some(_) => self.read("Task", &review.task).await?,
            None => None,
        };
        Ok(About {
            patient: patient.to_owned(),
            name: name_of(&record),
            born: text(&record, "birthDate").to_owned(),
            reason: text(task, "description").to_owned(),
            note: note.map(|task| text(&task["output"][0], "valueString").to_owned()).filter(|note| !note.is_empty()),
        })
    }

    /// What the audit trail has of the token; true: and more.
    async fn accesses(&self, review: &Review) -> Result<(Vec<Access>, bool)> {
        let policy = format!("urn:ietf:params:oauth:jti:{}", review.token);
        let until = Instant(review.until + LATE_MS).to_fhir();
        let mut query: Pairs = vec![
            ("agent:identifier".into(), review.user.clone()),
            ("date".into(), format!("ge{}", Instant(review.made).to_fhir())),
            ("date".into(), format!("le{until}")),
            ("_sort".into(), "date".into()),
            ("_count".into(), PAGE.to_string()),
        ];
        let mut accesses = Vec::new();
        for _ in 0..PAGES_MAX {
            let asked = Interaction::SearchType { kind: kind("AuditEvent")?, query };
            let Body::Bundle(bundle) = self.perform(asked).await? else { return Ok((accesses, false)) };
            let events = bundle.entries.iter().filter_map(|entry| entry.content.as_ref()).filter_map(node_of);
            accesses.extend(events.filter(|event| is_under(event, &policy)).map(|event| access(&event)));
            let next = bundle.links.iter().find(|(relation, _)| *relation == "next");
            match next.and_then(|(_, url)| url.split_once('?')) {
                Some((_, further)) => query = super::form::decode(further)?,
                None => return Ok((accesses, false)),
            }
        }
        Ok((accesses, true))
    }

    /// The finding on the Task, and the Flag at rest, in one transaction.
    async fn write_down(&self, review: &Review, task: Node, finding: Finding, note: &str) -> Result<()> {
        let facts = self.facts();
        let scene = Scene { app: self.app, caller: &self.caller, facts: &facts };
        let now = jiff::Timestamp::from_millisecond(self.app.world.now().0).unwrap_or(jiff::Timestamp::MIN).to_string();
        let mut task = task;
        task["status"] = json!("completed");
        task["businessStatus"] = json!({ "text": finding.name() });
        task["lastModified"] = json!(now);
        task["owner"] = json!({ "display": self.by.name() });
        task["output"] = json!([{ "type": { "text": "What the review has found" }, "valueString": note }]);
        let mut changes = vec![self.update("Task", &review.task, task).await?];
        if let Some(mut flag) = self.read("Flag", &review.flag).await? {
            flag["status"] = json!("inactive");
            changes.push(self.update("Flag", &review.flag, flag).await?);
        }
        let bases = Bases::open(scene, changes.iter()).await?;
        let mut tx = self.app.store.begin();
        for change in &changes {
            change.stage(scene, &mut tx, &bases).await?;
        }
        let event: Event = Event {
            reason: Some(format!("emergency access reviewed: {}", finding.name())),
            ..self.by.event(self.app.world.now(), What::Update, facts_of(review))
        };
        self.app.trail.commit(event, tx, Vec::new(), Vec::new()).await.map(drop)
    }

    /// Based on the version that stands now: a change of somebody else's in this moment is not lost.
    async fn update(&self, name: &str, id: &str, node: Node) -> Result<Change> {
        let current = self.read(name, id).await?;
        let version = current.map(|current| text(&current["meta"], "versionId").to_owned());
        let conditions = Conditions { if_match: version, ..Conditions::default() };
        let resource = Resource::check_at(node, name)?;
        let grant = authorize::<Update>(&self.caller, resource.kind())?;
        Ok(Change::Update { grant, resource: resource.into(), id: id.to_owned(), conditions, fresh: false })
    }
}

fn node_of(content: &Content) -> Option<Node> {
    match content {
        Content::Released(released, _) => json::parse(released.bytes()).ok(),
        Content::Outcome(_) | Content::Made(_) => None,
    }
}

/// A name as it is said, of the first that the record has.
fn name_of(patient: &Node) -> String {
    let name = &patient["name"][0];
    if !text(name, "text").is_empty() {
        return text(name, "text").to_owned();
    }
    let given = name["given"].as_array().map(Vec::as_slice).unwrap_or_default();
    let parts: Vec<&str> = given.iter().filter_map(Node::as_str).chain([text(name, "family")]).collect();
    parts.join(" ").trim().to_owned()
}

fn is_under(event: &Node, policy: &str) -> bool {
    let agents = event["agent"].as_array().map(Vec::as_slice).unwrap_or_default();
    agents.iter().any(|agent| agent["policy"][0] == policy)
}

fn access(event: &Node) -> Access {
    let entities = event["entity"].as_array().map(Vec::as_slice).unwrap_or_default();
    let mut things: Vec<String> = entities
        .iter()
        .map(|entity| text(&entity["what"], "reference").to_owned())
        .filter(|it| !it.is_empty())
        .collect();
    things.sort_unstable();
    things.dedup();
    let subtype = text(&event["subtype"][0], "code");
    Access {
        at: text(event, "recorded").to_owned(),
        what: if subtype == "ITI-71" { "token-issued" } else { subtype }.to_owned(),
        things,
        refused: text(event, "outcome") != "0",
    }
}
