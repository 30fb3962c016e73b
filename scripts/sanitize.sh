#!/usr/bin/env bash
# Runs the tests of src/chain/keccak.rs, where `unsafe` is more than a call of the system, under Miri (undefined behaviour, in the scalar and
# the AVX2 form: it has no AVX-512) and under AddressSanitizer (all forms that the processor has). The file is compiled without
# the rest of the program (scripts/sanitize), with the same versions of what it uses.
# Needs a nightly toolchain with miri and rust-src (rustup toolchain install nightly -c miri -c rust-src).
set -euo pipefail
cd "$(dirname "$0")/.."
cargo +nightly miri --version >/dev/null 2>&1 || { echo "this needs Miri: rustup toolchain install nightly -c miri -c rust-src" >&2; exit 1; }
target=$(rustc +nightly -vV | sed -n 's/^host: //p')
export CARGO_TARGET_DIR=$PWD/target/sanitize
cp Cargo.lock scripts/sanitize/
cd scripts/sanitize
for features in "" "-Ctarget-feature=+avx2"; do
  echo "Miri ${features:-scalar}"
  RUSTFLAGS="$features" MIRIFLAGS="-Zmiri-disable-isolation" cargo +nightly miri test
done
echo "AddressSanitizer"
RUSTFLAGS="-Zsanitizer=address" cargo +nightly test --target "$target"
