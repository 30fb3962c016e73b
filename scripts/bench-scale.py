#!/usr/bin/env python3
"""Measures a node that is large: a million chains, a chain of a hundred million transactions, pools of a million, payloads of
1 MiB, what of it lies on the disk and how often it is written.

Usage: bench-scale.py QBC_BINARY [--chains N] [--active N] [--transactions N] [--only PART ...]. Prints one JSON line per
figure, and at the end a table of what is asked. Everything is kept in a temporary folder (TMPDIR says where: a hundred million
transactions take 50 GB) and ended by its own process id. Sizes like `--chains 100000 --transactions 2000000` take minutes."""

import argparse
import glob
import json
import os
import re
import signal
import statistics
import sys
import threading
import time
import urllib.error
import urllib.request
from importlib.machinery import SourceFileLoader

cluster = SourceFileLoader("bench_cluster", os.path.join(os.path.dirname(os.path.abspath(__file__)), "bench-cluster.py")).load_module()

ASKED = []
MB_PER_MIB = 1.048576


def tell(name, **figures):
    print(json.dumps({"figure": name, **figures}), flush=True)


def held(what, value, unit, limit, most=True):
    """Notes a figure beside what is asked of it."""
    ASKED.append((what, value, unit, limit, "most" if most else "least", value <= limit if most else value >= limit))


def figure(text):
    return f"{text:,.2f}" if text < 100 else f"{text:,.0f}"


class Big:
    """One node, and what the system says of its process."""

    def __init__(self, binary):
        self.cluster = cluster.Cluster(binary, 1)
        self.node = self.cluster.nodes[0]

    def __enter__(self):
        self.ready_s()
        self.cluster.settle()
        return self

    def __exit__(self, *_):
        self.cluster.__exit__()

    def ready_s(self):
        """Starts it; seconds until it takes requests."""
        began = time.monotonic()
        self.node.start()
        while True:
            try:
                with urllib.request.urlopen(f"http://{self.node.address}/readyz", timeout=5) as answer:
                    if answer.status == 200:
                        return time.monotonic() - began
            except (urllib.error.URLError, ConnectionError):
                pass
            time.sleep(0.005)

    def bench(self, stem, chains, **options):
        words = ["bench", "--stem", stem, "--chains", str(chains)]
        options = {"transactions": 0, "proofs": 0, **options}
        for name, value in options.items():
            if value is True:
                words.append(f"--{name.replace('_', '-')}")
            elif value is not None and value is not False:
                words += [f"--{name.replace('_', '-')}", str(value)]
        return self.cluster.run(self.node, *words)

    def status_mib(self, field):
        text = open(f"/proc/{self.node.process.pid}/status").read()
        return int(re.search(field + r":\s+(\d+)", text).group(1)) / 1024

    def written(self):
        """Bytes that it sent to the device since it started."""
        return int(re.search(r"^write_bytes: (\d+)", open(f"/proc/{self.node.process.pid}/io").read(), re.M).group(1))

    def tables(self):
        """Bytes of its table and blob files."""
        files = [path for kind in ("sst", "blob") for path in glob.glob(f"{self.cluster.folder}/n0/db/*.{kind}")]
        return sum(os.path.getsize(path) for path in files)

    def metrics(self):
        with urllib.request.urlopen(f"http://{self.node.address}/metrics", timeout=10) as answer:
            return answer.read().decode()

    def answers(self, stem, kind, count):
        """Proofs or reads all over a chain. With them the quantiles at the server, from the buckets of its histogram, in
        microseconds: upper bounds, in which they lie."""
        name = {"proofs": "proof", "reads": "read"}[kind]
        before, told = buckets(self.metrics(), name), self.bench(stem, 1, **{kind: count})
        after = buckets(self.metrics(), name)
        grown = [(bound, count - before.get(bound, 0)) for bound, count in sorted(after.items())]
        return told[kind], quantile(grown, 0.5), quantile(grown, 0.99)


class Memory:
    """The most that was resident in a stretch of time."""

    def __init__(self, big):
        self.big, self.most, self.stop = big, 0, threading.Event()
        self.thread = threading.Thread(target=self.watch)

    def watch(self):
        while not self.stop.wait(0.1):
            self.most = max(self.most, self.big.status_mib("VmRSS"))

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.stop.set()
        self.thread.join()


def buckets(metrics, name):
    pattern = rf'^qbc_{name}_seconds_bucket\{{le="([^"]+)"\}} (\d+)'
    return {float(bound.replace("+Inf", "inf")): int(count) for bound, count in re.findall(pattern, metrics, re.M)}


def quantile(buckets, share):
    """Within its bucket a quantile is taken to lie where evenly spread values would have it."""
    total, below, floor = buckets[-1][1], 0, 0.0
    for bound, count in buckets:
        if count >= total * share and count > below:
            top = floor if bound == float("inf") else bound
            return round(1e6 * (floor + (top - floor) * (total * share - below) / (count - below)), 1)
        below, floor = count, bound
    return float("nan")


def million_chains(args):
    with Big(args.binary) as big, Big(args.binary) as small:
        small.bench("one", 1, bang=1)
        with Memory(big) as memory:
            banged = big.bench("c", args.chains, bang=1000, clients=4)["bang"]
        tell("bang", chains=args.chains, per_s=banged["chains_per_s"], rss_mib_max=round(memory.most), p99_us=banged["p99_us"])
        held("bang in batches", banged["chains_per_s"], "chains/s", 20_000, most=False)
        big.cluster.rest()
        idle = big.status_mib("VmRSS")
        tell("idle", rss_mib=round(idle), disk_bytes_per_chain=round(big.tables() / args.chains))
        with Memory(big) as memory:
            loads = {zipf: big.bench("c", args.chains, active=args.active, zipf=zipf, clients=64, duration_s=args.seconds, transactions=None)["inject"] for zipf in (False, True)}
        tell("active", active=args.active, rss_mib_max=round(memory.most), alike=loads[False], zipf=loads[True])
        held("resident, all idle", idle * MB_PER_MIB, "MB", 400)
        held(f"resident, {args.active:,} active", memory.most * MB_PER_MIB, "MB", 400)
        latencies(args, big, small)
        restarts(big, "restart")
        tell("after_restart", rss_mib=round(big.status_mib("VmRSS")))


def latencies(args, big, small):
    """One caller: on the node with many chains and on the one with one, in turn."""
    times = {"many": [], "one": []}
    for _ in range(args.rounds):
        for name, node, stem, chains, active in (("many", big, "c", args.chains, args.active), ("one", small, "one", 1, 1)):
            node.cluster.rest()
            told = node.bench(stem, chains, active=active, clients=1, duration_s=3, transactions=None)
            times[name].append(told["inject"]["p50_us"])
    many, one = statistics.median(times["many"]), statistics.median(times["one"])
    tell("inject", p50_us=times, ratio=round(many / one, 2))
    held("inject p50, many chains to one", many / one, "x", 1.3)


def restarts(big, name):
    for how, number in (("stop", signal.SIGTERM), ("kill", signal.SIGKILL)):
        began = time.monotonic()
        big.node.end(number)
        stopped = time.monotonic() - began
        ready = big.ready_s()
        tell(name, after=how, stop_s=round(stopped, 2), ready_s=round(ready, 2))
        held(f"{name} to ready after {how}", ready, "s", 3)


def long_chain(args):
    """A chain that grows in slices: what each costs."""
    with Big(args.binary) as big:
        big.bench("big", 1, bang=1, leap_count=args.leap_count)
        room = args.payload_bytes + 220
        begin, slices = big.written(), 10
        for number in range(slices):
            before = big.written()
            told = big.bench("big", 1, clients=4, batch=1000, payload_bytes=args.payload_bytes, transactions=args.transactions // slices)["inject"]
            tell("slice", number=number, per_s=told["transactions_per_s"], p50_us=told["p50_us"], p99_us=told["p99_us"], rss_mib=round(big.status_mib("VmRSS")), written_ratio=round((big.written() - before) / told["transactions"] / room, 2))
            if number == 0:
                big.cluster.rest()
                answers(big, args)
        big.cluster.rest()
        count = args.transactions // slices * slices
        written, disk = (big.written() - begin) / count / room, big.tables() / count
        tell("disk", transactions=count, bytes_per_transaction=round(disk), over_payload=round(disk - args.payload_bytes), written_ratio=round(written, 2))
        held("disk per transaction over its payload", disk - args.payload_bytes, "bytes", 220)
        held("written per (payload + 220), one chain", written, "x", 5)
        answers(big, args)
        restarts(big, "restart of a long chain")


def answers(big, args):
    """Proofs and reads by index all over the chain that is there: first when it is cold, then again."""
    for turn in ("cold", "warm"):
        for kind, asked in (("proofs", 60), ("reads", 50)):
            told, p50, p99 = big.answers("big", kind, args.proofs)
            tell(kind, of=told["sealed"], turn=turn, server_p50_us=p50, server_p99_us=p99, call_p50_us=told["p50_us"], call_p99_us=told["p99_us"])
            if turn == "warm":
                held(f"{kind} from {told['sealed']:,}, p50 at the server", p50, "us", asked)
            if turn == "warm" and kind == "proofs":
                held(f"{kind} from {told['sealed']:,}, p99 at the server", p99, "us", 1000)


def pools(args):
    with Big(args.binary) as big:
        big.bench("p", 1, bang=1)
        times = []
        for _ in range(args.rounds):
            told = big.bench("p", 1, clients=4, batch=1000, transactions=args.pool)
            big.cluster.rest()
            times.append(big.bench("p", 1, leap=True)["leap"]["ms"])
        tell("leap", pooled=args.pool, ms=[round(ms, 1) for ms in times], inject=told["inject"])
        held(f"leap of {args.pool:,} pooled", statistics.median(times), "ms", 150)
        with Memory(big) as memory:
            big.bench("mib", 1, bang=1, leap_count=64)
            told = big.bench("mib", 1, clients=4, payload_bytes=1 << 20, duration_s=args.seconds, transactions=None)["inject"]
        tell("payloads_of_1_mib", rss_mib_max=round(memory.most), **told)


def interleaved(args):
    with Big(args.binary) as big:
        big.bench("i", args.active, bang=1000, leap_count=1000)
        big.cluster.rest()
        before, room = big.written(), args.payload_bytes + 220
        with Memory(big) as memory:
            told = big.bench("i", args.active, clients=16, batch=100, payload_bytes=args.payload_bytes, transactions=args.interleaved)["inject"]
        big.cluster.rest()
        written = (big.written() - before) / told["transactions"] / room
        tell("interleaved", chains=args.active, written_ratio=round(written, 2), rss_mib_max=round(memory.most), over_payload=round(big.tables() / told["transactions"] - args.payload_bytes), **told)
        held(f"written per (payload + 220), {args.active:,} chains", written, "x", 7)


PARTS = {"chains": million_chains, "pools": pools, "interleaved": interleaved, "long": long_chain}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("binary")
    sizes = {"chains": 1_000_000, "active": 10_000, "transactions": 100_000_000, "leap_count": 100_000, "pool": 1_000_000, "interleaved": 10_000_000, "payload_bytes": 256, "proofs": 20_000, "seconds": 20, "rounds": 3}
    for name, size in sizes.items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, default=size, help=f"[{size}]")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    args = parser.parse_args()
    args.active = min(args.active, args.chains)
    for part in args.only:
        PARTS[part](args)
    print()
    for what, value, unit, limit, side, holds in ASKED:
        print(f"| {what} | {figure(value)} {unit} | at {side} {figure(limit)} | {'held' if holds else 'missed'} |")
    sys.exit(0)


if __name__ == "__main__":
    main()
