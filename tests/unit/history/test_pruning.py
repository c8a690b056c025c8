"""The rules that a branch keeps in its store."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from helios_fs.errors import CorruptObject
from helios_fs.history import pruning
from helios_fs.history.retention import Rules
from helios_fs.objects.snapshot import Head
from helios_fs.store.branches import Branches, BranchInfo, journal_directory
from tests.model.harness import Branch


@pytest.fixture
def branch(tmp_path: Path) -> Iterator[Branch]:
    opened = Branch(str(tmp_path / "store"))
    yield opened
    opened.close()


def test_rules_are_kept_changed_and_forgotten(branch: Branch) -> None:
    assert pruning.find_rules(branch.path, "main") is None
    for rules in (Rules(daily=7), Rules(last=1, named=True)):
        pruning.save_rules(branch.path, "main", rules)
        assert pruning.find_rules(branch.path, "main") == rules
    Path(journal_directory(branch.path, "main"), "retention").write_bytes(b'{"daily":7,"later":1}\n')
    assert pruning.find_rules(branch.path, "main") == Rules(daily=7)
    branch.reopen()
    Path(journal_directory(branch.path, "main"), "retention").write_bytes(b"{}}")
    with pytest.raises(CorruptObject):
        pruning.find_rules(branch.path, "main")
    for _ in range(2):
        pruning.forget_rules(branch.path, "main")
        assert pruning.find_rules(branch.path, "main") is None
    assert pruning.find_rules(branch.path, "none") is None


def test_the_snapshot_in_which_a_branch_began_stays(branch: Branch) -> None:
    taken = [branch.worktree.snapshot() for _ in range(4)]
    verdicts = pruning.plan(branch.store, "main", taken, Rules(last=1))
    assert [bool(one.reasons) for one in verdicts] == [False, False, False, True]
    # `main` begins in no snapshot; a branch's file says in which another one does.
    info = BranchInfo("main", "main", "x", Head("main", b"", 0, 1), 0, 1, taken[1].id, 1)
    Branches(branch.path).write(info)
    verdicts = pruning.plan(branch.store, "main", taken, Rules(last=1))
    assert [one.reasons for one in verdicts] == [(), ("merge",), (), ("newest",)]
