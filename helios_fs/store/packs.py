"""Packs: files of object records that describe themselves, byte for byte as in `docs/format.md`.

Knows records, never what their payloads mean, and nothing of LMDB.

K1. A pack is written by one process, front to back, and never again once its writer has left it.
K2. A record's checksum covers its header and payload, and is seeded with the pack's own checksum and the record's
    offset: a copy of a record, in another place or within a file that was stored, is not a record.
K3. A number names one pack for ever. A pack that was dropped leaves a gap.
"""

import os
import secrets
import struct
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

import xxhash

from helios_fs.errors import ColdObject, CorruptObject, HeliosError, ObjectMissing, StoreFault
from helios_fs.objects.ids import KINDS, ObjectId
from helios_fs.store import files

PACK_BYTES: Final = 32 * 1024 * 1024
"""A pack is closed when the next records would make it longer than this."""

_MAGIC: Final = b"HELPACK\n"
_FORMAT: Final = 0
_FILE: Final = struct.Struct("<8sIIQ16s16s")
FILE_HEADER_BYTES: Final = _FILE.size + 8

_RECORD_MAGIC: Final = b"HREC"
_RECORD: Final = struct.Struct("<4sBBHII32s")
_CHECK: Final = struct.Struct("<Q")
RECORD_HEADER_BYTES: Final = _RECORD.size + _CHECK.size
MAX_OBJECT_BYTES: Final = (1 << 32) - 1

_READ_APART: Final = 32 * 1024
"""Above this a record's header and payload are read by two calls: cheaper than copying the payload once more."""

_MASK: Final = (1 << 64) - 1
_xxh3 = xxhash.xxh3_64_intdigest


class Location(NamedTuple):
    """Where an object's record is, and what its header must say."""

    pack: int
    offset: int
    """Of the record's header, in bytes from the start of the pack."""
    stored: int
    raw: int
    kind: int
    codec: int


class Record(NamedTuple):
    """An object ready to be appended to a pack."""

    kind: int
    codec: int
    object_id: ObjectId
    raw: int
    stored: bytes


def pack_path(directory: str, number: int) -> str:
    """Return the path of a pack."""
    return f"{directory}/{number:08x}.pack"


def pack_numbers(directory: str) -> list[int]:
    """Return the numbers of the packs that are there, ascending."""
    try:
        names = os.listdir(directory)
    except OSError as error:
        raise files.converted(error, directory) from error
    found = []
    for name in names:
        stem, _, ending = name.partition(".")
        if ending == "pack" and len(stem) >= 8 and all(c in "0123456789abcdef" for c in stem):
            found.append(int(stem, 16))
    return sorted(found)


def _record_check(salt: int, offset: int, header: bytes | memoryview, stored: bytes | memoryview) -> int:
    return _xxh3(stored, _xxh3(header, (salt + offset) & _MASK))


class PackFile:
    """A pack open for reading. Its descriptor goes with the last reference, so a read never meets a closed one."""

    def __init__(self, directory: str, number: int, store_id: bytes) -> None:
        """Open it and check its header. Raises ObjectMissing where it is not there, CorruptObject, StoreFault."""
        self.number = number
        self.fd = -1
        path = pack_path(directory, number)
        try:
            self.fd = files.open_file(path, os.O_RDONLY)
        except FileNotFoundError as error:
            raise ObjectMissing(f"{path} is not there") from error
        header = files.read_at(self.fd, FILE_HEADER_BYTES, 0)
        self.salt = _file_salt(header, number, store_id)

    def __del__(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)

    @property
    def dropped(self) -> bool:
        """Whether the file has lost its name: only our descriptor keeps its space from the disk."""
        return os.fstat(self.fd).st_nlink == 0

    def read(self, location: Location, object_id: bytes, wait: bool) -> bytes:
        """Return the stored payload of a record, checked. Raises CorruptObject; ColdObject where `wait` is False."""
        stored = location.stored
        if wait and stored > _READ_APART:
            header = files.read_at(self.fd, RECORD_HEADER_BYTES, location.offset)
            payload = files.read_at(self.fd, stored, location.offset + RECORD_HEADER_BYTES)
        else:
            length = RECORD_HEADER_BYTES + stored
            if wait:
                data = files.read_at(self.fd, length, location.offset)
            else:
                data = files.read_cached_at(self.fd, length, location.offset, object_id)
            header, payload = data[:RECORD_HEADER_BYTES], data[RECORD_HEADER_BYTES:]
        if len(payload) == stored and header == self._header(location, object_id, payload):
            return payload
        raise CorruptObject(f"object {object_id.hex()} is damaged in pack {self.number:08x} at byte {location.offset}")

    def _header(self, location: Location, object_id: bytes, payload: bytes) -> bytes:
        """Return the only header that a record at this place, with these bytes, can have."""
        fixed = _RECORD.pack(_RECORD_MAGIC, location.kind, location.codec, 0, location.raw, location.stored, object_id)
        return fixed + _CHECK.pack(_record_check(self.salt, location.offset, fixed, payload))

    def scan(self, start: int = FILE_HEADER_BYTES, end: int | None = None) -> Iterator[tuple[ObjectId, Location]]:
        """Return the records from byte `start` on, each checked.

        A record that does not verify is passed over, with what follows it up to the next one that does: in a torn
        tail there is none.
        """
        limit = os.fstat(self.fd).st_size if end is None else end
        data = files.read_at(self.fd, max(0, limit - start), start)
        view = memoryview(data)
        at = 0
        while True:
            found = self._verify(view, at, start)
            if found is not None:
                yield found
                at += RECORD_HEADER_BYTES + found[1].stored
                continue
            at = data.find(_RECORD_MAGIC, at + 1)
            if at < 0:
                return

    def _verify(self, view: memoryview, at: int, start: int) -> tuple[ObjectId, Location] | None:
        if len(view) - at < RECORD_HEADER_BYTES:
            return None
        magic, kind, codec, _, raw, stored, object_id = _RECORD.unpack_from(view, at)
        first = at + RECORD_HEADER_BYTES
        if magic != _RECORD_MAGIC or kind not in KINDS or first + stored > len(view):
            return None
        header = view[at : at + _RECORD.size]
        check = _CHECK.unpack_from(view, at + _RECORD.size)[0]
        if check != _record_check(self.salt, start + at, header, view[first : first + stored]):
            return None
        return ObjectId(object_id), Location(self.number, start + at, stored, raw, kind, codec)


def _file_header(number: int, store_id: bytes) -> bytes:
    fixed = _FILE.pack(_MAGIC, _FORMAT, 0, number, store_id, secrets.token_bytes(16))
    return fixed + _CHECK.pack(_xxh3(fixed))


def _file_salt(header: bytes, number: int, store_id: bytes) -> int:
    """Check a pack's header and return the seed of its records' checksums."""
    if len(header) == FILE_HEADER_BYTES:
        magic, version, _, found, owner, _ = _FILE.unpack_from(header)
        salt: int = _CHECK.unpack_from(header, _FILE.size)[0]
        if (
            salt == _xxh3(header[: _FILE.size])
            and (magic, version, found) == (_MAGIC, _FORMAT, number)
            and owner == store_id
        ):
            return salt
    raise CorruptObject(f"pack {number:08x} does not begin as a pack of this store does")


class PackAppender:
    """A pack that this process writes. Records are readable at once, durable after `sync`."""

    def __init__(self, directory: str, number: int, store_id: bytes) -> None:
        """Make the pack. Raises StoreFull or StoreFault; then its number must not be tried again."""
        self.number = number
        self.path = pack_path(directory, number)
        header = _file_header(number, store_id)
        self.fd = files.open_file(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_APPEND)
        self.salt: int = _CHECK.unpack_from(header, _FILE.size)[0]
        self.length = len(header)
        self.synced = 0
        """Bytes that would survive a power cut."""
        self.published = len(header)
        """Bytes that the index and the ref log know of."""
        self.usable = True
        """Whether records may still be appended."""
        self._sync_failed = False
        try:
            files.append(self.fd, [header], len(header))
        except BaseException:
            self.close()
            _remove_quietly(self.path)
            raise

    @property
    def dropped(self) -> bool:
        """Whether garbage collection has taken the file away."""
        return os.fstat(self.fd).st_nlink == 0

    def has_room(self, size: int) -> bool:
        """Tell whether a record of `size` stored bytes still fits; an empty pack takes anything."""
        end = self.length + RECORD_HEADER_BYTES + size
        return self.usable and (end <= PACK_BYTES or self.length == FILE_HEADER_BYTES)

    def append(self, records: Sequence[Record]) -> list[Location]:
        """Append records by one write. On StoreFull or StoreFault none of them is in the pack."""
        parts: list[bytes] = []
        locations = []
        offset = self.length
        for record in records:
            size = len(record.stored)
            header = _RECORD.pack(_RECORD_MAGIC, record.kind, record.codec, 0, record.raw, size, record.object_id)
            check = _record_check(self.salt, offset, header, record.stored)
            parts += (header, _CHECK.pack(check), record.stored)
            locations.append(Location(self.number, offset, size, record.raw, record.kind, record.codec))
            offset += RECORD_HEADER_BYTES + size
        try:
            files.append(self.fd, [b"".join(parts)], offset - self.length)
        except HeliosError:
            self.cut_back(self.length)
            raise
        self.length = offset
        return locations

    def cut_back(self, length: int) -> None:
        """Forget what lies behind `length`. Where even that fails, nothing more is appended: readers stop there."""
        self.length = length
        try:
            files.cut(self.fd, length)
        except HeliosError:
            self.usable = False

    def sync(self) -> None:
        """Return when every record would survive a power cut.

        After a failure it fails for ever, and the pack takes no more records: what the kernel could not write it may
        have dropped, so that a second fdatasync that succeeds proves nothing.
        """
        if self.synced == self.length:
            return
        if self._sync_failed:
            raise StoreFault(f"{self.path}: an earlier fdatasync failed, its newest records may be lost")
        try:
            files.sync_data(self.fd)
        except HeliosError:
            self._sync_failed = True
            self.usable = False
            raise
        self.synced = self.length

    def close(self) -> None:
        """Close the file; what is not published stays behind as garbage."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


def _remove_quietly(path: str) -> None:
    try:
        files.remove(path)
    except HeliosError:
        pass  # An empty pack is garbage that the next collection drops.


class PackFiles:
    """The packs of a store that are open for reading; a bounded number of them, shared by threads."""

    def __init__(self, directory: str, store_id: bytes, limit: int = 256) -> None:
        self.directory = directory
        self.store_id = store_id
        self._limit = limit
        self._open: dict[int, PackFile] = {}

    def get(self, number: int, object_id: bytes, wait: bool) -> PackFile:
        """Return an open pack. Opening may wait for the disk: ColdObject(object_id) where `wait` is False."""
        pack = self._open.get(number)
        if pack is not None:
            return pack
        if not wait:
            raise ColdObject(object_id)
        pack = PackFile(self.directory, number, self.store_id)
        if len(self._open) >= self._limit:
            self.close_dropped()
            for oldest in list(self._open)[: len(self._open) - self._limit + 1]:
                self._open.pop(oldest, None)
        self._open[number] = pack
        return pack

    def close_dropped(self) -> None:
        """Let go of packs that were dropped, so that the disk gets their space back."""
        for number, pack in list(self._open.items()):
            if pack.dropped:
                self._open.pop(number, None)

    def close(self) -> None:
        """Let go of all."""
        self._open.clear()


def check_object_size(payload: bytes) -> None:
    """Refuse what a record cannot describe. Raises StoreFault."""
    if len(payload) > MAX_OBJECT_BYTES:
        raise StoreFault(f"an object of {len(payload)} bytes is more than a pack record can hold")
