"""Recovery: what is acknowledged is there again, and where that cannot be said it is said."""

import os
from pathlib import Path

import pytest

from helios_fs.errors import CorruptObject, NoSuchEntry, NotPermitted
from helios_fs.journal.segment import HEADER_BYTES
from helios_fs.store.store import Store
from helios_fs.worktree.recovery import journal_directory, recover
from tests.model.harness import Branch
from tests.unit.worktree.trees import make, read, seal


def test_a_branch_that_is_not_there(branch: Branch) -> None:
    with pytest.raises(NoSuchEntry):
        recover(branch.store, "other")


def test_a_new_store_gets_its_first_branch(tmp_path: Path) -> None:
    Store.create(str(tmp_path / "s"))
    with Store.open(str(tmp_path / "s")) as store:
        worktree = recover(store, "main")
        assert worktree.index.root.uid == os.geteuid()
        assert not worktree.changed_in_epoch
        worktree.journal.close()


def test_progress_is_told(branch: Branch) -> None:
    for number in range(10):
        make(branch, f"/{number}", b"x")
    branch.worktree.journal.close()
    told: list[tuple[int, int]] = []
    worktree = recover(branch.store, "main", lambda done, total: told.append((done, total)))
    assert worktree.changed_in_epoch
    assert told == sorted(told)
    assert told[-1][0] == told[-1][1]
    branch.worktree.journal = worktree.journal


def test_snapshots_come_back_with_their_names(branch: Branch) -> None:
    facade = branch.worktree
    make(branch, "/file", b"1")
    one, two, three = (facade.snapshot(name, "why", "who", "where") for name in (b"one", b"two", b""))
    facade.describe_snapshot(one.id, b"renamed")
    seal(branch)
    facade.describe_snapshot(three.id, b"three")
    facade.describe_snapshot(three.id, message="because", protected=True)
    with pytest.raises(NotPermitted, match="--unprotect"):
        facade.delete_snapshot(three.id)
    facade.delete_snapshot(two.id)
    four = facade.snapshot(b"four")
    expected = facade.snapshots.all()
    for _ in range(2):
        branch.reopen()
        assert branch.worktree.snapshots.all() == expected
        assert [s.name for s in expected] == [b"renamed", b"three", b"four"]
        assert branch.worktree.snapshots.find(b"two") is None
    seal(branch)
    branch.reopen()
    found = branch.worktree.snapshots
    assert [(s.id, s.name, s.parents, bool(s.tree)) for s in found.all()] == [
        (one.id, b"renamed", [], True),
        (three.id, b"three", [two.id], True),
        (four.id, b"four", [three.id], True),
    ]
    assert [(s.message, s.protected) for s in found.all()] == [("why", False), ("because", True), ("", False)]
    assert branch.worktree.snapshot().parents == [four.id]


def test_whether_anything_changed_since_the_newest_snapshot(branch: Branch) -> None:
    def changed() -> bool:
        told = branch.worktree.changed_since_snapshot
        branch.reopen()
        assert branch.worktree.changed_since_snapshot == told
        return told

    make(branch, "/file", b"1")
    assert changed()
    one = branch.worktree.snapshot()
    two = branch.worktree.snapshot(b"two")
    assert not changed()
    seal(branch)
    assert not changed()
    branch.worktree.describe_snapshot(two.id, message="why")
    branch.worktree.delete_snapshot(one.id)
    branch.worktree.freeze()
    assert not changed()
    branch.worktree.write(branch.walk("/file"), 0, b"2")
    assert changed()
    branch.worktree.freeze()
    assert changed()
    seal(branch)
    assert changed()
    branch.worktree.snapshot()
    assert not changed()


def test_an_open_epoch_goes_on(branch: Branch) -> None:
    make(branch, "/file", b"one")
    seal(branch)
    branch.worktree.write(branch.walk("/file"), 0, b"two")
    branch.reopen()
    assert branch.worktree.changed_in_epoch
    branch.worktree.write(branch.walk("/file"), 1, b"!")
    seal(branch)
    branch.reopen()
    assert not branch.worktree.changed_in_epoch
    assert read(branch, "/file") == b"t!o"


@pytest.mark.parametrize("lost", [1, 10, 40])
def test_a_torn_tail_is_the_end(branch: Branch, lost: int) -> None:
    make(branch, "/kept", b"kept")
    end = branch.worktree.journal.end
    make(branch, "/torn")
    directory = Path(journal_directory(branch.store, "main"))
    segment = next(directory.glob("*.seg"))
    branch.close()
    os.truncate(segment, HEADER_BYTES + end + lost)
    branch.open()
    assert branch.worktree.journal.end == end
    assert set(branch.dump()) == {"", "/kept"}
    make(branch, "/torn", b"again")
    branch.reopen()
    assert read(branch, "/torn") == b"again"


def test_a_journal_that_does_not_reach_the_head_is_refused(branch: Branch) -> None:
    make(branch, "/file", b"x" * 100)
    seal(branch)
    directory = Path(journal_directory(branch.store, "main"))
    branch.close()
    for segment in directory.glob("*.seg"):
        os.truncate(segment, HEADER_BYTES + 10)
    try:
        with pytest.raises(CorruptObject, match="does not reach"):
            branch.open()
    finally:
        # What the fixture closes.
        for segment in directory.glob("*.seg"):
            segment.unlink()
        branch.store.close()
        branch.open()
