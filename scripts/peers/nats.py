"""NATS JetStream: publishes with an acknowledgement each, a thousand under way, and atomic batches of a thousand."""

import json
import urllib.request

from peers import install
from peers.peer import BATCHES, SINGLE, Peer, Way, own_load, words_of
from peers.server import Server, free_port

MODULE, VERSION = "github.com/nats-io/nats-server/v2", "v2.15.3"


class Nats(Peer):
    name = "NATS JetStream"
    fsync = "file store, sync_interval: always"

    def install(self):
        self.server = install.go("nats-server", MODULE, VERSION)
        self.program = install.load()

    def version(self):
        return words_of([self.server, "--version"]).removeprefix("v")

    def start(self, folder):
        port, self.monitor = free_port(), free_port()
        conf = f"{folder}/nats.conf"
        with open(conf, "w", encoding="utf-8") as file:
            file.write(f'listen: "127.0.0.1:{port}"\nhttp: "127.0.0.1:{self.monitor}"\n'
                       f'jetstream {{ store_dir: "{folder}/data", sync_interval: always, max_file_store: 20GB }}\n')
        return Server([self.server, "-c", conf], folder, port, ready="Server is ready")

    def setting(self, server):
        with urllib.request.urlopen(f"http://127.0.0.1:{self.monitor}/jsz", timeout=5) as answer:
            return f"sync_always={json.load(answer)['config'].get('sync_always', False)}"

    def ways(self):
        layer, index = "wire, own client", "yes, the sequence in memory"

        def load(way):
            return own_load(lambda: self.program, way)

        return [Way("JetStream publish", SINGLE, load("nats"), layer, index),
                Way("JetStream, 1000 publishes under way", BATCHES, load("nats"), layer, index),
                Way("JetStream, atomic batch of 1000", BATCHES, load("nats-batch"), layer, index)]
