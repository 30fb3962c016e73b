#!/usr/bin/env python3
"""An independent verifier of QBC proof and export files, written from docs/FORMAT.md alone. Python 3, nothing else.

verifier.py FILE [--trust-chain HEX | --trust-head HEX | --self-consistent] [--require-alg ALGS]
exits 7 and names the failed check
"""

import argparse
import base64
import hashlib
import sys

import ed25519
import ml_dsa
import state
from forms import (ATTRIBUTES, H, bag, first_quant, inclusion, parse_authority, parse_envelope, parse_header, parse_meta, records,
                   u)
from strict_json import Refused, array, fields, hashes, integer, need, optional_bytes, strict_json, unhex


# --- section 10: content of a transaction, links

def check_transaction(envelope, alg, payload, salt, attributes, family):
    """Payload and attributes, where shown, against the envelope. Gives the attributes that may be claimed."""
    e = envelope
    need((salt is not None) == (payload is not None and e.salted), "salt")
    if payload is not None:
        need(len(payload) == e.payload_len, "payload-length")
        need(H(alg, *([b"\2", salt] if e.salted else []), payload) == e.payload_hash, "payload-hash")
    if attributes is None:
        return {}
    need((H(alg, attributes) if attributes else bytes(32)) == e.attributes_hash, "attributes-hash")
    a = records(attributes, ATTRIBUTES)
    lengths = {1: range(1, 513), 2: range(1, 65), 3: [32], 4: [64]}
    need(all(len(a[t]) in lengths[t] for t in a if t in lengths) and (3 in a) == (4 in a), "attributes")
    if 3 in a:
        key, id_ = a.get(1, b""), a.get(2, b"")
        message = b"".join([b"qbc/tx/v1\n\0", family or e.chain_id, e.raw[4:6], len(key).to_bytes(4, "big"), key,
                            len(id_).to_bytes(4, "big"), id_, e.payload_hash])
        signed = ed25519.verify(a[3], message, a[4])
        need(signed or family is None, "author-signature")
        a = a if signed else {t: v for t, v in a.items() if t < 3}
    return a


def quant_link(e, h, path):
    need(e.chain_id == h.chain_id, "envelope-chain", "the envelope is of another chain")
    need(h.tx_start <= e.index < h.tx_start + h.tx_count, "envelope-index", f"index {e.index} is not in this Quant")
    need(e.inject_ms <= h.time_ms, "envelope-time", "injected after the Quant's time")
    inclusion(h.alg, H(h.alg, b"\0", e.raw), e.index - h.tx_start, h.tx_count, path, h.tx_root)


def history_link(a, b, path, borders=()):
    need(a.alg == b.alg, "hash-alg")
    need(a.height < b.height, "height-order", f"{a.height} is not below {b.height}")
    need(not a.final, "final", "nothing extends a final Quant")
    follows(a, b)
    owner, chain, below = b.id, b.id, b.height + 1
    for g in borders:
        need(g.fork and g.hash == chain, "border", "not the fork-genesis of this lineage")
        need(g.alg == b.alg, "hash-alg")
        need(g.height < below, "border-height")
        chain, below = g.chain_id, g.height
        owner = chain if a.height < g.height else owner
    need(a.id == owner, "lineage", "the header is of another chain")
    return inclusion(b.alg, a.hash, a.height, b.height, path, b.hist_root)


def follows(a, b):
    need(b.time_ms >= a.time_ms, "time-order", "time falls")
    need(b.tx_start + b.tx_count >= a.tx_start + a.tx_count, "count-order", "the count of transactions falls")
    if b.height == a.height + 1:
        need(b.prev_hash == a.hash, "neighbour-hash")
        need(b.tx_start == a.tx_start + a.tx_count, "neighbour-count", "numbers are skipped")


def extension(a, b, path):
    need(a.id == b.id, "extension-chain", "the heads are of different chains")
    if a.height == b.height:
        need(a.raw == b.raw, "extension-same-height", "two Quants of one height: evidence, keep both")
        return need(not path, "path-length", "a head extends itself without a path")
    left = history_link(a, b, path)
    need(len(left) == bin(a.height).count("1"), "extension-peaks")
    need(bag(a.alg, left) == a.hist_root, "extension-old-root", "the past was rewritten")


def anchor_link(child, parent, index, path):
    need(child.alg == parent.alg, "hash-alg")
    leaf = b"QAN1" + child.id + child.height.to_bytes(8, "big") + child.hash
    inclusion(parent.alg, H(parent.alg, b"\0", leaf), index, parent.anchor_count, path, parent.anchors_root)


# --- section 8: who may seal

def root_signatures(raw, message, authority, prefix):
    """`m u8 || m x (index u8, signature 64)` by distinct root keys, at least the threshold."""
    _, threshold, roots = authority
    need(raw and len(raw) == 1 + 65 * raw[0], prefix + "-format", "cut")
    used = set()
    for at in range(1, len(raw), 65):
        need(raw[at] < len(roots) and roots[raw[at]] not in used, prefix + "-root")
        used.add(roots[raw[at]])
        need(ed25519.verify(roots[raw[at]], message, raw[at + 1:at + 65]), prefix + "-signature")
    need(len(used) >= threshold, prefix + "-threshold")


# number: (bytes of a public key, bytes of a signature)
SIZES = {1: (32, 64), 2: (1312, 2420)}
ALGORITHMS = {"ed25519": 1, "ml-dsa-44": 2}


def head_signature(h, cluster_id, authority, alg, key_id, time_s, signature, certificate):
    """Gives (node_id, algorithm, public key) of a signature that holds."""
    message = b"".join([b"qbc/quant/v1\n\0", certificate[:24], time_s.to_bytes(8, "big"), h.id, h.height.to_bytes(8, "big"),
                        h.hash])
    return node_signature(message, "head-signature", cluster_id, authority, alg, key_id, time_s, signature, certificate)


def node_signature(message, check, cluster_id, authority, alg, key_id, time_s, signature, certificate):
    c, key_len = certificate, u(certificate, 25, 4)
    end = 29 + key_len
    need(alg in SIZES, "signature-alg", "neither Ed25519 nor ML-DSA-44")
    need(len(c) > end + 16, "certificate-format")
    need(c[:16] == cluster_id, "certificate-cluster")
    need(c[24] == alg, "signature-alg", "not that of the certificate")
    need(key_len == SIZES[alg][0], "certificate-format")
    key, not_before, not_after = c[29:end], u(c, end, 8), u(c, end + 8, 8)
    need(hashlib.sha3_256(key).digest() == key_id, "signature-key")
    need(not_before <= time_s <= not_after, "certificate-time")
    root_signatures(c[end + 16:], b"qbc/node/v1\n\0" + c[:end + 16], authority, "certificate")
    need(holds(alg, key, message, signature), check)
    return u(c, 16, 8), alg, key


def holds(alg, key, message, signature):
    need(len(signature) == SIZES[alg][1], "signature-format", f"a signature of {len(signature)} bytes")
    if alg == 1:
        return ed25519.verify(key, message, signature)
    try:
        return ml_dsa.verify(key, message, signature)
    except ml_dsa.Malformed as why:
        raise Refused("signature-format", str(why)) from None


def authority_change(h, meta, chain_id, seq, old):
    """Follows meta record 6; gives the new seq and authority."""
    raw = parse_meta(h, meta).get(6)
    need(raw is not None, "authority-missing", "no change in the meta")
    split = len(raw) - 1 - 65 * ((len(raw) - 6) % 32)
    need(split > 4, "authority-format")
    need(u(raw, 0, 4) == seq + 1, "authority-seq", "a change is missing or shown twice")
    new = parse_authority(raw[4:split])
    message = b"qbc/root/v1\n\0" + chain_id + raw[:4] + H(h.alg, old[0]) + H(h.alg, new[0])
    root_signatures(raw[split:], message, old, "authority")
    return seq + 1, new


def check_head(b, genesis, signatures, changes, shown, require=(), log=None):
    """Section 10, anchored, 2.1 to 2.5: gives the node ids that vouch for b, enough of them or none."""
    if genesis is None:
        need(log is None or not log.signatures, "genesis-missing", "a checkpoint's signatures cannot be checked without it")
        need(not require, "signature-required", "no genesis is shown under which a signature could be checked")
        need(not signatures and not changes, "genesis-missing", "signatures cannot be checked without it")
        return []
    g, constitution, authority = first_quant(*genesis)
    need(g.hash == b.id, "genesis-id", "it is of another chain")
    need(g.raw == b.raw or g.height < b.height, "height-order", "the head is not above its genesis")
    shown = shown + [parse_header(header) for header, _, _ in changes]
    need(all(enough_work(h, constitution) for h in shown if h.id == g.hash), "work-minimum")
    seq, last = 0, g.height
    for header, meta, path in changes:
        h = parse_header(header)
        need(h.height > last, "authority-order", "changes must rise")
        history_link(h, b, path)
        (seq, authority), last = authority_change(h, meta, g.hash, seq, authority), h.height
    nodes = quorum([head_signature(b, constitution[21], authority, *s) for s in signatures], constitution, require)
    logged = checkpoint_signers(log, constitution, authority) if log else []
    return nodes or logged


def checkpoint_signers(log, constitution, authority):
    """Section 11, super log: the nodes that vouch for the chain by the checkpoint; of a quorum chain none do."""
    need(not log.signatures or log.cluster_id == constitution[21], "checkpoint-cluster", "it is of another cluster")
    signers = [node_signature(log.message(s[2]), "checkpoint-signature", log.cluster_id, authority, *s)
               for s in log.signatures]
    nodes = quorum(signers, {})
    return nodes if (constitution.get(13, b"\1")[0] or 1) == 1 else []


def enough_work(h, constitution):
    """A first Quant needs none; the others the minimum of record 12."""
    return h.genesis or h.fork or h.pow_bits >= u(constitution.get(12, b"\0\0"), 0, 2)


def quorum(signers, constitution, require=()):
    """The nodes of signatures that hold; `require` names the algorithms that enough of them must have signed with."""
    need(len({(n, a) for n, a, _ in signers}) == len(signers), "quorum-node", "a node signed twice")
    need(len({k for _, _, k in signers}) == len(signers), "quorum-key", "one key for two nodes")
    nodes, wanted = {n for n, _, _ in signers}, constitution.get(13, b"\1")[0] or 1
    need(not signers or len(nodes) >= wanted, "quorum-count", f"{len(nodes)} of {wanted} nodes")
    for name in require:
        signed = {n for n, a, _ in signers if a == ALGORITHMS[name]}
        need(len(signed) >= wanted, "signature-required", f"{name}: {len(signed)} of {wanted} nodes")
    return sorted(nodes)


class Log:
    """Section 11, super log: that a header was in the log of all chains at a checkpoint. Checks all but the signatures."""

    def __init__(self, header, raw):
        group, size, root, index, path, super_index, super_path, checkpoint = fields(
            raw, ("group", "size", "root", "index", "path", "super_index", "super_path", "checkpoint"))
        cluster_id, self.size, self.root, signatures = fields(checkpoint, ("cluster_id", "size", "root", "signatures"))
        self.cluster_id, self.size, self.root = unhex(cluster_id, 16), integer(self.size), unhex(self.root, 32)
        self.signatures = [parse_signature(s) for s in array(signatures)]
        group, size, root = integer(group, 32), integer(size), unhex(root, 32)
        leaf = b"QHR1" + header.id + header.height.to_bytes(8, "big") + header.hash
        inclusion(2, H(2, b"\0", leaf), integer(index), size, hashes(path), root)
        leaf = b"QGR1" + group.to_bytes(4, "big") + size.to_bytes(8, "big") + root
        inclusion(2, H(2, b"\0", leaf), integer(super_index), self.size, hashes(super_path), self.root)

    def text(self):
        return f"qbc/{self.cluster_id.hex()}\n{self.size}\n{base64.b64encode(self.root).decode()}\n".encode()

    def message(self, time_s):
        return f"cosignature/v1\ntime {time_s}\n".encode() + self.text()


def anchored(b, nodes, trust_chain, trust_head, log=None):
    """What the last header is worth to this caller, in words; None if nobody known vouches for it."""
    if log is not None and trust_head == log.root:
        return "by the root of the log of all chains that you trust: the head was there"
    if trust_head == b.hash:
        return "by the head that you trust"
    if nodes and trust_chain == b.id:
        return f"by the chain that you trust, signed by node {', '.join(map(str, nodes))}"
    return None


# --- section 13: the proof file

SUBJECTS = {"inclusion": "transaction", "state": "state", "extension": "old", "agreement": "parent", "parting": "parent",
            "whole": "whole"}

def verify_proof(raw, trust_chain=None, trust_head=None, require=()):
    """Checks a proof file; gives the verdict as a dict, `anchored` is None if nobody known vouches for it."""
    proof = strict_json(raw)
    need(isinstance(proof, dict), "field", "not an object")
    need(type(proof.get("qbc_proof")) is int and proof["qbc_proof"] == 1, "version")
    kind = proof.get("claim")
    subject = SUBJECTS.get(kind if isinstance(kind, str) else None)
    need(subject, "field", "claim")
    extra = ("transaction",) if kind == "state" else ()
    names = ("qbc_proof", "claim", subject, "steps", "head") + (("next", "next_path") if kind == "parting" else ())
    _, _, subject, steps, head, *more = fields(proof, names, ("log", *extra))
    after, log, latest = more[:len(names) - 5], more[len(names) - 5], more[len(names) - 4:]
    need("log" not in proof or log is not None, "field", "null")
    signatures, changes, genesis = fields(head, ("signatures", "authority_changes"), ("genesis",))
    if genesis is not None or "genesis" in head:
        genesis = tuple(unhex(v) for v in fields(genesis, ("header", "meta")))
    signatures = [parse_signature(s) for s in array(signatures)]
    changes = [(unhex(h), unhex(m), hashes(p)) for h, m, p in (fields(c, ("header", "meta", "path")) for c in array(changes))]
    if kind == "inclusion":
        headers, verdict = transaction_shown(subject, steps, genesis)
    elif kind == "state":
        need("transaction" not in proof or latest[0] is not None, "field", "null")
        headers, verdict = state_shown(subject, latest[0], steps, genesis)
    elif kind in ("agreement", "parting"):
        headers, verdict = agreement_shown(subject, steps)
        if kind == "parting":
            parting(parse_header(unhex(after[0])), hashes(after[1]), headers)
    elif kind == "whole":
        import whole
        headers, verdict = whole.shown(subject, steps)
    else:
        old, headers = parse_header(unhex(subject)), []
        need(len(array(steps)) == 1 and isinstance(steps[0], dict) and steps[0].get("link") == "history", "grammar")
        _, header, path, borders = fields(steps[0], ("link", "header", "path", "borders"))
        need(borders == [], "grammar", "an extension has no borders")
        headers = [old, parse_header(unhex(header))]
        extension(*headers, hashes(path))
        verdict = {"old_height": old.height}
    log = Log(headers[-1], log) if log is not None else None
    nodes = check_head(headers[-1], genesis, signatures, changes, headers, require, log)
    return verdict | {"claim": kind, "chain_id": headers[-1].id, "head": headers[-1],
                      "root": log and log.root,
                      "anchored": anchored(headers[-1], nodes, trust_chain, trust_head, log)}


def transaction_shown(subject, steps, genesis):
    """A transaction and its way: the headers met, and what may be said of it."""
    raw_envelope, *shown = fields(subject, ("envelope",), ("payload", "salt", "attributes"))
    need(None not in subject.values(), "field", "null")
    envelope, shown = parse_envelope(unhex(raw_envelope)), [optional_bytes(v) for v in shown]
    headers = walk(envelope, array(steps))
    chain = first_quant(*genesis) if genesis else None
    family = chain[1].get(18, chain[0].hash) if chain and chain[0].hash == envelope.chain_id else None
    claimed = check_transaction(envelope, headers[0].alg, *shown, family)
    return headers, {"index": envelope.index, "height": headers[0].height, "payload": shown[0], "type": envelope.type,
                     "key": claimed.get(1), "id": claimed.get(2), "author": claimed.get(3)}


def state_shown(subject, latest, steps, genesis):
    """What the state of a Quant holds under a key: the headers met, and what may be said of it."""
    header, meta, key, proof = (unhex(v) for v in fields(subject, ("header", "meta", "key", "proof")))
    h = parse_header(header)
    record = parse_meta(h, meta).get(4, b"")
    need(len(record) == 33 and record[0] == h.alg, "state-missing", "the Quant commits to no state")
    value = state.verify(h.alg, record[1:], key, proof)
    need(key[:1] in (b"\1", b"\2"), "state-key", "neither a key nor an account")
    need(value is None or len(value) == {1: 8, 2: 16}[key[0]], "state-value", "of another length")
    headers, verdict = [h], {}
    if latest is None:
        need(array(steps) == [], "grammar", "steps that lead to nothing")
    else:
        headers, verdict = transaction_shown(latest, steps, genesis)
        need(headers[-1].raw == h.raw, "grammar", "the transaction is proved into another header")
        same = value is not None and verdict["index"] == int.from_bytes(value, "big")
        need(key[0] == 1 and verdict["key"] == key[1:] and same, "state-latest")
    if genesis:
        kept = {1: 17, 2: 14}[key[0]]
        need(kept in first_quant(*genesis)[1], "state-missing", "the chain keeps no such state")
    return headers, verdict | {"state_key": key, "value": value}


def agreement_shown(subject, steps):
    """Section 11: a fork and its parent are one up to the fork. The headers met: fork-genesis, parent's, parent's head."""
    genesis, below, path = fields(subject, ("fork_genesis", "header", "path"))
    g, a, path = parse_header(unhex(genesis)), parse_header(unhex(below)), hashes(path)
    need(g.fork, "fork-genesis")
    need(g.height == a.height + 1, "fork-height")
    need(a.id == g.chain_id, "extension-chain", "the fork came from another chain")
    need(a.alg == g.alg, "hash-alg")
    need(not a.final, "final", "nothing extends a final Quant")
    follows(a, g)
    left = inclusion(g.alg, a.hash, a.height, g.height, path, g.hist_root)
    need(len(left) == bin(a.height).count("1"), "extension-peaks")
    need(bag(a.alg, left) == a.hist_root, "extension-old-root", "the past was rewritten")
    headers = [g, a]
    for step in array(steps):
        need(len(headers) == 2 and isinstance(step, dict) and step.get("link") == "history", "grammar")
        _, header, path, borders = fields(step, ("link", "header", "path", "borders"))
        need(borders == [], "grammar", "the parent's own history has no borders")
        headers.append(parse_header(unhex(header)))
        history_link(a, headers[2], hashes(path))
    return headers, {"fork": g.hash, "height": a.height}


def parting(own, path, headers):
    """The parent has its own Quant where the fork begins."""
    need(own.height == headers[0].height, "parting-height")
    need(own.id == headers[0].chain_id, "parting-chain")
    if own.raw == headers[-1].raw:
        need(not path, "path-length", "the head needs no path")
    else:
        history_link(own, headers[-1], path)


def parse_signature(obj):
    alg, key_id, time_s, signature, certificate = fields(obj, ("alg", "key_id", "time_s", "signature", "certificate"))
    return integer(alg, 8), unhex(key_id, 32), integer(time_s), unhex(signature), unhex(certificate)


def walk(envelope, steps):
    """Follows the steps of an inclusion; gives the headers met."""
    headers, last = [], None
    for step in steps:
        link = step.get("link") if isinstance(step, dict) else None
        need(link in ("quant", "history", "anchor"), "field", "not a link")
        need((link == "quant") == (last is None) and not link == last == "history", "grammar", "order")
        extra = {"quant": (), "history": ("borders",), "anchor": ("index",)}[link]
        _, header, path, *extra = fields(step, ("link", "header", "path", *extra))
        h, path = parse_header(unhex(header)), hashes(path)
        if link == "quant":
            quant_link(envelope, h, path)
        elif link == "history":
            history_link(headers[-1], h, path, [parse_header(unhex(g)) for g in array(extra[0])])
        else:
            anchor_link(headers[-1], h, integer(extra[0]), path)
        headers.append(h)
        last = link
    need(headers, "grammar", "there are no steps")
    return headers


def verify(raw, trust_chain=None, trust_head=None, require=()):
    """Checks the bytes of a proof file or of an export; `require` names algorithms that the head must be signed with."""
    if raw.startswith(b"QBCEXP"):
        import audit
        return audit.verify_export(raw, trust_chain, trust_head, require)
    return verify_proof(raw, trust_chain, trust_head, require)


def algorithms(text):
    names = text.split(",")
    if not set(names) <= set(ALGORITHMS):
        raise argparse.ArgumentTypeError("give ed25519, ml-dsa-44, or both with a comma between")
    return names


def main(argv):
    parser = argparse.ArgumentParser(description="Verifies a QBC proof file or export.")
    parser.add_argument("file")
    for name in ("--trust-chain", "--trust-head"):
        parser.add_argument(name, type=bytes.fromhex, metavar="HEX")
    parser.add_argument("--self-consistent", action="store_true")
    parser.add_argument("--require-alg", type=algorithms, default=(), metavar="ALGS", help="such as ed25519,ml-dsa-44")
    options = parser.parse_args(argv[1:])
    try:
        with open(options.file, "rb") as file:
            verdict = verify(file.read(), options.trust_chain, options.trust_head, options.require_alg)
        for name, value in verdict.items():
            print(f"{name}: {value.hash.hex() if name == 'head' else value.hex() if isinstance(value, bytes) else value}")
        need(verdict["anchored"] or options.self_consistent, "not-anchored", "self-consistent, vouched for by nobody")
    except Refused as refused:
        print(f"refused: {refused}", file=sys.stderr)
        return 7
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
