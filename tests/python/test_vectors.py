#!/usr/bin/env python3
"""Holds the independent verifier, docs/FORMAT.md and the vectors together: python3 test_vectors.py [VECTORS.json]

Everything that the vectors prove must hold, everything that was corrupted must be refused by a named check.
"""

import copy
import hashlib
import json
import pathlib
import subprocess
import sys
import tempfile
from collections import namedtuple

import audit
import ed25519
import example
import forms
import ml_dsa
import rules
import state
import verifier as v

HERE = pathlib.Path(__file__).resolve().parent
passed, failed = 0, 0
seen_names = set()


def check(condition, what):
    global passed, failed
    if condition:
        passed += 1
    else:
        failed += 1
        print(f"FAILED: {what}", file=sys.stderr)


def accepts(what, call, *args, **named):
    try:
        result = call(*args, **named)
        check(True, what)
        return result
    except v.Refused as refused:
        check(False, f"{what}: refused by {refused}")


def refuses(what, names, call, *args, **named):
    """The call must raise Refused by one of the names (any name, where none is given)."""
    try:
        call(*args, **named)
        check(False, f"{what}: accepted")
    except v.Refused as refused:
        seen_names.add(refused.check)
        check(not names or refused.check in names, f"{what}: refused by {refused}, not by {names}")


def flip(raw, bit):
    return raw[:bit // 8] + bytes([raw[bit // 8] ^ 1 << bit % 8]) + raw[bit // 8 + 1:]


def bad_paths(path):
    """Corruptions of a path: name, path."""
    yield "extended", path + [bytes(32)]
    if path:
        yield "cut at the end", path[:-1]
        yield "cut at the start", path[1:]
        yield "a bit", [flip(path[0], 77)] + path[1:]
        yield "the last bit", path[:-1] + [flip(path[-1], 255)]
    if len(path) > 1:
        yield "swapped", [path[1], path[0]] + path[2:]


def raw_path(path):
    return [bytes.fromhex(p) for p in path]


def signature_algorithm():
    seed = bytes.fromhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60")
    public = bytes.fromhex("d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a")
    signature = bytes.fromhex("e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25b"
                              "f5f0595bbe24655141438e7a100b")
    check(ed25519.public(seed) == public and ed25519.sign(seed, b"") == signature, "RFC 8032 section 7.1 test 1")
    check(ed25519.verify(public, b"", signature), "RFC 8032 test 1 verifies")
    for bit in range(0, 512, 37):
        check(not ed25519.verify(public, b"", flip(signature, bit)), f"signature bit {bit}")
    high = int.from_bytes(signature[32:], "little") + ed25519.L
    check(not ed25519.verify(public, b"", signature[:32] + high.to_bytes(32, "little")), "S above the group order")
    check(not ed25519.verify(bytes([1]) + bytes(31), b"", bytes([1]) + bytes(63)), "a key of small order")


def consistency(alg, first, second, path, first_root, second_root):
    """docs/FORMAT.md section 2, for 0 < first < second."""
    v.need(path, "consistency-path")
    path = ([first_root] if first & first - 1 == 0 else []) + path
    fn, sn = first - 1, second - 1
    while fn & 1:
        fn, sn = fn >> 1, sn >> 1
    fr = sr = path[0]
    for c in path[1:]:
        v.need(sn != 0, "consistency-path")
        if fn & 1 or fn == sn:
            fr, sr = v.H(alg, b"\1", c, fr), v.H(alg, b"\1", c, sr)
            while fn and not fn & 1:
                fn, sn = fn >> 1, sn >> 1
        else:
            sr = v.H(alg, b"\1", sr, c)
        fn, sn = fn >> 1, sn >> 1
    v.need(sn == 0, "consistency-path")
    v.need(fr == first_root, "consistency-first-root")
    v.need(sr == second_root, "consistency-second-root")


def trees(vectors):
    for tree in vectors["trees"]:
        alg, size, root = tree["alg"], tree["size"], bytes.fromhex(tree["root"])
        data = raw_path(tree["leaf_data"])
        leaves = [v.H(alg, b"\0", data[i % len(data)], i.to_bytes(8, "big")) for i in range(size)]
        check(forms.root_of(alg, leaves) == root, f"tree of {size}")
        for case in tree["inclusion"]:
            leaf, index, path = bytes.fromhex(case["leaf"]), case["index"], raw_path(case["path"])
            what = f"leaf {index} of {size}"
            accepts(what, v.inclusion, alg, leaf, index, size, path, root)
            for name, bad in bad_paths(path):
                refuses(f"{what}: {name}", (), v.inclusion, alg, leaf, index, size, bad, root)
            refuses(f"{what}: a bit of the leaf", (), v.inclusion, alg, flip(leaf, 9), index, size, path, root)
            refuses(f"{what}: index is size", (), v.inclusion, alg, leaf, size, size, path, root)
        for case in tree["consistency"]:
            first, old, path = case["first"], bytes.fromhex(case["first_root"]), raw_path(case["path"])
            if first == size:
                check(old == root and not path, f"consistency of {size} with itself")
                continue
            accepts(f"consistency {first} to {size}", consistency, alg, first, size, path, old, root)
            for name, bad in bad_paths(path):
                refuses(f"consistency {first} to {size}: {name}", (), consistency, alg, first, size, bad, old, root)


def headers_of(chain):
    return {h.height: h for h in (v.parse_header(bytes.fromhex(q["header"])) for q in chain["quants"])}


def chain(vector, family=None):
    """Every header, meta and transaction of a chain; gives the headers by height."""
    first = vector["quants"][0]
    g, constitution, _ = accepts("the first Quant", v.first_quant, bytes.fromhex(first["header"]), bytes.fromhex(first["meta"]))
    check(g.hash.hex() == vector["chain_id"], "the chain's id is the hash of its first Quant")
    headers, family = headers_of(vector), constitution.get(18, g.hash)
    for quant in vector["quants"]:
        raw, meta = bytes.fromhex(quant["header"]), bytes.fromhex(quant["meta"])
        header = v.parse_header(raw)
        check(header.hash.hex() == quant["quant_hash"], "quant_hash")
        accepts("meta", v.parse_meta, header, meta)
        refuses("meta with a flipped bit", ["meta-hash"], v.parse_meta, header, flip(meta, 0))
        refuses("header with a bit in its zero bytes", ["header-zero"], v.parse_header, flip(raw, 8 * 80))
        refuses("a cut header", ["header-length"], v.parse_header, raw[:-1])
        for t in quant["transactions"]:
            transaction(t, header, family)
    return headers


def transaction(t, header, family):
    t = {"attributes": "", "salt": None, "key": None, "id": None, "author": None, "signature": None} | t
    what = f"transaction {t['index']} of {header.id.hex()[:8]}"
    raw, path = bytes.fromhex(t["envelope"]), raw_path(t["path"])
    payload, attributes = bytes.fromhex(t["payload"]), bytes.fromhex(t["attributes"])
    salt = bytes.fromhex(t["salt"]) if t["salt"] else None
    e = v.parse_envelope(raw)
    accepts(what, v.quant_link, e, header, path)
    claimed = accepts(what, v.check_transaction, e, header.alg, payload, salt, attributes, family) or {}
    fields = {1: t["key"], 2: t["id"], 3: t["author"], 4: t["signature"]}
    check({k: x.hex() for k, x in claimed.items()} == {k: x for k, x in fields.items() if x}, f"{what}: attributes")
    for name, bad in bad_paths(path):
        refuses(f"{what}: path {name}", (), v.quant_link, e, header, bad)
    for bit in range(8 * 8, 128 * 8, 101):
        refuses(f"{what}: envelope bit {bit}", (), v.quant_link, v.parse_envelope(flip(raw, bit)), header, path)
    refuses(f"{what}: payload", (), v.check_transaction, e, header.alg, payload + b"x", salt, attributes, family)
    refuses(f"{what}: attributes", (), v.check_transaction, e, header.alg, payload, salt, attributes + b"\x80\0\0\0\0", family)
    refuses(f"{what}: salt", ["salt"], v.check_transaction, e, header.alg, payload, None if salt else bytes(32), attributes, family)
    if t["author"]:
        refuses(f"{what}: another family", ["author-signature"], v.check_transaction, e, header.alg, payload, salt, attributes, bytes(32))


def extensions(vector, headers):
    for case in vector["extensions"]:
        a, b, path = headers[case["old"]], headers[case["new"]], raw_path(case["path"])
        what = f"extension {a.height} to {b.height}"
        accepts(what, v.extension, a, b, path)
        for name, bad in bad_paths(path):
            refuses(f"{what}: {name}", (), v.extension, a, b, bad)
        other = a._replace(hist_root=bytes(32))
        refuses(f"{what}: another past", ["extension-old-root"], v.extension, other, b, path)
        refuses(f"{what}: backwards", ["height-order"], v.extension, b, a, path)
        refuses(f"{what}: final", ["final"], v.extension, a._replace(final=True), b, path)


def forks(vectors, main):
    fork, fork2 = chain(vectors["fork"]), chain(vectors["fork_of_fork"])
    extensions(vectors["fork"], main | fork)
    agreement = vectors["fork"]["agreement"]
    genesis = fork[min(fork)]
    path = raw_path(agreement["path"])
    accepts("agreement", v.extension, main[agreement["parent_height"]], genesis._replace(id=genesis.chain_id), path)
    refuses("agreement read as extension", (), v.extension, main[agreement["parent_height"]], genesis, path)
    lineages = {"fork": main | fork, "fork_of_fork": {**main, **{h: x for h, x in fork.items() if h <= 20}, **fork2}}
    for case in vectors["across"]:
        headers = lineages[case["chain"]]
        a, b = headers[case["old"]], headers[case["new"]]
        borders, path = [v.parse_header(bytes.fromhex(g)) for g in case["borders"]], raw_path(case["path"])
        what = f"across {case['chain']} {a.height} to {b.height}"
        accepts(what, v.history_link, a, b, path, borders)
        for name, bad in bad_paths(path):
            refuses(f"{what}: {name}", (), v.history_link, a, b, bad, borders)
        refuses(f"{what}: swapped borders", (), v.history_link, a, b, path, [*borders[1:], b])
        if a.id != b.id:
            refuses(f"{what}: no borders", ["lineage"], v.history_link, a, b, path)


def anchors(vectors):
    parent = chain(vectors["parent"])
    children = [chain(c) for c in vectors["children"]]
    for case in vectors["anchors"]:
        p, c = parent[case["parent_height"]], children[case["child"]][case["child_height"]]
        path, index = raw_path(case["path"]), case["index"]
        accepts("anchor", v.anchor_link, c, p, index, path)
        for name, bad in bad_paths(path):
            refuses(f"anchor: {name}", (), v.anchor_link, c, p, index, bad)
        refuses("anchor: index", (), v.anchor_link, c, p, p.anchor_count, path)
        refuses("anchor: another child", (), v.anchor_link, c._replace(id=bytes(32)), p, index, path)


def signatures(vectors):
    cluster, key = bytes.fromhex(vectors["cluster_id"]), bytes.fromhex(vectors["public_key"])
    for case in vectors["heads"]:
        h = v.parse_header(bytes.fromhex(case["header"]))
        message = b"".join([b"qbc/quant/v1\n\0", cluster, case["node_id"].to_bytes(8, "big"), case["time_s"].to_bytes(8, "big"), h.id,
                            h.height.to_bytes(8, "big"), h.hash])
        check(message.hex() == case["message"], "head message")
        signature = bytes.fromhex(case["signature"])
        check(ed25519.verify(key, message, signature), "head signature")
        for bit in (0, 100, 255, 256, 400, 511):
            check(not ed25519.verify(key, message, flip(signature, bit)), "head signature with a flipped bit")
            check(not ed25519.verify(key, flip(message, bit), signature), "head message with a flipped bit")


def record_fields(raw):
    return raw[0], raw[1:33], int.from_bytes(raw[33:41], "big"), raw[41:105], raw[105:]


def sealers(vectors):
    """Certificates, quorums, authority changes, receipts and bundles, made by another hand."""
    for vector in vectors["chains"]:
        headers = chain(vector)
        quants = [(bytes.fromhex(q["header"]), bytes.fromhex(q["meta"])) for q in vector["quants"]]
        for case in vector["heads"]:
            b = headers[case["height"]]
            signers = [record_fields(bytes.fromhex(s["record"])) for s in case["signatures"]]
            changes = [(*quants[c["height"]], raw_path(c["path"])) for c in case["authority_changes"]]
            what = f"signed head {b.height} of {b.id.hex()[:8]}"
            nodes = accepts(what, v.check_head, b, quants[0], signers, changes, [b])
            check(nodes == [s["node_id"] for s in case["signatures"]], f"{what}: its nodes")
            peaks = raw_path(case["peaks"])
            check(len(peaks) == bin(b.height).count("1") and v.bag(b.alg, peaks[::-1]) == b.hist_root, f"{what}: its peaks")
            refuses(f"{what}: one signature less", ["quorum-count"], v.check_head, b, quants[0], signers[1:], changes, [b])
            refuses(f"{what}: one twice", ["quorum-node"], v.check_head, b, quants[0], signers + signers[:1], changes, [b])
            if changes:
                refuses(f"{what}: without its changes", (), v.check_head, b, quants[0], signers, [], [b])
                refuses(f"{what}: without the first change", (), v.check_head, b, quants[0], signers, changes[1:], [b])
            for bit in range(0, 8 * len(bytes.fromhex(case["signatures"][0]["record"])), 131):
                bad = record_fields(flip(bytes.fromhex(case["signatures"][0]["record"]), bit))
                refuses(f"{what}: bit {bit}", (), v.check_head, b, quants[0], [bad, *signers[1:]], changes, [b])
        for case in vector["receipts"]:
            record = record_fields(bytes.fromhex(case["record"]))
            message = b"".join([b"qbc/ack/v1\n\0", record[4][:24], bytes.fromhex(vector["chain_id"]), case["first_index"].to_bytes(8, "big"),
                                case["count"].to_bytes(4, "big"), bytes.fromhex(case["root"]), case["time_s"].to_bytes(8, "big")])
            check(message.hex() == case["message"] and ed25519.verify(record[4][29:61], message, record[3]), "receipt")


def work(vectors):
    """The difficulty that follows a target: the rule alone, and chains that were mined."""
    rule = namedtuple("First", "height time_ms")
    for case in vectors["retarget"]:
        times, record = [int(t) for t in case["times"]], case["bits_min"].to_bytes(2, "big") + int(case["target_ms"]).to_bytes(8, "big")
        asked = audit.Work({12: record}, rule(0, times[0]))
        for height, bits in enumerate(case["bits"], 1):
            check(asked.bits == bits, f"bits of height {height}, minimum {case['bits_min']}, target {case['target_ms']}")
            asked.follow(height, times[height])
    for vector in vectors["work"]:
        chain(vector)
        accepts(f"the audit of a mined chain, hash {vector['alg']}", feed, audit.Audit(), vector["quants"])
        for height in range(1, len(vector["quants"])):
            header = bytes.fromhex(vector["quants"][height]["header"])
            bad = [dict(q) for q in vector["quants"]]
            bad[height]["header"] = (header[:6] + (header[7] - 1).to_bytes(2, "big") + header[8:]).hex()
            refuses(f"a bit less at height {height}", (), feed, audit.Audit(), bad)


def feed(auditor, quants):
    for q in quants:
        auditor.quant(bytes.fromhex(q["header"]), bytes.fromhex(q["meta"]))
        for t in q["transactions"]:
            auditor.transaction(bytes.fromhex(t["envelope"]) + bytes(4) + bytes.fromhex(t["payload"]))
    auditor.seal()
    return auditor


def file_of(proof):
    return json.dumps(proof).encode()


def trusted(raw, chain_id):
    verdict = v.verify(raw, trust_chain=chain_id)
    v.need(verdict["anchored"], "not-anchored")
    return verdict


def amended(vector):
    """A chain whose constitution is changed in its course: audited as an export, and each constitution by itself."""
    frames = [audit.MAGIC]
    for quant in vector["quants"]:
        frames.append(example.frame(1, bytes.fromhex(quant["header"] + quant["meta"])))
        for item in quant["transactions"]:
            envelope, attributes, payload = (bytes.fromhex(item[k]) for k in ("envelope", "attributes", "payload"))
            frames.append(example.frame(2, envelope + len(attributes).to_bytes(4, "big") + attributes + payload))
    count = sum(len(q["transactions"]) for q in vector["quants"])
    frames.append(example.frame(4, len(vector["quants"]).to_bytes(8, "big") + count.to_bytes(8, "big")))
    head = bytes.fromhex(vector["quants"][-1]["quant_hash"])
    verdict = accepts("an amended chain", v.verify, b"".join(frames), trust_head=head)
    check(verdict["amendments"] == len(vector["changes"]) and verdict["signed"] == count, "what the amended chain holds")
    for at in range(8, len(b"".join(frames)), 53):
        refuses(f"an amended chain with byte {at} changed", (), v.verify, flip(b"".join(frames), 8 * at + at % 8))
    for change in vector["changes"]:
        check(v.H(vector["alg"], bytes.fromhex(change["constitution"])).hex() == change["hash"], "hash of a constitution in force")


def proof_files():
    c = example.example()
    proof = c.prove(1, 2)
    raw = file_of(proof)
    verdict = accepts("the example", trusted, raw, c.id)
    check((verdict["payload"], verdict["key"], verdict["id"]) == (b"second", b"k", b"i-1"), "what the example shows")
    accepts("trust by head hash", v.need, v.verify(raw, trust_head=example.leaf(c.quants[2]["header"]))["anchored"], "not-anchored")
    refuses("another chain's trust", ["not-anchored"], trusted, raw, bytes(32))
    accepts("extension", trusted, file_of(c.extend(1, 2)), c.id)
    accepts("extension of a head by itself", trusted, file_of(c.extend(2, 2)), c.id)
    digits = [i for i, byte in enumerate(raw) if byte in b"0123456789abcdef" and raw[i - 1] in b"0123456789abcdef"]
    for at in digits[::19]:
        bad = raw[:at] + (b"1" if raw[at:at + 1] == b"0" else b"0") + raw[at + 1:]
        refuses(f"the example with byte {at} changed", (), trusted, bad, c.id)
    for cut in range(1, len(raw), 499):
        refuses(f"the example cut at {cut}", (), trusted, raw[:cut], c.id)
    for name, change in strictness():
        bad = copy.deepcopy(proof)
        change(bad)
        refuses(f"strictness: {name}", [name.split(":")[0]], trusted, file_of(bad), c.id)
    refuses("duplicate name", ["duplicate-name"], trusted, raw.replace(b'"qbc_proof"', b'"qbc_proof": 1, "qbc_proof"'), c.id)
    for text in (b"1.0", b"1e0"):
        refuses("a fraction", ["integer"], trusted, raw.replace(b'"alg": 1', b'"alg": ' + text), c.id)
    for text in (b"", b"\xff", raw + b"x", b"[" * 100000, b"[" * 128 + b"]" * 128):
        refuses("no JSON", ["json"], trusted, text, c.id)
    text = (HERE / "../../docs/FORMAT.md").read_text(encoding="utf-8")
    for name, block in example.blocks().items():
        check(f"<!-- example-{name} -->\n{block}" in text, f"docs/FORMAT.md shows the example's {name}")


def strictness():
    """Changes to the example's proof, each named by the check that must refuse it."""
    yield "unknown-field: at the top", lambda p: p.update(note="x")
    yield "unknown-field: in a step", lambda p: p["steps"][0].update(index=1)
    yield "unknown-field: old in an inclusion", lambda p: p.update(old="00")
    yield "field: steps missing", lambda p: p.pop("steps")
    yield "field: payload null", lambda p: p["transaction"].update(payload=None)
    yield "field: number for bytes", lambda p: p["transaction"].update(payload=7)
    yield "hex: upper case", lambda p: p["transaction"].update(payload=p["transaction"]["payload"].upper())
    yield "hex: odd", lambda p: p["transaction"].update(payload="0")
    yield "hex: short hash", lambda p: p["steps"][0].update(path=["00"])
    yield "integer: above 2^53", lambda p: p["head"]["signatures"][0].update(time_s=(1 << 53) + 1)
    yield "integer: leading zero", lambda p: p["head"]["signatures"][0].update(time_s="01")
    yield "version: 2", lambda p: p.update(qbc_proof=2)
    yield "grammar: none", lambda p: p.update(steps=[])
    yield "grammar: history first", lambda p: p["steps"].pop(0)
    yield "grammar: history twice", lambda p: p["steps"].append(p["steps"][1])
    yield "field: a payload as a link", lambda p: p["steps"].insert(0, {"link": "payload", "header": "", "path": []})
    yield "payload-hash: another payload", lambda p: p["transaction"].update(payload="000000000000")
    yield "payload-length: a longer payload", lambda p: p["transaction"].update(payload="00" * 7)
    yield "salt: an unsalted payload with salt", lambda p: p["transaction"].update(salt="00" * 32)
    yield "not-anchored: no signature", lambda p: p["head"].update(signatures=[])
    yield "quorum-node: one node twice", lambda p: p["head"]["signatures"].append(p["head"]["signatures"][0])


def forgeries():
    """What a liar with keys of his own, or with the real node key, can make."""
    c = example.example()
    refuses("an uncertified key", ["certificate-threshold"], trusted, file_of({**c.prove(1, 2), "head": c.head(2, signers=())}), c.id)
    refuses("an expired certificate", ["certificate-time"], trusted, file_of({**c.prove(1, 2), "head": c.head(2, until_s=5)}), c.id)
    refuses("a signature on another head", ["head-signature"], trusted, file_of({**c.prove(1, 2), "head": c.head(1)}), c.id)
    other = example.Chain(name="other", roots=(bytes([9] * 32),))
    other.leap([(b"first",)])
    refuses("another chain under one name", ["not-anchored"], trusted, file_of(other.prove(0, 1)), c.id)
    mixed = c.prove(1, 2)
    mixed["head"]["genesis"] = other.head(0)["genesis"]
    refuses("another chain's genesis", ["genesis-id"], trusted, file_of(mixed), c.id)
    rewritten = example.example()
    rewritten.quants[1:] = []
    rewritten.count = 0
    rewritten.leap([(b"FIRST",), (b"second", example.record(1, b"k") + example.record(2, b"i-1"))])
    rewritten.leap([(b"third",)])
    accepts("a rewritten history is consistent in itself", trusted, file_of(rewritten.prove(1, 2)), c.id)
    lie = rewritten.extend(1, 2)
    lie["old"] = c.quants[1]["header"].hex()
    refuses("a rewritten history as an extension", ["neighbour-hash"], trusted, file_of(lie), c.id)
    missing = example.Chain(quorum=2)
    missing.leap([(b"x",)])
    refuses("one signature of two", ["quorum-count"], trusted, file_of(missing.prove(0, 1)), missing.id)


def post_quantum(vectors):
    """Keys, signatures and records of ML-DSA-44, and heads with both algorithms."""
    rfc = vectors["rfc_9881"]
    check(hashlib.sha3_256(ml_dsa.public(bytes.fromhex(rfc["seed"]))).hexdigest() == rfc["public_sha3_256"], "the key of RFC 9881")
    theirs = vectors["wycheproof"]
    signature = ml_dsa.sign(bytes.fromhex(theirs["seed"]), bytes.fromhex(theirs["message"]))
    check(hashlib.sha3_256(signature).hexdigest() == theirs["signature_sha3_256"], "the signature of Wycheproof")
    for case in vectors["signatures"]:
        seed, public, message, signature = (bytes.fromhex(case[name]) for name in ("seed", "public", "message", "signature"))
        check(ml_dsa.public(seed) == public and ml_dsa.sign(seed, message) == signature, "an ML-DSA-44 key and signature")
        check(v.holds(2, public, message, signature), "an ML-DSA-44 signature verifies")
        check(not v.holds(2, public, message + b"x", signature), "an ML-DSA-44 signature over another message")
    for case in vectors["malformed"]:
        parts = [bytes.fromhex(case[name]) for name in ("public", "message", "signature")]
        refuses(f"ML-DSA-44: {case['what']}", [case["check"]], v.holds, 2, *parts)
    for case in vectors["proofs"]:
        raw = json.dumps(case["proof"]).encode()
        for algs, name in case["policies"].items():
            policy, trust = algs.split(",") if algs else [], bytes.fromhex(case["chain_id"])
            if name:
                refuses(f"{case['what']}, {algs}", [name], v.verify, raw, trust, None, policy)
            else:
                check(accepts(f"{case['what']}, {algs}", v.verify, raw, trust, None, policy)["anchored"], f"{case['what']}, {algs}")


def policies():
    """A head with both algorithms, as a proof and as an export, under each policy."""
    c = example.example()
    proof = file_of({**c.prove(1, 2), "head": c.head(2, algs=(1, 2))})
    for raw in (proof, c.export(algs=(1, 2))):
        for require in ([], ["ed25519"], ["ml-dsa-44"], ["ed25519", "ml-dsa-44"]):
            verdict = accepts(f"both algorithms, {require}", v.verify, raw, c.id, None, require)
            check(verdict["anchored"].endswith("signed by node 1"), "one node, with two signatures")
    export = c.export(algs=(1, 2))
    for at in range(len(export) - 4000, len(export), 61):
        refuses(f"export of both with byte {at} changed", (), trusted, flip(export, 8 * at + at % 8), c.id)
    two = example.Chain(quorum=2)
    two.leap([(b"x",)])
    head = two.head(1, algs=(1, 2))
    head["signatures"] += [two.signature(1, node_id=2, seed=bytes([8] * 32), alg=alg) for alg in (1, 2)]
    for require in ([], ["ed25519", "ml-dsa-44"]):
        accepts(f"two nodes with both, {require}", v.verify, file_of({**two.prove(0, 1), "head": head}), two.id, None, require)


def rewritten_past():
    """A past changed below an old header that is kept: inclusion holds, extension must not."""
    leaves = [v.H(1, b"\0", bytes([i])) for i in range(40)]
    for old in range(1, 39):
        forged = [v.H(1, b"\0", b"evil")] + leaves[1:]
        path, root = example.path(old, forged), example.tree(forged)
        left = accepts("plain inclusion", v.inclusion, 1, leaves[old], old, 40, path, root)
        check(v.bag(1, left) != example.tree(leaves[:old]), f"the past of {old} is seen to differ")


def exports():
    c = example.example()
    raw = c.export()
    verdict = accepts("export", trusted, raw, c.id)
    check(verdict["transactions"] == 3 and verdict["head"].height == 2, "what the export holds")
    for at in range(0, len(raw), 7):
        refuses(f"export with byte {at} changed", (), trusted, flip(raw, 8 * at + at % 8), c.id)
        refuses(f"export cut at {at}", (), trusted, raw[:at], c.id)
    refuses("bytes after the end", ["export-end"], trusted, raw + b"\0", c.id)
    c.quants[2]["items"].clear()
    refuses("a transaction left out", ["audit-count"], trusted, c.export(), c.id)
    check(audit.MAGIC == b"QBCEXP1\n", "magic")


def states(vectors):
    """State roots and proofs, made by another hand."""
    for vector in vectors["states"]:
        alg, root = vector["alg"], bytes.fromhex(vector["root"])
        known = {bytes.fromhex(e["state_key"]): bytes.fromhex(e["value"]) for e in vector["entries"]}
        what = f"state of {len(known)}"
        check(state.root_of(alg, known) == root, what)
        for case in vector["proofs"]:
            key, raw = bytes.fromhex(case["state_key"]), bytes.fromhex(case["proof"])
            value = accepts(f"{what}: {key.hex()}", state.verify, alg, root, key, raw)
            check((value.hex() if value else None) == case["value"] and value == known.get(key), f"{what}: the value of {key.hex()}")
            for bit in range(0, len(raw) * 8, 61):
                refuses(f"{what}: bit {bit}", (), state.verify, alg, root, key, flip(raw, bit))
            if value is not None:
                refuses(f"{what}: another key", (), state.verify, alg, root, key + b"x", raw)
            refuses(f"{what}: another root", ["state-root"], state.verify, alg, bytes(32), key, raw)
        for case in vector["refused"]:
            raw = [bytes.fromhex(case[name]) for name in ("root", "state_key", "proof")]
            refuses(f"{what}: {case['what']}", [case["check"]], state.verify, alg, *raw)


def super_log(vectors):
    """Proofs into the log of all chains, and the signed note of a checkpoint."""
    chain_id = bytes.fromhex(vectors["chain_id"])
    for case in vectors["good"]:
        raw = file_of(case["proof"])
        root = bytes.fromhex(case["proof"]["log"]["checkpoint"]["root"])
        verdict = accepts(case["name"], v.verify, raw, trust_chain=chain_id)
        check(bool(verdict["anchored"]) == case["by_chain"], f"{case['name']}: anchored by the chain")
        check(v.verify(raw, trust_head=root)["anchored"], f"{case['name']}: anchored by the root")
        check(not v.verify(raw, trust_head=bytes(32))["anchored"], f"{case['name']}: anchored by another root")
    for case in vectors["bad"]:
        refuses(case["name"], [case["check"]], v.verify, file_of(case["proof"]), trust_chain=chain_id)
    quorum = vectors["quorum"]
    verdict = accepts("a quorum", v.verify, file_of(quorum["proof"]), trust_chain=bytes.fromhex(quorum["chain_id"]))
    check(not verdict["anchored"], "a checkpoint alone is not the word of a quorum")


def wholes(vectors):
    """Proofs of the whole of a chain that is split."""
    def proof(value):
        if isinstance(value, dict):
            return {name: proof(v) for name, v in value.items()}
        if isinstance(value, list):
            return [proof(v) for v in value]
        return vectors["strings"][int(value[1:])] if isinstance(value, str) and value.startswith("$") else value
    chain_id = bytes.fromhex(vectors["chain_id"])
    for case in vectors["good"]:
        raw = file_of(proof(case["proof"]))
        verdict = accepts(case["name"], trusted, raw, chain_id)
        below = [(name, count) for name, count, _, _ in case["below"]]
        check((verdict["whole"], verdict["subchains"]) == (case["total"], below), f"{case['name']}: what it holds")
        digits = [i for i, byte in enumerate(raw) if byte in b"0123456789abcdef" and raw[i - 1] in b"0123456789abcdef"]
        for at in digits[::197]:
            broken = raw[:at] + (b"1" if raw[at:at + 1] == b"0" else b"0") + raw[at + 1:]
            refuses(f"{case['name']} with byte {at} changed", (), trusted, broken, chain_id)
    for case in vectors["bad"]:
        refuses(case["name"], [case["check"]], trusted, file_of(proof(case["proof"])), chain_id)


def command_line():
    """Exit codes of the verifier as a program: 0, and 7 with the name of the check on stderr."""
    c = example.example()
    with tempfile.TemporaryDirectory() as folder:
        proof, export = pathlib.Path(folder, "proof.json"), pathlib.Path(folder, "chain.qbc")
        proof.write_bytes(file_of(c.prove(1, 2)))
        export.write_bytes(c.export())
        head = example.leaf(c.quants[2]["header"]).hex()
        trust, cases = ["--trust-chain", c.id.hex()], []
        for file in (proof, export):
            cases += [(file, trust, 0, ""), (file, ["--trust-head", head], 0, ""), (file, ["--self-consistent"], 0, ""),
                      (file, [], 7, "not-anchored"), (file, ["--trust-chain", head], 7, "not-anchored"),
                      (file, [*trust, "--require-alg", "ed25519"], 0, ""),
                      (file, [*trust, "--require-alg", "ed25519,ml-dsa-44"], 7, "signature-required")]
        broken = pathlib.Path(folder, "broken")
        broken.write_bytes(c.export()[:-1])
        for file, options, code, text in [*cases, (broken, trust, 7, "export-end")]:
            done = subprocess.run([sys.executable, HERE / "verifier.py", file, *options], capture_output=True, text=True, check=False)
            check(done.returncode == code and text in done.stderr, f"verifier.py {options}: {done.returncode} {done.stderr}")


def names_are_documented():
    text = (HERE / "../../docs/FORMAT.md").read_text(encoding="utf-8")
    listed = text[text.index("## 18. "):text.index("## 19. ")]
    for name in sorted(seen_names):
        check(f"`{name}`" in listed, f"check name {name} stands in section 18")


def main(argv):
    path = pathlib.Path(argv[1]) if len(argv) > 1 else HERE / "../vectors/format-v1.json"
    vectors = json.loads(path.read_text(encoding="utf-8"))
    signature_algorithm()
    trees(vectors)
    mains = [chain(c) for c in vectors["chains"]]
    for vector, headers in zip(vectors["chains"], mains):
        extensions(vector, headers)
    chain(vectors["signed"])
    chain(vectors["work"])
    forks(vectors, mains[0])
    anchors(vectors["anchors"])
    signatures(vectors["signatures"])
    more = path.with_name("format-v1-more.json")
    if more.exists():
        more = json.loads(more.read_text(encoding="utf-8"))
        sealers(more)
        amended(more["amended"])
        work(more)
    more = path.with_name("format-v1-state.json")
    if more.exists():
        states(json.loads(more.read_text(encoding="utf-8")))
    more = path.with_name("format-v1-mldsa.json")
    if more.exists():
        post_quantum(json.loads(more.read_text(encoding="utf-8")))
    more = path.with_name("format-v1-super.json")
    if more.exists():
        super_log(json.loads(more.read_text(encoding="utf-8")))
    more = path.with_name("format-v1-whole.json")
    if more.exists():
        wholes(json.loads(more.read_text(encoding="utf-8")))
    proof_files()
    forgeries()
    policies()
    rewritten_past()
    exports()
    for what, name, call in rules.cases():
        refuses(f"rule: {what}", [name], call)
    command_line()
    names_are_documented()
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
