//! `$graphql` through the real router.

use serde_json::{Value, json};

use super::everything::records;
use super::{Persona, Reply, TestApp, on_both};

on_both![
    references_are_followed_both_ways,
    what_a_reference_does_not_give_is_told_with_its_path,
    connections_walk_all_matches_by_sealed_cursors,
    connections_walk_backwards_too,
    every_patient_is_on_record_and_one_entry_does_where_one_can,
    grants_hold_on_every_road,
];

async fn ask(persona: &Persona<'_>, path: &str, query: &str) -> Reply {
    persona.call("POST", path, &[("content-type", "application/graphql")], query.to_owned()).await
}

/// The data of a query that is answered without errors.
async fn data(persona: &Persona<'_>, path: &str, query: &str) -> Value {
    let reply = ask(persona, path, query).await;
    assert_eq!((reply.status, reply.header("content-type")), (200, "application/json"), "{query}: {}", reply.text());
    let mut body = reply.json();
    assert!(body.get("errors").is_none(), "{query}: {body}");
    body["data"].take()
}

async fn references_are_followed_both_ways() {
    let app = TestApp::new().await;
    let backend = records(&app).await;
    let query = "{ id ObservationList(_reference: patient, _sort: \"_id\") { id
        performer { resource { ... on Practitioner { name { family } } ... on Organization { name } } }
        encounter { resource { location { location { resource { managingOrganization { resource { name } } } } } } } }
        managingOrganization { resource { name __typename } } }";
    let found = data(&backend, "Patient/p1/$graphql", query).await;
    let observation = |id: &str| {
        json!({
            "id": id,
            "performer": [{"resource": {"name": [{"family": "Doc"}]}}],
            "encounter": {"resource": {"location": [
                {"location": {"resource": {"managingOrganization": {"resource": {"name": "Owner"}}}}}
            ]}},
        })
    };
    let whole = json!({
        "id": "p1",
        "ObservationList": [observation("p1-o1"), observation("p1-o2")],
        "managingOrganization": {"resource": {"name": "North", "__typename": "Organization"}},
    });
    assert_eq!(found, whole);
}

#[tokio::test]
async fn every_form_of_request_is_read() {
    let app = TestApp::new().await;
    let backend = records(&app).await;
    let wanted = json!({"data": {"Patient": {"id": "p1"}}});
    let get = backend.get("$graphql?query=%7BPatient(id:%22p1%22)%7Bid%7D%7D").await;
    assert_eq!(get.json(), wanted, "{}", get.text());
    let query = "query One($id: ID!) { Patient(_id: $id) { id } } query Two { PatientList { id } }";
    let json = json!({"query": query, "operationName": "One", "variables": {"id": "p1"}, "extensions": null});
    let call = |kind: &'static str, body: String| {
        let backend = &backend;
        async move { backend.call("POST", "$graphql", &[("content-type", kind)], body).await }
    };
    assert_eq!(call("application/json", json.to_string()).await.json(), wanted);
    let parameters = json!({"resourceType": "Parameters", "parameter": [
        {"name": "query", "valueString": query}, {"name": "operationName", "valueString": "One"},
        {"name": "variables", "valueString": "{\"id\": \"p1\"}"},
    ]});
    assert_eq!(call("application/fhir+json", parameters.to_string()).await.json(), wanted);
    assert_eq!(call("text/plain", "{}".into()).await.status, 415);
    for (body, status) in [("{\"query\": 1}", 400), ("{\"other\": 1}", 400), ("{}", 400), ("", 400), ("[", 400)] {
        assert_eq!(call("application/json", body.into()).await.status, status, "{body}");
    }
    assert_eq!(backend.get("Patient/$graphql?query=%7Bid%7D").await.status, 404);
    assert_eq!(backend.get("Patient/none/$graphql?query=%7Bid%7D").await.status, 404);
}

#[tokio::test]
async fn faults_are_errors_of_graphql_with_their_place() {
    let app = TestApp::new().await;
    let backend = records(&app).await;
    for (path, query, status, words, place) in [
        ("Patient/p1/$graphql", "{ id\n  nme }", 400, "no field 'nme'", json!([{"line": 2, "column": 3}])),
        ("Patient/p1/$graphql", "{ id {", 400, "cannot be read", Value::Null),
        ("Patient/p1/$graphql", "{ id { x } }", 400, "simple value", json!([{"line": 1, "column": 3}])),
        ("Patient/p1/$graphql", "{ name }", 400, "fields must be selected", json!([{"line": 1, "column": 3}])),
        ("Patient/p1/$graphql", "{ ObservationList { id } }", 400, "needs '_reference'", Value::Null),
        ("Patient/p1/$graphql", "{ ObservationList(_reference: code) { id } }", 400, "refers to Patient", Value::Null),
        ("Patient/p1/$graphql", "{ ...a } fragment a on Patient { ...a }", 400, "holds itself", Value::Null),
        ("Patient/p1/$graphql", "{ ... on Group { id } }", 400, "can never apply", Value::Null),
        ("Patient/p1/$graphql", "{ a: id a: active }", 400, "differ", Value::Null),
        ("Patient/p1/$graphql", "{ id @later }", 400, "not known", Value::Null),
        ("Patient/p1/$graphql", "{ name(fhirpath: \"use =\") { use } }", 400, "FHIRPath", Value::Null),
        ("$graphql", "{ PatientList(nam: \"x\") { id } }", 400, "nam", json!([{"line": 1, "column": 3}])),
        ("$graphql", "{ PatientList(_include: \"x\") { id } }", 400, "not supported", Value::Null),
        ("$graphql", "{ AuditEventList { id } }", 400, "AuditEvent", Value::Null),
        ("$graphql", "{ __schema { types { colour } } }", 400, "no field 'colour'", json!([{"line": 1, "column": 22}])),
        ("$graphql", "{ __schema { types } }", 400, "must be selected", Value::Null),
        (
            "$graphql",
            "{ __type(name: \"Patient\") { fields(first: 2) { name } } }",
            400,
            "no field 'fields'",
            Value::Null,
        ),
        ("$graphql", "{ __type { name } }", 400, "takes one argument", Value::Null),
        ("$graphql", "{ __schema { ...a } } fragment a on __Type { name }", 400, "can never apply", Value::Null),
        ("Patient/p1/$graphql", "{ __schema { types { name } } }", 400, "at the root of a query", Value::Null),
        ("$graphql", "mutation { PatientDelete(id: \"p1\") { id } }", 400, "Mutations", Value::Null),
        ("$graphql", "subscription { Patient(id: \"p1\") { id } }", 400, "Subscriptions", Value::Null),
        ("$graphql", "query A { __typename } query B { __typename }", 400, "several", Value::Null),
        ("$graphql", "query A($x: ID!) { Patient(id: $x) { id } }", 400, "must be given", Value::Null),
        ("$graphql", "{ PatientList(_offset: 5000) { id } }", 422, "cursors", Value::Null),
    ] {
        let reply = ask(&backend, path, query).await;
        let error = &reply.json()["errors"][0];
        assert_eq!(reply.status, status, "{query}: {}", reply.text());
        assert!(error["message"].as_str().is_some_and(|text| text.contains(words)), "{query}: {error}");
        if !place.is_null() {
            assert_eq!(error["locations"], place, "{query}: {error}");
        }
    }
}

async fn what_a_reference_does_not_give_is_told_with_its_path() {
    let app = TestApp::new().await;
    let backend = records(&app).await;
    let lost = json!({"resourceType": "Observation", "id": "lost", "status": "final", "code": {"text": "x"},
        "subject": {"reference": "Patient/p1"}, "contained": [{"resourceType": "Practitioner", "id": "in", "active": true}],
        "performer": [{"reference": "#in"}, {"reference": "Practitioner/gone"}]});
    assert_eq!(backend.put("Observation/lost", &lost).await.status, 201);
    let query = "{ performer { resource { ... on Practitioner { active } } } }";
    let reply = ask(&backend, "Observation/lost/$graphql", query).await.json();
    assert_eq!(reply["data"], json!({"performer": [{"resource": {"active": true}}, {"resource": null}]}));
    assert_eq!(reply["errors"][0]["path"], json!(["performer", 1, "resource"]));
    assert_eq!(reply["errors"][0]["extensions"]["code"], "not-found");
    let optional = query.replace("resource {", "resource(optional: true) {");
    let found = data(&backend, "Observation/lost/$graphql", &optional).await;
    assert_eq!(found, json!({"performer": [{"resource": {"active": true}}, {}]}));
    let typed = data(&backend, "Observation/lost/$graphql", "{ subject { resource(type: Group) { active } } }").await;
    assert_eq!(typed, json!({"subject": {}}));
    let gone =
        ask(&backend, "$graphql", "{ a: Patient(id: \"none\") { id } b: Patient(id: \"p1\") { id } }").await.json();
    assert_eq!(gone["data"], json!({"a": null, "b": {"id": "p1"}}));
    assert_eq!(gone["errors"][0]["path"], json!(["a"]));
}

async fn connections_walk_all_matches_by_sealed_cursors() {
    let app = TestApp::new().await;
    let backend = records(&app).await;
    let stranger = app.persona("system/*.cruds").await;
    let select = "{ count offset pagesize first next previous edges { mode resource { id } } }";
    let mut query = format!("{{ ObservationConnection(status: final, _count: 3) {select} }}");
    let (mut seen, mut pages) = (Vec::new(), 0);
    loop {
        let page = data(&backend, "$graphql", &query).await["ObservationConnection"].take();
        assert_eq!((&page["count"], &page["offset"]), (&json!(4), &json!(seen.len())), "{page}");
        assert_eq!(page["pagesize"], 3);
        seen.extend(page["edges"].as_array().expect("a list").iter().map(|edge| edge["resource"]["id"].to_string()));
        pages += 1;
        let Some(next) = page["next"].as_str() else { break };
        assert!(!next.contains("final"));
        query = format!("{{ ObservationConnection(_cursor: \"{next}\") {select} }}");
        assert_eq!(ask(&stranger, "$graphql", &query).await.status, 400, "another caller");
        let other = query.replace("ObservationC", "ConditionC");
        assert_eq!(ask(&backend, "$graphql", &other).await.status, 400, "another type");
        assert_eq!(backend.get(&format!("Observation?_cursor={next}")).await.status, 400, "as a page link");
    }
    seen.sort();
    seen.dedup();
    assert_eq!((seen.len(), pages), (4, 2));
    let mut all = Vec::new();
    for offset in 0..5 {
        let list =
            data(&backend, "$graphql", &format!("{{ ObservationList(_count: 1, _offset: {offset}) {{ id }} }}")).await;
        all.extend(list["ObservationList"].as_array().expect("a list").iter().map(|one| one["id"].to_string()));
    }
    all.sort();
    assert_eq!(all, seen);
}

async fn connections_walk_backwards_too() {
    let app = TestApp::new().await;
    let backend = records(&app).await;
    let backend = &backend;
    for n in 0..8 {
        let made = json!({"resourceType": "Basic", "id": format!("b{n}"), "code": {"text": "x"}});
        assert_eq!(backend.put(&format!("Basic/b{n}"), &made).await.status, 201);
    }
    for sort in ["", ", _sort: \"-_id\""] {
        let page = |arguments: String| async move {
            let select = "{ offset first previous next last edges { resource { id } } }";
            let query = format!("{{ BasicConnection({arguments}) {select} }}");
            let mut page = data(backend, "$graphql", &query).await["BasicConnection"].take();
            let edges = page["edges"].take();
            let ids = edges.as_array().expect("a list").iter().map(|edge| edge["resource"]["id"].to_string());
            (ids.collect::<Vec<_>>(), page)
        };
        let to = |link: &Value| format!("_cursor: \"{}\"", link.as_str().expect("a cursor"));
        let (mut ids, mut now) = page(format!("_count: 3{sort}")).await;
        assert!(now["previous"].is_null(), "{now}");
        let mut forward = vec![ids.clone()];
        while now["next"].is_string() {
            (ids, now) = page(to(&now["next"])).await;
            forward.push(ids.clone());
        }
        assert_eq!(forward.iter().map(Vec::len).collect::<Vec<_>>(), [3, 3, 2]);
        // From what is last, page by page back to what is first: the same pages.
        let (last, mut now) = page(to(&now["first"])).await;
        assert_eq!(last, forward[0]);
        (ids, now) = page(to(&now["last"])).await;
        assert_eq!((&ids, &now["offset"], &now["next"]), (&forward[2], &json!(6), &Value::Null));
        for (n, offset) in [(1, 3), (0, 0)] {
            (ids, now) = page(to(&now["previous"])).await;
            assert_eq!((&ids, &now["offset"]), (&forward[n], &json!(offset)), "{sort}");
            let (behind, _) = page(to(&now["next"])).await;
            assert_eq!(behind, forward[n + 1], "{sort}");
        }
        assert!(now["previous"].is_null(), "{now}");
        if !sort.is_empty() {
            // Fewer lie before the second page than when its cursor was made: they are the first ones now.
            let (_, second) = page(to(&now["next"])).await;
            let gone = format!("Basic/{}", forward[0][0].trim_matches('"'));
            assert_eq!(backend.delete(&gone).await.status, 204);
            (ids, now) = page(to(&second["previous"])).await;
            assert_eq!((&ids[..], &now["offset"], &now["previous"]), (&forward[0][1..], &json!(0), &Value::Null));
        }
    }
    let none = data(
        backend,
        "$graphql",
        "{ BasicConnection(code: \"http://none|x\") { count previous next edges { mode } } }",
    )
    .await;
    assert_eq!(none["BasicConnection"], json!({"count": 0, "edges": []}));
}

#[tokio::test]
async fn the_schema_is_told_beside_data_and_is_on_record() {
    let app = TestApp::new().await;
    let backend = records(&app).await;
    let query = "query($kind: String!, $no: Boolean!) { Patient(id: \"p1\") { id }
        of: __type(name: $kind) { ...T fields(includeDeprecated: true) { name args { name type { ...T } } type { ...T ofType { ...T } } } }
        none: __type(name: \"Nonsense\") { name }
        __schema @skip(if: $no) { types { name } }
        ref: __type(name: \"Resource\") { kind possibleTypes { name } interfaces { name } } }
        fragment T on __Type { kind name }";
    let asked = json!({"query": query, "variables": {"kind": "PatientContact", "no": true}}).to_string();
    let reply = backend.call("POST", "$graphql", &[("content-type", "application/json")], asked).await;
    assert_eq!(backend.audit_of(reply.header("x-request-id")).await.len(), 1);
    let found = reply.json()["data"].take();
    assert_eq!(found["Patient"], json!({"id": "p1"}), "{}", reply.text());
    assert_eq!(
        (&found["of"]["kind"], &found["of"]["name"], &found["none"]),
        (&json!("OBJECT"), &json!("PatientContact"), &Value::Null)
    );
    assert!(found.get("__schema").is_none(), "skipped");
    let fields = found["of"]["fields"].as_array().expect("a list");
    let field =
        |name: &str| fields.iter().find(|field| field["name"] == name).unwrap_or_else(|| panic!("{name}: {fields:?}"));
    assert_eq!(field("gender")["type"], json!({"kind": "SCALAR", "name": "code", "ofType": null}));
    assert_eq!(
        field("telecom")["type"],
        json!({"kind": "LIST", "name": null, "ofType": {"kind": "OBJECT", "name": "ContactPoint"}})
    );
    let names: Vec<&str> =
        field("telecom")["args"].as_array().unwrap().iter().filter_map(|one| one["name"].as_str()).collect();
    assert_eq!(names, ["fhirpath", "_count", "_offset", "system", "value", "use", "rank"]);
    assert_eq!(found["ref"]["possibleTypes"].as_array().map(Vec::len), Some(146));
    // Without rights to anything the schema is the same, and no data comes with it.
    let nobody = app.persona("system/Basic.r").await;
    let whole = data(&nobody, "$graphql", "{ __schema { queryType { name fields { name } } } }").await;
    let roots = whole["__schema"]["queryType"]["fields"].as_array().expect("a list");
    assert!(
        roots.len() == 145 * 3 && roots.iter().all(|root| !root["name"].as_str().unwrap().starts_with("AuditEvent"))
    );
    let token = app.bearer("nonsense");
    assert_eq!(ask(&token, "$graphql", "{ __schema { queryType { name } } }").await.status, 401);
}

async fn every_patient_is_on_record_and_one_entry_does_where_one_can() {
    let app = TestApp::new().await;
    let backend = records(&app).await;
    let query = "{ PatientList(_sort: \"_id\") { id ObservationList(_reference: patient) { id } } }";
    let reply = ask(&backend, "$graphql", query).await;
    let events = backend.audit_of(reply.header("x-request-id")).await;
    let entries = |events: &[Value]| {
        let ids = events.iter().filter_map(|event| event["id"].as_str()?.rsplit_once('-'));
        ids.map(|(entry, _)| entry.to_owned()).collect::<std::collections::BTreeSet<_>>().len()
    };
    assert_eq!(entries(&events), 1, "{events:?}");
    let text = serde_json::to_string(&events).expect("JSON");
    for name in ["Patient/p1", "Patient/p2", "Observation/p1-o1", "Observation/p2-o2", "graphql"] {
        assert!(text.contains(name), "{name}: {text}");
    }
    // Only content tells of a reference: what it leads to has an entry of its own, under the same request.
    let reply = ask(&backend, "Observation/p1-o1/$graphql", "{ performer { resource { id } } }").await;
    let events = backend.audit_of(reply.header("x-request-id")).await;
    assert_eq!(entries(&events), 2, "{events:?}");
    for query in ["{ PatientList(family: \"nobody\") { id } }", "{ __typename }", "{ nonsense }"] {
        let reply = ask(&backend, "$graphql", query).await;
        assert_eq!(entries(&backend.audit_of(reply.header("x-request-id")).await), 1, "{query}");
    }
}

async fn grants_hold_on_every_road() {
    let app = TestApp::new().await;
    let backend = records(&app).await;
    drop(backend);
    let narrow = app.persona("system/Observation.rs?patient=Patient/p1 system/Patient.r?_id=p1").await;
    let list =
        data(&narrow, "$graphql", "{ ObservationList(_sort: \"_id\") { id subject { resource { id } } } }").await;
    let one = |id: &str| json!({"id": id, "subject": {"resource": {"id": "p1"}}});
    assert_eq!(list, json!({"ObservationList": [one("p1-o1"), one("p1-o2")]}));
    let counted = data(&narrow, "$graphql", "{ ObservationConnection { count } }").await;
    assert_eq!(counted["ObservationConnection"]["count"], 2);
    assert_eq!(ask(&narrow, "$graphql", "{ PatientList { id } }").await.status, 403, "no search permission");
    assert_eq!(ask(&narrow, "$graphql", "{ Condition(id: \"p1-c\") { id } }").await.status, 403);
    assert_eq!(ask(&narrow, "Condition/p1-c/$graphql", "{ id }").await.status, 403);
    assert_eq!(ask(&narrow, "Observation/p2-o1/$graphql", "{ id }").await.status, 404);
    let hidden = ask(&narrow, "$graphql", "{ Patient(id: \"p2\") { id } }").await;
    let unknown = ask(&narrow, "$graphql", "{ Patient(id: \"p9\") { id } }").await;
    assert_eq!((hidden.status, hidden.text()), (200, unknown.text()));
    // Neither rights nor absence can be told from a reference.
    let to = "{ ObservationList(_id: \"p1-o1\") { performer { resource { id } } } }";
    let reply = ask(&narrow, "$graphql", to).await.json();
    assert_eq!(reply["errors"][0]["extensions"]["code"], "not-found", "{reply}");
}

#[tokio::test]
async fn work_is_limited() {
    let app = TestApp::with(&[("page_size_max", "5000")]).await;
    let backend = records(&app).await;
    let aliases: String = (0..101).map(|n| format!("a{n}: PatientList(_id: \"x{n}\") {{ id }} ")).collect();
    let fields = "id ".repeat(1001);
    let deep = format!("{}id{}", "x { ".repeat(40), "}".repeat(40));
    let mut fragments = "fragment f0 on Patient { id active gender birthDate }".to_owned();
    for n in 1..8 {
        fragments += &format!(" fragment f{n} on Patient {{ ...f{0} ...f{0} ...f{0} ...f{0} }}", n - 1);
    }
    for query in [
        format!("{{ {aliases} }}"),
        format!("{{ {fields} }}"),
        format!("{{ {deep} }}"),
        "#".repeat(70_000),
        format!("{{ PatientList {{ ...f7 }} }} {fragments}"),
    ] {
        let reply = ask(&backend, "$graphql", &query).await;
        assert_eq!(reply.status, 422, "{:.60}: {}", query, reply.text());
        assert_eq!(reply.json()["errors"][0]["extensions"]["code"], "too-costly");
    }
}

#[tokio::test]
async fn capabilities_name_it() {
    let app = TestApp::new().await;
    let backend = app.persona("system/*.r").await;
    let statement = backend.get("metadata").await.json();
    let listed = |operations: &Value| {
        let operations = operations.as_array().cloned().unwrap_or_default();
        operations.iter().any(|operation| {
            operation["name"] == "graphql"
                && operation["definition"] == "http://hl7.org/fhir/OperationDefinition/Resource-graphql"
        })
    };
    assert!(listed(&statement["rest"][0]["operation"]));
    assert!(listed(&statement["rest"][0]["resource"][3]["operation"]));
    assert_eq!(backend.get("OperationDefinition/Resource-graphql").await.status, 200);
}
