#!/usr/bin/env python3
"""QBC and its peers in one run: the same payloads, clients and disk, each answer after its sync, cells taking turns.

Usage: bench-peers.py [--qbc BINARY] [--rounds N] [--seconds S] [--only NAME,NAME] [--cells 4x1000,16x1000]
[--install-only]. Each cell starts a server with fresh data on 127.0.0.1, ends it by its own process id and leaves nothing; the
probe of fdatasync runs before and after it. First each way to write is watched under strace: one caller, and not fewer syncs
than answers. Peers that are not there are installed (scripts/peers/install.py); one that cannot be is named in the result and
stops nobody. Prints a JSON line for each way and cell, then tables in Markdown; progress goes to stderr."""

import argparse
import json
import os
import pathlib
import shutil
import signal
import sys
import tempfile
import time

from peers import install, machine, table
from peers.etcd import Etcd
from peers.immudb import ImmuDb
from peers.nats import Nats
from peers.peer import BATCHES, SINGLE
from peers.postgres import Postgres
from peers.qbc import Qbc
from peers.redis import Redis
from peers.server import Syncs
from peers.umadb import UmaDb

CELLS = {f"{clients}x{batch}": (clients, batch) for clients, batch in SINGLE + BATCHES}
PEERS = (Postgres, Redis, Etcd, Nats, UmaDb, ImmuDb)
SHIPPED = pathlib.Path(__file__).parent.parent / "target" / "dist" / "qbc"
# Of the look at syncs: strace slows what it watches.
WATCHED_S = 1


def main():
    # Ended from outside, it still ends its servers.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    options = arguments()
    peers, missing = installed(options)
    if options.install_only:
        for name, why in missing.items():
            say(f"{name} cannot be installed: {why}")
        return 1 if missing else 0
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="qbc-peers-", dir=options.data) as room:
        os.chmod(room, 0o755)
        ways = [(peer, way) for peer in peers for way in peer.ways() if set(way.shapes) & set(options.cells)]
        proofs = [emit(watched(room, peer, way)) for peer, way in ways]
        cells = [emit(cell) for number in range(options.rounds) for cell in one_round(room, ways, number, options)]
        print(f"\n{machine.described(room)}; {options.rounds} rounds of {options.seconds:g} s a cell, medians\n")
        print(table.whole(cells, proofs, missing))
    say(f"done after {(time.monotonic() - began) / 60:.1f} minutes")
    return 0


def arguments():
    parser = argparse.ArgumentParser(description="QBC and its peers in one run")
    parser.add_argument("--qbc", default=SHIPPED, metavar="BINARY", help="the program, a release build")
    parser.add_argument("--rounds", type=int, default=5, metavar="N")
    parser.add_argument("--seconds", type=float, default=2, metavar="S", help="measured seconds of a cell, 1 at least")
    parser.add_argument("--warmup", type=float, default=0.5, metavar="S", help="seconds before them that do not count")
    parser.add_argument("--quiet", type=float, default=3, metavar="S", help="longest wait before a cell for a quiet machine")
    parser.add_argument("--only", default="", metavar="NAMES", help=f"of {', '.join(peer.name for peer in PEERS)}; QBC runs in any case")
    parser.add_argument("--cells", default="", metavar="CELLS", help=f"of {', '.join(CELLS)}, clients and transactions per request [default: all]")
    parser.add_argument("--data", default=None, metavar="FOLDER", help="where the data goes, of all alike [default: TMPDIR]")
    parser.add_argument("--install-only", action="store_true", help="install what is missing and measure nothing")
    options = parser.parse_args()
    known, asked = {peer.name for peer in PEERS}, {name for name in options.only.split(",") if name}
    if not asked <= known:
        parser.error(f"--only: {', '.join(sorted(asked - known))} is not one of {', '.join(sorted(known))}")
    if options.rounds < 1 or options.seconds < 1:
        parser.error("--rounds and --seconds must be at least 1")
    if not options.install_only and not os.access(options.qbc, os.X_OK):
        parser.error(f"--qbc: {options.qbc} is not a program: build it with `cargo build --release`, or name another")
    if not options.install_only and not shutil.which("strace"):
        parser.error("strace is missing: install it, the syncs of each peer are counted with it")
    options.only = asked or known
    cells = [cell for cell in options.cells.split(",") if cell] or list(CELLS)
    if not set(cells) <= CELLS.keys():
        parser.error(f"--cells: {options.cells} is not of {', '.join(CELLS)}")
    options.cells = [CELLS[cell] for cell in cells]
    return options


def installed(options):
    """Those that can be measured, QBC first, and why the others cannot."""
    peers, missing = [Qbc(options.qbc)], {}
    for kind in PEERS:
        if kind.name not in options.only:
            continue
        peer = kind()
        try:
            peer.install()
            say(f"{peer.name} {peer.version()}")
            peers.append(peer)
        except (install.Missing, OSError) as why:
            missing[peer.name] = str(why)
    return peers, missing


def watched(room, peer, way):
    """What its setting says, and how many syncs one caller's requests made: each answer must have had one."""
    result = {**labels(peer, way), "setting": "", "proved": False}
    say(f"syncs of {way.name}")
    with tempfile.TemporaryDirectory(dir=room) as folder:
        try:
            server = peer.start(folder)
            try:
                result["setting"] = peer.setting(server)
                with Syncs(server) as syncs:
                    done = way.load(server, 1, way.shapes[0][1], 0, WATCHED_S)
            finally:
                server.stop()
            seen = {"requests": done["requests"], "syncs": syncs.count, "proved": 0 < done["requests"] <= syncs.count}
            return {**result, **seen}
        except Exception as failed:  # A peer that fails stops nobody.
            return {**result, "error": f"failed: {one_line(failed)}"}


def one_round(room, ways, number, options):
    """Each cell once, QBC first in each shape; who comes next changes with the round."""
    for shape in options.cells:
        able = [(peer, way) for peer, way in ways if shape in way.shapes]
        others = able[1:]
        turn = number % max(1, len(others))
        for peer, way in able[:1] + others[turn:] + others[:turn]:
            cell = {**labels(peer, way), "round": number + 1, "clients": shape[0], "batch": shape[1]}
            try:
                cell |= measured(room, peer, way, shape, options)
            except Exception as failed:
                cell["error"] = one_line(failed)
            told = cell.get("error") or f"{cell['transactions_per_s']:,.0f}/s, {cell['p50_us']:,}/{cell['p99_us']:,} us"
            say(f"round {number + 1}/{options.rounds}, {shape[0]} x {shape[1]}, {way.name}: {told}")
            yield cell


def measured(room, peer, way, shape, options):
    with tempfile.TemporaryDirectory(dir=room) as folder:
        server = peer.start(folder)
        try:
            # What starting wrote must not be written during the cell.
            os.sync()
            busy = machine.wait_until_quiet(options.quiet)
            before = machine.probe(folder)
            figures = way.load(server, *shape, options.warmup, options.seconds)
            after = machine.probe(folder)
        finally:
            server.stop()
    return {**figures, "busy_before": busy, "fdatasync_probe_before": before, "fdatasync_probe_after": after}


def labels(peer, way):
    return {"who": way.name, "version": peer.version(), "layer": way.layer, "fsync": peer.fsync, "index_wait": way.index_wait,
            "replica_ack": way.replica_ack, "proof": way.proof}


def emit(result):
    print(json.dumps(result), flush=True)
    return result


def one_line(failed):
    return " ".join(str(failed).split())[:300] or type(failed).__name__


def say(text):
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
