"""Branches: what making and dropping one costs, beside what others do for it, and what a hundred of them hold.

Beside `git worktree add`, `cp -a --reflink=auto` and a subvolume snapshot on btrfs in a loop device, and an overlayfs
mount. What this machine has not (root, mkfs.btrfs) is left out, and stderr says so.
"""

import functools
import os
import random
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.report import Report
from benchmarks.run import Options
from benchmarks.targets import Helios, helios, make_tree, run

_clock = time.perf_counter_ns
_CHANGED_SHARE = 100
"""One file in this many is changed in a branch."""


def measure(options: Options) -> None:
    """Print tables: making and dropping, first use, space and memory, a run, a build, diff and merge."""
    sizes, count = ((100, 1_000), 10) if options.quick else ((1_000, 100_000), 100)
    making = Report("branches", "µs", options.json_file)
    for files in sizes:
        tree = options.scratch / f"tree{files}"
        names = make_tree(tree, files)
        with Helios(options.scratch, tree) as target:
            _helios(making, target.path, names, files, count)
        for name, other in _OTHERS.items():
            _beside(making, name, other, options.scratch, tree, files, min(count, 1_000_000 // files))
    making.show()
    _hundred(options, sizes[0] if options.quick else 10_000)
    _verbs(options, sizes[-1])
    _builds(options)


def _timed(action: Callable[[], object]) -> float:
    before = _clock()
    action()
    return (_clock() - before) / 1000


# -- Making and dropping ---------------------------------------------------------------------------------------------


def _helios(report: Report, mount: Path, names: list[str], files: int, count: int) -> None:
    control = mount / ".branches"

    def make_and_drop(what: str) -> None:
        made = [control / f"{what}{number}" for number in range(count)]
        row = f"make a branch of {files:,} files{what and ', ' + what}"
        report.add(row, "helios", [_timed(lambda path=path: os.mkdir(path)) for path in made])
        report.add(f"look into a new one, {files:,} files", "helios", [_timed(lambda p=p: os.stat(p)) for p in made])
        report.add(f"drop one, {files:,} files", "helios", [_timed(lambda path=path: os.rmdir(path)) for path in made])

    make_and_drop("")
    dirty = min(10_000, files // 2)
    for name in names[:dirty]:
        with open(mount / name, "r+b", buffering=0) as file:
            file.write(b"dirty")
    make_and_drop(f"{dirty:,} of them dirty")


@contextmanager
def _loop_device(scratch: Path, filesystem: str) -> Iterator[Path | None]:
    """A filesystem of its own in a file, mounted; None where this machine cannot."""
    if shutil.which(f"mkfs.{filesystem}") is None or os.geteuid() != 0:
        yield None
        return
    image, point = scratch / f"{filesystem}.img", scratch / filesystem
    point.mkdir()
    with open(image, "wb") as file:
        file.truncate(6 << 30)
    try:
        run(f"mkfs.{filesystem}", "-q", str(image))
        run("mount", "-o", "loop", str(image), str(point))
        yield point
    finally:
        subprocess.run(["umount", str(point)], capture_output=True, check=False)
        image.unlink()
        point.rmdir()


def _beside(
    report: Report,
    name: str,
    other: Callable[..., Iterator[tuple[str, Callable[[int], object]]]],
    scratch: Path,
    tree: Path,
    files: int,
    count: int,
) -> None:
    try:
        for step, action in other(scratch, tree):
            row = f"{step} a branch of {files:,} files" if step == "make" else f"drop one, {files:,} files"
            report.add(row, name, [_timed(functools.partial(action, number)) for number in range(count)])
    except (RuntimeError, OSError) as error:
        print(f"{name}: not measured: {error}", file=sys.stderr)


def _git(scratch: Path, tree: Path) -> Iterator[tuple[str, Callable[[int], object]]]:
    repository = scratch / "git"
    shutil.copytree(tree, repository)
    try:
        at = ["git", "-C", str(repository), "-c", "user.name=n", "-c", "user.email=e"]
        run(*at, "init", "-q")
        run(*at, "add", "-A")
        run(*at, "commit", "-qm", "all")
        yield "make", lambda number: run(*at, "worktree", "add", "-q", "-b", f"b{number}", f"../wt{number}")
        yield "drop", lambda number: run(*at, "worktree", "remove", "--force", f"../wt{number}")
    finally:
        shutil.rmtree(repository)


def _btrfs_copy(scratch: Path, tree: Path) -> Iterator[tuple[str, Callable[[int], object]]]:
    with _loop_device(scratch, "btrfs") as point:
        if point is None:
            raise RuntimeError("needs root and mkfs.btrfs")
        run("cp", "-a", str(tree), str(point / "tree"))
        yield "make", lambda number: run("cp", "-a", "--reflink=auto", str(point / "tree"), str(point / f"c{number}"))
        yield "drop", lambda number: shutil.rmtree(point / f"c{number}")


def _btrfs_snapshot(scratch: Path, tree: Path) -> Iterator[tuple[str, Callable[[int], object]]]:
    with _loop_device(scratch, "btrfs") as point:
        if point is None:
            raise RuntimeError("needs root and mkfs.btrfs")
        run("btrfs", "subvolume", "create", str(point / "tree"))
        run("cp", "-a", f"{tree}/.", str(point / "tree"))
        subvolume = ("btrfs", "subvolume")
        yield "make", lambda number: run(*subvolume, "snapshot", str(point / "tree"), str(point / f"s{number}"))
        yield "drop", lambda number: run(*subvolume, "delete", str(point / f"s{number}"))


def _overlay(scratch: Path, tree: Path) -> Iterator[tuple[str, Callable[[int], object]]]:
    if os.geteuid() != 0:
        raise RuntimeError("needs root")
    base = scratch / "overlay"

    def make(number: int) -> None:
        for part in ("upper", "work", "mnt"):
            (base / str(number) / part).mkdir(parents=True)
        at = base / str(number)
        run("mount", "-t", "overlay", "overlay", "-o", f"lowerdir={tree},upperdir={at}/upper,workdir={at}/work",
            str(at / "mnt"))  # fmt: skip

    def drop(number: int) -> None:
        run("umount", str(base / str(number) / "mnt"))
        shutil.rmtree(base / str(number))

    try:
        yield "make", make
        yield "drop", drop
    finally:
        shutil.rmtree(base, ignore_errors=True)


_OTHERS: dict[str, Callable[[Path, Path], Iterator[tuple[str, Callable[[int], object]]]]] = {
    "git worktree": _git,
    "cp --reflink, btrfs": _btrfs_copy,
    "btrfs snapshot": _btrfs_snapshot,
    "overlayfs": _overlay,
}


# -- A hundred of them -----------------------------------------------------------------------------------------------


def _hundred(options: Options, files: int) -> None:
    """Space and memory of branches that each change one file in a hundred, and of fifty mounts of their own."""
    report = Report("a hundred branches", "KiB", options.json_file)
    tree = options.scratch / f"hundred{files}"
    names = make_tree(tree, files, 4000)
    count = 10 if options.quick else 100
    tree_kib = _kib_on_disk(tree)
    with Helios(options.scratch, tree) as target:
        store = target.path.parent / "below" / "store"
        daemon = target.daemon()
        before, memory = _kib_on_disk(store), _anonymous_kib(daemon)
        picked = random.Random(files)
        for number in range(count):
            branch = target.path / ".branches" / f"b{number}"
            branch.mkdir()
            for name in picked.sample(names, len(names) // _CHANGED_SHARE):
                with open(branch / name, "r+b", buffering=0) as file:
                    file.write(os.urandom(4000))
        in_memory = _anonymous_kib(daemon)
        run(*helios(), "unmount", str(target.path))
        each = (_kib_on_disk(store) - before) / count
        report.add(f"on disk for each of {count} that change 1% of {files:,} files of 4 KB", "helios", [each])
        report.add(f"on disk for each of {count} that change 1% of {files:,} files of 4 KB", "copy", [float(tree_kib)])
        report.add("memory of the daemon for each (RssAnon)", "helios", [(in_memory - memory) / count])
        target.mount()
        _own_mounts(report, target, 5 if options.quick else 50)
    report.show()


def _own_mounts(report: Report, target: Helios, count: int) -> None:
    store = str(target.path.parent / "below" / "store")
    points = [target.path.parent / f"own{number}" for number in range(count)]
    took = []
    try:
        for number, point in enumerate(points):
            point.mkdir()
            command = [*helios(), "mount", "--store", store, "--branch", f"b{number}", str(point)]
            took.append(_timed(lambda command=command: run(*command)) / 1000)
        daemons = [_daemon_of(point) for point in points]
        report.add(f"memory of each of {count} mounts of their own (RssAnon)", "helios",
                   [float(statistics.mean(_anonymous_kib(daemon) for daemon in daemons))])  # fmt: skip
    finally:
        for point in points:
            if os.path.ismount(point):
                run(*helios(), "unmount", str(point))
    ready = Report("mounts of their own", "ms", report.json_file)
    ready.add("helios mount --branch, until it is ready", "helios", took)
    ready.show()


def _daemon_of(point: Path) -> int | None:
    wanted = os.fsencode(point)
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            try:
                words = (process / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if wanted in words and b"helios_fs.daemon" in words:
                return int(process.name)
    return None


def _kib_on_disk(path: Path) -> int:
    return int(run("du", "-s", "--block-size=1024", str(path)).split()[0])


def _anonymous_kib(process: int | None) -> int:
    status = Path(f"/proc/{process}/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("RssAnon:"))


# -- Verbs -----------------------------------------------------------------------------------------------------------


def _verbs(options: Options, files: int) -> None:
    """`run`, `diff`, `merge` and `restore`, end to end, in a large tree of which a hundred files differ."""
    report = Report("verbs", "ms", options.json_file)
    tree = options.scratch / f"verbs{files}"
    names = make_tree(tree, files)
    with Helios(options.scratch, tree) as target:
        at = ("-C", str(target.path))
        for _ in range(3 if options.quick else 20):
            report.add("helios run --discard -- true", "helios", [_command("run", *at, "--discard", "--", "true")])
            report.add("true", "disk", [_timed(lambda: run("true")) / 1000])
        for number in range(2 if options.quick else 5):
            run(*helios(), "branch", f"side{number}", *at)
            _edit(target.path / ".branches" / f"side{number}", names, 2 * number)
            _edit(target.path, names, 2 * number + 1)
            row = f"diff of two branches of {files:,} files that differ in 200"
            report.add(row, "helios", [_command("diff", *at, f"main..side{number}", codes=(1,))])
            merged = _command("merge", *at, f"side{number}")
            report.add("merge of them, 100 changed on each side", "helios", [merged])
            run(*helios(), "snapshot", *at)
            _edit(target.path, names, 50 + number)
            row = f"restore of {files:,} files, 100 changed"
            report.add(row, "helios", [_command("restore", *at, "latest")])
    report.show()


def _edit(root: Path, names: list[str], part: int) -> None:
    for name in names[part * 100 % len(names) :][:100]:
        with open(root / name, "r+b", buffering=0) as file:
            file.write(b"part %d" % part)


def _command(*arguments: str, codes: tuple[int, ...] = (0,)) -> float:
    before = _clock()
    done = subprocess.run([*helios(), *arguments], capture_output=True, text=True, timeout=600, check=False)
    took = (_clock() - before) / 1_000_000
    if done.returncode not in codes:
        raise RuntimeError(f"helios {' '.join(arguments)}: exit {done.returncode}: {done.stderr}")
    return took


# -- A build ---------------------------------------------------------------------------------------------------------

_UNITS = 40


def _builds(options: Options) -> None:
    """The first build and the second, in a fresh branch and in a plain directory."""
    if shutil.which("cc") is None or shutil.which("make") is None:
        print("builds: not measured: needs cc and make", file=sys.stderr)
        return
    report = Report("builds", "ms", options.json_file)
    tree = options.scratch / "project"
    _make_project(tree)
    with Helios(options.scratch, tree) as target:
        for number in range(2 if options.quick else 5):
            branch = target.path / ".branches" / f"build{number}"
            branch.mkdir()
            plain = options.scratch / f"plain{number}"
            shutil.copytree(tree, plain)
            for name, where in (("helios", branch), ("disk", plain)):
                for row in ("first build", "second build, one file touched"):
                    report.add(row, name, [_timed(lambda where=where: run("make", "-s", "-C", str(where))) / 1000])
                    os.utime(where / "unit0.c")
            shutil.rmtree(plain)
    report.show()


def _make_project(root: Path) -> None:
    root.mkdir()
    objects = " ".join(f"unit{number}.o" for number in range(_UNITS))
    (root / "Makefile").write_text(f"all: {objects}\n\tcc -o program {objects} main.c\n%.o: %.c\n\tcc -O1 -c $<\n")
    (root / "main.c").write_text("int main(void) { return 0; }\n")
    for number in range(_UNITS):
        functions = "\n".join(f"int f{number}_{index}(int x) {{ return x * {index} + 1; }}" for index in range(50))
        (root / f"unit{number}.c").write_text(f"#include <stdio.h>\n{functions}\n")
