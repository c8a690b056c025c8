"""Merging branches that nobody has mounted: bases, snapshots with two parents, kills, and what is refused."""

import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from helios_fs.errors import Busy, InvalidArgument, NoSuchEntry, NotPermitted, StoreFull
from helios_fs.history.branching import delete_offline, fork_offline
from helios_fs.history.merge_text import Favour
from helios_fs.history.merging import Outcome, Source, Wanted, merge_offline, source_offline, unsealed_between
from helios_fs.journal.segment import HEADER_BYTES
from helios_fs.sealer.process import seal_offline
from helios_fs.store import files
from helios_fs.store.gc import collect
from helios_fs.store.store import Store
from tests.model.harness import Branch, Dump
from tests.unit.history.merging import check_tree
from tests.unit.worktree.trees import directory, make, read, remove, rename, rewrite


class World:
    """A store whose branches are opened for a moment each."""

    def __init__(self, path: str) -> None:
        self.path = path
        main = Branch(path)
        directory(main, "/d")
        make(main, "/d/text", b"1\n2\n3\n")
        make(main, "/top", b"top\n")
        main.close()
        self.ids = {"main": "main"}

    def fork(self, name: str, parent: str = "main") -> None:
        with Store.open(self.path) as store:
            self.ids[name] = fork_offline(store, self.ids[parent], name, "somebody", "here").id

    def change(self, name: str, path: str, data: bytes) -> None:
        branch = Branch(self.path, self.ids[name])
        if path in branch.dump():
            rewrite(branch, path, data)
        else:
            make(branch, path, data)
        branch.close()

    def move(self, name: str, old: str, new: str) -> None:
        branch = Branch(self.path, self.ids[name])
        rename(branch, old, new)
        branch.close()

    def data(self, name: str, path: str) -> bytes:
        branch = Branch(self.path, self.ids[name])
        try:
            return read(branch, path)
        finally:
            branch.close()

    def merge(self, source: str, target: str = "main", favour: Favour = None, dry_run: bool = False) -> Outcome:
        with Store.open(self.path) as store:
            for between in unsealed_between(store, self.ids[source], self.ids[target]):
                seal_offline(self.path, between)
            ready = source_offline(store, self.ids[source], f"into {target}", "me", "here", dry_run)
            wanted = Wanted(ready, (target, source), favour, dry_run, "", "me", "here")
            outcome = merge_offline(store, self.ids[target], wanted)
            check_tree(store.objects, store.head(self.ids[target]).tree)
            return outcome


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    yield World(str(tmp_path / "store"))


def test_a_branch_comes_back_as_one_snapshot_with_two_parents(world: World) -> None:
    world.fork("x")
    world.change("x", "/d/text", b"1\n2\nthree\n")
    world.change("x", "/new", b"new")
    world.change("main", "/d/text", b"one\n2\n3\n")
    outcome = world.merge("x")
    assert (outcome.conflicts, outcome.changes, outcome.up_to_date) == ([], 2, False)
    assert world.data("main", "/d/text") == b"one\n2\nthree\n"
    assert world.data("main", "/new") == b"new"
    assert world.data("x", "/d/text") == b"1\n2\nthree\n"
    with Store.open(world.path) as store:
        taken = store.refs.find_snapshot("main", outcome.snapshot)
        source = store.refs.snapshots(world.ids["x"])[-1]
        assert taken is not None
        assert taken.parents == [source.id]
        assert taken.tree == store.head("main").tree
        assert (taken.message, taken.user, taken.host) == ("merge x", "me", "here")


def test_merging_again_takes_only_what_is_new(world: World) -> None:
    world.fork("x")
    world.change("x", "/d/text", b"1\n2\nthree\n")
    first = world.merge("x")
    assert world.merge("x").up_to_date
    world.change("main", "/d/text", b"1\ntwo\nthree\n")
    world.change("x", "/d/text", b"1\n2\nthree\nfour\n")
    world.change("x", "/top", b"theirs\n")
    second = world.merge("x")
    assert second.base != first.base
    assert not second.conflicts
    assert world.data("main", "/d/text") == b"1\ntwo\nthree\nfour\n"


def test_back_and_forth(world: World) -> None:
    world.fork("x")
    world.change("x", "/d/text", b"1\n2\nthree\n")
    world.merge("x")
    world.change("main", "/top", b"ours\n")
    world.merge("main", "x")
    assert world.data("x", "/top") == b"ours\n"
    world.move("x", "/d/text", "/moved")
    world.change("main", "/d/text", b"one\n2\nthree\n")
    assert not world.merge("x").conflicts
    assert world.data("main", "/moved") == b"one\n2\nthree\n"
    assert world.merge("x").up_to_date
    assert not world.merge("main", "x").conflicts
    assert world.data("x", "/moved") == b"one\n2\nthree\n"


def test_siblings_and_nested_branches(world: World) -> None:
    world.fork("x")
    world.fork("y")
    world.change("x", "/x", b"of x")
    world.fork("deep", "x")
    world.change("deep", "/deep", b"of deep")
    world.change("y", "/y", b"of y")
    assert not world.merge("deep", "y").conflicts
    assert (world.data("y", "/x"), world.data("y", "/deep"), world.data("y", "/y")) == (b"of x", b"of deep", b"of y")
    assert not world.merge("y", "x").conflicts
    assert world.data("x", "/y") == b"of y"
    assert not world.merge("x").conflicts
    assert world.data("main", "/deep") == b"of deep"
    assert world.merge("y").up_to_date


def test_conflicts_change_nothing(world: World) -> None:
    world.fork("x")
    world.change("x", "/top", b"theirs\n")
    world.change("x", "/new", b"new")
    world.change("main", "/top", b"ours\n")
    main = Branch(world.path)
    before: Dump = main.dump()
    main.close()
    outcome = world.merge("x")
    assert (outcome.conflicts, outcome.snapshot) == ([(b"top", "content")], "")
    main = Branch(world.path)
    assert main.dump() == before
    main.close()
    assert world.merge("x", favour="theirs").snapshot
    assert world.data("main", "/top") == b"theirs\n"


def test_a_dry_run_changes_nothing(world: World) -> None:
    world.fork("x")
    world.change("x", "/new", b"new")
    outcome = world.merge("x", dry_run=True)
    assert (outcome.snapshot, outcome.changes, outcome.conflicts) == ("", 1, [])
    with Store.open(world.path) as store:
        assert len(store.refs.all_snapshots()) == 1, "the one with which x begins"
    assert world.merge("x").changes == 1


def test_a_merged_branch_can_be_deleted(world: World) -> None:
    world.fork("x")
    world.change("x", "/new", b"new")
    with Store.open(world.path) as store, pytest.raises(NotPermitted):
        delete_offline(store, world.ids["x"], force=False)
    world.merge("x")
    with Store.open(world.path) as store:
        delete_offline(store, world.ids["x"], force=False)
        collect(store)
    assert world.data("main", "/new") == b"new"


def test_merged_text_outlives_a_collection(world: World) -> None:
    world.fork("x")
    world.change("x", "/d/text", b"1\n2\nthree\n")
    world.change("main", "/d/text", b"one\n2\n3\n")
    world.merge("x")
    with Store.open(world.path) as store:
        collect(store)
    assert world.data("main", "/d/text") == b"one\n2\nthree\n"


def test_what_is_refused(world: World, tmp_path: Path) -> None:
    world.fork("x")
    world.change("x", "/new", b"new")
    with pytest.raises(InvalidArgument):
        world.merge("x", "x")
    with Store.open(world.path) as store:
        source = source_offline(store, world.ids["x"], "", "", "")
        gone = Wanted(source._replace(snapshot="0000000000"), ("main", "x"))
        with pytest.raises(NoSuchEntry):
            merge_offline(store, "main", gone)
        stranger = Wanted(Source("stranger", source.snapshot, source.tree, 0), ("main", "stranger"), dry_run=True)
        with pytest.raises(NotPermitted):
            merge_offline(store, "main", stranger)
        lock = store.lock_branch("main")
        with pytest.raises(Busy):
            merge_offline(store, "main", Wanted(source, ("main", "x")))
        lock.release()


def test_a_full_disk_changes_nothing(world: World) -> None:
    world.fork("x")
    world.change("x", "/new", b"new")
    with Store.open(world.path) as store:
        source = source_offline(store, world.ids["x"], "", "", "")

        def full(operation: str, path: str, length: int) -> None:
            if operation == "allocate":
                raise OSError(28, os.strerror(28))

        files.set_fault(full)
        try:
            with pytest.raises(StoreFull):
                merge_offline(store, "main", Wanted(source, ("main", "x")))
        finally:
            files.set_fault(None)
        pins = [head for head in store.refs.heads() if head.branch.startswith("merging")]
        assert [pin.tree for pin in pins] == [b""]
    main = Branch(world.path)
    assert "/new" not in main.dump()
    main.close()
    assert world.merge("x").changes == 1


def test_a_kill_at_any_byte_of_the_journal_leaves_before_or_after(world: World, tmp_path: Path) -> None:
    world.fork("x")
    world.change("x", "/d/text", b"1\n2\nthree\n")
    world.change("x", "/new", b"new")
    world.move("x", "/top", "/d/top")
    main = Branch(world.path)
    before = main.dump()
    start = main.worktree.journal.end
    main.close()
    sealed = shutil.copytree(world.path, tmp_path / "before")
    # Sealed first, as the merge does, so that the store of the copy and the journal of the merge go together.
    with Store.open(world.path) as store:
        source = source_offline(store, world.ids["x"], "", "", "")
        wanted = Wanted(source, ("main", "x"))
        kept: list[bytes] = []

        def see(operation: str, path: str, length: int) -> None:
            if operation == "sync" and not kept:
                segments = sorted(Path(world.path, "journals", "main").glob("*.seg"))
                raw = segments[-1].read_bytes()
                if b"merge x" in raw:
                    kept.append(raw)
                    shutil.copytree(world.path, tmp_path / "killed")

        files.set_fault(see)
        try:
            merge_offline(store, "main", wanted)
        finally:
            files.set_fault(None)
    assert kept and sealed
    segment = sorted((tmp_path / "killed" / "journals" / "main").glob("*.seg"))[-1]
    first = int(segment.stem, 16)
    end = start
    opened = Branch(str(tmp_path / "killed"))
    after, end = opened.dump(), opened.worktree.journal.end
    opened.close()
    assert after != before
    seen = []
    for cut in [*range(start, end, 7), *range(end - 40, end + 1)]:
        shutil.rmtree(tmp_path / "one", ignore_errors=True)
        shutil.copytree(tmp_path / "killed", tmp_path / "one")
        (tmp_path / "one" / "journals" / "main" / segment.name).write_bytes(kept[0][: cut - first + HEADER_BYTES])
        opened = Branch(str(tmp_path / "one"))
        seen.append(opened.dump())
        opened.close()
        assert seen[-1] in (before, after)
        assert (seen[-1] == after) == (cut == end)


def test_what_became_of_another_type_is_another_inode(world: World) -> None:
    """A file that the branch has replaced by a symlink: no inode changes its type, and the journal can be replayed."""
    world.fork("x")
    branch = Branch(world.path, world.ids["x"])
    remove(branch, "/top")
    make(branch, "/top", mode=stat.S_IFIFO | 0o600)
    branch.close()
    main = Branch(world.path)
    before = main.walk("/top").ino
    main.close()
    assert not world.merge("x").conflicts
    main = Branch(world.path)
    after = main.walk("/top")
    assert stat.S_ISFIFO(after.mode)
    assert after.ino != before
    main.close()
