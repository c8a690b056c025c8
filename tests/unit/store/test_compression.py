import os
import threading

import pytest
import zstandard

from helios_fs.errors import CorruptObject
from helios_fs.store.compression import CODEC_NONE, CODEC_ZSTD, compress, decompress


@pytest.mark.parametrize("size", [0, 1, 96, 97, 4096, 100_000, 1 << 20])
def test_text_is_compressed_and_noise_is_not(size: int) -> None:
    text = (b"all work and no play " * (size // 20 + 1))[:size]
    codec, stored = compress(text)
    assert codec == (CODEC_NONE if size <= 96 else CODEC_ZSTD)
    assert decompress(codec, stored, size) == text
    noise = os.urandom(size)
    assert compress(noise) == (CODEC_NONE, noise)


def test_a_large_payload_is_judged_by_its_middle() -> None:
    payload = bytes(30_000) + os.urandom(10_000) + bytes(30_000)
    assert compress(payload) == (CODEC_NONE, payload)


def test_a_payload_that_hardly_shrinks_is_kept_as_it_is() -> None:
    payload = os.urandom(4000) + bytes(96)
    assert compress(payload)[0] == CODEC_NONE


def test_hostile_frames_are_refused() -> None:
    frame = zstandard.ZstdCompressor().compress(b"x" * 1000)
    for codec, stored, size in (
        (CODEC_ZSTD, frame, 999),
        (CODEC_ZSTD, frame[:-3], 1000),
        (CODEC_ZSTD, b"no frame", 8),
        (CODEC_ZSTD, b"", 0),
        (CODEC_NONE, b"abc", 4),
        (7, b"abc", 3),
    ):
        with pytest.raises(CorruptObject):
            decompress(codec, stored, size)


def test_threads_do_not_share_a_compressor() -> None:
    payloads = [bytes([n]) * 200_000 for n in range(8)]
    results: dict[int, bool] = {}

    def work(number: int) -> None:
        pairs = [compress(payloads[number]) for _ in range(20)]
        results[number] = all(decompress(*pair, 200_000) == payloads[number] for pair in pairs)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == dict.fromkeys(range(8), True)
