"""The LMDB environment: the only module that imports lmdb, and the one place that documents every stored key.

Knows the databases and their keys; never what a pack, a page or a branch means.

V1. Every value is followed by 8 bytes of xxh3-64 over it, seeded with the xxh3-64 of its key. It is checked on each
    read, because LMDB itself notices no damage. A mismatch leaves the file `damaged` beside the data, and the next
    program that opens the store builds the index again.
V2. No transaction outlives the call that began it: a held one would make the file grow for ever.
V3. A commit is synced before it returns. WRITEMAP is never used: with it a full disk is a SIGBUS, not an error.
V4. An environment is opened once in a process and counted (`share`), and is refused after a fork.
V5. The length of `data.mdb` is held against LMDB's own meta pages before it is mapped: a truncated file would kill
    the process with SIGBUS on the first read past its end. LMDB itself leaves the file too short where the last pages
    of a transaction were freed in it, so each commit makes up for that, under a flock that the check waits for.
"""

import fcntl
import os
import struct
import threading
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any, Final, Self

import lmdb
import xxhash

from helios_fs.errors import CorruptObject, HeliosError, StoreFault, StoreFull
from helios_fs.store import files
from helios_fs.store.locks import FileLock

META: Final = b"meta"
"""Counters and identity, one key each:
`version`   the layout of this index, `INDEX_VERSION`; another one means: build it again
`store`     the 16 bytes of the store's id
`ref_log`   the byte offset up to which the ref log has been applied
`next_ino`  the first inode number that nobody has reserved
`next_pack` the number of the next pack; numbers are never used twice
`fence`     the newest fencing epoch of any branch
Numbers are 8 bytes, big-endian."""

OBJECTS: Final = b"objects"
"""Object id (32 bytes) -> where its record is (`index.encode_location`)."""

HEADS: Final = b"heads"
"""Branch key (16 bytes, `index.branch_key`) -> `objects.snapshot.Head`, MessagePack."""

SNAPSHOTS: Final = b"snapshots"
"""Branch key (16 bytes), then the snapshot's id (10 ASCII letters) -> `objects.snapshot.Snapshot`, MessagePack."""

FENCES: Final = b"fences"
"""Branch key (16 bytes) -> the fencing epoch of the branch's owner, 8 bytes big-endian."""

DATABASES: Final = (META, OBJECTS, HEADS, SNAPSHOTS, FENCES)
INDEX_VERSION: Final = 1

_DAMAGED: Final = "damaged"
_CHECK_BYTES: Final = 8
_MAX_READERS: Final = 512
# Address space, not memory or disk; smaller ones are for machines that limit it (ulimit -v).
_MAP_SIZES: Final = (1 << 40, 1 << 36, 1 << 32)
# struct MDB_meta in LMDB 0.9 (mdb.c), behind a page header of 16 bytes; two copies, on the first two pages.
_META_AT: Final = 16
_META: Final = struct.Struct("<IIQQ")
_META_PAGE_SIZE: Final = struct.Struct("<I")
_META_LAST: Final = struct.Struct("<QQ")
_META_MAGIC: Final = 0xBEEFC0DE

_xxh3 = xxhash.xxh3_64_intdigest
_DAMAGE: Final = (
    lmdb.CorruptedError,
    lmdb.InvalidError,
    lmdb.NotFoundError,
    lmdb.PageNotFoundError,
    lmdb.VersionMismatchError,
)


def _sealed(key: bytes, value: bytes) -> bytes:
    return value + _xxh3(value, _xxh3(key)).to_bytes(_CHECK_BYTES, "little")


def _converted(error: lmdb.Error, path: str) -> HeliosError:
    if isinstance(error, _DAMAGE):
        return CorruptObject(f"the index {path} is damaged ({error}); it is built again when the store is next opened")
    if isinstance(error, lmdb.MapFullError) or "No space" in str(error) or "quota" in str(error):
        return StoreFull(f"{path}: no space left on the disk that holds the store")
    return StoreFault(f"{path}: {error}")


def damage(path: str) -> str | None:
    """Say why the index in directory `path` cannot be opened as it is, or None where nothing speaks against it."""
    if os.path.lexists(os.path.join(path, _DAMAGED)):
        return "it was found damaged"
    try:
        fd = files.open_file(os.path.join(path, "data.mdb"), os.O_RDONLY)
    except FileNotFoundError:
        return "it is missing"
    try:
        # Not while a commit is between its meta page and the end of its file; closing `fd` lets go of it.
        fcntl.flock(fd, fcntl.LOCK_SH)
        size = os.fstat(fd).st_size
        first = files.read_at(fd, 8192, 0)
        if len(first) < _META_AT + 136:
            return "it is truncated"
        page_size = _META_PAGE_SIZE.unpack_from(first, _META_AT + 24)[0]
        if page_size not in {1 << shift for shift in range(9, 17)}:
            return "its first page is damaged"
        metas = (first[_META_AT:], files.read_at(fd, 136, page_size + _META_AT))
        newest = (-1, 0)
        for meta in metas:
            if len(meta) < 136 or _META.unpack_from(meta)[0] != _META_MAGIC:
                return "a meta page is damaged"
            last_page, transaction = _META_LAST.unpack_from(meta, 120)
            newest = max(newest, (transaction, last_page))
        if size < (newest[1] + 1) * page_size:
            return "it is truncated"
    finally:
        os.close(fd)
    return None


class Environment:
    """An open index. Begin transactions with `read` and `write`; look up single values with `find`."""

    def __init__(self, path: str, create: bool = False, synced: bool = True) -> None:
        """Open the index in directory `path`.

        `synced=False` is for building one that nobody uses yet: call `sync` at its end.
        Raises CorruptObject where it must be built again, StoreFull or StoreFault where the disk fails.
        """
        self.path = path
        self._pid = os.getpid()
        self._lock: FileLock | None = None
        self._users = 1
        self._committing = threading.Lock()
        try:
            self._env = _open_environment(path, create, synced)
            try:
                self._databases = {name: self._env.open_db(name, create=create) for name in DATABASES}
                self._env.reader_check()
                self._page_bytes: int = self._env.stat()["psize"]
                # Not LMDB's own descriptor, which py-lmdb does not tell; its locks are on the other file.
                self._file = files.open_file(os.path.join(path, "data.mdb"), os.O_RDWR)
            except BaseException:
                self._env.close()
                raise
        except lmdb.Error as error:
            raise _converted(error, path) from error

    def attach(self, lock: FileLock) -> None:
        """Hold `lock` until this environment is closed."""
        self._lock = lock

    def find(self, database: bytes, key: bytes) -> bytes | None:
        """Return one value, or None. One short transaction."""
        if os.getpid() != self._pid:
            raise StoreFault(f"{self.path}: a store cannot be used across a fork")
        try:
            with self._env.begin(db=self._databases[database]) as txn:
                stored = txn.get(key)
        except lmdb.Error as error:
            raise self._fault(error) from error
        return None if stored is None else self.checked(key, bytes(stored))

    def read(self) -> "ReadTransaction":
        """Return a transaction that sees one state of the index; enter it with `with`, and leave it soon."""
        return ReadTransaction(self, self._begin(write=False))

    def write(self) -> "WriteTransaction":
        """Return the one write transaction of all processes; waits for the others.

        Leaving the `with` block commits, synced to disk; an exception in it undoes everything.
        """
        return WriteTransaction(self, self._begin(write=True))

    def _begin(self, write: bool) -> lmdb.Transaction:
        if os.getpid() != self._pid:
            raise StoreFault(f"{self.path}: a store cannot be used across a fork")
        try:
            return self._env.begin(write=write)
        except lmdb.Error as error:
            raise self._fault(error) from error

    def handle(self, database: bytes) -> Any:
        """Return LMDB's handle of a database; for transactions only."""
        return self._databases[database]

    def checked(self, key: bytes, stored: bytes) -> bytes:
        """Return a stored value without its checksum. Raises CorruptObject."""
        value = stored[:-_CHECK_BYTES]
        if _xxh3(value, _xxh3(key)).to_bytes(_CHECK_BYTES, "little") != stored[-_CHECK_BYTES:]:
            self.mark_damaged()
            raise CorruptObject(f"the index {self.path} is damaged; it is built again when the store is next opened")
        return value

    def _fault(self, error: lmdb.Error) -> HeliosError:
        found = _converted(error, self.path)
        if isinstance(found, CorruptObject):
            self.mark_damaged()
        return found

    def commit(self, txn: Any) -> None:
        """Commit a transaction, and see that the file is as long as its meta pages say (V5)."""
        fd = self._file
        with self._committing:
            fcntl.flock(fd, fcntl.LOCK_EX)
            try:
                txn.commit()
                size, needed = os.fstat(fd).st_size, (self._env.info()["last_pgno"] + 1) * self._page_bytes
                if size < needed:
                    files.allocate(fd, size, needed - size)
            except HeliosError:
                pass  # What was committed is good; at worst the index is built again without need.
            finally:
                fcntl.flock(fd, fcntl.LOCK_UN)

    def mark_damaged(self) -> None:
        """Have the index built again by the next program that opens the store."""
        try:
            os.close(files.open_file(os.path.join(self.path, _DAMAGED), os.O_WRONLY | os.O_CREAT))
        except (HeliosError, OSError):
            pass  # The same damage will be met again; what counts is that its bytes are not returned.

    def sync(self) -> None:
        """Return when everything committed would survive a power cut (only needed with `synced=False`)."""
        try:
            self._env.sync(True)
        except lmdb.Error as error:
            raise self._fault(error) from error

    def close(self) -> None:
        """Close it, whoever else shares it in this process; see `release`."""
        self._env.close()
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
        if self._lock is not None:
            self._lock.close()
            self._lock = None


class ReadTransaction:
    """One state of the index. Values are checked as they are read."""

    def __init__(self, environment: Environment, txn: lmdb.Transaction) -> None:
        self._environment = environment
        # Any: py-lmdb has types only since 2.0, and there its results may be memoryviews, which we never ask for.
        self._txn: Any = txn

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._txn.abort()

    def find(self, database: bytes, key: bytes) -> bytes | None:
        """Return one value, or None."""
        try:
            stored: bytes | None = self._txn.get(key, db=self._environment.handle(database))
        except lmdb.Error as error:
            raise self._environment._fault(error) from error
        return None if stored is None else self._environment.checked(key, stored)

    def scan(self, database: bytes, prefix: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
        """Return the keys that begin with `prefix`, ascending, with their values."""
        try:
            with self._txn.cursor(db=self._environment.handle(database)) as cursor:
                found = cursor.set_range(prefix) if prefix else cursor.first()
                while found:
                    key, stored = cursor.item()
                    if not key.startswith(prefix):
                        return
                    yield key, self._environment.checked(key, stored)
                    found = cursor.next()
        except lmdb.Error as error:
            raise self._environment._fault(error) from error

    def find_number(self, key: bytes, database: bytes = META) -> int:
        """Return a stored number, 0 where there is none."""
        value = self.find(database, key)
        return 0 if value is None else int.from_bytes(value, "big")


class WriteTransaction(ReadTransaction):
    """Changes to the index that become visible, and durable, together."""

    def __init__(self, environment: Environment, txn: lmdb.Transaction) -> None:
        super().__init__(environment, txn)
        self._dirty = False

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None or not self._dirty:
            self._txn.abort()
            return
        try:
            files.announce("commit", self._environment.path)
            self._environment.commit(self._txn)
        except HeliosError:
            self._txn.abort()
            raise
        except lmdb.Error as failure:
            raise self._environment._fault(failure) from failure

    def put(self, database: bytes, key: bytes, value: bytes) -> None:
        """Set one value."""
        self._dirty = True
        try:
            self._txn.put(key, _sealed(key, value), db=self._environment.handle(database))
        except lmdb.Error as error:
            raise self._environment._fault(error) from error

    def put_number(self, key: bytes, number: int, database: bytes = META) -> None:
        """Set a stored number."""
        self.put(database, key, number.to_bytes(8, "big"))

    def delete(self, database: bytes, key: bytes) -> None:
        """Remove one key; one that is not there is fine."""
        self._dirty = True
        try:
            self._txn.delete(key, db=self._environment.handle(database))
        except lmdb.Error as error:
            raise self._environment._fault(error) from error


def _open_environment(path: str, create: bool, synced: bool) -> lmdb.Environment:
    for map_size in _MAP_SIZES:
        try:
            return lmdb.open(
                os.fsencode(path),
                map_size=map_size,
                max_dbs=len(DATABASES),
                max_readers=_MAX_READERS,
                mode=0o600,
                create=create,
                sync=synced,
                metasync=synced,
            )
        except lmdb.MemoryError:
            if map_size == _MAP_SIZES[-1]:
                raise
    raise AssertionError("unreachable: the last size returns or raises")


_shared: Final[dict[str, Environment]] = {}
_shared_lock: Final = threading.Lock()


def share(path: str, opener: Callable[[], Environment]) -> Environment:
    """Return this process's environment for directory `path`, opened by `opener` where there is none yet.

    Every call needs one `release`.
    """
    with _shared_lock:
        environment = _shared.get(path)
        if environment is None:
            environment = _shared[path] = opener()
        else:
            environment._users += 1
        return environment


def release(environment: Environment) -> None:
    """Undo one `share`; the last one closes the environment."""
    with _shared_lock:
        environment._users -= 1
        if environment._users == 0:
            _shared.pop(environment.path, None)
            environment.close()
