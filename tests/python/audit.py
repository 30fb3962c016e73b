"""The full audit of a QBC export file: docs/FORMAT.md section 15. Python 3, nothing else."""

import json
import math
import re
import unicodedata

from forms import H, bag, first_quant, parse_envelope, parse_header, parse_meta, records, root_of, u
import state
import subchain
from strict_json import Refused, need
from verifier import SIZES, anchored, authority_change, check_transaction, enough_work, head_signature, quorum

WINDOW = 8

MAGIC = b"QBCEXP1\n"


def verify_export(raw, trust_chain=None, trust_head=None, require=()):
    """The full audit of an export file; gives the verdict as a dict."""
    need(raw[:8] == MAGIC, "export-magic")
    audit, at, ended = None, len(MAGIC), False
    while at < len(raw):
        need(not ended and at + 5 <= len(raw), "export-end", "cut, or bytes after the end")
        kind, body = raw[at], raw[at + 5:at + 5 + u(raw, at + 1, 4)]
        need(len(body) == u(raw, at + 1, 4), "export-end", "a cut frame")
        at += 5 + len(body)
        need(kind in (1, 2, 3, 4, 5), "export-frame", f"kind {kind}")
        need(audit or kind == 1, "audit-order", "the genesis comes first")
        if kind == 1:
            audit = audit or Audit()
            audit.quant(body[:256], body[256:])
        elif kind == 2:
            audit.transaction(body)
        elif kind == 3:
            audit.signature(body)
        elif kind == 5:
            audit.anchor(body)
        else:
            audit.seal()
            ended = body == (audit.last.height + 1).to_bytes(8, "big") + audit.count.to_bytes(8, "big")
            need(ended, "export-count")
    need(ended, "export-end", "the end is missing")
    nodes = quorum(audit.signers, audit.constitution, require)
    return {"claim": "export", "chain_id": audit.last.id, "head": audit.last, "transactions": audit.count,
            "signed": audit.signed, "amendments": len(audit.change_ids),
            "erased": audit.erased, "unexplained": len(audit.unexplained),
            "anchored": anchored(audit.last, nodes, trust_chain, trust_head)}


class Audit:
    """Recomputes a chain from its genesis, Quant by Quant."""

    def __init__(self):
        self.last, self.meta, self.peaks, self.count, self.inject_ms, self.seq = None, b"", [], 0, 0, 0
        self.leaves, self.signers, self.sealed = [], [], False
        self.signed, self.changed, self.change_ids, self.state = 0, False, set(), {}
        self.work, self.erased, self.unexplained = None, 0, {}
        self.anchors, self.anchored = subchain.Anchors(), False

    def quant(self, header, meta):
        if self.last is None:
            self.last, self.constitution, self.authority = first_quant(header, meta)
            need(self.last.genesis, "audit-genesis", "an export begins with height 0")
            self.work = Work(self.constitution, self.last)
            self.subchain = subchain.Subchain(self.last, meta, self.constitution) if 19 in self.constitution else None
            return
        self.seal()
        a, b = self.last, parse_header(header)
        if self.meta and 5 in parse_meta(a, self.meta):
            self.anchors = subchain.Anchors(parse_meta(a, self.meta)[5])
        if self.meta and 6 in parse_meta(a, self.meta):
            self.seq, self.authority = authority_change(a, self.meta, a.id, self.seq, self.authority)
        self.push(a)
        rules = [(not a.final, "final"), (b.alg == a.alg, "hash-alg"), (b.height == a.height + 1, "height"),
                 (b.chain_id == a.id, "chain"), (b.prev_hash == a.hash, "prev-hash"),
                 (b.tx_start == a.tx_start + a.tx_count, "tx-start"), (b.time_ms >= a.time_ms, "time"),
                 (bag(b.alg, [p for p, _ in reversed(self.peaks)]) == b.hist_root, "hist-root")]
        for holds, name in rules:
            need(holds, f"next-{name}", f"height {b.height}")
        if b.fork:
            before, (_, self.constitution, self.authority) = self.constitution, first_quant(header, meta)
            self.check_fork(b, meta, before)
            self.subchain = self.subchain and self.subchain.fork()
            self.seq, meta, self.change_ids, self.work = 0, b"", set(), Work(self.constitution, b)
        else:
            need(enough_work(b, self.constitution), "work-minimum")
            need(self.work.bits in (None, b.pow_bits), "work-retarget", f"{b.pow_bits} bits where {self.work.bits} are due")
            parse_meta(b, meta)
            self.work.follow(b.height, b.time_ms)
            need(not (self.anchors.last and 5 in parse_meta(b, meta)), "audit-split", "it is split already")
        self.changed, self.anchored = False, False
        self.last, self.meta, self.leaves, self.signers, self.sealed = b, meta, [], [], False

    def check_fork(self, g, meta, before):
        """Section 11: what a fork keeps of its parent's constitution, and the state that it begins with."""
        own = self.constitution
        kept = 14 in own or 17 in own
        part = before.get(19) if kept else None
        need(18 not in own and own.get(19) == part, "fork-constitution", "a fork is no subchain")
        for tag in (4, 5, 6, 12, 13, 14, 15, 16, 17, 20, 21):
            absent = b"\0" if tag == 5 else None
            need(own.get(tag, absent) == before.get(tag, absent), "fork-constitution", f"record {tag}")
        root = bytes([g.alg]) + state.root_of(g.alg, self.state) if kept else None
        need(parse_meta(g, meta).get(4) == root, "audit-state", f"height {g.height}")

    def push(self, h):
        self.peaks.append((h.hash, 1))
        while len(self.peaks) > 1 and self.peaks[-1][1] == self.peaks[-2][1]:
            (right, _), (left, size) = self.peaks.pop(), self.peaks.pop()
            self.peaks.append((H(h.alg, b"\1", left, right), size * 2))

    def anchor(self, body):
        """The anchor leaves of the last Quant."""
        need(self.last.anchor_count and not (self.anchored or self.leaves or self.sealed), "audit-order", "anchors elsewhere than after their Quant")
        self.anchors.take(self.last, body)
        self.anchored = True

    def transaction(self, body):
        e, h = parse_envelope(body[:128]), self.last
        need(not self.sealed, "audit-order", "a transaction after a signature")
        split = 132 + u(body, 128, 4)
        rest = split + (32 if e.salted else 0)
        erased = e.salted and len(body) == split
        need(len(body) >= 132 and (erased or len(body) >= rest), "export-frame", "a cut transaction")
        need(e.chain_id == h.id, "envelope-chain")
        need(e.index == self.count and self.count < h.tx_start + h.tx_count, "envelope-index")
        need(e.inject_ms <= h.time_ms, "envelope-time")
        need(e.inject_ms >= self.inject_ms, "inject-order")
        need(e.type in (1, 2) or not self.anchors.last, "audit-split", "a chain that is split takes tombstones and changes alone")
        ledger = 14 in self.constitution
        first = self.subchain is not None and self.subchain.begins(e.index)
        need(not first or e.type == 5, "audit-claim", "a subchain begins with the Quants that split the chains above it")
        forked = self.subchain is not None and self.subchain.forked
        below = self.subchain is not None and self.subchain.keeps and (e.type == 5 or e.type == 4 and ledger and not forked)
        need(first or below or e.type in (1, 2) or e.type == (3 if ledger else 0), "audit-type", f"type {e.type} has no place here, or is not known")
        need(6 not in self.constitution, "audit-type", "this audit can't apply a JSON Schema")
        need(e.salted or e.type or 16 not in self.constitution, "audit-salt", "an erasable chain's data is salted")
        need(not erased or 16 in self.constitution and not e.type, "audit-payload", "this chain does not erase")
        payload, salt = (None, None) if erased else (body[rest:], body[split:rest] if e.salted else None)
        a = check_transaction(e, h.alg, payload, salt, body[132:split], self.constitution.get(18, h.id))
        self.signed += 3 in a
        if first:
            self.subchain.begin(payload, self.constitution, self.authority)
        elif forked:
            need(1 not in a or 17 not in self.constitution or self.subchain.leads(a[1]), "audit-route", "a key of another part")
        elif self.subchain and e.type == 0:
            self.subchain.routed(a)
        elif self.subchain and e.type == 3 and 1 in a:
            need(self.subchain.leads(a[1]), "audit-route", "a key of another subchain than its sender")
        if first:
            pass
        elif e.type == 5:
            self.claim(e, payload)
        elif e.type == 4:
            self.credit(e, payload)
        elif e.type == 1:
            self.change(a, payload)
        elif e.type == 2:
            self.erase(e, a, payload)
        else:
            authors = self.constitution.get(7)
            need(authors is None or a.get(3) in keys(authors), "audit-author")
            need(authors is None or 2 in a, "audit-id")
            check_content(0 if erased else self.constitution.get(5, b"\0")[0], payload)
        if 17 in self.constitution and 1 in a:
            self.touch(b"\1" + a[1])
            self.state[b"\1" + a[1]] = e.index.to_bytes(8, "big")
        if e.type == 3:
            self.transfer(a, payload)
        if erased:
            self.erased, self.unexplained[e.index] = self.erased + 1, H(h.alg, e.raw)
        self.leaves.append(H(h.alg, b"\0", e.raw))
        self.count, self.inject_ms = self.count + 1, e.inject_ms

    def erase(self, e, a, payload):
        """A tombstone: section 7. It explains why an earlier payload is missing."""
        need(16 in self.constitution, "erasure", "the chain is not erasable")
        need(a.get(3) in keys(self.constitution.get(8, b"")), "audit-admin", "not signed by an admin")
        need(2 in a, "audit-id")
        need(40 < len(payload) <= 40 + 1024 and any(b > 0x20 for b in payload[40:]), "erasure", "the reason")
        try:
            payload[40:].decode("utf-8")
        except ValueError as error:
            raise Refused("erasure", str(error)) from None
        index, envelope = u(payload, 0, 8), payload[8:40]
        need(index < e.index, "erasure", "what it names does not stand before it")
        need(self.unexplained.pop(index, envelope) == envelope, "erasure", "another envelope")

    def transfer(self, a, payload):
        """Section 21: moves an amount that the sender has."""
        sender, receiver, amount = transfer_of(payload)
        if re.fullmatch("[0-9a-f]{64}", sender):
            need(a.get(3) == bytes.fromhex(sender), "audit-author", "not signed by the key of its sender")
            need(2 in a, "audit-id")
        if self.subchain:
            need(self.subchain.leads(sender.encode()), "audit-route")
            need(not self.subchain.forked or self.subchain.leads(receiver.encode()), "audit-route", "of another part")
        self.move(sender, -amount)
        # What goes to another subchain is credited there.
        if not self.subchain or self.subchain.leads(receiver.encode()):
            self.move(receiver, amount)

    def move(self, account, amount):
        key = b"\2" + account.encode()
        self.touch(key)
        balance = self.balance(account) + amount
        need(balance >= 0, "audit-overdraft")
        self.state[key] = balance.to_bytes(16, "big")

    def touch(self, key):
        """Section 11: a subchain touches nothing that it did not claim before."""
        need(not self.subchain or b"\3" + key in self.state, "claim-missing")

    def claim(self, e, payload):
        """The state of a key or an account in the chains above, once each."""
        need(payload[:1] == b"\2", "audit-claim", "a split Quant that has no place here")
        key, value = self.subchain.claim(payload)
        need((17 if key[0] == 1 else 14) in self.constitution, "audit-type", "no state of this kind is kept")
        need(b"\3" + key not in self.state, "claim-once")
        self.state[b"\3" + key] = e.index.to_bytes(8, "big")
        if key[0] == 2:
            had = self.balance(key[1:].decode()) if value is None else int.from_bytes(value, "big")
            self.state[key] = had.to_bytes(16, "big")

    def credit(self, e, payload):
        """What another subchain took for an account of this one, once for each debit."""
        key, receiver, amount = self.subchain.credit(payload, self.constitution, self.authority, transfer_of)
        need(b"\3\2" + receiver.encode() in self.state, "claim-missing")
        need(key not in self.state, "credit-once")
        self.move(receiver, amount)
        self.state[key] = e.index.to_bytes(8, "big")

    def balance(self, account):
        mint = self.constitution.get(15, b"")
        first = mint[:16] if account.encode() == mint[16:] else bytes(16)
        return int.from_bytes(self.state.get(b"\2" + account.encode(), first), "big")

    def change(self, a, payload):
        """A constitution change, in force from here on: records with a value replace, records without one take away."""
        need(a.get(3) in keys(self.constitution.get(8, b"")), "audit-admin", "not signed by an admin")
        need(2 in a and a[2] not in self.change_ids, "audit-id", "a change without an id of its own")
        self.change_ids.add(a[2])
        given = records(payload, {7, 9, 10, 11})
        given = {tag: value for tag, value in given.items() if tag < 128}
        need(given, "constitution-change", "nothing is changed")
        self.constitution = dict(self.constitution)
        for tag, value in given.items():
            good = len(value) == {9: 4, 10: 8, 11: 8}[tag] and any(value) if tag != 7 else unlike(value)
            need(not value or good, "constitution-change", f"record {tag}")
            self.constitution.pop(tag, None)
            if value:
                self.constitution[tag] = value
        self.constitution, self.changed = dict(sorted(self.constitution.items())), True

    def signature(self, body):
        self.seal()
        need(len(body) > 105, "signature-format")
        need(body[0] in SIZES, "signature-alg", "neither Ed25519 nor ML-DSA-44")
        end = 41 + SIZES[body[0]][1]
        need(len(body) > end, "signature-format")
        parts = body[0], body[1:33], u(body, 33, 8), body[41:end], body[end:]
        self.signers.append(head_signature(self.last, self.constitution[21], self.authority, *parts))

    def seal(self):
        """The Quant is complete: its transactions make its tx_root."""
        need(self.anchored or not self.last.anchor_count, "anchor-form", "anchors are missing")
        need(len(self.leaves) == self.last.tx_count, "audit-count", "transactions are missing")
        need(root_of(self.last.alg, self.leaves) == self.last.tx_root, "audit-root")
        if not (self.last.genesis or self.last.fork):
            raw = b"".join(bytes([t]) + len(v).to_bytes(4, "big") + v for t, v in self.constitution.items())
            due = H(self.last.alg, raw) + self.last.height.to_bytes(8, "big") if self.changed else None
            kept = 14 in self.constitution or 17 in self.constitution
            root = bytes([self.last.alg]) + state.root_of(self.last.alg, self.state) if kept else None
            need(parse_meta(self.last, self.meta).get(4) == root, "audit-state", f"height {self.last.height}")
            need(parse_meta(self.last, self.meta).get(7) == due, "constitution-in-force", f"height {self.last.height}")
        self.sealed = True


class Work:
    """The bits that the next header must have: docs/FORMAT.md section 6. None where no work is asked for."""

    def __init__(self, constitution, first):
        rule = constitution.get(12)
        self.minimum, self.target_ms = (u(rule, 0, 2), u(rule, 2, 8)) if rule else (None, 0)
        self.bits, self.first, self.window_ms = self.minimum, first.height, first.time_ms

    def follow(self, height, time_ms):
        if (height - self.first) % WINDOW:
            return
        span, expected = time_ms - self.window_ms, WINDOW * self.target_ms
        self.window_ms = time_ms
        if self.target_ms:
            step = (2 if 3 * span <= expected else 1 if 3 * span <= 2 * expected else
                    -2 if span >= 3 * expected else -1 if 2 * span >= 3 * expected else 0)
            self.bits = max(min(self.bits + step, 255), self.minimum)


def transfer_of(payload):
    """Sender, receiver, amount: section 21."""
    try:
        given = json.loads(payload)
    except ValueError as error:
        raise Refused("audit-transfer", str(error)) from None
    need(isinstance(given, dict) and {"sender", "receiver", "amount"} <= set(given) <= {"sender", "receiver", "amount", "memo"},
         "audit-transfer", "not the fields of a transfer")
    need(all(isinstance(value, str) for value in given.values()), "audit-transfer", "not all strings")
    for account in (given["sender"], given["receiver"]):
        plain = not any(unicodedata.category(c) == "Cc" for c in account)
        need(1 <= len(account.encode()) <= 128 and plain, "audit-transfer", "an account's name")
    amount = given["amount"]
    need(re.fullmatch("[1-9][0-9]{0,38}", amount) and int(amount) < 1 << 128, "audit-transfer", "the amount")
    need(given["sender"] != given["receiver"], "audit-transfer", "to oneself")
    need(len(given.get("memo", "").encode()) <= 1024, "audit-transfer", "the memo")
    return given["sender"], given["receiver"], int(amount)


def keys(raw):
    return [raw[i:i + 32] for i in range(0, len(raw), 32)]


def unlike(raw):
    """Whole keys, no two of them alike."""
    return len(raw) % 32 == 0 and len(set(keys(raw))) == len(keys(raw))


def check_content(content, payload):
    """Text and JSON are checked here; MessagePack is left to those who have a decoder."""
    try:
        if content in (1, 2):
            payload.decode("utf-8")
        if content == 2:
            strict_content(payload)
    except ValueError as error:
        raise Refused("audit-content", str(error)) from None


def strict_content(payload):
    """One I-JSON value: no name twice, numbers within a double, no half of a surrogate pair, 128 containers deep."""
    def no_twice(pairs):
        need(len({k for k, _ in pairs}) == len(pairs), "audit-content", "a name twice")
        return dict(pairs)

    def finite(text):
        if not math.isfinite(float(text)):
            raise ValueError(text[:40])
        return 0
    try:
        value = json.loads(payload.decode("utf-8"), object_pairs_hook=no_twice, parse_int=finite, parse_float=finite, parse_constant=finite)
    except RecursionError as error:
        raise ValueError(str(error)) from None
    level, depth = [value], 0
    while level:
        containers = [v for v in level if isinstance(v, (dict, list))]
        for text in [v for v in level if isinstance(v, str)] + [name for v in containers if isinstance(v, dict) for name in v]:
            text.encode("utf-8")
        depth += bool(containers)
        level = [inner for v in containers for inner in (v.values() if isinstance(v, dict) else v)]
    if depth > 128:
        raise ValueError(f"{depth} containers deep")
