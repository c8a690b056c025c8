"""Requests on the content and the attributes of an inode that the kernel has looked up.

O4. A descriptor that can only write passes the kernel's pages by (FOPEN_DIRECT_IO), unless the file is open for a
    mapping that may store into the same pages, or has something that the kernel takes away on a write: set-id bits,
    capabilities. Where those come later it is we who take them away. Why: docs/decisions/direct-writes.md.
"""

import errno
import os
import stat
from collections.abc import Sequence
from typing import Final

import pyfuse3
from pyfuse3 import EntryAttributes, FileInfo, FUSEError, RequestContext

from helios_fs.fuse.invalidation import forget_attributes
from helios_fs.fuse.nodes import DIRECT_HANDLE, NODEID_MASK, WRITABLE_HANDLE
from helios_fs.fuse.requests import Requests
from helios_fs.fuse.transport import may_write_directly
from helios_fs.objects import record
from helios_fs.worktree.inode import Inode

# pyfuse3 copies it into its reply before any other handler can run, as it does with attributes.
_info: Final = FileInfo(keep_cache=True)

_CAPABILITIES: Final = b"security.capability"
_SET_ID: Final = stat.S_ISUID | stat.S_ISGID
_DIRECT: Final = may_write_directly()

_NAMESPACES: Final = frozenset({b"user", b"trusted", b"security"})
"""Of extended attributes (xattr(7)); the kernel has checked who may use them."""

_ACLS: Final = frozenset({b"system.posix_acl_access", b"system.posix_acl_default"})
"""No file has one, which is not an error to those who ask (as on ext4); setting one is refused."""


class FileRequests(Requests):
    """Opening, reading, writing, syncing; attributes and extended attributes."""

    # -- Content -----------------------------------------------------------------------------------------------------

    def _open(self, inode: Inode, flags: int) -> FileInfo:
        inode.holds += 1
        fh = self._place.nodeid(inode)
        direct = False
        access = flags & os.O_ACCMODE
        if access == os.O_RDWR:
            self._durability.opened_for_mapping(inode)
            fh |= WRITABLE_HANDLE
        elif access == os.O_WRONLY and _DIRECT:
            direct = not (_has_privileges(inode) or self._durability.is_mappable(inode))
            if direct:
                fh |= DIRECT_HANDLE
        _info.fh = fh
        _info.direct_io = direct
        return _info

    async def open(self, inode: int, flags: int, ctx: RequestContext) -> FileInfo:
        """Open a file; pages that the kernel holds stay."""
        try:
            found = self._get(inode)
            if found is None:
                if flags & os.O_ACCMODE != os.O_RDONLY or flags & os.O_TRUNC:
                    raise FUSEError(errno.EROFS)
                self._history.open_file(inode)
                _info.fh = inode
                _info.direct_io = False
                return _info
            if self._read_only and (flags & os.O_ACCMODE != os.O_RDONLY or flags & os.O_TRUNC):
                raise FUSEError(errno.EROFS)
            if flags & os.O_TRUNC:
                self._empty(found, ctx.uid)
            return self._open(found, flags)
        except Exception as error:
            return await self._again(error, self.open, inode, flags, ctx)

    def _empty(self, inode: Inode, uid: int) -> None:
        """Cut a file that is being opened. The kernel leaves its set-id bits to us then, and keeps them in mind."""
        mask, mode = record.SET_SIZE, inode.mode
        if uid != 0 and mode & _SET_ID:
            mask |= record.SET_MODE
            mode = _without_set_id(mode)
        self._worktree.setattr(inode, mask, mode=mode, size=0)
        if mask & record.SET_MODE:
            forget_attributes(self._place.nodeid(inode))

    async def release(self, fh: int) -> None:
        """Close a file; the last one of an unlinked file frees it."""
        inode = self._get(fh & NODEID_MASK)
        if inode is None:
            self._history.release(fh & NODEID_MASK, 1)
            return
        if fh & WRITABLE_HANDLE:
            self._durability.closed_for_mapping(inode)
        self._index.release(inode, 1)

    async def read(self, fh: int, off: int, size: int) -> bytes:
        """Read bytes."""
        try:
            inode = self._get(fh & NODEID_MASK)
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
            inode = self._get(fh & NODEID_MASK)
            assert inode is not None
            if fh & DIRECT_HANDLE and _has_privileges(inode):
                self._lose_privileges(inode)
            return self._worktree.write(inode, off, buf)
        except Exception as error:
            return await self._again(error, self.write, fh, off, buf)

    def _lose_privileges(self, inode: Inode) -> None:
        """Take away what a file that is written must not keep, whoever writes: pyfuse3 does not say who it is."""
        mode = _without_set_id(inode.mode)
        if mode != inode.mode:
            self._worktree.setattr(inode, record.SET_MODE, mode=mode)
            forget_attributes(self._place.nodeid(inode))
        if inode.xattrs is not None and _CAPABILITIES in inode.xattrs:
            self._worktree.removexattr(inode, _CAPABILITIES)

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
            if inode == self._root_nodeid:
                # `.snapshots` and `.branches` have the root's owner.
                for nodeid in self._history.control_nodeids:
                    forget_attributes(nodeid)
            return self._show(found)
        except Exception as error:
            return await self._again(error, self.setattr, inode, attr, fields, fh, ctx)

    async def getxattr(self, inode: int, name: bytes, ctx: RequestContext) -> bytes:
        """Return an extended attribute. The kernel asks for `security.capability` before every write."""
        found = self._get(inode)
        if found is not None:
            if found.xattrs is not None:
                value = found.xattrs.get(name)
                if value is not None:
                    return value
            if name != _CAPABILITIES and name not in _ACLS:
                _check_attribute(name)
            raise FUSEError(errno.ENODATA)
        try:
            return self._history.getxattr(inode, name)
        except Exception as error:
            return await self._again(error, self.getxattr, inode, name, ctx)

    async def listxattr(self, inode: int, ctx: RequestContext) -> Sequence[bytes]:
        """Return the names of the extended attributes; `trusted.` ones are root's to see."""
        found = self._get(inode)
        try:
            held = found.xattrs if found is not None else self._history.xattrs(inode)
        except Exception as error:
            return await self._again(error, self.listxattr, inode, ctx)
        return [name for name in held or () if ctx.uid == 0 or not name.startswith(b"trusted.")]

    async def setxattr(self, inode: int, name: bytes, value: bytes, ctx: RequestContext) -> None:
        """Set an extended attribute."""
        try:
            found = self._live(inode)
            _check_attribute(name)
            self._worktree.setxattr(found, name, value)
        except Exception as error:
            await self._again(error, self.setxattr, inode, name, value, ctx)

    async def removexattr(self, inode: int, name: bytes, ctx: RequestContext) -> None:
        """Remove an extended attribute."""
        try:
            found = self._live(inode)
            if name not in _ACLS:
                _check_attribute(name)
            self._worktree.removexattr(found, name)
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


def _check_attribute(name: bytes) -> None:
    """Refuse what no filesystem has an attribute for, by the errors that the kernel's own ones answer."""
    namespace, dot, rest = name.partition(b".")
    if namespace not in _NAMESPACES or not dot:
        raise FUSEError(errno.EOPNOTSUPP)  # access control lists too
    if not rest:
        raise FUSEError(errno.EINVAL)


def _has_privileges(inode: Inode) -> bool:
    """Tell whether a file has something that it loses when it is written."""
    return bool(inode.mode & _SET_ID) or (inode.xattrs is not None and _CAPABILITIES in inode.xattrs)


def _without_set_id(mode: int) -> int:
    return mode & ~(stat.S_ISUID | (stat.S_ISGID if mode & stat.S_IXGRP else 0))
