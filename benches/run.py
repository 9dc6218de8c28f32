#!/usr/bin/env python3
"""Measures a release build on this machine and writes benches/RESULTS.md.

`make bench` builds first: target/release/phial (what is shipped) and target/release/phial-bench (the same with switches
to leave audit, authorization and encryption out, for the ratios). The client is ../shared/tools/fhirload, a neutral
closed-loop harness that refuses any address off this machine. All loops are bounded in time.

Environment: SECONDS_PER_CASE (5), PATIENTS (500), ENGINES (sqlite,postgres), CONNECTIONS (1,16,64), RATIO_CONNECTIONS
(16,64,256), ROUNDS (3) of the ratios, PARTS (load,import,ratios).
"""
import glob
import json
import os
import pathlib
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parent.parent
SHARED = ROOT.parent / "shared"
PHIAL = ROOT / "target/release/phial"
SWITCHED = ROOT / "target/release/phial-bench"
FHIRLOAD = ROOT / "target/fhirload/release/fhirload"
SECONDS = int(os.environ.get("SECONDS_PER_CASE", "5"))
PATIENTS = os.environ.get("PATIENTS", "500")
ENGINES = os.environ.get("ENGINES", "sqlite,postgres").split(",")
CONNECTIONS = os.environ.get("CONNECTIONS", "1,16,64").split(",")
PARTS = os.environ.get("PARTS", "load,import,ratios").split(",")
# The cases of the load harness that this server answers.
CASES = "read,obs-code,family,identifier,obs-sort,create-single,create-bundle"
RATIO_CASES = "read,obs-code,create-bundle"
# With few connections a closed loop waits for commits while cores idle; throughput shows with many.
RATIO_CONNECTIONS = os.environ.get("RATIO_CONNECTIONS", "16,64,256")
ROUNDS = int(os.environ.get("ROUNDS", "3"))
OFF = ["", "audit", "authorization", "encryption", "audit,authorization,encryption"]
# A token lives five minutes: one run of the harness has to end before.
TOKEN_S = 280


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


class Postgres:
    """A server of our own, with the durability it ships with."""

    def __init__(self):
        found = sorted(glob.glob("/usr/lib/postgresql/*/bin/initdb"), key=lambda path: int(path.split("/")[4]))
        self.bin = pathlib.Path(found[-1] if found else shutil.which("initdb")).resolve().parent
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="phial-bench-pg-"))
        self.port = free_port()
        root = os.getuid() == 0
        self.user = ["setpriv", "--reuid", "postgres", "--regid", "postgres", "--init-groups"] if root else []
        if root:
            shutil.chown(self.dir, "postgres", "postgres")
        data = str(self.dir / "data")
        initdb = [str(self.bin / "initdb"), "--username=phial", "--auth=trust", "--encoding=UTF8", "--locale=C", "-D", data]
        subprocess.run(self.user + initdb, check=True, stdout=subprocess.DEVNULL, cwd=self.dir)
        arguments = [str(self.bin / "postgres"), "-D", data, "-p", str(self.port)]
        for setting in ("listen_addresses=127.0.0.1", "unix_socket_directories=", "max_connections=200", "shared_buffers=256MB"):
            arguments += ["-c", setting]
        quiet = subprocess.DEVNULL
        self.child = subprocess.Popen(self.user + arguments, stdout=quiet, stderr=quiet, cwd=self.dir)
        for _ in range(200):
            if self.psql("select 1"):
                return
            time.sleep(0.1)
        sys.exit("PostgreSQL does not start")

    def psql(self, sql):
        to = ["-h", "127.0.0.1", "-p", str(self.port), "-U", "phial", "-d", "postgres"]
        return subprocess.run([self.bin / "psql", "-q", *to, "-c", sql], capture_output=True).returncode == 0

    def create(self, name):
        if not self.psql(f"create database {name}"):
            sys.exit(f"create database {name}")
        return f"postgres://phial@127.0.0.1:{self.port}/{name}"

    def stop(self):
        self.child.send_signal(signal.SIGINT)
        self.child.wait()
        shutil.rmtree(self.dir, ignore_errors=True)


class Server:
    """One installation, served."""

    def __init__(self, engine, program=PHIAL, off=None):
        self.program = program
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="phial-bench-"))
        self.postgres = Postgres() if engine == "postgres" else None
        self.port = free_port()
        self.env = {
            "PATH": os.environ["PATH"],
            "PHIAL_LISTEN": f"127.0.0.1:{self.port}",
            "PHIAL_DATABASE_URL": self.place("phial"),
            "PHIAL_KEY_DATABASE_URL": self.place("phial_keys"),
            "PHIAL_KEYRING": f"{self.dir}/keyring",
            "PHIAL_LOG": "warn",
            # What is measured is the server, not its limits.
            "PHIAL_RATE_FREE_ADDRESSES": "127.0.0.0/8",
            "PHIAL_RATE_USER_MAX": "0",
            "PHIAL_RATE_CLIENT_MAX": "0",
        }
        if off:
            self.env["PHIAL_BENCH_OFF"] = off
        self.base = f"http://127.0.0.1:{self.port}"
        self.client = self.dir / "client.json"
        self.client.write_bytes(self.phial("admin", "clients", "add", "--json", "--scopes", "system/*.cruds"))
        self.child = None

    def place(self, name):
        return self.postgres.create(name) if self.postgres else f"sqlite:{self.dir}/{name}.db"

    def phial(self, *arguments):
        run = subprocess.run([self.program, *arguments], env=self.env, check=True, stdout=subprocess.PIPE)
        return run.stdout

    def start(self):
        """Starts and gives the seconds to readiness."""
        since = time.monotonic()
        log = open(self.dir / "log", "a")
        self.child = subprocess.Popen([self.program, "serve"], env=self.env, stdout=log, stderr=log)
        while True:
            try:
                urllib.request.urlopen(f"{self.base}/readyz").read()
                return time.monotonic() - since
            except (urllib.error.URLError, ConnectionError):
                if self.child.poll() is not None or time.monotonic() - since > 60:
                    sys.exit("the server does not start: " + (self.dir / "log").read_text()[-2000:])
                time.sleep(0.005)

    def end(self):
        self.child.send_signal(signal.SIGTERM)
        self.child.wait()
        self.child = None

    def memory_mb(self):
        text = pathlib.Path(f"/proc/{self.child.pid}/smaps_rollup").read_text()
        return int(re.search(r"^Rss:\s+(\d+) kB", text, re.M).group(1)) / 1024

    def load(self, cases, connections):
        """One run of the harness; gives its rows."""
        (self.dir / "token").write_bytes(self.phial("token", str(self.client)))
        out = self.dir / "load.json"
        arguments = [FHIRLOAD, "--base", f"{self.base}/fhir", "--token-file", self.dir / "token", "--cases", cases]
        arguments += ["--conc", connections, "--seconds", str(SECONDS), "--patients", PATIENTS, "--out", out]
        arguments += ["--pid", f"phial={self.child.pid}"]
        if self.postgres:
            arguments += ["--pid", f"postgres={self.postgres.child.pid}"]
        subprocess.run(arguments, check=True, stdout=sys.stderr, timeout=TOKEN_S)
        return json.loads(out.read_text())["rows"]

    def stop(self):
        if self.child:
            self.end()
        if self.postgres:
            self.postgres.stop()
        shutil.rmtree(self.dir, ignore_errors=True)


def table(head, rows):
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join(lines + ["| " + " | ".join(str(cell) for cell in row) + " |" for row in rows]) + "\n"


def throughput(engine):
    server = Server(engine)
    try:
        cold = server.start()
        server.end()
        warm = server.start()
        idle = server.memory_mb()
        rows = []
        for connections in CONNECTIONS:
            rows += server.load(CASES, connections)
        after = server.memory_mb()
    finally:
        server.stop()
    cells = [
        [row["case"], row["conc"], f"{row['per_s']:.0f}", f"{row['resources_per_s']:.0f}", row["p50_ms"], row["p99_ms"],
         row["errors"], f"{row['wrong']}/{row['checked']}"]
        for row in rows
        if row["case"] in CASES.split(",")
    ]
    head = ["case", "connections", "requests/s", "resources/s", "p50 ms", "p99 ms", "errors", "wrong/checked"]
    facts = (f"First start to `/readyz` {cold:.2f} s, warm start {warm:.2f} s; resident memory idle {idle:.0f} MB, "
             f"after the load {after:.0f} MB.\n")
    return f"## {engine}\n\n{facts}\n{table(head, cells)}\n"


def imports(engine):
    server = Server(engine)
    rows = []
    try:
        for name in ("generated-clinosim", "synthea-2018-smart"):
            for what in ("first", "again"):
                arguments = [PHIAL, "import", SHARED / "data/samples" / name]
                run = subprocess.run(arguments, env=server.env, capture_output=True, text=True)
                found = re.search(r"(\d+) resources in ([\d.]+) s, (\d+) a second", run.stdout)
                if not found:
                    sys.exit(run.stdout + run.stderr)
                rows.append([engine, name, what, *found.groups()])
    finally:
        server.stop()
    return rows


def rates(engine, off):
    """Requests a second of each (case, connections) with parts left out."""
    server = Server(engine, SWITCHED, off)
    try:
        server.start()
        rows = server.load(RATIO_CASES, RATIO_CONNECTIONS)
        # A refusal is quick: a rate that counts some says nothing.
        if any(row["errors"] or row["wrong"] for row in rows):
            sys.exit(f"errors under load: {rows}")
        return {(row["case"], row["conc"]): row["per_s"] for row in rows}
    finally:
        server.stop()


def ratios(engine):
    """Medians over rounds that each run every variant: two runs of the same differ by a tenth and more."""
    rounds = [[rates(engine, off) for off in OFF] for _ in range(ROUNDS)]
    medians = [{one: statistics.median(run[one] for run in runs) for one in runs[0]} for runs in zip(*rounds)]
    rows, on = [], medians[0]
    for off, measured in zip(OFF, medians):
        for connections in map(int, RATIO_CONNECTIONS.split(",")):
            of = [(case, connections) for case in RATIO_CASES.split(",")]
            cells = [f"{measured[one]:.0f} ({on[one] / measured[one]:.2f})" for one in of]
            rows.append([engine, connections, off or "nothing", *cells])
    return rows


def main():
    build = ["cargo", "build", "--release", "--manifest-path", SHARED / "tools/fhirload/Cargo.toml"]
    subprocess.run(build + ["--target-dir", ROOT / "target/fhirload"], check=True)
    rev = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True)
    cpu = re.search(r"^model name\s*:\s*(.*)$", pathlib.Path("/proc/cpuinfo").read_text(), re.M)
    out = (
        f"# Measured\n\nMade by `make bench` at commit {rev.stdout.strip()} on {os.cpu_count()} cores "
        f"({cpu.group(1) if cpu else 'unknown'}), load average before {os.getloadavg()[0]:.1f}. Client, server and "
        f"PostgreSQL share the cores; closed loop, {SECONDS} s a case; {PATIENTS} patients with 10 Observations each are "
        "written before every run. Audit, authorization and encryption are on.\n\n"
    )
    if "load" in PARTS:
        for engine in ENGINES:
            out += throughput(engine)
    if "import" in PARTS and (SHARED / "data/samples").is_dir():
        rows = [row for engine in ENGINES for row in imports(engine)]
        out += "## phial import\n\n" + table(["database", "set", "run", "resources", "seconds", "resources/s"], rows) + "\n"
    if "ratios" in PARTS and SWITCHED.exists():
        rows = [row for engine in ENGINES for row in ratios(engine)]
        out += (
            "## What protection costs\n\nRequests a second with a part left out (a bench-only build), medians of "
            f"{ROUNDS} rounds; in brackets what everything on keeps of that.\n\n"
            + table(["database", "connections", "left out", *RATIO_CASES.split(",")], rows)
        )
    (ROOT / "benches/RESULTS.md").write_text(out)
    print(out)


if __name__ == "__main__":
    main()
