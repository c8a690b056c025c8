"""Publishing under faults: whatever call fails, or wherever the process dies, the store is as before or as after."""

import errno
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from helios_fs.errors import StoreFault, StoreFull
from helios_fs.objects.ids import KIND_BLOB, ObjectId
from helios_fs.objects.snapshot import Head, HeadMoved, RefEvent, Snapshot, SnapshotSealed
from helios_fs.store import files
from helios_fs.store.reach import Reach
from helios_fs.store.store import Store
from helios_fs.store.writer import Writer
from tests.unit.store.faults import Faults
from tests.unit.store.trees import store_tree

_FILES = {b"%d" % number: os.urandom(30 * number) for number in range(30)}


def _first(path: str) -> int:
    with Store.open(path) as store, store.writer() as writer:
        fence = store.take_branch("main")
        tree = store_tree(writer, {b"0": b"before"})
        writer.publish([HeadMoved(Head("main", tree, 1, 1))], "main", fence)
    return fence


def _put_second(writer: Writer) -> tuple[ObjectId, list[RefEvent]]:
    tree = store_tree(writer, _FILES, linked=b"l" * 70, large=b"y" * 500)
    snapshot = Snapshot("0000000001", "main", tree, [], 1, 1, b"name")
    return tree, [SnapshotSealed(snapshot), HeadMoved(Head("main", tree, 2, 2))]


def _is_after(store: Store) -> bool:
    """Tell which state the store is in, and check that it is wholly in it."""
    head, snapshots = store.refs.head("main"), store.refs.snapshots("main")
    Reach(store).walk_all([])
    assert (head.lsn, [snapshot.tree for snapshot in snapshots]) in [(1, []), (2, [head.tree])]
    return head.lsn == 2


def _publish_counted(path: str, prepare: Callable[[], Faults]) -> int:
    """How many raw operations one publish makes, from its first put on."""
    fence = _first(path)
    with Store.open(path) as store, store.writer() as writer:
        faults = prepare()
        _, events = _put_second(writer)
        writer.publish(events, "main", fence)
        files.set_fault(None)
        assert _is_after(store)
    assert {"open", "append", "sync", "commit"} <= set(faults.seen)
    return len(faults.seen)


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC])
@pytest.mark.parametrize("short", [None, 0, 20, 100])
def test_any_call_may_fail_once(tmp_path: Path, faults: Faults, number: int, short: int | None) -> None:
    def watch() -> Faults:
        faults.seen = []
        return faults

    Store.create(str(tmp_path / "counted"))
    count = _publish_counted(str(tmp_path / "counted"), watch)
    for position in range(count):
        path = str(tmp_path / "store")
        Store.create(path)
        fence = _first(path)
        with Store.open(path) as store, store.writer() as writer:
            files.set_fault(faults)
            faults.seen, faults.fail_at, faults.error, faults.short = [], position, number, short
            failed = False
            try:
                _, events = _put_second(writer)
                writer.publish(events, "main", fence)
            except (StoreFault, StoreFull):
                failed = True
            files.set_fault(None)
            with Store.open(path) as other:
                assert _is_after(other) != failed
            if failed:
                _, events = _put_second(writer)
                writer.publish(events, "main", fence)
            assert _is_after(store)
        with Store.open(path) as store:
            assert _is_after(store)
        shutil.rmtree(path + "/index")
        with Store.open(path) as store:
            assert _is_after(store)
        shutil.rmtree(path)


@pytest.mark.parametrize("operation", ["open", "append", "sync", "commit", "cut"])
@pytest.mark.parametrize("also", ["", "cut"])
def test_calls_that_keep_failing_leave_before_or_after(
    tmp_path: Path, faults: Faults, operation: str, also: str
) -> None:
    path = str(tmp_path / "store")
    Store.create(path)
    fence = _first(path)
    with Store.open(path) as store, store.writer() as writer:
        writer.put(KIND_BLOB, b"so that there is a pack already")
        writer.publish([], "main", fence)
        faults.fail_all = {operation, also}
        failed = False
        for _ in range(3):
            try:
                _, events = _put_second(writer)
                writer.publish(events, "main", fence)
            except (StoreFault, StoreFull):
                failed = True
        assert failed == (operation not in {"cut", "open"})
        faults.fail_all = set()
    with Store.open(path) as store, store.writer() as writer:
        # Where a record could not even be taken back out of the log it took effect: all of it.
        assert _is_after(store) == (not failed or (operation, also) == ("commit", "cut"))
        _, events = _put_second(writer)
        writer.publish(events, "main", fence)
        assert _is_after(store)


@pytest.mark.parametrize("short", [False, True])
def test_the_process_may_die_at_any_call(tmp_path: Path, short: bool) -> None:
    Store.create(str(tmp_path / "counted"))
    watching = Faults()

    def watch() -> Faults:
        files.set_fault(watching)
        return watching

    count = _publish_counted(str(tmp_path / "counted"), watch)
    states = []
    for position in range(count + 1):
        path = str(tmp_path / "store")
        Store.create(path)
        fence = _first(path)
        child = os.fork()
        if child == 0:
            _publish_and_die(path, fence, position, short)
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        with Store.open(path) as store, store.writer() as writer:
            states.append(_is_after(store))
            store.reserve_inos(1)
            _, events = _put_second(writer)
            writer.publish(events, "main", fence)
            assert _is_after(store)
        shutil.rmtree(path)
    # Before, up to the ref log's append; after, from there on.
    assert states == sorted(states)
    assert states[0] is False and states[-1] is True
    assert states.count(True) == 3  # killed before its sync, before the commit, and not at all


def _publish_and_die(path: str, fence: int, position: int, short: bool) -> None:
    seen = [0]

    def die(operation: str, _path: str, length: int) -> int | None:
        seen[0] += 1
        if seen[0] > position + 1:
            os._exit(0)
        if seen[0] == position + 1:
            if not (short and operation == "append"):
                os._exit(0)
            return length // 2  # torn: half of it arrives, then the process dies at its next call
        return None

    store = Store.open(path)
    writer = store.writer()
    files.set_fault(die)
    _, events = _put_second(writer)
    writer.publish(events, "main", fence)


_DIES_AT_COMMIT = """
import os, sys
from helios_fs.store import files
from helios_fs.store.store import Store
from tests.unit.store.test_publish_faults import _put_second
store = Store.open(sys.argv[1])
writer = store.writer()
_, events = _put_second(writer)
writer._flush()
files.set_fault(lambda operation, path, length: os._exit(7) if operation == "commit" else None)
writer.publish(events, "main", int(sys.argv[2]))
"""


def test_a_record_whose_commit_was_lost_is_applied_by_the_next_writer(path: str) -> None:
    """Two writers: one dies between ref log and commit; the other's publish takes its record in first."""
    fence = _first(path)
    with Store.open(path) as store, store.writer() as writer:
        done = subprocess.run([sys.executable, "-c", _DIES_AT_COMMIT, path, str(fence)], cwd=Path(__file__).parents[3])
        assert done.returncode == 7
        assert not _is_after(store)
        writer.publish([HeadMoved(Head("side", b"", 5, 1))], "side", 0)
        assert store.refs.head("side").lsn == 5
        assert _is_after(store)
