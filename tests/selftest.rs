//! The checks of `phial selftest smart` against a demonstration: every rule of the authorization server that testers assert.

use std::fs;
use std::process::Command;

use serde_json::Value;

use crate::demo::{start_with, wait_ready};
use crate::harness::{Client, free_port};

#[test]
fn a_demonstration_passes_every_check_of_the_authorization_server() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("demo");
    let port = free_port();
    let _server = start_with(&data, port, &[]);
    wait_ready(&Client::new(&format!("http://127.0.0.1:{port}")));
    let (json, html) = (dir.path().join("report.json"), dir.path().join("report.html"));
    let ran = Command::new(env!("CARGO_BIN_EXE_phial"))
        .args(["selftest", "smart", "--data"])
        .arg(&data)
        .arg("--json")
        .arg(&json)
        .arg("--html")
        .arg(&html)
        .env_clear()
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&ran.stdout);
    assert!(ran.status.success(), "{said}\n{}", String::from_utf8_lossy(&ran.stderr));
    let report: Value = serde_json::from_slice(&fs::read(json).unwrap()).unwrap();
    assert!(report["passed"].as_u64() >= Some(50) && report["failed"] == 0, "{report:#}");
    assert!(fs::read_to_string(html).unwrap().contains("<h1>SMART checks</h1>"));
}
