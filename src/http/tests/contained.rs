//! Resources that lie within others: `_contained` and `_containedType`.

use serde_json::{Value, json};

use super::people::{put, ward};
use super::{Persona, Reply, TestApp, on_both};
use crate::access::Role;

on_both![
    what_lies_in_others_is_found_alone_or_with_its_container,
    what_is_contained_is_seen_by_whoever_sees_its_container,
    a_container_that_matches_itself_is_given_once,
];

/// Full address and id of every match.
fn found(reply: &Reply) -> Vec<String> {
    assert_eq!(reply.status, 200, "{}", reply.text());
    let entries = reply.json()["entry"].as_array().cloned().unwrap_or_default();
    let line = |entry: &Value| {
        assert_eq!(entry["search"]["mode"], "match");
        let url = entry["fullUrl"].as_str().unwrap_or_default();
        let id = entry["resource"]["id"].as_str().unwrap_or_default();
        assert!(url.ends_with(&format!("/{id}")) || url.ends_with(&format!("#{id}")), "{url} {id}");
        url.trim_start_matches("http://phial.test/fhir/").to_owned()
    };
    let mut lines: Vec<String> = entries.iter().map(line).collect();
    lines.sort();
    lines
}

fn medication(id: &str, code: &str) -> Value {
    json!({
        "resourceType": "Medication", "id": id, "status": "active",
        "code": {"coding": [{"system": "http://codes", "code": code}]},
        "manufacturer": {"reference": "Organization/maker"},
    })
}

fn request(id: &str, patient: &str, codes: &[&str]) -> Value {
    let contained: Vec<Value> = codes.iter().enumerate().map(|(n, code)| medication(&format!("m{n}"), code)).collect();
    json!({
        "resourceType": "MedicationRequest", "id": id, "status": "active", "intent": "order", "contained": contained,
        "medicationReference": {"reference": "#m0"}, "subject": {"reference": format!("Patient/{patient}")},
        "supportingInformation": codes.iter().enumerate().map(|(n, _)| json!({"reference": format!("#m{n}")})).collect::<Vec<_>>(),
    })
}

/// Two requests of ann, one of bob, a medication of its own, and a statement of cid.
async fn shelves(app: &TestApp) -> Persona<'_> {
    let office = app.persona("system/*.cruds").await;
    put(&office, &json!({"resourceType": "Organization", "id": "maker", "name": "Maker"})).await;
    put(&office, &request("r1", "ann", &["abc", "xyz", "abc"])).await;
    put(&office, &request("r2", "ann", &["xyz"])).await;
    put(&office, &request("r3", "bob", &["abc"])).await;
    put(&office, &medication("own", "abc")).await;
    let mut statement = request("s1", "cid", &["abc"]);
    statement["resourceType"] = json!("MedicationStatement");
    for member in ["intent", "supportingInformation"] {
        statement.as_object_mut().unwrap().remove(member);
    }
    put(&office, &statement).await;
    office
}

async fn what_lies_in_others_is_found_alone_or_with_its_container() {
    let app = ward().await;
    let office = shelves(&app).await;
    let containers = ["MedicationRequest/r1", "MedicationRequest/r3", "MedicationStatement/s1"];
    let alone =
        ["MedicationRequest/r1#m0", "MedicationRequest/r1#m2", "MedicationRequest/r3#m0", "MedicationStatement/s1#m0"];
    let with_own: Vec<&str> = ["Medication/own"].into_iter().chain(containers).collect();
    for (query, expected) in [
        ("Medication?code=abc", vec!["Medication/own"]),
        ("Medication?code=abc&_contained=false", vec!["Medication/own"]),
        ("Medication?code=abc&_contained=true", containers.to_vec()),
        ("Medication?code=abc&_contained=true&_containedType=container", containers.to_vec()),
        ("Medication?code=http://codes|abc&_contained=true&_containedType=contained", alone.to_vec()),
        ("Medication?code=abc&_contained=both", with_own),
        ("Medication?code:not=abc&_contained=true", vec!["MedicationRequest/r1", "MedicationRequest/r2"]),
        ("Medication?code=none&_contained=true", vec![]),
        (
            "Medication?manufacturer.name=make&_contained=true&code=xyz",
            vec!["MedicationRequest/r1", "MedicationRequest/r2"],
        ),
        ("Medication?manufacturer.name=other&_contained=true", vec![]),
        ("Medication?_id=m2&_contained=true", vec!["MedicationRequest/r1"]),
        ("Patient?_contained=true", vec![]),
        ("Patient/ann/Medication?code=abc&_contained=true", vec!["MedicationRequest/r1"]),
        (
            "Patient/ann/Medication?_contained=both&_containedType=contained&code=xyz",
            vec!["MedicationRequest/r1#m1", "MedicationRequest/r2#m0"],
        ),
        ("Patient/nobody/Medication?_contained=true", vec![]),
    ] {
        let reply = office.get(query).await;
        assert_eq!(found(&reply), expected, "{query}");
        assert_eq!(reply.json()["total"], expected.len(), "{query}");
        let count = office.get(&format!("{query}&_summary=count")).await;
        assert_eq!((&count.json()["total"], count.ids().len()), (&json!(expected.len()), 0), "{query}");
        // Page by page the same, each once.
        for size in 1..3 {
            let (mut paged, mut page) = (Vec::new(), office.get(&format!("{query}&_count={size}")).await);
            loop {
                let lines = found(&page);
                assert!(lines.len() <= size && paged.len() <= expected.len(), "{query}: {lines:?}");
                paged.extend(lines);
                let Some(next) = page.link("next") else { break };
                page = office.get(&next).await;
            }
            paged.sort();
            assert_eq!(paged, expected, "{query} by {size}");
        }
    }
    let one = office.get("Patient/ann/Medication?_contained=true&_containedType=contained&code=abc&_count=1").await;
    assert_eq!(one.json()["entry"][0]["resource"]["code"]["coding"][0]["code"], "abc");
    let events = office.audit_of(one.header("x-request-id")).await;
    assert!(Value::from(events).to_string().contains("MedicationRequest/r1"), "the container is on record");
    for (path, words) in [
        ("Medication?_contained=true&_sort=code", "_sort"),
        ("Medication?_contained=true&_include=Medication:manufacturer", "_include"),
        ("Medication?_contained=true&_elements=code", "_elements"),
        ("Medication?_contained=true&_content=abc", "_content"),
        ("Medication?_contained=some", "_contained"),
        ("Medication?_contained=true&_containedType=all", "_containedType"),
        ("?_type=Medication&_contained=true", "one type"),
        ("AuditEvent?_contained=true", "AuditEvent"),
    ] {
        let reply = office.get(path).await;
        assert_eq!(reply.status, 400, "{path}: {}", reply.text());
        assert!(reply.text().contains(words), "{path}: {}", reply.text());
    }
}

async fn a_container_that_matches_itself_is_given_once() {
    let app = ward().await;
    let office = shelves(&app).await;
    let mut outer = medication("outer", "abc");
    outer["contained"] = json!([medication("i1", "abc"), medication("i2", "xyz")]);
    put(&office, &outer).await;
    let alone = ["Medication/outer", "Medication/outer#i1", "Medication/own"];
    for (query, expected) in [
        (
            "Medication?code=abc&manufacturer=Organization/maker&_contained=both&_id=outer,own,i1",
            vec![alone[0], alone[2]],
        ),
        ("Medication?_contained=both&_id=outer,own,i1&_containedType=contained", alone.to_vec()),
        ("Medication?_contained=both&code=xyz&_id=i2,outer", vec![alone[0]]),
    ] {
        for size in [1, 2, 50] {
            let (mut paged, mut page) =
                (Vec::new(), office.get(&format!("{query}&_count={size}&_total=accurate")).await);
            assert_eq!(page.json()["total"], expected.len(), "{query}");
            loop {
                paged.extend(found(&page));
                let Some(next) = page.link("next") else { break };
                page = office.get(&next).await;
            }
            paged.sort();
            assert_eq!(paged, expected, "{query} by {size}");
        }
    }
}

#[tokio::test]
async fn few_containers_are_looked_into() {
    let app = ward().await;
    let office = shelves(&app).await;
    let entry = json!({
        "resource": {"resourceType": "Organization", "name": "Many"},
        "request": {"method": "POST", "url": "Organization"},
    });
    let bundle = json!({"resourceType": "Bundle", "type": "transaction", "entry": vec![entry; 1_000]});
    assert_eq!(office.post("", &bundle).await.status, 200);
    for whole in ["Medication?code=abc&_contained=true", "Medication?code=abc&_contained=both&_summary=count"] {
        let reply = office.get(whole).await;
        assert_eq!(reply.status, 422, "{}", reply.text());
        assert!(reply.text().contains("compartment"), "{}", reply.text());
    }
    assert_eq!(found(&office.get("Patient/ann/Medication?code=abc&_contained=true").await), ["MedicationRequest/r1"]);
}

async fn what_is_contained_is_seen_by_whoever_sees_its_container() {
    let app = ward().await;
    let office = shelves(&app).await;
    drop(office);
    let ask = "Medication?code=abc&_contained=true&_containedType=contained";
    let gp = app.person(Role::Provider, "Practitioner/gp", None, "user/*.rs");
    assert_eq!(found(&gp.get(ask).await), ["MedicationRequest/r1#m0", "MedicationRequest/r1#m2"]);
    let bob = app.person(Role::Patient, "Patient/bob", None, "user/*.rs");
    assert_eq!(found(&bob.get(ask).await), ["MedicationRequest/r3#m0"]);
    assert_eq!(bob.get("Patient/ann/Medication?_contained=true&_summary=count").await.json()["total"], 0);
    // Without the containers' type there is nothing; without the type itself no search.
    let narrow = app.persona("system/Medication.rs system/MedicationStatement.rs").await;
    assert_eq!(found(&narrow.get(ask).await), ["MedicationStatement/s1#m0"]);
    let filtered = app.persona("system/Medication.rs system/MedicationRequest.rs?_id=r3").await;
    assert_eq!(found(&filtered.get(ask).await), ["MedicationRequest/r3#m0"]);
    assert_eq!(app.persona("system/MedicationRequest.rs").await.get(ask).await.status, 403);
    // Whoever is shown a part of a resource finds by that part alone.
    let desk = app.person(Role::Receptionist, "Practitioner/desk", None, "user/*.rs");
    assert_eq!(desk.get(ask).await.status, 403);
    // A page link is for its caller.
    let next = gp.get(&format!("{ask}&_count=1")).await.link("next").expect("a second page");
    assert_eq!(gp.get(&next).await.status, 200);
    assert_eq!(bob.get(&next).await.status, 400);
}
