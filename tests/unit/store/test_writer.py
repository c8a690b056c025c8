import os
from collections.abc import Iterator

import pytest

from helios_fs.errors import ColdObject, CorruptObject, Fenced, NoSuchEntry, ObjectMissing, StoreFault, StoreFull
from helios_fs.objects.entry import Tree, encode_tree
from helios_fs.objects.ids import KIND_BLOB, KIND_PAGE, KIND_TREE, object_id
from helios_fs.objects.pages import Page, encode_page
from helios_fs.objects.snapshot import (
    Head,
    HeadMoved,
    RefEvent,
    Snapshot,
    SnapshotChanged,
    SnapshotDeleted,
    SnapshotSealed,
)
from helios_fs.store import writer as writer_module
from helios_fs.store.packs import pack_numbers
from helios_fs.store.store import Store
from helios_fs.store.writer import Writer
from tests.unit.store.faults import Faults
from tests.unit.store.trees import directory_entry


@pytest.fixture
def writer(store: Store) -> Iterator[Writer]:
    with store.writer() as made:
        yield made


def _moved(lsn: int, branch: str = "main") -> list[RefEvent]:
    return [HeadMoved(Head(branch, b"", lsn, 1))]


def _packs(store: Store) -> list[int]:
    return pack_numbers(os.path.join(store.path, "packs"))


def test_objects_of_each_kind_come_back(path: str) -> None:
    tree, page = Tree(directory_entry(b""), b""), Page(0, [b"a"], [b"1"])
    with Store.open(path) as store:
        fence, writer = store.take_branch("main"), store.writer()
        blob_id = writer.put(KIND_BLOB, b"bytes" * 100)
        page_id = writer.put(KIND_PAGE, encode_page(page))
        tree_id = writer.put(KIND_TREE, encode_tree(tree))
        writer.publish(_moved(1), "main", fence)
    for _ in range(2):
        with Store.open(path) as store:
            objects = store.objects
            for _ in range(2):
                assert objects.get(KIND_BLOB, blob_id) == b"bytes" * 100
                assert objects.page(page_id) == page
                assert objects.tree(tree_id) == tree
            assert objects.get(KIND_PAGE, page_id) == encode_page(page)
            assert objects.has(blob_id)


def test_what_is_not_there_is_missing(store: Store, writer: Writer) -> None:
    nothing = object_id(KIND_BLOB, b"nothing")
    for call in (store.objects.page, store.objects.tree, store.objects.warm, writer.page):
        with pytest.raises(ObjectMissing):
            call(nothing)
    with pytest.raises(ObjectMissing):
        store.objects.get(KIND_BLOB, nothing)
    assert not store.objects.has(nothing) and not writer.has(nothing)


def test_an_id_asked_for_as_another_kind_is_missing(store: Store, writer: Writer) -> None:
    name = writer.put(KIND_BLOB, b"bytes")
    writer.publish(_moved(1), "main", 0)
    with pytest.raises(ObjectMissing):
        store.objects.page(name)


def test_the_writer_reads_what_it_has_not_published(store: Store, writer: Writer) -> None:
    page = Page(0, [b"a"], [b"1" * 1000])
    name, blob = writer.put(KIND_PAGE, encode_page(page)), writer.put(KIND_BLOB, b"blob")
    for _ in range(2):
        assert writer.has(name) and writer.page(name) == page
        assert writer.get(KIND_BLOB, blob) == b"blob"
        assert not store.objects.has(name)
        writer._flush()
    writer.publish(_moved(1), "main", 0)
    assert writer.page(name) == store.objects.page(name) == page
    assert writer.get(KIND_BLOB, blob) == b"blob"


def test_equal_objects_are_stored_once(path: str, store: Store, writer: Writer) -> None:
    payload = os.urandom(5000)
    assert writer.put(KIND_BLOB, payload) == writer.put(KIND_BLOB, payload)
    assert writer.unpublished == 1
    writer._flush()
    writer.put(KIND_BLOB, payload)
    writer.publish(_moved(1), "main", 0)
    with Store.open(path) as again:
        other = again.writer()
        other.put(KIND_BLOB, payload)
        assert other.unpublished == 0
        assert not other.idle
        other.publish(_moved(2), "main", 0)
        assert other.idle
    assert len(_packs(store)) == 1


def test_a_blob_and_a_page_with_equal_bytes_are_two_objects(store: Store, writer: Writer) -> None:
    payload = encode_page(Page(0, [b"a"], [b"1"]))
    assert writer.put(KIND_BLOB, payload) != writer.put(KIND_PAGE, payload)


def test_nothing_is_seen_before_it_is_published(store: Store, writer: Writer) -> None:
    name = writer.put(KIND_BLOB, b"bytes")
    writer._flush()
    with pytest.raises(ObjectMissing):
        store.objects.get(KIND_BLOB, name)
    writer.discard()
    assert writer.unpublished == 0
    with pytest.raises(ObjectMissing):
        writer.get(KIND_BLOB, name)
    with pytest.raises(NoSuchEntry):
        store.refs.head("main")


def test_a_publish_without_events_keeps_objects_safe_until_one_with(store: Store, writer: Writer) -> None:
    name = writer.put(KIND_BLOB, b"bytes")
    writer.publish([], "main", 0)
    assert store.objects.get(KIND_BLOB, name) == b"bytes"
    assert not writer.idle
    writer.publish(_moved(1), "main", 0)
    assert writer.idle


def test_a_new_process_never_appends_to_an_old_pack(path: str) -> None:
    for number in range(3):
        with Store.open(path) as store:
            writer = store.writer()
            for part in range(2):
                writer.put(KIND_BLOB, b"%d %d" % (number, part))
                writer.publish(_moved(number), "main", 0)
            assert len(_packs(store)) == number + 1


def test_a_full_pack_is_followed_by_another(store: Store, writer: Writer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("helios_fs.store.packs.PACK_BYTES", 100_000)
    monkeypatch.setattr(writer_module, "PACK_BYTES", 100_000)
    monkeypatch.setattr(writer_module, "_BUFFER_BYTES", 40_000)
    payloads = [os.urandom(9_000) for _ in range(50)] + [os.urandom(200_000), os.urandom(5)]
    names = [writer.put(KIND_BLOB, payload) for payload in payloads]
    writer.publish(_moved(1), "main", 0)
    for name, payload in zip(names, payloads, strict=True):
        assert store.objects.get(KIND_BLOB, name) == payload
    sizes = [os.path.getsize(f"{store.path}/packs/{number:08x}.pack") for number in _packs(store)]
    assert len(sizes) >= 6
    assert sorted(sizes)[-2] <= 100_000
    assert len(writer._packs) <= 1


# -- Refs ------------------------------------------------------------------------------------------------------------


def _snapshot(number: int, branch: str = "main", name: bytes = b"") -> Snapshot:
    return Snapshot(f"{number:010d}", branch, b"t" * 32, [], number, number, name)


def test_heads_and_snapshots_take_effect_together_and_survive(path: str) -> None:
    with Store.open(path) as store:
        writer, refs = store.writer(), store.refs
        fence = store.take_branch("main")
        one, other, last = _snapshot(3), _snapshot(1, name=b"first"), _snapshot(2)
        side = _snapshot(7, "main/side")
        events = [SnapshotSealed(one), SnapshotSealed(other), SnapshotSealed(last), SnapshotSealed(side)]
        writer.publish([*events, *_moved(9)], "main", fence)
        assert refs.snapshots("main") == [other, last, one]
        assert refs.snapshots("main/side") == [side]
        assert refs.find_snapshot("main", one.id) == one
        assert refs.find_snapshot("main", side.id) is None
        assert len(refs.all_snapshots()) == 4
        writer.publish(
            [
                SnapshotDeleted(last.id),
                SnapshotChanged(one.id, b"one", "", True),
                SnapshotChanged("9999999999", b"none", "", False),
            ],
            "main",
            fence,
        )
        writer.publish(_moved(4, "main/side"), "main/side", 0)
    with Store.open(path) as store:
        assert [(s.id, s.name) for s in store.refs.snapshots("main")] == [(other.id, b"first"), (one.id, b"one")]
        assert [(head.branch, head.lsn) for head in store.refs.heads()] == [("main", 9), ("main/side", 4)]
        assert store.refs.head("main") == Head("main", b"", 9, 1)
        assert store.refs.snapshots("none") == []


def test_an_owner_that_was_replaced_publishes_nothing(store: Store, writer: Writer) -> None:
    old = store.take_branch("main")
    writer.publish(_moved(1), "main", old)
    new = store.take_branch("main")
    name = writer.put(KIND_BLOB, b"late")
    with pytest.raises(Fenced):
        writer.publish(_moved(2), "main", old)
    assert store.refs.head("main").lsn == 1
    assert not store.objects.has(name)
    writer.publish(_moved(3), "main", new)
    assert store.refs.head("main").lsn == 3
    assert store.objects.get(KIND_BLOB, name) == b"late"


def test_several_writers_publish_to_one_store(path: str) -> None:
    children = []
    for number in range(3):
        child = os.fork()
        if child == 0:
            with Store.open(path) as store:
                branch = f"b{number}"
                fence, writer = store.take_branch(branch), store.writer()
                for step in range(15):
                    writer.put(KIND_BLOB, b"%d %d" % (number, step))
                    writer.put(KIND_BLOB, b"shared %d" % step)
                    writer.publish(_moved(step, branch), branch, fence)
            os._exit(0)
        children.append(child)
    assert [os.waitpid(child, 0)[1] for child in children] == [0, 0, 0]
    with Store.open(path) as store:
        assert [(head.branch, head.lsn) for head in store.refs.heads()] == [("b0", 14), ("b1", 14), ("b2", 14)]
        for step in range(15):
            for payload in (*(b"%d %d" % (number, step) for number in range(3)), b"shared %d" % step):
                assert store.objects.get(KIND_BLOB, object_id(KIND_BLOB, payload)) == payload
        assert len(_packs(store)) == 3


# -- Reading without waiting -----------------------------------------------------------------------------------------


def test_a_reader_that_may_not_wait_is_told(store: Store, writer: Writer) -> None:
    page, tree = Page(0, [b"a"], [b"1"]), Tree(directory_entry(b""), b"")
    blob_id = writer.put(KIND_BLOB, b"bytes")
    page_id, tree_id = writer.put(KIND_PAGE, encode_page(page)), writer.put(KIND_TREE, encode_tree(tree))
    writer.publish(_moved(1), "main", 0)
    impatient = store.objects.without_waiting()
    with pytest.raises(ColdObject) as caught:
        impatient.get(KIND_BLOB, blob_id)
    assert caught.value.object_id == blob_id
    for name in (blob_id, page_id, tree_id):
        store.objects.warm(name)
    assert impatient.get(KIND_BLOB, blob_id) == b"bytes"
    assert impatient.page(page_id) == page
    assert impatient.tree(tree_id) == tree
    assert store.objects.get(KIND_BLOB, blob_id, wait=False) == b"bytes"


def test_a_patient_view_stays_patient(store: Store, writer: Writer) -> None:
    name = writer.put(KIND_BLOB, b"bytes")
    writer.publish(_moved(1), "main", 0)
    store.objects.without_waiting()
    assert store.objects.get(KIND_BLOB, name) == b"bytes"


# -- Faults ----------------------------------------------------------------------------------------------------------


def test_damaged_bytes_are_never_returned(path: str) -> None:
    with Store.open(path) as store:
        writer = store.writer()
        name = writer.put(KIND_BLOB, b"precious bytes")
        writer.publish(_moved(1), "main", 0)
        pack = f"{path}/packs/{_packs(store)[0]:08x}.pack"
    with open(pack, "r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"S")
    with Store.open(path) as store:
        for _ in range(2):
            with pytest.raises(CorruptObject):
                store.objects.get(KIND_BLOB, name)


def test_a_failed_sync_moves_the_records_to_another_pack(store: Store, writer: Writer, faults: Faults) -> None:
    kept = writer.put(KIND_BLOB, b"kept " * 100)
    writer.publish(_moved(1), "main", 0)
    names = {writer.put(KIND_BLOB, b"%d" % number * 50): b"%d" % number * 50 for number in range(20)}
    faults.fail_all = {"sync"}
    with pytest.raises(StoreFault):
        writer.publish(_moved(2), "main", 0)
    faults.fail_all = set()
    assert store.refs.head("main").lsn == 1
    writer.publish(_moved(2), "main", 0)
    assert len(_packs(store)) == 2
    assert store.objects.get(KIND_BLOB, kept) == b"kept " * 100
    for name, payload in names.items():
        assert store.objects.get(KIND_BLOB, name) == payload
        location = store.index.find(name)
        assert location is not None and location.pack == _packs(store)[1]


def test_records_that_cannot_be_rescued_at_once_are_rescued_later(store: Store, writer: Writer, faults: Faults) -> None:
    names = [writer.put(KIND_BLOB, b"%d" % number * 50) for number in range(5)]
    faults.fail_all = {"sync", "read"}
    with pytest.raises(StoreFault):
        writer.publish(_moved(2), "main", 0)
    faults.fail_all = set()
    # The kernel would say yes to a second fdatasync; it must not be believed.
    with pytest.raises(StoreFault, match="earlier fdatasync failed"):
        writer.publish(_moved(2), "main", 0)
    writer.publish(_moved(2), "main", 0)
    for number, name in enumerate(names):
        assert store.objects.get(KIND_BLOB, name) == b"%d" % number * 50
        location = store.index.find(name)
        assert location is not None and location.pack == _packs(store)[1]


def test_a_full_disk_during_put_loses_nothing(
    store: Store, writer: Writer, faults: Faults, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer_module, "_BUFFER_BYTES", 3000)
    faults.short = 500
    payloads = [os.urandom(1000) for _ in range(12)]
    refused = 0
    for number, payload in enumerate(payloads):
        if number % 3 == 2:
            # The next append is the one that this put causes (the first also makes the pack).
            faults.fail_at = len(faults.seen) + (0 if number > 2 else 2)
        try:
            writer.put(KIND_BLOB, payload)
        except StoreFull:
            refused += 1
    assert refused
    faults.fail_at = -1
    writer.publish(_moved(1), "main", 0)
    for payload in payloads:
        assert store.objects.get(KIND_BLOB, object_id(KIND_BLOB, payload)) == payload
