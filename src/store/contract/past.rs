//! The history of types and of the server, against a model in memory, and its pages while others write.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};

use super::*;
use crate::access::{Grant, Search};
use crate::fhir::date::Range;
use crate::store::{Mark, Past, Period};

on_both!(pages_are_those_of_the_model, pages_neither_repeat_nor_drop_while_others_write, past_the_limit_it_says_so);

const KINDS: [&str; 2] = ["Patient", "Observation"];
const NARROW: &str = "system/Observation.s?status=final system/Patient.s?gender=female";

/// Numbers from a seed (SplitMix64).
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31)) % n
    }
}

/// One version, as the model knows it.
#[derive(Clone)]
struct Told {
    kind: &'static str,
    id: String,
    ver: u32,
    at: Instant,
    replaced: Option<Instant>,
    deleted: bool,
    /// Whether the narrow scopes show it.
    narrow: bool,
}

type Shown = (String, String, u32, bool);

fn grants(scopes: &str, kinds: &[&str]) -> Vec<Grant<Search>> {
    kinds.iter().map(|kind| access::authorize::<Search>(&caller(scopes), type_id(kind)).expect("granted")).collect()
}

fn shown(sealed: &Sealed) -> Shown {
    let header = sealed.header();
    (definitions().type_name(header.kind).to_owned(), header.id.clone(), header.version, sealed.is_deleted())
}

/// All pages; also whether every total that was told is the same.
async fn pages(store: &Store, grants: &[Grant<Search>], period: Period, count: usize) -> (Vec<Shown>, Option<u64>) {
    let (mut all, mut total, mut after) = (Vec::new(), None, None::<Mark>);
    loop {
        let page = store.past(&Past { grants, period, count, after }).await.expect("a page");
        assert!(page.versions.len() <= count);
        all.extend(page.versions.iter().map(shown));
        total = total.or(page.total);
        after = page.next;
        if after.is_none() {
            return (all, total);
        }
        assert_eq!(page.versions.len(), count, "only the last page is short");
    }
}

async fn pages_are_those_of_the_model(bench: Bench) {
    let mut dice = Dice(7);
    let mut told: Vec<Told> = Vec::new();
    for step in 0..120u64 {
        bench.world.set_now(NOW.plus_ms((step * 1000) as i64));
        let kind = KINDS[dice.below(2) as usize];
        let id = format!("r{}", dice.below(6));
        let last = told.iter().rposition(|one| one.kind == kind && one.id == id);
        let stands = last.is_some_and(|last| !told[last].deleted);
        let (deleted, narrow) = if stands && dice.below(4) == 0 {
            bench.erase(kind, &id).await.expect("deletes");
            // A deletion is measured by what it deleted.
            (true, last.is_some_and(|last| told[last].narrow))
        } else {
            let narrow = dice.below(2) == 0;
            let text = match kind {
                "Patient" => patient(&id, "Ash").replace("female", if narrow { "female" } else { "male" }),
                _ => {
                    let text = observation(&id, &format!("p{}", dice.below(3)), "1-1", 1.0, "2020-01-01");
                    text.replace("\"final\"", if narrow { "\"final\"" } else { "\"amended\"" })
                }
            };
            bench.write(&text).await.expect("writes");
            (false, narrow)
        };
        let at = bench.world.now();
        if let Some(last) = last {
            told[last].replaced = Some(at);
        }
        let ver = last.map_or(1, |last| told[last].ver + 1);
        told.push(Told { kind, id, ver, at, replaced: None, deleted, narrow });
    }
    for round in 0..60u64 {
        let kinds: &[&str] = [&KINDS[..], &KINDS[..1], &KINDS[1..]][dice.below(3) as usize];
        let narrow = dice.below(2) == 0;
        let mut moment = || NOW.plus_ms((dice.below(130_000)) as i64 - 5_000);
        let (since, lo, long) = (moment(), moment(), moment().0 - NOW.0);
        let period = Period {
            since: (round % 3 == 1).then_some(since),
            at: (round % 4 == 2).then_some(Range { lo: lo.0, hi: lo.0 + long.max(0) / 4 }),
        };
        let grants = grants(if narrow { NARROW } else { ALL }, kinds);
        let wanted: Vec<Shown> = told
            .iter()
            .rev()
            .filter(|one| kinds.contains(&one.kind) && (!narrow || one.narrow))
            .filter(|one| period.since.is_none_or(|since| one.at >= since))
            .filter(|one| {
                let until = one.replaced.map_or(i64::MAX, |at| at.0);
                period.at.is_none_or(|at| one.at.0 <= at.hi && until > at.lo)
            })
            .map(|one| (one.kind.to_owned(), one.id.clone(), one.ver, one.deleted))
            .collect();
        let count = 1 + dice.below(40) as usize;
        let (found, total) = pages(&bench.store, &grants, period, count).await;
        assert_eq!(
            found, wanted,
            "round {round}: {kinds:?} narrow {narrow} since {:?} at {:?}",
            period.since, period.at
        );
        assert!(total.is_none_or(|total| total == wanted.len() as u64), "round {round}");
        let counted = bench.store.past(&Past { grants: &grants, period, count: 0, after: None }).await.expect("counts");
        assert_eq!((counted.total, counted.versions.len()), (Some(wanted.len() as u64), 0), "round {round}");
    }
}

/// At least six rounds of pages, and as many as it takes until the writers got somewhere.
async fn pages_neither_repeat_nor_drop_while_others_write(bench: Bench) {
    let beside = bench.beside().await;
    for n in 0..30 {
        bench.write(&patient(&format!("p{}", n % 7), "Oak")).await.expect("writes");
    }
    let all = grants(ALL, &KINDS);
    let stop = AtomicBool::new(false);
    let writer = async |store: &Store, name: &str| {
        let mut n = 0;
        while !stop.load(Ordering::Relaxed) {
            // Both writers and the reader meet on the same resources; a lost race is theirs to lose.
            let id = if n % 3 == 0 { format!("p{}", n % 7) } else { format!("{name}{n}") };
            let _ = write(store, ALL, &patient(&id, "Elm"), bench.world.now()).await;
            n += 1;
        }
    };
    let reader = async {
        let mut round = 0;
        while round < 6 || bench.count("version_log").await < 80 {
            round += 1;
            let settled: BTreeSet<Shown> = snapshot(&bench).await;
            let (found, _) = pages(&bench.store, &all, Period::default(), 1 + round % 4 * 5).await;
            let distinct: BTreeSet<Shown> = found.iter().cloned().collect();
            assert_eq!(distinct.len(), found.len(), "nothing is given twice");
            assert!(settled.is_subset(&distinct), "what was committed before the first page is on some page");
            let mut lowest: BTreeMap<(String, String), u32> = BTreeMap::new();
            for (kind, id, ver, _) in found {
                let before = lowest.insert((kind, id), ver);
                assert!(before.is_none_or(|before| before == ver + 1), "versions come down one by one");
            }
            assert!(lowest.values().all(|ver| *ver == 1), "and to the first");
        }
        stop.store(true, Ordering::Relaxed);
    };
    tokio::join!(writer(&bench.store, "a"), writer(&beside, "b"), reader);
    assert_eq!(bench.count("version_log").await, bench.count("record_version where rid > 0 or ver > 0").await);
}

/// Every version there is now, by the resources' own histories.
async fn snapshot(bench: &Bench) -> BTreeSet<Shown> {
    let all = access::authorize::<Read>(&caller(ALL), type_id("Patient")).expect("granted");
    let mut seen = BTreeSet::new();
    for n in 0..7 {
        let page = bench.store.history(&all, &format!("p{n}"), 10_000, None, Period::default()).await.expect("history");
        seen.extend(page.versions.iter().map(shown));
    }
    seen
}

async fn past_the_limit_it_says_so(bench: Bench) {
    let config = StoreConfig { candidates_max: 20, ..bench.config.clone() };
    let store = Store::open(config, bench.vault.clone(), bench.world.clone()).await.expect("the store opens");
    for n in 0..30 {
        bench.write(&patient(&format!("p{n}"), "Fir")).await.expect("writes");
    }
    let narrow = grants("system/Patient.s?gender=male", &["Patient"]);
    let asked = Past { grants: &narrow, period: Period::default(), count: 5, after: None };
    assert_eq!(kind_of(store.past(&asked).await), Some(Kind::TooCostly));
    assert_eq!(bench.store.past(&asked).await.expect("within the limit").total, Some(0));
    // A line that leads elsewhere is seen.
    let sql = "update version_log set rtype = 1 where n = (select max(n) from version_log)";
    bench.ask(sql, Vec::new()).await;
    let all = grants(ALL, &["Account", "Patient"]);
    let asked = Past { grants: &all, period: Period::default(), count: 5, after: None };
    assert_eq!(kind_of(bench.store.past(&asked).await), Some(Kind::Tampered));
}
