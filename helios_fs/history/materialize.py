"""Writing a tree out as a plain directory, on any filesystem.

Knows objects and system calls; nothing of branches or mounts.

M1. Only an empty directory, or one that is not there, is written into; nothing is ever followed out of it.
M2. A file gets its content, then its owner, xattrs, mode and times, in this order: each step may undo what a later one
    sets. A directory gets its own after all that it holds.
M3. What this user or that filesystem cannot keep (foreign owners, devices, some xattrs) is counted; a set-id bit is
    never given to another owner than the tree says.
M4. Memory is bounded by one chunk, one page of each directory on the way down, and the first name of each inode with
    several.
"""

import errno
import os
import stat
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from helios_fs.errors import DirectoryNotEmpty, NotADirectory, NotPermitted, ObjectMissing, StoreFull
from helios_fs.history.descent import Descent
from helios_fs.history.select import Selection
from helios_fs.objects.entry import Entry, Tree, decode_entry, ino_key
from helios_fs.store import maps
from helios_fs.store.content import pieces
from helios_fs.store.objects import Objects

_PROGRESS_SECONDS: Final = 0.05
_NO_ROOM: Final = frozenset({errno.ENOSPC, errno.EDQUOT})
_REFUSED: Final = frozenset({errno.EPERM, errno.EACCES, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EINVAL})
_FILE_FLAGS: Final = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_SET_ID: Final = stat.S_ISUID | stat.S_ISGID


class Progress(NamedTuple):
    """How far it is."""

    entries: int
    data_bytes: int
    path: bytes


class Problem(NamedTuple):
    """Something that could not be written, and why."""

    path: bytes
    reason: str


@dataclass
class MaterializeReport:
    """What was written and what was not."""

    files: int = 0
    directories: int = 0
    symlinks: int = 0
    others: int = 0
    links: int = 0
    """Names beyond the first of inodes with several."""
    data_bytes: int = 0
    owners_skipped: int = 0
    """Entries that belong to this process's user because it may not give them away."""
    set_ids_dropped: int = 0
    xattrs_skipped: int = 0
    devices_skipped: int = 0
    problems: list[Problem] = field(default_factory=list)


class _Directory:
    """A directory on the way down."""

    def __init__(self, path: bytes, entry: Entry, names: Iterator[tuple[bytes, bytes]]) -> None:
        self.path = path
        self.entry = entry
        self.names = names
        self.made = False
        """It is there; with `--include` it is made for the first thing in it."""


def materialize(
    objects: Objects,
    tree: bytes,
    out: str,
    select: Selection | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> MaterializeReport:
    """Write the tree with this id into the directory `out`, making it where it is not there.

    What single files' system calls refuse is in the report, and the rest is written. Not synced. Raises
    DirectoryNotEmpty, NotADirectory, NotPermitted for an `out` that will not do, StoreFull where its disk is full,
    and CorruptObject, ObjectMissing or StoreFault where the store cannot give the tree.
    """
    value = objects.tree(tree)
    descent = _open_out(out)
    try:
        run = _Materialize(objects, value, descent, select or Selection(), progress)
        run.run()
        return run.report
    finally:
        descent.close()


def _open_out(out: str) -> Descent:
    try:
        os.makedirs(out, exist_ok=True)
        descent = Descent(out)
    except (FileExistsError, NotADirectoryError) as error:
        raise NotADirectory(f"{out} is not a directory") from error
    except OSError as error:
        raise NotPermitted(f"{out} cannot be written: {error.strerror}") from error
    if os.listdir(descent.fd):
        descent.close()
        raise DirectoryNotEmpty(f"{out} is not empty; give a directory that is empty or not there yet")
    return descent


class _Materialize:
    def __init__(
        self,
        objects: Objects,
        tree: Tree,
        descent: Descent,
        select: Selection,
        progress: Callable[[Progress], None] | None,
    ) -> None:
        self._objects = objects
        self._tree = tree
        self._descent = descent
        self._select = select
        self._progress = progress
        self._reported = 0.0
        self._entries = 0
        self._first_names: dict[int, bytes] = {}
        self._root_user = os.geteuid() == 0
        self._way: list[_Directory] = []
        self.report = MaterializeReport()

    def run(self) -> None:
        """Write the whole tree."""
        root = self._listed(b"", self._tree.root)
        root.made = True
        self._way.append(root)
        while True:
            here = self._way[-1]
            item = next(here.names, None)
            if item is not None:
                self._one(here, item[0][8:], item[1])
                continue
            if here.made:
                self._finish(here)
            self._way.pop()
            if not self._way:
                break
            if here.made:
                self._descent.leave()
        self._say(b"", last=True)

    def _listed(self, path: bytes, entry: Entry) -> _Directory:
        return _Directory(path, entry, maps.scan(self._objects, entry.content))

    def _one(self, here: _Directory, name: bytes, value: bytes) -> None:
        """Write what one name means; go into it where it is a directory."""
        path = here.path + b"/" + name if here.path else name
        found = decode_entry(value)
        entry = found if isinstance(found, Entry) else self._from_link_table(found)
        taken = self._select.takes(path, entry.is_directory)
        if not taken and (not entry.is_directory or self._select.excludes(path, True)):
            return
        self._entries += 1
        self._say(path)
        if entry.is_directory:
            self._way.append(self._listed(path, entry))
            if not taken:
                return  # made when something below it turns out to be meant
        try:
            self._make_way()
            if not entry.is_directory:
                self._write(self._descent.fd, path, name, entry, linked=isinstance(found, int))
        except OSError as error:
            self._fail(path, error)
            if entry.is_directory:
                self._way.pop()

    def _make_way(self) -> None:
        """Make the directories on the way that are not there yet, and go into the last. Raises OSError."""
        for directory in self._way:
            if directory.made:
                continue
            name = os.path.basename(directory.path)
            os.mkdir(name, 0o700, dir_fd=self._descent.fd)
            self._descent.enter(name)
            directory.made = True

    def _from_link_table(self, ino: int) -> Entry:
        value = maps.find(self._objects, self._tree.links, ino_key(ino))
        entry = decode_entry(value) if value is not None else None
        if not isinstance(entry, Entry):
            raise ObjectMissing(f"inode {ino} has a name but is not in its tree's link table")
        return entry

    # -- One entry ---------------------------------------------------------------------------------------------------

    def _write(self, fd: int, path: bytes, name: bytes, entry: Entry, linked: bool) -> None:
        if linked and entry.ino in self._first_names:
            first = self._first_names[entry.ino]
            os.link(first, name, src_dir_fd=self._descent.root_fd, dst_dir_fd=fd, follow_symlinks=False)
            self.report.links += 1
            return
        kind = stat.S_IFMT(entry.mode)
        if kind == stat.S_IFREG:
            self._write_file(fd, name, entry)
        elif kind == stat.S_IFLNK:
            os.symlink(entry.content, name, dir_fd=fd)
            self.report.symlinks += 1
            self._dress(fd, name, entry)
        else:
            try:
                os.mknod(name, kind | 0o600, entry.rdev, dir_fd=fd)
            except PermissionError:
                self.report.devices_skipped += 1
                return
            self.report.others += 1
            self._dress(fd, name, entry)
        if linked:
            self._first_names[entry.ino] = path

    def _write_file(self, directory_fd: int, name: bytes, entry: Entry) -> None:
        fd = os.open(name, _FILE_FLAGS, 0o600, dir_fd=directory_fd)
        try:
            written = 0
            for offset, data in pieces(self._objects, entry.content, entry.size):
                view = memoryview(data)
                while view:
                    count = os.pwrite(fd, view, offset)
                    view = view[count:]
                    offset += count  # noqa: PLW2901 - where the rest of this piece goes
                written = offset
            if written < entry.size:
                os.ftruncate(fd, entry.size)
            self._dress_open(fd, entry)
        except BaseException:
            # Half a file must not pass for a whole one.
            os.unlink(name, dir_fd=directory_fd)
            raise
        finally:
            os.close(fd)
        self.report.files += 1
        self.report.data_bytes += entry.size

    def _finish(self, directory: _Directory) -> None:
        self.report.directories += 1
        try:
            self._dress_open(self._descent.fd, directory.entry)
        except OSError as error:
            self._fail(directory.path, error)

    def _dress_open(self, fd: int, entry: Entry) -> None:
        """Give an open file or directory its owner, xattrs, mode and times."""
        owned = self._give(entry, lambda uid, gid: os.fchown(fd, uid, gid), lambda: os.fstat(fd))
        self._set_xattrs(fd, entry)
        os.fchmod(fd, self._mode(entry, owned))
        os.utime(fd, ns=(entry.atime_ns, entry.mtime_ns))

    def _dress(self, fd: int, name: bytes, entry: Entry) -> None:
        """As `_dress_open`, for what must not be opened."""

        def chown(uid: int, gid: int) -> None:
            os.chown(name, uid, gid, dir_fd=fd, follow_symlinks=False)

        owned = self._give(entry, chown, lambda: os.stat(name, dir_fd=fd, follow_symlinks=False))
        if entry.xattrs:
            self._set_xattrs(b"/proc/self/fd/%d/%s" % (fd, name), entry)
        if not stat.S_ISLNK(entry.mode):
            os.chmod(name, self._mode(entry, owned), dir_fd=fd)
        os.utime(name, ns=(entry.atime_ns, entry.mtime_ns), dir_fd=fd, follow_symlinks=False)

    def _give(
        self, entry: Entry, chown: Callable[[int, int], None], status: Callable[[], os.stat_result]
    ) -> tuple[bool, bool]:
        """Give something to its owner and group as far as this user may; tell whether each is right now."""
        if self._root_user:
            try:
                chown(entry.uid, entry.gid)
                return True, True
            except OSError as error:
                if error.errno not in _REFUSED:
                    raise
        now = status()
        group = now.st_gid == entry.gid
        if not group:
            try:
                chown(-1, entry.gid)
                group = True
            except OSError as error:
                if error.errno not in _REFUSED:
                    raise
        user = now.st_uid == entry.uid
        self.report.owners_skipped += not (user and group)
        return user, group

    def _mode(self, entry: Entry, owned: tuple[bool, bool]) -> int:
        mode = stat.S_IMODE(entry.mode)
        kept = mode
        if not owned[0]:
            kept &= ~stat.S_ISUID
        if not owned[1] and not entry.is_directory:
            kept &= ~stat.S_ISGID
        self.report.set_ids_dropped += kept != mode
        return kept

    def _set_xattrs(self, target: int | bytes, entry: Entry) -> None:
        for name, value in (entry.xattrs or {}).items():
            try:
                os.setxattr(target, name, value, follow_symlinks=isinstance(target, int))
            except OSError:  # ENOSPC too: ext4 says so when the xattrs of one inode outgrow their block
                self.report.xattrs_skipped += 1

    def _fail(self, path: bytes, error: OSError) -> None:
        """Note what one entry's system calls refused. Raises StoreFull where going on makes no sense."""
        if error.errno in _NO_ROOM:
            raise StoreFull(f"{os.fsdecode(path)}: no space left on the disk that is written to") from error
        self.report.problems.append(Problem(path, error.strerror or str(error)))

    def _say(self, path: bytes, last: bool = False) -> None:
        if self._progress is None:
            return
        now = time.monotonic()
        if last or now - self._reported >= _PROGRESS_SECONDS:
            self._reported = now
            self._progress(Progress(self._entries, self.report.data_bytes, path))
