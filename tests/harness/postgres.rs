//! A PostgreSQL server of a test's own, from Debian's packages (`make postgres` installs them). Stopped and deleted when
//! dropped.

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

const START_MAX: Duration = Duration::from_secs(60);
/// The server does not run as root: Debian's package makes this user.
const USER: &str = "postgres";

pub struct Postgres {
    child: Child,
    dir: PathBuf,
    bin: PathBuf,
    port: u16,
}

impl Postgres {
    /// Makes an empty cluster and starts it on a free port of this machine.
    ///
    /// # Panics
    /// When PostgreSQL is not installed or does not start.
    pub fn start() -> Postgres {
        let bin = programs();
        // Not inside a folder of root's own, which the server's user could not enter.
        let dir = tempfile::Builder::new().prefix("phial-postgres-").tempdir().expect("a temporary folder").keep();
        if is_root() {
            run(Command::new("chown").arg(USER).arg(&dir));
        }
        let data = dir.join("data");
        run(as_user(&dir, &bin.join("initdb"))
            .args(["--username=phial", "--auth=trust", "--no-sync", "--encoding=UTF8", "--locale=C", "-D"])
            .arg(&data));
        let port = TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a free port").port();
        let log = fs::File::create(dir.join("server.log")).expect("a log file");
        let mut command = as_user(&dir, &bin.join("postgres"));
        command.arg("-D").arg(&data).arg("-p").arg(port.to_string());
        // What is killed in the tests is our server, never this one: it need not wait for the disk.
        for setting in ["listen_addresses=127.0.0.1", "unix_socket_directories=", "fsync=off", "max_connections=200"] {
            command.args(["-c", setting]);
        }
        let child = command.stdin(Stdio::null()).stdout(log.try_clone().expect("a log file")).stderr(log).spawn();
        let child = child.expect("postgres starts");
        let postgres = Postgres { child, dir, bin, port };
        postgres.wait();
        postgres
    }

    fn wait(&self) {
        let since = Instant::now();
        while !self.psql("select 1") {
            let log = fs::read_to_string(self.dir.join("server.log")).unwrap_or_default();
            assert!(since.elapsed() < START_MAX, "PostgreSQL does not start:\n{log}");
            sleep(Duration::from_millis(50));
        }
    }

    fn psql(&self, sql: &str) -> bool {
        let mut command = Command::new(self.bin.join("psql"));
        command.args([
            "-q",
            "-h",
            "127.0.0.1",
            "-U",
            "phial",
            "-d",
            "postgres",
            "-p",
            &self.port.to_string(),
            "-c",
            sql,
        ]);
        command.output().expect("psql is there").status.success()
    }

    /// Makes a database; gives its URL.
    pub fn create(&self, name: &str) -> String {
        assert!(self.psql(&format!("create database {name}")), "create database {name}");
        format!("postgres://phial@127.0.0.1:{}/{name}", self.port)
    }

    /// Where the server keeps its files.
    pub fn data(&self) -> &Path {
        &self.dir
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        // SIGINT: a fast, clean stop.
        let _ = Command::new("kill").args(["-INT", &self.child.id().to_string()]).status();
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// The folder of the newest installed server's programs.
fn programs() -> PathBuf {
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut found: Vec<(u32, PathBuf)> = versions
        .filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path().join("bin"))))
        .filter(|(_, bin)| bin.join("initdb").exists() && bin.join("psql").exists())
        .collect();
    found.sort();
    let path = std::env::var_os("PATH").unwrap_or_default();
    let on_path = std::env::split_paths(&path).find(|folder| folder.join("initdb").exists());
    found.pop().map(|(_, bin)| bin).or(on_path).expect("PostgreSQL is installed (make postgres)")
}

fn is_root() -> bool {
    Command::new("id").arg("-u").output().expect("id is there").stdout.trim_ascii() == b"0"
}

/// The program as a user that PostgreSQL accepts; it goes down with the test that started it.
fn as_user(dir: &Path, program: &Path) -> Command {
    if !is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    command.args(["--reuid", USER, "--regid", USER, "--init-groups", "--pdeathsig", "INT"]).arg(program);
    command.current_dir(dir);
    command
}

fn run(command: &mut Command) {
    let output = command.output().expect("the program is there");
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}
