//! The vault as its users see it: what is sealed opens at its place and nowhere else.

use std::sync::Arc;

use futures_util::FutureExt;
use proptest::prelude::*;

use super::memory::{MemoryKeys, MemoryRoot, vault};
use super::*;
use crate::error::Kind;

/// Runs a future that never waits.
fn now<T>(future: impl Future<Output = T>) -> T {
    future.now_or_never().expect("nothing in memory waits")
}

fn keys(vault: &Vault, pk: i64) -> Arc<Keys> {
    now(vault.keys_or_new(&[Pk(pk)])).unwrap().remove(0)
}

const PLACE: Place = Place { purpose: Purpose::Body, rtype: 102, rid: Rid(77), version: 3, section: 1 };

fn tampered<T>(result: Result<T>) -> bool {
    result.err().is_some_and(|error| error.kind == Kind::Tampered)
}

fn any_place() -> impl Strategy<Value = Place> {
    let purpose = prop_oneof![Just(Purpose::Body), Just(Purpose::Capsule), Just(Purpose::Blob), Just(Purpose::Domain)];
    (purpose, any::<u16>(), any::<i64>(), any::<u32>(), any::<u8>())
        .prop_map(|(purpose, rtype, rid, version, section)| Place { purpose, rtype, rid: Rid(rid), version, section })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn open_of_seal_is_what_was_sealed(place in any_place(), pk in 1i64.., plain in proptest::collection::vec(any::<u8>(), 0..5000)) {
        let vault = vault();
        let keys = keys(&vault, pk);
        let sealed = keys.seal(&place, &plain).unwrap();
        prop_assert_eq!(&**keys.open(&place, &sealed).unwrap(), &plain[..]);
    }

    #[test]
    fn text_survives_compression(words in proptest::collection::vec("[a-z]{1,6}", 0..2000)) {
        let vault = vault();
        let keys = keys(&vault, 5);
        let plain = words.join(" ");
        let sealed = keys.seal(&PLACE, plain.as_bytes()).unwrap();
        prop_assert_eq!(&**keys.open(&PLACE, &sealed).unwrap(), plain.as_bytes());
    }

    #[test]
    fn bytes_that_were_never_sealed_do_not_open(sealed in proptest::collection::vec(any::<u8>(), 0..300)) {
        prop_assert!(tampered(keys(&vault(), 5).open(&PLACE, &sealed)));
    }
}

#[test]
fn any_flipped_bit_and_any_cut_is_found() {
    let vault = vault();
    let keys = keys(&vault, 5);
    for plain in [b"short".to_vec(), br#"{"resourceType":"Patient"} "#.repeat(12)] {
        let sealed = keys.seal(&PLACE, &plain).unwrap();
        for at in 0..sealed.len() {
            for bit in 0..8 {
                let mut bad = sealed.clone();
                bad[at] ^= 1 << bit;
                assert!(tampered(keys.open(&PLACE, &bad)), "byte {at} bit {bit}");
            }
            assert!(tampered(keys.open(&PLACE, &sealed[..at])), "cut at {at}");
        }
        let mut longer = sealed.clone();
        longer.push(0);
        assert!(tampered(keys.open(&PLACE, &longer)));
    }
}

#[test]
fn it_opens_at_its_place_alone() {
    let vault = vault();
    let keys = keys(&vault, 5);
    let sealed = keys.seal(&PLACE, b"content").unwrap();
    let elsewhere = [
        Place { purpose: Purpose::Capsule, ..PLACE },
        Place { purpose: Purpose::Domain, ..PLACE },
        Place { rtype: 103, ..PLACE },
        Place { rid: Rid(78), ..PLACE },
        Place { version: 2, ..PLACE },
        Place { section: 2, ..PLACE },
    ];
    for place in elsewhere {
        assert!(tampered(keys.open(&place, &sealed)), "{place:?}");
    }
    assert!(keys.open(&PLACE, &sealed).is_ok());
}

#[test]
fn envelopes_of_two_patients_cannot_be_swapped() {
    let vault = vault();
    let (ann, bob) = (keys(&vault, 5), keys(&vault, 6));
    let sealed = ann.seal(&PLACE, b"of Ann").unwrap();
    assert!(tampered(bob.open(&PLACE, &sealed)));
    // Nor with the header changed to name Bob's key.
    let mut renamed = sealed.clone();
    renamed[5..13].copy_from_slice(&6i64.to_be_bytes());
    assert!(tampered(bob.open(&PLACE, &renamed)));
}

#[test]
fn another_vault_cannot_open_it() {
    let sealed = keys(&vault(), 5).seal(&PLACE, b"content").unwrap();
    assert!(tampered(keys(&vault(), 5).open(&PLACE, &sealed)));
}

#[test]
fn the_envelope_is_as_documented() {
    let vault = vault();
    let keys = keys(&vault, 0x0102_0304_0506_0708);
    let sealed = keys.seal(&PLACE, &[b'x'; 500]).unwrap();
    assert_eq!(sealed[..13], [1, 1, 0b1_0001, 0, 1, 1, 2, 3, 4, 5, 6, 7, 8]);
    assert_eq!(sealed.len(), 13 + 12 + 64 + 16, "500 equal bytes compress into one step of padding");
    let system = now(vault.seal_system(SystemKey::Audit { month: 2026 * 12 + 10 }, b"", b"x")).unwrap();
    assert_eq!(system[..13], [1, 2, 0b1_0000, 0, 1, 0, 0, 0, 4, 0, 0, 0x5f, 0x02]);
    assert_eq!(system.len(), 13 + 24 + 64 + 16);
    assert_ne!(keys.seal(&PLACE, b"same").unwrap(), keys.seal(&PLACE, b"same").unwrap(), "nonces are random");
}

/// An envelope made by this code with fixed keys, kept here: a later version must still open it.
#[test]
fn an_old_envelope_still_opens() {
    let kek = zeroize::Zeroizing::new([3u8; 32]);
    let row = DekRow {
        pk: Pk(42),
        version: 1,
        epoch: 1,
        wrapped: unhex(OLD_WRAPPED),
        commitment: unhex(OLD_COMMITMENT).try_into().unwrap(),
    };
    let keys = Keys::new(Pk(42), vec![keys::WrapKey::new(&kek).unwrap(&row).unwrap()]).unwrap();
    let place = Place { purpose: Purpose::Body, rtype: 102, rid: Rid(99), version: 7, section: 5 };
    assert_eq!(**keys.open(&place, &unhex(OLD_ENVELOPE)).unwrap(), br#"{"resourceType":"Observation"}"#.repeat(20));
}

const OLD_WRAPPED: &str = "\
    01681c62bc595ac41da2a4bc6a12e4647b8efe1e1974fa7ce76909d2f12623656422720b31e0e3a535eca50d854962435fbc\
    2d31f1a9c76405cff19916";
const OLD_COMMITMENT: &str = "79b24476b967c3447d14a23d48226711";
const OLD_ENVELOPE: &str = "\
    0101110001000000000000002ab1600cc6a3d3ac0b9121a0b6774f1c405ebd442f61a2bbad7955ff5d5448467abdbc3ed137\
    c5fc796a652bd887c27844a9bb4adaf04193ca6ab022f863a7f9510f537a10594398ca711e93916c7ff00062164c9fb4cf3e\
    3947db2f40";

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len() / 2).map(|n| u8::from_str_radix(&text[2 * n..2 * n + 2], 16).unwrap()).collect()
}

struct Deployment {
    root: Arc<MemoryRoot>,
    store: Arc<MemoryKeys>,
}

impl Deployment {
    fn new() -> Self {
        Deployment { root: Arc::new(MemoryRoot::new()), store: Arc::new(MemoryKeys::default()) }
    }

    fn start(&self) -> Result<Vault> {
        now(Vault::open(self.root.clone(), self.store.clone()))
    }
}

#[test]
fn a_second_server_reads_what_the_first_wrote() {
    let site = Deployment::new();
    let (first, second) = (site.start().unwrap(), site.start().unwrap());
    let sealed = keys(&first, 5).seal(&PLACE, b"content").unwrap();
    let found = now(second.keys(&[Pk(5), Pk(5)])).unwrap();
    assert_eq!(&**found[0].as_ref().unwrap().open(&PLACE, &sealed).unwrap(), b"content");
    assert!(found[1].is_some());
    let place = TermPlace { rtype: 1, param: 2, form: 3, partition: 4 };
    assert_eq!(first.term(&place, &[b"x"]), second.term(&place, &[b"x"]));
    assert_eq!(first.token("mrn", b"x"), second.token("mrn", b"x"));
}

#[test]
fn of_two_makers_of_one_key_the_first_wins() {
    let site = Deployment::new();
    let (first, second) = (site.start().unwrap(), site.start().unwrap());
    let sealed = keys(&second, 5).seal(&PLACE, b"content").unwrap();
    assert!(keys(&first, 5).open(&PLACE, &sealed).is_ok());
}

#[test]
fn another_root_key_is_refused_at_the_start() {
    let site = Deployment::new();
    site.start().unwrap();
    let stranger = Deployment { root: Arc::new(MemoryRoot::new()), store: site.store.clone() };
    assert!(tampered(stranger.start()));
}

#[test]
fn altered_and_exchanged_system_keys_are_refused() {
    let site = Deployment::new();
    site.start().unwrap();
    let mut cursor = Vec::new();
    site.store.alter_system(|row| {
        if row.name == "cur/1" {
            cursor.clone_from(&row.wrapped);
        }
    });
    site.store.alter_system(|row| {
        if row.name == "lnk/1" {
            row.wrapped.clone_from(&cursor);
        }
    });
    assert!(tampered(site.start()));
}

#[test]
fn a_lost_system_key_is_not_made_anew() {
    for name in ["idx/1", "sec/1", "kek/1"] {
        let site = Deployment::new();
        let vault = site.start().unwrap();
        now(vault.begin_epoch()).unwrap();
        site.store.lose_system(name);
        let error = site.start().err().expect(name);
        assert_eq!(error.kind, Kind::Unavailable);
        assert!(error.to_string().contains(name));
    }
}

#[test]
fn altered_key_records_are_refused() {
    let changes: [fn(&mut DekRow); 6] = [
        |row| row.wrapped[20] ^= 1,
        |row| row.wrapped.truncate(30),
        |row| row.wrapped.clear(),
        |row| row.commitment[0] ^= 1,
        |row| row.version += 1,
        |row| row.epoch += 1,
    ];
    for (n, change) in changes.into_iter().enumerate() {
        let site = Deployment::new();
        keys(&site.start().unwrap(), 5);
        site.store.alter(change);
        assert!(tampered(now(site.start().unwrap().keys(&[Pk(5)]))), "change {n}");
    }
}

#[test]
fn a_key_record_of_another_patient_is_refused() {
    let site = Deployment::new();
    let vault = site.start().unwrap();
    keys(&vault, 5);
    keys(&vault, 6);
    let mut taken = None;
    site.store.alter(|row| match taken.clone() {
        None => taken = Some((row.wrapped.clone(), row.commitment)),
        Some((wrapped, commitment)) => (row.wrapped, row.commitment) = (wrapped, commitment),
    });
    assert!(tampered(now(site.start().unwrap().keys(&[Pk(6)]))));
}

#[test]
fn epochs_stay_readable_and_other_servers_take_them_up() {
    let site = Deployment::new();
    let (first, second) = (site.start().unwrap(), site.start().unwrap());
    let old = keys(&first, 5).seal(&PLACE, b"old").unwrap();
    assert_eq!(now(first.begin_epoch()).unwrap(), 2);
    let new = keys(&first, 6).seal(&PLACE, b"new").unwrap();
    let mut epochs = Vec::new();
    site.store.alter(|row| epochs.push((row.pk.0, row.epoch)));
    assert_eq!(epochs, [(5, 1), (6, 2)]);
    for vault in [second, site.start().unwrap()] {
        assert!(keys(&vault, 5).open(&PLACE, &old).is_ok());
        assert!(keys(&vault, 6).open(&PLACE, &new).is_ok());
    }
}

#[test]
fn a_destroyed_key_is_gone() {
    let vault = vault();
    keys(&vault, 5);
    assert!(vault.cached_keys(Pk(5)).is_some());
    now(vault.destroy(Pk(5))).unwrap();
    assert!(vault.cached_keys(Pk(5)).is_none());
    assert!(now(vault.keys(&[Pk(5)])).unwrap()[0].is_none());
    assert!(now(vault.keys_or_new(&[Pk(5)])).is_err_and(|error| error.kind == Kind::Gone), "nothing is added to it");
    assert!(tampered(now(vault.keys(&[Pk(6)]))), "a surrogate that never had a key is said");
}

#[test]
fn system_seals_open_under_their_key_and_aad_alone() {
    let site = Deployment::new();
    let vault = site.start().unwrap();
    let november = SystemKey::Audit { month: 2026 * 12 + 10 };
    let all =
        [november, SystemKey::Audit { month: 2026 * 12 + 11 }, SystemKey::Cursor, SystemKey::Link, SystemKey::Secret];
    for key in all {
        let sealed = now(vault.seal_system(key, b"place", b"entry")).unwrap();
        for other in all {
            let opened = now(vault.open_system(other, b"place", &sealed));
            assert_eq!(opened.is_ok(), other == key, "{key:?} {other:?}");
        }
        assert!(tampered(now(vault.open_system(key, b"elsewhere", &sealed))));
        for at in 0..sealed.len() {
            let mut bad = sealed.clone();
            bad[at] ^= 4;
            assert!(tampered(now(vault.open_system(key, b"place", &bad))), "byte {at}");
        }
        assert_eq!(&**now(site.start().unwrap().open_system(key, b"place", &sealed)).unwrap(), b"entry");
    }
    // Opening never makes the key of a month.
    let sealed = now(vault.seal_system(november, b"", b"entry")).unwrap();
    let rows = || now(site.store.system_keys()).unwrap().len();
    let before = rows();
    assert!(tampered(now(vault.open_system(SystemKey::Audit { month: 5 }, b"", &sealed))));
    assert_eq!(rows(), before);
}

#[tokio::test]
async fn what_another_server_erased_is_in_no_memory_soon_though_nobody_asks() {
    let site = Deployment::new();
    let (first, second) = (site.start().unwrap(), site.start().unwrap());
    keys(&second, 5);
    let which = (102, Rid(77), 3);
    let (_, mark) = first.opened(std::iter::once(which)).await.unwrap();
    let plain = Arc::new(zeroize::Zeroizing::new(vec![7; 10]));
    first.keep_opened(std::iter::once((which, plain.clone())), mark);
    tokio::time::sleep(std::time::Duration::from_millis(600)).await;
    assert_eq!(Arc::strong_count(&plain), 2, "it is kept while nothing is erased");
    second.destroy(Pk(5)).await.unwrap();
    let since = crate::world::Stopwatch::start();
    while Arc::strong_count(&plain) > 1 {
        assert!(since.elapsed() < std::time::Duration::from_secs(4), "it stays");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}
