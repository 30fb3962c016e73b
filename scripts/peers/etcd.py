"""etcd: a put under a key that grows; a transaction of a thousand puts."""

from peers import install
from peers.peer import BATCHES, SINGLE, Peer, Way, own_load, words_of
from peers.server import Server, free_port

MODULE, VERSION = "go.etcd.io/etcd/server/v3", "v3.6.16"
QUOTA_BYTES = 8 << 30


class Etcd(Peer):
    name = "etcd"
    fsync = "of its log, by default"

    def install(self):
        self.server = install.go("etcd", MODULE, VERSION)
        self.program = install.load()

    def version(self):
        return words_of([self.server, "--version"])

    def start(self, folder):
        port, peer = free_port(), free_port()
        here, among = f"http://127.0.0.1:{port}", f"http://127.0.0.1:{peer}"
        options = {"data-dir": f"{folder}/data", "listen-client-urls": here, "advertise-client-urls": here,
                   "listen-peer-urls": among, "initial-advertise-peer-urls": among, "initial-cluster": f"default={among}",
                   "quota-backend-bytes": QUOTA_BYTES, "max-txn-ops": 1000}
        words = [word for key, value in options.items() for word in (f"--{key}", value)]
        return Server([self.server, *words], folder, port, ready="ready to serve client requests")

    def ways(self):
        load, layer, index = own_load(lambda: self.program, "etcd"), "gRPC, own client", "yes, in memory"
        return [Way("etcd put", SINGLE, load, layer, index),
                Way("etcd transaction of 1000 puts", BATCHES, load, layer, index)]
