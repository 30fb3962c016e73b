# Thin: each target sources scripts/env.sh (which installs and builds what is missing) and hands over to cargo.
SHELL := /bin/bash
READY := . scripts/env.sh

.PHONY: run dist demo test chaos lint bench bench-pipeline bench-content bench-cluster bench-peers bench-scale fuzz sanitize setup help

help: ## say what there is
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/'

setup: ## install what is missing and build RocksDB once
	@$(READY)

run: ## build and start a node on 127.0.0.1:7420 with its data in ./qbc-data
	@$(READY) && cargo build --release && scripts/next-steps.sh && exec target/release/qbc serve

dist: ## build the program as it ships, optimised over all crates: target/dist/qbc
	@$(READY) && cargo build --profile dist --bin qbc

demo: ## build and start a cluster of four nodes with chains that live, and the page to look at; Ctrl-C ends it all
	@$(READY) && cargo build --release && exec target/release/qbc demo

test: ## run all tests
	@$(READY) && cargo test --no-fail-fast

chaos: ## 100 rounds of random faults against real clusters; QBC_CHAOS_ROUNDS, QBC_CHAOS_SEED, QBC_CHAOS_MODE=majority
	@$(READY) && QBC_CHAOS_ROUNDS=$${QBC_CHAOS_ROUNDS:-100} cargo test --release --test chaos -- --nocapture

fuzz: ## the fuzz targets under libFuzzer, a minute each; QBC_FUZZ_SECONDS
	@scripts/fuzz.sh

sanitize: ## the only file with hashing in `unsafe` under Miri and AddressSanitizer; needs a nightly toolchain with miri and rust-src
	@scripts/sanitize.sh

lint: ## formatting and lints, nothing is written
	@$(READY) && cargo fmt --all --check && cargo clippy --all-targets -- -D warnings

bench: ## criterion benches of the pure parts, leap and proof over the real store
	@$(READY) && cargo bench

bench-pipeline: dist ## QBC against the bare pipeline in one run, with ratios
	@$(READY) && cargo build --profile dist --example bare_pipeline && scripts/bench-pipeline.sh

bench-content: dist ## bytes, JSON with a schema and without, transfers in one run, with ratios
	@$(READY) && scripts/bench-content.sh

bench-cluster: dist ## three nodes against one, failover, hand-over, idle cost, many groups, catch-up
	@$(READY) && scripts/bench-cluster.py target/dist/qbc

bench-peers: dist ## QBC and PostgreSQL, Redis, etcd, NATS JetStream, UmaDB, immudb in one run, with ratios; installs what is missing
	@$(READY) && scripts/bench-peers.py --qbc target/dist/qbc

bench-scale: dist ## a million chains and a chain of 100 million transactions (50 GB); smaller: QBC_BENCH='--chains 100000 --transactions 2000000'
	@$(READY) && scripts/bench-scale.py target/dist/qbc $(QBC_BENCH)
