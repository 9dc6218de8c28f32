//! Kill -9 at random points under load. Afterwards: nothing acknowledged is lost, no transaction is half there, no
//! content was let out without an entry, and the audit chains verify.

use std::collections::{HashMap, HashSet};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::{Client, Data, Engine, Request, Server};

/// Kills of each database in the usual run, and how long it may take on a busy machine before fewer are enough;
/// `PHIAL_KILLS` asks for a number that is kept however long it takes.
const KILLS: usize = 100;
const KILLS_MIN: usize = 20;
const BUDGET: Duration = Duration::from_secs(70);
const WRITERS: u64 = 4;
/// Patients each writer works on, none of them with another writer.
const PATIENTS: u64 = 4;
/// Members of a transaction beside the Patient.
const OBSERVATIONS: u64 = 3;
/// A token lives five minutes.
const TOKEN_EVERY: Duration = Duration::from_secs(200);

/// Answers to writes before the countdown to a kill begins, and how long they are waited for.
const WARM: u64 = 2;
const WARM_MAX: Duration = Duration::from_secs(10);

/// What may be true of one patient and its observations: the last acknowledged state, or one that was under way.
#[derive(Clone, Default)]
struct Ledger {
    /// None: deleted or never there.
    acknowledged: Option<u64>,
    /// Sent, but not answered when the server was killed.
    under_way: Option<Option<u64>>,
}

struct World {
    ledgers: Mutex<HashMap<String, Ledger>>,
    /// Request ids of answers that carried content.
    disclosed: Mutex<HashSet<String>>,
    /// Answers to writes.
    answered: AtomicU64,
    /// Marks each write: the nonce stands in every resource of a transaction.
    nonce: AtomicU64,
    stop: AtomicBool,
}

/// SplitMix64: only the choice of operations and moments hangs on it.
fn draw(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

fn asked() -> Option<usize> {
    std::env::var("PHIAL_KILLS").ok().map(|text| text.parse().expect("PHIAL_KILLS is a number"))
}

#[test]
fn nothing_acknowledged_is_lost_on_sqlite() {
    torture(Engine::Sqlite);
}

#[test]
fn nothing_acknowledged_is_lost_on_postgres() {
    torture(Engine::Postgres);
}

fn torture(engine: Engine) {
    let data = Data::new(engine);
    let world = World {
        ledgers: Mutex::default(),
        disclosed: Mutex::default(),
        answered: AtomicU64::new(0),
        nonce: AtomicU64::new(1),
        stop: AtomicBool::new(false),
    };
    // Another course each time; printed, so that one can be had again.
    let mut seed =
        std::env::var("PHIAL_KILL_SEED").map_or_else(|_| u64::from(std::process::id()), |s| s.parse().unwrap());
    println!("{engine:?}: PHIAL_KILL_SEED={seed}");
    let mut token = (data.serve_token(), Instant::now());
    let since = Instant::now();
    let mut kills = 0;
    while kills < asked().unwrap_or(KILLS) {
        if asked().is_none() && kills >= KILLS_MIN && since.elapsed() > BUDGET {
            break;
        }
        let round = kills;
        kills += 1;
        let mut server = data.serve_with(&token.0);
        if token.1.elapsed() > TOKEN_EVERY {
            token = (data.token(server.port()), Instant::now());
            server.client.token = Some(token.0.clone());
        }
        check(&server, &world, round);
        let pause = Duration::from_micros(2_000 + draw(&mut seed) % 120_000);
        load(server, &world, pause, &mut seed);
    }
    let server = data.serve_with(&data.serve_token());
    check(&server, &world, kills);
    found_by_defined(&server.client, &world);
    audited(&server.client, &world);
    assert!(server.terminate().success());
    let verified = data.run(&["audit", "verify"]);
    let said = String::from_utf8_lossy(&verified.stdout).into_owned();
    assert!(verified.status.success(), "{said}{}", String::from_utf8_lossy(&verified.stderr));
    let nonces = world.nonce.load(Ordering::Relaxed);
    let disclosed = world.disclosed.lock().unwrap().len();
    println!(
        "{engine:?}: {kills} kills, {nonces} requests, {disclosed} disclosures; {}",
        said.trim().replace('\n', "; ")
    );
    let answered = world.answered.load(Ordering::Relaxed);
    assert!(answered > kills as u64 && disclosed > kills / 2, "there was a load to kill under: {answered} answers");
}

/// Writes and reads from several threads until the server is killed.
fn load(server: Server, world: &World, pause: Duration, seed: &mut u64) {
    world.stop.store(false, Ordering::SeqCst);
    std::thread::scope(|scope| {
        for writer in 0..WRITERS {
            let (client, state) = (server.client.clone(), draw(seed));
            scope.spawn(move || write(&client, world, writer, state));
        }
        let client = server.client.clone();
        scope.spawn(move || redefine(&client, world));
        // The first answers of a new process take their time.
        let (before, since) = (world.answered.load(Ordering::Relaxed), Instant::now());
        while world.answered.load(Ordering::Relaxed) < before + WARM && since.elapsed() < WARM_MAX {
            sleep(Duration::from_millis(1));
        }
        sleep(pause);
        // Before the kill: what fails from here on is no fault of the server.
        world.stop.store(true, Ordering::SeqCst);
        server.kill();
    });
}

fn write(client: &Client, world: &World, writer: u64, mut state: u64) {
    loop {
        let id = format!("k{writer}-{}", draw(&mut state) % PATIENTS);
        let done = match draw(&mut state) % 8 {
            0 => delete(client, world, &id),
            1 | 2 => read(client, world, &id),
            3 => search(client, world, &id),
            _ => put(client, world, &id),
        };
        // A broken connection: the server is gone, or it closes one that is idle.
        if !done && world.stop.load(Ordering::SeqCst) {
            return;
        }
    }
}

/// A search parameter of the site over the nonces, in two wordings: each is a parameter of its own, indexed anew.
fn defined(wording: u64) -> Value {
    let expression = ["Observation.code", "Observation.code.where(coding.exists())"][(wording % 2) as usize];
    json!({
        "resourceType": "SearchParameter", "id": "made", "url": "http://kill.example/made", "name": "made",
        "status": "active", "description": "nonce", "code": "made", "base": ["Observation"], "type": "token",
        "expression": expression,
    })
}

fn define(client: &Client, wording: u64) -> Option<u16> {
    client.put_json("/fhir/SearchParameter/made", &defined(wording)).ok().map(|reply| reply.status)
}

/// Changes the parameter while everybody writes, so that its job is killed too.
fn redefine(client: &Client, world: &World) {
    for wording in 0.. {
        match define(client, wording) {
            Some(status) => assert!([200, 201].contains(&status), "{status}"),
            None => return,
        }
        for _ in 0..40 {
            if world.stop.load(Ordering::SeqCst) {
                return;
            }
            sleep(Duration::from_millis(1));
        }
    }
}

/// When the job of the parameter that stands is done, it finds exactly what is there, whoever wrote it and when.
fn found_by_defined(client: &Client, world: &World) {
    // The wording that the last server did not have: nothing is ready yet.
    for wording in 0..2 {
        assert!(define(client, wording).is_some_and(|status| [200, 201].contains(&status)));
    }
    let since = Instant::now();
    loop {
        let status = client.get("/fhir/SearchParameter/made/$status").expect("an answer");
        let told = status.json()["parameter"][1]["valueCode"].clone();
        if told == "ready" {
            break;
        }
        assert!(told == "indexing" && since.elapsed() < Duration::from_secs(120), "{}", status.text());
        sleep(Duration::from_millis(50));
    }
    let mut total = 0;
    for (id, ledger) in world.ledgers.lock().unwrap().iter() {
        let Some(nonce) = ledger.acknowledged else { continue };
        let reply = client.get(&format!("/fhir/Observation?made=urn:nonce%7Cn{nonce}")).expect("an answer");
        assert_eq!(reply.status, 200, "{}", reply.text());
        let entries = reply.json()["entry"].as_array().cloned().unwrap_or_default();
        let mut found: Vec<String> = entries.iter().map(|entry| text(&entry["resource"]["id"])).collect();
        found.sort();
        assert_eq!(found, (0..OBSERVATIONS).map(|n| format!("{id}-{n}")).collect::<Vec<_>>());
        total += found.len();
    }
    let all = client.get("/fhir/Observation?made:missing=false&_summary=count").expect("an answer");
    assert_eq!(all.json()["total"], total, "{}", all.text());
}

/// A transaction of a Patient and its Observations, all with one nonce.
fn put(client: &Client, world: &World, id: &str) -> bool {
    let nonce = world.nonce.fetch_add(1, Ordering::Relaxed);
    let patient = json!({"resourceType": "Patient", "id": id, "name": [{"family": format!("n{nonce}")}]});
    let mut entries = vec![json!({"resource": patient, "request": {"method": "PUT", "url": format!("Patient/{id}")}})];
    for n in 0..OBSERVATIONS {
        let observation = json!({
            "resourceType": "Observation", "id": format!("{id}-{n}"), "status": "final",
            "code": {"coding": [{"system": "urn:nonce", "code": format!("n{nonce}")}]},
            "subject": {"reference": format!("Patient/{id}")},
        });
        let url = format!("Observation/{id}-{n}");
        entries.push(json!({"resource": observation, "request": {"method": "PUT", "url": url}}));
    }
    let bundle = json!({"resourceType": "Bundle", "type": "transaction", "entry": entries});
    under_way(world, id, Some(nonce));
    settle(world, id, client.post_json("/fhir", &bundle).map(|reply| (reply.status, reply.text())), &[200])
}

fn delete(client: &Client, world: &World, id: &str) -> bool {
    let mut entries = vec![json!({"request": {"method": "DELETE", "url": format!("Patient/{id}")}})];
    for n in 0..OBSERVATIONS {
        entries.push(json!({"request": {"method": "DELETE", "url": format!("Observation/{id}-{n}")}}));
    }
    let bundle = json!({"resourceType": "Bundle", "type": "transaction", "entry": entries});
    under_way(world, id, None);
    settle(world, id, client.post_json("/fhir", &bundle).map(|reply| (reply.status, reply.text())), &[200])
}

fn under_way(world: &World, id: &str, to: Option<u64>) {
    world.ledgers.lock().unwrap().entry(id.to_owned()).or_default().under_way = Some(to);
}

/// Takes the answer to a write into the ledger; false when there was none.
fn settle(world: &World, id: &str, answer: Result<(u16, String), ureq::Error>, good: &[u16]) -> bool {
    let mut ledgers = world.ledgers.lock().unwrap();
    let ledger = ledgers.get_mut(id).expect("it was noted before");
    match answer {
        Ok((status, text)) => {
            assert!(good.contains(&status), "{id}: {status} {text}");
            world.answered.fetch_add(1, Ordering::Relaxed);
            ledger.acknowledged = ledger.under_way.take().expect("it is under way");
            true
        }
        // Not known: stays under way. Until this patient has been looked at nothing else is written to it.
        Err(_) => {
            drop(ledgers);
            while !world.stop.load(Ordering::SeqCst) {
                sleep(Duration::from_millis(1));
            }
            false
        }
    }
}

fn read(client: &Client, world: &World, id: &str) -> bool {
    disclosing(client, world, &format!("/fhir/Patient/{id}"))
}

fn search(client: &Client, world: &World, id: &str) -> bool {
    disclosing(client, world, &format!("/fhir/Observation?patient=Patient/{id}"))
}

/// Asks under a request id of its own, which must be in the audit trail if content came back.
fn disclosing(client: &Client, world: &World, path: &str) -> bool {
    let id = format!("read-{}", world.nonce.fetch_add(1, Ordering::Relaxed));
    let headers = vec![("X-Request-Id", id.as_str()), ("Accept", "application/fhir+json")];
    let Ok(reply) = client.send(&Request { method: "GET", path, body: None, headers }) else { return false };
    assert!(matches!(reply.status, 200 | 404 | 410), "{path}: {} {}", reply.status, reply.text());
    if reply.status == 200 {
        world.disclosed.lock().unwrap().insert(id);
    }
    true
}

/// After a restart: every patient is in its acknowledged state or the one that was under way, and its observations
/// with it.
fn check(server: &Server, world: &World, round: usize) {
    let mut ledgers = world.ledgers.lock().unwrap();
    for (id, ledger) in ledgers.iter_mut() {
        let nonce =
            state(&server.client, &format!("/fhir/Patient/{id}"), |patient| text(&patient["name"][0]["family"]));
        let allowed = [Some(ledger.acknowledged), ledger.under_way];
        assert!(
            allowed.contains(&Some(nonce)),
            "round {round}, Patient/{id}: {nonce:?} is there; acknowledged {:?}, under way {:?}",
            ledger.acknowledged,
            ledger.under_way
        );
        for n in 0..OBSERVATIONS {
            let path = format!("/fhir/Observation/{id}-{n}");
            let own = state(&server.client, &path, |one| text(&one["code"]["coding"][0]["code"]));
            assert_eq!(own, nonce, "round {round}, {path}: half a transaction");
        }
        *ledger = Ledger { acknowledged: nonce, under_way: None };
    }
}

fn text(node: &Value) -> String {
    node.as_str().unwrap_or_default().to_owned()
}

/// The nonce of a resource; None when it is deleted or was never there.
fn state(client: &Client, path: &str, nonce: impl Fn(&Value) -> String) -> Option<u64> {
    let reply = client.get(path).expect("the server was ready");
    match reply.status {
        200 => Some(nonce(&reply.json()).trim_start_matches('n').parse().expect("a nonce")),
        404 | 410 => None,
        other => panic!("{path}: {other} {}", reply.text()),
    }
}

/// Every disclosure is on record: its request id stands in an AuditEvent.
fn audited(client: &Client, world: &World) {
    let mut missing = world.disclosed.lock().unwrap().clone();
    let mut next = Some("/fhir/AuditEvent?_count=1000".to_owned());
    while let Some(path) = next {
        let reply = client.get(&path).expect("an answer");
        assert_eq!(reply.status, 200, "{}", reply.text());
        let page = reply.json();
        for entry in page["entry"].as_array().into_iter().flatten() {
            for entity in entry["resource"]["entity"].as_array().into_iter().flatten() {
                missing.remove(entity["what"]["identifier"]["value"].as_str().unwrap_or_default());
            }
        }
        let links = page["link"].as_array().cloned().unwrap_or_default();
        next = links.iter().find(|link| link["relation"] == "next").map(|link| {
            let url = text(&link["url"]);
            url[url.find("/fhir").expect("a link to this server")..].to_owned()
        });
    }
    assert!(missing.is_empty(), "{} disclosures are not on record: {:?}", missing.len(), missing.iter().take(5));
}
