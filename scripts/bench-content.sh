#!/usr/bin/env bash
# What content and rules cost: plain bytes, JSON, JSON with a schema of ten fields, transfers of a ledger, in batches of 1000, in one run:
# the same load generator, payload size and disk, taking turns, each on fresh data. Every cell is read back and verified.
# Prints one JSON line per cell, then medians and the ratios to bytes, with the machine's load beside them.
# Usage: scripts/bench-content.sh [ROUNDS] [SECONDS] [CALLERS, as "4 16"]; BENCH_DIR sets where the data goes, QBC_BIN the program.
set -euo pipefail
cd "$(dirname "$0")/.."
rounds=${1:-5} seconds=${2:-4} callers=${3:-4 16}
bin=${QBC_BIN:-target/dist/qbc}
work=$(mktemp -d "${BENCH_DIR:-${TMPDIR:-/tmp}}/qbc-bench.XXXXXX")
server=
stop() { [ -z "$server" ] || { kill "$server" 2>/dev/null || true; wait "$server" 2>/dev/null || true; server=; }; }
trap 'stop; rm -rf "$work"' EXIT
port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
export QBC_HEADS="$work/heads.json" QBC_ENDPOINT=http://127.0.0.1:$port

start() {
  rm -rf "$work/data" "$QBC_HEADS"
  "$bin" serve --data "$work/data" --listen "127.0.0.1:$port" 2>/dev/null &
  server=$!
  for _ in $(seq 300); do (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null && return; sleep 0.1; done
  echo "the server does not answer" >&2; exit 1
}

for round in $(seq "$rounds"); do
  for clients in $callers; do
    for content in bytes json schema transfers; do
      start
      load=$(cut -d' ' -f1 /proc/loadavg)
      "$bin" bench --content "$content" --clients "$clients" --batch 1000 --payload-bytes 256 --duration-s "$seconds" --warmup-s 1 \
        --proofs 1 --probe-dir "$work" --output json 2>/dev/null \
        | sed "s/^{/{\"content\":\"$content\",\"round\":$round,\"load_before\":$load,/"
      stop
    done
  done
done | tee "$work/cells.ndjson"

python3 - "$work/cells.ndjson" <<'P'
import json, statistics, sys
cells = [json.loads(line) for line in open(sys.argv[1])]
print("\n| clients x batch | content | tx/s, p50/p99 us | rate, to bytes |\n|---|---|---|---|")
rate = lambda c: c["transactions_per_s"]
for clients in dict.fromkeys(c["clients"] for c in cells):
    base = {c["round"]: rate(c) for c in cells if c["clients"] == clients and c["content"] == "bytes"}
    for content in ("bytes", "json", "schema", "transfers"):
        mine = [c for c in cells if c["clients"] == clients and c["content"] == content]
        med = lambda field: statistics.median(c[field] for c in mine)
        ratio = statistics.median(rate(c) / base[c["round"]] for c in mine)
        print(f'| {clients} x 1000 | {content} | {med("transactions_per_s"):,.0f}, {med("p50_us"):,.0f}/{med("p99_us"):,.0f} | {ratio:.2f} |')
loads = [c["load_before"] for c in cells]
probes = [c[p]["p50_us"] for c in cells for p in ("fdatasync_probe_before", "fdatasync_probe_after")]
print(f"\nload of the machine before a cell: {min(loads)} to {max(loads)}; fdatasync probe: median {statistics.median(probes):.0f} us, least {min(probes)}, most {max(probes)}")
P
