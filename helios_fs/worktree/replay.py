"""Replay: from journal frames back to calls of `apply`.

The mount uses it to rebuild memory after a crash, the sealer to seal: the same code, so that no path runs only after
a crash.

Y1. A record that does not fit the state it meets is damage: CorruptObject, and nothing after it is applied.
"""

from collections.abc import Callable
from typing import Final

from helios_fs.errors import CorruptObject
from helios_fs.journal.journal import Frame
from helios_fs.objects import record
from helios_fs.objects.entry import decode_entry, directory_key
from helios_fs.store import maps
from helios_fs.worktree import apply
from helios_fs.worktree.index import Index
from helios_fs.worktree.inode import Inode

CLOSES_EPOCH: Final = frozenset({record.FREEZE, record.SNAPSHOT})
"""Kinds that end an epoch: the records after them belong to the next."""

ABOUT_SNAPSHOTS: Final = frozenset({record.SNAPSHOT, record.SNAPSHOT_RENAME, record.SNAPSHOT_DELETE})
"""Kinds that change which snapshots there are, and not the tree."""


def replay_frame(index: Index, frame: Frame) -> None:
    """Apply one record to the index. Those of ABOUT_SNAPSHOTS and CLOSES_EPOCH change nothing in it.

    Raises CorruptObject where the record does not fit.
    """
    if frame.flags & record.ORPHAN or frame.kind in ABOUT_SNAPSHOTS or frame.kind in CLOSES_EPOCH:
        return
    handler = _HANDLERS.get(frame.kind)
    if handler is None:
        raise CorruptObject(f"the journal has a record of unknown kind {frame.kind} at position {frame.position:#x}")
    handler(index, frame)


def _inode(index: Index, ino: int, frame: Frame) -> Inode:
    inode = index.inodes.get(ino)
    if inode is None:
        raise CorruptObject(f"the journal's record at {frame.position:#x} names inode {ino}, which is not there")
    return inode


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
    directory = _inode(index, parent, frame)
    apply.create(index, directory, name, ino, mode, uid, gid, rdev, target, frame.time_ns)


def _write(index: Index, frame: Frame) -> None:
    ino, offset = record.unpack_write(frame.payload)
    inode = _inode(index, ino, frame)
    apply.write(index, inode, offset, offset + frame.data_bytes, frame.data_position, frame.time_ns)


def _setattr(index: Index, frame: Frame) -> None:
    ino, mask, mode, uid, gid, size, atime_ns, mtime_ns = record.unpack_setattr(frame.payload)
    inode = _inode(index, ino, frame)
    apply.setattr_(index, inode, mask, mode, uid, gid, size, atime_ns, mtime_ns, frame.time_ns)


def _unlink(index: Index, frame: Frame) -> None:
    parent, ino, name = record.unpack_named(frame.payload)
    apply.unlink(index, _inode(index, parent, frame), name, _inode(index, ino, frame), frame.time_ns)


def _rename(index: Index, frame: Frame) -> None:
    old_parent, ino, new_parent, replaced, flags, old_name, new_name = record.unpack_rename(frame.payload)
    source, target, inode = (_inode(index, number, frame) for number in (old_parent, new_parent, ino))
    other = _inode(index, replaced, frame) if replaced else None
    if flags & record.EXCHANGE:
        if other is None:
            raise CorruptObject(f"the journal's record at {frame.position:#x} exchanges a name with nothing")
        apply.exchange(index, source, old_name, target, new_name, inode, other, frame.time_ns)
    else:
        apply.rename(index, source, old_name, target, new_name, inode, other, frame.time_ns)


def _link(index: Index, frame: Frame) -> None:
    parent, ino, name = record.unpack_named(frame.payload)
    apply.link(index, _inode(index, ino, frame), _inode(index, parent, frame), name, frame.time_ns)


def _setxattr(index: Index, frame: Frame) -> None:
    ino, name, value = record.unpack_xattr(frame.payload)
    apply.setxattr(index, _inode(index, ino, frame), name, value, frame.time_ns)


def _removexattr(index: Index, frame: Frame) -> None:
    ino, name, _ = record.unpack_xattr(frame.payload)
    apply.removexattr(index, _inode(index, ino, frame), name, frame.time_ns)


def _graft(index: Index, frame: Frame) -> None:
    parent, name, entry = record.unpack_graft(frame.payload)
    apply.graft(index, _inode(index, parent, frame), name, entry, frame.time_ns)


def _assume(index: Index, frame: Frame) -> None:
    entry = record.unpack_assume(frame.payload)
    apply.assume(index, _inode(index, entry.ino, frame), entry, frame.time_ns)


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
