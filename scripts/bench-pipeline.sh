#!/usr/bin/env bash
# QBC against the bare pipeline (examples/bare_pipeline.rs) in one run: same load generator, same payloads, same disk,
# taking turns, with the probe of fdatasync before and after each cell. Prints one JSON line per cell, then medians and
# ratios. Usage: scripts/bench-pipeline.sh [ROUNDS] [SECONDS]; BENCH_DIR sets where the data goes.
set -euo pipefail
cd "$(dirname "$0")/.."
rounds=${1:-5} seconds=${2:-4}
bin=target/dist
work=$(mktemp -d "${BENCH_DIR:-${TMPDIR:-/tmp}}/qbc-bench.XXXXXX")
server=
stop() { [ -z "$server" ] || { kill "$server" 2>/dev/null || true; wait "$server" 2>/dev/null || true; server=; }; }
trap 'stop; rm -rf "$work"' EXIT
port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
url=http://127.0.0.1:$port
export QBC_HEADS="$work/heads.json" QBC_ENDPOINT=$url

start() {
  rm -rf "$work/data" "$QBC_HEADS"
  mkdir "$work/data"
  case $1 in
    bare) "$bin/examples/bare_pipeline" "$port" "$work/data/db" 2>/dev/null & ;;
    qbc) "$bin/qbc" serve --data "$work/data" --listen "127.0.0.1:$port" 2>/dev/null & ;;
  esac
  server=$!
  for _ in $(seq 100); do (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null && break; sleep 0.1; done
  [ "$1" = bare ] || "$bin/qbc" bang bench >/dev/null
}

for round in $(seq "$rounds"); do
  for cell in "1 1" "64 1" "256 1" "4 1000" "16 1000"; do
    read -r clients batch <<<"$cell"
    for who in bare qbc; do
      start $who
      "$bin/qbc" bench --load-only --clients "$clients" --batch "$batch" --payload-bytes 256 --duration-s "$seconds" \
        --warmup-s 1 --probe-dir "$work" --output json 2>/dev/null | sed "s/^{/{\"who\":\"$who\",\"round\":$round,/"
      stop
    done
  done
done | tee "$work/cells.ndjson"

python3 - "$work/cells.ndjson" <<'P'
import json, statistics, sys
cells = [json.loads(line) for line in open(sys.argv[1])]
print("\n| clients x batch | bare: tx/s, p50/p99 us | QBC: tx/s, p50/p99 us | rate, QBC to bare | p50, QBC to bare |\n|---|---|---|---|---|")
for key in dict.fromkeys((c["clients"], c["batch"]) for c in cells):
    med = lambda who, field: statistics.median(c[field] for c in cells if (c["clients"], c["batch"], c["who"]) == (*key, who))
    row = {who: {f: med(who, f) for f in ("transactions_per_s", "p50_us", "p99_us")} for who in ("bare", "qbc")}
    shown = lambda r: f'{r["transactions_per_s"]:,.0f}, {r["p50_us"]:,.0f}/{r["p99_us"]:,.0f}'
    ratio = lambda field: statistics.median(q[field] / b[field] for b, q in pairs)
    pairs = [(b, q) for b in cells for q in cells if b["who"] == "bare" and q["who"] == "qbc" and b["round"] == q["round"]
             and (b["clients"], b["batch"]) == (q["clients"], q["batch"]) == key]
    print(f'| {key[0]} x {key[1]} | {shown(row["bare"])} | {shown(row["qbc"])} | {ratio("transactions_per_s"):.2f} | {ratio("p50_us"):.2f} |')
probes = [c[p]["p50_us"] for c in cells for p in ("fdatasync_probe_before", "fdatasync_probe_after")]
print(f"\nfdatasync probe over all cells: median {statistics.median(probes):.0f} us, least {min(probes)}, most {max(probes)}")
P
