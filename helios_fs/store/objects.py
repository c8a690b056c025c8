"""Reading objects: by id, through a bounded cache (L1), from packs (L2).

Knows ids, locations and payloads; never who asks, nor what a tree means.

O1. What is returned has the length, kind and checksum that its record says, or CorruptObject is raised.
O2. Any thread may call; nothing is held between calls but open packs and cached values.
O3. A reader that may not wait gets ColdObject before it would wait for a pack's disk, and nothing has changed then.
O4. Where an object lies can change between looking it up and reading it: a collection has rewritten its pack. What
    cannot be read where it was is looked up again, once, before it is called missing or damaged.
"""

import copy
from typing import Final, Self

from helios_fs.errors import CorruptObject, ObjectMissing
from helios_fs.objects.entry import Tree, decode_tree
from helios_fs.objects.ids import KIND_BLOB, KIND_PAGE, KIND_TREE
from helios_fs.objects.pages import Page, decode_page
from helios_fs.store.cache import ByteCache
from helios_fs.store.compression import decompress
from helios_fs.store.index import Index
from helios_fs.store.packs import Location, PackFiles

BLOB_CACHE_BYTES: Final = 48 * 1024 * 1024
PAGE_CACHE_BYTES: Final = 24 * 1024 * 1024
"""Of encoded pages; decoded ones take about three times as much memory."""


class Objects:
    """All objects that are in the index."""

    def __init__(
        self,
        index: Index,
        packs: PackFiles,
        blob_cache_bytes: int = BLOB_CACHE_BYTES,
        page_cache_bytes: int = PAGE_CACHE_BYTES,
    ) -> None:
        self._index = index
        self._packs = packs
        self._blobs: ByteCache[bytes] = ByteCache(blob_cache_bytes)
        self._pages: ByteCache[Page] = ByteCache(page_cache_bytes)
        self._trees: ByteCache[Tree] = ByteCache(page_cache_bytes // 16)
        self._wait = True

    def without_waiting(self) -> Self:
        """Return a view of the same objects and caches that raises ColdObject where it would wait for the disk."""
        view = copy.copy(self)
        view._wait = False
        return view

    def get(self, kind: int, object_id: bytes, wait: bool | None = None) -> bytes:
        """Return an object's payload; blobs are cached.

        `wait` says whether the disk may be waited for; None leaves it to what this view was made for. Raises
        ObjectMissing, CorruptObject, StoreFault, and ColdObject where it may not wait.
        """
        if kind != KIND_BLOB:
            return self._load(kind, object_id, wait)
        payload = self._blobs.find(object_id)
        if payload is None:
            payload = self._load(kind, object_id, wait)
            self._blobs.add(object_id, payload, len(payload))
        return payload

    def page(self, object_id: bytes, wait: bool | None = None) -> Page:
        """Return a decoded page. Raises as `get` does."""
        page = self._pages.find(object_id)
        if page is None:
            payload = self._load(KIND_PAGE, object_id, wait)
            page = decode_page(payload)
            self._pages.add(object_id, page, len(payload))
        return page

    def tree(self, object_id: bytes, wait: bool | None = None) -> Tree:
        """Return a decoded tree. Raises as `get` does."""
        tree = self._trees.find(object_id)
        if tree is None:
            payload = self._load(KIND_TREE, object_id, wait)
            tree = decode_tree(payload)
            self._trees.add(object_id, tree, len(payload))
        return tree

    def warm(self, object_id: bytes) -> None:
        """Load an object of any kind into the cache, waiting for the disk: what a ColdObject asks for."""
        location = self._index.find(object_id)
        if location is None:
            raise ObjectMissing(f"object {object_id.hex()} is not in the store")
        if location.kind == KIND_PAGE:
            self.page(object_id, wait=True)
        elif location.kind == KIND_TREE:
            self.tree(object_id, wait=True)
        else:
            self.get(location.kind, object_id, wait=True)

    def has(self, object_id: bytes) -> bool:
        """Tell whether the index knows the object."""
        return self._index.find(object_id) is not None

    def release_dropped(self) -> None:
        """Close packs that a collection has dropped: until then their space is not free."""
        self._packs.close_dropped()

    def _load(self, kind: int, object_id: bytes, wait: bool | None) -> bytes:
        may_wait = self._wait if wait is None else wait
        location = self._index.find(object_id)
        if location is None or location.kind != kind:
            raise ObjectMissing(f"object {object_id.hex()} of kind {kind} is not in the store")
        try:
            return self.load_at(location, object_id, may_wait)
        except (CorruptObject, ObjectMissing):
            moved = self._index.find(object_id)
            if moved is None or moved == location or moved.kind != kind:
                raise
            return self.load_at(moved, object_id, may_wait)

    def load_at(self, location: Location, object_id: bytes, wait: bool = True) -> bytes:
        """Return the payload of the record at `location`, checked. Raises as `get` does."""
        return decompress(location.codec, self.stored_at(location, object_id, wait), location.raw)

    def stored_at(self, location: Location, object_id: bytes, wait: bool = True) -> bytes:
        """Return what the record at `location` holds as it is stored, checked. Raises as `get` does."""
        return self._packs.get(location.pack, object_id, wait).read(location, object_id, wait)
