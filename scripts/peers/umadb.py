"""UmaDB: an append of one event, and of a thousand."""

from peers import install
from peers.peer import BATCHES, SINGLE, Peer, Way, own_load, words_of
from peers.server import Server, free_port

VERSION = "0.7.8"


class UmaDb(Peer):
    name = "UmaDB"
    fsync = "always, it has no other mode"

    def install(self):
        # Its build needs it.
        install.debian("protoc", "protobuf-compiler")
        self.server = install.cargo("umadb", "umadb", VERSION)
        self.program = install.load()

    def version(self):
        return words_of([self.server, "--version"])

    def start(self, folder):
        port = free_port()
        return Server([self.server, "--listen", f"127.0.0.1:{port}", "--db-path", f"{folder}/data"], folder, port,
                      ready="started in")

    def ways(self):
        load, layer, index = own_load(lambda: self.program, "umadb"), "gRPC, own client", "yes, positions in the commit"
        return [Way("UmaDB append", SINGLE, load, layer, index),
                Way("UmaDB append of 1000 events", BATCHES, load, layer, index)]
