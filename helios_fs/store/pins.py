"""Pins: objects that a process needs though no ref says so, where a collection in any other process sees them.

A file in `run/pins/` for each store that a process has open and pins something of; it is a row of slots of 32 bytes,
each an object's id, or zeros. Its owner holds a flock on it, so it counts only while the owner lives.

Knows ids and files; never what an object is, nor why somebody needs it.

N1. A pin is in the file before `keep` or `held` returns. Whoever learned the id from a ref pins it first and looks at
    the ref again then: if it is still there, no collection since has missed both.
N2. A collection reads pins while all writers are kept out, and before it reads refs and the branches' files: what
    goes from a pin to a ref meanwhile is seen in one of them.
N3. A file whose lock can be taken has no owner any more, and is removed.
N4. Reading must go on when the disk is full: room for `_ROOM` pins is taken with the file. A pin that finds none all
    the same is not written, and tried again with the next.
"""

import fcntl
import logging
import os
import secrets
import threading
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Final

from helios_fs.errors import StoreFull
from helios_fs.objects.ids import OBJECT_ID_BYTES
from helios_fs.store import files

DIRECTORY: Final = "run/pins"
_EMPTY: Final = bytes(OBJECT_ID_BYTES)
_ROOM: Final = 2048
_log: Final = logging.getLogger("helios.store")


class Pins:
    """What this process pins in one store. Any thread may call; nothing is written before something is pinned."""

    def __init__(self, store_path: str) -> None:
        self._directory = os.path.join(store_path, DIRECTORY)
        self._lock = threading.Lock()
        self._fd = -1
        self._path = ""
        self._kept: dict[object, frozenset[bytes]] = {}
        self._slots: dict[bytes, int] = {}
        self._free: list[int] = []

    def keep(self, owner: object, ids: Collection[bytes]) -> None:
        """Let exactly `ids` be what `owner` (any key) needs; what it needed before and no one else does is let go.

        Empty ids are passed over. Raises StoreFault; then what was needed before is still pinned.
        """
        wanted = frozenset(one for one in ids if one)
        with self._lock:
            if wanted == self._kept.get(owner, frozenset()) and wanted <= self._slots.keys():
                return
            try:
                for one in wanted:
                    self._publish(one)
            except StoreFull as error:
                _log.warning("pins: %s", error)
            if wanted:
                self._kept[owner] = wanted
            else:
                self._kept.pop(owner, None)
            needed = frozenset[bytes]().union(*self._kept.values())
            for one in self._slots.keys() - needed:
                self._withdraw(one)

    def add(self, owner: object, object_id: bytes) -> None:
        """Let `owner` need one more object, until it calls `keep`. Raises as `keep` does."""
        self.keep(owner, self._kept.get(owner, frozenset()) | {object_id})

    @contextmanager
    def held(self, *ids: bytes) -> Iterator[None]:
        """Pin objects for as long as the block runs. Raises as `keep` does."""
        owner = object()
        self.keep(owner, ids)
        try:
            yield
        finally:
            self.keep(owner, ())

    def close(self) -> None:
        """Let go of everything. Closing twice is fine."""
        with self._lock:
            if self._fd >= 0:
                try:
                    os.unlink(self._path)
                except OSError:
                    pass  # N3: the next collection removes it.
                os.close(self._fd)
                self._fd = -1
            self._kept.clear()
            self._slots.clear()
            self._free.clear()

    def _publish(self, object_id: bytes) -> None:
        if object_id in self._slots:
            return
        if self._fd < 0:
            self._open()
        slot = self._free[-1] if self._free else len(self._slots)
        files.write_at(self._fd, object_id, slot * OBJECT_ID_BYTES)
        if self._free:
            self._free.pop()
        self._slots[object_id] = slot

    def _withdraw(self, object_id: bytes) -> None:
        slot = self._slots.pop(object_id)
        self._free.append(slot)
        files.write_at(self._fd, _EMPTY, slot * OBJECT_ID_BYTES)

    def _open(self) -> None:
        """Make the file, locked. A collection that comes between the two takes it for a dead owner's: make another."""
        try:
            os.makedirs(self._directory, 0o700, exist_ok=True)
        except OSError as error:
            raise files.converted(error, self._directory) from error
        while self._fd < 0:
            path = os.path.join(self._directory, secrets.token_hex(8))
            fd = files.open_file(path, os.O_RDWR | os.O_CREAT | os.O_EXCL)
            fcntl.flock(fd, fcntl.LOCK_EX)
            if os.fstat(fd).st_nlink:
                self._fd, self._path = fd, path
            else:
                os.close(fd)
        files.allocate(self._fd, 0, _ROOM * OBJECT_ID_BYTES)


def pinned(store_path: str) -> set[bytes]:
    """Return the ids that all living processes pin, and remove what dead ones have left. Raises StoreFault."""
    directory = os.path.join(store_path, DIRECTORY)
    try:
        names = os.listdir(directory)
    except FileNotFoundError:
        return set()
    except OSError as error:
        raise files.converted(error, directory) from error
    found: set[bytes] = set()
    for name in names:
        path = os.path.join(directory, name)
        try:
            fd = files.open_file(path, os.O_RDONLY)
        except FileNotFoundError:
            continue
        try:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                found.update(_slots_of(fd))
            else:
                files.remove(path)
        finally:
            os.close(fd)
    return found


def _slots_of(fd: int) -> Iterator[bytes]:
    raw = files.read_at(fd, os.fstat(fd).st_size, 0)
    for at in range(0, len(raw) - OBJECT_ID_BYTES + 1, OBJECT_ID_BYTES):
        object_id = raw[at : at + OBJECT_ID_BYTES]
        if object_id != _EMPTY:
            yield object_id
