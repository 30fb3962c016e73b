"""Hash, trees, records, envelope, header, genesis: the bytes of docs/FORMAT.md sections 2 to 7. Python 3, nothing else."""

import hashlib
from collections import namedtuple

from strict_json import need

Header = namedtuple("Header", "raw alg genesis fork final pow_bits chain_id height time_ms tx_start tx_count meta_len "
                    "anchor_count prev_hash tx_root hist_root anchors_root meta_hash hash id")
Envelope = namedtuple("Envelope", "raw type salted chain_id index inject_ms payload_len payload_hash attributes_hash")
META, CONSTITUTION, ATTRIBUTES = {1, 2, 3, 4, 5, 6, 7}, set(range(1, 22)), {1, 2, 3, 4}


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
    need(18 not in constitution or 19 in constitution, "constitution-sense", "a family without a place")
    part = 19 in constitution and 18 not in constitution
    need(not part or g.fork and (14 in constitution or 17 in constitution), "constitution-sense", "a place without a family")
    return g, constitution, parse_authority(constitution[4])
