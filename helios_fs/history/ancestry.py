"""The common ancestor of two branches: the state from which a merge tells what each side changed.

Knows snapshots and their parents as the refs have them, and where branches begin; never what trees hold.

A1. A branch's timeline is its snapshots and the beginnings of the branches made from it, by the epochs of its journal,
    which a branch continues. Each state has the one before it in it, and its parents. The first snapshot of a branch
    stands on two timelines, its parent's too.
A2. The base is a state that both branches have in them and that no other such state has in it; of several, which
    merges both ways leave, the newest.
A3. A snapshot that was deleted cannot be the base, and its parents are not known any more. Its branch's timeline leads
    past it, so an older state that both have is found.
"""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from helios_fs.objects.snapshot import Snapshot
from helios_fs.store.branches import BranchInfo


class Base(NamedTuple):
    """Where two branches were one."""

    snapshot: str
    tree: bytes


class History:
    """All sealed snapshots of a store, and its branches."""

    def __init__(self, snapshots: Iterable[Snapshot], branches: Iterable[BranchInfo]) -> None:
        """`branches` should hold the deleted ones too, while their snapshots are there."""
        self._by_id = {snapshot.id: snapshot for snapshot in snapshots}
        timelines: dict[str, set[tuple[int, int, str]]] = {}
        for info in branches:
            beginning = (info.fork_epoch, 0, info.snapshot)
            timelines.setdefault(info.parent, set()).add(beginning)
            timelines.setdefault(info.id, set()).add(beginning)
        beginnings = {name for nodes in timelines.values() for _, _, name in nodes}
        for snapshot in self._by_id.values():
            if snapshot.id not in beginnings:
                timelines.setdefault(snapshot.branch, set()).add((snapshot.epoch, 1, snapshot.id))
        self._timelines = {branch: [name for _, _, name in sorted(nodes)] for branch, nodes in timelines.items()}
        self._before: dict[str, list[str]] = {}
        for names in self._timelines.values():
            for former, name in zip(names, names[1:], strict=False):
                self._before.setdefault(name, []).append(former)

    def newest(self, branch: str) -> Snapshot | None:
        """Return a branch's newest snapshot that is there, its first one among them."""
        for node in reversed(self._timelines.get(branch, [])):
            snapshot = self._by_id.get(node)
            if snapshot is not None and snapshot.branch == branch:
                return snapshot
        return None

    def base(self, ours: str, theirs: str) -> Base | None:
        """Return the best common ancestor of two branches as they are now (A2), or None where nothing is left of it."""
        shared = {
            node
            for node in self._reached(self._timelines.get(ours, [])[-1:])
            & self._reached(self._timelines.get(theirs, [])[-1:])
            if node in self._by_id
        }
        best = sorted(shared - self._reached([above for node in shared for above in self._above(node)]))
        return Base(best[-1], self._by_id[best[-1]].tree) if best else None

    def _above(self, node: str) -> Iterator[str]:
        yield from self._before.get(node, ())
        if node in self._by_id:
            yield from self._by_id[node].parents

    def _reached(self, start: Iterable[str]) -> set[str]:
        seen: set[str] = set()
        pending = list(start)
        while pending:
            node = pending.pop()
            if node not in seen:
                seen.add(node)
                pending.extend(self._above(node))
        return seen
