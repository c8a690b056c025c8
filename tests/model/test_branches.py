"""Several branches of one store against a plain copy of each tree: forks, changes, seals, restores, deletions, kills.

Each step changes one branch and is followed by a look at all of them: nobody sees another's changes.
HELIOS_MODEL_STEPS makes the runs longer, HELIOS_MODEL_SEED repeats one.
"""

import copy
import os
import random
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, given, settings

from helios_fs.history import branching
from helios_fs.history.merging import Wanted, merge_offline, source_offline, unsealed_between
from helios_fs.sealer.process import seal_offline
from helios_fs.store.store import Store
from helios_fs.worktree import worktree
from tests.model.harness import Dump
from tests.model.steps import STEPS, Choose, Steps

MAX_BRANCHES = 5
WHAT = ["step"] * 24 + ["fork"] * 3 + ["merge"] * 2 + ["kill", "delete", "rename"]


@pytest.fixture(autouse=True, scope="module")
def keep_what_has_a_single_piece() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(worktree, "MANY_PIECES", 1)
        yield


class Forest:
    """Branches, each with its model, by id; what was made and has no journal of its own yet waits in `begun`."""

    def __init__(self, folder: str, choose: Choose) -> None:
        """Make a store with one branch; `choose` decides everything."""
        self.folder = folder
        self.choose = choose
        self.made = 0
        self.branches: dict[str, Steps] = {"main": Steps(folder, self.choose)}
        self.merged: set[str] = set()
        """Those whose beginning is no longer the base of the next merge."""
        self.begun: list[tuple[str, str, Steps]] = []
        """(parent, id, the parent as it was)."""

    def close(self) -> None:
        for steps in self.branches.values():
            steps.close()

    def fork(self) -> None:
        """Make a branch; it gets its journal at once, or later, or by its parent's recovery."""
        if len(self.branches) + len(self.begun) >= MAX_BRANCHES:
            return
        name = self.choose(list(self.branches))
        parent = self.branches[name]
        self.made += 1
        then = copy.copy(parent)
        then.root, then.snapshots = copy.deepcopy(parent.root), dict(parent.snapshots)
        then.models, then.said = dict(parent.models), dict(parent.said)
        dump = parent.branch.dump()
        fork, position = branching.fork(parent.branch.worktree, f"n{self.made}", "user", "host")
        then.snapshots[fork.snapshot.id] = dump
        then.said[fork.snapshot.id] = (b"", fork.snapshot.message, False)
        then.models[fork.snapshot.id] = copy.deepcopy(parent.root)
        parent.branch.worktree.unfinished_forks.append((fork, position))
        self.begun.append((name, fork.snapshot.branch, then))
        if self.choose([True, False]):
            self.finish(name)

    def finish(self, parent: str) -> None:
        """Give what was made from a branch journals of their own, and open them."""
        steps = self.branches[parent]
        branching.finish_all(steps.branch.store, steps.branch.worktree)
        for above, identity, then in [one for one in self.begun if one[0] == parent]:
            self.branches[identity] = Steps(self.folder, self.choose, then, identity)
            self.begun.remove((above, identity, then))

    def step(self) -> str:
        """Do something to one branch."""
        identity = self.choose(list(self.branches))
        steps = self.branches[identity]
        # A snapshot that others inherit is its branch's to describe and to delete, and changes for all of them.
        step = self.choose([one for one in STEPS if one not in ("delete_snapshot", "describe_snapshot")])
        if step in ("seal", "begin_seal", "restore", "finish_seal", "step_seal"):
            # As a mount does: segments go only when everything that shares them has its own names for them.
            self.finish(identity)
        getattr(steps, step)()
        return f"{identity}:{step}"

    def kill(self) -> None:
        """End all processes, and start again."""
        for steps in self.branches.values():
            steps.reopen()

    def rename(self) -> None:
        """Give a branch another name: nothing that it shows changes."""
        known = [one for one in self.branches if one != "main"]
        if known:
            self.made += 1
            branching.rename_branch(self.branches["main"].branch.store, self.choose(known), f"n{self.made}")

    def delete(self) -> None:
        """Delete a branch that has none of its own; another's unfinished fork is one."""
        store = self.branches["main"].branch.store
        for identity in [one for one in self.branches if one != "main"]:
            if store.branches.children(identity) or any(parent == identity for parent, _, _ in self.begun):
                continue
            steps = self.branches.pop(identity)
            branching.delete_branch(store, identity, steps.branch.worktree.journal.end, force=True)
            steps.close()
            return

    def merge(self) -> None:
        """Merge a branch into its parent; what only one of them changed is as that one has it."""
        store = self.branches["main"].branch.store
        known = [one for one in self.branches if one != "main" and one not in self.merged]
        pairs = [(one, store.branches.get(one).parent) for one in known]
        pairs = [(child, parent) for child, parent in pairs if parent in self.branches]
        if not pairs:
            return
        child, parent = self.choose(pairs)
        base = self.branches[child].snapshots[store.branches.get(child).snapshot]
        for steps in self.branches.values():
            steps.reopen()
        ours, theirs = self.branches[parent].branch.dump(), self.branches[child].branch.dump()
        self._settle(parent, child)
        for name in (parent, child):
            self.branches[name].branch.close()
        path = self.branches["main"].branch.path
        with Store.open(path) as opened:
            for between in unsealed_between(opened, child, parent):
                seal_offline(path, between)
            source = source_offline(opened, child, "merged", "me", "here", dry_run=False)
            outcome = merge_offline(opened, parent, Wanted(source, ("ours", "theirs"), "theirs", user="me"))
        for name in (parent, child):
            self.branches[name].branch.open()
        self.merged.add(child)
        assert _shown(self.branches[child].branch.dump()) == _shown(theirs)
        found = self.branches[parent].branch.dump()
        if not outcome.snapshot:
            assert _shown(found) == _shown(ours)
        elif _shown(ours) == _shown(base):
            assert _shown(found) == _shown(theirs)
        elif _shown(theirs) == _shown(base):
            assert _shown(found) == _shown(ours)
        self.branches[parent].adopt(found)

    def _settle(self, *names: str) -> None:
        for name in names:
            self.finish(name)
            self.branches[name].seal()

    def same(self) -> None:
        for steps in self.branches.values():
            steps.same()


def _shown(dump: Dump) -> dict[str, object]:
    """Return what a merge is about: types, permissions, content, targets, attributes; no times, numbers or counts."""
    return {path: (row[1], row[2], row[8], row[9], row[10]) for path, row in dump.items()}


@given(data=st.data())
@settings(
    max_examples=int(os.environ.get("HELIOS_MODEL_EXAMPLES", "25")),
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
def test_short_sequences(data: st.DataObject) -> None:
    """A few steps, shrunk where they fail."""

    def choose(options: Sequence[Any]) -> Any:
        return options[data.draw(st.integers(0, len(options) - 1))]

    with tempfile.TemporaryDirectory(prefix="helios-branches-") as folder:
        forest = Forest(folder, choose)
        try:
            for name in data.draw(st.lists(st.sampled_from(WHAT), max_size=40)):
                getattr(forest, name)()
                forest.same()
        finally:
            forest.close()


@pytest.mark.parametrize("run", range(6))
def test_branches_do_not_see_each_other(run: int, tmp_path: Path) -> None:
    seed = int(os.environ.get("HELIOS_MODEL_SEED", random.SystemRandom().getrandbits(32)))
    generator = random.Random(seed)
    forest = Forest(str(tmp_path), generator.choice)
    done: list[str] = []
    try:
        for _ in range(int(os.environ.get("HELIOS_MODEL_STEPS", "300"))):
            what = generator.choice(WHAT)
            done.append(what)
            found = getattr(forest, what)()
            done[-1] = found or what
            forest.same()
    except BaseException:
        print(f"seed {seed}, after {len(done)} steps: … {' '.join(done[-12:])}")
        raise
    finally:
        forest.close()
