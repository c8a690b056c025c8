"""File content on its way into the store: how much is written, and what becomes of holes."""

import errno
import hashlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from helios_fs.errors import ColdObject, CorruptObject
from helios_fs.objects.entry import INLINE_LIMIT, ChunkRef, encode_chunk, offset_key
from helios_fs.objects.ids import KIND_BLOB, KIND_PAGE
from helios_fs.objects.pages import Page
from helios_fs.sealer.content import file_data, store_content, store_stream
from helios_fs.store import maps
from helios_fs.store.content import covered, data_ranges, pieces, read_content
from helios_fs.store.store import Store
from helios_fs.store.writer import Writer

_NOISE = hashlib.shake_128(b"content").digest(9 << 20)
_PERIOD = (4 << 20) + 4099
_GIB = 1 << 30


class _Counting:
    """A real writer that notes what is put."""

    def __init__(self, writer: Writer) -> None:
        self._writer = writer
        self.blobs: list[int] = []
        self.pages = 0

    def put(self, kind: int, payload: bytes) -> bytes:
        if kind == KIND_PAGE:
            self.pages += 1
        else:
            self.blobs.append(len(payload))
        return self._writer.put(kind, payload)

    def get(self, kind: int, object_id: bytes, /) -> bytes:
        return self._writer.get(kind, object_id)

    def page(self, object_id: bytes) -> Page:
        return self._writer.page(object_id)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    Store.create(str(tmp_path / "store"))
    with Store.open(str(tmp_path / "store")) as opened:
        yield opened


@pytest.fixture
def writer(store: Store) -> Iterator[_Counting]:
    with store.writer() as opened:
        yield _Counting(opened)


def _noise_at(offset: int, length: int) -> bytes:
    at = offset % _PERIOD
    assert length <= 4 << 20
    return _NOISE[at : at + length]


def _with(changes: dict[int, int]) -> Callable[[int, int], bytes]:
    def read(offset: int, length: int) -> bytes:
        data = bytearray(_noise_at(offset, length))
        for position, value in changes.items():
            if offset <= position < offset + length:
                data[position - offset] = value
        return bytes(data)

    return read


def test_one_byte_in_a_large_file_costs_a_few_chunks_and_pages(writer: _Counting) -> None:
    size = 300 << 20
    content, allocated = store_content(writer, b"", 0, size, 0, [(0, size)], _noise_at)
    assert allocated == size
    for position in (0, 131 << 20, size - 1):
        writer.blobs.clear()
        writer.pages = 0
        changed, still = store_content(
            writer, content, size, size, size, [(position, position + 1)], _with({position: 7}), base_allocated=size
        )
        assert still == size
        assert changed != content
        assert len(writer.blobs) <= 3
        assert writer.pages <= 5
        assert read_content(writer, changed, size, max(0, position - 9), 19) == _with({position: 7})(
            max(0, position - 9), min(19, size - position + 9, position + 10 + 9)
        )


def test_an_append_and_a_cut_touch_only_the_end(writer: _Counting) -> None:
    size = 40 << 20
    content, _ = store_content(writer, b"", 0, size, 0, [(0, size)], _noise_at)
    writer.blobs.clear()
    longer, _ = store_content(writer, content, size, size + 10, size, [(size, size + 10)], _noise_at)
    assert len(writer.blobs) == 1
    back, allocated = store_content(writer, longer, size + 10, size, size, [], _noise_at)
    assert (back, allocated) == (content, size)
    shorter, allocated = store_content(writer, content, size, size // 2 + 1, size // 2 + 1, [], _noise_at)
    assert len(writer.blobs) == 3
    assert allocated == size // 2 + 4096
    assert (shorter, allocated) == store_content(writer, b"", 0, size // 2 + 1, 0, [(0, size // 2 + 1)], _noise_at)


def test_holes_stay_holes_behind_4_gib(writer: _Counting) -> None:
    size = 20 * _GIB
    written = [(1, 2), (5 * _GIB - 10, 5 * _GIB + 10), (19 * _GIB, 19 * _GIB + 400_000)]
    content, allocated = store_content(writer, b"", 0, size, 0, written, _noise_at)
    assert list(data_ranges(writer, content, size, 0, size)) == written
    assert allocated == 4096 * (1 + 2 + 98)
    assert covered(writer, content, size, 5 * _GIB, size) == 10 + 400_000
    middle = read_content(writer, content, size, 5 * _GIB - 20, 40)
    assert middle == bytes(10) + _noise_at(5 * _GIB - 10, 20) + bytes(10)
    assert read_content(writer, content, size, 6 * _GIB, 100) == bytes(100)
    assert read_content(writer, content, size, size - 5, 100) == bytes(5)
    assert read_content(writer, content, size, size, 1) == b""
    assert list(data_ranges(writer, content, size, 6 * _GIB, 7 * _GIB)) == []
    assert list(data_ranges(writer, content, size, 9, 9)) == []


def test_small_files(writer: _Counting) -> None:
    assert store_content(writer, b"", 0, 0, 0, [], _noise_at) == (b"", 0)
    assert store_content(writer, b"", 0, 5000, 0, [], _noise_at) == (b"", 0)
    assert read_content(writer, b"", 5000, 4990, 100) == bytes(10)
    assert list(pieces(writer, b"", 5000)) == []
    content, allocated = store_content(writer, b"", 0, 5000, 0, [(0, 10)], _noise_at)
    assert allocated == 4096
    assert writer.get(KIND_BLOB, content) == _noise_at(0, 10)
    assert read_content(writer, content, 5000, 5, 20) == _noise_at(5, 5) + bytes(15)
    assert covered(writer, content, 5000, 4, 5000) == 6
    assert covered(writer, content, 5000, 40, 5000) == 0
    zeros, _ = store_content(writer, b"", 0, 50, 0, [(0, 50)], lambda _, length: bytes(length))
    assert writer.get(KIND_BLOB, zeros) == bytes(50)
    puts = len(writer.blobs)
    assert store_content(writer, zeros, 50, 50, 50, [], _noise_at) == (zeros, 4096)
    assert len(writer.blobs) == puts


def test_a_file_crosses_the_limit_both_ways(writer: _Counting) -> None:
    small, _ = store_content(writer, b"", 0, INLINE_LIMIT, 0, [(0, 100_000)], _noise_at)
    large, allocated = store_content(writer, small, INLINE_LIMIT, INLINE_LIMIT + 1, INLINE_LIMIT, [], _noise_at)
    assert list(data_ranges(writer, large, INLINE_LIMIT + 1, 0, INLINE_LIMIT + 1)) == [(0, 100_000)]
    assert allocated == 25 * 4096
    again, _ = store_content(writer, large, INLINE_LIMIT + 1, INLINE_LIMIT, INLINE_LIMIT, [], _noise_at)
    assert again == small
    empty, allocated = store_content(writer, large, INLINE_LIMIT + 1, 77, 0, [], _noise_at)
    assert (empty, allocated) == (b"", 0)


@pytest.mark.parametrize("size", [0, 1, 4096, INLINE_LIMIT, INLINE_LIMIT + 1, 3_000_000])
@pytest.mark.parametrize("hole", [False, True])
def test_a_real_file_keeps_its_holes(writer: _Counting, tmp_path: Path, size: int, hole: bool) -> None:
    path = tmp_path / "file"
    with path.open("wb") as file:
        file.write(_NOISE[: size // 2 if hole else size])
        file.truncate(size)
    fd = os.open(path, os.O_RDONLY)
    try:
        content, allocated = store_stream(writer, fd, size)
        ranges = list(file_data(fd, size))
    finally:
        os.close(fd)
    assert read_content(writer, content, size, 0, size) == path.read_bytes()
    if size > INLINE_LIMIT:
        assert list(data_ranges(writer, content, size, 0, size)) == ranges
    assert allocated == sum(-(-(end - start) // 4096) * 4096 for start, end in ranges)


def test_a_file_that_shrinks_while_it_is_read_is_filled_with_zeros(writer: _Counting, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x" * 100)
    fd = os.open(path, os.O_RDONLY)
    content, _ = store_stream(writer, fd, 300)
    os.close(fd)
    assert read_content(writer, content, 300, 0, 300) == b"x" * 100 + bytes(200)


def test_what_knows_no_holes_is_all_data() -> None:
    inside, outside = os.pipe()
    try:
        with pytest.raises(OSError) as caught:
            list(file_data(inside, 10))
        assert caught.value.errno == errno.ESPIPE
    finally:
        os.close(inside)
        os.close(outside)
    fd = os.open("/proc/self/status", os.O_RDONLY)  # answers EINVAL to SEEK_DATA
    assert list(file_data(fd, 10)) == [(0, 10)]
    os.close(fd)


def test_a_chunk_of_another_length_is_corrupt(writer: _Counting) -> None:
    blob = writer.put(KIND_BLOB, b"short")
    root = maps.edit(writer, b"", {offset_key(0): encode_chunk(ChunkRef(200_000, blob))})
    with pytest.raises(CorruptObject):
        read_content(writer, root, 200_000, 0, 10)


def test_cold_objects_pass_through_and_the_read_can_be_repeated(store: Store, writer: _Counting) -> None:
    size = 2 << 20
    with store.writer() as real:
        content, _ = store_content(real, b"", 0, size, 0, [(0, size)], _noise_at)
        real.publish([], "main", store.take_branch("main"))

    class _Cold:
        """Objects of which each is cold once."""

        def __init__(self) -> None:
            self.seen: set[bytes] = set()

        def _look(self, object_id: bytes) -> None:
            if object_id not in self.seen:
                self.seen.add(object_id)
                raise ColdObject(object_id)

        def get(self, kind: int, object_id: bytes, /) -> bytes:
            self._look(object_id)
            return store.objects.get(kind, object_id)

        def page(self, object_id: bytes) -> Page:
            self._look(object_id)
            return store.objects.page(object_id)

    cold = _Cold()
    for _ in range(100):
        try:
            data = read_content(cold, content, size, 100, size)
            break
        except ColdObject:
            continue
    assert data == _noise_at(100, size - 100)
    assert len(cold.seen) > 3
