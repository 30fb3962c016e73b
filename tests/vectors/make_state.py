#!/usr/bin/env python3
"""Makes format-v1-state.json: states, their roots and proofs. Independent of the Rust code; hashlib only.

Sets of 0, 1, 2, 5 and 100 entries for both hashes; proofs that keys have their values and that others have none; and
proofs that must be refused, by the name of the check. Run it beside the file: python3 make_state.py > format-v1-state.json
"""
import hashlib
import json


def h(alg, *parts):
    return {1: hashlib.sha3_256, 2: hashlib.sha256}[alg](b"".join(parts)).digest()


def bit(key, at):
    return key[at // 8] >> 7 - at % 8 & 1


def leaf(alg, key, value):
    return h(alg, b"\0QST1", key, value)


def halves(entries, depth):
    return [{k: v for k, v in entries.items() if bit(k, depth) == side} for side in (0, 1)]


def root(alg, entries, depth=0):
    if not entries:
        return h(alg)
    if len(entries) == 1:
        return leaf(alg, *next(iter(entries.items())))
    left, right = halves(entries, depth)
    return h(alg, b"\1", root(alg, left, depth + 1), root(alg, right, depth + 1))


def way(alg, entries, key, depth=0):
    """Siblings from the key's place upward, and the entries there: none or one."""
    if len(entries) < 2:
        return [], entries
    sides = halves(entries, depth)
    side = bit(key, depth)
    siblings, end = way(alg, sides[side], key, depth + 1)
    return siblings + [root(alg, sides[1 - side], depth + 1)], end


def proof_bytes(siblings, kind, rest=b""):
    return bytes([kind]) + len(siblings).to_bytes(2, "big") + b"".join(siblings) + rest


def prove(alg, entries, key):
    siblings, end = way(alg, entries, key)
    if not end:
        return proof_bytes(siblings, 0)
    other, value = next(iter(end.items()))
    return proof_bytes(siblings, 1, value) if other == key else proof_bytes(siblings, 2, other + value)


def climb(alg, key, start, siblings):
    """The root that a way leads to, whether or not a state has it."""
    node = start
    for i, sibling in enumerate(siblings):
        right = bit(key, len(siblings) - 1 - i)
        node = h(alg, b"\1", sibling, node) if right else h(alg, b"\1", node, sibling)
    return node


def state_key(n):
    """By turns a transaction's key and an account."""
    if n % 2:
        return b"\2" + hashlib.sha256(b"account %d" % n).digest()
    return b"\1key %d" % n


def value(n):
    return (10**30 + n).to_bytes(16, "big") if n % 2 else (7 * n).to_bytes(8, "big")


def make_state(alg, count):
    named = {state_key(n): value(n) for n in range(count)}
    entries = {h(alg, k): v for k, v in named.items()}
    proofs = []
    for n in [*range(min(count, 6)), *range(1000, 1008)]:
        k = state_key(n)
        shown = named.get(k)
        proofs.append({"state_key": k.hex(), "value": shown.hex() if shown else None,
                       "proof": prove(alg, entries, h(alg, k)).hex()})
    return {"alg": alg, "entries": [{"state_key": k.hex(), "value": v.hex()} for k, v in named.items()],
            "root": root(alg, entries).hex(), "proofs": proofs}, entries


def flip(key, at):
    return bytes(x ^ (0x80 >> at % 8 if i == at // 8 else 0) for i, x in enumerate(key))


def make_refused(alg, entries):
    """Against the state of 100 entries, or against a root made to fit the way."""
    top, k = root(alg, entries), state_key(4)
    key, own = h(alg, k), value(4)
    siblings, _ = way(alg, entries, key)
    empty, some = h(alg), [h(alg, b"sibling %d" % i) for i in range(257)]
    absent = next(state_key(n) for n in range(1000, 2000) if prove(alg, entries, h(alg, state_key(n)))[0] == 2)
    absent_siblings, end = way(alg, entries, h(alg, absent))
    other, others = next(iter(end.items()))
    near = flip(key, 3)
    cases = [
        ("another value", "state-root", top, k, proof_bytes(siblings, 1, value(5)[:8])),
        ("a value denied: nothing is there", "state-root", top, k, proof_bytes(siblings, 0)),
        ("a value denied: its own entry as another's", "state-leaf", top, k, proof_bytes(siblings, 2, key + own)),
        ("the proof of another key", "state-root", top, state_key(6), proof_bytes(siblings, 1, own)),
        ("a value for an absent key", "state-root", top, absent, proof_bytes(absent_siblings, 1, others)),
        ("nothing where another entry is", "state-root", top, absent, proof_bytes(absent_siblings, 0)),
        ("another entry, where it is, off the way", "state-leaf", top, k, proof_bytes(absent_siblings, 2, other + others)),
        ("another entry off the way, the root fits", "state-leaf", climb(alg, key, leaf(alg, near, own), some[:10]), k,
         proof_bytes(some[:10], 2, near + own)),
        ("one sibling less", "state-root", top, k, proof_bytes(siblings[:-1], 1, own)),
        ("siblings the other way round", "state-root", top, k, proof_bytes(siblings[::-1], 1, own)),
        ("257 siblings", "state-path", top, k, proof_bytes(some, 1, own)),
        ("256 siblings beside nothing, the root fits", "state-path", climb(alg, key, empty, some[:256]), k,
         proof_bytes(some[:256], 0)),
        ("an entry beside nothing, the root fits", "state-path", climb(alg, key, leaf(alg, key, own), [empty, some[0]]), k,
         proof_bytes([empty, some[0]], 1, own)),
        ("nothing beside nothing, the root fits", "state-path", climb(alg, key, empty, [empty, some[0]]), k,
         proof_bytes([empty, some[0]], 0)),
        ("another entry beside nothing, the root fits", "state-path",
         climb(alg, key, leaf(alg, flip(key, 200), own), [empty, some[0]]), k,
         proof_bytes([empty, some[0]], 2, flip(key, 200) + own)),
        ("a value of no bytes, the root fits", "state-value", climb(alg, key, leaf(alg, key, b""), siblings), k,
         proof_bytes(siblings, 1)),
        ("a value of 65 bytes, the root fits", "state-value", climb(alg, key, leaf(alg, key, bytes(65)), siblings), k,
         proof_bytes(siblings, 1, bytes(65))),
        ("another entry without a value", "state-value", top, absent, proof_bytes(absent_siblings, 2, other)),
        ("no bytes", "state-form", top, k, b""),
        ("cut siblings", "state-form", top, k, proof_bytes(siblings, 1)[:-1]),
        ("a cut key", "state-form", top, absent, proof_bytes(absent_siblings, 2, other[:-1])),
        ("bytes after nothing", "state-form", top, k, proof_bytes(siblings, 0, b"\0")),
        ("an unknown kind", "state-form", top, k, proof_bytes(siblings, 3, own)),
    ]
    return [{"what": what, "check": check, "root": r.hex(), "state_key": key.hex(), "proof": proof.hex()}
            for what, check, r, key, proof in cases]


def main():
    states = []
    for alg in (1, 2):
        for count in (0, 1, 2, 5, 100):
            state, entries = make_state(alg, count)
            state["refused"] = make_refused(alg, entries) if count == 100 else []
            states.append(state)
    print(json.dumps({"about": "hex strings; made by make_state.py; definitions in docs/FORMAT.md section 20",
                      "states": states}, indent=1))


main()
