"""A store on disk: making one, opening one, and what belongs to the whole of it.

Knows the layout of the directory (`docs/format.md`); never inodes beyond handing out their numbers, nor requests.

S1. `format` is written last, by a rename: a directory with it is a whole store, one without it is none.
S2. An open store holds `run/index.lock` shared; the index is rebuilt only by whoever has it alone.
S3. An inode number or a fencing epoch is in the ref log, durable, before anybody uses it.
"""

import os
import re
import secrets
from typing import Final, Self

from helios_fs.errors import (
    Busy,
    CorruptObject,
    EntryExists,
    HeliosError,
    NoSuchEntry,
    NotAStore,
    StoreFault,
    WrongVersion,
)
from helios_fs.objects.ids import MAX_INO
from helios_fs.objects.snapshot import Head
from helios_fs.store import environment, files, reflog
from helios_fs.store.branches import Branches
from helios_fs.store.environment import META, Environment, WriteTransaction
from helios_fs.store.index import FIRST_INO, Index
from helios_fs.store.locks import BranchLock, FileLock
from helios_fs.store.objects import Objects
from helios_fs.store.packs import PackFiles
from helios_fs.store.pins import Pins
from helios_fs.store.rebuild import Progress, rebuild
from helios_fs.store.reflog import BranchTaken, InosReserved, RefLog
from helios_fs.store.refs import Refs
from helios_fs.store.reserve import Reserve
from helios_fs.store.writer import Writer

FORMAT: Final = 0
_FIRST_LINE: Final = re.compile(rb"helios-store (\d{1,9})\n")
_ID_LINE: Final = re.compile(rb"id ([0-9a-f]{32})\n")
_DIRECTORIES: Final = ("packs", "journals", "run")
_UNFINISHED: Final = frozenset({*_DIRECTORIES, "refs", "format.new"})


class Store:
    """An open store. Several processes, and several times one process, may have it open."""

    path: str
    objects: Objects
    refs: Refs

    def __init__(self, path: str, store_id: bytes, shared: Environment, log: RefLog) -> None:
        """Use `open`."""
        self.path = path
        self.store_id = store_id
        self._environment = shared
        self._log = log
        packs = os.path.join(path, "packs")
        self.index = Index(shared, log, packs, store_id)
        self._pack_files = PackFiles(packs, store_id)
        self.objects = Objects(self.index, self._pack_files)
        self.refs = Refs(shared)
        self.branches = Branches(path)
        self.reserve = Reserve(path)
        self.pins = Pins(path)
        self._writers: list[Writer] = []
        self._closed = False

    @classmethod
    def create(cls, path: str) -> None:
        """Make an empty store in a directory that is not there, or empty, or left by an attempt that failed.

        Durable on return. Raises EntryExists where something else is there, StoreFull, StoreFault.
        """
        path = os.path.abspath(path)
        try:
            os.makedirs(path, 0o700, exist_ok=True)
        except FileExistsError as error:
            raise EntryExists(f"{path} is there already, and is not a directory") from error
        except OSError as error:
            raise files.converted(error, path) from error
        lock = FileLock.on_directory(path)
        try:
            lock.acquire(exclusive=True, wait=True)
            _create_in(path)
        finally:
            lock.close()

    @classmethod
    def open(cls, path: str, progress: Progress | None = None) -> Self:
        """Open a store; where its index is missing or damaged, build it again first, telling `progress`.

        Raises NotAStore, WrongVersion; Busy where the index is damaged and another process has it open; StoreFault.
        """
        path = os.path.realpath(path)
        store_id = read_format(path)
        for name in _DIRECTORIES:
            if not os.path.isdir(os.path.join(path, name)):
                raise NotAStore(f"{path} has no directory {name}: the store is not whole")
        log = RefLog(os.path.join(path, "refs"), store_id)
        try:
            shared = environment.share(os.path.join(path, "index"), lambda: _open_index(path, store_id, log, progress))
            try:
                store = cls(path, store_id, shared, log)
                store.index.recover()
                store.reserve.restore()
            except BaseException:
                environment.release(shared)
                raise
        except BaseException:
            log.close()
            raise
        return store

    def close(self) -> None:
        """Close it; unpublished objects of its writers are forgotten. Closing twice is fine."""
        if self._closed:
            return
        self._closed = True
        for writer in self._writers:
            writer.close()
        self.pins.close()
        self._pack_files.close()
        self._log.close()
        environment.release(self._environment)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def reserve_inos(self, count: int) -> range:
        """Reserve inode numbers that nobody else in the store gets, now or later. Durable on return.

        Waits for disks and for other writers: call it from a thread, ahead of need. Raises StoreFull, StoreFault.
        """

        def decide(txn: WriteTransaction) -> InosReserved:
            after = max(txn.find_number(b"next_ino"), FIRST_INO) + count
            if after > MAX_INO:
                raise StoreFault("inode numbers have run out")
            return InosReserved(after)

        record = self.index.change(decide)
        assert isinstance(record, InosReserved)
        return range(record.next_ino - count, record.next_ino)

    def head(self, branch: str) -> Head:
        """Return where a branch stands: its last seal, or, before the first, where it began. Raises NoSuchEntry."""
        try:
            return self.refs.head(branch)
        except NoSuchEntry:
            info = self.branches.find(branch)
            if info is None:
                raise
            return info.base

    def take_branch(self, branch: str) -> int:
        """Become the owner of a branch: return a fencing epoch higher than any before. Durable on return.

        From now on, publishing with an older epoch raises Fenced.
        """
        record = self.index.change(lambda txn: BranchTaken(branch, txn.find_number(b"fence") + 1))
        assert isinstance(record, BranchTaken)
        return record.fence

    def lock_branch(self, branch: str) -> BranchLock:
        """Take the right to write a branch's journal. Raises Busy, naming the process that has it."""
        return BranchLock(self.path, branch, self.branches.called(branch))

    def writer(self) -> Writer:
        """Return a new writer; a process needs one."""
        writer = Writer(self.path, self.store_id, self.index, self.objects, self.reserve)
        self._writers.append(writer)
        return writer

    def statvfs(self) -> os.statvfs_result:
        """Return what the disk that holds the store says of itself."""
        try:
            return os.statvfs(self.path)
        except OSError as error:
            raise files.converted(error, self.path) from error


def read_format(path: str) -> bytes:
    """Return the id of the store at `path`. Raises NotAStore, WrongVersion."""
    if not os.path.isdir(path):
        raise NotAStore(f"{path} is not there, or not a directory")
    try:
        fd = files.open_file(os.path.join(path, "format"), os.O_RDONLY)
    except FileNotFoundError as error:
        raise NotAStore(f"{path} is not a HeliosFS store: it has no file called format") from error
    try:
        text = files.read_at(fd, 4096, 0)
    finally:
        os.close(fd)
    first = _FIRST_LINE.match(text)
    if first is None:
        raise NotAStore(f"{path} is not a HeliosFS store: its file format does not begin as one")
    version = int(first[1])
    if version != FORMAT:
        raise WrongVersion(
            f"{path} has format {version}, this program reads format {FORMAT}: "
            + (f"it needs a newer HeliosFS, one for format {version}" if version > FORMAT else "it needs an older one")
        )
    store_id = _ID_LINE.fullmatch(text, first.end())
    if store_id is None:
        raise NotAStore(f"{path} is not a whole HeliosFS store: its file format is truncated or damaged")
    return bytes.fromhex(store_id[1].decode())


def _create_in(path: str) -> None:
    try:
        present = set(os.listdir(path))
    except OSError as error:
        raise files.converted(error, path) from error
    if "format" in present:
        raise EntryExists(f"{path} is a store already")
    if present and not ("format.new" in present and present <= _UNFINISHED):
        raise EntryExists(f"{path} is not empty")
    store_id = secrets.token_bytes(16)
    # The unfinished file comes first: it marks what is ours, for an attempt after one that failed.
    _write_file(os.path.join(path, "format.new"), b"helios-store %d\nid %s\n" % (FORMAT, store_id.hex().encode()))
    try:
        os.chmod(path, 0o700)
        for name in _DIRECTORIES:
            os.makedirs(os.path.join(path, name), 0o700, exist_ok=True)
    except OSError as error:
        raise files.converted(error, path) from error
    _write_file(os.path.join(path, "refs"), reflog.header(store_id))
    files.sync_directory(path)
    files.replace(os.path.join(path, "format.new"), os.path.join(path, "format"))
    files.sync_directory(path)
    files.sync_directory(os.path.dirname(path))


def _write_file(path: str, data: bytes) -> None:
    fd = files.open_file(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    try:
        files.write_at(fd, data, 0)
        files.sync_data(fd)
    finally:
        os.close(fd)


def _open_index(path: str, store_id: bytes, log: RefLog, progress: Progress | None) -> Environment:
    """Open the index, rebuilt where it must be, and hold its lock with it."""
    run, index = os.path.join(path, "run"), os.path.join(path, "index")
    opening = FileLock(os.path.join(run, "open.lock"))
    lock = None
    try:
        # One at a time: who comes while another rebuilds waits here, and finds a good index.
        opening.acquire(exclusive=True, wait=True)
        lock = FileLock(os.path.join(run, "index.lock"))
        opened = _open_checked(index, store_id)
        if opened is None:
            if not lock.acquire(exclusive=True, wait=False):
                raise Busy(f"the index of {path} is damaged and another process uses it: unmount it, then try again")
            rebuild(path, store_id, log, progress)
            opened = Environment(index)
        lock.acquire(exclusive=False, wait=True)
        opened.attach(lock)
    except BaseException:
        if lock is not None:
            lock.close()
        raise
    finally:
        opening.close()
    return opened


def _open_checked(index: str, store_id: bytes) -> Environment | None:
    """Return the index where it is sound and this store's, else None."""
    if environment.damage(index) is not None:
        return None
    try:
        opened = Environment(index)
    except CorruptObject:
        return None
    try:
        with opened.read() as txn:
            if txn.find_number(b"version") == environment.INDEX_VERSION and txn.find(META, b"store") == store_id:
                return opened
    except CorruptObject:
        pass
    except HeliosError:
        opened.close()
        raise
    opened.close()
    return None
