"""The results as Markdown: who was measured and how, medians with ratios to QBC, what was asked for."""

import re
import statistics

from peers.peer import BATCHES, SINGLE

OURS = "QBC inject"
# Rates that QBC is asked to reach: the peer's way, the cells, the least ratio.
ASKED = (
    ("PostgreSQL INSERT", ((64, 1),), 1.0),
    ("etcd put", ((64, 1),), 1.0),
    ("JetStream publish", ((64, 1),), 1.0),
    ("UmaDB append", ((64, 1),), 1.0),
    ("PostgreSQL INSERT of 1000 rows", BATCHES, 1.0),
    ("PostgreSQL COPY of 1000 rows", BATCHES, 1.0),
    ("Redis XADD, pipelines of 1000", BATCHES, 0.7),
    ("immudb Set of 1000", BATCHES, 5.0),
    ("immudb Set of 1000, keys spread", BATCHES, 5.0),
)


def whole(cells, proofs, missing):
    """All of it, as text."""
    parts = [ways(proofs, missing), figures(cells), asked(cells), disk(cells)]
    failed = dict.fromkeys((cell["who"], reason(cell["error"])) for cell in cells if "error" in cell)
    parts += [f"Failed: {who}: {error}." for who, error in failed]
    return "\n\n".join(parts)


def reason(error):
    """What a status says, without what comes with it and is another each time."""
    found = re.search(r'message: "([^"]*)"', error)
    return found.group(1) if found else error


def ways(proofs, missing):
    head = "| who | version | layer | synced before the answer | syncs seen / requests, one caller | index awaited | replica's answer | proof |"
    rows = [head, rule(head)]
    for one in proofs:
        seen = one.get("error") or f"{one['syncs']:,} / {one['requests']:,}{'' if one['proved'] else ' (NOT PROVED)'}"
        synced = f"{one['fsync']}; read back: {one['setting']}" if one["setting"] else one["fsync"]
        rows.append(row(one["who"], one["version"], one["layer"], synced, seen, one["index_wait"], one["replica_ack"], one["proof"]))
    rows += [row(name, "", "", "", f"not installed: {why}", "", "", "") for name, why in missing.items()]
    return "\n".join(rows)


def figures(cells):
    head = "| clients x batch | who | transactions/s | p50/p99 us | rate, QBC to it | p50, QBC to it |"
    rows = [head, rule(head)]
    for shape in SINGLE + BATCHES:
        for who in dict.fromkeys(cell["who"] for cell in cells if shape_of(cell) == shape):
            mine = good(cells, who, shape)
            name = f"{shape[0]} x {shape[1]}"
            if not mine:
                rows.append(row(name, who, "failed", "", "", ""))
                continue
            rate, p50, p99 = (statistics.median(cell[key] for cell in mine) for key in ("transactions_per_s", "p50_us", "p99_us"))
            ratios = [shown(ratio(cells, who, shape, key)) for key in ("transactions_per_s", "p50_us")]
            rows.append(row(name, who, f"{rate:,.0f}", f"{p50:,.0f}/{p99:,.0f}", *ratios))
    return "\n".join(rows)


def asked(cells):
    head = "| asked | measured | |"
    rows = [head, rule(head)]
    for who, shapes, least in ASKED:
        for shape in shapes:
            measured = ratio(cells, who, shape, "transactions_per_s")
            what = f"{shape[0]} x {shape[1]}: at least {least:g}x of {who}"
            verdict = "not measured" if measured is None else "held" if measured >= least else "missed"
            rows.append(row(what, f"{shown(measured)}x" if measured else "", verdict))
    return "\n".join(rows)


def disk(cells):
    probes = [cell[when]["p50_us"] for cell in cells for when in ("fdatasync_probe_before", "fdatasync_probe_after") if when in cell]
    busy = [cell["busy_before"] for cell in cells if "busy_before" in cell]
    if not probes:
        return "No cell was measured."
    return (f"fdatasync probe over all cells: median {statistics.median(probes):.0f} us, least {min(probes)}, most {max(probes)}; "
            f"share of the cores in use before a cell: median {statistics.median(busy):.2f}, most {max(busy):.2f}")


def ratio(cells, who, shape, key):
    """The median over the rounds of QBC's figure by theirs in the same round; None if no round has both."""
    ours = {cell["round"]: cell[key] for cell in good(cells, OURS, shape)}
    both = [ours[cell["round"]] / cell[key] for cell in good(cells, who, shape) if cell["round"] in ours and cell[key]]
    return statistics.median(both) if both else None


def good(cells, who, shape):
    return [cell for cell in cells if cell["who"] == who and shape_of(cell) == shape and "error" not in cell]


def shape_of(cell):
    return cell["clients"], cell["batch"]


def shown(value):
    return "" if value is None else f"{value:.2f}"


def row(*words):
    return f"| {' | '.join(str(word) for word in words)} |"


def rule(head):
    return "|" + "---|" * (head.count("|") - 1)
