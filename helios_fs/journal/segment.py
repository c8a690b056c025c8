"""Segments: the files a journal is made of.

A segment is named by the position of its first frame, in 16 hex digits, and begins with a header that repeats it:

    offset  size  field
    0       8     magic "HELIOSJ" and a zero byte
    8       4     format version
    12      4     zero
    16      8     position of the first frame
    24      8     xxh3-64 of bytes 0..23

S1. Frame positions run on from segment to segment without a gap; byte `p` of the journal stands at offset
    `p - start + 32` of the segment that begins at `start`.
"""

import os
import struct
from typing import Final

import xxhash

from helios_fs import FORMAT_VERSION
from helios_fs.errors import CorruptObject, WrongVersion
from helios_fs.store import files

MAGIC: Final = b"HELIOSJ\0"
_HEADER: Final = struct.Struct("<8sI4xQ")
HEADER_BYTES: Final = _HEADER.size + 8
SUFFIX: Final = ".seg"


class Segment:
    """One open segment file."""

    __slots__ = ("end", "fd", "path", "start")

    def __init__(self, path: str, fd: int, start: int, end: int) -> None:
        self.path = path
        self.fd = fd
        self.start = start
        self.end = end
        """Position behind the last byte in the file."""

    @classmethod
    def create(cls, directory: str, start: int) -> "Segment":
        """Make an empty segment. Its name is durable once the directory is synced."""
        path = os.path.join(directory, f"{start:016x}{SUFFIX}")
        fd = files.open_file(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND)
        head = _HEADER.pack(MAGIC, FORMAT_VERSION, start)
        try:
            files.append(fd, [head, xxhash.xxh3_64_digest(head)], HEADER_BYTES)
        except BaseException:
            os.close(fd)
            files.remove(path)
            raise
        return cls(path, fd, start, start)

    @classmethod
    def open(cls, directory: str, name: str, writable: bool) -> "Segment":
        """Open a segment. Raises CorruptObject where its header is not whole, WrongVersion for another format."""
        path = os.path.join(directory, name)
        fd = files.open_file(path, (os.O_RDWR | os.O_APPEND) if writable else os.O_RDONLY)
        try:
            raw = files.read_at(fd, HEADER_BYTES, 0)
            if len(raw) < HEADER_BYTES or xxhash.xxh3_64_digest(raw[:-8]) != raw[-8:]:
                raise CorruptObject(f"{path}: the segment's header is not whole")
            magic, version, start = _HEADER.unpack_from(raw)
            if magic != MAGIC or f"{start:016x}{SUFFIX}" != name:
                raise CorruptObject(f"{path}: the header does not belong to this segment")
            if version != FORMAT_VERSION:
                raise WrongVersion(f"{path} has format {version}; this program knows format {FORMAT_VERSION}")
            return cls(path, fd, start, start + os.fstat(fd).st_size - HEADER_BYTES)
        except BaseException:
            os.close(fd)
            raise

    def read(self, length: int, position: int) -> bytes:
        """Return `length` bytes at a position of the journal, fewer at the end of the segment."""
        return files.read_at(self.fd, length, position - self.start + HEADER_BYTES)

    def cut(self, position: int) -> None:
        """Drop everything from `position` on."""
        files.cut(self.fd, position - self.start + HEADER_BYTES)
        self.end = position

    def close(self) -> None:
        """Close the file."""
        os.close(self.fd)
