"""In which snapshots a path changed.

Knows trees and snapshots' lineage; nothing of how paths are given or results shown.

P1. Cost follows the path's depth for each snapshot, not the tree. Two exceptions: of a directory that differs, what
    differs in it is looked at up to the first real change; and where files with several names changed, a directory that
    looks equal is searched for their names.
P2. A change is what `history/diff.py` calls one (D3 there), for a directory also any change below it.
"""

import functools
import stat
from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

from helios_fs.errors import NoSuchEntry
from helios_fs.history.diff import Kind, differs, find_entry
from helios_fs.history.lineage import Key, Lineage
from helios_fs.objects.entry import Entry, Tree, decode_entry
from helios_fs.objects.snapshot import Snapshot
from helios_fs.store import maps
from helios_fs.store.objects import Objects
from helios_fs.worktree.index import linked_entry

_REMEMBERED: Final = 64


class Touched(NamedTuple):
    """A snapshot in which a path is not what it was in the snapshot before it."""

    snapshot: Snapshot
    kind: Kind


def path_log(objects: Objects, lineage: Lineage, keys: Iterable[Key], path: bytes) -> Iterator[Touched]:
    """Yield those of `keys`, in their order, in which `path` (`b""`: the root) was added, modified, deleted or became
    another type, each compared with the first of its parents. All must be sealed.

    Raises CorruptObject, ObjectMissing, StoreFault.
    """

    # A snapshot's tree is asked for again as that of the one before it in the list.
    @functools.lru_cache(maxsize=_REMEMBERED)
    def find(tree_id: bytes) -> Entry | None:
        try:
            return find_entry(objects, tree_id, path) if tree_id else None
        except NoSuchEntry:
            return None

    for key in keys:
        snapshot = lineage.snapshots[key]
        parents = lineage.parents(key)
        former = lineage.snapshots[parents[0]].tree if parents else b""
        if former == snapshot.tree:
            continue
        kind = _kind(objects, former, snapshot.tree, find(former), find(snapshot.tree))
        if kind is not None:
            yield Touched(snapshot, kind)


def _kind(objects: Objects, a_id: bytes, b_id: bytes, a: Entry | None, b: Entry | None) -> Kind | None:
    if a is None or b is None:
        return None if a is b else "A" if a is None else "D"
    if _differ(a, b):
        return "T" if stat.S_IFMT(a.mode) != stat.S_IFMT(b.mode) else "M"
    if not a.is_directory:
        return None
    return "M" if _Below(objects, objects.tree(a_id), objects.tree(b_id)).differs(a.content, b.content) else None


def _differ(a: Entry, b: Entry) -> bool:
    return stat.S_IFMT(a.mode) != stat.S_IFMT(b.mode) or differs(a, b)


class _Below:
    """The comparison of two directories, up to the first change."""

    def __init__(self, objects: Objects, a: Tree, b: Tree) -> None:
        self._objects = objects
        self._a = a
        self._b = b

    def differs(self, a: bytes, b: bytes) -> bool:
        """Tell whether anything below two directories of this content differs."""
        pending = [(a, b)] if a != b else []
        while pending:
            for _, value_a, value_b in maps.differences(self._objects, *pending.pop()):
                if value_a is None or value_b is None:
                    return True
                one, other = self._entry(self._a, value_a), self._entry(self._b, value_b)
                if _differ(one, other):
                    return True
                if one.is_directory and one.content != other.content:
                    pending.append((one.content, other.content))
        changed = self._changed_links()
        return bool(changed) and not changed.isdisjoint(self._links_below(b))

    def _entry(self, tree: Tree, value: bytes) -> Entry:
        entry = decode_entry(value)
        return linked_entry(self._objects, tree.links, entry) if isinstance(entry, int) else entry

    def _changed_links(self) -> set[int]:
        changed = set()
        for key, value_a, value_b in maps.differences(self._objects, self._a.links, self._b.links):
            if value_a is None or value_b is None:
                continue  # then its names changed too
            one, other = decode_entry(value_a), decode_entry(value_b)
            if isinstance(one, Entry) and isinstance(other, Entry) and _differ(one, other):
                changed.add(int.from_bytes(key, "big"))
        return changed

    def _links_below(self, content: bytes) -> Iterator[int]:
        pending = [content]
        while pending:
            directory = pending.pop()
            for _, value in maps.scan(self._objects, directory) if directory else ():
                entry = decode_entry(value)
                if isinstance(entry, int):
                    yield entry
                elif entry.is_directory:
                    pending.append(entry.content)
