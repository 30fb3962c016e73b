#!/usr/bin/env bash
# Runs the fuzz targets of fuzz/ under libFuzzer, each for QBC_FUZZ_SECONDS (default 60), from its seeds where it has some.
# Needs a nightly toolchain (rustup toolchain install nightly); installs cargo-fuzz if it is missing.
# Usage: scripts/fuzz.sh [TARGET...]
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/env.sh
seconds=${QBC_FUZZ_SECONDS:-60}
cargo +nightly --version >/dev/null 2>&1 || { echo "fuzzing needs a nightly toolchain: rustup toolchain install nightly" >&2; exit 1; }
cargo fuzz --version >/dev/null 2>&1 || cargo install --locked cargo-fuzz
[ $# -gt 0 ] || set -- $(cargo +nightly fuzz list)
for target in "$@"; do
  mkdir -p "fuzz/corpus/$target"
  cargo +nightly fuzz run "$target" "fuzz/corpus/$target" $(ls -d "fuzz/seeds/$target" 2>/dev/null) -- -max_total_time="$seconds" -max_len=65536 -timeout=20
done
