//! TLS of the server's own, as curl and openssl see it: which versions it speaks, what it says of plain HTTP, and that a
//! renewed certificate is shown without a restart.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::demo::start_listening;
use crate::harness::free_port;

const READY_WITHIN: Duration = Duration::from_secs(120);
/// SIGHUP is looked at at once.
const RENEWED_WITHIN: Duration = Duration::from_secs(20);

/// An authority, and the certificates that it gives.
struct Authority {
    dir: PathBuf,
}

fn openssl(dir: &Path, arguments: &[&str]) -> Output {
    let ran = Command::new("openssl").args(arguments).current_dir(dir).stdin(Stdio::null()).output();
    ran.expect("openssl is here (Debian: apt-get install openssl)")
}

impl Authority {
    fn new(dir: &Path) -> Authority {
        let authority = Authority { dir: dir.to_owned() };
        authority.run(&[
            "req",
            "-x509",
            "-newkey",
            "rsa:2048",
            "-nodes",
            "-keyout",
            "ca.key",
            "-out",
            "ca.pem",
            "-days",
            "2",
            "-subj",
            "/CN=Test authority",
            "-addext",
            "basicConstraints=critical,CA:TRUE",
        ]);
        authority
    }

    fn run(&self, arguments: &[&str]) {
        let ran = openssl(&self.dir, arguments);
        assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    }

    /// A certificate for this machine with this serial number, in the two files of the server.
    fn gives(&self, serial: &str, key: &[&str]) {
        let mut request =
            vec!["req", "-new", "-nodes", "-keyout", "new.key", "-out", "new.csr", "-subj", "/CN=localhost"];
        request.extend(key);
        self.run(&request);
        fs::write(self.dir.join("san"), "subjectAltName=DNS:localhost,IP:127.0.0.1\n").unwrap();
        self.run(&[
            "x509",
            "-req",
            "-in",
            "new.csr",
            "-CA",
            "ca.pem",
            "-CAkey",
            "ca.key",
            "-set_serial",
            serial,
            "-days",
            "1",
            "-extfile",
            "san",
            "-out",
            "new.pem",
        ]);
        fs::rename(self.dir.join("new.key"), self.dir.join("server.key")).unwrap();
        fs::rename(self.dir.join("new.pem"), self.dir.join("server.pem")).unwrap();
    }
}

/// What curl says: the status, and head and body.
fn curl(dir: &Path, arguments: &[&str]) -> (String, String) {
    let ran = Command::new("curl")
        .args(["-sS", "-i", "--max-time", "20", "-w", "\n%{http_code}\n", "--cacert", "ca.pem"])
        .args(arguments)
        .current_dir(dir)
        .output()
        .expect("curl is here (Debian: apt-get install curl)");
    let text = String::from_utf8_lossy(&ran.stdout).into_owned() + &String::from_utf8_lossy(&ran.stderr);
    let status = text.lines().rev().find(|line| line.len() == 3).unwrap_or_default().to_owned();
    (status, text)
}

/// What the server shows to somebody who asks for this version.
fn handshake(dir: &Path, port: u16, version: &str) -> String {
    let at = format!("127.0.0.1:{port}");
    let ran = openssl(
        dir,
        &[
            "s_client",
            "-connect",
            &at,
            "-CAfile",
            "ca.pem",
            "-verify_return_error",
            version,
            "-cipher",
            "ALL:@SECLEVEL=0",
        ],
    );
    String::from_utf8_lossy(&ran.stdout).into_owned() + &String::from_utf8_lossy(&ran.stderr)
}

/// The serial number of the certificate that is shown.
fn serial(dir: &Path, port: u16) -> String {
    let shown = handshake(dir, port, "-tls1_3");
    let Some((_, rest)) = shown.split_once("-----BEGIN CERTIFICATE-----") else { return shown };
    let pem = format!("-----BEGIN CERTIFICATE-----{}", rest.split("-----END CERTIFICATE-----").next().unwrap());
    fs::write(dir.join("shown.pem"), pem + "-----END CERTIFICATE-----\n").unwrap();
    let ran = openssl(dir, &["x509", "-in", "shown.pem", "-noout", "-serial"]);
    String::from_utf8_lossy(&ran.stdout).trim().trim_start_matches("serial=").to_owned()
}

fn until(what: &str, within: Duration, mut reached: impl FnMut() -> bool) {
    let since = Instant::now();
    while !reached() {
        assert!(since.elapsed() < within, "{what}");
        sleep(Duration::from_millis(100));
    }
}

/// The versions that testers try, and the suite of each.
fn only_new_versions(dir: &Path, port: u16) {
    for version in ["-tls1", "-tls1_1"] {
        let said = handshake(dir, port, version);
        assert!(said.contains("SSL alert number") || said.contains("no protocols available"), "{version}: {said}");
        assert!(said.contains("Cipher is (NONE)") && !said.contains("BEGIN CERTIFICATE"), "{version}: {said}");
    }
    for (version, protocol) in [("-tls1_2", "TLSv1.2"), ("-tls1_3", "TLSv1.3")] {
        let said = handshake(dir, port, version);
        assert!(said.contains(protocol) && said.contains("Verify return code: 0 (ok)"), "{version}: {said}");
        assert!(said.contains("_GCM_") || said.contains("-GCM-") || said.contains("CHACHA20"), "{version}: {said}");
    }
    let (at, old) = (format!("127.0.0.1:{port}"), "AES128-SHA:AES256-SHA256:AES128-GCM-SHA256:@SECLEVEL=0");
    let weak = openssl(dir, &["s_client", "-connect", &at, "-tls1_2", "-cipher", old]);
    assert!(!weak.status.success(), "no forward secrecy, no connection");
}

/// FHIR over it: its own addresses, and a promise to come back by TLS. Plain HTTP: nothing at all, and beside it a way to
/// the right address for what carries no secret.
fn plain_http_leads_to_tls(dir: &Path, base: &str, plain: u16) {
    let (status, metadata) = curl(dir, &[&format!("{base}/fhir/metadata")]);
    assert_eq!(status, "200", "{metadata}");
    assert!(metadata.to_ascii_lowercase().contains("strict-transport-security: max-age=31536000"), "{metadata}");
    assert!(metadata.contains(&format!("{base}/oauth/token")), "{metadata}");
    let (_, login) = curl(dir, &[&format!("{base}/login")]);
    assert!(login.contains("__Host-") && login.contains("Secure"), "{login}");
    let (status, said) = curl(dir, &[&format!("{}/fhir/metadata", base.replace("https", "http"))]);
    assert!(status == "000", "{said}");
    let at = format!("http://127.0.0.1:{plain}/login?to=launch");
    let (status, said) = curl(dir, &[&at]);
    assert!(status == "308" && said.contains(&format!("{base}/login?to=launch")), "{said}");
    assert_eq!(curl(dir, &["-H", "Authorization: Bearer x", &at]).0, "403");
    assert_eq!(curl(dir, &["-d", "grant_type=x", &at]).0, "403");
}

/// `phial selftest smart` and `phial token`, with this authority and without.
fn own_tools_speak_it(dir: &Path) {
    let phial = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_phial"));
        let ran = command.args(arguments).args(["--data", "demo"]).env_clear().current_dir(dir).output().unwrap();
        (ran.status.success(), String::from_utf8_lossy(&[ran.stdout, ran.stderr].concat()).into_owned())
    };
    let (good, said) = phial(&["selftest", "smart", "--ca", "ca.pem"]);
    assert!(good && said.contains(" 0 failed"), "{said}");
    let (good, said) = phial(&["selftest", "smart"]);
    assert!(!good && said.contains("does not answer"), "an authority that nobody knows: {said}");
    assert!(phial(&["token", "--ca", "ca.pem"]).0 && !phial(&["token"]).0);
}

#[test]
fn tls_is_spoken_by_the_server_itself_and_its_certificate_renewed() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let authority = Authority::new(dir);
    authority.gives("1001", &["-newkey", "rsa:2048"]);
    let (port, plain) = (free_port(), free_port());
    let (cert, key) = (dir.join("server.pem"), dir.join("server.key"));
    let set = [
        ("PHIAL_TLS_CERT", cert.to_str().unwrap().to_owned()),
        ("PHIAL_TLS_KEY", key.to_str().unwrap().to_owned()),
        ("PHIAL_TLS_REDIRECT_LISTEN", format!("127.0.0.1:{plain}")),
    ];
    let server = start_listening(&dir.join("demo"), port, &set);
    let base = format!("https://127.0.0.1:{port}");
    until("the server is ready", READY_WITHIN, || curl(dir, &[&format!("{base}/readyz")]).0 == "200");
    only_new_versions(dir, port);
    plain_http_leads_to_tls(dir, &base, plain);
    own_tools_speak_it(dir);

    // Renewed, with a key of another kind.
    assert_eq!(serial(dir, port), "03E9");
    let hangup = || {
        let sent = Command::new("kill").args(["-HUP", &server.pid().to_string()]).status().unwrap();
        assert!(sent.success());
    };
    authority.gives("1002", &["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]);
    hangup();
    until("the renewed certificate is shown", RENEWED_WITHIN, || serial(dir, port) == "03EA");
    // What cannot be used changes nothing: a key that is not the certificate's, and no certificate at all.
    let other = fs::read(dir.join("ca.key")).unwrap();
    for (broken, bytes) in [("server.key", other), ("server.pem", Vec::new())] {
        let kept = fs::read(dir.join(broken)).unwrap();
        fs::write(dir.join(broken), bytes).unwrap();
        hangup();
        sleep(Duration::from_millis(500));
        assert_eq!(serial(dir, port), "03EA", "{broken}");
        fs::write(dir.join(broken), kept).unwrap();
    }
    authority.gives("1003", &["-newkey", "rsa:2048"]);
    hangup();
    until("the next one is shown", RENEWED_WITHIN, || serial(dir, port) == "03EB");
}

#[test]
fn files_that_are_no_certificate_stop_the_start_and_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let authority = Authority::new(dir);
    authority.gives("1", &["-newkey", "rsa:2048"]);
    fs::write(dir.join("empty"), "").unwrap();
    let start = |cert: &str, key: &str| {
        let ran = Command::new(env!("CARGO_BIN_EXE_phial"))
            .arg("serve")
            .env_clear()
            .env("PHIAL_LISTEN", format!("127.0.0.1:{}", free_port()))
            .env("PHIAL_TLS_CERT", cert)
            .env("PHIAL_TLS_KEY", key)
            .current_dir(dir)
            .output()
            .unwrap();
        assert!(!ran.status.success());
        String::from_utf8_lossy(&ran.stderr).into_owned()
    };
    for (cert, key, said) in [
        ("server.pem", "ca.key", "setting tls_key: ca.key"),
        ("server.pem", "empty", "setting tls_key: empty"),
        ("empty", "server.key", "setting tls_cert: empty"),
        ("gone.pem", "server.key", "setting tls_cert: gone.pem"),
    ] {
        let text = start(cert, key);
        assert!(text.contains(said), "{text}");
    }
}
