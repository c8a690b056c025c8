"""The content of a regular file on its way into the store: one blob, or a chunk list edited where it changed.

Knows nothing of journals or inodes: it is told which bytes were written, and reads them through a function.

W1. What is neither written nor shown by the base is a hole, and stays one. (A small file is one blob up to its last
    data; holes inside it become zeros.)
W2. Cost follows what was written: from the chunk in which a written range begins to the first cut behind it that
    falls on an old one.
W3. Two chunks touch only where the chunker cut. So the chunks of a stretch of data depend on its bytes alone, and an
    edit gives the same list as storing the whole stretch again.
W4. Memory is bounded by the chunker's buffer and `_BATCH` edits, whatever the size of the file.
"""

import errno
import os
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from typing import Final, Protocol

from helios_fs.objects.entry import INLINE_LIMIT, ChunkRef, decode_chunk, encode_chunk, offset_key
from helios_fs.objects.ids import KIND_BLOB
from helios_fs.sealer.chunking import Reader, chunks
from helios_fs.store import maps
from helios_fs.store.content import ObjectReader, chunks_in, data_ranges

BLOCK_BYTES: Final = 4096
"""Space is counted in blocks of this size, as ext4 does."""

_BATCH: Final = 8192
"""Edits of a chunk list that are collected before its pages are written: 2 GiB of file, some 2 MiB of memory."""

Range = tuple[int, int]


class ObjectWriter(ObjectReader, maps.PageWriter, Protocol):
    """Whatever stores objects and returns what it has stored: a writer of the store."""


def store_content(
    writer: ObjectWriter,
    base: bytes,
    base_size: int,
    size: int,
    limit: int,
    dirty: Sequence[Range],
    read: Reader,
    *,
    base_allocated: int | None = None,
) -> tuple[bytes, int]:
    """Store a file's new content and return (content, bytes allocated in blocks of 4 KiB).

    `base` is its former content, of which only what lies below `limit` still shows; `dirty` are the written ranges
    since, sorted and disjoint; `read(offset, length)` returns new bytes. With `base_allocated`, what this function
    returned for `base`, a large file's blocks are counted only where it changed. Durable when the writer is.
    """
    limit = min(limit, base_size, size)
    written = _joined(dirty, size)
    if size <= INLINE_LIMIT:
        return _store_small(writer, base, base_size, size, limit, written, read)
    if base and base_size <= INLINE_LIMIT:
        written = _joined([(0, min(len(writer.get(KIND_BLOB, base)), limit)), *written], size)
        base, limit = b"", 0
    if not base or limit == 0:
        base, base_allocated = b"", 0
    edit = _ChunkListEdit(writer, base, base_size, limit, written, read)
    content = edit.run()
    if base_allocated is None:
        return content, _blocks(writer, content, size, [(0, size)]) * BLOCK_BYTES
    touched = _aligned(edit.touched)
    more = _blocks(writer, content, size, touched) - _blocks(writer, base, base_size, touched)
    return content, base_allocated + more * BLOCK_BYTES


def _joined(ranges: Iterable[Range], size: int) -> list[Range]:
    """Return the ranges cut at `size`, ascending, with those that touch or overlap made one."""
    joined: list[Range] = []
    for start, written_end in sorted(ranges):
        end = min(written_end, size)
        if start >= end:
            continue
        if joined and start <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(joined[-1][1], end))
        else:
            joined.append((start, end))
    return joined


def _store_small(
    writer: ObjectWriter, base: bytes, base_size: int, size: int, limit: int, written: list[Range], read: Reader
) -> tuple[bytes, int]:
    end = written[-1][1] if written else 0
    if base and base_size <= INLINE_LIMIT:
        shown = min(len(writer.get(KIND_BLOB, base)), limit)
        if shown == base_size == size and not written:
            return base, _block_bytes(size)
        end = max(end, shown)
    elif base and end < limit:
        for _, high in data_ranges(writer, base, base_size, end, limit):
            end = max(end, high)
    if end == 0:
        return b"", 0
    return writer.put(KIND_BLOB, read(0, end)), _block_bytes(end)


def _block_bytes(length: int) -> int:
    return (length + BLOCK_BYTES - 1) // BLOCK_BYTES * BLOCK_BYTES


def _aligned(ranges: Iterable[Range]) -> list[Range]:
    return _joined(((start // BLOCK_BYTES * BLOCK_BYTES, _block_bytes(end)) for start, end in ranges), 1 << 64)


def _blocks(writer: ObjectWriter, content: bytes, size: int, ranges: Iterable[Range]) -> int:
    """Return how many blocks hold data in `ranges`, which begin and end at blocks or at the end of the file."""
    count = 0
    last = -1
    for start, end in ranges:
        for low, high in data_ranges(writer, content, size, start, end):
            first = max(low // BLOCK_BYTES, last + 1)
            last = (high - 1) // BLOCK_BYTES
            count += max(0, last + 1 - first)
    return count


class _ChunkListEdit:
    """One edit of a chunk list, from `base` (a root page, or empty) to what `read` returns."""

    def __init__(
        self, writer: ObjectWriter, base: bytes, base_size: int, limit: int, written: list[Range], read: Reader
    ) -> None:
        self._writer = writer
        self._base = base
        self._root = base
        self._read = read
        self._pending: dict[bytes, bytes | None] = {}
        self.touched: list[Range] = []
        """Where blocks may differ from the base's."""
        self._shown = limit  # old chunks count only where they end at or below this
        if base and limit < base_size:
            written = self._cut_off(base_size, limit, written)
        self._written = written
        self._starts = [start for start, _ in written]

    def run(self) -> bytes:
        """Return the root page of the new list."""
        settled = 0
        for start, end in self._written:
            if end > settled:
                settled = self._chunk_again(self._beginning(start))
        self._flush()
        return self._root

    def _cut_off(self, base_size: int, limit: int, written: list[Range]) -> list[Range]:
        """Drop the old chunks that reach behind `limit`; what is left of the one across it counts as written."""
        self.touched.append((limit, base_size))
        for offset, _ in chunks_in(self._writer, self._base, limit, base_size):
            self._change(offset, None)
            if offset < limit:
                self._shown = offset
                written = _joined([(offset, limit), *written], 1 << 64)
        return written

    def _old_chunk(self, position: int) -> Range | None:
        """Return (offset, end) of the old chunk that holds the byte at `position` and still counts."""
        if not self._base or not 0 <= position < self._shown:
            return None
        found = maps.last_at_or_before(self._writer, self._base, offset_key(position))
        if found is None:
            return None
        offset = int.from_bytes(found[0], "big")
        end = offset + decode_chunk(found[1]).length
        return (offset, end) if position < end <= self._shown else None

    def _written_at(self, position: int) -> Range | None:
        index = bisect_right(self._starts, position) - 1
        if index >= 0 and position < self._written[index][1]:
            return self._written[index]
        return None

    def _beginning(self, start: int) -> int:
        """Return where chunking must begin so that a change at `start` meets its neighbours as it should.

        A chunk that ends right here was cut by the chunker only if another followed it (W3); else by a hole, a cut
        of the file or its end, and it may grow now.
        """
        before = self._old_chunk(start - 1)
        if before is None:
            return start
        if before[1] == start and maps.find(self._writer, self._base, offset_key(start)) is not None:
            return start
        return before[0]

    def _reach(self, position: int, wanted: int) -> int:
        """Return how far data goes on from `position`, at least to `wanted` if it does (see `chunking.Reach`)."""
        while position < wanted:
            stretch = self._written_at(position) or self._old_chunk(position)
            if stretch is None:
                break
            position = stretch[1]
        return position

    def _chunk_again(self, start: int) -> int:
        """Store chunks from `start` until they meet the old ones, or data ends. Return where that is."""
        end = start
        for offset, data in chunks(self._read, start, self._reach):
            end = offset + len(data)
            blob = self._writer.put(KIND_BLOB, data)
            if self._base and offset < self._shown:
                for old, _ in chunks_in(self._writer, self._base, offset, min(end, self._shown)):
                    if old > offset:
                        self._change(old, None)
            self._change(offset, encode_chunk(ChunkRef(len(data), blob)))
            old_next = self._old_chunk(end)
            if old_next is not None and old_next[0] == end and self._written_at(end) is None:
                break
        self.touched.append((start, end))
        return end

    def _change(self, offset: int, value: bytes | None) -> None:
        self._pending[offset_key(offset)] = value
        if len(self._pending) >= _BATCH:
            self._flush()

    def _flush(self) -> None:
        if self._pending:
            self._root = maps.edit(self._writer, self._root, self._pending)
            self._pending = {}


def store_stream(writer: ObjectWriter, fd: int, size: int) -> tuple[bytes, int]:
    """Store the first `size` bytes of an open file and return (content, bytes allocated); its holes stay holes.

    Bytes that are gone meanwhile are stored as zeros: a caller who cares compares times. Raises OSError.
    """

    def read(offset: int, length: int) -> bytes:
        data = os.pread(fd, length, offset)
        while len(data) < length:
            more = os.pread(fd, length - len(data), offset + len(data))
            if not more:
                return data.ljust(length, b"\0")
            data += more
        return data

    if 0 < size <= INLINE_LIMIT:
        data = read(0, size)
        if data[-1]:
            return writer.put(KIND_BLOB, data), _block_bytes(size)
    return store_content(writer, b"", 0, size, 0, list(file_data(fd, size)), read)


def file_data(fd: int, size: int) -> Iterator[Range]:
    """Yield the ranges of an open file's first `size` bytes that hold data, by SEEK_DATA and SEEK_HOLE."""
    at = 0
    while at < size:
        try:
            start = os.lseek(fd, at, os.SEEK_DATA)
            end = os.lseek(fd, start, os.SEEK_HOLE)
        except OSError as error:
            if error.errno == errno.ENXIO:  # nothing but a hole from here on
                return
            if error.errno != errno.EINVAL:
                raise
            start, end = at, size  # a filesystem that knows no holes
        if start >= size:
            return
        yield start, min(end, size)
        at = end
