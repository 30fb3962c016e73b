#!/usr/bin/env python3
"""Makes format-v1-mldsa.json: ML-DSA-44 keys, signatures and heads. Independent of the Rust code; hashlib only.

The key of RFC 9881 appendix C and the signature of Wycheproof (testvectors_v1, mldsa_44_sign_seed_test, tcId 1) tie it to
the world outside. Run it beside the file: python3 make_mldsa.py > format-v1-mldsa.json
"""
import hashlib
import json
import pathlib
import sys

sys.dont_write_bytecode = True
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "python"))
import example  # noqa: E402
import ml_dsa  # noqa: E402

HINTS, ENDS = 2336, 2416
RFC_SEED, WYCHEPROOF_SEED = bytes(range(32)), bytes([0x2a] * 32)


def seed(name):
    return hashlib.sha256(("qbc mldsa vectors: " + name).encode()).digest()


def put(raw, at, new):
    return raw[:at] + new + raw[at + len(new):]


def signatures():
    for name, message in [("a", b""), ("b", b"qbc"), ("c", bytes(1000)), ("d", hashlib.sha256(b"d").digest() * 50)]:
        yield {"seed": seed(name).hex(), "public": ml_dsa.public(seed(name)).hex(), "message": message.hex(),
               "signature": ml_dsa.sign(seed(name), message).hex()}


def malformed():
    public, message = ml_dsa.public(seed("m")), b"a message"
    good = ml_dsa.sign(seed("m"), message)
    first, second = good[HINTS:HINTS + 1], good[HINTS + 1:HINTS + 2]
    for what, raw in [("a byte short", good[:-1]), ("a byte long", good + b"\0"), ("two hints swapped", put(good, HINTS, second + first)),
                      ("a hint twice", put(good, HINTS, second)), ("a hint after the last list", put(good, ENDS - 1, b"\1")),
                      ("lists that fall back", put(good, ENDS + 1, bytes([good[ENDS] - 1]))),
                      ("more hints than there is room for", put(good, ENDS + 3, b"\x51")), ("a z out of its range", put(good, 32, bytes(4)))]:
        yield {"what": what, "check": "signature-format", "public": public.hex(), "message": message.hex(), "signature": raw.hex()}


def proofs():
    chain = example.example()
    for what, algs, policies in [
            ("a head with Ed25519", (1,), {"": None, "ed25519": None, "ml-dsa-44": "signature-required", "ed25519,ml-dsa-44": "signature-required"}),
            ("a head with ML-DSA-44", (2,), {"": None, "ed25519": "signature-required", "ml-dsa-44": None, "ed25519,ml-dsa-44": "signature-required"}),
            ("a head with both", (1, 2), {"": None, "ed25519": None, "ml-dsa-44": None, "ed25519,ml-dsa-44": None})]:
        yield {"what": what, "chain_id": chain.id.hex(), "proof": chain.prove(1, 2) | {"head": chain.head(2, algs=algs)}, "policies": policies}


def wycheproof():
    """A key and a signature that others published, by their hashes and the first and last bytes as they stand there."""
    public, message = ml_dsa.public(WYCHEPROOF_SEED), b"Hello world"
    signature = ml_dsa.sign(WYCHEPROOF_SEED, message)
    assert public.hex().startswith("db9ac67708f2ba0fac1f92bd802f9be8") and public.hex().endswith("a41839b7b3357ab9d")
    assert signature.hex().startswith("1aa69cb5ed35204534f25f40a17eb0d7") and signature.hex().endswith("000000121f323e")
    return {"seed": WYCHEPROOF_SEED.hex(), "message": message.hex(), "public_sha3_256": hashlib.sha3_256(public).hexdigest(),
            "signature_sha3_256": hashlib.sha3_256(signature).hexdigest()}


def main():
    public = hashlib.sha3_256(ml_dsa.public(RFC_SEED)).hexdigest()
    made = {
        "about": "ML-DSA-44 as in FORMAT.md section 8: pure, empty context, deterministic. Hex strings; a policy maps to the check that refuses it, null where it is met.",
        "rfc_9881": {"seed": RFC_SEED.hex(), "public_sha3_256": public},
        "wycheproof": wycheproof(),
        "signatures": list(signatures()), "malformed": list(malformed()), "proofs": list(proofs())}
    print(json.dumps(made, separators=(",", ":")))


main()
