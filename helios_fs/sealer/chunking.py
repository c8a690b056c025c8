"""Content-defined chunks: where a large file is cut, so that equal stretches become equal chunks wherever they lie.

Knows nothing of the store: bytes in, bytes out.

K1. A cut depends only on the bytes since the last cut. So after a change the cuts meet the old ones again, and what
    follows needs no second look.
K2. Only the last chunk of a stretch of data is shorter than `MIN_CHUNK`; none is longer than `MAX_CHUNK`.
K3. At most `BUFFER_BYTES` + `MAX_CHUNK` are held, whatever the length of the stretch.
"""

from collections.abc import Callable, Iterator
from typing import Final

from fastcdc import fastcdc

# A part of the on-disk format: with other sizes nothing new would equal anything old.
MIN_CHUNK: Final = 64 * 1024
AVERAGE_CHUNK: Final = 256 * 1024
MAX_CHUNK: Final = 1024 * 1024

BUFFER_BYTES: Final = 4 * 1024 * 1024

Reader = Callable[[int, int], bytes]
"""read(offset, length) -> exactly `length` bytes."""

Reach = Callable[[int, int], int]
"""reach(offset, wanted) -> how far data goes on from `offset` without a hole.

At least `wanted`, or less and then exactly where the data ends. It is asked again as the chunker moves on, so that a
stretch of many GiB needs no list of what it is made of.
"""


def chunks(read: Reader, start: int, reach: Reach) -> Iterator[tuple[int, bytes]]:
    """Yield (offset, bytes) of each chunk of the data that begins at `start`, up to the next hole.

    Reads little more than it yields: a caller may stop at any chunk.
    """
    offset = start
    buffer = b""
    ahead = MAX_CHUNK  # the first chunk needs no more, and may be the only one asked for
    while True:
        filled = offset + len(buffer)
        end = min(reach(filled, offset + ahead), offset + ahead)
        if end > filled:
            more = read(filled, end - filled)
            assert len(more) == end - filled, "a reader returned another length than it was asked for"
            buffer = buffer + more if buffer else more
        if not buffer:
            return
        last = end < offset + ahead
        at = 0
        cuts = fastcdc(buffer, MIN_CHUNK, AVERAGE_CHUNK, MAX_CHUNK)
        # A cut is sure only where a whole MAX_CHUNK was looked at, or the data ends.
        while at < len(buffer) and (last or len(buffer) - at >= MAX_CHUNK):
            length = next(cuts).length
            yield offset + at, buffer[at : at + length]
            at += length
        if last:
            return
        offset += at
        buffer = buffer[at:]
        ahead = BUFFER_BYTES


def chunks_of(read: Reader, start: int, end: int) -> Iterator[tuple[int, bytes]]:
    """Yield (offset, bytes) of each chunk of the data start..end, which has no holes."""
    return chunks(read, start, lambda _offset, _wanted: end)
