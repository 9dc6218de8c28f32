//! Performs units through the one road to data, as a named task. A bad entry is reported and left out, the rest of its
//! group goes on; of a transaction nothing is kept.

use std::collections::{BTreeMap, HashSet};
use std::sync::Mutex;

use serde_json::json;

use super::source::Origin;
use super::unit::{GROUP_ENTRIES_MAX, Piece, Unit};
use crate::access::Caller;
use crate::app::App;
use crate::audit::Request;
use crate::error::{Error, Issue, Kind, Result};
use crate::fhir::definitions;
use crate::fhir::json::Node;
use crate::fhir::sent::SentBundle;
use crate::interaction::{Answer, Body, Done, Facts, Interaction, Prefer, Response, Return, lost_race, perform};

/// How often a unit that lost a race against others is tried again.
const TRIES_MAX: u32 = 8;

/// What came of the entries of one type.
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq)]
pub struct Tally {
    pub created: u64,
    pub updated: u64,
    pub unchanged: u64,
    /// Deleted, read, patched: what a Bundle asked for beside.
    pub other: u64,
    pub refused: u64,
}

/// What came of an import, by type. Faults that have no type stand under an empty name.
#[derive(Default)]
pub struct Tallies {
    pub by_type: BTreeMap<String, Tally>,
    pub done: u64,
}

impl Tallies {
    pub fn refused(&self) -> u64 {
        self.by_type.values().map(|tally| tally.refused).sum()
    }
}

/// Performs units; used by several workers at once.
pub struct Loader<'a> {
    pub app: &'a App,
    pub caller: Caller,
    pub tallies: Mutex<Tallies>,
    /// Says what was refused, a line at a time.
    pub report: &'a (dyn Fn(&str) + Sync),
    /// What may refer to something that is still to come; tried again at the end.
    pub deferred: Mutex<Deferred>,
}

/// Entries that stand for themselves and are put off at most: they are held in memory.
const LOOSE_MAX: usize = 20_000;

#[derive(Default)]
pub struct Deferred {
    transactions: Vec<(Origin, Vec<Piece>)>,
    /// With why they were refused.
    loose: Vec<(Piece, Vec<Issue>)>,
}

impl Loader<'_> {
    /// Performs a unit and keeps the count.
    ///
    /// # Errors
    /// Only what stops the whole import: the database or the audit trail is gone.
    pub async fn perform(&self, unit: Unit) -> Result<()> {
        match unit {
            Unit::Transaction { origin, pieces } => {
                let answer = self.together(&pieces, &origin.file).await;
                match answer {
                    Ok(answer) => self.count(&answer, pieces.len()),
                    Err(error) if stops_all(&error) => return Err(error),
                    Err(error) if refers_by_query(&pieces) || may_come(&error.issues) => {
                        self.deferred().transactions.push((origin, pieces));
                    }
                    Err(error) => self.refuse_all(&origin, &pieces, &error),
                }
                Ok(())
            }
            Unit::Group(pieces) => self.group(pieces).await,
            Unit::Fault { origin, error } => {
                self.refuse(&origin, "", &error.issues);
                Ok(())
            }
            Unit::Turn => Ok(()),
        }
    }

    /// What was put off, one after another, as long as something of it goes through.
    ///
    /// # Errors
    /// As `perform`.
    pub async fn perform_deferred(&self) -> Result<()> {
        loop {
            let Deferred { transactions, loose } = std::mem::take(&mut *self.deferred());
            let before = transactions.len() + loose.len();
            let mut still = Vec::new();
            for (origin, pieces) in transactions {
                match self.together(&pieces, &origin.file).await {
                    Ok(answer) => self.count(&answer, pieces.len()),
                    Err(error) if stops_all(&error) => return Err(error),
                    Err(error) => still.push((origin, pieces, error)),
                }
            }
            for pieces in groups(loose.into_iter().map(|(piece, _)| piece)) {
                self.group(pieces).await?;
            }
            let mut deferred = self.deferred();
            if still.is_empty() && deferred.loose.is_empty() {
                return Ok(());
            }
            if still.len() + deferred.loose.len() == before {
                let loose = std::mem::take(&mut deferred.loose);
                drop(deferred);
                still.iter().for_each(|(origin, pieces, error)| self.refuse_all(origin, pieces, error));
                loose.iter().for_each(|(piece, issues)| self.refuse(&piece.origin, kind_of(piece), issues));
                return Ok(());
            }
            deferred.transactions = still.into_iter().map(|(origin, pieces, _)| (origin, pieces)).collect();
        }
    }

    fn deferred(&self) -> std::sync::MutexGuard<'_, Deferred> {
        self.deferred.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// False: there is no more room.
    fn put_off(&self, piece: &Piece, issues: &[Issue]) -> bool {
        let mut deferred = self.deferred();
        let room = may_come(issues) && deferred.loose.len() < LOOSE_MAX;
        if room {
            let piece = Piece { origin: piece.origin.clone(), entry: piece.entry.clone() };
            deferred.loose.push((piece, issues.to_vec()));
        }
        room
    }

    /// All that can be performed; the entries that an error names are left out, else the group is halved.
    async fn group(&self, pieces: Vec<Piece>) -> Result<()> {
        let mut waiting = vec![pieces];
        while let Some(mut pieces) = waiting.pop() {
            let Some(first) = pieces.first() else { continue };
            let error = match self.together(&pieces, &first.origin.file).await {
                Ok(answer) => {
                    self.count(&answer, pieces.len());
                    continue;
                }
                Err(error) if stops_all(&error) => return Err(error),
                Err(error) => error,
            };
            let mut bad: BTreeMap<usize, Vec<Issue>> = BTreeMap::new();
            for issue in &error.issues {
                if let Some(n) = entry_of(issue).filter(|n| *n < pieces.len()) {
                    bad.entry(n).or_default().push(issue.clone());
                }
            }
            if bad.is_empty() && pieces.len() > 1 {
                let rest = pieces.split_off(pieces.len() / 2);
                waiting.extend([rest, pieces]);
                continue;
            }
            if bad.is_empty() {
                bad.insert(0, error.issues);
            }
            let mut rest = Vec::with_capacity(pieces.len());
            for (n, piece) in pieces.into_iter().enumerate() {
                match bad.get(&n) {
                    Some(issues) if self.put_off(&piece, issues) => {}
                    Some(issues) => self.refuse(&piece.origin, kind_of(&piece), issues),
                    None => rest.push(piece),
                }
            }
            waiting.push(rest);
        }
        Ok(())
    }

    async fn together(&self, pieces: &[Piece], file: &str) -> Result<Answer> {
        for _ in 0..TRIES_MAX {
            let entries: Vec<Node> = pieces.iter().map(|piece| piece.entry.clone()).collect();
            let body = json!({"resourceType": "Bundle", "type": "transaction", "entry": entries});
            let request = Request { id: self.app.world.uuid(), raw: format!("import {file}"), ..Request::default() };
            let prefer = Prefer { returns: Some(Return::Minimal), ..Prefer::default() };
            let facts = Facts { request: request.into(), prefer, unchanged_ok: true, ..Facts::default() };
            match perform(self.app, &self.caller, &facts, Interaction::Bundle { body: SentBundle::of(body) }).await {
                Err(error) if lost_race(&error) => {}
                other => return other,
            }
        }
        Err(Error::new(Kind::Conflict, "Other writes to the same resources kept coming in between."))
    }

    fn count(&self, answer: &Answer, sent: usize) {
        let mut tallies = self.tallies.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        tallies.done += sent as u64;
        let Body::Bundle(bundle) = &answer.body else { return };
        for entry in &bundle.entries {
            let Some(Response::Done { done, version }) = &entry.response else { continue };
            let name = version.as_ref().map_or("", |version| definitions().type_name(version.kind));
            let tally = tallies.by_type.entry(name.to_owned()).or_default();
            match (done, version.as_ref().is_some_and(|version| version.written)) {
                (Done::Created, _) => tally.created += 1,
                (Done::Ok, true) => tally.updated += 1,
                (Done::Ok | Done::NotModified, false) => tally.unchanged += 1,
                _ => tally.other += 1,
            }
        }
    }

    fn refuse(&self, origin: &Origin, kind: &str, issues: &[Issue]) {
        for issue in issues {
            let place = issue.expression.as_deref().map(|place| in_resource(place, kind)).unwrap_or_default();
            let between = if place.is_empty() { "" } else { ": " };
            (self.report)(&format!("refused {origin}{between}{place}: {}", issue.diagnostics));
        }
        let mut tallies = self.tallies.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        tallies.done += 1;
        tallies.by_type.entry(kind.to_owned()).or_default().refused += 1;
    }

    /// Nothing of the transaction was kept: its faults are reported once, all of its entries count as refused.
    fn refuse_all(&self, origin: &Origin, pieces: &[Piece], error: &Error) {
        for issue in &error.issues {
            let place = issue.expression.as_deref().unwrap_or("Bundle");
            (self.report)(&format!("refused {}: {place}: {}", origin.of_place(place), issue.diagnostics));
        }
        (self.report)(&format!("refused {origin}: nothing of this transaction of {} entries is kept", pieces.len()));
        let mut tallies = self.tallies.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        tallies.done += pieces.len() as u64;
        for piece in pieces {
            tallies.by_type.entry(kind_of(piece).to_owned()).or_default().refused += 1;
        }
    }
}

fn kind_of(piece: &Piece) -> &str {
    piece.entry["resource"]["resourceType"].as_str().unwrap_or_default()
}

/// Whether a later part of the import may cure it: what is referred to is not there yet.
fn may_come(issues: &[Issue]) -> bool {
    !issues.is_empty() && issues.iter().all(|issue| issue.code == "not-found")
}

/// Entries that stand for themselves in groups that hold no address twice.
fn groups(pieces: impl Iterator<Item = Piece>) -> Vec<Vec<Piece>> {
    let mut groups: Vec<Vec<Piece>> = Vec::new();
    let mut held = HashSet::new();
    for piece in pieces {
        let address = piece.entry["request"]["url"].as_str().unwrap_or_default().to_owned();
        let full = groups.last().is_none_or(|group| group.len() >= GROUP_ENTRIES_MAX);
        if full || held.contains(&address) {
            groups.push(Vec::new());
            held.clear();
        }
        held.insert(address);
        if let Some(group) = groups.last_mut() {
            group.push(piece);
        }
    }
    groups
}

/// What concerns every further unit too.
fn stops_all(error: &Error) -> bool {
    matches!(error.kind, Kind::Unavailable | Kind::Audit)
}

/// `n` of an issue at `Bundle.entry[n]...`.
fn entry_of(issue: &Issue) -> Option<usize> {
    issue.expression.as_deref()?.strip_prefix("Bundle.entry[")?.split(']').next()?.parse().ok()
}

/// `Bundle.entry[3].resource.name[0]` is `Patient.name[0]` to one who sent the resource alone.
fn in_resource(place: &str, kind: &str) -> String {
    let inner = place.strip_prefix("Bundle.entry[").and_then(|rest| rest.split_once(']'));
    match inner.map(|(_, rest)| rest) {
        Some(rest) => match rest.strip_prefix(".resource") {
            Some(path) if !kind.is_empty() => format!("{kind}{path}"),
            _ => rest.trim_start_matches('.').to_owned(),
        },
        None => place.to_owned(),
    }
}

/// Whether an entry refers to something by a query (`Practitioner?identifier=...`).
fn refers_by_query(pieces: &[Piece]) -> bool {
    fn within(node: &Node) -> bool {
        match node {
            Node::Object(members) => members.iter().any(|(name, value)| match value {
                Node::String(text) => name == "reference" && text.contains('?'),
                _ => within(value),
            }),
            Node::Array(items) => items.iter().any(within),
            _ => false,
        }
    }
    pieces.iter().any(|piece| within(&piece.entry["resource"]))
}
