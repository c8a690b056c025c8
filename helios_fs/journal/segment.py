"""Segments: the files a journal is made of.

A segment is named by the position of its first frame, in 16 hex digits, and begins with a header that repeats it:

    offset  size  field
    0       8     magic "HELIOSJ" and a zero byte
    8       4     format version
    12      4     zero
    16      8     position of the first frame
    24      8     key, random
    32      8     xxh3-64 of bytes 0..31

S1. Frame positions run on from segment to segment without a gap; byte `p` of the journal stands at offset
    `p - start + 40` of the segment that begins at `start`.
S2. A file may be longer than what it holds: one that is sealed is used again, because overwriting what the kernel has
    cached and the disk has allocated costs a third of writing anew (docs/decisions/journal-recycling.md). What it held
    before does not verify under its new key.
"""

import os
import secrets
import struct
from typing import Final

import xxhash

from helios_fs import FORMAT_VERSION
from helios_fs.errors import CorruptObject, WrongVersion
from helios_fs.store import files

MAGIC: Final = b"HELIOSJ\0"
_HEADER: Final = struct.Struct("<8sI4xQQ")
HEADER_BYTES: Final = _HEADER.size + 8
SUFFIX: Final = ".seg"
SPARE_SUFFIX: Final = ".spare"
_SEED_MASK: Final = (1 << 64) - 1


def _checksum(head: bytes) -> bytes:
    return xxhash.xxh3_64_intdigest(head).to_bytes(8, "little")


class Segment:
    """One open segment file."""

    __slots__ = ("end", "fd", "has_name", "key", "path", "start")

    def __init__(self, path: str, fd: int, start: int, end: int, key: int) -> None:
        self.path = path
        self.fd = fd
        self.start = start
        self.end = end
        """Position behind the last byte that may belong to a frame."""
        self.key = key
        self.has_name = True
        """Whether the file is still called `path`; another journal may have a name for it all the same."""

    @classmethod
    def create(cls, directory: str, start: int, spare: str | None = None) -> "Segment":
        """Make an empty segment, of the file `spare` where there is one. Durable once file and directory are synced."""
        path = os.path.join(directory, f"{start:016x}{SUFFIX}")
        flags = os.O_RDWR | os.O_CREAT | (0 if spare is not None else os.O_TRUNC)
        fd = files.open_file(spare or path, flags)
        key = secrets.randbits(64)
        head = _HEADER.pack(MAGIC, FORMAT_VERSION, start, key)
        try:
            files.write_at(fd, head + _checksum(head), 0)
            if spare is not None:
                files.replace(spare, path)
        except BaseException:
            os.close(fd)
            files.remove(spare or path)
            raise
        return cls(path, fd, start, start, key)

    @classmethod
    def open(cls, directory: str, name: str, writable: bool) -> "Segment":
        """Open a segment. Raises CorruptObject where its header is not whole, WrongVersion for another format."""
        path = os.path.join(directory, name)
        fd = files.open_file(path, os.O_RDWR if writable else os.O_RDONLY)
        try:
            raw = files.read_at(fd, HEADER_BYTES, 0)
            if len(raw) < HEADER_BYTES or _checksum(raw[:-8]) != raw[-8:]:
                raise CorruptObject(f"{path}: the segment's header is not whole")
            magic, version, start, key = _HEADER.unpack_from(raw)
            if magic != MAGIC or f"{start:016x}{SUFFIX}" != name:
                raise CorruptObject(f"{path}: the header does not belong to this segment")
            if version != FORMAT_VERSION:
                raise WrongVersion(f"{path} has format {version}; this program knows format {FORMAT_VERSION}")
            return cls(path, fd, start, start + os.fstat(fd).st_size - HEADER_BYTES, key)
        except BaseException:
            os.close(fd)
            raise

    def seed(self, position: int) -> int:
        """Return what seeds the checksum of the frame at `position` (F1)."""
        return (position + self.key) & _SEED_MASK

    def offset(self, position: int) -> int:
        """Return where a position stands in the file."""
        return position - self.start + HEADER_BYTES

    def read(self, length: int, position: int) -> bytes:
        """Return `length` bytes at a position of the journal, fewer at the end of the file."""
        return files.read_at(self.fd, length, position - self.start + HEADER_BYTES)

    def cut(self, position: int) -> None:
        """Drop everything from `position` on."""
        files.cut(self.fd, self.offset(position))
        self.end = position

    @property
    def is_ours(self) -> bool:
        """Whether its file has one name, the one in its journal: nobody else will read it once it is dropped."""
        return self.has_name and os.fstat(self.fd).st_nlink == 1

    def unlink(self) -> None:
        """Take its name away; it can be read until it is closed."""
        if self.has_name:
            files.remove(self.path)
            self.has_name = False

    def close(self) -> None:
        """Close the file."""
        os.close(self.fd)
