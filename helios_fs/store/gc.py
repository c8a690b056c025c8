"""Garbage collection: packs without anything reachable are dropped, those that are mostly dead rewritten first.

Knows which objects are reachable (`reach.py`) and where they lie; never what they mean.

D1. Where anything reachable cannot be read nothing is dropped: what lies below is unknown.
D2. A pack is dropped while no writer of any process has something unpublished (W2), after what they did before has
    been walked, and only if the index has no reachable object in it then: nothing that deduplication relies on goes.
D3. Deletion runs the other way round than publishing: index entries first, durable, then the pack file.
D4. A pack is rewritten by copying what is reachable in it, published like any other write; the index has the new
    places before the old pack goes. A reader that looked up the old place finds the pack open, or looks again (O4).
D5. One collection at a time in a store (`run/collect.lock`). One that dies anywhere leaves a whole store, and at worst
    copies that the next one drops.
"""

import os
from collections.abc import Callable, Collection
from typing import Final, NamedTuple

from helios_fs.errors import Busy, CorruptObject, HeliosError, ObjectMissing, StoreFull
from helios_fs.objects.ids import ObjectId, object_id
from helios_fs.store import files
from helios_fs.store.compression import decompress
from helios_fs.store.environment import OBJECTS
from helios_fs.store.index import decode_location
from helios_fs.store.locks import FileLock
from helios_fs.store.packs import FILE_HEADER_BYTES, RECORD_HEADER_BYTES, Location, Record, pack_numbers, pack_path
from helios_fs.store.reach import Progress, Reach
from helios_fs.store.store import Store
from helios_fs.store.writer import Writer, WriterGate

HALF_DEAD: Final = 1.0
"""As `slack`: rewrite packs of which less than half is reachable, and no others."""
TIGHT: Final = 0.1
"""As `slack`: what is not reachable may be a tenth of what is."""
NOTHING_LEFT: Final = 0.0
"""As `slack`: rewrite every pack that holds a dead byte."""
_WORTH_BYTES: Final = 64 * 1024
"""A pack with fewer dead bytes is not rewritten only because it is half dead."""
_ROUND_BYTES: Final = 256 * 1024 * 1024
"""Live bytes that are copied before the packs they came from are dropped: as much more room is needed at most."""

Roots = Callable[[], Collection[bytes]]
"""Ids of trees, pages and blobs that are needed though neither a ref nor a pin says so."""


class Collected(NamedTuple):
    """What a collection did, and what it left."""

    bytes_freed: int = 0
    """Bytes of packs that were dropped, less those of copies."""
    packs_dropped: int = 0
    """Those that had nothing reachable in them, and those that were rewritten."""
    packs_rewritten: int = 0
    packs_kept: int = 0
    live_bytes: int = 0
    """Of records that are reachable."""
    dead_bytes: int = 0
    """Of what is not, in packs that stay."""
    pins: int = 0
    """Objects that living processes hold on to."""
    problems: tuple[str, ...] = ()
    """Why packs that should have been rewritten were not."""


class _Pack(NamedTuple):
    """How much of a pack is needed."""

    number: int
    size: int
    live: int

    @property
    def dead(self) -> int:
        """Bytes of records that nothing needs, or that are no records."""
        return max(0, self.size - FILE_HEADER_BYTES - self.live)


def collect(
    store: Store,
    writer: Writer | None = None,
    pins: Collection[bytes] = (),
    wait: bool = False,
    slack: float = HALF_DEAD,
    roots: Roots = tuple,
    progress: Progress | None = None,
) -> Collected:
    """Drop every pack in which nothing is reachable, and rewrite others until little of the store is dead.

    `pins` and what `roots` returns are ids that are needed besides refs and pins in the store; `roots` is called while
    all writers are kept out. `writer` is the caller's own, if it has one: it must have published. `slack` is how many
    dead bytes may stay for each live one.

    Raises Busy where a writer or another collection is at work and `wait` is False; CorruptObject, ObjectMissing,
    StoreFault where a reachable object cannot be read, and then nothing was dropped. A pack with a damaged record that
    is needed stays as it is, and is named in `problems`. Space is free once readers call `release_dropped`.
    """
    if writer is not None and not writer.idle:
        raise Busy("this process has objects that are not published; publish them before collecting garbage")
    lock = FileLock(os.path.join(store.path, "run", "collect.lock"))
    try:
        if not lock.acquire(exclusive=True, wait=wait):
            raise Busy(f"another process collects garbage in {store.path}; try again when it has ended")
        return _Collection(store, pins, wait, slack, roots, progress).run()
    finally:
        lock.close()


class _Collection:
    def __init__(
        self,
        store: Store,
        pins: Collection[bytes],
        wait: bool,
        slack: float,
        roots: Roots,
        progress: Progress | None,
    ) -> None:
        self._store = store
        self._directory = os.path.join(store.path, "packs")
        self._pins = pins
        self._wait = wait
        self._slack = slack
        self._roots = roots
        self._progress = progress
        self._reach = Reach(store, progress)
        self._freed = self._dropped = self._rewritten = self._copied = 0
        self._problems: list[str] = []
        self._tried: set[int] = set()

    def run(self) -> Collected:
        """Drop, then rewrite and drop until nothing more is worth it."""
        try:
            # Most of the walk is done while writers work; under the lock only what they changed is left of it.
            self._reach.walk_all(self._pins)
            packs = self._survey()
        except ObjectMissing:
            # A snapshot may have been deleted and collected by somebody else meanwhile; the walk below decides.
            self._reach = Reach(self._store, self._progress)
            packs = self._drop_dead()
        if any(not pack.live for pack in packs):
            packs = self._drop_dead()
        while chosen := self._choose(packs):
            if not self._rewrite(chosen):
                break
            try:
                packs = self._drop_dead()
            except Busy:
                # The copies are published; the next collection drops what they were made from.
                self._problems.append("a writer is at work: packs that were copied stay until the next collection")
                break
        return Collected(
            self._freed - self._copied,
            self._dropped,
            self._rewritten,
            sum(1 for pack in packs if pack.live),
            sum(pack.live for pack in packs),
            sum(pack.dead for pack in packs if pack.live),
            self._reach.pins,
            tuple(self._problems),
        )

    def _survey(self) -> list[_Pack]:
        """Return how much of each pack is reachable, as the index is now. Raises ObjectMissing."""
        live = dict.fromkeys(pack_numbers(self._directory), 0)
        reached, found = self._reach.live, 0
        with self._store.index.environment.read() as reading:
            for name, value in reading.scan(OBJECTS):
                if name in reached:
                    found += 1
                    location = decode_location(value)
                    if location.pack in live:
                        live[location.pack] += RECORD_HEADER_BYTES + location.stored
        self._reach.check(found)
        return [_Pack(number, self._size_of(number), count) for number, count in live.items()]

    def _size_of(self, number: int) -> int:
        try:
            return os.stat(pack_path(self._directory, number)).st_size
        except OSError:
            return 0  # Gone: it is dropped without more ado.

    def _choose(self, packs: list[_Pack]) -> list[_Pack]:
        """Return packs to rewrite in one round: those first of which the least is reachable."""
        packs = [pack for pack in packs if pack.live]
        dead, live = sum(pack.dead for pack in packs), sum(pack.live for pack in packs)
        chosen: list[_Pack] = []
        copied = 0
        for pack in sorted(packs, key=lambda pack: -pack.dead / max(1, pack.dead + pack.live)):
            if self._slack >= HALF_DEAD:
                enough = pack.dead <= max(pack.live, _WORTH_BYTES)
            else:
                enough = not pack.dead or dead <= self._slack * live
            if enough or (copied > 0 and copied + pack.live > _ROUND_BYTES):
                break
            dead -= pack.dead
            if pack.number not in self._tried:
                chosen.append(pack)
                copied += pack.live
        self._tried.update(pack.number for pack in chosen)
        return chosen

    # -- Copying -----------------------------------------------------------------------------------------------------

    def _rewrite(self, chosen: list[_Pack]) -> bool:
        """Copy what is reachable in these packs into new ones, and publish that. False where the disk is full."""
        store = self._store
        live = self._live_in({pack.number for pack in chosen})
        with Writer(store.path, store.store_id, store.index, store.objects, store.reserve) as copies:
            try:
                for number, places in live.items():
                    try:
                        records = [_verified(store, name, location) for name, location in places]
                    except (CorruptObject, ObjectMissing) as error:
                        self._problems.append(f"pack {number:08x} is not rewritten: {error}")
                        continue
                    for record in records:
                        copies.copy(record)
                        self._copied += RECORD_HEADER_BYTES + len(record.stored)
                    self._rewritten += 1
                    if self._progress is not None:
                        self._progress(0, 0, self._copied)
                copies.publish([], "", 0)
            except StoreFull as error:
                self._problems.append(f"no room to rewrite packs: {error}")
                return False
        return True

    def _live_in(self, numbers: set[int]) -> dict[int, list[tuple[ObjectId, Location]]]:
        """Return the reachable objects of these packs, in the order in which they lie there."""
        found: dict[int, list[tuple[ObjectId, Location]]] = {number: [] for number in sorted(numbers)}
        with self._store.index.environment.read() as reading:
            for name, value in reading.scan(OBJECTS):
                location = decode_location(value)
                if location.pack in numbers and name in self._reach.live:
                    found[location.pack].append((ObjectId(name), location))
        for places in found.values():
            places.sort(key=lambda place: place[1].offset)
        return found

    # -- Dropping ----------------------------------------------------------------------------------------------------

    def _drop_dead(self) -> list[_Pack]:
        """Drop every pack without a reachable object, all writers being kept out; return those that stay."""
        gate = WriterGate(self._store.path)
        try:
            if not gate.enter_alone(self._wait):
                raise Busy(f"a writer is at work in {self._store.path}; try again when it has published")
            self._store.index.recover()
            self._reach.walk_all([*self._pins, *self._roots()])
            packs = self._survey()
            dead = {pack.number for pack in packs if not pack.live}
            try:
                self._drop(dead)
            except StoreFull:
                # Even removing index entries needs a few pages.
                if not self._store.reserve.spend():
                    raise
                self._drop(dead)
            self._store.reserve.restore()
            return [pack for pack in packs if pack.live]
        finally:
            gate.close()

    def _drop(self, dead: set[int]) -> None:
        """Remove packs, their index entries first. Only while all writers are kept out."""
        environment = self._store.index.environment
        with environment.read() as reading:
            doomed = [name for name, value in reading.scan(OBJECTS) if decode_location(value).pack in dead]
        if doomed:
            with environment.write() as txn:
                for name in doomed:
                    txn.delete(OBJECTS, name)
        dropped = 0
        failure = None
        for number in sorted(dead):
            path = pack_path(self._directory, number)
            try:
                size = os.stat(path).st_size
                files.remove(path)
            except OSError:
                continue  # Gone already.
            except HeliosError as error:
                failure = error  # It is garbage in full, so the next collection finds it again.
                continue
            self._freed += size
            dropped += 1
        files.sync_directory(self._directory)
        self._dropped += dropped
        self._store.objects.release_dropped()
        if failure is not None and not dropped:
            raise failure


def _verified(store: Store, name: ObjectId, location: Location) -> Record:
    """Return a record as it is stored, proven to be the object of its name. Raises CorruptObject, ObjectMissing."""
    stored = store.objects.stored_at(location, name)
    if object_id(location.kind, decompress(location.codec, stored, location.raw)) != name:
        raise CorruptObject(f"object {name.hex()} in pack {location.pack:08x} is not what its id says")
    return Record(location.kind, location.codec, name, location.raw, stored)
