import os
import struct
from pathlib import Path

import pytest

from helios_fs.errors import ColdObject, CorruptObject, ObjectMissing, StoreFault, StoreFull
from helios_fs.objects.ids import KIND_BLOB, KIND_PAGE, object_id
from helios_fs.store import packs
from helios_fs.store.compression import CODEC_NONE
from helios_fs.store.packs import (
    FILE_HEADER_BYTES,
    PACK_BYTES,
    Location,
    PackAppender,
    PackFile,
    PackFiles,
    Record,
    pack_numbers,
    pack_path,
)
from tests.unit.store.faults import Faults

_STORE = b"s" * 16
_PAYLOADS = [b"first", b"", b"third" * 1000]


def _record(payload: bytes, kind: int = KIND_BLOB) -> Record:
    return Record(kind, CODEC_NONE, object_id(kind, payload), len(payload), payload)


@pytest.fixture
def directory(tmp_path: Path) -> str:
    return str(tmp_path)


@pytest.fixture
def appender(directory: str) -> PackAppender:
    return PackAppender(directory, 5, _STORE)


def _append_all(appender: PackAppender) -> list[Location]:
    return appender.append([_record(payload) for payload in _PAYLOADS])


def _damage(path: str, at: int) -> None:
    with open(path, "r+b") as file:
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ 1]))


def test_records_can_be_read_and_scanned(directory: str, appender: PackAppender) -> None:
    locations = _append_all(appender)
    appender.sync()
    pack = PackFile(directory, 5, _STORE)
    for payload, location in zip(_PAYLOADS, locations, strict=True):
        for wait in (True, False):
            assert pack.read(location, object_id(KIND_BLOB, payload), wait) == payload
    scanned = list(pack.scan())
    assert scanned == [(object_id(KIND_BLOB, p), where) for p, where in zip(_PAYLOADS, locations, strict=True)]
    assert list(pack.scan(locations[1].offset)) == scanned[1:]
    assert list(pack.scan(locations[1].offset, locations[2].offset)) == scanned[1:2]


def test_every_byte_of_a_record_is_covered_by_its_checksum(directory: str, appender: PackAppender) -> None:
    location = appender.append([_record(b"payload", KIND_PAGE)])[0]
    path = pack_path(directory, 5)
    for at in range(location.offset, os.path.getsize(path)):
        _damage(path, at)
        pack = PackFile(directory, 5, _STORE)
        with pytest.raises(CorruptObject, match="pack 00000005 at byte 64"):
            pack.read(location, object_id(KIND_PAGE, b"payload"), wait=True)
        assert list(pack.scan()) == []
        _damage(path, at)
    assert len(list(PackFile(directory, 5, _STORE).scan())) == 1


def test_every_byte_of_the_header_is_checked(directory: str, appender: PackAppender) -> None:
    path = pack_path(directory, 5)
    for at in range(FILE_HEADER_BYTES):
        _damage(path, at)
        with pytest.raises(CorruptObject):
            PackFile(directory, 5, _STORE)
        _damage(path, at)
    os.rename(path, pack_path(directory, 6))
    with pytest.raises(CorruptObject):
        PackFile(directory, 6, _STORE)
    os.rename(pack_path(directory, 6), path)
    with pytest.raises(CorruptObject):
        PackFile(directory, 5, b"t" * 16)
    os.truncate(path, FILE_HEADER_BYTES - 1)
    with pytest.raises(CorruptObject):
        PackFile(directory, 5, _STORE)


def test_a_location_that_does_not_fit_its_record_is_refused(directory: str, appender: PackAppender) -> None:
    location = appender.append([_record(b"payload")])[0]
    pack = PackFile(directory, 5, _STORE)
    name = object_id(KIND_BLOB, b"payload")
    for wrong in (
        location._replace(kind=KIND_PAGE),
        location._replace(codec=1),
        location._replace(raw=6),
        location._replace(stored=6),
        location._replace(offset=location.offset + 1),
        location._replace(offset=1 << 40),
    ):
        with pytest.raises(CorruptObject):
            pack.read(wrong, name, wait=True)
    with pytest.raises(CorruptObject):
        pack.read(location, object_id(KIND_BLOB, b"other"), wait=True)


def test_a_scan_passes_over_damage_and_ends_at_a_torn_tail(directory: str, appender: PackAppender) -> None:
    locations = _append_all(appender)
    path = pack_path(directory, 5)
    _damage(path, locations[0].offset + 60)
    names = [object_id(KIND_BLOB, payload) for payload in _PAYLOADS]
    assert [name for name, _ in PackFile(directory, 5, _STORE).scan()] == names[1:]
    os.truncate(path, os.path.getsize(path) - 1)
    assert [name for name, _ in PackFile(directory, 5, _STORE).scan()] == names[1:2]


def test_a_record_within_a_stored_file_is_not_a_record(directory: str, appender: PackAppender) -> None:
    """A pack that was itself stored as a file, behind a damaged header: nothing of it may pass for ours (K2)."""
    inner = appender.append([_record(b"inner payload")])
    with open(appender.path, "rb") as file:
        stored = file.read()
    outer = PackAppender(directory, 6, _STORE)
    location = outer.append([_record(stored)])[0]
    _damage(pack_path(directory, 6), location.offset)
    assert list(PackFile(directory, 6, _STORE).scan()) == []
    assert len(list(PackFile(directory, 5, _STORE).scan())) == len(inner) == 1


def test_a_size_beyond_the_file_is_no_record(directory: str, appender: PackAppender) -> None:
    header = struct.pack("<4sBBHII32sQ", b"HREC", 1, 0, 0, 2**32 - 1, 2**32 - 1, b"i" * 32, 0)
    with open(appender.path, "ab") as file:
        file.write(header)
    assert list(PackFile(directory, 5, _STORE).scan()) == []


@pytest.mark.parametrize("short", [None, 0, 1, 70])
def test_an_append_that_fails_leaves_nothing(
    directory: str, appender: PackAppender, faults: Faults, short: int | None
) -> None:
    before = appender.append([_record(b"before")])
    faults.fail_at, faults.short = len(faults.seen), short
    with pytest.raises(StoreFault if short is None else StoreFull):
        _append_all(appender)
    assert appender.usable
    after = appender.append([_record(b"after")])
    assert [location for _, location in PackFile(directory, 5, _STORE).scan()] == before + after


def test_where_even_the_cut_fails_nothing_more_is_appended(
    directory: str, appender: PackAppender, faults: Faults
) -> None:
    before = appender.append([_record(b"before")])
    faults.fail_all, faults.fail_at, faults.short = {"cut"}, len(faults.seen), 50
    with pytest.raises(StoreFull):
        _append_all(appender)
    assert not appender.usable
    assert not appender.has_room(1)
    assert [location for _, location in PackFile(directory, 5, _STORE).scan()] == before


def test_a_failed_sync_is_final(appender: PackAppender, faults: Faults) -> None:
    appender.append([_record(b"payload")])
    faults.fail_at = len(faults.seen)
    with pytest.raises(StoreFault):
        appender.sync()
    with pytest.raises(StoreFault, match="earlier fdatasync failed"):
        appender.sync()
    assert not appender.usable


def test_a_pack_is_never_opened_twice_for_writing(directory: str, appender: PackAppender) -> None:
    with pytest.raises(StoreFault):
        PackAppender(directory, 5, _STORE)
    assert os.path.getsize(appender.path) == FILE_HEADER_BYTES


def test_a_pack_whose_header_cannot_be_written_is_removed(directory: str, faults: Faults) -> None:
    faults.fail_all = {"append"}
    with pytest.raises(StoreFault):
        PackAppender(directory, 6, _STORE)
    assert pack_numbers(directory) == []
    faults.fail_all = {"append", "remove"}
    with pytest.raises(StoreFault):
        PackAppender(directory, 7, _STORE)
    assert pack_numbers(directory) == [7]


def test_room(appender: PackAppender) -> None:
    assert appender.has_room(1 << 31)
    appender.append([_record(b"x")])
    assert appender.has_room(PACK_BYTES - appender.length - packs.RECORD_HEADER_BYTES)
    assert not appender.has_room(PACK_BYTES - appender.length)


def test_only_packs_are_listed(directory: str, appender: PackAppender) -> None:
    for name in ("x.pack", "00000007.pack.tmp", "0000000G.pack", "notes", "1.pack", "123456789.pack"):
        Path(directory, name).touch()
    assert pack_numbers(directory) == [5, 0x123456789]
    with pytest.raises(StoreFault):
        pack_numbers(os.path.join(directory, "notes"))


def test_open_packs_are_bounded_and_dropped_ones_let_go(directory: str) -> None:
    for number in range(4):
        PackAppender(directory, number, _STORE).close()
    opened = PackFiles(directory, _STORE, limit=2)
    with pytest.raises(ColdObject):
        opened.get(0, b"id", wait=False)
    held = opened.get(0, b"id", wait=True)
    assert opened.get(0, b"id", wait=False) is held
    opened.get(1, b"id", wait=True)
    os.unlink(pack_path(directory, 1))
    opened.get(2, b"id", wait=True)
    assert opened.get(0, b"id", wait=False) is held  # 1 had no name left, so it went first
    with pytest.raises(ObjectMissing):
        opened.get(1, b"id", wait=True)
    opened.get(3, b"id", wait=True)
    assert len(opened._open) == 2
    os.fstat(held.fd)  # whoever still reads it may go on
    opened.close()
    assert not opened._open


def test_objects_have_a_largest_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packs, "MAX_OBJECT_BYTES", 3)
    packs.check_object_size(b"abc")
    with pytest.raises(StoreFault):
        packs.check_object_size(b"abcd")
