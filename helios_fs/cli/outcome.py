"""What `helios run` does with its branch: make it, say what changed in it, then keep, merge or drop it.

Asks the daemon that owns the workspace for everything, so nothing here touches a journal.

O1. A branch is dropped only by force where that was asked for; a branch that was not asked for by name and holds no
    change is dropped without, which fails rather than lose anything.
O2. A merge that is not done leaves the branch, and the workspace as it was.
"""

import secrets
import time
from typing import NamedTuple

from helios_fs.cli import branch as branch_verb
from helios_fs.cli import workspace
from helios_fs.cli.snapshot import user_name
from helios_fs.cli.workspace import Workspace
from helios_fs.control import messages
from helios_fs.errors import EntryExists
from helios_fs.store.branches import Branches, check_name


class Changes(NamedTuple):
    """A branch against the state that it began with."""

    base_tree: str
    """Hash in hex."""
    tree: str
    changed: list[tuple[str, bytes]]
    """(kind, path) as `helios status` has them, sorted by path."""


class Merge(NamedTuple):
    """What came of a merge."""

    snapshot: str
    """Id of the snapshot that it made in the workspace; empty where there were conflicts, or nothing to merge."""
    conflicts: list[tuple[str, bytes]]
    """(kind, path)."""


def make_branch(parent: Workspace, name: str | None) -> Workspace:
    """Return a new branch of the working tree as it is now; without a name, one that nobody has yet is made up.

    It survives the death of the daemon on return. Raises EntryExists, InvalidArgument, NameTooLong, ReadOnly.
    """
    if name is not None:
        check_name(name)
        return branch_verb.make(parent, name)
    while True:
        try:
            return branch_verb.make(parent, time.strftime("run-%Y%m%d-%H%M%S-") + secrets.token_hex(3))
        except EntryExists:
            continue


def changes(branch: Workspace) -> Changes:
    """Return what has changed in a branch since it began; seals it first, so it costs what was written there."""
    from helios_fs.history.diff import diff_trees

    tree = workspace.settle(branch)
    beginning = Branches(branch.store).get(branch.branch).snapshot
    base = workspace.pick(workspace.snapshots(branch), beginning).tree
    with workspace.open_store(branch) as store:
        found = diff_trees(store.objects, bytes.fromhex(base), bytes.fromhex(tree))
        return Changes(base, tree, [(change.kind, change.path) for change in found])


def snapshot_branch(branch: Workspace, message: str) -> str:
    """Take a snapshot of a branch and return its id."""
    with workspace.connect(branch) as connection:
        return connection.ask(messages.TakeSnapshot(b"", message, user_name()), messages.SnapshotTaken).id


def merge_branch(parent: Workspace, branch: Workspace, message: str) -> Merge:
    """Merge a branch into the one that it was made from: all of it, or nothing where there are conflicts."""
    from helios_fs.cli.merge import merge

    done = merge(parent, branch, message=message)
    return Merge(done.snapshot, [(one.kind, one.path) for one in done.conflicts])


def discard_branch(parent: Workspace, branch: str, force: bool = True) -> None:
    """Delete a branch, by id, with those that were made from it; without `force`, only if no work is lost.

    It can be brought back until the next collection of garbage. Raises Busy, NotPermitted.
    """
    for child in workspace.names_of(parent.store, branch).values() if force else []:
        discard_branch(Workspace(parent.store, branch, None), child)
    with workspace.connect(parent) as connection:
        connection.ask(messages.DeleteBranch(branch, force), messages.BranchChanged)
