//! Searches with `_contained`: what the server gives, page by page, is every container in which the matcher finds
//! something, or every contained resource that it finds, and with `both` what it finds elsewhere too; each once.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::random::Random;
use super::truth::Inside;
use super::{PAGES_MAX, Pairs, Scene, Seen, address, link, queries};

impl Scene<'_> {
    pub fn compare_contained(
        &self,
        random: &mut Random,
        (kind, pairs): (&str, &Pairs),
        expected: &Inside,
        seen: &mut Seen,
    ) -> Result<(), String> {
        let mut reply = self.first_page(random, kind, pairs);
        let mut found = BTreeSet::new();
        let mut pages = 0;
        loop {
            if reply.status != 200 {
                return Err(format!("{}: {}", reply.status, reply.text()));
            }
            let page = reply.json();
            let entries = page["entry"].as_array().map_or(&[][..], Vec::as_slice);
            let entries: Vec<&Value> = entries.iter().filter(|entry| entry["search"]["mode"] != "outcome").collect();
            if entries.len() > expected.count {
                return Err(format!("a page of {} holds {}", expected.count, entries.len()));
            }
            for entry in entries {
                let place = self.place_of(entry)?;
                if !found.insert(place.clone()) {
                    return Err(format!("{place} is given twice"));
                }
            }
            let total = &page["total"];
            let right = if expected.accurate && pages == 0 { false } else { total.is_null() };
            if !right && *total != json!(expected.places.len()) {
                return Err(format!("the total of page {pages} is {total}, should be {}", expected.places.len()));
            }
            if pages == 0 {
                let own = link(&page, "self").ok_or("no self link")?;
                let (_, query) = own.split_once('?').unwrap_or((own, ""));
                let said: BTreeSet<(String, String)> = queries::decode(query).into_iter().collect();
                if said != expected.applied {
                    return Err(format!("the self link says {said:?}, applied was {:?}", expected.applied));
                }
            }
            pages += 1;
            let Some(next) = link(&page, "next") else { break };
            if pages > PAGES_MAX {
                return Err("it does not end".into());
            }
            reply = self.client.get(next.strip_prefix(&self.root).ok_or("next is elsewhere")?).expect("an answer");
        }
        seen.pages += pages;
        seen.contained += found.len();
        if expected.counts_only {
            return if found.is_empty() { Ok(()) } else { Err("matches in a count".into()) };
        }
        let missing: Vec<_> = expected.places.difference(&found).collect();
        let extra: Vec<_> = found.difference(&expected.places).collect();
        match missing.is_empty() && extra.is_empty() {
            true => Ok(()),
            false => Err(format!("not found: {missing:?}; found besides: {extra:?}")),
        }
    }

    /// `Type/id`, or `Type/id#contained`, of an entry that is what is stored there.
    fn place_of(&self, entry: &Value) -> Result<String, String> {
        let resource = &entry["resource"];
        let full = entry["fullUrl"].as_str().unwrap_or_default();
        let place = full.strip_prefix(&format!("{}/fhir/", self.root)).ok_or(format!("fullUrl is {full}"))?;
        if entry["search"]["mode"] != "match" {
            return Err(format!("{place} has the mode {}", entry["search"]["mode"]));
        }
        let stored = match place.split_once('#') {
            Some((container, id)) => self.truth.is_contained(container, id, resource),
            None => address(resource) == place && self.truth.is_stored(place, resource),
        };
        if stored { Ok(place.to_owned()) } else { Err(format!("{place} is not what is stored")) }
    }
}
