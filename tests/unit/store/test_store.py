import errno
import os
import threading
from pathlib import Path

import pytest

from helios_fs.errors import EntryExists, NotAStore, StoreFault, StoreFull, WrongVersion
from helios_fs.objects.ids import MAX_INO
from helios_fs.store import files
from helios_fs.store.store import Store, read_format
from tests.unit.store.faults import Faults


def test_a_new_store_is_private_and_opens(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "store"
    Store.create(str(path))
    assert path.stat().st_mode & 0o777 == 0o700
    assert (path / "run").stat().st_mode & 0o777 == 0o700
    first, second = (path / "format").read_text().splitlines()
    assert first == "helios-store 0"
    assert second.startswith("id ") and len(second) == 35
    with Store.open(str(path)) as store:
        assert store.path == str(path.resolve())
        assert store.refs.heads() == []
        assert store.statvfs().f_blocks > 0
        store.close()


def test_a_path_that_is_not_utf8_is_as_good_as_any(tmp_path: Path) -> None:
    path = os.fsdecode(os.fsencode(tmp_path) + b"/st\xff\xfere")
    Store.create(path)
    with Store.open(path) as store:
        assert len(store.reserve_inos(3)) == 3


def test_an_empty_directory_becomes_a_store_and_anything_else_does_not(tmp_path: Path) -> None:
    path = tmp_path / "store"
    path.mkdir()
    Store.create(str(path))
    with pytest.raises(EntryExists, match="store already"):
        Store.create(str(path))
    full = tmp_path / "full"
    full.mkdir()
    (full / "packs").mkdir()
    with pytest.raises(EntryExists, match="not empty"):
        Store.create(str(full))
    (full / "format.new").touch()
    (full / "precious").touch()
    with pytest.raises(EntryExists, match="not empty"):
        Store.create(str(full))
    with pytest.raises(EntryExists, match="not a directory"):
        Store.create(str(full / "precious"))
    with pytest.raises(StoreFault):
        Store.create(str(full / "precious" / "below"))


def _count_of_create(tmp_path: Path) -> int:
    seen = Faults()
    files.set_fault(seen)
    try:
        Store.create(str(tmp_path / "counted"))
    finally:
        files.set_fault(None)
    return len(seen.seen)


def test_create_that_fails_anywhere_can_be_repeated(tmp_path: Path, faults: Faults) -> None:
    count = _count_of_create(tmp_path)
    assert count > 10
    for number in range(count):
        path = str(tmp_path / f"store{number}")
        files.set_fault(faults)
        faults.seen, faults.fail_at, faults.error = [], number, errno.ENOSPC
        with pytest.raises(StoreFull):
            Store.create(path)
        files.set_fault(None)
        if os.path.exists(os.path.join(path, "format")):
            # Only the names' durability was in doubt: the store is whole.
            assert number >= count - 2
        else:
            with pytest.raises(NotAStore):
                Store.open(path)
            Store.create(path)
        Store.open(path).close()


def test_create_that_dies_anywhere_leaves_no_store_or_a_whole_one(tmp_path: Path) -> None:
    for number in range(_count_of_create(tmp_path)):
        path = str(tmp_path / f"store{number}")
        left = [number]

        def die(_operation: str, _path: str, _length: int, left: list[int] = left) -> None:
            left[0] -= 1
            if left[0] < 0:
                os._exit(0)

        child = os.fork()
        if child == 0:
            files.set_fault(die)
            Store.create(path)
            os._exit(1)
        assert os.waitpid(child, 0)[1] == 0
        if not os.path.exists(os.path.join(path, "format")):
            with pytest.raises(NotAStore):
                Store.open(path)
            Store.create(path)
        Store.open(path).close()


def test_what_is_no_store_is_said_so(tmp_path: Path, path: str) -> None:
    with pytest.raises(NotAStore, match="not there"):
        Store.open(str(tmp_path / "none"))
    with pytest.raises(NotAStore, match="no file called format"):
        Store.open(str(tmp_path))
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(NotAStore, match="not a directory"):
        Store.open(str(file))
    text = Path(path, "format").read_bytes()
    for damaged in (b"", b"helios-store\n", b"helios-store 0", text[:-1], text + b"more\n", b"\xff" * 100):
        Path(path, "format").write_bytes(damaged)
        with pytest.raises(NotAStore):
            Store.open(path)
    Path(path, "format").write_bytes(text)
    assert len(read_format(path)) == 16
    os.rmdir(os.path.join(path, "packs"))
    with pytest.raises(NotAStore, match="no directory packs"):
        Store.open(path)


def test_a_newer_format_is_refused_before_anything_else_is_looked_at(path: str) -> None:
    Path(path, "format").write_bytes(b"helios-store 7\nsomething that no program of today knows")
    Path(path, "refs").unlink()
    with pytest.raises(WrongVersion, match=r"has format 7, this program reads format 0: it needs a newer HeliosFS"):
        Store.open(path)


def test_a_missing_or_shortened_ref_log_is_not_a_whole_store(path: str) -> None:
    with Store.open(path) as store:
        before = os.path.getsize(os.path.join(path, "refs"))
        store.reserve_inos(10)
    os.truncate(os.path.join(path, "refs"), before)
    with pytest.raises(NotAStore, match="truncated"):
        Store.open(path)
    os.unlink(os.path.join(path, "refs"))
    with pytest.raises(NotAStore, match="missing"):
        Store.open(path)


def test_inode_numbers_are_reserved_once(path: str) -> None:
    with Store.open(path) as store:
        assert store.reserve_inos(10) == range(2, 12)
        assert store.reserve_inos(1) == range(12, 13)
    with Store.open(path) as store:
        assert store.reserve_inos(5) == range(13, 18)


def test_threads_and_processes_never_share_inode_numbers(path: str) -> None:
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        with Store.open(path) as store:
            for _ in range(20):
                os.write(writer, b"%d\n" % store.reserve_inos(10)[0])
        os._exit(0)
    taken: list[int] = []
    with Store.open(path) as store:
        threads = [
            threading.Thread(target=lambda: taken.extend(store.reserve_inos(10)[0] for _ in range(20)))
            for _ in range(3)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert os.waitpid(child, 0)[1] == 0
    os.close(writer)
    with os.fdopen(reader) as lines:
        taken += [int(line) for line in lines]
    assert sorted(taken) == list(range(2, 802, 10))


def test_inode_numbers_can_run_out(store: Store) -> None:
    store.reserve_inos(MAX_INO - 3)
    with pytest.raises(StoreFault, match="run out"):
        store.reserve_inos(2)
    assert store.reserve_inos(1) == range(MAX_INO - 1, MAX_INO)


def test_each_owner_of_a_branch_has_a_higher_epoch(path: str) -> None:
    with Store.open(path) as store:
        first = store.take_branch("main")
        store.take_branch("side")
        second = store.take_branch("main")
    with Store.open(path) as store:
        assert first < second < store.take_branch("main")


def test_a_reservation_that_fails_changes_nothing(path: str, faults: Faults) -> None:
    with Store.open(path) as store:
        store.reserve_inos(10)
        faults.seen = []
        store.reserve_inos(10)
        count = len(faults.seen)
        assert faults.seen == ["append", "sync", "commit"]
        last = 21
        for number in range(count):
            faults.seen, faults.fail_at = [], number
            with pytest.raises(StoreFault):
                store.reserve_inos(10)
            faults.fail_at = -1
            reserved = store.reserve_inos(10)
            assert reserved[0] == last + 1
            last = reserved[-1]


def test_a_disk_that_cannot_be_asked_is_a_fault(tmp_path: Path) -> None:
    Store.create(str(tmp_path / "store"))
    with Store.open(str(tmp_path / "store")) as store:
        store.path = str(tmp_path / "gone")
        with pytest.raises(StoreFault):
            store.statvfs()


def test_a_store_is_shared_within_a_process_and_closes_with_its_last_user(path: str) -> None:
    one, other = Store.open(path), Store.open(os.path.relpath(path))
    one.close()
    one.close()
    assert other.reserve_inos(1) == range(2, 3)
    other.close()
