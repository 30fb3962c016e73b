"""The claim `whole`: docs/FORMAT.md section 11, The whole of a split. Python 3, nothing else."""

from forms import parse_envelope, parse_header, parse_meta
from strict_json import array, fields, hashes, integer, need, unhex
from subchain import evidence
from verifier import H, anchor_link, history_link, quant_link


def shown(subject, steps):
    """The headers met, the last header at their end, and what may be said of the chain."""
    split = parse_header(unhex(fields(subject, ("header", "meta", "subchains"))[0]))
    headers = [split]
    for step in array(steps):
        need(len(headers) == 1 and isinstance(step, dict) and step.get("link") == "history", "grammar")
        _, header, path, borders = fields(step, ("link", "header", "path", "borders"))
        need(borders == [], "grammar", "the chain's own history has no borders")
        headers.append(parse_header(unhex(header)))
        history_link(split, headers[1], hashes(path))
    last, met = headers[-1], []
    told = subchains(subject, split, last, met)
    return [*headers[:-1], *met, last], {"split_height": split.height, "whole": told["total"], "subchains": told["below"]}


def subchains(subject, split, last, met):
    _, meta, parts = fields(subject, ("header", "meta", "subchains"))
    route = parse_meta(split, unhex(meta)).get(5)
    need(route is not None, "whole-split", "it splits nothing")
    ids, parts = [route[at:at + 32] for at in range(4, len(route), 32)], array(parts)
    need(len(ids) == len(parts), "whole-count", f"{len(ids)} subchains, {len(parts)} shown")
    total, below = last.tx_start + last.tx_count, []
    for place, (child, part) in enumerate(zip(ids, parts)):
        one = subchain(part, child, split, last, met)
        total += one["total"]
        below += [(f"/{place}", one["transactions"])] + [(f"/{place}{name}", count) for name, count in one["below"]]
    need(total < 1 << 64, "header-sum")
    return {"total": total, "below": below}


def subchain(part, child, split, last, met):
    header, *more = fields(part, ("header",), ("anchor", "first", "split", "unsplit"))
    need(None not in part.values(), "field", "null")
    anchor, first, below, unsplit = more
    need(below is None or unsplit is None, "grammar", "split, and not")
    head = parse_header(unhex(header))
    met.append(head)
    need(head.id == child, "whole-child", "not the one of the route")
    need(head.genesis == (anchor is None), "whole-anchor", "a first Quant has no anchor, each other one has")
    if anchor is not None:
        anchored(anchor, head, split, last, met)
    count = head.tx_start + head.tx_count
    need(first is not None or count == 0, "whole-start", "the first transaction is not shown")
    if first is not None:
        begins(first, head, split, met)
    told = {"total": count, "below": [], "transactions": count}
    if below is not None:
        history = below.get("history") if isinstance(below, dict) else None
        need(history is not None, "field", "history")
        below = {name: value for name, value in below.items() if name != "history"}
        own = parse_header(unhex(fields(below, ("header", "meta", "subchains"))[0]))
        met.append(own)
        held(own, head, hashes(history))
        return told | subchains(below, own, head, met)
    need(unsplit is not None or head.anchor_count == 0, "whole-split", "it anchors what is not shown")
    if unsplit is not None:
        meta, envelope, path = fields(unsplit, ("meta", "envelope", "path"))
        need(5 not in parse_meta(head, unhex(meta)), "whole-split", "it is split by this Quant")
        e = parse_envelope(unhex(envelope))
        need(e.type not in (1, 2), "whole-split", "a chain that is split seals these too")
        quant_link(e, head, hashes(path))
    return told


def anchored(anchor, head, split, last, met):
    header, index, path, history = fields(anchor, ("header", "index", "path", "history"))
    quant = parse_header(unhex(header))
    met.append(quant)
    anchor_link(head, quant, integer(index), hashes(path))
    need(quant.id == split.id, "whole-anchor", "by another chain")
    need(quant.height > split.height, "whole-anchor", "before the split")
    held(quant, last, hashes(history))


def begins(first, head, split, met):
    envelope, payload, header, path, history = fields(first, ("envelope", "payload", "header", "path", "history"))
    e, payload, quant = parse_envelope(unhex(envelope)), unhex(payload), parse_header(unhex(header))
    need(e.index == 0 and e.type == 5 and not e.salted and not any(e.attributes_hash), "whole-start", "not the split")
    met.append(quant)
    quant_link(e, quant, hashes(path))
    held(quant, head, hashes(history))
    need(len(payload) == e.payload_len, "payload-length")
    need(H(quant.alg, payload) == e.payload_hash, "payload-hash")
    need(evidence(payload)[0] == split.raw, "whole-claim", "another Quant than the one that split the parent")


def held(quant, later, path):
    """The one is the other, or lies in its history."""
    if quant.raw == later.raw:
        need(not path, "path-length", "the last one needs no path")
    else:
        history_link(quant, later, path)
