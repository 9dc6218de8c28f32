//! The journal of accesses on SQLite: what was answered is durable although the database does not hold it yet.

use std::fs;
use std::path::{Path, PathBuf};

use super::super::chain_hash;
use super::*;
use crate::world::hex;

/// A copy of everything that lies beside the database, as a crash would leave it at this moment.
struct Crashed {
    folder: TempDir,
    config: StoreConfig,
}

impl Bench {
    fn crash(&self) -> Crashed {
        let folder = tempfile::tempdir().expect("a temporary folder");
        for file in fs::read_dir(self._folder.path()).expect("a folder") {
            let file = file.expect("a file");
            fs::copy(file.path(), folder.path().join(file.file_name())).expect("copies");
        }
        let config = StoreConfig { url: format!("sqlite:{}/data.db", folder.path().display()), ..self.config.clone() };
        Crashed { folder, config }
    }

    async fn after(&self, crashed: &Crashed) -> Store {
        Store::open(crashed.config.clone(), self.vault.clone(), self.world.clone()).await.expect("opens")
    }

    async fn append(&self, text: &str) -> Result<Receipt> {
        self.store.append(AuditRow { entry: text.as_bytes().to_vec().into(), terms: vec![7], ..entry(NOW) }).await
    }
}

fn journals(folder: &Path) -> Vec<PathBuf> {
    let files = fs::read_dir(folder).expect("a folder").map(|file| file.expect("a file").path());
    files.filter(|path| path.to_string_lossy().contains("-trail")).collect()
}

/// What the trail says, in order, over all chains, each of which is whole.
async fn trail(store: &Store) -> Vec<String> {
    let mut texts = Vec::new();
    let mut place: Option<(i64, u64, [u8; 32])> = None;
    for segment in store.audit_walk(None, 1000).await.expect("walks") {
        let (instance, seq) = (segment.place.instance, segment.place.seq);
        let (next, prev) = match place {
            Some((of, last, hash)) if of == instance => (last + 1, hash),
            _ => (0, [0; 32]),
        };
        assert_eq!((seq, segment.prev), (next, prev), "the chain is whole");
        place = Some((instance, seq, chain_hash(instance, 0, seq, &segment.prev, &segment.commitment)));
        for entry in store.audit_open(&segment).await.expect("opens") {
            texts.push(String::from_utf8(entry.bytes.to_vec()).expect("text"));
        }
    }
    texts
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn accesses_outlive_a_crash_and_reach_the_database_with_the_next_start() {
    let bench = Bench::sqlite().await;
    for text in ["a", "b", "c"] {
        bench.append(text).await.expect("appends");
    }
    assert_eq!(bench.count("audit").await, 0, "the journal alone has them");
    let crashed = bench.crash();
    let next = bench.after(&crashed).await;
    assert_eq!(trail(&next).await, ["a", "b", "c"]);
    assert_eq!(next.audit_scan(&[vec![7]], 0..=i32::MAX, None, true, 9).await.expect("scans").len(), 3);
    assert!(journals(crashed.folder.path()).is_empty(), "it is of no use any more");
    next.close().await;

    // Some moved, one with a write, some not; the start of the file is written over by then.
    assert_eq!(bench.store.audit_heads().await.expect("settles").len(), 1);
    bench.append("d").await.expect("appends");
    bench.write(&patient("p", "Held")).await.expect("writes");
    bench.append("e").await.expect("appends");
    let crashed = bench.crash();
    let next = bench.after(&crashed).await;
    let texts = trail(&next).await;
    assert_eq!(
        (texts.len(), &texts[..4], &texts[5..]),
        (6, &["a", "b", "c", "d"].map(String::from)[..], &["e".to_owned()][..])
    );
    next.close().await;
    bench.store.close().await;
    assert!(journals(bench._folder.path()).is_empty());
    assert_eq!(bench.count("audit").await, 6);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn accesses_move_into_the_database_by_themselves() {
    let bench = Bench::sqlite().await;
    bench.append("a").await.expect("appends");
    for _ in 0..100 {
        if bench.count("audit").await == 1 {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    assert_eq!(bench.count("audit").await, 1);
    // One that is too large for the journal takes those before it along.
    bench.append("b").await.expect("appends");
    let mut noise = vec![0; 5 << 20];
    crate::world::secret(&mut noise);
    bench.append(&hex(&noise)).await.expect("appends");
    assert_eq!(bench.count("audit").await, 3);
    assert_eq!(trail(&bench.store).await.iter().map(String::len).collect::<Vec<_>>(), [1, 1, 10 << 20]);
    bench.store.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_that_was_cut_off_ends_the_journal_and_the_one_of_a_living_server_is_left_alone() {
    let bench = Bench::sqlite().await;
    for text in ["a", "b", "c"] {
        bench.append(text).await.expect("appends");
    }
    let crashed = bench.crash();
    let journal = &journals(crashed.folder.path())[0];
    let mut bytes = fs::read(journal).expect("reads");
    let last = bytes.iter().rposition(|byte| *byte != 0).expect("a record");
    bytes[last] ^= 1;
    fs::write(journal, bytes).expect("writes");
    let next = bench.after(&crashed).await;
    assert_eq!(trail(&next).await, ["a", "b"]);
    next.close().await;

    let beside = bench.beside().await;
    assert_eq!(journals(bench._folder.path()).len(), 1, "its server lives");
    beside.close().await;
    assert_eq!(trail(&bench.store).await, ["a", "b", "c"]);
    bench.store.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_server_sees_what_was_answered_before_it_asked() {
    let bench = Bench::sqlite().await;
    let beside = bench.beside().await;
    for text in ["a", "b", "c"] {
        bench.append(text).await.expect("appends");
    }
    assert_eq!(bench.count("audit").await, 0, "the journal alone has them");
    assert_eq!(beside.audit_scan(&[vec![7]], 0..=i32::MAX, None, true, 9).await.expect("scans").len(), 3);
    bench.append("d").await.expect("appends");
    assert_eq!(trail(&beside).await, ["a", "b", "c", "d"]);
    bench.append("e").await.expect("appends");
    assert_eq!(beside.audit_heads().await.expect("heads").iter().map(|head| head.2).collect::<Vec<_>>(), [4]);

    // Of one that has crashed since, nobody moves them but who asks.
    let crashed = bench.crash();
    bench.append("f").await.expect("appends");
    let journal = &journals(bench._folder.path())[0];
    let next = bench.after(&crashed).await;
    fs::copy(journal, crashed.folder.path().join(journal.file_name().expect("a name"))).expect("copies");
    assert_eq!(trail(&next).await, ["a", "b", "c", "d", "e", "f"]);
    assert!(journals(crashed.folder.path()).is_empty());

    // One that cannot move them is not passed over in silence.
    bench.append("g").await.expect("appends");
    bench.ask("create trigger refuse before insert on audit begin select raise(abort, 'refused'); end", vec![]).await;
    bench.append("h").await.expect("appends");
    assert_eq!(kind_of(beside.audit_heads().await), Some(Kind::Unavailable));
    bench.ask("drop trigger refuse", vec![]).await;
    for store in [next, beside, bench.store] {
        store.close().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_takes_nothing_ends_the_answers_and_loses_none() {
    let bench = Bench::sqlite().await;
    bench.append("a").await.expect("appends");
    bench.ask("create trigger refuse before insert on audit begin select raise(abort, 'refused'); end", vec![]).await;
    let mut kept = vec!["a".to_owned()];
    let mut n = 0;
    let refused = loop {
        n += 1;
        match bench.append(&format!("during {n}")).await {
            Ok(_) => kept.push(format!("during {n}")),
            Err(error) => break error,
        }
        assert!(n < 1000, "it goes on without the database");
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    };
    assert_eq!(refused.kind, Kind::Audit);
    for _ in 0..5 {
        assert_eq!(kind_of(bench.append("refused").await), Some(Kind::Audit));
        assert!(bench.write(&patient("p", "Held")).await.is_err());
        assert!(bench.store.audit_heads().await.is_err(), "a trail without its end is not shown");
    }
    let crashed = bench.crash();
    bench.ask("drop trigger refuse", vec![]).await;
    bench.append("after").await.expect("appends");
    assert_eq!(trail(&bench.store).await, [&kept[..], &["after".to_owned()]].concat());
    bench.store.close().await;
    // A server that dies in that state leaves them to the next one.
    let mut conn = Db::parse(&crashed.config.url).expect("a url").connect().await.ok().expect("connects");
    conn.run("drop trigger refuse", vec![]).await.ok().expect("drops");
    let next = bench.after(&crashed).await;
    assert_eq!(trail(&next).await, kept);
    next.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_journal_the_database_takes_them_at_once() {
    let bench = Bench::sqlite().await;
    // Where it would be made there is something else.
    let taken = bench._folder.path().join(format!("data.db-trail.new-{:016x}", bench.store.instance()));
    fs::create_dir(&taken).expect("makes a folder");
    bench.append("a").await.expect("appends");
    assert_eq!(bench.count("audit").await, 1);
    fs::remove_dir(&taken).expect("removes it");
    bench.append("b").await.expect("appends");
    assert_eq!(bench.count("audit").await, 1, "the journal has it");
    assert_eq!(trail(&bench.store).await, ["a", "b"]);
    bench.store.close().await;
}

/// What comes in while older entries are being moved is in neither of the two for a moment.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_between_a_move_and_what_comes_in_meanwhile() {
    let bench = Bench::sqlite().await;
    let append = async |writer: usize| {
        for n in 0..60 {
            let mut noise = vec![0; 10_000];
            crate::world::secret(&mut noise);
            bench.append(&format!("{writer}-{n} {}", hex(&noise))).await.expect("appends");
        }
    };
    futures_util::future::join_all((0..8).map(append)).await;
    assert!(bench.count("audit").await > 0, "much more than may be held was moved meanwhile");
    let texts = trail(&bench.store).await;
    let mut named: Vec<&str> = texts.iter().filter_map(|text| text.split(' ').next()).collect();
    named.sort_unstable();
    named.dedup();
    assert_eq!((texts.len(), named.len()), (480, 480));
    bench.store.close().await;
}
