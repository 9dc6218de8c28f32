//! Starts the real program on data of its own and speaks to it over HTTP, as a client would. Nothing here reaches
//! into the library: what the tests see is what an installation shows.

pub mod browser;
mod http;
pub mod postgres;
pub mod samples;
pub mod xml;

use std::fs::{self, File};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Mutex;
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::Value;

pub use http::{Client, Reply, Request};

/// Scopes of the client that every server of the tests has.
const SCOPES: &str = "system/*.cruds";
/// Time a start may take on a busy machine.
const START_MAX: Duration = Duration::from_secs(60);
const STOP_MAX: Duration = Duration::from_secs(60);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Engine {
    Sqlite,
    Postgres,
}

/// Data of one installation: it outlives the processes that serve it and is deleted when dropped.
pub struct Data {
    pub dir: tempfile::TempDir,
    database_url: String,
    key_database_url: String,
    port: u16,
    /// `phial admin clients add` wrote it.
    client: PathBuf,
    postgres: Option<postgres::Postgres>,
}

/// A running server. Killed when dropped.
pub struct Server {
    child: Child,
    port: u16,
    pub client: Client,
}

impl Data {
    /// An empty installation with one registered client that may do everything.
    pub fn new(engine: Engine) -> Data {
        let data = Data::untouched(engine);
        data.register();
        data
    }

    /// An installation that no process has opened yet.
    pub fn untouched(engine: Engine) -> Data {
        let dir = tempfile::tempdir().expect("a temporary folder");
        fs::create_dir(dir.path().join("tmp")).expect("a folder for temporary files");
        let (database_url, key_database_url, postgres) = match engine {
            Engine::Sqlite => {
                let url = |name: &str| format!("sqlite:{}", dir.path().join(name).display());
                (url("phial.db"), url("keys.db"), None)
            }
            Engine::Postgres => {
                let postgres = postgres::Postgres::start(false);
                (postgres.create("phial"), postgres.create("phial_keys"), Some(postgres))
            }
        };
        let client = dir.path().join("client.json");
        Data { dir, database_url, key_database_url, port: free_port(), client, postgres }
    }

    /// Registers the client of the servers.
    pub fn register(&self) {
        let made = self.run(&["admin", "clients", "add", "--json", "--scopes", SCOPES]);
        assert!(made.status.success(), "phial admin clients add: {}", String::from_utf8_lossy(&made.stderr));
        fs::write(&self.client, made.stdout).expect("the client file is written");
    }

    /// What `phial admin clients add` said of that client.
    pub fn client_file(&self) -> &Path {
        &self.client
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The data folder of the PostgreSQL server, or the folder of the SQLite files.
    pub fn files(&self) -> Vec<PathBuf> {
        let mut out = vec![self.dir.path().to_owned()];
        out.extend(self.postgres.as_ref().map(|postgres| postgres.data().to_owned()));
        out
    }

    /// The program with the settings of this installation.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_phial"));
        command
            .args(arguments)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("TMPDIR", self.path("tmp"))
            .env("PHIAL_LISTEN", format!("127.0.0.1:{}", self.port))
            .env("PHIAL_DATABASE_URL", &self.database_url)
            .env("PHIAL_KEY_DATABASE_URL", &self.key_database_url)
            .env("PHIAL_KEYRING", self.path("keyring"))
            .env("PHIAL_LOG", "debug")
            // Tests ask as fast as they can.
            .env("PHIAL_RATE_FREE_ADDRESSES", "127.0.0.0/8")
            .env("PHIAL_RATE_USER_MAX", "0")
            .env("PHIAL_RATE_CLIENT_MAX", "0")
            .env("RUST_BACKTRACE", "1")
            .current_dir(self.dir.path());
        command
    }

    /// Runs a command to its end.
    pub fn run(&self, arguments: &[&str]) -> std::process::Output {
        self.command(arguments).output().expect("the program starts")
    }

    /// Starts `phial serve` and waits until it is ready.
    pub fn serve(&self) -> Server {
        self.serve_on(self.port, None)
    }

    /// The same, with a token of an earlier start.
    pub fn serve_with(&self, token: &str) -> Server {
        self.serve_on(self.port, Some(token))
    }

    /// A further server on the same database (PostgreSQL): same base URL, another port.
    pub fn serve_beside(&self) -> Server {
        self.serve_on(free_port(), None)
    }

    /// A token from a server that is started for it alone.
    pub fn serve_token(&self) -> String {
        let server = self.serve();
        let token = server.client.token.clone().expect("it was given");
        assert!(server.terminate().success());
        token
    }

    /// Starts `phial serve` through a shell script that is given the program and its arguments.
    pub fn serve_through(&self, script: &str) -> Server {
        let command = self.command(&[]);
        let program = command.get_program();
        let mut shell = Command::new("/bin/sh");
        shell.arg("-c").arg(script).arg(program).arg("serve").env_clear().current_dir(self.dir.path());
        shell.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
        self.spawn(shell, self.port, None)
    }

    fn serve_on(&self, port: u16, token: Option<&str>) -> Server {
        self.spawn(self.command(&["serve"]), port, token)
    }

    fn spawn(&self, mut command: Command, port: u16, token: Option<&str>) -> Server {
        let log = |name: &str| File::options().create(true).append(true).open(self.path(name)).expect("a log file");
        command
            .env("PHIAL_LISTEN", format!("127.0.0.1:{port}"))
            .env("PHIAL_BASE_URL", format!("http://127.0.0.1:{}/fhir", self.port))
            .stdin(Stdio::null())
            .stdout(log("stdout.log"))
            .stderr(log("stderr.log"));
        let child = command.spawn().expect("the program starts");
        let client = Client::new(&format!("http://127.0.0.1:{port}"));
        let mut server = Server { child, port, client };
        server.wait_ready(&self.path("stderr.log"));
        server.client.token = Some(token.map_or_else(|| self.token(port), str::to_owned));
        server
    }

    /// Changes the database from outside, beside the program.
    pub fn sql(&self, statement: &str) {
        use sqlx::{AssertSqlSafe, Connection, PgConnection, SqliteConnection, raw_sql};
        let statement = raw_sql(AssertSqlSafe(statement.to_owned()));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            if self.postgres.is_some() {
                let mut conn = PgConnection::connect(&self.database_url).await.expect("a connection");
                statement.execute(&mut conn).await.expect("the statement is taken");
                conn.close().await.expect("the connection is closed");
            } else {
                let mut conn = SqliteConnection::connect(&self.database_url).await.expect("a connection");
                statement.execute(&mut conn).await.expect("the statement is taken");
                conn.close().await.expect("the connection is closed");
            }
        });
    }

    /// An access token for the registered client, from the server on this port.
    pub fn token(&self, port: u16) -> String {
        self.token_of(&self.client, port)
    }

    /// An access token with these scopes, for a client of its own that is registered for it.
    pub fn token_for(&self, scopes: &str, port: u16) -> String {
        let made = self.run(&["admin", "clients", "add", "--json", "--scopes", scopes]);
        assert!(made.status.success(), "phial admin clients add: {}", String::from_utf8_lossy(&made.stderr));
        let file = tempfile::NamedTempFile::new_in(self.dir.path()).expect("a file for the client");
        fs::write(file.path(), made.stdout).expect("the client file is written");
        self.token_of(file.path(), port)
    }

    fn token_of(&self, client: &Path, port: u16) -> String {
        let client = client.to_str().expect("a path in UTF-8");
        let url = format!("http://127.0.0.1:{port}/oauth/token");
        let out = self.run(&["token", client, "--token-url", &url]);
        assert!(out.status.success(), "phial token: {}", String::from_utf8_lossy(&out.stderr));
        String::from_utf8(out.stdout).expect("a token").trim().to_owned()
    }
}

impl Server {
    fn wait_ready(&mut self, log: &Path) {
        let since = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("the child can be asked") {
                panic!("the server ended with {status}:\n{}", tail(log));
            }
            if self.client.get("/readyz").is_ok_and(|reply| reply.status == 200) {
                return;
            }
            assert!(since.elapsed() < START_MAX, "the server is not ready after {START_MAX:?}:\n{}", tail(log));
            sleep(Duration::from_millis(5));
        }
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// `kill -9`.
    pub fn kill(mut self) {
        self.child.kill().expect("the child can be killed");
        self.child.wait().expect("the child can be waited for");
    }

    /// SIGTERM; gives how the process ended.
    pub fn terminate(mut self) -> ExitStatus {
        let sent = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status();
        assert!(sent.expect("kill is there").success());
        let since = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("the child can be asked") {
                return status;
            }
            assert!(since.elapsed() < STOP_MAX, "the server does not stop on SIGTERM");
            sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Already gone when it was killed or terminated.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The last lines of a log, for messages.
fn tail(log: &Path) -> String {
    let text = fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(20)..].join("\n")
}

/// A port that was free a moment ago and that no other test of this process was given.
pub fn free_port() -> u16 {
    static GIVEN: Mutex<Vec<u16>> = Mutex::new(Vec::new());
    loop {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let port = listener.local_addr().expect("it has an address").port();
        let mut given = GIVEN.lock().expect("no test panics while it holds this");
        if !given.contains(&port) {
            given.push(port);
            return port;
        }
    }
}

/// Whether two JSON trees are equal, numbers by their digits as written; the path of the first difference otherwise.
pub fn difference(sent: &Value, back: &Value, path: &str) -> Option<String> {
    match (sent, back) {
        (Value::Object(a), Value::Object(b)) => {
            let missing = a.keys().find(|key| !b.contains_key(*key)).map(|key| format!("{path}.{key} is missing"));
            let added = || b.keys().find(|key| !a.contains_key(*key)).map(|key| format!("{path}.{key} was added"));
            let order = || (!a.keys().eq(b.keys())).then(|| format!("{path}: members in another order"));
            let inner = || a.iter().find_map(|(key, value)| difference(value, &b[key], &format!("{path}.{key}")));
            missing.or_else(added).or_else(inner).or_else(order)
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            a.iter().zip(b).enumerate().find_map(|(n, (a, b))| difference(a, b, &format!("{path}[{n}]")))
        }
        (a, b) => (a != b).then(|| format!("{path}: sent {a}, came back {b}")),
    }
}
