//! An entry as it is stored: its canonical bytes, and the month whose key seals it.
//!
//! The bytes are JSON with fixed member order and type names instead of numbers, so that a verifier needs nothing of
//! this server to read them. They are written once and hashed as written; they are never made again from a reading.

use std::borrow::Cow;
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

/// What one entry says, as it is stored. Written, it borrows from the event: there is one for every request. PHI: no
/// Debug.
#[derive(Serialize, Deserialize)]
pub struct Entry<'e> {
    form: u8,
    /// Of its place in the trail: not part of the bytes.
    #[serde(skip)]
    pub id: String,
    /// Milliseconds since 1970.
    pub at: i64,
    /// `What::code`.
    pub what: Cow<'e, str>,
    /// `audit-event-outcome`.
    pub outcome: Cow<'e, str>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub reason: Option<Cow<'e, str>>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub who: Option<StoredWho<'e>>,
    pub request: StoredRequest<'e>,
    /// Type asked for.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub kind: Option<Cow<'e, str>>,
    /// Logical ids of all patients; others refer to them by place.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub patients: Vec<Cow<'e, str>>,
    /// How many of `patients`, from the first, the request itself named.
    pub named: usize,
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub touched: Vec<StoredTouch<'e>>,
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub written: Vec<Written>,
    #[serde(skip_serializing_if = "<[_]>::is_empty", default)]
    pub detail: Cow<'e, [(String, String)]>,
}

#[derive(Serialize, Deserialize)]
pub struct StoredWho<'e> {
    pub client: Cow<'e, str>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub jti: Option<Cow<'e, str>>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub iss: Option<Cow<'e, str>>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub user: Option<Cow<'e, str>>,
    /// A task of the server itself.
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    pub task: bool,
}

#[derive(Serialize, Deserialize)]
pub struct StoredRequest<'e> {
    pub id: Cow<'e, str>,
    pub address: Cow<'e, str>,
    pub host: Cow<'e, str>,
    pub raw: Cow<'e, str>,
}

/// Type, id, version (0: none), what, places in `patients`.
#[derive(Serialize, Deserialize)]
pub struct StoredTouch<'e>(pub Cow<'e, str>, pub Cow<'e, str>, pub u32, pub Cow<'e, str>, pub Vec<usize>);

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
struct Patients<'e> {
    ids: Vec<&'e str>,
    /// Places by id, once there are too many to look through.
    places: HashMap<&'e str, usize>,
}

impl<'e> Patients<'e> {
    /// Entries of more patients than this are looked up by hash.
    const FEW: usize = 16;

    fn place(&mut self, patient: &'e str) -> usize {
        if self.ids.len() <= Self::FEW {
            if let Some(place) = self.ids.iter().position(|id| *id == patient) {
                return place;
            }
        } else {
            if self.places.is_empty() {
                self.places = self.ids.iter().copied().zip(0..).collect();
            }
            if let Some(place) = self.places.get(patient) {
                return *place;
            }
            self.places.insert(patient, self.ids.len());
        }
        self.ids.push(patient);
        self.ids.len() - 1
    }
}

impl<'e> Entry<'e> {
    /// An event as it is to be stored; its id is given by the place where it will lie.
    pub fn new(event: &'e Event, written: &[(Rid, u32, [u8; 32])]) -> Entry<'e> {
        let name = |kind| Cow::Borrowed(definitions().type_name(kind));
        let text = |text: &'e String| Cow::Borrowed(text.as_str());
        let code = Cow::Borrowed;
        let mut patients = Patients::default();
        let named = event.patients.iter().map(|patient| patients.place(patient) + 1).max().unwrap_or(0);
        let touched = event.touched.iter().map(|touch| {
            let of = touch.patients.iter().map(|patient| patients.place(patient)).collect();
            StoredTouch(name(touch.kind), text(&touch.id), touch.version.unwrap_or(0), code(touch.what.code()), of)
        });
        let touched = touched.collect();
        Entry {
            form: FORM,
            id: String::new(),
            at: event.at.0,
            what: code(event.what.code()),
            outcome: code(event.outcome.code()),
            reason: event.reason.as_ref().map(text),
            who: event.who.as_ref().map(|who| StoredWho {
                client: text(&who.client_id),
                jti: who.token_id.as_ref().map(text),
                iss: who.issuer.as_ref().map(text),
                user: who.user.as_ref().map(text),
                task: who.task.is_some(),
            }),
            request: StoredRequest {
                id: text(&event.request.id),
                address: text(&event.request.address),
                host: text(&event.request.host),
                raw: text(&event.request.raw),
            },
            kind: event.kind.map(name),
            patients: patients.ids.into_iter().map(code).collect(),
            named,
            touched,
            written: written.iter().map(|(rid, version, hash)| Written(rid.0, *version, hex(hash))).collect(),
            detail: Cow::Borrowed(&event.detail),
        }
    }

    /// The canonical bytes.
    pub fn canonical(&self) -> Result<Zeroizing<Vec<u8>>> {
        // Most fit: a buffer that grows leaves what it held behind, not wiped.
        let mut bytes = Zeroizing::new(Vec::with_capacity(1024));
        serde_json::to_writer(&mut *bytes, self).map_err(Error::internal)?;
        Ok(bytes)
    }

    /// Reads the canonical bytes of the entry at `index` of the segment at `place`.
    ///
    /// # Errors
    /// `Kind::Tampered` when they are no entry, or one of another month.
    pub fn read(place: SegmentPlace, index: u32, bytes: &[u8]) -> Result<Entry<'static>> {
        let tampered = || Error::tampered("audit entry");
        let mut entry: Entry<'static> =
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
    use std::sync::Arc;

    use super::super::entry::{Request, Touched};
    use super::*;
    use crate::access::Who;

    /// Verifiers outside read these bytes, and every stored entry has them.
    const WHOLE: &str = concat!(
        r#"{"form":2,"at":1800000000000,"what":"transaction","outcome":"4","reason":"why","who":{"client":"c","jti":"j","#,
        r#""iss":"i","user":"u"},"request":{"id":"r","address":"192.0.2.7","host":"h","raw":"/fhir?a=\"b\""},"#,
        r#""kind":"Patient","patients":["p0","p1"],"named":1,"touched":[["Patient","p1",3,"read",[1,0]],"#,
        r#"["Binary","b",0,"create",[]]],"written":[[-7,2,"#,
        r#""0909090909090909090909090909090909090909090909090909090909090909"]],"detail":[["name","value"]]}"#
    );

    #[test]
    fn the_canonical_bytes_stay_as_they_are_and_are_read_back_whole() {
        let kind = |name| definitions().type_id(name).expect("a type of R4");
        let who = Who {
            client_id: "c".into(),
            token_id: Some("j".into()),
            issuer: Some("i".into()),
            user: Some("u".into()),
            expires: None,
            task: None,
        };
        let request =
            Request { id: "r".into(), address: "192.0.2.7".into(), raw: "/fhir?a=\"b\"".into(), host: "h".into() };
        let patients = vec!["p1".to_owned(), "p0".to_owned()];
        let touch = |name, id: &str, version, patients, what| Touched {
            kind: kind(name),
            id: id.to_owned(),
            version,
            patients,
            what,
        };
        let event = Event {
            outcome: crate::audit::Outcome::Minor,
            reason: Some("why".into()),
            who: Some(Arc::new(who)),
            kind: Some(kind("Patient")),
            touched: vec![
                touch("Patient", "p1", Some(3), patients, What::Read),
                touch("Binary", "b", None, Vec::new(), What::Create),
            ],
            patients: vec!["p0".into()],
            detail: vec![("name".into(), "value".into())],
            ..Event::new(Instant(1_800_000_000_000), What::Transaction, request)
        };
        let bytes = Entry::new(&event, &[(Rid(-7), 2, [9; 32])]).canonical().expect("bytes");
        assert_eq!(String::from_utf8_lossy(&bytes), WHOLE);
        let place = SegmentPlace { month: month(event.at), instance: 1, lane: 0, seq: 5 };
        let read = Entry::read(place, 2, &bytes).expect("an entry");
        assert_eq!(read.id, "0000000000000001-0-5-2");
        assert_eq!(String::from_utf8_lossy(&read.canonical().expect("bytes")), WHOLE);
    }

    #[test]
    fn each_patient_has_one_place_however_many_there_are() {
        for count in [1, Patients::FEW, Patients::FEW + 1, 10 * Patients::FEW] {
            let mut patients = Patients::default();
            let ids: Vec<String> = (0..count).map(|n| format!("p{n}")).collect();
            for _ in 0..2 {
                let places: Vec<usize> = ids.iter().map(|id| patients.place(id)).collect();
                assert_eq!(places, (0..count).collect::<Vec<_>>());
            }
            assert_eq!(patients.ids, ids);
        }
    }
}
