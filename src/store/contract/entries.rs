//! Audit entries as stored: scanned by terms, walked by chain.

use std::collections::HashMap;

use futures_util::future::join_all;

use super::super::chain_hash;
use super::*;

on_both!(entries_are_found_by_terms, chains_are_gapless_on_every_lane);

const MONTHS: std::ops::RangeInclusive<i32> = 0..=i32::MAX;

async fn entries_are_found_by_terms(bench: Bench) {
    let row = |id: &str, month: i32, terms: &[i64]| AuditRow {
        id: id.to_owned(),
        month,
        terms: terms.to_vec(),
        ..entry(NOW)
    };
    for (id, month, terms) in [("a", 5, &[1, 2][..]), ("b", 5, &[1, 3]), ("c", 6, &[2, 3, 2]), ("d", 7, &[])] {
        bench.store.append(row(id, month, terms)).await.expect("appends");
    }
    let scan = async |terms: &[Vec<i64>], months, from, newest, limit| {
        let found = bench.store.audit_scan(terms, months, from, newest, limit).await.expect("scans");
        found.into_iter().map(|entry| entry.id).collect::<Vec<_>>()
    };
    assert_eq!(scan(&[], MONTHS, None, true, 10).await, ["d", "c", "b", "a"]);
    assert_eq!(scan(&[], 6..=7, None, false, 10).await, ["c", "d"]);
    assert_eq!(scan(&[vec![1]], MONTHS, None, true, 10).await, ["b", "a"]);
    assert_eq!(scan(&[vec![1, 2]], MONTHS, None, true, 2).await, ["c", "b"]);
    assert_eq!(scan(&[vec![1, 2], vec![3]], MONTHS, None, true, 10).await, ["c", "b"]);
    assert!(scan(&[vec![9]], MONTHS, None, true, 10).await.is_empty());
    assert!(scan(&[vec![]], MONTHS, None, true, 10).await.is_empty());
    let c = bench.store.audit_get("c").await.expect("gets").expect("is there");
    assert_eq!(scan(&[], MONTHS, Some(c.n), true, 10).await, ["b", "a"]);
    assert_eq!(scan(&[], MONTHS, Some(c.n), false, 10).await, ["d"]);
    assert!(bench.store.audit_get("x").await.expect("gets").is_none());
    assert_eq!(bench.store.audit_months().await.expect("months"), Some((5, 7)));
    let twice = bench.store.append(row("a", 5, &[])).await;
    assert_eq!(kind_of(twice), Some(Kind::Audit), "an entry that cannot be written is never acknowledged");
    bench.store.append(row("e", 7, &[])).await.expect("and the lane goes on");
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
        after = Some((last.instance, last.lane, last.seq));
        for entry in page {
            let (seq, prev) = chains.entry((entry.instance, entry.lane)).or_default();
            assert_eq!((entry.seq, entry.prev), (*seq, *prev));
            *prev = chain_hash(entry.instance, entry.lane, entry.seq, &entry.prev, &entry.commitment);
            *seq += 1;
            walked += 1;
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
