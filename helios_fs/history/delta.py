"""What one side changed since a base, by inodes and names: the half of a merge.

Knows trees and pages. An inode number says who an inode is: a name that is gone here and an equal number under a new
name there are one rename.

E1. Cost follows what differs: a directory that only moved is not opened; one that was made or removed is, in full.
E2. Every directory above something that differs is in it too, with its name on both sides.
"""

from collections import deque
from typing import Final

from helios_fs.errors import ObjectMissing
from helios_fs.objects.entry import Entry, Tree, decode_entry
from helios_fs.objects.ids import ROOT_INO
from helios_fs.store import maps
from helios_fs.worktree.index import linked_entry

Key = tuple[int, bytes]
"""A name: (number of its directory, name)."""

_BEFORE: Final = 0
_AFTER: Final = 1


class State:
    """What was seen of one of the two trees: only what may differ from the other."""

    def __init__(self, tree: Tree) -> None:
        self.tree = tree
        self.names: dict[Key, int] = {}
        self.values: dict[Key, bytes] = {}
        """What the directory's page says of a name."""
        self.entries: dict[int, Entry] = {}
        self.linked: set[int] = set()
        """Those of `entries` that the link table has."""


class Delta:
    """The difference of two trees of the store."""

    def __init__(self, objects: maps.PageReader, before: Tree, after: Tree) -> None:
        """Raises ObjectMissing, CorruptObject, StoreFault."""
        self._objects = objects
        self.before = State(before)
        self.after = State(after)
        self._states = (self.before, self.after)
        self._pairs: list[int] = []
        self._single: deque[tuple[int, int]] = deque()
        self._done: set[int] = set()
        self._opened: tuple[set[int], set[int]] = (set(), set())
        if before != after:
            self._run()

    def _run(self) -> None:
        for key, *values in maps.differences(self._objects, self.before.tree.links, self.after.tree.links):
            for state, value in zip(self._states, values, strict=True):
                entry = decode_entry(value) if value is not None else None
                if isinstance(entry, Entry):
                    state.entries[int.from_bytes(key, "big")] = entry
                    state.linked.add(int.from_bytes(key, "big"))
        self.before.entries[ROOT_INO] = self.before.tree.root
        self.after.entries[ROOT_INO] = self.after.tree.root
        self._pairs.append(ROOT_INO)
        while self._pairs or self._single:
            if self._pairs:
                self._compare(self._pairs.pop())
            else:
                # Its other half may turn up when another of them is opened: nearest to the root first.
                ino, which = self._single.popleft()
                if ino not in self._done:
                    self._open(which, ino)

    def _compare(self, ino: int) -> None:
        if ino in self._done:
            return
        self._done.add(ino)
        if ino in self._opened[_BEFORE] or ino in self._opened[_AFTER]:
            self._open(_BEFORE, ino)
            self._open(_AFTER, ino)
            return
        before, after = (state.entries[ino].content for state in self._states)
        for key, one, other in maps.differences(self._objects, before, after):
            if one is not None:
                self._see(_BEFORE, (ino, key[8:]), one)
            if other is not None:
                self._see(_AFTER, (ino, key[8:]), other)

    def _open(self, which: int, ino: int) -> None:
        """Look at all that one side has in a directory."""
        if ino in self._opened[which]:
            return
        self._opened[which].add(ino)
        for key, value in maps.scan(self._objects, self._states[which].entries[ino].content):
            self._see(which, (ino, key[8:]), value)

    def _see(self, which: int, name: Key, value: bytes) -> None:
        state, other = self._states[which], self._states[1 - which]
        entry = decode_entry(value)
        if isinstance(entry, int):
            state.linked.add(entry)
            entry = linked_entry(self._objects, state.tree.links, entry)
        state.names[name] = entry.ino
        state.values[name] = value
        state.entries[entry.ino] = entry
        if not entry.is_directory:
            return
        if entry.ino in other.entries:
            if not other.entries[entry.ino].is_directory:
                raise ObjectMissing(f"inode {entry.ino} is a directory in one tree and not in another")
            self._pairs.append(entry.ino)
        else:
            self._single.append((entry.ino, which))
