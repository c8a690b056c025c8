"""In which snapshots a path changed, held against the whole difference of each snapshot to the one before."""

import stat
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import pytest

from helios_fs.history.diff import diff_trees
from helios_fs.history.lineage import Key, Lineage
from helios_fs.history.path_log import path_log
from helios_fs.objects import record
from helios_fs.objects.entry import Tree
from helios_fs.objects.pages import Page
from helios_fs.store.objects import Objects
from tests.model.harness import Branch
from tests.unit.worktree.trees import directory, make, remove, rename, rewrite, seal

PATHS = ["", "a", "a/b", "a/b/deep", "a/one", "two", "top", "gone", "link", "a/b/deep/too/far"]


@pytest.fixture
def branch(tmp_path: Path) -> Iterator[Branch]:
    opened = Branch(str(tmp_path / "store"))
    yield opened
    opened.close()


def lineage_of(branch: Branch) -> tuple[Lineage, list[Key]]:
    seal(branch)
    lineage = Lineage(branch.store.refs.snapshots("main"), [])
    return lineage, lineage.of_branch("main")[::-1]


def expected(branch: Branch, lineage: Lineage, keys: list[Key], path: bytes) -> list[tuple[str, str]]:
    """Return what the differences of whole trees say of a path."""
    found = []
    for key in keys:
        parents = lineage.parents(key)
        if not parents:
            continue  # what the first one holds is tested on its own
        changes = {c.path: c.kind for c in diff_trees(
            branch.store.objects, lineage.snapshots[parents[0]].tree, lineage.snapshots[key].tree
        )}  # fmt: skip
        below = any(other.startswith(path + b"/" if path else b"") for other in changes)
        kind = changes.get(path, "M" if below else "")
        if kind:
            found.append((key.id, kind))
    return found


def said(branch: Branch, lineage: Lineage, keys: list[Key], path: bytes) -> list[tuple[str, str]]:
    return [(one.snapshot.id, one.kind) for one in path_log(branch.store.objects, lineage, keys, path)]


def test_it_says_what_the_differences_of_whole_trees_say(branch: Branch) -> None:
    facade = branch.worktree
    directory(branch, "/a")
    directory(branch, "/a/b")
    make(branch, "/a/b/deep", b"1")
    make(branch, "/a/one", b"linked")
    facade.link(branch.walk("/a/one"), branch.walk("/"), b"two")
    make(branch, "/top", b"1")
    facade.create(branch.walk("/"), b"link", stat.S_IFLNK | 0o777, 0, 0, 0, b"target")
    steps = [
        lambda: None,
        lambda: rewrite(branch, "/a/b/deep", b"2"),
        lambda: rewrite(branch, "/two", b"through its other name"),
        lambda: make(branch, "/gone", b"soon"),
        lambda: remove(branch, "/gone"),
        lambda: facade.setattr(branch.walk("/a/b"), record.SET_MODE, mode=0o700),
        lambda: facade.setattr(branch.walk("/a/b/deep"), record.SET_ATIME, atime_ns=5),
        lambda: facade.setxattr(branch.walk("/top"), b"user.x", b"1"),
        lambda: (remove(branch, "/top"), directory(branch, "/top"), make(branch, "/top/x", b"1")),
        lambda: rename(branch, "/a/b", "/moved"),
        lambda: rename(branch, "/moved", "/a/b"),
        lambda: (remove(branch, "/link"), make(branch, "/link", b"a file now")),
        lambda: make(branch, "/top/y", b"1"),
    ]
    facade.snapshot()
    for step in steps:
        step()
        facade.snapshot()
    lineage, keys = lineage_of(branch)
    for path in map(str.encode, PATHS):
        wanted = expected(branch, lineage, keys, path)
        first = [] if path.endswith((b"far", b"gone")) else [(keys[-1].id, "A")]
        assert said(branch, lineage, keys, path) == wanted + first, path
    assert {kind for path in PATHS for _, kind in said(branch, lineage, keys, path.encode())} == set("AMDT")
    # The state before a deleted snapshot stands in for it.
    facade.delete_snapshot(keys[-2].id)
    facade.delete_snapshot(keys[-3].id)
    lineage, keys = lineage_of(branch)
    for path in map(str.encode, PATHS):
        assert said(branch, lineage, keys, path)[: len(wanted := expected(branch, lineage, keys, path))] == wanted


class Counting:
    """A store that counts the pages that it is asked for."""

    def __init__(self, objects: Objects) -> None:
        self.pages = 0
        self._objects = objects

    def page(self, object_id: bytes) -> Page:
        self.pages += 1
        return self._objects.page(object_id)

    def tree(self, object_id: bytes) -> Tree:
        return self._objects.tree(object_id)


def test_cost_follows_the_depth_of_the_path(branch: Branch) -> None:
    directory(branch, "/d")
    directory(branch, "/d/e")
    for number in range(600):
        make(branch, f"/d/file{number}", b"1")
        make(branch, f"/d/e/file{number}", b"1")
    for number in range(20):
        rewrite(branch, f"/d/file{number}", b"2")
        rewrite(branch, "/d/e/file7", b"%d" % (number // 5))
        branch.worktree.snapshot()
    lineage, keys = lineage_of(branch)
    for path, most in ((b"d/e/file7", 20 * 3 * 3), (b"d/e/none", 20 * 3 * 3), (b"d/e", 20 * 3 * 6)):
        counting = Counting(branch.store.objects)
        found = list(path_log(cast(Objects, counting), lineage, keys, path))
        assert counting.pages <= most, path
        assert len(found) == (0 if path.endswith(b"none") else 20)
