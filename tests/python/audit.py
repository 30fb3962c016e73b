"""The full audit of a QBC export file: docs/FORMAT.md section 15. Python 3, nothing else."""

import json
import math

from forms import H, bag, first_quant, parse_envelope, parse_header, parse_meta, root_of, u
from strict_json import Refused, need
from verifier import anchored, authority_change, check_transaction, enough_work, head_signature, quorum

MAGIC = b"QBCEXP1\n"


def verify_export(raw, trust_chain=None, trust_head=None):
    """The full audit of an export file; gives the verdict as a dict."""
    need(raw[:8] == MAGIC, "export-magic")
    audit, at, ended = None, len(MAGIC), False
    while at < len(raw):
        need(not ended and at + 5 <= len(raw), "export-end", "cut, or bytes after the end")
        kind, body = raw[at], raw[at + 5:at + 5 + u(raw, at + 1, 4)]
        need(len(body) == u(raw, at + 1, 4), "export-end", "a cut frame")
        at += 5 + len(body)
        need(kind in (1, 2, 3, 4), "export-frame", f"kind {kind}")
        need(audit or kind == 1, "audit-order", "the genesis comes first")
        if kind == 1:
            audit = audit or Audit()
            audit.quant(body[:256], body[256:])
        elif kind == 2:
            audit.transaction(body)
        elif kind == 3:
            audit.signature(body)
        else:
            audit.seal()
            ended = body == (audit.last.height + 1).to_bytes(8, "big") + audit.count.to_bytes(8, "big")
            need(ended, "export-count")
    need(ended, "export-end", "the end is missing")
    nodes = quorum(audit.signers, audit.constitution)
    return {"claim": "export", "chain_id": audit.last.id, "head": audit.last, "transactions": audit.count,
            "anchored": anchored(audit.last, nodes, trust_chain, trust_head)}


class Audit:
    """Recomputes a chain from its genesis, Quant by Quant."""

    def __init__(self):
        self.last, self.meta, self.peaks, self.count, self.inject_ms, self.seq = None, b"", [], 0, 0, 0
        self.leaves, self.signers, self.sealed = [], [], False

    def quant(self, header, meta):
        if self.last is None:
            self.last, self.constitution, self.authority = first_quant(header, meta)
            need(self.last.genesis, "audit-genesis", "an export begins with height 0")
            return
        self.seal()
        a, b = self.last, parse_header(header)
        if self.meta and 6 in parse_meta(a, self.meta):
            self.seq, self.authority = authority_change(a, self.meta, a.id, self.seq, self.authority)
        self.push(a)
        rules = [(not a.final, "final"), (b.alg == a.alg, "hash-alg"), (b.height == a.height + 1, "height"),
                 (b.chain_id == a.id, "chain"), (b.prev_hash == a.hash, "prev-hash"),
                 (b.tx_start == a.tx_start + a.tx_count, "tx-start"), (b.time_ms >= a.time_ms, "time"),
                 (bag(b.alg, [p for p, _ in reversed(self.peaks)]) == b.hist_root, "hist-root")]
        for holds, name in rules:
            need(holds, f"next-{name}", f"height {b.height}")
        need(enough_work(b, self.constitution), "work-minimum")
        parse_meta(b, meta)
        if b.fork:
            _, self.constitution, self.authority = first_quant(header, meta)
            self.seq, meta = 0, b""
        self.last, self.meta, self.leaves, self.signers, self.sealed = b, meta, [], [], False

    def push(self, h):
        self.peaks.append((h.hash, 1))
        while len(self.peaks) > 1 and self.peaks[-1][1] == self.peaks[-2][1]:
            (right, _), (left, size) = self.peaks.pop(), self.peaks.pop()
            self.peaks.append((H(h.alg, b"\1", left, right), size * 2))

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
        need(e.type == 0, "audit-type", f"type {e.type} is not known to this audit")
        need(6 not in self.constitution, "audit-type", "this audit can't apply a JSON Schema")
        need(e.salted or 16 not in self.constitution, "audit-salt", "an erasable chain's data is salted")
        need(not erased or 16 in self.constitution, "audit-payload", "this chain does not erase")
        payload, salt = (None, None) if erased else (body[rest:], body[split:rest] if e.salted else None)
        a = check_transaction(e, h.alg, payload, salt, body[132:split], self.constitution.get(18, h.id))
        authors = self.constitution.get(7)
        need(authors is None or a.get(3) in [authors[i:i + 32] for i in range(0, len(authors), 32)], "audit-author")
        need(authors is None or 2 in a, "audit-id")
        check_content(0 if erased else self.constitution.get(5, b"\0")[0], payload)
        self.leaves.append(H(h.alg, b"\0", e.raw))
        self.count, self.inject_ms = self.count + 1, e.inject_ms

    def signature(self, body):
        self.seal()
        need(len(body) > 105, "signature-format")
        parts = body[0], body[1:33], u(body, 33, 8), body[41:105], body[105:]
        self.signers.append(head_signature(self.last, self.constitution[21], self.authority, *parts))

    def seal(self):
        """The Quant is complete: its transactions make its tx_root."""
        need(len(self.leaves) == self.last.tx_count, "audit-count", "transactions are missing")
        need(root_of(self.last.alg, self.leaves) == self.last.tx_root, "audit-root")
        self.sealed = True


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
