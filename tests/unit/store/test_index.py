import os
from pathlib import Path

import pytest

from helios_fs.errors import CorruptObject, NotAStore, StoreFault
from helios_fs.objects.ids import KIND_BLOB, object_id
from helios_fs.store import environment
from helios_fs.store import store as store_module
from helios_fs.store.environment import OBJECTS, Environment
from helios_fs.store.index import decode_location
from helios_fs.store.packs import PackAppender, Record
from helios_fs.store.reflog import Extent, InosReserved, Published
from helios_fs.store.store import Store
from tests.unit.store.faults import Faults


def test_a_location_of_another_length_is_damage(store: Store) -> None:
    with store.index.environment.write() as txn:
        txn.put(OBJECTS, b"i" * 32, b"short")
    with pytest.raises(CorruptObject):
        store.index.find(b"i" * 32)
    with pytest.raises(CorruptObject):
        decode_location(b"\0" * 23)


def test_records_of_others_are_applied_with_what_their_packs_hold(store: Store) -> None:
    """As a process leaves them that died between the ref log and LMDB; one of its packs was dropped since."""
    payload = b"payload"
    name = object_id(KIND_BLOB, payload)
    number = store.index.next_pack()
    pack = PackAppender(store.path + "/packs", number, store.store_id)
    pack.append([Record(KIND_BLOB, 0, name, len(payload), payload)])
    extents = [Extent(number + 1, 64, 99), Extent(number, 64, pack.length)]
    end = store._log.append(Published("main", 0, extents, b"\x90"), store._log.size())
    end = store._log.append(InosReserved(5000), end)
    with open(store.path + "/refs", "ab") as log:
        log.write(b"HREFtorn")
    assert not store.objects.has(name)
    store.index.recover()
    assert store.objects.get(KIND_BLOB, name) == payload
    assert os.path.getsize(store.path + "/refs") == end
    assert store.reserve_inos(1) == range(5000, 5001)


def test_a_change_that_cannot_even_be_taken_back_is_there_in_full(store: Store, faults: Faults) -> None:
    faults.fail_all = {"commit"}
    calls = []
    begin = store.index.environment.write

    def once() -> environment.WriteTransaction:
        calls.append(1)
        if len(calls) > 1:
            raise StoreFault("no more transactions")
        return begin()

    store.index.environment.write = once  # type: ignore[method-assign]  # the second one is the one that takes back
    with pytest.raises(StoreFault):
        store.reserve_inos(10)
    assert len(calls) == 2
    faults.fail_all = set()
    store.index.environment.write = begin  # type: ignore[method-assign]  # as it was
    assert store.reserve_inos(10) == range(12, 22)


def test_a_log_that_shrinks_under_an_open_store_is_noticed(store: Store) -> None:
    before = os.path.getsize(store.path + "/refs")
    store.reserve_inos(10)
    os.truncate(store.path + "/refs", before)
    with pytest.raises(NotAStore, match="truncated"):
        store.reserve_inos(10)


def test_damage_that_only_opening_finds_leads_to_a_rebuild(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with Store.open(path) as store:
        store.reserve_inos(10)
    monkeypatch.setattr(store_module.environment, "damage", lambda _path: None)
    Path(path, "index", "data.mdb").write_bytes(b"\1" * 40_000)
    with Store.open(path) as store:
        assert store.reserve_inos(1)[0] >= 12


def test_a_fault_while_the_index_is_looked_at_is_no_damage(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with Store.open(path) as store:
        store.reserve_inos(10)

    def failing(self: Environment) -> environment.ReadTransaction:
        raise StoreFault("the disk is away")

    with monkeypatch.context() as patch:
        patch.setattr(Environment, "read", failing)
        with pytest.raises(StoreFault, match="away"):
            Store.open(path)
    with Store.open(path) as store:
        assert store.reserve_inos(1) == range(12, 13)  # no rebuild, which would have gone on far higher


def test_a_rebuild_that_cannot_begin_is_a_fault(path: str) -> None:
    Path(path, "index.new").write_bytes(b"a file where the new index should go")
    with pytest.raises(StoreFault):
        Store.open(path)
    os.unlink(path + "/index.new")
    Store.open(path).close()
