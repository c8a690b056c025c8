"""A real disk that is really full: a tmpfs of a few MiB."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from helios_fs.errors import StoreFull
from helios_fs.objects.ids import KIND_BLOB, object_id
from helios_fs.objects.snapshot import Head, HeadMoved, Snapshot, SnapshotDeleted, SnapshotSealed
from helios_fs.store import gc, reserve
from helios_fs.store.environment import damage
from helios_fs.store.reach import Reach
from helios_fs.store.store import Store
from tests.unit.store.trees import store_tree

pytestmark = pytest.mark.root


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    target = tmp_path / "disk"
    target.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "none", target], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"a tmpfs cannot be mounted here: {done.stderr.strip()}")
    try:
        yield target
    finally:
        subprocess.run(["umount", target], check=True)


def _fill(disk: Path, leave: int, name: str = "filler") -> Path:
    """Fill the disk with a file, but for `leave` bytes."""
    path = disk / name
    free = os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize
    path.write_bytes(bytes(max(0, free - leave)))
    return path


@pytest.mark.parametrize("leave", [0, 4096, 8192, 16384, 32768, 65536, 131072])
def test_a_publish_on_a_full_disk_changes_nothing_and_can_be_repeated(disk: Path, leave: int) -> None:
    path = str(disk / "store")
    Store.create(path)
    with Store.open(path) as store, store.writer() as writer:
        fence = store.take_branch("main")
        old = store_tree(writer, {b"old": os.urandom(100_000)})
        writer.publish([HeadMoved(Head("main", old, 1, 1))], "main", fence)
        filler = _fill(disk, leave)
        payloads = {b"%d" % number: os.urandom(1000) for number in range(300)}
        with pytest.raises(StoreFull):
            tree = store_tree(writer, payloads)
            writer.publish([HeadMoved(Head("main", tree, 2, 1))], "main", fence)
        assert store.refs.head("main").lsn == 1
        assert damage(path + "/index") is None
        Reach(store).walk_all([])
        more = _fill(disk, 0, "more")
        with pytest.raises(StoreFull):
            for _ in range(5000):
                store.reserve_inos(10)
        more.unlink()
        filler.unlink()
        tree = store_tree(writer, payloads)
        writer.publish([HeadMoved(Head("main", tree, 2, 1))], "main", fence)
        gc.collect(store, writer)
    with Store.open(path) as store:
        assert store.refs.head("main").lsn == 2
        for payload in payloads.values():
            assert store.objects.get(KIND_BLOB, object_id(KIND_BLOB, payload)) == payload


def test_deleting_and_collecting_make_room_on_a_full_disk(disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reserve, "_PLENTY", 2)
    path = str(disk / "store")
    Store.create(path)
    with Store.open(path) as store:
        assert (disk / "store" / "reserve").stat().st_blocks * 512 == reserve.RESERVE_BYTES
        fence = store.take_branch("main")
        with store.writer() as writer:
            old = store_tree(writer, {b"%d" % number: os.urandom(100_000) for number in range(10)})
            snapshot = Snapshot("0000000001", "main", old, [], 1, 1)
            writer.publish([SnapshotSealed(snapshot), HeadMoved(Head("main", old, 1, 1))], "main", fence)
        with store.writer() as writer:
            new = store_tree(writer, {b"new": b"new"})
            writer.publish([HeadMoved(Head("main", new, 2, 2))], "main", fence)
            filler = _fill(disk, 0)
            with pytest.raises(StoreFull):
                for number in range(5000):
                    writer.publish([HeadMoved(Head("main", new, number, 2))], "main", fence)
            writer.publish([SnapshotDeleted("0000000001")], "main", fence)
            assert not (disk / "store" / "reserve").exists()
            monkeypatch.setattr(reserve, "_PLENTY", 0)
            assert gc.collect(store, writer).bytes_freed > 1_000_000
            assert filler.exists()
            writer.publish([HeadMoved(Head("main", new, 9999, 2))], "main", fence)
            gc.collect(store, writer)


def test_no_store_is_made_on_a_full_disk(disk: Path) -> None:
    filler = _fill(disk, 0)
    with pytest.raises(StoreFull):
        Store.create(str(disk / "store"))
    filler.unlink()
    Store.create(str(disk / "store"))
    filler = _fill(disk, 8192)
    with pytest.raises(StoreFull):
        Store.open(str(disk / "store"))
    filler.unlink()
    Store.open(str(disk / "store")).close()
