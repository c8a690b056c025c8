"""Refs: where branches stand, and their snapshots, as the index has them now.

Knows nothing of inodes or requests. Refs change only through `Writer.publish`.
"""

from helios_fs.errors import NoSuchEntry
from helios_fs.objects.snapshot import Head, Snapshot, decode_head, decode_snapshot
from helios_fs.store.environment import HEADS, SNAPSHOTS, Environment
from helios_fs.store.index import branch_key


class Refs:
    """Every call reads the current state; what another process published is seen at once."""

    def __init__(self, environment: Environment) -> None:
        self._environment = environment

    def head(self, branch: str) -> Head:
        """Return where a branch stands. Raises NoSuchEntry."""
        value = self._environment.find(HEADS, branch_key(branch))
        if value is None:
            raise NoSuchEntry(f"no branch is called {branch}")
        return decode_head(value)

    def has_head(self, branch: str) -> bool:
        """Tell whether a branch was ever sealed."""
        return self._environment.find(HEADS, branch_key(branch)) is not None

    def heads(self) -> list[Head]:
        """Return where all branches stand, by name."""
        with self._environment.read() as txn:
            return sorted((decode_head(value) for _, value in txn.scan(HEADS)), key=lambda head: head.branch)

    def snapshots(self, branch: str) -> list[Snapshot]:
        """Return a branch's sealed snapshots in the order of their ids, without the deleted ones."""
        with self._environment.read() as txn:
            return [decode_snapshot(value) for _, value in txn.scan(SNAPSHOTS, branch_key(branch))]

    def all_snapshots(self) -> list[Snapshot]:
        """Return the sealed snapshots of all branches, in no order that means anything."""
        with self._environment.read() as txn:
            return [decode_snapshot(value) for _, value in txn.scan(SNAPSHOTS)]

    def find_snapshot(self, branch: str, snapshot_id: str) -> Snapshot | None:
        """Return one sealed snapshot, or None."""
        value = self._environment.find(SNAPSHOTS, branch_key(branch) + snapshot_id.encode())
        return None if value is None else decode_snapshot(value)
