//! Public clients of other people, unchanged, against the running program: what they do must work. They are installed
//! into `target/clients` once; without a network (or Node, or Python) the test says so and ends.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::harness::{Data, Engine};

const KIT: &str = "fhir-kit-client@2.0.3";
const GRAPHQL: &str = "graphql@16.11.0";
const PY: &str = "fhirpy==2.3.1";

fn folder(name: &str) -> PathBuf {
    // Beside the binary under test, so that a clean of the build takes it away.
    let target = Path::new(env!("CARGO_BIN_EXE_phial")).ancestors().nth(2).expect("the target folder");
    let folder = target.join("clients").join(name);
    std::fs::create_dir_all(&folder).expect("a folder for clients");
    folder
}

/// Whether the command could be run and ended well; what it said otherwise.
fn run(command: &mut Command) -> Result<String, String> {
    let said = command.output().map_err(|error| error.to_string())?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if said.status.success() { Ok(text(&said.stdout)) } else { Err(text(&said.stdout) + &text(&said.stderr)) }
}

/// Installs a client unless it is there; false: it cannot be had here.
fn installed(name: &str, mark: &Path, install: &mut Command) -> bool {
    if mark.exists() {
        return true;
    }
    match run(install) {
        Ok(_) => true,
        Err(said) => {
            println!("{name} is not tested: it could not be installed ({:.200})", said.trim());
            // Where there is a network, this is no way to be green.
            assert!(std::env::var_os("CI").is_none(), "{name} must be installed in CI: {said}");
            false
        }
    }
}

fn against_the_program(command: &mut Command) {
    let data = Data::new(Engine::Sqlite);
    let server = data.serve();
    command
        .env("FHIR_BASE", format!("http://127.0.0.1:{}/fhir", server.port()))
        .env("FHIR_TOKEN", server.client.token.as_deref().expect("a token"));
    match run(command) {
        Ok(said) => println!("{}", said.trim()),
        Err(said) => panic!("{said}"),
    }
}

/// A script of ours over a package of npm.
fn npm(package: &str, script: &str) {
    let name = package.split('@').next().expect("a name");
    let folder = folder(&format!("npm-{name}"));
    let mut install = Command::new("npm");
    install.args(["install", "--no-audit", "--no-fund", "--ignore-scripts", "--prefix"]).arg(&folder).arg(package);
    if installed(package, &folder.join("node_modules").join(name).join("package.json"), &mut install) {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients").join(script);
        // Node looks for packages beside the script.
        let here = folder.join("check.mjs");
        std::fs::copy(script, &here).expect("the script is copied");
        against_the_program(Command::new("node").arg(here));
    }
}

#[test]
fn fhir_kit_client_does_its_work() {
    npm(KIT, "fhir-kit-client.mjs");
}

#[test]
fn the_schema_serves_the_reference_implementation_of_graphql() {
    npm(GRAPHQL, "graphql.mjs");
}

#[test]
fn fhirpy_does_its_work() {
    let folder = folder("pypi");
    let mut install = Command::new("python3");
    install.args(["-m", "pip", "install", "--quiet", "--target"]).arg(&folder).arg(PY);
    if installed(PY, &folder.join("fhirpy/__init__.py"), &mut install) {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients/fhirpy_client.py");
        against_the_program(Command::new("python3").arg(script).env("CLIENT_FOLDER", &folder));
    }
}
