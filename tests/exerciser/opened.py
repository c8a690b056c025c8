"""Descriptors and mappings that stay open from one operation to the next, and moving bytes through them."""

import mmap
import os
from collections.abc import Callable
from dataclasses import dataclass

from tests.exerciser.model import PAGE, Content

Copying = Callable[[int, int, int, int, int], None]
"""(source, target, offset, offset in the target, length)."""


@dataclass(eq=False)
class Descriptor:
    """An open file."""

    fd: int
    flags: int
    content: Content
    position: int = 0

    @property
    def readable(self) -> bool:
        """Whether it can be read."""
        return self.flags & os.O_ACCMODE != os.O_WRONLY

    @property
    def writable(self) -> bool:
        """Whether it can be written."""
        return self.flags & os.O_ACCMODE != os.O_RDONLY

    @property
    def direct(self) -> bool:
        """Whether offsets, lengths and addresses are aligned."""
        return bool(self.flags & os.O_DIRECT)

    @property
    def appends(self) -> bool:
        """Whether every write goes to the end, pwrite too (pwrite(2), BUGS)."""
        return bool(self.flags & os.O_APPEND)

    def pwrite(self, data: bytes, offset: int) -> None:
        """Write all of `data`."""
        if not self.direct:
            done = os.pwrite(self.fd, data, offset)
        else:
            with mmap.mmap(-1, len(data)) as aligned:
                aligned[:] = data
                done = os.pwritev(self.fd, [aligned], offset)
        assert done == len(data), f"{done} of {len(data)} bytes were written"

    def pread(self, length: int, offset: int) -> bytes:
        """Read up to `length` bytes."""
        if not self.direct:
            return os.pread(self.fd, length, offset)
        with mmap.mmap(-1, length) as aligned:
            return aligned[: os.preadv(self.fd, [aligned], offset)]


@dataclass(eq=False)
class Mapping:
    """A mapping of pages of a file."""

    memory: mmap.mmap
    content: Content
    offset: int
    writable: bool

    def reach(self) -> int:
        """Return how many bytes of it, from its beginning, lie in the file now: behind its last page is SIGBUS."""
        return max(0, min(len(self.memory), self.content.size - self.offset))


def map_pages(descriptor: Descriptor, offset: int, length: int, shared: bool, writable: bool) -> Mapping | None:
    """Map pages of an open file, or nothing where it has none there."""
    offset -= offset % PAGE
    length = min(length, descriptor.content.size - offset)
    if length <= 0:
        return None
    protection = mmap.PROT_READ | (mmap.PROT_WRITE if writable else 0)
    flags = mmap.MAP_SHARED if shared else mmap.MAP_PRIVATE
    memory = mmap.mmap(descriptor.fd, length, flags, protection, offset=offset)
    return Mapping(memory, descriptor.content, offset, writable)


def splice(source: int, target: int, offset: int, target_offset: int, length: int) -> None:
    """Move bytes from one file to another through a pipe."""
    reading, writing = os.pipe()
    try:
        while length:
            taken = os.splice(source, writing, min(length, 65_536), offset_src=offset)
            assert taken, "splice found the end of the file too early"
            offset += taken
            length -= taken
            while taken:
                given = os.splice(reading, target, taken, offset_dst=target_offset)
                assert given, "splice wrote nothing"
                target_offset += given
                taken -= given
    finally:
        os.close(reading)
        os.close(writing)


def copy_range(source: int, target: int, offset: int, target_offset: int, length: int) -> None:
    """Copy bytes within the kernel, as `cp` does."""
    while length:
        copied = os.copy_file_range(source, target, length, offset, target_offset)
        assert copied, "copy_file_range found the end of the file too early"
        offset += copied
        target_offset += copied
        length -= copied


def send(source: int, target: int, offset: int, target_offset: int, length: int) -> None:
    """Copy bytes with sendfile, which writes at the target's position."""
    os.lseek(target, target_offset, os.SEEK_SET)
    while length:
        sent = os.sendfile(target, source, offset, length)
        assert sent, "sendfile found the end of the file too early"
        offset += sent
        length -= sent
