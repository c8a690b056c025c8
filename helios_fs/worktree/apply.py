"""Changes: what each journal record does to the index.

The mount calls these after it has appended the record, replay calls them with what it has decoded: there is one
meaning of a record. They check nothing; whoever appended the record did.

A1. A function here touches every inode that it changes before it changes it.
A2. The same records over the same tree give the same state, byte for byte: no clock, no randomness, no environment.
"""

from __future__ import annotations

import stat

from helios_fs.objects import record
from helios_fs.objects.entry import Entry
from helios_fs.worktree import content, extents
from helios_fs.worktree.index import NO_NAMES, Index
from helios_fs.worktree.inode import Inode


def create(
    index: Index,
    parent: Inode,
    name: bytes,
    ino: int,
    mode: int,
    uid: int,
    gid: int,
    rdev: int,
    target: bytes,
    now_ns: int,
) -> Inode:
    """Make a new inode of any type under a name that was free."""
    index.touch(parent)
    inode = Inode(ino, mode, uid, gid, rdev, now_ns)
    if stat.S_ISDIR(mode):
        inode.nlink = 2
        parent.nlink += 1
    elif target:
        inode.base = target
        inode.size = len(target)
    index.add(inode)
    index.hold(inode, parent, name)
    _set_name(index, parent, name, inode, replaced=False)
    parent.size += 1
    parent.mtime_ns = parent.ctime_ns = now_ns
    return inode


def unlink(index: Index, parent: Inode, name: bytes, inode: Inode, now_ns: int) -> None:
    """Take a name away; a directory must be empty."""
    index.touch(parent)
    _clear_name(index, parent, name)
    parent.size -= 1
    parent.mtime_ns = parent.ctime_ns = now_ns
    _lose_name(index, parent, inode, now_ns)


def _lose_name(index: Index, parent: Inode, inode: Inode, now_ns: int) -> None:
    index.touch(inode)
    inode.ctime_ns = now_ns
    if inode.is_directory:
        parent.nlink -= 1
        inode.nlink = 0
    else:
        inode.nlink -= 1
    if not inode.nlink:
        if index.gone is not None:
            # It may have gone, come back by a restore without other names, and gone again.
            index.gone[inode.ino] = inode.linked or index.gone.get(inode.ino, False)
        if inode.linked:
            index.unlinked[inode.ino] = index.epoch
        index.hold(inode, None, b"")
        index.orphans[inode.ino] = inode
        index.forget_if_idle(inode)


def _set_name(index: Index, directory: Inode, name: bytes, inode: Inode, replaced: bool) -> None:
    names = directory.names if directory.names is not None else NO_NAMES
    before = names.get(name)
    in_base = replaced if before is None else (before[2] or before[1] != index.epoch)
    directory.names = names.set(name, (inode, index.epoch, in_base))


def _clear_name(index: Index, directory: Inode, name: bytes) -> None:
    names = directory.names if directory.names is not None else NO_NAMES
    before = names.get(name)
    if before is not None and not before[2] and before[1] == index.epoch:
        directory.names = names.delete(name)
    else:
        directory.names = names.set(name, (None, index.epoch, True))


def rename(
    index: Index,
    old_parent: Inode,
    old_name: bytes,
    new_parent: Inode,
    new_name: bytes,
    inode: Inode,
    replaced: Inode | None,
    now_ns: int,
) -> None:
    """Move a name, over what the new one meant (an empty directory, or anything that is not one)."""
    index.touch(old_parent)
    index.touch(new_parent)
    index.touch(inode)
    _clear_name(index, old_parent, old_name)
    _set_name(index, new_parent, new_name, inode, replaced is not None)
    old_parent.size -= 1
    if replaced is None:
        new_parent.size += 1
    if inode.is_directory and old_parent is not new_parent:
        old_parent.nlink -= 1
        new_parent.nlink += 1
    if not inode.linked:
        index.hold(inode, new_parent, new_name)
    inode.ctime_ns = now_ns
    old_parent.mtime_ns = old_parent.ctime_ns = now_ns
    new_parent.mtime_ns = new_parent.ctime_ns = now_ns
    if replaced is not None:
        _lose_name(index, new_parent, replaced, now_ns)


def exchange(
    index: Index,
    old_parent: Inode,
    old_name: bytes,
    new_parent: Inode,
    new_name: bytes,
    inode: Inode,
    other: Inode,
    now_ns: int,
) -> None:
    """Let two names swap what they mean."""
    for changed in (old_parent, new_parent, inode, other):
        index.touch(changed)
    _set_name(index, old_parent, old_name, other, replaced=True)
    _set_name(index, new_parent, new_name, inode, replaced=True)
    if old_parent is not new_parent:
        balance = int(other.is_directory) - int(inode.is_directory)
        old_parent.nlink += balance
        new_parent.nlink -= balance
    if not inode.linked:
        index.hold(inode, new_parent, new_name)
    if not other.linked:
        index.hold(other, old_parent, old_name)
    for changed in (inode, other):
        changed.ctime_ns = now_ns
    for changed in (old_parent, new_parent):
        changed.mtime_ns = changed.ctime_ns = now_ns


def link(index: Index, inode: Inode, parent: Inode, name: bytes, now_ns: int) -> None:
    """Give an inode one more name; from the second on it lives in the link table."""
    index.touch(parent)
    index.touch(inode)
    if not inode.linked:
        first = inode.parent
        inode.linked = True
        if first is not None:
            # Its first name must be written anew, as a reference to the link table.
            index.touch(first)
            _set_name(index, first, inode.name, inode, replaced=True)
        index.hold(inode, None, b"")
    _set_name(index, parent, name, inode, replaced=False)
    inode.nlink += 1
    inode.ctime_ns = now_ns
    parent.size += 1
    parent.mtime_ns = parent.ctime_ns = now_ns


def write(index: Index, inode: Inode, offset: int, end: int, position: int, now_ns: int) -> None:
    """Let bytes offset..end of a file be the data of the record at `position`."""
    index.touch(inode)
    size = inode.size
    if inode.allocated >= size and offset <= size:
        # No holes so far and none now.
        if end > size:
            inode.size = inode.allocated = end
    else:
        inode.allocated += end - offset - content.covered(index.objects, inode, offset, min(end, size))
        inode.size = max(end, size)
    inode.regions = extents.insert(inode.regions, offset, end, position)
    inode.mtime_ns = inode.ctime_ns = now_ns


def resize(index: Index, inode: Inode, size: int, now_ns: int) -> None:
    """Cut a file, or let it grow by a hole."""
    index.touch(inode)
    if size < inode.size:
        if inode.allocated >= inode.size:
            inode.allocated = size
        else:
            inode.allocated = content.covered(index.objects, inode, 0, size)
        if inode.regions is not None:
            inode.regions = extents.cut(inode.regions, size)
        inode.limit = min(inode.limit, size)
        inode.low = min(inode.low, size)
    inode.size = size
    inode.mtime_ns = inode.ctime_ns = now_ns


def setattr_(
    index: Index,
    inode: Inode,
    mask: int,
    mode: int,
    uid: int,
    gid: int,
    size: int,
    atime_ns: int,
    mtime_ns: int,
    now_ns: int,
) -> None:
    """Set the attributes that `mask` names (`record.SET_…`); the type in `mode` is not changed."""
    index.touch(inode)
    if mask & record.SET_SIZE:
        resize(index, inode, size, now_ns)
    if mask & record.SET_MODE:
        inode.mode = stat.S_IFMT(inode.mode) | stat.S_IMODE(mode)
    if mask & record.SET_UID:
        inode.uid = uid
    if mask & record.SET_GID:
        inode.gid = gid
    if mask & record.SET_ATIME:
        inode.atime_ns = atime_ns
    if mask & record.SET_MTIME:
        inode.mtime_ns = mtime_ns
    inode.ctime_ns = now_ns


def setxattr(index: Index, inode: Inode, name: bytes, value: bytes, now_ns: int) -> None:
    """Set an extended attribute."""
    index.touch(inode)
    inode.xattrs = {**(inode.xattrs or {}), name: value}
    inode.ctime_ns = now_ns


def removexattr(index: Index, inode: Inode, name: bytes, now_ns: int) -> None:
    """Remove an extended attribute."""
    index.touch(inode)
    inode.xattrs = {key: value for key, value in (inode.xattrs or {}).items() if key != name} or None
    inode.ctime_ns = now_ns


def graft(index: Index, parent: Inode, name: bytes, entry: Entry, now_ns: int) -> Inode:
    """Place an inode that the store holds, with all that lies below it, under a name that was free."""
    index.touch(parent)
    inode = Inode.from_entry(entry)
    inode.own_base = True
    index.add(inode)
    index.hold(inode, parent, name)
    _set_name(index, parent, name, inode, replaced=False)
    parent.size += 1
    if inode.is_directory:
        parent.nlink += 1
    parent.mtime_ns = parent.ctime_ns = now_ns
    return inode


def assume(index: Index, inode: Inode, entry: Entry, now_ns: int) -> None:
    """Let a file take attributes and content of an entry that the store holds; a directory only the attributes."""
    index.touch(inode)
    inode.mode = entry.mode
    inode.uid = entry.uid
    inode.gid = entry.gid
    inode.rdev = entry.rdev
    inode.xattrs = entry.xattrs
    inode.atime_ns = entry.atime_ns
    inode.mtime_ns = entry.mtime_ns
    inode.ctime_ns = now_ns
    if inode.is_directory:
        return
    inode.size = entry.size
    inode.allocated = entry.allocated
    inode.base = entry.content
    inode.base_size = inode.limit = entry.size
    inode.regions = None
    inode.own_base = True
