"""Identities: one type for each kind of id.

An object is named by BLAKE3 over one byte of kind and its payload, so that a file can never pass for a tree page.
A snapshot id is ten characters that sort by time, begin with a digit, and are never reused.
"""

import secrets
import time
from typing import Final, NewType

from blake3 import blake3

ObjectId = NewType("ObjectId", bytes)
"""32 bytes of BLAKE3."""

SnapshotId = NewType("SnapshotId", str)
"""Ten characters of lower-case base 32; see `next_snapshot_id`."""

Ino = NewType("Ino", int)
"""An inode number, 1 to 2**48-1, unique in the store; 1 is the root of every tree."""

ROOT_INO: Final = 1
MAX_INO: Final = (1 << 48) - 1
OBJECT_ID_BYTES: Final = 32

KIND_BLOB: Final = 1
"""Bytes of a file: all of a small one, or one chunk of a large one."""
KIND_PAGE: Final = 2
"""A page of a directory, of a chunk list or of a link table (`objects/pages.py`)."""
KIND_TREE: Final = 3
"""A whole tree: the root's entry and the link table (`objects/entry.py`)."""

KINDS: Final = frozenset({KIND_BLOB, KIND_PAGE, KIND_TREE})

_KIND_BYTES: Final = {kind: bytes([kind]) for kind in KINDS}


def object_id(kind: int, payload: bytes | memoryview) -> ObjectId:
    """Return the id of an object: BLAKE3 over the kind's byte, then the payload."""
    hasher = blake3(_KIND_BYTES[kind])
    hasher.update(payload)
    return ObjectId(hasher.digest())


# Crockford's base 32 without i, l, o and u, as in https://www.crockford.com/base32.html: nothing to mistake when typed.
_ALPHABET: Final = "0123456789abcdefghjkmnpqrstvwxyz"
_DIGITS: Final = {letter: value for value, letter in enumerate(_ALPHABET)}
_ID_LENGTH: Final = 10
_SEQUENCE_BITS: Final = 10
_TICK_NS: Final = 10_000_000
# 2026-01-01T00:00:00Z. Ten characters hold 50 bits; the first stays a digit for 109 years of 10 ms ticks.
_EPOCH_NS: Final = 1_767_225_600 * 1_000_000_000
_LARGEST: Final = 10 * (1 << 45) - 1


def next_snapshot_id(after: SnapshotId | None, now_ns: int | None = None) -> SnapshotId:
    """Return a new id that sorts after `after` and, clock permitting, by time.

    The first 40 bits are 10 ms ticks since 2026, the last 10 start at random, so that two branches seldom meet.
    A clock that stands still or runs backwards only makes the next id the successor of the last one.
    """
    tick = max(0, (time.time_ns() if now_ns is None else now_ns) - _EPOCH_NS) // _TICK_NS
    number = (tick << _SEQUENCE_BITS) | secrets.randbits(_SEQUENCE_BITS)
    if after is not None:
        number = max(number, snapshot_number(after) + 1)
    if number > _LARGEST:
        raise OverflowError("snapshot ids have run out")
    letters = []
    for _ in range(_ID_LENGTH):
        number, digit = divmod(number, 32)
        letters.append(_ALPHABET[digit])
    return SnapshotId("".join(reversed(letters)))


class SnapshotIds:
    """A supply of ids for all branches that a process owns: no two of them are the same.

    Histories refer to snapshots by their ids alone, so ids of different branches must not meet; between processes the
    random bits see to it.
    """

    def __init__(self) -> None:
        self._newest: SnapshotId | None = None

    def take(self, after: str) -> SnapshotId:
        """Return an id that sorts after `after`, a snapshot's id or empty, and after every one taken before."""
        if self._newest is None or after > self._newest:
            self._newest = SnapshotId(after) if after else None
        self._newest = next_snapshot_id(self._newest)
        return self._newest


snapshot_ids: Final = SnapshotIds()
"""The supply of this process."""


def snapshot_number(snapshot_id: SnapshotId) -> int:
    """Return the 50 bits that an id writes."""
    number = 0
    for letter in snapshot_id:
        number = number * 32 + _DIGITS[letter]
    return number


def looks_like_snapshot_id(text: str) -> bool:
    """Tell whether `text` could be an id, so that no snapshot may be given it as a name."""
    return len(text) == _ID_LENGTH and text[0].isdecimal() and text[0].isascii() and all(c in _DIGITS for c in text)
