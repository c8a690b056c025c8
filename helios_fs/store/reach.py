"""What is reachable: a walk over everything that refs, branches' files and pins lead to.

Knows trees, pages and entries well enough to walk them; never inodes in memory, nor what pins are for.

A1. Reachable is what a branch head, the base of a branch (deleted ones too, they can be brought back), a snapshot or
    a pin leads to. Each page is walked once, however many trees share it.
A2. The order in which roots are read is that of N2 in `pins.py`.
"""

from collections.abc import Callable, Collection

from helios_fs.errors import ObjectMissing
from helios_fs.objects.entry import INLINE_LIMIT, Entry, decode_chunk, decode_entry
from helios_fs.objects.ids import KIND_PAGE, KIND_TREE
from helios_fs.objects.pages import decode_page
from helios_fs.store import pins
from helios_fs.store.branches import Branches
from helios_fs.store.store import Store

Progress = Callable[[int, int, int], None]
"""Called as progress(trees walked, trees in all, bytes copied)."""


class Reach:
    """The walk. What was walked before is not walked again, so a second call costs what has changed since."""

    def __init__(self, store: Store, progress: Progress | None = None) -> None:
        self.live: set[bytes] = set()
        """Ids of all objects that were reached: trees and pages with all that is below them."""
        self.pins = 0
        """How many pins of living processes were seen last."""
        self._store = store
        self._index = store.index
        self._objects = store.objects
        self._progress = progress

    def walk_all(self, more: Collection[bytes]) -> None:
        """Walk from every root, and from `more`: ids of trees, pages or blobs.

        A pin that is not in the store any more is passed over. Raises CorruptObject, ObjectMissing, StoreFault: then
        what is below is unknown, and this walk is of no use any more.
        """
        pinned = pins.pinned(self._store.path)
        self.pins = len(pinned)
        roots = [info.base.tree for info in Branches(self._store.path).all(deleted=True)]
        roots += [head.tree for head in self._store.refs.heads()]
        roots += [snapshot.tree for snapshot in self._store.refs.all_snapshots()]
        for done, tree_id in enumerate(roots):
            self.walk_tree(tree_id)
            if self._progress is not None:
                self._progress(done + 1, len(roots), 0)
        for object_id in (*pinned, *more):
            location = self._index.find(object_id)
            if location is None:
                continue
            if location.kind == KIND_TREE:
                self.walk_tree(object_id)
            elif location.kind == KIND_PAGE:
                self._walk_pages([object_id])
            else:
                self.live.add(object_id)

    def walk_tree(self, tree_id: bytes) -> None:
        """Walk one tree. Raises as `walk_all` does."""
        if not tree_id or tree_id in self.live:
            return
        tree = self._objects.tree(tree_id)
        pages = [tree.links] if tree.links else []
        self._walk_entry(tree.root, pages)
        self._walk_pages(pages)
        self.live.add(tree_id)

    def check(self, found: int) -> None:
        """Say that `found` of the live objects are in the index. Raises ObjectMissing where it should be more."""
        if found == len(self.live):
            return
        for object_id in self.live:
            if self._index.find(object_id) is None:
                raise ObjectMissing(f"object {object_id.hex()} is reachable, but not in the store: nothing was dropped")

    def _walk_pages(self, pages: list[bytes]) -> None:
        """Walk pages of directories, link tables and chunk lists, and all that is below.

        A page is remembered before what is below it is walked: an error on the way ends the collection, or begins a
        new walk with a new memory.
        """
        live = self.live
        while pages:
            page_id = pages.pop()
            if page_id in live:
                continue
            live.add(page_id)
            # Not `objects.page`: a walk over everything would push what is in use out of the cache.
            page = decode_page(self._objects.get(KIND_PAGE, page_id))
            if page.level:
                pages += page.values
                continue
            for value in page.values:
                self._walk_value(value, pages)

    def _walk_value(self, value: bytes, pages: list[bytes]) -> None:
        # A chunk reference is the only array of two: a page does not say to which kind of map it belongs.
        if value[:1] == b"\x92":
            self.live.add(decode_chunk(value).blob)
            return
        entry = decode_entry(value)
        if isinstance(entry, Entry):
            self._walk_entry(entry, pages)

    def _walk_entry(self, entry: Entry, pages: list[bytes]) -> None:
        if not entry.content:
            return
        if entry.is_directory or (entry.is_file and entry.size > INLINE_LIMIT):
            pages.append(entry.content)
        elif entry.is_file:
            self.live.add(entry.content)
