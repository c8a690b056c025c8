import stat

import pytest

from helios_fs.errors import CorruptObject
from helios_fs.objects import record
from helios_fs.objects.entry import Entry, encode_entry

_ENTRY = Entry(9, stat.S_IFREG | 0o600, 0, 0, 1, 0, 5, 5, 1, 2, 3, b"c" * 32, {b"user.x": b"\0"})
_NAME = b"\xff" * 255


def test_bind() -> None:
    chain = [(5, 1, _NAME), (6, 5, b"b"), (7, 0, b"")]
    assert record.unpack_bind(record.pack_bind(chain)) == chain
    assert record.unpack_bind(b"") == []


def test_create() -> None:
    fields = (1, 2**48 - 1, stat.S_IFLNK | 0o777, 2**32 - 1, 7, 2**63, _NAME, b"target/..")
    assert record.unpack_create(record.pack_create(*fields)) == fields


def test_write() -> None:
    assert record.unpack_write(record.pack_write(5, 2**62)) == (5, 2**62)


def test_setattr() -> None:
    fields = (5, record.SET_MODE | record.SET_MTIME, 0o644, 1, 2, 2**60, -5, 2**62)
    assert record.unpack_setattr(record.pack_setattr(*fields)) == fields


def test_unlink_and_link() -> None:
    assert record.unpack_named(record.pack_named(1, 2, _NAME)) == (1, 2, _NAME)


def test_rename() -> None:
    fields = (1, 2, 3, 0, record.EXCHANGE, b"old", b"new")
    assert record.unpack_rename(record.pack_rename(*fields)) == fields


def test_xattrs() -> None:
    assert record.unpack_xattr(record.pack_xattr(5, b"user.a", b"value")) == (5, b"user.a", b"value")
    assert record.unpack_xattr(record.pack_xattr(5, b"user.a")) == (5, b"user.a", b"")


def test_freeze_and_described_snapshots() -> None:
    assert record.unpack_freeze(record.pack_freeze(2**40)) == 2**40
    described = ("0123456789", b"n\xff", "why", True)
    assert record.unpack_snapshot_changed(record.pack_snapshot_changed(*described)) == described


def test_grafts_and_assumed_entries() -> None:
    assert record.unpack_graft(record.pack_graft(1, b"name", _ENTRY)) == (1, b"name", _ENTRY)
    assert record.unpack_assume(record.pack_assume(_ENTRY)) == _ENTRY


def test_an_entry_that_is_only_a_number_is_refused() -> None:
    with pytest.raises(CorruptObject):
        record.unpack_assume(encode_entry(5))


@pytest.mark.parametrize(
    "unpack",
    [
        record.unpack_bind,
        record.unpack_create,
        record.unpack_write,
        record.unpack_setattr,
        record.unpack_named,
        record.unpack_rename,
        record.unpack_xattr,
        record.unpack_freeze,
        record.unpack_snapshot_changed,
        record.unpack_graft,
        record.unpack_assume,
    ],
)
def test_a_payload_that_is_too_short_is_refused(unpack: object) -> None:
    with pytest.raises(CorruptObject):
        unpack(b"\x01\x02")  # type: ignore[operator]  # one of the functions above
