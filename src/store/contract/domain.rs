//! Domain rows: sealed, in the same transaction, gone with their resource.

use super::super::sealed::Spot;
use super::*;
use crate::vault::Pk;

on_both!(domain_rows_follow_their_resource);

async fn domain_rows_follow_their_resource(bench: Bench) {
    let text = observation("o1", "p1", "1234-5", 1.0, "2020-01-01");
    let written = bench.write(&text).await.expect("writes").remove(0);
    bench.write(&text).await.expect("writes");
    let rows = bench.ask("select rid, pk, ver, sealed from medical_record", Vec::new()).await;
    assert_eq!(rows.len(), 1);
    let row = &rows[0];
    assert_eq!((row.int(0).ok(), row.int(2).ok()), (Some(written.rid.0), Some(2)));
    let sealed = row.bytes(3).ok().expect("bytes").to_vec();
    assert!(!sealed.windows(6).any(|part| part == b"1234-5"));
    let keys = bench.store.keys(Pk(row.int(1).ok().expect("a number"))).await.expect("keys").expect("keys");
    let spot = Spot { rid: written.rid, kind: type_id("Observation"), version: 2 };
    let opened = spot.open_domain(&keys, 2, &sealed).expect("opens at its place");
    assert!(opened.sections.iter().any(|(_, plain)| String::from_utf8_lossy(plain).contains("1234-5")));
    assert!(spot.open_domain(&keys, 1, &sealed).is_err(), "not as the row of another table");
    assert!(Spot { version: 1, ..spot }.open_domain(&keys, 2, &sealed).is_err(), "not as another version");
    bench.erase("Observation", "o1").await.expect("deletes");
    assert_eq!(bench.count("medical_record").await, 0);
}
