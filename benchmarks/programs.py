"""Real programs: how long git, tar, pip, npm and PostgreSQL take in each target, start to end.

What needs a package registry (pip, npm) fetches once, before anything is timed; without one these rows are left out.
So are those of programs that are not installed.
"""

import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.report import Report
from benchmarks.run import Options
from benchmarks.targets import Target, make_tree, mounted, run

NODE_PACKAGES = ("express", "eslint", "typescript")
WHEEL = "django"

Timed = Callable[[str, Callable[[], object]], None]
"""Run an action and take down how long it took, under a row's name."""

Program = Callable[[Path, Timed], None]
"""Time the work of one program in an empty directory."""


def measure(options: Options) -> None:
    """Print how many seconds each program takes."""
    report = Report("programs", "seconds", options.json_file)
    scratch = options.scratch / "material"
    scratch.mkdir()
    programs = _programs(scratch, 500 if options.quick else 5000, 200 if options.quick else 1000)
    with mounted(options.targets, options.scratch) as targets:
        for number in range(1 if options.quick else 3):
            for name, program in programs.items():
                for target in targets:
                    place = target.path / f"{name}{number}"
                    place.mkdir()
                    program(place, _timed(report, target))
                    shutil.rmtree(place)
                    # What it still does in the background is not to slow the next one.
                    target.unmount()
                    os.sync()
                    target.mount()
    report.show()


def _timed(report: Report, target: Target) -> Timed:
    def timed(row: str, action: Callable[[], object]) -> None:
        began = time.monotonic()
        action()
        report.add(row, target.name, [time.monotonic() - began])

    return timed


def _programs(scratch: Path, files: int, transactions: int) -> dict[str, Program]:
    """Prepare what the programs work on; return those that can run here."""
    make_tree(scratch / "tree", files)
    found: dict[str, Program] = {}
    for name, prepare in (("git", _git), ("tar", _tar), ("pip", _pip), ("npm", _npm)):
        try:
            found[name] = prepare(scratch)
        except (RuntimeError, OSError) as error:
            print(f"{name}: not measured: {str(error).splitlines()[-1]}", file=sys.stderr)
    servers = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    if servers:
        found["postgresql"] = _postgresql(servers[-1], transactions)
    else:
        print("postgresql: not measured, it is not installed", file=sys.stderr)
    return found


def _git(scratch: Path) -> Program:
    origin = scratch / "origin"
    run("git", "init", "-q", str(origin))
    run("cp", "-a", f"{scratch}/tree/.", str(origin))
    run("git", "-C", str(origin), "add", "-A")
    name = ("-c", "user.name=benchmark", "-c", "user.email=benchmark@localhost")
    run("git", "-C", str(origin), *name, "commit", "-q", "-m", "tree")

    def program(place: Path, timed: Timed) -> None:
        clone = str(place / "clone")
        timed("git clone", lambda: run("git", "clone", "-q", "--no-local", str(origin), clone))
        timed("git status", lambda: run("git", "-C", clone, "status", "--porcelain"))
        timed("git gc", lambda: run("git", "-C", clone, "gc", "-q"))

    return program


def _tar(scratch: Path) -> Program:
    archive = str(scratch / "tree.tar")
    run("tar", "-cf", archive, "-C", str(scratch), "tree")

    def program(place: Path, timed: Timed) -> None:
        tree = str(place / "tree")
        timed("tar x", lambda: run("tar", "-xf", archive, "-C", str(place)))
        timed("cp -a", lambda: run("cp", "-a", tree, f"{tree}.copy"))
        timed("diff -r", lambda: run("diff", "-r", tree, f"{tree}.copy"))
        timed("rm -rf", lambda: run("rm", "-rf", tree))

    return program


def _pip(scratch: Path) -> Program:
    wheels = str(scratch / "wheels")
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet")
    run(*pip, "download", "--no-deps", "--only-binary=:all:", "--dest", wheels, WHEEL)

    def program(place: Path, timed: Timed) -> None:
        venv = place / "venv"
        timed("python -m venv", lambda: run(sys.executable, "-m", "venv", str(venv)))
        install = (str(venv / "bin/python"), *pip[1:], "install", "--no-index", "--no-deps", f"--find-links={wheels}")
        timed(f"pip install {WHEEL}", lambda: run(*install, WHEEL))
        timed("rm -rf venv", lambda: run("rm", "-rf", str(venv)))

    return program


def _npm(scratch: Path) -> Program:
    first = scratch / "npm"
    first.mkdir()
    (first / "package.json").write_text('{"name": "benchmark", "version": "1.0.0"}')
    npm = ("npm", "--no-audit", "--no-fund", "--prefer-offline", "--cache", str(scratch / "npm-cache"), "--prefix")
    run(*npm, str(first), "install", *NODE_PACKAGES)
    shutil.rmtree(first / "node_modules")
    # The first installation from a lock file asks for what the one without did not need.
    run(*npm, str(first), "ci")

    def program(place: Path, timed: Timed) -> None:
        for name in ("package.json", "package-lock.json"):
            shutil.copy(first / name, place)
        timed("npm ci", lambda: run(*npm, str(place), "ci"))
        timed("rm -rf node_modules", lambda: run("rm", "-rf", str(place / "node_modules")))

    return program


def _postgresql(servers: Path, transactions: int) -> Program:
    # The server refuses root; in a user namespace root is called something else, and is the mount's user all the same.
    other = ["unshare", "--user", "--map-user=1000", "--map-group=1000"] if os.geteuid() == 0 else []

    def program(place: Path, timed: Timed) -> None:
        data = str(place / "data")
        make = ("-A", "trust", "-U", "tester", "--no-locale", "-E", "UTF8")
        timed("initdb", lambda: run(*other, f"{servers}/initdb", "-D", data, *make))
        with tempfile.TemporaryDirectory(prefix="pg.") as socket:
            settings = f"-c listen_addresses='' -c unix_socket_directories={socket} -c fsync=on"
            control = (*other, f"{servers}/pg_ctl", "-w", "-D", data)
            # Its log must not be a pipe that somebody reads to its end.
            run(*control, "-l", f"{data}.log", "-o", settings, "start")
            try:
                pgbench = (*other, f"{servers}/pgbench", "-h", socket, "-U", "tester")
                timed("pgbench -i, 100,000 rows", lambda: run(*pgbench, "-q", "-i", "postgres"))
                work = ("-n", "-c", "4", "-t", str(transactions // 4), "postgres")
                timed(f"pgbench, {transactions} moves, 4 clients", lambda: run(*pgbench, *work))
            finally:
                run(*control, "-m", "fast", "stop")

    return program
