//! What searches find: modifiers, sets of codes, hierarchies, composites, `_filter`, lists, includes, through the real
//! router and the sealed database.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::{Persona, Reply, TestApp};
use crate::error::Kind;
use crate::fhir::definitions::Component;
use crate::fhir::{ParamKind, definitions};
use crate::interaction::form;
use crate::search::{Query, QueryOptions};

/// A query as a person writes it, encoded.
fn address(of: &str, query: &str) -> String {
    let pairs: Vec<(String, String)> = query
        .split('&')
        .filter_map(|pair| pair.split_once('='))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    format!("{of}?{}", form::encode(&pairs))
}

async fn ask(backend: &Persona<'_>, of: &str, query: &str) -> Reply {
    backend.get(&address(of, query)).await
}

async fn stored(backend: &Persona<'_>, resources: &[Value]) {
    for resource in resources {
        let part = |name: &str| resource[name].as_str().expect("type and id").to_owned();
        let reply = backend.put(&format!("{}/{}", part("resourceType"), part("id")), resource).await;
        assert_eq!(reply.status, 201, "{}", reply.text());
    }
}

/// Each query finds these, in any order.
async fn finds(backend: &Persona<'_>, cases: &[(&str, &str, &str)]) {
    for (of, query, expected) in cases {
        let reply = ask(backend, of, query).await;
        assert_eq!(reply.status, 200, "{of}?{query}: {}", reply.text());
        let mut ids = reply.ids();
        ids.sort();
        assert_eq!(ids.join(" "), *expected, "{of}?{query}");
    }
}

/// Each query is refused with this status, and says this.
async fn refuses(backend: &Persona<'_>, cases: &[(&str, &str, u16, &str)]) {
    for (of, query, status, text) in cases {
        let reply = ask(backend, of, query).await;
        assert_eq!(reply.status, *status, "{of}?{query}: {}", reply.text());
        assert!(reply.text().contains(text), "{of}?{query}: {}", reply.text());
    }
}

fn terminology() -> Vec<Value> {
    let concept = |code: &str, below: Value| json!({"code": code, "concept": below});
    vec![
        json!({"resourceType": "CodeSystem", "id": "cs", "url": "http://t.example/cs", "version": "1", "status": "active",
        "content": "complete", "hierarchyMeaning": "is-a", "concept": [
            concept("lab", json!([concept("blood", json!([{"code": "hb"}, {"code": "wbc"}])), {"code": "urine"}])),
            {"code": "image"},
        ]}),
        json!({"resourceType": "ValueSet", "id": "vs", "url": "http://t.example/vs", "version": "2", "status": "active",
            "compose": {"include": [{"system": "http://t.example/cs",
                "filter": [{"property": "concept", "op": "descendent-of", "value": "lab"}]}],
                "exclude": [{"system": "http://t.example/cs", "concept": [{"code": "urine"}]}]}}),
        json!({"resourceType": "ValueSet", "id": "open", "url": "http://t.example/open", "status": "active",
            "compose": {"include": [{"system": "http://loinc.org"}]}}),
    ]
}

fn observation(id: &str, code: &str, value: f64) -> Value {
    json!({"resourceType": "Observation", "id": id, "status": "final", "subject": {"reference": "Patient/p1"},
        "code": {"coding": [{"system": "http://t.example/cs", "code": code, "display": format!("The {code} test")}]},
        "effectiveDateTime": "2024-05-06", "valueQuantity": {"value": value, "system": "http://unitsofmeasure.org", "code": "g"}})
}

async fn clinic(backend: &Persona<'_>) {
    let mut all = terminology();
    all.push(json!({"resourceType": "Patient", "id": "p1", "gender": "female", "birthDate": "1980-02-03",
        "name": [{"family": "Peterson", "given": ["Anna"]}], "meta": {"tag": [{"system": "http://t.example/tags", "code": "vip"}]}}));
    all.push(json!({"resourceType": "Patient", "id": "p2", "gender": "male", "birthDate": "1990-01-01",
        "name": [{"family": "Carpet", "given": ["Bo"]}], "managingOrganization": {"reference": "Organization/ward"}}));
    all.extend([observation("hb", "hb", 12.0), observation("urine", "urine", 3.0), observation("image", "IMAGE", 7.0)]);
    all.push(json!({"resourceType": "Observation", "id": "none", "status": "final", "code": {"text": "free text"},
        "subject": {"reference": "Patient/p2"}}));
    for (id, parent) in [("house", None), ("floor", Some("house")), ("ward", Some("floor")), ("other", None)] {
        let mut one = json!({"resourceType": "Organization", "id": id, "name": id});
        if let Some(parent) = parent {
            one["partOf"] = json!({"reference": format!("Organization/{parent}")});
        }
        all.push(one);
    }
    all.push(json!({"resourceType": "List", "id": "l1", "status": "current", "mode": "working",
        "entry": [{"item": {"reference": "Observation/hb"}}, {"item": {"reference": "Patient/p2"}}]}));
    for (id, version) in [("q1", "1.0"), ("q2", "1.2.1"), ("q3", "2")] {
        all.push(json!({"resourceType": "Questionnaire", "id": id, "url": "http://t.example/q", "version": version,
            "status": "active", "title": format!("Form {version}")}));
        all.push(json!({"resourceType": "QuestionnaireResponse", "id": format!("r-{id}"), "status": "completed",
            "questionnaire": format!("http://t.example/q|{version}"), "subject": {"reference": "Patient/p1"}}));
    }
    for (id, latitude, longitude) in [("zurich", 47.3769, 8.5417), ("basel", 47.5596, 7.5886), ("nowhere", 0.0, 179.9)]
    {
        all.push(json!({"resourceType": "Location", "id": id, "name": id,
            "position": {"latitude": latitude, "longitude": longitude}}));
    }
    stored(backend, &all).await;
}

#[tokio::test]
async fn sets_of_codes_and_hierarchies() {
    let app = TestApp::new().await;
    let backend = app.persona("system/*.cruds").await;
    clinic(&backend).await;
    finds(
        &backend,
        &[
            ("Observation", "code:in=http://t.example/vs", "hb"),
            ("Observation", "code:in=http://t.example/vs|2", "hb"),
            ("Observation", "code:in=ValueSet/vs", "hb"),
            ("Observation", "code:not-in=http://t.example/vs", "image none urine"),
            ("Observation", "code:below=http://t.example/cs|lab", "hb urine"),
            ("Observation", "code:below=http://t.example/cs|blood,http://t.example/cs|image", "hb image"),
            ("Observation", "code:above=http://t.example/cs|hb", "hb"),
            ("Patient", "gender:in=http://hl7.org/fhir/ValueSet/administrative-gender", "p1 p2"),
            ("Patient", "_has:Observation:patient:code:in=http://t.example/vs", "p1"),
            ("", "_type=Observation&code:in=http://t.example/vs", "hb"),
            ("Observation/$lastn", "patient=p1&code:in=http://t.example/vs", "hb"),
            ("Organization", "partof:below=house", "floor ward"),
            ("Organization", "partof:below=Organization/floor", "ward"),
            ("Organization", "partof:above=ward", "floor ward"),
            ("Patient", "organization:below=house", "p2"),
            ("Patient", "organization:below=other", ""),
            ("QuestionnaireResponse", "questionnaire:below=http://t.example/q|1", "r-q1 r-q2"),
            ("QuestionnaireResponse", "questionnaire:below=http://t.example/q", "r-q1 r-q2 r-q3"),
            ("QuestionnaireResponse", "questionnaire:above=http://t.example/q|1.2.1", "r-q2"),
        ],
    )
    .await;
    refuses(
        &backend,
        &[
            ("Observation", "code:in=http://t.example/unknown", 400, "not stored"),
            ("Observation", "code:in=http://t.example/vs|3", 400, "not stored"),
            ("Observation", "code:not-in=http://t.example/open", 400, "http://loinc.org"),
            ("Observation", "code:in=vs", 400, "ValueSet/id"),
            ("Observation", "code:below=lab", 400, "system|code"),
            ("Observation", "code:below=http://t.example/cs|nothing", 400, "no code 'nothing'"),
            ("Observation", "code:below=http://loinc.org|1-1", 400, "not stored"),
            ("Patient", "general-practitioner:below=Practitioner/1", 400, "hierarchy"),
            ("Patient", "birthdate:above=2020", 400, "does not apply"),
        ],
    )
    .await;
    // Looking up a value set needs permission to search it, and is on record.
    let narrow = app.persona("system/Observation.rs").await;
    let refused = ask(&narrow, "Observation", "code:in=http://t.example/vs").await;
    assert_eq!(refused.status, 403, "{}", refused.text());
    let found = ask(&backend, "Observation", "code:in=http://t.example/vs").await;
    let events = backend.audit_of(found.header("x-request-id")).await;
    let names: String = events.iter().map(Value::to_string).collect();
    assert!(names.contains("ValueSet/vs") && names.contains("CodeSystem/cs"), "{names}");
}

#[tokio::test]
async fn composites_places_lists_and_text_modifiers() {
    let app = TestApp::new().await;
    let backend = app.persona("system/*.cruds").await;
    clinic(&backend).await;
    finds(
        &backend,
        &[
            ("Observation", "code-value-quantity=http://t.example/cs|hb$gt10", "hb"),
            ("Observation", "code-value-quantity=hb$lt10", ""),
            ("Observation", "code-value-quantity=hb$gt10,urine$3", "hb urine"),
            ("Location", "near=47.37|8.54|5|km", "zurich"),
            ("Location", "near=47.37|8.54", "zurich"),
            ("Location", "near=47.37|8.54|100000|m", "basel zurich"),
            ("Location", "near=0|-179.9|30", "nowhere"),
            ("Observation", "_list=l1", "hb"),
            ("Patient", "_list=l1&gender=male", "p2"),
            ("Patient", "_list=nothing", ""),
            ("Observation", "code:text=the hb", "hb"),
            ("Patient", "_tag=http://t.example/tags|vip", "p1"),
            ("Patient", "_tag:not=vip", "p2"),
            ("Patient", "_contained=false&gender=male", "p2"),
            ("QuestionnaireResponse", "questionnaire.title=form 1", "r-q1 r-q2"),
            ("Questionnaire", "_has:QuestionnaireResponse:questionnaire:_id=r-q3", "q3"),
        ],
    )
    .await;
    refuses(
        &backend,
        &[
            ("Location", "near=91|0", 400, "latitude"),
            ("Location", "near=1|2|3|furlongs", 400, "UCUM"),
            ("Location", "_sort=near", 400, "_sort"),
            ("Patient", "_list=$current-problems", 400, "$current-problems"),
            ("Patient", "_contained=perhaps", 400, "_contained"),
            ("Patient", "_contained=true&_sort=family", 400, "_sort"),
            ("Patient", "_sort=_score", 400, "_score"),
            ("Patient", "_query=everything", 400, "named queries"),
        ],
    )
    .await;
}

#[tokio::test]
async fn words_are_looked_for_in_few_bodies() {
    let app = TestApp::new().await;
    let backend = app.persona("system/*.cruds").await;
    clinic(&backend).await;
    let mut noted = observation("noted", "wbc", 1.0);
    noted["text"] = json!({"status": "generated", "div": "<div xmlns=\"http://www.w3.org/1999/xhtml\"><p>Chronic <b>kidney</b> failure</p></div>"});
    noted["note"] = json!([{"text": "Seen by the night nurse"}]);
    stored(&backend, &[noted]).await;
    finds(
        &backend,
        &[
            ("Observation", "_text=kidney", "noted"),
            ("Observation", "_text=kidney nurse", ""),
            ("Observation", "_text=\"chronic kidney\",nothing&patient=p1", "noted"),
            ("Observation", "_content=night nurse", "noted"),
            ("Observation", "_content=kidney&_content=nurse&status=final", "noted"),
            ("Observation", "_content=idney", ""),
            ("Observation", "_content=test&_sort=-_id", "hb image noted urine"),
        ],
    )
    .await;
    let counted = ask(&backend, "Observation", "_content=test&_summary=count").await.json();
    assert_eq!(counted["total"], 4);
    refuses(
        &backend,
        &[
            ("Patient", "_has:Observation:patient:_text=kidney", 400, "_text"),
            ("Observation", "_text:not=kidney", 400, "_text"),
            ("Observation", "_sort=_text", 400, "_text"),
        ],
    )
    .await;
}

/// Every search parameter of every type is searched by or refused with a reason, and the CapabilityStatement and the
/// page on searches say which.
#[tokio::test]
async fn every_parameter_works_or_says_why_not() {
    let app = TestApp::new().await;
    let backend = app.persona("system/*.cruds").await;
    let statement = backend.get("metadata").await.json();
    let page = include_str!("../../../docs/search.md");
    let options = QueryOptions {
        lenient: false,
        base: "http://phial.test/fhir".into(),
        count_default: 1,
        count_max: 1,
        now: app.app().world.now(),
        customs: Default::default(),
    };
    let (mut taken, mut refused) = (0, BTreeSet::new());
    let list = include_str!("../../../conformance/search-refused.txt");
    let excepted = |of: &str, code: &str| {
        let mut rows = list.lines().filter(|line| !line.starts_with('#')).map(|line| line.split('\t'));
        rows.any(|mut row| row.next().is_some_and(|kind| kind == of || kind == "*") && row.next() == Some(code))
    };
    for kind in definitions().types() {
        let name = definitions().type_name(*kind);
        let resources = statement["rest"][0]["resource"].as_array().expect("resources");
        let stated = resources.iter().find(|resource| resource["type"] == name).expect(name);
        let listed: BTreeSet<&str> =
            stated["searchParam"].as_array().expect(name).iter().filter_map(|param| param["name"].as_str()).collect();
        for param in definitions().params(*kind) {
            let value = match param.kind {
                _ if param.code == "_filter" => "_id eq 1".to_owned(),
                ParamKind::Special => "1|2|3|km".to_owned(),
                ParamKind::Composite => {
                    let part = |component: &Component| match component.param() {
                        Some(part) if part.kind == ParamKind::Date => "2020",
                        _ => "1",
                    };
                    param.components.iter().map(part).collect::<Vec<_>>().join("$")
                }
                ParamKind::Date => "2020".to_owned(),
                ParamKind::Uri => "http://x.example".to_owned(),
                _ => "1".to_owned(),
            };
            let value =
                if name == "Bundle" && param.code == "composition" { "Composition/1".to_owned() } else { value };
            match Query::parse(*kind, &[(param.code.to_owned(), value)], &options) {
                Ok(_) => {
                    assert!(listed.contains(param.code), "{name}.{} works and is not stated", param.code);
                    assert!(!excepted(name, param.code), "{name}.{} works: take it from the list", param.code);
                    taken += 1;
                }
                Err(error) => {
                    assert_eq!(error.kind, Kind::Unsupported, "{name}.{}: {error}", param.code);
                    assert!(error.to_string().len() > 40, "{error}");
                    assert!(!listed.contains(param.code), "{name}.{} is stated and refused", param.code);
                    assert!(excepted(name, param.code), "{name}.{} is refused: no list says why", param.code);
                    refused.insert(param.code);
                }
            }
        }
    }
    assert!(taken > 2_000, "{taken}");
    for code in refused {
        assert!(page.contains(&format!("`{code}`")), "docs/search.md must name `{code}` as refused");
    }
}

#[tokio::test]
async fn filters_say_what_searches_cannot() {
    let app = TestApp::new().await;
    let backend = app.persona("system/*.cruds").await;
    clinic(&backend).await;
    finds(
        &backend,
        &[
            ("Patient", r#"_filter=name co "pet""#, "p1 p2"),
            ("Patient", "_filter=family eq peterson", "p1"),
            ("Patient", "_filter=family eq peters", ""),
            ("Patient", "_filter=family sw peters", "p1"),
            ("Patient", "_filter=family ew pet", "p2"),
            ("Patient", "_filter=family ne carpet", "p1"),
            ("Patient", r#"_filter=given eq "Anna" and birthdate ge 1980-01-01"#, "p1"),
            ("Patient", "_filter=gender eq male or gender eq female and given eq bo", "p2"),
            ("Patient", "_filter=gender eq male or (gender eq female and given eq bo)", "p2"),
            ("Patient", "_filter=(given eq anna or given eq bo) and not(gender eq male)", "p1"),
            ("Patient", "_filter=not (birthdate lt 1985)", "p2"),
            ("Patient", "_filter=birthdate po 1980", "p1"),
            ("Patient", "_filter=organization pr true", "p2"),
            ("Patient", "_filter=organization pr false", "p1"),
            ("Patient", "_filter=organization re Organization/ward", "p2"),
            ("Patient", "_filter=id eq p1", "p1"),
            ("Patient", "_filter=gender ne male", "p1"),
            ("Observation", "_filter=code eq http://t.example/cs|hb", "hb"),
            ("Observation", r#"_filter=subject.name co "pet" and status eq final"#, "hb image none urine"),
            ("Observation", r#"_filter=subject:Patient.family eq "carpet""#, "none"),
            ("Observation", "_filter=subject[gender eq female].given eq anna", "hb image urine"),
            ("Observation", "_filter=not(subject.given eq anna)", "none"),
            ("Observation", "_filter=code in http://t.example/vs", "hb"),
            ("Observation", "_filter=code ss http://t.example/cs|lab", "hb urine"),
            ("Observation", "_filter=code sb http://t.example/cs|hb", "hb"),
            ("Observation", "_filter=value-quantity gt 5|http://unitsofmeasure.org|g&code:not=image", "hb"),
            ("Questionnaire", "_filter=url sw HTTP://t.example and version eq 2", "q3"),
            ("Questionnaire", "_filter=url ew /x or url co example/Q", "q1 q2 q3"),
        ],
    )
    .await;
    refuses(
        &backend,
        &[
            ("Patient", "_filter=name", 400, "character 5"),
            ("Patient", "_filter=name xx 1", 400, "no operator"),
            ("Patient", "_filter=gender gt male", 400, "does not apply"),
            ("Patient", "_filter=colour eq red", 400, "colour"),
            ("Patient", "_filter=(name eq x", 400, "')'"),
            ("Patient", "_filter=name eq x) and", 400, "'and', 'or' or the end"),
            ("Patient", "_filter=not name eq x", 400, "'('"),
            ("Patient", "_filter=organization pr maybe", 400, "true or false"),
            ("Patient", "_filter=name.family eq x", 400, "no reference"),
            ("Observation", "_filter=focus.name eq x", 422, "name the types"),
        ],
    )
    .await;
    let deep = format!("{}name eq x{}", "(".repeat(20), ")".repeat(20));
    let refused = ask(&backend, "Patient", &format!("_filter={deep}")).await;
    assert!(refused.status >= 400 && refused.text().contains("nested"), "{}", refused.text());
    let narrow = app.persona("system/Observation.rs").await;
    let refused = ask(&narrow, "Observation", "_filter=not(subject:Patient.given eq anna)").await;
    assert_eq!(refused.status, 403, "what must not hold has to be visible: {}", refused.text());
}

#[tokio::test]
async fn includes_follow_canonicals_and_every_reference() {
    let app = TestApp::new().await;
    let backend = app.persona("system/*.cruds").await;
    clinic(&backend).await;
    finds(
        &backend,
        &[
            ("QuestionnaireResponse", "_id=r-q2&_include=QuestionnaireResponse:questionnaire", "q2 r-q2"),
            ("QuestionnaireResponse", "_id=r-q2&_include=*", "p1 q2 r-q2"),
            ("Questionnaire", "_id=q1&_revinclude=QuestionnaireResponse:questionnaire", "q1 r-q1"),
            ("Patient", "_id=p2&_revinclude=*", "l1 none p2"),
            ("Organization", "_id=ward&_include:iterate=Organization:partof", "floor house ward"),
            ("Organization", "_id=house&_revinclude:iterate=Organization:partof", "floor house ward"),
        ],
    )
    .await;
    let narrow = app.persona("system/Patient.rs system/List.rs").await;
    let found = ask(&narrow, "Patient", "_id=p2&_revinclude=*").await;
    assert_eq!(found.ids(), ["p2", "l1"], "{}", found.text());
    assert!(found.text().contains("leaves out the types"), "{}", found.text());
    refuses(&backend, &[("Patient", "_revinclude:iterate=*", 400, "_revinclude")]).await;
}
