//! Looks up what a person reaches, once for each request: a few indexed queries that read search capsules (and the
//! content of the few resources whose period decides), and let nothing out. Backend services and tasks cost none.

use std::collections::HashSet;
use std::sync::Arc;

use super::Pairs;
use crate::access::policy::{Relations, Whose, policy};
use crate::access::reach::{Patients, Reach};
use crate::access::{Caller, Person, Search, authorize};
use crate::app::App;
use crate::error::{Error, Result};
use crate::fhir::json::Node;
use crate::fhir::{date, definitions};
use crate::search::{Query, QueryOptions};
use crate::world::Instant;

const DAY_MS: i64 = 24 * 3600 * 1000;
/// The name under which the decision looks at care relations.
const TASK: &str = "access decision";

/// The caller with what it reaches now; one whose reach is known already stays as it is.
///
/// # Errors
/// Those of a search: without the care relations nothing can be decided.
pub(super) async fn resolved(app: &App, caller: &Caller) -> Result<Caller> {
    let Some(person) = caller.person().filter(|_| caller.reach().is_none()) else { return Ok(caller.clone()) };
    let reach = Lookup { app, now: app.world.now() }.reach(person).await?;
    Ok(caller.reaching(Some(reach)))
}

struct Lookup<'a> {
    app: &'a App,
    now: Instant,
}

impl Lookup<'_> {
    async fn reach(&self, person: &Person) -> Result<Reach> {
        let mut reach = Reach::default();
        // An emergency token is about its patient alone: no relation is asked for.
        let Some((kind, id)) = person.fhir_user.as_deref().and_then(|user| user.split_once('/')) else {
            return Ok(reach);
        };
        let reaches = |whose| policy().reaches(person.role, whose);
        if kind == "Patient" && reaches(Whose::Own) {
            reach.own = set([id.to_owned()]);
        }
        if kind == "RelatedPerson" && reaches(Whose::Wards) {
            reach.wards = set(self.wards(id).await?);
        }
        if kind == "Practitioner" && reaches(Whose::Assigned) && person.emergency.is_none() {
            reach.assigned = self.assigned(id).await?;
        }
        Ok(reach)
    }

    /// The patients that a RelatedPerson answers for: it must be active and within its period.
    async fn wards(&self, id: &str) -> Result<HashSet<String>> {
        let (grant, query) = self.query("RelatedPerson", &[("_id", id)])?;
        let at = self.now;
        let patient = move |node: &Node| {
            let active = node.get("active").and_then(Node::as_bool) != Some(false);
            let patient = node.pointer("/patient/reference").and_then(Node::as_str)?;
            let id = patient.rsplit_once("Patient/").map(|(_, id)| id.split('/').next().unwrap_or(id).to_owned());
            id.filter(|_| active && within(node.get("period"), at))
        };
        // The capsule says which of these names is a Patient of this server.
        let named: HashSet<String> =
            self.app.store.consult(&grant, query.criteria.clone(), patient).await?.into_iter().collect();
        let local = self.app.store.patients_of(&grant, query.criteria).await?;
        Ok(named.intersection(&local).cloned().collect())
    }

    /// The patients in a practitioner's care, by any of the relations.
    async fn assigned(&self, id: &str) -> Result<Patients> {
        let relations = &policy().relations;
        let roles = self.roles(id).await?;
        let mut names = vec![format!("Practitioner/{id}")];
        names.extend(roles.into_iter().map(|role| format!("PractitionerRole/{role}")));
        let (who, now) = (names.join(","), self.now);
        let visits = format!("ge{}", day(now, -i64::from(relations.encounter_days_after)));
        let past = format!("ge{}", day(now, -i64::from(relations.appointment_days_after)));
        let ahead = format!("le{}", day(now, i64::from(relations.appointment_days_before)));
        let Relations { encounter_statuses, appointment_statuses, .. } = relations;
        let (visited, booked) = (encounter_statuses.join(","), appointment_statuses.join(","));
        let general = [("general-practitioner", who.as_str())];
        let visits = [("participant", who.as_str()), ("status", &visited), ("date", &visits)];
        let bookings = [("actor", who.as_str()), ("status", &booked), ("date", &past), ("date", &ahead)];
        let (general, team, visit, appointment) = tokio::try_join!(
            self.patients("Patient", &general),
            self.teams(&names, &who),
            self.patients("Encounter", &visits),
            self.patients("Appointment", &bookings),
        )?;
        Ok(Arc::new([general, team, visit, appointment].into_iter().flatten().collect()))
    }

    /// The logical ids of the active PractitionerRoles of a practitioner.
    async fn roles(&self, id: &str) -> Result<Vec<String>> {
        let practitioner = format!("Practitioner/{id}");
        let (grant, query) = self.query("PractitionerRole", &[("practitioner", &practitioner)])?;
        let at = self.now;
        let role = move |node: &Node| {
            let active = node.get("active").and_then(Node::as_bool) != Some(false);
            let id = node.get("id").and_then(Node::as_str).map(str::to_owned);
            id.filter(|_| active && within(node.get("period"), at))
        };
        self.app.store.consult(&grant, query.criteria, role).await
    }

    /// The patients of the active care teams in whose period, and in whose own part of it, one of `names` takes part.
    async fn teams(&self, names: &[String], who: &str) -> Result<HashSet<String>> {
        let (grant, query) = self.query("CareTeam", &[("participant", who), ("status", "active")])?;
        let at = self.now;
        let member = |participant: &Node| {
            let of = participant.pointer("/member/reference").and_then(Node::as_str).unwrap_or_default();
            let named = names.iter().any(|name| same_resource(of, name));
            named && within(participant.get("period"), at)
        };
        let team = |node: &Node| {
            let participants = node.get("participant").and_then(Node::as_array).into_iter().flatten();
            let takes_part = within(node.get("period"), at) && participants.into_iter().any(member);
            node.get("id").and_then(Node::as_str).filter(|_| takes_part).map(str::to_owned)
        };
        let teams = self.app.store.consult(&grant, query.criteria, team).await?;
        if teams.is_empty() {
            return Ok(HashSet::new());
        }
        self.patients("CareTeam", &[("_id", &teams.join(","))]).await
    }

    async fn patients(&self, kind: &str, pairs: &[(&str, &str)]) -> Result<HashSet<String>> {
        let (grant, query) = self.query(kind, pairs)?;
        self.app.store.patients_of(&grant, query.criteria).await
    }

    fn query(&self, kind: &str, pairs: &[(&str, &str)]) -> Result<(crate::access::Grant<Search>, Query)> {
        let unknown = || Error::internal("a care relation of a type that R4 does not have");
        let kind = definitions().type_id(kind).ok_or_else(unknown)?;
        let options = QueryOptions {
            lenient: false,
            base: self.app.config.base_url.clone(),
            count_default: 1,
            count_max: 1,
            now: self.now,
        };
        let pairs: Pairs = pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let query = Query::parse(kind, &pairs, &options).map_err(Error::internal)?;
        Ok((authorize::<Search>(&Caller::task(TASK), kind)?, query))
    }
}

fn set(ids: impl IntoIterator<Item = String>) -> Patients {
    Arc::new(ids.into_iter().collect())
}

/// Whether a reference as written (relative, absolute, with a version) is to the resource of this relative name.
fn same_resource(reference: &str, name: &str) -> bool {
    let reference = reference.split("/_history/").next().unwrap_or(reference);
    reference == name || reference.ends_with(&format!("/{name}"))
}

/// Whether the moment lies in a Period. One whose ends cannot be read holds nothing.
fn within(period: Option<&Node>, at: Instant) -> bool {
    let Some(period) = period else { return true };
    let end = |name: &str| period.get(name).and_then(Node::as_str).map(date::parse);
    let after_start = end("start").is_none_or(|start| start.is_ok_and(|start| start.lo <= at.0));
    after_start && end("end").is_none_or(|end| end.is_ok_and(|end| at.0 <= end.hi))
}

/// The day (UTC) some days from now, as a search value.
fn day(now: Instant, days: i64) -> String {
    let at = jiff::Timestamp::from_millisecond(now.plus_ms(days * DAY_MS).0).unwrap_or(jiff::Timestamp::MAX);
    at.strftime("%Y-%m-%d").to_string()
}
