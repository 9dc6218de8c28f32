//! Audit entries as stored: scanned by terms, walked by chain.

use std::collections::HashMap;

use futures_util::future::join_all;

use super::super::{AuditStored, ChainPlace, chain_hash};
use super::*;

on_both!(entries_are_found_by_terms, chains_are_gapless_on_every_lane);

const MONTHS: std::ops::RangeInclusive<i32> = 0..=i32::MAX;

async fn entries_are_found_by_terms(bench: Bench) {
    let row = |id: &str, month: i32, terms: &[i64]| AuditRow {
        entry: id.as_bytes().to_vec().into(),
        month,
        terms: terms.to_vec(),
        ..entry(NOW)
    };
    for (id, month, terms) in [("a", 5, &[1, 2][..]), ("b", 5, &[1, 3]), ("c", 6, &[2, 3]), ("d", 7, &[])] {
        bench.store.append(row(id, month, terms)).await.expect("appends");
    }
    let scan = async |terms: &[Vec<i64>], months, from, newest, limit| {
        let found = bench.store.audit_scan(terms, months, from, newest, limit).await.expect("scans");
        let mut texts = Vec::new();
        for segment in &found {
            for entry in bench.store.audit_open(segment).await.expect("opens") {
                texts.push(String::from_utf8(entry.bytes.to_vec()).expect("text"));
            }
        }
        texts
    };
    assert_eq!(scan(&[], MONTHS, None, true, 10).await, ["d", "c", "b", "a"]);
    assert_eq!(scan(&[], 6..=7, None, false, 10).await, ["c", "d"]);
    assert_eq!(scan(&[vec![1]], MONTHS, None, true, 10).await, ["b", "a"]);
    assert_eq!(scan(&[vec![1, 2]], MONTHS, None, true, 2).await, ["c", "b"]);
    assert_eq!(scan(&[vec![1, 2], vec![3]], MONTHS, None, true, 10).await, ["c", "b"]);
    assert!(scan(&[vec![9]], MONTHS, None, true, 10).await.is_empty());
    assert!(scan(&[vec![]], MONTHS, None, true, 10).await.is_empty());
    let newest = bench.store.audit_scan(&[], MONTHS, None, true, 2).await.expect("scans");
    let c = bench.store.audit_at(place(&newest[1])).await.expect("gets").expect("is there");
    assert_eq!(scan(&[], MONTHS, Some(c.n), true, 10).await, ["b", "a"]);
    assert_eq!(scan(&[], MONTHS, Some(c.n), false, 10).await, ["d"]);
    assert_eq!(c.n, newest[1].n);
    assert!(bench.store.audit_at((1, 0, 0)).await.expect("gets").is_none());
    assert_eq!(bench.store.audit_months().await.expect("months"), Some((5, 7)));
    // Whether terms wait or are in the index makes no difference.
    tokio::time::sleep(std::time::Duration::from_millis(600)).await;
    assert_eq!(scan(&[vec![1, 2], vec![3]], MONTHS, None, true, 10).await, ["c", "b"]);
    bench.store.append(row("e", 7, &[3, 1])).await.expect("appends");
    assert_eq!(scan(&[vec![1, 2], vec![3]], MONTHS, None, true, 2).await, ["e", "c"]);
    assert_eq!(scan(&[vec![1, 2], vec![3]], MONTHS, Some(c.n), false, 10).await, ["e"]);
}

fn place(row: &AuditStored) -> ChainPlace {
    (row.place.instance, row.place.lane, row.place.seq)
}

async fn chains_are_gapless_on_every_lane(bench: Bench) {
    let beside = bench.beside().await;
    bench.write(&patient("p1", "A")).await.expect("writes");
    let work = |n: usize| {
        let store = if n.is_multiple_of(2) { bench.store.clone() } else { beside.clone() };
        async move {
            match n % 4 {
                // Most of these conflict.
                0 | 1 => write(&store, ALL, &patient("p1", &format!("N{n}")), NOW).await.is_ok(),
                _ => store.append(entry(NOW)).await.is_ok(),
            }
        }
    };
    let kept = join_all((0..160).map(work)).await.into_iter().filter(|kept| *kept).count();
    assert!(kept < 160, "some writes must have met a conflict");
    let mut chains: HashMap<(i64, u32), (u64, [u8; 32])> = HashMap::new();
    let (mut walked, mut after) = (0, None);
    loop {
        let page = bench.store.audit_walk(after, 7).await.expect("walks");
        let Some(last) = page.last() else { break };
        after = Some(place(last));
        for segment in page {
            let (instance, lane, number) = place(&segment);
            let (seq, prev) = chains.entry((instance, lane)).or_default();
            assert_eq!((number, segment.prev), (*seq, *prev));
            *prev = chain_hash(instance, lane, number, &segment.prev, &segment.commitment);
            *seq += 1;
            walked += bench.store.audit_open(&segment).await.expect("opens").len();
        }
    }
    assert_eq!(walked, kept + 1, "every acknowledged entry is there, and no other");
    let heads = bench.store.audit_heads().await.expect("heads");
    assert!(heads.iter().all(|(instance, lane, seq)| chains[&(*instance, *lane)].0 == seq + 1));
    assert_eq!(bench.store.audit_instances().await.expect("instances").len(), 2);

    let versions = bench.store.current_versions(None, 10).await.expect("versions");
    let mut hashes = Vec::new();
    while let Ok(page) = bench.store.version_hashes(hashes.last().map(|(rid, ver, _)| (*rid, *ver)), 3).await {
        if page.is_empty() {
            break;
        }
        hashes.extend(page);
    }
    assert_eq!(versions, [(hashes[0].0, hashes.len() as u32)]);
    let written = bench.write(&patient("p1", "Last")).await.expect("writes").remove(0);
    let last = bench.store.version_hashes(Some((written.rid, written.version - 1)), 3).await.expect("hashes");
    assert_eq!(last, [(written.rid, written.version, written.sha256)]);
}
