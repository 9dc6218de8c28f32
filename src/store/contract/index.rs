//! What searches go by lies in clear, and must not be altered unseen: years, terms, postings.

use super::*;
use crate::store::IndexFlaw;

on_both!(
    rows_whose_year_or_terms_were_altered_do_not_open,
    taken_postings_and_records_are_named,
    what_is_written_changed_and_deleted_checks_out,
    what_was_altered_beside_the_records_is_named,
    a_patient_whose_compartment_was_taken_away_is_no_new_one,
);

async fn populate(bench: &Bench) {
    bench.write(&patient("p1", "Papadopoulos")).await.expect("writes");
    bench.write(&observation("o1", "p1", "1-1", 5.0, "2020-01-01")).await.expect("writes");
}

/// Every way to the resource: read, a search that goes by none of what was altered, an update.
async fn refused_everywhere(bench: &Bench, what: &str) {
    assert_eq!(kind_of(bench.read("Observation", "o1").await), Some(Kind::Tampered), "{what}");
    assert_eq!(kind_of(bench.ids(ALL, "Observation", "patient=p1").await), Some(Kind::Tampered), "{what}");
    let update = observation("o1", "p1", "2-2", 6.0, "2020-01-01");
    assert_eq!(kind_of(bench.write(&update).await), Some(Kind::Tampered), "{what}");
    let report = bench.store.check_index("urn:test:mrn").await.expect("a report");
    assert_eq!(report.counts.get(&IndexFlaw::Altered), Some(&1), "{what}: {report}");
}

async fn rows_whose_year_or_terms_were_altered_do_not_open(bench: Bench) {
    populate(&bench).await;
    let row = bench.ask("select rid, yr, terms from record where yr is not null", vec![]).await.remove(0);
    let rid = Param::Int(row.int(0).ok().expect("rid"));
    let year = row.int(1).ok().expect("a year");
    let terms = row.ints(2).ok().expect("terms");
    assert!(year == 2020 && terms.len() > 1);
    let mut raw = bench.raw().await;
    for yr in [None, Some(2019), Some(2021)] {
        let sql = "update record set yr = $1 where rid = $2";
        assert!(matches!(raw.run(sql, vec![Param::OptInt(yr), rid.clone()]).await, Ok(1)));
        refused_everywhere(&bench, &format!("{yr:?}")).await;
        assert!(matches!(raw.run(sql, vec![Param::OptInt(Some(year)), rid.clone()]).await, Ok(1)));
    }
    let swapped: Vec<i64> = terms.iter().rev().copied().collect();
    let more: Vec<i64> = terms.iter().copied().chain([i64::MAX]).collect();
    for altered in [Vec::new(), terms[1..].to_vec(), swapped, more] {
        let sql = "update record set terms = $1 where rid = $2";
        assert!(matches!(raw.run(sql, vec![Param::Ints(altered.clone()), rid.clone()]).await, Ok(1)));
        refused_everywhere(&bench, &format!("{} terms", altered.len())).await;
        assert!(matches!(raw.run(sql, vec![Param::Ints(terms.clone()), rid.clone()]).await, Ok(1)));
    }
    raw.close().await;
    assert_eq!(bench.ids(ALL, "Observation", "code=1-1&date=2020").await.expect("searches"), ["o1"]);
    assert!(bench.store.check_index("urn:test:mrn").await.expect("a report").is_clean());
}

async fn taken_postings_and_records_are_named(bench: Bench) {
    populate(&bench).await;
    let mut raw = bench.raw().await;
    if matches!(raw, Conn::Sqlite(_)) {
        let one = "delete from posting where rid = (select rid from record where yr is not null) \
                   and term = (select max(term) from posting p where p.rid = posting.rid)";
        assert!(matches!(raw.run(one, vec![]).await, Ok(1)));
        let report = bench.store.check_index("urn:test:mrn").await.expect("a report");
        assert_eq!(report.counts.get(&IndexFlaw::Unposted), Some(&1), "{report}");
        assert_eq!(report.counts.len(), 1);
    }
    let hidden = "update record set rtype = rtype - 1 where yr is not null";
    assert!(matches!(raw.run(hidden, vec![]).await, Ok(1)));
    let report = bench.store.check_index("urn:test:mrn").await.expect("a report");
    assert_eq!(report.counts.get(&IndexFlaw::Altered), Some(&1), "{report}");
    assert!(matches!(raw.run("delete from record where yr is not null", vec![]).await, Ok(1)));
    let report = bench.store.check_index("urn:test:mrn").await.expect("a report");
    assert_eq!(report.counts.get(&IndexFlaw::Missing), Some(&1), "{report}");
    assert!(report.to_string().contains("versions without their record"));
    raw.close().await;
}

async fn what_is_written_changed_and_deleted_checks_out(bench: Bench) {
    populate(&bench).await;
    bench.write(&observation("o1", "p1", "2-2", 5.0, "2021-01-01")).await.expect("writes");
    bench.write(&observation("o2", "p1", "2-2", 5.0, "2021-01-01")).await.expect("writes");
    bench.erase("Observation", "o2").await.expect("deletes");
    let report = bench.store.check_index("urn:test:mrn").await.expect("a report");
    assert!(report.is_clean(), "{report}");
    assert_eq!((report.resources, report.erased), (2, 0));
}

fn numbered(id: &str) -> String {
    let identifier = format!(r#""identifier":[{{"system":"urn:test:mrn","value":"M-{id}"}}],"name""#);
    patient(id, "Papadopoulos").replacen(r#""name""#, &identifier, 1)
}

async fn what_was_altered_beside_the_records_is_named(bench: Bench) {
    use IndexFlaw::{Astray, Claim, Domain, Keyless, Line, Unclaimed, Unlogged};
    for id in ["p1", "p2"] {
        bench.write(&numbered(id)).await.expect("writes");
        bench.write(&observation(&format!("o-{id}"), id, "1-1", 5.0, "2020-01-01")).await.expect("writes");
    }
    let mut raw = bench.raw().await;
    for table in ["compartment", "claim", "patient"] {
        assert!(raw.run(&format!("create table kept_{table} as select * from {table}"), vec![]).await.is_ok());
    }
    let cases: [(&str, &str, &[IndexFlaw]); 9] = [
        ("compartment", "delete from compartment", &[Astray]),
        (
            "compartment",
            "delete from compartment where token = (select token from kept_compartment limit 1)",
            &[Astray],
        ),
        (
            "compartment",
            "update compartment set sealed = (select sealed from kept_compartment k where k.token <> compartment.token)",
            &[Astray],
        ),
        ("claim", "delete from claim where rid = (select max(rid) from claim)", &[Unclaimed]),
        ("claim", "update claim set rid = rid - 1 where rid = (select max(rid) from claim)", &[Unclaimed, Claim]),
        ("patient", "delete from patient where rid = (select max(rid) from patient)", &[Domain]),
        ("patient", "update patient set ver = ver + 1 where rid = (select max(rid) from patient)", &[Domain]),
        (
            "patient",
            "update patient set sealed = (select sealed from kept_patient k where k.rid <> patient.rid)",
            &[Domain],
        ),
        ("patient", "insert into patient select 77, pk, ver, sealed from kept_patient limit 1", &[Domain]),
    ];
    let clean = bench.store.check_index("urn:test:mrn").await.expect("a report");
    assert!(clean.is_clean() && clean.resources == 4, "{clean}");
    for (table, sql, expected) in cases {
        assert!(raw.run(sql, vec![]).await.is_ok_and(|rows| rows > 0), "{sql}");
        let report = bench.store.check_index("urn:test:mrn").await.expect("a report");
        assert_eq!(report.counts.keys().copied().collect::<Vec<_>>(), expected, "{sql}: {report}");
        for back in [format!("delete from {table}"), format!("insert into {table} select * from kept_{table}")] {
            assert!(raw.run(&back, vec![]).await.is_ok());
        }
    }
    let report = bench.store.check_index("urn:test:mrn").await.expect("a report");
    assert!(report.is_clean(), "everything was put back: {report}");
    for (sql, expected) in [
        ("delete from version_log where n = (select max(n) from version_log)", &[Unlogged][..]),
        ("update version_log set rtype = rtype + 1 where n = (select max(n) from version_log)", &[Unlogged, Line]),
        ("update record set pk = 5 where yr is not null", &[Unlogged, Line, IndexFlaw::Altered]),
        ("update record_version set pk = 5 where rid in (select rid from record where yr is not null)", &[Keyless]),
    ] {
        assert!(raw.run(sql, vec![]).await.is_ok_and(|rows| rows > 0), "{sql}");
        let report = bench.store.check_index("urn:test:mrn").await.expect("a report");
        assert!(expected.iter().all(|flaw| report.counts.contains_key(flaw)), "{sql}: {report}");
    }
    raw.close().await;
}

/// What searches within the patient find is gone with it, and what is written would belong to a second patient.
async fn a_patient_whose_compartment_was_taken_away_is_no_new_one(bench: Bench) {
    populate(&bench).await;
    let mut raw = bench.raw().await;
    assert!(raw.run("delete from compartment", vec![]).await.is_ok_and(|rows| rows > 0));
    raw.close().await;
    // A server that does not have it in memory.
    let beside = bench.beside().await;
    let query = parse("Observation", "patient=p1");
    let grants = Grants::of(&caller(ALL), &query).expect("granted");
    assert_eq!(kind_of(beside.select(&grants, &query, None).await), Some(Kind::Tampered));
    let text = observation("o2", "p1", "1-1", 1.0, "2020-01-01");
    assert_eq!(kind_of(write(&beside, ALL, &text, NOW).await), Some(Kind::Tampered));
    assert_eq!(kind_of(beside.erasing("p1").await), Some(Kind::Tampered));
    let nobody = parse("Observation", "patient=nobody");
    assert!(beside.select(&grants, &nobody, None).await.is_ok_and(|page| page.matches.is_empty()));
    write(&beside, ALL, &observation("o3", "later", "1-1", 1.0, "2020-01-01"), NOW).await.expect("a patient to come");
    beside.close().await;
}
