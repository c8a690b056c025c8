"""Encodings: every value comes back from its bytes, equal values have equal bytes, and hostile bytes raise only
CorruptObject."""

from collections.abc import Callable

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from helios_fs.errors import CorruptObject
from helios_fs.objects import entry, pages, record, snapshot
from helios_fs.objects.entry import ChunkRef, Entry, Tree
from helios_fs.objects.pages import Page
from helios_fs.objects.snapshot import (
    Head,
    HeadMoved,
    Snapshot,
    SnapshotChanged,
    SnapshotDeleted,
    SnapshotSealed,
)
from helios_fs.store import compression, index, reflog
from helios_fs.store.packs import Location
from helios_fs.store.reflog import BranchTaken, Extent, InosReserved, Published

_u8 = st.integers(0, 2**8 - 1)
_u32 = st.integers(0, 2**32 - 1)
_u64 = st.integers(0, 2**64 - 1)
_ns = st.integers(-(2**63), 2**63 - 1)
_name = st.binary(min_size=1, max_size=255)
_id = st.binary(min_size=32, max_size=32)
_text = st.text(max_size=20)
_xattrs = st.none() | st.dictionaries(_name, st.binary(max_size=40), max_size=4)
# MessagePack has no integers above 64 bits; an entry's own limits are far below.
_entries = st.builds(
    Entry, _u64, _u32, _u32, _u32, _u32, _u64, _u64, _u64, _ns, _ns, _ns, st.binary(max_size=40), _xattrs
)
_trees = st.builds(Tree, _entries, st.just(b"") | _id)
_snapshots = st.builds(
    Snapshot, _text, _text, st.just(b"") | _id, st.lists(_text, max_size=3), _u64, _u64, _name, _text, _text, _text
)
_heads = st.builds(Head, _text, _id, _u64, _u64)
_events = st.lists(
    st.builds(HeadMoved, _heads)
    | st.builds(SnapshotSealed, _snapshots)
    | st.builds(SnapshotChanged, _text, _name, _text, st.booleans())
    | st.builds(SnapshotDeleted, _text),
    max_size=5,
)
_log_records = (
    st.builds(Published, _text, _u64, st.lists(st.builds(Extent, _u32, _u64, _u64), max_size=4), st.binary(max_size=30))
    | st.builds(InosReserved, _u64)
    | st.builds(BranchTaken, _text, _u64)
)


@st.composite
def _pages(draw: st.DrawFn) -> Page:
    keys = sorted(draw(st.sets(st.binary(max_size=20), min_size=1, max_size=20)))
    values = draw(st.lists(st.binary(max_size=40), min_size=len(keys), max_size=len(keys)))
    return Page(draw(st.integers(0, 10)), keys, values)


_CODECS = {
    "entry": (_entries | _u64, entry.encode_entry, entry.decode_entry),
    "chunk": (st.builds(ChunkRef, _u64, _id), entry.encode_chunk, entry.decode_chunk),
    "tree": (_trees, entry.encode_tree, entry.decode_tree),
    "page": (_pages(), pages.encode_page, pages.decode_page),
    "snapshot": (_snapshots, snapshot.encode_snapshot, snapshot.decode_snapshot),
    "head": (_heads, snapshot.encode_head, snapshot.decode_head),
    "events": (_events, snapshot.encode_events, snapshot.decode_events),
    "ref log record": (_log_records, reflog.encode_record, reflog.decode_record),
    "location": (
        st.builds(Location, _u32, _u64, _u32, _u32, _u8, _u8),
        index.encode_location,
        index.decode_location,
    ),
}


@pytest.mark.parametrize("name", _CODECS)
@given(data=st.data())
def test_values_come_back(name: str, data: st.DataObject) -> None:
    values, encode, decode = _CODECS[name]
    value = data.draw(values)
    encoded = encode(value)
    assert decode(encoded) == value
    assert encode(decode(encoded)) == encoded


@pytest.mark.parametrize("name", _CODECS)
@given(data=st.data())
def test_damaged_values_raise_only_our_error(name: str, data: st.DataObject) -> None:
    values, encode, decode = _CODECS[name]
    damaged = bytearray(encode(data.draw(values)))
    for _ in range(data.draw(st.integers(1, 3))):
        if damaged:
            damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(_u8)
    cut = data.draw(st.integers(0, len(damaged)))
    for hostile in (bytes(damaged), bytes(damaged[:cut])):
        try:
            decode(hostile)
        except CorruptObject:
            pass


_HOSTILE = [*(decode for _, _, decode in _CODECS.values())]
_HOSTILE += [getattr(record, name) for name in dir(record) if name.startswith("unpack_")]


@pytest.mark.parametrize("decode", _HOSTILE, ids=lambda decode: getattr(decode, "__name__", "decode"))
@given(hostile=st.binary(max_size=200))
@example(hostile=b"\x93\x00\xdd\xff\xff\xff\xff")  # an array that claims four thousand million items
@example(hostile=b"\xd9\x02\xff\xff")  # text that is not UTF-8
@example(hostile=b"\x91" * 200)  # nested without end
def test_hostile_bytes_raise_only_our_error(decode: Callable[[bytes], object], hostile: bytes) -> None:
    try:
        decode(hostile)
    except CorruptObject:
        pass


@given(_entries)
def test_the_order_of_xattrs_leaves_no_trace(value: Entry) -> None:
    if value.xattrs is not None:
        backwards = dict(reversed(value.xattrs.items()))
        fields = [getattr(value, name) for name in value.__struct_fields__[:-1]]
        assert entry.encode_entry(Entry(*fields, backwards)) == entry.encode_entry(value)


@given(st.binary(max_size=300) | st.builds(lambda part, n: part * n, st.binary(min_size=1, max_size=8), st.just(9000)))
def test_payloads_survive_compression(payload: bytes) -> None:
    codec, stored = compression.compress(payload)
    assert len(stored) <= len(payload)
    assert compression.decompress(codec, stored, len(payload)) == payload


@given(st.integers(0, 3), st.binary(max_size=100), st.integers(0, 2**40))
def test_hostile_compressed_bytes_raise_only_our_error(codec: int, stored: bytes, size: int) -> None:
    try:
        assert len(compression.decompress(codec, stored, size)) == size
    except CorruptObject:
        pass
