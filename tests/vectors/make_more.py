#!/usr/bin/env python3
"""Makes format-v1-more.json: what format-v1.json lacks. Independent of the Rust code; hashlib only.

Certificates, head signatures with a quorum, authority changes, receipts and newcomer's bundles, for both hashes; work
whose difficulty follows a target.
Run it beside the file: python3 make_more.py > format-v1-more.json
"""
import hashlib
import json

# ---- Ed25519 (RFC 8032), small and slow
P = 2**255 - 19
L = 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, P - 2, P) % P


def recover_x(y, odd):
    square = (y * y - 1) * pow(D * y * y + 1, P - 2, P) % P
    x = pow(square, (P + 3) // 8, P)
    if (x * x - square) % P:
        x = x * pow(2, (P - 1) // 4, P) % P
    return P - x if x % 2 != odd else x


BASE_Y = 4 * pow(5, P - 2, P) % P
BASE = (recover_x(BASE_Y, 0), BASE_Y, 1, recover_x(BASE_Y, 0) * BASE_Y % P)


def add(a, b):
    m = (a[1] - a[0]) * (b[1] - b[0]) % P
    n = (a[1] + a[0]) * (b[1] + b[0]) % P
    t = 2 * D * a[3] * b[3] % P
    z = 2 * a[2] * b[2] % P
    e, f, g, h = n - m, z - t, z + t, n + m
    return (e * f % P, g * h % P, f * g % P, e * h % P)


def times(scalar, point):
    result = (0, 1, 1, 0)
    while scalar:
        if scalar & 1:
            result = add(result, point)
        point = add(point, point)
        scalar >>= 1
    return result


def encode(point):
    inverse = pow(point[2], P - 2, P)
    x, y = point[0] * inverse % P, point[1] * inverse % P
    return (y | (x & 1) << 255).to_bytes(32, "little")


def expand(seed):
    digest = hashlib.sha512(seed).digest()
    scalar = int.from_bytes(digest[:32], "little") & ~7 & (1 << 255) - 1 | 1 << 254
    return scalar & ((1 << 255) - 1), digest[32:]


def number(*parts):
    return int.from_bytes(hashlib.sha512(b"".join(parts)).digest(), "little") % L


def public(seed):
    return encode(times(expand(seed)[0], BASE))


def sign(seed, message):
    scalar, prefix = expand(seed)
    r = number(prefix, message)
    commitment = encode(times(r, BASE))
    challenge = number(commitment, public(seed), message)
    return commitment + ((r + challenge * scalar) % L).to_bytes(32, "little")


# ---- trees (RFC 9162)
def hasher(alg):
    return {1: hashlib.sha3_256, 2: hashlib.sha256}[alg]


def h(alg, *parts):
    return hasher(alg)(b"".join(parts)).digest()


def split(n):
    k = 1
    while k * 2 < n:
        k *= 2
    return k


def root(alg, leaves):
    if not leaves:
        return h(alg)
    if len(leaves) == 1:
        return leaves[0]
    k = split(len(leaves))
    return h(alg, b"\1", root(alg, leaves[:k]), root(alg, leaves[k:]))


def path(alg, index, leaves):
    if len(leaves) == 1:
        return []
    k = split(len(leaves))
    if index < k:
        return path(alg, index, leaves[:k]) + [root(alg, leaves[k:])]
    return path(alg, index - k, leaves[k:]) + [root(alg, leaves[:k])]


def peaks(alg, leaves):
    result, start = [], 0
    for bit in reversed(range(64)):
        if len(leaves) >> bit & 1:
            result.append(root(alg, leaves[start:start + (1 << bit)]))
            start += 1 << bit
    return result


# ---- bytes
def u(bits, value):
    return value.to_bytes(bits // 8, "big")


def record(tag, value):
    return u(8, tag) + u(32, len(value)) + value


def seed(name):
    return hashlib.sha256(("qbc more vectors: " + name).encode()).digest()


def authority(threshold, names):
    return {"threshold": threshold, "names": names, "bytes": u(8, threshold) + b"".join(public(seed(n)) for n in names)}


def shown(a):
    return {"threshold": a["threshold"], "roots": [public(seed(n)).hex() for n in a["names"]]}


def root_signatures(a, signers, message):
    each = [u(8, a["names"].index(n)) + sign(seed(n), message) for n in signers]
    return u(8, len(each)) + b"".join(each)


CLUSTER = hashlib.sha256(b"qbc more vectors: cluster").digest()[:16]
AUTHORITIES = [
    authority(2, ["root a", "root b", "root c"]),
    authority(1, ["root d", "root e"]),
    authority(3, ["root e", "root f", "root g", "root h"]),
]
SIGNERS = [["root c", "root a"], ["root e"], ["root h", "root e", "root f"]]
NODES = {1: "node 1", 2: "node 2", 7: "node 7"}
START_S = 1763600000


def certificate(node_id, seq):
    key = public(seed(NODES[node_id]))
    fields = CLUSTER + u(64, node_id) + u(8, 1) + u(32, 32) + key + u(64, START_S) + u(64, START_S + 86400)
    message = b"qbc/node/v1\n\0" + fields
    return fields + root_signatures(AUTHORITIES[seq], SIGNERS[seq], message), message


def signature_record(node_id, seq, time_s, message):
    key = public(seed(NODES[node_id]))
    head = u(8, 1) + hashlib.sha3_256(key).digest() + u(64, time_s)
    return head + sign(seed(NODES[node_id]), message) + certificate(node_id, seq)[0]


def envelope(alg, chain_id, index, inject_ms, payload):
    return (b"QTX1" + bytes(4) + chain_id + u(64, index) + u(64, inject_ms) + u(64, len(payload))
            + h(alg, payload) + bytes(32))


def header(alg, flags, chain_id, height, time_ms, tx_start, leaves, meta, prev, history, pow_bits=0, nonce=0):
    empty = h(alg)
    return (b"QHD1" + u(8, alg) + u(8, flags) + u(16, pow_bits) + chain_id + u(64, height) + u(64, time_ms)
            + u(64, tx_start) + u(32, len(leaves)) + u(32, len(meta)) + u(32, 0) + bytes(12) + prev
            + root(alg, leaves) + root(alg, history) + empty + h(alg, meta) + u(64, nonce))


def constitution(alg):
    return b"".join([
        record(1, b"quorum-%d" % alg), record(2, u(64, START_S * 1000)), record(3, seed("salt")[:16]),
        record(4, AUTHORITIES[0]["bytes"]), record(5, u(8, 0)), record(13, u(8, 2)), record(21, CLUSTER)])


def change(alg, chain_id, seq):
    old, new = AUTHORITIES[seq - 1], AUTHORITIES[seq]
    message = b"qbc/root/v1\n\0" + chain_id + u(32, seq) + h(alg, old["bytes"]) + h(alg, new["bytes"])
    value = u(32, seq) + new["bytes"] + root_signatures(old, SIGNERS[seq - 1], message)
    return {"seq": seq, "old": shown(old), "new": shown(new), "message": message.hex(), "value": value.hex()}


CHANGES_AT = {2: 1, 5: 2}


def make_chain(alg):
    rules = constitution(alg)
    meta = record(1, rules) + record(7, h(alg, rules) + u(64, 0))
    first = header(alg, 1, bytes(32), 0, START_S * 1000, 0, [], meta, bytes(32), [])
    history = [h(alg, b"\0", first)]
    chain_id = history[0]
    quants = [{"header": first.hex(), "meta": meta.hex(), "quant_hash": chain_id.hex(), "transactions": []}]
    changes, index = [], 0
    for height in range(1, 9):
        time_ms = START_S * 1000 + height * 10
        payloads = [b"payload %d of Quant %d" % (i, height) for i in range(height % 4)]
        envelopes = [envelope(alg, chain_id, index + i, time_ms, p) for i, p in enumerate(payloads)]
        leaves = [h(alg, b"\0", e) for e in envelopes]
        meta = record(3, u(64, 1))
        if height in CHANGES_AT:
            changes.append(change(alg, chain_id, CHANGES_AT[height]) | {"height": height})
            meta += record(6, bytes.fromhex(changes[-1]["value"]))
        block = header(alg, 0, chain_id, height, time_ms, index, leaves, meta, history[-1], history)
        quants.append({
            "header": block.hex(), "meta": meta.hex(), "quant_hash": h(alg, b"\0", block).hex(),
            "transactions": [
                {"index": index + i, "payload": p.hex(), "envelope": e.hex(),
                 "path": [x.hex() for x in path(alg, i, leaves)]}
                for i, (p, e) in enumerate(zip(payloads, envelopes))]})
        history.append(h(alg, b"\0", block))
        index += len(payloads)
    return {"alg": alg, "chain_id": chain_id.hex(), "quants": quants, "authority_changes": changes}, history


# ---- work
def bits_of(bits_min, target_ms, times):
    """The bits of the headers 1, 2, ... of a chain whose first headers, from height 0 on, have these times."""
    result, bits = [], bits_min
    for height in range(1, len(times)):
        if target_ms and height > 8 and (height - 1) % 8 == 0:
            span, expected = times[height - 1] - times[height - 9], 8 * target_ms
            if 3 * span <= expected:
                bits += 2
            elif 3 * span <= 2 * expected:
                bits += 1
            elif span >= 3 * expected:
                bits -= 2
            elif 2 * span >= 3 * expected:
                bits -= 1
            bits = max(min(bits, 255), bits_min)
        result.append(bits)
    return result


def times_of(windows, first=START_S * 1000):
    """Times from height 0 on, in windows of eight equal steps."""
    times = [first]
    for step in windows:
        times += [times[-1] + step * (i + 1) for i in range(8)]
    return times + [times[-1]]


def retarget_cases():
    up, down, most = [0, 5, 6, 7, 10, 11, 13, 16], [20, 24, 29, 30, 31, 40, 1000], (1 << 64) - 1
    return [
        (10, 20, times_of([3, 9, 20, 33, 70, 20])), (10, 20, times_of(up + down)), (1, 1000, times_of([1] * 12 + [5000] * 8)),
        (250, 7, times_of([0] * 6)), (256, 7, times_of([0, 100])), (16, 0, times_of([0, 5000, 3])),
        (3, most, times_of([1, 1 << 40, 9])), (3, most // 8, [0] * 8 + [most // 3 + 1, most // 3 + 1]),
        (40, 3, [0] * 8 + [8] + [8] * 7 + [17] + [17] * 7 + [33] + [33] * 7 + [50] + [50] * 7 + [85] + [85] * 7 + [121] + [121] * 8)]


def make_work_chain(alg):
    """Mined for real: bits from 4 up to 8 and down again."""
    rules = b"".join([
        record(1, b"work-%d" % alg), record(2, u(64, START_S * 1000)), record(3, seed("salt")[:16]),
        record(4, AUTHORITIES[0]["bytes"]), record(5, u(8, 0)), record(12, u(16, 4) + u(64, 30)), record(21, CLUSTER)])
    meta = record(1, rules) + record(7, h(alg, rules) + u(64, 0))
    first = header(alg, 1, bytes(32), 0, START_S * 1000, 0, [], meta, bytes(32), [])
    times = times_of([3, 2, 30, 50, 90])
    history, quants = [h(alg, b"\0", first)], [{"header": first.hex(), "meta": meta.hex(), "transactions": []}]
    chain_id, meta = history[0], record(3, u(64, 1))
    quants[0]["quant_hash"] = chain_id.hex()
    for height, bits in enumerate(bits_of(4, 30, times), 1):
        payload = b"payload %d" % (height - 1)
        one = envelope(alg, chain_id, height - 1, times[height], payload)
        fields, nonce = (alg, 0, chain_id, height, times[height], height - 1, [h(alg, b"\0", one)], meta, history[-1], history), 0
        block = header(*fields, bits, nonce)
        while int.from_bytes(h(alg, b"\0", block), "big") >> (256 - bits):
            nonce += 1
            block = block[:-8] + u(64, nonce)
        history.append(h(alg, b"\0", block))
        quants.append({"header": block.hex(), "meta": meta.hex(), "quant_hash": history[-1].hex(), "transactions": [
            {"index": height - 1, "payload": payload.hex(), "envelope": one.hex(), "path": []}]})
    return {"alg": alg, "chain_id": chain_id.hex(), "quants": quants}


def seq_for(height):
    return max([0] + [seq for at, seq in CHANGES_AT.items() if at < height])


def make_head(chain, history, height):
    alg, seq = chain["alg"], seq_for(height)
    chain_id, signatures = bytes.fromhex(chain["chain_id"]), []
    for node_id in (1, 7):
        time_s = START_S + 60 + height
        message = (b"qbc/quant/v1\n\0" + CLUSTER + u(64, node_id) + u(64, time_s) + chain_id + u(64, height)
                   + history[height])
        signatures.append({"node_id": node_id, "time_s": time_s, "message": message.hex(),
                           "record": signature_record(node_id, seq, time_s, message).hex()})
    changes = [{"height": c["height"], "path": [x.hex() for x in path(alg, c["height"], history[:height])]}
               for c in chain["authority_changes"] if c["height"] < height]
    return {"height": height, "authority_seq": seq, "signatures": signatures, "authority_changes": changes,
            "peaks": [x.hex() for x in peaks(alg, history[:height])]}


def make_receipt(chain, height):
    alg, chain_id = chain["alg"], bytes.fromhex(chain["chain_id"])
    transactions = chain["quants"][height]["transactions"]
    tree = root(alg, [h(alg, b"\0", bytes.fromhex(t["envelope"])) for t in transactions])
    time_s, first = START_S + 30 + height, transactions[0]["index"]
    message = (b"qbc/ack/v1\n\0" + CLUSTER + u(64, 2) + chain_id + u(64, first) + u(32, len(transactions)) + tree
               + u(64, time_s))
    seq = seq_for(height)
    return {"node_id": 2, "first_index": first, "count": len(transactions), "root": tree.hex(), "time_s": time_s,
            "authority_seq": seq, "message": message.hex(), "record": signature_record(2, seq, time_s, message).hex()}


def make_certificate(node_id, seq):
    value, message = certificate(node_id, seq)
    key = public(seed(NODES[node_id]))
    return {"node_id": node_id, "alg": 1, "public_key": key.hex(), "key_id": hashlib.sha3_256(key).hexdigest(),
            "not_before_s": START_S, "not_after_s": START_S + 86400, "authority_seq": seq, "message": message.hex(),
            "bytes": value.hex()}


# ---- a chain whose constitution is changed: FORMAT.md sections 7, 15 and 17
def author_of(name):
    return public(seed(name))


def changed(rules, payload):
    """The constitution after a change: records with a value replace, records without one take away."""
    after = dict(rules)
    for tag, value in payload:
        after.pop(tag, None)
        if value:
            after[tag] = value
    return dict(sorted(after.items()))


def encoded(rules):
    return b"".join(record(tag, value) for tag, value in rules.items())


def signed_item(chain_id, index, time_ms, kind, id_, name, payload):
    alg = 1
    message = (b"qbc/tx/v1\n\0" + chain_id + u(8, kind) + u(8, 0) + u(32, 0) + u(32, len(id_)) + id_ + h(alg, payload))
    attributes = record(2, id_) + record(3, author_of(name)) + record(4, sign(seed(name), message))
    start = envelope(alg, chain_id, index, time_ms, payload)
    return {"envelope": start[:4] + u(8, kind) + start[5:96] + h(alg, attributes), "attributes": attributes, "payload": payload}


AMENDED = [
    [(0, b"1", "author a", b"by a"), (1, b"2", "admin", [(7, ["author b"]), (11, u(64, 500))]), (0, b"3", "author b", b"by b"),
     (1, b"4", "admin", [(9, u(32, 7)), (11, b"")])],
    [(0, b"5", "author b", b"again by b")],
    [(1, b"6", "admin", [(7, b"")]), (0, b"7", "author a", b"open to all")],
]


def make_amended():
    alg, history, quants, index, constitutions = 1, [], [], 0, []
    rules = {1: b"amended", 2: u(64, START_S * 1000), 3: seed("salt")[:16], 4: AUTHORITIES[0]["bytes"], 5: u(8, 0),
             7: author_of("author a"), 8: author_of("admin"), 21: CLUSTER}
    for height, items in enumerate([[]] + AMENDED):
        time_ms, made, seen = START_S * 1000 + height * 10, [], False
        for kind, id_, name, payload in items:
            if kind == 1:
                payload = [(t, b"".join(map(author_of, v)) if isinstance(v, list) else v) for t, v in payload]
                rules, seen = changed(rules, payload), True
                payload = b"".join(record(t, v) for t, v in payload)
                constitutions.append({"change": payload.hex(), "constitution": encoded(rules).hex(), "hash": h(alg, encoded(rules)).hex()})
            made.append(signed_item(history[0], index + len(made), time_ms, kind, id_, name, payload))
        in_force = record(7, h(alg, encoded(rules)) + u(64, height))
        meta = record(1, encoded(rules)) + in_force if not height else record(3, u(64, 1)) + (in_force if seen else b"")
        leaves = [h(alg, b"\0", item["envelope"]) for item in made]
        block = header(alg, 0 if height else 1, history[0] if height else bytes(32), height, time_ms, index, leaves, meta,
                       history[-1] if height else bytes(32), history)
        history.append(h(alg, b"\0", block))
        quants.append({"header": block.hex(), "meta": meta.hex(), "quant_hash": history[-1].hex(), "transactions": [
            {k: v.hex() for k, v in item.items()} | {"path": [x.hex() for x in path(alg, i, leaves)]} for i, item in enumerate(made)]})
        index += len(made)
    return {"alg": alg, "chain_id": history[0].hex(), "quants": quants, "changes": constitutions}


def main():
    chains = []
    for alg in (1, 2):
        chain, history = make_chain(alg)
        chain["heads"] = [make_head(chain, history, height) for height in (0, 1, 2, 3, 5, 6, 8)]
        chain["receipts"] = [make_receipt(chain, height) for height in (2, 3, 7)]
        chains.append(chain)
    print(json.dumps({
        "about": "hex strings; made by make_more.py; definitions in docs/FORMAT.md",
        "cluster_id": CLUSTER.hex(),
        "authorities": [shown(a) for a in AUTHORITIES],
        "seeds": {name: seed(name).hex() for name in ["root a", "node 1"]},
        "publics": {name: public(seed(name)).hex() for name in ["root a", "node 1"]},
        "certificates": [make_certificate(node, seq) for seq in (0, 1, 2) for node in NODES],
        "chains": chains,
        "amended": make_amended(),
        "retarget": [{"bits_min": b, "target_ms": str(t), "times": [str(time) for time in times], "bits": bits_of(b, t, times)}
                     for b, t, times in retarget_cases()],
        "work": [make_work_chain(alg) for alg in (1, 2)],
    }, indent=1))


main()
