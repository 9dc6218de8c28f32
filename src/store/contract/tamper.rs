//! A database administrator with bad intentions: every column of every table that is read back is altered, cut,
//! emptied, swapped and rolled back. What is then read is what was there before, or nothing, or `Kind::Tampered`:
//! never anything else.

use std::collections::{BTreeMap, BTreeSet};

use super::*;

on_both!(
    no_altered_column_passes,
    no_moved_row_passes,
    rolled_back_rows_show,
    a_swapped_compartment_gives_no_wrong_key
);

/// What a reader saw: by question, either the answers or that it was refused as tampered.
type Seen = BTreeMap<String, Result<BTreeSet<String>, ()>>;

const RESOURCES: [(&str, &str); 6] = [
    ("Patient", "p1"),
    ("Patient", "p2"),
    ("Observation", "o1"),
    ("Observation", "o2"),
    ("Observation", "gone"),
    ("Organization", "org"),
];
const SEARCHES: [(&str, &str); 8] = [
    ("Patient", ""),
    ("Patient", "family=smith"),
    ("Patient", "_id=p1"),
    ("Observation", "patient=p1"),
    ("Observation", "code=1-1"),
    ("Observation", "date=ge2020&_sort=-date"),
    ("Observation", "subject:Patient.family=smith"),
    ("Patient", "_has:Observation:patient:code=2-2"),
];

async fn populate(bench: &Bench) {
    for text in [
        patient("p1", "Smith"),
        patient("p2", "Jones"),
        patient("p1", "Smith"),
        observation("o1", "p1", "1-1", 5.0, "2020-01-01"),
        observation("o1", "p1", "1-1", 6.0, "2021-01-01"),
        observation("o2", "p2", "2-2", 7.0, "2022-01-01"),
        observation("gone", "p2", "1-1", 8.0, "2022-02-01"),
        r#"{"resourceType":"Organization","id":"org","name":"Clinic"}"#.to_owned(),
    ] {
        bench.write(&text).await.expect("writes");
    }
    bench.erase("Observation", "gone").await.expect("deletes");
}

fn keep(seen: &mut Seen, question: String, answer: Result<BTreeSet<String>>) {
    let answer = answer.map_err(|error| {
        assert_eq!(error.kind, Kind::Tampered, "{question}: {error:?}");
    });
    seen.insert(question, answer);
}

/// Asks everything.
async fn look(bench: &Bench) -> Seen {
    let store = &bench.store;
    let mut seen = Seen::new();
    for (kind, id) in RESOURCES {
        let grant = access::authorize::<Read>(&caller(ALL), type_id(kind)).expect("granted");
        let found = match store.find(&grant, id).await {
            Ok(Found::Current(sealed)) => content(bench, &sealed).await.map(BTreeSet::from),
            Ok(Found::Deleted { version }) => Ok([format!("deleted {version}")].into()),
            Ok(Found::Absent) => Ok(BTreeSet::new()),
            Err(error) => Err(error),
        };
        keep(&mut seen, format!("read {kind}/{id}"), found);
        for version in 1..=2 {
            let found = match store.find_version(&grant, id, version).await {
                Ok(Found::Current(sealed)) => content(bench, &sealed).await.map(BTreeSet::from),
                Ok(Found::Deleted { version }) => Ok([format!("deleted {version}")].into()),
                Ok(Found::Absent) => Ok(BTreeSet::new()),
                Err(error) => Err(error),
            };
            keep(&mut seen, format!("vread {kind}/{id}/{version}"), found);
        }
        let history = match store.history(&grant, id, 10, None, Default::default()).await {
            Ok(page) => contents(bench, &page.versions).await,
            Err(error) if error.kind == Kind::NotFound => Ok(BTreeSet::new()),
            Err(error) => Err(error),
        };
        keep(&mut seen, format!("history {kind}/{id}"), history);
    }
    for (kind, query) in SEARCHES {
        let parsed = parse(kind, query);
        let grants = Grants::of(&caller(ALL), &parsed).expect("granted");
        let found = match store.select(&grants, &parsed, None).await {
            Ok(page) => contents(bench, &page.matches).await,
            Err(error) => Err(error),
        };
        keep(&mut seen, format!("search {kind}?{query}"), found);
    }
    seen
}

async fn content(bench: &Bench, sealed: &Sealed) -> Result<[String; 1]> {
    Ok([format!("{} {}", sealed.header().id, bench.open_content(sealed).await?)])
}

async fn contents(bench: &Bench, sealed: &[Sealed]) -> Result<BTreeSet<String>> {
    let mut all = BTreeSet::new();
    for sealed in sealed {
        match sealed.is_deleted() {
            true => all.insert(format!("deleted {}", sealed.header().version)),
            false => all.insert(content(bench, sealed).await?.concat()),
        };
    }
    Ok(all)
}

/// Nothing wrong was seen; gives how many questions were refused, and how many answered with less.
fn judge(what: &str, before: &Seen, after: &Seen) -> (usize, usize) {
    let (mut refused, mut less) = (0, 0);
    for (question, answer) in after {
        let truth = before[question].as_ref().expect("nothing was refused before");
        match answer {
            Err(()) => refused += 1,
            Ok(answer) => {
                assert!(answer.is_subset(truth), "{what}: {question} gave something else");
                less += usize::from(answer.len() < truth.len());
            }
        }
    }
    (refused, less)
}

#[derive(Clone)]
enum Cell {
    Int(i64),
    Bytes(Vec<u8>),
}

impl Cell {
    fn param(&self) -> Param {
        match self {
            Cell::Int(n) => Param::Int(*n),
            Cell::Bytes(bytes) => Param::Bytes(bytes.clone()),
        }
    }

    fn read(row: &Row, at: usize, bytes: bool) -> Cell {
        match bytes {
            true => Cell::Bytes(row.bytes(at).ok().expect("bytes").to_vec()),
            false => Cell::Int(row.int(at).ok().expect("a number")),
        }
    }

    /// Ways to spoil it; `other` is the same column of another row.
    fn spoiled(&self, other: &Cell) -> Vec<Cell> {
        match (self, other) {
            (Cell::Int(n), Cell::Int(other)) => {
                [n ^ 1, n + 1, n - 1, 0, *other].into_iter().filter(|new| new != n).map(Cell::Int).collect()
            }
            (Cell::Bytes(bytes), Cell::Bytes(other)) => {
                let mut all = vec![Vec::new(), other.clone(), [bytes.as_slice(), b"x"].concat()];
                if !bytes.is_empty() {
                    all.push(bytes[..bytes.len() - 1].to_vec());
                    for at in [0, 5, 14, bytes.len() / 2, bytes.len() - 1] {
                        let mut bent = bytes.clone();
                        bent[at.min(bytes.len() - 1)] ^= 4;
                        all.push(bent);
                    }
                }
                all.into_iter().filter(|new| new != bytes).map(Cell::Bytes).collect()
            }
            _ => Vec::new(),
        }
    }
}

/// Spoils one column of rows in turn; gives (refused, less) summed over all of it.
async fn spoil(bench: &Bench, before: &Seen, table: &str, column: &str, bytes: bool) -> (usize, usize) {
    // Rid 0 is no resource.
    let all = format!("select {column}, rid, ver from {table} where rid <> 0 order by rid, ver");
    let rows = bench.ask(&all, vec![]).await;
    let cells: Vec<(Cell, i64, i64)> = rows
        .iter()
        .map(|row| (Cell::read(row, 0, bytes), row.int(1).ok().expect("rid"), row.int(2).ok().expect("ver")))
        .collect();
    let mut sum = (0, 0);
    let mut raw = bench.raw().await;
    // Row ids are random: of several rows some are always such as a search meets (a deleted one is met by its id alone).
    let positions: BTreeSet<usize> = (0..5).map(|n| n * (cells.len() - 1) / 4).collect();
    for at in positions {
        let (cell, rid, ver) = cells[at].clone();
        let other = &cells[(at + 1) % cells.len()].0;
        for new in cell.spoiled(other) {
            let sql = format!("update {table} set {column} = $1 where rid = $2 and ver = $3");
            // Where the row is once it is spoiled.
            let (mut rid_now, mut ver_now) = (rid, ver);
            match (&new, column) {
                (Cell::Int(n), "rid") => rid_now = *n,
                (Cell::Int(n), "ver") => ver_now = *n,
                _ => {}
            }
            let run = raw.run(&sql, vec![new.param(), Param::Int(rid), Param::Int(ver)]).await;
            // A unique column refuses some of it by itself.
            if !matches!(run, Ok(1)) {
                continue;
            }
            let after = look(bench).await;
            let (refused, less) = judge(&format!("{table}.{column}"), before, &after);
            sum = (sum.0 + refused, sum.1 + less);
            let back = raw.run(&sql, vec![cell.param(), Param::Int(rid_now), Param::Int(ver_now)]).await;
            assert!(matches!(back, Ok(1)), "put back");
        }
    }
    raw.close().await;
    sum
}

async fn no_altered_column_passes(bench: Bench) {
    populate(&bench).await;
    let before = look(&bench).await;
    assert!(before.values().all(Result::is_ok));
    assert!(before.iter().filter(|(_, answer)| answer.as_ref().is_ok_and(|all| !all.is_empty())).count() > 20);
    for (table, column, bytes, must_refuse) in [
        ("record", "rid", false, true),
        ("record", "id_token", true, true),
        ("record", "pk", false, true),
        ("record", "ver", false, true),
        ("record", "deleted", false, true),
        ("record", "capsule", true, true),
        // Only narrows: what it hides is absent, what it lets through the capsule decides.
        ("record", "rtype", false, false),
        ("record_version", "rid", false, true),
        ("record_version", "ver", false, true),
        ("record_version", "pk", false, true),
        ("record_version", "head", true, true),
        ("record_version", "sealed", true, true),
    ] {
        let (refused, less) = spoil(&bench, &before, table, column, bytes).await;
        assert!(refused + less > 0, "{table}.{column}: spoiling it must show");
        assert!(!must_refuse || refused > 0, "{table}.{column}: it must be said");
    }
    let after = look(&bench).await;
    assert!(after == before, "everything was put back");
}

/// Whole rows change places: every column but the key.
async fn no_moved_row_passes(bench: Bench) {
    populate(&bench).await;
    let before = look(&bench).await;
    let rids = bench.ask("select rid from record where deleted = 0 order by rid", vec![]).await;
    let rids: Vec<i64> = rids.iter().map(|row| row.int(0).ok().expect("rid")).collect();
    let mut raw = bench.raw().await;
    let mut changes = Vec::new();
    for pair in rids.windows(2) {
        for columns in [&["capsule"][..], &["capsule", "pk"], &["capsule", "pk", "ver", "terms"]] {
            let swap: Vec<String> = columns.iter().map(|column| format!("{column} = o.{column}")).collect();
            let sql = format!(
                "update record set {} from (select * from record where rid in ($1, $2)) as o \
                 where record.rid in ($1, $2) and o.rid <> record.rid",
                swap.join(", ")
            );
            let params = || vec![Param::Int(pair[0]), Param::Int(pair[1])];
            assert!(matches!(raw.run(&sql, params()).await, Ok(2)));
            let (refused, _) = judge("swapped records", &before, &look(&bench).await);
            assert!(refused > 0, "swapping {columns:?} shows");
            assert!(matches!(raw.run(&sql, params()).await, Ok(2)));
        }
        // The versions of two resources change owners.
        let exchange = [(pair[0], -1), (pair[1], pair[0]), (-1, pair[1])];
        for _ in 0..2 {
            for (from, to) in exchange {
                let sql = "update record_version set rid = $1 where rid = $2";
                assert!(raw.run(sql, vec![Param::Int(to), Param::Int(from)]).await.is_ok_and(|rows| rows > 0));
            }
            let (refused, less) = judge("exchanged versions", &before, &look(&bench).await);
            changes.push((refused, less));
        }
        let back = changes.pop();
        assert!(changes.pop().is_some_and(|(refused, _)| refused > 0) && back == Some((0, 0)));
    }
    raw.close().await;
    assert!(look(&bench).await == before, "everything was put back");
}

/// The record row of an earlier day is put back, with or without the version that followed.
async fn rolled_back_rows_show(bench: Bench) {
    bench.write(&observation("o1", "p1", "1-1", 5.0, "2020-01-01")).await.expect("writes");
    let row = bench.ask("select rid, pk, ver, capsule, terms from record", vec![]).await.remove(0);
    let grant = access::authorize::<Read>(&caller(ALL), type_id("Observation")).expect("granted");
    bench.write(&observation("o1", "p1", "9-9", 6.0, "2021-01-01")).await.expect("writes");
    let mut raw = bench.raw().await;
    let sql = "update record set ver = $1, capsule = $2, terms = $3 where rid = $4";
    let params = vec![
        Param::Int(1),
        Param::Bytes(row.bytes(3).ok().expect("a capsule").to_vec()),
        Param::Ints(row.ints(4).ok().expect("terms")),
        Param::Int(row.int(0).ok().expect("rid")),
    ];
    assert!(matches!(raw.run(sql, params).await, Ok(1)));
    assert_eq!(kind_of(bench.store.find(&grant, "o1").await), Some(Kind::Tampered));
    assert_eq!(kind_of(bench.select(ALL, "Observation", "patient=p1", None).await), Some(Kind::Tampered));
    assert_eq!(kind_of(bench.write(&observation("o1", "p1", "1-1", 7.0, "2022-01-01")).await), Some(Kind::Tampered));
    // A version in the middle, or the last, taken away.
    bench.write(&patient("p9", "A")).await.expect("writes");
    for n in 0..3 {
        bench.write(&patient("p9", &format!("A{n}"))).await.expect("writes");
    }
    let all = access::authorize::<Read>(&caller(ALL), type_id("Patient")).expect("granted");
    let gone = "delete from record_version where ver = $1 and rid = (select rid from record where ver = 4)";
    assert!(matches!(raw.run(gone, vec![Param::Int(2)]).await, Ok(1)));
    assert_eq!(kind_of(bench.store.history(&all, "p9", 10, None, Default::default()).await), Some(Kind::Tampered));
    assert_eq!(kind_of(bench.store.find_version(&all, "p9", 2).await), Some(Kind::Tampered));
    assert!(matches!(bench.store.find(&all, "p9").await, Ok(Found::Current(_))));
    assert!(matches!(raw.run(gone, vec![Param::Int(4)]).await, Ok(1)));
    assert_eq!(kind_of(bench.store.find(&all, "p9").await), Some(Kind::Tampered));
    raw.close().await;
}

async fn a_swapped_compartment_gives_no_wrong_key(bench: Bench) {
    populate(&bench).await;
    let rows = bench.ask("select token, sealed from compartment order by token", vec![]).await;
    let cells: Vec<(Vec<u8>, Vec<u8>)> = rows
        .iter()
        .map(|row| (row.bytes(0).ok().expect("a token").to_vec(), row.bytes(1).ok().expect("sealed").to_vec()))
        .collect();
    assert!(cells.len() >= 3, "two patients and a type");
    let mut raw = bench.raw().await;
    for at in 0..cells.len() {
        let (token, sealed) = &cells[at];
        let other = &cells[(at + 1) % cells.len()].1;
        for new in Cell::Bytes(sealed.clone()).spoiled(&Cell::Bytes(other.clone())) {
            let sql = "update compartment set sealed = $1 where token = $2";
            assert!(matches!(raw.run(sql, vec![new.param(), Param::Bytes(token.clone())]).await, Ok(1)));
            let beside = bench.beside().await;
            let mut refused = 0;
            for id in ["p1", "p2"] {
                let query = parse("Observation", &format!("patient={id}"));
                let grants = Grants::of(&caller(ALL), &query).expect("granted");
                let found = beside.select(&grants, &query, None).await;
                refused += usize::from(kind_of(found) == Some(Kind::Tampered));
                let text = observation("new", id, "1-1", 1.0, "2020-01-01");
                refused += usize::from(kind_of(write(&beside, ALL, &text, NOW).await) == Some(Kind::Tampered));
            }
            let organization = r#"{"resourceType":"Organization","id":"new","name":"Clinic"}"#;
            refused += usize::from(kind_of(write(&beside, ALL, organization, NOW).await) == Some(Kind::Tampered));
            assert!(refused > 0, "compartment {at}");
            assert!(matches!(
                raw.run(sql, vec![Param::Bytes(sealed.clone()), Param::Bytes(token.clone())]).await,
                Ok(1)
            ));
            beside.close().await;
        }
    }
    raw.close().await;
}
