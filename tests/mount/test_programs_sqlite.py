"""SQLite in the mount, WAL included: shared memory through mmap, POSIX locks, many processes."""

import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from tests.mount.mounted import PATIENCE_SECONDS, Workspace

pytestmark = pytest.mark.fuse

WRITER = """
import sqlite3, sys
database = sqlite3.connect(sys.argv[1], timeout=60, isolation_level=None)
for number in range(int(sys.argv[3])):
    with database:
        database.execute("begin immediate")
        value = database.execute("select value from counter").fetchone()[0]
        database.execute("update counter set value = ?", [value + 1])
        database.execute("insert into log values (?, ?)", [sys.argv[2], number])
        database.execute("commit")
"""


def check(path: Path) -> sqlite3.Connection:
    database = sqlite3.connect(path, timeout=60)
    assert database.execute("pragma integrity_check").fetchall() == [("ok",)]
    return database


@pytest.mark.parametrize("journal", ["wal", "delete", "truncate"])
def test_writers_in_parallel_lose_nothing(mounted: Workspace, journal: str) -> None:
    path = mounted.path / "data.db"
    database = sqlite3.connect(path)
    assert database.execute(f"pragma journal_mode={journal}").fetchone() == (journal,)
    database.execute("create table counter (value integer)")
    database.execute("create table log (writer text, number integer)")
    database.execute("insert into counter values (0)")
    database.commit()
    database.close()
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITER, str(path), str(writer), "25"], stderr=subprocess.PIPE)
        for writer in range(4)
    ]
    for writer in writers:
        complaint = writer.communicate(timeout=2 * PATIENCE_SECONDS)[1]
        assert writer.returncode == 0, complaint
    database = check(path)
    assert database.execute("select value from counter").fetchone() == (100,)
    assert database.execute("select count(*) from log").fetchone() == (100,)
    database.close()
    mounted.remount()
    database = check(path)
    assert database.execute("select value from counter").fetchone() == (100,)
    database.close()


def test_a_snapshot_of_an_open_database_is_consistent(mounted: Workspace, tmp_path: Path) -> None:
    path = mounted.path / "data.db"
    database = sqlite3.connect(path)
    database.execute("pragma journal_mode=wal")
    database.execute("create table rows (number integer)")
    for number in range(50):
        database.execute("insert into rows values (?)", [number])
        database.commit()
        if number % 10 == 9:
            (mounted.path / ".snapshots" / f"after{number + 1}").mkdir()
    database.close()
    for count in range(10, 60, 10):
        # SQLite needs to write beside its database, so it gets a copy of the snapshot.
        copy = tmp_path / f"copy{count}"
        shutil.copytree(mounted.path / ".snapshots" / f"after{count}", copy)
        kept = check(copy / "data.db")
        assert kept.execute("select count(*) from rows").fetchone() == (count,)
        kept.close()


def test_the_command_line_shell(mounted: Workspace) -> None:
    script = "pragma journal_mode=wal; create table t(a); insert into t values (1),(2); select sum(a) from t;"
    done = subprocess.run(["sqlite3", "data.db", script], cwd=mounted.path, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "wal\n3\n", "")
