import os
from collections.abc import Iterator

import pytest

from helios_fs.errors import Busy, CorruptObject, ObjectMissing, StoreFault
from helios_fs.objects.ids import KIND_BLOB, KIND_TREE, ObjectId, object_id
from helios_fs.objects.snapshot import Head, HeadMoved, RefEvent, Snapshot, SnapshotDeleted, SnapshotSealed
from helios_fs.store import gc, maps
from helios_fs.store.packs import pack_numbers, pack_path
from helios_fs.store.reach import Reach
from helios_fs.store.store import Store
from helios_fs.store.writer import Writer, WriterGate
from tests.unit.store.faults import Faults
from tests.unit.store.trees import store_tree


@pytest.fixture
def writer(store: Store) -> Iterator[Writer]:
    with store.writer() as made:
        yield made


def _head(tree: bytes, lsn: int = 1, branch: str = "main") -> RefEvent:
    return HeadMoved(Head(branch, tree, lsn, 1))


def _snapshot(number: int, tree: bytes) -> Snapshot:
    return Snapshot(f"{number:010d}", "main", tree, [], number, number)


def _publish_alone(store: Store, tag: bytes, events: list[RefEvent] | None = None, **more: bytes) -> ObjectId:
    """Publish a tree from a writer of its own, so that it lies in a pack of its own; return its id."""
    with store.writer() as writer:
        tree = store_tree(writer, {b"a": tag * 50, b"b": tag * 99, b"empty": b""}, **more)
        writer.publish([_head(tree)] if events is None else events, "main", 0)
    return tree


def _packs(store: Store) -> list[int]:
    return pack_numbers(os.path.join(store.path, "packs"))


def _all_readable(store: Store, tree_id: bytes) -> bool:
    tree = store.objects.tree(tree_id)
    assert list(maps.scan(store.objects, tree.root.content))
    Reach(store).walk_tree(tree_id)
    return True


def test_an_empty_store_has_nothing_to_drop(store: Store) -> None:
    assert gc.collect(store) == gc.Collected()


def test_what_nothing_refers_to_is_dropped(store: Store) -> None:
    old = _publish_alone(store, b"old")
    new = _publish_alone(store, b"new", linked=b"hard", large=b"x" * 300)
    size = os.path.getsize(pack_path(os.path.join(store.path, "packs"), _packs(store)[0]))
    assert gc.collect(store)[:4] == (size, 1, 0, 1)
    assert len(_packs(store)) == 1
    assert not store.objects.has(old)
    assert _all_readable(store, new)
    assert gc.collect(store)[:4] == (0, 0, 0, 1)


def test_each_part_of_a_tree_keeps_its_pack(store: Store) -> None:
    """The blobs of small, linked and chunked files come from packs of their own; the tree names them all."""
    parts = {b"small": b"s" * 50, b"linked": b"l" * 50, b"head": b"h" * 100, b"tail": b"t" * 50}
    for payload in parts.values():
        with store.writer() as writer:
            writer.put(KIND_BLOB, payload)
            writer.publish([_head(b"")], "main", 0)
    with store.writer() as writer:
        writer.put(KIND_BLOB, b"garbage")
        writer.publish([_head(b"")], "main", 0)
    with store.writer() as writer:
        large = parts[b"head"] + parts[b"tail"]
        tree = store_tree(writer, {b"small": parts[b"small"]}, linked=parts[b"linked"], large=large)
        writer.publish([_head(tree)], "main", 0)
    assert len(_packs(store)) == 6
    assert gc.collect(store).packs_dropped == 1
    assert not store.objects.has(object_id(KIND_BLOB, b"garbage"))
    assert _all_readable(store, tree)


def test_a_snapshot_keeps_its_tree_until_it_is_deleted(store: Store) -> None:
    kept = _publish_alone(store, b"kept")
    with store.writer() as writer:
        writer.publish([SnapshotSealed(_snapshot(1, kept)), SnapshotSealed(_snapshot(2, b""))], "main", 0)
    _publish_alone(store, b"new")
    assert gc.collect(store).packs_dropped == 0
    with store.writer() as writer:
        writer.publish([SnapshotDeleted(_snapshot(1, kept).id)], "main", 0)
    assert gc.collect(store).packs_dropped == 1
    assert not store.objects.has(kept)


def test_every_branch_keeps_its_tree(store: Store) -> None:
    side = _publish_alone(store, b"side", None)
    with store.writer() as writer:
        writer.publish([_head(side, branch="main/side")], "main/side", 0)
    main = _publish_alone(store, b"main")
    assert gc.collect(store).packs_dropped == 0
    assert _all_readable(store, side) and _all_readable(store, main)


def test_pins_keep_what_refs_do_not(store: Store) -> None:
    tree = _publish_alone(store, b"tree")
    page = store.objects.tree(_publish_alone(store, b"page")).root.content
    blob = object_id(KIND_BLOB, b"blob" * 50)
    _publish_alone(store, b"blob")
    _publish_alone(store, b"new")
    gone = object_id(KIND_TREE, b"gone long ago")
    assert gc.collect(store, pins=[tree, page, blob, gone]).packs_dropped == 0
    assert gc.collect(store, pins=[page, blob]).packs_dropped == 1
    assert dict(maps.scan(store.objects, page))
    assert gc.collect(store, pins=[blob]).packs_dropped == 1
    assert store.objects.get(KIND_BLOB, blob) == b"blob" * 50
    assert gc.collect(store).packs_dropped == 1


def test_nothing_is_collected_while_a_writer_is_at_work(store: Store, writer: Writer) -> None:
    _publish_alone(store, b"old")
    _publish_alone(store, b"new")
    payload = b"old" * 50  # in the pack that nothing refers to: a hit that deduplication relies on
    writer.put(KIND_BLOB, payload)
    assert writer.unpublished == 0
    with pytest.raises(Busy, match="not published"):
        gc.collect(store, writer)
    with pytest.raises(Busy, match="writer is at work"):
        gc.collect(store)
    tree = store_tree(writer, {b"a": payload})
    writer.publish([_head(tree)], "main", 0)
    assert gc.collect(store, writer).packs_dropped == 1
    assert store.objects.get(KIND_BLOB, object_id(KIND_BLOB, payload)) == payload


def test_a_second_collection_is_refused_or_waits(store: Store) -> None:
    _publish_alone(store, b"old")
    _publish_alone(store, b"new")
    gate = WriterGate(store.path)
    assert gate.enter_alone(wait=False)
    with pytest.raises(Busy):
        gc.collect(store)
    gate.leave()
    assert gc.collect(store, wait=True).packs_dropped == 1
    gate.close()


def test_a_writer_whose_pack_was_dropped_begins_another(store: Store, writer: Writer) -> None:
    writer.put(KIND_BLOB, b"garbage")
    writer.publish([_head(b"")], "main", 0)
    assert gc.collect(store, writer).packs_dropped == 1
    tree = store_tree(writer, {b"a": b"garbage"})
    writer.publish([_head(tree)], "main", 0)
    assert store.objects.get(KIND_BLOB, object_id(KIND_BLOB, b"garbage")) == b"garbage"
    with Store.open(store.path) as again:
        assert _all_readable(again, tree)
    assert _packs(store) == [1]


def test_unpublished_rests_of_a_dead_process_are_dropped(path: str) -> None:
    child = os.fork()
    if child == 0:
        writer = Store.open(path).writer()
        writer.put(KIND_BLOB, os.urandom(5000))
        writer._flush()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    with Store.open(path) as store:
        assert len(_packs(store)) == 1
        assert gc.collect(store).bytes_freed > 5000
        assert _packs(store) == []


def test_readers_let_go_of_dropped_packs(path: str, store: Store) -> None:
    old = _publish_alone(store, b"old")
    store.objects.tree(old)
    (pack,) = store._pack_files._open.values()
    _publish_alone(store, b"new")
    gc.collect(store)
    assert pack.dropped
    assert pack not in store._pack_files._open.values()


@pytest.mark.parametrize("damage", ["page", "missing"])
def test_where_something_reachable_cannot_be_read_nothing_is_dropped(store: Store, damage: str) -> None:
    _publish_alone(store, b"garbage")
    tree = _publish_alone(store, b"new")
    root = store.objects.tree(tree).root.content
    location = store.index.find(root)
    assert location is not None
    if damage == "page":
        with open(pack_path(os.path.join(store.path, "packs"), location.pack), "r+b") as file:
            file.seek(location.offset + 60)
            file.write(b"\xff\xff\xff\xff")
    else:
        with store.index.environment.write() as txn:
            txn.delete(b"objects", root)
    with pytest.raises(CorruptObject if damage == "page" else ObjectMissing):
        gc.collect(store)
    assert len(_packs(store)) == 2


@pytest.mark.parametrize("failing", ["commit", "remove", "sync"])
def test_a_collection_that_fails_can_be_repeated(store: Store, faults: Faults, failing: str) -> None:
    _publish_alone(store, b"old")
    new = _publish_alone(store, b"new")
    faults.fail_all = {failing}
    with pytest.raises(StoreFault):
        gc.collect(store)
    faults.fail_all = set()
    gc.collect(store)
    assert len(_packs(store)) == 1
    with Store.open(store.path) as again:
        assert _all_readable(again, new)
    # What was dropped can come back: nothing in the index points at where it was.
    assert _all_readable(store, _publish_alone(store, b"old"))


def test_a_pack_that_somebody_else_removed_does_no_harm(store: Store) -> None:
    _publish_alone(store, b"old")
    new = _publish_alone(store, b"new")
    os.unlink(pack_path(os.path.join(store.path, "packs"), _packs(store)[0]))
    assert gc.collect(store).packs_dropped == 0
    assert _all_readable(store, new)
