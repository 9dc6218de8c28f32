//! Blind terms of audit entries: by patient, user, client, resource touched, and whether the request failed. They are
//! made per month, so that equal terms link entries of one month only, and they narrow a search; what an entry says
//! decides.

use std::ops::RangeInclusive;

use super::entry::Outcome;
use super::stored::Entry;
use crate::vault::{TermPlace, Vault};

/// Parameter numbers of audit terms live under a type number that no resource type has.
const RTYPE: u16 = u16::MAX;
/// Normalisation and form of all audit terms.
const FORM: u8 = 1;
/// An entry gets at most so many terms: past that (bulk work) it is found by its patients and its agent alone.
const ENTITY_TERMS_MAX: usize = 1_000;

/// What a term stands for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Subject<'a> {
    /// Logical id.
    Patient(&'a str),
    User(&'a str),
    Client(&'a str),
    /// Type and id.
    Entity(&'a str, &'a str),
    /// The request did not succeed.
    Failed,
    /// More was touched than has terms of its own.
    Bulk,
}

impl Subject<'_> {
    fn parts(&self) -> (u16, [&str; 3]) {
        match self {
            Subject::Patient(id) => (1, [id, "", ""]),
            Subject::User(id) => (2, [id, "", ""]),
            Subject::Client(id) => (3, [id, "", ""]),
            Subject::Entity(kind, id) => (4, [kind, "/", id]),
            Subject::Failed => (5, [""; 3]),
            Subject::Bulk => (6, [""; 3]),
        }
    }

    /// The term of one month.
    pub fn term(&self, vault: &Vault, month: i32) -> i64 {
        let (param, [one, two, three]) = self.parts();
        let place = TermPlace { rtype: RTYPE, param, form: FORM, partition: 0 };
        vault.term(&place, &[&month.to_be_bytes(), one.as_bytes(), two.as_bytes(), three.as_bytes()])
    }

    /// The terms of all these months: an entry has at most one of them.
    pub fn over(&self, vault: &Vault, months: &RangeInclusive<i32>) -> Vec<i64> {
        months.clone().map(|month| self.term(vault, month)).collect()
    }
}

/// The terms of an entry, sorted, distinct.
pub fn terms(entry: &Entry<'_>, vault: &Vault, month: i32) -> Vec<i64> {
    let mut terms = Vec::with_capacity(entry.patients.len() + entry.touched.len().min(ENTITY_TERMS_MAX) + 3);
    terms.extend(entry.patients.iter().map(|patient| Subject::Patient(patient).term(vault, month)));
    let bulk = entry.touched.len() > ENTITY_TERMS_MAX;
    if bulk {
        terms.push(Subject::Bulk.term(vault, month));
    } else {
        let touched = entry.touched.iter().map(|touch| match &*touch.0 {
            // Who looks for a patient and who looks for what was touched look for the same.
            "Patient" => Subject::Patient(&touch.1).term(vault, month),
            kind => Subject::Entity(kind, &touch.1).term(vault, month),
        });
        terms.extend(touched);
    }
    if let Some(who) = &entry.who {
        terms.push(Subject::Client(&who.client).term(vault, month));
        terms.extend(who.user.iter().map(|user| Subject::User(user).term(vault, month)));
    }
    if entry.outcome != Outcome::Success.code() {
        terms.push(Subject::Failed.term(vault, month));
    }
    terms.sort_unstable();
    terms.dedup();
    terms
}
