//! What people see: the real pages and the sample app of a demonstration in a headless browser, driven by
//! `conformance/smart/browser.mjs`. Installs Chromium, its driver and the app's library when they are absent; without a
//! network it says so and is skipped.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::demo::{start_set, wait_ready};
use crate::harness::{Client, free_port};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The folder of the npm packages; None when they, or the browser, cannot be had here.
fn tools() -> Option<PathBuf> {
    for script in [&[".ci/npm", "app"][..], &[".ci/browser"]] {
        let ran =
            Command::new("bash").args(script).current_dir(root()).stdin(Stdio::null()).output().expect("bash runs");
        if !ran.status.success() {
            let why = String::from_utf8_lossy(&ran.stderr);
            eprintln!("SKIPPED: the browser test, as {} did not succeed: {}", script[0], why.trim());
            return None;
        }
    }
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from);
    Some(target.join("npm"))
}

/// A file of two identity providers: one that answers, which is the server itself, and one that nobody asks.
fn providers(dir: &Path, issuer: &str) -> String {
    let rules = r#"
        second-factor = { acr = ["gold"], amr = ["otp", "hwk", "mfa"], otherwise = "refused" }
        [[provider.role]]
        claim = "/resource_access/clinical-systems/roles"
        is = ["attending-physicians", "residents", "locum-physicians"]
        role = "PROVIDER"
        fhir-user = "Practitioner/{national_provider_identifier}"
        [[provider.role]]
        claim = "groups"
        is = "front-desk"
        role = "RECEPTIONIST"
    "#;
    let one = |id: &str, name: &str, issuer: &str| {
        format!(
            "[[provider]]\nid = \"{id}\"\nname = \"{name}\"\nissuer = \"{issuer}\"\nclient-id = \"phial\"\n\
             client-secret-file = \"secret\"\n{rules}\n"
        )
    };
    let region = one("region", "Region", "https://login.region.example/realms/hospitals-and-practices/v2.0");
    fs::write(dir.join("secret"), "a quiet secret of thirty-two bytes\n").unwrap();
    let file = dir.join("providers.toml");
    fs::write(&file, one("clinic", "Clinic", issuer) + &region).unwrap();
    file.to_str().unwrap().to_owned()
}

#[test]
fn people_reach_a_record_through_the_pages_and_see_the_right_one() {
    let Some(npm) = tools() else { return };
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("demo");
    let port = free_port();
    let library = npm.join("fhirclient/build/fhir-client.pure.min.js");
    // Passkeys want a name: browsers take this one without https.
    let issuer = format!("http://localhost:{port}");
    let providers = providers(dir.path(), &issuer);
    let set = [("PHIAL_BASE_URL", format!("{issuer}/fhir")), ("PHIAL_IDENTITY_PROVIDERS", providers)];
    let _server = start_set(&data, port, &["--fhirclient", library.to_str().unwrap()], &set);
    wait_ready(&Client::new(&format!("http://127.0.0.1:{port}")));

    let script = root().join("conformance/smart/browser.mjs");
    let ran = Command::new("node").arg(script).arg(&data).arg(&npm).current_dir(root()).output().expect("node runs");
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    let saw: Value = serde_json::from_slice(&ran.stdout).expect("one line of JSON");
    let text = |place: &str| saw.pointer(place).and_then(Value::as_str).unwrap_or_default().to_owned();
    let count = |place: &str| saw.pointer(place).and_then(Value::as_u64).unwrap_or_default();

    assert_eq!(saw["faults"], serde_json::json!([]), "of the pages");
    assert!(text("/wrong").contains("wrong"), "a wrong password is said to be wrong: {}", text("/wrong"));
    for flow in ["standalone", "launch"] {
        let (picked, shown) = (text(&format!("/{flow}/picked")), text(&format!("/{flow}/name")));
        assert!(!picked.is_empty() && same_name(&picked, &shown), "{flow}: {picked} was picked, {shown} is shown");
    }
    for flow in ["standalone", "patient", "launch"] {
        assert!(count(&format!("/{flow}/charts")) >= 4, "{flow}: {saw}");
    }
    assert!(count("/standalone/appointments") > 0, "{saw}");
    // What the patient has unticked the app does not get, and says so.
    assert_eq!(count("/patient/appointments"), 0);
    assert!(text("/patient/denied").contains("not given this app access"), "{saw}");
    assert!(!text("/patient/note").contains("Appointment"), "{saw}");
    assert_eq!(saw["passkey"]["listed"], serde_json::json!(["Laptop", "Second key"]), "{saw}");
    assert_eq!(saw["passkey"]["in"], true, "a passkey logs in: {saw}");
    assert!(text("/passkey/unverified").contains("The browser gave no passkey"), "{saw}");
    assert_eq!(saw["passkey"]["left"], serde_json::json!(["Second key"]), "{saw}");
    assert_eq!(saw["admin"]["over"], true, "a link works once: {saw}");
    assert_eq!(saw["emergency"], serde_json::json!([200, 200]), "the glass is broken: {saw}");
    let under = serde_json::json!(["read", "found by a search"]);
    assert_eq!((&saw["admin"]["under"], text("/admin/finding")), (&under, "Finding: justified".to_owned()), "{saw}");
    assert_eq!(count("/second/codes"), 10, "by keyboard, without script: {saw}");
    assert_eq!(text("/errors/404"), "There is nothing here");
    assert_eq!(text("/errors/405"), "That does not work at this address");
    assert!(text("/plain/said").contains("JavaScript"));
    assert_eq!((saw["plain"]["code"].as_bool(), text("/plain/state")), (Some(true), "s".to_owned()));
}

/// The pages and the app may put the parts of a name in another order.
fn same_name(a: &str, b: &str) -> bool {
    let parts = |name: &str| {
        let mut parts: Vec<String> = name.split([' ', ',']).filter(|p| !p.is_empty()).map(str::to_owned).collect();
        parts.sort();
        parts
    };
    let (a, b) = (parts(a), parts(b));
    a.iter().all(|part| b.contains(part)) || b.iter().all(|part| a.contains(part))
}
