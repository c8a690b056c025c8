"""Requests: one thin method for each, straight onto the working tree. Here: what names and directories mean.

Everything that is not the working tree (snapshots, control directories) is found by a miss on the inode table and goes
to `history_dir.py`, so that the common path pays nothing for it.

O1. A handler waits only where it must (a cold object, a sync, write-back before a snapshot); all else is plain calls.
O2 and O3 stand in `requests.py`.
"""

import errno
import os
import stat
from collections.abc import Sequence
from typing import Final

import pyfuse3
from pyfuse3 import EntryAttributes, FileInfo, FUSEError, RequestContext

from helios_fs.errors import (
    ColdObject,
    CrossesView,
    EntryExists,
    InvalidArgument,
    NameTooLong,
    NotPermitted,
)
from helios_fs.fuse import attributes
from helios_fs.fuse.branches_dir import BranchesDir
from helios_fs.fuse.file_requests import FileRequests
from helios_fs.worktree.index import overlay_names
from helios_fs.worktree.inode import MAX_NAME_BYTES, Inode
from helios_fs.worktree.whiteout import rename_leaving_whiteout

_RENAME_NOREPLACE: Final = 1
_RENAME_EXCHANGE: Final = 2
_RENAME_WHITEOUT: Final = 4
_RENAME_FLAGS: Final = frozenset(
    {0, _RENAME_NOREPLACE, _RENAME_EXCHANGE, _RENAME_WHITEOUT, _RENAME_WHITEOUT | _RENAME_NOREPLACE}
)
_DOT: Final = 1
_DOT_DOT: Final = 2


class Operations(FileRequests):
    """The filesystem as pyfuse3 calls it."""

    # -- Lookups -----------------------------------------------------------------------------------------------------

    async def lookup(self, parent_inode: int, name: bytes, ctx: RequestContext | None = None) -> EntryAttributes:
        """Say what a name means; a name that is not there is remembered by the kernel too."""
        try:
            parent = self._get(parent_inode)
            if parent is None or (parent_inode == self._root_nodeid and name in self._hidden):
                branches = self._history.branches_at(parent_inode)
                if branches is not None:
                    return branches.lookup(name)
                return self._history.lookup(parent_inode, name)
            inode = self._index.find(parent, name)
            if inode is None:
                if len(name) > MAX_NAME_BYTES:
                    raise NameTooLong("a name may have 255 bytes")
                return attributes.absent()
            inode.holds += 1
            return self._show(inode)
        except Exception as error:
            return await self._again(error, self.lookup, parent_inode, name, ctx)

    async def forget(self, inode_list: Sequence[tuple[int, int]]) -> None:
        """Give back what lookups took."""
        get, root = self._get, self._index.root
        for nodeid, count in inode_list:
            inode = get(nodeid)
            if inode is root:
                continue
            if inode is not None:
                if inode.holds > count:
                    inode.holds -= count
                else:
                    self._index.release(inode, count)
            else:
                self._history.release(nodeid, count)

    async def getattr(self, inode: int, ctx: RequestContext | None = None) -> EntryAttributes:
        """Return attributes."""
        found = self._get(inode)
        if found is not None:
            return self._show(found)
        try:
            return self._history.getattr(inode)
        except Exception as error:
            return await self._again(error, self.getattr, inode, ctx)

    async def readlink(self, inode: int, ctx: RequestContext) -> bytes:
        """Return a symlink's target."""
        found = self._get(inode)
        if found is not None:
            return found.base
        try:
            return self._history.readlink(inode)
        except Exception as error:
            return await self._again(error, self.readlink, inode, ctx)

    # -- Directories -------------------------------------------------------------------------------------------------

    async def opendir(self, inode: int, ctx: RequestContext) -> int:
        """Open a directory; the handle is its nodeid, and a listing begins at cookie 0."""
        found = self._get(inode)
        if found is not None:
            found.holds += 1
            return inode
        try:
            self._history.open_directory(inode)
            return inode
        except Exception as error:
            return await self._again(error, self.opendir, inode, ctx)

    async def releasedir(self, fh: int) -> None:
        """Close a directory."""
        found = self._get(fh)
        if found is not None:
            self._overlays.pop(fh, None)
            self._index.release(found, 1)
        else:
            self._history.release_directory(fh)

    async def readdir(self, fh: int, start_id: int, token: pyfuse3.ReaddirToken) -> None:
        """List a directory from a cookie on, with attributes; each entry sent counts as a lookup."""
        sent = False
        try:
            directory = self._get(fh)
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
            shown = self._history.listed_names if fh == self._root_nodeid else ()
            for cookie, name in self._index.listing(directory, after, overlay):
                inode = self._index.find(directory, name)
                if inode is None or (fh == self._root_nodeid and name in self._hidden):
                    continue
                if not pyfuse3.readdir_reply(token, name, self._show(inode), cookie):
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

    def _send_dots(self, directory: Inode, start_id: int, token: pyfuse3.ReaddirToken) -> bool:
        if start_id < _DOT and not pyfuse3.readdir_reply(token, b".", self._show(directory), _DOT):
            return False
        above = directory.parent if directory.parent is not None else directory
        return pyfuse3.readdir_reply(token, b"..", self._show(above), _DOT_DOT)

    # -- Names -------------------------------------------------------------------------------------------------------

    def _parent(self, nodeid: int, name: bytes) -> Inode:
        parent = self._live(nodeid)
        if nodeid == self._root_nodeid and name in self._hidden:
            raise NotPermitted("this name is the filesystem's own")
        return parent

    def _held(self, inode: Inode) -> EntryAttributes:
        inode.holds += 1
        return self._show(inode)

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
                if flags & os.O_TRUNC:
                    self._empty(inode, ctx.uid)
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
        """Make a directory, a snapshot in `.snapshots`, a branch in `.branches`."""
        try:
            if self._history.is_control(parent_inode):
                return await self._history.mkdir(parent_inode, name, ctx)
            branches = self._history.branches_at(parent_inode)
            if branches is not None:
                return await self._make_branch(branches, name, ctx)
            parent = self._parent(parent_inode, name)
            return self._held(self._worktree.create(parent, name, mode, ctx.uid, ctx.gid))
        except Exception as error:
            return await self._again(error, self.mkdir, parent_inode, name, mode, ctx)

    async def _make_branch(self, branches: BranchesDir, name: bytes, ctx: RequestContext) -> EntryAttributes:
        if self._read_only:
            raise FUSEError(errno.EROFS)
        if self._durability.has_mappable:
            await self._durability.write_back()
        return branches.make(name, ctx.uid)

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
            if (self._get(inode) is None) != (self._get(new_parent_inode) is None):
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
        """Remove an empty directory, or delete a snapshot in `.snapshots`, a branch in `.branches`."""
        try:
            if self._history.is_control(parent_inode):
                self._history.rmdir(parent_inode, name)
                return
            branches = self._history.branches_at(parent_inode)
            if branches is not None:
                await branches.remove(name)
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
            if flags not in _RENAME_FLAGS:
                raise InvalidArgument("unknown rename flags")
            if self._get(parent_inode_old) is None or self._get(parent_inode_new) is None:
                await self._rename_history(parent_inode_old, name_old, parent_inode_new, name_new, flags)
                return
            old_parent = self._parent(parent_inode_old, name_old)
            new_parent = self._parent(parent_inode_new, name_new)
            replace = not flags & _RENAME_NOREPLACE
            if flags & _RENAME_WHITEOUT:
                rename_leaving_whiteout(
                    self._worktree, old_parent, name_old, new_parent, name_new, replace, ctx.uid, ctx.gid
                )
                return
            exchange = flags == _RENAME_EXCHANGE
            self._worktree.rename(old_parent, name_old, new_parent, name_new, exchange, replace)
        except Exception as error:
            await self._again(error, self.rename, parent_inode_old, name_old, parent_inode_new, name_new, flags, ctx)

    async def _rename_history(
        self, old_parent: int, old_name: bytes, new_parent: int, new_name: bytes, flags: int
    ) -> None:
        if flags & _RENAME_WHITEOUT:
            raise InvalidArgument("a whiteout takes the place of a file, not of a snapshot or a branch")
        branches = self._history.branches_at(old_parent)
        if branches is not None and new_parent == old_parent and flags != _RENAME_EXCHANGE:
            await branches.rename(old_name, new_name)
        else:
            self._history.rename(old_parent, old_name, new_parent, new_name, flags)
