//! An entry as it is stored: its canonical bytes, and the month whose key seals it.
//!
//! The bytes are JSON with fixed member order and type names instead of numbers, so that a verifier needs nothing of
//! this server to read them. They are written once and hashed as written; they are never made again from a reading.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::entry::{Event, What};
use crate::error::{Error, Result};
use crate::fhir::definitions;
use crate::store::{ChainPlace, SegmentPlace};
use crate::vault::Rid;
use crate::world::{Instant, hex};

/// Form of the canonical bytes.
const FORM: u8 = 2;

/// What one entry says, as it is stored. PHI: no Debug.
#[derive(Serialize, Deserialize)]
pub struct Entry {
    form: u8,
    /// Of its place in the trail: not part of the bytes.
    #[serde(skip)]
    pub id: String,
    /// Milliseconds since 1970.
    pub at: i64,
    /// `What::code`.
    pub what: String,
    /// `audit-event-outcome`.
    pub outcome: String,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub reason: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub who: Option<StoredWho>,
    pub request: StoredRequest,
    /// Type asked for.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub kind: Option<String>,
    /// Logical ids of all patients; others refer to them by place.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub patients: Vec<String>,
    /// How many of `patients`, from the first, the request itself named.
    pub named: usize,
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub touched: Vec<StoredTouch>,
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub written: Vec<Written>,
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub detail: Vec<(String, String)>,
}

#[derive(Serialize, Deserialize)]
pub struct StoredWho {
    pub client: String,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub jti: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub iss: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub user: Option<String>,
    /// A task of the server itself.
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    pub task: bool,
}

#[derive(Serialize, Deserialize)]
pub struct StoredRequest {
    pub id: String,
    pub address: String,
    pub host: String,
    pub raw: String,
}

/// Type, id, version (0: none), what, places in `patients`.
#[derive(Serialize, Deserialize)]
pub struct StoredTouch(pub String, pub String, pub u32, pub String, pub Vec<usize>);

/// Row id, version, and SHA-256 (hex) of what was written to it: makes the rollback of a row visible.
#[derive(Serialize, Deserialize)]
pub struct Written(pub i64, pub u32, pub String);

/// Months since year 0 (UTC): the audit key that seals entries of this time.
pub fn month(at: Instant) -> i32 {
    let stamp = jiff::Timestamp::from_millisecond(at.0).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    let date = stamp.to_zoned(jiff::tz::TimeZone::UTC).date();
    i32::from(date.year()) * 12 + i32::from(date.month()) - 1
}

/// `instance-lane-number-index`, the first in hexadecimal: where an entry lies is its id.
pub fn entry_id((instance, lane, seq): ChainPlace, index: u32) -> String {
    format!("{instance:016x}-{lane}-{seq}-{index}")
}

/// Reads what [`entry_id`] made.
pub fn entry_place(id: &str) -> Option<(ChainPlace, u32)> {
    let mut parts = id.split('-');
    let instance = i64::from_str_radix(parts.next()?, 16).ok()?;
    let (lane, seq, index) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
    let place = ((instance, lane, seq), index);
    // One place has one id.
    (parts.next().is_none() && entry_id(place.0, index) == id).then_some(place)
}

/// Patients of an entry, each once, in the order they are named.
#[derive(Default)]
struct Patients {
    ids: Vec<String>,
    /// Places by id, once there are too many to look through.
    places: HashMap<String, usize>,
}

impl Patients {
    /// Entries of more patients than this are looked up by hash.
    const FEW: usize = 16;

    fn place(&mut self, patient: String) -> usize {
        if self.ids.len() <= Self::FEW {
            if let Some(place) = self.ids.iter().position(|id| *id == patient) {
                return place;
            }
        } else {
            if self.places.is_empty() {
                self.places = self.ids.iter().cloned().zip(0..).collect();
            }
            if let Some(place) = self.places.get(&patient) {
                return *place;
            }
            self.places.insert(patient.clone(), self.ids.len());
        }
        self.ids.push(patient);
        self.ids.len() - 1
    }
}

impl Entry {
    /// Takes an event as it is to be stored; its id is given by the place where it will lie.
    pub fn new(event: Event, written: &[(Rid, u32, [u8; 32])]) -> Entry {
        let name = |kind| definitions().type_name(kind).to_owned();
        let mut patients = Patients::default();
        let named = event.patients.into_iter().map(|patient| patients.place(patient) + 1).max().unwrap_or(0);
        let touched = event.touched.into_iter().map(|touch| {
            let of = touch.patients.into_iter().map(|patient| patients.place(patient)).collect();
            StoredTouch(name(touch.kind), touch.id, touch.version.unwrap_or(0), touch.what.code().to_owned(), of)
        });
        let touched = touched.collect();
        Entry {
            form: FORM,
            id: String::new(),
            at: event.at.0,
            what: event.what.code().to_owned(),
            outcome: event.outcome.code().to_owned(),
            reason: event.reason,
            who: event.who.map(|who| StoredWho {
                client: who.client_id,
                jti: who.token_id,
                iss: who.issuer,
                user: who.user,
                task: who.task.is_some(),
            }),
            request: StoredRequest {
                id: event.request.id,
                address: event.request.address,
                host: event.request.host,
                raw: event.request.raw,
            },
            kind: event.kind.map(name),
            patients: patients.ids,
            named,
            touched,
            written: written.iter().map(|(rid, version, hash)| Written(rid.0, *version, hex(hash))).collect(),
            detail: event.detail,
        }
    }

    /// The canonical bytes.
    pub fn canonical(&self) -> Result<Zeroizing<Vec<u8>>> {
        let mut bytes = Zeroizing::new(Vec::with_capacity(512));
        serde_json::to_writer(&mut *bytes, self).map_err(Error::internal)?;
        Ok(bytes)
    }

    /// Reads the canonical bytes of the entry at `index` of the segment at `place`.
    ///
    /// # Errors
    /// `Kind::Tampered` when they are no entry, or one of another month.
    pub fn read(place: SegmentPlace, index: u32, bytes: &[u8]) -> Result<Entry> {
        let tampered = || Error::tampered("audit entry");
        let mut entry: Entry =
            serde_json::from_slice(bytes).map_err(|error| tampered().caused_by(json_fault(&error)))?;
        entry.id = entry_id((place.instance, place.lane, place.seq), index);
        let places = entry.touched.iter().flat_map(|touch| &touch.4);
        let whole = entry.form == FORM
            && entry.named <= entry.patients.len()
            && entry.what().is_some()
            && month(Instant(entry.at)) == place.month;
        (whole && places.into_iter().all(|place| *place < entry.patients.len())).then_some(entry).ok_or_else(tampered)
    }

    pub fn what(&self) -> Option<What> {
        What::from_code(&self.what)
    }
}

/// The place of a JSON fault without its text, which may quote the entry.
fn json_fault(error: &serde_json::Error) -> String {
    format!("{:?} at line {}, column {}", error.classify(), error.line(), error.column())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_patient_has_one_place_however_many_there_are() {
        for count in [1, Patients::FEW, Patients::FEW + 1, 10 * Patients::FEW] {
            let mut patients = Patients::default();
            let ids: Vec<String> = (0..count).map(|n| format!("p{n}")).collect();
            for _ in 0..2 {
                let places: Vec<usize> = ids.iter().map(|id| patients.place(id.clone())).collect();
                assert_eq!(places, (0..count).collect::<Vec<_>>());
            }
            assert_eq!(patients.ids, ids);
        }
    }
}
