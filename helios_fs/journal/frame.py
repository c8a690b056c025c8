"""Frames: how one record lies in a segment.

    offset  size  field
    0       8     checksum   xxh3-64 of bytes 8.. up to the data, seeded with position + the segment's key
    8       4     payload length
    12      4     data length
    16      1     kind
    17      1     flags
    18      6     zero
    24      8     time, signed nanoseconds since 1970
    32      n     payload
    32+n    8*b   one xxh3-64 for each 32 KiB block of the data
    ..            data

Knows nothing of what kinds and payloads mean.

F1. A frame is valid at one position of one segment only: both seed its checksum. Bytes left over in a file that is
    used again never pass, nor does what somebody wrote into a file of the mount to look like a frame: the segment's
    key is secret.
F2. Data is checked block by block, so that reading 4 KiB of a 1 MiB write verifies 32 KiB, not all of it.
"""

import struct
from collections.abc import Callable
from typing import Final, NamedTuple

import xxhash

BLOCK_BYTES: Final = 32 * 1024
MAX_PAYLOAD_BYTES: Final = 1 << 20
MAX_DATA_BYTES: Final = 16 << 20

_HEADER: Final = struct.Struct("<QIIBB6xq")
_AFTER_CHECKSUM: Final = struct.Struct("<IIBB6xq")
_CHECKSUM: Final = struct.Struct("<Q")
HEADER_BYTES: Final = _HEADER.size

_sum = xxhash.xxh3_64_intdigest
_pack_after_checksum = _AFTER_CHECKSUM.pack
_pack_checksum = _CHECKSUM.pack


class Header(NamedTuple):
    """The fixed part of a frame."""

    checksum: int
    payload_bytes: int
    data_bytes: int
    kind: int
    flags: int
    time_ns: int

    @property
    def body_bytes(self) -> int:
        """Bytes from the end of the header to the start of the data."""
        return self.payload_bytes + 8 * block_count(self.data_bytes)


def block_count(data_bytes: int) -> int:
    """Return how many blocks, and so checksums, data of this length has."""
    return (data_bytes + BLOCK_BYTES - 1) // BLOCK_BYTES


def block_sums(data: bytes) -> bytes:
    """Return the checksums of the blocks of `data`."""
    if len(data) <= BLOCK_BYTES:
        return _pack_checksum(_sum(data)) if data else b""
    view = memoryview(data)
    sums = [_sum(view[start : start + BLOCK_BYTES]) for start in range(0, len(data), BLOCK_BYTES)]
    return struct.pack(f"<{len(sums)}Q", *sums)


def encode_head(seed: int, kind: int, flags: int, time_ns: int, payload: bytes, data: bytes) -> bytes:
    """Return everything of a frame but its data, for the place that `seed` stands for."""
    if data:
        rest = _pack_after_checksum(len(payload), len(data), kind, flags, time_ns) + payload + block_sums(data)
    else:
        rest = _pack_after_checksum(len(payload), 0, kind, flags, time_ns) + payload
    return _pack_checksum(_sum(rest, seed)) + rest


def parse_header(raw: bytes) -> Header | None:
    """Return the header in the first bytes of `raw`, or None where its lengths make no sense."""
    if len(raw) < HEADER_BYTES:
        return None
    header = Header._make(_HEADER.unpack_from(raw))
    if header.payload_bytes > MAX_PAYLOAD_BYTES or header.data_bytes > MAX_DATA_BYTES or header.kind == 0:
        return None
    return header


def head_is_whole(header: Header, head: bytes, seed: int) -> bool:
    """Tell whether `head`, all of a frame but its data, is what was written at the place that `seed` stands for."""
    return _sum(head[8:], seed) == header.checksum


def data_is_whole(sums: bytes, data: bytes, first_block: int = 0) -> bool:
    """Tell whether `data`, beginning at the start of block `first_block`, matches the frame's checksums."""
    view = memoryview(data)
    count = block_count(len(data))
    expected = struct.unpack_from(f"<{count}Q", sums, 8 * first_block)
    return all(_sum(view[index * BLOCK_BYTES : (index + 1) * BLOCK_BYTES]) == expected[index] for index in range(count))


ReadAt = Callable[[int, int], bytes]
"""read(length, position) -> bytes, fewer at the end."""
