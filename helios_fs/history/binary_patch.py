"""What git calls a binary patch: whole contents, or what to copy and what to insert, compressed, as lines of base85.

Knows streams of bytes and git's encoding (`base85.c`, `diff.c:emit_binary_diff_body`, and "Deltified representation"
in `Documentation/gitformat-pack.txt` of git); nothing of trees.

B1. Content goes through in pieces: memory does not grow with it.
"""

import hashlib
import zlib
from base64 import b85encode
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final, NamedTuple

_LINE_BYTES: Final = 52
"""What one line holds. Its first letter says how many bytes: A to Z are 1 to 26, a to z are 27 to 52."""
_LETTERS: Final = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
NO_BLOB: Final = b"0" * 40
"""What git writes for the id of a file that is not there."""

_INSERT_BYTES: Final = 127
_COPY_BYTES: Final = 0xFFFFFF


class Span(NamedTuple):
    """A range of the newer content, and where the older holds the same bytes, if it does."""

    start: int
    length: int
    source: int | None


def blob_id(size: int, data: Iterable[bytes]) -> bytes:
    """Return the id that git gives to content of `size` bytes, in hex."""
    # Not for security: it is the name that git knows a file's content by.
    hasher = hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)
    for piece in data:
        hasher.update(piece)
    return hasher.hexdigest().encode()


def literal(size: int, data: Iterable[bytes]) -> Iterator[bytes]:
    """Yield one half of a binary patch: `size` bytes of content as they are on one side, and the empty line after."""
    yield b"literal %d\n" % size
    yield from _compressed(data)


def delta(
    old_size: int, new_size: int, spans: Sequence[Span], read: Callable[[int, int], Iterable[bytes]]
) -> Iterator[bytes]:
    """Yield one half of a binary patch by what it copies from the other side.

    `spans` cover the newer content without gaps; `read(start, length)` returns the pieces of one that has no source.
    """
    head = _varint(old_size) + _varint(new_size)
    size = len(head)
    for span in spans:
        if span.source is None:
            size += span.length + -(-span.length // _INSERT_BYTES)
        else:
            size += sum(map(len, _copies(span.source, span.length)))
    yield b"delta %d\n" % size
    yield from _compressed(_instructions(head, spans, read))


def _instructions(head: bytes, spans: Sequence[Span], read: Callable[[int, int], Iterable[bytes]]) -> Iterator[bytes]:
    yield head
    for span in spans:
        if span.source is not None:
            yield from _copies(span.source, span.length)
            continue
        waiting = b""
        for piece in read(span.start, span.length):
            waiting += piece
            whole = len(waiting) // _INSERT_BYTES * _INSERT_BYTES
            yield _inserts(waiting[:whole])
            waiting = waiting[whole:]
        yield _inserts(waiting)


def _inserts(data: bytes) -> bytes:
    parts = [data[start : start + _INSERT_BYTES] for start in range(0, len(data), _INSERT_BYTES)]
    return b"".join(b"%c%s" % (len(part), part) for part in parts)


def _copies(source: int, length: int) -> Iterator[bytes]:
    """Yield instructions to copy a range: a bit for each byte of offset and size that is not zero, then those bytes."""
    for start in range(source, source + length, _COPY_BYTES):
        size = min(_COPY_BYTES, source + length - start)
        flags, body = 0x80, bytearray()
        for bit, byte in enumerate(start.to_bytes(4, "little") + size.to_bytes(3, "little")):
            if byte:
                flags |= 1 << bit
                body.append(byte)
        yield bytes([flags]) + body


def _varint(number: int) -> bytes:
    parts = bytearray()
    while number > 127:
        parts.append(number & 127 | 128)
        number >>= 7
    return bytes([*parts, number])


def _compressed(data: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the lines of a half's body, and the empty line that ends it."""
    compressor = zlib.compressobj()
    waiting = b""
    for piece in data:
        waiting += compressor.compress(piece)
        whole = len(waiting) // _LINE_BYTES * _LINE_BYTES
        yield from _lines(waiting[:whole])
        waiting = waiting[whole:]
    yield from _lines(waiting + compressor.flush())
    yield b"\n"


def _lines(data: bytes) -> Iterator[bytes]:
    for start in range(0, len(data), _LINE_BYTES):
        part = data[start : start + _LINE_BYTES]
        yield b"%c%s\n" % (_LETTERS[len(part) - 1], b85encode(part, pad=True))
