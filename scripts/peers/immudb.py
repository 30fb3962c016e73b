"""immudb: a Set of one new key, and of a thousand; keys that grow and keys here and there; with and without waiting for the index."""

import re

from peers import install
from peers.peer import BATCHES, SINGLE, Peer, Way, own_load, words_of
from peers.server import Server, free_port

MODULE, VERSION = "github.com/codenotary/immudb", "v1.11.1"
# As its own module has them.
REPLACED = {"github.com/takama/daemon": "github.com/codenotary/daemon@v0.0.0-20200507161650-3d4bcb5230f4",
            "github.com/spf13/afero": "github.com/spf13/afero@v1.5.1"}


class ImmuDb(Peer):
    name = "immudb"
    fsync = "synced, by default"

    def install(self):
        self.server = install.go("immudb", MODULE, VERSION, f"{MODULE}/cmd/immudb", REPLACED)
        self.program = install.load()

    def version(self):
        return VERSION.removeprefix("v")

    def start(self, folder):
        port = free_port()
        off = [f"--{part}=false" for part in ("pgsql-server", "web-server", "metrics-server")]
        command = [self.server, "--dir", f"{folder}/data", "--address", "127.0.0.1", "--port", port, *off]
        return Server(command, folder, port)

    def setting(self, server):
        """It logs its mode when it starts."""
        found = re.search(r"Synced mode\s*: (\w+)", server.log.read_text(errors="replace"))
        return f"Synced mode: {found.group(1)}" if found else "not in its log"

    def ways(self):
        layer, proof = "gRPC, own client", "of each transaction, not asked for"

        def load(way):
            return own_load(lambda: self.program, way)

        return [
            Way("immudb Set", SINGLE, load("immudb"), layer, "yes", proof),
            Way("immudb Set of 1000", BATCHES, load("immudb"), layer, "yes", proof),
            Way("immudb Set of 1000, keys spread", BATCHES, load("immudb-spread"), layer, "yes", proof),
            Way("immudb Set, index not awaited", SINGLE, load("immudb-no-wait"), layer, "no", proof),
            Way("immudb Set of 1000, index not awaited", BATCHES, load("immudb-no-wait"), layer, "no", proof),
        ]
