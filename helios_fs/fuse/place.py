"""Where the tree of a branch is in a mount: which nodeids are its inodes, and how the kernel hears of them.

L1. The branch that is mounted has its inode numbers as nodeids, and pays nothing for there being others.
L2. The root of any other branch has a nodeid of its own, which its parent's `.branches` gave it; it is known before the
    branch is open, and stays the same.
"""

from collections.abc import Callable

import pyfuse3

from helios_fs.fuse import attributes
from helios_fs.fuse.nodes import VIEW_SHIFT
from helios_fs.objects.ids import MAX_INO, ROOT_INO
from helios_fs.worktree.index import Index
from helios_fs.worktree.inode import Inode


class Place:
    """One branch's nodeids."""

    def __init__(self, index: Index, number: int = 0, generation: int = 0, root_nodeid: int = ROOT_INO) -> None:
        """`number` is the view number, 0 for the branch that is mounted."""
        self._index = index
        self._number = number
        self._generation = generation
        self.root_nodeid = root_nodeid
        self.get: Callable[[int], Inode | None] = index.inodes.get if number == 0 else self._find
        """get(nodeid) -> the inode that the kernel means, or None where it is none of this tree's."""
        self.show: Callable[[Inode], pyfuse3.EntryAttributes] = attributes.live if number == 0 else self._viewed
        """show(inode) -> its attributes, under its nodeid."""

    def nodeid(self, inode: Inode) -> int:
        """Return the nodeid of an inode."""
        return self.nodeid_of(inode.ino)

    def nodeid_of(self, ino: int) -> int:
        """Return the nodeid of the inode with this number."""
        if self._number == 0:
            return ino
        return self.root_nodeid if ino == ROOT_INO else (self._number << VIEW_SHIFT) | ino

    def _find(self, nodeid: int) -> Inode | None:
        if nodeid >> VIEW_SHIFT == self._number:
            return self._index.inodes.get(nodeid & MAX_INO)
        return self._index.root if nodeid == self.root_nodeid else None

    def _viewed(self, inode: Inode) -> pyfuse3.EntryAttributes:
        return attributes.viewed(inode, self.nodeid(inode), self._generation)
