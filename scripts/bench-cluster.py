#!/usr/bin/env python3
"""Measures a cluster of real processes on this machine: three nodes against one, failover, hand-over, idle cost, many
groups, a split under load, what each node does as subchains spread, catch-up.

Usage: bench-cluster.py QBC_BINARY [--rounds N] [--failovers N] [--missed N]. Prints one JSON line per figure; everything
is kept in a temporary folder and ended by its own process id."""

import argparse
import json
import os
import re
import signal
import socket
import statistics
import subprocess
import tempfile
import threading
import time
import urllib.request


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


class Node:
    """One `qbc serve`."""

    def __init__(self, cluster, number):
        self.cluster, self.number, self.port = cluster, number, free_port()
        self.address = f"127.0.0.1:{self.port}"
        self.process = None

    def start(self, join=None):
        command = [self.cluster.binary, "serve", "--data", f"{self.cluster.folder}/n{self.number}", "--listen", self.address]
        if join:
            command += ["--join", join]
        began = time.monotonic()
        path = f"{self.cluster.folder}/n{self.number}.log"
        with open(path, "wb") as log:
            self.process = subprocess.Popen(command, env=self.cluster.environment, stdout=log, stderr=log)
        while b"listening" not in open(path, "rb").read():
            if self.process.poll() is not None:
                raise RuntimeError(open(path).read())
            time.sleep(0.01)
        return time.monotonic() - began

    def end(self, how=signal.SIGKILL):
        if self.process and self.process.poll() is None:
            self.process.send_signal(how)
            self.process.wait()

    def cpu_s(self):
        fields = open(f"/proc/{self.process.pid}/stat").read().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def work(self):
        """What it did since it started: transactions that its replicas applied, bytes of log entries, fdatasyncs of the log,
        bytes given to the disk, time on the cores."""
        text = urllib.request.urlopen(f"http://{self.address}/metrics").read().decode()
        counted = lambda name: int(float(re.search(rf"^{name} (\S+)$", text, re.M).group(1)))
        written = re.search(r"^write_bytes: (\d+)", open(f"/proc/{self.process.pid}/io").read(), re.M)
        return {
            "applied": counted("qbc_applied_transactions_total"),
            "applied_bytes": counted("qbc_applied_bytes_total"),
            "syncs": counted("qbc_log_sync_seconds_count"),
            "disk_bytes": int(written.group(1)),
            "cpu_ms": round(self.cpu_s() * 1000),
        }

    def rss_mib(self):
        status = open(f"/proc/{self.process.pid}/status").read()
        return int(re.search(r"VmRSS:\s+(\d+)", status).group(1)) / 1024


class Cluster:
    """Some nodes in a folder of their own."""

    def __init__(self, binary, size, **settings):
        self.binary = binary
        self.room = tempfile.TemporaryDirectory(prefix="qbc-bench-")
        self.folder = self.room.name
        self.environment = {**os.environ, **{f"QBC_{key.upper()}": str(value) for key, value in settings.items()}}
        self.environment["QBC_HEADS"] = f"{self.folder}/heads.json"
        self.nodes = [Node(self, number) for number in range(size)]

    def __enter__(self):
        for node in self.nodes:
            node.start(None if node is self.nodes[0] else self.nodes[0].address)
        self.settle()
        return self

    def __exit__(self, *_):
        for node in self.nodes:
            node.end()
        self.room.cleanup()

    def run(self, node, *words, stdin=None):
        command = [self.binary, *words, "--endpoint", f"http://{node.address}", "--output", "json"]
        done = subprocess.run(command, env=self.environment, input=stdin, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"{words} at {node.address}: {done.stderr}")
        return json.loads(done.stdout) if done.stdout.strip() else None

    def discover(self, node=None):
        return self.run(node or self.living()[0], "discover")

    def living(self):
        return [node for node in self.nodes if node.process and node.process.poll() is None]

    def settle(self):
        """Waits until every group has its voters and leaders are spread."""
        until = time.monotonic() + 120
        while time.monotonic() < until:
            view = self.discover()
            groups = view["groups"]
            led = [len(node["groups_led"]) for node in view["nodes"] if node["state"] == "alive"]
            whole = all(group["settled"] and group["leader_node_id"] for group in groups)
            if whole and len(led) == len(self.living()) and max(led) - min(led) <= 2:
                return
            time.sleep(0.3)
        raise RuntimeError(f"the cluster does not settle: {json.dumps(self.discover())}")

    def rest(self):
        """Waits until compaction and the like of the last load are over: it would be counted against the next one."""
        until = time.monotonic() + 60
        while time.monotonic() < until:
            before = sum(node.cpu_s() for node in self.living())
            time.sleep(1)
            if sum(node.cpu_s() for node in self.living()) - before < 0.15:
                return

    def leader_of(self, group):
        view = self.discover()
        leader = next(g["leader_node_id"] for g in view["groups"] if g["group_id"] == group)
        address = next(node["address"] for node in view["nodes"] if node["node_id"] == leader)
        return next(node for node in self.nodes if node.address == address)

    def load(self, node, clients, batch, seconds=4, chains=16):
        return self.run(node, "bench", "--clients", str(clients), "--batch", str(batch), "--duration-s", str(seconds), "--chains", str(chains), "--proofs", "1")


def tell(name, **figures):
    print(json.dumps({"figure": name, **figures}), flush=True)


def throughput(binary, rounds):
    """One node and three, in turn, in one run."""
    rates = {"unary_64": ([], []), "batch_1000": ([], [])}
    with Cluster(binary, 1) as one, Cluster(binary, 3) as three:
        for _ in range(rounds):
            for which, cluster in ((0, one), (1, three)):
                for name, clients, batch in (("unary_64", 64, 1), ("batch_1000", 4, 1000)):
                    rates[name][which].append(cluster.load(cluster.nodes[0], clients, batch)["transactions_per_s"])
                    one.rest()
                    three.rest()
    for name, (one, three) in rates.items():
        one, three = statistics.median(one), statistics.median(three)
        tell(name, one_node=round(one), three_nodes=round(three), ratio=round(three / one, 3))


def failover(binary, times):
    """From the signal to the leader until the next acknowledged write by another node."""
    with Cluster(binary, 3) as cluster:
        cluster.run(cluster.nodes[0], "bang", "failover", "--content", "text")
        for name, how in (("failover_kill", signal.SIGKILL), ("handover_term", signal.SIGTERM)):
            took = []
            for number in range(times):
                cluster.settle()
                leader = cluster.leader_of_chain("failover")
                other = next(node for node in cluster.living() if node is not leader)
                began = time.monotonic()
                leader.process.send_signal(how)
                cluster.run(other, "inject", "failover", stdin=f"{name} {number}\n")
                took.append(time.monotonic() - began)
                leader.process.wait()
                leader.start()
            took.sort()
            tell(name, times=times, median_s=round(statistics.median(took), 3), worst_s=round(took[-1], 3), all_s=[round(one, 3) for one in took])


def split_under_load(binary, rounds, clients=6):
    """The longest wait of any client around a split, and as long before it; then the same while the chain's leader is killed."""
    for killing in (False, True):
        for _ in range(rounds):
            with Cluster(binary, 3) as cluster:
                one_split(cluster, clients, killing)


def one_split(cluster, clients, killing):
    cluster.run(cluster.nodes[0], "bang", "orders", "--content", "text")
    leader = cluster.leader_of_chain("orders")
    asked = [node for node in cluster.nodes if node is not leader] if killing else cluster.nodes
    over, waits, failed = threading.Event(), [], []

    def client(which):
        node, turn = asked[which % len(asked)], 0
        while not over.is_set():
            began = time.monotonic()
            try:
                cluster.run(node, "inject", "orders", stdin=f"{which} {turn}\n")
            except RuntimeError as why:
                failed.append(str(why))
            waits.append((began, time.monotonic() - began))
            turn += 1

    callers = [threading.Thread(target=client, args=(which,)) for which in range(clients)]
    for caller in callers:
        caller.start()
    time.sleep(3)
    if killing:
        threading.Timer(0.03, leader.end).start()
    began = time.monotonic()
    cluster.run(asked[0], "split", "orders", "--into", "4")
    took = time.monotonic() - began
    time.sleep(3)
    over.set()
    for caller in callers:
        caller.join()
    before = max(wait for at, wait in waits if at + wait < began)
    during = max(wait for at, wait in waits if at + wait >= began)
    name = "split_leader_killed" if killing else "split"
    tell(name, clients=clients, failed=len(failed), calls=len(waits), split_s=round(took, 3), longest_before_s=round(before, 3), longest_from_the_split_on_s=round(during, 3))


def leader_of_chain(cluster, name):
    """The chain's group is the one whose log grows with an inject."""
    applied = lambda: {g["group_id"]: g["applied"] for g in cluster.discover()["groups"]}
    before = applied()
    cluster.run(cluster.living()[0], "inject", name, stdin="where\n")
    # A replica hears of the newest commit with the next heartbeat.
    time.sleep(1)
    after = applied()
    group = max((id for id in after if id > 0), key=lambda id: after[id] - before[id])
    return cluster.leader_of(group)


Cluster.leader_of_chain = leader_of_chain


def scaling(binary, transactions, callers=4):
    """What each node does for the same transactions while their chain is spread over ever more subchains: with one replica
    over three nodes, with three over six."""
    for size, replication in ((3, 1), (6, 3)):
        with Cluster(binary, size, replication=replication) as cluster:
            chains = []
            for into in (1, 3, 6, 12):
                chains.append(f"spread{into}")
                cluster.run(cluster.nodes[0], "bang", chains[-1], "--content", "text")
                if into > 1:
                    cluster.run(cluster.nodes[0], "split", chains[-1], "--into", str(into))
            for into, chain in zip((1, 3, 6, 12), chains):
                cluster.rest()
                before = [node.work() for node in cluster.nodes]
                began = time.monotonic()
                everything_injected(cluster, chain, transactions, callers)
                took = time.monotonic() - began
                cluster.rest()
                did = [{what: now - was[what] for what, now in node.work().items()} for node, was in zip(cluster.nodes, before)]
                figures = {what: sorted((one[what] for one in did), reverse=True) for what in did[0]}
                tell(f"scaling_{replication}_of_{size}", subchains=into, transactions=transactions, seconds=round(took, 1), **figures)


def everything_injected(cluster, chain, transactions, callers):
    """So many lines of 256 bytes, by some callers at once, each through a node of its own."""
    def caller(which):
        lines = "".join(f"{which} {line:10} {os.urandom(120).hex()}\n" for line in range(transactions // callers))
        cluster.run(cluster.nodes[which % len(cluster.nodes)], "inject", chain, stdin=lines)

    running = [threading.Thread(target=caller, args=(which,)) for which in range(callers)]
    for one in running:
        one.start()
    for one in running:
        one.join()


def idle(binary):
    with Cluster(binary, 3) as cluster:
        time.sleep(5)
        before = [node.cpu_s() for node in cluster.nodes]
        time.sleep(20)
        used = [(node.cpu_s() - was) / 20 * 100 for node, was in zip(cluster.nodes, before)]
        tell("idle_3x16_groups", percent_of_a_core=[round(one, 2) for one in used])


def many_groups(binary):
    with Cluster(binary, 3, groups=64) as cluster:
        node = cluster.nodes[2]
        rss = [round(one.rss_mib()) for one in cluster.nodes]
        node.end(signal.SIGTERM)
        took = node.start()
        tell("groups_64", start_s=round(took, 2), rss_mib=rss)


def catch_up(binary, missed, rounds):
    """A node misses transactions; how fast it gets them under load, and what is served meanwhile, against what the whole
    cluster serves before and after: the machine's own speed drifts within a minute."""
    rates, ratios = [], []
    with Cluster(binary, 3) as cluster:
        at, away = cluster.nodes[0], cluster.nodes[2]
        served = lambda: cluster.load(at, 4, 100, seconds=3)["transactions_per_s"]
        applied = lambda node: {g["group_id"]: g["applied"] for g in cluster.discover(node)["groups"]}
        for _ in range(rounds):
            whole = [served() for _ in range(3)]
            away.end(signal.SIGTERM)
            time.sleep(4)
            sent = 0
            while sent < missed:
                sent += cluster.load(at, 4, 1000, seconds=5)["transactions"]
            cluster.rest()
            wanted = applied(at)
            during, caught_up = [], threading.Event()

            def keep_loading():
                while not caught_up.is_set():
                    during.append(served())

            loading = threading.Thread(target=keep_loading)
            loading.start()
            time.sleep(1)
            began = time.monotonic()
            away.start()
            while any(applied(away)[group] < index for group, index in wanted.items()):
                time.sleep(0.05)
            took = time.monotonic() - began
            caught_up.set()
            loading.join()
            # The last one ran on after the end.
            inside = during[:-1] or during
            time.sleep(2)
            whole += [served() for _ in range(3)]
            rates.append(sent / took)
            ratios.append(statistics.median(inside) / statistics.median(whole))
            tell("catch_up_round", missed=sent, seconds=round(took, 2), per_s=round(rates[-1]), whole_per_s=round(statistics.median(whole)), during_per_s=round(statistics.median(inside)), ratio=round(ratios[-1], 3))
    tell("catch_up", per_s=round(statistics.median(rates)), ratio=round(statistics.median(ratios), 3))


def ticks(binary, rounds, chains=1000):
    """The log of heads under load: chains that all leap, with a tick each second and with none in an hour, in turn."""
    rates = {1000: [], 3_600_000: []}
    for _ in range(rounds):
        for every in rates:
            with Cluster(binary, 1, heads_every_ms=every) as cluster:
                words = ["--clients", "64", "--batch", "10", "--duration-s", "10", "--warmup-s", "3", "--chains", str(chains), "--leap-count", "100", "--proofs", "1"]
                rates[every].append(cluster.run(cluster.nodes[0], "bench", *words)["transactions_per_s"])
    often, never = (statistics.median(rates[every]) for every in rates)
    pairs = [one / other for one, other in zip(*rates.values())]
    tell("ticks", chains=chains, each_second=round(often), never=round(never), ratio=round(statistics.median(pairs), 3), pairs=[round(pair, 3) for pair in pairs])


def main():
    words = argparse.ArgumentParser(description=__doc__)
    words.add_argument("binary")
    words.add_argument("--rounds", type=int, default=3)
    words.add_argument("--failovers", type=int, default=20)
    words.add_argument("--missed", type=int, default=1_000_000)
    words.add_argument("--spread", type=int, default=400_000)
    words.add_argument("--only", default="throughput,failover,idle,groups,split,scaling,catchup")
    given = words.parse_args()
    binary = os.path.abspath(given.binary)
    parts = {
        "throughput": lambda: throughput(binary, given.rounds),
        "failover": lambda: failover(binary, given.failovers),
        "idle": lambda: idle(binary),
        "groups": lambda: many_groups(binary),
        "scaling": lambda: scaling(binary, given.spread),
        "split": lambda: split_under_load(binary, given.rounds),
        "ticks": lambda: ticks(binary, given.rounds),
        "catchup": lambda: catch_up(binary, given.missed, given.rounds),
    }
    for part in given.only.split(","):
        parts[part]()


if __name__ == "__main__":
    main()
