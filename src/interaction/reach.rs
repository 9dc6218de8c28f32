//! Looks up what a person reaches, once for each request: a few indexed queries that read search capsules (and the
//! content of the few resources whose period decides), and let nothing out. Backend services and tasks cost none.

use std::collections::HashSet;
use std::sync::Arc;

use zeroize::Zeroizing;

use super::Pairs;
use crate::access::consent::{Book, Directives, Kept, Recipient};
use crate::access::policy::{Relations, Whose, policy};
use crate::access::reach::{Patients, Reach, holds};
use crate::access::{Caller, Grant, Person, Role, Search, authorize};
use crate::app::App;
use crate::error::{Error, Result};
use crate::fhir::definitions;
use crate::fhir::json::{self, Node};
use crate::search::values::Header;
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
    // Boxed: most requests of services look nothing up, and a future is as large as what it might do.
    let reach = Box::pin(Lookup { app, now: app.world.now() }.reach(person)).await?;
    Ok(caller.reaching(Some(reach)))
}

/// Whether a record that a user is to be tied to (`Patient/1`) is there and stands: active, and within its period. Lets
/// nothing of it out.
pub(super) async fn stands(app: &App, record: &str) -> Result<bool> {
    let Some((kind, id)) = record.split_once('/') else { return Ok(false) };
    let lookup = Lookup { app, now: app.world.now() };
    let (grant, query) = lookup.query(kind, &[("_id", id)])?;
    let found = app.store.consult(&grant, query.criteria, |_: &Header, node: &Node| Some(lookup.stands(node))).await?;
    Ok(found.into_iter().any(|stands| stands))
}

struct Lookup<'a> {
    app: &'a App,
    now: Instant,
}

/// A practitioner and the names under which one takes part in care.
#[derive(Default)]
struct Names {
    /// `Practitioner/1`, and its active PractitionerRoles.
    own: Vec<String>,
    /// Organizations of these roles.
    organizations: Vec<String>,
}

impl Lookup<'_> {
    async fn reach(&self, person: &Person) -> Result<Reach> {
        let mut reach = Reach::default();
        // An emergency token is about its patient alone: no relation is asked for, and no consent.
        let Some((kind, id)) = person.fhir_user.as_deref().and_then(|user| user.split_once('/')) else {
            return Ok(reach);
        };
        if person.emergency.is_some() {
            return Ok(reach);
        }
        let reaches = |whose| policy().reaches(person.role, whose);
        let mut names = Names { own: vec![format!("{kind}/{id}")], organizations: Vec::new() };
        let mut teams = HashSet::new();
        match kind {
            "Patient" if reaches(Whose::Own) => reach.own = set([id.to_owned()]),
            "RelatedPerson" if reaches(Whose::Wards) => reach.wards = set(self.wards(id).await?),
            "Practitioner" if reaches(Whose::Assigned) => {
                names = self.names(id).await?;
                (reach.assigned, teams) = self.assigned(&names).await?;
            }
            _ => {}
        }
        if person.role != Role::Patient {
            let names = names.own.into_iter().chain(names.organizations).chain(teams).collect();
            reach.directives = self.directives(person.role, names).await?.map(Arc::new);
        }
        Ok(reach)
    }

    /// The patients that a RelatedPerson answers for: it must be active and within its period.
    async fn wards(&self, id: &str) -> Result<HashSet<String>> {
        let (grant, query) = self.query("RelatedPerson", &[("_id", id)])?;
        let of = |header: &Header, node: &Node| self.stands(node).then(|| header.patients.clone());
        let found = self.app.store.consult(&grant, query.criteria, of).await?;
        Ok(found.into_iter().flatten().collect())
    }

    /// Whether a resource is active (it says so, or nothing) and within its period.
    fn stands(&self, node: &Node) -> bool {
        node.get("active").and_then(Node::as_bool) != Some(false) && holds(node.get("period"), self.now)
    }

    /// The patients in a practitioner's care, by any of the relations, and the care teams (`CareTeam/1`).
    async fn assigned(&self, names: &Names) -> Result<(Patients, HashSet<String>)> {
        let relations = &policy().relations;
        let (who, now) = (names.own.join(","), self.now);
        let visits = format!("ge{}", day(now, -i64::from(relations.encounter_days_after)));
        let past = format!("ge{}", day(now, -i64::from(relations.appointment_days_after)));
        let ahead = format!("le{}", day(now, i64::from(relations.appointment_days_before)));
        let Relations { encounter_statuses, appointment_statuses, .. } = relations;
        let (visited, booked) = (encounter_statuses.join(","), appointment_statuses.join(","));
        let general = [("general-practitioner", who.as_str())];
        let visits = [("participant", who.as_str()), ("status", &visited), ("date", &visits)];
        let bookings = [("actor", who.as_str()), ("status", &booked), ("date", &past), ("date", &ahead)];
        let (general, teams, visit, appointment) = tokio::try_join!(
            self.patients("Patient", &general),
            self.teams(&names.own, &who),
            self.patients("Encounter", &visits),
            self.patients("Appointment", &bookings),
        )?;
        let of_teams = teams.iter().flat_map(|(_, patients)| patients.clone()).collect();
        let patients = [general, of_teams, visit, appointment].into_iter().flatten().collect();
        Ok((Arc::new(patients), teams.into_iter().map(|(id, _)| format!("CareTeam/{id}")).collect()))
    }

    /// What a practitioner is called: by the own record and by every role that stands.
    async fn names(&self, id: &str) -> Result<Names> {
        let practitioner = format!("Practitioner/{id}");
        let (grant, query) = self.query("PractitionerRole", &[("practitioner", &practitioner)])?;
        let role = |header: &Header, node: &Node| {
            let organization = node.pointer("/organization/reference").and_then(Node::as_str).map(str::to_owned);
            self.stands(node).then(|| (format!("PractitionerRole/{}", header.id), organization))
        };
        let roles = self.app.store.consult(&grant, query.criteria, role).await?;
        let (roles, organizations): (Vec<String>, Vec<Option<String>>) = roles.into_iter().unzip();
        let own = std::iter::once(practitioner).chain(roles).collect();
        Ok(Names { own, organizations: organizations.into_iter().flatten().collect() })
    }

    /// The active care teams in whose period, and in whose own part of it, one of `names` takes part; with their patients.
    async fn teams(&self, names: &[String], who: &str) -> Result<Vec<(String, Vec<String>)>> {
        let (grant, query) = self.query("CareTeam", &[("participant", who), ("status", "active")])?;
        let member = |participant: &Node| {
            let of = participant.pointer("/member/reference").and_then(Node::as_str).unwrap_or_default();
            let named = names.iter().any(|name| same_resource(of, name));
            named && holds(participant.get("period"), self.now)
        };
        let team = |header: &Header, node: &Node| {
            let participants = node.get("participant").and_then(Node::as_array).into_iter().flatten();
            let takes_part = holds(node.get("period"), self.now) && participants.into_iter().any(member);
            takes_part.then(|| (header.id.clone(), header.patients.clone()))
        };
        self.app.store.consult(&grant, query.criteria, team).await
    }

    /// What the patients' active privacy consents say to this person. All patients are asked: a row may belong to others
    /// than those whom the person reaches.
    async fn directives(&self, role: Role, names: HashSet<String>) -> Result<Option<Directives>> {
        let base = self.app.config.base_url.clone();
        let to = Recipient { role, names, purpose: policy().purpose(role).to_owned(), at: self.now, base };
        Ok(Directives::of(self.book().await?, to))
    }

    /// The consents as they stand: those that are in memory, if none was changed since.
    async fn book(&self) -> Result<Arc<Book>> {
        let (store, shelf) = (&self.app.store, &self.app.consents);
        if let Some(book) = shelf.at(store.consent_epoch().await?) {
            return Ok(book);
        }
        let _turn = shelf.reading.lock().await;
        // The epoch before the consents: what is changed in between is read under the number before, and read anew.
        let epoch = store.consent_epoch().await?;
        if let Some(book) = shelf.at(epoch) {
            return Ok(book);
        }
        let (grant, query) = self.query("Consent", &[("status", "active"), ("scope", "patient-privacy")])?;
        let kept = |header: &Header, node: &Node| {
            Some(Kept { patients: header.patients.clone(), text: Zeroizing::new(json::write(node)) })
        };
        let book = Arc::new(Book::of(store.consult(&grant, query.criteria, kept).await?));
        shelf.keep(epoch, book.clone());
        Ok(book)
    }

    async fn patients(&self, kind: &str, pairs: &[(&str, &str)]) -> Result<HashSet<String>> {
        let (grant, query) = self.query(kind, pairs)?;
        self.app.store.patients_of(&grant, query.criteria).await
    }

    fn query(&self, kind: &str, pairs: &[(&str, &str)]) -> Result<(Grant<Search>, Query)> {
        let unknown = || Error::internal("a care relation of a type that R4 does not have");
        let kind = definitions().type_id(kind).ok_or_else(unknown)?;
        let options = QueryOptions {
            lenient: false,
            base: self.app.config.base_url.clone(),
            count_default: 1,
            count_max: 1,
            now: self.now,
            customs: Default::default(),
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

/// The day (UTC) some days from now, as a search value.
fn day(now: Instant, days: i64) -> String {
    let at = jiff::Timestamp::from_millisecond(now.plus_ms(days * DAY_MS).0).unwrap_or(jiff::Timestamp::MAX);
    at.strftime("%Y-%m-%d").to_string()
}
