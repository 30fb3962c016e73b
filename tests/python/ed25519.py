"""Ed25519 after RFC 8032 section 5.1, with the strict verification of docs/FORMAT.md section 5.

Slow and not constant-time: for verifying in tests and for making test data, never for real keys.
"""

import hashlib

P = 2**255 - 19
L = 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, P - 2, P) % P
ROOT_OF_MINUS_ONE = pow(2, (P - 1) // 4, P)
IDENTITY = (0, 1, 1, 0)


def verify(public_key, message, signature):
    """True if the signature holds: canonical S, A and R, no point of small order, no cofactor."""
    if len(public_key) != 32 or len(signature) != 64:
        return False
    key, commitment = decode(public_key), decode(signature[:32])
    scalar = int.from_bytes(signature[32:], "little")
    if key is None or commitment is None or scalar >= L:
        return False
    if small_order(key) or small_order(commitment):
        return False
    challenge = hash_scalar(signature[:32], public_key, message)
    return equal(multiply(scalar, BASE), add(commitment, multiply(challenge, key)))


def public(seed):
    """The public key of a 32-byte private key."""
    return encode(multiply(expand(seed)[0], BASE))


def sign(seed, message):
    """Signs with a 32-byte private key."""
    scalar, prefix = expand(seed)
    nonce = hash_scalar(prefix, message)
    commitment = encode(multiply(nonce, BASE))
    challenge = hash_scalar(commitment, public(seed), message)
    return commitment + ((nonce + challenge * scalar) % L).to_bytes(32, "little")


def expand(seed):
    digest = hashlib.sha512(seed).digest()
    scalar = int.from_bytes(digest[:32], "little")
    return (scalar & ((1 << 254) - 8)) | (1 << 254), digest[32:]


def hash_scalar(*parts):
    return int.from_bytes(hashlib.sha512(b"".join(parts)).digest(), "little") % L


def decode(raw):
    """The point of 32 bytes, in extended coordinates (X, Y, Z, T); None if there is none (5.1.3)."""
    number = int.from_bytes(raw, "little")
    sign_bit, y = number >> 255, number & ((1 << 255) - 1)
    if y >= P:
        return None
    x = recover_x(y, sign_bit)
    return None if x is None else (x, y, 1, x * y % P)


def recover_x(y, sign_bit):
    u, v = (y * y - 1) % P, (D * y * y + 1) % P
    x = u * pow(v, 3, P) * pow(u * pow(v, 7, P), (P - 5) // 8, P) % P
    if (v * x * x + u) % P == 0:
        x = x * ROOT_OF_MINUS_ONE % P
    if (v * x * x - u) % P != 0 or (x == 0 and sign_bit):
        return None
    return P - x if x & 1 != sign_bit else x


def encode(point):
    inverse = pow(point[2], P - 2, P)
    x, y = point[0] * inverse % P, point[1] * inverse % P
    return (y | (x & 1) << 255).to_bytes(32, "little")


def add(p, q):
    a, b = (p[1] - p[0]) * (q[1] - q[0]) % P, (p[1] + p[0]) * (q[1] + q[0]) % P
    c, d = 2 * p[3] * q[3] * D % P, 2 * p[2] * q[2] % P
    e, f, g, h = b - a, d - c, d + c, b + a
    return (e * f % P, g * h % P, f * g % P, e * h % P)


def multiply(scalar, point):
    result = IDENTITY
    while scalar:
        if scalar & 1:
            result = add(result, point)
        point, scalar = add(point, point), scalar >> 1
    return result


def equal(p, q):
    return (p[0] * q[2] - q[0] * p[2]) % P == 0 and (p[1] * q[2] - q[1] * p[2]) % P == 0


def small_order(point):
    return equal(multiply(8, point), IDENTITY)


BASE = decode(((4 * pow(5, P - 2, P)) % P).to_bytes(32, "little"))
