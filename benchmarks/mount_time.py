"""How long a mount takes, as a shell sees it: from the start of the command to its end and a first listing."""

import os
import time
from pathlib import Path

from benchmarks.report import Report
from benchmarks.run import Options
from benchmarks.targets import make_tree, mounted


def measure(options: Options) -> None:
    """Print the times for a tree of 100,000 files."""
    files, rounds = (2_000, 3) if options.quick else (100_000, 15)
    tree = options.scratch / "tree"
    make_tree(tree, files)
    report = Report("mount_time", "ms", options.json_file)
    with mounted(options.targets, options.scratch, tree) as targets:
        for _ in range(rounds):
            for target in targets:
                target.unmount()
                began = time.perf_counter()
                target.mount()
                ready = time.perf_counter()
                _list(target.path)
                listed = time.perf_counter()
                report.add(f"mount, {files} files", target.name, [(ready - began) * 1000])
                report.add("first listing of two directories", target.name, [(listed - ready) * 1000])
    report.show()


def _list(path: Path) -> None:
    if "d000" not in os.listdir(path) or len(list(os.scandir(path / "d000" / "e00"))) != 100:
        raise RuntimeError(f"{path}: the tree is not there")
