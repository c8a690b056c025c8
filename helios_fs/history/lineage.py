"""Which snapshot follows which, across branches and past those that were deleted.

Pure: knows snapshots as refs keep them, and where branches began; no store, no text.

L1. A snapshot's parents are those it names. Where the first of them was deleted, the newest that is left of what came
    before stands in, in the branch itself, then in the branch that it was made from, and so on.
L2. A snapshot is known by its branch and its id: ids of two branches seldom meet, and then they are told apart.
"""

from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from helios_fs.objects.snapshot import Snapshot
from helios_fs.store.branches import BranchInfo


class Key(NamedTuple):
    """One snapshot among those of all branches."""

    branch: str
    id: str


class Lineage:
    """The snapshots of a store, and what each of them follows."""

    def __init__(self, snapshots: Iterable[Snapshot], branches: Iterable[BranchInfo]) -> None:
        """`branches` may hold deleted ones; a branch that is missing has no beginning."""
        self.snapshots: dict[Key, Snapshot] = {Key(one.branch, one.id): one for one in snapshots}
        self._began = {info.id: info for info in branches}
        self._ids: dict[str, list[str]] = {}
        self._holders: dict[str, list[str]] = {}
        for branch, id_ in sorted(self.snapshots):
            self._ids.setdefault(branch, []).append(id_)
            self._holders.setdefault(id_, []).append(branch)

    def parents(self, key: Key) -> list[Key]:
        """Return what a snapshot follows, the state it was made from first; none for the first of all."""
        found: list[Key] = []
        for place, parent in enumerate(self.snapshots[key].parents):
            holder = self._holder(key.branch, parent)
            if holder is not None:
                found.append(Key(holder, parent))
            elif place == 0 and (stand_in := self._before(key.branch, min(parent, key.id))) is not None:
                found.append(stand_in)
        return list(dict.fromkeys(found))

    def _holder(self, branch: str, snapshot_id: str) -> str | None:
        holders = self._holders.get(snapshot_id, [])
        began = self._began.get(branch)
        for likely in (branch, began.parent if began is not None else branch):
            if likely in holders:
                return likely
        return holders[0] if holders else None

    def _before(self, branch: str, snapshot_id: str) -> Key | None:
        """Return the newest snapshot older than an id, in a branch or in those that it goes back to."""
        seen = set()
        while branch not in seen:
            seen.add(branch)
            ids = self._ids.get(branch, [])
            place = bisect_left(ids, snapshot_id)
            if place:
                return Key(branch, ids[place - 1])
            began = self._began.get(branch)
            if began is None:
                break
            branch, snapshot_id = began.parent, min(snapshot_id, began.snapshot)
        return None

    def of_branch(self, branch: str) -> list[Key]:
        """Return a branch's snapshots, oldest first."""
        return [Key(branch, id_) for id_ in self._ids.get(branch, [])]

    def with_ancestors(self, keys: Iterable[Key]) -> Mapping[Key, Sequence[Key]]:
        """Return these snapshots and all that they go back to, each with its parents."""
        found: dict[Key, list[Key]] = {}
        pending = list(keys)
        while pending:
            key = pending.pop()
            if key not in found:
                found[key] = self.parents(key)
                pending.extend(found[key])
        return found
