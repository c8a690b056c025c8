import errno
import os
from pathlib import Path

import pytest

from helios_fs.errors import StoreFull
from helios_fs.objects.snapshot import Head, HeadMoved, SnapshotDeleted
from helios_fs.store import gc, reserve
from helios_fs.store.reserve import RESERVE_BYTES, Reserve
from helios_fs.store.store import Store
from tests.unit.store.faults import Faults


def test_it_is_taken_spent_and_taken_again(tmp_path: Path) -> None:
    one = Reserve(str(tmp_path))
    assert not one.spend()
    one.restore()
    one.restore()
    assert (tmp_path / "reserve").stat().st_blocks * 512 >= RESERVE_BYTES
    assert one.spend()
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("failing", ["open", "allocate", "rename"])
def test_having_none_is_no_error(tmp_path: Path, faults: Faults, failing: str) -> None:
    faults.fail_all, faults.error = {failing}, errno.ENOSPC
    one = Reserve(str(tmp_path))
    one.restore()
    assert not one.spend()
    faults.fail_all = set()
    one.restore()
    assert one.spend()
    assert os.listdir(tmp_path) == []


def test_it_is_not_taken_from_a_disk_that_has_little(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reserve, "_PLENTY", 1 << 50)
    Reserve(str(tmp_path)).restore()
    assert os.listdir(tmp_path) == []


def test_what_cannot_be_removed_cannot_be_spent(tmp_path: Path, faults: Faults) -> None:
    one = Reserve(str(tmp_path))
    one.restore()
    faults.fail_all = {"remove"}
    assert not one.spend()


class _FullUntilSpent:
    """A disk on which nothing can be committed while the reserve is there."""

    def __init__(self, path: str) -> None:
        self._reserve = os.path.join(path, "reserve")

    def __call__(self, operation: str, _path: str, _length: int) -> None:
        if operation == "commit" and os.path.exists(self._reserve):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_only_work_that_makes_space_may_spend_it(store: Store, faults: Faults) -> None:
    from helios_fs.store import files

    with store.writer() as writer:
        writer.put(1, b"garbage")
        writer.publish([HeadMoved(Head("main", b"", 1, 1))], "main", 0)
        files.set_fault(_FullUntilSpent(store.path))
        with pytest.raises(StoreFull):
            writer.publish([HeadMoved(Head("main", b"", 2, 1))], "main", 0)
        assert os.path.exists(store.path + "/reserve")
        assert gc.collect(store, writer).packs_dropped == 1
        assert os.path.exists(store.path + "/reserve")  # taken again: there is room now
        writer.publish([SnapshotDeleted("0000000001"), HeadMoved(Head("main", b"", 3, 1))], "main", 0)
        assert not os.path.exists(store.path + "/reserve")
        assert store.refs.head("main").lsn == 3


def test_without_a_reserve_a_full_disk_is_said(store: Store, faults: Faults) -> None:
    with store.writer() as writer:
        writer.put(1, b"garbage")
        writer.publish([HeadMoved(Head("main", b"", 1, 1))], "main", 0)
        assert store.reserve.spend()
        faults.fail_all, faults.error = {"commit"}, errno.ENOSPC
        with pytest.raises(StoreFull):
            gc.collect(store, writer)
        with pytest.raises(StoreFull):
            writer.publish([SnapshotDeleted("0000000001")], "main", 0)
