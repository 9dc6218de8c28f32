//! `phial demo` from outside: an interrupted first start is completed by the next, credentials work and are private,
//! and `phial serve` wants nothing to do with them.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::harness::{Client, free_port};

const PATIENTS: &str = "12";

pub struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Running {
    pub fn pid(&self) -> u32 {
        self.0.id()
    }
}

fn phial(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_phial"));
    command.args(arguments).env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
    command
}

fn start(data: &Path, port: u16) -> Running {
    start_with(data, port, &[])
}

pub fn start_with(data: &Path, port: u16, further: &[&str]) -> Running {
    start_set(data, port, further, &[("PHIAL_BASE_URL", format!("http://127.0.0.1:{port}/fhir"))])
}

/// With these further variables, under the address that it listens on.
pub fn start_listening(data: &Path, port: u16, set: &[(&str, String)]) -> Running {
    start_set(data, port, &[], set)
}

/// With these further arguments and variables.
pub fn start_set(data: &Path, port: u16, further: &[&str], set: &[(&str, String)]) -> Running {
    let listen = format!("127.0.0.1:{port}");
    let mut command = phial(&["demo", "--data", data.to_str().unwrap(), "--listen", &listen, "--patients", PATIENTS]);
    command.args(further).envs(set.iter().map(|(name, value)| (name, value)));
    Running(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
}

pub fn wait_ready(client: &Client) {
    let since = Instant::now();
    while !client.get("/readyz").is_ok_and(|reply| reply.status == 200) {
        assert!(since.elapsed() < Duration::from_secs(120), "the demonstration does not start");
        sleep(Duration::from_millis(20));
    }
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn an_interrupted_start_is_completed_and_the_credentials_work() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("demo");
    let port = free_port();
    // Killed somewhere in the first load: as soon as the credentials are written.
    let first = start(&data, port);
    let since = Instant::now();
    while !data.join("demo.json").exists() {
        assert!(since.elapsed() < Duration::from_secs(60), "no credentials");
        sleep(Duration::from_millis(2));
    }
    drop(first);
    assert!(fs::read_to_string(data.join("population.json")).unwrap().contains("\"complete\": false"));

    let second = start(&data, port);
    let mut client = Client::new(&format!("http://127.0.0.1:{port}"));
    wait_ready(&client);
    for (name, wanted) in
        [("", 0o700), ("demo.json", 0o600), ("keyring", 0o600), ("phial.db", 0o600), ("keys.db", 0o600)]
    {
        assert_eq!(mode(&data.join(name)), wanted, "{name}");
    }
    let described: Value = serde_json::from_slice(&fs::read(data.join("demo.json")).unwrap()).unwrap();
    assert_eq!(described["base_url"], format!("http://127.0.0.1:{port}/fhir"));
    assert_eq!(described["clients"][0]["kind"], "backend");
    assert_eq!(described["patients"].as_array().unwrap().len().to_string(), PATIENTS);
    let token = phial(&["token", "--data", data.to_str().unwrap()]).output().unwrap();
    assert!(token.status.success(), "{}", String::from_utf8_lossy(&token.stderr));
    client.token = Some(String::from_utf8(token.stdout).unwrap().trim().to_owned());
    let total = |query: &str| client.get(&format!("/fhir/{query}&_summary=count")).unwrap().json()["total"].clone();
    assert_eq!(total("Patient?_total=accurate").to_string(), PATIENTS);
    assert!(total("Appointment?status=booked").as_u64() > Some(0));
    for id in described["patients"].as_array().unwrap() {
        let reply = client.get(&format!("/fhir/Patient/{}", id.as_str().unwrap())).unwrap();
        assert_eq!(reply.status, 200);
        // Loaded once, whatever happened on the way.
        assert_eq!(reply.json()["meta"]["versionId"], "1");
    }
    drop(second);
    refuses_to_serve(&data);

    // The next start just serves: same data, same credentials.
    let port = free_port();
    let _third = start(&data, port);
    wait_ready(&Client::new(&format!("http://127.0.0.1:{port}")));
    let again: Value = serde_json::from_slice(&fs::read(data.join("demo.json")).unwrap()).unwrap();
    assert_eq!(again["clients"][0]["jwk"], described["clients"][0]["jwk"]);
    assert_eq!(again["patients"], described["patients"]);
    assert_eq!(again["base_url"], format!("http://127.0.0.1:{port}/fhir"));
}

/// Another command of the program, on the data of a demonstration.
pub fn on_data(data: &Path, arguments: &[&str]) -> Output {
    let url = |name: &str| format!("sqlite:{}", data.join(name).display());
    phial(arguments)
        .env("PHIAL_LISTEN", format!("127.0.0.1:{}", free_port()))
        .env("PHIAL_DATABASE_URL", url("phial.db"))
        .env("PHIAL_KEY_DATABASE_URL", url("keys.db"))
        .env("PHIAL_KEYRING", data.join("keyring"))
        .output()
        .unwrap()
}

fn refuses_to_serve(data: &Path) {
    let served = on_data(data, &["serve"]);
    assert!(!served.status.success(), "phial serve must not start on a demonstration's data");
    assert!(String::from_utf8_lossy(&served.stderr).contains("phial demo"));
}
