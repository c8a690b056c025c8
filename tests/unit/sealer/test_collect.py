"""Collecting in a whole store: deleted branches end, unsealed journals keep what they took, wherever it dies."""

import os
import shutil
import time
from pathlib import Path

import msgspec
import pytest

from helios_fs.errors import Busy, CorruptObject
from helios_fs.history.restore import Restore
from helios_fs.journal.journal import Journal
from helios_fs.objects.snapshot import Head, HeadMoved, Snapshot, SnapshotSealed
from helios_fs.sealer.collect import collect_store, end_deleted_branches, needed_by_journals
from helios_fs.store.branches import Branches, BranchInfo, journal_directory
from helios_fs.store.gc import NOTHING_LEFT, collect
from helios_fs.store.reach import Reach
from helios_fs.store.store import Store
from tests.model.harness import Branch
from tests.unit.store.test_rewrite import count_operations, die_at, packs_bytes
from tests.unit.store.trees import store_tree
from tests.unit.worktree.trees import make, read, remove, seal

_DATA = os.urandom(50_000)


def make_branch(store: Store, name: str, data: bytes, parent: str = "main", deleted_ns: int = 0) -> BranchInfo:
    """A branch with a snapshot and a journal of its own, as files and refs say; it holds `data`."""
    branch = f"b{name:0>16}"
    with store.writer() as writer:
        base = store_tree(writer, {b"base of " + name.encode(): data})
        tree = store_tree(writer, {name.encode(): data[::-1]})
        snapshot = Snapshot("0000000001", branch, base, [], 1, 1)
        events = [SnapshotSealed(snapshot), HeadMoved(Head(branch, tree, 0, 1))]
        directory = journal_directory(store.path, branch)
        with store.pins.held(base):
            writer.publish(events, branch, store.take_branch(branch))
            journal = Journal.create(directory, 0)
            journal.sync()
            journal.close()
            base_head = Head(branch, base, 0, 1)
            info = BranchInfo(branch, parent, name, base_head, 0, 1, "0000000001", 1, deleted_ns=deleted_ns)
            Branches(store.path).write(info)
    return info


@pytest.fixture
def path(tmp_path: Path) -> str:
    found = str(tmp_path / "store")
    Branch(found).close()
    return found


def test_the_base_of_a_branch_is_needed(path: str) -> None:
    with Store.open(path) as store:
        info = make_branch(store, "one", _DATA)
        collect_store(store, slack=NOTHING_LEFT)
        assert store.objects.tree(info.base.tree)
        Reach(store).walk_all([])
        Branches(path).write(msgspec.structs.replace(info, deleted_ns=5))
        collect(store, slack=NOTHING_LEFT)
        assert store.objects.tree(info.base.tree), "until it ends, it can be brought back"


def test_deleted_branches_end(path: str) -> None:
    with Store.open(path) as store:
        make_branch(store, "kept", _DATA)
        gone = make_branch(store, "gone", os.urandom(60_000), deleted_ns=5)
        fresh = make_branch(store, "fresh", os.urandom(60_000), deleted_ns=time.time_ns())
        before = packs_bytes(path)
        assert collect_store(store, grace_seconds=3600).bytes_freed > 100_000
        assert packs_bytes(path) < before - 100_000
        assert {info.name for info in Branches(path).all(deleted=True)} == {"fresh", "kept"}
        assert {head.branch for head in store.refs.heads()} == {"main", fresh.id, "b000000000000kept"}
        assert store.refs.snapshots(gone.id) == []
        assert not os.path.exists(journal_directory(path, gone.id))
        assert not os.path.exists(f"{path}/run/{gone.id}.lock")
        collect_store(store)
        assert [info.name for info in Branches(path).all(deleted=True)] == ["kept"]


def test_a_branch_in_use_or_with_branches_of_its_own_stays(path: str) -> None:
    with Store.open(path) as store:
        used = make_branch(store, "used", _DATA, deleted_ns=5)
        parent = make_branch(store, "parent", _DATA, deleted_ns=5)
        child = make_branch(store, "child", _DATA, parent=parent.id)
        lock = store.lock_branch(used.id)
        assert end_deleted_branches(store, time.time_ns()) == []
        lock.release()
        Branches(path).write(msgspec.structs.replace(child, deleted_ns=6))
        assert set(end_deleted_branches(store, time.time_ns())) == {used.id, parent.id, child.id}
        assert os.listdir(path + "/journals") == ["main"]


def test_one_that_is_brought_back_meanwhile_stays(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with Store.open(path) as store:
        info = make_branch(store, "back", _DATA, deleted_ns=5)
        lock_branch = store.lock_branch

        def bring_back(branch: str):  # type: ignore[no-untyped-def]
            Branches(path).write(msgspec.structs.replace(info, deleted_ns=0))
            return lock_branch(branch)

        monkeypatch.setattr(store, "lock_branch", bring_back)
        assert end_deleted_branches(store, time.time_ns()) == []
        assert Branches(path).get(info.id)


def test_a_writer_must_have_published(path: str) -> None:
    with Store.open(path) as store, store.writer() as writer:
        make_branch(store, "gone", _DATA, deleted_ns=5)
        writer.put(1, b"unpublished" * 20)
        with pytest.raises(Busy, match="not published"):
            collect_store(store, writer)
        assert Branches(path).all(deleted=True)


def test_the_end_of_a_branch_may_die_at_any_call(tmp_path: Path, path: str) -> None:
    with Store.open(path) as store:
        make_branch(store, "kept", _DATA)
        make_branch(store, "gone", os.urandom(60_000), deleted_ns=5)

    def work(where: str) -> None:
        with Store.open(where) as store:
            collect_store(store, slack=NOTHING_LEFT)

    count = len(count_operations(shutil.copytree(path, str(tmp_path / "counted")), work))
    for position in range(count):
        copy = shutil.copytree(path, str(tmp_path / "copy"))
        die_at(copy, position, work)
        with Store.open(copy) as store:
            Reach(store).walk_all([])
            assert {info.name for info in Branches(copy).all(deleted=True)} <= {"kept", "gone"}
        work(copy)
        with Store.open(copy) as store:
            assert [info.name for info in Branches(copy).all(deleted=True)] == ["kept"]
            Reach(store).walk_all([])
        assert packs_bytes(copy) < 110_000
        shutil.rmtree(copy)


def test_what_an_unsealed_journal_took_from_a_snapshot_is_needed(path: str) -> None:
    """Restored, and then the snapshot went by a merge or a purge elsewhere: the journal alone names the content."""
    branch = Branch(path)
    make(branch, "/file", _DATA)
    branch.worktree.create(branch.walk("/"), b"dir", 0o040755, 0, 0)
    make(branch, "/dir/below", _DATA[::-1])
    then = branch.worktree.snapshot(b"then")
    remove(branch, "/file")
    remove(branch, "/dir/below")
    remove(branch, "/dir")
    seal(branch)
    snapshot = branch.worktree.snapshots.get(then.id)
    restore = Restore(branch.worktree, branch.store.objects)
    restore.apply(restore.plan(branch.store.refs.head("main").tree, snapshot.tree))
    from helios_fs.objects.snapshot import SnapshotDeleted

    # As if somebody else had deleted it: the branch's own deletion would be sealed with the restore.
    branch.writer.publish([SnapshotDeleted(then.id)], "main", branch.fence)
    branch.close()
    with Store.open(path) as store:
        assert len(needed_by_journals(store)) == 2
        collect_store(store, slack=NOTHING_LEFT)
    branch.open()
    assert read(branch, "/file") == _DATA
    assert read(branch, "/dir/below") == _DATA[::-1]
    seal(branch)
    assert needed_by_journals(branch.store) == set()
    branch.close()


def test_a_journal_that_cannot_be_read_keeps_everything(path: str) -> None:
    branch = Branch(path)
    make(branch, "/file", _DATA)
    seal(branch)
    remove(branch, "/file")
    seal(branch)
    branch.close()
    (segment,) = [name for name in os.listdir(path + "/journals/main") if name.endswith(".seg")]
    os.rename(f"{path}/journals/main/{segment}", f"{path}/journals/main/{1 << 40:016x}.seg")
    before = os.listdir(path + "/packs")
    with Store.open(path) as store, pytest.raises(CorruptObject):
        collect_store(store, slack=NOTHING_LEFT)
    assert os.listdir(path + "/packs") == before
