"""What a peer is: how it comes here, starts, and takes transactions, and what its answers mean."""

import dataclasses
import json
import subprocess
import typing

# Clients and transactions per request.
SINGLE = ((1, 1), (64, 1), (256, 1))
BATCHES = ((4, 1000), (16, 1000))
PAYLOAD_BYTES = 256
# Over the measured time of a cell: warm-up, the last answers, what a slow disk adds.
LOAD_S_MORE = 90


@dataclasses.dataclass
class Way:
    """One way to write to a peer."""

    # Also the key of its results.
    name: str
    shapes: tuple
    # load(server, clients, batch, warmup_s, seconds) gives transactions_per_s, p50_us, p99_us and the requests answered.
    load: typing.Callable
    layer: str
    index_wait: str
    proof: str = "none"
    replica_ack: str = "none, one node"


class Peer:
    """A store that writes are measured of. One object for a whole run."""

    name = ""
    # How the durability is asked for; `setting` reads it back.
    fsync = ""

    def install(self):
        """Makes its programs available, or raises Missing."""

    def version(self):
        raise NotImplementedError

    def start(self, folder):
        """A server with fresh data in the folder, ready for transactions."""
        raise NotImplementedError

    def setting(self, server):
        """The durability setting, read back from the running server; empty where there is none."""
        return ""

    def ways(self):
        raise NotImplementedError


def words_of(command, pattern_column=-1):
    """The last word (or another column) of what a program says when asked for its version."""
    said = subprocess.run(command, capture_output=True, text=True, check=True, timeout=20).stdout
    return said.split("\n", 1)[0].split()[pattern_column]


def run(command, seconds, folder=None, environment=None):
    """The output of a load generator; raises with its last words if it fails."""
    done = subprocess.run(
        [str(word) for word in command], capture_output=True, text=True, timeout=seconds + LOAD_S_MORE, cwd=folder,
        env=environment, check=False,
    )
    if done.returncode:
        last = (done.stderr.strip() or done.stdout.strip()).splitlines()[-2:]
        raise RuntimeError(" ".join(last)[:300] or f"exit {done.returncode}")
    return done.stdout


def own_load(program, way):
    """Load by the generator of scripts/peers/load."""

    def load(server, clients, batch, warmup_s, seconds):
        command = [program(), way, server.port, clients, batch, warmup_s, seconds]
        return json.loads(run(command, warmup_s + seconds))

    return load
