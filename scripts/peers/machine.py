"""What the machine does: its disk's fdatasync, how busy it is, and what it is."""

import os
import pathlib
import platform
import statistics
import time

PROBE_S = 0.25
PROBE_BYTES = 4096
# Share of the cores in use below which the machine counts as quiet.
QUIET = 0.15


def probe(folder):
    """Microseconds of an fdatasync after 4 KiB appended, again and again for a moment."""
    path = pathlib.Path(folder) / "probe.tmp"
    times, block = [], b"\x51" * PROBE_BYTES
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        until = time.perf_counter() + PROBE_S
        while time.perf_counter() < until:
            os.write(file, block)
            begun = time.perf_counter()
            os.fdatasync(file)
            times.append((time.perf_counter() - begun) * 1e6)
    finally:
        os.close(file)
        path.unlink()
    times.sort()
    return {"p50_us": round(statistics.median(times)), "p99_us": round(times[int(len(times) * 0.99)])}


def wait_until_quiet(seconds_max):
    """Waits, not longer than that, until hardly a core is used; the share that is."""
    until = time.monotonic() + seconds_max
    while True:
        share = busy_share(0.25)
        if share < QUIET or time.monotonic() > until:
            return round(share, 2)


def busy_share(seconds):
    def used():
        fields = [int(word) for word in open("/proc/stat").readline().split()[1:9]]
        idle = fields[3] + fields[4]
        return sum(fields) - idle, sum(fields)

    before = used()
    time.sleep(seconds)
    after = used()
    return (after[0] - before[0]) / max(1, after[1] - before[1])


def described(folder):
    """One line: processor, cores, memory, kernel, file system."""
    lines = open("/proc/cpuinfo").read().splitlines()
    models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    lanes = "with" if any(line.startswith("flags") and " avx512f" in line for line in lines) else "without"
    memory = int(open("/proc/meminfo").readline().split()[1]) / (1 << 20)
    return (f"{os.cpu_count()} cores of {models[0] if models else platform.machine()}, {lanes} AVX-512, {memory:.1f} GiB, "
            f"Linux {platform.release()}, {file_system(folder)}, {time.strftime('%Y-%m-%d', time.gmtime())}")


def file_system(folder):
    mounts = [line.split() for line in open("/proc/mounts")]
    path = str(pathlib.Path(folder).resolve())
    holding = [(len(mount[1]), mount[2]) for mount in mounts if path.startswith(mount[1])]
    return max(holding)[1] if holding else "an unknown file system"
