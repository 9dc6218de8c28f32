//! `Patient/$member-match` (HRex): the identifier of the one member whose demographics and coverage are those given. It
//! is all or nothing: whatever is missing, refused or not unique is 422 with the same words, so that a caller cannot
//! feel its way towards a member.

use serde_json::json;

use super::Call;
use super::matching::{given, matches, referring};
use crate::access::Grants;
use crate::audit::What;
use crate::domain::likeness::Grade;
use crate::error::{Error, Kind, Result};
use crate::fhir::date;
use crate::fhir::json::{self, Node};
use crate::fhir::{Resource, definitions};
use crate::interaction::{Answer, Scene};

/// Patients whose coverage is looked at.
const CANDIDATES_MAX: usize = 5;
/// Coverages of one patient that are looked at.
const COVERAGES_MAX: usize = 20;
const TYPES: &str = "http://terminology.hl7.org/CodeSystem/v2-0203";

pub(super) async fn member_match(scene: Scene<'_>, mut call: Call) -> Result<Answer> {
    let kind = call.kind()?;
    let patient = given(&mut call, "MemberPatient")?;
    let coverage = given(&mut call, "CoverageToMatch")?;
    if call.input.all("CoverageToLink").next().is_some() {
        given(&mut call, "CoverageToLink")?;
    }
    if call.input.all("Consent").next().is_some() {
        let place = call.input.place("Consent");
        consented(scene, &given(&mut call, "Consent")?).map_err(|error| error.at(place))?;
    }
    let wanted = Policy::of(coverage.node());
    if wanted.numbers.is_empty() {
        let text = "CoverageToMatch has neither an identifier nor a subscriberId to be matched by.";
        return Err(Error::new(Kind::BusinessRule, text).at(call.input.place("CoverageToMatch")));
    }
    let (found, more) = matches(scene, patient, kind, CANDIDATES_MAX).await?;
    let likely = found.into_iter().filter(|one| one.grade >= Grade::Probable);
    let mut members = Vec::new();
    for one in likely {
        if covered(scene, &one.sealed.header().id, &wanted).await? {
            members.push(one.sealed);
        }
    }
    let (Some(member), true, false) = (members.pop(), members.is_empty(), more) else {
        return Err(Error::new(Kind::BusinessRule, "No member, or not just one, matches what was sent."));
    };
    let released = scene.app.trail.disclose(scene.event(What::Operation, Some(kind)), vec![member]).await?.pop();
    let released = released.ok_or_else(|| Error::internal("a disclosure without content"))?;
    let identifier = member_identifier(scene, &json::parse(released.bytes())?, released.id());
    let returned = json!([{"name": "MemberIdentifier", "valueIdentifier": identifier}]);
    Ok(Answer::made(json!({"resourceType": "Parameters", "parameter": returned})))
}

/// A consent that this exchange can rest on: active, not one that denies, in force today.
fn consented(scene: Scene<'_>, consent: &Resource) -> Result<()> {
    let node = consent.node();
    let text = |place: &str| node.pointer(place).and_then(Node::as_str);
    let now = scene.app.world.now().0;
    let end = |place: &str, of: fn(date::Range) -> i64| text(place).and_then(|at| date::parse(at).ok()).map(of);
    let began = end("/provision/period/start", |range| range.lo).is_none_or(|start| start <= now);
    let lasts = end("/provision/period/end", |range| range.hi).is_none_or(|end| now <= end);
    if text("/status") == Some("active") && text("/provision/type") != Some("deny") && began && lasts {
        return Ok(());
    }
    Err(Error::new(Kind::BusinessRule, "The Consent is not one that permits this today."))
}

/// What a coverage is known by: identifiers and the subscriber's number.
struct Policy {
    numbers: Vec<(Option<String>, String)>,
}

impl Policy {
    fn of(coverage: &Node) -> Policy {
        let text = |node: &Node, name: &str| node.get(name).and_then(Node::as_str).map(str::to_owned);
        let identifiers = coverage.get("identifier").and_then(Node::as_array).into_iter().flatten();
        let mut numbers: Vec<_> = identifiers
            .filter_map(|one| Some((Some(text(one, "system").unwrap_or_default()), text(one, "value")?)))
            .collect();
        numbers.extend(text(coverage, "subscriberId").map(|number| (None, number)));
        Policy { numbers }
    }

    fn shares(&self, other: &Policy) -> bool {
        self.numbers.iter().any(|number| other.numbers.contains(number))
    }
}

/// Whether the patient has such a coverage, among those the caller may see. Its number is no search parameter: they
/// have to be opened, on record.
async fn covered(scene: Scene<'_>, patient: &str, wanted: &Policy) -> Result<bool> {
    let kind = definitions().type_id("Coverage").ok_or_else(|| Error::internal("R4 has no Coverage"))?;
    let mut query = referring(scene, kind, "beneficiary", &format!("Patient/{patient}"))?;
    query.count = COVERAGES_MAX;
    let grants = Grants::of(scene.caller, &query)?;
    let found = scene.app.store.select(&grants, &query, None).await?.matches;
    if found.is_empty() {
        return Ok(false);
    }
    for released in scene.app.trail.disclose(scene.event(What::Operation, Some(kind)), found).await? {
        if wanted.shares(&Policy::of(&json::parse(released.bytes())?)) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The number of the member here: a member number, else the record number of this server, else its logical id.
fn member_identifier(scene: Scene<'_>, patient: &Node, id: &str) -> Node {
    let all: Vec<&Node> = patient.get("identifier").and_then(Node::as_array).into_iter().flatten().collect();
    let of_type = |node: &Node, code: &str| {
        let codings = node.pointer("/type/coding").and_then(Node::as_array).into_iter().flatten();
        codings.into_iter().any(|coding| coding["code"] == code && coding["system"] == TYPES)
    };
    let usable = |node: &&&Node| node.get("value").is_some();
    let by_type = ["UMB", "MB"].into_iter().find_map(|code| all.iter().filter(usable).find(|node| of_type(node, code)));
    let own = || all.iter().filter(usable).find(|node| node["system"] == scene.app.config.mrn_system.as_str());
    match by_type.or_else(own) {
        Some(node) => (*node).clone(),
        None => json!({"system": format!("{}/Patient", scene.app.config.base_url), "value": id}),
    }
}
