import errno
import os
from pathlib import Path

import pytest

from helios_fs.errors import ColdObject, StoreFault, StoreFull
from helios_fs.store import files
from tests.unit.store.faults import Faults


@pytest.fixture
def fd(tmp_path: Path) -> int:
    return files.open_file(str(tmp_path / "file"), os.O_RDWR | os.O_CREAT | os.O_APPEND)


def test_what_is_appended_can_be_read_and_cut(fd: int) -> None:
    files.append(fd, [b"one", b"two"], 6)
    assert files.read_at(fd, 100, 1) == b"netwo"
    files.cut(fd, 2)
    files.sync_data(fd)
    assert files.read_at(fd, 100, 0) == b"on"


def test_a_write_goes_where_it_should(tmp_path: Path) -> None:
    fd = files.open_file(str(tmp_path / "other"), os.O_RDWR | os.O_CREAT)
    files.write_at(fd, b"abc", 5)
    assert files.read_at(fd, 8, 0) == b"\0\0\0\0\0abc"


def test_cached_bytes_are_read_without_waiting(fd: int) -> None:
    files.append(fd, [b"x" * 5000], 5000)
    assert files.read_cached_at(fd, 5000, 0, b"id") == b"x" * 5000


def test_bytes_that_may_not_be_cached_are_cold(fd: int) -> None:
    files.append(fd, [b"x" * 5000], 5000)
    with pytest.raises(ColdObject) as caught:
        files.read_cached_at(fd, 6000, 0, b"id")
    assert caught.value.object_id == b"id"


def test_a_filesystem_without_nowait_is_read_as_usual(fd: int, faults: Faults) -> None:
    files.append(fd, [b"abc"], 3)
    faults.error, faults.fail_at = errno.EOPNOTSUPP, len(faults.seen)
    assert files.read_cached_at(fd, 3, 0, b"id") == b"abc"


def test_what_would_wait_is_cold(fd: int, faults: Faults) -> None:
    faults.error, faults.fail_all = errno.EAGAIN, {"read"}
    with pytest.raises(ColdObject):
        files.read_cached_at(fd, 3, 0, b"id")


@pytest.mark.parametrize(
    ("number", "expected"),
    [(errno.ENOSPC, StoreFull), (errno.EDQUOT, StoreFull), (errno.EIO, StoreFault), (errno.EROFS, StoreFault)],
)
def test_errors_are_converted_by_meaning(
    fd: int, tmp_path: Path, faults: Faults, number: int, expected: type[Exception]
) -> None:
    path = str(tmp_path / "file")
    faults.error = number
    faults.fail_all = {"open", "append", "allocate", "write", "read", "sync", "cut", "remove", "rename", "commit"}
    for call in (
        lambda: files.open_file(path, os.O_RDONLY),
        lambda: files.append(fd, [b"x"], 1),
        lambda: files.append_at(fd, [b"x"], 1, 0),
        lambda: files.allocate(fd, 0, 1),
        lambda: files.write_at(fd, b"x", 0),
        lambda: files.read_at(fd, 1, 0),
        lambda: files.read_cached_at(fd, 1, 0, b"id"),
        lambda: files.sync_data(fd),
        lambda: files.sync_directory(str(tmp_path)),
        lambda: files.cut(fd, 0),
        lambda: files.remove(path),
        lambda: files.replace(path, path + "2"),
        lambda: files.announce("commit", path),
    ):
        with pytest.raises(expected):
            call()


def test_a_short_append_is_an_error_and_leaves_its_part(fd: int, faults: Faults) -> None:
    faults.fail_at, faults.short = len(faults.seen), 2
    with pytest.raises(StoreFull):
        files.append(fd, [b"abcdef"], 6)
    assert files.read_at(fd, 10, 0) == b"ab"


def test_an_append_that_the_kernel_cut_short_is_an_error(fd: int) -> None:
    # A caller that says more than it gives looks exactly like a kernel that wrote less than it was given.
    with pytest.raises(StoreFull):
        files.append(fd, [b"abc"], 4)


def test_an_append_into_space_that_was_taken_before(tmp_path: Path, faults: Faults) -> None:
    fd = files.open_file(str(tmp_path / "long"), os.O_RDWR | os.O_CREAT)
    files.allocate(fd, 0, 4096)
    assert os.fstat(fd).st_size == 4096
    files.append_at(fd, [b"ab", b"cd"], 4, 100)
    faults.fail_at, faults.short = len(faults.seen), 2
    with pytest.raises(StoreFull):
        files.append_at(fd, [b"xyz"], 3, 104)
    assert files.read_at(fd, 8, 100) == b"abcdxy\0\0"
    with pytest.raises(StoreFull):
        files.append_at(fd, [b"abc"], 4, 0)
    files.allocate(fd, 0, 10)
    assert os.fstat(fd).st_size == 4096


def test_names(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        files.open_file(str(tmp_path / "none"), os.O_RDONLY)
    files.remove(str(tmp_path / "none"))
    (tmp_path / "a").write_bytes(b"a")
    files.replace(str(tmp_path / "a"), str(tmp_path / "b"))
    files.sync_directory(str(tmp_path))
    assert os.listdir(tmp_path) == ["b"]
    files.remove(str(tmp_path / "b"))
    assert os.listdir(tmp_path) == []
