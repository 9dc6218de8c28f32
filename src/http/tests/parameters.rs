//! Search parameters that a site defines: what may be defined, the job that goes through what was there before, and
//! that no search is ever answered in part, whichever server it comes to.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Value, json};

use super::composites::part;
use super::{Persona, TestApp, patient};
use crate::interaction::form;
use crate::jobs::reindex::{Reindex, Step};
use crate::store::postgres;

const EXTENSION: &str = "http://a.example/";

pub(super) async fn both() -> [TestApp; 2] {
    [TestApp::new().await, TestApp::with(&[("database_url", &postgres::database())]).await]
}

pub(super) fn defined(code: &str, base: &str, kind: &str, expression: &str) -> Value {
    json!({
        "resourceType": "SearchParameter", "id": format!("sp-{code}"), "url": format!("http://a.example/sp/{code}"),
        "name": code, "status": "active", "description": code, "code": code, "base": [base], "type": kind,
        "expression": expression,
    })
}

pub(super) async fn define(backend: &Persona<'_>, parameter: &Value) {
    let id = parameter["id"].as_str().expect("an id");
    let reply = backend.put(&format!("SearchParameter/{id}"), parameter).await;
    assert!([200, 201].contains(&reply.status), "{}", reply.text());
}

/// Works until there is nothing to do; gives how many resources were gone through.
pub(super) async fn finish(app: &TestApp) -> u64 {
    let mut job = Reindex::new(app.app());
    let mut all = 0;
    loop {
        match job.step().await.expect("a step") {
            Step::Worked { rows, .. } => all += rows,
            Step::Idle => return all,
            Step::Elsewhere | Step::Stuck => panic!("it can go on"),
        }
    }
}

pub(super) async fn ids(backend: &Persona<'_>, of: &str, query: &str) -> Vec<String> {
    let pairs: Vec<(String, String)> = query
        .split('&')
        .filter_map(|pair| pair.split_once('='))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .chain([("_count".to_owned(), "500".to_owned())])
        .collect();
    let reply = backend.get(&format!("{of}?{}", form::encode(&pairs))).await;
    assert_eq!(reply.status, 200, "{of}?{query}: {}", reply.text());
    let mut ids = reply.ids();
    ids.sort();
    ids
}

pub(super) async fn clean(app: &TestApp) {
    let report = app.app().store.check_index(&app.app().config.mrn_system).await.expect("the index is read");
    assert!(report.is_clean(), "{report}");
}

fn extension(name: &str, member: &str, value: Value) -> Value {
    let mut extension = json!({"url": format!("{EXTENSION}{name}")});
    extension[member] = value;
    extension
}

/// One of many patients, each with another mix of values.
fn person(n: usize) -> Value {
    let mut made = patient(&format!("p{n:03}"), "Site");
    let mut extensions = Vec::new();
    if !n.is_multiple_of(3) {
        let eyes = ["Blue", "Brown", "Green"][n % 7 % 3];
        let concept = json!({"coding": [{"system": "http://eyes", "code": eyes, "display": format!("{eyes} eyes")}]});
        extensions.push(extension("eyes", "valueCodeableConcept", concept));
    }
    if n.is_multiple_of(4) {
        extensions.push(extension("since", "valueDate", json!(format!("20{:02}-05-01", n % 30))));
        extensions.push(extension(
            "weight",
            "valueQuantity",
            json!({
                "value": n as f64 + 0.5, "unit": "kg", "system": "http://unitsofmeasure.org", "code": "kg"
            }),
        ));
    }
    if n.is_multiple_of(5) {
        let keeper = json!({"reference": format!("Practitioner/k{}", n % 3)});
        extensions.push(extension("keeper", "valueReference", keeper));
        extensions.push(extension("page", "valueUri", json!(format!("http://pages/{}/{n}", n % 2))));
    }
    made["extension"] = json!(extensions);
    if n.is_multiple_of(2) {
        made["name"][0]["given"] = json!(["Ann"]);
        let nick = json!({"use": "nickname", "given": [format!("Nick{}", n % 6), "Zoë"]});
        made["name"].as_array_mut().expect("names").push(nick);
    }
    made["multipleBirthInteger"] = json!(n % 9 + 1);
    made
}

fn parameters() -> Vec<Value> {
    let of =
        |name: &str, kind: &str| format!("Patient.extension.where(url = '{EXTENSION}{name}').value.ofType({kind})");
    let mut keeper = defined("keeper", "Patient", "reference", &of("keeper", "Reference"));
    keeper["target"] = json!(["Practitioner"]);
    let mut since = defined("since", "Patient", "date", &of("since", "date"));
    since["comparator"] = json!(["ge", "lt"]);
    let mut nick = defined("nick", "Patient", "string", "Patient.name.where(use = 'nickname').given");
    nick["modifier"] = json!(["missing", "exact"]);
    vec![
        defined("eyes", "Patient", "token", &of("eyes", "CodeableConcept")),
        since,
        defined("weight", "Patient", "quantity", &of("weight", "Quantity")),
        keeper,
        defined("page", "Patient", "uri", &of("page", "uri")),
        nick,
        defined("of-births", "Patient", "number", "Patient.multipleBirth.ofType(integer)"),
    ]
}

/// What each query must find, told by the number of the patient alone.
type Truth = (&'static str, fn(usize) -> bool);

const TRUTHS: &[Truth] = &[
    ("eyes=http://eyes|Blue", |n| n % 3 != 0 && n % 7 % 3 == 0),
    ("eyes=brown", |n| n % 3 != 0 && n % 7 % 3 == 1),
    ("eyes:not=brown", |n| n % 3 == 0 || n % 7 % 3 != 1),
    ("eyes:text=green", |n| n % 3 != 0 && n % 7 % 3 == 2),
    ("eyes:missing=true", |n| n % 3 == 0),
    ("since=ge2012", |n| n % 4 == 0 && n % 30 >= 12),
    ("since=lt2012-05-01", |n| n % 4 == 0 && n % 30 < 12),
    ("since=2008-05", |n| n % 4 == 0 && n % 30 == 8),
    ("weight=gt20", |n| n % 4 == 0 && n as f64 + 0.5 > 20.0),
    ("weight=20500|http://unitsofmeasure.org|g", |n| n == 20),
    ("weight:missing=false", |n| n % 4 == 0),
    ("keeper=Practitioner/k1", |n| n % 5 == 0 && n % 3 == 1),
    ("keeper=k2", |n| n % 5 == 0 && n % 3 == 2),
    ("keeper:Practitioner=k0", |n| n % 5 == 0 && n % 3 == 0),
    ("keeper.family=Keeper1", |n| n % 5 == 0 && n % 3 == 1),
    ("page:below=http://pages/1", |n| n % 5 == 0 && n % 2 == 1),
    ("page=http://pages/0/10", |n| n == 10),
    ("nick=nick4", |n| n % 2 == 0 && n % 6 == 4),
    ("nick=zoe", |n| n % 2 == 0),
    ("nick:exact=Zoë", |n| n % 2 == 0),
    ("nick:exact=zoe", |_| false),
    ("nick=Ann", |_| false),
    ("of-births=3", |n| n % 9 == 2),
    ("of-births=ge8", |n| n % 9 >= 7),
    ("family=site&of-births=3", |n| n % 9 == 2),
    ("of-births=2&nick=zoe&eyes:missing=false", |n| n % 9 == 1 && n % 2 == 0 && n % 3 != 0),
    ("_filter=nick sw \"nick2\" and of-births gt 4", |n| n % 6 == 2 && n % 9 > 3),
];

const PERSONS: usize = 60;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn parameters_of_the_site_find_what_they_should() {
    for app in both().await {
        let backend = app.persona("system/*.cruds").await;
        for n in 0..3 {
            let keeper = json!({"resourceType": "Practitioner", "id": format!("k{n}"), "name": [{"family": format!("Keeper{n}")}]});
            assert_eq!(backend.put(&format!("Practitioner/k{n}"), &keeper).await.status, 201);
        }
        // Most are there before, some come while the job works, some after it.
        let put = async |n: usize| {
            assert_eq!(backend.put(&format!("Patient/p{n:03}"), &person(n)).await.status, 201);
        };
        for n in 0..PERSONS - 10 {
            put(n).await;
        }
        // What this opened is of no use afterwards: the job makes no versions.
        assert_eq!(ids(&backend, "Patient", "family=site").await.len(), PERSONS - 10);
        for parameter in parameters() {
            define(&backend, &parameter).await;
        }
        let mut job = Reindex::new(app.app());
        assert_eq!(job.step().await.expect("a step"), Step::Worked { rows: 32, finished: false });
        for n in PERSONS - 10..PERSONS - 5 {
            put(n).await;
        }
        drop(job);
        app.pass(31);
        unfinished(&backend).await;
        finish(&app).await;
        for n in PERSONS - 5..PERSONS {
            put(n).await;
        }
        for (query, holds) in TRUTHS {
            let expected: Vec<String> = (0..PERSONS).filter(|n| holds(*n)).map(|n| format!("p{n:03}")).collect();
            assert_eq!(ids(&backend, "Patient", query).await, expected, "{query}");
        }
        further(&backend).await;
        let version = backend.get("Patient/p001").await.json()["meta"]["versionId"].clone();
        assert_eq!(version, "1", "going through a resource makes no version");
        clean(&app).await;
        let report = crate::audit::verify(&app.app().trail).await.expect("the trail is read");
        assert!(report.is_clean(), "{report}");
    }
}

/// Until all resources were gone through there is no answer, also where unknown parameters are left out.
async fn unfinished(backend: &Persona<'_>) {
    for headers in [&[][..], &[("prefer", "handling=lenient")][..]] {
        for query in ["eyes=brown", "_sort=eyes", "_filter=eyes eq brown", "_include=Patient:keeper"] {
            let path = format!("Patient?{}", query.replace(' ', "%20"));
            let reply = backend.call("GET", &path, headers, "").await;
            assert_eq!(reply.status, 400, "{query}: {}", reply.text());
            assert!(reply.text().contains("being indexed, 32 of 5"), "{query}: {}", reply.text());
            assert_eq!(reply.json()["issue"][0]["code"], "not-supported");
        }
        let has = backend.call("GET", "Practitioner?_has:Patient:keeper:_id=p001", headers, "").await;
        assert_eq!(has.status, 400, "{}", has.text());
    }
    assert!(!backend.get("metadata").await.text().contains("http://a.example/sp/eyes"));
    let status = backend.get("SearchParameter/sp-eyes/$status").await.json();
    assert_eq!(
        (&status["parameter"][1]["valueCode"], &status["parameter"][2]["valueUnsignedInt"]),
        (&json!("indexing"), &json!(32))
    );
}

async fn further(backend: &Persona<'_>) {
    let metadata = backend.get("metadata").await.json();
    let resources = metadata["rest"][0]["resource"].as_array().expect("resources").clone();
    let of = |name: &str| resources.iter().find(|resource| resource["type"] == name).expect("a type").clone();
    assert!(
        of("Patient")["searchParam"]
            .as_array()
            .expect("a list")
            .contains(&json!({"name": "eyes", "definition": "http://a.example/sp/eyes", "type": "token"}))
    );
    assert!(of("Patient")["searchInclude"].as_array().expect("a list").contains(&json!("Patient:keeper")));
    assert!(of("Practitioner")["searchRevInclude"].as_array().expect("a list").contains(&json!("Patient:keeper")));
    let status = backend.get("SearchParameter/sp-eyes/$status").await.json();
    assert_eq!(status["parameter"][1]["valueCode"], "ready");

    assert_eq!(ids(backend, "Practitioner", "_has:Patient:keeper:nick=nick0").await, ["k0"]);
    assert_eq!(ids(backend, "Patient", "_id=p010&_include=Patient:keeper").await, ["k1", "p010"]);
    assert_eq!(ids(backend, "Practitioner", "_id=k1&_revinclude=Patient:keeper").await.len(), 5);
    let sorted = backend.get("Patient?_sort=-weight,_id&_count=3").await.ids();
    assert_eq!(sorted, ["p056", "p052", "p048"]);
    let explained = backend.get("Patient/$explain?page=http://pages/0/10").await;
    assert_eq!(explained.status, 200, "{}", explained.text());
    for (query, text) in [
        ("nick:contains=ick", "does not take the modifier ':contains', but :missing, :exact"),
        ("since=gt2012", "does not take 'gt', but ge, lt"),
        ("keeper:Patient=1", "does not apply"),
        ("colour=red", "is no search parameter"),
    ] {
        let reply = backend.get(&format!("Patient?{query}")).await;
        assert_eq!(reply.status, 400);
        assert!(reply.text().contains(text), "{query}: {}", reply.text());
    }
    let condition = backend.call("DELETE", "Patient?page=http://pages/0/none", &[], "").await;
    assert_eq!(condition.status, 204, "{}", condition.text());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_goes_on_where_it_was_when_its_server_was_killed() {
    for app in both().await {
        let backend = app.persona("system/*.cruds").await;
        for n in 0..100 {
            backend.put(&format!("Patient/p{n:03}"), &person(n)).await;
        }
        define(&backend, &parameters()[0]).await;
        let before = backend.token().to_owned();
        let mut job = Reindex::new(app.app());
        for _ in 0..2 {
            assert_eq!(job.step().await.expect("a step"), Step::Worked { rows: 32, finished: false });
        }
        // Nothing is closed or given back: as after kill -9.
        let app = app.again().await;
        let backend = app.bearer(&before);
        let mut job = Reindex::new(app.app());
        assert_eq!(job.step().await.expect("a step"), Step::Elsewhere, "the lease of the dead server");
        let status = backend.get("SearchParameter/sp-eyes/$status").await.json();
        assert_eq!(
            (&status["parameter"][2]["valueUnsignedInt"], &status["parameter"][3]["valueUnsignedInt"]),
            (&json!(64), &json!(100))
        );
        app.pass(31);
        assert_eq!(job.step().await.expect("a step"), Step::Worked { rows: 32, finished: false });
        assert_eq!(job.step().await.expect("a step"), Step::Worked { rows: 4, finished: true });
        assert_eq!(job.step().await.expect("a step"), Step::Idle);
        assert_eq!(ids(&backend, "Patient", "eyes:missing=true").await.len(), 34);
        clean(&app).await;
        let events = backend.get("AuditEvent?entity=SearchParameter/sp-eyes&_count=100").await;
        assert!(events.text().contains("reindex"), "{}", events.text());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_servers_agree_on_what_there_is() {
    let one = TestApp::with(&[("database_url", &postgres::database())]).await;
    let two = one.again().await;
    let on_one = one.persona("system/*.cruds").await;
    let on_two = two.bearer(on_one.token());
    for n in 0..40 {
        on_one.put(&format!("Patient/p{n:03}"), &person(n)).await;
    }
    define(&on_one, &parameters()[0]).await;
    // The other server has not heard of it, and must not write without it.
    let late = person(43);
    assert_eq!(
        on_two
            .put("Patient/late", &{
                let mut late = late;
                late["id"] = json!("late");
                late
            })
            .await
            .status,
        201
    );
    let lenient = on_two.call("GET", "Patient?eyes=brown", &[("prefer", "handling=lenient")], "").await;
    assert_eq!(lenient.status, 400, "{}", lenient.text());
    let (mut here, mut there) = (Reindex::new(one.app()), Reindex::new(two.app()));
    assert_eq!(here.step().await.expect("a step"), Step::Worked { rows: 32, finished: false });
    assert_eq!(there.step().await.expect("a step"), Step::Elsewhere);
    assert_eq!(here.step().await.expect("a step"), Step::Worked { rows: 9, finished: true });
    assert_eq!(here.step().await.expect("a step"), Step::Idle);
    assert_eq!(there.step().await.expect("a step"), Step::Idle, "the lease was given back");
    let expected = ids(&on_one, "Patient", "eyes:missing=false").await;
    assert!(expected.contains(&"late".to_owned()), "{expected:?}");
    assert_eq!(ids(&on_two, "Patient", "eyes:missing=false").await, expected);

    // Retired at the one: at once no parameter at the other, and nothing of it stays behind.
    let mut retired = parameters().remove(0);
    retired["status"] = json!("retired");
    define(&on_one, &retired).await;
    assert_eq!(on_two.get("Patient?eyes=brown").await.status, 400);
    assert_eq!(on_two.put("Patient/later", &patient("later", "Later")).await.status, 201);
    assert!(on_two.get("SearchParameter/sp-eyes/$status").await.text().contains("inactive"));
    assert_eq!(finish(&two).await, 42);
    assert!(one.app().store.customs_now().await.expect("read").all.is_empty());
    clean(&one).await;
    // Once more, with another meaning: a number of its own, and nothing of the old values.
    define(&on_two, &defined("eyes", "Patient", "token", "Patient.gender")).await;
    assert_eq!(finish(&one).await, 42);
    assert!(ids(&on_one, "Patient", "eyes=brown").await.is_empty());
    on_one.delete("SearchParameter/sp-eyes").await;
    assert_eq!(on_two.get("Patient?eyes=brown").await.status, 400);
}

/// Writers on both servers never pause while parameters come and go: whatever the moment, each search finds what was
/// written before it.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_write_slips_past_the_job() {
    for one in both().await {
        let two = match one.app().config.database_url.starts_with("sqlite") {
            true => None,
            false => Some(one.again().await),
        };
        let on_one = one.persona("system/*.cruds").await;
        let stop = Arc::new(AtomicBool::new(false));
        let servers = [Some(&one), two.as_ref()];
        let writers = (0..4usize).map(|writer| {
            let app = servers[writer % 2].unwrap_or(&one);
            let backend = app.bearer(on_one.token());
            let stop = stop.clone();
            async move {
                let mut written = BTreeSet::new();
                for n in 0usize.. {
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    let id = format!("w{writer}-{}", n % 40);
                    let mut made = person(6);
                    made["id"] = json!(id);
                    let reply = backend.put(&format!("Patient/{id}"), &made).await;
                    assert!([200, 201].contains(&reply.status), "{}", reply.text());
                    written.insert(id);
                }
                written
            }
        });
        let work = async {
            for round in 0..3 {
                tokio::time::sleep(std::time::Duration::from_millis(200)).await;
                define(&on_one, &parameters()[5]).await;
                finish(&one).await;
                assert!(!ids(&on_one, "Patient", "nick=zoe").await.is_empty());
                if round < 2 {
                    on_one.delete("SearchParameter/sp-nick").await;
                    finish(&one).await;
                }
            }
            stop.store(true, Ordering::Relaxed);
        };
        let (all, ()) = futures_util::future::join(futures_util::future::join_all(writers), work).await;
        let expected: Vec<String> = all.into_iter().flatten().collect::<BTreeSet<_>>().into_iter().collect();
        assert!(expected.len() > 20, "{}", expected.len());
        assert_eq!(ids(&on_one, "Patient", "nick=zoe").await, expected);
        clean(&one).await;
    }
}

#[tokio::test]
async fn a_row_that_does_not_verify_stops_the_parameter_and_no_other() {
    let app = TestApp::new().await;
    let backend = app.persona("system/*.cruds").await;
    for n in 0..3 {
        backend.put(&format!("Patient/p{n:03}"), &person(n)).await;
    }
    define(&backend, &parameters()[0]).await;
    define(&backend, &defined("sort", "Organization", "string", "Organization.contact.name.family")).await;
    let raw = crate::store::db::Db::parse(&app.app().config.database_url).expect("a url");
    let bend = "update record set capsule = zeroblob(200) where rid = (select min(rid) from record where rtype = \
                (select rtype from record group by rtype order by count(*) desc limit 1))";
    let mut raw = raw.connect().await.ok().expect("connects");
    assert!(matches!(raw.run(bend, Vec::new()).await, Ok(1)));
    let mut job = Reindex::new(app.app());
    let fault = job.step().await.err().map(|error| error.kind);
    assert_eq!(fault, Some(crate::error::Kind::Tampered));
    assert_eq!(job.step().await.expect("a step"), Step::Worked { rows: 0, finished: true }, "the other one");
    assert_eq!(job.step().await.expect("a step"), Step::Stuck);
    assert_eq!(backend.get("Organization?sort=a").await.status, 200);
    assert_eq!(backend.get("Patient?eyes=brown").await.status, 400);
    assert!(job.step().await.is_err(), "and it is tried again");
}

#[tokio::test]
async fn what_cannot_be_followed_is_refused_with_its_place() {
    let app = TestApp::new().await;
    let backend = app.persona("system/*.cruds").await;
    let good = || defined("eyes", "Patient", "token", "Patient.maritalStatus");
    let with = |member: &str, value: Value| {
        let mut parameter = good();
        parameter[member] = value;
        parameter
    };
    for (parameter, place) in [
        (with("code", json!("birthdate")), "SearchParameter.code"),
        (with("code", json!("_eyes")), "SearchParameter.code"),
        (with("base", json!(["Patient", "Resource"])), "SearchParameter.base[1]"),
        (with("type", json!("composite")), "SearchParameter.component"),
        (with("type", json!("special")), "SearchParameter.type"),
        (with("expression", json!("Patient.maritalStatus.where(")), "SearchParameter.expression"),
        (with("expression", json!("Patient.colour")), "SearchParameter.expression"),
        (with("expression", json!("Practitioner.name")), "SearchParameter.expression"),
        (with("expression", json!("Patient.descendants()")), "SearchParameter.expression"),
        (with("expression", json!("%resource.name")), "SearchParameter.expression"),
        (
            with("expression", json!(format!("Patient.name.where(use = '{}')", "x".repeat(1_000)))),
            "SearchParameter.expression",
        ),
        (with("modifier", json!(["not", "exact"])), "SearchParameter.modifier[1]"),
        (with("comparator", json!(["gt"])), "SearchParameter.comparator"),
        (with("chain", json!(["name"])), "SearchParameter.chain"),
        (with("component", json!([part("gender", "gender")])), "SearchParameter.component"),
        (with("target", json!(["Patient"])), "SearchParameter.target"),
    ] {
        let reply = backend.put("SearchParameter/sp-eyes", &parameter).await;
        assert_eq!((reply.status, reply.places()), (422, vec![place.to_owned()]), "{}", reply.text());
    }
    let none = |reply: super::Reply| assert_eq!(reply.status, 422, "{}", reply.text());
    let mut bare = good();
    bare.as_object_mut().expect("members").remove("expression");
    none(backend.put("SearchParameter/sp-eyes", &bare).await);
    // Nothing of all this is there, and a draft does nothing.
    assert_eq!(backend.get("SearchParameter/sp-eyes").await.status, 404);
    define(&backend, &with("status", json!("draft"))).await;
    assert!(app.app().store.customs().all.is_empty());
    define(&backend, &good()).await;
    let mut other = good();
    other["id"] = json!("other");
    let reply = backend.put("SearchParameter/other", &other).await;
    assert_eq!((reply.status, reply.places()), (422, vec!["SearchParameter.code".to_owned()]), "{}", reply.text());
    // What says the same as the standard adds nothing; as a guide for a country publishes it.
    let same = defined("family", "Patient", "string", "Patient.name.family");
    define(&backend, &same).await;
    assert_eq!(app.app().store.customs().all.len(), 1);
    // A description is no new meaning: it stays ready.
    finish(&app).await;
    define(&backend, &with("description", json!("other words"))).await;
    assert_eq!(backend.get("Patient?eyes=M").await.status, 200);
}

#[tokio::test]
async fn what_a_mapping_forbids_is_not_indexed_and_closed_sections_stay_closed() {
    let app = TestApp::new().await;
    let backend = app.persona("system/*.cruds").await;
    define(&backend, &defined("photo-title", "Patient", "string", "Patient.photo.title")).await;
    define(&backend, &defined("place", "Patient", "string", "Patient.where(active).select(address.city)")).await;
    let mut made = patient("p1", "Site");
    made["active"] = json!(true);
    made["address"] = json!([{"city": "Basel"}]);
    made["photo"] = json!([{"title": "Face"}]);
    backend.put("Patient/p1", &made).await;
    finish(&app).await;
    let refused = backend.get("Patient?photo-title=face").await;
    assert_eq!(refused.status, 400);
    assert!(refused.text().contains("Photographs"), "{}", refused.text());
    assert!(!backend.get("metadata").await.text().contains("photo-title"));
    assert!(backend.get("SearchParameter/sp-photo-title/$status").await.text().contains("Photographs"));
    assert_eq!(ids(&backend, "Patient", "place=basel").await, ["p1"]);
    let kind = crate::fhir::definitions().type_id("Patient").expect("a type");
    let place = app.app().store.customs().ready(kind).find(|param| param.code == "place").expect("ready").id;
    let mask = |closed| crate::search::mask::Mask::of(kind, move |section| section != closed);
    use crate::mapping::Section;
    assert!(mask(Section::Contact).expect("something is closed").closes(place));
    assert!(!mask(Section::Narrative).is_some_and(|mask| mask.closes(place)));
}
