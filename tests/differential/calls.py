"""The vocabulary: every system call of a test as a small pure value that can be printed, replayed and left out.

Knows no filesystem. A call names paths below the root of a tree and numbered slots that hold descriptors; what a call
does with them stands in `operations.py`, under the same name. `choose_call` makes one call after another from a
source of choices: a seeded `random.Random`, or hypothesis.

C1. A call depends on the choices alone, never on what earlier calls answered: any of them can be left out.
"""

import os
import random
import stat
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol, TypeVar

_T = TypeVar("_T")

ACTORS = 3
SLOTS = 4
"""Descriptors that each actor can have open at once."""

DRIVER = -1
"""Who takes snapshots and mounts again."""


class Choice(Protocol):
    """Where decisions come from."""

    def pick(self, options: Sequence[_T]) -> _T:
        """Return one of them."""

    def below(self, limit: int) -> int:
        """Return a number from 0 on, smaller than `limit`."""


class Seeded:
    """Choices that are the same every time for a seed."""

    def __init__(self, seed: object) -> None:
        self._random = random.Random(str(seed))

    def pick(self, options: Sequence[_T]) -> _T:
        return options[int(self._random.random() * len(options))]

    def below(self, limit: int) -> int:
        return int(self._random.random() * limit)


class At(NamedTuple):
    """A path: below the current directory, or below the directory that is open in a slot."""

    path: bytes
    slot: int | None = None


class Slot(NamedTuple):
    """The descriptor in a slot."""

    number: int


class Data(NamedTuple):
    """Bytes to be written: so many, from this place of a fixed pattern."""

    length: int
    mark: int


class Call(NamedTuple):
    """One step: who does what, and how closely the result is looked at afterwards."""

    actor: int
    name: str
    arguments: tuple[Any, ...] = ()
    look: int = 2
    """0: at the answer only; 1: at attributes too; 2: at contents too. Looking fills the kernel's caches."""


# -- What calls are about --------------------------------------------------------------------------------------------

DIRECTORIES = [b"a", b"b", b"c"]
FILES = [b"d", b"e", b"f", b"g"]
NAMES = [*DIRECTORIES, *FILES, b"\xff \n", b".snapshots"]
_LEAVES = NAMES[:7] * 5 + NAMES[7:]
_DEPTHS = [0] * 5 + [1] * 6 + [2] * 4 + [3]
_MOSTLY = 8
"""One in so many directories and files has a name that the others usually have: so types collide."""
_LONGEST = b"n" * 255
_ODD = [
    lambda path: path + b"/",
    lambda path: path + b"/.",
    lambda path: path + b"/..",
    lambda path: b"./" + path,
    lambda path: b"../" + path,
    lambda path: path.replace(b"/", b"//../") if b"/" in path else path + b"//",
    lambda path: path + b"/../" + NAMES[0],
    lambda path: _LONGEST,
    lambda path: path + b"/" + _LONGEST,
    lambda path: _LONGEST + b"n",
    lambda path: path + b"/" + _LONGEST + b"n",
    lambda path: b"./" * 2040 + path,
    lambda path: b"./" * 2049 + path,
    lambda path: b"",
    lambda path: b".",
    lambda path: b"..",
]
_LISTED = [b".", b".", b"a", b"b", b"c", b"a/b"]
_TARGETS = [b"a", b"b", b"../a", b"..", b".", b"a/b", b"../c/a", b"nowhere", b"./", b"t" * 300, b"t" * 4000]

_ACCESS = [os.O_RDONLY] * 2 + [os.O_WRONLY] * 2 + [os.O_RDWR] * 4
_CREATING = [0] * 4 + [os.O_CREAT] * 5 + [os.O_CREAT | os.O_EXCL, os.O_CREAT | os.O_TRUNC, os.O_TRUNC, os.O_EXCL]
_MANNERS = [0] * 12 + [
    os.O_APPEND,
    os.O_APPEND,
    os.O_NOFOLLOW,
    os.O_DIRECTORY,
    os.O_SYNC,
    os.O_DSYNC,
    os.O_PATH,
    os.O_NOATIME,
    os.O_PATH | os.O_NOFOLLOW,
]
_MODES = (
    [0o666] * 6
    + [0o777] * 12
    + [0o755] * 3
    + [0o644, 0o644, 0o600, 0o400, 0o200, 0, 0o4755, 0o2755, 0o6777, 0o1777, 0o2644, 0o7777]
)
_OFFSETS = [0] * 6 + [1, 10, 100, 4095, 4096, 4097, 8192, 10_000] * 2 + [65_535, 65_536, 65_537, 131_072, 262_143]
_FAR = [*_OFFSETS, (1 << 20) - 1, 1 << 20, (1 << 20) + 1, 3 << 20]
_LENGTHS = [0, 1, 2, 10, 10, 100, 100, 1000, 4095, 4096, 4097, 5000, 8192] * 3 + [65_536, 70_001, 131_073]
_SIZES = [*_OFFSETS, *_OFFSETS, *_OFFSETS, 1 << 20, (1 << 20) + 1, -1]
_USERS = [-1, -1, 0, 1000, 1001]
_GROUPS = [-1, 0, 1000, 1001, 2000]
_ATTRIBUTES = [
    "user.a",
    "user.a",
    "user.b",
    "user.b",
    "user.ü\udcff",
    "trusted.a",
    "security.a",
    "user.",
    "x",
    "system.x",
]
NOW, OMIT = (1 << 30) - 1, (1 << 30) - 2
_NANOSECONDS = [
    (0, 0),
    (1, 1),
    (-1, 999_999_999),
    (1_000_000_000, 123_456_789),
    (4_102_444_800, 1),
    (7_000_000_000, 5),
    (0, NOW),
    (0, NOW),
    (0, OMIT),
    (0, OMIT),
    (0, 1_000_000_000),
]


class _Chooser:
    """Arguments, one kind after the other."""

    def __init__(self, choice: Choice, actor: int, users: bool) -> None:
        self.actor = actor
        self.choice = choice
        self.pick = choice.pick
        self.below = choice.below
        self.users = users

    def text(self, usual: Sequence[bytes] = _LEAVES) -> bytes:
        leaves = _LEAVES if self.below(_MOSTLY) == _MOSTLY - 1 else usual
        path = b"/".join([*(self.pick(DIRECTORIES) for _ in range(self.pick(_DEPTHS))), self.pick(leaves)])
        return self.pick(_ODD)(path) if self.below(20) == 19 else path

    def at(self, usual: Sequence[bytes] = _LEAVES) -> At:
        return At(self.text(usual), self.below(SLOTS) if self.below(12) == 11 else None)

    def plain(self, usual: Sequence[bytes] = _LEAVES) -> At:
        return At(self.text(usual))

    def file(self) -> At:
        return self.at(FILES)

    def directory(self) -> At:
        return self.at(DIRECTORIES)

    def slot(self) -> Slot:
        return Slot(self.below(SLOTS))

    def data(self) -> Data:
        return Data(self.pick(_LENGTHS), self.below(1000))

    def mode(self) -> int:
        """Without root nobody could look at what its owner may not read."""
        return self.pick(_MODES) | (0 if self.users else 0o700)

    def offset(self) -> int:
        return self.pick(_FAR) if self.below(30) == 29 else self.pick(_OFFSETS)

    def length(self) -> int:
        return self.pick(_LENGTHS)

    def follow(self) -> bool:
        return bool(self.below(2))

    def owner(self) -> tuple[int, int]:
        if not self.users:
            return (-1, -1)
        user, group = self.pick(_USERS), self.pick(_GROUPS)
        return (user, group) if self.actor == 0 or user != -1 or group != -1 else (1000, -1)

    def times(self) -> tuple[tuple[int, int], tuple[int, int]]:
        return (self.pick(_NANOSECONDS), self.pick(_NANOSECONDS))

    def attribute(self) -> str:
        return self.pick(_ATTRIBUTES)

    def value(self) -> bytes:
        """Of an extended attribute: never the same twice, see NOT_CALLED in `compare.py`."""
        return b"%d" % self.below(1 << 40) * self.pick([1, 1, 9])

    def open_flags(self) -> int:
        flags = self.pick(_ACCESS) | self.pick(_CREATING) | self.pick(_MANNERS)
        if flags & os.O_PATH:
            flags = flags & (os.O_PATH | os.O_NOFOLLOW | os.O_DIRECTORY)
        return flags | os.O_NONBLOCK  # nobody waits for the other end of a fifo


def _mknod(of: _Chooser) -> tuple[Any, ...]:
    kinds = [(stat.S_IFIFO, 0), (stat.S_IFREG, 0), (stat.S_IFSOCK, 0), (stat.S_IFCHR, 0), (stat.S_IFCHR, 0x103)]
    kind, device = of.pick(kinds if of.users else kinds[:3])  # without root the mount has nodev
    return (of.at(), kind | of.mode(), device)


def _rename(of: _Chooser) -> tuple[Any, ...]:
    usual = of.pick([DIRECTORIES, FILES, FILES, _LEAVES])
    return (of.at(usual), of.at(usual), of.pick([0] * 6 + [1, 2, 2] * 2 + [6, 8]))


_SPECS: dict[str, tuple[int, Callable[[_Chooser], tuple[Any, ...]]]] = {
    "open": (26, lambda of: (of.pick([of.at, of.file, of.file])(), of.open_flags(), of.mode(), of.slot())),
    "mkdir": (20, lambda of: (of.directory(), of.mode() | of.pick([0, 0o700]))),
    "write": (8, lambda of: (of.slot(), of.data())),
    "pwrite": (8, lambda of: (of.slot(), of.data(), of.offset())),
    "writev": (3, lambda of: (of.slot(), (of.data(), of.data(), of.data()))),
    "read": (3, lambda of: (of.slot(), of.length())),
    "pread": (5, lambda of: (of.slot(), of.length(), of.offset())),
    "readv": (2, lambda of: (of.slot(), (of.length(), of.length()))),
    "write_path": (14, lambda of: (of.file(), of.data())),
    "lseek": (3, lambda of: (of.slot(), of.offset() - of.pick([0, 0, 0, 50]), of.pick([0, 0, 1, 2]))),
    "seek_hole": (1, lambda of: (of.slot(), of.offset(), of.pick([os.SEEK_DATA, os.SEEK_HOLE]))),
    "fallocate": (1, lambda of: (of.slot(), of.pick([0, 0, 1, 3, 0x10, 0x8]), of.offset(), of.length())),
    "truncate": (6, lambda of: (of.plain(FILES), of.pick(_SIZES))),
    "ftruncate": (5, lambda of: (of.slot(), of.pick(_SIZES))),
    "close": (4, lambda of: (of.slot(),)),
    "dup": (2, lambda of: (of.slot(), of.slot())),
    "rename": (18, _rename),
    "link": (10, lambda of: (of.file(), of.file(), of.follow())),
    "link_open": (2, lambda of: (of.slot(), of.file())),
    "symlink": (6, lambda of: (of.pick(_TARGETS), of.file())),
    "unlink": (14, lambda of: (of.file(),)),
    "rmdir": (8, lambda of: (of.directory(),)),
    "remove_tree": (1, lambda of: (At(of.pick(DIRECTORIES) + of.pick([b"", b"/a", b"/b/c"])),)),
    "mknod": (4, _mknod),
    "stat": (3, lambda of: (of.at(), of.follow())),
    "fstat": (2, lambda of: (of.slot(),)),
    "access": (3, lambda of: (of.at(), of.pick([0, 1, 2, 4, 7]))),
    "readlink": (2, lambda of: (of.at(),)),
    "listdir": (3, lambda of: (of.plain(DIRECTORIES),)),
    "chmod": (6, lambda of: (of.at(), of.mode())),
    "fchmod": (2, lambda of: (of.slot(), of.mode())),
    "chown": (5, lambda of: (of.at(), *of.owner(), of.follow())),
    "fchown": (2, lambda of: (of.slot(), *of.owner())),
    "utime": (6, lambda of: (of.at(), of.times(), of.follow())),
    "futime": (2, lambda of: (of.slot(), of.times())),
    "setxattr": (5, lambda of: (of.plain(), of.attribute(), of.value(), of.pick([0, 0, 1, 2]), of.follow())),
    "fsetxattr": (2, lambda of: (of.slot(), of.attribute(), of.value(), of.pick([0, 0, 1, 2]))),
    "getxattr": (2, lambda of: (of.plain(), of.attribute(), of.follow())),
    "listxattr": (2, lambda of: (of.plain(), of.follow())),
    "removexattr": (3, lambda of: (of.plain(), of.attribute(), of.follow())),
    "open_directory": (3, lambda of: (of.plain(DIRECTORIES), of.slot())),
    "scan": (8, lambda of: (of.slot(), of.pick([64, 300, 300, 4096]), At(of.pick(_LISTED)), of.below(4) == 3)),
    "rewind": (1, lambda of: (of.slot(),)),
    "fsync": (2, lambda of: (of.slot(), of.follow())),
    "syncfs": (1, lambda of: (of.slot(),)),
    "map_write": (4, lambda of: (of.slot(), of.offset(), of.data())),
    "map_read": (3, lambda of: (of.slot(), of.offset(), of.length())),
    "sendfile": (2, lambda of: (of.slot(), of.slot(), of.offset(), of.length())),
    "copy_file_range": (3, lambda of: (of.slot(), of.slot(), of.offset(), of.offset(), of.length())),
    "flock": (2, lambda of: (of.slot(), of.pick([1, 2, 8]))),
    "lock": (3, lambda of: (of.slot(), of.pick([0, 1, 2]), of.pick([0, 5, 10]), of.pick([0, 5, 20]))),
    "umask": (1, lambda of: (of.pick([0, 0, 0, 0, 0o022, 0o077, 0o027]),)),
    "statvfs": (1, lambda of: (of.plain(),)),
    "chdir": (2, lambda of: (of.plain(DIRECTORIES),)),
    "fchdir": (1, lambda of: (of.slot(),)),
    "chdir_root": (7, lambda of: ()),
    "advise": (1, lambda of: (of.slot(),)),
}  # fmt: skip

_BAG = [name for name, (weight, _) in _SPECS.items() for _ in range(weight)]
_WRITES = {"write", "pwrite", "writev", "sendfile", "copy_file_range", "map_write", "write_path"}
ALWAYS_SEEN = frozenset(_WRITES | {"open", "truncate", "ftruncate", "chown", "fchown"})
"""After these something may be put right, see LOST_BY_ROOT and KEPT_BY_OTHERS in `compare.py`."""

_LOOKS = [1] * 12 + [2] * 4 + [0]


def choose_call(choice: Choice, actor: int, users: bool) -> Call:
    """Return the next call of an actor; `users`: whether it may give files away."""
    name = choice.pick(_BAG)
    arguments = _SPECS[name][1](_Chooser(choice, actor, users))
    look = choice.pick(_LOOKS)
    return Call(actor, name, arguments, max(look, 1) if name in ALWAYS_SEEN else look)


def prologue() -> list[Call]:
    """Return calls that make a first few directories and files, so that later ones find something."""
    made = [Call(actor, "umask", (0,)) for actor in range(ACTORS)]
    for path in (b"a", b"b", b"c", b"a/b", b"a/c", b"b/a", b"a/b/c"):
        made.append(Call(0, "mkdir", (At(path), 0o777)))
    for path in (b"d", b"a/d", b"b/e", b"a/b/d"):
        made.append(Call(0, "write_path", (At(path), Data(5000, 1))))
        made.append(Call(0, "chmod", (At(path), 0o666)))
    return made
