"""Replay: from journal frames back to calls of `apply`.

The mount uses it to rebuild memory after a crash, the sealer to seal: the same code, so that no path runs only after
a crash.

Y1. A record that does not fit the state it meets is damage: CorruptObject, and nothing after it is applied. A name
    that is to be free is looked for in memory only, so that replay need not read the base for it.
"""

import stat
from collections.abc import Callable
from typing import Final

from helios_fs.errors import CorruptObject, ObjectMissing
from helios_fs.journal.journal import Frame
from helios_fs.objects import record
from helios_fs.objects.entry import decode_entry, directory_key
from helios_fs.store import maps
from helios_fs.worktree import apply
from helios_fs.worktree.index import Index
from helios_fs.worktree.inode import MAX_FILE_BYTES, MAX_NAME_BYTES, Inode

CLOSES_EPOCH: Final = frozenset({record.FREEZE, record.SNAPSHOT, record.FORK})
"""Kinds that end an epoch: the records after them belong to the next."""

ABOUT_SNAPSHOTS: Final = frozenset({record.SNAPSHOT, record.SNAPSHOT_CHANGED, record.SNAPSHOT_DELETE})
"""Kinds that change which snapshots there are, and not the tree."""

BESIDE_THE_TREE: Final = frozenset({record.FREEZE, record.FORK, record.SNAPSHOT_CHANGED, record.SNAPSHOT_DELETE})
"""Kinds after which the tree is what it was, and the newest snapshot too."""


def replay_frame(index: Index, frame: Frame) -> None:
    """Apply one record to the index. Those of ABOUT_SNAPSHOTS and CLOSES_EPOCH change nothing in it.

    Raises CorruptObject where the record does not fit.
    """
    if frame.flags & record.ORPHAN or frame.kind in ABOUT_SNAPSHOTS or frame.kind in CLOSES_EPOCH:
        return
    handler = _HANDLERS.get(frame.kind)
    if handler is None:
        raise CorruptObject(f"the journal has a record of unknown kind {frame.kind} at position {frame.position:#x}")
    try:
        handler(index, frame)
    except ObjectMissing as error:
        raise CorruptObject(
            f"the journal's record at {frame.position:#x} needs what the store has not: {error}"
        ) from error


def _check(fits: bool, frame: Frame, why: str) -> None:
    if not fits:
        raise CorruptObject(f"the journal's record at {frame.position:#x} does not fit: {why}")


def _inode(index: Index, ino: int, frame: Frame) -> Inode:
    inode = index.inodes.get(ino)
    if inode is None or not inode.nlink:
        raise CorruptObject(f"the journal's record at {frame.position:#x} names inode {ino}, which is not there")
    return inode


def _directory(index: Index, ino: int, frame: Frame) -> Inode:
    inode = _inode(index, ino, frame)
    _check(inode.is_directory, frame, f"inode {ino} is no directory")
    return inode


def _check_free(directory: Inode, name: bytes, frame: Frame) -> None:
    taken = directory.names.get(name) if directory.names is not None else None
    _check(taken is None or taken[0] is None, frame, f"{name!r} is taken")
    _check(0 < len(name) <= MAX_NAME_BYTES and b"/" not in name, frame, "that is no name")


def _check_unused(index: Index, ino: int, frame: Frame) -> None:
    present = index.inodes.get(ino)
    _check(present is None or not present.nlink, frame, f"inode {ino} is there already")


def _check_named(index: Index, directory: Inode, name: bytes, inode: Inode, frame: Frame) -> None:
    named = inode.parent is directory and inode.name == name
    if inode.linked:
        # It has several names, and keeps none of them in mind.
        named = index.find(directory, name) is inode
    _check(named, frame, f"{name!r} is not inode {inode.ino}")


def _check_outside(directory: Inode | None, inode: Inode, frame: Frame) -> None:
    while directory is not None:
        _check(directory is not inode, frame, "a directory would lie in itself")
        directory = directory.parent


def _bind(index: Index, frame: Frame) -> None:
    for ino, parent, name in record.unpack_bind(frame.payload):
        inode = index.inodes.get(ino)
        if inode is None:
            if parent == 0:
                inode = index.linked(ino)
            else:
                directory = _inode(index, parent, frame)
                value = maps.find(index.objects, directory.base, directory_key(name)) if directory.base else None
                entry = decode_entry(value) if value is not None else None
                if entry is None or isinstance(entry, int) or entry.ino != ino or value is None:
                    raise CorruptObject(
                        f"the journal's record at {frame.position:#x} says that inode {ino} is {name!r} in "
                        f"directory {parent}, and the store does not"
                    )
                inode = index.load(directory, name, value)
        inode.bound = index.epoch


def _create(index: Index, frame: Frame) -> None:
    parent, ino, mode, uid, gid, rdev, name, target = record.unpack_create(frame.payload)
    directory = _directory(index, parent, frame)
    _check_free(directory, name, frame)
    _check_unused(index, ino, frame)
    apply.create(index, directory, name, ino, mode, uid, gid, rdev, target, frame.time_ns)


def _write(index: Index, frame: Frame) -> None:
    ino, offset = record.unpack_write(frame.payload)
    inode = _inode(index, ino, frame)
    _check(inode.is_file and 0 < frame.data_bytes <= MAX_FILE_BYTES - offset, frame, "nothing can be written there")
    apply.write(index, inode, offset, offset + frame.data_bytes, frame.data_position, frame.time_ns)


def _setattr(index: Index, frame: Frame) -> None:
    ino, mask, mode, uid, gid, size, atime_ns, mtime_ns = record.unpack_setattr(frame.payload)
    inode = _inode(index, ino, frame)
    if mask & record.SET_SIZE:
        _check(inode.is_file and size <= MAX_FILE_BYTES, frame, f"inode {ino} cannot have that size")
    apply.setattr_(index, inode, mask, mode, uid, gid, size, atime_ns, mtime_ns, frame.time_ns)


def _unlink(index: Index, frame: Frame) -> None:
    parent, ino, name = record.unpack_named(frame.payload)
    directory, inode = _directory(index, parent, frame), _inode(index, ino, frame)
    _check_named(index, directory, name, inode, frame)
    _check(not inode.is_directory or not inode.size, frame, "the directory is not empty")
    apply.unlink(index, directory, name, inode, frame.time_ns)


def _rename(index: Index, frame: Frame) -> None:
    old_parent, ino, new_parent, replaced, flags, old_name, new_name = record.unpack_rename(frame.payload)
    source, target = _directory(index, old_parent, frame), _directory(index, new_parent, frame)
    inode = _inode(index, ino, frame)
    other = _inode(index, replaced, frame) if replaced else None
    _check_named(index, source, old_name, inode, frame)
    _check(other is not inode, frame, "both names are one inode's")
    if inode.is_directory:
        _check_outside(target, inode, frame)
    if other is None:
        _check_free(target, new_name, frame)
    else:
        _check_named(index, target, new_name, other, frame)
    if flags & record.EXCHANGE:
        if other is None:
            raise CorruptObject(f"the journal's record at {frame.position:#x} exchanges a name with nothing")
        if other.is_directory:
            _check_outside(source, other, frame)
        apply.exchange(index, source, old_name, target, new_name, inode, other, frame.time_ns)
    else:
        _check(other is None or not other.is_directory or not other.size, frame, "the directory is not empty")
        apply.rename(index, source, old_name, target, new_name, inode, other, frame.time_ns)


def _link(index: Index, frame: Frame) -> None:
    parent, ino, name = record.unpack_named(frame.payload)
    directory, inode = _directory(index, parent, frame), _inode(index, ino, frame)
    _check(not inode.is_directory, frame, "a directory has one name")
    _check_free(directory, name, frame)
    apply.link(index, inode, directory, name, frame.time_ns)


def _setxattr(index: Index, frame: Frame) -> None:
    ino, name, value = record.unpack_xattr(frame.payload)
    apply.setxattr(index, _inode(index, ino, frame), name, value, frame.time_ns)


def _removexattr(index: Index, frame: Frame) -> None:
    ino, name, _ = record.unpack_xattr(frame.payload)
    apply.removexattr(index, _inode(index, ino, frame), name, frame.time_ns)


def _graft(index: Index, frame: Frame) -> None:
    parent, name, entry = record.unpack_graft(frame.payload)
    directory = _directory(index, parent, frame)
    _check_free(directory, name, frame)
    _check_unused(index, entry.ino, frame)
    apply.graft(index, directory, name, entry, frame.time_ns)


def _assume(index: Index, frame: Frame) -> None:
    entry = record.unpack_assume(frame.payload)
    inode = _inode(index, entry.ino, frame)
    _check(stat.S_IFMT(entry.mode) == stat.S_IFMT(inode.mode), frame, "an inode cannot become of another type")
    apply.assume(index, inode, entry, frame.time_ns)


_HANDLERS: Final[dict[int, Callable[[Index, Frame], None]]] = {
    record.BIND: _bind,
    record.CREATE: _create,
    record.WRITE: _write,
    record.SETATTR: _setattr,
    record.UNLINK: _unlink,
    record.RENAME: _rename,
    record.LINK: _link,
    record.SETXATTR: _setxattr,
    record.REMOVEXATTR: _removexattr,
    record.GRAFT: _graft,
    record.ASSUME: _assume,
}
