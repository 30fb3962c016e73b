#!/usr/bin/env python3
"""Follows the log of all chains of a running node over plain HTTP, as a public tool or witness would: Python 3, nothing else.

log_client.py HOST:PORT --vkey VKEY [--vkey VKEY]... [--state FILE]

Takes /checkpoint and checks its signature by one of the keys (c2sp.org/signed-note), takes all tiles and entries
(c2sp.org/tlog-tiles), recomputes every hash and the root, and with a state file that the log grew out of the one seen last.
Prints size, root, and the leaves by their magic; exits 1 and says what is wrong.
"""

import argparse
import base64
import hashlib
import http.client
import json
import pathlib
import sys

import ed25519

WIDTH = 256


class Wrong(Exception):
    pass


def need(condition, why):
    if not condition:
        raise Wrong(why)


def h(*parts):
    return hashlib.sha256(b"".join(parts)).digest()


def root(hashes):
    if not hashes:
        return h()
    if len(hashes) == 1:
        return hashes[0]
    k = 1 << (len(hashes) - 1).bit_length() - 1
    return h(b"\1", root(hashes[:k]), root(hashes[k:]))


def get(address, path):
    connection = http.client.HTTPConnection(address, timeout=30)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        body = answer.read()
    finally:
        connection.close()
    need(answer.status == 200, f"{path}: status {answer.status}: {body.decode(errors='replace').strip()}")
    return body


def parse_vkey(text):
    """name+id+base64(type || key), with the id that name and key give."""
    name, key_id, key = text.split("+", 2)
    raw = base64.b64decode(key, validate=True)
    need(raw[0] == 1 and len(raw) == 33, f"{text}: no Ed25519 key")
    need(h(name.encode(), b"\n", raw)[:4].hex() == key_id, f"{text}: the id is another key's")
    return name, bytes.fromhex(key_id), raw[1:]


def parse_checkpoint(note, vkeys):
    """Size and root of a note that one of the keys signed."""
    text, signatures = note.rsplit(b"\n\n", 1)
    text += b"\n"
    origin, size, encoded = text.decode().splitlines()
    need(text.count(b"\n") == 3 and str(int(size)) == size, "the checkpoint is not three lines")
    signed = False
    for line in signatures.decode().splitlines():
        dash, name, blob = line.split(" ")
        blob = base64.b64decode(blob, validate=True)
        need(dash == "\u2014", "a signature line does not begin with a dash")
        for known, key_id, key in vkeys:
            if (name, blob[:4]) == (known, key_id):
                need(known == origin and ed25519.verify(key, text, blob[4:]), "the signature of a known key does not hold")
                signed = True
    need(signed, "no known key signed the checkpoint")
    return origin, int(size), base64.b64decode(encoded, validate=True)


def tile_path(kind, number, width):
    groups = [f"{number % 1000:03}"]
    while number >= 1000:
        number //= 1000
        groups.insert(0, f"x{number % 1000:03}")
    return f"/tile/{kind}/{'/'.join(groups)}" + (f".p/{width}" if width < WIDTH else "")


def tiles(address, kind, count):
    """All tiles of a level with so many entries, in order."""
    for number in range((count + WIDTH - 1) // WIDTH):
        width = min(WIDTH, count - number * WIDTH)
        yield width, get(address, tile_path(kind, number, width))


def hashes_of(address, level, count):
    found = []
    for width, body in tiles(address, level, count):
        need(len(body) == 32 * width, f"a tile of level {level} has {len(body)} bytes")
        found += [body[at:at + 32] for at in range(0, len(body), 32)]
    return found


def entries_of(address, count):
    found = []
    for width, body in tiles(address, "entries", count):
        at, before = 0, len(found)
        while at < len(body):
            length = int.from_bytes(body[at:at + 2], "big")
            found.append(body[at + 2:at + 2 + length])
            at += 2 + length
        need(at == len(body) and len(found) - before == width, "a bundle of entries is cut or too long")
    return found


def check_leaf(leaf):
    lengths = {b"QGR1": 48}
    need(lengths.get(leaf[:4]) == len(leaf), f"a leaf of the super log begins with {leaf[:4]}")
    return int.from_bytes(leaf[4:8], "big"), int.from_bytes(leaf[8:16], "big")


def follow(address, vkeys, state):
    origin, size, told = parse_checkpoint(get(address, "/checkpoint"), vkeys)
    hashes = hashes_of(address, 0, size)
    need(root(hashes) == told, "the tiles do not give the checkpoint's root")
    entries = entries_of(address, size)
    need([h(b"\0", leaf) for leaf in entries] == hashes, "the entries are not the leaves of the tiles")
    full = size // WIDTH
    upper = [root(hashes[at * WIDTH:(at + 1) * WIDTH]) for at in range(full)]
    need(hashes_of(address, 1, full) == upper, "the tiles of level 1 are not over those of level 0")
    sizes = {}
    for leaf in entries:
        group, leaves = check_leaf(leaf)
        need(leaves > sizes.get(group, 0), f"the log of group {group} did not grow")
        sizes[group] = leaves
    if state is not None and state.exists():
        seen = json.loads(state.read_text(encoding="utf-8"))
        need(seen["origin"] == origin, "it is another log than last time")
        need(seen["size"] <= size, f"the log went back from {seen['size']} to {size}")
        need(root(hashes[:seen["size"]]).hex() == seen["root"], "the log did not grow out of the one seen last")
    if state is not None:
        state.write_text(json.dumps({"origin": origin, "size": size, "root": told.hex()}), encoding="utf-8")
    return {"origin": origin, "size": size, "root": told.hex(), "groups": sizes}


def main(argv):
    parser = argparse.ArgumentParser(description="Follows the log of all chains of a QBC node.")
    parser.add_argument("address", metavar="HOST:PORT")
    parser.add_argument("--vkey", action="append", required=True)
    parser.add_argument("--state", type=pathlib.Path)
    options = parser.parse_args(argv[1:])
    try:
        print(json.dumps(follow(options.address, [parse_vkey(key) for key in options.vkey], options.state)))
    except (Wrong, ValueError, OSError) as wrong:
        print(f"wrong: {wrong}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
