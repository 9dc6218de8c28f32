//! The key database on both engines.

use super::*;
use crate::vault::{DekRow, Pk, Place, Purpose};

on_both!(
    keys_are_made_once_by_all_servers,
    keys_are_wrapped_anew_and_destroyed_ones_stay_so,
    a_database_opens_with_its_own_keys_only,
);

/// Those of another installation would find nothing, and what they sealed would be lost to the right ones.
async fn a_database_opens_with_its_own_keys_only(bench: Bench) {
    let with = |vault: &Vault| Store::open(bench.config.clone(), vault.clone(), bench.world.clone());
    let foreign = crate::vault::memory::vault();
    let starts = bench.count("audit_instance").await;
    assert_eq!(kind_of(with(&foreign).await), Some(Kind::Unavailable), "before anything was written");
    bench.write(&observation("o1", "p1", "1-1", 5.0, "2020-01-01")).await.expect("writes");
    let mut raw = bench.raw().await;
    // Also where the mark is gone.
    for mark in [1, 0] {
        assert_eq!(bench.count("kv where space = 'keys'").await, mark);
        let error = with(&foreign).await.err().expect("refused");
        assert!(error.kind == Kind::Unavailable && error.to_string().contains("key_database_url"), "{error}");
        assert!(raw.run("delete from kv where space = 'keys'", vec![]).await.is_ok_and(|rows| rows == mark as u64));
    }
    assert_eq!(bench.count("audit_instance").await, starts, "nothing was written");
    bench.beside().await.close().await;
    assert_eq!(bench.count("kv where space = 'keys'").await, 1, "the right keys mark it again");
    raw.close().await;
}

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

async fn keys_are_wrapped_anew_and_destroyed_ones_stay_so(bench: Bench) {
    let pks: Vec<Pk> = (1..=1_200).map(Pk).collect();
    let place = Place { purpose: Purpose::Body, rtype: 1, rid: Rid(1), version: 1, section: 0 };
    let keys = bench.vault.keys_or_new(&pks).await.expect("keys");
    let sealed = keys[6].seal(&place, b"text").expect("seals");
    bench.vault.destroy(Pk(9)).await.expect("destroys");
    assert_eq!(bench.vault.rewrap().await.expect("nothing to do"), 0);
    assert_eq!(bench.vault.begin_epoch().await.expect("an epoch"), 2);
    assert_eq!(bench.vault.rewrap().await.expect("wraps"), 1_199);
    assert_eq!(bench.vault.rewrap().await.expect("once"), 0);
    let rows = bench.keys.data_keys(&pks).await.expect("finds");
    assert!(rows.iter().all(|row| row.is_destroyed() == (row.pk == Pk(9)) && (row.epoch == 2 || row.is_destroyed())));
    assert_eq!(bench.vault.destroyed().await.expect("lists"), [Pk(9)]);
    // A process that knows nothing yet opens what was sealed before.
    let store: Arc<dyn KeyStore> = bench.keys.clone();
    let fresh = Vault::open(bench.root.clone(), store).await.expect("the vault opens");
    let found = fresh.keys(&[Pk(7), Pk(9)]).await.expect("keys");
    let [Some(seven), None] = found.as_slice() else { panic!("seven stands, nine is destroyed") };
    assert_eq!(seven.open(&place, &sealed).expect("opens").as_slice(), b"text");
    // A row that is put back late, as by a command that was held up, does not bring a destroyed key back.
    let mut late = rows.iter().find(|row| row.pk == Pk(8)).expect("a row").clone();
    bench.vault.destroy(Pk(8)).await.expect("destroys");
    late.epoch = 3;
    bench.keys.rewrap_data_keys(vec![late]).await.expect("runs");
    let left = bench.keys.data_keys(&[Pk(8)]).await.expect("finds");
    assert!(left.iter().all(DekRow::is_destroyed) && left.len() == 1);
}
