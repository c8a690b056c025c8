"""Views: a snapshot as a tree of read-only inodes, sealed or not.

Before it is sealed, a view picks for each inode the state that was current in the snapshot's epoch, from the live
index; what has no such state is as the base says. Once sealed, it reads the store alone.

V1. What a view shows never changes: sealing replaces where it is read from, not what is read.
V2. A view's inodes are its own; the live tree's inodes are never handed out by a view.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from helios_fs.errors import CorruptObject, NoSuchEntry
from helios_fs.journal.journal import Journal
from helios_fs.objects.entry import Entry, Tree, decode_entry, directory_key, name_hash
from helios_fs.objects.ids import ROOT_INO
from helios_fs.store import maps
from helios_fs.store.objects import Objects
from helios_fs.worktree import content
from helios_fs.worktree.index import Index, linked_entry
from helios_fs.worktree.inode import Inode, State

_STALE: Final = -1


class _Superseded:
    """A directory names an inode whose state for this snapshot is in the base by now."""


class View:
    """One snapshot, shown. `nodes` holds the inodes that somebody holds, by number."""

    def __init__(
        self,
        index: Index,
        objects: Objects,
        journal: Journal,
        epoch: int,
        tree_id: bytes = b"",
        tree: Tree | None = None,
    ) -> None:
        """Show the state at the end of `epoch`, or `tree` where the snapshot is sealed."""
        self._index = index
        self._objects = objects
        self._journal = journal
        self._epoch = epoch
        self._tree = tree
        self.tree_id = tree_id
        """What the store calls it, empty while it is not sealed."""
        self.nodes: dict[int, Inode] = {}
        self.root = self._root()
        self.root.holds = 1
        self.nodes[ROOT_INO] = self.root

    def _root(self) -> Inode:
        if self._tree is not None:
            return Inode.from_entry(self._tree.root)
        state = self._index.root.at_epoch(self._epoch)
        return Inode.from_entry(self._index.base_root) if state is None else Inode.from_state(state)

    def rebased(self, tree_id: bytes = b"", tree: Tree | None = None) -> None:
        """Look again at each node before it is next used: a seal has moved the base, or made this snapshot `tree`."""
        if self._tree is None:
            self._tree = tree
            self.tree_id = tree_id
            for node in self.nodes.values():
                node.bound = _STALE

    @property
    def in_use(self) -> bool:
        """Whether anybody holds anything but the root."""
        return len(self.nodes) > 1 or self.root.holds > 1

    def current(self, node: Inode) -> Inode:
        """Return `node`, looked at again where a seal has moved the base since. Raises ColdObject."""
        stale: list[Inode] = []
        here: Inode | None = node
        while here is not None and here.bound == _STALE:
            stale.append(here)
            here = here.parent
        while stale:
            self._look_again(stale.pop())
        return node

    def _look_again(self, node: Inode) -> None:
        state: State | Entry | None
        if node.ino == ROOT_INO:
            state = self._root()
        elif node.parent is None:
            state = self._linked(node.ino)
        else:
            state = self._resolve(node.parent, node.name)
            if state is None:
                raise CorruptObject(f"the snapshot does not hold {node.name!r} any more")
        if isinstance(state, Entry):
            node.load(state)
        else:
            state.copy_to(node)
        node.bound = 0

    def _resolve(self, parent: Inode, name: bytes) -> State | Entry | None:
        """Return what a name in a directory that is current means in this snapshot."""
        state = self._look_up(parent, name)
        if isinstance(state, _Superseded):
            # The seal that runs now has moved this directory's base; it comes to directories first.
            parent.bound = _STALE
            state = self._look_up(self.current(parent), name)
            if isinstance(state, _Superseded):
                raise CorruptObject(f"the snapshot does not hold {name!r} any more")
        return state

    def find(self, parent: Inode, name: bytes) -> Inode | None:
        """Return what `name` means in a directory of this view, or None. Raises ColdObject."""
        parent = self.current(parent)
        state = self._resolve(parent, name)
        if state is None:
            return None
        node = self.nodes.get(state.ino)
        if node is not None:
            return self.current(node)
        node = Inode.from_entry(state) if isinstance(state, Entry) else Inode.from_state(state)
        node.linked = state.nlink > 1 and not node.is_directory
        node.name = name
        if not node.linked:
            node.parent = parent
            parent.holds += 1
        self.nodes[node.ino] = node
        return node

    def _look_up(self, parent: Inode, name: bytes) -> State | Entry | _Superseded | None:
        if parent.names is not None:
            dirent = parent.names.get(name)
            if dirent is not None:
                live = dirent[0]
                if live is None:
                    return None
                if live.epoch == 0:
                    return live
                return live.at_epoch(self._epoch) or _Superseded()
        if not parent.base:
            return None
        value = maps.find(self._objects, parent.base, directory_key(name))
        if value is None:
            return None
        entry = decode_entry(value)
        if isinstance(entry, int):
            return self._linked(entry)
        return self._changed_since_base(entry.ino) or entry

    def _linked(self, ino: int) -> State | Entry:
        links = self._tree.links if self._tree is not None else self._index.links
        return self._changed_since_base(ino) or linked_entry(self._objects, links, ino)

    def _changed_since_base(self, ino: int) -> State | None:
        if self._tree is not None:
            return None
        live = self._index.inodes.get(ino)
        return live.at_epoch(self._epoch) if live is not None else None

    def get(self, parent: Inode, name: bytes) -> Inode:
        """As `find`. Raises NoSuchEntry."""
        node = self.find(parent, name)
        if node is None:
            raise NoSuchEntry(f"no such name: {name!r}")
        return node

    def listing(self, directory: Inode, after: int) -> Iterator[tuple[int, bytes]]:
        """Yield (hash, name) in the order of hashes, from the first above `after`."""
        directory = self.current(directory)
        merged: list[tuple[int, bytes]] = []
        hidden = directory.names
        if hidden is not None:
            merged = sorted([(name_hash(n), n) for n, d in hidden.items() if d[0] is not None and name_hash(n) > after])
        position = 0
        if directory.base:
            for key, _ in maps.scan(self._objects, directory.base, start=(after + 1).to_bytes(8, "big")):
                below = (int.from_bytes(key[:8], "big"), key[8:])
                while position < len(merged) and merged[position] < below:
                    yield merged[position]
                    position += 1
                if hidden is None or below[1] not in hidden:
                    yield below
        yield from merged[position:]

    def read(self, node: Inode, offset: int, length: int) -> bytes:
        """Return up to `length` bytes of a file, fewer only at its end. Raises ColdObject, CorruptObject."""
        return content.read(self._journal, self._objects, self.current(node), offset, length)

    def release(self, node: Inode, count: int) -> None:
        """Give back `count` holds."""
        node.holds -= count
        here: Inode | None = node
        while here is not None and not here.holds:
            self.nodes.pop(here.ino, None)
            here = here.parent
            if here is not None:
                here.holds -= 1
