//! Break-glass, by `$emergency-access` or by token exchange: a person states purpose and reason and gets a short token for
//! one patient. Before the token is given out, an alert on the record (Flag) and an order to review it (Task) are written,
//! with the record of it all.

use serde_json::json;

use super::Call;
use crate::access::policy::policy;
use crate::access::{Caller, Create, Search, authorize};
use crate::app::App;
use crate::audit::{Event, What};
use crate::error::{Error, Kind, Result};
use crate::fhir::json::Node;
use crate::fhir::{Resource, definitions};
use crate::interaction::write::patch::Bases;
use crate::interaction::write::stage::Change;
use crate::interaction::{Answer, Facts, Scene};
use crate::oauth::reviews::Review;
use crate::oauth::{EmergencyAsked, EmergencyGiven};
use crate::search::query::Criterion;
use crate::world::Instant;

const TASK: &str = "emergency access";
const REASON: &str = "http://terminology.hl7.org/CodeSystem/v3-ActReason";
/// Characters of a reason.
const REASON_LENGTH: std::ops::RangeInclusive<usize> = 10..=1_000;

/// What is stated, and the places of purpose and reason in the request.
struct Stated<'a> {
    patient: &'a str,
    purpose: &'a str,
    reason: &'a str,
    places: [String; 2],
}

pub(super) async fn emergency(scene: Scene<'_>, call: &Call) -> Result<Answer> {
    let stated = Stated {
        patient: call.id()?,
        purpose: call.input.text("purpose").unwrap_or_default(),
        reason: call.input.text("reason").unwrap_or_default(),
        places: [call.input.place("purpose"), call.input.place("reason")],
    };
    let EmergencyGiven { token, review } = give(scene, &stated, scene.caller.scopes().to_string()).await?;
    let expires_in = (token.expires.0 - scene.app.world.now().0) / 1000;
    let text = |name: &str, value: &str| json!({"name": name, "valueString": value});
    let parameters = json!([
        text("access_token", &token.access_token),
        text("token_type", "Bearer"),
        {"name": "expires_in", "valueInteger": expires_in},
        text("scope", &token.scope),
        text("patient", stated.patient),
        {"name": "review", "valueReference": {"reference": review}},
    ]);
    Ok(Answer::made(json!({"resourceType": "Parameters", "parameter": parameters})))
}

/// The same for a token exchange at the token endpoint, which answers and puts its refusals on record itself.
///
/// # Errors
/// As the operation.
pub async fn exchange(app: &App, request: crate::audit::Request, asked: EmergencyAsked) -> Result<EmergencyGiven> {
    let facts = Facts { request: request.into(), operation: Some("emergency-access"), ..Facts::default() };
    let EmergencyAsked { caller, patient, purpose, reason, scope } = asked;
    let places = ["purpose".to_owned(), "reason".to_owned()];
    let stated = Stated { patient: &patient, purpose: &purpose, reason: &reason, places };
    give(Scene { app, caller: &caller, facts: &facts }, &stated, scope).await
}

/// Decides, writes alert and order with the record, and only then gives the token.
async fn give(scene: Scene<'_>, stated: &Stated<'_>, scope: String) -> Result<EmergencyGiven> {
    let user = permitted(scene, stated)?;
    if !exists(scene, stated.patient).await? {
        return Err(Error::not_found());
    }
    let seconds = i64::from(policy().emergency.minutes) * 60;
    let token = scene.app.oauth.emergency(scene.caller, [stated.patient, stated.purpose], scope, seconds)?;
    let task = put_down(scene, stated, user, (token.expires, &token.token_id)).await?;
    tracing::warn!(role = scene.caller.person().map_or("", |person| person.role.name()), "emergency access was given");
    metrics::counter!("phial_emergency_accesses_total").increment(1);
    Ok(EmergencyGiven { token, review: format!("Task/{task}") })
}

/// Whether this caller may, for this purpose and reason; gives the person's own record.
///
/// # Errors
/// `Kind::Forbidden` for who may not, `Kind::Invalid` for a purpose or reason that will not do.
fn permitted<'a>(scene: Scene<'a>, stated: &Stated<'_>) -> Result<&'a str> {
    let may = &policy().emergency;
    let person = scene.caller.person().filter(|person| may.roles.contains(&person.role) && person.emergency.is_none());
    let user = person.and_then(|person| person.fhir_user.as_deref());
    let user = user.ok_or_else(|| Error::new(Kind::Forbidden, "Emergency access is not open to this caller."))?;
    let [purpose_at, reason_at] = &stated.places;
    if !may.purposes.iter().any(|known| known == stated.purpose) {
        let text = format!("The purpose of an emergency access must be one of {}.", may.purposes.join(", "));
        return Err(Error::invalid(text).at(purpose_at.clone()));
    }
    if !REASON_LENGTH.contains(&stated.reason.trim().chars().count()) {
        let text = "The reason of an emergency access must be said in 10 to 1,000 characters.";
        return Err(Error::invalid(text).at(reason_at.clone()));
    }
    Ok(user)
}

/// Whether there is such a patient: looked up as part of the decision, nothing of it is let out.
async fn exists(scene: Scene<'_>, patient: &str) -> Result<bool> {
    let kind = definitions().type_id("Patient").ok_or_else(|| Error::internal("no type Patient"))?;
    let grant = authorize::<Search>(&Caller::task(TASK), kind)?;
    let criteria = vec![Criterion::IdIn([patient.to_owned()].into())];
    Ok(!scene.app.store.patients_of(&grant, criteria).await?.is_empty())
}

/// Writes alert and order with the record of the access, in one transaction; gives the id of the order.
async fn put_down(
    scene: Scene<'_>,
    stated: &Stated<'_>,
    user: &str,
    (ends, token_id): (Instant, &str),
) -> Result<String> {
    let reason = stated.reason.trim();
    let (from, until) = (stamp(scene.app.world.now()), stamp(ends));
    let patient = json!({"reference": format!("Patient/{}", stated.patient)});
    let user = json!({"reference": user});
    let purpose = json!({"coding": [{"system": REASON, "code": stated.purpose}], "text": reason});
    let flag = json!({
        "resourceType": "Flag", "status": "active", "code": {"text": "Emergency access to this record"},
        "subject": patient, "author": user, "period": {"start": from, "end": until},
    });
    let task = json!({
        "resourceType": "Task", "status": "requested", "intent": "order", "priority": "urgent",
        "code": {"text": "Review an emergency access"}, "description": reason, "for": patient,
        "requester": user, "reasonCode": purpose, "authoredOn": from,
    });
    let (flag, flag_id) = ordered(scene, flag)?;
    let (task, id) = ordered(scene, task)?;
    let review = review(scene, stated, [&id, &flag_id], (ends, token_id)).await?;
    scene.app.oauth.order_review(&review).await?;
    let given = write(scene, stated, [flag, task], token_id).await;
    if given.is_err() {
        // An order that outlives its access would only be puzzled over: nothing hangs on its going.
        let _ = scene.app.oauth.drop_review(&id).await;
    }
    given.map(|()| id)
}

/// What is kept of the access until it has been reviewed.
async fn review(
    scene: Scene<'_>,
    stated: &Stated<'_>,
    [task, flag]: [&str; 2],
    (until, token): (Instant, &str),
) -> Result<Review> {
    let who = scene.caller.who();
    let person = scene.caller.person();
    Ok(Review {
        task: task.to_owned(),
        flag: flag.to_owned(),
        user: who.user.clone().unwrap_or_default(),
        username: scene.app.oauth.name_of(scene.caller).await?,
        fhir_user: person.and_then(|person| person.fhir_user.clone()).unwrap_or_default(),
        role: person.map_or("", |person| person.role.name()).to_owned(),
        client_id: who.client_id.clone(),
        purpose: stated.purpose.to_owned(),
        token: token.to_owned(),
        made: scene.app.world.now().0,
        until: until.0,
        closed: None,
    })
}

/// Alert and order, with the record of the access, in one transaction.
async fn write(scene: Scene<'_>, stated: &Stated<'_>, changes: [Change; 2], token_id: &str) -> Result<()> {
    let bases = Bases::open(scene, changes.iter()).await?;
    let mut tx = scene.app.store.begin();
    for change in &changes {
        change.stage(scene, &mut tx, &bases).await?;
    }
    let mut event = Event {
        reason: Some(format!("emergency access ({}): {}", stated.purpose, stated.reason.trim())),
        patients: vec![stated.patient.to_owned()],
        ..scene.event(What::Operation, definitions().type_id("Patient"))
    };
    let facts = [("emergency", stated.purpose), ("token", token_id)];
    event.detail.extend(facts.map(|(name, value)| (name.to_owned(), value.to_owned())));
    scene.app.trail.commit(event, tx, Vec::new(), Vec::new()).await.map(drop)
}

/// A resource to be created, and its id. Both are the server's own to write, whatever the caller may.
fn ordered(scene: Scene<'_>, node: Node) -> Result<(Change, String)> {
    let resource = Resource::check_at(node, "Parameters")?;
    let grant = authorize::<Create>(&Caller::task(TASK), resource.kind())?;
    let id = scene.app.world.uuid();
    Ok((Change::Create { grant, resource: resource.into(), id: id.clone() }, id))
}

fn stamp(at: Instant) -> String {
    jiff::Timestamp::from_millisecond(at.0).unwrap_or(jiff::Timestamp::MIN).to_string()
}
