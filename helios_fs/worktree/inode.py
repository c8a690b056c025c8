"""Inodes in memory, and the versions that snapshots still need.

I1. An inode is in memory while somebody holds it (`holds` > 0: the kernel's lookups, open handles, its children in
    memory) or while it differs from the base tree (`epoch` > 0).
I2. `epoch` is the epoch in which the current state began; 0 means: as the base tree has it.
I3. `older` holds the state before that, if it was not the base's either: newest first, each with its own epoch. What a
    snapshot of epoch E sees is the newest state with an epoch of at most E, and otherwise the base's entry.
I4. Everything in a version is immutable, and so are the maps that an inode shares with its versions.
"""

from __future__ import annotations

import stat
from typing import Final

import immutables

from helios_fs.objects.entry import Entry

MAX_NAME_BYTES: Final = 255
MAX_FILE_BYTES: Final = (1 << 63) - 1
UNCUT: Final = 1 << 63
"""`low` of a file that was not made shorter."""

Piece = tuple[int, int, int, int, int]
"""Bytes start..end of a file, written by the record whose data is at `position`, begins at `origin`, is `length` long:
(start, end, position, origin, length)."""

Regions = immutables.Map[int, tuple[Piece, ...]]
"""Region number (offset // REGION_BYTES) -> its pieces, ascending and disjoint."""


class Run:
    """Consecutive bytes of a file as they are now, from `start` on."""

    __slots__ = ("data", "start")

    def __init__(self, start: int, data: bytes) -> None:
        self.start = start
        self.data = bytearray(data)


class State:
    """What a version remembers of an inode: attributes and content."""

    __slots__ = (
        "allocated",
        "atime_ns",
        "base",
        "base_size",
        "ctime_ns",
        "epoch",
        "gid",
        "ino",
        "limit",
        "low",
        "mode",
        "mtime_ns",
        "names",
        "nlink",
        "older",
        "own_base",
        "rdev",
        "regions",
        "size",
        "uid",
        "xattrs",
    )

    ino: int
    mode: int
    uid: int
    gid: int
    nlink: int
    rdev: int
    size: int
    """Bytes of a file or symlink; names in a directory."""
    allocated: int
    atime_ns: int
    mtime_ns: int
    ctime_ns: int
    xattrs: dict[bytes, bytes] | None
    """Replaced, never changed in place."""
    base: bytes
    """Content id in the store; a symlink's target."""
    base_size: int
    """Size that the file had when `base` was stored."""
    limit: int
    """The base shows only below this offset: the file was cut there since."""
    low: int
    """The smallest size the file was cut to in this epoch, or UNCUT."""
    own_base: bool
    """`base` was put here in this epoch by a record, so what the last seal stored is older than it."""
    regions: Regions | None
    """What was written to a file over `base`."""
    names: immutables.Map[bytes, Dirent] | None
    """What changed in a directory over `base`."""
    epoch: int
    older: State | None

    def copy_to(self, other: State) -> None:
        """Give `other` the same state and the same history."""
        other.ino = self.ino
        other.mode = self.mode
        other.uid = self.uid
        other.gid = self.gid
        other.nlink = self.nlink
        other.rdev = self.rdev
        other.size = self.size
        other.allocated = self.allocated
        other.atime_ns = self.atime_ns
        other.mtime_ns = self.mtime_ns
        other.ctime_ns = self.ctime_ns
        other.xattrs = self.xattrs
        other.base = self.base
        other.base_size = self.base_size
        other.limit = self.limit
        other.low = self.low
        other.own_base = self.own_base
        other.regions = self.regions
        other.names = self.names
        other.epoch = self.epoch
        other.older = self.older

    def at_epoch(self, epoch: int) -> State | None:
        """Return the state that a snapshot of `epoch` sees, or None where that is the base's."""
        version: State | None = self
        while version is not None and version.epoch > epoch:
            version = version.older
        if version is None or version.epoch == 0:
            return None
        return version

    @property
    def is_directory(self) -> bool:
        """Whether it is a directory."""
        return stat.S_ISDIR(self.mode)

    @property
    def is_file(self) -> bool:
        """Whether it is a regular file."""
        return stat.S_ISREG(self.mode)

    def entry(self, content: bytes) -> Entry:
        """Return what the store keeps of it, with `content` as its content."""
        return Entry(
            self.ino,
            self.mode,
            self.uid,
            self.gid,
            self.nlink,
            self.rdev,
            self.size,
            self.allocated,
            self.atime_ns,
            self.mtime_ns,
            self.ctime_ns,
            content,
            self.xattrs,
        )


class Inode(State):
    """One inode of the working tree, or of a view, in memory."""

    __slots__ = ("bound", "holds", "linked", "name", "parent", "run")

    parent: Inode | None
    """The directory that holds its only name; None for the root, a linked inode, and one without a name."""
    name: bytes
    linked: bool
    """It is kept in the link table, because it has or had several names."""
    holds: int
    bound: int
    """The last epoch in which the journal said where it lies."""
    run: Run | None
    """Bytes of it that are kept for the next read (assembled.py)."""

    def __init__(self, ino: int, mode: int, uid: int, gid: int, rdev: int, now_ns: int) -> None:
        self.ino = ino
        self.mode = mode
        self.uid = uid
        self.gid = gid
        self.nlink = 1
        self.rdev = rdev
        self.size = 0
        self.allocated = 0
        self.atime_ns = self.mtime_ns = self.ctime_ns = now_ns
        self.xattrs = None
        self.base = b""
        self.base_size = 0
        self.limit = 0
        self.low = UNCUT
        self.own_base = False
        self.regions = None
        self.names = None
        self.epoch = 0
        self.older = None
        self.parent = None
        self.name = b""
        self.linked = False
        self.holds = 0
        self.bound = 0
        self.run = None

    @classmethod
    def from_entry(cls, entry: Entry) -> Inode:
        """Return the inode that an entry of the store describes."""
        inode = cls.__new__(cls)
        inode.load(entry)
        inode.parent = None
        inode.name = b""
        inode.linked = False
        inode.holds = 0
        inode.bound = 0
        inode.run = None
        return inode

    @classmethod
    def from_state(cls, state: State) -> Inode:
        """Return an inode of a view that shows `state`."""
        inode = cls.__new__(cls)
        state.copy_to(inode)
        inode.parent = None
        inode.name = b""
        inode.linked = False
        inode.holds = 0
        inode.bound = 0
        inode.run = None
        return inode

    def load(self, entry: Entry) -> None:
        """Take the state that an entry of the store describes."""
        self.ino = entry.ino
        self.mode = entry.mode
        self.uid = entry.uid
        self.gid = entry.gid
        self.nlink = entry.nlink
        self.rdev = entry.rdev
        self.size = entry.size
        self.allocated = entry.allocated
        self.atime_ns = entry.atime_ns
        self.mtime_ns = entry.mtime_ns
        self.ctime_ns = entry.ctime_ns
        self.xattrs = entry.xattrs
        self.base = entry.content
        self.base_size = self.limit = entry.size
        self.low = UNCUT
        self.own_base = False
        self.regions = None
        self.names = None
        self.epoch = 0
        self.older = None


Dirent = tuple[Inode | None, int, bool]
"""One change in a directory: (inode, or None where the name is gone; the epoch of the change; whether the base tree, or
the one that the next seal makes, may hold the name)."""
