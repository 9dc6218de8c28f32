//! Versions, deletions and history, with and without a row filter.

use super::*;

on_both!(history_keeps_everything, row_filters_decide_each_version_by_itself, an_erased_patient_is_gone);

fn grant(scopes: &str, kind: &str) -> crate::access::Grant<Read> {
    access::authorize::<Read>(&caller(scopes), type_id(kind)).expect("granted")
}

async fn history_keeps_everything(bench: Bench) {
    for n in 1..=5 {
        bench.write(&patient("p1", &format!("Name{n}"))).await.expect("writes");
    }
    bench.erase("Patient", "p1").await.expect("deletes");
    assert!(matches!(bench.store.find(&grant(ALL, "Patient"), "p1").await, Ok(Found::Deleted { version: 6 })));
    bench.write(&patient("p1", "Name7")).await.expect("writes over a deletion");
    let all = grant(ALL, "Patient");
    let mut seen = Vec::new();
    let mut before = None;
    loop {
        let page = bench.store.history(&all, "p1", 3, before, Default::default()).await.expect("history");
        assert_eq!(page.total, 7);
        for sealed in &page.versions {
            let content =
                if sealed.is_deleted() { None } else { Some(bench.open_content(sealed).await.expect("opens")) };
            assert_eq!(sealed.header().id, "p1");
            seen.push((sealed.header().version, content));
        }
        before = page.next;
        if before.is_none() {
            break;
        }
    }
    assert_eq!(seen.iter().map(|(version, _)| *version).collect::<Vec<_>>(), [7, 6, 5, 4, 3, 2, 1]);
    for (version, content) in seen {
        match content {
            Some(content) => assert!(content.contains(&format!("Name{version}")), "{version}"),
            None => assert_eq!(version, 6),
        }
    }
    assert!(matches!(bench.store.find_version(&all, "p1", 6).await, Ok(Found::Deleted { version: 6 })));
    let Ok(Found::Current(third)) = bench.store.find_version(&all, "p1", 3).await else { panic!("version 3") };
    assert!(bench.open_content(&third).await.expect("opens").contains("Name3"));
    for version in [0, 8, u32::MAX] {
        assert!(matches!(bench.store.find_version(&all, "p1", version).await, Ok(Found::Absent)), "{version}");
    }
    assert_eq!(kind_of(bench.store.history(&all, "p2", 3, None, Default::default()).await), Some(Kind::NotFound));
}

async fn row_filters_decide_each_version_by_itself(bench: Bench) {
    let lab = observation("o1", "p1", "1-1", 1.0, "2020-01-01");
    let vital = lab.replace("laboratory", "vital-signs");
    for text in [&lab, &vital, &lab] {
        bench.write(text).await.expect("writes");
    }
    let only = "system/Observation.cruds?category=vital-signs";
    let narrow = grant(only, "Observation");
    assert!(bench.read_as(only, "Observation", "o1").await.expect("reads").is_none());
    assert!(matches!(bench.store.find_version(&narrow, "o1", 1).await, Ok(Found::Absent)));
    assert!(matches!(bench.store.find_version(&narrow, "o1", 2).await, Ok(Found::Current(_))));
    let page = bench.store.history(&narrow, "o1", 10, None, Default::default()).await.expect("history");
    assert_eq!(page.versions.iter().map(|sealed| sealed.header().version).collect::<Vec<_>>(), [2]);
    assert_eq!(page.total, 1);
    // Neither changed nor deleted by one who may not see what it is now.
    assert_eq!(kind_of(write(&bench.store, only, &vital, NOW).await), Some(Kind::NotFound));
    bench.write(&vital).await.expect("writes");
    assert_eq!(kind_of(write(&bench.store, only, &lab, NOW).await), Some(Kind::Forbidden));
    bench.erase("Observation", "o1").await.expect("deletes");
    assert!(matches!(bench.store.find(&narrow, "o1").await, Ok(Found::Deleted { version: 5 })));
    let labs = grant("system/Observation.r?category=laboratory", "Observation");
    assert!(matches!(bench.store.find(&labs, "o1").await, Ok(Found::Absent)));
    assert_eq!(bench.store.history(&labs, "o1", 10, None, Default::default()).await.expect("history").total, 2);
    assert_eq!(
        kind_of(
            bench
                .store
                .history(
                    &grant("system/Observation.r?status=amended", "Observation"),
                    "o1",
                    9,
                    None,
                    Default::default()
                )
                .await
        ),
        Some(Kind::NotFound)
    );
}

async fn an_erased_patient_is_gone(bench: Bench) {
    for id in ["p1", "p2"] {
        bench.write(&patient(id, "Erasable")).await.expect("writes");
        bench.write(&observation(&format!("o-{id}"), id, "1-1", 1.0, "2020-01-01")).await.expect("writes");
    }
    let rows = bench.ask("select distinct pk from record order by pk", Vec::new()).await;
    let token = super::super::compartment::Home::Patient("p1".into()).token(&bench.vault).expect("a token");
    let found = bench.store.compartments(&[token]).await.expect("finds");
    let surrogates = found.values().next().expect("surrogates");
    assert_eq!(rows.len(), 4, "names and clinical rows of a patient carry different surrogates");
    bench.vault.destroy(surrogates.demographic).await.expect("destroys");
    bench.vault.destroy(surrogates.clinical).await.expect("destroys");
    assert!(bench.read("Patient", "p1").await.expect("reads").is_none());
    assert!(bench.read("Observation", "o-p1").await.expect("reads").is_none());
    assert!(bench.read("Patient", "p2").await.expect("reads").is_some());
    assert_eq!(bench.ids(ALL, "Patient", "family=erasable").await.expect("searches"), ["p2"]);
    assert_eq!(bench.ids(ALL, "Observation", "code=1-1").await.expect("searches"), ["o-p2"]);
    assert_eq!(kind_of(bench.write(&patient("p1", "Again")).await), Some(Kind::Gone));
}
