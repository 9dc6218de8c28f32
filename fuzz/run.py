#!/usr/bin/env python3
"""Builds the fuzz targets with a nightly compiler and runs them under libFuzzer: `fuzz/run.py [SECONDS] [TARGET ...]`.

Each target starts from its seeds (tests/fuzz/seeds), from the inputs that are kept (fuzz/kept/TARGET, one JSON string a
line) and from what earlier runs on this machine found (fuzz/corpus/TARGET). `fuzz/run.py keep [TARGET ...]` writes the
smallest set that covers all of that to fuzz/kept. An input that panics, takes longer than a second or half a gigabyte of memory is written to
fuzz/artifacts/TARGET, and the exit status is 1.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
SEEDS = HERE.parent / "tests/fuzz/seeds"
# Longest input that is kept, in characters: longer ones are made of short ones again.
KEPT_MAX = 200
TARGETS = ["query", "fhirpath", "json", "xml", "patch", "scopes"]
# What `cargo fuzz` sets, without a sanitizer: there is no unsafe code to look at.
FLAGS = (
    "-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 -Cllvm-args=-sanitizer-coverage-inline-8bit-counters "
    "-Cllvm-args=-sanitizer-coverage-pc-table -Cllvm-args=-sanitizer-coverage-trace-compares --cfg fuzzing"
)
LIMITS = ["-max_len=4096", "-timeout=10", "-report_slow_units=1", "-rss_limit_mb=512", "-print_final_stats=1"]


def host():
    told = subprocess.run(["rustc", "-vV"], check=True, capture_output=True, text=True).stdout
    return next(line.removeprefix("host: ") for line in told.splitlines() if line.startswith("host: "))


def build(triple):
    # The versions of the product, whatever they are today.
    shutil.copy(HERE.parent / "Cargo.lock", HERE / "Cargo.lock")
    environment = dict(os.environ, RUSTFLAGS=FLAGS)
    command = ["cargo", "+nightly", "build", "--release", "--bins", "--target", triple]
    subprocess.run(command, cwd=HERE, env=environment, check=True)


def folders(target):
    """Those of the seeds and kept inputs, of the corpus and of what was found, made where absent."""
    seeds, corpus, artifacts = HERE / "seeds" / target, HERE / "corpus" / target, HERE / "artifacts" / target
    for folder in (seeds, corpus, artifacts):
        folder.mkdir(parents=True, exist_ok=True)
    texts = [seed.rstrip("\n") for seed in (SEEDS / f"{target}.txt").read_text().split("\n---\n")]
    kept = HERE / "kept" / f"{target}.jsonl"
    if kept.exists():
        texts += [json.loads(line) for line in kept.read_text().splitlines()]
    for n, text in enumerate(texts):
        (seeds / f"{n:04}").write_bytes(text.encode())
    return seeds, corpus, artifacts


def keep(triple, target):
    seeds, corpus, _ = folders(target)
    program = HERE / "target" / triple / "release" / target
    with tempfile.TemporaryDirectory() as least:
        command = [program, "-set_cover_merge=1", *LIMITS, least, seeds, corpus]
        subprocess.run(command, cwd=HERE, check=True, capture_output=True)
        texts = set()
        for path in Path(least).iterdir():
            try:
                texts.add(path.read_bytes().decode())
            except UnicodeDecodeError:
                continue  # Refused at the first look by every reader.
    texts = {text for text in texts if len(text) <= KEPT_MAX}
    (HERE / "kept").mkdir(exist_ok=True)
    lines = [json.dumps(text) + "\n" for text in sorted(texts, key=lambda text: (len(text), text))]
    (HERE / "kept" / f"{target}.jsonl").write_text("".join(lines))
    print(f"{target}: {len(lines)} inputs, {sum(map(len, lines))} bytes", flush=True)


def start(triple, target, seconds):
    seeds, corpus, artifacts = folders(target)
    program = HERE / "target" / triple / "release" / target
    command = [program, *LIMITS, f"-max_total_time={seconds}", f"-dict={HERE / 'tokens.dict'}"]
    command += [f"-artifact_prefix={artifacts}/", corpus, seeds]
    log = open(HERE / "artifacts" / f"{target}.log", "wb")
    return subprocess.Popen(command, stdout=log, stderr=log, cwd=HERE)


def again_slow(triple, target, artifact):
    """Whether an input is slow on a machine that has nothing else to do, too."""
    program = HERE / "target" / triple / "release" / target
    told = subprocess.run([program, artifact], capture_output=True, text=True, errors="replace", cwd=HERE).stderr
    took = re.findall(r"Executed .* in (\d+) ms", told)
    return not took or int(took[-1]) > 1000


def report(triple, target, status):
    log = (HERE / "artifacts" / f"{target}.log").read_text(errors="replace")
    last = (re.findall(r"cov: (\d+) ft: (\d+) corp: (\S+)", log) or [("?", "?", "?")])[-1]
    runs = (re.findall(r"number_of_executed_units: (\d+)", log) or ["?"])[-1]
    memory = (re.findall(r"peak_rss_mb:\s+(\d+)", log) or ["?"])[-1]
    for path in (HERE / "artifacts" / target).glob("slow-unit-*"):
        if not again_slow(triple, target, path):
            path.unlink()
    found = sorted(path.name for path in (HERE / "artifacts" / target).iterdir())
    verdict = "nothing found" if status == 0 and not found else f"FOUND {' '.join(found) or 'a fault'} (status {status})"
    print(f"{target}: {runs} inputs, {last[0]} edges, {last[1]} features, corpus {last[2]}, {memory} MB: {verdict}", flush=True)
    return status == 0 and not found


def main():
    arguments = sys.argv[1:]
    keeps = arguments[:1] == ["keep"]
    del arguments[:keeps]
    seconds = int(arguments.pop(0)) if arguments and arguments[0].isdigit() else 600
    unknown = set(arguments) - set(TARGETS)
    if unknown:
        sys.exit(f"no such target: {' '.join(sorted(unknown))}; there are {' '.join(TARGETS)}")
    triple = host()
    os.environ.get("NOBUILD") or build(triple)
    clean = True
    waiting = arguments or list(TARGETS)
    if keeps:
        for target in waiting:
            keep(triple, target)
        return
    # Two at a time, so that their times mean something on a small machine.
    while waiting:
        pair, waiting = waiting[:2], waiting[2:]
        running = [(target, start(triple, target, seconds)) for target in pair]
        for target, process in running:
            clean &= report(triple, target, process.wait())
    sys.exit(0 if clean else 1)


main()
