"""How long the slowest requests take: while nothing else happens, beside a writer, and while the host's disk fills up.

The request is a forced statx, which no cache answers. Beside a writer means: another process writes files without
pause, and takes a snapshot now and then where the target can, so that whatever the target does in the background
(HeliosFS: the sealer) is at work. Filling the disk is a `dd` of a few GiB, with fsync, outside of the targets.
"""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.report import Report
from benchmarks.run import Options
from benchmarks.statx import forced_statx
from benchmarks.targets import Target, mounted

_WRITER = """
import os, sys
directory, data, number = sys.argv[1], os.urandom(1 << 20), 0
can_snapshot = os.path.isdir(directory + "/.snapshots")
while True:
    with open(f"{directory}/written{number % 200}", "wb", buffering=0) as file:
        file.write(data[number % 1000:number % 1000 + 65536])
    number += 1
    if can_snapshot and number % 500 == 0:
        os.mkdir(f"{directory}/.snapshots/writer{number}")
"""


def measure(options: Options) -> None:
    """Print median, p95 and p99; p99.9 is in the JSON and in a table of its own."""
    count, gibibytes = (5_000, 0.5) if options.quick else (50_000, 3.0)
    report = Report("latency", "µs", options.json_file)
    with mounted(options.targets, options.scratch) as targets:
        for target in targets:
            (target.path / "file").touch()
        for target in targets:
            report.add("idle", target.name, forced_statx(target.path / "file", count))
        for target in targets:
            with _writing(target):
                report.add("beside a writer", target.name, forced_statx(target.path / "file", count))
        with _filling(options.scratch, gibibytes) as fills:
            # In short turns, so that each target has its share of the time that the disk is busy.
            rounds = 0
            while rounds == 0 or (fills() and rounds < 1000):
                for target in targets:
                    report.add("while dd fills the disk", target.name, forced_statx(target.path / "file", 500))
                rounds += 1
    report.show()
    for line in report.figures():
        print(f"{line['row']:28} {line['target']:16} p99.9 {line['p999']:10.1f} µs")


@contextmanager
def _writing(target: Target) -> Iterator[None]:
    writer = subprocess.Popen([sys.executable, "-S", "-c", _WRITER, str(target.path)])
    try:
        yield
        if writer.poll() is not None:
            raise RuntimeError(f"{target.name}: the writer has ended")
    finally:
        writer.kill()
        writer.wait()


@contextmanager
def _filling(scratch: Path, gibibytes: float) -> Iterator[Callable[[], bool]]:
    filler = scratch / "filler"
    command = ["dd", "if=/dev/zero", f"of={filler}", "bs=1M", f"count={int(gibibytes * 1024)}", "conv=fsync"]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        yield lambda: process.poll() is None
    finally:
        process.kill()
        process.wait()
        if filler.exists():
            os.unlink(filler)
