"""Requests: one thin method for each, straight onto the working tree.

Everything that is not the working tree (snapshots, control directories) is found by a KeyError or a miss on the inode
table and goes to `history_dir.py`, so that the common path pays nothing for it.

O1. A handler waits only where it must (a cold object, a sync, write-back before a snapshot); all else is plain calls.
O2. Whatever a handler raises becomes an errno here: any other exception would end the whole mount.
O3. A handler that meets a cold object has changed nothing; it is loaded in a thread, and the handler runs again.
"""

import errno
import logging
import os
import stat
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, TypeVar

import pyfuse3
import trio
from pyfuse3 import EntryAttributes, FileInfo, FUSEError, RequestContext

from helios_fs.errors import (
    ColdObject,
    CrossesView,
    EntryExists,
    HeliosError,
    InvalidArgument,
    NameTooLong,
    NotPermitted,
    NotSupported,
)
from helios_fs.fuse import attributes
from helios_fs.fuse.durability import Durability
from helios_fs.fuse.errnos import ERRNO
from helios_fs.fuse.history_dir import HistoryDir
from helios_fs.fuse.nodes import NODEID_MASK, VIEW_SHIFT, WRITABLE_HANDLE
from helios_fs.objects import record
from helios_fs.objects.ids import ROOT_INO
from helios_fs.store.store import Store
from helios_fs.worktree.index import overlay_names
from helios_fs.worktree.inode import Inode
from helios_fs.worktree.worktree import MAX_NAME_BYTES, Worktree

_T = TypeVar("_T")
_log = logging.getLogger(__name__)

# pyfuse3 copies it into its reply before any other handler can run, as it does with attributes.
_info: Final = FileInfo(keep_cache=True)

_RENAME_NOREPLACE: Final = 1
_RENAME_EXCHANGE: Final = 2
_DOT: Final = 1
_DOT_DOT: Final = 2


class Operations(pyfuse3.Operations):
    """The filesystem as pyfuse3 calls it. `hidden` are the names at the root that mean our own directories."""

    supports_dot_lookup = False
    enable_writeback_cache = False
    enable_acl = False

    def __init__(
        self, worktree: Worktree, store: Store, history: HistoryDir, durability: Durability, read_only: bool
    ) -> None:
        super().__init__()
        self._worktree = worktree
        self._index = worktree.index
        self._inodes = worktree.inodes
        self._store = store
        self._history = history
        self._durability = durability
        self._hidden = history.hidden_names
        self._overlays: dict[int, list[tuple[int, bytes]]] = {}
        self._read_only = read_only
        self.throttle_at = 1 << 62
        """Journal position behind which writers are slowed down."""
        self.throttle: Callable[[], Awaitable[None]] = trio.lowlevel.checkpoint

    def set_throttle(self, position: int) -> None:
        """Slow writers down once the journal is past `position`."""
        self.throttle_at = position

    # -- Errors ------------------------------------------------------------------------------------------------------

    async def _again(self, error: Exception, handler: Callable[..., Awaitable[_T]], *arguments: Any) -> _T:
        """Do what an exception calls for: wait for a cold object and run the handler again, or raise an errno."""
        if isinstance(error, FUSEError):
            raise error
        if isinstance(error, ColdObject):
            try:
                await trio.to_thread.run_sync(self._store.objects.warm, error.object_id)
            except HeliosError as warming:
                raise self._errno(warming) from warming
            return await handler(*arguments)
        raise self._errno(error) from error

    @staticmethod
    def _errno(error: Exception) -> FUSEError:
        number = ERRNO.get(type(error))  # type: ignore[arg-type]  # any class may be asked for
        if number is None:
            _log.error("a request failed in a way nobody foresaw", exc_info=error)
            number = errno.EIO
        elif number == errno.EIO:
            _log.error("%s: %s", type(error).__name__, error)
        return FUSEError(number)

    def _live(self, nodeid: int) -> Inode:
        """Return an inode of the working tree that is to be changed. Raises what changing anything else deserves."""
        inode = self._inodes.get(nodeid)
        if inode is None:
            self._history.refuse_change(nodeid)
        elif self._read_only:
            raise FUSEError(errno.EROFS)
        assert inode is not None
        return inode

    # -- Lookups -----------------------------------------------------------------------------------------------------

    async def lookup(self, parent_inode: int, name: bytes, ctx: RequestContext | None = None) -> EntryAttributes:
        """Say what a name means; a name that is not there is remembered by the kernel too."""
        try:
            parent = self._inodes.get(parent_inode)
            if parent is None or (parent_inode == ROOT_INO and name in self._hidden):
                return self._history.lookup(parent_inode, name)
            inode = self._index.find(parent, name)
            if inode is None:
                if len(name) > MAX_NAME_BYTES:
                    raise NameTooLong("a name may have 255 bytes")
                return attributes.absent()
            inode.holds += 1
            return attributes.live(inode)
        except Exception as error:
            return await self._again(error, self.lookup, parent_inode, name, ctx)

    async def forget(self, inode_list: Sequence[tuple[int, int]]) -> None:
        """Give back what lookups took."""
        inodes = self._inodes
        for nodeid, count in inode_list:
            inode = inodes.get(nodeid)
            if inode is not None:
                if inode.holds > count:
                    inode.holds -= count
                else:
                    self._index.release(inode, count)
            elif nodeid >> VIEW_SHIFT:
                self._history.release(nodeid, count)

    async def getattr(self, inode: int, ctx: RequestContext | None = None) -> EntryAttributes:
        """Return attributes."""
        found = self._inodes.get(inode)
        if found is not None:
            return attributes.live(found)
        try:
            return self._history.getattr(inode)
        except Exception as error:
            return await self._again(error, self.getattr, inode, ctx)

    async def readlink(self, inode: int, ctx: RequestContext) -> bytes:
        """Return a symlink's target."""
        found = self._inodes.get(inode)
        if found is not None:
            return found.base
        try:
            return self._history.readlink(inode)
        except Exception as error:
            return await self._again(error, self.readlink, inode, ctx)

    # -- Directories -------------------------------------------------------------------------------------------------

    async def opendir(self, inode: int, ctx: RequestContext) -> int:
        """Open a directory; the handle is its nodeid, and a listing begins at cookie 0."""
        found = self._inodes.get(inode)
        if found is not None:
            found.holds += 1
        else:
            self._history.open_directory(inode)
        return inode

    async def releasedir(self, fh: int) -> None:
        """Close a directory."""
        found = self._inodes.get(fh)
        if found is not None:
            self._overlays.pop(fh, None)
            self._index.release(found, 1)
        else:
            self._history.release_directory(fh)

    async def readdir(self, fh: int, start_id: int, token: pyfuse3.ReaddirToken) -> None:
        """List a directory from a cookie on, with attributes; each entry sent counts as a lookup."""
        sent = False
        try:
            directory = self._inodes.get(fh)
            if directory is None:
                self._history.readdir(fh, start_id, token)
                return
            if start_id < _DOT_DOT and not self._send_dots(directory, start_id, token):
                return
            sent = start_id < _DOT_DOT
            after = max(start_id, _DOT_DOT)
            overlay = self._overlays.get(fh)
            if overlay is None or after == _DOT_DOT:
                overlay = self._overlays[fh] = overlay_names(directory)
            shown = self._history.listed_names if fh == ROOT_INO else ()
            for cookie, name in self._index.listing(directory, after, overlay):
                inode = self._index.find(directory, name)
                if inode is None or (fh == ROOT_INO and name in self._hidden):
                    continue
                if not pyfuse3.readdir_reply(token, name, attributes.live(inode), cookie):
                    self._index.forget_if_idle(inode)
                    return
                inode.holds += 1
                sent = True
            self._history.list_at_root(shown, start_id, token)
        except ColdObject as error:
            if not sent:
                await self._again(error, self.readdir, fh, start_id, token)
        except Exception as error:
            await self._again(error, self.readdir, fh, start_id, token)

    @staticmethod
    def _send_dots(directory: Inode, start_id: int, token: pyfuse3.ReaddirToken) -> bool:
        if start_id < _DOT and not pyfuse3.readdir_reply(token, b".", attributes.live(directory), _DOT):
            return False
        above = directory.parent if directory.parent is not None else directory
        return pyfuse3.readdir_reply(token, b"..", attributes.live(above), _DOT_DOT)

    # -- Names -------------------------------------------------------------------------------------------------------

    def _parent(self, nodeid: int, name: bytes) -> Inode:
        parent = self._live(nodeid)
        if nodeid == ROOT_INO and name in self._hidden:
            raise NotPermitted("this name is the filesystem's own")
        return parent

    def _held(self, inode: Inode) -> EntryAttributes:
        inode.holds += 1
        return attributes.live(inode)

    async def create(
        self, parent_inode: int, name: bytes, mode: int, flags: int, ctx: RequestContext
    ) -> tuple[FileInfo, EntryAttributes]:
        """Make a file and open it."""
        try:
            parent = self._parent(parent_inode, name)
            try:
                inode = self._worktree.create(parent, name, stat.S_IFREG | stat.S_IMODE(mode), ctx.uid, ctx.gid)
            except EntryExists:
                # The kernel did not know of the name yet: something the daemon brought back itself.
                found = self._index.find(parent, name)
                if flags & os.O_EXCL or found is None or not found.is_file:
                    raise
                inode = found
            info = self._open(inode, flags)
            return info, self._held(inode)
        except Exception as error:
            return await self._again(error, self.create, parent_inode, name, mode, flags, ctx)

    async def mknod(self, parent_inode: int, name: bytes, mode: int, rdev: int, ctx: RequestContext) -> EntryAttributes:
        """Make a file, fifo, socket or device node."""
        try:
            parent = self._parent(parent_inode, name)
            return self._held(self._worktree.create(parent, name, mode, ctx.uid, ctx.gid, rdev))
        except Exception as error:
            return await self._again(error, self.mknod, parent_inode, name, mode, rdev, ctx)

    async def mkdir(self, parent_inode: int, name: bytes, mode: int, ctx: RequestContext) -> EntryAttributes:
        """Make a directory, or a snapshot in `.snapshots`."""
        try:
            if self._history.is_control(parent_inode):
                return await self._history.mkdir(parent_inode, name, ctx)
            parent = self._parent(parent_inode, name)
            return self._held(self._worktree.create(parent, name, mode, ctx.uid, ctx.gid))
        except Exception as error:
            return await self._again(error, self.mkdir, parent_inode, name, mode, ctx)

    async def symlink(self, parent_inode: int, name: bytes, target: bytes, ctx: RequestContext) -> EntryAttributes:
        """Make a symlink."""
        try:
            parent = self._parent(parent_inode, name)
            mode = stat.S_IFLNK | 0o777
            return self._held(self._worktree.create(parent, name, mode, ctx.uid, ctx.gid, 0, target))
        except Exception as error:
            return await self._again(error, self.symlink, parent_inode, name, target, ctx)

    async def link(self, inode: int, new_parent_inode: int, new_name: bytes, ctx: RequestContext) -> EntryAttributes:
        """Give a file one more name."""
        try:
            if bool(inode >> VIEW_SHIFT) != bool(new_parent_inode >> VIEW_SHIFT):
                raise CrossesView("a file in a snapshot cannot be linked into the working tree")
            parent = self._parent(new_parent_inode, new_name)
            found = self._live(inode)
            self._worktree.link(found, parent, new_name)
            return self._held(found)
        except Exception as error:
            return await self._again(error, self.link, inode, new_parent_inode, new_name, ctx)

    async def unlink(self, parent_inode: int, name: bytes, ctx: RequestContext) -> None:
        """Take a name away."""
        try:
            parent = self._parent(parent_inode, name)
            self._worktree.unlink(parent, name)
        except Exception as error:
            await self._again(error, self.unlink, parent_inode, name, ctx)

    async def rmdir(self, parent_inode: int, name: bytes, ctx: RequestContext) -> None:
        """Remove an empty directory, or delete a snapshot in `.snapshots`."""
        try:
            if self._history.is_control(parent_inode):
                self._history.rmdir(parent_inode, name)
                return
            self._worktree.rmdir(self._parent(parent_inode, name), name)
        except Exception as error:
            await self._again(error, self.rmdir, parent_inode, name, ctx)

    async def rename(
        self,
        parent_inode_old: int,
        name_old: bytes,
        parent_inode_new: int,
        name_new: bytes,
        flags: int,
        ctx: RequestContext,
    ) -> None:
        """Move a name; flags as in renameat2(2), and any that is not known is refused."""
        try:
            if flags not in (0, _RENAME_NOREPLACE, _RENAME_EXCHANGE):
                raise InvalidArgument("unknown rename flag")
            if parent_inode_old >> VIEW_SHIFT or parent_inode_new >> VIEW_SHIFT:
                self._history.rename(parent_inode_old, name_old, parent_inode_new, name_new, flags)
                return
            self._worktree.rename(
                self._parent(parent_inode_old, name_old),
                name_old,
                self._parent(parent_inode_new, name_new),
                name_new,
                exchange=flags == _RENAME_EXCHANGE,
                replace=flags != _RENAME_NOREPLACE,
            )
        except Exception as error:
            await self._again(error, self.rename, parent_inode_old, name_old, parent_inode_new, name_new, flags, ctx)

    # -- Content -----------------------------------------------------------------------------------------------------

    def _open(self, inode: Inode, flags: int) -> FileInfo:
        inode.holds += 1
        fh = inode.ino
        if flags & os.O_ACCMODE == os.O_RDWR:
            self._durability.opened_for_mapping(inode)
            fh |= WRITABLE_HANDLE
        _info.fh = fh
        return _info

    async def open(self, inode: int, flags: int, ctx: RequestContext) -> FileInfo:
        """Open a file; pages that the kernel holds stay."""
        try:
            found = self._inodes.get(inode)
            if found is None:
                if flags & os.O_ACCMODE != os.O_RDONLY or flags & os.O_TRUNC:
                    raise FUSEError(errno.EROFS)
                self._history.open_file(inode)
                _info.fh = inode
                return _info
            if self._read_only and (flags & os.O_ACCMODE != os.O_RDONLY or flags & os.O_TRUNC):
                raise FUSEError(errno.EROFS)
            if flags & os.O_TRUNC:
                self._worktree.setattr(found, record.SET_SIZE, size=0)
            return self._open(found, flags)
        except Exception as error:
            return await self._again(error, self.open, inode, flags, ctx)

    async def release(self, fh: int) -> None:
        """Close a file; the last one of an unlinked file frees it."""
        inode = self._inodes.get(fh & NODEID_MASK)
        if inode is None:
            self._history.release(fh & NODEID_MASK, 1)
            return
        if fh & WRITABLE_HANDLE:
            self._durability.closed_for_mapping(inode)
        self._index.release(inode, 1)

    async def read(self, fh: int, off: int, size: int) -> bytes:
        """Read bytes."""
        try:
            inode = self._inodes.get(fh & NODEID_MASK)
            if inode is None:
                return self._history.read(fh, off, size)
            return self._worktree.read(inode, off, size)
        except Exception as error:
            return await self._again(error, self.read, fh, off, size)

    async def write(self, fh: int, off: int, buf: bytes) -> int:
        """Write bytes; they are in the journal when the kernel hears of it."""
        try:
            if self._worktree.journal.end > self.throttle_at:
                await self.throttle()
            return self._worktree.write(self._inodes[fh & NODEID_MASK], off, buf)
        except Exception as error:
            return await self._again(error, self.write, fh, off, buf)

    async def flush(self, fh: int) -> None:
        """Never again: write has told of every error already."""
        raise FUSEError(errno.ENOSYS)

    async def fsync(self, fh: int, datasync: bool) -> None:
        """Return when the file, and all that leads to it, would survive a power cut."""
        try:
            await self._durability.sync()
        except Exception as error:
            await self._again(error, self.fsync, fh, datasync)

    async def fsyncdir(self, fh: int, datasync: bool) -> None:
        """As `fsync`; in `.snapshots` it makes the snapshots durable."""
        await self.fsync(fh, datasync)

    # -- Attributes --------------------------------------------------------------------------------------------------

    async def setattr(
        self,
        inode: int,
        attr: EntryAttributes,
        fields: pyfuse3.SetattrFields,
        fh: int | None,
        ctx: RequestContext,
    ) -> EntryAttributes:
        """Change mode, owner, size or times."""
        try:
            found = self._live(inode)
            mask = (
                (record.SET_MODE if fields.update_mode else 0)
                | (record.SET_UID if fields.update_uid else 0)
                | (record.SET_GID if fields.update_gid else 0)
                | (record.SET_SIZE if fields.update_size else 0)
                | (record.SET_ATIME if fields.update_atime else 0)
                | (record.SET_MTIME if fields.update_mtime else 0)
            )
            self._worktree.setattr(
                found,
                mask,
                attr.st_mode if mask & record.SET_MODE else 0,
                attr.st_uid if mask & record.SET_UID else 0,
                attr.st_gid if mask & record.SET_GID else 0,
                attr.st_size if mask & record.SET_SIZE else 0,
                attr.st_atime_ns if mask & record.SET_ATIME else 0,
                attr.st_mtime_ns if mask & record.SET_MTIME else 0,
            )
            return attributes.live(found)
        except Exception as error:
            return await self._again(error, self.setattr, inode, attr, fields, fh, ctx)

    async def getxattr(self, inode: int, name: bytes, ctx: RequestContext) -> bytes:
        """Return an extended attribute. The kernel asks for `security.capability` before every write."""
        found = self._inodes.get(inode)
        if found is not None:
            if found.xattrs is not None:
                value = found.xattrs.get(name)
                if value is not None:
                    return value
            raise FUSEError(errno.ENODATA)
        try:
            return self._history.getxattr(inode, name)
        except Exception as error:
            return await self._again(error, self.getxattr, inode, name, ctx)

    async def listxattr(self, inode: int, ctx: RequestContext) -> Sequence[bytes]:
        """Return the names of the extended attributes; `trusted.` ones are root's to see."""
        found = self._inodes.get(inode)
        try:
            held = found.xattrs if found is not None else self._history.xattrs(inode)
        except Exception as error:
            return await self._again(error, self.listxattr, inode, ctx)
        return [name for name in held or () if ctx.uid == 0 or not name.startswith(b"trusted.")]

    async def setxattr(self, inode: int, name: bytes, value: bytes, ctx: RequestContext) -> None:
        """Set an extended attribute."""
        try:
            found = self._live(inode)
            if name.startswith(b"system."):
                raise NotSupported("there are no access control lists here")
            self._worktree.setxattr(found, name, value)
        except Exception as error:
            await self._again(error, self.setxattr, inode, name, value, ctx)

    async def removexattr(self, inode: int, name: bytes, ctx: RequestContext) -> None:
        """Remove an extended attribute."""
        try:
            self._worktree.removexattr(self._live(inode), name)
        except Exception as error:
            await self._again(error, self.removexattr, inode, name, ctx)

    async def statfs(self, ctx: RequestContext) -> pyfuse3.StatvfsData:
        """Return the room on the disk that holds the store."""
        try:
            disk = self._store.statvfs()
        except Exception as error:
            return await self._again(error, self.statfs, ctx)
        reply = pyfuse3.StatvfsData()
        reply.f_bsize = disk.f_bsize
        reply.f_frsize = disk.f_frsize
        reply.f_blocks = disk.f_blocks
        reply.f_bfree = disk.f_bfree
        reply.f_bavail = disk.f_bavail
        reply.f_files = disk.f_files
        reply.f_ffree = disk.f_ffree
        reply.f_favail = disk.f_favail
        reply.f_namemax = 255
        return reply
