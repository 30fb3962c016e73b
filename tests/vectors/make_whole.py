#!/usr/bin/env python3
"""Makes format-v1-whole.json: proofs of the whole of a chain that is split. Independent of the Rust code.

`orders` is split by its Quant 2 into three subchains. The first holds five transactions, the last of them a tombstone; the
second was split by its Quant 2 into two, of which one holds something; the third holds nothing. Quants 3 to 5 of `orders`
anchor, Quant 6 is empty. Proofs that hold, what they show, and proofs that must be refused, by the name of the check.
Run it beside the file: python3 make_whole.py > format-v1-whole.json
"""
import copy
import json
import pathlib
import sys

sys.dont_write_bytecode = True
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "python"))
from example import Chain, be, leaf, path, record, signature_record  # noqa: E402

SEALED_BY = record(3, be(1, 8))
SPLIT = 2


def hexes(hashes):
    return [h.hex() for h in hashes]


def children(parent, of, family):
    """Subchains, whose geneses name Quant 0 of their parent."""
    above = record(2, parent.id + be(0, 8) + leaf(parent.quants[0]["header"]))
    extra = [record(18, family) + record(19, be(place, 4) + be(of, 4)) for place in range(of)]
    return [Chain(name=f"{parent.name}/{place}", extra=extra[place], parent=above) for place in range(of)]


def route(chains):
    return SEALED_BY + record(5, be(len(chains), 4) + b"".join(c.id for c in chains))


def claim(parent, height=SPLIT):
    """The first transaction of each subchain."""
    quant, signed = parent.quants[height], signature_record(parent.signature(height))
    payload = b"\1" + quant["header"] + be(len(quant["meta"]), 4) + quant["meta"] + b"\1" + be(len(signed), 4) + signed
    return payload, b"", None, 5


def anchor(chain, height):
    return b"QAN1" + chain.id + be(height, 8) + leaf(chain.quants[height]["header"])


class Family:
    """The chains. `begin` makes the first transactions of the first subchain from the chain that was split."""

    def __init__(self, begin=lambda top: [claim(top)], early=False):
        self.top = Chain(name="orders")
        self.parts = children(self.top, 3, self.top.id)
        one, two, _ = self.parts
        if early:
            one.leap([])
        self.top.leap([(b"a",), (b"b",)], anchors=[anchor(one, 1)] if early else [])
        self.top.leap([(b"pooled",)], route(self.parts))
        one.leap([*begin(self.top), (b"c", record(1, b"k"))])
        two.leap([claim(self.top), (b"d",)])
        self.seal([(one, 1), (two, 1)])
        self.deep = children(two, 2, self.top.id)
        two.leap([(b"e",)], route(self.deep))
        self.seal([(two, 2)])
        self.deep[0].leap([claim(two), (b"f",), (b"g",)])
        two.leap([], anchors=[anchor(self.deep[0], 1)])
        one.leap([(b"h",), (b"i",), (b"t", b"", None, 2)])
        self.seal([(one, 2), (two, 3)])
        self.top.leap([])

    def seal(self, heads):
        self.top.leap([], anchors=sorted(anchor(chain, height) for chain, height in heads))

    def proof(self, last=6, heads=(2, 3, 0), anchors=(5, 5, None)):
        """Of `orders` at a head, with its subchains at heads that its Quants anchor."""
        parts = [part(c, head, self.top, by, last) for c, head, by in zip(self.parts, heads, anchors)]
        if heads[1] >= SPLIT:
            parts[1].pop("unsplit", None)
            shown = [part(self.deep[0], *((1, self.parts[1], 3, 3) if heads[1] == 3 else (0, self.parts[1], None, heads[1]))),
                     part(self.deep[1], 0, self.parts[1], None, heads[1])]
            parts[1]["split"] = split(self.parts[1], heads[1], shown)
        whole = {"header": self.top.quants[SPLIT]["header"].hex(), "meta": self.top.quants[SPLIT]["meta"].hex(), "subchains": parts}
        steps = [self.top.history(SPLIT, last)] if last > SPLIT else []
        return {"qbc_proof": 1, "claim": "whole", "whole": whole, "steps": steps, "head": self.top.head(last)}


def split(chain, head, shown):
    quant = chain.quants[SPLIT]
    return {"header": quant["header"].hex(), "meta": quant["meta"].hex(), "history": chain.history(SPLIT, head)["path"], "subchains": shown}


def part(chain, head, parent, by, last):
    """A subchain at a head, which Quant `by` of its parent anchors."""
    shown = {"header": chain.quants[head]["header"].hex()}
    if by is not None:
        shown["anchor"] = anchored(chain, head, parent, by, last)
    if head:
        shown["first"] = first(chain, 0, head)
        shown["unsplit"] = unsplit(chain, head, 0) if chain.quants[head]["items"] else None
    return {name: value for name, value in shown.items() if value is not None}


def anchored(chain, head, parent, by, last):
    raw = parent.quants[by]["anchors"]
    leaves = [raw[at:at + 76] for at in range(0, len(raw), 76)]
    index = leaves.index(anchor(chain, head))
    return {"header": parent.quants[by]["header"].hex(), "index": index, "path": hexes(path(index, [leaf(a) for a in leaves])),
            "history": parent.history(by, last)["path"]}


def first(chain, index, head):
    """A transaction of the first Quant that holds some."""
    height = next(h for h, quant in enumerate(chain.quants) if quant["items"])
    quant = chain.quants[height]
    item = quant["items"][index]
    return {"envelope": item["envelope"].hex(), "payload": item["payload"].hex(), "header": quant["header"].hex(),
            "path": hexes(path(index, [leaf(i["envelope"]) for i in quant["items"]])), "history": chain.history(height, head)["path"]}


def unsplit(chain, head, index):
    quant = chain.quants[head]
    return {"meta": quant["meta"].hex(), "envelope": quant["items"][index]["envelope"].hex(),
            "path": hexes(path(index, [leaf(i["envelope"]) for i in quant["items"]]))}


def good(family):
    """name, proof, total, and of each chain below: its places, transactions, the anchoring Quant, whether it is shown not to be
    split."""
    deep = [["/0", 5, 5, True], ["/1", 3, 5, False], ["/1/0", 3, 3, True], ["/1/1", 0, None, True], ["/2", 0, None, True]]
    yield "all of them, to two depths", family.proof(), 14, deep
    yield "as of the split itself", family.proof(2, (0, 0, 0), (None,) * 3), 3, [[f"/{i}", 0, None, True] for i in range(3)]
    flat = [["/0", 2, 3, True], ["/1", 2, 3, True], ["/2", 0, None, True]]
    yield "as of an earlier head", family.proof(3, (1, 1, 0), (3, 3, None)), 7, flat
    yield "older anchors at a later head", family.proof(6, (1, 1, 0), (3, 3, None)), 7, flat
    border = [["/0", 2, 3, True], ["/1", 3, 4, False], ["/1/0", 0, None, True], ["/1/1", 0, None, True], ["/2", 0, None, True]]
    yield "a subchain at the Quant that split it", family.proof(4, (1, 2, 0), (3, 4, None)), 8, border
    unsaid = family.proof()
    del unsaid["whole"]["subchains"][0]["unsplit"]
    yield "whether one was split is left open", unsaid, 14, [["/0", 5, 5, False], *deep[1:]]


def bad(family):
    """name, the check that refuses it, proof."""
    base = family.proof()
    one, two, _ = family.parts

    def changed(change, start=base):
        proof = copy.deepcopy(start)
        change(proof["whole"]["subchains"], proof)
        return proof

    def in_first(name, value):
        return changed(lambda all, _: all[0]["first"].update({name: value}))

    def in_anchor(name, value):
        return changed(lambda all, _: all[0]["anchor"].update({name: value}))

    yield "a subchain is hidden", "whole-count", changed(lambda all, _: all.pop())
    yield "a subchain too many", "whole-count", changed(lambda all, _: all.append(all[2]))
    yield "a subchain twice", "whole-child", changed(lambda all, _: all.__setitem__(2, all[0]))
    yield "two subchains swapped", "whole-child", changed(lambda all, _: all.reverse())
    other = Chain(name="others")
    strangers = children(other, 3, other.id)
    yield "a subchain of another parent", "whole-child", changed(lambda all, _: all.__setitem__(2, part(strangers[2], 0, other, None, 0)))
    yield "a subchain below is hidden", "whole-count", changed(lambda all, _: all[1]["split"]["subchains"].pop())
    yield "a subchain below in place of one", "whole-child", changed(lambda all, _: all.__setitem__(2, all[1]["split"]["subchains"][1]))
    yield "a split below is hidden", "whole-split", changed(lambda all, _: all[1].pop("split"))
    border = family.proof(4, (1, 2, 0), (3, 4, None))

    def as_leaf(all, _):
        del all[1]["split"]
        all[1]["unsplit"] = unsplit(two, 2, 0)
    yield "the Quant of a split below as that of a chain that is not split", "whole-split", changed(as_leaf, border)
    yield "a tombstone to show that a chain is not split", "whole-split", changed(lambda all, _: all[0].update(unsplit=unsplit(one, 2, 2)))
    yield "a transaction of an earlier Quant to show it", "envelope-index", changed(
        lambda all, _: all[0]["unsplit"].update(envelope=all[0]["first"]["envelope"]))
    yield "the meta of another Quant to show it", "meta-hash", changed(lambda all, _: all[0]["unsplit"].update(
        meta=(SEALED_BY[:-1] + b"\2").hex()))
    yield "split, and not split", "grammar", changed(lambda all, _: all[1].update(unsplit=all[0]["unsplit"]))
    yield "no anchor", "whole-anchor", changed(lambda all, _: all[0].pop("anchor"))
    yield "an anchor of a genesis", "whole-anchor", changed(lambda all, _: all[2].update(anchor=all[0]["anchor"]))
    foreign = Chain(name="foreign")
    foreign.leap([], anchors=[anchor(one, 2)])
    foreign.leap([])
    yield "an anchor of a strange chain", "whole-anchor", changed(lambda all, _: all[0].update(anchor=anchored(one, 2, foreign, 1, 2)))
    early = Family(early=True)
    empty = {"header": early.parts[0].quants[1]["header"].hex(), "anchor": anchored(early.parts[0], 1, early.top, 1, 6)}
    yield "an anchor before the split", "whole-anchor", changed(
        lambda all, _: all.__setitem__(0, empty), early.proof(6, (0, 1, 0), (None, 3, None)))
    yield "another subchain's anchor", "inclusion-root", changed(lambda all, _: all[0].update(anchor=all[1]["anchor"]))
    yield "another place among the anchors", "inclusion-root", in_anchor("index", 1 - base["whole"]["subchains"][0]["anchor"]["index"])
    yield "a place beyond the anchors", "inclusion-index", in_anchor("index", 2)
    yield "an older head under a newer one's anchor", "inclusion-root", changed(
        lambda all, _: all[0].update(header=one.quants[1]["header"].hex()))
    yield "the anchoring Quant is cut off", "inclusion-path", in_anchor("history", [])
    yield "a longer way from the anchoring Quant", "inclusion-path", in_anchor("history", base["whole"]["subchains"][0]["anchor"]["history"] + ["00" * 32])
    later = family.proof(5, (2, 3, 0), (5, 5, None))
    yield "a way where none is needed", "path-length", changed(lambda all, _: all[0]["anchor"].update(history=["00" * 32]), later)
    yield "no first transaction", "whole-start", changed(lambda all, _: all[0].pop("first"))
    yield "a later transaction as the first", "whole-start", changed(lambda all, _: all[0].update(first=first(one, 1, 2)))
    late = Family(begin=lambda top: [])
    yield "a subchain that begins with data", "whole-start", late.proof()
    blank = Family(begin=lambda top: [(*claim(top)[:1], record(2, b"i"), None, 5)])
    yield "a first transaction with attributes", "whole-start", blank.proof()
    salted = Family(begin=lambda top: [(*claim(top)[:1], b"", bytes([7] * 32), 5)])
    yield "a first transaction with a salt", "whole-start", salted.proof()
    elsewhere = Family(begin=lambda top: [claim(top, 1)])
    yield "a subchain that begins with another Quant of its parent", "whole-claim", elsewhere.proof()
    cut = Family(begin=lambda top: [(claim(top)[0][:-1], b"", None, 5)])
    yield "a first transaction that is cut", "claim-format", cut.proof()
    yield "another subchain's first transaction", "envelope-chain", changed(lambda all, _: all[1]["first"].update(
        {name: all[0]["first"][name] for name in ("envelope", "payload")}))
    yield "another payload", "payload-hash", in_first("payload", "02" + base["whole"]["subchains"][0]["first"]["payload"][2:])
    yield "a longer payload", "payload-length", in_first("payload", base["whole"]["subchains"][0]["first"]["payload"] + "00")
    yield "a Quant that splits nothing", "whole-split", changed(lambda _, p: (
        p["whole"].update(header=family.top.quants[1]["header"].hex(), meta=family.top.quants[1]["meta"].hex()),
        p.update(steps=[family.top.history(1, 6)])))
    yield "another meta", "meta-hash", changed(lambda _, p: p["whole"].update(meta=p["whole"]["meta"][:-2] + "00"))
    yield "a shorter meta", "meta-length", changed(lambda _, p: p["whole"].update(meta=p["whole"]["meta"][:-2]))
    yield "the split of another chain", "neighbour-hash", changed(lambda _, p: p.update(steps=[{**p["steps"][0], "header": two.quants[3]["header"].hex()}]))
    yield "two steps", "grammar", changed(lambda _, p: p["steps"].append(p["steps"][0]))
    yield "borders", "grammar", changed(lambda _, p: p["steps"][0].update(borders=[p["steps"][0]["header"]]))
    yield "an anchor as a step", "grammar", changed(lambda all, p: p.update(steps=[{
        "link": "anchor", **{n: all[0]["anchor"][n] for n in ("header", "index", "path")}}]))
    yield "no whole", "field", changed(lambda _, p: p.pop("whole"))
    yield "subchains that are no list", "field", changed(lambda _, p: p["whole"].update(subchains={}))
    yield "an anchor that is null", "field", changed(lambda all, _: all[2].update(anchor=None))
    yield "an anchor without a way", "field", changed(lambda all, _: all[0]["anchor"].pop("history"))
    yield "a split without a way", "field", changed(lambda all, _: all[1]["split"].pop("history"))
    for what, place in (("whole", lambda all, p: p["whole"]), ("subchain", lambda all, p: all[2]), ("anchor", lambda all, p: all[0]["anchor"]),
                        ("first transaction", lambda all, p: all[0]["first"]), ("split below", lambda all, p: all[1]["split"]),
                        ("unsplit", lambda all, p: all[0]["unsplit"])):
        yield f"a field of the {what} too many", "unknown-field", changed(lambda all, p, place=place: place(all, p).update(note="00"))


def packed(value, strings):
    """Long strings once: `$n` stands for the n-th."""
    if isinstance(value, dict):
        return {name: packed(v, strings) for name, v in value.items()}
    if isinstance(value, list):
        return [packed(v, strings) for v in value]
    if isinstance(value, str) and len(value) >= 64:
        return f"${strings.setdefault(value, len(strings))}"
    return value


def main():
    family, strings = Family(), {}
    cases = {"good": [{"name": n, "total": t, "below": b, "proof": packed(p, strings)} for n, p, t, b in good(family)],
             "bad": [{"name": n, "check": c, "proof": packed(p, strings)} for n, c, p in bad(family)]}
    print(json.dumps({
        "about": "Proofs of the whole of a chain that is split: made by tests/vectors/make_whole.py. $n is the n-th of strings.",
        "chain_id": family.top.id.hex(), **cases, "strings": list(strings),
    }, indent=1))


if __name__ == "__main__":
    main()
