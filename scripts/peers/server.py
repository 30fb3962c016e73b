"""A peer's process: a free port, a folder, its begin and its end, and what it syncs."""

import os
import pathlib
import signal
import socket
import subprocess
import time

START_S_MAX = 30
END_S_MAX = 20
# The calls of Linux that return when written bytes are durable.
SYNCS = "fsync,fdatasync,msync,sync,syncfs"


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


class Server:
    """One server on 127.0.0.1, ended by its own process id.

    `ready` is what its log says when it serves, for one that opens its port before."""

    def __init__(self, command, folder, port, end=signal.SIGTERM, environment=None, ready=""):
        self.folder, self.port, self.end, self.ready = pathlib.Path(folder), port, end, ready
        self.log = self.folder / "server.log"
        self.environment = {**os.environ, **(environment or {})}
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(
                [str(word) for word in command], cwd=folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                env=self.environment, start_new_session=True,
            )
        try:
            self.wait_until_ready()
        except BaseException:
            self.stop()
            raise

    def wait_until_ready(self):
        until = time.monotonic() + START_S_MAX
        while time.monotonic() < until:
            if self.process.poll() is not None:
                raise RuntimeError(f"the server ended while it started: {self.last_words()}")
            if self.is_open() and self.ready in self.log.read_text(errors="replace"):
                return
            time.sleep(0.05)
        raise RuntimeError(f"the server does not serve after {START_S_MAX} s: {self.last_words()}")

    def is_open(self):
        try:
            socket.create_connection(("127.0.0.1", self.port), 1).close()
            return True
        except OSError:
            return False

    def last_words(self):
        lines = self.log.read_text(errors="replace").strip().splitlines()
        return " ".join(lines[-3:])[-500:] or "it said nothing"

    def stop(self):
        if self.process.poll() is None:
            self.process.send_signal(self.end)
            try:
                self.process.wait(END_S_MAX)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()

    def pids(self):
        """The server's process and those that it started."""
        found, waiting = [], [self.process.pid]
        while waiting:
            pid = waiting.pop()
            found.append(pid)
            for task in pathlib.Path(f"/proc/{pid}/task").glob("*/children"):
                waiting += [int(child) for child in task.read_text().split()]
        return found


class Syncs:
    """Counts a server's syncs under strace, from `with` to its end."""

    def __init__(self, server):
        self.server, self.count = server, 0
        self.report = server.folder / "strace"

    def __enter__(self):
        pids = [word for pid in self.server.pids() for word in ("-p", str(pid))]
        command = ["strace", "-f", "-c", "-e", f"trace={SYNCS}", "-o", str(self.report), *pids]
        self.words = open(self.server.folder / "strace.log", "w+b")
        self.process = subprocess.Popen(command, stdout=self.words, stderr=self.words)
        until = time.monotonic() + START_S_MAX
        while b"attached" not in pathlib.Path(self.words.name).read_bytes():
            if self.process.poll() is not None or time.monotonic() > until:
                self.stop()
                raise RuntimeError(f"strace does not attach: {pathlib.Path(self.words.name).read_text().strip()}")
            time.sleep(0.05)
        # All threads are attached one after the other.
        time.sleep(0.3)
        return self

    def __exit__(self, *_):
        self.stop()
        lines = self.report.read_text().splitlines() if self.report.exists() else []
        rows = [line.split() for line in lines]
        calls = set(SYNCS.split(","))
        self.count = sum(int(row[3]) for row in rows if len(row) >= 5 and row[-1] in calls)

    def stop(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
            self.process.wait()
        self.words.close()
