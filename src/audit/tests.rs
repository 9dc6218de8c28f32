//! The trail over a real store: record first, disclose second; reading entries back; tampering is named.

use std::sync::Arc;

use serde_json::{Value as Json, json};
use sqlx::Connection;
use sqlx::sqlite::SqliteConnection;

use super::*;
use crate::access::{Caller, Create, Grants, Read, Update, Who, authorize};
use crate::audit::reading::own_identifiers;
use crate::error::{Kind, Result};
use crate::fhir::{Resource, TypeId, definitions};
use crate::search::{Matcher, Query, QueryOptions, View, capsule, values};
use crate::store::{Count, Draft, Found, Position, Sealed, Store, StoreConfig, postgres};
use crate::vault::{Vault, memory};
use crate::world::{Instant, World};

const BASE: &str = "https://phial.example/fhir";
const NOW: Instant = Instant(1_800_000_000_000);

pub struct Bench {
    pub trail: Trail,
    pub store: Store,
    world: Arc<World>,
    caller: Caller,
    path: std::path::PathBuf,
    _dir: tempfile::TempDir,
}

fn kind(name: &str) -> TypeId {
    definitions().type_id(name).unwrap()
}

async fn bench() -> Bench {
    bench_on(None).await
}

/// Over SQLite, or the database of this address.
async fn bench_on(url: Option<String>) -> Bench {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("phial.db");
    let world = Arc::new(World::held(NOW, 11));
    let vault: Vault = memory::vault();
    let config = StoreConfig {
        url: url.unwrap_or_else(|| format!("sqlite:{}", path.display())),
        base: BASE.into(),
        readers: 2,
        lanes: 1,
        candidates_max: 10_000,
    };
    let store = Store::open(config, vault.clone(), world.clone()).await.unwrap();
    let trail = Trail::new(store.clone(), vault, world.clone());
    let caller = Caller::stand_in("client-1", "system/*.cruds", BASE);
    Bench { trail, store, world, caller, path, _dir: dir }
}

impl Bench {
    fn tick(&self) -> Instant {
        let now = self.world.now().plus_ms(60_000);
        self.world.set_now(now);
        now
    }

    fn event(&self, what: What, of: Option<&str>) -> Event {
        let request = Request {
            id: "r-1".into(),
            address: "192.0.2.7".into(),
            raw: "GET /fhir/x".into(),
            host: "phial.example".into(),
        };
        let event = Event::new(self.world.now(), what, request);
        Event { who: Some(self.caller.who().clone()), kind: of.map(kind), ..event }
    }

    /// Writes a version and gives it back as it was let out.
    async fn put(&self, node: Json, version: u32) -> Result<Vec<u8>> {
        let at = self.tick();
        let id = node["id"].as_str().unwrap().to_owned();
        let mut resource = Resource::check(node).unwrap();
        resource.stamp(&id, version, at);
        let mut tx = self.store.begin();
        let draft = Draft { resource: resource.clone(), version, at, domain: Vec::new(), claims: Vec::new() };
        let of = resource.type_name();
        if version == 1 {
            tx.put(&authorize::<Create>(&self.caller, resource.kind())?, draft).await?;
        } else {
            let grant = authorize::<Update>(&self.caller, resource.kind())?;
            tx.current(&grant, &id).await?;
            tx.put(&grant, draft).await?;
        }
        let what = if version == 1 { What::Create } else { What::Update };
        let (mut written, _) = self.trail.commit(self.event(what, Some(of)), tx, vec![resource], vec![]).await?;
        let released = written.pop().unwrap();
        assert_eq!((released.version(), released.last_updated(), released.id()), (version, at, id.as_str()));
        Ok(released.bytes().to_vec())
    }

    async fn found(&self, of: &str, id: &str) -> Sealed {
        let grant = authorize::<Read>(&self.caller, kind(of)).unwrap();
        match self.store.find(&grant, id).await.unwrap() {
            Found::Current(sealed) => sealed,
            _ => panic!("{of}/{id} is not there"),
        }
    }

    async fn disclosed(&self, of: &str, id: &str) -> Vec<u8> {
        self.tick();
        let sealed = self.found(of, id).await;
        let released = self.trail.disclose(self.event(What::Read, Some(of)), vec![sealed]).await.unwrap();
        released[0].bytes().to_vec()
    }

    fn query(&self, pairs: &[(&str, &str)]) -> Query {
        let pairs: Vec<_> = pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let options = QueryOptions {
            lenient: false,
            base: BASE.into(),
            count_default: 100,
            count_max: 1000,
            now: self.world.now(),
            customs: Default::default(),
        };
        let mut query = Query::parse(kind("AuditEvent"), &pairs, &options).unwrap_or_else(|e| panic!("{pairs:?}: {e}"));
        own_identifiers(&mut query);
        query
    }

    async fn page(&self, caller: &Caller, query: &Query, after: Option<Position>) -> Result<AuditPage> {
        let grants = Grants::of(caller, query)?;
        // Recorded as a system search, so that tests can leave the readings themselves out.
        let event = Event { touched: vec![], ..self.event(What::SearchSystem, Some("AuditEvent")) };
        self.trail.search(event, &grants, query, after).await
    }

    async fn search(&self, pairs: &[(&str, &str)]) -> Vec<Json> {
        let page = self.page(&self.caller, &self.query(pairs), None).await.unwrap_or_else(|e| panic!("{pairs:?}: {e}"));
        assert!(page.next.is_none());
        page.matches.iter().map(|one| serde_json::from_slice(one.bytes()).unwrap()).collect()
    }

    /// What is sent to the database behind the server's back.
    async fn tamper(&self, sql: &'static str) {
        // What lies in the journal is out of reach.
        self.trail.store.audit_heads().await.unwrap();
        let mut connection = SqliteConnection::connect(&format!("sqlite:{}", self.path.display())).await.unwrap();
        let mut touched = 0;
        // Terms reach their index a moment after the entry.
        for _ in 0..100 {
            touched = sqlx::query(sql).execute(&mut connection).await.unwrap().rows_affected();
            if touched > 0 {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
        assert!(touched > 0, "{sql} changed nothing");
        connection.close().await.unwrap();
    }

    async fn flaws(&self) -> Vec<Flaw> {
        let report = verify(&self.trail).await.unwrap();
        let mut flaws: Vec<Flaw> = report.counts.keys().copied().collect();
        flaws.sort();
        assert_eq!(flaws.is_empty(), report.to_string().contains("everything verifies"));
        flaws
    }
}

fn patient(id: &str) -> Json {
    json!({ "resourceType": "Patient", "id": id, "identifier": [{ "system": "urn:mrn", "value": format!("M-{id}") }] })
}

fn observation(id: &str, patient: &str) -> Json {
    json!({
        "resourceType": "Observation", "id": id, "status": "final",
        "code": { "text": "pulse" }, "subject": { "reference": format!("Patient/{patient}") }
    })
}

fn ids(events: &[Json]) -> Vec<&str> {
    events.iter().map(|event| event["id"].as_str().unwrap()).collect()
}

fn subtypes(events: &[Json]) -> Vec<&str> {
    events.iter().map(|event| event["subtype"][0]["code"].as_str().unwrap()).collect()
}

/// Two patients, writes, reads, a search, a refusal and an AuditEvent of a client's own.
async fn filled() -> Bench {
    fill(bench().await).await
}

async fn fill(bench: Bench) -> Bench {
    for id in ["p1", "p2"] {
        bench.put(patient(id), 1).await.unwrap();
        bench.put(observation(&format!("o-{id}"), id), 1).await.unwrap();
    }
    bench.put(observation("o-p1", "p1"), 2).await.unwrap();
    bench.disclosed("Patient", "p1").await;
    bench.disclosed("Observation", "o-p2").await;
    bench.tick();
    let found = vec![bench.found("Observation", "o-p1").await, bench.found("Observation", "o-p2").await];
    bench.trail.disclose(bench.event(What::SearchType, Some("Observation")), found).await.unwrap();
    bench.tick();
    let user = Who { user: Some("dr-1".into()), client_id: "client-2".into(), ..(**bench.caller.who()).clone() };
    let refused = Event {
        outcome: Outcome::Minor,
        reason: Some("refused".into()),
        who: Some(user.into()),
        ..bench.event(What::Read, Some("Patient"))
    };
    bench.trail.record(refused).await.unwrap();
    let own = json!({
        "resourceType": "AuditEvent", "id": "own-1",
        "type": { "system": "http://dicom.nema.org/resources/ontology/DCM", "code": "110114" },
        "action": "E", "recorded": "2027-01-15T08:04:30Z", "outcome": "0",
        "agent": [{ "requestor": true, "who": { "identifier": { "value": "device-9" } } }],
        "source": { "observer": { "display": "elsewhere" } },
        "entity": [{ "what": { "reference": "Patient/p1" } }]
    });
    bench.put(own, 1).await.unwrap();
    bench
}

#[tokio::test]
async fn content_leaves_only_after_its_entry_is_durable() {
    let bench = bench().await;
    let written = bench.put(patient("p1"), 1).await.unwrap();
    assert_eq!(bench.disclosed("Patient", "p1").await, written);
    let rows = bench.store.audit_scan(&[], 0..=i32::MAX, None, true, 10).await.unwrap();
    let (_, newest) = bench.trail.opened(&rows[0], &[]).await.unwrap().remove(0);
    assert_eq!((&*newest.what, &*newest.touched[0].1), ("read", "p1"));
    assert_eq!(newest.patients, ["p1"]);

    let sealed = bench.found("Patient", "p1").await;
    bench.store.close().await;
    let error = bench.trail.disclose(bench.event(What::Read, None), vec![sealed]).await.err().unwrap();
    assert_eq!(error.kind, Kind::Audit);
    assert_eq!(bench.trail.record(bench.event(What::Read, None)).await.err().unwrap().kind, Kind::Audit);
}

#[tokio::test]
async fn nothing_is_given_back_that_the_transaction_did_not_write() {
    let bench = bench().await;
    bench.put(patient("p1"), 1).await.unwrap();
    let mut other = Resource::check(patient("p9")).unwrap();
    other.stamp("p9", 1, NOW);
    let tx = bench.store.begin();
    let result = bench.trail.commit(bench.event(What::Create, None), tx, vec![other], vec![]).await;
    assert_eq!(result.err().unwrap().kind, Kind::Internal);
}

#[tokio::test]
async fn an_update_names_its_version_and_its_patient() {
    let bench = bench().await;
    bench.put(patient("p1"), 1).await.unwrap();
    bench.put(observation("o", "p1"), 1).await.unwrap();
    bench.put(observation("o", "p1"), 2).await.unwrap();
    let events = bench.search(&[("entity", "Observation/o")]).await;
    assert_eq!(subtypes(&events), ["update", "create"]);
    assert_eq!(events[0]["entity"][0]["what"]["reference"], "Observation/o/_history/2");
    assert_eq!(events[0]["entity"][1]["what"]["reference"], "Patient/p1");
    assert!(events[0]["meta"]["profile"][0].as_str().unwrap().ends_with(".PatientUpdate"));
}

/// The oracle: whatever narrows, a search finds what the matcher finds among all AuditEvents, newest first.
#[tokio::test]
async fn searches_find_what_the_matcher_finds_among_all() {
    searched(filled().await).await;
}

#[tokio::test]
async fn searches_find_the_same_on_postgres_and_it_verifies() {
    let bench = fill(bench_on(Some(postgres::database())).await).await;
    let report = verify(&bench.trail).await.unwrap();
    assert!(report.is_clean(), "{report}");
    searched(bench).await;
}

async fn searched(bench: Bench) {
    // What these searches themselves put on record lies beyond.
    let until = format!("lt{}", bench.tick().to_fhir());
    let all = bench.search(&[("date", &until)]).await;
    assert_eq!(all.len(), 12, "{:?}", subtypes(&all[1..]));
    assert!(all.windows(2).all(|two| two[0]["recorded"].as_str() >= two[1]["recorded"].as_str()));
    let first = ids(&all)[5].to_owned();
    let day = "2027-01-15T08:03:00Z";
    let cases: Vec<(Vec<(&str, String)>, bool)> = vec![
        (vec![("patient", "Patient/p1".into())], true),
        (vec![("patient", "p2".into())], true),
        (vec![("patient", "Patient/nobody".into())], false),
        (vec![("patient", "p1,p2".into())], true),
        (vec![("entity", "Observation/o-p1".into())], true),
        (vec![("entity", "Patient/p1".into())], true),
        (vec![("entity", "Observation/o-p1,Patient/p2".into())], true),
        (vec![("entity", format!("{BASE}/Observation/o-p2"))], true),
        (vec![("agent:identifier", "client-1".into())], true),
        (vec![("agent:identifier", "client-2".into())], true),
        (vec![("agent:identifier", "dr-1".into())], true),
        (vec![("agent:identifier", "https://phial.example|dr-1".into())], true),
        (vec![("agent:identifier", "https://phial.example|client-1".into())], false),
        (vec![("agent.identifier", "client-1".into())], true),
        (vec![("agent.identifier", "device-9".into())], true),
        (vec![("agent-name", "client-2".into())], true),
        (vec![("source:identifier", "phial.example".into())], true),
        (vec![("source.identifier", "phial.example".into())], true),
        (vec![("address", "192.0.2.7".into())], true),
        (vec![("action", "C".into())], true),
        (vec![("action", "U".into()), ("patient", "p1".into())], true),
        (vec![("action:not", "C".into())], true),
        (vec![("outcome", "4".into())], true),
        (vec![("outcome", "4,8,12".into())], true),
        (vec![("outcome", "0".into())], true),
        (vec![("outcome", "0,4".into())], true),
        (vec![("type", "rest".into())], true),
        (vec![("type", "110114".into())], true),
        (vec![("subtype", "http://hl7.org/fhir/restful-interaction|search-type".into())], true),
        (vec![("subtype", "create,update".into())], true),
        (vec![("entity-type", "http://terminology.hl7.org/CodeSystem/audit-entity-type|1".into())], true),
        (vec![("entity-role", "24".into())], true),
        (vec![("policy", "urn:ietf:params:oauth:jti:test-token".into())], true),
        (vec![("date", format!("ge{day}"))], true),
        (vec![("date", format!("lt{day}"))], true),
        (vec![("date", format!("gt{day}")), ("date", "lt2027-01-15T08:06:00Z".into())], true),
        (vec![("date", "2027-01".into())], true),
        (vec![("date", "2026-12,2027-02".into())], false),
        (vec![("date", "lt2000".into())], false),
        (vec![("_lastUpdated", format!("ge{day}"))], true),
        (vec![("_id", first)], true),
        (vec![("_id", "own-1".into())], true),
        (vec![("patient.identifier", "urn:mrn|M-p2".into())], true),
        (vec![("patient.identifier", "urn:mrn|none".into())], false),
        (vec![("patient:missing", "true".into())], true),
    ];
    for (case, some) in cases {
        let mut pairs: Vec<(&str, &str)> = case.iter().map(|(name, value)| (*name, value.as_str())).collect();
        pairs.push(("date", &until));
        let found = bench.search(&pairs).await;
        let expected = oracle(&bench, &all, &case);
        assert_eq!(ids(&found), expected, "{case:?}");
        assert_eq!(!found.is_empty(), some, "{case:?}");
    }
}

/// Ids of those of `all` that meet the case; a chain through the patient is taken by hand.
fn oracle(bench: &Bench, all: &[Json], case: &[(&str, String)]) -> Vec<String> {
    let mut pairs = Vec::new();
    for (name, value) in case {
        pairs.push(match (*name, value.as_str()) {
            ("patient.identifier", "urn:mrn|M-p2") => ("patient", "Patient/p2"),
            ("patient.identifier", _) => ("patient", "Patient/none"),
            (name, value) => (name, value),
        });
    }
    let query = bench.query(&pairs);
    let matcher = Matcher::new(query.criteria).unwrap();
    let meets = |event: &&Json| {
        let resource = Resource::check((*event).clone()).unwrap();
        let at: jiff::Timestamp = event["meta"]["lastUpdated"].as_str().unwrap().parse().unwrap();
        let values = values::values(&resource, 1, Instant(at.as_millisecond()), BASE).unwrap();
        let bytes = capsule::encode(&values);
        matcher.matches(&View::new(&bytes).unwrap()).unwrap()
    };
    all.iter().filter(meets).map(|event| event["id"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn entries_of_all_months_are_found() {
    let bench = bench().await;
    bench.put(patient("p1"), 1).await.unwrap();
    for day in [20, 60, 400] {
        bench.world.set_now(NOW.plus_ms(day * 86_400_000));
        bench.disclosed("Patient", "p1").await;
    }
    let recorded = |events: Vec<Json>| -> Vec<String> {
        events.iter().map(|event| event["recorded"].as_str().unwrap()[..7].to_owned()).collect()
    };
    let by = [("patient", "p1"), ("_sort", "date"), ("subtype", "read,create")];
    assert_eq!(recorded(bench.search(&by).await), ["2027-01", "2027-02", "2027-03", "2028-02"]);
    for (date, expected) in [
        ("2027-02", &["2027-02"][..]),
        ("ge2027-03", &["2027-03", "2028-02"]),
        ("lt2027-02", &["2027-01"]),
        ("2027", &["2027-01", "2027-02", "2027-03"]),
        ("2027-04", &[]),
    ] {
        assert_eq!(recorded(bench.search(&[by[0], by[1], by[2], ("date", date)]).await), expected, "{date}");
    }
    assert!(verify(&bench.trail).await.unwrap().is_clean());
}

#[tokio::test]
async fn pages_neither_repeat_nor_leave_out() {
    let bench = filled().await;
    let until = format!("lt{}", bench.tick().to_fhir());
    for sort in ["-date", "date", "-_lastUpdated", "_lastUpdated"] {
        let whole = bench.search(&[("date", &until), ("_sort", sort)]).await;
        for count in ["1", "2", "5", "11"] {
            let query = bench.query(&[("date", &until), ("_sort", sort), ("_count", count), ("_total", "accurate")]);
            let (mut after, mut seen) = (None, Vec::new());
            loop {
                let page = bench.page(&bench.caller, &query, after).await.unwrap();
                assert_eq!(page.total, Some(Count::Exact(12)));
                assert!(page.matches.len() <= count.parse().unwrap());
                seen.extend(page.matches.iter().map(|one| one.id().to_owned()));
                after = page.next;
                if after.is_none() {
                    break;
                }
            }
            assert_eq!(seen, ids(&whole), "{sort}, {count} a page");
        }
    }
    let counted = bench.page(&bench.caller, &bench.query(&[("_summary", "count"), ("patient", "p1")]), None).await;
    let counted = counted.ok().unwrap();
    assert!(counted.matches.is_empty());
    assert_eq!(counted.total, Some(Count::Exact(bench.search(&[("patient", "p1")]).await.len() as u64)));
}

#[tokio::test]
async fn a_search_ends_its_page_at_the_limit_and_says_so_when_that_gave_nothing() {
    let mut bench = filled().await;
    let until = format!("lt{}", bench.tick().to_fhir());
    let whole = bench.search(&[("date", &until)]).await;
    bench.trail.scanned_max = 5;
    let query = bench.query(&[("date", &until), ("_count", "100")]);
    let (mut after, mut seen, mut pages) = (None, Vec::new(), 0);
    loop {
        let page = bench.page(&bench.caller, &query, after).await.unwrap();
        assert!(!page.matches.is_empty());
        seen.extend(page.matches.iter().map(|one| one.id().to_owned()));
        pages += 1;
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(seen, ids(&whole));
    assert!(pages > 2);
    for pairs in [&[("_total", "accurate")][..], &[("_summary", "count")], &[("subtype", "patch")]] {
        let error = bench.page(&bench.caller, &bench.query(pairs), None).await.err().unwrap();
        assert_eq!(error.kind, Kind::TooCostly, "{pairs:?}");
        assert!(error.to_string().contains("more than 5 audit events"));
    }
}

#[tokio::test]
async fn an_entry_of_a_bulk_write_is_read_page_by_page() {
    let bench = bench().await;
    let touched = (0..1_500).map(|n| Touched {
        kind: kind("Observation"),
        id: format!("o{n}"),
        version: Some(1),
        patients: vec![format!("p{}", n % 500)],
        what: What::Create,
    });
    let event = Event { touched: touched.collect(), ..bench.event(What::Transaction, None) };
    bench.trail.record(event).await.unwrap();
    bench.tick();
    let query = bench.query(&[("action", "C"), ("_count", "3")]);
    let mut after = None;
    for page in 0..3 {
        let found = bench.page(&bench.caller, &query, after).await.unwrap();
        let numbers: Vec<&str> = found.matches.iter().map(|one| one.id().rsplit_once('-').unwrap().1).collect();
        let expected: Vec<String> = (1..=3).map(|n| (page * 3 + n).to_string()).collect();
        assert_eq!(numbers, expected);
        after = found.next;
    }
    assert_eq!(bench.search(&[("patient", "p400")]).await.len(), 3);
    assert_eq!(bench.search(&[("entity", "Observation/o1234"), ("patient", "p234")]).await.len(), 1);
}

#[tokio::test]
async fn what_cannot_be_honoured_is_said() {
    let bench = bench().await;
    let result = bench.page(&bench.caller, &bench.query(&[("_sort", "action")]), None).await;
    assert_eq!(result.err().unwrap().kind, Kind::Unsupported);
    let forged = Position { key: vec![9; 20], rid: crate::vault::Rid(1) };
    assert_eq!(bench.page(&bench.caller, &bench.query(&[]), Some(forged)).await.err().unwrap().kind, Kind::Invalid);
}

#[tokio::test]
async fn a_grant_shows_its_rows_only() {
    let bench = filled().await;
    let reader = Caller::stand_in("auditor", "system/AuditEvent.rs?action=R", BASE);
    let page = bench.page(&reader, &bench.query(&[]), None).await.unwrap();
    let events: Vec<Json> = page.matches.iter().map(|one| serde_json::from_slice(one.bytes()).unwrap()).collect();
    assert_eq!(subtypes(&events), ["read", "read", "read"]);
    let created = bench.search(&[("action", "C")]).await;
    let grant = authorize::<Read>(&reader, kind("AuditEvent")).unwrap();
    let read = |id: String| {
        let (bench, grant) = (&bench, &grant);
        async move { bench.trail.read(bench.event(What::Read, Some("AuditEvent")), grant, &id).await.unwrap() }
    };
    assert!(read(ids(&created)[0].to_owned()).await.is_none());
    assert!(read("own-1".into()).await.is_none());
    let shown = read(ids(&events)[0].to_owned()).await.unwrap();
    assert_eq!(serde_json::from_slice::<Json>(shown.bytes()).unwrap(), events[0]);
    for absent in ["nothing", "0000000000000001-0-0-0-1", "-1", "x-0"] {
        assert!(read(absent.into()).await.is_none());
    }
    let none = Caller::stand_in("other", "system/Patient.cruds", BASE);
    assert_eq!(bench.page(&none, &bench.query(&[]), None).await.err().unwrap().kind, Kind::Forbidden);
}

#[tokio::test]
async fn reading_the_trail_is_itself_on_record() {
    let bench = filled().await;
    let seen = bench.search(&[("patient", "p2")]).await;
    bench.tick();
    let again = bench.search(&[("entity", &format!("AuditEvent/{}", ids(&seen)[0]))]).await;
    assert_eq!(again.len(), 1);
    assert_eq!(again[0]["subtype"][0]["code"], "search-system");
}

#[tokio::test]
async fn an_untouched_trail_verifies() {
    let bench = filled().await;
    let report = verify(&bench.trail).await.unwrap();
    assert!(report.is_clean(), "{report}");
    assert_eq!((report.versions, report.resources), (6, 5));
    assert!(report.entries >= 10 && report.chains == 1);
}

#[tokio::test]
async fn every_tampering_is_named() {
    let cases: [(&str, &[Flaw]); 14] = [
        ("delete from audit where seq = 3", &[Flaw::Gap, Flaw::Unrecorded]),
        ("delete from audit where seq = 0", &[Flaw::Gap, Flaw::Unrecorded]),
        ("update audit set sealed = (select sealed from audit where seq = 5) where seq = 6", &[Flaw::Entry]),
        ("update audit set commitment = zeroblob(32) where seq = 6", &[Flaw::Link, Flaw::Entry]),
        ("delete from audit where seq = (select max(seq) from audit)", &[Flaw::Gap, Flaw::Unrecorded]),
        ("update audit set commitment = substr(commitment, 1, 31) where seq = 6", &[Flaw::Link, Flaw::Entry]),
        ("update audit set prev = x'' where seq = 6", &[Flaw::Link]),
        (
            "update audit set seq = case seq when 5 then -6 else -5 end where seq in (5, 6)",
            &[Flaw::Gap, Flaw::Link, Flaw::Entry],
        ),
        ("update audit set instance = instance + 1", &[Flaw::Link, Flaw::Entry, Flaw::Stranger, Flaw::Unrecorded]),
        ("delete from audit_term where term = (select max(term) from audit_term)", &[Flaw::Hidden]),
        ("update record_version set sealed = zeroblob(length(sealed)) where ver = 2", &[Flaw::Version]),
        ("delete from record_version where ver = 2", &[Flaw::Lost]),
        (
            "insert into record_version (rid, ver, pk, head, sealed) \
             select rid, 9, pk, head, sealed from record_version where ver = 2",
            &[Flaw::Unrecorded],
        ),
        ("update record set ver = 1 where ver = 2", &[Flaw::RolledBack]),
    ];
    for (sql, expected) in cases {
        let bench = filled().await;
        bench.tamper(sql).await;
        assert_eq!(bench.flaws().await, expected, "{sql}");
    }
}
