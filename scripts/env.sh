# Sourced by the Makefile, or by you before plain cargo: makes this machine able to build QBC.
# Installs what is missing on Debian and Ubuntu, says what to install elsewhere, builds RocksDB once, sets the variables
# that the crate librocksdb-sys reads.

qbc_fail() { echo "qbc: $*" >&2; return 1; }

qbc_install() {
  command -v apt-get >/dev/null || { qbc_fail "please install: $* (or your system's packages of the same content: a C++ compiler, libclang, python3 with venv, strace)"; return 1; }
  local sudo=""
  [ "$(id -u)" = 0 ] || sudo="sudo"
  echo "qbc: installing $*" >&2
  # One update first: a fresh machine has no package lists.
  $sudo apt-get update -qq >&2 && DEBIAN_FRONTEND=noninteractive $sudo apt-get install -y -qq --no-install-recommends "$@" >&2
}

# The newest libclang1-NN that the system's package lists know.
qbc_libclang_package() {
  command -v apt-cache >/dev/null || { echo libclang; return; }
  local found
  found=$(apt-cache search --names-only '^libclang1-[0-9]+$' | cut -d' ' -f1 | sort -V | tail -n 1)
  if [ -z "$found" ]; then
    local sudo=""; [ "$(id -u)" = 0 ] || sudo="sudo"
    $sudo apt-get update -qq >&2
    found=$(apt-cache search --names-only '^libclang1-[0-9]+$' | cut -d' ' -f1 | sort -V | tail -n 1)
  fi
  echo "${found:-libclang-dev}"
}

# The C interface alone: libclang-cpp, which other packages bring, is not it.
qbc_has_libclang() {
  [ -z "${LIBCLANG_PATH:-}" ] || return 0
  local pattern
  for pattern in /usr/lib*/libclang{.so*,-[0-9]*.so*} /usr/lib/*/libclang{.so*,-[0-9]*.so*} /usr/lib/llvm-*/lib/libclang{.so*,-[0-9]*.so*}; do
    [ -e "$pattern" ] && return 0
  done
  return 1
}

qbc_ready() {
  command -v cargo >/dev/null || { qbc_fail "Rust 1.90 or newer is missing: install it with rustup, then run the command again"; return 1; }
  local missing=()
  { command -v g++ && command -v cc; } >/dev/null || missing+=(g++)
  command -v python3 >/dev/null || missing+=(python3)
  python3 -c 'import venv, ensurepip' 2>/dev/null || missing+=(python3-venv)
  command -v strace >/dev/null || missing+=(strace)
  # The page is tested in a browser.
  { command -v chromium && command -v chromedriver; } >/dev/null || missing+=(chromium chromium-driver)
  qbc_has_libclang || missing+=("$(qbc_libclang_package)")
  [ "${#missing[@]}" = 0 ] || qbc_install "${missing[@]}" || return 1
  # libclang alone has no headers of its own: it borrows the compiler's.
  export BINDGEN_EXTRA_CLANG_ARGS="${BINDGEN_EXTRA_CLANG_ARGS:--I$(cc -print-file-name=include)}"
  if [ -z "${ROCKSDB_LIB_DIR:-}" ]; then
    local built
    built=$(scripts/rocksdb.sh) || return 1
    export ROCKSDB_LIB_DIR="$built" ROCKSDB_STATIC=1
  fi
}

qbc_ready
