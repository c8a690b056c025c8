"""The ref log: every change of a branch, snapshot or counter, in order; with the packs it is the whole store.

Knows the file and its records; what they do to the index is `index.py`.

G1. It is only ever appended to, by whoever holds LMDB's write lock; a torn tail is cut off before the next append.
G2. A record is durable before anything that it says is shown, and the packs that it names are durable before it.
G3. Applying a record twice is the same as applying it once.
"""

import os
import struct
from collections.abc import Iterator
from typing import Final, NamedTuple

import msgspec
import xxhash

from helios_fs.errors import CorruptObject, HeliosError, NotAStore
from helios_fs.store import files

_FILE: Final = struct.Struct("<8sII16s")
_FILE_MAGIC: Final = b"HELREFS\n"
_FORMAT: Final = 0
HEADER_BYTES: Final = _FILE.size

_FRAME: Final = struct.Struct("<4sIQ")
_FRAME_MAGIC: Final = b"HREF"


class Extent(NamedTuple):
    """Records that became part of the store: bytes `start` to `end` of a pack."""

    pack: int
    start: int
    end: int


class Published(msgspec.Struct, array_like=True, frozen=True, tag="publish"):
    """A writer's objects and what they mean for refs, together."""

    branch: str
    fence: int
    extents: list[Extent]
    events: bytes
    """As `objects.snapshot.encode_events` writes them."""


class InosReserved(msgspec.Struct, array_like=True, frozen=True, tag="inos"):
    """Inode numbers below `next_ino` are taken."""

    next_ino: int


class BranchTaken(msgspec.Struct, array_like=True, frozen=True, tag="fence"):
    """A branch got a new owner, known by its fencing epoch."""

    branch: str
    fence: int


LogRecord = Published | InosReserved | BranchTaken

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(LogRecord).decode


def decode_record(payload: bytes) -> LogRecord:
    """Return the record that `payload` encodes. Raises CorruptObject."""
    try:
        record: LogRecord = _decode(payload)
    except (msgspec.MsgspecError, ValueError) as error:
        raise CorruptObject(f"a ref log record cannot be decoded: {error}") from error
    return record


def encode_record(record: LogRecord) -> bytes:
    """Return the bytes of a record."""
    return _encode(record)


def _check(offset: int, payload: bytes | memoryview) -> int:
    # Seeded with the place and the length, so that no record is valid anywhere else.
    return xxhash.xxh3_64_intdigest(payload, (offset << 32 ^ len(payload)) & 0xFFFFFFFFFFFFFFFF)


def header(store_id: bytes) -> bytes:
    """Return the first bytes of a ref log."""
    return _FILE.pack(_FILE_MAGIC, _FORMAT, 0, store_id)


class RefLog:
    """The open ref log of a store."""

    def __init__(self, path: str, store_id: bytes) -> None:
        """Open it. Raises NotAStore where it is missing or another store's."""
        self.path = path
        try:
            self._fd = files.open_file(path, os.O_RDWR | os.O_APPEND)
        except FileNotFoundError as error:
            raise NotAStore(f"{path} is missing: the store is not whole") from error
        if files.read_at(self._fd, HEADER_BYTES, 0) != header(store_id):
            self.close()
            raise NotAStore(f"{path} does not begin as this store's ref log does")

    def size(self) -> int:
        """Return its length in bytes."""
        return os.fstat(self._fd).st_size

    def append(self, record: LogRecord, at: int) -> int:
        """Append a record at `at`, the log's end; durable on return. Returns the new end.

        Only under LMDB's write lock. On StoreFull or StoreFault the record is cut off again.
        """
        payload = _encode(record)
        frame = _FRAME.pack(_FRAME_MAGIC, len(payload), _check(at, payload))
        length = len(frame) + len(payload)
        try:
            files.append(self._fd, [frame, payload], length)
            files.sync_data(self._fd)
        except HeliosError:
            self.cut(at)
            raise
        return at + length

    def cut(self, end: int) -> None:
        """Cut off what lies behind `end`.

        Where the disk refuses, the record stays, and is applied by whoever comes next: everything that it names was
        durable before it, so that is as good as success.
        """
        try:
            files.cut(self._fd, end)
        except HeliosError:
            pass

    def records(self, start: int) -> Iterator[tuple[LogRecord, int]]:
        """Return the records from `start` on, each with the offset behind it.

        Damage is passed over up to the next record that verifies; in a torn tail there is none.
        """
        data = files.read_at(self._fd, max(0, self.size() - start), start)
        at = 0
        while True:
            found = _verify(data, at, start)
            if found is not None:
                yield found
                at = found[1] - start
                continue
            at = data.find(_FRAME_MAGIC, at + 1)
            if at < 0:
                return

    def close(self) -> None:
        """Close the file. Closing twice is fine."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def _verify(data: bytes, at: int, start: int) -> tuple[LogRecord, int] | None:
    if len(data) - at < _FRAME.size:
        return None
    magic, length, check = _FRAME.unpack_from(data, at)
    payload = data[at + _FRAME.size : at + _FRAME.size + length]
    if magic != _FRAME_MAGIC or len(payload) != length or check != _check(start + at, payload):
        return None
    return decode_record(payload), start + at + _FRAME.size + length
