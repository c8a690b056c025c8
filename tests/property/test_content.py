"""Any history of writes and cuts, sealed at any moments, reads back; and equals the same bytes stored at once."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from helios_fs.objects.entry import INLINE_LIMIT
from helios_fs.sealer.content import store_content
from helios_fs.store.content import covered, data_ranges, pieces, read_content
from helios_fs.store.store import Store
from helios_fs.store.writer import Writer

_LARGEST = 3 << 20
_NOISE = hashlib.shake_128(b"noise").digest(_LARGEST)


@pytest.fixture(scope="module")
def writer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Writer]:
    path: Path = tmp_path_factory.mktemp("content") / "store"
    Store.create(str(path))
    with Store.open(str(path)) as store, store.writer() as writer:
        yield writer


class _Model:
    """A file as plain bytes with a map of what is data, and what `store_content` is told of it."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.mask = bytearray()
        self.content, self.allocated = b"", 0
        self.sealed()

    def sealed(self) -> None:
        self.base_size = self.limit = len(self.data)
        self.dirty = bytearray(len(self.data))

    def write(self, offset: int, data: bytes) -> None:
        end = offset + len(data)
        self._grow(end)
        self.data[offset:end] = data
        self.mask[offset:end] = self.dirty[offset:end] = b"\1" * len(data)

    def cut(self, size: int) -> None:
        self._grow(size)
        for array in (self.data, self.mask, self.dirty):
            del array[size:]
        self.limit = min(self.limit, size)

    def _grow(self, size: int) -> None:
        for array in (self.data, self.mask, self.dirty):
            array.extend(bytes(max(0, size - len(array))))

    def read(self, offset: int, length: int) -> bytes:
        assert offset + length <= len(self.data)
        return bytes(self.data[offset : offset + length])

    def seal(self, writer: Writer, counted: bool) -> None:
        self.content, self.allocated = store_content(
            writer, self.content, self.base_size, len(self.data), self.limit, _ranges(self.dirty), self.read,
            base_allocated=self.allocated if counted else None,
        )  # fmt: skip
        if len(self.data) <= INLINE_LIMIT:
            # A small file is one blob up to its last data: the holes in it are data from now on.
            end = self.mask.rfind(1) + 1
            self.mask[:end] = b"\1" * end
        self.sealed()


def _ranges(mask: bytearray) -> list[tuple[int, int]]:
    ranges = []
    start = mask.find(1)
    while start >= 0:
        end = mask.find(0, start)
        end = len(mask) if end < 0 else end
        ranges.append((start, end))
        start = mask.find(1, end)
    return ranges


_offsets = st.one_of(
    st.integers(0, _LARGEST - 1),
    st.integers(0, 2 * INLINE_LIMIT),
    st.integers(0, 40).map(lambda block: block * 65536),
)
_lengths = st.one_of(st.integers(1, 9000), st.integers(1, 2 * INLINE_LIMIT), st.just(_LARGEST))
_steps = st.one_of(
    st.tuples(st.just("write"), _offsets, _lengths, st.integers(0, 3)),
    st.tuples(st.just("cut"), st.one_of(_offsets, st.just(0))),
    st.tuples(st.just("seal"), st.booleans()),
)


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(_steps, min_size=1, max_size=12), window=st.tuples(_offsets, _lengths))
def test_any_history_reads_back_and_is_canonical(
    writer: Writer, steps: list[tuple[object, ...]], window: tuple[int, int]
) -> None:
    model = _Model()
    for step in [*steps, ("seal", True)]:
        match step:
            case "write", int(offset), int(length), int(shift):
                length = min(length, _LARGEST - offset)
                model.write(offset, _NOISE[shift * 1000 :][:length] if shift else bytes(length))
            case "cut", int(size):
                model.cut(size)
            case "seal", bool(counted):
                model.seal(writer, counted)
                _check(writer, model, *window)


def _check(writer: Writer, model: _Model, offset: int, length: int) -> None:
    size, content = len(model.data), model.content
    holes = _ranges(model.mask)
    assert read_content(writer, content, size, 0, size) == model.data
    assert read_content(writer, content, size, offset, length) == model.data[offset : offset + length]
    assert list(data_ranges(writer, content, size, 0, size)) == holes
    assert covered(writer, content, size, offset, offset + length) == model.mask[offset : offset + length].count(1)
    whole = bytearray(size)
    for at, data in pieces(writer, content, size):
        whole[at : at + len(data)] = data
    assert whole == model.data
    blocks = {block for low, high in holes for block in range(low // 4096, (high - 1) // 4096 + 1)}
    assert model.allocated == 4096 * len(blocks)
    assert (content, model.allocated) == store_content(writer, b"", 0, size, 0, holes, model.read)
