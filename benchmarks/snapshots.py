"""Snapshots: what taking one costs in small and large trees, and what having many of them costs a reader."""

import os
import random
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.report import Report
from benchmarks.run import Options
from benchmarks.targets import make_tree, mounted
from helios_fs.store.store import Store
from helios_fs.worktree.inode import Inode
from helios_fs.worktree.recovery import recover
from helios_fs.worktree.worktree import Worktree

_clock = time.perf_counter_ns


def measure(options: Options) -> None:
    """Print three tables: mkdir through the mount, commits in the process, reads beside many snapshots."""
    _through_the_mount(options)
    _in_the_process(options)


def _through_the_mount(options: Options) -> None:
    sizes, count = ((100, 1_000), 30) if options.quick else ((1_000, 100_000), 500)
    report = Report("snapshots", "µs", options.json_file)
    for files in sizes:
        tree = options.scratch / f"tree{files}"
        names = make_tree(tree, files)
        for kind in options.targets:
            with mounted([kind], options.scratch, tree) as [target]:
                if not (target.path / ".snapshots").is_dir():
                    continue
                taken = _edit_and_snapshot(target.path, names, count)
                report.add(f"mkdir .snapshots/NAME after one edit, {files} files", target.name, taken)
    report.show()


def _edit_and_snapshot(path: Path, names: list[str], count: int) -> list[float]:
    edits = random.Random(count).choices(names, k=count)
    took = []
    for number, name in enumerate(edits):
        with open(path / name, "r+b", buffering=0) as file:
            file.write(b"edit %d" % number)
        snapshot = f"{path}/.snapshots/bench{number}"
        before = _clock()
        os.mkdir(snapshot)
        took.append((_clock() - before) / 1000)
    return took


def _in_the_process(options: Options) -> None:
    """A branch without a mount: what the working tree itself costs, without kernel and request loop."""
    files, snapshots = (200, 500) if options.quick else (2_000, 10_000)
    commits = Report("commits", "µs", options.json_file)
    reads = Report("reads", "µs", options.json_file)
    path = str(options.scratch / "store")
    Store.create(path)
    store = Store.open(path)
    try:
        worktree = recover(store, "main")
        inodes = _fill(worktree, files)
        _measure_reads(reads, "with no snapshot", worktree, inodes)
        for number in range(snapshots):
            _edit(worktree, inodes[number % files], number)
            commits.add("record and new epoch", "working tree", [_timed(worktree.snapshot)])
        _measure_reads(reads, f"with {snapshots} snapshots, none sealed", worktree, inodes)
        for number in range(snapshots // 10):
            _edit(worktree, inodes[number % files], number)

            def commit() -> None:
                worktree.snapshot()
                worktree.journal.sync()

            commits.add("the same, and fdatasync", "working tree", [_timed(commit)])
        commits.add(
            "100 bytes appended to a plain file, and fdatasync", "disk", _appends(options.scratch, snapshots // 10)
        )
        worktree.journal.close()
    finally:
        store.close()
    commits.show()
    reads.show()


def _edit(worktree: Worktree, inode: Inode, number: int) -> None:
    worktree.write(inode, 0, b"edit %08d" % number)


def _fill(worktree: Worktree, files: int) -> list[Inode]:
    inodes = []
    for number in range(files):
        inode = worktree.create(worktree.index.root, b"file%d" % number, 0o100644, 0, 0)
        worktree.write(inode, 0, b"%d\n" % number * 500)
        # One edit before anything is measured, so that all files have as many extents then as later.
        _edit(worktree, inode, number)
        inodes.append(inode)
    return inodes


def _measure_reads(report: Report, when: str, worktree: Worktree, inodes: list[Inode]) -> None:
    root, find = worktree.index.root, worktree.index.find
    for _ in range(5):
        for number, inode in enumerate(inodes):
            name = b"file%d" % number
            before = _clock()
            found = find(root, name)
            middle = _clock()
            data = worktree.read(inode, 0, 4096)
            after = _clock()
            if found is not inode or not data:
                raise RuntimeError(f"{name!r}: not what was written")
            report.add(f"lookup, {when}", "working tree", [(middle - before) / 1000])
            report.add(f"read, {when}", "working tree", [(after - middle) / 1000])


def _appends(scratch: Path, count: int) -> list[float]:
    with open(scratch / "plain", "ab", buffering=0) as file:

        def append() -> None:
            file.write(b"x" * 100)
            os.fdatasync(file.fileno())

        return [_timed(append) for _ in range(count)]


def _timed(operation: Callable[[], object]) -> float:
    before = _clock()
    operation()
    return (_clock() - before) / 1000
