"""What differs between two trees, path by path; and finding one path in a tree.

Knows trees and pages; nothing of snapshots' names, of journals, or of how a difference is shown.

D1. Cost follows what differs: equal pages are never opened. One exception: a file with several names that changed is
    found in the link tables, and its names by a walk through the newer tree that ends when all are found.
D2. Paths come in the order of their components: a directory, then what it holds, then what sorts after its name.
D3. Not reported: other inode numbers, link counts, access and change times; of directories modification times and
    sizes too, since they only say that something in them changed.
"""

import stat
from collections.abc import Iterator
from typing import Literal, NamedTuple

from helios_fs.errors import NoSuchEntry, ObjectMissing
from helios_fs.objects.entry import Entry, Tree, decode_entry, directory_key, ino_key
from helios_fs.store import maps
from helios_fs.store.objects import Objects

Kind = Literal["A", "M", "D", "T"]


class Change(NamedTuple):
    """One path that differs: added, modified, deleted, or of another type."""

    path: bytes
    kind: Kind
    a: Entry | None
    b: Entry | None


class _Names(dict[bytes, "_Names"]):
    """Paths as nested names: which to look at although the pages that hold them may be equal."""


def find_entry(objects: Objects, tree_id: bytes, path: bytes) -> Entry:
    """Return what a tree holds at `path`, `b""` being its root. Raises NoSuchEntry."""
    tree = objects.tree(tree_id)
    entry = tree.root
    for name in path.split(b"/") if path else ():
        value = maps.find(objects, entry.content, directory_key(name)) if entry.is_directory else None
        if value is None:
            raise NoSuchEntry(f"there is no {path.decode(errors='backslashreplace')}")
        entry = _resolved(objects, tree, value)
    return entry


def diff_trees(objects: Objects, a: bytes, b: bytes) -> Iterator[Change]:
    """Yield what differs from tree `a` to tree `b`, in the order of the paths (D2).

    A directory that only one has is listed with all that it holds; `T` is followed by what a directory on either side
    holds. Raises CorruptObject, ObjectMissing, StoreFault.
    """
    if a == b:
        return
    diff = _Diff(objects, objects.tree(a), objects.tree(b))
    yield from diff.run()


def differs(a: Entry, b: Entry) -> bool:
    """Tell whether two entries of one type differ in what counts as a change (D3)."""
    if (a.mode, a.uid, a.gid, a.rdev, a.xattrs) != (b.mode, b.uid, b.gid, b.rdev, b.xattrs):
        return True
    return not a.is_directory and (a.size, a.mtime_ns, a.content) != (b.size, b.mtime_ns, b.content)


def _resolved(objects: Objects, tree: Tree, value: bytes) -> Entry:
    entry = decode_entry(value)
    if isinstance(entry, Entry):
        return entry
    linked = maps.find(objects, tree.links, ino_key(entry))
    found = decode_entry(linked) if linked is not None else None
    if not isinstance(found, Entry):
        raise ObjectMissing(f"inode {entry} has a name but is not in its tree's link table")
    return found


class _Diff:
    def __init__(self, objects: Objects, a: Tree, b: Tree) -> None:
        self._objects = objects
        self._a = a
        self._b = b

    def run(self) -> Iterator[Change]:
        """Yield the changes."""
        a, b = self._a.root, self._b.root
        if differs(a, b):
            yield Change(b"", "M", a, b)
        # One iterator for each directory on the way down, so that depth costs no recursion.
        stack = [self._directory(b"", a, b, self._names_of_changed_links())]
        while stack:
            step = next(stack[-1], None)
            if step is None:
                stack.pop()
            elif isinstance(step, Change):
                yield step
            else:
                stack.append(self._directory(*step))

    def _directory(
        self, path: bytes, a: Entry | None, b: Entry | None, look: _Names
    ) -> Iterator[Change | tuple[bytes, Entry | None, Entry | None, _Names]]:
        """Yield the changes of the names in one directory, and where to go down: arguments of this function."""
        content_a = a.content if a is not None and a.is_directory else b""
        content_b = b.content if b is not None and b.is_directory else b""
        differing = {key[8:]: (va, vb) for key, va, vb in maps.differences(self._objects, content_a, content_b)}
        for name in look:
            if name not in differing:
                value = maps.find(self._objects, content_b, directory_key(name))
                differing[name] = (value, value)
        for name in sorted(differing):
            value_a, value_b = differing.pop(name)
            below = path + b"/" + name if path else name
            one = None if value_a is None else _resolved(self._objects, self._a, value_a)
            other = None if value_b is None else _resolved(self._objects, self._b, value_b)
            kind = _kind(one, other)
            if kind is not None:
                yield Change(below, kind, one, other)
            deeper = look.get(name, _NOTHING)
            if deeper or _content_of_directory(one) != _content_of_directory(other):
                yield below, one, other, deeper

    def _names_of_changed_links(self) -> _Names:
        """Return the paths in `b` of the files with several names that differ though their names do not."""
        changed: dict[int, int] = {}
        for key, value_a, value_b in maps.differences(self._objects, self._a.links, self._b.links):
            if value_a is None or value_b is None:
                continue  # then its names changed too, from a plain entry to a reference or back
            a, b = decode_entry(value_a), decode_entry(value_b)
            if isinstance(a, Entry) and isinstance(b, Entry) and _kind(a, b) is not None:
                changed[int.from_bytes(key, "big")] = b.nlink
        names = _Names()
        if not changed:
            return names
        stack: list[tuple[tuple[bytes, ...], Iterator[tuple[bytes, bytes]]]]
        stack = [((), maps.scan(self._objects, self._b.root.content))]
        while stack and changed:
            way, items = stack[-1]
            item = next(items, None)
            if item is None:
                stack.pop()
                continue
            entry = decode_entry(item[1])
            here = (*way, item[0][8:])
            if isinstance(entry, int):
                if entry in changed:
                    _insert(names, here)
                    changed[entry] -= 1
                    if changed[entry] <= 0:
                        del changed[entry]
            elif entry.is_directory and entry.content:
                stack.append((here, maps.scan(self._objects, entry.content)))
        return names


_NOTHING = _Names()


def _insert(names: _Names, way: tuple[bytes, ...]) -> None:
    for name in way:
        names = names.setdefault(name, _Names())


def _content_of_directory(entry: Entry | None) -> bytes:
    return entry.content if entry is not None and entry.is_directory else b""


def _kind(a: Entry | None, b: Entry | None) -> Kind | None:
    if a is None:
        return "A"
    if b is None:
        return "D"
    if stat.S_IFMT(a.mode) != stat.S_IFMT(b.mode):
        return "T"
    return "M" if differs(a, b) else None
