"""Makes the worked example of docs/FORMAT.md section 14: a chain of three Quants, its proof file and its export.

python3 example.py [DOCUMENT]      prints the proof file, or writes values and proof into the document between its marks
"""

import json
import re
import sys

import ed25519
import ml_dsa
from forms import H

ALG = 1
ROOT_SEED, NODE_SEED = bytes([1] * 32), bytes([2] * 32)
CLUSTER = bytes(range(16))
START_MS = 1_767_225_600_000
ZERO = bytes(32)
SCHEMES = {1: ed25519, 2: ml_dsa}


def be(number, length):
    return number.to_bytes(length, "big")


def record(tag, value):
    return bytes([tag]) + be(len(value), 4) + value


def tree(hashes):
    """Root by the definition of RFC 9162 section 2.1.1."""
    if not hashes:
        return H(ALG, b"")
    if len(hashes) == 1:
        return hashes[0]
    k = split(len(hashes))
    return H(ALG, b"\1", tree(hashes[:k]), tree(hashes[k:]))


def path(index, hashes):
    """Inclusion path, leaf upward: RFC 9162 section 2.1.3.1."""
    if len(hashes) == 1:
        return []
    k = split(len(hashes))
    if index < k:
        return path(index, hashes[:k]) + [tree(hashes[k:])]
    return path(index - k, hashes[k:]) + [tree(hashes[:k])]


def split(count):
    return 1 << (count - 1).bit_length() - 1


def leaf(data):
    return H(ALG, b"\0", data)


class Chain:
    """A chain in the making."""

    def __init__(self, name="example", roots=(ROOT_SEED,), threshold=1, quorum=None, extra=b"", content=0, parent=b""):
        authority = bytes([threshold]) + b"".join(ed25519.public(s) for s in roots)
        rules = [record(1, name.encode()), record(2, be(START_MS, 8)), record(3, bytes([3] * 16)), record(4, authority),
                 record(5, bytes([content])), extra, record(13, bytes([quorum])) if quorum else b"", record(21, CLUSTER)]
        self.constitution = b"".join(rules)
        meta = record(1, self.constitution) + parent + record(7, H(ALG, self.constitution) + be(0, 8))
        self.name, self.roots, self.quants, self.count = name, roots, [], 0
        self.id = ZERO
        self.id = self.leap([], meta, flags=1)

    def leap(self, transactions, meta=record(3, be(1, 8)), flags=0, anchors=()):
        """Seals (payload, attributes, salt, type) items and anchor leaves; gives the quant_hash."""
        height, hashes = len(self.quants), [leaf(q["header"]) for q in self.quants]
        time_ms = START_MS + 1000 * height
        items = [self.item(i, time_ms, *t) for i, t in enumerate(transactions)]
        header = b"".join([
            b"QHD1", bytes([ALG, flags, 0, 0]), self.id, be(height, 8), be(time_ms, 8), be(self.count, 8), be(len(items), 4),
            be(len(meta), 4), be(len(anchors), 4), bytes(12), hashes[-1] if hashes else ZERO, tree([leaf(i["envelope"]) for i in items]),
            tree(hashes), tree([leaf(a) for a in anchors]), H(ALG, meta), bytes(8)])
        self.quants.append({"header": header, "meta": meta, "items": items, "anchors": b"".join(anchors)})
        self.count += len(items)
        return leaf(header)

    def item(self, offset, time_ms, payload, attributes=b"", salt=None, kind=0):
        digest = H(ALG, b"\2", salt, payload) if salt else H(ALG, payload)
        envelope = b"".join([
            b"QTX1", bytes([kind, 1 if salt else 0, 0, 0]), self.id, be(self.count + offset, 8), be(time_ms - 10 + offset, 8),
            be(len(payload), 8), digest, H(ALG, attributes) if attributes else ZERO])
        return {"envelope": envelope, "attributes": attributes, "salt": salt, "payload": payload}

    def signature(self, height, node_id=1, seed=NODE_SEED, signers=(0,), until_s=4_000_000_000, alg=1):
        """A head signature, as its fields."""
        header, time_s = self.quants[height]["header"], START_MS // 1000 + 60
        public = SCHEMES[alg].public(seed)
        body = CLUSTER + be(node_id, 8) + be(alg, 1) + be(len(public), 4) + public + be(START_MS // 1000, 8) + be(until_s, 8)
        certificate = body + bytes([len(signers)]) + b"".join(
            bytes([i]) + ed25519.sign(self.roots[i], b"qbc/node/v1\n\0" + body) for i in signers)
        message = b"qbc/quant/v1\n\0" + body[:24] + be(time_s, 8) + self.id + be(height, 8) + leaf(header)
        return {"alg": alg, "key_id": H(1, public).hex(), "time_s": time_s, "signature": SCHEMES[alg].sign(seed, message).hex(),
                "certificate": certificate.hex()}

    def head(self, height, algs=(1,), **options):
        genesis = {k: self.quants[0][k].hex() for k in ("header", "meta")}
        signatures = [self.signature(height, alg=alg, **options) for alg in algs]
        return {"signatures": signatures, "genesis": genesis, "authority_changes": []}

    def prove(self, index, head):
        """The proof object of a transaction into the Quant `head`."""
        height = next(h for h, q in enumerate(self.quants) for i in q["items"] if int.from_bytes(i["envelope"][40:48], "big") == index)
        quant = self.quants[height]
        start = int.from_bytes(quant["header"][56:64], "big")
        item = quant["items"][index - start]
        shown = {k: v.hex() for k, v in item.items() if v}
        steps = [{"link": "quant", "header": quant["header"].hex(),
                  "path": [p.hex() for p in path(index - start, [leaf(i["envelope"]) for i in quant["items"]])]}]
        if height < head:
            steps.append(self.history(height, head))
        return {"qbc_proof": 1, "claim": "inclusion", "transaction": shown, "steps": steps, "head": self.head(head)}

    def extend(self, old, new):
        return {"qbc_proof": 1, "claim": "extension", "old": self.quants[old]["header"].hex(),
                "steps": [self.history(old, new)], "head": self.head(new)}

    def history(self, old, new):
        hashes = [leaf(q["header"]) for q in self.quants[:new]]
        return {"link": "history", "header": self.quants[new]["header"].hex(),
                "path": [p.hex() for p in path(old, hashes)] if old < new else [], "borders": []}

    def export(self, algs=(1,)):
        frames = [b"QBCEXP1\n"]
        for quant in self.quants:
            frames.append(frame(1, quant["header"] + quant["meta"]))
            frames += [frame(5, quant["anchors"])] if quant["anchors"] else []
            frames += [frame(2, i["envelope"] + be(len(i["attributes"]), 4) + i["attributes"] + (i["salt"] or b"") + i["payload"])
                       for i in quant["items"]]
        frames += [frame(3, signature_record(self.signature(len(self.quants) - 1, alg=alg))) for alg in algs]
        return b"".join(frames) + frame(4, be(len(self.quants), 8) + be(self.count, 8))


def signature_record(s):
    return be(s["alg"], 1) + bytes.fromhex(s["key_id"]) + be(s["time_s"], 8) + bytes.fromhex(s["signature"] + s["certificate"])


def frame(kind, body):
    return bytes([kind]) + be(len(body), 4) + body


def example():
    chain = Chain()
    chain.leap([(b"first",), (b"second", record(1, b"k") + record(2, b"i-1"))])
    chain.leap([(b"third",)])
    return chain


def values(chain):
    """What the page shows beside the proof."""
    item = chain.quants[1]["items"][1]
    rows = [("chain id = quant_hash of Quant 0", chain.id), ("constitution", chain.constitution),
            ("payload `second`, payload_hash", item["envelope"][64:96]), ("attributes", item["attributes"]),
            ("leaf hash of the envelope", leaf(item["envelope"])), ("tx_root of Quant 1", chain.quants[1]["header"][120:152]),
            ("quant_hash of Quant 1", leaf(chain.quants[1]["header"])), ("hist_root of Quant 2", chain.quants[2]["header"][152:184]),
            ("quant_hash of Quant 2, the head", leaf(chain.quants[2]["header"])), ("root public key", ed25519.public(ROOT_SEED)),
            ("node public key", ed25519.public(NODE_SEED))]
    return "| value | hex |\n|---|---|\n" + "".join(f"| {name} | `{value.hex()}` |\n" for name, value in rows)


def blocks():
    """The two blocks of the page, by the name of their mark."""
    chain = example()
    return {"values": values(chain), "proof": f"```json\n{json.dumps(chain.prove(1, 2), indent=1)}\n```\n"}


def main(argv):
    made = blocks()
    if len(argv) < 2:
        print(made["proof"].strip("`json\n"))
        return
    with open(argv[1], encoding="utf-8") as file:
        text = file.read()
    for name, block in made.items():
        mark = f"<!-- example-{name} -->\n"
        text = re.sub(re.escape(mark) + r"((\||```|[ {}]).*\n)*", lambda _, m=mark, b=block: m + b, text)
    with open(argv[1], "w", encoding="utf-8") as file:
        file.write(text)


if __name__ == "__main__":
    main(sys.argv)
