"""Locks between processes: flock(2), fcntl(2) by process and by open file; databases whose writers count on them."""

import fcntl
import os
import signal
import sqlite3
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.mount.mounted import PATIENCE_SECONDS, Workspace

pytestmark = pytest.mark.fuse

F_OFD_SETLK, F_OFD_SETLKW = 37, 38
"""Of Linux; Python 3.11 has no names for them."""


PEER = """
import fcntl, os, struct, sys
files = {}
def name(error):
    import errno
    return errno.errorcode[error.errno]
for line in sys.stdin:
    verb, path, *words = line.split()
    if path not in files:
        files[path] = os.open(path, os.O_RDWR)
    try:
        if verb == "flock":
            fcntl.flock(files[path], int(words[0]))
        elif verb == "posix":
            fcntl.lockf(files[path], int(words[0]), int(words[1]), int(words[2]))
        elif verb == "ofd":
            kind, command, start, length = map(int, words)
            fcntl.fcntl(files[path], command, struct.pack("hhqqi4x", kind, 0, start, length, 0))
        elif verb == "close":
            os.close(files.pop(path))
        elif verb == "open-and-close":
            os.close(os.open(path, os.O_RDWR))
        answer = "done"
    except OSError as error:
        answer = name(error)
    print(answer, flush=True)
"""


class Peer:
    """Another process that locks on request."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", PEER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def ask(self, verb: str, path: Path, *words: int) -> None:
        """Ask for something without waiting for it."""
        assert self.process.stdin is not None
        print(verb, path, *words, file=self.process.stdin, flush=True)

    def hear(self) -> str:
        """Wait for the answer."""
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def do(self, verb: str, path: Path, *words: int) -> str:
        """Ask and wait."""
        self.ask(verb, path, *words)
        return self.hear()

    def wait_until_blocked(self) -> None:
        """Return when it waits for a lock, in a system call that /proc names."""
        calls = {"72", "73"}  # fcntl, flock on x86-64
        if os.uname().machine == "aarch64":
            calls = {"25", "32"}
        while Path(f"/proc/{self.process.pid}/syscall").read_text().split()[0] not in calls:
            assert self.process.poll() is None


@contextmanager
def peers(count: int) -> Iterator[list[Peer]]:
    running = [Peer() for _ in range(count)]
    try:
        yield running
    finally:
        for peer in running:
            peer.process.kill()
            peer.process.communicate()


EX_NB, SH_NB = fcntl.LOCK_EX | fcntl.LOCK_NB, fcntl.LOCK_SH | fcntl.LOCK_NB
LOCK = {
    "flock": (("flock", fcntl.LOCK_EX), ("flock", EX_NB), ("flock", SH_NB), ("flock", fcntl.LOCK_UN)),
    "posix": (
        ("posix", fcntl.LOCK_EX, 10, 5),
        ("posix", EX_NB, 10, 5),
        ("posix", SH_NB, 10, 5),
        ("posix", fcntl.LOCK_UN, 10, 5),
    ),
    "ofd": (
        ("ofd", fcntl.F_WRLCK, F_OFD_SETLKW, 5, 10),
        ("ofd", fcntl.F_WRLCK, F_OFD_SETLK, 5, 10),
        ("ofd", fcntl.F_RDLCK, F_OFD_SETLK, 5, 10),
        ("ofd", fcntl.F_UNLCK, F_OFD_SETLK, 5, 10),
    ),
}
"""Kind -> how it is asked for: exclusive with waiting, exclusive, shared, and how it is given up."""


def do(peer: Peer, path: Path, request: tuple[object, ...]) -> str:
    verb, *words = request
    return peer.do(str(verb), path, *words)  # type: ignore[arg-type]  # numbers, all but the first


@pytest.mark.parametrize("kind", list(LOCK))
def test_locks_exclude_wake_and_end_with_their_holder(folder: Path, kind: str) -> None:
    path = folder / "file"
    path.write_bytes(bytes(100))
    wait, exclusive, sharing, unlock = LOCK[kind]
    with peers(3) as (one, two, three):
        # Shared by two, and then nobody may write.
        assert [do(one, path, sharing), do(two, path, sharing), do(three, path, exclusive)] == [
            "done",
            "done",
            "EAGAIN",
        ]
        assert [do(one, path, unlock), do(three, path, exclusive)] == ["done", "EAGAIN"]
        assert [do(two, path, unlock), do(three, path, exclusive)] == ["done", "done"]
        assert [do(one, path, sharing), do(two, path, exclusive)] == ["EAGAIN", "EAGAIN"]
        # Whoever waits is woken: when it is given up, when the file is closed, when its holder is killed.
        for holder, waiter in ((three, one), (one, two), (two, three)):
            verb, *words = wait
            waiter.ask(str(verb), path, *words)  # type: ignore[arg-type]  # numbers
            waiter.wait_until_blocked()
            if holder is three:
                assert do(holder, path, unlock) == "done"
            elif holder is one:
                assert holder.do("close", path) == "done"
            else:
                holder.process.send_signal(signal.SIGKILL)
            assert waiter.hear() == "done"
        assert do(one, path, exclusive) == "EAGAIN"


@pytest.mark.parametrize("kind", list(LOCK))
def test_a_lock_follows_its_file_not_its_name(folder: Path, kind: str) -> None:
    path, moved = folder / "file", folder / "moved"
    path.write_bytes(bytes(100))
    exclusive = LOCK[kind][1]
    with peers(2) as (one, two):
        assert do(one, path, exclusive) == "done"
        os.rename(path, moved)
        path.write_bytes(bytes(100))
        assert [do(two, moved, exclusive), do(two, path, exclusive)] == ["EAGAIN", "done"]
        os.link(moved, folder / "linked")
        assert do(two, folder / "linked", exclusive) == "EAGAIN"
        os.unlink(moved)
        assert do(two, folder / "linked", exclusive) == "EAGAIN"


def test_ranges_of_bytes_are_locked_each_on_its_own(folder: Path) -> None:
    path = folder / "file"
    path.write_bytes(bytes(100))
    with peers(2) as (one, two):
        assert one.do("posix", path, EX_NB, 10, 0) == "done"
        assert two.do("posix", path, EX_NB, 10, 10) == "done"
        assert two.do("posix", path, EX_NB, 2, 9) == "EAGAIN"
        assert one.do("posix", path, fcntl.LOCK_UN, 3, 3) == "done"
        assert two.do("posix", path, EX_NB, 3, 3) == "done"
        # Closing any descriptor of the file gives up all locks of the process (fcntl(2)), those of an open file not.
        assert two.do("open-and-close", path) == "done"
        assert one.do("posix", path, EX_NB, 10, 10) == "done"
    with peers(2) as (one, two):
        assert do(one, path, LOCK["ofd"][1]) == "done"
        assert one.do("open-and-close", path) == "done"
        assert do(two, path, LOCK["ofd"][1]) == "EAGAIN"
        assert do(two, path, LOCK["posix"][1]) == "EAGAIN"


def test_who_would_wait_for_each_other_for_ever_hears_of_it(folder: Path) -> None:
    first, second = folder / "first", folder / "second"
    for path in (first, second):
        path.write_bytes(bytes(100))
    with peers(2) as (one, two):
        assert [do(one, first, LOCK["posix"][1]), do(two, second, LOCK["posix"][1])] == ["done", "done"]
        one.ask("posix", second, fcntl.LOCK_EX, 10, 5)
        one.wait_until_blocked()
        assert two.do("posix", first, fcntl.LOCK_EX, 10, 5) in ("EDEADLK", "EDEADLOCK")  # one number
        assert two.do("close", second) == "done"
        assert one.hear() == "done"


def test_who_holds_a_lock_can_be_asked(folder: Path) -> None:
    path = folder / "file"
    path.write_bytes(bytes(100))
    with peers(1) as (one,), open(path, "r+b") as opened:
        assert one.do("posix", path, EX_NB, 10, 5) == "done"
        asked = struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
        kind, _, start, length, holder = struct.unpack("hhqqi4x", fcntl.fcntl(opened, fcntl.F_GETLK, asked))
        assert (kind, start, length, holder) == (fcntl.F_WRLCK, 5, 10, one.process.pid)


# -- Databases -------------------------------------------------------------------------------------------------------

SQLITE_WITH_MAPPING = """
import sqlite3, sys
database = sqlite3.connect(sys.argv[1], timeout=60, isolation_level=None)
assert database.execute("pragma mmap_size=67108864").fetchone() == (67108864,)
for number in range(25):
    database.execute("begin immediate")
    value = database.execute("select value from counter").fetchone()[0]
    database.execute("update counter set value = ?", [value + 1])
    database.execute("insert into log values (?, ?, zeroblob(5000))", [sys.argv[2], number])
    database.execute("commit")
    assert database.execute("select count(*) from log where writer = ?", [sys.argv[2]]).fetchone() == (number + 1,)
"""

LMDB = """
import lmdb, sys
with lmdb.open(sys.argv[1], map_size=1 << 26, writemap=sys.argv[3] == "writemap") as environment:
    for number in range(60):
        with environment.begin(write=True) as change:
            value = int(change.get(b"counter", b"0")) + 1
            change.put(b"counter", b"%d" % value)
            change.put(f"{sys.argv[2]} {number}".encode(), str(value).encode() * 200)
        with environment.begin() as look:
            assert int(look.get(b"counter")) >= value
            assert look.get(f"{sys.argv[2]} {number}".encode()) == str(value).encode() * 200
"""


def run_writers(script: str, path: Path, *more: str) -> None:
    writers = [
        subprocess.Popen([sys.executable, "-c", script, str(path), f"w{number}", *more], stderr=subprocess.PIPE)
        for number in range(4)
    ]
    complaints = [writer.communicate(timeout=2 * PATIENCE_SECONDS)[1] for writer in writers]
    assert [writer.returncode for writer in writers] == [0] * 4, complaints


@pytest.mark.parametrize("journal", ["wal", "delete"])
def test_sqlite_reads_through_a_mapping_while_others_write(folder: Path, journal: str) -> None:
    path = folder / "data.db"
    with sqlite3.connect(path) as database:
        assert database.execute(f"pragma journal_mode={journal}").fetchone() == (journal,)
        database.execute("create table counter (value integer)")
        database.execute("create table log (writer text, number integer, filling blob)")
        database.execute("insert into counter values (0)")
    database.close()
    run_writers(SQLITE_WITH_MAPPING, path)
    database = sqlite3.connect(path)
    assert database.execute("pragma integrity_check").fetchall() == [("ok",)]
    assert database.execute("select value from counter").fetchone() == (100,)
    database.close()


@pytest.mark.parametrize("mode", ["plain", "writemap"])
def test_lmdb_with_several_writers(shared: Workspace, folder: Path, mode: str) -> None:
    path = folder / "environment"
    path.mkdir()
    check = (
        "import lmdb, sys\n"
        "with lmdb.open(sys.argv[1], readonly=True, lock=False) as environment, environment.begin() as look:\n"
        "    assert look.get(b'counter') == b'240', look.get(b'counter')\n"
        "    assert look.stat()['entries'] == 241\n"
    )
    run_writers(LMDB, path, mode)
    subprocess.run([sys.executable, "-c", check, str(path)], check=True)
    # A snapshot of an open environment is one that can be opened, and what is written later does not show in it.
    (shared.path / ".snapshots" / f"lmdb-{mode}").mkdir()
    kept = shared.path / ".snapshots" / f"lmdb-{mode}" / path.relative_to(shared.path)
    run_writers(LMDB, path, mode)
    subprocess.run([sys.executable, "-c", check, str(kept)], check=True)
