//! References hold between what was looked at and what is kept, also between two servers.

use super::*;
use crate::store::{Fate, Tx};

on_both!(
    a_target_that_goes_before_the_commit_refuses_its_referrer,
    a_referrer_that_comes_before_the_commit_refuses_the_deletion,
    referrers_are_found_wherever_the_reference_is,
    two_servers_leave_no_orphan,
);

fn group(id: &str, members: &[&str]) -> String {
    let members: Vec<String> =
        members.iter().map(|member| format!(r#"{{"entity":{{"reference":"Patient/{member}"}}}}"#)).collect();
    format!(r#"{{"resourceType":"Group","id":"{id}","type":"person","actual":true,"member":[{}]}}"#, members.join(","))
}

/// A write that refers to a patient who was found.
async fn referring(store: &Store, text: &str, patient: &str) -> Option<Tx> {
    let mut tx = store.begin();
    put(&mut tx, ALL, text, NOW).await.expect("fits");
    let rows = access::referable(&caller(ALL), type_id("Patient")).expect("rows");
    let among = [(type_id("Patient"), rows)].into();
    let absent = store.absent(&among, &[(type_id("Patient"), patient, 0)]).await.expect("looks");
    tx.refers_to(type_id("Patient"), patient, 0);
    (absent == [false]).then_some(tx)
}

/// A deletion, where nothing refers to it.
async fn deleting(store: &Store, kind: &str, id: &str) -> Option<Tx> {
    let grant = access::authorize::<Delete>(&caller(ALL), type_id(kind)).expect("a grant");
    let mut tx = store.begin();
    let version = tx.current(&grant, id).await.expect("looks")?.version + 1;
    tx.delete(&grant, type_id(kind), id, version, NOW).await.expect("is there");
    assert!(tx.fate(type_id(kind), id) == Some(Fate::Deleted));
    (tx.orphans(&caller(ALL), type_id(kind), id).await.expect("looks").count == 0).then_some(tx)
}

async fn a_target_that_goes_before_the_commit_refuses_its_referrer(bench: Bench) {
    bench.write(&patient("p", "Ann")).await.expect("writes");
    let tx = referring(&bench.store, &observation("o", "p", "1", 1.0, "2020"), "p").await.expect("it is there");
    bench.erase("Patient", "p").await.expect("deletes");
    assert_eq!(kind_of(commit(tx, NOW).await), Some(Kind::Conflict));
    assert_eq!(bench.read("Observation", "o").await.expect("looks"), None);
    assert!(referring(&bench.store, &observation("o", "p", "1", 1.0, "2020"), "p").await.is_none());
}

async fn a_referrer_that_comes_before_the_commit_refuses_the_deletion(bench: Bench) {
    bench.write(&patient("p", "Ann")).await.expect("writes");
    for referrer in [observation("o", "p", "1", 1.0, "2020"), group("g", &["p", "q"])] {
        let tx = deleting(&bench.store, "Patient", "p").await.expect("nobody refers to it");
        bench.write(&referrer).await.expect("writes");
        assert_eq!(kind_of(commit(tx, NOW).await), Some(Kind::Conflict), "{referrer}");
        assert!(bench.read("Patient", "p").await.expect("looks").is_some());
        assert!(deleting(&bench.store, "Patient", "p").await.is_none(), "{referrer}");
        let (kind, id) = if referrer.contains("Group") { ("Group", "g") } else { ("Observation", "o") };
        bench.erase(kind, id).await.expect("deletes");
    }
    let tx = deleting(&bench.store, "Patient", "p").await.expect("nobody refers to it");
    commit(tx, NOW).await.expect("deletes");
}

/// By a parameter with terms, one without, several patients, an extension, and in a contained resource.
async fn referrers_are_found_wherever_the_reference_is(bench: Bench) {
    let rest = r#""status":"final","code":{"text":"x"}"#;
    let observation = |more: &str| format!(r#"{{"resourceType":"Observation","id":"o",{rest},{more}}}"#);
    for (kind, referrer) in [
        ("Encounter", observation(r#""encounter":{"reference":"Encounter/x"}"#)),
        ("Practitioner", observation(r#""performer":[{"reference":"Practitioner/x/_history/1"}]"#)),
        ("Practitioner", observation(r#""note":[{"text":"x","authorReference":{"reference":"Practitioner/x"}}]"#)),
        ("Patient", observation(r#""subject":{"reference":"http://phial.example/fhir/Patient/x"}"#)),
        ("Patient", observation(r#""focus":[{"reference":"Patient/x"}],"subject":{"reference":"Patient/other"}"#)),
        ("Patient", observation(r#""extension":[{"url":"u","valueReference":{"reference":"Patient/x"}}]"#)),
        ("Patient", group("o", &["x", "other"])),
        (
            "Location",
            observation(r#""contained":[{"resourceType":"Location","id":"l","partOf":{"reference":"Location/x"}}]"#),
        ),
    ] {
        let target = match kind {
            "Patient" => patient("x", "Xia"),
            "Encounter" => r#"{"resourceType":"Encounter","id":"x","status":"finished","class":{"code":"AMB"}}"#.into(),
            _ => format!(r#"{{"resourceType":"{kind}","id":"x"}}"#),
        };
        bench.write(&target).await.expect("writes");
        assert!(deleting(&bench.store, kind, "x").await.is_some(), "{kind} is free");
        bench.write(&referrer).await.expect("writes");
        assert!(deleting(&bench.store, kind, "x").await.is_none(), "{referrer}");
        let of = if referrer.contains("Group") { "Group" } else { "Observation" };
        bench.erase(of, "o").await.expect("deletes");
        let tx = deleting(&bench.store, kind, "x").await.expect("it is free again");
        commit(tx, NOW).await.expect("deletes");
    }
    let report = bench.store.check_index("urn:test:mrn").await.expect("checks");
    assert!(report.is_clean(), "{report}");
}

async fn two_servers_leave_no_orphan(bench: Bench) {
    // SQLite has one server.
    let other = if bench.config.url.starts_with("postgres") { bench.beside().await } else { bench.store.clone() };
    for round in 0..40 {
        let (target, referrer) = (format!("p{round}"), format!("o{round}"));
        bench.write(&patient(&target, "Ann")).await.expect("writes");
        let text = observation(&referrer, &target, "1", 1.0, "2020");
        let refer = referring(&bench.store, &text, &target).await.expect("it is there");
        let delete = deleting(&other, "Patient", &target).await.expect("nobody refers to it");
        // Each is first in its turn, also within one commit.
        let (written, deleted) = if round % 2 == 0 {
            tokio::join!(tokio::spawn(commit(refer, NOW)), tokio::spawn(commit(delete, NOW)))
        } else {
            let (deleted, written) = tokio::join!(tokio::spawn(commit(delete, NOW)), tokio::spawn(commit(refer, NOW)));
            (written, deleted)
        };
        let (written, deleted) = (written.expect("no panic"), deleted.expect("no panic"));
        assert!(written.is_ok() != deleted.is_ok(), "round {round}: one of them is kept");
    }
    bench.store.close().await;
}

/// On PostgreSQL a deletion waits for whoever may be about to refer to the resource.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deletion_waits_for_writes_that_are_under_way() {
    let bench = Bench::postgres().await;
    bench.write(&patient("p", "Ann")).await.expect("writes");
    let key = crate::store::refer::key(&bench.store.id_token(type_id("Patient"), "p"));
    let mut elsewhere = bench.raw().await;
    elsewhere.begin().await.ok().expect("begins");
    elsewhere.rows("select pg_advisory_xact_lock_shared($1)", vec![Param::Int(key)]).await.ok().expect("locks");
    // Others that refer to it go on.
    let refer = referring(&bench.store, &observation("o", "p", "1", 1.0, "2020"), "p").await.expect("it is there");
    commit(refer, NOW).await.expect("shared locks do not exclude each other");
    bench.erase("Observation", "o").await.expect("deletes");
    let delete = deleting(&bench.store, "Patient", "p").await.expect("nobody refers to it");
    let mut deletion = tokio::spawn(commit(delete, NOW));
    let waited = tokio::time::timeout(std::time::Duration::from_millis(150), &mut deletion).await;
    assert!(waited.is_err(), "the deletion did not wait");
    elsewhere.commit().await.ok().expect("commits");
    deletion.await.expect("no panic").expect("deletes");
}
