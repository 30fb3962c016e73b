"""Every single rule of docs/FORMAT.md, broken alone: (what, name of the check, call that must be refused)."""

import json

import audit
import ed25519
import example
import verifier as v
from example import be, record

ZERO = bytes(32)


def put(raw, at, new):
    return raw[:at] + new + raw[at + len(new):]


def proof_of(chain, proof):
    return lambda: v.verify(json.dumps(proof).encode(), trust_chain=chain.id)


def cases():
    yield from record_rules()
    yield from envelope_rules()
    yield from header_rules()
    yield from link_rules()
    yield from genesis_rules()
    yield from signer_rules()
    yield from file_rules()
    yield from audit_rules()


def record_rules():
    for what, check, raw in [
            ("a cut tag", "record-form", b"\1\0\0"), ("a cut value", "record-form", record(1, b"ab")[:-1]),
            ("a tag twice", "record-order", record(1, b"a") * 2), ("falling tags", "record-order", record(2, b"a") + record(1, b"a")),
            ("a critical unknown tag", "record-unknown", record(99, b""))]:
        yield what, check, lambda raw=raw: v.records(raw, {1, 2})
    c = example.example()
    e = v.parse_envelope(c.quants[1]["items"][1]["envelope"])
    for what, raw in [("an empty key", record(1, b"")), ("a long key", record(1, bytes(513))), ("a long id", record(2, bytes(65))),
                      ("an author alone", record(3, ZERO)), ("a short author", record(3, b"a") + record(4, bytes(64)))]:
        e = e._replace(attributes_hash=v.H(1, raw))
        yield what, "attributes", lambda e=e, raw=raw: v.check_transaction(e, 1, None, None, raw, ZERO)


def envelope_rules():
    good = example.example().quants[1]["items"][1]["envelope"]
    for what, check, raw in [("a cut envelope", "envelope-length", good[:-1]), ("magic", "envelope-magic", put(good, 0, b"QTX2")),
                             ("a reserved type", "envelope-type", put(good, 4, b"\6")), ("flags", "envelope-flags", put(good, 5, b"\2")),
                             ("zero bytes", "envelope-zero", put(good, 7, b"\1"))]:
        yield what, check, lambda raw=raw: v.parse_envelope(raw)


def header_rules():
    quants = [q["header"] for q in example.example().quants]
    first, good, one = quants[0], quants[1], be(1, 4)
    for what, check, raw in [
            ("magic", "header-magic", put(good, 0, b"QHD2")), ("an unknown hash", "header-hash-alg", put(good, 4, b"\3")),
            ("two flags", "header-flags", put(good, 5, b"\6")), ("a new flag", "header-flags", put(good, 5, b"\x08")),
            ("a long meta", "header-meta-len", put(good, 68, be(4097, 4))), ("a long genesis meta", "header-meta-len", put(first, 68, be((1 << 20) + 1, 4))),
            ("an overflowing sum", "header-sum", put(good, 56, b"\xff" * 8)), ("height 0 without flag", "header-genesis", put(good, 40, be(0, 8))),
            ("a genesis of height 1", "header-genesis", put(first, 40, be(1, 8))), ("transactions in a genesis", "header-genesis", put(first, 64, one)),
            ("anchors in a genesis", "header-genesis", put(first, 72, one)), ("work in a genesis", "header-genesis", put(first, 6, b"\0\1")),
            ("a genesis with a past", "header-genesis", put(first, 88, b"\1")), ("a genesis with a history", "header-genesis", put(first, 152, b"\1")),
            ("a genesis with an id", "header-genesis", put(first, 8, b"\1")), ("a genesis at transaction 1", "header-genesis", put(first, 56, be(1, 8))),
            ("tx_root over nothing", "header-empty-root", put(good, 64, be(0, 4))), ("anchors_root over nothing", "header-empty-root", put(good, 184, b"\1")),
            ("zero bits that the hash lacks", "header-work", put(good, 6, b"\0\xff"))]:
        yield what, check, lambda raw=raw: v.parse_header(raw)
    h = v.parse_header(first)
    yield "a meta of another length", "meta-length", lambda: v.parse_meta(h, example.example().quants[0]["meta"] + b"x")


def link_rules():
    c = example.example()
    first, a, b = (v.parse_header(q["header"]) for q in c.quants)
    hashes = [example.leaf(q["header"]) for q in c.quants]
    path, item = example.path(1, hashes[:2]), c.quants[1]["items"]
    e, tx_path = v.parse_envelope(item[1]["envelope"]), example.path(1, [example.leaf(i["envelope"]) for i in item])
    for what, check, x in [("another chain's envelope", "envelope-chain", e._replace(chain_id=ZERO)), ("an index beyond", "envelope-index", e._replace(index=2)),
                           ("injected later", "envelope-time", e._replace(inject_ms=a.time_ms + 1))]:
        yield what, check, lambda x=x: v.quant_link(x, a, tx_path)
    for what, check, x, y in [
            ("another hash", "hash-alg", a._replace(alg=2), b), ("time falls", "time-order", a._replace(time_ms=b.time_ms + 1), b),
            ("the count falls", "count-order", a._replace(tx_start=9), b), ("prev_hash", "neighbour-hash", a, b._replace(prev_hash=ZERO)),
            ("numbers are skipped", "neighbour-count", a, b._replace(tx_start=3)), ("another chain", "lineage", a._replace(id=ZERO), b)]:
        yield what, check, lambda x=x, y=y: v.history_link(x, y, path)
    yield "a border that is none", "border", lambda: v.history_link(a, b, path, [first])
    fork = a._replace(fork=True, hash=b.id)
    yield "a border above", "border-height", lambda: v.history_link(a, b, path, [fork._replace(height=3)])
    yield "a border of another hash", "hash-alg", lambda: v.history_link(a, b, path, [fork._replace(alg=2)])
    yield "extension of another chain", "extension-chain", lambda: v.extension(a._replace(id=ZERO), b, path)
    yield "two heads at one height", "extension-same-height", lambda: v.extension(a, a._replace(raw=b""), [])
    yield "a path to itself", "path-length", lambda: v.extension(a, a, path)
    yield "an anchor of another hash", "hash-alg", lambda: v.anchor_link(a._replace(alg=2), b, 0, [])
    h = [v.H(1, bytes([i])) for i in range(3)]
    yield "a long path", "inclusion-path", lambda: v.inclusion(1, h[0], 0, 1, [h[1]], h[0])
    yield "a short path", "inclusion-path", lambda: v.inclusion(1, h[0], 0, 2, [], h[0])


def genesis_rules():
    def made(meta, flags=1):
        c = example.example()
        header = put(c.quants[0]["header"], 68, be(len(meta), 4))
        return lambda: v.first_quant(put(put(header, 216, v.H(1, meta)), 5, bytes([flags])), meta)

    c = example.example()
    good = c.constitution
    yield "a later Quant as genesis", "genesis", lambda: v.first_quant(c.quants[1]["header"], c.quants[1]["meta"])
    yield "no constitution", "constitution", made(record(3, be(1, 8)))
    yield "another constitution in force", "constitution-in-force", made(record(1, good) + record(7, bytes(40)))
    yield "no cluster", "constitution-required", made(record(1, good[:-21]))
    yield "a short salt", "constitution-record", made(record(1, good.replace(record(3, bytes([3] * 16)), record(3, b"x"))))
    key = ed25519.public(example.ROOT_SEED)
    for what, authority in [("no roots", b"\0"), ("threshold 0", b"\0" + key), ("threshold 2 of 1", b"\2" + key), ("a root twice", b"\1" + key * 2)]:
        yield what, "authority-record", made(record(1, good.replace(record(4, b"\1" + key), record(4, authority))))
    meta = record(1, good) + record(2, bytes(72))
    header = put(put(put(c.quants[1]["header"], 68, be(len(meta), 4)), 216, v.H(1, meta)), 64, be(0, 4))
    fork = put(put(header, 120, v.H(1, b"")), 5, b"\2")
    yield "a fork of another Quant", "parent", lambda: v.first_quant(fork, meta)


def change(chain, seq, new, signers):
    """Meta with an authority change to one new root seed, signed by the chain's roots of these indexes."""
    old = v.parse_authority(bytes([1]) + b"".join(ed25519.public(s) for s in chain.roots))[0]
    body = be(seq, 4) + b"\1" + ed25519.public(new)
    message = b"qbc/root/v1\n\0" + chain.id + be(seq, 4) + v.H(1, old) + v.H(1, body[4:])
    signatures = b"".join(bytes([i]) + ed25519.sign(chain.roots[i], message) for i in signers)
    return record(6, body + bytes([len(signers)]) + signatures)


def changed(seq=1, signers=(0,), meta=None, shown=True):
    """A proof into a head whose authority was changed at height 1."""
    c, new = example.Chain(), bytes([7] * 32)
    c.leap([(b"a",)], meta or change(c, seq, new, signers))
    c.leap([(b"b",)])
    c.roots = (new,)
    proof, q = c.prove(1, 2), c.quants[1]
    if shown:
        evidence = {"header": q["header"].hex(), "meta": q["meta"].hex(), "path": c.history(1, 2)["path"]}
        proof["head"]["authority_changes"] = [evidence]
    return c, proof


def signer_rules():
    c, proof = changed()
    verdict = v.verify(json.dumps(proof).encode(), trust_chain=c.id)
    assert verdict["anchored"], "a head under a changed authority"
    assert v.verify(c.export(), trust_chain=c.id)["anchored"], "an export over an authority change"
    yield "a change left out", "certificate-signature", proof_of(*changed(shown=False))
    yield "a gap", "authority-seq", proof_of(*changed(seq=2))
    yield "an unsigned change", "authority-threshold", proof_of(*changed(signers=()))
    yield "a root twice", "authority-root", proof_of(*changed(signers=(0, 0)))
    yield "no change in the meta", "authority-missing", proof_of(*changed(meta=record(3, be(1, 8))))
    yield "a change of no length", "authority-format", proof_of(*changed(meta=record(6, b"\0\0\0\1\0")))
    twice = json.loads(json.dumps(proof))
    twice["head"]["authority_changes"] *= 2
    yield "a change twice", "authority-order", proof_of(c, twice)
    bare = c.prove(1, 2)
    del bare["head"]["genesis"]
    yield "signatures without genesis", "genesis-missing", proof_of(c, bare)
    late = c.prove(1, 2)
    late["head"]["genesis"]["header"] = c.quants[1]["header"].hex()
    yield "another Quant as genesis", "genesis", proof_of(c, late)
    yield from signature_rules()
    two = example.Chain(quorum=2)
    two.leap([(b"x",)])
    proof = two.prove(0, 1)
    proof["head"]["signatures"].append(two.signature(1, node_id=2))
    yield "one key for two nodes", "quorum-key", proof_of(two, proof)
    hard = example.Chain(extra=record(12, be(3, 2) + be(0, 8)))
    hard.leap([(b"x",)])
    yield "less work than the constitution asks", "work-minimum", proof_of(hard, hard.prove(0, 1))
    yield "less work in an export", "work-minimum", lambda: v.verify(hard.export())
    easy = example.Chain(extra=record(12, be(1, 2) + be(1000, 8)))
    easy.leap([(b"x",)])
    yield "more work than the rule asks for", "work-retarget", lambda: mined_audit(easy, 2)
    yield "work without bits", "work-minimum", lambda: mined_audit(easy, 0)


def mined_audit(chain, bits):
    """The audit of a chain's Quant 1, mined for these bits."""
    header, nonce = put(chain.quants[1]["header"], 6, be(bits, 2)), 0
    while int.from_bytes(example.leaf(header), "big") >> (256 - bits):
        nonce += 1
        header = put(header, 248, be(nonce, 8))
    auditor = audit.Audit()
    auditor.quant(chain.quants[0]["header"], chain.quants[0]["meta"])
    auditor.quant(header, chain.quants[1]["meta"])


def signature_rules():
    c = example.example()
    good = c.prove(0, 2)

    def with_signature(**fields):
        proof = json.loads(json.dumps(good))
        proof["head"]["signatures"][0] |= fields
        return proof_of(c, proof)
    certificate = bytes.fromhex(good["head"]["signatures"][0]["certificate"])
    yield "ML-DSA-44 under an Ed25519 certificate", "signature-alg", with_signature(alg=2)
    yield "an algorithm that is none", "signature-alg", with_signature(alg=3)
    yield "a short Ed25519 signature", "signature-format", with_signature(signature="00" * 63)
    yield "another key", "signature-key", with_signature(key_id="00" * 32)
    for what, check, raw in [("cut", "certificate-format", certificate[:-1]), ("short", "certificate-format", certificate[:30]),
                             ("of another cluster", "certificate-cluster", put(certificate, 0, b"\xff")),
                             ("of another algorithm", "signature-alg", put(certificate, 24, b"\2")),
                             ("by a root that is none", "certificate-root", put(certificate, 78, b"\1"))]:
        yield f"a certificate {what}", check, with_signature(certificate=raw.hex())
    yield from post_quantum_rules(c)


def post_quantum_rules(c):
    """ML-DSA-44 signatures of another form, and policies that a head does not meet."""
    good = c.prove(0, 2) | {"head": c.head(2, algs=(1, 2))}
    signature = bytes.fromhex(good["head"]["signatures"][1]["signature"])
    certificate = bytes.fromhex(good["head"]["signatures"][1]["certificate"])
    hints, ends = 2336, 2416

    def with_second(**fields):
        proof = json.loads(json.dumps(good))
        proof["head"]["signatures"][1] |= fields
        return proof_of(c, proof)
    for what, check, raw in [
            ("cut", "signature-format", signature[:-1]), ("longer", "signature-format", signature + b"\0"),
            ("with hints swapped", "signature-format", put(signature, hints, signature[hints + 1:hints + 2] + signature[hints:hints + 1])),
            ("with a hint twice", "signature-format", put(signature, hints, signature[hints + 1:hints + 2])),
            ("with a hint after the last list", "signature-format", put(signature, ends - 1, b"\1")),
            ("with lists that fall back", "signature-format", put(signature, ends + 1, b"\0")),
            ("with too many hints", "signature-format", put(signature, ends + 3, b"\x51")),
            ("with a z out of its range", "signature-format", put(signature, 32, bytes(4))),
            ("over other bytes", "head-signature", put(signature, 0, bytes(4)))]:
        yield f"an ML-DSA-44 signature {what}", check, with_second(signature=raw.hex())
    short = put(certificate, 25, be(1311, 4))
    yield "an ML-DSA-44 key of 1311 bytes", "certificate-format", with_second(certificate=(short[:29] + short[30:]).hex())
    twice = json.loads(json.dumps(good))
    twice["head"]["signatures"].append(twice["head"]["signatures"][1])
    yield "a node twice with ML-DSA-44", "quorum-node", proof_of(c, twice)
    for what, raw in [("a proof", json.dumps(c.prove(0, 2)).encode()), ("an export", c.export())]:
        yield f"{what} without what is required", "signature-required", lambda raw=raw: v.verify(raw, require=["ml-dsa-44"])
    bare = c.prove(0, 2) | {"head": {"signatures": [], "authority_changes": []}}
    yield "a proof without a genesis where something is required", "signature-required", lambda: v.verify(json.dumps(bare).encode(), require=["ed25519"])
    two = example.Chain(quorum=2)
    two.leap([(b"x",)])
    head = two.head(1, algs=(1, 2))
    alone = two.prove(0, 1) | {"head": head}
    yield "one node with two algorithms for a quorum of two", "quorum-count", proof_of(two, alone)
    mixed = json.loads(json.dumps(alone))
    mixed["head"]["signatures"][1] = two.signature(1, node_id=2, seed=bytes([8] * 32), alg=2)
    yield "a quorum in all, none with what is required", "signature-required", lambda: v.verify(json.dumps(mixed).encode(), require=["ml-dsa-44"])


def file_rules():
    c = example.example()
    inclusion, extension = c.prove(0, 2), c.extend(1, 2)
    for what, check, proof, changes in [
            ("a list for an object", "field", inclusion, {"head": []}), ("a string for a list", "field", inclusion, {"steps": "x"}),
            ("no claim of this version", "field", inclusion, {"claim": "hearsay"}), ("a claim that is none", "field", inclusion, {"claim": []}),
            ("an extension in two steps", "grammar", extension, {"steps": extension["steps"] * 2}),
            ("an extension by a Quant link", "grammar", extension, {"steps": inclusion["steps"][:1]}),
            ("an extension over a border", "grammar", extension, {"steps": [extension["steps"][0] | {"borders": [inclusion["steps"][0]["header"]]}]}),
            ("a fraction of u64", "integer", inclusion, {"head": inclusion["head"] | {"signatures": [c.signature(2) | {"time_s": str(1 << 64)}]}})]:
        yield what, check, proof_of(c, proof | changes)
    yield "a list for a proof", "field", lambda: v.verify(b"[]")


def audit_rules():
    c = example.example()
    raw = c.export()
    head = 8 + 5 + 256 + len(c.quants[0]["meta"])
    yield "a magic of later", "export-magic", lambda: v.verify(put(raw, 6, b"2"))
    yield "a frame of a kind that is none", "export-frame", lambda: v.verify(put(raw, head, b"\6"))
    yield "a transaction first", "audit-order", lambda: v.verify(put(raw, 8, b"\2"))
    yield "counts that differ", "export-count", lambda: v.verify(raw[:-1] + b"\4")
    yield "no end", "export-end", lambda: v.verify(raw[:-21])
    yield "no genesis", "genesis", lambda: v.verify(raw[:8] + raw[head:])
    yield "a Quant left out", "next-height", lambda: v.verify(raw[:head] + example.frame(1, c.quants[2]["header"] + c.quants[2]["meta"]))
    after = example.frame(2, c.quants[2]["items"][0]["envelope"] + bytes(4) + b"third")
    yield "a transaction after a signature", "audit-order", lambda: v.verify(raw[:-21] + after)
    yield "a short signature", "signature-format", lambda: v.verify(raw[:-21] + example.frame(3, bytes(105)))
    yield "a short transaction", "export-frame", lambda: v.verify(raw[:head] + example.frame(1, c.quants[1]["header"] + c.quants[1]["meta"]) + example.frame(2, c.quants[1]["items"][0]["envelope"]))
    yield from next_rules(c)
    yield from content_rules()
    yield from anchor_rules()


def anchor_rules():
    """The anchors of a chain that is split."""
    ids = [v.H(1, bytes([i])) for i in range(3)]
    route = record(3, be(1, 8)) + record(5, be(2, 4) + ids[0] + ids[1])

    def anchor(child, height):
        return b"QAN1" + ids[child] + be(height, 8) + v.H(1, be(height, 8))

    def export(*quants, change=lambda frames: frames):
        c = example.Chain()
        c.leap([(b"x",)], route)
        for anchors in quants:
            c.leap([], anchors=sorted(anchors))
        for quant in c.quants[2:]:
            quant["anchors"] = change(quant["anchors"])
        return lambda: v.verify(c.export())
    both = [anchor(0, 1), anchor(1, 3)]
    assert export(both, [anchor(1, 4)], [anchor(0, 2)])()["transactions"] == 1, "anchors that hold"
    yield "an anchor that goes back", "anchor-back", export(both, [anchor(1, 2)])
    yield "an anchor twice", "anchor-back", export(both, [anchor(1, 3)])
    yield "an anchor of a strange chain", "anchor-child", export([anchor(2, 1)])
    yield "an anchor missing", "anchor-form", export(both, change=lambda raw: raw[:76])
    yield "no anchors", "anchor-form", export(both, change=lambda raw: b"")
    yield "another magic", "anchor-form", export(both, change=lambda raw: put(raw, 0, b"X"))
    yield "anchors in another order", "anchor-order", export(both, change=lambda raw: raw[76:] + raw[:76])
    yield "another height", "anchor-root", export(both, change=lambda raw: put(raw, 43, b"\7"))
    for what, items, meta in (("data after a split", [(b"y",)], record(3, be(1, 8))), ("a second split", [], route)):
        c = example.Chain()
        c.leap([(b"x",)], route)
        c.leap(items, meta)
        yield what, "audit-split", lambda c=c: v.verify(c.export())
    plain = example.Chain()
    plain.leap([(b"x",)])
    plain.quants[1]["anchors"] = anchor(0, 1)
    yield "anchors that no header counts", "audit-order", lambda: v.verify(plain.export())


def next_rules(c):
    """The second Quant of an audit with one field of the header changed."""
    def with_field(at, new):
        def call():
            auditor = audit.Audit()
            auditor.quant(c.quants[0]["header"], c.quants[0]["meta"])
            auditor.quant(put(c.quants[1]["header"], at, new), c.quants[1]["meta"])
        return call
    for what, check, at, new in [
            ("another chain", "next-chain", 8, ZERO), ("another past", "next-prev-hash", 88, ZERO), ("a skipped number", "next-tx-start", 56, be(1, 8)),
            ("an earlier time", "next-time", 48, be(1, 8)), ("another history", "next-hist-root", 152, ZERO)]:
        yield what, check, with_field(at, new)
    yield "a genesis alone that is none", "audit-genesis", lambda: audit.Audit().quant(*as_fork(c))


def as_fork(c):
    """The genesis dressed as a fork-genesis at height 1."""
    parent = ZERO + be(0, 8) + ZERO
    meta = record(1, c.constitution) + record(2, parent)
    header = put(put(put(c.quants[0]["header"], 5, b"\2"), 40, be(1, 8)), 68, be(len(meta), 4))
    return put(header, 216, v.H(1, meta)), meta


def content_rules():
    def fed(item, extra=b"", change=lambda e: e, content=0):
        """An audit of one transaction, its envelope changed."""
        c = example.Chain(extra=extra, content=content)
        c.leap([item])
        made = c.quants[1]["items"][0]
        auditor = audit.Audit()
        auditor.quant(c.quants[0]["header"], c.quants[0]["meta"])
        auditor.quant(c.quants[1]["header"], c.quants[1]["meta"])
        body = be(len(made["attributes"]), 4) + made["attributes"] + (made["salt"] or b"") + made["payload"]
        return lambda: auditor.transaction(change(made["envelope"]) + body)
    key = ed25519.public(bytes([5] * 32))
    yield "another chain's transaction", "envelope-chain", fed((b"x",), change=lambda e: put(e, 8, ZERO))
    yield "a skipped index", "envelope-index", fed((b"x",), change=lambda e: put(e, 40, be(1, 8)))
    yield "a late transaction", "envelope-time", fed((b"x",), change=lambda e: put(e, 48, b"\xff"))
    yield "a type without rules here", "audit-type", fed((b"x",), change=lambda e: put(e, 4, b"\3"))
    yield "a schema", "audit-type", fed((b"{}",), record(6, b"{}"), content=2)
    yield "unsalted in an erasable chain", "audit-salt", fed((b"x",), record(16, b"\1"))
    yield "nobody's transaction", "audit-author", fed((b"x",), record(7, key))
    for what, content, payload in [("no text", 1, b"\xff"), ("no JSON", 2, b"{"), ("a name twice", 2, b'{"a":1,"a":2}'), ("NaN", 2, b"NaN"), ("beyond a double", 2, b"[-1e400]"),
                                   ("half of a pair", 2, b'{"\\ud800":1}'), ("too deep", 2, b"[" * 129 + b"]" * 129)]:
        yield what, "audit-content", lambda content=content, payload=payload: audit.check_content(content, payload)
    yield from order_rules()
    yield from amend_rules()
    yield from erasure_rules()


def order_rules():
    c = example.Chain()
    c.leap([(b"a",)])
    envelope = c.quants[1]["items"][0]["envelope"]
    late = audited(c)
    late.inject_ms = example.START_MS + 999_999
    yield "an earlier time than before", "inject-order", lambda: late.transaction(envelope + bytes(4) + b"a")
    erased = put(envelope, 5, b"\1") + bytes(4)
    yield "an erased payload where nothing is erased", "audit-payload", lambda: audited(c).transaction(erased)
    author = bytes([5] * 32)
    authored = example.Chain(extra=record(7, ed25519.public(author)))
    message = b"qbc/tx/v1\n\0" + authored.id + bytes(10) + v.H(1, b"x")
    signed = record(3, ed25519.public(author)) + record(4, ed25519.sign(author, message))
    authored.leap([(b"x", signed)])
    without_id = authored.quants[1]["items"][0]["envelope"] + be(len(signed), 4) + signed + b"x"
    yield "an author without id", "audit-id", lambda: audited(authored).transaction(without_id)


def amend_rules():
    admin, author = bytes([5] * 32), bytes([6] * 32)
    good = record(11, be(500, 8))

    def export(items, meta=None):
        """The export of a chain whose one Quant seals (type, seed, id, payload) items."""
        c = example.Chain(extra=record(7, ed25519.public(author)) + record(8, ed25519.public(admin)))
        made = []
        for kind, seed, id_, payload in items:
            message = b"qbc/tx/v1\n\0" + c.id + bytes([kind, 0]) + be(0, 4) + be(len(id_), 4) + id_ + v.H(1, payload)
            attributes = (record(2, id_) if id_ else b"") + record(3, ed25519.public(seed)) + record(4, ed25519.sign(seed, message))
            made.append((payload, attributes, None, kind))
        c.leap(made, record(3, be(1, 8)) + (in_force(c, good) if meta is None else meta))
        return lambda: v.verify(c.export())

    def in_force(c, payload):
        after = v.records(c.constitution, set(range(1, 22))) | v.records(payload, {7, 9, 10, 11})
        return record(7, v.H(1, b"".join(record(t, after[t]) for t in sorted(after))) + be(1, 8))
    assert export([(1, admin, b"1", good)])()["amendments"] == 1, "a good change"
    yield "a change by an author", "audit-admin", export([(1, author, b"1", good)])
    yield "a change without an id", "audit-id", export([(1, admin, b"", good)])
    yield "a change twice", "audit-id", export([(1, admin, b"1", good), (1, admin, b"1", good)])
    yield "data by an admin", "audit-author", export([(0, admin, b"1", b"x")])
    for what, bad in [("nothing", b""), ("a limit of 0", record(11, bytes(8))), ("a short limit", record(9, b"1")),
                      ("authors alike", record(7, bytes(64))), ("a cut author", record(7, bytes(33)))]:
        yield f"a change of {what}", "constitution-change", export([(1, admin, b"1", bad)])
    yield "a change of the admins", "record-unknown", export([(1, admin, b"1", record(8, bytes(32)))])
    yield "a change that its Quant conceals", "constitution-in-force", export([(1, admin, b"1", good)], b"")
    yield "a Quant that tells of no change", "constitution-in-force", export([(0, author, b"1", b"x")])
    yield "another constitution in force", "constitution-in-force", export([(1, admin, b"1", good)], record(7, bytes(40)))
    yield "an author after his removal", "audit-author", export(
        [(1, admin, b"1", record(7, ed25519.public(admin))), (0, author, b"2", b"x")])


def erasure_rules():
    admin, author, salt = bytes([5] * 32), bytes([6] * 32), bytes([7] * 32)

    def export(of=lambda index, envelope: be(index, 8) + envelope + b"why", seed=admin, id_=b"1", erasable=True):
        """The export of a chain that seals erased data at index 0, and then its tombstone."""
        c = example.Chain(extra=record(8, ed25519.public(admin)) + (record(16, b"\1") if erasable else b""))
        c.leap([(b"x", b"", salt, 0) if erasable else (b"x",)])
        gone = c.quants[1]["items"][0]
        payload = of(0, v.H(1, gone["envelope"]))
        message = b"qbc/tx/v1\n\0" + c.id + bytes([2, 0]) + be(0, 4) + be(len(id_), 4) + id_ + v.H(1, payload)
        attributes = (record(2, id_) if id_ else b"") + record(3, ed25519.public(seed)) + record(4, ed25519.sign(seed, message))
        c.leap([(payload, attributes, None, 2)])
        if erasable:
            gone["salt"], gone["payload"] = b"", b""
        return lambda: v.verify(c.export())
    found = export()()
    assert (found["erased"], found["unexplained"]) == (1, 0), "a good erasure"
    younger = export(lambda index, envelope: be(index, 8) + envelope + b"r" * 1024)()
    assert younger["erased"] == 1, "the longest reason"
    yield "an erasure by an author", "audit-admin", export(seed=author)
    yield "an erasure without an id", "audit-id", export(id_=b"")
    yield "an erasure where nothing is erased", "erasure", export(erasable=False)
    for what, of in [("another envelope", lambda i, e: be(i, 8) + bytes(32) + b"why"), ("itself", lambda i, e: be(1, 8) + e + b"why"),
                     ("no reason", lambda i, e: be(i, 8) + e), ("a blank reason", lambda i, e: be(i, 8) + e + b" \n"),
                     ("a long reason", lambda i, e: be(i, 8) + e + bytes([65] * 1025)),
                     ("a reason that is no text", lambda i, e: be(i, 8) + e + b"\xff")]:
        yield f"an erasure of {what}", "erasure", export(of)


def audited(chain):
    auditor = audit.Audit()
    for quant in chain.quants[:2]:
        auditor.quant(quant["header"], quant["meta"])
    return auditor
