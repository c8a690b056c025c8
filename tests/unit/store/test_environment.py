import errno
import os
import struct
from collections.abc import Iterator
from pathlib import Path

import lmdb
import pytest

from helios_fs.errors import CorruptObject, StoreFault, StoreFull
from helios_fs.store import environment
from helios_fs.store.environment import META, OBJECTS, Environment, damage
from tests.unit.store.faults import Faults


@pytest.fixture
def directory(tmp_path: Path) -> str:
    made = tmp_path / "index"
    made.mkdir()
    return str(made)


@pytest.fixture
def index(directory: str) -> Iterator[Environment]:
    opened = Environment(directory, create=True)
    yield opened
    opened.close()


def test_values_come_back_and_go(index: Environment) -> None:
    with index.write() as txn:
        txn.put(OBJECTS, b"a", b"1")
        txn.put_number(b"count", 2**63)
        assert txn.find(OBJECTS, b"a") == b"1"
    assert index.find(OBJECTS, b"a") == b"1"
    assert index.find(META, b"a") is None
    with index.read() as reading:
        assert reading.find_number(b"count") == 2**63
        assert reading.find_number(b"none") == 0
    with index.write() as txn:
        txn.delete(OBJECTS, b"a")
        txn.delete(OBJECTS, b"never there")
    assert index.find(OBJECTS, b"a") is None


def test_an_exception_undoes_everything(index: Environment) -> None:
    with pytest.raises(KeyError), index.write() as txn:
        txn.put(OBJECTS, b"a", b"1")
        raise KeyError
    assert index.find(OBJECTS, b"a") is None


def test_a_commit_that_fails_undoes_everything(index: Environment, faults: Faults) -> None:
    faults.fail_all, faults.error = {"commit"}, errno.ENOSPC
    with pytest.raises(StoreFull), index.write() as txn:
        txn.put(OBJECTS, b"a", b"1")
    assert index.find(OBJECTS, b"a") is None
    with index.write():
        pass  # Nothing changed, so there is nothing to commit and nothing to fail.


def test_scan_is_in_order_and_stays_within_its_prefix(index: Environment) -> None:
    with index.write() as txn:
        for key in (b"b2", b"a", b"b1", b"c"):
            txn.put(OBJECTS, key, key)
    with index.read() as reading:
        assert [key for key, _ in reading.scan(OBJECTS)] == [b"a", b"b1", b"b2", b"c"]
        assert list(reading.scan(OBJECTS, b"b")) == [(b"b1", b"b1"), (b"b2", b"b2")]
        assert list(reading.scan(OBJECTS, b"d")) == []


def test_a_flipped_bit_is_found_and_remembered(index: Environment) -> None:
    with index.write() as txn:
        txn.put(OBJECTS, b"key", b"value")
    with index._env.begin(write=True) as raw:
        raw.put(b"key", b"valuf" + raw.get(b"key", db=index.handle(OBJECTS))[5:], db=index.handle(OBJECTS))
    with pytest.raises(CorruptObject, match="built again"):
        index.find(OBJECTS, b"key")
    assert damage(index.path) == "it was found damaged"
    with index.read() as reading, pytest.raises(CorruptObject):
        list(reading.scan(OBJECTS))


def test_a_value_under_another_key_is_found(index: Environment) -> None:
    with index.write() as txn:
        txn.put(OBJECTS, b"key", b"value")
    with index._env.begin(write=True) as raw:
        raw.put(b"yek", raw.get(b"key", db=index.handle(OBJECTS)), db=index.handle(OBJECTS))
    with pytest.raises(CorruptObject):
        index.find(OBJECTS, b"yek")


def test_damage_is_remembered_even_where_the_disk_is_full(index: Environment, faults: Faults) -> None:
    faults.fail_all, faults.error = {"open"}, errno.ENOSPC
    index.mark_damaged()
    faults.fail_all = set()
    assert damage(index.path) is None


def test_a_missing_or_truncated_index_is_seen_before_it_is_mapped(directory: str) -> None:
    assert damage(directory) == "it is missing"
    Environment(directory, create=True).close()
    assert damage(directory) is None
    data = Path(directory, "data.mdb")
    whole = data.read_bytes()
    data.write_bytes(whole[: len(whole) - 4096])
    assert damage(directory) == "it is truncated"
    data.write_bytes(whole[:100])
    assert damage(directory) == "it is truncated"


@pytest.mark.parametrize(("at", "value"), [(16, 0), (16 + 24, 77), (4096 + 16, 1)])
def test_a_damaged_meta_page_is_seen(directory: str, at: int, value: int) -> None:
    Environment(directory, create=True).close()
    data = Path(directory, "data.mdb")
    whole = bytearray(data.read_bytes())
    whole[at : at + 4] = struct.pack("<I", value)
    data.write_bytes(whole)
    assert "damaged" in (damage(directory) or "")


def test_a_database_that_is_not_there_means_build_again(directory: str) -> None:
    lmdb.open(directory).close()
    with pytest.raises(CorruptObject):
        Environment(directory)


def test_a_file_that_is_no_index_means_build_again(directory: str) -> None:
    Path(directory, "data.mdb").write_bytes(b"\1" * 16384)
    assert damage(directory) is not None
    with pytest.raises(CorruptObject):
        Environment(directory)


def test_a_full_map_is_a_full_store(directory: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "_MAP_SIZES", (1 << 20,))
    index = Environment(directory, create=True)
    with pytest.raises(StoreFull), index.write() as txn:
        for number in range(10_000):
            txn.put(OBJECTS, b"%d" % number, b"x" * 500)
    index.close()


def test_other_errors_of_lmdb_are_faults(index: Environment) -> None:
    with index.read() as reading, pytest.raises(StoreFault):
        reading.find(OBJECTS, b"")
    with pytest.raises(StoreFault), index.write() as txn:
        txn.put(OBJECTS, b"k" * 600, b"")
    with pytest.raises(StoreFault), index.write() as txn:
        txn.delete(OBJECTS, b"")
    with pytest.raises(StoreFault):
        index.find(OBJECTS, b"")


def test_a_closed_environment_is_a_fault(index: Environment) -> None:
    index.close()
    for call in (index.read, index.write, index.sync, lambda: index.find(OBJECTS, b"a")):
        with pytest.raises(StoreFault):
            call()


def test_a_machine_without_address_space_gets_a_smaller_map(directory: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "_MAP_SIZES", (1 << 62, 1 << 24))
    index = Environment(directory, create=True)
    assert index._env.info()["map_size"] == 1 << 24
    index.close()
    monkeypatch.setattr(environment, "_MAP_SIZES", (1 << 62,))
    with pytest.raises(StoreFault):
        Environment(directory)


def test_an_environment_is_refused_after_a_fork(index: Environment) -> None:
    child = os.fork()
    if child == 0:
        code = 0
        for call in (index.read, index.write, lambda: index.find(OBJECTS, b"a")):
            try:
                call()
                code = 1
            except StoreFault:
                pass
        os._exit(code)
    assert os.waitpid(child, 0)[1] == 0


def test_one_process_opens_it_once(directory: str) -> None:
    Environment(directory, create=True).close()
    opened: list[int] = []

    def opener() -> Environment:
        opened.append(1)
        return Environment(directory)

    one, other = environment.share(directory, opener), environment.share(directory, opener)
    assert one is other
    environment.release(one)
    assert other.find(OBJECTS, b"a") is None
    environment.release(other)
    third = environment.share(directory, opener)
    assert len(opened) == 2
    environment.release(third)


def test_an_index_whose_last_pages_were_freed_is_not_taken_for_truncated(index: Environment) -> None:
    """LMDB does not write pages that a transaction took and freed again; the file ends before them."""
    for number in range(40):
        with index.write() as txn:
            keys = [b"%d %d" % (number, part) for part in range(200)]
            for key in keys:
                txn.put(OBJECTS, key, b"x" * 3000)
            for key in keys[1:]:
                txn.delete(OBJECTS, key)
        assert damage(index.path) is None


def test_a_commit_on_a_disk_too_full_to_grow_the_file_is_still_a_commit(index: Environment, faults: Faults) -> None:
    faults.fail_all, faults.error = {"allocate"}, errno.ENOSPC
    for number in range(40):
        with index.write() as txn:
            keys = [b"%d %d" % (number, part) for part in range(200)]
            for key in keys:
                txn.put(OBJECTS, key, b"x" * 3000)
            for key in keys[1:]:
                txn.delete(OBJECTS, key)
        assert index.find(OBJECTS, keys[0]) == b"x" * 3000
    assert "allocate" in faults.seen


def test_a_map_that_fails_otherwise_than_by_memory_is_a_fault(tmp_path: Path) -> None:
    with pytest.raises(StoreFault):
        Environment(str(tmp_path / "no" / "such" / "directory"))
