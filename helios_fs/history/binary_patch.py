"""What git calls a binary patch: whole contents, compressed, as lines of base85.

Knows streams of bytes and git's encoding (`base85.c`, `diff.c:emit_binary_diff_body` in git); nothing of trees.

B1. Content goes through in pieces: memory does not grow with it.
"""

import hashlib
import zlib
from base64 import b85encode
from collections.abc import Iterable, Iterator
from typing import Final

_LINE_BYTES: Final = 52
"""What one line holds. Its first letter says how many bytes: A to Z are 1 to 26, a to z are 27 to 52."""
_LETTERS: Final = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
NO_BLOB: Final = b"0" * 40
"""What git writes for the id of a file that is not there."""


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
