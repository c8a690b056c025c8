"""Writing objects and publishing them: the only way into packs and refs.

Knows packs, the index and the ref log; never what an object means. One writer in a process, used by one thread.

W1. Order of durability: pack bytes, fdatasync, directory fsync, ref log, LMDB commit. Nothing names what could still
    be lost.
W2. A writer holds `run/writers.lock` shared from its first put until it has published: garbage collection takes it
    exclusively, so what deduplication points at cannot be condemned meanwhile, and no unpublished record is dropped.
W3. A failure leaves every unpublished object in memory or in a pack that is still good; `publish` can be called again.
"""

import os
from collections.abc import Iterator
from typing import Self

from helios_fs.errors import Fenced, HeliosError, StoreFull
from helios_fs.objects.ids import ObjectId, object_id
from helios_fs.objects.pages import Page, decode_page
from helios_fs.objects.snapshot import BranchGone, RefEvent, SnapshotDeleted, encode_events
from helios_fs.store import files
from helios_fs.store.compression import compress, decompress
from helios_fs.store.environment import FENCES, WriteTransaction
from helios_fs.store.index import Index, branch_key
from helios_fs.store.locks import FileLock
from helios_fs.store.objects import Objects
from helios_fs.store.packs import (
    PACK_BYTES,
    RECORD_HEADER_BYTES,
    Location,
    PackAppender,
    Record,
    check_object_size,
)
from helios_fs.store.reflog import Extent, Published
from helios_fs.store.reserve import Reserve

_BUFFER_BYTES = 1024 * 1024
"""Records are handed to the kernel in writes of about this size."""


class Writer:
    """Objects on their way into the store."""

    def __init__(self, path: str, store_id: bytes, index: Index, objects: Objects, reserve: Reserve) -> None:
        self._directory = os.path.join(path, "packs")
        self._store_id = store_id
        self._index = index
        self._objects = objects
        self._reserve = reserve
        self._gate = WriterGate(path)
        self._holding = False
        self._buffer: dict[ObjectId, Record] = {}
        self._buffer_bytes = 0
        self._written: dict[ObjectId, Location] = {}
        self._packs: list[PackAppender] = []
        """Those with something unpublished, and last the one that takes more."""
        self._names_synced = True
        self._named = False
        """Whether a publish was begun that may have taken effect although it failed."""

    def put(self, kind: int, payload: bytes) -> ObjectId:
        """Store an object and return its id; one that is there already costs a lookup. Durable after `publish`.

        Raises StoreFull or StoreFault; the object is kept nevertheless, for a later `publish` to try again.
        May wait for a garbage collection to end.
        """
        name = object_id(kind, payload)
        if name in self._buffer or name in self._written:
            return name
        self._hold()
        if self._index.find(name) is not None:
            return name
        check_object_size(payload)
        codec, stored = compress(payload)
        self._buffer[name] = Record(kind, codec, name, len(payload), stored)
        self._buffer_bytes += RECORD_HEADER_BYTES + len(stored)
        if self._buffer_bytes >= _BUFFER_BYTES:
            self._flush()
        return name

    def copy(self, record: Record) -> None:
        """Store a record again, wherever the index has it now. Once published, the index has the copy's place.

        Raises as `put` does.
        """
        self._hold()
        self._buffer[record.object_id] = record
        self._buffer_bytes += RECORD_HEADER_BYTES + len(record.stored)
        if self._buffer_bytes >= _BUFFER_BYTES:
            self._flush()

    def has(self, name: bytes) -> bool:
        """Tell whether an object is in the store or among the unpublished ones."""
        return name in self._buffer or name in self._written or self._index.find(name) is not None

    def get(self, kind: int, name: bytes) -> bytes:
        """Return an object's payload, unpublished ones included. Raises as `Objects.get` does."""
        payload = self._find_unpublished(name)
        return self._objects.get(kind, name) if payload is None else payload

    def page(self, name: bytes) -> Page:
        """Return a decoded page, unpublished ones included. Raises as `Objects.get` does."""
        payload = self._find_unpublished(name)
        return self._objects.page(name) if payload is None else decode_page(payload)

    @property
    def unpublished(self) -> int:
        """How many objects wait for `publish`."""
        return len(self._buffer) + len(self._written)

    @property
    def idle(self) -> bool:
        """Whether garbage may be collected: nothing was put since the last publish with events."""
        return not self._holding

    def publish(self, events: list[RefEvent], branch: str, fence: int) -> None:
        """Make everything put so far part of the store, and `events` take effect, together. Durable on return.

        Without events the objects become durable and known, but nothing refers to them yet; they stay safe from
        collection until a later publish has events. Raises Fenced where `fence` is not the branch's newest epoch:
        then nothing was published. Raises StoreFull or StoreFault: the same call may be repeated later. Deletions are
        published on a full disk too, from the store's reserve.
        """
        try:
            self._publish(events, branch, fence)
        except StoreFull:
            deletes = any(isinstance(event, SnapshotDeleted | BranchGone) for event in events)
            if not (deletes and self._reserve.spend()):
                raise
            self._publish(events, branch, fence)

    def _publish(self, events: list[RefEvent], branch: str, fence: int) -> None:
        self._flush()
        for pack in self._packs:
            if pack.length > pack.published:
                self._sync(pack)
        if not self._names_synced:
            files.sync_directory(self._directory)
            self._names_synced = True
        extents = [Extent(p.number, p.published, p.length) for p in self._packs if p.length > p.published]

        def decide(txn: WriteTransaction) -> Published:
            current = txn.find_number(branch_key(branch), FENCES)
            if current != fence:
                raise Fenced(f"branch {branch} has a newer owner (epoch {current}, not {fence})")
            return Published(branch, fence, extents, encode_events(events))

        # From here on the ref log may name the extents, whatever becomes of the index.
        self._named = True
        self._index.change(decide, self._written)
        self._named = False
        self._written.clear()
        for pack in self._packs:
            pack.published = pack.length
        self._close_packs(keep_current=True)
        if events:
            self._let_go()

    def discard(self) -> None:
        """Forget everything that is not published, and give its space back: a full disk may be why it never was."""
        if not self._named:
            for pack in self._packs:
                if pack.length > pack.published:
                    pack.cut_back(pack.published)
        self._buffer.clear()
        self._buffer_bytes = 0
        self._written.clear()
        self._close_packs(keep_current=False)
        self._let_go()

    def close(self) -> None:
        """Forget what is not published and close the pack. Closing twice is fine."""
        self.discard()
        self._gate.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- Steps ---------------------------------------------------------------------------------------------------

    def _hold(self) -> None:
        if self._holding:
            return
        self._gate.enter()
        self._holding = True
        # While we did not hold the lock a collection may have taken our pack away.
        if self._packs and self._packs[-1].dropped:
            self._packs.pop().close()

    def _let_go(self) -> None:
        if self._holding:
            self._gate.leave()
            self._holding = False

    def _find_unpublished(self, name: bytes) -> bytes | None:
        key = ObjectId(name)
        record = self._buffer.get(key)
        if record is not None:
            return decompress(record.codec, record.stored, record.raw)
        location = self._written.get(key)
        return None if location is None else self._objects.load_at(location, name)

    def _flush(self) -> None:
        """Move buffered records into packs; what a failure leaves stays buffered."""
        while self._buffer:
            records = list(self._buffer.values())
            pack = self._pack_for(len(records[0].stored))
            end, count = pack.length, 0
            for record in records:
                end += RECORD_HEADER_BYTES + len(record.stored)
                if count and end > PACK_BYTES:
                    break
                count += 1
            taken = records[:count]
            for record, location in zip(taken, pack.append(taken), strict=True):
                self._written[record.object_id] = location
                del self._buffer[record.object_id]
                self._buffer_bytes -= RECORD_HEADER_BYTES + len(record.stored)

    def _pack_for(self, size: int) -> PackAppender:
        """Return the current pack, or a new one where it is full or failed."""
        if self._packs:
            current = self._packs[-1]
            if current.has_room(size):
                return current
            if current.usable:
                # Its writeback is paid now, piece by piece, not all at the publish.
                self._sync(current)
        pack = PackAppender(self._directory, self._index.next_pack(), self._store_id)
        self._names_synced = False
        self._packs.append(pack)
        return pack

    def _sync(self, pack: PackAppender) -> None:
        try:
            pack.sync()
        except HeliosError:
            self._rescue(pack)
            raise

    def _rescue(self, pack: PackAppender) -> None:
        """Take records that may never reach the disk back into the buffer, for another pack."""
        for name, location in self._unsynced(pack):
            payload = self._objects.load_at(location, name)
            codec, stored = compress(payload)
            self._buffer[name] = Record(location.kind, codec, name, len(payload), stored)
            self._buffer_bytes += RECORD_HEADER_BYTES + len(stored)
            del self._written[name]
        pack.cut_back(max(pack.synced, pack.published))

    def _unsynced(self, pack: PackAppender) -> Iterator[tuple[ObjectId, Location]]:
        for name, location in list(self._written.items()):
            if location.pack == pack.number and location.offset >= pack.synced:
                yield name, location

    def _close_packs(self, keep_current: bool) -> None:
        keep = self._packs[-1:] if keep_current and self._packs and self._packs[-1].usable else []
        for pack in self._packs:
            if pack not in keep:
                pack.close()
        self._packs = keep


class WriterGate:
    """The lock between writers, which share it, and garbage collection, which needs it alone.

    A second lock in front of it makes a waiting collection come next: without it, writers that overlap could keep the
    lock shared for ever.
    """

    def __init__(self, path: str) -> None:
        self._turn = FileLock(os.path.join(path, "run", "turn.lock"))
        self._lock = FileLock(os.path.join(path, "run", "writers.lock"))

    def enter(self) -> None:
        """Become one of the writers; waits while a collection has the lock or is next."""
        self._turn.acquire(exclusive=False, wait=True)
        self._lock.acquire(exclusive=False, wait=True)
        self._turn.release()

    def enter_alone(self, wait: bool) -> bool:
        """Keep all writers out; False where one is at work and `wait` is False."""
        if not self._turn.acquire(exclusive=True, wait=wait):
            return False
        if not self._lock.acquire(exclusive=True, wait=wait):
            self._turn.release()
            return False
        return True

    def leave(self) -> None:
        """Undo either."""
        self._lock.release()
        self._turn.release()

    def close(self) -> None:
        """Forget the lock files."""
        self._lock.close()
        self._turn.close()
