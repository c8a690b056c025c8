"""The working tree of a branch: what a mount asks of it, in terms of inodes and names.

Knows nothing of kernel requests or errno. Synchronous: it raises ColdObject rather than wait for the store.

W1. Check, append, apply: a change is in the journal before memory shows it and before anybody is told.
W2. Everything that can fail for a reason that the caller should hear of is checked before the append.
W3. An exception between append and the end of apply makes the branch read-only: memory may be half changed, the
    journal is right, and a remount rebuilds memory from it.
W4. What a record names is bound first (R1 in objects/record.py).
"""

from __future__ import annotations

import stat
import time
from collections.abc import Callable
from typing import Any, Final

from helios_fs.errors import (
    DirectoryNotEmpty,
    EntryExists,
    FileTooLarge,
    InvalidArgument,
    IsADirectory,
    NameTooLong,
    NoSuchAttribute,
    NoSuchEntry,
    NotADirectory,
    NotPermitted,
    ReadOnly,
    TooManyLinks,
)
from helios_fs.journal.journal import Journal
from helios_fs.objects import record
from helios_fs.objects.entry import Entry
from helios_fs.objects.snapshot import Fork
from helios_fs.store.objects import Objects
from helios_fs.worktree import apply, content
from helios_fs.worktree.assembled import MANY_PIECES, Assembled, find
from helios_fs.worktree.epochs import Epochs
from helios_fs.worktree.extents import REGION_BYTES
from helios_fs.worktree.index import Index
from helios_fs.worktree.inode import MAX_FILE_BYTES, MAX_NAME_BYTES, Inode
from helios_fs.worktree.inos import Inos
from helios_fs.worktree.moving import check_outside, check_replaceable
from helios_fs.worktree.snapshots import Snapshots
from helios_fs.worktree.xattrs import check_xattr

MIN_TIME_NS: Final = -(1 << 63)
MAX_TIME_NS: Final = (1 << 63) - 1
"""The years 1677 to 2262."""
MAX_LINKS: Final = 65_000
MAX_BIND_STEPS: Final = 2048
"""A step has 272 bytes at most, and a record's payload 1 MiB."""

_now_ns = time.time_ns


class Worktree(Epochs):
    """One branch's newest state, and the only way to change it; `Epochs` has what closes epochs."""

    def __init__(
        self, branch: str, index: Index, journal: Journal, objects: Objects, inos: Inos, snapshots: Snapshots
    ) -> None:
        self.branch = branch
        self.index = index
        self.inodes = index.inodes
        self.journal = journal
        self.objects = objects
        self.snapshots = snapshots
        self._inos = inos
        self._assembled = Assembled()
        self.fault: BaseException | None = None
        self.changed_in_epoch = False
        self.unfinished_forks: list[tuple[Fork, int]] = []
        """Branches that its journal says were made and that are not there yet, with the positions behind that."""

    # -- Appending ---------------------------------------------------------------------------------------------------

    def _check_healthy(self) -> None:
        if self.fault is not None:
            raise ReadOnly("the branch is read-only after a fault; unmount and mount it again")

    def _record(
        self, kind: int, flags: int, payload: bytes, change: Callable[..., Any], *arguments: Any, frees: bool = False
    ) -> Any:
        """Append a record without data, then apply it; the record's time is the last argument of `change`.

        `frees`: it leads to free space, and so is possible on a full disk.
        """
        self._check_healthy()
        now_ns = _now_ns()
        self.journal.append(kind, flags, now_ns, payload, b"", frees)
        self.changed_in_epoch = True
        try:
            return change(self.index, *arguments, now_ns)
        except BaseException as error:
            self.fault = error
            raise

    def bind(self, *inodes: Inode, frees: bool = False) -> None:
        """Make sure that the journal says, in this epoch, where these inodes lie in the base."""
        epoch = self.index.epoch
        chain: list[Inode] = []
        for inode in inodes:
            here: Inode | None = inode
            below = len(chain)
            while here is not None and here.bound != epoch and here.nlink and here not in chain:
                chain.insert(below, here)
                here = here.parent
        if not chain:
            return
        root = self.index.root
        steps = [(i.ino, i.parent.ino if i.parent is not None else 0, i.name) for i in chain if i is not root]
        for start in range(0, len(steps), MAX_BIND_STEPS):
            self._check_healthy()
            payload = record.pack_bind(steps[start : start + MAX_BIND_STEPS])
            self.journal.append(record.BIND, 0, _now_ns(), payload, b"", frees)
            self.changed_in_epoch = True
        for inode in chain:
            inode.bound = epoch

    # -- Names -------------------------------------------------------------------------------------------------------

    def _child(self, parent: Inode, name: bytes) -> Inode:
        inode = self.index.find(parent, name)
        if inode is None:
            raise NoSuchEntry(f"no such name: {name!r}")
        return inode

    def _check_free(self, parent: Inode, name: bytes) -> None:
        if len(name) > MAX_NAME_BYTES:
            raise NameTooLong("a name may have 255 bytes")
        if not parent.is_directory:
            raise NotADirectory("not a directory")
        if not parent.nlink:
            raise NoSuchEntry("the directory was removed")
        found = self.index.find(parent, name)
        if found is not None:
            self.index.forget_if_idle(found)
            raise EntryExists(f"the name is taken: {name!r}")

    def create(
        self, parent: Inode, name: bytes, mode: int, uid: int, gid: int, rdev: int = 0, target: bytes = b""
    ) -> Inode:
        """Make a file, directory, symlink, fifo, socket or device node; `mode` holds the type.

        Raises EntryExists, NameTooLong, NotADirectory, NoSuchEntry (the directory is gone), StoreFull, ReadOnly.
        """
        self._check_free(parent, name)
        if parent.mode & stat.S_ISGID:
            gid = parent.gid
            if stat.S_ISDIR(mode):
                mode |= stat.S_ISGID
        if parent.bound != self.index.epoch:
            self.bind(parent)
        ino = self._inos.take()
        payload = record.pack_create(parent.ino, ino, mode, uid, gid, rdev, name, target)
        inode = self._record(record.CREATE, 0, payload, apply.create, parent, name, ino, mode, uid, gid, rdev, target)
        assert isinstance(inode, Inode)
        return inode

    def unlink(self, parent: Inode, name: bytes) -> Inode:
        """Take the name of something that is not a directory away; return what it named."""
        inode = self._child(parent, name)
        if inode.is_directory:
            raise IsADirectory("is a directory")
        self._drop_name(parent, name, inode)
        return inode

    def rmdir(self, parent: Inode, name: bytes) -> Inode:
        """Remove an empty directory; return it."""
        inode = self._child(parent, name)
        if not inode.is_directory:
            raise NotADirectory("not a directory")
        if inode.size:
            raise DirectoryNotEmpty("the directory is not empty")
        self._drop_name(parent, name, inode)
        return inode

    def _drop_name(self, parent: Inode, name: bytes, inode: Inode) -> None:
        epoch = self.index.epoch
        if parent.bound != epoch or inode.bound != epoch:
            self.bind(parent, inode, frees=True)
        payload = record.pack_named(parent.ino, inode.ino, name)
        self._record(record.UNLINK, 0, payload, apply.unlink, parent, name, inode, frees=True)

    def rename(
        self, old_parent: Inode, old_name: bytes, new_parent: Inode, new_name: bytes, exchange: bool, replace: bool
    ) -> None:
        """Move a name, over an existing one where `replace`, or let two names swap.

        Raises EntryExists (not `replace`), NoSuchEntry, IsADirectory, NotADirectory, DirectoryNotEmpty,
        InvalidArgument (a directory into itself), NameTooLong.
        """
        inode, other = self.check_rename(old_parent, old_name, new_parent, new_name, exchange, replace)
        if other is inode:
            # rename(2): two names of one inode stay as they are.
            return
        if other is None:
            self.bind(old_parent, new_parent, inode)
        else:
            self.bind(old_parent, new_parent, inode, other)
        payload = record.pack_rename(
            old_parent.ino,
            inode.ino,
            new_parent.ino,
            other.ino if other is not None else 0,
            record.EXCHANGE if exchange else 0,
            old_name,
            new_name,
        )
        change = apply.exchange if exchange else apply.rename
        self._record(record.RENAME, 0, payload, change, old_parent, old_name, new_parent, new_name, inode, other)

    def check_rename(
        self, old_parent: Inode, old_name: bytes, new_parent: Inode, new_name: bytes, exchange: bool, replace: bool
    ) -> tuple[Inode, Inode | None]:
        """Return what `rename` would move and what has the new name, and change nothing. Raises as `rename` does."""
        inode = self._child(old_parent, old_name)
        if len(new_name) > MAX_NAME_BYTES:
            raise NameTooLong("a name may have 255 bytes")
        if not new_parent.nlink:
            raise NoSuchEntry("the directory was removed")
        other = self.index.find(new_parent, new_name)
        if inode.is_directory:
            check_outside(new_parent, inode)
        if exchange:
            if other is None:
                raise NoSuchEntry("there is nothing to exchange with")
            if other.is_directory:
                check_outside(old_parent, other)
        elif other is not None:
            if not replace:
                raise EntryExists("the name is taken")
            check_replaceable(inode, other)
        return inode, other

    def link(self, inode: Inode, parent: Inode, name: bytes) -> None:
        """Give an inode one more name."""
        if inode.is_directory:
            raise NotPermitted("a directory has one name")
        if not inode.nlink:
            raise NoSuchEntry("the file has no name left to link")
        if inode.nlink >= MAX_LINKS:
            raise TooManyLinks(f"an inode may have {MAX_LINKS} names")
        self._check_free(parent, name)
        if inode.parent is not None:
            self.bind(parent, inode, inode.parent)
        else:
            self.bind(parent, inode)
        payload = record.pack_named(parent.ino, inode.ino, name)
        self._record(record.LINK, 0, payload, apply.link, inode, parent, name)

    # -- Content and attributes --------------------------------------------------------------------------------------

    def read(self, inode: Inode, offset: int, length: int) -> bytes:
        """Return up to `length` bytes of a file, fewer only at its end. Raises ColdObject, CorruptObject."""
        if inode.run is not None:
            kept = find(inode, offset, max(offset, min(offset + length, inode.size)))
            if kept is not None:
                return kept
        data = content.read(self.journal, self.objects, inode, offset, length)
        if inode.regions is not None and len(inode.regions.get(offset // REGION_BYTES, ())) >= MANY_PIECES:
            self._assembled.keep(inode, offset, data)
        return data

    def write(self, inode: Inode, offset: int, data: bytes) -> int:
        """Write all of `data` at `offset` and return its length. Survives the death of the process on return."""
        self._check_healthy()
        end = offset + len(data)
        if end > MAX_FILE_BYTES:
            raise FileTooLarge("past the largest file size")
        if not data:
            return 0
        if inode.allocated < inode.size and inode.base:
            # Counting holes may need a cold page of the base: hear of it before the append.
            content.covered(self.objects, inode, offset, min(end, inode.size))
        flags = 0
        if not inode.nlink:
            flags = record.ORPHAN
        elif inode.bound != self.index.epoch:
            self.bind(inode)
        now_ns = _now_ns()
        position = self.journal.append(record.WRITE, flags, now_ns, record.pack_write(inode.ino, offset), data)
        self.changed_in_epoch = True
        try:
            apply.write(self.index, inode, offset, end, position, now_ns)
            if inode.run is not None:
                self._assembled.written(inode, offset, data)
        except BaseException as error:
            self.fault = error
            raise
        return len(data)

    def setattr(
        self,
        inode: Inode,
        mask: int,
        mode: int = 0,
        uid: int = 0,
        gid: int = 0,
        size: int = 0,
        atime_ns: int = 0,
        mtime_ns: int = 0,
    ) -> None:
        """Set what `mask` names (`record.SET_…`); sizes in bytes, times in nanoseconds since 1970."""
        if mask & record.SET_SIZE:
            if inode.is_directory:
                raise IsADirectory("is a directory")
            if not 0 <= size <= MAX_FILE_BYTES:
                raise FileTooLarge("past the largest file size")
            if size < inode.size and inode.allocated < inode.size:
                content.covered(self.objects, inode, 0, size)
            self._assembled.drop(inode)
        frees = bool(mask & record.SET_SIZE) and size < inode.size
        flags = 0 if inode.nlink else record.ORPHAN
        if inode.nlink and inode.bound != self.index.epoch:
            self.bind(inode, frees=frees)
        # What 64 bits of nanoseconds cannot say becomes the nearest that they can, as on ext4 beyond 2446.
        atime_ns = min(max(atime_ns, MIN_TIME_NS), MAX_TIME_NS)
        mtime_ns = min(max(mtime_ns, MIN_TIME_NS), MAX_TIME_NS)
        payload = record.pack_setattr(inode.ino, mask, mode, uid, gid, size, atime_ns, mtime_ns)
        changes = (inode, mask, mode, uid, gid, size, atime_ns, mtime_ns)
        self._record(record.SETATTR, flags, payload, apply.setattr_, *changes, frees=frees)

    @staticmethod
    def getxattr(inode: Inode, name: bytes) -> bytes:
        """Return an extended attribute. Raises NoSuchAttribute."""
        if inode.xattrs is None or (value := inode.xattrs.get(name)) is None:
            raise NoSuchAttribute("no such attribute")
        return value

    def setxattr(self, inode: Inode, name: bytes, value: bytes) -> None:
        """Set an extended attribute. Raises AttributeTooLarge."""
        check_xattr(inode.xattrs or {}, name, value)
        self._change_xattr(inode, record.SETXATTR, record.pack_xattr(inode.ino, name, value), name, value)

    def removexattr(self, inode: Inode, name: bytes) -> None:
        """Remove an extended attribute. Raises NoSuchAttribute."""
        self.getxattr(inode, name)
        self._change_xattr(inode, record.REMOVEXATTR, record.pack_xattr(inode.ino, name), name)

    def _change_xattr(self, inode: Inode, kind: int, payload: bytes, *arguments: bytes) -> None:
        flags = 0 if inode.nlink else record.ORPHAN
        self.bind(inode)
        change = apply.setxattr if kind == record.SETXATTR else apply.removexattr
        self._record(kind, flags, payload, change, inode, *arguments)

    # -- Stored entries (restore) ------------------------------------------------------------------------------------

    def graft(self, parent: Inode, name: bytes, entry: Entry) -> Inode:
        """Place an entry of the store, with all that lies below it, under a free name.

        Its inode number must not be in memory: the caller gives it a new one (`take_ino`) where it is.
        """
        self._check_free(parent, name)
        if entry.ino in self.inodes:
            raise InvalidArgument(f"inode {entry.ino} is in use")
        self.bind(parent)
        payload = record.pack_graft(parent.ino, name, entry)
        inode = self._record(record.GRAFT, 0, payload, apply.graft, parent, name, entry)
        assert isinstance(inode, Inode)
        return inode

    def assume(self, inode: Inode, entry: Entry) -> None:
        """Let an inode take attributes and content of an entry of the store; number, names and link count stay."""
        self.bind(inode)
        if entry.ino != inode.ino:
            raise InvalidArgument("an inode can only assume an entry of its own number")
        self._assembled.drop(inode)
        self._record(record.ASSUME, 0, record.pack_assume(entry), apply.assume, inode, entry)

    def take_ino(self) -> int:
        """Return an inode number that nobody has."""
        return self._inos.take()
