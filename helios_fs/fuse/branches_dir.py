"""`.branches`: the branches made from one, each a directory that is its working tree.

Knows names and nodeids; what a branch is, and opening one, is the forest's (forest.py).

B1. A branch is one directory. It is found and listed without being opened: the kernel asks for the attributes of its
    root when it needs them, and that opens it.
B2. A name that is not there is never cached; one that is there is until it is renamed or deleted.
"""

import stat
from bisect import bisect_right
from operator import itemgetter
from typing import Final, Protocol

import pyfuse3
from pyfuse3 import EntryAttributes

from helios_fs.errors import InvalidArgument, NoSuchEntry
from helios_fs.fuse import attributes
from helios_fs.fuse.nodes import Nodes
from helios_fs.objects.entry import name_hash
from helios_fs.worktree.inode import Inode

_DIRECTORY_MODE: Final = stat.S_IFDIR | 0o755
_DOT: Final = 1
_DOT_DOT: Final = 2


class Children(Protocol):
    """The branches made from one, as the forest keeps them."""

    def names(self) -> dict[str, str]:
        """Return name -> branch id of those that are there."""

    def make(self, name: str, uid: int) -> str:
        """Make a branch of the working tree as it is now; return its id."""

    async def delete(self, branch: str, force: bool = False) -> None:
        """Delete one. Raises Busy, NotPermitted."""

    async def rename(self, branch: str, name: str) -> None:
        """Rename one. Raises EntryExists, InvalidArgument."""


class BranchesDir:
    """The control directory `.branches` of one branch."""

    def __init__(self, nodes: Nodes, root: Inode, children: Children) -> None:
        """`root` is the root of the branch itself: owner and times are like its."""
        self._nodes = nodes
        self._root = root
        self._children = children
        self.nodeid = nodes.branches_nodeid

    def directory_attributes(self) -> EntryAttributes:
        """Return the attributes of the directory itself."""
        reply = attributes.made_up(self.nodeid, _DIRECTORY_MODE, self._root)
        reply.st_nlink = 2 + len(self._children.names())
        return reply

    def lookup(self, name: bytes) -> EntryAttributes:
        """Answer a lookup in the directory. Raises NoSuchEntry."""
        return attributes.to_be_asked(self._nodes.branch_nodeid(self._named(name)), self._root)

    def _named(self, name: bytes) -> str:
        branch = self._children.names().get(name.decode("utf-8", "surrogateescape"))
        if branch is None:
            raise NoSuchEntry("no such branch")
        return branch

    def list(self, start: int, token: pyfuse3.ReaddirToken) -> None:
        """List the directory from a cookie on."""
        own = self.directory_attributes()
        if start < _DOT and not pyfuse3.readdir_reply(token, b".", own, _DOT):
            return
        if start < _DOT_DOT and not pyfuse3.readdir_reply(token, b"..", own, _DOT_DOT):
            return
        known = [(name.encode(), branch) for name, branch in self._children.names().items()]
        rows = sorted((name_hash(name), name, branch) for name, branch in known)
        for cookie, name, branch in rows[bisect_right(rows, start, key=itemgetter(0)) :]:
            reply = attributes.to_be_asked(self._nodes.branch_nodeid(branch), self._root)
            if not pyfuse3.readdir_reply(token, name, reply, cookie):
                return

    def make(self, name: bytes, uid: int) -> EntryAttributes:
        """Make a branch; it is there on return, and survives the death of the daemon."""
        try:
            text = name.decode()
        except UnicodeDecodeError as error:
            raise InvalidArgument("a branch name must be UTF-8") from error
        branch = self._children.make(text, uid)
        return attributes.to_be_asked(self._nodes.branch_nodeid(branch), self._root)

    async def remove(self, name: bytes) -> None:
        """Delete a branch that has no work that nobody else holds."""
        await self._children.delete(self._named(name))

    async def rename(self, old: bytes, new: bytes) -> None:
        """Rename a branch."""
        await self._children.rename(self._named(old), new.decode("utf-8", "surrogateescape"))
