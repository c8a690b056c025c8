"""The index: what packs and ref log say, as LMDB has it, and the one way in which it changes.

Knows how locations, counters and refs are kept; never what a page or a tree means.

X1. A change is one ref log record and one LMDB commit, in this order, under LMDB's write lock. The offset up to which
    the log has been applied is part of the commit.
X2. Before a change, records behind that offset are applied first (their writer died, or could not commit), together
    with the pack extents that they name; a torn tail is cut off.
X3. A change that raises is either not in the store, or (where the disk refused even to take it back) wholly in it.
"""

import struct
from collections.abc import Callable, Mapping
from typing import Final

from blake3 import blake3

from helios_fs.errors import CorruptObject, HeliosError, NotAStore, ObjectMissing
from helios_fs.objects.ids import ObjectId
from helios_fs.objects.snapshot import (
    BranchGone,
    HeadMoved,
    RefEvent,
    SnapshotChanged,
    SnapshotDeleted,
    SnapshotSealed,
    changed,
    decode_events,
    decode_snapshot,
    encode_head,
    encode_snapshot,
)
from helios_fs.store.environment import (
    FENCES,
    HEADS,
    OBJECTS,
    SNAPSHOTS,
    Environment,
    WriteTransaction,
)
from helios_fs.store.packs import Location, PackFile
from helios_fs.store.reflog import BranchTaken, InosReserved, LogRecord, Published, RefLog

FIRST_INO: Final = 2
"""1 is the root of every tree."""

_LOCATION: Final = struct.Struct("<IQIIBB")


def encode_location(location: Location) -> bytes:
    """Return the 22 bytes that say where a record is."""
    return _LOCATION.pack(*location)


def decode_location(value: bytes) -> Location:
    """Return where a record is. Raises CorruptObject."""
    try:
        return Location._make(_LOCATION.unpack(value))
    except struct.error as error:
        raise CorruptObject(f"an index entry cannot be decoded: {error}") from error


def branch_key(branch: str) -> bytes:
    """Return the 16 bytes that stand for a branch in keys: its name may be longer than LMDB allows."""
    return blake3(branch.encode()).digest(length=16)


class Index:
    """The index of an open store."""

    def __init__(self, environment: Environment, log: RefLog, packs: str, store_id: bytes) -> None:
        self.environment = environment
        self._log = log
        self._packs = packs
        self._store_id = store_id

    def find(self, object_id: bytes) -> Location | None:
        """Return where an object is, or None."""
        value = self.environment.find(OBJECTS, object_id)
        return None if value is None else decode_location(value)

    def recover(self) -> None:
        """Apply what the ref log has and the index has not; waits for a writer only where there is something.

        Raises NotAStore where the log is shorter than what was applied.
        """
        with self.environment.read() as reading:
            applied = reading.find_number(b"ref_log")
        if self._log.size() != applied:
            with self.environment.write() as txn:
                self._catch_up(txn)

    def change(
        self,
        decide: Callable[[WriteTransaction], LogRecord],
        locations: Mapping[ObjectId, Location] | None = None,
    ) -> LogRecord:
        """Append the record that `decide` returns, and apply it. Durable on return.

        `decide` sees the current state under the lock; what it raises undoes everything. `locations` are entered for
        the objects whose packs the record names. Raises StoreFull or StoreFault.
        """
        start = None
        try:
            with self.environment.write() as txn:
                at = self._catch_up(txn)
                record = decide(txn)
                # Sorted, so that LMDB's pages are filled one after the other; before the log, so that a full index
                # is found while nothing has to be taken back.
                for object_id, location in sorted((locations or {}).items()):
                    txn.put(OBJECTS, object_id, encode_location(location))
                start = at
                end = self._log.append(record, at)
                apply(txn, record)
                txn.put_number(b"ref_log", end)
        except HeliosError:
            if start is not None:
                self._withdraw(start)
            raise
        return record

    def next_pack(self) -> int:
        """Return a pack number that nobody had or will have."""
        with self.environment.write() as txn:
            number = txn.find_number(b"next_pack")
            txn.put_number(b"next_pack", number + 1)
        return number

    def _withdraw(self, start: int) -> None:
        """Take back a record whose commit failed, unless somebody has applied it meanwhile."""
        try:
            with self.environment.write() as txn:
                if txn.find_number(b"ref_log") == start:
                    self._log.cut(start)
        except HeliosError:
            pass  # It stays, complete: whoever opens the store next applies it (X3).

    def _catch_up(self, txn: WriteTransaction) -> int:
        """Apply records behind the applied offset, cut off a torn tail; return the end of the log."""
        applied = txn.find_number(b"ref_log")
        size = self._log.size()
        if size < applied:
            raise NotAStore(f"{self._log.path} has {size} bytes of {applied}: it is truncated")
        if size == applied:
            return applied
        end = applied
        for record, behind in self._log.records(applied):
            end = behind
            if isinstance(record, Published):
                self._enter_extents(txn, record)
            apply(txn, record)
        if end < size:
            self._log.cut(end)
        txn.put_number(b"ref_log", end)
        return end

    def _enter_extents(self, txn: WriteTransaction, record: Published) -> None:
        for number, start, end in record.extents:
            try:
                pack = PackFile(self._packs, number, self._store_id)
            except ObjectMissing:
                continue  # Dropped since by a collection: nothing in it is needed.
            for object_id, location in pack.scan(start, end):
                if txn.find(OBJECTS, object_id) is None:
                    txn.put(OBJECTS, object_id, encode_location(location))


def apply(txn: WriteTransaction, record: LogRecord) -> None:
    """Do to refs and counters what a record says; the same again changes nothing (G3)."""
    if isinstance(record, InosReserved):
        txn.put_number(b"next_ino", max(record.next_ino, txn.find_number(b"next_ino")))
    elif isinstance(record, BranchTaken):
        txn.put_number(b"fence", max(record.fence, txn.find_number(b"fence")))
        txn.put_number(branch_key(record.branch), record.fence, FENCES)
    else:
        for event in decode_events(record.events):
            _apply_event(txn, record.branch, event)


def _apply_event(txn: WriteTransaction, branch: str, event: RefEvent) -> None:
    if isinstance(event, HeadMoved):
        txn.put(HEADS, branch_key(event.head.branch), encode_head(event.head))
        return
    if isinstance(event, SnapshotSealed):
        snapshot = event.snapshot
        txn.put(SNAPSHOTS, branch_key(snapshot.branch) + snapshot.id.encode(), encode_snapshot(snapshot))
        return
    if isinstance(event, BranchGone):
        gone = branch_key(event.branch)
        for name in [name for name, _ in txn.scan(SNAPSHOTS, gone)]:
            txn.delete(SNAPSHOTS, name)
        txn.delete(HEADS, gone)
        txn.delete(FENCES, gone)
        return
    key = branch_key(branch) + event.id.encode()
    if isinstance(event, SnapshotDeleted):
        txn.delete(SNAPSHOTS, key)
        return
    assert isinstance(event, SnapshotChanged)
    value = txn.find(SNAPSHOTS, key)
    if value is not None:
        txn.put(SNAPSHOTS, key, encode_snapshot(changed(decode_snapshot(value), event)))
