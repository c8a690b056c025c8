"""Garbage collection: drop the packs in which nothing is reachable any more.

Knows trees, pages and entries well enough to walk them; never inodes in memory, nor what pins are for.

D1. Reachable is what a branch head, a snapshot or a pin leads to. Where any of it cannot be read nothing is dropped:
    what lies below is unknown.
D2. What is decided, is decided while no writer of any process has something unpublished (W2), so nothing that
    deduplication relies on is dropped.
D3. Deletion runs the other way round than publishing: index entries first, durable, then the pack file.
"""

import os
from collections.abc import Collection
from typing import NamedTuple

from helios_fs.errors import Busy, HeliosError, ObjectMissing, StoreFull
from helios_fs.objects.entry import INLINE_LIMIT, Entry, decode_chunk, decode_entry
from helios_fs.objects.ids import KIND_PAGE, KIND_TREE
from helios_fs.objects.pages import decode_page
from helios_fs.store import files
from helios_fs.store.environment import OBJECTS
from helios_fs.store.index import decode_location
from helios_fs.store.packs import pack_numbers, pack_path
from helios_fs.store.store import Store
from helios_fs.store.writer import Writer, WriterGate


class Collected(NamedTuple):
    """What a collection did."""

    bytes_freed: int
    packs_dropped: int
    packs_kept: int


def collect(store: Store, writer: Writer | None = None, pins: Collection[bytes] = (), wait: bool = False) -> Collected:
    """Drop every pack in which nothing is reachable.

    `pins` are ids of trees, pages and blobs that are needed though no ref says so: the base of a mounted tree, what an
    open file reads. One that is not in the store any more is passed over. `writer` is the caller's own, if it has one:
    it must have published.

    Raises Busy where a writer is at work and `wait` is False; CorruptObject, ObjectMissing, StoreFault where a
    reachable object cannot be read, and then nothing was dropped. Space is free once readers call `release_dropped`.
    """
    if writer is not None and not writer.idle:
        raise Busy("this process has objects that are not published; publish them before collecting garbage")
    marker = _Marker(store)
    try:
        # Most of the walk is done while writers work; under the lock only what they changed is left of it.
        marker.mark_all(pins)
    except ObjectMissing:
        # A snapshot may have been deleted and collected by somebody else meanwhile; the walk below decides.
        marker = _Marker(store)
    if not _garbage(store, marker.live):
        return Collected(0, 0, len(marker.live))
    gate = WriterGate(store.path)
    try:
        if not gate.enter_alone(wait):
            raise Busy(f"a writer is at work in {store.path}; try again when it has published")
        store.index.recover()
        marker.mark_all(pins)
        garbage = _garbage(store, marker.live)
        try:
            collected = _drop(store, garbage, len(marker.live))
        except StoreFull:
            # Even removing index entries needs a few pages.
            if not store.reserve.spend():
                raise
            collected = _drop(store, garbage, len(marker.live))
        store.reserve.restore()
        return collected
    finally:
        gate.close()


def _garbage(store: Store, live: set[int]) -> set[int]:
    return set(pack_numbers(os.path.join(store.path, "packs"))) - live


def _drop(store: Store, garbage: set[int], kept: int) -> Collected:
    """Remove packs, their index entries first. Only while all writers are kept out."""
    directory = os.path.join(store.path, "packs")
    environment = store.index.environment
    with environment.read() as reading:
        doomed = [name for name, value in reading.scan(OBJECTS) if decode_location(value).pack in garbage]
    if doomed:
        with environment.write() as txn:
            for name in doomed:
                txn.delete(OBJECTS, name)
    freed = dropped = 0
    failure = None
    for number in sorted(garbage):
        path = pack_path(directory, number)
        try:
            size = os.stat(path).st_size
            files.remove(path)
        except OSError:
            continue  # Gone already.
        except HeliosError as error:
            failure = error  # It is garbage in full, so the next collection finds it again.
            continue
        freed += size
        dropped += 1
    files.sync_directory(directory)
    store.objects.release_dropped()
    if failure is not None and not dropped:
        raise failure
    return Collected(freed, dropped, kept)


class _Marker:
    """Walks everything reachable; each page once, however many trees share it."""

    def __init__(self, store: Store) -> None:
        self.live: set[int] = set()
        """Numbers of the packs in which something is reachable."""
        self._refs = store.refs
        self._index = store.index
        self._objects = store.objects
        self._seen: set[bytes] = set()
        """Trees and pages that were walked, with all that is below them."""

    def mark_all(self, pins: Collection[bytes]) -> None:
        """Walk all heads, snapshots and pins. What was walked before is not walked again."""
        for head in self._refs.heads():
            self._mark_tree(head.tree)
        for snapshot in self._refs.all_snapshots():
            self._mark_tree(snapshot.tree)
        for pin in pins:
            location = self._index.find(pin)
            if location is None:
                continue
            if location.kind == KIND_TREE:
                self._mark_tree(pin)
            elif location.kind == KIND_PAGE:
                self._mark_pages([pin])
            else:
                self.live.add(location.pack)

    def _note(self, object_id: bytes) -> None:
        location = self._index.find(object_id)
        if location is None:
            raise ObjectMissing(f"object {object_id.hex()} is reachable, but not in the store: nothing was dropped")
        self.live.add(location.pack)

    def _mark_tree(self, tree_id: bytes) -> None:
        if not tree_id or tree_id in self._seen:
            return
        self._note(tree_id)
        tree = self._objects.tree(tree_id)
        pages = [tree.links] if tree.links else []
        self._mark_entry(tree.root, pages)
        self._mark_pages(pages)
        self._seen.add(tree_id)

    def _mark_pages(self, pages: list[bytes]) -> None:
        """Walk pages of directories, link tables and chunk lists, and all that is below.

        A page is remembered before what is below it is walked: an error on the way ends the collection, or begins a
        new walk with a new memory.
        """
        while pages:
            page_id = pages.pop()
            if page_id in self._seen:
                continue
            self._seen.add(page_id)
            self._note(page_id)
            # Not `objects.page`: a walk over everything would push what is in use out of the cache.
            page = decode_page(self._objects.get(KIND_PAGE, page_id))
            if page.level:
                pages += page.values
                continue
            for value in page.values:
                self._mark_value(value, pages)

    def _mark_value(self, value: bytes, pages: list[bytes]) -> None:
        # A chunk reference is the only array of two: a page does not say to which kind of map it belongs.
        if value[:1] == b"\x92":
            self._note(decode_chunk(value).blob)
            return
        entry = decode_entry(value)
        if isinstance(entry, Entry):
            self._mark_entry(entry, pages)

    def _mark_entry(self, entry: Entry, pages: list[bytes]) -> None:
        if not entry.content:
            return
        if entry.is_directory or (entry.is_file and entry.size > INLINE_LIMIT):
            pages.append(entry.content)
        elif entry.is_file:
            self._note(entry.content)
