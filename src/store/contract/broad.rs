//! Searches that many rows are candidates of: what an earlier one opened serves the next, and never for what has changed.

use super::*;
use crate::access::Search;
use crate::store::Count;
use crate::store::compartment::Home;

on_both!(
    a_search_asked_again_opens_nothing_and_sees_every_change,
    a_count_and_a_chain_go_by_the_version_that_stands,
    an_erased_patient_is_in_no_search,
    what_was_altered_is_not_shown_though_it_was_opened_before,
    nothing_is_kept_for_what_decides_about_access,
);

/// More than are fetched before it is known that there are many.
const MANY: usize = 60;

/// As long as terms of prefixes go here: whoever is called so is a candidate where a longer name is looked for.
const LONG: &str = "Papadopoulos";

async fn populate(bench: &Bench, family: &str) {
    for n in 0..MANY {
        bench.write(&patient(&format!("p{n}"), family)).await.expect("writes");
    }
}

/// How many match, and how many queries that took.
async fn found(bench: &Bench, store: &Store, query: &str) -> (usize, u64) {
    let query = parse("Patient", query);
    let grants = Grants::of(&caller(ALL), &query).expect("granted");
    let before = store.reads();
    let page = store.select(&grants, &query, None).await.expect("finds");
    for sealed in &page.matches {
        bench.open_content(sealed).await.expect("opens");
    }
    (page.matches.len(), store.reads() - before)
}

/// The count alone: no row is fetched to be shown.
async fn count(store: &Store, scopes: &str, kind: &str, query: &str) -> Result<u64> {
    let query = parse(kind, &format!("{query}&_summary=count"));
    let grants = Grants::of(&caller(scopes), &query).expect("granted");
    match store.select(&grants, &query, None).await?.total {
        Some(Count::Exact(n)) => Ok(n),
        _ => panic!("no exact count"),
    }
}

/// A second server where the database takes several.
async fn beside(bench: &Bench) -> Store {
    match bench.config.url.starts_with("postgres") {
        true => bench.beside().await,
        false => bench.store.clone(),
    }
}

async fn a_search_asked_again_opens_nothing_and_sees_every_change(bench: Bench) {
    populate(&bench, "Smith").await;
    let other = beside(&bench).await;
    let (all, exact) = ("family=smith&_count=100", "family:exact=Smith&_count=100");
    let none = "family=smith&gender=male&_count=100";
    let (_, first) = found(&bench, &bench.store, none).await;
    let (_, again) = found(&bench, &bench.store, none).await;
    assert!(again < first && again == 1, "the list alone is asked for: {first}, then {again}");
    assert_eq!(found(&bench, &other, all).await.0, MANY);
    // Changed by this server and by another one.
    bench.write(&patient("p1", "Smythe")).await.expect("writes");
    write(&other, ALL, &patient("p2", "Smithers"), NOW).await.expect("writes");
    bench.erase("Patient", "p3").await.expect("deletes");
    write(&other, ALL, &patient("new", "Smith"), NOW).await.expect("writes");
    for store in [&bench.store, &other] {
        assert_eq!(found(&bench, store, all).await.0, MANY - 1);
        assert_eq!(found(&bench, store, exact).await.0, MANY - 2);
        assert_eq!(found(&bench, store, none).await.0, 0);
    }
}

/// What is shown is decided again by what is fetched; these are not.
async fn a_count_and_a_chain_go_by_the_version_that_stands(bench: Bench) {
    populate(&bench, LONG).await;
    for n in 0..4 {
        bench.write(&observation(&format!("o{n}"), &format!("p{n}"), "1", 1.0, "2020")).await.expect("writes");
    }
    let other = beside(&bench).await;
    let women = "family=papadopoulos&gender=female";
    let named = "patient:Patient.family=papadopoulosi";
    for store in [&bench.store, &other] {
        assert_eq!(count(store, ALL, "Patient", women).await.expect("counts"), MANY as u64);
        assert_eq!(count(store, ALL, "Observation", named).await.expect("counts"), 0);
    }
    let man = patient("p1", LONG).replace("female", "male");
    bench.write(&man).await.expect("writes");
    write(&other, ALL, &patient("p2", "Papadopoulosis"), NOW).await.expect("writes");
    bench.erase("Patient", "p3").await.expect("deletes");
    for store in [&bench.store, &other] {
        assert_eq!(count(store, ALL, "Patient", women).await.expect("counts"), MANY as u64 - 2);
        assert_eq!(count(store, ALL, "Observation", named).await.expect("counts"), 1);
    }
    // Deleted and made again, it is as it was made last.
    bench.write(&patient("p3", "Papadopoulosis")).await.expect("writes");
    for store in [&bench.store, &other] {
        assert_eq!(count(store, ALL, "Patient", women).await.expect("counts"), MANY as u64 - 1);
        assert_eq!(count(store, ALL, "Observation", named).await.expect("counts"), 2);
    }
}

async fn an_erased_patient_is_in_no_search(bench: Bench) {
    populate(&bench, "Smith").await;
    let total = || async { count(&bench.store, ALL, "Patient", "family=smith").await.expect("counts") };
    assert_eq!(total().await, MANY as u64);
    let home = Home::Patient("p7".into()).token(&bench.vault).expect("a home");
    let pk = bench.store.compartments(&[home]).await.expect("looks")[&home].of(type_id("Patient"));
    bench.vault.destroy(pk).await.expect("destroys");
    assert_eq!(total().await, MANY as u64 - 1);
}

async fn what_was_altered_is_not_shown_though_it_was_opened_before(bench: Bench) {
    populate(&bench, "Smith").await;
    let all = "family=smith&_count=100";
    assert_eq!(found(&bench, &bench.store, all).await.0, MANY);
    bench.ask("update record set yr = 1901", Vec::new()).await;
    let shown = bench.select(ALL, "Patient", all, None).await;
    assert!(shown.is_err_and(|error| error.kind == Kind::Tampered));
}

/// A row that was altered shows whether its capsule is opened.
async fn nothing_is_kept_for_what_decides_about_access(bench: Bench) {
    populate(&bench, LONG).await;
    let all = "family=papadopoulos";
    assert_eq!(count(&bench.store, ALL, "Patient", all).await.expect("counts"), MANY as u64);
    bench.ask("update record set yr = 1901", Vec::new()).await;
    assert_eq!(count(&bench.store, ALL, "Patient", all).await.expect("goes by what was verified"), MANY as u64);
    let grant = access::authorize::<Search>(&caller(ALL), type_id("Patient")).expect("granted");
    let query = parse("Patient", all);
    let assigned = bench.store.patients_of(&grant, query.criteria.clone()).await;
    assert_eq!(kind_of(assigned), Some(Kind::Tampered), "a care relation");
    let rules = bench.store.consult(&grant, parse("Patient", "family=papadopoulosi").criteria, |_, _| Some(())).await;
    assert_eq!(kind_of(rules), Some(Kind::Tampered), "resources that decide");
    let filtered = count(&bench.store, "system/Patient.s?gender=female", "Patient", all).await;
    assert_eq!(kind_of(filtered), Some(Kind::Tampered), "a row filter");
    let grants = Grants::of(&caller(ALL), &query).expect("granted");
    let surveyed = bench.store.survey(&grants, &query, Arc::new(|rid, _, _: &_| Ok(rid))).await;
    assert_eq!(kind_of(surveyed), Some(Kind::Tampered), "an operation that answers from capsules");
}
