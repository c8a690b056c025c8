"""Restore: a whole state or some paths come back, whatever is open or in the way."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from helios_fs.errors import NoSuchEntry
from helios_fs.history.changed import Changed
from helios_fs.history.restore import Plan, Restore
from helios_fs.objects import record
from helios_fs.objects.ids import ROOT_INO
from helios_fs.worktree.inode import Inode
from tests.model.harness import Branch, Dump
from tests.unit.worktree.trees import directory, make, read, remove, rename, rewrite, seal


@pytest.fixture
def branch(tmp_path: Path) -> Iterator[Branch]:
    """A branch with something of everything in it, in a snapshot called `then`."""
    opened = Branch(str(tmp_path / "store"))
    directory(opened, "/d")
    directory(opened, "/d/e")
    make(opened, "/d/e/deep", b"deep then")
    make(opened, "/d/e/deeper", b"deeper then")
    make(opened, "/d/file", b"file then")
    make(opened, "/top", b"top then")
    make(opened, "/large", os.urandom(300_000))
    make(opened, "/one", b"two names then")
    opened.worktree.link(opened.walk("/one"), opened.walk("/d"), b"two")
    opened.worktree.create(opened.walk("/"), b"link", stat.S_IFLNK | 0o777, 0, 0, 0, b"target")
    opened.worktree.setattr(
        opened.walk("/d"), record.SET_MODE | record.SET_MTIME, mode=0o2711, mtime_ns=1_000_000_000_000_000_001
    )
    opened.worktree.setxattr(opened.walk("/d/file"), b"user.x", b"then")
    opened.worktree.snapshot(b"then")
    yield opened
    opened.close()


def plan(branch: Branch, name: bytes, *paths: str) -> tuple[Restore, Plan]:
    seal(branch)
    snapshot = branch.worktree.snapshots.find(name)
    assert snapshot is not None
    restore = Restore(branch.worktree, branch.store.objects)
    now = branch.store.refs.head("main").tree
    return restore, restore.plan(now, snapshot.tree, [path.encode() for path in paths])


def restore(branch: Branch, name: bytes, *paths: str) -> Changed:
    doer, what = plan(branch, name, *paths)
    return doer.apply(what)


def shown(branch: Branch, dump: Dump | None = None) -> dict[str, tuple[object, ...]]:
    """Everything but inode numbers and the times of the last change."""
    rows = branch.dump() if dump is None else dump
    return {path: (*row[1:7], *row[8:]) for path, row in rows.items()}


def then(branch: Branch) -> dict[str, tuple[object, ...]]:
    snapshot = branch.worktree.snapshots.find(b"then")
    assert snapshot is not None
    return shown(branch, branch.dump_snapshot(snapshot.id))


def wreck(branch: Branch) -> None:
    """Change, remove, move and add."""
    rewrite(branch, "/d/file", b"now, and longer than before")
    rewrite(branch, "/one", b"now")
    remove(branch, "/d/e/deep")
    rename(branch, "/d/e/deeper", "/top")
    rename(branch, "/d/e", "/moved")
    remove(branch, "/link")
    make(branch, "/link", b"a file now")
    directory(branch, "/new")
    make(branch, "/new/file", b"new")
    branch.worktree.setattr(branch.walk("/large"), record.SET_SIZE, size=1000)
    branch.worktree.setattr(branch.walk("/d"), record.SET_MODE, mode=0o700)


# -- The whole tree --------------------------------------------------------------------------------------------------


def test_everything_comes_back_and_goes_again(branch: Branch) -> None:
    numbers = {path: row[0] for path, row in branch.dump().items()}
    wreck(branch)
    wrecked = shown(branch)
    branch.worktree.snapshot(b"undo")
    restore(branch, b"then")
    assert shown(branch) == then(branch)
    assert {path: row[0] for path, row in branch.dump().items()} == numbers
    assert branch.walk("/d").mtime_ns == 1_000_000_000_000_000_001
    branch.reopen()
    assert shown(branch) == then(branch)
    restore(branch, b"undo")
    assert shown(branch) == wrecked
    seal(branch)
    branch.reopen()
    assert shown(branch) == wrecked


def test_nothing_is_done_where_nothing_differs(branch: Branch) -> None:
    _, what = plan(branch, b"then")
    assert (what.steps, what.relinked) == ([], [])


def test_only_what_differs_is_planned(branch: Branch) -> None:
    rewrite(branch, "/d/file", b"now")
    _, what = plan(branch, b"then")
    # The file, and the directories above it: their content has another name now.
    assert [step.path for step in what.steps] == [(), (b"d",), (b"d", b"file")]


def test_a_directory_comes_back_whole_in_one_record(branch: Branch) -> None:
    directory(branch, "/many")
    for number in range(200):
        make(branch, f"/many/{number}", b"%d" % number)
    branch.worktree.snapshot(b"many")
    for number in range(200):
        remove(branch, f"/many/{number}")
    remove(branch, "/many")
    doer, what = plan(branch, b"many")
    before = branch.worktree.journal.end
    changed = doer.apply(what)
    grafts = [f for f in branch.worktree.journal.frames(before) if f.kind == record.GRAFT]
    assert len(grafts) == 1
    assert (ROOT_INO, b"many", 0) in changed.names
    assert read(branch, "/many/77") == b"77"
    branch.reopen()
    assert read(branch, "/many/77") == b"77"


def test_a_tree_deeper_than_a_stack(branch: Branch) -> None:
    """Gone, it comes back whole; half of it held by somebody, it comes back step by step; both ways, and away."""
    names = 1300
    path = ""
    inodes: list[Inode] = []
    for _ in range(names):
        inodes.append(directory(branch, path + "/x") if not inodes else _below(branch, inodes[-1]))
        path += "/x"
    branch.worktree.create(inodes[-1], b"bottom", stat.S_IFREG | 0o600, 0, 0)
    branch.worktree.snapshot(b"deep")
    held = inodes[names // 2]
    held.holds += 1
    above = [*[branch.worktree.index.root], *inodes]
    branch.worktree.unlink(inodes[-1], b"bottom")
    for parent in reversed(above[:-1]):
        branch.worktree.rmdir(parent, b"x")
    branch.worktree.snapshot(b"none")
    for _ in range(2):
        restore(branch, b"deep")
        assert _depth(branch) == names
        restore(branch, b"none")
        assert branch.worktree.index.find(branch.worktree.index.root, b"x") is None
        if held.holds:
            branch.worktree.index.release(held, 1)


def _below(branch: Branch, parent: Inode) -> Inode:
    return branch.worktree.create(parent, b"x", stat.S_IFDIR | 0o755, 0, 0)


def _depth(branch: Branch) -> int:
    here: Inode | None = branch.worktree.index.root
    depth = -1
    last = here
    while here is not None:
        depth += 1
        last = here
        here = branch.worktree.index.find(here, b"x")
    assert last is not None
    assert branch.worktree.index.find(last, b"bottom") is not None
    return depth


# -- Open descriptors ------------------------------------------------------------------------------------------------


def test_a_file_that_stays_shows_the_restored_bytes_to_who_has_it_open(branch: Branch) -> None:
    inode = branch.walk("/d/file")
    inode.holds += 1
    rewrite(branch, "/d/file", b"now")
    changed = restore(branch, b"then")
    assert branch.walk("/d/file") is inode
    assert branch.worktree.read(inode, 0, 100) == b"file then"
    assert inode.ino in changed.inodes


def test_a_removed_file_that_is_open_keeps_what_it_had(branch: Branch) -> None:
    """R2: it comes back under its name with another number; without a holder it has its own again."""
    number = branch.walk("/top").ino
    held = branch.walk("/top")
    held.holds += 1
    branch.worktree.write(held, 0, b"NOW")
    remove(branch, "/top")
    restore(branch, b"then")
    assert branch.worktree.read(held, 0, 100) == b"NOW then"
    assert branch.walk("/top").ino != number
    assert read(branch, "/top") == b"top then"
    branch.worktree.write(held, 0, b"orphan")
    assert read(branch, "/top") == b"top then"
    branch.worktree.index.release(held, 1)
    remove(branch, "/top")
    restore(branch, b"then")
    assert branch.walk("/top").ino == number


def test_a_removed_directory_that_somebody_stands_in(branch: Branch) -> None:
    held = branch.walk("/d/e")
    number = held.ino
    held.holds += 1
    for path in ("/d/e/deep", "/d/e/deeper", "/d/e"):
        remove(branch, path)
    restore(branch, b"then")
    assert shown(branch) == then(branch)
    assert branch.walk("/d/e").ino != number
    assert held.nlink == 0


def test_a_file_open_for_writing_when_it_is_removed_by_a_restore(branch: Branch) -> None:
    added = make(branch, "/added", b"added")
    added.holds += 1
    changed = restore(branch, b"then")
    assert (ROOT_INO, b"added", added.ino) in changed.names
    branch.worktree.write(added, 5, b" more")
    assert branch.worktree.read(added, 0, 100) == b"added more"
    branch.reopen()
    assert shown(branch) == then(branch)


# -- Files with several names ----------------------------------------------------------------------------------------


def test_a_changed_file_with_two_names(branch: Branch) -> None:
    rewrite(branch, "/d/two", b"now")
    restore(branch, b"then")
    assert read(branch, "/one") == read(branch, "/d/two") == b"two names then"
    assert branch.walk("/one") is branch.walk("/d/two")


@pytest.mark.parametrize("gone", [["/one"], ["/d/two"], ["/one", "/d/two"]])
@pytest.mark.parametrize("changed", [False, True])
def test_lost_names_come_back_as_names_of_one_file(branch: Branch, gone: list[str], changed: bool) -> None:
    if changed:
        rewrite(branch, "/one", b"now")
    for path in gone:
        remove(branch, path)
    restore(branch, b"then")
    assert branch.walk("/one") is branch.walk("/d/two")
    assert branch.walk("/one").nlink == 2
    assert shown(branch) == then(branch)
    seal(branch)
    branch.reopen()
    assert shown(branch) == then(branch)


def test_a_third_name_goes(branch: Branch) -> None:
    branch.worktree.link(branch.walk("/one"), branch.walk("/"), b"three")
    restore(branch, b"then")
    assert shown(branch) == then(branch)
    assert branch.walk("/one").nlink == 2


# -- Single paths ----------------------------------------------------------------------------------------------------


def expect(branch: Branch, wrecked: dict[str, tuple[object, ...]], *prefixes: str) -> None:
    """What lies at or below the prefixes is as it was then, and everything else as it is now; times of directories
    above them have moved."""
    was, now = then(branch), shown(branch)

    def inside(path: str) -> bool:
        return any(path == prefix or path.startswith(prefix + "/") for prefix in prefixes)

    assert {path: row for path, row in now.items() if inside(path)} == {
        path: row for path, row in was.items() if inside(path)
    }
    above = {prefix[: prefix.rindex("/")] for prefix in prefixes}
    assert {path: row for path, row in now.items() if not inside(path) and path not in above} == {
        path: row for path, row in wrecked.items() if not inside(path) and path not in above
    }


@pytest.mark.parametrize("paths", [["/d/file"], ["/top"], ["/large"], ["/link"], ["/d/file", "/top"]])
def test_single_files(branch: Branch, paths: list[str]) -> None:
    wreck(branch)
    wrecked = shown(branch)
    restore(branch, b"then", *paths)
    expect(branch, wrecked, *paths)
    branch.reopen()
    expect(branch, wrecked, *paths)


def test_a_file_that_was_not_there_goes(branch: Branch) -> None:
    wreck(branch)
    wrecked = shown(branch)
    restore(branch, b"then", "new/file")
    now = shown(branch)
    assert set(wrecked) - set(now) == {"/new/file"}
    restore(branch, b"then", "/new/")
    assert "/new" not in shown(branch)


def test_what_lies_below_a_directory_that_was_not_there_goes_too(branch: Branch) -> None:
    """Then, neither the path nor the directories on the way to it were there; now they are."""
    directory(branch, "/new")
    directory(branch, "/new/below")
    make(branch, "/new/below/file", b"new")
    make(branch, "/new/below/other", b"new")
    restore(branch, b"then", "new/below/file")
    assert {path for path in branch.dump() if path.startswith("/new")} == {"/new", "/new/below", "/new/below/other"}


def test_a_path_in_neither_is_refused_and_nothing_happens(branch: Branch) -> None:
    wreck(branch)
    wrecked = shown(branch)
    for path in ("absent", "d/absent", "absent/below", "top/below", "link/x"):
        with pytest.raises(NoSuchEntry, match="neither"):
            restore(branch, b"then", "top", path)
    assert shown(branch) == wrecked


@pytest.mark.parametrize("held", [False, True])
def test_missing_parents_come_back_with_nothing_but_the_path(branch: Branch, held: bool) -> None:
    if held:
        branch.walk("/d/e").holds += 1
    for path in ("/d/e/deep", "/d/e/deeper", "/d/e", "/d/file", "/d/two", "/d"):
        remove(branch, path)
    restore(branch, b"then", "d/e/deep")
    assert {path for path in branch.dump() if path.startswith("/d")} == {"/d", "/d/e", "/d/e/deep"}
    assert read(branch, "/d/e/deep") == b"deep then"
    was = then(branch)["/d"]
    assert shown(branch)["/d"][:3] == was[:3], "type, mode and owner of then"
    branch.reopen()
    assert read(branch, "/d/e/deep") == b"deep then"


def test_several_paths_below_one_missing_directory(branch: Branch) -> None:
    for path in ("/d/e/deep", "/d/e/deeper", "/d/e", "/d/file", "/d/two", "/d"):
        remove(branch, path)
    restore(branch, b"then", "d/file", "d/e/deep", "d/e/deeper", "d/two")
    assert {path for path in branch.dump() if path.startswith("/d")} == {
        "/d",
        "/d/e",
        "/d/e/deep",
        "/d/e/deeper",
        "/d/file",
        "/d/two",
    }
    assert branch.walk("/one") is branch.walk("/d/two")


@pytest.mark.parametrize("paths", [["d", "d/file"], ["d/file", "d"], ["d", "d", "./d/"], ["d/e/deep", "d/e", "d"]])
def test_a_path_and_what_lies_below_it(branch: Branch, paths: list[str]) -> None:
    for path in ("/d/e/deep", "/d/e/deeper", "/d/e", "/d/file", "/d/two", "/d"):
        remove(branch, path)
    restore(branch, b"then", *paths)
    now, was = shown(branch), then(branch)
    assert {p: row for p, row in now.items() if p.startswith("/d")} == {
        p: row for p, row in was.items() if p.startswith("/d")
    }


def test_a_file_where_a_directory_was(branch: Branch) -> None:
    for path in ("/d/e/deep", "/d/e/deeper", "/d/e"):
        remove(branch, path)
    make(branch, "/d/e", b"a file now")
    restore(branch, b"then", "d/e/deep")
    assert {path for path in branch.dump() if path.startswith("/d/e")} == {"/d/e", "/d/e/deep"}


def test_one_name_of_a_file_with_several(branch: Branch) -> None:
    """The other name is the same file: it changes with it."""
    rewrite(branch, "/one", b"now")
    rewrite(branch, "/top", b"now too")
    restore(branch, b"then", "d/two")
    assert read(branch, "/one") == read(branch, "/d/two") == b"two names then"
    assert read(branch, "/top") == b"now too"


def test_a_changed_file_with_several_names_outside_the_paths_stays(branch: Branch) -> None:
    directory(branch, "/outside")
    make(branch, "/outside/a", b"a then")
    branch.worktree.link(branch.walk("/outside/a"), branch.walk("/outside"), b"b")
    branch.worktree.snapshot(b"later")
    rewrite(branch, "/outside/a", b"a now")
    rewrite(branch, "/one", b"now")
    restore(branch, b"later", "d")
    assert read(branch, "/outside/b") == b"a now"
    assert read(branch, "/one") == b"two names then"


def test_undoing_by_the_snapshot_that_was_taken_first(branch: Branch) -> None:
    wreck(branch)
    wrecked = shown(branch)
    branch.worktree.snapshot(b"undo")
    restore(branch, b"then", "d", "top", "link")
    assert shown(branch) != wrecked
    restore(branch, b"undo")
    assert shown(branch) == wrecked


# -- What happens meanwhile ------------------------------------------------------------------------------------------


def test_changes_between_plan_and_apply_do_not_harm(branch: Branch) -> None:
    """The plan is made in a thread; meanwhile others create, remove and move what it names."""
    wreck(branch)
    doer, what = plan(branch, b"then")
    make(branch, "/d/e", b"in the way")
    remove(branch, "/new/file")
    make(branch, "/new/another", b"added meanwhile")
    remove(branch, "/large")
    rename(branch, "/d/file", "/d/elsewhere")
    doer.apply(what)
    now = shown(branch)
    assert read(branch, "/d/e/deep") == b"deep then"
    assert "/new" not in now
    assert branch.worktree.fault is None
    branch.reopen()
    assert shown(branch) == now
    restore(branch, b"then")
    assert shown(branch) == then(branch)


def test_a_parent_that_is_gone_meanwhile_is_passed_over(branch: Branch) -> None:
    rewrite(branch, "/d/file", b"now")
    remove(branch, "/d/e/deep")
    doer, what = plan(branch, b"then")
    for path in ("/d/e/deeper", "/d/e", "/d/file", "/d/two", "/d"):
        remove(branch, path)
    make(branch, "/d", b"a file now")
    doer.apply(what)
    assert read(branch, "/d") == b"a file now"
    restore(branch, b"then")
    assert shown(branch) == then(branch)


# -- What only has another name ---------------------------------------------------------------------------------------


def test_what_was_renamed_is_the_same_inode_whoever_holds_it(branch: Branch) -> None:
    held = [branch.walk("/d/e"), branch.walk("/d/file"), branch.walk("/d/e/deep")]
    for inode in held:
        inode.holds += 1
    rename(branch, "/d/e", "/moved")
    rename(branch, "/moved/deeper", "/d/deeper")
    rename(branch, "/d/file", "/moved/file")
    rewrite(branch, "/moved/file", b"now")
    rewrite(branch, "/moved/deep", b"deep now")
    make(branch, "/moved/new", b"new")
    restore(branch, b"then")
    assert shown(branch) == then(branch)
    assert [branch.walk(path) for path in ("/d/e", "/d/file", "/d/e/deep")] == held
    branch.reopen()
    assert shown(branch) == then(branch)


def test_names_that_were_exchanged(branch: Branch) -> None:
    numbers = {path: branch.walk(path).ino for path in ("/top", "/large", "/d", "/d/e")}
    directory(branch, "/other")
    branch.worktree.snapshot(b"between")
    for path in ("/top", "/d"):
        branch.walk(path).holds += 1
    rename(branch, "/top", "/large", exchange=True)
    rename(branch, "/d", "/other", exchange=True)
    restore(branch, b"between")
    assert {path: branch.walk(path).ino for path in numbers} == numbers
    assert read(branch, "/top") == b"top then"
    assert read(branch, "/d/e/deep") == b"deep then"
    remove(branch, "/other")
    restore(branch, b"then")
    assert shown(branch) == then(branch)


def test_a_directory_that_was_moved_into_one_that_goes(branch: Branch) -> None:
    directory(branch, "/new")
    rename(branch, "/d", "/new/d")
    branch.walk("/new/d/e/deep").holds += 1
    restore(branch, b"then")
    assert shown(branch) == then(branch)
    branch.reopen()
    assert shown(branch) == then(branch)


# -- What others are told ----------------------------------------------------------------------------------------------


def test_what_has_changed_is_told_by_name(branch: Branch) -> None:
    wreck(branch)
    changed = restore(branch, b"then")
    assert {(name.path, stat.S_IFMT(name.mode)) for name in changed.gone} == {
        ((b"link",), stat.S_IFREG),
        ((b"new",), stat.S_IFDIR),
    }
    assert {(name.path, stat.S_IFMT(name.mode)) for name in changed.made} == {
        ((b"link",), stat.S_IFLNK),
        ((b"top",), stat.S_IFREG),
        ((b"d", b"e", b"deep"), stat.S_IFREG),
    }
    assert {(moved.old, moved.new.path) for moved in changed.moved} == {
        ((b"moved",), (b"d", b"e")),
        ((b"top",), (b"d", b"e", b"deeper")),
    }
    # Which names a file with several has nobody knows without looking through the whole tree.
    assert set(changed.written) == {(b"d", b"file"), (b"large",)}
    assert changed.altered == [(b"d",)]


def test_one_that_keeps_a_name_is_not_told_as_lost(branch: Branch) -> None:
    """The kernel takes "lost" for the end of the file, and tells all who watch it under its other name."""
    branch.worktree.link(branch.walk("/d/file"), branch.walk("/"), b"third")
    file = branch.walk("/d/file").ino
    changed = restore(branch, b"then", "third")
    assert changed.names == [(ROOT_INO, b"third", 0)]
    assert file in changed.inodes


def test_a_name_that_comes_back_changes_the_count_under_the_others(branch: Branch) -> None:
    remove(branch, "/one")
    changed = restore(branch, b"then", "one")
    assert branch.walk("/d/two").ino in changed.inodes
