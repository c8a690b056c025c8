"""The content of a sealed regular file: reading, and knowing where its holes are (E1 in `objects/entry.py`).

Knows nothing of inodes, journals or how content was made.

R1. What no blob covers is a hole and reads as zeros; so does what lies behind the end of a small file's blob.
R2. Cost follows the chunks that are touched, never the file's size.
R3. Nothing changes while a ColdObject passes through: the same call can be repeated.
"""

from collections.abc import Iterator
from typing import Protocol

from helios_fs.errors import CorruptObject
from helios_fs.objects.entry import INLINE_LIMIT, ChunkRef, decode_chunk, offset_key
from helios_fs.objects.ids import KIND_BLOB
from helios_fs.store import maps


class ObjectReader(maps.PageReader, Protocol):
    """Whatever can return pages and blobs by their ids: the store's objects, or a writer."""

    def get(self, kind: int, object_id: bytes, /) -> bytes:
        """Return the payload of one object. Raises ObjectMissing, CorruptObject, ColdObject."""
        ...


def read_content(objects: ObjectReader, content: bytes, size: int, offset: int, length: int) -> bytes:
    """Return up to `length` bytes at `offset`, fewer only at the end of the file; holes are zeros.

    Raises ColdObject where `objects` may not wait, CorruptObject or ObjectMissing where the bytes cannot be had.
    """
    end = min(offset + length, size)
    if offset >= end:
        return b""
    if not content:
        return bytes(end - offset)
    if size <= INLINE_LIMIT:
        data = objects.get(KIND_BLOB, content)[offset:end]
        return data if len(data) == end - offset else data.ljust(end - offset, b"\0")
    parts: list[bytes] = []
    at = offset
    for start, chunk in chunks_in(objects, content, offset, end):
        low, high = max(start, offset), min(start + chunk.length, end)
        data = _chunk_bytes(objects, chunk)[low - start : high - start]
        if low == offset and high == end:
            return data
        if low > at:
            parts.append(bytes(low - at))
        parts.append(data)
        at = high
    if at < end:
        parts.append(bytes(end - at))
    return b"".join(parts)


def _chunk_bytes(objects: ObjectReader, chunk: ChunkRef) -> bytes:
    data = objects.get(KIND_BLOB, chunk.blob)
    if len(data) != chunk.length:
        raise CorruptObject(f"chunk {chunk.blob.hex()} has {len(data)} bytes where its list says {chunk.length}")
    return data


def chunks_in(objects: maps.PageReader, root: bytes, start: int, end: int) -> Iterator[tuple[int, ChunkRef]]:
    """Yield (offset, chunk) of each chunk in a chunk list that has bytes in start..end, ascending."""
    first = maps.last_at_or_before(objects, root, offset_key(start))
    for key, value in maps.scan(objects, root, start=first[0] if first else offset_key(start)):
        offset = int.from_bytes(key, "big")
        if offset >= end:
            return
        chunk = decode_chunk(value)
        if offset + chunk.length > start:
            yield offset, chunk


def pieces(objects: ObjectReader, content: bytes, size: int) -> Iterator[tuple[int, bytes]]:
    """Yield (offset, bytes) of all that is not a hole, ascending; each blob is read once."""
    if not content or size == 0:
        return
    if size <= INLINE_LIMIT:
        yield 0, objects.get(KIND_BLOB, content)[:size]
        return
    for offset, chunk in chunks_in(objects, content, 0, size):
        yield offset, _chunk_bytes(objects, chunk)


def data_ranges(objects: ObjectReader, content: bytes, size: int, start: int, end: int) -> Iterator[tuple[int, int]]:
    """Yield the ranges in start..end that are not holes, ascending; those that touch are joined."""
    end = min(end, size)
    if not content or start >= end:
        return
    if size <= INLINE_LIMIT:
        high = min(len(objects.get(KIND_BLOB, content)), end)
        if start < high:
            yield start, high
        return
    low = high = start
    for offset, chunk in chunks_in(objects, content, start, end):
        if offset > high:
            if high > low:
                yield low, high
            low = offset
        high = min(offset + chunk.length, end)
    if high > low:
        yield low, high


def covered(objects: ObjectReader, content: bytes, size: int, start: int, end: int) -> int:
    """Return how many bytes of start..end are not holes. A small file's blob counts over its own length."""
    return sum(high - low for low, high in data_ranges(objects, content, size, start, end))
