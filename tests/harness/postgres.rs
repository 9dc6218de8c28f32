//! PostgreSQL for tests, from the newest version installed (Debian's layout), as its own user, on a unix socket in a
//! temporary folder. It ends when this process ends, however that comes about: a guardian shell holds the other end
//! of a pipe, stops the server by its process id when the pipe closes, and removes the folder.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// A running server.
pub struct Postgres {
    bin: PathBuf,
    folder: PathBuf,
    user: Option<(u32, u32)>,
    guardian: Child,
}

const START_WITHIN: Duration = Duration::from_secs(60);
static DATABASES: AtomicU32 = AtomicU32::new(0);

/// The URL of a new, empty database on the server that all tests of this process share (no fsync: a crash of the
/// machine would lose it, a crash of the program under test does not).
pub fn database() -> String {
    static SHARED: OnceLock<Postgres> = OnceLock::new();
    SHARED.get_or_init(|| Postgres::start(false)).database()
}

impl Postgres {
    /// Starts a server of one's own; `durable` keeps fsync on. It is stopped when dropped.
    pub fn start(durable: bool) -> Postgres {
        let bin = binaries();
        let user = server_user();
        let folder = tempfile::Builder::new().prefix("phial-pg-").tempdir().expect("a temporary folder").keep();
        if let Some((uid, gid)) = user {
            chown(&folder, Some(uid), Some(gid)).expect("the folder is given to the server's user");
        }
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o700)).expect("the folder is closed to others");
        let data = folder.join("data");
        let mut initdb = as_user(&bin.join("initdb"), user);
        initdb.arg("-D").arg(&data).args(["-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync"]);
        let made = initdb.stdin(Stdio::null()).output().expect("initdb runs");
        assert!(made.status.success(), "initdb: {}", String::from_utf8_lossy(&made.stderr));

        let fsync = if durable { "on" } else { "off" };
        let settings = [
            "listen_addresses=",
            &format!("unix_socket_directories={}", folder.display()),
            &format!("fsync={fsync}"),
            &format!("full_page_writes={fsync}"),
            "max_connections=200",
            "shared_buffers=64MB",
            "deadlock_timeout=200ms",
            "logging_collector=off",
        ];
        let settings: Vec<String> = settings.iter().map(|setting| format!("-c {setting}")).collect();
        // Waits for the end of its input, which is the end of the test process or of this value. The process id comes
        // from the server's own file, as a restart changes it; a server that does not end is not waited for forever.
        let script = format!(
            "'{bin}/postgres' -D '{data}' {settings} >'{folder}/log' 2>&1 & cat >/dev/null; \
             kill -INT $(head -n 1 '{data}/postmaster.pid'); n=0; \
             while [ -e '{data}/postmaster.pid' ] && [ $n -lt 200 ]; do sleep 0.05; n=$((n+1)); done; rm -rf '{folder}'",
            bin = bin.display(),
            data = data.display(),
            folder = folder.display(),
            settings = settings.join(" "),
        );
        let mut shell = as_user(Path::new("/bin/sh"), user);
        // A process group of its own: an interrupt from the terminal must not end the guardian before its work.
        shell.arg("-c").arg(script).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).process_group(0);
        let guardian = shell.spawn().expect("a shell starts");
        let server = Postgres { bin, folder, user, guardian };
        server.wait_until_ready();
        server
    }

    /// The URL of a new, empty database of any name.
    pub fn database(&self) -> String {
        self.create(&format!("t{}", DATABASES.fetch_add(1, Ordering::Relaxed)))
    }

    /// Makes an empty database; gives its URL.
    pub fn create(&self, name: &str) -> String {
        let mut createdb = as_user(&self.bin.join("createdb"), self.user);
        createdb.arg("-h").arg(&self.folder).args(["-U", "postgres", name]);
        let made = createdb.stdin(Stdio::null()).output().expect("createdb runs");
        assert!(made.status.success(), "createdb: {}", String::from_utf8_lossy(&made.stderr));
        format!("postgres://postgres@localhost/{name}?host={}", self.folder.display())
    }

    /// Kills the server without warning (every connection breaks) and starts it again on the same data.
    pub fn crash_and_restart(&self) {
        let control = |arguments: &[&str]| {
            let mut pg_ctl = as_user(&self.bin.join("pg_ctl"), self.user);
            pg_ctl.arg("-D").arg(self.folder.join("data")).args(arguments);
            pg_ctl.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status().expect("pg_ctl runs")
        };
        assert!(control(&["restart", "-m", "immediate", "-w"]).success(), "the server comes back");
    }

    /// Where the server keeps its files.
    pub fn data(&self) -> &Path {
        &self.folder
    }

    /// The server writes its state as the eighth line of this file.
    fn wait_until_ready(&self) {
        let started = Instant::now();
        let status = self.folder.join("data/postmaster.pid");
        while started.elapsed() < START_WITHIN {
            let text = fs::read_to_string(&status).unwrap_or_default();
            if text.lines().nth(7).is_some_and(|line| line.trim() == "ready") {
                return;
            }
            sleep(Duration::from_millis(20));
        }
        let log = fs::read_to_string(self.folder.join("log")).unwrap_or_default();
        panic!("PostgreSQL did not start: {log}");
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        drop(self.guardian.stdin.take());
        let _ = self.guardian.wait();
    }
}

/// The newest installed version; `PHIAL_TEST_POSTGRES` names another folder of binaries.
fn binaries() -> PathBuf {
    if let Some(folder) = std::env::var_os("PHIAL_TEST_POSTGRES") {
        return folder.into();
    }
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let version = |path: &Path| path.file_name()?.to_str()?.parse::<u32>().ok();
    let newest = versions
        .map(|entry| entry.path())
        .filter(|path| path.join("bin/initdb").exists())
        .max_by_key(|path| version(path));
    newest.map(|path| path.join("bin")).expect(
        "PostgreSQL's server programs are needed: apt-get install postgresql, or set PHIAL_TEST_POSTGRES to their folder",
    )
}

/// PostgreSQL refuses to run as root: then as the user Debian's package made.
fn server_user() -> Option<(u32, u32)> {
    let root = fs::metadata("/proc/self").is_ok_and(|me| me.uid() == 0);
    if !root {
        return None;
    }
    let accounts = fs::read_to_string("/etc/passwd").expect("the list of accounts");
    let account = accounts.lines().find(|line| line.starts_with("postgres:")).expect("an account named postgres");
    let mut numbers = account.split(':').skip(2).map(|number| number.parse::<u32>().expect("a number"));
    Some((numbers.next().expect("a user id"), numbers.next().expect("a group id")))
}

fn as_user(program: &Path, user: Option<(u32, u32)>) -> Command {
    let mut command = Command::new(program);
    command.current_dir("/").env("LC_ALL", "C");
    if let Some((uid, gid)) = user {
        command.uid(uid).gid(gid);
    }
    command
}

#[test]
fn a_server_keeps_what_was_committed_over_a_crash_and_leaves_nothing_behind() {
    let server = Postgres::start(true);
    let url = server.database();
    let psql = |sql: &str| {
        let mut psql = as_user(&server.bin.join("psql"), server.user);
        let done = psql.args(["-Atqc", sql, &url]).stdin(Stdio::null()).output().expect("psql runs");
        assert!(done.status.success(), "psql: {}", String::from_utf8_lossy(&done.stderr));
        String::from_utf8_lossy(&done.stdout).trim().to_owned()
    };
    psql("create table t (n int); insert into t values (7)");
    server.crash_and_restart();
    assert_eq!(psql("select n from t"), "7");
    assert_eq!(psql("show fsync"), "on");
    let (folder, pid) = (server.data().to_owned(), psql("select pg_backend_pid()"));
    drop(server);
    assert!(!folder.exists(), "the folder is gone");
    assert!(!Path::new("/proc").join(pid).exists(), "its processes are gone");
    assert_ne!(database(), database());
}
