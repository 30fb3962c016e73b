"""ML-DSA-44 after FIPS 204: pure, deterministic, with the empty context.

Slow and not constant-time: for verifying in tests and for making test data, never for real keys.
"""

import hashlib

Q = 8380417
K = L = 4
ETA, TAU, OMEGA, D = 2, 39, 80, 13
BETA = TAU * ETA
GAMMA1, GAMMA2 = 1 << 17, (Q - 1) // 88
PUBLIC_BYTES, SIGNATURE_BYTES = 1312, 2420


def bit_reversed(i):
    return int(f"{i:08b}"[::-1], 2)


ZETAS = [pow(1753, bit_reversed(i), Q) for i in range(256)]
INVERSE_256 = pow(256, -1, Q)


class Malformed(Exception):
    """Bytes that are no signature or key of the algorithm, whatever the message is."""


def verify(public_key, message, signature):
    """Algorithms 3 and 8; raises Malformed where key or signature have another form than the one that is taken."""
    if len(public_key) != PUBLIC_BYTES or len(signature) != SIGNATURE_BYTES:
        raise Malformed("length")
    rho, t1 = public_key[:32], [unpack(public_key[at:at + 320], 10) for at in range(32, PUBLIC_BYTES, 320)]
    c_tilde, z, hints = decode_signature(signature)
    mu = shake(64, shake(64, public_key), b"\0\0", message)
    c = ntt(challenge(c_tilde))
    z_hat = [ntt(p) for p in z]
    w1 = []
    for row, t, hint in zip(expand_matrix(rho), t1, hints):
        az = total(multiply(a, p) for a, p in zip(row, z_hat))
        ct = multiply(c, ntt([x << D for x in t]))
        w = inverse_ntt([(x - y) % Q for x, y in zip(az, ct)])
        w1.append([use_hint(h, r) for h, r in zip(hint, w)])
    return c_tilde == shake(32, mu, *(pack(p, 6) for p in w1))


def keys(seed):
    """Algorithm 6: (public key, what signing needs) of a 32-byte seed."""
    raw = shake(128, seed, bytes([K, L]))
    rho, rho_prime, key = raw[:32], raw[32:96], raw[96:]
    s1 = [small(rho_prime, r) for r in range(L)]
    s2 = [small(rho_prime, r) for r in range(L, L + K)]
    s1_hat, matrix = [ntt(p) for p in s1], expand_matrix(rho)
    t1, t0 = [], []
    for row, s in zip(matrix, s2):
        product = inverse_ntt(total(multiply(a, p) for a, p in zip(row, s1_hat)))
        split = [power2round((x + y) % Q) for x, y in zip(product, s)]
        t1.append([high for high, _ in split])
        t0.append([low for _, low in split])
    public_key = rho + b"".join(pack(p, 10) for p in t1)
    secret = matrix, s1_hat, [ntt(p) for p in s2], [ntt(p) for p in t0], key, shake(64, public_key)
    return public_key, secret


def public(seed):
    """The public key of a 32-byte seed."""
    return keys(seed)[0]


def sign(seed, message):
    """Algorithms 2 and 7, the deterministic variant: rnd is 32 zero bytes."""
    matrix, s1, s2, t0, key, tr = keys(seed)[1]
    mu = shake(64, tr, b"\0\0", message)
    rho = shake(64, key, bytes(32), mu)
    for kappa in range(0, 1 << 16, L):
        signature = candidate(matrix, s1, s2, t0, mu, [mask(rho, kappa + r) for r in range(L)])
        if signature:
            return signature
    raise RuntimeError("no candidate was taken")


def candidate(matrix, s1, s2, t0, mu, y):
    """One round of algorithm 7: a signature, or None where it would tell of the key."""
    y_hat = [ntt(p) for p in y]
    w = [inverse_ntt(total(multiply(a, p) for a, p in zip(row, y_hat))) for row in matrix]
    w1 = [[decompose(x)[0] for x in p] for p in w]
    c_tilde = shake(32, mu, *(pack(p, 6) for p in w1))
    c = ntt(challenge(c_tilde))
    z = [[centred(a + b) for a, b in zip(p, product(c, s))] for p, s in zip(y, s1)]
    rest = [[(a - b) % Q for a, b in zip(p, product(c, s))] for p, s in zip(w, s2)]
    if norm(z) >= GAMMA1 - BETA or max(abs(decompose(x)[1]) for p in rest for x in p) >= GAMMA2 - BETA:
        return None
    ct0 = [product(c, t) for t in t0]
    # The hint is where adding c*t0 changes the high bits.
    hints = [[int(decompose((a + b) % Q)[0] != decompose(a)[0]) for a, b in zip(p, t)] for p, t in zip(rest, ct0)]
    if norm([[centred(x) for x in p] for p in ct0]) >= GAMMA2 or sum(map(sum, hints)) > OMEGA:
        return None
    return c_tilde + b"".join(pack([GAMMA1 - x for x in p], 18) for p in z) + pack_hints(hints)


def decode_signature(raw):
    """Algorithm 27: c_tilde, z, hints."""
    z = [[GAMMA1 - x for x in unpack(raw[at:at + 576], 18)] for at in range(32, 32 + L * 576, 576)]
    if norm(z) >= GAMMA1 - BETA:
        raise Malformed("z is out of its range")
    return raw[:32], z, unpack_hints(raw[32 + L * 576:])


def pack_hints(hints):
    places, ends = [], []
    for hint in hints:
        places += [i for i, one in enumerate(hint) if one]
        ends.append(len(places))
    return bytes(places) + bytes(OMEGA - len(places)) + bytes(ends)


def unpack_hints(raw):
    """Algorithm 21: each list ascends, lists do not fall back, the rest is zero."""
    places, ends, begin, hints = raw[:OMEGA], raw[OMEGA:], 0, []
    for end in ends:
        if not begin <= end <= OMEGA:
            raise Malformed("the ends of the hints")
        listed = places[begin:end]
        if any(a >= b for a, b in zip(listed, listed[1:])):
            raise Malformed("a list of hints does not ascend")
        hints.append([int(i in listed) for i in range(256)])
        begin = end
    if any(places[begin:]):
        raise Malformed("hints after the last list")
    return hints


def challenge(c_tilde):
    """Algorithm 29: 39 coefficients of 1 or -1."""
    stream = hashlib.shake_256(c_tilde).digest(2048)
    signs, at, c = int.from_bytes(stream[:8], "little"), 8, [0] * 256
    for i in range(256 - TAU, 256):
        while stream[at] > i:
            at += 1
        j, at = stream[at], at + 1
        c[i], c[j] = c[j], 1 - 2 * (signs & 1)
        signs >>= 1
    return c


def expand_matrix(rho):
    """Algorithm 32; the entries are in the domain of the transform."""
    return [[uniform(rho + bytes([s, r])) for s in range(L)] for r in range(K)]


def uniform(seed):
    """Algorithm 30."""
    stream, p, at = hashlib.shake_128(seed).digest(3 * 512), [], 0
    while len(p) < 256:
        number = int.from_bytes(stream[at:at + 3], "little") & 0x7fffff
        p, at = p + [number] * (number < Q), at + 3
    return p


def small(seed, nonce):
    """Algorithm 31 for eta = 2."""
    stream = hashlib.shake_256(seed + nonce.to_bytes(2, "little")).digest(512)
    halves = (half for byte in stream for half in (byte & 15, byte >> 4))
    numbers = [ETA - half % 5 for half in halves if half < 15]
    return numbers[:256]


def mask(seed, nonce):
    """Algorithm 34."""
    raw = hashlib.shake_256(seed + nonce.to_bytes(2, "little")).digest(576)
    return [GAMMA1 - x for x in unpack(raw, 18)]


def power2round(r):
    low = r % (1 << D)
    low -= (1 << D) * (low > 1 << D - 1)
    return (r - low) >> D, low


def decompose(r):
    """Algorithm 36: r = high * 2 gamma2 + low."""
    low = r % (2 * GAMMA2)
    low -= 2 * GAMMA2 * (low > GAMMA2)
    return (0, low - 1) if r - low == Q - 1 else ((r - low) // (2 * GAMMA2), low)


def use_hint(hint, r):
    high, low = decompose(r)
    return (high + (1 if low > 0 else -1)) % 44 if hint else high


def ntt(p):
    """Algorithm 41."""
    p, m, length = [x % Q for x in p], 0, 128
    while length:
        for start in range(0, 256, 2 * length):
            m += 1
            for j in range(start, start + length):
                t = ZETAS[m] * p[j + length] % Q
                p[j + length], p[j] = (p[j] - t) % Q, (p[j] + t) % Q
        length >>= 1
    return p


def inverse_ntt(p):
    """Algorithm 42."""
    p, m, length = list(p), 256, 1
    while length < 256:
        for start in range(0, 256, 2 * length):
            m -= 1
            for j in range(start, start + length):
                t = p[j]
                p[j], p[j + length] = (t + p[j + length]) % Q, -ZETAS[m] * (t - p[j + length]) % Q
        length <<= 1
    return [x * INVERSE_256 % Q for x in p]


def multiply(a, b):
    return [x * y % Q for x, y in zip(a, b)]


def product(a, b):
    return inverse_ntt(multiply(a, b))


def total(polynomials):
    return [sum(column) % Q for column in zip(*polynomials)]


def centred(x):
    x %= Q
    return x - Q * (x > Q // 2)


def norm(polynomials):
    return max(abs(x) for p in polynomials for x in p)


def pack(p, bits):
    return sum(x << bits * i for i, x in enumerate(p)).to_bytes(32 * bits, "little")


def unpack(raw, bits):
    number = int.from_bytes(raw, "little")
    return [number >> bits * i & (1 << bits) - 1 for i in range(256)]


def shake(length, *parts):
    return hashlib.shake_256(b"".join(parts)).digest(length)
