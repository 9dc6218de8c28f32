//! `$emergency-access` (break-glass): a person states purpose and reason and gets a short token for one patient. Before the
//! token is given out, an alert on the record (Flag) and an order to review it (Task) are written, with the record of it all.

use serde_json::json;

use super::Call;
use crate::access::policy::policy;
use crate::access::{Caller, Create, Search, authorize};
use crate::audit::{Event, What};
use crate::error::{Error, Kind, Result};
use crate::fhir::json::Node;
use crate::fhir::{Resource, definitions};
use crate::interaction::write::patch::Bases;
use crate::interaction::write::stage::Change;
use crate::interaction::{Answer, Scene};
use crate::search::query::Criterion;
use crate::world::Instant;

const TASK: &str = "emergency access";
const REASON: &str = "http://terminology.hl7.org/CodeSystem/v3-ActReason";
/// Characters of a reason.
const REASON_LENGTH: std::ops::RangeInclusive<usize> = 10..=1_000;

/// What is stated, checked.
struct Stated<'a> {
    patient: &'a str,
    purpose: &'a str,
    reason: &'a str,
    /// The person's own record.
    user: &'a str,
}

pub(super) async fn emergency(scene: Scene<'_>, call: &Call) -> Result<Answer> {
    let stated = stated(scene, call)?;
    if !exists(scene, stated.patient).await? {
        return Err(Error::not_found());
    }
    let seconds = i64::from(policy().emergency.minutes) * 60;
    let token = scene.app.oauth.emergency(scene.caller, stated.patient, stated.purpose, seconds)?;
    let task = put_down(scene, &stated, token.expires, &token.token_id).await?;
    tracing::warn!(role = scene.caller.person().map_or("", |person| person.role.name()), "emergency access was given");
    metrics::counter!("phial_emergency_accesses_total").increment(1);
    let expires_in = (token.expires.0 - scene.app.world.now().0) / 1000;
    let text = |name: &str, value: &str| json!({"name": name, "valueString": value});
    let parameters = json!([
        text("access_token", &token.access_token),
        text("token_type", "Bearer"),
        {"name": "expires_in", "valueInteger": expires_in},
        text("scope", &token.scope),
        text("patient", stated.patient),
        {"name": "review", "valueReference": {"reference": format!("Task/{task}")}},
    ]);
    Ok(Answer::made(json!({"resourceType": "Parameters", "parameter": parameters})))
}

/// Who asks, for whom, and why.
///
/// # Errors
/// `Kind::Forbidden` for who may not, `Kind::Invalid` for a purpose or reason that will not do.
fn stated<'a>(scene: Scene<'a>, call: &'a Call) -> Result<Stated<'a>> {
    let may = &policy().emergency;
    let person = scene.caller.person().filter(|person| may.roles.contains(&person.role) && person.emergency.is_none());
    let user = person.and_then(|person| person.fhir_user.as_deref());
    let user = user.ok_or_else(|| Error::new(Kind::Forbidden, "Emergency access is not open to this caller."))?;
    let purpose = call.input.text("purpose").unwrap_or_default();
    if !may.purposes.iter().any(|known| known == purpose) {
        let text = format!("The purpose of an emergency access must be one of {}.", may.purposes.join(", "));
        return Err(Error::invalid(text).at(call.input.place("purpose")));
    }
    let reason = call.input.text("reason").unwrap_or_default().trim();
    if !REASON_LENGTH.contains(&reason.chars().count()) {
        let text = "The reason of an emergency access must be said in 10 to 1,000 characters.";
        return Err(Error::invalid(text).at(call.input.place("reason")));
    }
    Ok(Stated { patient: call.id()?, purpose, reason, user })
}

/// Whether there is such a patient: looked up as part of the decision, nothing of it is let out.
async fn exists(scene: Scene<'_>, patient: &str) -> Result<bool> {
    let kind = definitions().type_id("Patient").ok_or_else(|| Error::internal("no type Patient"))?;
    let grant = authorize::<Search>(&Caller::task(TASK), kind)?;
    let criteria = vec![Criterion::IdIn([patient.to_owned()].into())];
    Ok(!scene.app.store.patients_of(&grant, criteria).await?.is_empty())
}

/// Writes alert and order with the record of the access, in one transaction; gives the id of the order.
async fn put_down(scene: Scene<'_>, stated: &Stated<'_>, until: Instant, token_id: &str) -> Result<String> {
    let (from, until) = (stamp(scene.app.world.now()), stamp(until));
    let patient = json!({"reference": format!("Patient/{}", stated.patient)});
    let user = json!({"reference": stated.user});
    let purpose = json!({"coding": [{"system": REASON, "code": stated.purpose}], "text": stated.reason});
    let flag = json!({
        "resourceType": "Flag", "status": "active", "code": {"text": "Emergency access to this record"},
        "subject": patient, "author": user, "period": {"start": from, "end": until},
    });
    let task = json!({
        "resourceType": "Task", "status": "requested", "intent": "order", "priority": "urgent",
        "code": {"text": "Review an emergency access"}, "description": stated.reason, "for": patient,
        "requester": user, "reasonCode": purpose, "authoredOn": from,
    });
    let (flag, _) = ordered(scene, flag)?;
    let (task, id) = ordered(scene, task)?;
    let changes = [flag, task];
    let bases = Bases::open(scene, changes.iter()).await?;
    let mut tx = scene.app.store.begin();
    for change in &changes {
        change.stage(scene, &mut tx, &bases).await?;
    }
    let mut event = Event {
        reason: Some(format!("emergency access ({}): {}", stated.purpose, stated.reason)),
        patients: vec![stated.patient.to_owned()],
        ..scene.event(What::Operation, definitions().type_id("Patient"))
    };
    let facts = [("emergency", stated.purpose), ("token", token_id)];
    event.detail.extend(facts.map(|(name, value)| (name.to_owned(), value.to_owned())));
    scene.app.trail.commit(event, tx, Vec::new(), Vec::new()).await?;
    Ok(id)
}

/// A resource to be created, and its id. Both are the server's own to write, whatever the caller may.
fn ordered(scene: Scene<'_>, node: Node) -> Result<(Change, String)> {
    let resource = Resource::check_at(node, "Parameters")?;
    let grant = authorize::<Create>(&Caller::task(TASK), resource.kind())?;
    let id = scene.app.world.uuid();
    Ok((Change::Create { grant, resource, id: id.clone() }, id))
}

fn stamp(at: Instant) -> String {
    jiff::Timestamp::from_millisecond(at.0).unwrap_or(jiff::Timestamp::MIN).to_string()
}
