//! Marked PHI goes in through every door, also through requests that fail. Then whatever the server leaves lying around
//! is searched for the marks: database files, write-ahead logs, temporary files, logs, metrics, error bodies, what the
//! import prints; in the forms a careless program would leave them in. Keys and tokens are looked for in the same places.

use std::fs;
use std::path::{Path, PathBuf};

use aws_lc_rs::digest;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::harness::{Client, Data, Engine, Request};

/// Every marked text begins with this; nothing else in the world does.
const MARK: &str = "qzvxkwpj";
/// A date and a number that stand nowhere else: they cannot carry the mark.
const BIRTH: &str = "1931-07-13";
const VALUE: &str = "48271.93051";
/// Decompressed bytes that are looked at behind one magic number.
const INFLATED_MAX: u64 = 4 << 20;

fn marked(what: &str) -> String {
    format!("{MARK}{what}")
}

#[test]
fn nothing_marked_is_left_in_the_clear_on_sqlite() {
    canary(Engine::Sqlite);
}

#[test]
fn nothing_marked_is_left_in_the_clear_on_postgres() {
    canary(Engine::Postgres);
}

fn canary(engine: Engine) {
    let data = Data::new(engine);
    let server = data.serve();
    let token = server.client.token.clone().expect("the server gave one");
    let mut heard = Vec::new();
    store(&server.client);
    ask(&server.client, &mut heard);
    fail(&server.client, &mut heard);
    let metrics = server.client.get("/metrics").unwrap();
    assert_eq!(metrics.status, 200);
    heard.push(("GET /metrics".to_owned(), metrics.body));
    // Once while it runs (write-ahead logs, temporary files), once when it has gone.
    let scanner = Scanner::new();
    for (what, bytes) in &heard {
        scanner.clean(what, bytes);
    }
    let running = scanner.files(&data.files());
    assert!(server.terminate().success());
    let printed = import(&data);
    scanner.clean("what the import printed", &printed);
    let stopped = scanner.files(&data.files());
    assert!(running.bytes > 1 << 16 && stopped.bytes > 1 << 16, "the scan saw the database");
    assert_eq!(running.findings.len() + stopped.findings.len(), 0, "{:#?}\n{:#?}", running.findings, stopped.findings);
    let secrets = Scanner::of_secrets(&data, &token);
    secrets.clean("what the import printed", &printed);
    let kept = secrets.files(&data.files());
    let elsewhere: Vec<&String> = kept.findings.iter().filter(|found| !at_home(&data, found)).collect();
    assert_eq!(elsewhere, Vec::<&String>::new());
    assert!(kept.findings.len() > elsewhere.len(), "the scan saw the secrets where they belong");
}

/// Whether a secret was found in the file that is there to hold it.
fn at_home(data: &Data, finding: &str) -> bool {
    ["keyring", "client.json"].iter().any(|name| finding.starts_with(&format!("{}: ", data.path(name).display())))
}

/// Imports a good file and bad ones from a folder that is not the server's; gives everything that was printed.
fn import(data: &Data) -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let entry = |resource: Value| {
        let url = format!("{}/{}", resource["resourceType"].as_str().unwrap(), resource["id"].as_str().unwrap());
        json!({"resource": resource, "request": {"method": "PUT", "url": url}})
    };
    let bundle = |entries: Vec<Value>| json!({"resourceType": "Bundle", "type": "transaction", "entry": entries});
    let good = bundle(vec![entry(patient("imported")), entry(observation("imported-o"))]);
    let mut wrong = patient("refused");
    wrong["birthDate"] = json!(marked("nodate"));
    let lines = format!("{}\n{wrong}\n{{\"broken\": \"{}\n", observation("line"), marked("broken"));
    let xml = format!("<Patient xmlns=\"http://hl7.org/fhir\"><birthDate value=\"{}\"/></Patient>", marked("xmldate"));
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    std::io::Write::write_all(&mut packed, patient("packed").to_string().as_bytes()).unwrap();
    let files: [(&str, Vec<u8>); 5] = [
        ("good.json", good.to_string().into_bytes()),
        ("bad.json", bundle(vec![entry(patient("kept-out")), entry(wrong)]).to_string().into_bytes()),
        ("lines.ndjson", lines.into_bytes()),
        ("bad.xml", xml.into_bytes()),
        ("packed.json.gz", packed.finish().unwrap()),
    ];
    for (name, bytes) in files {
        fs::write(folder.path().join(name), bytes).unwrap();
    }
    let out = data.run(&["import", folder.path().to_str().unwrap()]);
    let printed = [out.stdout, out.stderr].concat();
    assert!(!out.status.success(), "bad files are reported: {}", String::from_utf8_lossy(&printed));
    printed
}

fn put(client: &Client, kind: &str, resource: Value) {
    let path = format!("/fhir/{kind}/{}", resource["id"].as_str().unwrap());
    let reply = client.put_json(&path, &resource).unwrap();
    assert!(matches!(reply.status, 200 | 201), "{path}: {}", reply.text());
}

/// Resources whose every field kind is marked.
fn store(client: &Client) {
    let put = |kind: &str, resource: Value| put(client, kind, resource);
    put("Patient", patient("one"));
    put("Patient", patient("one-again"));
    let mut changed = patient("one");
    changed["name"][0]["family"] = json!(marked("married"));
    put("Patient", changed);
    put("Observation", observation("o1"));
    put(
        "Condition",
        json!({
            "resourceType": "Condition", "id": marked("cond"), "subject": {"reference": format!("Patient/{}", marked("one"))},
            "code": {"coding": [{"system": "http://snomed.info/sct", "code": marked("code"), "display": marked("display")}],
                     "text": marked("codetext")},
            "onsetString": marked("onset"), "note": [{"text": marked("note")}],
        }),
    );
    let text = STANDARD.encode(format!("A note about {} of the family", marked("inline")));
    put(
        "DocumentReference",
        json!({
            "resourceType": "DocumentReference", "id": marked("doc"), "status": "current",
            "subject": {"reference": format!("Patient/{}", marked("one")), "display": marked("subject")},
            "description": marked("description"),
            "content": [{"attachment": {"contentType": "text/plain", "data": text, "title": marked("title")}}],
        }),
    );
    put(
        "Binary",
        json!({"resourceType": "Binary", "id": marked("bin"), "contentType": "text/plain",
                         "data": STANDARD.encode(marked("binary"))}),
    );
    put(
        "Appointment",
        json!({
            "resourceType": "Appointment", "id": marked("appt"), "status": "booked", "description": marked("reason"),
            "start": "2027-03-04T10:00:00Z", "end": "2027-03-04T10:20:00Z", "comment": marked("comment"),
            "participant": [{"actor": {"reference": format!("Patient/{}", marked("one"))}, "status": "accepted"}],
        }),
    );
    store_unmapped(client);
    store_by_bundle(client);
}

/// Types with no mapping of their own.
fn store_unmapped(client: &Client) {
    let put = |kind: &str, resource: Value| put(client, kind, resource);
    put(
        "QuestionnaireResponse",
        json!({
            "resourceType": "QuestionnaireResponse", "id": marked("qr"), "status": "completed",
            "questionnaire": format!("http://example.org/{}", marked("canonical")),
            "item": [{"linkId": "1", "text": marked("question"), "answer": [{"valueString": marked("answer")}]}],
        }),
    );
    put(
        "RelatedPerson",
        json!({
            "resourceType": "RelatedPerson", "id": marked("rel"), "patient": {"reference": format!("Patient/{}", marked("one"))},
            "name": [{"family": marked("kin")}], "birthDate": BIRTH,
        }),
    );
}

/// A transaction with a conditional create, and a deletion.
fn store_by_bundle(client: &Client) {
    let created = client
        .post_json(
            "/fhir",
            &json!({"resourceType": "Bundle", "type": "transaction", "entry": [
                {"fullUrl": "urn:uuid:3b0d2a52-8a3b-4f0a-9d4e-6a8a0f2b7c11", "resource": patient("two"),
                 "request": {"method": "PUT", "url": format!("Patient/{}", marked("two"))}},
                {"resource": observation("o2"), "request": {"method": "POST", "url": "Observation",
                 "ifNoneExist": format!("identifier=urn:x|{}", marked("none"))}},
            ]}),
        )
        .unwrap();
    assert_eq!(created.status, 200, "{}", created.text());
    let gone = client.send(&Request {
        method: "DELETE",
        path: &format!("/fhir/Patient/{}", marked("one-again")),
        body: None,
        headers: Vec::new(),
    });
    assert!(matches!(gone.unwrap().status, 200 | 204));
}

fn patient(id: &str) -> Value {
    json!({
        "resourceType": "Patient", "id": marked(id),
        "text": {"status": "generated", "div": format!("<div xmlns=\"http://www.w3.org/1999/xhtml\">{}</div>", marked("narrative"))},
        "extension": [{"url": format!("http://example.org/{}", marked("url")), "valueString": marked("extension")}],
        "identifier": [{"system": "http://hl7.org/fhir/sid/us-ssn", "value": marked("ssn")},
                       {"system": format!("urn:x:{}", marked("system")), "value": marked("mrn")}],
        "name": [{"family": marked("family"), "given": [marked("given"), marked("middle")], "text": marked("nametext")}],
        "telecom": [{"system": "phone", "value": marked("phone")},
                    {"system": "email", "value": format!("{}@example.org", marked("mail"))}],
        "birthDate": BIRTH,
        "_birthDate": {"extension": [{"url": "http://example.org/x", "valueString": marked("primitive")}]},
        "address": [{"line": [marked("line")], "city": marked("city"), "postalCode": marked("zip")}],
        "contact": [{"name": {"family": marked("contact")}}],
        "contained": [{"resourceType": "Organization", "id": "c", "name": marked("contained")}],
    })
}

fn observation(id: &str) -> Value {
    let value: Value = serde_json::from_str(VALUE).unwrap();
    json!({
        "resourceType": "Observation", "id": marked(id), "status": "final",
        "identifier": [{"system": "urn:x", "value": marked("obsid")}],
        "code": {"coding": [{"system": "http://loinc.org", "code": "2345-7"}], "text": marked("obscode")},
        "subject": {"reference": format!("Patient/{}", marked("one"))},
        "valueQuantity": {"value": value, "unit": marked("unit")},
    })
}

/// Questions that name marked values; each must be answered.
fn ask(client: &Client, heard: &mut Vec<(String, Vec<u8>)>) {
    let one = marked("one");
    for query in [
        format!("Patient/{one}"),
        format!("Patient/{one}/_history"),
        format!("Patient/{one}/_history/1"),
        format!("Patient?family={}", marked("family")),
        format!("Patient?name:contains={}", marked("given")),
        format!("Patient?identifier=http://hl7.org/fhir/sid/us-ssn|{}", marked("ssn")).replace('|', "%7C"),
        format!("Patient?phone={}&birthdate={BIRTH}", marked("phone")),
        format!("Patient?address-city:exact={}&_sort=family", marked("city")),
        format!("Patient?_id={one}&_revinclude=Observation:subject"),
        format!("Observation?patient={one}&value-quantity=gt{VALUE}"),
        format!("Observation?subject:Patient.family={}", marked("married")),
        format!("Condition?code={}", marked("code")),
        format!("AuditEvent?patient={one}"),
    ] {
        let reply = client.get(&format!("/fhir/{query}")).unwrap();
        assert_eq!(reply.status, 200, "{query}: {}", reply.text());
    }
    let form = format!("family={}&birthdate={BIRTH}", marked("family"));
    let headers = vec![("Content-Type", "application/x-www-form-urlencoded")];
    let path = "/fhir/Patient/_search";
    let reply = client.send(&Request { method: "POST", path, body: Some(form.as_bytes()), headers }).unwrap();
    assert_eq!(reply.status, 200, "{}", reply.text());
    heard.extend(
        reply.headers.into_iter().map(|(name, value)| (format!("header {name} of a POST search"), value.into_bytes())),
    );
}

/// Requests that must fail. What was in their bodies must not come back; what the address said may.
fn fail(client: &Client, heard: &mut Vec<(String, Vec<u8>)>) {
    let json = "application/fhir+json";
    let body = |resource: &Value| resource.to_string();
    let mut unknown = patient("bad");
    // Its name comes back in the FHIRPath of the fault, its value must not.
    unknown["unknownElement"] = json!(marked("inside"));
    let mut wrong = patient("bad");
    wrong["birthDate"] = json!(marked("nodate"));
    wrong["active"] = json!(marked("noboolean"));
    wrong["gender"] = json!({"no": marked("nogender")});
    let broken = format!("{{\"resourceType\": \"Patient\", \"name\": \"{}", marked("broken"));
    let xml = format!("<Patient xmlns=\"http://hl7.org/fhir\"><birthDate value=\"{}\"/></Patient>", marked("xmldate"));
    let cut = format!("<Patient xmlns=\"http://hl7.org/fhir\"><name><family value=\"{}\">", marked("xmlcut"));
    let transaction = json!({"resourceType": "Bundle", "type": "transaction", "entry": [
        {"resource": patient("never"), "request": {"method": "PUT", "url": format!("Patient/{}", marked("never"))}},
        {"resource": wrong, "request": {"method": "PUT", "url": format!("Patient/{}", marked("bad"))}},
    ]});
    let same = format!("/fhir/Patient/{}", marked("bad"));
    let patch = json!([{"op": "add", "path": "/nothing/there", "value": marked("patched")}]);
    let cases: Vec<(&str, &str, String, String)> = vec![
        ("PUT", json, "/fhir/Patient/other".into(), body(&patient("another"))),
        ("PUT", json, "/fhir/Patient/p".into(), body(&unknown)),
        ("POST", json, "/fhir/Patient".into(), body(&wrong)),
        ("POST", json, "/fhir/Patient".into(), broken),
        ("POST", json, "/fhir/Observation".into(), body(&patient("type"))),
        ("POST", "application/fhir+xml", "/fhir/Patient".into(), xml),
        ("POST", "application/fhir+xml", "/fhir/Patient".into(), cut),
        ("POST", json, "/fhir".into(), transaction.to_string()),
        ("POST", "text/plain", "/fhir/Patient".into(), marked("plain")),
        ("GET", json, same, String::new()),
        ("GET", json, format!("/fhir/{}", marked("type")), String::new()),
        ("GET", json, format!("/fhir/Patient?{}=1", marked("param")), String::new()),
        ("GET", json, format!("/fhir/Patient?birthdate={}", marked("nodate")), String::new()),
        ("GET", json, format!("/fhir/Patient?_cursor={}", marked("cursor")), String::new()),
        ("GET", json, format!("/{}", marked("elsewhere")), String::new()),
        ("DELETE", json, format!("/fhir/Patient?{}=1", marked("conditional")), String::new()),
        ("PATCH", "application/json-patch+json", "/fhir/Patient/p".into(), patch.to_string()),
    ];
    for (method, media, path, text) in cases {
        let bytes = (!text.is_empty()).then_some(text.as_bytes());
        let reply =
            client.send(&Request { method, path: &path, body: bytes, headers: vec![("Content-Type", media)] }).unwrap();
        assert!((400..500).contains(&reply.status), "{method} {path}: {} {}", reply.status, reply.text());
        if !path.contains(MARK) {
            heard.push((format!("the answer to {method} {path}"), reply.body));
        }
    }
    let mut stranger = client.clone();
    stranger.token = Some(marked("token"));
    let reply = stranger.get("/fhir/Patient").unwrap();
    assert_eq!(reply.status, 401);
    heard.push(("the answer to a false token".into(), reply.body));
}

/// Looks for the marks in every form.
struct Scanner {
    /// (form, bytes), by their first byte.
    needles: Vec<Vec<(String, Vec<u8>)>>,
}

#[derive(Default)]
struct Scan {
    bytes: u64,
    findings: Vec<String>,
}

impl Scanner {
    fn new() -> Scanner {
        let mut scanner = Scanner { needles: vec![Vec::new(); 256] };
        for plain in [MARK, BIRTH, VALUE] {
            let mut forms = vec![("plain".to_owned(), plain.as_bytes().to_vec())];
            forms.push(("capitals".into(), plain.to_uppercase().into_bytes()));
            forms.push(("hex".into(), hex(plain.as_bytes()).into_bytes()));
            forms.push(("HEX".into(), hex(plain.as_bytes()).to_uppercase().into_bytes()));
            forms.push(("UTF-16".into(), plain.encode_utf16().flat_map(u16::to_le_bytes).collect()));
            forms.push(("backwards".into(), plain.bytes().rev().collect()));
            for shift in 0..3 {
                // What of the base64 text does not hang on the neighbours.
                let text = STANDARD.encode([&b"\0\0"[..shift], plain.as_bytes()].concat());
                let from = [0, 2, 3][shift];
                let whole = (shift + plain.len()) / 3 * 4;
                forms.push((format!("base64 at {shift}"), text.as_bytes()[from..whole].to_vec()));
            }
            for (form, bytes) in forms {
                scanner.add(format!("{plain}, {form}"), bytes);
            }
        }
        // A bare digest of a low-entropy value is as good as the value.
        for value in [BIRTH.to_owned(), marked("one"), marked("ssn"), marked("family"), marked("mrn")] {
            for (name, algorithm) in [("SHA-256", &digest::SHA256), ("SHA-1", &digest::SHA1_FOR_LEGACY_USE_ONLY)] {
                let sum = digest::digest(algorithm, value.as_bytes());
                scanner.add(format!("{name} of {value}"), sum.as_ref()[..8].to_vec());
                scanner.add(format!("{name} of {value} in hex"), hex(&sum.as_ref()[..8]).into_bytes());
            }
        }
        scanner
    }

    /// Root key, the client's private key, and an access token.
    fn of_secrets(data: &Data, token: &str) -> Scanner {
        let mut scanner = Scanner { needles: vec![Vec::new(); 256] };
        let keyring = fs::read_to_string(data.path("keyring")).unwrap();
        let root = keyring.lines().find_map(|line| line.strip_prefix("key ")).expect("a keyring has a key").to_owned();
        let client: Value = serde_json::from_slice(&fs::read(data.path("client.json")).unwrap()).unwrap();
        let private = client["jwk"]["d"].as_str().expect("the client has a private key").to_owned();
        let raw = |text: &str| {
            let text = text.trim_end_matches('=').replace('+', "-").replace('/', "_");
            base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(text).unwrap()
        };
        for (name, text) in [("root key", root), ("private key", private)] {
            let bytes = raw(&text);
            scanner.add(format!("{name} in hex"), hex(&bytes).into_bytes());
            scanner.add(
                format!("{name} in base64url"),
                base64::engine::general_purpose::URL_SAFE.encode(&bytes).trim_end_matches('=').as_bytes().to_vec(),
            );
            scanner.add(format!("{name} as it is"), bytes);
            scanner.add(format!("{name} as kept"), text.into_bytes());
        }
        scanner.add("access token".to_owned(), token.as_bytes().to_vec());
        let signature = token.rsplit('.').next().expect("a token has a signature").to_owned();
        scanner.add("signature of the access token".to_owned(), signature.into_bytes());
        scanner
    }

    fn add(&mut self, form: String, bytes: Vec<u8>) {
        assert!(bytes.len() >= 6, "{form} is too short to be telling");
        self.needles[usize::from(bytes[0])].push((form, bytes));
    }

    /// The forms found, with where.
    fn find(&self, bytes: &[u8]) -> Vec<String> {
        let mut found = Vec::new();
        for (at, byte) in bytes.iter().enumerate() {
            for (form, needle) in &self.needles[usize::from(*byte)] {
                if bytes[at..].starts_with(needle) {
                    found.push(format!("{form} at byte {at}"));
                }
            }
        }
        found
    }

    fn clean(&self, what: &str, bytes: &[u8]) {
        assert_eq!(self.find(bytes), Vec::<String>::new(), "{what}: {}", String::from_utf8_lossy(bytes));
    }

    fn files(&self, roots: &[PathBuf]) -> Scan {
        let mut scan = Scan::default();
        for root in roots {
            self.walk(root, &mut scan);
        }
        scan
    }

    fn walk(&self, path: &Path, scan: &mut Scan) {
        if path.is_dir() {
            for entry in fs::read_dir(path).into_iter().flatten().flatten() {
                self.walk(&entry.path(), scan);
            }
            return;
        }
        // The server may remove a temporary file between listing and reading.
        let Ok(bytes) = fs::read(path) else { return };
        scan.bytes += bytes.len() as u64;
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        for form in self.find(name.as_bytes()).into_iter().chain(self.find(&bytes)).chain(self.compressed(&bytes)) {
            scan.findings.push(format!("{}: {form}", path.display()));
        }
    }

    /// What lies behind zstd and gzip magic numbers.
    fn compressed(&self, bytes: &[u8]) -> Vec<String> {
        use std::io::Read;
        let mut found = Vec::new();
        for at in 0..bytes.len().saturating_sub(4) {
            let mut plain = Vec::new();
            // Random bytes look like a beginning too: what comes out before the fault is looked at.
            let _ = match bytes[at..at + 4] {
                [0x28, 0xB5, 0x2F, 0xFD] => match zstd::Decoder::new(&bytes[at..]) {
                    Ok(decoder) => decoder.take(INFLATED_MAX).read_to_end(&mut plain),
                    Err(_) => continue,
                },
                [0x1F, 0x8B, 8, _] => {
                    flate2::read::GzDecoder::new(&bytes[at..]).take(INFLATED_MAX).read_to_end(&mut plain)
                }
                _ => continue,
            };
            found.extend(self.find(&plain).into_iter().map(|form| format!("{form}, compressed at byte {at}")));
        }
        found
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A canary test that sees nothing is worth nothing.
#[test]
fn the_scanner_sees_every_form_it_looks_for() {
    let scanner = Scanner::new();
    let name = marked("family");
    let dir = tempfile::tempdir().unwrap();
    let forms: Vec<(&str, Vec<u8>)> = vec![
        ("plain", format!("xx{name}yy").into_bytes()),
        ("capitals", name.to_uppercase().into_bytes()),
        ("hex", hex(name.as_bytes()).into_bytes()),
        ("utf16", name.encode_utf16().flat_map(u16::to_le_bytes).collect()),
        ("base64-0", STANDARD.encode(&name).into_bytes()),
        ("base64-1", STANDARD.encode(format!("a{name}")).into_bytes()),
        ("base64-2", STANDARD.encode(format!("ab{name}")).into_bytes()),
        ("date", format!("born {BIRTH}.").into_bytes()),
        ("digest", digest::digest(&digest::SHA256, name.as_bytes()).as_ref().to_vec()),
        ("zstd", [b"noise".to_vec(), zstd::encode_all(name.as_bytes(), 3).unwrap()].concat()),
        (&name, Vec::new()),
    ];
    for (file, bytes) in &forms {
        let path = dir.path().join(file);
        fs::write(&path, bytes).unwrap();
        assert!(!scanner.files(&[path]).findings.is_empty(), "{file}");
    }
    scanner.clean("nothing", b"qzvx kwpj 1931-07-14 SGVsbG8gd29ybGQ=");
}
