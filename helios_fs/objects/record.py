"""Journal records: what one change of a branch says.

Each kind has a payload of fixed fields in little-endian order, then names and values; docs/format.md shows them byte
for byte. The journal's frame adds position, time and checksums.

R1. A record names inodes, never paths. An inode that the base tree holds is named only after a BIND in the same epoch
    has said where it lies there, so each epoch can be replayed over the tree before it alone.
R2. Records on an inode that has no name left carry ORPHAN: they matter to open descriptors, never to a replay.
"""

import struct
from collections.abc import Sequence
from typing import Final

import msgspec

from helios_fs.errors import CorruptObject
from helios_fs.objects.entry import Entry, decode_entry, encode_entry

BIND: Final = 1
CREATE: Final = 2
WRITE: Final = 3
SETATTR: Final = 4
UNLINK: Final = 5
RENAME: Final = 6
LINK: Final = 7
SETXATTR: Final = 8
REMOVEXATTR: Final = 9
FREEZE: Final = 10
SNAPSHOT: Final = 11
SNAPSHOT_CHANGED: Final = 12
SNAPSHOT_DELETE: Final = 13
GRAFT: Final = 14
ASSUME: Final = 15
FORK: Final = 16

ORPHAN: Final = 1
"""Frame flag: the inode had no name when this happened."""

EXCHANGE: Final = 1
"""Rename flag in the payload: the two names swap what they mean."""

SET_MODE: Final = 1
SET_UID: Final = 2
SET_GID: Final = 4
SET_SIZE: Final = 8
SET_ATIME: Final = 16
SET_MTIME: Final = 32

_BIND: Final = struct.Struct("<QQB")
_CREATE: Final = struct.Struct("<QQIIIQB")
_WRITE: Final = struct.Struct("<QQ")
_SETATTR: Final = struct.Struct("<QHIIIQqq")
_NAMED: Final = struct.Struct("<QQ")
_RENAME: Final = struct.Struct("<QQQQBB")
_XATTR: Final = struct.Struct("<QB")
_FREEZE: Final = struct.Struct("<Q")

pack_write = _WRITE.pack
"""pack_write(ino, offset) -> payload; the bytes written are the frame's data."""

pack_setattr = _SETATTR.pack
"""pack_setattr(ino, mask, mode, uid, gid, size, atime_ns, mtime_ns) -> payload."""


def pack_bind(chain: Sequence[tuple[int, int, bytes]]) -> bytes:
    """Return the payload that says where inodes lie in the base tree: (ino, parent, name), outermost first.

    Parent 0 and an empty name stand for the link table.
    """
    return b"".join([_BIND.pack(ino, parent, len(name)) + name for ino, parent, name in chain])


def unpack_bind(payload: bytes) -> list[tuple[int, int, bytes]]:
    """Return the chain of a BIND."""
    chain = []
    offset = 0
    try:
        while offset < len(payload):
            ino, parent, length = _BIND.unpack_from(payload, offset)
            offset += _BIND.size
            chain.append((ino, parent, payload[offset : offset + length]))
            offset += length
    except struct.error as error:
        raise CorruptObject(f"a BIND record cannot be decoded: {error}") from error
    return chain


def pack_create(
    parent: int, ino: int, mode: int, uid: int, gid: int, rdev: int, name: bytes, target: bytes = b""
) -> bytes:
    """Return the payload that makes a new inode of any type under a name; `target` is a symlink's."""
    return _CREATE.pack(parent, ino, mode, uid, gid, rdev, len(name)) + name + target


def unpack_create(payload: bytes) -> tuple[int, int, int, int, int, int, bytes, bytes]:
    """Return parent, ino, mode, uid, gid, rdev, name, target."""
    try:
        parent, ino, mode, uid, gid, rdev, length = _CREATE.unpack_from(payload)
    except struct.error as error:
        raise CorruptObject(f"a CREATE record cannot be decoded: {error}") from error
    rest = payload[_CREATE.size :]
    return parent, ino, mode, uid, gid, rdev, rest[:length], rest[length:]


def unpack_write(payload: bytes) -> tuple[int, int]:
    """Return ino, offset."""
    ino, offset = _unpack(_WRITE, payload, "WRITE")
    return ino, offset


def unpack_setattr(payload: bytes) -> tuple[int, int, int, int, int, int, int, int]:
    """Return ino, mask, mode, uid, gid, size, atime_ns, mtime_ns."""
    ino, mask, mode, uid, gid, size, atime_ns, mtime_ns = _unpack(_SETATTR, payload, "SETATTR")
    return ino, mask, mode, uid, gid, size, atime_ns, mtime_ns


def pack_named(parent: int, ino: int, name: bytes) -> bytes:
    """Return the payload of UNLINK (which also removes directories) and LINK."""
    return _NAMED.pack(parent, ino) + name


def unpack_named(payload: bytes) -> tuple[int, int, bytes]:
    """Return parent, ino, name."""
    parent, ino = _unpack(_NAMED, payload[: _NAMED.size], "UNLINK or LINK")
    return parent, ino, payload[_NAMED.size :]


def pack_rename(
    old_parent: int, ino: int, new_parent: int, replaced: int, flags: int, old_name: bytes, new_name: bytes
) -> bytes:
    """Return the payload of a rename; `replaced` is the inode the new name had, or 0."""
    return _RENAME.pack(old_parent, ino, new_parent, replaced, flags, len(old_name)) + old_name + new_name


def unpack_rename(payload: bytes) -> tuple[int, int, int, int, int, bytes, bytes]:
    """Return old_parent, ino, new_parent, replaced, flags, old_name, new_name."""
    old_parent, ino, new_parent, replaced, flags, length = _unpack(_RENAME, payload[: _RENAME.size], "RENAME")
    rest = payload[_RENAME.size :]
    return old_parent, ino, new_parent, replaced, flags, rest[:length], rest[length:]


def pack_xattr(ino: int, name: bytes, value: bytes = b"") -> bytes:
    """Return the payload of SETXATTR, or of REMOVEXATTR without a value."""
    return _XATTR.pack(ino, len(name)) + name + value


def unpack_xattr(payload: bytes) -> tuple[int, bytes, bytes]:
    """Return ino, name, value."""
    ino, length = _unpack(_XATTR, payload[: _XATTR.size], "SETXATTR")
    rest = payload[_XATTR.size :]
    return ino, rest[:length], rest[length:]


def pack_freeze(epoch: int) -> bytes:
    """Return the payload that closes an epoch without a snapshot."""
    return _FREEZE.pack(epoch)


def unpack_freeze(payload: bytes) -> int:
    """Return the epoch closed."""
    return int(_unpack(_FREEZE, payload, "FREEZE")[0])


def pack_snapshot_changed(snapshot_id: str, name: bytes, message: str, protected: bool) -> bytes:
    """Return the payload that says anew what people say of a snapshot; an empty name takes its name away."""
    return msgspec.msgpack.encode((snapshot_id, name, message, protected))


def unpack_snapshot_changed(payload: bytes) -> tuple[str, bytes, str, bool]:
    """Return snapshot id, name, message, whether it is protected from deletion."""
    try:
        return msgspec.msgpack.decode(payload, type=tuple[str, bytes, str, bool])
    except (msgspec.MsgspecError, ValueError) as error:
        raise CorruptObject(f"a SNAPSHOT_CHANGED record cannot be decoded: {error}") from error


def pack_graft(parent: int, name: bytes, entry: Entry) -> bytes:
    """Return the payload of GRAFT: place an inode that the store holds, with all that lies below it, under a name."""
    return _XATTR.pack(parent, len(name)) + name + encode_entry(entry)


def unpack_graft(payload: bytes) -> tuple[int, bytes, Entry]:
    """Return parent, name, entry."""
    parent, name, encoded = unpack_xattr(payload)
    return parent, name, _only_entry(encoded)


def pack_assume(entry: Entry) -> bytes:
    """Return the payload of ASSUME: a file takes attributes and content of an entry that the store holds.

    The inode is the entry's `ino`; its names and its link count stay.
    """
    return encode_entry(entry)


def unpack_assume(payload: bytes) -> Entry:
    """Return the entry."""
    return _only_entry(payload)


def _only_entry(encoded: bytes) -> Entry:
    entry = decode_entry(encoded)
    if isinstance(entry, int):
        raise CorruptObject("a record needs an entry, not a reference to the link table")
    return entry


def _unpack(layout: struct.Struct, payload: bytes, kind: str) -> tuple[int, ...]:
    try:
        return layout.unpack(payload)
    except struct.error as error:
        raise CorruptObject(f"a {kind} record cannot be decoded: {error}") from error
