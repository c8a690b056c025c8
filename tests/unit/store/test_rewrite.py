"""Packs that are mostly dead are rewritten: under faults, deaths, readers and damage the store stays whole."""

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from helios_fs.errors import CorruptObject, HeliosError, ObjectMissing
from helios_fs.objects.ids import KIND_BLOB, ObjectId, object_id
from helios_fs.objects.snapshot import BranchGone, Head, HeadMoved, RefEvent, Snapshot, SnapshotDeleted, SnapshotSealed
from helios_fs.store import files, gc
from helios_fs.store.packs import pack_numbers, pack_path
from helios_fs.store.reach import Reach
from helios_fs.store.store import Store
from tests.unit.store.faults import Faults
from tests.unit.store.trees import store_tree

KEPT = {b"kept%d" % number: os.urandom(4000) for number in range(10)}
GONE = {b"gone%d" % number: os.urandom(4000) for number in range(30)}


def half_dead(path: str) -> None:
    """A store with one pack, of which three quarters are not needed any more."""
    if not os.path.exists(path):
        Store.create(path)
    with Store.open(path) as store, store.writer() as writer:
        old = store_tree(writer, KEPT | GONE)
        new = store_tree(writer, KEPT)
        snapshot = Snapshot("0000000001", "main", old, [], 1, 1)
        writer.publish([HeadMoved(Head("main", new, 1, 1)), SnapshotSealed(snapshot)], "main", 0)
        writer.publish([SnapshotDeleted("0000000001")], "main", 0)


def packs_bytes(path: str) -> int:
    return sum(entry.stat().st_size for entry in os.scandir(path + "/packs"))


def check_whole(path: str) -> None:
    """All that is reachable verifies, all that was kept is what it was."""
    with Store.open(path) as store:
        reach = Reach(store)
        reach.walk_all([])
        for name in reach.live:
            location = store.index.find(name)
            assert location is not None
            store.objects.load_at(location, name)
        for data in KEPT.values():
            assert store.objects.get(KIND_BLOB, object_id(KIND_BLOB, data)) == data


def test_a_half_dead_pack_is_rewritten(path: str) -> None:
    half_dead(path)
    before = packs_bytes(path)
    with Store.open(path) as store:
        done = gc.collect(store)
        assert (done.packs_dropped, done.packs_rewritten, done.packs_kept, done.dead_bytes) == (1, 1, 1, 0)
        assert done.bytes_freed == pytest.approx(before - packs_bytes(path), abs=200)
        assert pack_numbers(path + "/packs") == [1]
        assert not any(store.objects.has(object_id(KIND_BLOB, data)) for data in GONE.values())
        assert gc.collect(store)[:3] == (0, 0, 0)
    check_whole(path)
    shutil.rmtree(path + "/index")
    check_whole(path)
    assert packs_bytes(path) < 1.1 * 40_000


def test_how_much_may_stay(path: str, store: Store) -> None:
    """Half of a pack by itself; a tenth of the store; nothing."""
    with store.writer() as writer:
        most, some = dict(list(GONE.items())[:29]), dict(list(GONE.items())[29:])
        for number, tree in enumerate((store_tree(writer, most | some), store_tree(writer, most)), 1):
            snapshot = SnapshotSealed(Snapshot(f"000000000{number}", "main", tree, [], 1, 1))
            writer.publish([HeadMoved(Head("main", tree, number, 1)), snapshot], "main", 0)
        writer.publish([SnapshotDeleted("0000000001")], "main", 0)
    for slack in (gc.HALF_DEAD, gc.TIGHT):
        done = gc.collect(store, slack=slack)
        assert done.packs_rewritten == 0 and 4000 < done.dead_bytes < 6000
    done = gc.collect(store, slack=gc.NOTHING_LEFT)
    assert (done.packs_rewritten, done.dead_bytes) == (1, 0)
    assert packs_bytes(path) == done.live_bytes + 64


def test_many_packs_shrink_to_what_they_hold(path: str, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Snapshots of real size, nine in ten deleted; in rounds, so that little room is needed meanwhile."""
    monkeypatch.setattr(gc, "_ROUND_BYTES", 4 << 20)
    needed = 0
    events: list[RefEvent] = []
    for number in range(60):
        with store.writer() as writer:
            data = {b"%d" % one: os.urandom(100_000) for one in range(10)}
            # Parts that last are spread among those that do not.
            shared = {b"shared%d" % one: os.urandom(60_000) for one in range(5)}
            small = store_tree(writer, shared)
            large = store_tree(writer, shared | data)
            keeps = number % 10 == 0
            needed += 300_000 + keeps * 1_000_000
            for tree, name in ((small, f"1{number:09d}"), (large, f"0{number:09d}")):
                writer.publish([SnapshotSealed(Snapshot(name, "main", tree, [], 1, 1))], "main", 0)
            events += [] if keeps else [SnapshotDeleted(f"0{number:09d}")]
    with store.writer() as writer:
        writer.publish(events, "main", 0)
    before = packs_bytes(path)
    assert before > 2.5 * needed
    reports: list[tuple[int, int, int]] = []
    done = gc.collect(store, slack=gc.TIGHT, progress=lambda *report: reports.append(report))
    assert packs_bytes(path) <= 1.2 * needed
    assert done.problems == () and done.packs_rewritten > 10
    assert done.bytes_freed == pytest.approx(before - packs_bytes(path), abs=5000)
    assert max(copied for _, _, copied in reports) > 1 << 20
    Reach(store).walk_all([])


# -- Readers ---------------------------------------------------------------------------------------------------------


def test_a_reader_that_has_the_old_pack_open_reads_on(path: str) -> None:
    half_dead(path)
    data = KEPT[b"kept3"]
    name = object_id(KIND_BLOB, data)
    with Store.open(path) as reader, Store.open(path) as store:
        location = reader.index.find(name)
        assert location is not None
        assert reader.objects.load_at(location, name) == data
        assert gc.collect(store).packs_rewritten == 1
        assert reader.objects.load_at(location, name) == data
        reader.objects.release_dropped()
        with pytest.raises(ObjectMissing):
            reader.objects.load_at(location, name)
        assert reader.objects.get(KIND_BLOB, name) == data


@pytest.mark.parametrize("opened", [False, True])
def test_a_reader_that_looked_the_place_up_before_looks_again(
    path: str, monkeypatch: pytest.MonkeyPatch, opened: bool
) -> None:
    """O4: the collection comes between the look into the index and the read."""
    half_dead(path)
    name = object_id(KIND_BLOB, KEPT[b"kept3"])
    with Store.open(path) as reader, Store.open(path) as store:
        if opened:
            reader.objects.get(KIND_BLOB, object_id(KIND_BLOB, KEPT[b"kept1"]))
        find, stale = reader.index.find, []

        def find_then_collect(object_id: bytes):  # type: ignore[no-untyped-def]
            found = find(object_id)
            if not stale:
                stale.append(found)
                gc.collect(store)
                reader.objects.release_dropped()
            return found

        monkeypatch.setattr(reader.index, "find", find_then_collect)
        assert reader.objects.get(KIND_BLOB, name) == KEPT[b"kept3"]
        assert find(name) != stale[0]


def test_what_is_damaged_or_missing_is_still_said(path: str, store: Store) -> None:
    with pytest.raises(ObjectMissing):
        store.objects.get(KIND_BLOB, b"\1" * 32)


# -- Damage ----------------------------------------------------------------------------------------------------------


def test_a_record_that_does_not_verify_keeps_its_pack(path: str) -> None:
    half_dead(path)
    name = object_id(KIND_BLOB, KEPT[b"kept5"])
    with Store.open(path) as store:
        location = store.index.find(name)
        assert location is not None
        with open(pack_path(path + "/packs", location.pack), "r+b") as file:
            file.seek(location.offset + 1000)
            file.write(b"damage")
        before = os.listdir(path + "/packs")
        done = gc.collect(store)
        assert done.packs_dropped == done.packs_rewritten == 0
        assert os.listdir(path + "/packs") == before
        (problem,) = done.problems
        assert name.hex() in problem and "pack 00000000" in problem
        with pytest.raises(CorruptObject):
            store.objects.get(KIND_BLOB, name)
        other = object_id(KIND_BLOB, KEPT[b"kept6"])
        assert store.objects.get(KIND_BLOB, other) == KEPT[b"kept6"]


def test_two_copies_published_by_two_writers_do_not_cost_the_one_that_counts(path: str, store: Store) -> None:
    """Both wrote the same tree, neither seeing the other: the index has one place, the other copy is garbage."""
    first, second = store.writer(), store.writer()
    tree = store_tree(first, KEPT)
    assert store_tree(second, KEPT) == tree
    first.publish([HeadMoved(Head("main", tree, 1, 1))], "main", 0)
    reach = Reach(store)
    reach.walk_all([])
    second.publish([HeadMoved(Head("side", tree, 1, 1))], "side", 0)
    first.close()
    second.close()
    assert gc.collect(store).packs_dropped == 1
    check_whole(path)


# -- Faults and deaths -----------------------------------------------------------------------------------------------


def _collect(path: str) -> None:
    with Store.open(path) as store:
        gc.collect(store, slack=gc.NOTHING_LEFT)


def count_operations(path: str, work: Callable[[str], None]) -> list[str]:
    faults = Faults()
    files.set_fault(faults)
    try:
        work(path)
    finally:
        files.set_fault(None)
    return faults.seen


def die_at(path: str, position: int, work: Callable[[str], None]) -> bool:
    """Run `work` in a process that dies at one raw operation; tell whether it came so far."""
    child = os.fork()
    if child == 0:
        seen = [0]

        def die(operation: str, _path: str, length: int) -> int | None:
            seen[0] += 1
            if seen[0] > position:
                os._exit(7)
            return None

        files.set_fault(die)
        try:
            work(path)
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("template") / "store"
    half_dead(str(found))
    return found


def test_a_collection_may_die_at_any_call(template: Path, tmp_path: Path) -> None:
    counted = shutil.copytree(template, tmp_path / "counted")
    seen = count_operations(str(counted), _collect)
    assert {"append", "sync", "commit", "remove"} <= set(seen)
    died = 0
    for position in range(len(seen)):
        path = str(shutil.copytree(template, tmp_path / "store"))
        died += die_at(path, position, _collect)
        check_whole(path)
        _collect(path)
        check_whole(path)
        assert packs_bytes(path) < 1.1 * 40_000
        if position % 5 == 0:
            shutil.rmtree(path + "/index")
            check_whole(path)
        shutil.rmtree(path)
    assert died > 0.9 * len(seen)


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC])
def test_any_call_of_a_collection_may_fail(template: Path, tmp_path: Path, number: int) -> None:
    counted = shutil.copytree(template, tmp_path / "counted")
    count = len(count_operations(str(counted), _collect))
    failed = 0
    for position in range(count):
        path = str(shutil.copytree(template, tmp_path / "store"))
        faults = Faults()
        faults.fail_at, faults.error = position, number
        files.set_fault(faults)
        try:
            _collect(path)
        except HeliosError:
            failed += 1
        finally:
            files.set_fault(None)
        check_whole(path)
        _collect(path)
        check_whole(path)
        assert packs_bytes(path) < 1.1 * 40_000
        shutil.rmtree(path)
    assert failed > 5


def test_a_disk_that_is_full_keeps_what_cannot_be_copied(path: str, faults: Faults) -> None:
    half_dead(path)
    with Store.open(path) as store:
        faults.error, faults.fail_all = errno.ENOSPC, {"append"}
        done = gc.collect(store)
        assert len(done.problems) == 1 and "no room" in done.problems[0]
        faults.fail_all = set()
    check_whole(path)


# -- Branches --------------------------------------------------------------------------------------------------------


def test_a_branch_that_is_gone_leaves_nothing_in_the_index(path: str, store: Store) -> None:
    fence = store.take_branch("side")
    with store.writer() as writer:
        tree: ObjectId = store_tree(writer, KEPT)
        snapshot = Snapshot("0000000001", "side", tree, [], 1, 1)
        writer.publish([HeadMoved(Head("side", tree, 1, 1)), SnapshotSealed(snapshot)], "side", fence)
        other = Snapshot("0000000001", "main", tree, [], 1, 1)
        writer.publish([SnapshotSealed(other)], "main", 0)
        for _ in range(2):
            writer.publish([BranchGone("side")], "main", 0)
    assert store.refs.heads() == []
    assert [one.branch for one in store.refs.all_snapshots()] == ["main"]
    with store.writer() as writer, pytest.raises(HeliosError, match="newer owner"):
        writer.publish([HeadMoved(Head("side", tree, 2, 1))], "side", fence)
