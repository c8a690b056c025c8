"""Sorted maps over pages: directories, chunk lists and link tables.

Knows pages only (`objects/pages.py`, rules P1 to P3); never what a key or a value means.

M1. Equal maps have equal roots, whatever edits led to them: a map edited is the same pages as a map built at once.
M2. An edit reads and writes only the pages that hold its keys and the path to them, and the page after one that lost
    its last key.
M3. `differences` reads nothing below two equal pages.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Mapping
from typing import Protocol

from helios_fs.errors import CorruptObject
from helios_fs.objects.ids import KIND_PAGE
from helios_fs.objects.pages import Page, boundary_level, encode_page


class PageReader(Protocol):
    """Whatever can return a page by its id: the store's objects, or a writer."""

    def page(self, object_id: bytes) -> Page:
        """Return one page. Raises ObjectMissing, CorruptObject, ColdObject."""
        ...


class PageWriter(PageReader, Protocol):
    """A reader that also stores; it returns unpublished pages too."""

    def put(self, kind: int, payload: bytes) -> bytes:
        """Store one object and return its id."""
        ...


def find(objects: PageReader, root: bytes, key: bytes) -> bytes | None:
    """Return the value of `key`, or None."""
    if not root:
        return None
    page = objects.page(root)
    while True:
        keys = page.keys
        at = bisect_left(keys, key)
        if at == len(keys):
            return None
        if page.level == 0:
            return page.values[at] if keys[at] == key else None
        page = _child(objects, page, at)


def find_first(objects: PageReader, root: bytes, at_or_after: bytes) -> tuple[bytes, bytes] | None:
    """Return the first key that is not below `at_or_after`, with its value, or None."""
    return next(scan(objects, root, start=at_or_after), None)


def scan(
    objects: PageReader, root: bytes, after: bytes | None = None, start: bytes | None = None
) -> Iterator[tuple[bytes, bytes]]:
    """Return keys and values in ascending order: those above `after`, or from `start` on, or all.

    Pages are read as the caller comes to them. A reader that raises ColdObject ends the scan: begin a new one after
    the last key that came out.
    """
    if not root:
        return
    bound = start if after is None else after
    page = objects.page(root)
    stack: list[tuple[Page, int]] = []
    while True:
        if bound is None:
            at = 0
        elif page.level == 0 and after is not None:
            at = bisect_right(page.keys, bound)
        else:
            at = bisect_left(page.keys, bound)
        if page.level == 0:
            yield from zip(page.keys[at:], page.values[at:], strict=True)
            at = len(page.keys)
        while at == len(page.keys):
            if not stack:
                return
            page, at = stack.pop()
        stack.append((page, at + 1))
        page = _child(objects, page, at)


def last_at_or_before(objects: PageReader, root: bytes, key: bytes) -> tuple[bytes, bytes] | None:
    """Return the last key that is not above `key`, with its value, or None."""
    if not root:
        return None
    page = objects.page(root)
    before: tuple[Page, int] | None = None
    while page.level:
        at = min(bisect_left(page.keys, key), len(page.keys) - 1)
        if at:
            before = (page, at - 1)
        page = _child(objects, page, at)
    at = bisect_right(page.keys, key) - 1
    if at < 0:
        # Every key of this leaf is above: the answer is the last key of the page before it, if there is one.
        if before is None:
            return None
        page = _child(objects, *before)
        while page.level:
            page = _child(objects, page, len(page.keys) - 1)
        at = len(page.keys) - 1
    return page.keys[at], page.values[at]


def _child(objects: PageReader, page: Page, at: int) -> Page:
    child = objects.page(page.values[at])
    if child.level != page.level - 1 or child.keys[-1] != page.keys[at]:
        raise CorruptObject("a tree page is not the one that the page above it names")
    return child


# -- Editing ---------------------------------------------------------------------------------------------------------


def edit(writer: PageWriter, root: bytes, edits: Mapping[bytes, bytes | None]) -> bytes:
    """Return the root of the map with `edits` applied: a value sets a key, None removes it.

    Removing a key that is not there is fine. The empty map is the empty id. New pages are put, not published.
    """
    if not edits:
        return root
    ordered = sorted(edits.items())
    if not root:
        return _grow(writer, 0, [(key, value) for key, value in ordered if value is not None])
    cache: dict[bytes, Page] = {}
    top = _load(writer, cache, root)
    for level in range(top.level):
        ordered = _edit_level(writer, cache, root, level, ordered)
        if not ordered:
            return root
    items = _merged(top, ordered)
    if items == list(zip(top.keys, top.values, strict=True)):
        return root
    return _grow(writer, top.level, items)


def _load(writer: PageReader, cache: dict[bytes, Page], page_id: bytes) -> Page:
    page = cache.get(page_id)
    if page is None:
        page = cache[page_id] = writer.page(page_id)
    return page


def _grow(writer: PageWriter, level: int, items: list[tuple[bytes, bytes]]) -> bytes:
    """Return the root over all items of one level: the first level with a single page (P3)."""
    while items:
        if level and len(items) == 1:
            # This level would be a page with one child: the child is a single page on its level, so it, or a page
            # further down, is the root.
            page_id = items[0][1]
            page = writer.page(page_id)
            while page.level and len(page.keys) == 1:
                page_id = page.values[0]
                page = writer.page(page_id)
            return page_id
        items, tail = _split(writer, level, items)
        if tail:
            items.append(_put(writer, level, tail))
        if len(items) == 1:
            return items[0][1]
        level += 1
    return b""


def _split(
    writer: PageWriter, level: int, items: Iterable[tuple[bytes, bytes]]
) -> tuple[list[tuple[bytes, bytes]], list[tuple[bytes, bytes]]]:
    """Put a page for each run that ends at a boundary (P2).

    Returns what the level above says of them, and the items after the last boundary.
    """
    parents: list[tuple[bytes, bytes]] = []
    run: list[tuple[bytes, bytes]] = []
    for item in items:
        run.append(item)
        if boundary_level(item[0]) > level:
            parents.append(_put(writer, level, run))
            run = []
    return parents, run


def _put(writer: PageWriter, level: int, items: list[tuple[bytes, bytes]]) -> tuple[bytes, bytes]:
    page = Page(level, [key for key, _ in items], [value for _, value in items])
    return page.keys[-1], writer.put(KIND_PAGE, encode_page(page))


def _merged(page: Page, edits: list[tuple[bytes, bytes | None]]) -> list[tuple[bytes, bytes]]:
    """Return a page's items with edits applied, in order."""
    items: dict[bytes, bytes | None] = dict(zip(page.keys, page.values, strict=True))
    grown = False
    for key, value in edits:
        grown = grown or (value is not None and key not in items)
        items[key] = value
    kept = [(key, value) for key, value in items.items() if value is not None]
    if grown:
        kept.sort()
    return kept


def _edit_level(
    writer: PageWriter, cache: dict[bytes, Page], root: bytes, level: int, edits: list[tuple[bytes, bytes | None]]
) -> list[tuple[bytes, bytes | None]]:
    """Apply sorted edits to the pages of one level below the root; return the edits to the level above."""
    above: dict[bytes, bytes | None] = {}
    at = 0
    while at < len(edits):
        page, last = _seek(writer, cache, root, level, edits[at][0])
        run: list[tuple[bytes, bytes]] = []
        while True:
            # One old page, with all the edits that belong to it; then the next, while the run has no end.
            end = len(edits) if last else bisect_right(edits, page.keys[-1], lo=at, key=_key)
            items = _merged(page, edits[at:end])
            at = end
            if not run and items == list(zip(page.keys, page.values, strict=True)):
                break
            above[page.keys[-1]] = None
            parents, run = _split(writer, level, run + items)
            above.update(parents)
            if not run:
                break
            if last:
                above.update([_put(writer, level, run)])
                break
            page, last = _seek(writer, cache, root, level, page.keys[-1] + b"\0")
    return sorted(above.items())


def _key(item: tuple[bytes, bytes | None]) -> bytes:
    return item[0]


def _seek(writer: PageReader, cache: dict[bytes, Page], root: bytes, level: int, key: bytes) -> tuple[Page, bool]:
    """Return the page of a level where `key` belongs, and whether it is the level's last."""
    page = _load(writer, cache, root)
    last = True
    while page.level > level:
        at = bisect_left(page.keys, key)
        if at >= len(page.keys) - 1:
            at = len(page.keys) - 1
        else:
            last = False
        child = _load(writer, cache, page.values[at])
        if child.level != page.level - 1 or child.keys[-1] != page.keys[at]:
            raise CorruptObject("a tree page is not the one that the page above it names")
        page = child
    return page, last


# -- Comparing -------------------------------------------------------------------------------------------------------


class _Frontier:
    """What is left of one map: a stack of pages, each with the position that comes next; leaves are level 0."""

    def __init__(self, objects: PageReader, root: bytes) -> None:
        self._objects = objects
        # Above the root: one imaginary page that names it, so that two equal roots are seen before they are read.
        self._stack: list[tuple[int, list[bytes], list[bytes], int]] = []
        if root:
            page = objects.page(root)
            self._stack.append((page.level + 1, [page.keys[-1]], [root], 0))

    def head(self) -> tuple[int, bytes, bytes] | None:
        """Return (level, last key, page id) of the page that comes next, or (0, key, value) within a leaf."""
        if not self._stack:
            return None
        level, keys, values, at = self._stack[-1]
        return level, keys[at], values[at]

    def skip(self) -> None:
        """Step over what `head` names."""
        level, keys, values, at = self._stack.pop()
        # What lies above has been stepped over already, when this page was opened.
        if at + 1 < len(keys):
            self._stack.append((level, keys, values, at + 1))

    def expand(self) -> None:
        """Replace the page that `head` names by its items."""
        level, keys, values, at = self._stack[-1]
        page = self._objects.page(values[at])
        if page.level != level - 1 or page.keys[-1] != keys[at]:
            raise CorruptObject("a tree page is not the one that the page above it names")
        if at + 1 < len(keys):
            self._stack[-1] = (level, keys, values, at + 1)
        else:
            self._stack.pop()
        self._stack.append((page.level, page.keys, page.values, 0))


def differences(objects: PageReader, a: bytes, b: bytes) -> Iterator[tuple[bytes, bytes | None, bytes | None]]:
    """Return (key, value in a, value in b) where two maps differ, ascending; None for a key that one has not."""
    if a == b:
        return
    left, right = _Frontier(objects, a), _Frontier(objects, b)
    while True:
        one, other = left.head(), right.head()
        if one is None and other is None:
            return
        if one is None or other is None:
            frontier, head = (right, other) if one is None else (left, one)
            assert head is not None
            level, key, value = head
            if level:
                frontier.expand()
                continue
            yield (key, None, value) if one is None else (key, value, None)
            frontier.skip()
        elif one == other:
            # The same page, or the same key and value: everything before it has been compared already.
            left.skip()
            right.skip()
        elif one[0] or other[0]:
            # The higher page first; of two on one level the one that ends first, so that both come to stand where
            # equal pages begin. A page against a bare key must be opened to see its first key.
            if one[0] > other[0] or (one[0] == other[0] and one[1] <= other[1]):
                left.expand()
            else:
                right.expand()
        elif one[1] == other[1]:
            yield one[1], one[2], other[2]
            left.skip()
            right.skip()
        elif one[1] < other[1]:
            yield one[1], one[2], None
            left.skip()
        else:
            yield other[1], None, other[2]
            right.skip()
