"""Taking a directory in: the first tree of a branch, filled from what lies on a disk.

Knows the store and the source's system calls; nothing of journals, mounts or progress bars.

I1. Nothing is followed out of the source: directories are entered by descriptor, symlinks are taken as they are.
I2. What cannot be read is left out and named in the report; so is what changed or vanished while it was read.
I3. The branch moves once, at the end, when all of the tree is durable; until then the store holds no sign of it.
I4. Memory holds, for each directory on the way down, its names and at most `_BATCH` entries, and one small record for
    each inode that has several names in the source.
"""

import errno
import os
import stat
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

import msgspec

from helios_fs.errors import EntryExists, InvalidArgument, NoSuchEntry, NotADirectory, NotPermitted
from helios_fs.history.descent import Descent
from helios_fs.history.select import Selection
from helios_fs.history.survey import Identity, Survey, joined, survey
from helios_fs.objects.entry import Entry, Tree, directory_key, encode_entry, encode_tree, ino_key
from helios_fs.objects.ids import KIND_TREE, ROOT_INO
from helios_fs.objects.snapshot import Head, HeadMoved
from helios_fs.sealer.content import store_stream
from helios_fs.store import maps
from helios_fs.store.store import Store
from helios_fs.store.writer import Writer

HIDDEN_NAMES: Final = (b".snapshots", b".branches")
"""Names at the root that a mount uses for itself, so that files of the source under them do not show."""

_BATCH: Final = 16384
_INOS: Final = 65536
_PUBLISH_EVERY: Final = 100_000  # objects; what is not published is remembered in memory, some 300 bytes each
_PROGRESS_SECONDS: Final = 0.05
_ATTEMPTS: Final = 3
_NAMESPACES: Final = ("user.", "trusted.", "security.")
_ACL_PREFIX: Final = "system.posix_acl_"
_NO_XATTRS: Final = frozenset({errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS})
_FILE_FLAGS: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC


class Progress(NamedTuple):
    """How far it is. The totals are what a first look at the source found."""

    entries: int
    total_entries: int
    data_bytes: int
    total_data_bytes: int
    path: bytes


class Problem(NamedTuple):
    """Something that was left out, or not kept as it was, and why."""

    path: bytes
    reason: str


@dataclass
class IngestReport:
    """What was taken in and what was not."""

    tree: bytes = b""
    files: int = 0
    directories: int = 0
    symlinks: int = 0
    others: int = 0
    """Fifos, sockets and devices."""
    links: int = 0
    """Names beyond the first of inodes with several."""
    data_bytes: int = 0
    excluded: int = 0
    problems: list[Problem] = field(default_factory=list)
    """Left out: unreadable, or gone when it was read."""
    changed: list[bytes] = field(default_factory=list)
    """Taken in, but still being written at the third attempt: may hold parts of two states."""
    hidden: list[bytes] = field(default_factory=list)
    """Names at the root that a mount hides behind its own (`HIDDEN_NAMES`)."""
    acls_skipped: int = 0
    xattrs_unreadable: int = 0


class _Directory:
    """A directory on the way down: what is still to come, and what its pages do not hold yet."""

    def __init__(self, writer: Writer, path: bytes, name: bytes, status: os.stat_result, fd: int) -> None:
        self.path = path
        self.name = name
        self.status = status
        self.subdirectories = 0
        self.size = 0
        self.content = b""
        self._writer = writer
        self._pending: dict[bytes, bytes | None] = {}
        # In the order of the pages, so that each batch of entries fills pages of its own.
        self.names: Iterator[bytes] = iter([key[8:] for key in sorted(map(directory_key, _names(fd)))])

    def add(self, name: bytes, value: Entry | int) -> None:
        """Give a name of this directory its meaning."""
        self._pending[directory_key(name)] = encode_entry(value)
        self.size += 1
        if len(self._pending) >= _BATCH:
            self.flush()

    def flush(self) -> None:
        """Write pages with what they do not hold yet."""
        self.content = maps.edit(self._writer, self.content, self._pending)
        self._pending = {}


def _names(fd: int) -> Iterator[bytes]:
    return map(os.fsencode, os.listdir(fd))


def ingest(
    store: Store,
    source: str,
    branch: str,
    exclude: Sequence[str] = (),
    progress: Callable[[Progress], None] | None = None,
) -> IngestReport:
    """Fill a branch that holds nothing yet from the directory `source`. Durable on return.

    Regular files with their holes, directories, symlinks, hard links, fifos, sockets and devices; modes, owners,
    times and xattrs. Raises EntryExists where the branch has a state already, Busy where it is in use; NoSuchEntry,
    NotADirectory, NotPermitted or InvalidArgument for a source that cannot be taken; StoreFull, StoreFault.
    """
    with store.lock_branch(branch):
        try:
            store.refs.head(branch)
        except NoSuchEntry:
            pass
        else:
            raise EntryExists(f"branch {branch} holds something already; only a new store can be filled")
        if os.path.commonpath([os.path.realpath(source), store.path]) == store.path:
            raise InvalidArgument(f"{source} lies inside the store {store.path}")
        with store.writer() as writer:
            run = _Ingest(store, writer, source, branch, Selection((), exclude), progress)
            return run.run()


class _Ingest:
    def __init__(
        self,
        store: Store,
        writer: Writer,
        source: str,
        branch: str,
        selection: Selection,
        progress: Callable[[Progress], None] | None,
    ) -> None:
        self._store = store
        self._writer = writer
        self._source = source
        self._branch = branch
        self._selection = selection
        self._progress = progress
        self._reported = 0.0
        self._now_ns = time.time_ns()
        self._fence = 0
        self._inos = iter(range(0))
        status = os.stat(store.path)
        self._own: Identity = (status.st_dev, status.st_ino)
        self._found = Survey()
        self._linked: dict[Identity, tuple[Entry, int]] = {}
        """Those that were taken in: entry, names so far."""
        self._entries = 0
        self.report = IngestReport()

    def run(self) -> IngestReport:
        """Take everything in and move the branch."""
        self._found = survey(self._open_source(), self._selection, self._own)
        self._fence = self._store.take_branch(self._branch)
        descent = self._open_source()
        try:
            root = self._take_all(descent)
        finally:
            descent.close()
        tree = encode_tree(Tree(root, self._link_table()))
        self.report.tree = self._writer.put(KIND_TREE, tree)
        head = Head(self._branch, self.report.tree, 0, 1)
        self._writer.publish([HeadMoved(head)], self._branch, self._fence)
        self._say(b"", last=True)
        return self.report

    def _open_source(self) -> Descent:
        try:
            return Descent(self._source)
        except FileNotFoundError as error:
            raise NoSuchEntry(f"{self._source} is not there") from error
        except NotADirectoryError as error:
            raise NotADirectory(f"{self._source} is not a directory") from error
        except OSError as error:
            raise NotPermitted(f"{self._source} cannot be read: {error.strerror}") from error

    # -- The walk ----------------------------------------------------------------------------------------------------

    def _take_all(self, descent: Descent) -> Entry:
        """Take in everything, directories after what they hold; return the root's entry."""
        root = _Directory(self._writer, b"", b"", os.fstat(descent.fd), descent.fd)
        self.report.hidden = [name for name in HIDDEN_NAMES if _is_there(descent.fd, name)]
        way = [root]
        while True:
            here = way[-1]
            name = next(here.names, None)
            if name is not None:
                below = self._take(descent, here, name)
                if below is not None:
                    way.append(below)
                continue
            entry = self._finish(here, descent.fd, ROOT_INO if here is root else self._next_ino())
            way.pop()
            if here is root:
                return entry
            self._leave(descent, way)
            way[-1].add(here.name, entry)
            way[-1].subdirectories += 1

    def _leave(self, descent: Descent, way: list[_Directory]) -> None:
        try:
            descent.leave()
        except OSError as error:
            raise NotPermitted(
                f"{os.fsdecode(way[-1].path)} was moved while it was taken in: {error.strerror}; try again"
            ) from error

    def _finish(self, directory: _Directory, fd: int, ino: int) -> Entry:
        directory.flush()
        self.report.directories += 1
        entry = self._entry(ino, directory.status, directory.content, self._xattrs(fd))
        return msgspec.structs.replace(entry, nlink=2 + directory.subdirectories, size=directory.size)

    def _take(self, descent: Descent, here: _Directory, name: bytes) -> _Directory | None:
        """Take in one name of the directory where we are; return a directory that was entered."""
        path = joined(here.path, name)
        try:
            status = os.stat(name, dir_fd=descent.fd, follow_symlinks=False)
            is_directory = stat.S_ISDIR(status.st_mode)
            if self._selection.excludes(path, is_directory):
                self.report.excluded += 1
                return None
            self._entries += 1
            self._say(path)
            if is_directory:
                return self._enter(descent, path, name)
            here.add(name, self._take_linked(descent.fd, path, name, status))
        except OSError as error:
            gone = isinstance(error, FileNotFoundError)
            reason = "vanished while it was taken in" if gone else error.strerror or str(error)
            self.report.problems.append(Problem(path, reason))
        return None

    def _enter(self, descent: Descent, path: bytes, name: bytes) -> _Directory | None:
        fd = descent.enter(name)
        try:
            status = os.fstat(fd)
            if (status.st_dev, status.st_ino) != self._own:
                return _Directory(self._writer, path, name, status, fd)
            self.report.problems.append(Problem(path, "is the store itself"))
        except BaseException:
            descent.leave()
            raise
        descent.leave()
        return None

    def _take_linked(self, fd: int, path: bytes, name: bytes, status: os.stat_result) -> Entry | int:
        """Take in something other than a directory; return what its directory says of it."""
        identity = (status.st_dev, status.st_ino)
        if status.st_nlink < 2 or self._found.names_of.get(identity, 0) < 2:
            return self._take_node(fd, path, name, status)
        if identity in self._linked:
            entry, names = self._linked[identity]
            self.report.links += 1
        else:
            entry, names = self._take_node(fd, path, name, status), 0
        self._linked[identity] = (entry, names + 1)
        return entry.ino

    def _take_node(self, fd: int, path: bytes, name: bytes, status: os.stat_result) -> Entry:
        if stat.S_ISREG(status.st_mode):
            return self._take_file(fd, path, name, status)
        target = os.readlink(name, dir_fd=fd) if stat.S_ISLNK(status.st_mode) else b""
        xattrs = self._xattrs(b"/proc/self/fd/%d/%s" % (fd, name))
        entry = self._entry(self._next_ino(), status, target, xattrs)
        if target:
            self.report.symlinks += 1
        else:
            self.report.others += 1
        return msgspec.structs.replace(entry, size=len(target))

    def _take_file(self, directory_fd: int, path: bytes, name: bytes, expected: os.stat_result) -> Entry:
        fd = _open_file(name, directory_fd)
        try:
            status = os.fstat(fd)
            if not stat.S_ISREG(status.st_mode) or status.st_ino != expected.st_ino:
                raise OSError(errno.ESTALE, "was replaced while it was taken in")
            for attempt in range(1, _ATTEMPTS + 1):
                content, allocated = store_stream(self._writer, fd, status.st_size)
                after = os.fstat(fd)
                if (after.st_size, after.st_mtime_ns) == (status.st_size, status.st_mtime_ns):
                    break
                if attempt == _ATTEMPTS:
                    self.report.changed.append(path)
                else:
                    status = after
            xattrs = self._xattrs(fd)
        finally:
            os.close(fd)
        self.report.files += 1
        self.report.data_bytes += status.st_size
        if self._writer.unpublished > _PUBLISH_EVERY:
            self._writer.publish([], self._branch, self._fence)
        return self._entry(self._next_ino(), status, content, xattrs, status.st_size, allocated)

    # -- Pieces ------------------------------------------------------------------------------------------------------

    def _entry(
        self,
        ino: int,
        status: os.stat_result,
        content: bytes,
        xattrs: dict[bytes, bytes] | None,
        size: int = 0,
        allocated: int = 0,
    ) -> Entry:
        return Entry(
            ino, status.st_mode, status.st_uid, status.st_gid, 1, status.st_rdev, size, allocated,
            status.st_atime_ns, status.st_mtime_ns, self._now_ns, content, xattrs,
        )  # fmt: skip

    def _next_ino(self) -> int:
        ino = next(self._inos, None)
        if ino is None:
            self._inos = iter(self._store.reserve_inos(_INOS))
            ino = next(self._inos)
        return ino

    def _link_table(self) -> bytes:
        """Store the inodes with several names, each with the names that were taken in."""
        root = b""
        batch: dict[bytes, bytes | None] = {}
        for entry, names in self._linked.values():
            batch[ino_key(entry.ino)] = encode_entry(msgspec.structs.replace(entry, nlink=names))
            if len(batch) >= _BATCH:
                root = maps.edit(self._writer, root, batch)
                batch = {}
        return maps.edit(self._writer, root, batch)

    def _xattrs(self, target: int | bytes) -> dict[bytes, bytes] | None:
        """Return the xattrs of an open file, or of a path that may end in a symlink."""
        follow = isinstance(target, int)
        try:
            names = os.listxattr(target, follow_symlinks=follow)
        except OSError as error:
            if error.errno not in _NO_XATTRS:
                self.report.xattrs_unreadable += 1
            return None
        found: dict[bytes, bytes] = {}
        for name in names:
            if not name.startswith(_NAMESPACES):
                self.report.acls_skipped += name.startswith(_ACL_PREFIX)
                continue
            try:
                found[os.fsencode(name)] = os.getxattr(target, name, follow_symlinks=follow)
            except OSError:
                self.report.xattrs_unreadable += 1
        return found or None

    def _say(self, path: bytes, last: bool = False) -> None:
        if self._progress is None:
            return
        now = time.monotonic()
        if last or now - self._reported >= _PROGRESS_SECONDS:
            self._reported = now
            found = self._found
            self._progress(Progress(self._entries, found.entries, self.report.data_bytes, found.data_bytes, path))


def _is_there(fd: int, name: bytes) -> bool:
    try:
        os.stat(name, dir_fd=fd, follow_symlinks=False)
    except OSError:
        return False
    return True


def _open_file(name: bytes, directory_fd: int) -> int:
    """Open a file for reading; its access time stays where that is ours to say."""
    try:
        return os.open(name, _FILE_FLAGS | os.O_NOATIME, dir_fd=directory_fd)
    except PermissionError:
        return os.open(name, _FILE_FLAGS, dir_fd=directory_fd)
