//! Search against brute force: whatever the database narrows and in whatever pages the answer comes, it is what the
//! matcher alone finds over all resources, under the same row filters.

use std::collections::HashSet;

use super::*;
use crate::access::Rows;
use crate::search::matcher::sort_key;
use crate::search::query::{Criterion, SortBy, Take, pending, supply};
use crate::search::values::values;
use crate::search::{Matcher, View, capsule};
use crate::store::Count;

on_both!(
    every_query_gives_what_brute_force_gives,
    pages_are_stable_while_rows_come_and_go,
    pages_add_up_under_random_schedules_of_writes,
    includes_follow_references_within_the_grants,
    too_many_candidates_are_refused_with_advice,
    the_rows_of_a_page_are_found_by_their_ids,
    few_and_many_terms_narrow_alike,
);

const PATIENTS: usize = 40;
const FAMILIES: [&str; 5] = ["Smith", "Smithers", "Jones", "Müller", "O'Neil"];
const CODES: [&str; 4] = ["1-1", "2-2", "3-3", "4-4"];

/// A small population in which most values are shared by several resources.
fn population() -> Vec<String> {
    let mut all = Vec::new();
    // A fixed sequence that looks random, the same in every run.
    let mut state = 12345u64;
    let mut next = move |below: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % below
    };
    for n in 0..PATIENTS {
        all.push(patient(&format!("p{n}"), FAMILIES[next(FAMILIES.len())]));
        for m in 0..next(6) {
            let (code, year, day) = (CODES[next(CODES.len())], 2018 + next(6), 1 + next(28));
            let text = observation(
                &format!("o{n}-{m}"),
                &format!("p{n}"),
                code,
                next(40) as f64 / 2.0,
                &format!("{year}-0{}-{day:02}", 1 + next(9)),
            );
            all.push(match next(3) {
                0 => text.replace("laboratory", "vital-signs"),
                1 => text.replace("\"final\"", "\"amended\""),
                _ => text,
            });
        }
    }
    for n in 0..6 {
        let members: Vec<String> =
            (0..=n).map(|m| format!(r#"{{"entity":{{"reference":"Patient/p{}"}}}}"#, m * 3)).collect();
        all.push(format!(
            r#"{{"resourceType":"Group","id":"g{n}","type":"person","actual":true,"member":[{}]}}"#,
            members.join(",")
        ));
        // Of several patients: a surrogate of its own.
        all.push(format!(
            r#"{{"resourceType":"Appointment","id":"a{n}","status":"booked","participant":[{{"actor":{{"reference":"Patient/p{n}"}},"status":"accepted"}},{{"actor":{{"reference":"Patient/p{}"}},"status":"accepted"}}]}}"#,
            n + 1
        ));
    }
    all
}

async fn load(bench: &Bench, all: &[String]) {
    let mut tx = bench.store.begin();
    for text in all {
        put(&mut tx, ALL, text, NOW).await.expect("puts");
    }
    commit(tx, NOW).await.expect("commits");
    // Rows that moved on and rows that went: neither may be found as it was.
    bench.write(&observation("o-moved", "p0", "1-1", 1.0, "2019-01-01")).await.expect("writes");
    bench.write(&observation("o-moved", "p1", "2-2", 2.0, "2020-01-01")).await.expect("writes");
    bench.write(&observation("o-gone", "p0", "1-1", 1.0, "2019-01-01")).await.expect("writes");
    bench.erase("Observation", "o-gone").await.expect("deletes");
}

/// All resources as capsules, searched by the matcher alone.
struct Oracle(Vec<(TypeId, Vec<u8>)>);

impl Oracle {
    fn new(all: &[String]) -> Oracle {
        let moved = observation("o-moved", "p1", "2-2", 2.0, "2020-01-01");
        let capsule = |text: &String| {
            let resource = resource(text);
            let version = if resource.id() == Some("o-moved") { 2 } else { 1 };
            let values = values(&resource, version, NOW, BASE).expect("values");
            (resource.kind(), capsule::encode(&values))
        };
        Oracle(all.iter().chain([&moved]).map(capsule).collect())
    }

    fn matching(&self, kind: TypeId, mut criteria: Vec<Criterion>, scopes: &str) -> Vec<View<'_>> {
        match access::authorize::<access::Search>(&caller(scopes), kind).map(|grant| grant.rows().clone()) {
            Ok(Rows::AnyOf(lists)) => criteria.push(Criterion::AnyOf(lists)),
            Ok(Rows::All) => {}
            Err(_) => return Vec::new(),
        }
        while let Some(inner) = pending(&criteria) {
            let take = inner.take;
            let found = self.matching(inner.kind, vec![inner.criterion.clone()], scopes);
            let ids: HashSet<String> = found
                .iter()
                .flat_map(|view| match take {
                    Take::Id => vec![view.id().to_owned()],
                    Take::References { param, of } => {
                        let to = view.references(Some(param)).expect("references");
                        to.into_iter().filter(|(kind, _)| *kind == of).map(|(_, id)| id).collect()
                    }
                })
                .collect();
            assert!(supply(&mut criteria, ids));
        }
        let matcher = Matcher::new(criteria).expect("resolved");
        let views = self.0.iter().filter(|(of, _)| *of == kind).map(|(_, bytes)| View::new(bytes).expect("a capsule"));
        views.filter(|view| matcher.matches(view).expect("decides")).collect()
    }
}

async fn compare(bench: &Bench, oracle: &Oracle, scopes: &str, kind: &str, text: &str) -> usize {
    let query = parse(kind, text);
    let expected = oracle.matching(type_id(kind), query.criteria.clone(), scopes);
    let mut wanted: Vec<String> = expected.iter().map(|view| view.id().to_owned()).collect();
    wanted.sort();
    let found = bench.ids(scopes, kind, text).await.unwrap_or_else(|error| panic!("{kind}?{text}: {error:?}"));
    if !query.sort.is_empty() {
        check_order(&query.sort, &expected, &found, text);
    }
    let mut sorted = found.clone();
    sorted.sort();
    assert_eq!(sorted, wanted, "{kind}?{text} as {scopes}");
    let counted = bench.select(scopes, kind, &format!("{text}&_total=accurate&_count=3"), None).await.expect("counts");
    assert_eq!(counted.total, Some(Count::Exact(wanted.len() as u64)), "{kind}?{text}: total");
    assert_eq!(counted.positions.len(), counted.matches.len());
    let only = bench.select(scopes, kind, &format!("{text}&_summary=count"), None).await.expect("counts");
    assert_eq!((only.total, only.matches.len()), (Some(Count::Exact(wanted.len() as u64)), 0));
    wanted.len()
}

fn check_order(sort: &[SortBy], expected: &[View<'_>], found: &[String], text: &str) {
    let key = |id: &String| {
        let view = expected.iter().find(|view| view.id() == id).expect("was expected");
        sort_key(view, sort).expect("a key")
    };
    let keys: Vec<_> = found.iter().map(key).collect();
    assert!(keys.is_sorted(), "{text}: out of order");
}

async fn every_query_gives_what_brute_force_gives(bench: Bench) {
    let all = population();
    load(&bench, &all).await;
    let oracle = Oracle::new(&all);
    let mut hits = 0;
    for (kind, text) in [
        ("Patient", ""),
        ("Patient", "family=smith"),
        ("Patient", "family=mull"),
        ("Patient", "family:exact=Smith"),
        ("Patient", "family:contains=ith"),
        ("Patient", "name=smith,jones&gender=female"),
        ("Patient", "birthdate=ge1970-03-05"),
        ("Patient", "_id=p1,p2,p3,nobody"),
        ("Patient", "_id=p1&family=zzz"),
        ("Patient", "_sort=-birthdate,family"),
        ("Patient", "_sort=_lastUpdated"),
        ("Patient", "_has:Observation:patient:code=2-2"),
        ("Patient", "_has:Observation:patient:code=2-2&_has:Observation:patient:status=amended"),
        ("Patient", "_has:Observation:patient:code=none"),
        ("Observation", "code=1-1"),
        ("Observation", "code=http://loinc.org|1-1,2-2"),
        ("Observation", "code=1-1&category=vital-signs"),
        ("Observation", "patient=p0"),
        ("Observation", "patient=p0,p1,p2&code=2-2"),
        ("Observation", "subject=Patient/p3&_sort=-date"),
        ("Observation", "patient=nobody"),
        ("Observation", "date=2020"),
        ("Observation", "date=ge2019-06&date=lt2021"),
        ("Observation", "date=gt2030"),
        ("Observation", "status:not=final"),
        ("Observation", "value-quantity=gt10&_sort=value-quantity"),
        ("Observation", "value-quantity=lt5|http://unitsofmeasure.org|mg"),
        ("Observation", "code-value-quantity=1-1$gt5"),
        ("Observation", "subject:Patient.family=smith"),
        ("Observation", "subject.name=jones&code=3-3"),
        ("Observation", "patient.family=müller&_sort=date,code"),
        ("Observation", "encounter:missing=true&status=amended"),
        ("Observation", "_lastUpdated=lt2000"),
        ("Appointment", "patient=p2"),
        ("Appointment", "patient=p2,p5&status=booked"),
        ("Appointment", "actor:Patient.family=smith"),
        ("Group", "member=Patient/p3"),
    ] {
        for scopes in [
            ALL,
            "system/Patient.rs system/Appointment.rs system/Group.rs system/Observation.rs?category=laboratory",
            "system/Patient.s?gender=female system/Appointment.s system/Group.s system/Observation.s?status=amended system/Observation.s?code=1-1",
        ] {
            hits += match Grants::of(&caller(scopes), &parse(kind, text)) {
                Ok(_) => compare(&bench, &oracle, scopes, kind, text).await,
                Err(error) => panic!("{text} as {scopes}: {error}"),
            };
        }
    }
    assert!(hits > 1000, "the queries must find something: {hits}");
    let estimate = bench.select(ALL, "Observation", "_total=estimate&_count=3", None).await.expect("estimates");
    let exact = oracle.matching(type_id("Observation"), Vec::new(), ALL).len() as u64;
    assert!(matches!(estimate.total, Some(Count::Exact(n) | Count::Estimate(n)) if n == exact), "{:?}", estimate.total);
}

/// Schedules of writes between the pages of a search; `PHIAL_SCHEDULES` makes it more.
const SCHEDULES: usize = 250;

/// Whatever is written between pages: what matched throughout and was not touched comes exactly once and in order, what
/// never matched never, and without a `_sort` (or where the sort key stays) nothing comes twice.
async fn pages_add_up_under_random_schedules_of_writes(bench: Bench) {
    let schedules = std::env::var("PHIAL_SCHEDULES").ok().and_then(|text| text.parse().ok()).unwrap_or(SCHEDULES);
    let mut state = 99u64;
    let mut next = move |below: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % below
    };
    let mut tx = bench.store.begin();
    for n in 0..24 {
        // "still" rows are never touched, "moving" ones all the time; the others never match.
        let (name, code) = [("still", "1-1"), ("moving", "1-1"), ("other", "9-9")][n % 3];
        let text = observation(&format!("{name}{n}"), "p1", code, (n % 5) as f64, "2020-01-01");
        put(&mut tx, ALL, &text, NOW).await.expect("puts");
    }
    commit(tx, NOW).await.expect("commits");
    for schedule in 0..schedules {
        let sort = ["", "&_sort=value-quantity", "&_sort=-value-quantity,_id", "&_sort=_id"][next(4)];
        let query = format!("{}&_count={}{sort}", ["code=1-1", "patient=p1&code=1-1"][next(2)], 1 + next(6));
        let (mut seen, mut after) = (Vec::new(), None);
        loop {
            let page = bench.select(ALL, "Observation", &query, after).await.expect("searches");
            seen.extend(page.matches.iter().map(|sealed| sealed.header.id.clone()));
            after = page.next;
            if after.is_none() {
                break;
            }
            if next(2) == 0 {
                let id = format!("moving{}", 1 + 3 * next(10));
                match next(3) {
                    0 if bench.read("Observation", &id).await.expect("reads").is_some() => {
                        bench.erase("Observation", &id).await.expect("deletes");
                    }
                    1 => {
                        let text = observation(&id, "p1", "9-9", 1.0, "2021-01-01");
                        bench.write(&text).await.expect("writes");
                    }
                    _ => {
                        let text = observation(&id, "p1", "1-1", next(5) as f64, "2020-01-01");
                        bench.write(&text).await.expect("writes");
                    }
                }
            }
        }
        let still: Vec<&String> = seen.iter().filter(|id| id.starts_with("still")).collect();
        let distinct: HashSet<&String> = seen.iter().collect();
        assert_eq!(still.len(), 8, "schedule {schedule}, {query}: {seen:?}");
        assert_eq!(still.iter().collect::<HashSet<_>>().len(), 8, "schedule {schedule}, {query}: {seen:?}");
        assert!(!seen.iter().any(|id| id.starts_with("other")), "schedule {schedule}, {query}: {seen:?}");
        if !sort.contains("value") {
            assert_eq!(distinct.len(), seen.len(), "schedule {schedule}, {query}: {seen:?}");
        }
        if sort == "&_sort=_id" {
            assert!(seen.is_sorted(), "schedule {schedule}, {query}: {seen:?}");
        }
    }
}

async fn pages_are_stable_while_rows_come_and_go(bench: Bench) {
    for n in 0..60 {
        bench.write(&observation(&format!("o{n}"), "p1", "1-1", f64::from(n), "2020-01-01")).await.expect("writes");
    }
    for query in ["patient=p1&_count=10", "code=1-1&_count=10&_sort=value-quantity", "_count=10"] {
        let (mut seen, mut after, mut page) = (Vec::new(), None, 0);
        loop {
            let selection = bench.select(ALL, "Observation", query, after).await.expect("searches");
            seen.extend(selection.matches.iter().map(|sealed| sealed.header.id.clone()));
            // Between the pages: new rows, one deleted and brought back, one rewritten.
            let name = format!("x{page}-{}", query.len());
            bench.write(&observation(&name, "p1", "1-1", 500.0, "2020-01-01")).await.expect("writes");
            bench.erase("Observation", "o7").await.expect("deletes");
            bench.write(&observation("o7", "p1", "1-1", 7.0, "2020-01-01")).await.expect("writes");
            page += 1;
            after = selection.next;
            if after.is_none() {
                break;
            }
        }
        let old: Vec<&String> = seen.iter().filter(|id| id.starts_with('o')).collect();
        assert_eq!(old.len(), 60, "{query}: each row that was there throughout comes once");
        assert_eq!(seen.iter().collect::<HashSet<_>>().len(), seen.len(), "{query}: nothing twice");
    }
}

async fn includes_follow_references_within_the_grants(bench: Bench) {
    let all = population();
    load(&bench, &all).await;
    let ids = |selection: &Selection| {
        let mut ids: Vec<String> = selection.included.iter().map(|sealed| sealed.header.id.clone()).collect();
        ids.sort();
        ids
    };
    let query = "_id=o-moved&_include=Observation:subject&_include=Observation:patient";
    let both = bench.select(ALL, "Observation", query, None).await.expect("searches");
    assert_eq!((both.matches.len(), ids(&both)), (1, vec!["p1".to_owned()]));
    assert!(both.notes.is_empty());

    let back = bench.select(ALL, "Patient", "_id=p1&_revinclude=Observation:subject", None).await.expect("searches");
    let mut expected = bench.ids(ALL, "Observation", "patient=p1&_count=100").await.expect("searches");
    expected.sort();
    assert!(expected.contains(&"o-moved".to_owned()));
    assert_eq!(ids(&back), expected);

    // Only what the grant of the included type lets through; a type without a grant is left out and said to be.
    let few = "system/Patient.rs system/Observation.rs?status=amended";
    let back =
        bench.select(few, "Patient", "_revinclude=Observation:subject&_count=100", None).await.expect("searches");
    let mut expected = bench.ids(ALL, "Observation", "status=amended&_count=100").await.expect("searches");
    expected.sort();
    assert!(!expected.is_empty());
    assert_eq!(ids(&back), expected);
    let none =
        bench.select("system/Observation.rs", "Observation", "_include=*&_count=100", None).await.expect("searches");
    assert!(none.included.is_empty());
    assert!(none.notes.iter().any(|note| note.diagnostics.contains("Patient")));

    // Round by round: the appointments of a patient, then the other patients in them.
    let query = "_id=p1&_revinclude=Appointment:patient&_include:iterate=Appointment:patient";
    let rounds = bench.select(ALL, "Patient", query, None).await.expect("searches");
    assert_eq!(ids(&rounds), ["a0", "a1", "p0", "p2"]);
}

async fn too_many_candidates_are_refused_with_advice(bench: Bench) {
    let mut tx = bench.store.begin();
    for n in 0..1200 {
        put(&mut tx, ALL, &observation(&format!("o{n}"), &format!("p{}", n % 10), "1-1", 1.0, "2020-01-01"), NOW)
            .await
            .expect("puts");
    }
    commit(tx, NOW).await.expect("commits");
    let open = async |candidates_max| {
        let config = StoreConfig { candidates_max, ..bench.config.clone() };
        Store::open(config, bench.vault.clone(), bench.world.clone()).await.expect("opens")
    };
    let select_in = async |store: &Store, kind: &str, text: &str| {
        let query = parse(kind, text);
        store.select(&Grants::of(&caller(ALL), &query).expect("granted"), &query, None).await
    };
    let store = open(1000).await;
    let select = async |kind: &str, text: &str| select_in(&store, kind, text).await;
    for text in ["code=1-1&_sort=date", "_sort=date", "_total=accurate", "code=1-1&_summary=count", "status=amended"] {
        let refused = select("Observation", text).await.err().unwrap_or_else(|| panic!("{text}"));
        assert_eq!(refused.kind, Kind::TooCostly, "{text}");
        assert!(refused.to_string().contains("more than 1000"), "{text}");
    }
    // A page in the order of the rows needs to look at few of them.
    assert_eq!(select("Observation", "code=1-1&_count=50").await.expect("searches").matches.len(), 50);
    assert_eq!(select("Observation", "patient=p3&_sort=date&_count=500").await.expect("searches").matches.len(), 120);
    let estimate = select("Observation", "_total=estimate&_count=5").await.expect("searches");
    assert_eq!(estimate.total, Some(Count::Estimate(1200)));
    // Who may not see every row is told nothing that was scaled from them.
    let few = bench.select("system/Observation.s?status:not=amended", "Observation", "_total=estimate&_count=5", None);
    assert_eq!(few.await.expect("searches").total, None);
    // Then an inner search may hand on 1,000 ids: ten patients are fine, 1,200 observations are not.
    let store = open(20_000).await;
    let of_patients = select_in(&store, "Patient", "_has:Observation:patient:code=1-1").await;
    assert_eq!(kind_of(of_patients), None);
    let chain = "result:Observation.code=1-1";
    let refused = select_in(&store, "DiagnosticReport", chain).await.err().expect("too many");
    assert!(refused.kind == Kind::TooCostly && refused.to_string().contains("finds more than 1000"), "{refused}");
    let store = open(200_000).await;
    assert_eq!(select_in(&store, "DiagnosticReport", chain).await.expect("searches").matches.len(), 0);
}

/// Not by going through all rows of the type, which is what SQLite makes of it when left to itself.
async fn the_rows_of_a_page_are_found_by_their_ids(bench: Bench) {
    let db = &bench.store.inner.db;
    let (explain, index) = match db.is_postgres() {
        true => ("explain", "record_pkey"),
        false => ("explain query plan", "SEARCH r USING INTEGER PRIMARY KEY"),
    };
    let sql = format!("{explain} {}", crate::store::read::by_rids(db));
    let params = vec![Param::Int(1), Param::List((1..=20).collect())];
    let rows = bench.store.inner.lookups.rows(&sql, params).await.expect("a plan");
    let text = |row: &Row| row.text(if db.is_postgres() { 0 } else { 3 }).ok().expect("a text").to_owned();
    let plan: Vec<String> = rows.iter().map(text).collect();
    assert!(plan.iter().any(|line| line.contains(index)), "{plan:#?}");
}

/// Within a compartment a few terms are looked for in the row itself, more of them in the index.
async fn few_and_many_terms_narrow_alike(bench: Bench) {
    let all = population();
    load(&bench, &all).await;
    let patients = (0..PATIENTS).map(|n| format!("Patient/p{n}")).collect::<Vec<_>>().join(",");
    let codes: Vec<String> = CODES.iter().map(|code| format!("http://loinc.org|{code}")).collect();
    let other: Vec<String> = (0..20).map(|n| format!("http://loinc.org|9-{n}")).collect();
    for code in &codes {
        let wide = [code.as_str(), &other.join(",")].join(",");
        let find = async |codes: &str| {
            let query = format!("patient={patients}&code={codes}&_count=200");
            bench.select(ALL, "Observation", &query, None).await.expect("finds")
        };
        let (few, many) = (find(code).await, find(&wide).await);
        let ids = |page: &Selection| page.matches.iter().map(|one| one.header.id.clone()).collect::<Vec<_>>();
        assert!(!few.matches.is_empty());
        assert_eq!(ids(&few), ids(&many));
        // Both let through what matches and nothing else.
        assert_eq!((few.examined, many.examined), (few.matches.len(), many.matches.len()));
    }
}
