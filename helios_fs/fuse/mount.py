"""The filesystem as pyfuse3 calls it: hands each request to whoever answers for its nodeid.

A mount shows several trees; each has handlers of its own (operations.py), and which of them a nodeid belongs to is in
its upper bits. The methods here are plain functions that return the handler's coroutine: that costs a call, no task
and no wait.

R1. Whatever names two nodes of different trees answers EXDEV.
R2. A branch below `.branches` whose root the kernel knows and that is not open is opened by the first request.
"""

import errno
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any, TypeVar

import pyfuse3
from pyfuse3 import EntryAttributes, FileInfo, FUSEError, RequestContext

from helios_fs.errors import HeliosError
from helios_fs.fuse.errnos import ERRNO
from helios_fs.fuse.forest import Forest
from helios_fs.fuse.nodes import BRANCH_RANGE, NODEID_MASK, VIEW_SHIFT
from helios_fs.fuse.operations import Operations

_T = TypeVar("_T")
_Reply = Coroutine[Any, Any, _T]


class _Unopened:
    """Stands for the handlers of a branch that is not open: each request opens it first."""

    def __init__(self, forest: Forest, branch: str) -> None:
        self._forest = forest
        self._branch = branch

    def __getattr__(self, handler: str) -> Any:
        async def answer(*arguments: Any) -> Any:
            try:
                shown = await self._forest.open(self._branch)
            except HeliosError as error:
                raise FUSEError(ERRNO.get(type(error), errno.EIO)) from error
            return await getattr(shown.operations, handler)(*arguments)

        return answer


class Mount(pyfuse3.Operations):
    """All trees of a mount, as one filesystem."""

    supports_dot_lookup = False
    enable_writeback_cache = False
    enable_acl = False

    def __init__(self, forest: Forest) -> None:
        super().__init__()
        self._forest = forest
        self._first = forest.first.operations
        self._owners = forest.numbers.owners
        self._roots = forest.roots
        self._diverted: list[str] = []
        forest.watchers.of(self)

    def divert(self, answers: Mapping[str, Callable[..., Any]]) -> None:
        """Let others answer some kinds of requests from now on, and only those. Where nobody does, it costs nothing.

        pyfuse3 looks a handler up at each request, and finds what stands on the object before what its class has.
        """
        for name in self._diverted:
            delattr(self, name)
        self._diverted = list(answers)
        for name, answer in answers.items():
            setattr(self, name, answer)

    def _at(self, nodeid: int) -> Operations:
        number = nodeid >> VIEW_SHIFT
        if not number:
            return self._first
        root = self._roots.get(nodeid)
        if root is not None:
            return root
        owner: Operations = self._owners.get(number, self._first)
        # Few inodes have a number as large as this bit; for them the question is asked in vain.
        if nodeid & BRANCH_RANGE and (branch := self._forest.branch_of(nodeid, owner)) is not None:
            return _Unopened(self._forest, branch)  # type: ignore[return-value]  # has every handler there is
        return owner

    def lookup(self, parent_inode: int, name: bytes, ctx: RequestContext) -> _Reply[EntryAttributes]:
        """Say what a name means."""
        if not parent_inode >> VIEW_SHIFT:
            return self._first.lookup(parent_inode, name, ctx)
        return self._at(parent_inode).lookup(parent_inode, name, ctx)

    def getattr(self, inode: int, ctx: RequestContext) -> _Reply[EntryAttributes]:
        """Return attributes."""
        if not inode >> VIEW_SHIFT:
            return self._first.getattr(inode, ctx)
        return self._at(inode).getattr(inode, ctx)

    async def forget(self, inode_list: Sequence[tuple[int, int]]) -> None:
        """Give back what lookups took."""
        for nodeid, count in inode_list:
            owner = self._at(nodeid)
            if not isinstance(owner, _Unopened):
                await owner.forget([(nodeid, count)])

    def readlink(self, inode: int, ctx: RequestContext) -> _Reply[bytes]:
        """Return a symlink's target."""
        return self._at(inode).readlink(inode, ctx)

    def opendir(self, inode: int, ctx: RequestContext) -> _Reply[int]:
        """Open a directory."""
        return self._at(inode).opendir(inode, ctx)

    def releasedir(self, fh: int) -> _Reply[None]:
        """Close a directory."""
        return self._at(fh).releasedir(fh)

    def readdir(self, fh: int, start_id: int, token: pyfuse3.ReaddirToken) -> _Reply[None]:
        """List a directory."""
        return self._at(fh).readdir(fh, start_id, token)

    def fsyncdir(self, fh: int, datasync: bool) -> _Reply[None]:
        """Sync a directory."""
        return self._at(fh).fsyncdir(fh, datasync)

    def create(
        self, parent_inode: int, name: bytes, mode: int, flags: int, ctx: RequestContext
    ) -> _Reply[tuple[FileInfo, EntryAttributes]]:
        """Make a file and open it."""
        return self._at(parent_inode).create(parent_inode, name, mode, flags, ctx)

    def mknod(
        self, parent_inode: int, name: bytes, mode: int, rdev: int, ctx: RequestContext
    ) -> _Reply[EntryAttributes]:
        """Make a file, fifo, socket or device node."""
        return self._at(parent_inode).mknod(parent_inode, name, mode, rdev, ctx)

    def mkdir(self, parent_inode: int, name: bytes, mode: int, ctx: RequestContext) -> _Reply[EntryAttributes]:
        """Make a directory, a snapshot, a branch."""
        return self._at(parent_inode).mkdir(parent_inode, name, mode, ctx)

    def symlink(self, parent_inode: int, name: bytes, target: bytes, ctx: RequestContext) -> _Reply[EntryAttributes]:
        """Make a symlink."""
        return self._at(parent_inode).symlink(parent_inode, name, target, ctx)

    def unlink(self, parent_inode: int, name: bytes, ctx: RequestContext) -> _Reply[None]:
        """Take a name away."""
        return self._at(parent_inode).unlink(parent_inode, name, ctx)

    def rmdir(self, parent_inode: int, name: bytes, ctx: RequestContext) -> _Reply[None]:
        """Remove a directory, a snapshot, a branch."""
        return self._at(parent_inode).rmdir(parent_inode, name, ctx)

    def link(self, inode: int, new_parent_inode: int, new_name: bytes, ctx: RequestContext) -> _Reply[EntryAttributes]:
        """Give a file one more name, in its own tree."""
        return self._both(inode, new_parent_inode).link(inode, new_parent_inode, new_name, ctx)

    def rename(
        self,
        parent_inode_old: int,
        name_old: bytes,
        parent_inode_new: int,
        name_new: bytes,
        flags: int,
        ctx: RequestContext,
    ) -> _Reply[None]:
        """Move a name, in its own tree."""
        owner = self._both(parent_inode_old, parent_inode_new)
        return owner.rename(parent_inode_old, name_old, parent_inode_new, name_new, flags, ctx)

    def _both(self, one: int, other: int) -> Operations:
        owner = self._at(one)
        if owner is not self._at(other) and not isinstance(owner, _Unopened):
            raise FUSEError(errno.EXDEV)
        return owner

    def open(self, inode: int, flags: int, ctx: RequestContext) -> _Reply[FileInfo]:
        """Open a file."""
        return self._at(inode).open(inode, flags, ctx)

    def read(self, fh: int, off: int, size: int) -> _Reply[bytes]:
        """Read bytes."""
        return self._at(fh & NODEID_MASK).read(fh, off, size)

    def write(self, fh: int, off: int, buf: bytes) -> _Reply[int]:
        """Write bytes."""
        return self._at(fh & NODEID_MASK).write(fh, off, buf)

    def flush(self, fh: int) -> _Reply[None]:
        """Never again."""
        return self._first.flush(fh)

    def fsync(self, fh: int, datasync: bool) -> _Reply[None]:
        """Sync a file."""
        return self._at(fh & NODEID_MASK).fsync(fh, datasync)

    def release(self, fh: int) -> _Reply[None]:
        """Close a file."""
        return self._at(fh & NODEID_MASK).release(fh)

    def setattr(
        self,
        inode: int,
        attr: EntryAttributes,
        fields: pyfuse3.SetattrFields,
        fh: int | None,
        ctx: RequestContext,
    ) -> _Reply[EntryAttributes]:
        """Change attributes."""
        return self._at(inode).setattr(inode, attr, fields, fh, ctx)

    def getxattr(self, inode: int, name: bytes, ctx: RequestContext) -> _Reply[bytes]:
        """Return an extended attribute."""
        return self._at(inode).getxattr(inode, name, ctx)

    def listxattr(self, inode: int, ctx: RequestContext) -> _Reply[Sequence[bytes]]:
        """Return the names of the extended attributes."""
        return self._at(inode).listxattr(inode, ctx)

    def setxattr(self, inode: int, name: bytes, value: bytes, ctx: RequestContext) -> _Reply[None]:
        """Set an extended attribute."""
        return self._at(inode).setxattr(inode, name, value, ctx)

    def removexattr(self, inode: int, name: bytes, ctx: RequestContext) -> _Reply[None]:
        """Remove an extended attribute."""
        return self._at(inode).removexattr(inode, name, ctx)

    def statfs(self, ctx: RequestContext) -> _Reply[pyfuse3.StatvfsData]:
        """Return the room on the disk that holds the store."""
        return self._first.statfs(ctx)
