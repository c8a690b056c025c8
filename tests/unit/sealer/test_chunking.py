"""Where large files are cut."""

import hashlib
from collections.abc import Callable

import pytest

from helios_fs.sealer.chunking import BUFFER_BYTES, MAX_CHUNK, MIN_CHUNK, chunks, chunks_of

_NOISE = hashlib.shake_128(b"chunking").digest(9 << 20)


class _Source:
    def __init__(self, data: bytes, first: int = 0) -> None:
        self.data = data
        self.first = first
        self.asked: list[tuple[int, int]] = []

    def read(self, offset: int, length: int) -> bytes:
        self.asked.append((offset, length))
        return self.data[offset - self.first :][:length]


@pytest.mark.parametrize("size", [0, 1, MIN_CHUNK, MAX_CHUNK, MAX_CHUNK + 1, BUFFER_BYTES, len(_NOISE)])
@pytest.mark.parametrize("first", [0, 5 << 32])
def test_chunks_are_the_bytes_in_order_and_of_the_right_sizes(size: int, first: int) -> None:
    source = _Source(_NOISE[:size], first)
    found = list(chunks_of(source.read, first, first + size))
    assert b"".join(data for _, data in found) == source.data
    at = first
    for offset, data in found:
        assert offset == at
        assert len(data) <= MAX_CHUNK
        at += len(data)
    assert all(len(data) >= MIN_CHUNK for _, data in found[:-1])


def test_a_cut_depends_only_on_the_bytes_since_the_last_one() -> None:
    found = list(chunks_of(_Source(_NOISE).read, 0, len(_NOISE)))
    assert len(found) > 10
    for index in (1, 5):
        start = found[index][0]
        assert list(chunks_of(_Source(_NOISE).read, start, len(_NOISE))) == found[index:]


def test_the_format_is_fixed() -> None:
    """Another library, or other sizes, would end deduplication against every store there is."""
    found = [(offset, len(data)) for offset, data in chunks_of(_Source(_NOISE).read, 0, len(_NOISE))][:4]
    assert found == [(0, 223608), (223608, 311294), (534902, 81670), (616572, 233396)]
    assert [len(data) for _, data in chunks_of(_Source(bytes(3 << 20)).read, 0, 3 << 20)] == [MAX_CHUNK] * 3


def test_no_more_is_read_than_needed() -> None:
    source = _Source(_NOISE)
    chunker = chunks_of(source.read, 0, len(_NOISE))
    next(chunker)
    assert source.asked == [(0, MAX_CHUNK)]
    for _ in chunker:
        pass
    assert max(length for _, length in source.asked) <= BUFFER_BYTES
    assert sum(length for _, length in source.asked) == len(_NOISE)


def test_data_ends_where_reach_says() -> None:
    def stretches(ends: list[int]) -> Callable[[int, int], int]:
        def reach(offset: int, wanted: int) -> int:
            return next((end for end in ends if end > offset and end >= wanted), ends[-1])

        return reach

    ends = [100, MAX_CHUNK, 2 << 20, (2 << 20) + 5]
    source = _Source(_NOISE)
    found = list(chunks(source.read, 0, stretches(ends)))
    assert b"".join(data for _, data in found) == _NOISE[: ends[-1]]
    assert found == list(chunks_of(source.read, 0, ends[-1]))
