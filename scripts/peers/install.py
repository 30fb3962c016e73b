"""Brings the peers onto this machine: Debian packages, else built from source with cargo and go into a cache folder.

Nothing is built twice: what is in the cache under its version is used again."""

import functools
import os
import pathlib
import shutil
import subprocess
import sys

LOAD = pathlib.Path(__file__).parent / "load"
BUILD_S_MAX = 1800


class Missing(Exception):
    """A peer that cannot be installed; the text says why."""


def cache():
    """Where built peers are kept, outside of the checkout."""
    base = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
    folder = pathlib.Path(os.environ.get("QBC_PEERS_CACHE") or pathlib.Path(base) / "qbc-peers")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def debian(program, *packages):
    """The path of a program that Debian packages bring; its service is not started by the installation."""
    if not shutil.which(program):
        if not shutil.which("apt-get"):
            raise Missing(f"{program} is not there, nor apt-get: install {' and '.join(packages)}")
        rights = [] if os.geteuid() == 0 else ["sudo"]
        # Run level 1: the packages' scripts start no service then.
        quiet = ["env", "DEBIAN_FRONTEND=noninteractive", "RUNLEVEL=1"]
        run([*rights, "apt-get", "update", "-qq"])
        run([*rights, *quiet, "apt-get", "install", "-y", "-qq", "--no-install-recommends", *packages])
    found = shutil.which(program)
    if not found:
        raise Missing(f"{' and '.join(packages)} brought no {program}")
    return found


def cargo(program, crate, version):
    """The path of a program that `cargo install` builds."""
    root = cache() / f"{program}-{version}"
    built = root / "bin" / program
    if not built.exists():
        need("cargo", "Rust 1.90 or newer")
        run(["cargo", "install", "--locked", "--root", str(root), f"{crate}@{version}"])
    return str(built)


def go(program, module, version, package=None, replaced=None):
    """The path of a program that go builds out of a module, in a module of its own: one with replacements, which are
    repeated here, cannot be installed by its name."""
    root = cache() / f"{program}-{version}"
    built = root / program
    if not built.exists():
        need("go", "Go 1.25 or newer")
        root.mkdir(exist_ok=True)
        if not (root / "go.mod").exists():
            run(["go", "mod", "init", "peer"], root)
        for old, new in (replaced or {}).items():
            run(["go", "mod", "edit", "-replace", f"{old}={new}"], root)
        package = package or module
        run(["go", "get", f"{package}@{version}"], root)
        run(["go", "build", "-mod=mod", "-o", program, package], root)
    return str(built)


@functools.cache
def load():
    """The path of the load generator for peers that bring no lean one of their own."""
    need("cargo", "Rust 1.90 or newer")
    target = cache() / "load"
    run(["cargo", "build", "--release", "--locked", "--quiet", "--manifest-path", str(LOAD / "Cargo.toml"),
         "--target-dir", str(target)])
    return str(target / "release" / "qbc-peer-load")


def need(program, what):
    if not shutil.which(program):
        raise Missing(f"{what} is needed to build it, and {program} is not there")


def run(command, folder=None):
    print(f"installing: {' '.join(command)}", file=sys.stderr, flush=True)
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=BUILD_S_MAX, check=False)
    except (OSError, subprocess.TimeoutExpired) as failed:
        raise Missing(str(failed)) from failed
    if done.returncode:
        lines = (done.stderr.strip() or done.stdout.strip() or "no word why").splitlines()
        errors = [line.strip() for line in lines if line.lower().lstrip().startswith(("error", "e:"))]
        raise Missing(f"{' '.join(command[:3])}: {(errors or lines[-1:])[0]}")
