"""kill -9 of the daemon in the middle of tar, git and SQLite: what they were told is done is there after a remount."""

import io
import os
import random
import re
import shutil
import sqlite3
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from tests.mount.mounted import PATIENCE_SECONDS, Killer, Workspace

pytestmark = [pytest.mark.fuse, pytest.mark.timeout(3600)]

COMMITTER = """
import os, subprocess, sys
repository, log, first = sys.argv[1], open(sys.argv[2], "a", buffering=1), int(sys.argv[3])
os.chdir(repository)
def git(*arguments):
    return subprocess.run(["git", *arguments], check=True, capture_output=True, text=True).stdout
for number in range(first, 1_000_000):
    for file in range(5):
        with open(f"file{(number + file) % 20}", "a") as text:
            text.write(f"{number} " * 50)
    git("add", "-A")
    git("commit", "-q", "-m", str(number))
    log.write(git("rev-parse", "HEAD"))
"""

INSERTER = """
import sqlite3, sys
database, log, first = sqlite3.connect(sys.argv[1]), open(sys.argv[2], "a", buffering=1), int(sys.argv[3])
database.execute("pragma journal_mode=" + sys.argv[4])
database.execute("create table if not exists rows (number integer primary key, text text)")
for number in range(first, 1_000_000):
    with database:
        # Two rows in one transaction: both or none must be there.
        database.execute("insert into rows values (?, ?)", [2 * number, "x" * (number * 37 % 3000)])
        database.execute("insert into rows values (?, ?)", [2 * number + 1, "y"])
    log.write(f"{number}\\n")
"""


def run_until_killed(mounted: Workspace, program: str, arguments: list[str], seconds: float) -> None:
    """Run a Python program that works in the mount, and kill the daemon under it after `seconds`."""
    environment = {**os.environ, "GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_NOSYSTEM": "1"}
    killer = Killer(mounted.daemon())
    worker = subprocess.Popen(
        [sys.executable, "-c", program, *arguments], env=environment, stderr=subprocess.PIPE, text=True
    )
    try:
        killer.kill_after(seconds)
        complaint = worker.communicate(timeout=PATIENCE_SECONDS)[1]
    finally:
        worker.kill()
        worker.wait()
        killer.wait()
    assert worker.returncode != 0, f"it ended before the kill: {complaint}"


def git(repository: Path, *arguments: str) -> str:
    done = subprocess.run(["git", "-C", str(repository), *arguments], capture_output=True, text=True)
    assert done.returncode == 0, f"git {arguments}: {done.stdout}{done.stderr}"
    return done.stdout.strip()


def test_kill_during_git_commits(mounted: Workspace, tmp_path: Path, kills: int, chance: random.Random) -> None:
    repository, log = mounted.path / "repository", tmp_path / "log"
    git(tmp_path, "init", "-q", str(repository))
    git(repository, "config", "user.name", "A")
    git(repository, "config", "user.email", "a@example.org")
    log.touch()
    for number in range(kills):
        arguments = [str(repository), str(log), str(1000 * number)]
        run_until_killed(mounted, COMMITTER, arguments, chance.uniform(0.2, 1.5))
        mounted.mount()
        # What git itself leaves when it dies, anywhere.
        for lock in (repository / ".git").rglob("*.lock"):
            lock.unlink()
        git(repository, "fsck", "--full", "--strict")
        for told in log.read_text().split():
            git(repository, "merge-base", "--is-ancestor", told, "HEAD")
        git(repository, "add", "-A")
        git(repository, "commit", "-q", "--allow-empty", "-m", "after the crash")
        assert git(repository, "status", "--porcelain") == ""


@pytest.mark.parametrize("journal", ["wal", "delete"])
def test_kill_during_sqlite_transactions(
    mounted: Workspace, tmp_path: Path, kills: int, chance: random.Random, journal: str
) -> None:
    path, log = mounted.path / "data.db", tmp_path / "log"
    log.touch()
    first = 0
    for _ in range(kills):
        run_until_killed(mounted, INSERTER, [str(path), str(log), str(first), journal], chance.uniform(0.2, 1.0))
        mounted.mount()
        if not path.exists():
            assert not log.read_text()
            continue
        database = sqlite3.connect(path, timeout=PATIENCE_SECONDS)
        assert database.execute("pragma integrity_check").fetchall() == [("ok",)]
        try:
            rows = [row[0] for row in database.execute("select number from rows order by number")]
        except sqlite3.OperationalError:
            assert not log.read_text()  # not even the table
            rows = []
        database.close()
        told = [int(line) for line in log.read_text().split()]
        assert rows == list(range(len(rows)))
        assert len(rows) % 2 == 0
        assert len(rows) >= 2 * len(told)
        assert told == list(range(len(told)))
        # At most the one transaction that was under way is there without having been told.
        assert len(rows) <= 2 * (len(told) + 1)
        first = len(rows) // 2
        log.write_text("".join(f"{number}\n" for number in range(first)))


def make_archive(folder: Path, members: int, seed: int) -> tuple[Path, dict[str, bytes]]:
    content = {}
    source = random.Random(seed)
    archive = folder / "archive.tar"
    with tarfile.open(archive, "w") as tar:
        for number in range(members):
            if number % 50 == 0:
                folder_info = tarfile.TarInfo(f"dir{number // 50}")
                folder_info.type, folder_info.mode = tarfile.DIRTYPE, 0o755
                tar.addfile(folder_info)
            info = tarfile.TarInfo(f"dir{number // 50}/file{number}")
            data = source.randbytes(source.randrange(1, 30_000))
            info.size, info.mode = len(data), 0o644
            tar.addfile(info, io.BytesIO(data))
            content[info.name] = data
    return archive, content


def test_kill_during_tar(mounted: Workspace, tmp_path: Path, kills: int, chance: random.Random) -> None:
    archive, content = make_archive(tmp_path, 5000, chance.randrange(1 << 32))
    for number in range(kills):
        target = mounted.path / f"target{number}"
        target.mkdir()
        killer = Killer(mounted.daemon())
        # It prints a line for each member as it begins, complains of each that fails, and goes on: whatever is named
        # before the first that it complains of had been written and closed.
        command = ["stdbuf", "-oL", "tar", "--no-same-owner", "-xvf", str(archive), "-C", str(target)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as tar:
            killer.kill_after(chance.uniform(0.05, 0.6))
            output, complaints = tar.communicate(timeout=PATIENCE_SECONDS)
        killer.wait()
        mounted.mount()
        # A directory is named with a slash, and complained of without one.
        named = [name.rstrip("/") for name in output.split()]
        failed = re.search(r"tar: (dir[^ :]+):", complaints)
        assert failed, f"it ended before the kill: {complaints}"
        for name in named[: named.index(failed[1])]:
            if name in content:
                assert (target / name).read_bytes() == content[name], f"{name}, one of {len(named)}"
        for path in target.rglob("file*"):
            # What was under way is a beginning of what it was to be, never other bytes.
            assert content[str(path.relative_to(target))].startswith(path.read_bytes())
        shutil.rmtree(target)
