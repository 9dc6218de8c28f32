//! Composites that a site defines, and what the definition of a parameter forbids.

use serde_json::{Value, json};

use super::parameters::{both, clean, define, defined, finish, ids};
use super::{Persona, TestApp, patient};
use crate::interaction::form;

const STANDARD: &str = "http://hl7.org/fhir/SearchParameter/";

pub(super) fn part(definition: &str, expression: &str) -> Value {
    let url = if definition.contains(':') { definition.to_owned() } else { format!("{STANDARD}{definition}") };
    json!({"definition": url, "expression": expression})
}

fn composite(code: &str, base: &str, expression: &str, parts: &[Value]) -> Value {
    let mut parameter = defined(code, base, "composite", expression);
    parameter["component"] = json!(parts);
    parameter
}

fn composites() -> Vec<Value> {
    vec![
        composite(
            "code-status",
            "Observation",
            "Observation",
            &[part("clinical-code|4.0.1", "code"), part("Observation-status", "status")],
        ),
        composite(
            "any-code-quantity",
            "Observation",
            "Observation | Observation.component",
            &[
                part("Observation-combo-code", "code"),
                part("Observation-combo-value-quantity", "value.ofType(Quantity)"),
            ],
        ),
        composite(
            "part-level",
            "Observation",
            "Observation.component",
            &[part("Observation-component-code", "code"), part("http://a.example/sp/level", "interpretation")],
        ),
        // The code stands where no parameter of its name looks.
        composite(
            "reading-by",
            "Observation",
            "Observation",
            &[
                part("clinical-code", "method"),
                part("Observation-performer", "performer"),
                part("clinical-date", "effective"),
            ],
        ),
    ]
}

fn coded(code: &str) -> Value {
    json!({"coding": [{"system": "http://codes", "code": code}]})
}

/// One of many observations, each with another mix of values.
fn observed(n: usize) -> Value {
    let amount = |n: usize| json!({"value": n, "unit": "mg", "system": "http://unitsofmeasure.org", "code": "mg"});
    json!({
        "resourceType": "Observation", "id": format!("o{n:03}"), "status": (["final", "preliminary"][n % 2]),
        "code": coded(["a", "b", "c"][n % 3]), "valueQuantity": amount(n), "method": coded(["x", "y"][n % 2]),
        "performer": [{"reference": format!("Practitioner/k{}", n % 3)}], "effectiveDateTime": format!("20{:02}-05-01", n % 30),
        "component": [
            {"code": coded("a"), "valueQuantity": amount(n + 100), "interpretation": [coded(["H", "L"][n % 2])]},
            {"code": coded("d"), "valueQuantity": amount(n + 200), "interpretation": [coded(["L", "N"][n % 2])]},
        ],
    })
}

/// What each query must find, told by the number of the observation alone.
type Truth = (&'static str, fn(usize) -> bool);

const TRUTHS: &[Truth] = &[
    ("code-status=http://codes|a$final", |n| n % 3 == 0 && n % 2 == 0),
    ("code-status=a$preliminary,b$final", |n| (n % 3 == 0 && n % 2 == 1) || (n % 3 == 1 && n % 2 == 0)),
    ("code-status=d$final", |_| false),
    ("any-code-quantity=a$gt120", |n| n > 20),
    ("any-code-quantity=a$lt20", |n| n % 3 == 0 && n < 20),
    ("any-code-quantity=b$gt100", |_| false),
    ("any-code-quantity=d$0.205|http://unitsofmeasure.org|g", |n| n == 5),
    ("part-level=a$L", |n| n % 2 == 1),
    ("part-level=d$L", |n| n % 2 == 0),
    ("part-level=d$http://codes|H", |_| false),
    ("reading-by=x$Practitioner/k1$ge2010", |n| n % 2 == 0 && n % 3 == 1 && n % 30 >= 10),
    ("reading-by=a$k1$ge2000", |_| false),
    ("code-status=a$final&any-code-quantity=a$gt120", |n| n % 6 == 0 && n > 20),
    ("_filter=code-status eq \"c$final\" and status ne final", |_| false),
    ("subject.birthdate=2000&code-status=a$final", |_| false),
];

const OBSERVED: usize = 40;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn composites_of_the_site_find_what_they_should() {
    for app in both().await {
        let backend = app.persona("system/*.cruds").await;
        let put = async |n: usize| {
            assert_eq!(backend.put(&format!("Observation/o{n:03}"), &observed(n)).await.status, 201);
        };
        for n in 0..OBSERVED - 5 {
            put(n).await;
        }
        define(&backend, &defined("level", "Observation", "token", "Observation.component.interpretation")).await;
        for parameter in composites() {
            define(&backend, &parameter).await;
        }
        finish(&app).await;
        for n in OBSERVED - 5..OBSERVED {
            put(n).await;
        }
        all_hold(&backend).await;
        narrows(&backend).await;
        let metadata = backend.get("metadata").await.text();
        assert!(
            metadata
                .contains(r#"{"name":"part-level","definition":"http://a.example/sp/part-level","type":"composite"}"#)
        );
        clean(&app).await;
        // What a part was of may go: the composite is what it was, also after a restart.
        backend.delete("SearchParameter/sp-level").await;
        finish(&app).await;
        let again = app.again().await;
        let backend = again.bearer(backend.token());
        assert_eq!(backend.get("Observation?level=H").await.status, 400);
        all_hold(&backend).await;
        clean(&again).await;
    }
}

async fn all_hold(backend: &Persona<'_>) {
    for (query, holds) in TRUTHS {
        let expected: Vec<String> = (0..OBSERVED).filter(|n| holds(*n)).map(|n| format!("o{n:03}")).collect();
        assert_eq!(ids(backend, "Observation", query).await, expected, "{query}");
    }
}

/// A part narrows where the parameter it is of has all its values, and nowhere else.
async fn narrows(backend: &Persona<'_>) {
    for (query, candidates) in
        [("code-status=c$final", 13), ("any-code-quantity=d$gt1", 40), ("reading-by=x$k1$ge2000", 40)]
    {
        let (name, value) = query.split_once('=').expect("a pair");
        let pairs = [(name.to_owned(), value.to_owned())];
        let explained = backend.get(&format!("Observation/$explain?{}", form::encode(&pairs))).await.json();
        let parts = explained["parameter"].as_array().expect("parameters").iter().find(|one| one["name"] == "plan");
        let parts = parts.expect("a plan")["part"].as_array().expect("parts");
        let told = parts.iter().find(|one| one["name"] == "candidates").expect("candidates");
        assert_eq!(told["valueUnsignedInt"], candidates, "{query}: {explained}");
    }
}

#[tokio::test]
async fn a_composite_that_cannot_be_followed_is_refused_with_its_place() {
    let app = TestApp::new().await;
    let backend = app.persona("system/*.cruds").await;
    let (code, status) = (|| part("clinical-code", "code"), || part("Observation-status", "status"));
    for (parts, place) in [
        (vec![code()], "SearchParameter.component"),
        (vec![code(), part("Observation-colour", "code")], "SearchParameter.component[1].definition"),
        (vec![part("Patient-gender", "code"), status()], "SearchParameter.component[0].definition"),
        (vec![code(), part("Observation-code-value-date", "code")], "SearchParameter.component[1].definition"),
        (vec![code(), part("Observation-status", "colour")], "SearchParameter.component[1].expression"),
        (vec![code(), part("Observation-status", "%resource.status")], "SearchParameter.component[1].expression"),
        (vec![code(), part("Observation-status", "subject.resolve().name")], "SearchParameter.component[1].expression"),
        (vec![part("clinical-code", "code) | (status"), status()], "SearchParameter.component[0].expression"),
        (
            vec![part("clinical-code", "code // more"), part("Observation-status", "descendants()")],
            "SearchParameter.component[1].expression",
        ),
    ] {
        let reply = backend.put("SearchParameter/sp-x", &composite("x", "Observation", "Observation", &parts)).await;
        assert_eq!((reply.status, reply.places()), (422, vec![place.to_owned()]), "{parts:?}: {}", reply.text());
    }
    let mut with_modifier = composite("x", "Observation", "Observation", &[code(), status()]);
    with_modifier["modifier"] = json!(["missing"]);
    let reply = backend.put("SearchParameter/sp-x", &with_modifier).await;
    assert_eq!((reply.status, reply.places()), (422, vec!["SearchParameter.modifier[0]".to_owned()]));
    // What the standard means by the name adds nothing; other parts are another meaning.
    let standard = |value: &str| {
        let parts = [code(), part("Observation-value-quantity", value)];
        composite("code-value-quantity", "Observation", "Observation", &parts)
    };
    let reply = backend.put("SearchParameter/sp-code-value-quantity", &standard("component.value.as(Quantity)")).await;
    assert_eq!((reply.status, reply.places()), (422, vec!["SearchParameter.code".to_owned()]));
    define(&backend, &standard("value.as(Quantity)")).await;
    assert!(app.app().store.customs().all.is_empty());
}

/// A section that is closed closes the composite that reads it, and what may not be indexed is not.
#[tokio::test]
async fn a_composite_is_no_more_open_than_its_parts() {
    let app = TestApp::new().await;
    let backend = app.persona("system/*.cruds").await;
    let parts = [part("individual-gender", "gender"), part("individual-address-city", "address.city")];
    define(&backend, &composite("gender-city", "Patient", "Patient", &parts)).await;
    let parts = [part("individual-gender", "gender"), part("Patient-name", "photo.title")];
    define(&backend, &composite("gender-photo", "Patient", "Patient", &parts)).await;
    finish(&app).await;
    let refused = backend.get("Patient?gender-photo=male$x").await;
    assert_eq!(refused.status, 400);
    assert!(refused.text().contains("Photographs"), "{}", refused.text());
    let kind = crate::fhir::definitions().type_id("Patient").expect("a type");
    let id = app.app().store.customs().ready(kind).find(|param| param.code == "gender-city").expect("ready").id;
    use crate::mapping::Section;
    let mask = |closed| crate::search::mask::Mask::of(kind, move |section| section != closed);
    assert!(mask(Section::Contact).expect("something is closed").closes(id));
    assert!(!mask(Section::Narrative).is_some_and(|mask| mask.closes(id)));
}

#[tokio::test]
async fn what_a_definition_forbids_is_refused_and_nothing_else() {
    let app = TestApp::new().await;
    let backend = app.persona("system/*.cruds").await;
    let mut nick = defined("nick", "Patient", "string", "Patient.name.where(use = 'nickname').given");
    nick["multipleOr"] = json!(false);
    nick["multipleAnd"] = json!(false);
    nick["modifier"] = json!(["exact"]);
    let mut keeper = defined("keeper", "Patient", "reference", "Patient.generalPractitioner");
    keeper["target"] = json!(["Practitioner", "Organization"]);
    keeper["chain"] = json!(["name", "identifier"]);
    let mut suffix = defined("suffix", "Patient", "string", "Patient.name.suffix");
    suffix["multipleOr"] = json!(true);
    for parameter in [nick, keeper, suffix] {
        define(&backend, &parameter).await;
    }
    finish(&app).await;
    assert_eq!(backend.put("Patient/p1", &patient("p1", "Site")).await.status, 201);
    for (query, text) in [
        ("nick=a,b", "'nick' takes one value"),
        ("nick=a&nick=b", "'nick' may stand only once"),
        ("nick=a&nick:exact=b", "'nick' may stand only once"),
        ("nick:contains=a", "does not take the modifier ':contains', but :exact"),
        ("_filter=nick co a", "does not take the modifier ':contains'"),
        ("_filter=nick pr true", "does not take the modifier ':missing'"),
        ("keeper:Practitioner.gender=male", "'keeper' is not chained by 'gender', but by name, identifier"),
        ("keeper.address-city:exact=a", "'keeper' is not chained by 'address-city'"),
        ("keeper:Practitioner._has:Patient:keeper:family=a", "'keeper' is not chained by '_has'"),
        ("_filter=keeper.gender eq male", "'keeper' is not chained by 'gender'"),
        ("_filter=keeper[active eq true].name eq male", "'keeper' is not chained by 'active'"),
        ("_filter=keeper[name eq b].active eq true", "'keeper' is not chained by 'active'"),
        ("link:Patient.nick=a,b", "'nick' takes one value"),
    ] {
        let (name, value) = query.split_once('=').map_or((query, ""), |pair| pair);
        let pairs: Vec<(String, String)> = match name {
            "_filter" => vec![(name.to_owned(), value.to_owned())],
            _ => query
                .split('&')
                .filter_map(|pair| pair.split_once('='))
                .map(|(a, b)| (a.to_owned(), b.to_owned()))
                .collect(),
        };
        for prefer in ["handling=strict", "handling=lenient"] {
            let path = format!("Patient?{}", form::encode(&pairs));
            let reply = backend.call("GET", &path, &[("prefer", prefer)], "").await;
            assert_eq!(reply.status, 400, "{query}: {}", reply.text());
            assert!(reply.text().contains(text), "{query}: {}", reply.text());
        }
    }
    for query in [
        "nick=a&suffix=b&suffix=c,d",
        "nick:exact=a",
        "suffix:contains=a&suffix:missing=true",
        "keeper.name=a",
        "keeper:Practitioner.identifier=a&keeper:Organization.name:exact=b",
        "_filter=keeper[name eq a].identifier eq b or suffix co c",
        "keeper.name=a&link:Patient.nick=b&link:Patient.nick=c",
    ] {
        ids(&backend, "Patient", query).await;
    }
    assert!(ids(&backend, "Practitioner", "_has:Patient:keeper:gender=male").await.is_empty());
    let metadata = backend.get("metadata").await.text();
    let stated = "By its definition: modifiers: exact; one value, none joined by commas; only once in a query.";
    assert!(metadata.contains(stated) && metadata.contains("By its definition: chained by: name, identifier."));
}

/// A composite and a parameter that it is made of come together, in any order of the entries.
#[tokio::test]
async fn a_transaction_may_define_a_composite_and_its_parts() {
    for app in both().await {
        let backend = app.persona("system/*.cruds").await;
        let level = defined("level", "Observation", "token", "Observation.component.interpretation");
        let parts = [part("Observation-component-code", "code"), part("http://a.example/sp/level", "interpretation")];
        let whole = composite("part-level", "Observation", "Observation.component", &parts);
        let entry = |method: &str, parameter: &Value| {
            let url = match method {
                "PUT" => format!("SearchParameter/{}", parameter["id"].as_str().expect("an id")),
                _ => "SearchParameter".to_owned(),
            };
            json!({"request": {"method": method, "url": url}, "resource": parameter})
        };
        let bundle = |entries: &[Value]| json!({"resourceType": "Bundle", "type": "transaction", "entry": entries});
        let alone = backend.post("", &bundle(&[entry("POST", &whole)])).await;
        let place = "Bundle.entry[0].resource.component[1].definition".to_owned();
        assert_eq!((alone.status, alone.places()), (422, vec![place]), "{}", alone.text());
        let both = backend.post("", &bundle(&[entry("POST", &whole), entry("PUT", &level)])).await;
        assert_eq!(both.status, 200, "{}", both.text());
        for n in 0..6 {
            backend.put(&format!("Observation/o{n:03}"), &observed(n)).await;
        }
        finish(&app).await;
        assert_eq!(
            ids(&backend, "Observation", "part-level=http://codes|a$http://codes|H").await,
            ["o000", "o002", "o004"]
        );
        clean(&app).await;
    }
}
