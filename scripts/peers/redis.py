"""Redis: XADD to a stream, its append-only file synced always; alone and in pipelines of a thousand."""

import base64
import csv
import os

from peers import install
from peers.peer import BATCHES, PAYLOAD_BYTES, SINGLE, Peer, Way, own_load, run, words_of
from peers.server import Server, free_port

# Commands of a first, uncounted load, per client; from its rate the measured one is made as long as asked.
FIRST = 300


class Redis(Peer):
    name = "Redis"
    fsync = "appendonly yes, appendfsync always"

    def install(self):
        self.server = install.debian("redis-server", "redis-server", "redis-tools")
        self.bench = install.debian("redis-benchmark", "redis-tools")
        self.cli = install.debian("redis-cli", "redis-tools")
        self.program = install.load()
        # Text, because it is an argument, and the tool repeats it in its report.
        self.payload = base64.b64encode(os.urandom(PAYLOAD_BYTES * 3 // 4)).decode()

    def version(self):
        words = words_of([self.server, "--version"], slice(None))
        return next(word[2:] for word in words if word.startswith("v="))

    def start(self, folder):
        port = free_port()
        settings = {"port": port, "bind": "127.0.0.1", "dir": folder, "appendonly": "yes", "appendfsync": "always",
                    "auto-aof-rewrite-percentage": 0, "save": "", "daemonize": "no"}
        words = [word for key, value in settings.items() for word in (f"--{key}", value)]
        return Server([self.server, *words], folder, port)

    def setting(self, server):
        def one(name):
            return run([self.cli, "-p", server.port, "config", "get", name], 5).split()[1]

        return ", ".join(f"{name}={one(name)}" for name in ("appendonly", "appendfsync", "no-appendfsync-on-rewrite"))

    def load(self, server, clients, batch, warmup_s, seconds):
        first = FIRST * clients
        warm = self.xadd(server, clients, first, warmup_s)
        many = max(clients, round(warm["transactions_per_s"] * seconds))
        done = self.xadd(server, clients, many, seconds)
        # The server answered those of both.
        return {**done, "requests": first + many, "transactions": many}

    def xadd(self, server, clients, many, seconds):
        command = [self.bench, "-h", "127.0.0.1", "-p", server.port, "-c", clients, "-n", many, "--csv",
                   "XADD", "log", "*", "d", self.payload]
        row = next(csv.DictReader(run(command, seconds).splitlines()))
        micros = {name: round(float(row[f"{name}_latency_ms"]) * 1000) for name in ("p50", "p99")}
        return {"transactions_per_s": round(float(row["rps"])), "p50_us": micros["p50"], "p99_us": micros["p99"]}

    def ways(self):
        """Of a pipeline redis-benchmark takes the time until the first answer; the own client until the last."""
        index = "yes, the stream in memory"
        return [Way("Redis XADD", SINGLE, self.load, "wire, redis-benchmark", index),
                Way("Redis XADD, pipelines of 1000", BATCHES, own_load(lambda: self.program, "redis"), "wire, own client", index)]
