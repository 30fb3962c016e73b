"""Subchains: docs/FORMAT.md section 11, Split, claims and credits. Python 3, nothing else."""

import unicodedata

import state
from forms import H, inclusion, parse_envelope, parse_header, parse_meta, root_of, u
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
        self.keeps, self.family, self.above = 14 in constitution or 17 in constitution, constitution[18], []
        self.forked = False

    def fork(self):
        """What a fork has of it: of one that keeps a state what leads to it."""
        need(not self.keeps or self.above and self.above[0].id == self.family, "audit-claim", "forked before its first transactions")
        self.forked = True
        return self if self.keeps else None

    def begins(self, index):
        """The transaction at this index must be the split Quant of a chain above."""
        return index == 0 or self.keeps and self.above[0].id != self.family

    def begin(self, payload, constitution, authority):
        """The first transactions hold the Quants that split the parent and, where a state is kept, all chains above it."""
        h, ids, root = split_quant(payload, constitution, authority)
        need(h.alg == self.alg, "hash-alg")
        if not self.above:
            need(h.id == self.parent and h.height > self.height, "claim-parent")
            need(len(ids) == self.of and ids[self.place] == self.id, "claim-route")
        else:
            need(self.above[0].id in ids, "claim-route")
        if self.keeps:
            need(root is not None and root[0] == self.alg, "state-missing")
        self.above.insert(0, Above(h.id, ids, root and root[1:]))

    def leads(self, key):
        """Whether a routing key leads here, as far as the splits above are known."""
        ways = [one.id for one in self.above[1:]] + [self.id]
        return all(one.leads_to(self.alg, key) == way for one, way in zip(self.above, ways))

    def routed(self, attributes):
        """A request id, by which the others were routed, is in no transaction."""
        key = attributes.get(1) or attributes.get(2)
        need(not key or self.leads(key), "audit-route")

    def proved(self, proofs, state_key):
        """What the chains above had under a state key, the nearest first: the first value, or None."""
        for at, (raw, one) in enumerate(zip(proofs, reversed(self.above))):
            value = state.verify(self.alg, one.root, state_key, raw)
            if value is not None:
                need(at + 1 == len(proofs), "claim-above", "proofs after a value")
                return value
        need(len(proofs) == len(self.above), "claim-above", "a proof for each chain above")
        return None

    def claim(self, raw):
        """State key and value of a claim of kind 2."""
        need(len(raw) > 3 and raw[0] == 2, "claim-format")
        size = u(raw, 1, 2)
        key, rest = raw[3:3 + size], raw[3 + size:]
        proofs, rest = sized_list(rest, "claim-format")
        need(not rest and len(key) == size, "claim-format")
        name = key[1:]
        if key[:1] == b"\1":
            need(1 <= len(name) <= 512, "claim-format", "no key")
        else:
            need(key[:1] == b"\2" and account(name), "claim-format", "no account")
        need(self.leads(name), "audit-route")
        value = self.proved(proofs, key)
        need(value is None or len(value) == (8 if key[0] == 1 else 16), "state-value")
        return key, value

    def credit(self, raw, constitution, authority, transfer_of):
        """State key, receiver and amount of a credit."""
        need(raw[:1] == b"\1", "credit-format")
        ways, rest = sized_list(raw[1:], "credit-format")
        header, rest = rest[:256], rest[256:]
        signatures, rest = sized_list(rest, "credit-format")
        need(rest, "credit-format")
        count, rest = rest[0], rest[1:]
        path, rest = [rest[32 * i:32 * i + 32] for i in range(count)], rest[32 * count:]
        envelope, rest = rest[:128], rest[128:]
        need(len(rest) >= 4, "credit-format")
        size = u(rest, 0, 4)
        payload, rest = rest[4:4 + size], rest[4 + size:]
        absent, rest = sized_list(rest, "credit-format")
        need(not rest and len(payload) == size, "credit-format")
        h, e = parse_header(header), parse_envelope(envelope)
        sender, receiver, amount = transfer_of(payload)
        need(h.alg == self.alg, "hash-alg")
        need(e.chain_id == h.id, "envelope-chain")
        need(h.tx_start <= e.index < h.tx_start + h.tx_count, "envelope-index")
        need(e.inject_ms <= h.time_ms, "envelope-time")
        inclusion(h.alg, H(h.alg, b"\0", e.raw), e.index - h.tx_start, h.tx_count, path, h.tx_root)
        whole = e.payload_len == len(payload) and e.payload_hash == H(h.alg, payload)
        need(e.type == 3 and not e.salted and whole, "credit-debit")
        need(self.leads(receiver.encode()), "credit-route", "the receiver is elsewhere")
        self.way(h, ways, sender.encode(), constitution, authority)
        key = b"\3\4" + h.id + e.index.to_bytes(8, "big")
        need(self.proved(absent, key) is None, "credit-once", "credited by a chain above")
        check_quorum(h, signatures, constitution, authority)
        return key, receiver, amount

    def way(self, h, ways, sender, constitution, authority):
        """The sender leads from the ways that are shared to the chain of header h, and not here."""
        following = None
        for one, way in zip(self.above, [one.id for one in self.above[1:]] + [self.id]):
            following = one.leads_to(self.alg, sender)
            if following != way:
                break
        need(following != self.id, "credit-route", "the sender is in this very subchain")
        for raw in ways:
            split, ids, _ = split_quant(raw, constitution, authority)
            need(split.alg == self.alg and split.id == following, "credit-route", "another way")
            following = Above(split.id, ids, None).leads_to(self.alg, sender)
        need(following == h.id, "credit-route", "the sender does not lead there")


class Above:
    """A chain above, by its split Quant."""

    def __init__(self, chain_id, route, root):
        self.id, self.route, self.root = chain_id, route, root

    def leads_to(self, alg, key):
        return self.route[place_of(alg, self.id, key, len(self.route))] if self.route else None


def split_quant(payload, constitution, authority):
    """Header, route and state root of a split Quant that the authority signed."""
    header, meta, signatures = evidence(payload)
    h = parse_header(header)
    told = parse_meta(h, meta)
    route = told.get(5, b"")
    check_quorum(h, signatures, constitution, authority)
    return h, [route[at:at + 32] for at in range(4, len(route), 32)], told.get(4)


def check_quorum(h, signatures, constitution, authority):
    signers = [head_signature(h, constitution[21], authority, *signature_parts(s)) for s in signatures]
    need(signers, "quorum-count", "nobody signed")
    quorum(signers, constitution)


def account(name):
    """The name of an account: section 21."""
    try:
        text = name.decode("utf-8")
    except ValueError:
        return False
    return 1 <= len(name) <= 128 and not any(unicodedata.category(c) == "Cc" for c in text)


def sized_list(raw, check):
    """count u8, then as many parts with their lengths before them; and what follows."""
    need(raw, check)
    parts, rest = [], raw[1:]
    for _ in range(raw[0]):
        need(len(rest) >= 4, check)
        size = u(rest, 0, 4)
        parts.append(rest[4:4 + size])
        need(len(parts[-1]) == size, check)
        rest = rest[4 + size:]
    return parts, rest


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
