"""The one runner: `python -m benchmarks [IDEA…] [--quick] [--targets A,B] [--json FILE] [--scratch DIR]`.

An idea is a module here with `measure(options)`. Without a name, all of them run, one after the other. The scratch
directory should be on the disk that is to be measured; everything in it is removed afterwards.
"""

import argparse
import importlib
import os
import platform
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.targets import ALL, COMPARED, Target, chosen

IDEAS = ("loop", "ops", "snapshots", "memory", "mount_time", "latency", "many", "branches", "programs")


@dataclass(frozen=True)
class Options:
    """What a run was asked for."""

    targets: list[type[Target]]
    scratch: Path
    quick: bool
    json_file: Path | None

    def has(self, name: str) -> bool:
        """Tell whether a target is to be measured."""
        return any(target.name == name for target in self.targets)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure; return 0, or 1 where one of the ideas failed."""
    names = [target.name for target in ALL]
    parser = argparse.ArgumentParser(prog="benchmarks", description="Measure HeliosFS beside what it is compared with.")
    parser.add_argument("ideas", nargs="*", metavar="IDEA", help=f"any of: {', '.join(IDEAS)} (default: all)")
    parser.add_argument("--quick", action="store_true", help="fewer rounds and smaller trees: to see that it works")
    parser.add_argument(
        "--targets",
        default=",".join(target.name for target in COMPARED),
        help="which to measure (default: %(default)s); also `before`, served by the checkout $HELIOS_BEFORE",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="append a line of JSON for each figure")
    parser.add_argument("--scratch", type=Path, default=Path("/var/tmp"), help="on the disk to measure (%(default)s)")
    given = parser.parse_args(arguments)
    wanted = given.targets.split(",")
    for name in [*(set(given.ideas) - set(IDEAS)), *(set(wanted) - set(names))]:
        parser.error(f"there is no {name}")
    print(f"{platform.release()}, {os.cpu_count()} cores, Python {platform.python_version()}", file=sys.stderr)
    failed = 0
    for idea in given.ideas or IDEAS:
        module = importlib.import_module(f"benchmarks.{idea}")
        with tempfile.TemporaryDirectory(prefix="helios-bench.", dir=given.scratch) as scratch:
            try:
                module.measure(Options(chosen(wanted), Path(scratch), given.quick, given.json))
            except RuntimeError as error:
                print(f"{idea}: {error}", file=sys.stderr)
                failed = 1
    return failed


if __name__ == "__main__":
    raise SystemExit(main())
