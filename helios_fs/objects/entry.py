"""Entries and trees: what the store keeps of one inode, and of a whole working tree.

Encoded as MessagePack arrays in the order of the fields. Integers take their shortest form and maps are sorted by
key, so equal values have equal bytes, and so equal ids.

E1. A regular file of at most `INLINE_LIMIT` bytes has `content` = the id of one blob with all its bytes; a larger one
    the id of a chunk list (a page tree: 8-byte big-endian offset -> `ChunkRef`; what no chunk covers is a hole).
    A file that holds no data at all has empty content.
E2. A directory's `content` is the id of a page tree (`directory_key(name)` -> `Entry` or, for an inode with more than
    one name, its number alone); an empty directory has empty content.
E3. A symlink's `content` is its target.
E4. An inode with more than one name, or that once had, is kept whole in the tree's link table (a page tree:
    8-byte big-endian inode number -> `Entry`); directories hold its number only.
"""

import stat
from typing import Final

import msgspec
import xxhash

from helios_fs.errors import CorruptObject

INLINE_LIMIT: Final = 128 * 1024


class Entry(msgspec.Struct, array_like=True, frozen=True):
    """One inode as a tree stores it. Times in nanoseconds since 1970, sizes in bytes."""

    ino: int
    mode: int
    """Type and permission bits, as in `st_mode`."""
    uid: int
    gid: int
    nlink: int
    rdev: int
    size: int
    allocated: int
    """Bytes that are not holes; `st_blocks` is this in units of 512."""
    atime_ns: int
    mtime_ns: int
    ctime_ns: int
    content: bytes
    xattrs: dict[bytes, bytes] | None = None

    @property
    def is_directory(self) -> bool:
        """Whether it is a directory."""
        return stat.S_ISDIR(self.mode)

    @property
    def is_file(self) -> bool:
        """Whether it is a regular file."""
        return stat.S_ISREG(self.mode)


class ChunkRef(msgspec.Struct, array_like=True, frozen=True):
    """One chunk in a chunk list: how long, and which blob. Its offset is the key."""

    length: int
    blob: bytes


class Tree(msgspec.Struct, array_like=True, frozen=True):
    """A whole tree; its object id is the tree hash that proves a snapshot."""

    root: Entry
    links: bytes
    """Id of the link table's root page, or empty."""


_encode = msgspec.msgpack.Encoder().encode
_decode_entry = msgspec.msgpack.Decoder(Entry | int).decode
_decode_chunk = msgspec.msgpack.Decoder(ChunkRef).decode
_decode_tree = msgspec.msgpack.Decoder(Tree).decode


def encode_entry(value: Entry | int) -> bytes:
    """Return the canonical bytes of an entry, or of a reference to the link table."""
    return _encode(value if isinstance(value, int) else _sorted(value))


def _sorted(entry: Entry) -> Entry:
    # The encoder keeps a map in the order in which it was filled.
    if not entry.xattrs:
        return entry
    return msgspec.structs.replace(entry, xattrs=dict(sorted(entry.xattrs.items())))


def decode_entry(data: bytes) -> Entry | int:
    """Return an entry, or the inode number under which the link table has it. Raises CorruptObject."""
    try:
        decoded: Entry | int = _decode_entry(data)
    except (msgspec.MsgspecError, ValueError) as error:
        raise CorruptObject(f"a directory entry cannot be decoded: {error}") from error
    return decoded


def encode_chunk(value: ChunkRef) -> bytes:
    """Return the canonical bytes of a chunk reference."""
    return _encode(value)


def decode_chunk(data: bytes) -> ChunkRef:
    """Return a chunk reference. Raises CorruptObject."""
    try:
        return _decode_chunk(data)
    except (msgspec.MsgspecError, ValueError) as error:
        raise CorruptObject(f"a chunk reference cannot be decoded: {error}") from error


def encode_tree(value: Tree) -> bytes:
    """Return the canonical bytes of a tree."""
    return _encode(Tree(_sorted(value.root), value.links))


def decode_tree(data: bytes) -> Tree:
    """Return a tree. Raises CorruptObject."""
    try:
        return _decode_tree(data)
    except (msgspec.MsgspecError, ValueError) as error:
        raise CorruptObject(f"a tree cannot be decoded: {error}") from error


def name_hash(name: bytes) -> int:
    """Return the 63-bit hash by which directories are ordered and which serves as the readdir cookie.

    Never 0, 1 or 2: these are the cookies before the first entry, after `.` and after `..`.
    """
    return (xxhash.xxh3_64_intdigest(name) >> 1) | 4


def directory_key(name: bytes) -> bytes:
    """Return the key of a name in a directory's page tree: its hash, then the name."""
    return name_hash(name).to_bytes(8, "big") + name


def ino_key(ino: int) -> bytes:
    """Return the key of an inode in a link table."""
    return ino.to_bytes(8, "big")


def offset_key(offset: int) -> bytes:
    """Return the key of a chunk in a chunk list."""
    return offset.to_bytes(8, "big")
