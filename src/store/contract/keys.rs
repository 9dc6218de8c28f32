//! The key database on both engines.

use super::*;
use crate::vault::{DekRow, Pk};

on_both!(keys_are_made_once_by_all_servers);

async fn keys_are_made_once_by_all_servers(bench: Bench) {
    let row = |pk: i64, fill: u8| DekRow {
        pk: Pk(pk),
        version: 1,
        epoch: 1,
        wrapped: vec![fill; 60],
        commitment: [fill; 16],
    };
    let load = |fill: u8, turned: bool| {
        let mut rows: Vec<DekRow> = (1..=200).map(|pk| row(pk, fill)).collect();
        if turned {
            rows.reverse();
        }
        bench.keys.put_data_keys(rows)
    };
    let (one, other) = tokio::join!(load(1, false), load(2, true));
    let fills = |rows: Result<Vec<DekRow>>| {
        let mut rows = rows.expect("puts");
        rows.sort_by_key(|row| row.pk);
        rows.iter().map(|row| row.wrapped[0]).collect::<Vec<u8>>()
    };
    let (one, other) = (fills(one), fills(other));
    assert_eq!(one.len(), 200);
    assert_eq!(one, other, "both see the keys that stand");
    bench.keys.destroy_data_keys(Pk(1)).await.expect("destroys");
    let left = bench.keys.data_keys(&[Pk(1), Pk(2)]).await.expect("finds");
    assert_eq!(left.iter().map(DekRow::is_destroyed).collect::<Vec<_>>(), [true, false]);
}
