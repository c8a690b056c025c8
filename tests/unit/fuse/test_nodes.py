"""Node ids: which numbers mean which snapshot, and when a view opens and closes."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from helios_fs.errors import Busy, NoSuchEntry
from helios_fs.fuse import nodes as module
from helios_fs.fuse.nodes import (
    CONTROL_VIEW,
    LATEST_NODEID,
    NODEID_MASK,
    SNAPSHOTS_NODEID,
    VIEW_SHIFT,
    WRITABLE_HANDLE,
    Nodes,
)
from helios_fs.objects.ids import MAX_INO, ROOT_INO
from helios_fs.worktree.view import View
from tests.model.harness import Branch
from tests.unit.worktree.trees import directory, make


@pytest.fixture
def branch(tmp_path: Path) -> Iterator[Branch]:
    opened = Branch(str(tmp_path / "store"))
    directory(opened, "/d")
    make(opened, "/d/file", b"content")
    yield opened
    opened.close()


class Opened:
    """A table of nodes, and how often a view was opened."""

    def __init__(self, branch: Branch) -> None:
        self.branch = branch
        self.count = 0
        self.nodes = Nodes(self._open)

    def _open(self, snapshot_id: str) -> View:
        self.count += 1
        worktree = self.branch.worktree
        snapshot = worktree.snapshots.get(snapshot_id)
        return View(worktree.index, self.branch.store.objects, worktree.journal, snapshot.epoch)


@pytest.fixture
def opened(branch: Branch) -> Opened:
    return Opened(branch)


def test_the_ranges_do_not_meet(branch: Branch, opened: Opened) -> None:
    ids = [branch.worktree.snapshot().id for _ in range(50)]
    numbers = {SNAPSHOTS_NODEID, LATEST_NODEID}
    for identity in ids:
        numbers |= {opened.nodes.snapshot_nodeid(identity), opened.nodes.alias_nodeid(identity)}
    assert len(numbers) == 102
    assert {number >> VIEW_SHIFT for number in numbers} == {CONTROL_VIEW}
    for number in numbers:
        assert not number & WRITABLE_HANDLE
        assert number & NODEID_MASK == number
        # pyfuse3 hands nodeids on as unsigned 64 bits, Python's os module st_ino too.
        assert 0 < number < 1 << 63
    for identity in ids:
        assert opened.nodes.snapshot_of(opened.nodes.snapshot_nodeid(identity)) == identity
        assert opened.nodes.alias_of(opened.nodes.alias_nodeid(identity)) == identity
        assert opened.nodes.snapshot_of(opened.nodes.alias_nodeid(identity)) is None
        assert opened.nodes.alias_of(opened.nodes.snapshot_nodeid(identity)) is None
    for live in (ROOT_INO, 2, MAX_INO):
        assert opened.nodes.snapshot_of(live) is None
        assert opened.nodes.alias_of(live) is None
    assert opened.count == 0, "listing takes no view"


def test_a_snapshot_keeps_its_nodeid(branch: Branch, opened: Opened) -> None:
    one, two = branch.worktree.snapshot().id, branch.worktree.snapshot().id
    first = opened.nodes.snapshot_nodeid(one)
    assert opened.nodes.snapshot_nodeid(two) != first
    opened.nodes.show(one)
    branch.worktree.delete_snapshot(two)
    assert opened.nodes.snapshot_nodeid(one) == first


def test_a_view_lives_while_something_of_it_is_held(branch: Branch, opened: Opened) -> None:
    nodes, identity = opened.nodes, branch.worktree.snapshot().id
    shown, root = nodes.locate(nodes.snapshot_nodeid(identity))
    below = shown.view.get(root, b"d")
    below.holds += 1
    file = shown.view.get(below, b"file")
    file.holds += 2
    nodeid = shown.nodeid(file)
    assert nodeid == shown.number << VIEW_SHIFT | file.ino
    assert nodes.locate(nodeid) == (shown, file)
    nodes.release(shown.nodeid(below), 1)
    nodes.release(nodeid, 1)
    assert nodes.shown() == [shown]
    nodes.release(nodeid, 1)
    assert nodes.shown() == []
    with pytest.raises(NoSuchEntry):
        nodes.locate(nodeid)
    nodes.release(nodeid, 1)
    again = nodes.show(identity)
    assert again.number != shown.number or again.generation != shown.generation
    assert again.generation > shown.generation


def test_only_one_view_stays_open_for_nothing(branch: Branch, opened: Opened) -> None:
    ids = [branch.worktree.snapshot().id for _ in range(20)]
    for identity in ids:
        shown, root = opened.nodes.locate(opened.nodes.snapshot_nodeid(identity))
        assert shown.view.find(root, b"absent") is None
    assert [shown.snapshot_id for shown in opened.nodes.shown()] == [ids[-1]]
    held = opened.nodes.show(ids[0])
    held.view.get(held.view.root, b"d").holds += 1
    opened.nodes.show(ids[1])
    opened.nodes.drop_idle()
    opened.nodes.drop_idle()
    assert [shown.snapshot_id for shown in opened.nodes.shown()] == [ids[0]]
    assert opened.nodes.show(ids[0]) is held


def test_numbers_are_used_again_in_turn_and_come_to_an_end(
    branch: Branch, opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CONTROL_VIEW", 4)
    ids = [branch.worktree.snapshot().id for _ in range(4)]
    shown = [opened.nodes.show(identity) for identity in ids[:1]]
    for identity in ids[1:3]:
        shown[-1].view.root.holds += 1
        shown.append(opened.nodes.show(identity))
    shown[-1].view.root.holds += 1
    assert [one.number for one in shown] == [1, 2, 3]
    with pytest.raises(Busy):
        opened.nodes.show(ids[3])
    opened.nodes.release(shown[1].nodeid(shown[1].view.root), 1)
    again = opened.nodes.show(ids[3])
    assert again.number == 2
    assert again.generation not in {one.generation for one in shown}


def test_a_name_has_the_same_number_each_time() -> None:
    numbers, after_a_remount = module.Numbers(), module.Numbers()
    number = numbers.take("branch", "b0123456789abcdef")
    after_a_remount.take("something else")
    assert after_a_remount.take("branch", "b0123456789abcdef") == number
    assert numbers.take("taken meanwhile", "b0123456789abcdef") != number
    numbers.free(number)
    assert numbers.take("branch", "b0123456789abcdef") == number


def test_what_is_not_known_is_told(branch: Branch, opened: Opened) -> None:
    identity = branch.worktree.snapshot().id
    nodeid = opened.nodes.snapshot_nodeid(identity)
    for unknown in (5 << VIEW_SHIFT | 7, SNAPSHOTS_NODEID, LATEST_NODEID, opened.nodes.alias_nodeid(identity)):
        with pytest.raises(NoSuchEntry):
            opened.nodes.locate(unknown)
        opened.nodes.release(unknown, 1)
    branch.worktree.delete_snapshot(identity)
    with pytest.raises(NoSuchEntry):
        opened.nodes.locate(nodeid)
