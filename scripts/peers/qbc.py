"""QBC itself: one node in its default configuration."""

import json
import os

from peers.peer import BATCHES, PAYLOAD_BYTES, SINGLE, Peer, Way, run, words_of
from peers.server import Server, free_port


# A pool takes 16 million: a cell of a minute fills it, one of two seconds leaps not once.
LEAP_COUNT = 5_000_000


class Qbc(Peer):
    name = "QBC"
    fsync = "always, it has no other mode"

    def __init__(self, binary):
        self.binary = os.path.abspath(binary)

    def version(self):
        return words_of([self.binary, "--version"], 1)

    def start(self, folder):
        port = free_port()
        environment = {"QBC_ENDPOINT": f"http://127.0.0.1:{port}", "QBC_HEADS": f"{folder}/heads.json"}
        command = [self.binary, "serve", "--data", f"{folder}/data", "--listen", f"127.0.0.1:{port}"]
        server = Server(command, folder, port, environment=environment)
        try:
            run([self.binary, "bang", "bench", "--leap-count", LEAP_COUNT], 10, environment=server.environment)
        except BaseException:
            server.stop()
            raise
        return server

    def load(self, server, clients, batch, warmup_s, seconds):
        command = [self.binary, "bench", "--load-only", "--clients", clients, "--batch", batch, "--payload-bytes", PAYLOAD_BYTES,
                   "--duration-s", seconds, "--warmup-s", warmup_s, "--probe-dir", server.folder, "--output", "json"]
        said = json.loads(run(command, warmup_s + seconds, environment=server.environment))
        figures = {key: said[key] for key in ("transactions", "transactions_per_s", "p50_us", "p99_us")}
        return {**figures, "requests": said["transactions"] // batch}

    def ways(self):
        return [Way("QBC inject", SINGLE + BATCHES, self.load, "gRPC, qbc bench",
                    "none to wait for: the place is the index", "of each transaction, after its leap")]
