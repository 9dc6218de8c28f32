//! Operations on single resources and small sets, through the real router.

use serde_json::{Value, json};

use super::{Persona, Reply, TestApp, on_both, patient};

on_both![
    meta_is_read_added_to_and_taken_from,
    the_last_observations_of_each_code_are_given,
    documents_are_found_by_care_and_type,
    a_document_holds_what_its_composition_names,
    all_faults_are_told_and_profiles_are_refused,
    patients_are_matched_with_scores_and_grades,
    a_member_is_matched_by_person_and_coverage_or_not_at_all,
    a_search_is_explained_without_telling_of_records,
];

const JSON: (&str, &str) = ("content-type", "application/fhir+json");

async fn put(caller: &Persona<'_>, resource: Value) {
    let path = format!("{}/{}", resource["resourceType"].as_str().unwrap(), resource["id"].as_str().unwrap());
    let reply = caller.put(&path, &resource).await;
    assert!(reply.status < 300, "{path}: {}", reply.text());
}

fn params(parameter: Value) -> Value {
    json!({"resourceType": "Parameters", "parameter": parameter})
}

fn meta(reply: &Reply) -> Value {
    assert_eq!(reply.status, 200, "{}", reply.text());
    reply.json()["parameter"][0]["valueMeta"].clone()
}

fn coding(code: &str) -> Value {
    json!({"system": "http://tags", "code": code})
}

async fn meta_is_read_added_to_and_taken_from() {
    let app = TestApp::new().await;
    let backend = app.persona("system/*.cruds").await;
    let mut one = patient("p1", "Meta");
    one["meta"] = json!({"tag": [coding("a")], "profile": ["http://profile/one"]});
    put(&backend, one).await;
    let mut two = patient("p2", "Meta");
    two["meta"] = json!({"tag": [coding("b")], "security": [{"system": "http://labels", "code": "R"}]});
    put(&backend, two).await;

    let read = meta(&backend.get("Patient/p1/$meta").await);
    assert_eq!((&read["tag"], &read["versionId"]), (&json!([coding("a")]), &json!("1")));
    let all = meta(&backend.get("Patient/$meta").await);
    assert_eq!(
        all,
        json!({
            "profile": ["http://profile/one"], "security": [{"system": "http://labels", "code": "R"}],
            "tag": [coding("a"), coding("b")]
        })
    );
    assert_eq!(meta(&backend.get("$meta").await), all);
    let narrow = app.persona("system/Patient.rs?_id=p1").await;
    let own = json!({"profile": ["http://profile/one"], "tag": [coding("a")]});
    assert_eq!(meta(&narrow.get("$meta").await), own);
    assert_eq!(meta(&narrow.get("Patient/$meta").await), own);
    assert_eq!(narrow.get("Patient/p2/$meta").await.status, 404);
    assert_eq!(narrow.get("Observation/$meta").await.status, 403);

    let add = params(json!([{"name": "meta", "valueMeta": {"tag": [coding("a"), coding("c")]}}]));
    let added = backend.post("Patient/p1/$meta-add", &add).await;
    assert_eq!((meta(&added)["tag"].clone(), added.header("etag")), (json!([coding("a"), coding("c")]), "W/\"2\""));
    assert_eq!(meta(&backend.post("Patient/p1/$meta-add", &add).await)["versionId"], "2", "nothing new: no version");
    let delete = params(
        json!([{"name": "meta", "valueMeta": {"tag": [coding("a"), coding("x")], "profile": ["http://profile/one"]}}]),
    );
    let deleted = meta(&backend.post("Patient/p1/$meta-delete", &delete).await);
    assert_eq!(
        (&deleted["tag"], deleted.get("profile"), &deleted["versionId"]),
        (&json!([coding("c")]), None, &json!("3"))
    );
    assert_eq!(backend.get("Patient/p1").await.json()["name"][0]["family"], "Meta");

    assert_eq!(narrow.post("Patient/p1/$meta-add", &add).await.status, 403);
    assert_eq!(backend.get("Patient/p1/$meta-add").await.status, 405);
    for (body, place) in [
        (params(json!([])), "Parameters.parameter"),
        (params(json!([{"name": "meta", "valueMeta": {"tga": []}}])), "Parameters.parameter[0].value.tga"),
        (params(json!([{"name": "meta", "valueMeta": {"source": "http://x"}}])), "Parameters.parameter[0].value"),
    ] {
        let reply = backend.post("Patient/p1/$meta-add", &body).await;
        assert_eq!((reply.status, reply.places()), (400, vec![place.to_owned()]), "{}", reply.text());
    }
    let stale = backend.call("POST", "Patient/p1/$meta-add", &[JSON, ("if-match", "W/\"1\"")], add.to_string()).await;
    assert_eq!(stale.status, 412);
}

async fn the_last_observations_of_each_code_are_given() {
    let app = TestApp::new().await;
    let backend = app.persona("system/*.cruds").await;
    for (id, who, code, at) in [
        ("o1", "p1", "a", "2020-01-01"),
        ("o2", "p1", "a", "2022-01-01T10:00:00Z"),
        ("o3", "p1", "a", "2021"),
        ("o4", "p1", "b", "2019-01-01"),
        ("o5", "p2", "a", "2023-01-01"),
    ] {
        put(&backend, json!({
            "resourceType": "Observation", "id": id, "status": "final", "effectiveDateTime": at,
            "category": [{"coding": [{"code": "laboratory"}]}],
            "code": {"coding": [{"system": "http://codes", "code": code}]}, "subject": {"reference": format!("Patient/{who}")}
        }))
        .await;
    }
    for (query, expected) in [
        ("patient=p1&category=laboratory", vec!["o2", "o4"]),
        ("patient=p1&category=laboratory&max=2", vec!["o2", "o3", "o4"]),
        ("subject=Patient/p1&code=http://codes|a&max=5", vec!["o2", "o3", "o1"]),
        ("patient=p1&code=b", vec!["o4"]),
        ("patient=p1&code=b,a&date=lt2021", vec!["o1", "o4"]),
        ("patient=p1&code=none", vec![]),
    ] {
        let reply = backend.get(&format!("Observation/$lastn?{query}")).await;
        assert_eq!(
            (reply.status, reply.ids()),
            (200, expected.into_iter().map(str::to_owned).collect()),
            "{query}: {}",
            reply.text()
        );
    }
    let own = backend.get("Observation/$lastn?patient=p1&code=b&_format=json").await.link("self");
    assert_eq!(own.as_deref(), Some("http://phial.test/fhir/Observation/$lastn?patient=p1&code=b&max=1&_format=json"));
    for query in
        ["patient=p1", "code=a", "patient=p1&code=a&max=0", "patient=p1&code=a&_sort=date", "patient=p1&code=a&x=1"]
    {
        assert_eq!(backend.get(&format!("Observation/$lastn?{query}")).await.status, 400, "{query}");
    }
    let narrow = app.persona("system/Observation.rs?_id=o1,o4").await;
    assert_eq!(narrow.get("Observation/$lastn?patient=p1&category=laboratory").await.ids(), ["o1", "o4"]);
    assert_eq!(app.persona("system/Patient.rs").await.get("Observation/$lastn?patient=p1&code=a").await.status, 403);
}

async fn documents_are_found_by_care_and_type() {
    let app = TestApp::new().await;
    let backend = app.persona("system/*.cruds").await;
    let document = |id: &str, code: &str, more: Value| {
        let mut node = json!({
            "resourceType": "DocumentReference", "id": id, "status": "current", "subject": {"reference": "Patient/p1"},
            "type": {"coding": [{"system": "http://loinc.org", "code": code}]},
            "content": [{"attachment": {"contentType": "text/plain", "data": "aGk="}}]
        });
        for (name, value) in more.as_object().expect("members") {
            node[name] = value.clone();
        }
        node
    };
    put(
        &backend,
        document("d1", "34133-9", json!({"context": {"period": {"start": "2020-01-01", "end": "2020-02-01"}}})),
    )
    .await;
    put(
        &backend,
        document("d2", "34133-9", json!({"context": {"period": {"start": "2021-01-01", "end": "2021-02-01"}}})),
    )
    .await;
    put(&backend, document("d3", "11488-4", json!({"date": "2020-01-15T00:00:00Z"}))).await;
    put(&backend, document("d4", "11488-4", json!({"status": "superseded", "date": "2022-01-15T00:00:00Z"}))).await;
    let mut foreign = document("d5", "11488-4", json!({}));
    foreign["subject"] = json!({"reference": "Patient/p2"});
    put(&backend, foreign).await;
    for (query, expected) in [
        ("patient=p1", vec!["d2", "d3"]),
        ("patient=p1&start=2020-01-01&end=2020-12-31", vec!["d1", "d3"]),
        ("patient=p1&start=2021", vec!["d2"]),
        ("patient=p1&type=http://loinc.org|34133-9&end=2022", vec!["d2", "d1"]),
        ("patient=p1&type=11488-4", vec!["d3"]),
        ("patient=nobody", vec![]),
        ("patient=p1&on-demand=false&type=34133-9", vec!["d2"]),
        ("patient=p1&on-demand=true", vec![]),
        ("patient=p1&profile=http://none", vec![]),
    ] {
        let reply = backend.get(&format!("DocumentReference/$docref?{query}")).await;
        assert_eq!(
            (reply.status, reply.ids()),
            (200, expected.into_iter().map(str::to_owned).collect()),
            "{query}: {}",
            reply.text()
        );
    }
    let body = params(json!([
        {"name": "patient", "valueId": "p1"},
        {"name": "type", "valueCodeableConcept": {"coding": [{"system": "http://loinc.org", "code": "11488-4"}]}}
    ]));
    let posted = backend.post("DocumentReference/$docref", &body).await;
    assert_eq!(posted.ids(), ["d3"]);
    let own = posted.link("self").expect("a link");
    assert_eq!(own, "http://phial.test/fhir/DocumentReference/$docref?patient=p1&type=http://loinc.org%7C11488-4");
    assert_eq!(backend.get(&own).await.ids(), ["d3"], "the link says the same");
    assert_eq!(backend.get("DocumentReference/$docref").await.places(), ["Parameters.parameter"]);
    let on_demand = backend.get("DocumentReference/$docref?patient=p1&on-demand=true").await;
    assert!(on_demand.text().contains("makes no documents on demand"));
}

async fn a_document_holds_what_its_composition_names() {
    let app = TestApp::new().await;
    let backend = app.persona("system/*.cruds").await;
    put(&backend, patient("p1", "Document")).await;
    put(&backend, json!({"resourceType": "Practitioner", "id": "doc"})).await;
    put(&backend, json!({"resourceType": "Condition", "id": "c1", "subject": {"reference": "Patient/p1"}})).await;
    let composition = json!({
        "resourceType": "Composition", "id": "com", "status": "final", "type": {"text": "note"}, "date": "2026-01-01",
        "title": "Note", "subject": {"reference": "Patient/p1"}, "author": [{"reference": "Practitioner/doc"}],
        "section": [{"title": "all", "section": [{"title": "inner", "entry": [
            {"reference": "Condition/c1"}, {"reference": "Patient/p1"}, {"reference": "http://elsewhere/fhir/Patient/9"}
        ]}]}]
    });
    put(&backend, composition.clone()).await;
    let bundle = backend.get("Composition/com/$document").await;
    assert_eq!(
        (bundle.status, bundle.ids()),
        (200, ["com", "p1", "doc", "c1"].map(str::to_owned).to_vec()),
        "{}",
        bundle.text()
    );
    let node = bundle.json();
    assert_eq!(
        (&node["type"], &node["entry"][3]["fullUrl"]),
        (&json!("document"), &json!("http://phial.test/fhir/Condition/c1"))
    );
    crate::fhir::Resource::check(node).expect("a Bundle of R4");
    assert_eq!(backend.get("Composition/$document?id=com").await.ids().len(), 4);
    assert_eq!(backend.get("Composition/$document?id=http://phial.test/fhir/Composition/com").await.ids().len(), 4);

    assert_eq!(backend.get("Composition/com/$document?persist=true").await.status, 405);
    let kept = backend.call("POST", "Composition/com/$document?persist=true", &[], "").await;
    assert_eq!(kept.status, 200, "{}", kept.text());
    let id = kept.json()["id"].as_str().expect("an id").to_owned();
    assert_eq!(backend.get(&format!("Bundle/{id}")).await.json()["type"], "document");

    let reader = app.persona("system/*.rs").await;
    assert_eq!(reader.call("POST", "Composition/com/$document?persist=true", &[], "").await.status, 403);
    let narrow =
        app.persona("system/Composition.rs system/Practitioner.rs system/Condition.rs system/Patient.rs?_id=p2").await;
    let refused = narrow.get("Composition/com/$document").await;
    assert_eq!((refused.status, refused.places()), (422, vec!["Composition.subject".to_owned()]));
    let fewer = app.persona("system/Composition.rs").await.get("Composition/com/$document").await;
    assert_eq!((fewer.status, fewer.places()), (403, vec!["Composition.subject".to_owned()]));
    let mut broken = composition;
    broken["section"][0]["entry"] = json!([{"reference": "Condition/none"}]);
    put(&backend, broken).await;
    assert_eq!(backend.get("Composition/com/$document").await.places(), ["Composition.section[0].entry[0]"]);
}

#[tokio::test]
async fn what_is_sent_is_converted() {
    let app = TestApp::new().await;
    let caller = app.persona("system/Patient.r").await;
    let node = json!({"resourceType": "Patient", "name": [{"family": "Convert"}]});
    let xml = caller.call("POST", "$convert", &[JSON, ("accept", "application/fhir+xml")], node.to_string()).await;
    assert_eq!(xml.status, 200, "{}", xml.text());
    assert!(xml.text().contains("<family value=\"Convert\""), "{}", xml.text());
    let sent = [("content-type", "application/fhir+xml"), ("accept", "application/fhir+json")];
    assert_eq!(caller.call("POST", "$convert", &sent, xml.body).await.json(), node);
    let wrapped = params(json!([{"name": "input", "resource": node}]));
    assert_eq!(caller.post("$convert?_format=json", &wrapped).await.json(), node);
    let faulty = caller.post("$convert", &json!({"resourceType": "Patient", "colour": 1})).await;
    assert_eq!((faulty.status, faulty.places()), (400, vec!["Patient.colour".to_owned()]));
    assert_eq!(caller.get("$convert").await.status, 405);
}

async fn all_faults_are_told_and_profiles_are_refused() {
    let app = TestApp::new().await;
    let backend = app.persona("system/*.cruds").await;
    let faulty = json!({"resourceType": "Patient", "gender": "none", "birthDate": "yesterday", "colour": "red", "active": "yes"});
    let places = ["Patient.active", "Patient.birthDate", "Patient.colour", "Patient.gender"];
    let sorted = |reply: &Reply| {
        let mut places = reply.places();
        places.sort();
        places
    };
    let bare = backend.post("Patient/$validate", &faulty).await;
    assert_eq!((bare.status, sorted(&bare)), (200, places.map(str::to_owned).to_vec()), "{}", bare.text());
    let wrapped = params(json!([{"name": "resource", "resource": faulty}, {"name": "mode", "valueCode": "create"}]));
    let within = places.map(|place| place.replace("Patient", "Parameters.parameter[0].resource"));
    assert_eq!(sorted(&backend.post("Patient/$validate", &wrapped).await), within);

    let good = backend.post("Patient/$validate?mode=create", &patient("p1", "Valid")).await;
    assert_eq!(
        (good.status, good.places().len(), &good.json()["issue"][0]["severity"]),
        (200, 0, &json!("information"))
    );
    assert_eq!(backend.get("Patient/p1").await.status, 404, "nothing was stored");
    put(&backend, patient("p1", "Valid")).await;
    assert_eq!(backend.get("Patient/p1/$validate").await.json()["issue"][0]["severity"], "information");
    let other = backend.post("Patient/p1/$validate?mode=update", &patient("p2", "Valid")).await;
    assert_eq!(other.places(), ["Patient.id"]);
    let kind = backend.post("Patient/$validate", &json!({"resourceType": "Practitioner"})).await;
    assert_eq!(kind.places(), ["Practitioner.resourceType"]);
    let mut claims = patient("p1", "Valid");
    claims["meta"] = json!({"profile": ["http://profile"]});
    assert_eq!(backend.post("Patient/$validate", &claims).await.places(), ["Patient.meta.profile"]);

    for (query, status) in [("mode=profile", 400), ("profile=http://p", 400), ("mode=guess", 400), ("mode=delete", 400)]
    {
        let body = json!({"resourceType": "Patient"});
        assert_eq!(backend.post(&format!("Patient/$validate?{query}"), &body).await.status, status, "{query}");
    }
    assert_eq!(backend.get("Patient/p1/$validate?mode=delete").await.json()["issue"][0]["severity"], "information");
    assert_eq!(backend.get("Patient/none/$validate?mode=delete").await.json()["issue"][0]["code"], "not-found");
    let reader = app.persona("system/Patient.rs").await;
    assert_eq!(
        reader.post("Patient/$validate?mode=create", &patient("p9", "Valid")).await.json()["issue"][0]["code"],
        "forbidden"
    );
    assert_eq!(reader.get("Patient/p1/$validate?mode=delete").await.json()["issue"][0]["code"], "forbidden");
    assert_eq!(reader.get("Observation/o/$validate").await.status, 403);

    let appointment = |status: &str| {
        json!({"resourceType": "Appointment", "id": "a1", "status": status, "participant": [{"status": "accepted", "actor": {"reference": "Patient/p1"}}],
               "start": "2026-02-01T10:00:00Z", "end": "2026-02-01T10:30:00Z"})
    };
    put(&backend, appointment("fulfilled")).await;
    let moved = backend.post("Appointment/a1/$validate?mode=update", &appointment("booked")).await;
    assert_eq!(moved.places(), ["Appointment.status"], "{}", moved.text());
}

#[tokio::test]
async fn every_definition_is_valid_and_listed_where_it_works() {
    let app = TestApp::new().await;
    let backend = app.persona("system/*.cruds").await;
    let statement = backend.get("metadata").await.json();
    let rest = &statement["rest"][0];
    let names = |node: &Value| -> Vec<String> {
        let listed = node["operation"].as_array().cloned().unwrap_or_default();
        listed.iter().map(|op| op["name"].as_str().unwrap_or_default().to_owned()).collect()
    };
    for operation in crate::interaction::operations::OPERATIONS {
        let reply = backend.get(&format!("OperationDefinition/{}", operation.id)).await;
        assert_eq!(reply.status, 200, "{}", operation.id);
        crate::fhir::Resource::check(reply.json()).expect("an OperationDefinition of R4");
        assert_eq!(names(rest).contains(&operation.name.to_owned()), operation.levels.system, "{}", operation.id);
        for resource in rest["resource"].as_array().expect("types") {
            let kind = resource["type"].as_str().expect("a name");
            if operation.on(kind) {
                assert!(names(resource).contains(&operation.name.to_owned()), "{kind} {}", operation.id);
            }
        }
    }
    crate::fhir::Resource::check(statement.clone()).expect("a CapabilityStatement of R4");
}

async fn patients_are_matched_with_scores_and_grades() {
    let app = TestApp::new().await;
    let backend = app.persona("system/*.cruds").await;
    let person = |id: &str, family: &str, given: &str, birth: &str| {
        json!({
            "resourceType": "Patient", "id": id, "name": [{"family": family, "given": [given]}], "gender": "female",
            "birthDate": birth, "telecom": [{"system": "phone", "value": format!("555-010{}", birth.replace('-', ""))}]
        })
    };
    put(&backend, person("p1", "Kowalski", "Teresa", "1970-03-04")).await;
    put(&backend, person("p2", "Kowalski", "Anna", "1999-12-31")).await;
    put(&backend, person("p3", "Weber", "Teresa", "1970-05-06")).await;
    let mut asked = person("x", "Kowalsky", "Teresa", "1970-04-03");
    asked["telecom"][0]["value"] = json!("+1 555 010 19700304");
    let call = params(json!([{"name": "resource", "resource": asked}]));
    let found = backend.post("Patient/$match", &call).await;
    let own = found.link("self").expect("a link");
    assert!(
        own.starts_with("http://phial.test/fhir/Patient/$match?count=") && own.ends_with("&onlyCertainMatches=false"),
        "{own}"
    );
    assert_eq!((found.status, found.ids()), (200, vec!["p1".to_owned()]), "{}", found.text());
    let search = &found.json()["entry"][0]["search"];
    let score = search["score"].as_f64().expect("a score");
    assert!(score > 0.9 && search["mode"] == "match", "{search}");
    assert_eq!(search["extension"][0]["url"], "http://hl7.org/fhir/StructureDefinition/match-grade");
    crate::fhir::Resource::check(found.json()).expect("a Bundle of R4");
    assert_eq!(backend.post("Patient/$match", &asked).await.ids(), ["p1"], "the resource alone");
    let certain = params(json!([
        {"name": "resource", "resource": person("x", "Kowalski", "Teresa", "1970-03-04")},
        {"name": "onlyCertainMatches", "valueBoolean": true}, {"name": "count", "valueInteger": 1}
    ]));
    assert_eq!(backend.post("Patient/$match", &certain).await.ids(), ["p1"]);
    put(&backend, person("p4", "Kowalski", "Teresa", "1970-03-04")).await;
    let two = params(json!([
        {"name": "resource", "resource": person("x", "Kowalski", "Teresa", "1970-03-04")},
        {"name": "onlyCertainMatches", "valueBoolean": true}
    ]));
    let none = backend.post("Patient/$match", &two).await;
    assert!(none.ids().is_empty() && none.text().contains("More than one match is certain"), "{}", none.text());

    let narrow = app.persona("system/Patient.rs?_id=p2,p4").await;
    assert_eq!(narrow.post("Patient/$match", &call).await.ids(), ["p4"]);
    assert_eq!(app.persona("system/Patient.r").await.post("Patient/$match", &call).await.status, 403);
    assert_eq!(backend.post("Patient/$match", &json!({"resourceType": "Patient"})).await.status, 422);
    assert_eq!(backend.get("Patient/$match").await.status, 405);
    let wrong = backend.post("Patient/$match", &json!({"resourceType": "Patient", "birthDate": "x"})).await;
    assert_eq!((wrong.status, wrong.places()), (400, vec!["Patient.birthDate".to_owned()]));
}

async fn a_member_is_matched_by_person_and_coverage_or_not_at_all() {
    let app = TestApp::new().await;
    let backend = app.persona("system/*.cruds").await;
    let member = |id: &str, given: &str| {
        json!({
            "resourceType": "Patient", "id": id, "name": [{"family": "Moreau", "given": [given]}], "birthDate": "1961-02-03",
            "gender": "male", "identifier": [{
                "type": {"coding": [{"system": "http://terminology.hl7.org/CodeSystem/v2-0203", "code": "UMB"}]},
                "system": "http://payer", "value": format!("member-{id}")
            }]
        })
    };
    let coverage = |id: &str, of: &str, number: &str| {
        json!({
            "resourceType": "Coverage", "id": id, "status": "active", "beneficiary": {"reference": format!("Patient/{of}")},
            "payor": [{"display": "Payer"}], "subscriberId": number
        })
    };
    for resource in
        [member("p1", "Hugo"), member("p2", "Hugo"), coverage("c1", "p1", "S-1"), coverage("c2", "p2", "S-2")]
    {
        put(&backend, resource).await;
    }
    let mut asked = member("x", "Hugo");
    asked.as_object_mut().unwrap().shift_remove("identifier");
    let consent = |status: &str| {
        json!({
            "resourceType": "Consent", "status": status, "scope": {"text": "x"}, "category": [{"text": "x"}],
            "patient": {"display": "x"}, "policyRule": {"text": "x"}
        })
    };
    let call = |number: &str, status: &str| {
        params(json!([
            {"name": "MemberPatient", "resource": asked},
            {"name": "CoverageToMatch", "resource": coverage("x", "x", number)},
            {"name": "Consent", "resource": consent(status)}
        ]))
    };
    let found = backend.post("Patient/$member-match", &call("S-2", "active")).await;
    assert_eq!(found.status, 200, "{}", found.text());
    let returned = &found.json()["parameter"][0];
    assert_eq!(
        (&returned["name"], &returned["valueIdentifier"]["value"]),
        (&json!("MemberIdentifier"), &json!("member-p2"))
    );
    for (number, status) in [("S-3", "active"), ("S-2", "rejected")] {
        let refused = backend.post("Patient/$member-match", &call(number, status)).await;
        assert_eq!(refused.status, 422, "{number} {status}: {}", refused.text());
    }
    let narrow = app.persona("system/Patient.rs system/Coverage.rs?_id=c1").await;
    assert_eq!(narrow.post("Patient/$member-match", &call("S-2", "active")).await.status, 422);
    let missing = backend.post("Patient/$member-match", &params(json!([]))).await;
    assert_eq!((missing.status, missing.places().len()), (400, 2));
}

async fn a_search_is_explained_without_telling_of_records() {
    let app = TestApp::new().await;
    let backend = app.persona("system/*.cruds").await;
    for n in 0..5 {
        put(&backend, json!({
            "resourceType": "Observation", "id": format!("o{n}"), "status": "final", "effectiveDateTime": "2020-01-01",
            "code": {"coding": [{"system": "http://codes", "code": format!("c{}", n % 2)}]},
            "subject": {"reference": "Patient/p1"}
        }))
        .await;
    }
    let parts = |reply: &Reply, name: &str| -> Vec<Value> {
        assert_eq!(reply.status, 200, "{}", reply.text());
        crate::fhir::Resource::check(reply.json()).expect("Parameters of R4");
        let all = reply.json()["parameter"].as_array().cloned().expect("parameters");
        all.into_iter().filter(|one| one["name"] == name).map(|mut one| one["part"].take()).collect()
    };
    let value = |part: &Value, name: &str| -> Vec<Value> {
        let all = part.as_array().cloned().unwrap_or_default();
        let named = all.into_iter().filter(|one| one["name"] == name);
        named.map(|one| one.as_object().unwrap().iter().find(|(name, _)| *name != "name").unwrap().1.clone()).collect()
    };
    let reply = backend.get("Observation/$explain?patient=p1&code=c1&date=ge2020&status=final&_sort=date").await;
    let by: Vec<Vec<Value>> = parts(&reply, "criterion").iter().map(|part| value(part, "narrowedBy")).collect();
    assert_eq!(
        by,
        [vec![json!("compartment")], vec![json!("terms")], vec![json!("year")], vec![json!("nothing")], vec![]]
    );
    let plan = &parts(&reply, "plan")[0];
    assert_eq!(
        (value(plan, "candidates"), value(plan, "estimatedCost"), value(plan, "looksAt")),
        (vec![json!(2)], vec![json!("low")], vec![json!("all-candidates")]),
        "{plan}"
    );
    let body = params(json!([{"name": "query", "valueString": "patient=p1&code=c1"}]));
    assert_eq!(value(&parts(&backend.post("Observation/$explain", &body).await, "plan")[0], "candidates"), [json!(2)]);
    let chain = backend.get("Observation/$explain?subject:Patient.family=x").await;
    assert_eq!(value(&parts(&chain, "criterion")[0], "innerSearch"), [json!("Patient")]);
    assert_eq!(parts(&chain, "grant").len(), 2);

    let narrow = app.persona("system/Observation.rs?_id=o1").await;
    let reply = narrow.get("Observation/$explain?code=c1").await;
    let plan = &parts(&reply, "plan")[0];
    assert!(value(plan, "candidates")[0].is_string() && value(plan, "estimatedCost").is_empty(), "{plan}");
    assert_eq!(value(&parts(&reply, "grant")[0], "rows"), [json!("some")]);
    assert_eq!(narrow.get("Observation/$explain?subject:Patient.family=x").await.status, 403);
    assert_eq!(narrow.get("Patient/$explain").await.status, 403);
    assert_eq!(narrow.get("Observation/$explain?colour=red").await.status, 400);
    let events = backend.audit_of(reply.header("x-request-id")).await;
    assert!(Value::from(events).to_string().contains(r#""valueString":"explain""#));
}
