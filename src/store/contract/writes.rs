//! Writes: all or nothing, one winner, unique things, two servers on one database.

use futures_util::future::join_all;

use super::*;
use crate::store::Life;

on_both!(
    what_is_written_comes_back,
    many_who_read_at_once_get_each_their_own,
    concurrent_updates_have_one_winner,
    two_hundred_creates_of_one_id_make_one,
    a_claim_is_held_until_the_next_version,
    a_transaction_is_whole_or_nothing,
    a_transaction_sees_its_own_drafts,
    two_servers_agree_on_compartments,
    keyed_values_and_counters,
);

async fn what_is_written_comes_back(bench: Bench) {
    let sent = patient("p1", "Zwiebelfisch");
    let written = bench.write(&sent).await.expect("writes");
    assert_eq!((written[0].version, written[0].patients.as_slice()), (1, ["p1".to_owned()].as_slice()));
    let back = bench.read("Patient", "p1").await.expect("reads").expect("is there");
    let mut expected = resource(&sent);
    expected.stamp("p1", 1, NOW);
    assert_eq!(back.as_bytes(), json::write(expected.node()));
    assert!(bench.read("Patient", "p2").await.expect("reads").is_none());
    assert!(bench.read("Observation", "p1").await.expect("reads").is_none());

    // Without an entry that names the version, nothing opens.
    let grant = access::authorize::<Read>(&caller(ALL), type_id("Patient")).expect("granted");
    let Ok(Found::Current(sealed)) = bench.store.find(&grant, "p1").await else { panic!("it is there") };
    let other = bench.record(vec![(sealed.rid, 2), (Rid(1), 1)]).await.expect("appends");
    assert_eq!(kind_of(sealed.open(&other, &bench.vault).await), Some(Kind::Audit));
    bench.store.close().await;
    assert_eq!(kind_of(bench.record(Vec::new()).await), Some(Kind::Audit));
}

async fn many_who_read_at_once_get_each_their_own(bench: Bench) {
    for n in 0..12 {
        bench.write(&patient(&format!("p{n}"), &format!("Name{n}"))).await.expect("writes");
    }
    // The same id several times, absent ones, and another type with the same id, in one go.
    let ask = |n: usize| {
        let (kind, id) = (if n.is_multiple_of(7) { "Observation" } else { "Patient" }, n % 16);
        let bench = &bench;
        async move { (kind, id, bench.read(kind, &format!("p{id}")).await.expect("reads")) }
    };
    for (kind, id, back) in join_all((0..200).map(ask)).await {
        let there = kind == "Patient" && id < 12;
        assert_eq!(back.is_some(), there, "{kind}/p{id}");
        assert!(back.is_none_or(|back| back.contains(&format!("\"Name{id}\""))), "{kind}/p{id}");
    }
}

async fn concurrent_updates_have_one_winner(bench: Bench) {
    bench.write(&patient("p1", "A")).await.expect("writes");
    let beside = bench.beside().await;
    for round in 0..5 {
        let write = |n: usize| {
            let store = if n.is_multiple_of(2) { &bench.store } else { &beside };
            let text = patient("p1", &format!("Name{round}{n}"));
            async move { write(store, ALL, &text, NOW).await }
        };
        let done = join_all((0..8).map(write)).await;
        let won = done.iter().filter(|done| done.is_ok()).count();
        assert!(won >= 1);
        assert!(done.into_iter().filter_map(kind_of).all(|kind| kind == Kind::Conflict));
    }
    let version = bench.count("record_version where rid > 0").await;
    let rows = bench.ask("select ver from record", Vec::new()).await;
    assert_eq!(rows[0].int(0).ok(), Some(version), "every version is kept, none was given twice");
    assert_eq!(bench.count("audit").await, version, "one entry for each write that was kept");
}

async fn two_hundred_creates_of_one_id_make_one(bench: Bench) {
    let beside = bench.beside().await;
    let write = |n: usize| {
        let store = if n.is_multiple_of(2) { &bench.store } else { &beside };
        async move {
            // As a create does: without looking first.
            let mut tx = store.begin();
            let mut resource = resource(&patient("same", &format!("N{n}")));
            resource.stamp("same", 1, NOW);
            let grant = access::authorize::<Create>(&caller(ALL), resource.kind())?;
            tx.put(&grant, Draft { resource, version: 1, at: NOW, domain: Vec::new(), claims: Vec::new() }).await?;
            commit(tx, NOW).await
        }
    };
    let done = join_all((0..200).map(write)).await;
    assert_eq!(done.iter().filter(|done| done.is_ok()).count(), 1);
    assert!(done.into_iter().filter_map(kind_of).all(|kind| kind == Kind::Conflict));
    assert_eq!(bench.count("record").await, 1);
    assert_eq!(bench.count("compartment").await, 1);
}

async fn a_claim_is_held_until_the_next_version(bench: Bench) {
    let write = |id: &str, version: u32, claims: Vec<(&'static str, String)>| {
        let (store, text) = (bench.store.clone(), patient(id, "X"));
        let mut resource = resource(&text);
        resource.stamp(id, version, NOW);
        async move {
            let id = resource.id().expect("an id").to_owned();
            let grant = access::authorize::<Update>(&caller(ALL), resource.kind())?;
            let mut tx = store.begin();
            tx.current(&grant, &id).await?;
            tx.put(&grant, Draft { resource, version, at: NOW, domain: Vec::new(), claims }).await?;
            commit(tx, NOW).await
        }
    };
    let mrn = || vec![("mrn", "sys|7".to_owned())];
    let done = join_all((0..20).map(|n| write(Box::leak(format!("p{n}").into_boxed_str()), 1, mrn()))).await;
    let winner = done.iter().position(Result::is_ok).expect("one has it");
    assert_eq!(done.iter().filter(|done| done.is_ok()).count(), 1);
    for refused in done.into_iter().filter_map(Result::err) {
        assert_eq!((refused.kind, refused.issues[0].code), (Kind::Conflict, "duplicate"));
    }
    let winner = format!("p{winner}");
    assert!(write(&winner, 2, mrn()).await.is_ok(), "the holder keeps it");
    assert_eq!(kind_of(write("q", 1, mrn()).await), Some(Kind::Conflict));
    assert!(write(&winner, 3, Vec::new()).await.is_ok());
    assert!(write("q", 1, mrn()).await.is_ok(), "it is free again");
    bench.erase("Patient", "q").await.expect("deletes");
    assert!(write("r", 1, mrn()).await.is_ok(), "free after a deletion too");
}

async fn a_transaction_is_whole_or_nothing(bench: Bench) {
    bench.write(&patient("p0", "A")).await.expect("writes");
    let mut tx = bench.store.begin();
    for n in 0..150 {
        let text = match n % 3 {
            0 => patient(&format!("p{n}"), "A"),
            _ => observation(&format!("o{n}"), &format!("p{}", n - n % 3), "1-1", n as f64, "2020-01-01"),
        };
        put(&mut tx, ALL, &text, NOW).await.expect("puts");
    }
    let sealed = tx.seal().await.expect("seals");
    assert_eq!(sealed.written().len(), 150);
    bench.write(&patient("p0", "Meanwhile")).await.expect("writes");
    let (records, entries) = (bench.count("record").await, bench.count("audit").await);
    assert_eq!(kind_of(sealed.commit(entry(NOW)).await), Some(Kind::Conflict));
    assert_eq!((bench.count("record").await, bench.count("audit").await), (records, entries));
    assert_eq!(bench.count("record_version where rid > 0").await, 2);

    let mut tx = bench.store.begin();
    for n in 0..150 {
        put(&mut tx, ALL, &observation(&format!("o{n}"), "p0", "1-1", 1.0, "2020-01-01"), NOW).await.expect("puts");
    }
    commit(tx, NOW).await.expect("commits");
    assert_eq!(bench.count("record").await, 151);
    assert_eq!(bench.ids(ALL, "Observation", "patient=p0&_count=100").await.expect("searches").len(), 150);
}

async fn a_transaction_sees_its_own_drafts(bench: Bench) {
    let mut tx = bench.store.begin();
    put(&mut tx, ALL, &patient("p1", "One"), NOW).await.expect("puts");
    put(&mut tx, ALL, &patient("p1", "Two"), NOW).await.expect("puts again");
    let grant = access::authorize::<Delete>(&caller(ALL), type_id("Patient")).expect("granted");
    let current = tx.current(&grant, "p1").await.expect("looks").expect("is there");
    assert_eq!((current.version, current.deleted), (2, false));
    tx.delete(&grant, type_id("Patient"), "p1", 3, NOW).await.expect("deletes");
    assert!(tx.current(&grant, "p1").await.expect("looks").is_some_and(|current| current.deleted));
    assert_eq!(kind_of(tx.delete(&grant, type_id("Patient"), "p1", 4, NOW).await), Some(Kind::NotFound));
    commit(tx, NOW).await.expect("commits");
    assert_eq!(bench.count("record_version where rid > 0").await, 3);
    assert!(bench.read("Patient", "p1").await.expect("reads").is_none());
}

async fn two_servers_agree_on_compartments(bench: Bench) {
    let beside = bench.beside().await;
    // Both meet the same patients for the first time at once, in opposite order, and seal rows under their keys.
    let order = |n: usize, turned: bool| if turned { 39 - n } else { n };
    let load = |store: Store, turned: bool| async move {
        for n in (0..40).map(|n| order(n, turned)) {
            let (id, patient) = (format!("o{n}-{turned}"), format!("p{n}"));
            let text = observation(&id, &patient, "1-1", 1.0, "2020-01-01");
            write(&store, ALL, &text, NOW).await.expect("writes");
        }
    };
    tokio::join!(load(bench.store.clone(), false), load(beside.clone(), true));
    assert_eq!(bench.count("compartment").await, 40);
    assert_eq!(bench.count("(select distinct pk from record) as pks").await, 40);
    for n in 0..40 {
        let found = bench.ids(ALL, "Observation", &format!("patient=p{n}")).await.expect("searches");
        assert_eq!(found.len(), 2, "p{n}");
    }
}

async fn keyed_values_and_counters(bench: Bench) {
    let beside = bench.beside().await;
    let store = &bench.store;
    let later = Some(NOW.plus_ms(1000));
    let tries = join_all((0..40usize).map(|n| {
        let store = if n.is_multiple_of(2) { &bench.store } else { &beside };
        store.kv_insert_new("jti", b"one", b"x", later)
    }));
    let won = tries.await.into_iter().map(|done| done.expect("answers")).filter(|won| *won).count();
    assert_eq!(won, 1, "a one-time id is used once");
    assert_eq!(store.kv_get("jti", b"one").await.expect("gets").as_deref(), Some(b"x".as_slice()));
    bench.world.set_now(NOW.plus_ms(2000));
    assert_eq!(store.kv_get("jti", b"one").await.expect("gets"), None);
    assert!(store.kv_insert_new("jti", b"one", b"y", None).await.expect("answers"));
    store.kv_put("client", b"b", b"2").await.expect("puts");
    store.kv_put("client", b"a", b"1").await.expect("puts");
    store.kv_put("client", b"a", b"3").await.expect("puts");
    let listed = store.kv_list("client").await.expect("lists");
    assert_eq!(listed, [(b"a".to_vec(), b"3".to_vec()), (b"b".to_vec(), b"2".to_vec())]);
    assert!(store.kv_delete("client", b"a").await.expect("deletes"));
    assert!(!store.kv_delete("client", b"a").await.expect("deletes"), "it went once");
    assert_eq!(store.kv_list("client").await.expect("lists").len(), 1);
    store.kv_insert_new("jti", b"two", b"", later).await.expect("answers");
    assert_eq!(store.kv_expire(NOW.plus_ms(5000)).await.expect("sweeps"), 1);

    let numbers = join_all(
        (0..60usize).map(|n| if n.is_multiple_of(2) { store.next_number("mrn") } else { beside.next_number("mrn") }),
    );
    let mut numbers: Vec<u64> = numbers.await.into_iter().map(|n| n.expect("a number")).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, (1..=60).collect::<Vec<u64>>());
    assert_eq!(store.next_number("other").await.expect("a number"), 1);
    store.ping().await.expect("the database answers");

    let of = |owner: &[u8]| Life { expires: Some(NOW.plus_ms(9000)), owner: Some(owner.to_vec()) };
    store.kv_put_for("session", b"s1", b"1", of(b"ann")).await.expect("puts");
    assert!(store.kv_insert_new_for("session", b"s2", b"2", of(b"ann")).await.expect("answers"));
    store.kv_put_for("session", b"s3", b"3", of(b"bob")).await.expect("puts");
    let (one, other) = tokio::join!(
        store.kv_swap("session", b"s1", b"1", b"one", Some(NOW.plus_ms(9000))),
        store.kv_swap("session", b"s1", b"1", b"other", Some(NOW.plus_ms(9000)))
    );
    assert_ne!(one.expect("answers"), other.expect("answers"), "one of two who changed the same value");
    assert!(!store.kv_swap("session", b"none", b"1", b"2", None).await.expect("answers"));
    assert_eq!(store.kv_list_owned("session", b"ann").await.expect("lists").len(), 2);
    let page = |owner: Option<&'static [u8]>, after: &'static [u8], limit| async move {
        let page = store.kv_page("session", owner, after, limit).await.expect("lists");
        page.into_iter().map(|(key, _)| String::from_utf8(key).expect("text")).collect::<Vec<_>>()
    };
    assert_eq!(page(None, b"", 2).await, ["s1", "s2"]);
    assert_eq!(page(None, b"s2", 2).await, ["s3"]);
    assert_eq!(page(Some(b"ann"), b"s1", 2).await, ["s2"]);
    assert_eq!(page(Some(b"bob"), b"", 2).await, ["s3"]);
    let counts = [None, Some(b"ann".as_slice()), Some(b"eve".as_slice())].map(|owner| store.kv_count("session", owner));
    let counts = join_all(counts).await.into_iter().map(|count| count.expect("counts")).collect::<Vec<_>>();
    assert_eq!(counts, [3, 2, 0]);
    assert_eq!(store.kv_delete_owned("session", b"ann").await.expect("deletes"), 2);
    assert_eq!(store.kv_list_owned("session", b"ann").await.expect("lists").len(), 0);
    assert_eq!(store.kv_list_owned("session", b"bob").await.expect("lists").len(), 1);
}
