"""The journal's reserve: a name can be taken away on a full disk, and nothing else gets what is kept for that."""

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from helios_fs.errors import InvalidArgument, StoreFull
from helios_fs.journal import journal as journal_module
from helios_fs.journal import reserve
from helios_fs.journal.frame import MAX_PAYLOAD_BYTES
from helios_fs.journal.journal import Journal
from helios_fs.journal.reserve import FILE_NAME, RESERVE_BYTES, STEP_BYTES, Reserve
from helios_fs.store import files


class Disk:
    """A disk that has `free` bytes left; cutting a file down gives it more."""

    def __init__(self) -> None:
        self.free = 1 << 40
        self.refuse: set[str] = set()

    def __call__(self, operation: str, path: str, length: int) -> int | None:
        if operation in self.refuse:
            raise OSError(errno.ENOSPC, "full")
        if operation in ("append", "write"):
            if length > self.free:
                raise OSError(errno.ENOSPC, "full")
            self.free -= length
        return None


@pytest.fixture
def disk() -> Iterator[Disk]:
    found = Disk()
    files.set_fault(found)
    yield found
    files.set_fault(None)


def size(directory: Path) -> int:
    return (directory / FILE_NAME).stat().st_size


@pytest.fixture
def journal(tmp_path: Path, disk: Disk) -> Iterator[Journal]:
    opened = Journal.create(str(tmp_path / "journal"), 0)
    yield opened
    opened.close()


def refill_on_cut(disk: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let what the reserve gives back be free."""
    healthy = Reserve.spend

    def spend(self: Reserve) -> bool:
        spent = healthy(self)
        disk.free += STEP_BYTES if spent else 0
        return spent

    monkeypatch.setattr(Reserve, "spend", spend)


def test_it_is_real_space(journal: Journal, tmp_path: Path) -> None:
    status = (tmp_path / "journal" / FILE_NAME).stat()
    assert status.st_size == RESERVE_BYTES
    assert status.st_blocks * 512 >= RESERVE_BYTES


def test_only_what_frees_space_is_paid_from_it(
    journal: Journal, disk: Disk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refill_on_cut(disk, monkeypatch)
    disk.free = 0
    end = journal.end
    with pytest.raises(StoreFull):
        journal.append(1, 0, 0, b"a write")
    assert (journal.end, size(tmp_path / "journal")) == (end, RESERVE_BYTES)
    for number in range(2000):
        journal.append(5, 0, 0, b"%04d" % number, frees=True)
    assert size(tmp_path / "journal") < RESERVE_BYTES
    assert [frame.payload for frame in journal.frames(end)] == [b"%04d" % number for number in range(2000)]


def test_it_comes_to_an_end_and_comes_back(
    journal: Journal, disk: Disk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refill_on_cut(disk, monkeypatch)
    disk.free = 0
    with pytest.raises(StoreFull):
        for _ in range(100):
            journal.append(5, 0, 0, bytes(60_000), frees=True)
    assert size(tmp_path / "journal") == 0
    journal.drop_below(journal.end, keep_open=False)
    assert size(tmp_path / "journal") == RESERVE_BYTES
    disk.free = 1 << 30
    journal.append(1, 0, 0, b"again")


def test_spares_go_before_anything_else(
    journal: Journal, disk: Disk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal_module, "SEGMENT_BYTES", 200)
    for _ in range(5):
        journal.append(1, 0, 0, bytes(300))
    journal.drop_below(journal.end, keep_open=False)
    assert list((tmp_path / "journal").glob("*.spare"))
    disk.free = 0
    with pytest.raises(StoreFull):
        journal.append(1, 0, 0, bytes(300))
    assert not list((tmp_path / "journal").glob("*.spare"))
    disk.free = 10_000
    for _ in range(5):
        journal.append(1, 0, 0, bytes(300))
    # While the reserve is not whole again, space goes back to the disk at once.
    disk.refuse = {"allocate"}
    os.truncate(tmp_path / "journal" / FILE_NAME, 0)
    journal.drop_below(journal.end, keep_open=False)
    assert not list((tmp_path / "journal").glob("*.spare"))


def test_a_segment_ends_on_a_full_disk_too(
    journal: Journal, disk: Disk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal_module, "_SMALL_SEGMENT_BYTES", 1)
    refill_on_cut(disk, monkeypatch)
    journal.append(1, 0, 0, b"something")
    disk.free = 0
    journal.end_segment()
    assert len(list((tmp_path / "journal").glob("*.seg"))) == 2
    assert size(tmp_path / "journal") == RESERVE_BYTES - STEP_BYTES


def test_having_none_is_no_error(tmp_path: Path, disk: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    disk.refuse = {"allocate"}
    assert not _taken(tmp_path).spend()
    disk.refuse = {"open"}
    assert not _taken(tmp_path).spend()
    disk.refuse = set()
    monkeypatch.setattr(reserve, "_PLENTY", 1 << 50)
    assert not _taken(tmp_path).spend()
    assert not _taken(tmp_path / "absent").spend()
    monkeypatch.setattr(reserve, "_PLENTY", 1)
    whole = _taken(tmp_path)
    assert whole.is_whole
    disk.refuse = {"open"}
    # What cannot be given back is not promised a second time.
    assert whole.spend()
    assert not whole.spend()


def _taken(directory: Path) -> Reserve:
    found = Reserve(str(directory))
    found.take()
    return found


def test_a_record_that_no_frame_can_hold_is_refused(journal: Journal) -> None:
    """It would be appended, and taken for a torn tail at the next start, with all that came after it."""
    end = journal.end
    with pytest.raises(InvalidArgument):
        journal.append(1, 0, 0, bytes(MAX_PAYLOAD_BYTES + 1))
    with pytest.raises(InvalidArgument):
        journal.append(1, 0, 0, b"", bytes((16 << 20) + 1))
    assert journal.end == end
    journal.append(1, 0, 0, bytes(MAX_PAYLOAD_BYTES))
    assert len(list(journal.frames(end))) == 1
