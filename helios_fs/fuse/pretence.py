"""Answers for the process that touches what has changed already (touch.py): all is well, and nothing is done.

Knows nothing of how that process is run (watchers.py). Whatever it asks for, no request of it changes the tree, its
times or its journal.

F1. A request is the process's if it has its number; it makes none but those that are answered here, and harmless ones.
F2. A name that it is to make is not there for it, and for everybody else it is: the kernel holds the directory's lock
    from that lookup to the answer that says "made", and has nobody believe the first without asking again.
F3. What somebody has opened since the change keeps the name that the kernel knows it by: taking that away for a moment
    would make it "(deleted)" in /proc for good. The process finds it there, and only touches it.
"""

import errno
import itertools
import os
import stat
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

import pyfuse3
from pyfuse3 import EntryAttributes, FileInfo, FUSEError, RequestContext

from helios_fs.fuse import attributes
from helios_fs.fuse.nodes import CONTROL_VIEW, GONE_RANGE, VIEW_SHIFT

if TYPE_CHECKING:
    from helios_fs.fuse.mount import Mount

Key = tuple[int, bytes]
"""Nodeid of a directory, and a name in it."""
_GONE: Final = (CONTROL_VIEW << VIEW_SHIFT) | GONE_RANGE
NOBODY: Final = -1
"""No process; the kernel's number for one of another pid namespace is 0."""


class Pretence:
    """Answers in place of a mount's handlers, for as long as something is to be told."""

    def __init__(self, mount: "Mount") -> None:
        """The mount's own handlers are in place."""
        self._mount = mount
        self._lookup = mount.lookup
        self._forget = mount.forget
        self._getattr = mount.getattr
        self._open = mount.open
        self._plain: dict[str, Callable[..., Any]] = {name: getattr(mount, name) for name in self.handlers()}
        self.process = NOBODY
        """Number of the process, while there is one."""
        self._gone: dict[Key, int] = {}
        self._made: set[Key] = set()
        self._moved: Mapping[Key, Key] = {}
        self._shown: dict[Key, int] = {}
        """Names that are gone and that the process has seen all the same -> the nodeid that it saw."""
        self._removals = itertools.count()
        self._opened: set[int] = set()
        """What was opened since the first change that is not told yet, by whomever."""

    def handlers(self) -> dict[str, Callable[..., Any]]:
        """Return the handlers by name."""
        return {
            "lookup": self.lookup,
            "mknod": self.mknod,
            "mkdir": self.mkdir,
            "symlink": self.symlink,
            "unlink": self.unlink,
            "rmdir": self.rmdir,
            "rename": self.rename,
            "setattr": self.setattr,
            "open": self.open,
        }

    def begin(self) -> None:
        """Take over."""
        self._mount.divert(self.handlers())

    def expect(self, gone: dict[Key, int], made: set[Key], moved: Mapping[Key, Key]) -> None:
        """Say which names the process removes next, and of what mode; which it makes; which it moves to one of them."""
        self._gone, self._made, self._moved = gone, made, moved
        self._shown.clear()

    def end(self) -> None:
        """Let requests take their usual way again."""
        self._mount.divert({})
        self.expect({}, set(), {})
        self._opened.clear()

    async def _find(self, key: Key, ctx: RequestContext) -> EntryAttributes | None:
        """Return what a name means, or None. It counts as a lookup: the kernel hears of it, or `_give_back`."""
        reply = await self._lookup(*key, ctx)
        return reply if reply.st_ino else None

    async def _is_there(self, key: Key, ctx: RequestContext) -> bool:
        found = await self._find(key, ctx)
        if found is not None:
            await self._give_back(found)
        return found is not None

    async def _give_back(self, found: EntryAttributes) -> None:
        await self._forget([(found.st_ino, 1)])

    # -- Handlers: of the process where it asks, else as ever ----------------------------------------------------------

    def lookup(self, parent_inode: int, name: bytes, ctx: RequestContext) -> Any:
        """Say what a name means."""
        if ctx.pid != self.process:
            return self._lookup(parent_inode, name, ctx)
        return self._look((parent_inode, name), ctx)

    async def _look(self, key: Key, ctx: RequestContext) -> EntryAttributes:
        mode = self._gone.pop(key, None)
        if mode is not None and (key in self._made or not await self._is_there(key, ctx)):
            self._shown[key] = nodeid = _GONE | next(self._removals)
            return attributes.for_removal(nodeid, mode, os.geteuid())
        new = self._moved.get(key)
        if new is not None:
            found = await self._find(key, ctx)
            if found is None and (found := await self._find(new, ctx)) is not None:
                self._shown[key] = found.st_ino
                return attributes.for_once(found)
            return found if found is not None else attributes.absent()
        if key not in self._made:
            return await self._lookup(*key, ctx)
        found = await self._find(key, ctx)
        if found is not None:
            if found.st_ino in self._opened:
                return found
            await self._give_back(found)
        raise FUSEError(errno.ENOENT)

    def mknod(self, parent_inode: int, name: bytes, mode: int, rdev: int, ctx: RequestContext) -> Any:
        """Make a file, fifo, socket or device node."""
        if ctx.pid != self.process:
            return self._plain["mknod"](parent_inode, name, mode, rdev, ctx)
        return self._make((parent_inode, name), stat.S_IFMT(mode), ctx)

    def mkdir(self, parent_inode: int, name: bytes, mode: int, ctx: RequestContext) -> Any:
        """Make a directory."""
        if ctx.pid != self.process:
            return self._plain["mkdir"](parent_inode, name, mode, ctx)
        return self._make((parent_inode, name), stat.S_IFDIR, ctx)

    def symlink(self, parent_inode: int, name: bytes, target: bytes, ctx: RequestContext) -> Any:
        """Make a symlink."""
        if ctx.pid != self.process:
            return self._plain["symlink"](parent_inode, name, target, ctx)
        return self._make((parent_inode, name), stat.S_IFLNK, ctx)

    async def _make(self, key: Key, kind: int, ctx: RequestContext) -> EntryAttributes:
        if key not in self._made:
            raise FUSEError(errno.EPERM)
        found = await self._find(key, ctx)
        if found is None:
            raise FUSEError(errno.ENOENT)
        if stat.S_IFMT(found.st_mode) != kind:
            await self._give_back(found)
            raise FUSEError(errno.EEXIST)
        self._made.discard(key)
        return found

    def unlink(self, parent_inode: int, name: bytes, ctx: RequestContext) -> Any:
        """Take a name away."""
        if ctx.pid != self.process:
            return self._plain["unlink"](parent_inode, name, ctx)
        return self._remove((parent_inode, name))

    def rmdir(self, parent_inode: int, name: bytes, ctx: RequestContext) -> Any:
        """Remove a directory."""
        if ctx.pid != self.process:
            return self._plain["rmdir"](parent_inode, name, ctx)
        return self._remove((parent_inode, name))

    async def _remove(self, key: Key) -> None:
        # Where the kernel knew the name already it means something that is there.
        if self._shown.pop(key, 0) & _GONE != _GONE:
            raise FUSEError(errno.EPERM)

    def rename(
        self,
        parent_inode_old: int,
        name_old: bytes,
        parent_inode_new: int,
        name_new: bytes,
        flags: int,
        ctx: RequestContext,
    ) -> Any:
        """Move a name."""
        if ctx.pid != self.process:
            return self._plain["rename"](parent_inode_old, name_old, parent_inode_new, name_new, flags, ctx)
        return self._move((parent_inode_old, name_old), (parent_inode_new, name_new), ctx)

    async def _move(self, old: Key, new: Key, ctx: RequestContext) -> None:
        if self._moved.get(old) != new:
            raise FUSEError(errno.EPERM)
        if await self._is_there(old, ctx):
            raise FUSEError(errno.EBUSY)
        found = await self._find(new, ctx)
        if found is None:
            raise FUSEError(errno.ENOENT)
        nodeid = found.st_ino
        await self._give_back(found)
        if nodeid != self._shown.pop(old, None):
            raise FUSEError(errno.ENOENT)
        self._made.discard(new)

    def setattr(
        self, inode: int, attr: EntryAttributes, fields: pyfuse3.SetattrFields, fh: int | None, ctx: RequestContext
    ) -> Any:
        """Change attributes."""
        if ctx.pid != self.process:
            return self._plain["setattr"](inode, attr, fields, fh, ctx)
        return self._getattr(inode, ctx)

    async def open(self, inode: int, flags: int, ctx: RequestContext) -> FileInfo:
        """Open a file."""
        if ctx.pid != self.process:
            self._opened.add(inode)
        return await self._open(inode, flags, ctx)
