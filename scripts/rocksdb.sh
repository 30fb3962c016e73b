#!/usr/bin/env bash
# Builds the RocksDB that librocksdb-sys brings, once per version and machine, into a cache outside of the checkout, and
# prints where it lies. Its sources are compiled as a few large units instead of some 340 small ones (RocksDB supports
# such builds): the headers, which are most of the work, are read a few times instead of hundreds.
set -euo pipefail
cd "$(dirname "$0")/.."

units=8
manifest=$(cargo metadata --format-version 1 | grep -o '"manifest_path":"[^"]*/librocksdb-sys-[^"/]*/Cargo.toml"' | head -n 1 | cut -d'"' -f4)
[ -n "$manifest" ] || { echo "qbc: cargo does not know librocksdb-sys" >&2; exit 1; }
source=$(dirname "$manifest")

# The checksums of pages and logs use the processor's own instructions where it has them.
flags="-O2"
if [ "$(uname -m)" = x86_64 ] && grep -qw avx2 /proc/cpuinfo && grep -qw pclmulqdq /proc/cpuinfo; then
  flags="$flags -march=haswell"
fi
defines="-DNDEBUG -DOS_LINUX -DROCKSDB_PLATFORM_POSIX -DROCKSDB_LIB_IO_POSIX -DHAVE_ALIGNED_NEW -DHAVE_UINT128_EXTENSION
 -DROCKSDB_SCHED_GETCPU_PRESENT -DROCKSDB_AUXV_GETAUXVAL_PRESENT -DROCKSDB_FALLOCATE_PRESENT -DROCKSDB_RANGESYNC_PRESENT"
key=$(printf '%s %s %s' "$flags" "$defines" "$("${CXX:-g++}" -dumpfullversion -dumpmachine 2>/dev/null)" | cksum | cut -d' ' -f1)
out="${QBC_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/qbc}/$(basename "$source")-$key"
if [ -f "$out/librocksdb.a" ]; then echo "$out"; exit 0; fi

echo "qbc: building RocksDB once (some minutes), into $out" >&2
mkdir -p "$(dirname "$out")"
work=$(mktemp -d "$out.XXXXXX")
trap 'rm -rf "$work"' EXIT
mapfile -t files < <(grep -v build_version "$source/rocksdb_lib_sources.txt" | sed '/^\s*$/d')
count=${#files[@]}
for ((unit = 0; unit < units; unit++)); do
  for ((at = unit * count / units; at < (unit + 1) * count / units; at++)); do
    printf '#include "%s/rocksdb/%s"\n' "$source" "${files[at]}"
  done >"$work/unit$unit.cc"
done
printf '#include "%s/build_version.cc"\n' "$source" >>"$work/unit$((units - 1)).cc"
export source work flags defines
seq 0 $((units - 1)) | xargs -P "$(nproc)" -I{} sh -c '${CXX:-g++} -c "$work/unit{}.cc" -o "$work/unit{}.o" -std=c++20 -include cstdint -fPIC -w \
  -ffunction-sections -fdata-sections -I"$source/rocksdb/include" -I"$source/rocksdb" -I"$source" $defines $flags' >&2
ar rcs "$work/librocksdb.a" "$work"/unit*.o
rm "$work"/unit*
# In one step, so that two builds at a time don't see half of each other's.
mv -T "$work" "$out" 2>/dev/null || [ -f "$out/librocksdb.a" ]
trap - EXIT
echo "$out"
