"""The state tree: docs/FORMAT.md section 20. Roots of states and the verifier of their proofs. Python 3, nothing else."""

from forms import H, u
from strict_json import need

EMPTY, OWN, OTHER = 0, 1, 2


def bit(key_hash, at):
    return key_hash[at // 8] >> 7 - at % 8 & 1


def leaf(alg, key_hash, value):
    return H(alg, b"\0", b"QST1", key_hash, value)


def root_of(alg, state):
    """The root over a dict of state keys and values."""
    return subtree(alg, sorted((H(alg, key), value) for key, value in state.items()), 0)


def subtree(alg, entries, depth):
    if not entries:
        return H(alg, b"")
    if len(entries) == 1:
        return leaf(alg, *entries[0])
    left = [e for e in entries if not bit(e[0], depth)]
    return H(alg, b"\1", subtree(alg, left, depth + 1), subtree(alg, entries[len(left):], depth + 1))


def parse(raw):
    """Kind, siblings, and what follows them."""
    need(len(raw) >= 3, "state-form", "no kind and count")
    kind, count, rest = raw[0], u(raw, 1, 2), raw[3:]
    need(kind in (EMPTY, OWN, OTHER), "state-form", f"kind {kind}")
    need(len(rest) >= 32 * count, "state-form", "cut siblings")
    siblings, rest = [rest[32 * i:32 * i + 32] for i in range(count)], rest[32 * count:]
    need(kind != EMPTY or not rest, "state-form", "bytes after nothing")
    need(kind != OTHER or len(rest) >= 32, "state-form", "a cut key hash")
    return kind, siblings, rest


def verify(alg, root, state_key, raw):
    """The value of the key, None where the proof says that it has none."""
    kind, siblings, rest = parse(raw)
    key_hash = H(alg, state_key)
    other, value = (rest[:32], rest[32:]) if kind == OTHER else (None, rest)
    need(kind == EMPTY or 1 <= len(value) <= 64, "state-value", f"{len(value)} bytes")
    need(len(siblings) <= (256 if kind == OWN else 255), "state-path", f"{len(siblings)} siblings")
    if kind == OTHER:
        same = all(bit(other, i) == bit(key_hash, i) for i in range(len(siblings)))
        need(other != key_hash and same, "state-leaf", "the other entry is the key's own, or lies elsewhere")
    need(not siblings or siblings[0] != H(alg, b""), "state-path", "the lowest sibling is empty")
    node = H(alg, b"") if kind == EMPTY else leaf(alg, other or key_hash, value)
    for depth, sibling in zip(range(len(siblings) - 1, -1, -1), siblings):
        node = H(alg, b"\1", sibling, node) if bit(key_hash, depth) else H(alg, b"\1", node, sibling)
    need(node == root, "state-root", "the way leads to another root")
    return value if kind == OWN else None
