#!/usr/bin/env python3
"""A Python client of a running QBC server, from the proto alone; every proof is checked by verifier.py.

grpc_client.py ADDRESS [generated|reflection]...      the whole story, in both ways by default
grpc_client.py ADDRESS check CHAIN INDEX --trust-chain HEX [--head HEADER_HEX] [--payload HEX]
        asks for a head and a proof and believes neither; exits 7 and names the failed check
"""

import argparse
import importlib
import json
import pathlib
import sys
import tempfile
import uuid

import grpc
from google.protobuf import descriptor_pool, message_factory
from google.rpc import error_details_pb2, status_pb2
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from grpc_tools import protoc

import ed25519
import verifier as v
from forms import root_of

PROTO = pathlib.Path(__file__).resolve().parent / "../../proto"
DEADLINE_S = 30


class Generated:
    """Calls through code that protoc makes from the proto files."""

    def __init__(self, channel):
        self.channel, self.folder = channel, tempfile.TemporaryDirectory()
        files = [str(f.relative_to(PROTO)) for f in sorted(PROTO.glob("qbc/v1/*.proto"))]
        out = [f"--{kind}_out={self.folder.name}" for kind in ("python", "grpc_python")]
        if protoc.main(["protoc", f"-I{PROTO}", *out, *files]) != 0:
            raise RuntimeError("protoc failed")
        sys.path.insert(0, self.folder.name)
        names = ("chain", "proof", "node")
        self.messages = [importlib.import_module(f"qbc.v1.{n}_pb2") for n in names]
        stubs = [importlib.import_module(f"qbc.v1.{n}_pb2_grpc") for n in names]
        self.stubs = {f"{n.title()}Service": getattr(m, f"{n.title()}ServiceStub")(channel) for n, m in zip(names, stubs)}

    def call(self, service, method, **fields):
        request = next(getattr(m, f"{method}Request") for m in self.messages if hasattr(m, f"{method}Request"))
        return getattr(self.stubs[service], method)(request(**fields), timeout=DEADLINE_S)


class Reflection:
    """Calls with nothing but what the server says about itself."""

    def __init__(self, channel):
        self.channel = channel
        database = ProtoReflectionDescriptorDatabase(channel)
        self.pool = descriptor_pool.DescriptorPool(database)
        check("qbc.v1.ChainService" in database.get_services(), "reflection lists qbc.v1.ChainService")

    def call(self, service, method, **fields):
        described = self.pool.FindServiceByName(f"qbc.v1.{service}").FindMethodByName(method)
        request = message_factory.GetMessageClass(described.input_type)
        answer = message_factory.GetMessageClass(described.output_type)
        kind = self.channel.unary_stream if described.server_streaming else self.channel.unary_unary
        path = f"/qbc.v1.{service}/{method}"
        call = kind(path, request_serializer=request.SerializeToString, response_deserializer=answer.FromString)
        return call(request(**fields), timeout=DEADLINE_S)


def check(condition, what):
    if not condition:
        raise SystemExit(f"FAILED: {what}")


def story(api, name):
    """Bang, inject, leap, read, prove, verify; and what goes wrong is told well."""
    info = api.call("NodeService", "GetServerInfo")
    check(info.format_version == 1 and len(info.cluster_id) == 16, "server info")
    bang = api.call("ChainService", "Bang", name=name, constitution={"content": 2}, request_id=f"bang-{name}")
    genesis = v.parse_header(bang.genesis.header)
    check(genesis.hash == bang.chain_id == bang.genesis.quant_hash, "the chain id is the hash of the genesis")

    items = [{"payload": b"payload %d" % i, "key": b"k%d" % (i % 2), "id": b"id-%d" % i} for i in range(5)]
    answer = inject(api, name, items, receipt=True)
    check([(r.first_index, r.count, r.duplicate) for r in answer.runs] == [(0, 5, False)], "indexes of the first inject")
    receipt(answer, items, bang)
    again = inject(api, name, items[1:3])
    check([(r.first_index, r.count, r.duplicate) for r in again.runs] == [(1, 2, True)], "a retry by id answers as before")
    check(not any(t.proven for t in read(api, name)), "the pool is not proven")
    first = api.call("ChainService", "Leap", chain=name)
    check(first.head.quant.tx_count == 5, "the leap seals the pool")

    more = [{"payload": b"later %d" % i} for i in range(3)]
    check(inject(api, name, more).runs[0].first_index == 5, "indexes go on")
    api.call("ChainService", "Leap", chain=name, note=b"a note")
    payloads = [t["payload"] for t in items + more]
    seen = list(read(api, name))
    check([t.payload for t in seen] == payloads and all(t.proven for t in seen), "what is read is what was injected")
    check([t.index for t in seen] == list(range(8)), "in order")
    proofs(api, name, bang.chain_id, payloads)
    errors(api, name)


def inject(api, name, items, **more):
    return api.call("ChainService", "Inject", chain=name, transactions=items, request_id=str(uuid.uuid4()), **more)


def read(api, name):
    for answer in api.call("ChainService", "Read", chain=name, from_index=0):
        yield from answer.transactions


def receipt(answer, items, bang):
    """The receipt is signed by a certified node over the envelopes that the client builds itself."""
    r = answer.receipts[0]
    check((r.chain_id, r.first_index, r.count) == (bang.chain_id, 0, len(items)), "what the receipt is for")
    leaves = []
    for index, (item, inject_ms) in enumerate(zip(items, r.inject_ms, strict=True)):
        attributes = b"".join(bytes([tag]) + len(item[k]).to_bytes(4, "big") + item[k] for tag, k in ((1, "key"), (2, "id")))
        numbers = b"".join(n.to_bytes(8, "big") for n in (index, inject_ms, len(item["payload"])))
        envelope = b"QTX1\0\0\0\0" + bang.chain_id + numbers + v.H(1, item["payload"]) + v.H(1, attributes)
        leaves.append(v.H(1, b"\0", envelope))
    check(root_of(1, leaves) == r.root, "the receipt's root is over these envelopes")
    _, constitution, authority = v.first_quant(bang.genesis.header, bang.genesis.meta)
    s, c = r.signature, r.signature.certificate
    check(c[:16] == r.cluster_id == constitution[21] and int.from_bytes(c[16:24], "big") == r.node_id, "the receipt's node")
    v.root_signatures(c[77:], b"qbc/node/v1\n\0" + c[:77], authority, "certificate")
    message = b"qbc/ack/v1\n\0" + c[:24] + r.chain_id + r.first_index.to_bytes(8, "big") + r.count.to_bytes(4, "big") + r.root
    check(s.time_s == r.time_s and ed25519.verify(c[29:61], message + r.time_s.to_bytes(8, "big"), s.signature), "its signature")


def proofs(api, name, chain_id, payloads):
    head = api.call("ChainService", "GetHead", chain=name).head
    check(head.quant.height == 2, "the head's height")
    for index, payload in enumerate(payloads):
        verdict = believe(prove(api, name, index), chain_id)
        check((verdict["index"], verdict["payload"]) == (index, payload), "the proof is of this transaction")
        check(verdict["head"].raw == head.quant.header, "into the head")
    bad = prove(api, name, 3)
    bad["transaction"]["payload"] = b"another".hex()
    refused(bad, chain_id, {"payload-length", "payload-hash"})
    refused(prove(api, name, 3), bytes(32), {"not-anchored"})
    believe(extend(api, name, 1, 2), chain_id)
    bundle = api.call("ProofService", "GetBundle", chain=name)
    header, peaks = v.parse_header(bundle.head.quant.header), list(bundle.peaks)
    check(len(peaks) == bin(header.height).count("1") and v.bag(header.alg, peaks[::-1]) == header.hist_root, "the bundle's peaks")
    export = b"".join(part.data for part in api.call("ChainService", "Export", chain=name))
    verdict = v.verify(export, trust_chain=chain_id)
    check(verdict["anchored"] and verdict["transactions"] == len(payloads), "the export verifies")


def prove(api, name, index, **more):
    return proof_from_grpc(api.call("ProofService", "ProveInclusion", chain=name, index=index, **more))


def proof_from_grpc(answer):
    """A ProveInclusionResponse as the object of a proof file: docs/FORMAT.md sections 12 and 13."""
    head = answer.head.quant.header
    steps = [{"link": "quant", "header": answer.header.hex(), "path": [p.hex() for p in answer.tx_path]}]
    if answer.header != head:
        steps.append({"link": "history", "header": head.hex(), "path": [p.hex() for p in answer.history_path], "borders": []})
    shown = {"envelope": answer.envelope.hex()}
    if answer.HasField("payload"):
        shown["payload"] = answer.payload.hex()
    shown |= {name: getattr(answer, name).hex() for name in ("salt", "attributes") if getattr(answer, name)}
    return {"qbc_proof": 1, "claim": "inclusion", "transaction": shown, "steps": steps, "head": head_from_grpc(answer)}


def head_from_grpc(answer):
    """The head evidence in an answer that has `head` and `genesis`."""
    signatures = [{"alg": s.alg, "key_id": s.key_id.hex(), "time_s": s.time_s, "signature": s.signature.hex(),
                   "certificate": s.certificate.hex()} for s in answer.head.signatures]
    genesis = {"header": answer.genesis.header.hex(), "meta": answer.genesis.meta.hex()}
    return {"signatures": signatures, "genesis": genesis, "authority_changes": []}


def extend(api, name, old, new):
    """The extension as a proof file's object."""
    answer = api.call("ProofService", "ProveExtension", chain=name, from_height=old, to_height=new)
    step = {"link": "history", "header": answer.head.quant.header.hex(), "path": [p.hex() for p in answer.path], "borders": []}
    return {"qbc_proof": 1, "claim": "extension", "old": answer.old_header.hex(), "steps": [step],
            "head": head_from_grpc(answer)}


def believe(proof, chain_id):
    verdict = v.verify(json.dumps(proof).encode(), trust_chain=chain_id)
    v.need(verdict["anchored"], "not-anchored", "nobody known vouches for it")
    return verdict


def refused(proof, chain_id, names):
    try:
        believe(proof, chain_id)
    except v.Refused as error:
        check(error.check in names, f"refused by {error}, not by {names}")
        return
    check(False, f"accepted what {names} must refuse")


def errors(api, name):
    cases = [("NOT_FOUND", "CHAIN_UNKNOWN", "GetChain", {"chain": "no-such-chain"}),
             ("NOT_FOUND", "INDEX_UNKNOWN", "GetTransaction", {"chain": name, "index": 99}),
             ("INVALID_ARGUMENT", "NAME_INVALID", "Bang", {"name": "Bad Name"}),
             ("ALREADY_EXISTS", "CHAIN_EXISTS", "Bang", {"name": name, "constitution": {"content": 3}}),
             ("FAILED_PRECONDITION", "NOTHING_TO_SEAL", "Leap", {"chain": name}),
             ("INVALID_ARGUMENT", "FIELD_INVALID", "Inject", {"chain": name})]
    for code, reason, method, fields in cases:
        try:
            api.call("ChainService", method, **fields)
        except grpc.RpcError as error:
            check(error.code().name == code, f"{method} {fields}: {error.code().name}, not {code}: {error.details()}")
            check(error_info(error) == (reason, "qbc"), f"{method} {fields}: ErrorInfo is {error_info(error)}, not {reason}")
            check(error.details(), f"{method}: a message")
        else:
            check(False, f"{method} {fields}: no error")


def error_info(error):
    """Reason and domain of the ErrorInfo in the rich error."""
    raw = dict(error.trailing_metadata()).get("grpc-status-details-bin", b"")
    for detail in status_pb2.Status.FromString(raw).details:
        info = error_details_pb2.ErrorInfo()
        if detail.Unpack(info):
            return info.reason, info.domain
    return None, None


def check_server(api, options):
    """What a careful client does with a head and a proof, whoever sends them."""
    head = v.parse_header(api.call("ChainService", "GetHead", chain=options.chain).head.quant.header)
    if options.head:
        old = v.parse_header(options.head)
        v.need(head.height >= old.height, "head-went-back", f"height {head.height} after {old.height}")
        proof = extend(api, options.chain, old.height, head.height)
        proof["old"] = options.head.hex()
        v.need(believe(proof, options.trust_chain)["head"].raw == head.raw, "answer", "not the head that was shown")
    verdict = believe(prove(api, options.chain, options.index, at_height=head.height), options.trust_chain)
    v.need(verdict["head"].raw == head.raw, "answer", "not the head that was shown")
    v.need(verdict["index"] == options.index, "answer", "a proof of another transaction")
    v.need(options.payload in (None, verdict["payload"]), "answer", "not what was injected")


def main(argv):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("address")
    parser.add_argument("what", nargs="*")
    for name in ("--trust-chain", "--head", "--payload"):
        parser.add_argument(name, type=bytes.fromhex, metavar="HEX")
    options = parser.parse_args(argv[1:])
    with grpc.insecure_channel(options.address) as channel:
        if options.what[:1] == ["check"]:
            options.chain, options.index = options.what[1], int(options.what[2])
            return careful(Generated(channel), options)
        for mode in options.what or ["generated", "reflection"]:
            story({"generated": Generated, "reflection": Reflection}[mode](channel), f"python-{mode}-{uuid.uuid4().hex[:8]}")
            print(f"{mode}: ok")
    return 0


def careful(api, options):
    try:
        check_server(api, options)
    except v.Refused as refusal:
        print(f"refused: {refusal}", file=sys.stderr)
        return 7
    print("accepted")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
