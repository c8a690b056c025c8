"""The process that touches paths, on a filesystem that does what it is asked: what it asks for, and what it refuses."""

import os
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from helios_fs.fuse import touch

TMPFS = Path("/dev/shm")
"""Its root has the inode number that a mount's has."""
REGULAR = b"%d" % stat.S_IFREG
LONG_AGO = 1_000_000_000


@pytest.fixture
def top() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir=TMPFS, prefix="helios-touch-") as path:
        yield Path(path)


@pytest.fixture
def walk() -> touch.Walk:
    return touch.Walk(os.fsencode(TMPFS), TMPFS.stat().st_dev)


def run(walk: touch.Walk, top: Path, *touches: touch.Touch) -> int:
    """Touch, and return how many were not possible."""
    return touch.touch_all(walk, touch.pack(os.fsencode(top.name), list(touches))[touch.LENGTH_BYTES :])


def old(path: Path) -> Path:
    os.utime(path, (LONG_AGO, LONG_AGO), follow_symlinks=False)
    return path


def test_names_are_made_moved_and_taken_away(walk: touch.Walk, top: Path) -> None:
    modes = {b"file": stat.S_IFREG, b"dir": stat.S_IFDIR, b"link": stat.S_IFLNK, b"fifo": stat.S_IFIFO}
    assert run(walk, top, *((touch.MADE, b"%d" % mode, name, b"") for name, mode in modes.items())) == 0
    for name, mode in modes.items():
        assert stat.S_IFMT((top / os.fsdecode(name)).lstat().st_mode) == mode
    assert run(walk, top, (touch.MOVED, REGULAR, b"dir/moved", b"file")) == 0
    assert (top / "dir" / "moved").exists() and not (top / "file").exists()
    below = (touch.GONE, REGULAR, b"dir/moved", b"")
    assert run(walk, top, below, *((touch.GONE, b"%d" % modes[n], n, b"") for n in (b"dir", b"link", b"fifo"))) == 0
    assert os.listdir(top) == []


def test_what_is_moved_from_nowhere_is_made(walk: touch.Walk, top: Path) -> None:
    assert run(walk, top, (touch.MOVED, REGULAR, b"new", b"gone/old")) == 0
    assert (top / "new").is_file()


def test_a_file_is_modified_and_the_time_of_reading_stays(walk: touch.Walk, top: Path) -> None:
    for name in ("file", "program"):
        (top / name).write_text(name)
        old(top / name)
    (top / "program").chmod(0o755)
    assert run(walk, top, (touch.WRITTEN, b"", b"file", b""), (touch.WRITTEN, b"", b"program", b"")) == 0
    for name in ("file", "program"):
        found = (top / name).stat()
        assert (found.st_atime, found.st_mtime > LONG_AGO) == (LONG_AGO, True)
        assert (top / name).read_text() == name


def test_what_is_there_already_is_touched(walk: touch.Walk, top: Path) -> None:
    (top / "file").write_text("kept")
    (top / "dir").mkdir()
    (top / "link").symlink_to("nowhere")
    for name in ("file", "dir", "link"):
        old(top / name)
    kinds = ((b"file", stat.S_IFREG), (b"dir", stat.S_IFDIR), (b"link", stat.S_IFLNK))
    assert run(walk, top, *((touch.MADE, b"%d" % kind, name, b"") for name, kind in kinds)) == 0
    assert all((top / os.fsdecode(name)).lstat().st_mtime > LONG_AGO for name, _ in kinds)
    assert (top / "file").read_text() == "kept"


def test_attributes_are_touched_of_anything(walk: touch.Walk, top: Path) -> None:
    os.mkfifo(top / "fifo")
    (top / "link").symlink_to("nowhere")
    for name in ("fifo", "link"):
        old(top / name)
    assert run(walk, top, (touch.ALTERED, b"", b"fifo", b""), (touch.WRITTEN, b"", b"link", b"")) == 0
    for name in ("fifo", "link"):
        assert min((top / name).lstat().st_atime, (top / name).lstat().st_mtime) > LONG_AGO


def test_no_symlink_is_followed_and_no_other_filesystem_entered(top: Path, tmp_path: Path, walk: touch.Walk) -> None:
    (tmp_path / "file").write_text("")
    old(tmp_path / "file")
    (top / "away").symlink_to(tmp_path)
    (top / "file").symlink_to(tmp_path / "file")
    made = (touch.MADE, REGULAR, b"away/new", b"")
    assert run(walk, top, made, (touch.WRITTEN, b"", b"away/file", b""), (touch.WRITTEN, b"", b"file", b"")) == 2
    assert os.listdir(tmp_path) == ["file"] and (tmp_path / "file").stat().st_mtime == LONG_AGO
    elsewhere = touch.Walk(os.fsencode(TMPFS), tmp_path.stat().st_dev)
    assert run(elsewhere, top, (touch.MADE, REGULAR, b"new", b"")) == 1
    below = touch.Walk(os.fsencode(top), TMPFS.stat().st_dev)
    assert run(below, Path(), (touch.MADE, REGULAR, b"new", b"")) == 1
    assert not (top / "new").exists()


def test_nothing_stays_open_and_what_fails_is_counted(walk: touch.Walk, top: Path) -> None:
    before = os.listdir("/proc/self/fd")
    assert run(walk, top, (touch.ALTERED, b"", b"gone", b""), (touch.MADE, REGULAR, b"no/where", b"")) == 2
    assert os.listdir("/proc/self/fd") == before


def test_the_process_answers_each_batch_and_ends_with_its_input(top: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-B", "-P", touch.__file__, os.fspath(TMPFS), str(TMPFS.stat().st_dev)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdin is not None and process.stdout is not None
    with process:
        for name, failed in ((b"one", b"0\n"), (b"two", b"0\n"), (b"no/where", b"1\n")):
            process.stdin.write(touch.pack(os.fsencode(top.name), [(touch.MADE, REGULAR, name, b"")]))
            process.stdin.flush()
            assert process.stdout.readline() == failed
    assert process.returncode == 0
    assert sorted(os.listdir(top)) == ["one", "two"]
