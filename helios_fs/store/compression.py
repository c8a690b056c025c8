"""How payloads are compressed in packs, and when they are not.

Knows no ids and no files. Which codec was used is in the record, so that it may change from record to record.
"""

import threading
from typing import Final

import zstandard

from helios_fs.errors import CorruptObject

CODEC_NONE: Final = 0
CODEC_ZSTD: Final = 1

_LEVEL: Final = 1
_SMALL: Final = 96
"""Payloads up to this many bytes are kept as they are: a frame's header eats what little there is to win."""
_SAMPLE_ABOVE: Final = 32 * 1024
_SAMPLE: Final = 4 * 1024
_PAYS: Final = 0.95
"""Compressed bytes are kept only where they are at most this part of the payload: each read pays for them."""


class _Codecs(threading.local):
    """One pair for each thread: zstandard's objects must not be used by two threads at once."""

    def __init__(self) -> None:
        self.compress = zstandard.ZstdCompressor(level=_LEVEL).compress
        self.decompress = zstandard.ZstdDecompressor().decompress


_codecs: Final = _Codecs()


def compress(payload: bytes) -> tuple[int, bytes]:
    """Return the codec and the bytes to keep: the shorter ones, unless the gain is not worth it.

    A large payload is judged by 4 KiB of its middle first, so that media and archives cost next to nothing.
    """
    size = len(payload)
    if size <= _SMALL:
        return CODEC_NONE, payload
    if size > _SAMPLE_ABOVE:
        middle = size // 2
        sample = payload[middle : middle + _SAMPLE]
        if len(_codecs.compress(sample)) > _PAYS * len(sample):
            return CODEC_NONE, payload
    packed = _codecs.compress(payload)
    if len(packed) > _PAYS * size:
        return CODEC_NONE, payload
    return CODEC_ZSTD, packed


def decompress(codec: int, stored: bytes, size: int) -> bytes:
    """Return the `size` bytes that were compressed. Raises CorruptObject."""
    if codec == CODEC_NONE:
        payload = stored
    elif codec == CODEC_ZSTD:
        try:
            # The frame states its size; without this check a forged one could claim any amount of memory.
            if zstandard.frame_content_size(stored) != size:
                raise CorruptObject("a compressed object is not as long as its record says")
            payload = _codecs.decompress(stored)
        except zstandard.ZstdError as error:
            raise CorruptObject(f"an object cannot be decompressed: {error}") from error
    else:
        raise CorruptObject(f"an object is stored with codec {codec}, which is unknown")
    if len(payload) != size:
        raise CorruptObject("an object is not as long as its record says")
    return payload
