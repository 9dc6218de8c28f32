//! `$everything` and the frame of operations through the real router.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::{Persona, Reply, TestApp, on_both, patient};

on_both![
    what_cannot_be_meant_is_refused_with_its_place,
    a_record_is_whole_and_nobody_elses,
    all_records_are_each_in_their_pages,
    types_times_and_dates_of_care_narrow,
    scopes_bound_what_is_given_and_say_what_is_not,
    page_links_are_for_their_caller_and_their_record,
    operations_are_stated_recorded_and_found_in_bundles,
];

/// Two patients with a record each, and what they refer to.
pub(super) async fn records<'a>(app: &'a TestApp) -> Persona<'a> {
    let backend = app.persona("system/*.cruds").await;
    let mut all = vec![
        json!({"resourceType": "Organization", "id": "org", "name": "North"}),
        json!({"resourceType": "Organization", "id": "owner", "name": "Owner"}),
        json!({"resourceType": "Location", "id": "room", "managingOrganization": {"reference": "Organization/owner"}}),
        json!({"resourceType": "Practitioner", "id": "doc", "name": [{"family": "Doc"}]}),
        json!({"resourceType": "Practitioner", "id": "idle"}),
    ];
    for p in ["p1", "p2"] {
        let subject = json!({"reference": format!("Patient/{p}")});
        let mut person = patient(p, "Whole");
        person["managingOrganization"] = json!({"reference": "Organization/org"});
        all.push(person);
        all.push(json!({
            "resourceType": "Encounter", "id": format!("{p}-e"), "status": "finished", "class": {"code": "AMB"},
            "subject": subject, "period": {"start": "2020-03-01", "end": "2020-03-02"},
            "location": [{"location": {"reference": "Location/room"}}]
        }));
        for (n, at) in [(1, "2020-03-01"), (2, "2022-05-05")] {
            all.push(json!({
                "resourceType": "Observation", "id": format!("{p}-o{n}"), "status": "final", "code": {"text": "x"},
                "subject": subject, "effectiveDateTime": at, "performer": [{"reference": "Practitioner/doc"}],
                "encounter": {"reference": format!("Encounter/{p}-e")}
            }));
        }
        all.push(json!({"resourceType": "Condition", "id": format!("{p}-c"), "subject": subject}));
    }
    for resource in all {
        let path = format!("{}/{}", resource["resourceType"].as_str().unwrap(), resource["id"].as_str().unwrap());
        let reply = backend.put(&path, &resource).await;
        assert_eq!(reply.status, 201, "{}", reply.text());
    }
    backend
}

/// The ids of all pages, matches and includes apart.
async fn walk(caller: &Persona<'_>, first: &str) -> (BTreeSet<String>, BTreeSet<String>) {
    let (mut matches, mut includes) = (BTreeSet::new(), BTreeSet::new());
    let mut page = caller.get(first).await;
    for _ in 0..100 {
        assert_eq!(page.status, 200, "{first}: {}", page.text());
        for entry in page.json()["entry"].as_array().into_iter().flatten() {
            let id = entry["resource"]["id"].as_str().unwrap_or_default().to_owned();
            match entry["search"]["mode"].as_str() {
                Some("match") => assert!(matches.insert(id.clone()), "{id} twice"),
                Some("include") => {
                    includes.insert(id);
                }
                _ => {}
            }
        }
        let Some(next) = page.link("next") else { return (matches, includes) };
        page = caller.get(&next).await;
    }
    panic!("{first} does not end");
}

fn set(ids: &[&str]) -> BTreeSet<String> {
    ids.iter().map(|id| (*id).to_owned()).collect()
}

async fn a_record_is_whole_and_nobody_elses() {
    let app = TestApp::new().await;
    let backend = records(&app).await;
    let whole = (set(&["p1", "p1-e", "p1-o1", "p1-o2", "p1-c"]), set(&["org", "owner", "room", "doc"]));
    for query in ["", "?_count=1", "?_count=2", "?_count=3"] {
        assert_eq!(walk(&backend, &format!("Patient/p1/$everything{query}")).await, whole, "{query}");
    }
    let one = backend.get("Patient/p1/$everything").await.json();
    assert_eq!(
        (&one["type"], &one["total"], &one["entry"][0]["resource"]["id"]),
        (&json!("searchset"), &json!(5), &json!("p1"))
    );
    let (matches, includes) = walk(&backend, "Encounter/p2-e/$everything").await;
    assert_eq!((matches, includes), (set(&["p2-e", "p2-o1", "p2-o2"]), set(&["p2", "owner", "room", "doc"])));
    assert_eq!(backend.get("Patient/none/$everything").await.status, 404);
    backend.delete("Patient/p2").await;
    assert_eq!(backend.get("Patient/p2/$everything").await.status, 410);
}

#[tokio::test]
async fn pages_of_what_is_only_referred_to_are_bounded() {
    let app = TestApp::with(&[("page_size_max", "1"), ("page_size", "1")]).await;
    let backend = records(&app).await;
    let asked = "Patient/$everything?_type=Organization,Location,Practitioner";
    assert_eq!(walk(&backend, asked).await, (set(&[]), set(&["org", "owner", "room", "doc"])));
    let first = backend.get(asked).await;
    assert!(first.ids().len() < 4 && first.link("next").is_some(), "{}", first.text());
}

async fn all_records_are_each_in_their_pages() {
    let app = TestApp::new().await;
    let backend = records(&app).await;
    let own = ["", "-e", "-o1", "-o2", "-c"].map(|tail| ["p1", "p2"].map(|p| format!("{p}{tail}")));
    let all: BTreeSet<String> = own.into_iter().flatten().collect();
    for query in ["", "?_count=1", "?_count=3", "?_count=5"] {
        assert_eq!(walk(&backend, &format!("Patient/$everything{query}")).await.0, all, "{query}");
    }
    let narrow = app.persona("system/Patient.rs?_id=p2 system/Observation.rs").await;
    assert_eq!(walk(&narrow, "Patient/$everything?_count=2").await, (set(&["p2", "p2-o1", "p2-o2"]), set(&[])));
}

async fn types_times_and_dates_of_care_narrow() {
    let app = TestApp::new().await;
    let backend = records(&app).await;
    for (query, expected) in [
        ("_type=Observation,Practitioner", (set(&["p1-o1", "p1-o2"]), set(&["doc"]))),
        ("_type=Observation&_type=Condition", (set(&["p1-o1", "p1-o2", "p1-c"]), set(&[]))),
        ("_type=Patient", (set(&["p1"]), set(&[]))),
        ("_type=Practitioner", (set(&[]), set(&["doc"]))),
        ("_type=Condition,Location&_count=1", (set(&["p1-c"]), set(&["room"]))),
        ("_type=Organization", (set(&[]), set(&["org", "owner"]))),
        ("_type=Organization&_count=1&start=2021", (set(&[]), set(&["org"]))),
        ("_type=Medication", (set(&[]), set(&[]))),
        ("start=2021&_type=Observation,Encounter,Condition", (set(&["p1-o2", "p1-c"]), set(&[]))),
        ("end=2021&_type=Observation,Encounter", (set(&["p1-o1", "p1-e"]), set(&[]))),
        ("start=2020-03-01&end=2020-03-02&_type=Observation", (set(&["p1-o1"]), set(&[]))),
    ] {
        assert_eq!(walk(&backend, &format!("Patient/p1/$everything?{query}")).await, expected, "{query}");
    }
    app.pass(60);
    let since = app.app().world.now().to_fhir();
    assert_eq!(walk(&backend, &format!("Patient/p1/$everything?_since={since}")).await, (set(&[]), set(&[])));
    let condition = json!({"resourceType": "Condition", "id": "p1-c", "subject": {"reference": "Patient/p1"}});
    backend.put("Condition/p1-c", &condition).await;
    assert_eq!(walk(&backend, &format!("Patient/p1/$everything?_since={since}")).await.0, set(&["p1-c"]));
}

async fn scopes_bound_what_is_given_and_say_what_is_not() {
    let app = TestApp::new().await;
    records(&app).await;
    let only = app.persona("system/Patient.r system/Observation.rs?_id=p1-o1").await;
    assert_eq!(walk(&only, "Patient/p1/$everything").await, (set(&["p1", "p1-o1"]), set(&[])));
    let note = only.get("Patient/p1/$everything?_type=Condition").await;
    assert!(note.text().contains("no search permission for: Condition"), "{}", note.text());
    // Who may not search the encounters learns nothing of the places they name.
    let some = app.persona("system/Patient.rs system/Location.rs system/Organization.rs").await;
    assert_eq!(walk(&some, "Patient/p1/$everything?_type=Location,Organization").await, (set(&[]), set(&["org"])));
    let reply = some.get("Patient/p1/$everything?_type=Location,Practitioner").await.json();
    let note = reply["entry"][0]["resource"]["issue"][0]["diagnostics"].as_str().unwrap_or_default();
    let names: Vec<&str> = note.split([' ', ',', '.']).collect();
    assert_eq!(
        ["Encounter", "Practitioner", "Location"].map(|name| names.contains(&name)),
        [true, true, false],
        "{note}"
    );
    let all = app.persona("system/*.cruds").await;
    let call = all.get("Patient/p1/$everything?_type=Organization").await;
    let events = all.audit_of(call.header("x-request-id")).await;
    let record = Value::from(events).to_string();
    let given = record.contains("Organization/owner") && !record.contains("Encounter/p1-e");
    assert!(given, "what leads there is not on record, as it is not given: {record}");
    let none = app.persona("system/Observation.rs").await;
    assert_eq!(none.get("Patient/p1/$everything").await.status, 403);
    assert_eq!(none.get("Patient/$everything").await.status, 403);
    let other = app.persona("system/Patient.rs?_id=p2").await;
    assert_eq!(other.get("Patient/p1/$everything").await.status, 404);
}

#[tokio::test]
async fn calls_are_checked_and_say_where_they_are_wrong() {
    let app = TestApp::new().await;
    let backend = records(&app).await;
    let wrong = backend.get("Patient/p1/$everything?_type=Nothing&colour=red").await;
    assert_eq!((wrong.status, wrong.places()), (400, vec!["http.colour".to_owned()]));
    let unknown = backend.get("Patient/p1/$everything?_type=Nothing").await;
    assert_eq!((unknown.status, unknown.places()), (400, vec!["http._type".to_owned()]));
    let body = json!({"resourceType": "Parameters", "parameter": [{"name": "_type", "valueCode": "Condition"}]});
    let posted = backend.post("Patient/p1/$everything", &body).await;
    assert_eq!((posted.status, posted.ids()), (200, vec!["p1-c".to_owned()]));
    assert_eq!(backend.call("POST", "Patient/p1/$everything", &[], "").await.status, 200);
    let body = json!({"resourceType": "Parameters", "parameter": [{"name": "_type", "valueBoolean": true}]});
    let wrong = backend.post("Patient/p1/$everything", &body).await;
    assert_eq!((wrong.status, wrong.places()), (400, vec!["Parameters.parameter[0].value".to_owned()]));
    assert_eq!(backend.post("Patient/p1/$everything", &patient("x", "X")).await.status, 400);
    for (method, path, status) in [
        ("GET", "Observation/$everything", 404),
        ("GET", "$everything", 404),
        ("GET", "Encounter/$everything", 404),
        ("PUT", "Patient/p1/$everything", 405),
        ("DELETE", "Patient/$everything", 405),
        ("GET", "Patient/p1/$nothing", 404),
    ] {
        assert_eq!(backend.call(method, path, &[], "").await.status, status, "{method} {path}");
    }
}

async fn page_links_are_for_their_caller_and_their_record() {
    let app = TestApp::new().await;
    let backend = records(&app).await;
    let next = backend.get("Patient/p1/$everything?_count=1").await.link("next").expect("more");
    assert!(!next.contains("_count"));
    assert_eq!(backend.get(&next).await.status, 200);
    assert_eq!(app.persona("system/*.cruds").await.get(&next).await.status, 400, "another caller");
    assert_eq!(backend.get(&next.replace("/p1/", "/p2/")).await.status, 400, "another record");
    assert_eq!(backend.get(&format!("{next}&_count=2")).await.status, 400, "with more parameters");
}

async fn operations_are_stated_recorded_and_found_in_bundles() {
    let app = TestApp::new().await;
    let backend = records(&app).await;
    let statement = backend.get("metadata").await.json();
    let resources = statement["rest"][0]["resource"].as_array().cloned().expect("types");
    let of = |name: &str| resources.iter().find(|resource| resource["type"] == name).cloned().expect("the type");
    let listed: Vec<Value> = of("Patient")["operation"].as_array().cloned().expect("operations");
    assert!(listed.iter().any(|op| op["name"] == "everything"
        && op["definition"] == "http://hl7.org/fhir/OperationDefinition/Patient-everything"));
    let definition = backend.get("OperationDefinition/Patient-everything").await;
    assert_eq!((definition.status, &definition.json()["code"]), (200, &json!("everything")));
    crate::fhir::Resource::check(definition.json()).expect("an OperationDefinition of R4");
    assert_eq!(backend.get("OperationDefinition/Patient-nothing").await.status, 404);

    let call = backend.get("Patient/p1/$everything?_type=Observation").await;
    let events = backend.audit_of(call.header("x-request-id")).await;
    let text = Value::from(events).to_string();
    assert!(text.contains(r#""valueString":"everything""#) && text.contains("Observation/p1-o1"), "{text}");
    let refused = app.persona("system/Observation.rs").await.get("Patient/p1/$everything").await;
    let events = backend.audit_of(refused.header("x-request-id")).await;
    assert!(Value::from(events).to_string().contains(r#""valueString":"everything""#));

    for kind in ["batch", "transaction"] {
        let entry = json!({"request": {"method": "GET", "url": "Patient/p1/$everything?_type=Condition"}});
        let reply = backend.post("", &json!({"resourceType": "Bundle", "type": kind, "entry": [entry]})).await;
        let nested: Reply = reply;
        assert_eq!(nested.json()["entry"][0]["resource"]["entry"][0]["resource"]["id"], "p1-c", "{}", nested.text());
    }
    let xml = backend.call("GET", "Patient/p1/$everything", &[("accept", "application/fhir+xml")], "").await;
    assert!(xml.text().contains("<Bundle xmlns="), "{}", xml.text());
}

async fn what_cannot_be_meant_is_refused_with_its_place() {
    let app = TestApp::new().await;
    let backend = records(&app).await;
    for (address, status, place) in [
        ("Patient/p1/$everything?start=2022-01-01&end=2020-12-31", 400, Some("http.end")),
        ("Patient/p1/$everything?start=2022&end=2022-01-01", 200, None),
        ("DocumentReference/$docref?patient=p1&start=2022-01&end=2021", 400, Some("http.end")),
        ("Observation/$lastn?patient=p1&code=http://x|1&_count=1", 400, None),
        ("Observation/$lastn?patient=p1&code=http://x|1&max=1", 200, None),
    ] {
        let reply = backend.get(address).await;
        let places: Vec<String> = place.into_iter().map(str::to_owned).collect();
        assert_eq!((reply.status, reply.places()), (status, places), "{address}: {}", reply.text());
    }
}
