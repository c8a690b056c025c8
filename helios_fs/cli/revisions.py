"""Which state of which branch a text means: a snapshot, a branch's newest state, a snapshot of another branch.

What is tried, in this order, so that a snapshot of this branch wins where a name means two things:
1. A snapshot of this branch: its id, its name, `latest`, `~N`, a unique start of its id.
2. A branch by its whole name (`main`, `a/b`): its newest state, snapshotted or not, this one's too.
3. `BRANCH:SNAPSHOT`, a snapshot of another branch; `BRANCH:latest` where a snapshot here has the branch's name.

V1. The tree of what is returned is whole in the store: what was in a journal is sealed first.
"""

import os
from typing import NamedTuple

from helios_fs.cli import workspace
from helios_fs.cli.workspace import Workspace
from helios_fs.control.messages import SnapshotInfo
from helios_fs.errors import InvalidArgument, NameTooLong, NoSuchEntry


class Revision(NamedTuple):
    """One state of one branch."""

    label: str
    """What people call it; may hold surrogate escapes."""
    tree: str
    """Tree hash in hex."""
    snapshot: SnapshotInfo | None
    """None for the newest state of a branch."""
    branch: str
    """Id of the branch."""


def resolve(where: Workspace, text: str) -> Revision:
    """Return what `text` means, sealed (V1). Raises NoSuchEntry, InvalidArgument where several snapshots are meant."""
    known = workspace.snapshots(where)
    missing: NoSuchEntry | InvalidArgument
    try:
        return _of_snapshot(where, workspace.pick(known, text).id, None)
    except (NoSuchEntry, InvalidArgument) as error:
        missing = error
    branch = _find_branch(where, text)
    if branch is not None:
        return newest_state(where, branch, text)
    name, colon, rest = text.partition(":")
    other = _find_branch(where, name) if colon else None
    if other is not None:
        return _of_snapshot(_on(where, other), rest, name)
    if isinstance(missing, InvalidArgument) or "~" in text or text == "latest":
        raise missing
    raise NoSuchEntry(f"{text}: no such snapshot or branch (`helios log` and `helios branch` list them)")


def working_tree(where: Workspace) -> Revision:
    """Return the state of the workspace's branch as it is now, sealed."""
    return newest_state(where, where.branch, "working tree")


def newest_state(where: Workspace, branch: str, label: str) -> Revision:
    """Return the newest state of the branch with this id, sealed. Raises NoSuchEntry, Busy."""
    return Revision(label, workspace.settle(_on(where, branch)), None, branch)


def newest_snapshot(where: Workspace) -> Revision:
    """Return the newest snapshot of the workspace's branch. Raises NoSuchEntry where there is none."""
    return _of_snapshot(where, "latest", None)


def resolve_range(where: Workspace, text: str) -> tuple[Revision, Revision]:
    """Return both ends of `A..B`, or of `A`: from A to the working tree.

    A side of `A..B` that is left empty is the newest snapshot, or the working tree. Names may have `..` in them: the
    first one counts that leaves something on both sides that is there. Raises as `resolve` does.
    """
    at = text.find("..")
    while at >= 0:
        left, right = text[:at], text[at + 2 :]
        if left or right:
            try:
                a = resolve(where, left) if left else newest_snapshot(where)
                return a, resolve(where, right) if right else working_tree(where)
            except NoSuchEntry:
                pass
        at = text.find("..", at + 1)
    return resolve(where, text), working_tree(where)


def branch_name(where: Workspace, branch: str) -> str:
    """Return a branch's whole name."""
    from helios_fs.store.branches import Branches

    return Branches(where.store).name_of(branch)


def _on(where: Workspace, branch: str) -> Workspace:
    return where if branch == where.branch else workspace.of_branch(where.store, branch)


def _of_snapshot(where: Workspace, text: str, branch: str | None) -> Revision:
    found = workspace.pick_sealed(where, text)
    name = os.fsdecode(found.name) if found.name else found.id
    return Revision(f"{branch}:{name}" if branch else name, found.tree, found, where.branch)


def _find_branch(where: Workspace, name: str) -> str | None:
    try:
        return workspace.branch_id(where.store, name)
    except (NoSuchEntry, InvalidArgument, NameTooLong):
        return None  # what cannot name a branch may still name something else
