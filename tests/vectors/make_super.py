#!/usr/bin/env python3
"""Makes format-v1-super.json: proofs into the log of all chains. Independent of the Rust code; hashlib only.

The chain of docs/FORMAT.md section 14, whose heads 0, 1 and 2 stand among others in the log of group 3; that log was
reported twice among the logs of other groups. Proofs that hold, what they are worth, and proofs that must be refused, by
the name of the check. Run it beside the file: python3 make_super.py > format-v1-super.json
"""
import base64
import copy
import hashlib
import json
import pathlib
import sys

sys.dont_write_bytecode = True
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "python"))
import ed25519  # noqa: E402
import example  # noqa: E402
from example import be  # noqa: E402


def h(*parts):
    return hashlib.sha256(b"".join(parts)).digest()


def leaf(data):
    return h(b"\0", data)


def tree(hashes):
    if not hashes:
        return h()
    if len(hashes) == 1:
        return hashes[0]
    k = example.split(len(hashes))
    return h(b"\1", tree(hashes[:k]), tree(hashes[k:]))


def path(index, hashes):
    if len(hashes) == 1:
        return []
    k = example.split(len(hashes))
    if index < k:
        return path(index, hashes[:k]) + [tree(hashes[k:])]
    return path(index - k, hashes[k:]) + [tree(hashes[:k])]


def some(name):
    return hashlib.sha256(b"qbc super vectors: " + name.encode()).digest()


def head_leaf(chain_id, height, quant_hash):
    return b"QHR1" + chain_id + be(height, 8) + quant_hash


def group_leaf(group, size, root):
    return b"QGR1" + be(group, 4) + be(size, 8) + root


def note_text(cluster, size, root):
    return f"qbc/{cluster.hex()}\n{size}\n{base64.b64encode(root).decode()}\n".encode()


class Logs:
    """The log of group 3, with the chain's heads at 2, 5 and 9, and the super log."""

    def __init__(self, chain):
        own = {2: 0, 5: 1, 9: 2}
        heads = [example.leaf(q["header"]) for q in chain.quants]
        self.heads = [head_leaf(chain.id, own[i], heads[own[i]]) if i in own else head_leaf(some(f"id {i}"), i, some(f"hash {i}"))
                      for i in range(11)]
        self.hashes = [leaf(data) for data in self.heads]
        reports = [(1, 4, some("root 1")), (3, 7, tree(self.hashes[:7])), (2, 9, some("root 2")), (1, 6, some("root 3")),
                   (3, 11, tree(self.hashes)), (2, 12, some("root 4")), (16, 1, some("root 5"))]
        self.reports = [group_leaf(*report) for report in reports]
        self.super = [leaf(data) for data in self.reports]

    def log(self, index, report, size, super_size, signatures, cluster=example.CLUSTER):
        hashes, reports = self.hashes[:size], self.super[:super_size]
        root = tree(reports)
        return {"group": 3, "size": size, "root": tree(hashes).hex(), "index": index,
                "path": [p.hex() for p in path(index, hashes)], "super_index": report,
                "super_path": [p.hex() for p in path(report, reports)],
                "checkpoint": {"cluster_id": cluster.hex(), "size": super_size, "root": root.hex(),
                               "signatures": [sign(chain_of(s), super_size, root, cluster, s) for s in signatures]}}


def chain_of(options):
    return options.get("chain") or example.example()


def sign(chain, size, root, cluster, options):
    options = {k: v for k, v in options.items() if k != "chain"}
    made = chain.signature(0, **options)
    message = f"cosignature/v1\ntime {made['time_s']}\n".encode() + note_text(cluster, size, root)
    return {**made, "signature": ed25519.sign(options.get("seed", example.NODE_SEED), message).hex()}


def good(chain, logs):
    """name, proof, whether the chain's id anchors it."""
    for name, into, place, signatures, head_signed, by_chain in [
            ("the head, signed twice", 2, (9, 4, 11, 7), [{}], True, True),
            ("the head, by the checkpoint alone", 2, (9, 4, 11, 7), [{}], False, True),
            ("an earlier head in an earlier report", 1, (5, 1, 7, 7), [{}], False, True),
            ("at an earlier checkpoint", 1, (5, 1, 7, 2), [{}], False, True),
            ("a checkpoint that nobody signed", 2, (9, 4, 11, 7), [], False, False),
            ("two nodes", 2, (9, 4, 11, 7), [{}, {"node_id": 2, "seed": bytes([4] * 32)}], False, True)]:
        proof = chain.prove(1, into)
        if not head_signed:
            proof["head"]["signatures"] = []
        proof["log"] = logs.log(*place, signatures)
        yield name, proof, by_chain


def bad(chain, logs):
    """name, the check that refuses it, proof."""
    base = chain.prove(1, 2)
    base["head"]["signatures"] = []
    base["log"] = logs.log(9, 4, 11, 7, [{}])

    def changed(change):
        proof = copy.deepcopy(base)
        change(proof)
        return proof

    def at(name, value, inside=None):
        def change(proof):
            (proof["log"][inside] if inside else proof["log"])[name] = value
        return changed(change)

    def drop(name, inside=None):
        return changed(lambda proof: (proof["log"][inside] if inside else proof["log"]).pop(name))

    def signed(*options, cluster=example.CLUSTER):
        return changed(lambda proof: proof.update(log=logs.log(9, 4, 11, 7, list(options), cluster)))

    flipped = some("another").hex()
    yield "the head's place is another's", "inclusion-root", at("index", 8)
    yield "the head stands beyond the log", "inclusion-index", at("index", 11)
    yield "the path is cut", "inclusion-path", at("path", base["log"]["path"][:-1])
    yield "the path is longer", "inclusion-path", at("path", base["log"]["path"] + [flipped])
    yield "a node of the path is another", "inclusion-root", at("path", [flipped] + base["log"]["path"][1:])
    yield "the group's root is another", "inclusion-root", at("root", flipped)
    yield "another group's log", "inclusion-root", at("group", 2)
    yield "another size of the log", "inclusion-path", at("size", 16)
    yield "the report's place is another's", "inclusion-root", at("super_index", 1)
    yield "the report stands beyond the super log", "inclusion-index", at("super_index", 7)
    yield "the way in the super log is cut", "inclusion-path", at("super_path", base["log"]["super_path"][1:])
    yield "the root is another", "inclusion-root", at("root", flipped, "checkpoint")
    yield "the log is that of an earlier head", "inclusion-root", changed(lambda p: p.update(log=logs.log(5, 1, 7, 7, [{}])))
    yield "the reports are taken for the log of heads", "inclusion-root", changed(
        lambda p: p["log"].update(root=base["log"]["checkpoint"]["root"], size=7, index=4, path=base["log"]["super_path"]))
    yield "a checkpoint of another size than was signed", "checkpoint-signature", changed(
        lambda p: p["log"].update({**logs.log(9, 4, 11, 6, []), "checkpoint": {
            **logs.log(9, 4, 11, 6, [])["checkpoint"], "signatures": base["log"]["checkpoint"]["signatures"]}}))
    yield "the head's own signature on the checkpoint", "checkpoint-signature", at("signatures", [chain.signature(2)], "checkpoint")
    yield "the checkpoint's signature on the head", "head-signature", changed(
        lambda p: p["head"].update(signatures=base["log"]["checkpoint"]["signatures"]))
    yield "another time than was signed", "checkpoint-signature", changed(
        lambda p: p["log"]["checkpoint"]["signatures"][0].update(time_s=base["log"]["checkpoint"]["signatures"][0]["time_s"] + 1))
    yield "a node that no root key certified", "certificate-threshold", signed({"signers": ()})
    yield "a certificate that ended", "certificate-time", signed({"until_s": 5})
    yield "a node twice", "quorum-node", signed({}, {})
    yield "two nodes with one key", "quorum-key", signed({}, {"node_id": 2})
    yield "another cluster", "checkpoint-cluster", signed({}, cluster=bytes(16))
    yield "no genesis for the signatures", "genesis-missing", changed(lambda p: p["head"].pop("genesis"))
    yield "an upper-case root", "hex", at("root", base["log"]["root"].upper())
    yield "a short cluster id", "hex", at("cluster_id", "00", "checkpoint")
    yield "a group of more than 32 bits", "integer", at("group", 1 << 32)
    yield "a group below 0", "integer", at("group", -1)
    yield "a log that is null", "field", changed(lambda p: p.update(log=None))
    yield "a log without its checkpoint", "field", drop("checkpoint")
    yield "a log without a size", "field", drop("size")
    yield "a checkpoint without signatures", "field", drop("signatures", "checkpoint")
    yield "a field too many", "unknown-field", at("leaf", "00")
    yield "a field of the checkpoint too many", "unknown-field", at("time_s", 1, "checkpoint")


def main():
    chain = example.example()
    logs = Logs(chain)
    quorum = example.Chain(quorum=2)
    quorum.leap([(b"x",), (b"y",)])
    quorum.leap([(b"z",)])
    of_quorum = Logs(quorum)
    proof = quorum.prove(1, 2)
    proof["head"]["signatures"] = []
    one = [{"chain": quorum}, {"chain": quorum, "node_id": 2, "seed": bytes([4] * 32)}]
    proof["log"] = of_quorum.log(9, 4, 11, 7, one)
    root = tree(logs.super)
    print(json.dumps({
        "about": "Proofs into the log of all chains: made by tests/vectors/make_super.py.",
        "chain_id": chain.id.hex(), "super_size": len(logs.super), "root": root.hex(),
        "text": note_text(example.CLUSTER, len(logs.super), root).decode(),
        "head_leaves": [data.hex() for data in logs.heads], "group_leaves": [data.hex() for data in logs.reports],
        "good": [{"name": n, "proof": p, "by_chain": c} for n, p, c in good(chain, logs)],
        "bad": [{"name": n, "check": c, "proof": p} for n, c, p in bad(chain, logs)],
        "quorum": {"chain_id": quorum.id.hex(), "root": tree(of_quorum.super).hex(), "proof": proof},
    }, indent=1))


main()
