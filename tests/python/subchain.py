"""Subchains: docs/FORMAT.md section 11, Split. Python 3, nothing else."""

from forms import H, parse_header, parse_meta, root_of, u
from strict_json import need
from verifier import SIZES, head_signature, quorum


def jump(key, n):
    """Jump consistent hash, Lamping and Veach 2014."""
    b, j = -1, 0
    while j < n:
        b = j
        key = (key * 2862933555777941757 + 1) % 2**64
        j = int((b + 1) * (2.0**31 / ((key >> 33) + 1)))
    return b


def place_of(alg, splitting, routing_key, n):
    """The subchain, of n, that a routing key leads to below a chain that is split."""
    return jump(u(H(alg, splitting, routing_key), 0, 8), n)


class Subchain:
    """What an audit asks of a subchain besides."""

    def __init__(self, genesis, meta, constitution):
        parent = parse_meta(genesis, meta).get(2)
        need(parent is not None, "parent", "the genesis does not name a parent")
        self.id, self.alg = genesis.id, genesis.alg
        self.parent, self.height = parent[:32], u(parent, 32, 8)
        self.place, self.of = u(constitution[19], 0, 4), u(constitution[19], 4, 4)

    def begin(self, payload, constitution, authority):
        """The first transaction holds the Quant that split the parent."""
        header, meta, signatures = evidence(payload)
        h = parse_header(header)
        need(h.alg == self.alg, "hash-alg")
        route = parse_meta(h, meta).get(5, b"")
        need(h.id == self.parent and h.height > self.height, "claim-parent")
        ids = [route[at:at + 32] for at in range(4, len(route), 32)]
        need(len(ids) == self.of and ids[self.place] == self.id, "claim-route")
        signers = [head_signature(h, constitution[21], authority, *signature_parts(s)) for s in signatures]
        need(signers, "quorum-count", "nobody signed")
        quorum(signers, constitution)

    def routed(self, attributes):
        """A request id, by which the others were routed, is in no transaction."""
        key = attributes.get(1) or attributes.get(2)
        need(not key or place_of(self.alg, self.parent, key, self.of) == self.place, "audit-route")


class Anchors:
    """The heads of its subchains that a chain which is split has anchored."""

    def __init__(self, route=b""):
        self.last = {route[at:at + 32]: -1 for at in range(4, len(route), 32)}

    def take(self, h, raw):
        """The anchor leaves of a Quant."""
        leaves = [raw[at:at + 76] for at in range(0, len(raw), 76)]
        need(len(raw) == 76 * h.anchor_count and all(leaf[:4] == b"QAN1" for leaf in leaves), "anchor-form", f"height {h.height}")
        ids = [leaf[4:36] for leaf in leaves]
        need(ids == sorted(set(ids)), "anchor-order", f"height {h.height}")
        need(root_of(h.alg, [H(h.alg, b"\0", leaf) for leaf in leaves]) == h.anchors_root, "anchor-root", f"height {h.height}")
        for leaf, child in zip(leaves, ids):
            need(child in self.last, "anchor-child", "no subchain of the route")
            need(u(leaf, 36, 8) > self.last[child], "anchor-back", f"height {h.height}")
            self.last[child] = u(leaf, 36, 8)


def evidence(raw):
    need(len(raw) > 261 and raw[0] == 1, "claim-format")
    header, at, parts = raw[1:257], 257, []
    size = u(raw, at, 4)
    meta, at = raw[at + 4:at + 4 + size], at + 4 + size
    need(len(raw) > at, "claim-format")
    count, at = raw[at], at + 1
    for _ in range(count):
        need(len(raw) >= at + 4, "claim-format")
        size = u(raw, at, 4)
        parts.append(raw[at + 4:at + 4 + size])
        at += 4 + size
    need(len(raw) == at, "claim-format")
    return header, meta, parts


def signature_parts(body):
    need(len(body) > 105 and body[0] in SIZES, "signature-format")
    end = 41 + SIZES[body[0]][1]
    return body[0], body[1:33], u(body, 33, 8), body[41:end], body[end:]
