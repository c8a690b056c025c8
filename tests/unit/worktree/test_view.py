"""Views of snapshots while a seal's results come in: what is shown never changes (V1), and what is held stays good."""

import stat

import pytest

from helios_fs.errors import NoSuchEntry
from helios_fs.worktree.inode import Inode
from helios_fs.worktree.view import View
from tests.model.harness import Branch, Dump, row
from tests.unit.worktree.trees import directory, make, read, remove, rename, rewrite, seal

PATHS = ["/d/e/deep", "/d/file", "/top", "/d/e", "/d", "/one", "/d/two", "/link"]


def fill(branch: Branch) -> None:
    directory(branch, "/d")
    directory(branch, "/d/e")
    make(branch, "/d/e/deep", b"deep")
    make(branch, "/d/file", b"file" * 50_000)
    make(branch, "/top", b"top")
    make(branch, "/one", b"linked")
    branch.worktree.link(branch.walk("/one"), branch.walk("/d"), b"two")
    branch.worktree.create(branch.walk("/"), b"link", stat.S_IFLNK | 0o777, 0, 0, 0, b"target")
    branch.worktree.setxattr(branch.walk("/d/e"), b"user.x", b"1")


def change(branch: Branch, mark: bytes) -> None:
    """Change everything a little."""
    for path in ("/d/e/deep", "/d/file", "/top", "/one"):
        branch.worktree.write(branch.walk(path), 1, mark)
    make(branch, "/d/e/" + mark.decode(), mark)
    branch.worktree.setxattr(branch.walk("/d/e"), b"user.x", mark)


def hold(view: View, path: str) -> Inode:
    """Look a path up as the kernel does, and keep it."""
    here = view.root
    for name in path.strip("/").split("/"):
        here = view.get(here, name.encode())
    here.holds += 1
    return here


def seen(view: View, held: dict[str, Inode]) -> dict[str, tuple[object, ...]]:
    """Everything a holder of inodes can see through them, without looking a name up again."""
    shown: dict[str, tuple[object, ...]] = {}
    for path, node in held.items():
        current = view.current(node)
        content = view.read(current, 0, 1 << 22) if current.is_file else b""
        names = [name for _, name in view.listing(current, 2)] if current.is_directory else []
        shown[path] = (*row(current, content), sorted(names))
    return shown


def test_what_is_held_is_the_same_at_each_step_of_each_seal(branch: Branch) -> None:
    """Snapshots taken before, between and during seals, each with everything in it held all the time."""
    fill(branch)
    holders: list[tuple[View, dict[str, Inode], dict[str, tuple[object, ...]], Dump, str]] = []

    def take(mark: str) -> None:
        taken = branch.worktree.snapshot(mark.encode())
        expected = branch.dump()
        view = branch.view(taken.id)
        held = {path: hold(view, path) for path in PATHS}
        holders.append((view, held, seen(view, held), expected, taken.id))

    def check() -> None:
        for view, held, before, expected, identity in holders:
            assert seen(view, held) == before
            assert branch.dump_snapshot(identity) == expected

    take("first")
    for number in range(3):
        change(branch, b"x%d" % number)
        branch.begin_seal(batch=1)
        check()
        change(branch, b"y%d" % number)
        take(f"while it is sealed {number}")
        change(branch, b"z%d" % number)
        steps = 0
        while branch.running is not None:
            branch.step_seal()
            if steps % 2:
                check()
            steps += 1
        assert steps > 5
        check()
    branch.begin_seal(batch=1)
    while branch.running is not None:
        branch.step_seal()
        check()
    for view, held, *_ in holders:
        for path, node in held.items():
            assert hold(view, path) is node


@pytest.mark.parametrize("changed_before", [False, True])
@pytest.mark.parametrize("first_look", range(1, 12))
def test_a_file_held_below_a_directory_that_the_seal_has_passed(
    branch: Branch, first_look: int, changed_before: bool
) -> None:
    """The directories are looked at again when the seal begins, what lies below them only later."""
    fill(branch)
    branch.begin_seal(batch=1)
    if changed_before:
        change(branch, b"a")
    view = branch.view(branch.worktree.snapshot().id)
    held = {path: hold(view, path) for path in PATHS}
    before = seen(view, held)
    change(branch, b"b")
    branch.step_seal()
    view.current(held["/d/e"])
    for _ in range(first_look):
        branch.step_seal()
    assert seen(view, held) == before
    branch.finish_seal()
    assert seen(view, held) == before


def test_names_that_came_and_went(branch: Branch) -> None:
    fill(branch)
    seal(branch)
    view = branch.view(branch.worktree.snapshot().id)
    remove(branch, "/d/e/deep")
    rename(branch, "/d/e", "/e")
    remove(branch, "/top")
    make(branch, "/top", b"another")
    make(branch, "/new", b"new")
    assert [name for _, name in sorted(view.listing(view.root, 2), key=lambda item: item[1])] == [
        b"d",
        b"link",
        b"one",
        b"top",
    ]
    assert view.read(hold(view, "/top"), 0, 10) == b"top"
    assert view.read(hold(view, "/d/e/deep"), 0, 10) == b"deep"
    assert view.find(view.root, b"new") is None
    with pytest.raises(NoSuchEntry):
        view.get(view.root, b"e")
    assert read(branch, "/top") == b"another"


def test_listing_goes_on_from_a_cookie(branch: Branch) -> None:
    for number in range(100):
        make(branch, f"/sealed{number}")
    seal(branch)
    for number in range(100):
        make(branch, f"/journaled{number}")
    remove(branch, "/sealed7")
    view = branch.view(branch.worktree.snapshot().id)
    remove(branch, "/sealed8")
    whole = list(view.listing(view.root, 2))
    assert len(whole) == 199
    assert [cookie for cookie, _ in whole] == sorted({cookie for cookie, _ in whole})
    for at in (0, 50, 198):
        assert list(view.listing(view.root, whole[at][0])) == whole[at + 1 :]


def test_both_names_of_a_file_are_one_inode(branch: Branch) -> None:
    fill(branch)
    view = branch.view(branch.worktree.snapshot().id)
    one, two = hold(view, "/one"), hold(view, "/d/two")
    assert one is two
    assert one is not branch.walk("/one")
    rewrite(branch, "/one", b"other")
    assert view.read(two, 0, 10) == b"linked"
    seal(branch)
    assert view.read(one, 0, 10) == b"linked"


def test_what_nobody_holds_is_forgotten(branch: Branch) -> None:
    fill(branch)
    view = branch.view(branch.worktree.snapshot().id)
    deep = hold(view, "/d/e/deep")
    assert view.in_use
    assert len(view.nodes) == 4
    view.release(deep, 1)
    assert set(view.nodes) == {1}
    assert not view.in_use
    view.root.holds += 1
    assert view.in_use


def test_a_tree_deeper_than_a_stack(branch: Branch) -> None:
    """A seal makes every inode of the view stale; looking at the deepest climbs to the root and down again."""
    path = ""
    for _ in range(1500):
        path += "/d"
        branch.worktree.create(branch.walk(path[:-2]), b"d", stat.S_IFDIR | 0o755, 0, 0)
        if len(path) % 200 == 0:
            branch.walk(path).holds += 1
    make(branch, path + "/file", b"down here")
    view = branch.view(branch.worktree.snapshot().id)
    held = hold(view, path + "/file")
    branch.worktree.write(branch.walk(path + "/file"), 0, b"later")
    branch.begin_seal(batch=500)
    branch.step_seal()
    assert view.read(held, 0, 100) == b"down here"
    branch.finish_seal()
    assert view.read(held, 0, 100) == b"down here"
