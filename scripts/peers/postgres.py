"""PostgreSQL: one row per commit, a thousand in one INSERT, a thousand in one COPY."""

import os
import pathlib
import shutil
import signal
import subprocess

from peers import install
from peers.peer import BATCHES, SINGLE, Peer, Way, own_load, run, words_of
from peers.server import Server, free_port

TABLE = "create table log(seq bigint generated always as identity primary key, payload bytea not null)"
# Memory and checkpoints as a server of this kind would have them: none falls into a cell.
SETTINGS = {"listen_addresses": "127.0.0.1", "fsync": "on", "synchronous_commit": "on", "shared_buffers": "1GB",
            "max_wal_size": "8GB", "max_connections": "300", "logging_collector": "off"}
READY = "ready to accept connections"


class Postgres(Peer):
    name = "PostgreSQL"
    fsync = "fsync=on, synchronous_commit=on"

    def install(self):
        # Without this the package makes and starts a cluster of its own.
        common = pathlib.Path("/etc/postgresql-common/createcluster.conf")
        if not list(pathlib.Path("/usr/lib/postgresql").glob("*/bin/postgres")) and os.geteuid() == 0:
            common.parent.mkdir(parents=True, exist_ok=True)
            with open(common, "a", encoding="utf-8") as conf:
                conf.write("create_main_cluster = false\n")
            install.debian("pg_ctlcluster", "postgresql")
        # The wrappers on the PATH look for clusters; the programs themselves stand in a folder with the version's name.
        found = sorted(pathlib.Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda path: int(path.parts[-3]))
        beside = shutil.which("postgres")
        if not found and not beside:
            raise install.Missing("no postgres is there: install the package postgresql")
        self.bin = found[-1].parent if found else pathlib.Path(beside).resolve().parent
        self.program = install.load()

    def version(self):
        return words_of([self.bin / "postgres", "--version"], 2)

    def as_user(self, *command):
        """It refuses to run as root."""
        rights = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"] if os.geteuid() == 0 else []
        return [*rights, *[str(word) for word in command]]

    def start(self, folder):
        port, folder = free_port(), pathlib.Path(folder)
        folder.chmod(0o755)
        data = folder / "data"
        self.new_data(data)
        options = [word for key, value in SETTINGS.items() for word in ("-c", f"{key}={value}")]
        command = self.as_user(self.bin / "postgres", "-D", data, "-p", port, "-k", data, *options)
        environment = {"PGHOST": "127.0.0.1", "PGPORT": str(port), "PGUSER": "postgres", "PGDATABASE": "postgres"}
        # SIGQUIT: at once, without a checkpoint.
        server = Server(command, folder, port, signal.SIGQUIT, environment, READY)
        try:
            self.sql(server, TABLE)
        except BaseException:
            server.stop()
            raise
        return server

    def new_data(self, data):
        data.mkdir()
        if os.geteuid() == 0:
            shutil.chown(data, "postgres", "postgres")
        command = self.as_user(self.bin / "initdb", "-D", data, "-A", "trust", "-U", "postgres", "--no-sync")
        subprocess.run(command, check=True, capture_output=True, cwd=data)

    def sql(self, server, query):
        command = [self.bin / "psql", "-X", "-q", "-A", "-t", "-c", query]
        return run(command, 20, environment=server.environment).strip()

    def setting(self, server):
        names = ("fsync", "synchronous_commit", "wal_sync_method")
        return ", ".join(f"{name}={self.sql(server, f'show {name}')}" for name in names)

    def ways(self):
        layer, index = "wire, own client", "yes, primary key in the commit"
        insert, copy = (own_load(lambda: self.program, f"postgres-{how}") for how in ("insert", "copy"))
        return [Way("PostgreSQL INSERT", SINGLE, insert, layer, index),
                Way("PostgreSQL INSERT of 1000 rows", BATCHES, insert, layer, index),
                Way("PostgreSQL COPY of 1000 rows", BATCHES, copy, layer, index)]
