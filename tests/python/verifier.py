#!/usr/bin/env python3
"""An independent verifier of QBC proof and export files, written from docs/FORMAT.md alone. Python 3, nothing else.

verifier.py FILE [--trust-chain HEX | --trust-head HEX | --self-consistent]     exits 7 and names the failed check
"""

import argparse
import hashlib
import json
import sys
from collections import namedtuple

import ed25519

Header = namedtuple("Header", "raw alg genesis fork final pow_bits chain_id height time_ms tx_start tx_count meta_len "
                    "anchor_count prev_hash tx_root hist_root anchors_root meta_hash hash id")
Envelope = namedtuple("Envelope", "raw type salted chain_id index inject_ms payload_len payload_hash attributes_hash")
META, CONSTITUTION, ATTRIBUTES = {1, 2, 3, 4, 5, 6, 7}, set(range(1, 22)), {1, 2, 3, 4}


class Refused(Exception):
    def __init__(self, check, why=""):
        super().__init__(f"{check}: {why}")
        self.check = check


def need(condition, check, why=""):
    if not condition:
        raise Refused(check, why)


# --- section 2: hash and trees

def H(alg, *parts):
    return (hashlib.sha3_256 if alg == 1 else hashlib.sha256)(b"".join(parts)).digest()


def root_of(alg, hashes):
    if not hashes:
        return H(alg, b"")
    while len(hashes) > 1:
        pairs = [H(alg, b"\1", hashes[i], hashes[i + 1]) for i in range(0, len(hashes) - 1, 2)]
        hashes = pairs + hashes[len(pairs) * 2:]
    return hashes[0]


def bag(alg, peaks):
    """Bags peaks that are given smallest first."""
    acc = peaks[0] if peaks else H(alg, b"")
    for peak in peaks[1:]:
        acc = H(alg, b"\1", peak, acc)
    return acc


def inclusion(alg, leaf, index, size, path, root):
    need(index < size, "inclusion-index", f"index {index} is not below the size {size}")
    fn, sn, acc, left = index, size - 1, leaf, []
    for sibling in path:
        need(sn != 0, "inclusion-path", "too long")
        if fn & 1 or fn == sn:
            left.append(sibling)
            acc = H(alg, b"\1", sibling, acc)
            while fn and not fn & 1:
                fn, sn = fn >> 1, sn >> 1
        else:
            acc = H(alg, b"\1", acc, sibling)
        fn, sn = fn >> 1, sn >> 1
    need(sn == 0, "inclusion-path", "too short")
    need(acc == root, "inclusion-root", "the path leads to another root")
    return left


# --- sections 3, 5, 6: records, envelope, header

def u(raw, start, length):
    return int.from_bytes(raw[start:start + length], "big")


def records(raw, known):
    out, at, last = {}, 0, -1
    while at < len(raw):
        tag, length = raw[at], u(raw, at + 1, 4)
        need(at + 5 <= len(raw) and at + 5 + length <= len(raw), "record-form", "a cut record")
        need(tag > last, "record-order", "tags must rise")
        need(tag in known or tag >= 128, "record-unknown", f"tag {tag} is critical and not known")
        out[tag], at, last = raw[at + 5:at + 5 + length], at + 5 + length, tag
    return out


def parse_envelope(raw):
    need(len(raw) == 128, "envelope-length")
    need(raw[:4] == b"QTX1", "envelope-magic")
    need(raw[4] <= 5, "envelope-type", f"type {raw[4]} is reserved")
    need(raw[5] < 2, "envelope-flags")
    need(u(raw, 6, 2) == 0, "envelope-zero")
    return Envelope(raw, raw[4], raw[5] == 1, raw[8:40], u(raw, 40, 8), u(raw, 48, 8), u(raw, 56, 8), raw[64:96], raw[96:])


def parse_header(raw):
    need(len(raw) == 256, "header-length")
    need(raw[:4] == b"QHD1", "header-magic")
    need(raw[5] in (0, 1, 2, 4), "header-flags")
    need(not any(raw[76:88]), "header-zero")
    need(raw[4] in (1, 2), "header-hash-alg")
    digest, first = H(raw[4], b"\0", raw), raw[5] in (1, 2)
    h = Header(raw, raw[4], raw[5] == 1, raw[5] == 2, raw[5] == 4, u(raw, 6, 2), raw[8:40], u(raw, 40, 8), u(raw, 48, 8),
               u(raw, 56, 8), u(raw, 64, 4), u(raw, 68, 4), u(raw, 72, 4), raw[88:120], raw[120:152], raw[152:184],
               raw[184:216], raw[216:248], digest, digest if first else raw[8:40])
    empty = H(h.alg, b"")
    need(h.meta_len <= (1 << 20 if first else 4096), "header-meta-len")
    need(h.tx_start + h.tx_count < 1 << 64, "header-sum")
    need((h.height == 0) == h.genesis, "header-genesis", "height 0 and genesis go together")
    need(not first or not (h.pow_bits or h.tx_count or h.anchor_count), "header-genesis", "a first Quant holds nothing")
    need(not h.genesis or (not any(h.chain_id + h.prev_hash) and h.tx_start == 0 and h.hist_root == empty), "header-genesis")
    need((h.tx_count or h.tx_root == empty) and (h.anchor_count or h.anchors_root == empty), "header-empty-root")
    need(h.pow_bits <= 256 - int.from_bytes(digest, "big").bit_length(), "header-work", "the hash lacks the zero bits")
    return h


def parse_meta(h, raw):
    need(len(raw) == h.meta_len, "meta-length")
    need(H(h.alg, raw) == h.meta_hash, "meta-hash")
    return records(raw, META)


def parse_authority(raw):
    roots = [raw[i:i + 32] for i in range(1, len(raw), 32)]
    need(len(raw) % 32 == 1 and 1 <= raw[0] <= len(roots) == len(set(roots)), "authority-record")
    return raw, raw[0], roots


def first_quant(header, meta):
    """Genesis or fork-genesis with its constitution."""
    g = parse_header(header)
    need(g.genesis or g.fork, "genesis", "neither genesis nor fork-genesis")
    parsed = parse_meta(g, meta)
    raw = parsed.get(1)
    need(raw is not None, "constitution", "none in the meta")
    in_force = H(g.alg, raw) + g.height.to_bytes(8, "big")
    need(parsed.get(7, in_force) == in_force, "constitution-in-force")
    continued = g.chain_id + (g.height - 1).to_bytes(8, "big") + g.prev_hash if g.fork else None
    need(not g.fork or parsed.get(2) == continued, "parent", "not the Quant that the fork continues")
    constitution = records(raw, CONSTITUTION)
    need(all(tag in constitution for tag in (1, 2, 3, 4, 21)), "constitution-required")
    lengths = {2: 8, 3: 16, 5: 1, 9: 4, 10: 8, 11: 8, 12: 10, 13: 1, 14: 1, 16: 1, 17: 1, 18: 32, 19: 8, 20: 4, 21: 16}
    need(all(len(constitution[t]) == n for t, n in lengths.items() if t in constitution), "constitution-record")
    return g, constitution, parse_authority(constitution[4])


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


def head_signature(h, cluster_id, authority, alg, key_id, time_s, signature, certificate):
    """Gives (node_id, public key) of a signature that holds."""
    c, key_len = certificate, u(certificate, 25, 4)
    need(alg == 1, "signature-alg", "only Ed25519 is known here")
    need(len(c) > 45 + key_len and key_len == 32, "certificate-format")
    key, not_before, not_after = c[29:61], u(c, 61, 8), u(c, 69, 8)
    need(c[:16] == cluster_id, "certificate-cluster")
    need(c[24] == alg, "signature-alg", "not that of the certificate")
    need(hashlib.sha3_256(key).digest() == key_id, "signature-key")
    need(not_before <= time_s <= not_after, "certificate-time")
    root_signatures(c[77:], b"qbc/node/v1\n\0" + c[:77], authority, "certificate")
    message = b"".join([b"qbc/quant/v1\n\0", c[:24], time_s.to_bytes(8, "big"), h.id, h.height.to_bytes(8, "big"), h.hash])
    need(ed25519.verify(key, message, signature), "head-signature")
    return u(c, 16, 8), key


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


def check_head(b, genesis, signatures, changes, shown):
    """Section 10, anchored, 2.1 to 2.4: gives the node ids that vouch for b, enough of them or none."""
    if genesis is None:
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
    return quorum([head_signature(b, constitution[21], authority, *s) for s in signatures], constitution)


def enough_work(h, constitution):
    """A first Quant needs none; the others the minimum of record 12."""
    return h.genesis or h.fork or h.pow_bits >= u(constitution.get(12, b"\0\0"), 0, 2)


def quorum(signers, constitution):
    need(len({n for n, _ in signers}) == len(signers), "quorum-node", "a node signed twice")
    need(len({k for _, k in signers}) == len(signers), "quorum-key", "one key for two nodes")
    wanted = constitution.get(13, b"\1")[0] or 1
    need(not signers or len(signers) >= wanted, "quorum-count", f"{len(signers)} of {wanted} signatures")
    return [n for n, _ in signers]


def anchored(b, nodes, trust_chain, trust_head):
    """What the last header is worth to this caller, in words; None if nobody known vouches for it."""
    if trust_head == b.hash:
        return "by the head that you trust"
    if nodes and trust_chain == b.id:
        return f"by the chain that you trust, signed by node {', '.join(map(str, nodes))}"
    return None


# --- section 13: the proof file

def strict_json(raw):
    def no_twice(pairs):
        need(len({k for k, _ in pairs}) == len(pairs), "duplicate-name")
        return dict(pairs)

    def whole(text):
        need(text.isascii() and text.isdigit() and len(text) < 21, "integer", text)
        return int(text)
    try:
        return json.loads(raw.decode("utf-8"), object_pairs_hook=no_twice, parse_int=whole, parse_float=whole, parse_constant=whole)
    except (ValueError, RecursionError) as error:
        raise Refused("json", str(error)) from None


def fields(obj, required, optional=()):
    need(isinstance(obj, dict), "field", "an object is missing")
    need(all(k in required or k in optional for k in obj), "unknown-field", str(set(obj) - set(required) - set(optional)))
    need(all(k in obj for k in required), "field", f"one of {required} is missing")
    return [obj.get(k) for k in (*required, *optional)]


def unhex(text, length=None):
    need(isinstance(text, str), "field", "a byte string is missing")
    need(len(text) % 2 == 0 and set(text) <= set("0123456789abcdef"), "hex")
    need(length is None or len(text) == 2 * length, "hex", f"not {length} bytes")
    return bytes.fromhex(text)


def integer(value, bits=64):
    if isinstance(value, str):
        need(value.isascii() and value.isdigit() and len(value) < 21 and str(int(value)) == value, "integer")
        value = int(value)
    else:
        need(type(value) is int and value <= 1 << 53, "integer")
    need(value < 1 << bits, "integer")
    return value


def array(value):
    need(isinstance(value, list), "field", "an array is missing")
    return value


def hashes(value):
    return [unhex(h, 32) for h in array(value)]


def optional_bytes(value):
    return None if value is None else unhex(value)


def verify_proof(raw, trust_chain=None, trust_head=None):
    """Checks a proof file; gives the verdict as a dict, `anchored` is None if nobody known vouches for it."""
    proof = strict_json(raw)
    need(isinstance(proof, dict), "field", "not an object")
    need(type(proof.get("qbc_proof")) is int and proof["qbc_proof"] == 1, "version")
    kind = proof.get("claim")
    subject = {"inclusion": "transaction", "extension": "old"}.get(kind if isinstance(kind, str) else None)
    need(subject, "field", "claim; those about forks are not known here")
    _, _, subject, steps, head = fields(proof, ("qbc_proof", "claim", subject, "steps", "head"))
    signatures, changes, genesis = fields(head, ("signatures", "authority_changes"), ("genesis",))
    if genesis is not None or "genesis" in head:
        genesis = tuple(unhex(v) for v in fields(genesis, ("header", "meta")))
    signatures = [parse_signature(s) for s in array(signatures)]
    changes = [(unhex(h), unhex(m), hashes(p)) for h, m, p in (fields(c, ("header", "meta", "path")) for c in array(changes))]
    if kind == "inclusion":
        raw_envelope, *shown = fields(subject, ("envelope",), ("payload", "salt", "attributes"))
        need(None not in subject.values(), "field", "null")
        envelope, shown = parse_envelope(unhex(raw_envelope)), [optional_bytes(v) for v in shown]
        headers = walk(envelope, array(steps))
        chain = first_quant(*genesis) if genesis else None
        family = chain[1].get(18, chain[0].hash) if chain and chain[0].hash == envelope.chain_id else None
        claimed = check_transaction(envelope, headers[0].alg, *shown, family)
        verdict = {"index": envelope.index, "height": headers[0].height, "payload": shown[0], "type": envelope.type,
                   "key": claimed.get(1), "id": claimed.get(2), "author": claimed.get(3)}
    else:
        old, headers = parse_header(unhex(subject)), []
        need(len(array(steps)) == 1 and isinstance(steps[0], dict) and steps[0].get("link") == "history", "grammar")
        _, header, path, borders = fields(steps[0], ("link", "header", "path", "borders"))
        need(borders == [], "grammar", "an extension has no borders")
        headers = [old, parse_header(unhex(header))]
        extension(*headers, hashes(path))
        verdict = {"old_height": old.height}
    nodes = check_head(headers[-1], genesis, signatures, changes, headers)
    return verdict | {"claim": kind, "chain_id": headers[-1].id, "head": headers[-1],
                      "anchored": anchored(headers[-1], nodes, trust_chain, trust_head)}


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


# --- section 12: the answer of ProveInclusion over gRPC as a proof file

def proof_from_grpc(answer):
    """Takes a ProveInclusionResponse (or anything with its fields) and gives the proof object of section 13."""
    head = answer.head.quant.header
    steps = [{"link": "quant", "header": answer.header.hex(), "path": [p.hex() for p in answer.tx_path]}]
    if answer.header != head:
        steps.append({"link": "history", "header": head.hex(), "path": [p.hex() for p in answer.history_path], "borders": []})
    shown = {"envelope": answer.envelope.hex()}
    if answer.HasField("payload"):
        shown["payload"] = answer.payload.hex()
    shown |= {name: getattr(answer, name).hex() for name in ("salt", "attributes") if getattr(answer, name)}
    return {"qbc_proof": 1, "claim": "inclusion", "transaction": shown, "steps": steps, "head": head_from_grpc(answer)}


def head_from_grpc(answer):
    """The head evidence in an answer that has `head` and `genesis`."""
    signatures = [{"alg": s.alg, "key_id": s.key_id.hex(), "time_s": s.time_s, "signature": s.signature.hex(),
                   "certificate": s.certificate.hex()} for s in answer.head.signatures]
    genesis = {"header": answer.genesis.header.hex(), "meta": answer.genesis.meta.hex()}
    return {"signatures": signatures, "genesis": genesis, "authority_changes": []}


def verify(raw, trust_chain=None, trust_head=None):
    """Checks the bytes of a proof file or of an export."""
    if raw.startswith(b"QBCEXP"):
        import audit
        return audit.verify_export(raw, trust_chain, trust_head)
    return verify_proof(raw, trust_chain, trust_head)


def main(argv):
    parser = argparse.ArgumentParser(description="Verifies a QBC proof file or export.")
    parser.add_argument("file")
    for name in ("--trust-chain", "--trust-head"):
        parser.add_argument(name, type=bytes.fromhex, metavar="HEX")
    parser.add_argument("--self-consistent", action="store_true")
    options = parser.parse_args(argv[1:])
    try:
        with open(options.file, "rb") as file:
            verdict = verify(file.read(), options.trust_chain, options.trust_head)
        for name, value in verdict.items():
            print(f"{name}: {value.hash.hex() if name == 'head' else value.hex() if isinstance(value, bytes) else value}")
        need(verdict["anchored"] or options.self_consistent, "not-anchored", "self-consistent, vouched for by nobody")
    except Refused as refused:
        print(f"refused: {refused}", file=sys.stderr)
        return 7
    return 0


if __name__ == "__main__":
    import verifier  # the same module that audit.py imports, so that there is one Refused
    sys.exit(verifier.main(sys.argv))
