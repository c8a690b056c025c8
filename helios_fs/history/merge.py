"""Merge: one tree of three, what two sides made of a base.

`delta` says what each side changed, `merge_sides` who is who, `merge_places` which names there are in the end,
`merge_entries` what becomes of one inode. Here the result is put together. Knows trees of the store; nothing of
branches, journals, or of how a merge is asked for.

M1. Cost follows what differs: pages that are equal are never opened, and the result is our tree, edited.
M2. Numbers are unique in the result. An inode that we have keeps our number, another one theirs where that is free.
M3. With a conflict and nobody to favour there is no result; nothing but content in the writer is left behind.
"""

import stat
import time
from collections.abc import Callable
from typing import NamedTuple

import msgspec

from helios_fs.history.delta import Delta, Key
from helios_fs.history.merge_entries import Entries
from helios_fs.history.merge_places import Conflict, Places
from helios_fs.history.merge_sides import Side, Sides
from helios_fs.history.merge_text import Favour
from helios_fs.objects.entry import Entry, Tree, decode_entry, directory_key, encode_entry, encode_tree, ino_key
from helios_fs.objects.ids import KIND_TREE, ROOT_INO
from helios_fs.store import maps
from helios_fs.store.objects import Objects
from helios_fs.store.writer import Writer


class Merged(NamedTuple):
    """What a merge gives."""

    tree_id: bytes
    """Empty where there are conflicts and nobody to favour."""
    conflicts: list[Conflict]
    """Sorted by path; those that were decided by favour too."""
    changes: int
    """How many inodes are not as we had them, directories that only hold others aside."""


def merge_trees(
    objects: Objects,
    writer: Writer,
    base_id: bytes,
    ours_id: bytes,
    theirs_id: bytes,
    favour: Favour = None,
    *,
    take_ino: Callable[[], int],
    labels: tuple[str, str] = ("ours", "theirs"),
    now_ns: int | None = None,
) -> Merged:
    """Return our tree with what theirs changed since the base. The tree is put into the writer, not published.

    `favour` decides conflicts: `ours`, `theirs`, or `markers` (texts get markers, of what cannot hold any theirs is
    kept as NAME~LABEL); None leaves the tree out where there is one. `take_ino` returns an inode number that nobody
    has. Raises ObjectMissing, CorruptObject, StoreFull, StoreFault.
    """
    if theirs_id in (ours_id, base_id):
        return Merged(ours_id, [], 0)
    base, ours, theirs = objects.tree(base_id), objects.tree(ours_id), objects.tree(theirs_id)
    sides = Sides(Delta(objects, base, ours), Delta(objects, base, theirs))
    places = Places(sides, objects, favour, labels[1])
    places.run()
    entries = Entries(writer, favour, labels, time.time_ns() if now_ns is None else now_ns)
    return _Result(writer, ours, sides, places, entries, favour, take_ino).run()


class _Result:
    def __init__(
        self,
        writer: Writer,
        tree: Tree,
        sides: Sides,
        places: Places,
        entries: Entries,
        favour: Favour,
        take_ino: Callable[[], int],
    ) -> None:
        self._writer = writer
        self._tree = tree
        self._sides = sides
        self._ours, self._theirs = sides.ours, sides.theirs
        self._places = places
        self._merge = entries.merge
        self._favour = favour
        self._take_ino = take_ino
        self._entries: dict[int, Entry] = {}
        self._linked: set[int] = set()

    def run(self) -> Merged:
        """Merge what each inode holds, then write link table, directories and tree."""
        present = [one for one in sorted(self._sides.identities) if self._places.is_present(one)]
        for identity in present:
            self._merge_entry(identity)
        if self._places.conflicts and self._favour is None:
            return Merged(b"", self._conflicts(), 0)
        self._number(present)
        changes = self._count_changes()
        links = self._write_links()
        root = self._write_directories()
        tree_id = self._writer.put(KIND_TREE, encode_tree(Tree(root, links)))
        return Merged(tree_id, self._conflicts(), changes)

    # -- Inodes ------------------------------------------------------------------------------------------------------

    def _merge_entry(self, identity: int) -> None:
        base = self._sides.base.entries.get(identity)
        ours, theirs = self._ours.entry(identity), self._theirs.entry(identity)
        if ours is None or theirs is None:
            entry = ours or theirs
            assert entry is not None
            self._entries[identity] = entry
            return
        merged = self._merge(base, ours, theirs)
        self._entries[identity] = merged.entry
        names = self._places.at.get(identity) or set()
        for kind in merged.conflicts:
            self._places.conflicts.setdefault((identity, kind), set()).update(names)
        if merged.keep_both and names:
            self._keep_beside(theirs, min(names))

    def _keep_beside(self, theirs: Entry, key: Key) -> None:
        """Give theirs a number and a name of its own."""
        number = self._take_ino()
        where = self._places.beside(key)
        self._entries[number] = msgspec.structs.replace(theirs, ino=number, nlink=1)
        self._places.at[number] = {where}
        self._places.by_key[where] = {number}

    def _number(self, present: list[int]) -> None:
        """Give every inode its number and link count (M2)."""
        taken = {self._ours.number.get(one, one) for one in present if self._ours.entry(one) is not None}
        for identity, entry in list(self._entries.items()):
            ours = self._ours.entry(identity)
            if ours is not None and stat.S_IFMT(ours.mode) != stat.S_IFMT(entry.mode):
                ours = None  # What is of another type now is another inode.
            number = entry.ino
            if ours is not None:
                number = self._ours.number.get(identity, identity)
            elif identity in self._sides.identities:
                number = self._theirs.number.get(identity, identity)
                if number in taken:
                    number = self._take_ino()
                taken.add(number)
            count = entry.nlink
            if not entry.is_directory:
                count = self._places.hidden(identity) + len(self._places.at.get(identity, ()))
                if count > 1 or (ours is not None and self._ours.is_linked(identity)):
                    self._linked.add(identity)
            self._entries[identity] = msgspec.structs.replace(entry, ino=number, nlink=count)

    def _count_changes(self) -> int:
        count = 0
        for identity, entry in self._entries.items():
            ours = self._ours.entry(identity)
            at, was = self._places.at.get(identity, set()), self._ours.names_of.get(identity, set())
            if ours is None or at != was:
                count += 1
            elif entry.is_directory:
                count += (entry.mode, entry.uid, entry.gid, entry.xattrs) != (
                    ours.mode,
                    ours.uid,
                    ours.gid,
                    ours.xattrs,
                )
            else:
                count += entry != ours
        return count + sum(one not in self._entries and self._ours.entry(one) is not None for one in self._places.at)

    # -- Writing -----------------------------------------------------------------------------------------------------

    def _write_links(self) -> bytes:
        edits: dict[bytes, bytes | None] = {}
        for identity in self._sides.identities:
            if self._ours.is_linked(identity):
                edits[ino_key(self._ours.number.get(identity, identity))] = None
        for identity in self._linked:
            edits[ino_key(self._entries[identity].ino)] = encode_entry(self._entries[identity])
        return maps.edit(self._writer, self._tree.links, edits)

    def _write_directories(self) -> Entry:
        """Write every directory that either side touched, from the leaves up; return the root's entry."""
        edits: dict[int, set[Key]] = {}
        for key in self._sides.names | self._places.by_key.keys():
            edits.setdefault(key[0], set()).add(key)
        depths: dict[int, int] = {ROOT_INO: 0}
        directories = [one for one, entry in self._entries.items() if entry.is_directory and one in edits]
        for identity in sorted(directories, key=lambda one: -self._depth(one, depths)):
            self._entries[identity] = self._written(identity, edits[identity])
        return self._entries.get(ROOT_INO, self._tree.root)

    def _written(self, identity: int, keys: set[Key]) -> Entry:
        """Return a directory with its merged names: those that one side has, edited."""
        ours = self._ours.entry(identity)
        side = self._ours if ours is not None else self._theirs
        source = side.entry(identity)
        assert source is not None
        size, nlink = source.size, source.nlink
        edits: dict[bytes, bytes | None] = {}
        for key in keys:
            was, now = side.name(key), self._places.meant(key)
            if was is not None:
                size -= 1
                nlink -= self._places.is_directory(was)
            value = None
            if now is not None:
                entry = self._entries[now]
                size += 1
                nlink += entry.is_directory
                value = encode_entry(entry.ino if now in self._linked else entry)
            if value != _value(side, key):
                edits[directory_key(key[1])] = value
        content = maps.edit(self._writer, source.content, edits) if edits else source.content
        return msgspec.structs.replace(self._entries[identity], content=content, size=size, nlink=nlink)

    def _depth(self, identity: int, depths: dict[int, int]) -> int:
        way = []
        here: int | None = identity
        while here is not None and here not in depths:
            way.append(here)
            here = self._places.parent_of(here)
        depth = depths[here] if here is not None else 0
        for step in reversed(way):
            depth += 1
            depths[step] = depth
        return depth

    # -- Saying ------------------------------------------------------------------------------------------------------

    def _conflicts(self) -> list[Conflict]:
        found = set()
        for (identity, kind), keys in self._places.conflicts.items():
            key = min(keys, default=None)
            path = b"" if identity == ROOT_INO else self._path(key) if key is not None else self._search(identity)
            found.add(Conflict(path, kind))
        return sorted(found)

    def _path(self, key: Key) -> bytes:
        """Return the path of a name: through the result where it has the directories, else through either side."""
        parts = [key[1]]
        here, seen = key[0], {key[0]}
        while here != ROOT_INO:
            names = (
                self._places.at.get(here)
                or self._ours.names_of.get(here)
                or self._theirs.names_of.get(here)
                or self._sides.base.names_of.get(here)
            )
            if not names:
                break
            here, name = min(names)
            parts.append(name)
            if here in seen:
                break
            seen.add(here)
        return b"/".join(reversed(parts))

    def _search(self, identity: int) -> bytes:
        """Return a path of a file with several names of which none changed: only a walk through our tree tells."""
        number = self._ours.number.get(identity, identity)
        pending = [(b"", self._tree.root.content)]
        while pending:
            above, content = pending.pop()
            for key, value in maps.scan(self._writer, content):
                entry = decode_entry(value)
                path = above + b"/" + key[8:] if above else key[8:]
                if isinstance(entry, int):
                    if entry == number:
                        return path
                elif entry.is_directory and entry.content:
                    pending.append((path, entry.content))
        return b""


def _value(side: Side, key: Key) -> bytes | None:
    """Return what a side's page says of a name."""
    found = side.values.get(key)
    if found is not None or key in side.delta.before.names:
        return found
    return side.base.values.get(key)
