"""Sealing one epoch: the tree before it and its journal records give the tree after it.

A pure function of the two, run in the sealer's process and after a crash alike. What an epoch made and removed again
is never stored.

L1. Only what changed is read and written: pages along the path of a change, chunks around written ranges.
L2. The tree is in the writer when a function here returns, and durable once the writer has published it.
"""

from collections.abc import Iterable
from typing import Final

from helios_fs.journal.journal import Frame, Journal
from helios_fs.objects.entry import Tree, directory_key, encode_entry, encode_tree, ino_key
from helios_fs.objects.ids import KIND_TREE, ROOT_INO, ObjectId
from helios_fs.sealer.content import store_content
from helios_fs.store import maps
from helios_fs.store.writer import Writer
from helios_fs.worktree import content, extents
from helios_fs.worktree.index import Index
from helios_fs.worktree.inode import Inode
from helios_fs.worktree.rebase import Sealed
from helios_fs.worktree.replay import replay_frame

_LINK_TABLE: Final = 0


class SealedEpoch:
    """What sealing an epoch gave."""

    def __init__(self, tree: Tree, tree_id: ObjectId, sealed: list[Sealed], gone: set[int]) -> None:
        self.tree = tree
        self.tree_id = tree_id
        self.sealed = sealed
        """Every inode that changed, and the directories above it; directories first, from the root down."""
        self.gone = gone
        """Inodes that lost their last name."""


def seal_epoch(writer: Writer, journal: Journal, tree: Tree, epoch: int, frames: Iterable[Frame]) -> SealedEpoch:
    """Replay the frames of one epoch over `tree` and store what they leave. Durable once the writer publishes.

    Raises CorruptObject where journal or store do not verify, StoreFull, StoreFault.
    """
    index = Index(writer, tree, epoch)
    index.gone = {}
    for frame in frames:
        replay_frame(index, frame)
    return _Seal(writer, journal, index, tree).run()


class _Seal:
    def __init__(self, writer: Writer, journal: Journal, index: Index, tree: Tree) -> None:
        self._writer = writer
        self._journal = journal
        self._index = index
        self._tree = tree
        self._gone = index.gone or {}
        self._edits: dict[int, dict[bytes, bytes | None]] = {
            _LINK_TABLE: {ino_key(ino): None for ino, linked in self._gone.items() if linked}
        }
        self._files: list[Sealed] = []
        self._directories: list[Sealed] = []

    def run(self) -> SealedEpoch:
        """Store files, then directories from the leaves up, then the tree."""
        directories: dict[int, Inode] = {ROOT_INO: self._index.root}
        for inode in self._index.dirty.values():
            here = inode if inode.is_directory else inode.parent
            while here is not None and here.ino not in directories:
                directories[here.ino] = here
                here = here.parent
            if not inode.is_directory:
                content_id = self._store_content(inode)
                self._files.append((inode.ino, content_id, inode.size))
                self._place(inode, content_id)
        depths: dict[int, int] = {}
        for directory in sorted(directories.values(), key=lambda inode: -_depth(inode, depths)):
            if directory.ino != ROOT_INO:
                self._place(directory, self._store_directory(directory))
        root = self._index.root.entry(self._store_directory(self._index.root))
        link_edits = self._edits[_LINK_TABLE]
        links = maps.edit(self._writer, self._tree.links, link_edits) if link_edits else self._tree.links
        tree = Tree(root, links)
        tree_id = self._writer.put(KIND_TREE, encode_tree(tree))
        return SealedEpoch(tree, tree_id, [*reversed(self._directories), *self._files], set(self._gone))

    def _place(self, inode: Inode, content_id: bytes) -> None:
        """Put an inode's entry where it belongs: into the link table, or under its name."""
        if inode.linked:
            self._edits[_LINK_TABLE][ino_key(inode.ino)] = encode_entry(inode.entry(content_id))
        elif inode.parent is not None:
            edits = self._edits.setdefault(inode.parent.ino, {})
            edits[directory_key(inode.name)] = encode_entry(inode.entry(content_id))

    def _store_content(self, inode: Inode) -> bytes:
        if not inode.is_file or (inode.regions is None and inode.limit >= inode.base_size == inode.size):
            return inode.base
        dirty = list(extents.ranges(inode.regions)) if inode.regions is not None else []
        stored_id, _ = store_content(
            self._writer,
            inode.base,
            inode.base_size,
            inode.size,
            inode.limit,
            dirty,
            lambda offset, length: content.read(self._journal, self._writer, inode, offset, length),
            # The inode counts its own, as records change it.
            base_allocated=0,
        )
        return stored_id

    def _store_directory(self, directory: Inode) -> bytes:
        edits = self._edits.pop(directory.ino, {})
        for name, (inode, _, _) in (directory.names or {}).items():
            if inode is None:
                edits.setdefault(directory_key(name), None)
            elif inode.linked:
                edits[directory_key(name)] = encode_entry(inode.ino)
        content_id = maps.edit(self._writer, directory.base, edits) if edits else directory.base
        self._directories.append((directory.ino, content_id, directory.size))
        return content_id


def _depth(inode: Inode, depths: dict[int, int]) -> int:
    chain = []
    here: Inode | None = inode
    while here is not None and here.ino not in depths:
        chain.append(here)
        here = here.parent
    depth = depths[here.ino] if here is not None else -1
    for step in reversed(chain):
        depth += 1
        depths[step.ino] = depth
    return depth
