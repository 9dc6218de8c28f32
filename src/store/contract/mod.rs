//! The store contract: one suite of cases, run on SQLite and on PostgreSQL, each with an own data and key database.

mod broad;
mod domain;
mod entries;
mod index;
mod journal;
mod keys;
mod past;
mod references;
mod search;
mod tamper;
mod versions;
mod writes;

use std::sync::Arc;

use tempfile::TempDir;

use super::db::{Conn, Db, Param, Row};
use super::keydb::KeyDb;
use super::{AuditRow, Draft, Found, Position, Receipt, Sealed, Selection, Store, StoreConfig, WrittenHash, postgres};
use crate::access::{self, Caller, Create, Delete, Grants, Read, Update};
use crate::error::{Kind, Result};
use crate::fhir::{Resource, TypeId, definitions, json};
use crate::search::{Query, QueryOptions};
use crate::vault::memory::MemoryRoot;
use crate::vault::{KeyStore, Rid, Vault};
use crate::world::{Instant, World};

const BASE: &str = "http://phial.example/fhir";
const ALL: &str = "system/*.cruds";
/// 2026-11-22T00:00:00Z.
const NOW: Instant = Instant(1_795_305_600_000);

/// Runs the cases of a module on both databases.
macro_rules! on_both {
    ($($case:ident),* $(,)?) => {
        mod sqlite {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() {
                super::$case(super::super::Bench::sqlite().await).await;
            })*
        }
        mod postgres {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() {
                super::$case(super::super::Bench::postgres().await).await;
            })*
        }
    };
}
use on_both;

/// A store on fresh databases.
struct Bench {
    store: Store,
    vault: Vault,
    keys: Arc<KeyDb>,
    root: Arc<MemoryRoot>,
    world: Arc<World>,
    config: StoreConfig,
    _folder: TempDir,
}

impl Bench {
    async fn sqlite() -> Bench {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let url = |name: &str| format!("sqlite:{}/{name}.db", folder.path().display());
        let (data, keys) = (url("data"), url("keys"));
        Bench::open(data, &keys, folder).await
    }

    async fn postgres() -> Bench {
        let folder = tempfile::tempdir().expect("a temporary folder");
        Bench::open(postgres::database(), &postgres::database(), folder).await
    }

    async fn open(url: String, keys: &str, folder: TempDir) -> Bench {
        let keys = KeyDb::open(keys).await.expect("the key database opens");
        let root = Arc::new(MemoryRoot::new());
        let vault = Vault::open(root.clone(), keys.clone()).await.expect("the vault opens");
        let world = Arc::new(World::real());
        world.set_now(NOW);
        let config = StoreConfig { url, base: BASE.to_owned(), readers: 4, lanes: 2, candidates_max: 10_000 };
        let store = Store::open(config.clone(), vault.clone(), world.clone()).await.expect("the store opens");
        Bench { store, vault, keys, root, world, config, _folder: folder }
    }

    /// A second server: own caches, own lanes, same databases.
    async fn beside(&self) -> Store {
        let keys: Arc<dyn KeyStore> = self.keys.clone();
        let vault = Vault::open(self.root.clone(), keys).await.expect("the vault opens");
        Store::open(self.config.clone(), vault, self.world.clone()).await.expect("the store opens")
    }

    /// A connection of a database administrator with bad intentions.
    async fn raw(&self) -> Conn {
        Db::parse(&self.config.url).expect("a url").connect().await.ok().expect("connects")
    }

    async fn ask(&self, sql: &str, params: Vec<Param>) -> Vec<Row> {
        self.raw().await.rows(sql, params).await.map_err(crate::error::Error::from).expect("the query runs")
    }

    async fn count(&self, of: &str) -> i64 {
        let rows = self.ask(&format!("select count(*) from {of}"), Vec::new()).await;
        rows[0].int(0).ok().expect("a number")
    }

    async fn write(&self, text: &str) -> Result<Vec<WrittenHash>> {
        write(&self.store, ALL, text, self.world.now()).await
    }

    async fn erase(&self, kind: &str, id: &str) -> Result<Vec<WrittenHash>> {
        let grant = access::authorize::<Delete>(&caller(ALL), type_id(kind))?;
        let mut tx = self.store.begin();
        let version = tx.current(&grant, id).await?.map_or(1, |current| current.version + 1);
        tx.delete(&grant, type_id(kind), id, version, self.world.now()).await?;
        commit(tx, self.world.now()).await
    }

    /// Content of the current version; None: absent or deleted.
    async fn read(&self, kind: &str, id: &str) -> Result<Option<String>> {
        self.read_as(ALL, kind, id).await
    }

    async fn read_as(&self, scopes: &str, kind: &str, id: &str) -> Result<Option<String>> {
        let grant = access::authorize::<Read>(&caller(scopes), type_id(kind))?;
        match self.store.find(&grant, id).await? {
            Found::Current(sealed) => self.open_content(&sealed).await.map(Some),
            Found::Deleted { .. } | Found::Absent => Ok(None),
        }
    }

    /// As the audit trail does it: an entry that names the version first, then the content.
    async fn open_content(&self, sealed: &Sealed) -> Result<String> {
        let receipt = self.record(vec![(sealed.rid, sealed.header.version)]).await?;
        let content = sealed.open(&receipt, &self.vault).await?;
        Ok(String::from_utf8(content.to_vec()).expect("JSON is UTF-8"))
    }

    async fn record(&self, covers: Vec<(Rid, u32)>) -> Result<Receipt> {
        self.store.append(AuditRow { covers, ..entry(self.world.now()) }).await
    }

    async fn select(&self, scopes: &str, kind: &str, query: &str, after: Option<Position>) -> Result<Selection> {
        let query = parse(kind, query);
        let grants = Grants::of(&caller(scopes), &query)?;
        self.store.select(&grants, &query, after).await
    }

    /// The ids of all matches, page by page.
    async fn ids(&self, scopes: &str, kind: &str, query: &str) -> Result<Vec<String>> {
        let mut ids = Vec::new();
        let mut after = None;
        loop {
            let page = self.select(scopes, kind, query, after).await?;
            ids.extend(page.matches.iter().map(|sealed| sealed.header.id.clone()));
            after = page.next;
            if after.is_none() {
                return Ok(ids);
            }
        }
    }
}

fn type_id(name: &str) -> TypeId {
    definitions().type_id(name).expect("a type of R4")
}

fn caller(scopes: &str) -> Caller {
    Caller::stand_in("client", scopes, BASE)
}

fn parse(kind: &str, query: &str) -> Query {
    let pair = |part: &str| {
        let (name, value) = part.split_once('=').expect("name=value");
        (name.to_owned(), value.to_owned())
    };
    let pairs: Vec<(String, String)> = query.split('&').filter(|part| !part.is_empty()).map(pair).collect();
    let options = QueryOptions {
        lenient: false,
        base: BASE.to_owned(),
        count_default: 7,
        count_max: 1000,
        now: NOW,
        customs: Default::default(),
    };
    Query::parse(type_id(kind), &pairs, &options).unwrap_or_else(|error| panic!("{query}: {error}"))
}

fn resource(text: &str) -> Resource {
    let node = json::parse(text.as_bytes()).expect("JSON of a test");
    Resource::check(node).unwrap_or_else(|error| panic!("{error}: {text}"))
}

fn entry(at: Instant) -> AuditRow {
    static NUMBER: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
    let number = NUMBER.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    AuditRow {
        at,
        month: 2026 * 12 + 10,
        entry: format!("entry-{number}").into_bytes().into(),
        terms: vec![1, (number % 5) as i64 + 10],
        covers: Vec::new(),
    }
}

async fn commit(tx: super::Tx, at: Instant) -> Result<Vec<WrittenHash>> {
    let sealed = tx.seal().await?;
    let written = sealed.written().to_vec();
    sealed.commit(entry(at)).await?;
    Ok(written)
}

/// Creates or updates one resource, whatever is there.
async fn write(store: &Store, scopes: &str, text: &str, at: Instant) -> Result<Vec<WrittenHash>> {
    let mut tx = store.begin();
    put(&mut tx, scopes, text, at).await?;
    commit(tx, at).await
}

async fn put(tx: &mut super::Tx, scopes: &str, text: &str, at: Instant) -> Result<()> {
    let mut resource = resource(text);
    let id = resource.id().expect("an id").to_owned();
    let update = access::authorize::<Update>(&caller(scopes), resource.kind())?;
    let version = tx.current(&update, &id).await?.map_or(1, |current| current.version + 1);
    resource.stamp(&id, version, at);
    let rules = crate::domain::Rules { mrn_system: "urn:test:mrn", mrn_next: Some(1) };
    let domain = match resource.type_name() {
        // Without a number of its own: what is read back is what was sent.
        "Patient" if resource.node().get("identifier").is_none() => vec![crate::domain::DomainRow {
            table: "patient",
            fields: Default::default(),
            unique: Vec::new(),
            raise: None,
        }],
        _ => crate::domain::apply(&mut resource, None, &rules)?,
    };
    let draft = Draft { resource, version, at, domain, claims: Vec::new() };
    if version == 1 {
        let create = access::authorize::<Create>(&caller(scopes), update.kind())?;
        tx.put(&create, draft).await.map(drop)
    } else {
        tx.put(&update, draft).await.map(drop)
    }
}

fn kind_of<T>(result: Result<T>) -> Option<Kind> {
    result.err().map(|error| error.kind)
}

fn patient(id: &str, family: &str) -> String {
    format!(
        r#"{{"resourceType":"Patient","id":"{id}","name":[{{"family":"{family}","given":["Ann"]}}],"gender":"female","birthDate":"1970-03-0{}"}}"#,
        family.len() % 9 + 1
    )
}

fn observation(id: &str, patient: &str, code: &str, value: f64, date: &str) -> String {
    format!(
        r#"{{"resourceType":"Observation","id":"{id}","status":"final","category":[{{"coding":[{{"system":"http://terminology.hl7.org/CodeSystem/observation-category","code":"laboratory"}}]}}],"code":{{"coding":[{{"system":"http://loinc.org","code":"{code}"}}]}},"subject":{{"reference":"Patient/{patient}"}},"effectiveDateTime":"{date}","valueQuantity":{{"value":{value},"unit":"mg","system":"http://unitsofmeasure.org","code":"mg"}}}}"#
    )
}
