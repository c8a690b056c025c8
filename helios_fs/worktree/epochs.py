"""What closes a branch's epochs, snapshots and freezes, and what is said of snapshots afterwards.

A part of `Worktree`, which appends and applies; knows nothing of inodes or names.

E1. A snapshot and a freeze are one record each, whatever is dirty.
E2. Saying something of a snapshot, and deleting one, is no change of the tree: no automatic snapshot follows from it.
"""

import time
from collections.abc import Callable, Iterable
from typing import Any

from helios_fs.errors import NotPermitted
from helios_fs.journal.journal import Journal
from helios_fs.objects import record
from helios_fs.objects.ids import snapshot_ids
from helios_fs.objects.snapshot import Snapshot, SnapshotChanged, encode_snapshot
from helios_fs.worktree.index import Index
from helios_fs.worktree.snapshots import Snapshots


class Epochs:
    """The part of a working tree that makes, describes and deletes snapshots."""

    branch: str
    index: Index
    journal: Journal
    snapshots: Snapshots
    changed_in_epoch: bool
    _beside_bytes: int = 0
    """Journal that says nothing of the tree."""
    _unchanged_at: int | None = None
    """`tree_position` at which the tree was as the newest snapshot has it."""

    def _record(
        self, kind: int, flags: int, payload: bytes, change: Callable[..., Any], *arguments: Any, frees: bool = False
    ) -> Any:
        raise NotImplementedError

    @property
    def tree_position(self) -> int:
        """Another number after every change of the tree, and after a snapshot."""
        return self.journal.end - self._beside_bytes

    @property
    def changed_since_snapshot(self) -> bool:
        """Whether anything was done to the tree since the newest snapshot was taken."""
        return self.tree_position != self._unchanged_at

    def unchanged_since_snapshot(self) -> None:
        """Say that the tree is as the newest snapshot has it: whoever recovered the branch has compared them."""
        self._unchanged_at = self.tree_position

    def _record_beside(
        self, kind: int, payload: bytes, change: Callable[..., Any], *arguments: Any, frees: bool = True
    ) -> None:
        """As `_record`, for what does not change the tree (E2)."""
        end = self.journal.end
        self._record(kind, 0, payload, change, *arguments, frees=frees)
        self._beside_bytes += self.journal.end - end

    def snapshot(
        self,
        name: bytes = b"",
        message: str = "",
        user: str = "",
        host: str = "",
        command: str = "",
        other: str = "",
    ) -> Snapshot:
        """Take a snapshot: one record and a new epoch, whatever is dirty. `other` is a second parent.

        It survives the death of the process on return; a power cut after `journal.sync`. Raises what
        `Snapshots.check_name` does, StoreFull, ReadOnly.
        """
        if name:
            self.snapshots.check_name(name)
        before = self.snapshots.newest.id if self.snapshots.newest is not None else ""
        snapshot = Snapshot(
            id=snapshot_ids.take(before),
            branch=self.branch,
            tree=b"",
            parents=[parent for parent in (before, other) if parent],
            time_ns=time.time_ns(),
            epoch=self.index.epoch,
            name=name,
            message=message,
            user=user,
            host=host,
            command=command,
        )
        self._record(record.SNAPSHOT, 0, encode_snapshot(snapshot), _snapshot_taken, self.snapshots, snapshot)
        self.changed_in_epoch = False
        self.unchanged_since_snapshot()
        return snapshot

    def freeze(self) -> int:
        """Close the epoch without a snapshot, so that the sealer can seal up to here; return its number."""
        epoch = self.index.epoch
        self.end_epoch(record.FREEZE, record.pack_freeze(epoch))
        self.journal.end_segment()
        return epoch

    def end_epoch(self, kind: int, payload: bytes, frees: bool = True) -> None:
        """Append a record that changes nothing in the tree and begins a new epoch."""
        self._record_beside(kind, payload, _next_epoch, frees=frees)
        self.changed_in_epoch = False

    def describe_snapshot(
        self, snapshot_id: str, name: bytes | None = None, message: str | None = None, protected: bool | None = None
    ) -> Snapshot:
        """Say anew what is given of a snapshot, and return it; an empty name takes its name away.

        Raises NoSuchEntry, NotPermitted where it is another branch's, what `Snapshots.check_name` does, StoreFull,
        ReadOnly.
        """
        self.snapshots.check_owned(snapshot_id)
        former = self.snapshots.get(snapshot_id)
        if name and name != former.name:
            self.snapshots.check_name(name)
        change = SnapshotChanged(
            snapshot_id,
            former.name if name is None else name,
            former.message if message is None else message,
            former.protected if protected is None else protected,
        )
        payload = record.pack_snapshot_changed(change.id, change.name, change.message, change.protected)
        frees = former.protected and not change.protected
        self._record_beside(record.SNAPSHOT_CHANGED, payload, _snapshot_changed, self.snapshots, change, frees=frees)
        return self.snapshots.get(snapshot_id)

    def delete_snapshot(self, snapshot_id: str) -> None:
        """Delete a snapshot; its space comes back once nothing else needs it.

        Raises NoSuchEntry, NotPermitted where it is protected, StoreFault, ReadOnly.
        """
        self.check_deletable([snapshot_id])
        payload = snapshot_id.encode()
        self._record_beside(record.SNAPSHOT_DELETE, payload, _snapshot_deleted, self.snapshots, snapshot_id)

    def check_deletable(self, snapshot_ids: Iterable[str]) -> None:
        """Refuse what nobody may delete here: protected, another branch's, this one's beginning.

        Raises NoSuchEntry, NotPermitted.
        """
        for snapshot_id in snapshot_ids:
            self.snapshots.check_deletable(snapshot_id)
            if self.snapshots.get(snapshot_id).protected:
                raise NotPermitted(
                    f"snapshot {snapshot_id} is protected from deletion;"
                    f" `helios describe {snapshot_id} --unprotect` first"
                )


def _next_epoch(index: Index, now_ns: int) -> None:
    index.epoch += 1


def _snapshot_taken(index: Index, snapshots: Snapshots, snapshot: Snapshot, now_ns: int) -> None:
    snapshots.add(snapshot)
    index.epoch += 1


def _snapshot_changed(index: Index, snapshots: Snapshots, change: SnapshotChanged, now_ns: int) -> None:
    snapshots.change(change)


def _snapshot_deleted(index: Index, snapshots: Snapshots, snapshot_id: str, now_ns: int) -> None:
    snapshots.delete(snapshot_id)
