"""What must agree between the two trees, and the one table of what may differ.

K1. Every difference that is let pass is in ALLOWED or in the tables of attributes below it, with its reason.
"""

import hashlib
import os
import stat
import time
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from tests.differential.calls import Call

Answers = Callable[[Call, object, object], bool]
"""Says of a call and its two answers (mount, reference) whether this difference is the expected one."""

_YEAR_NS = 365 * 86_400 * 10**9
_WHOLE_FILE = 8 << 20
_PIECE = 1 << 16


class Allowed(NamedTuple):
    """A difference in what a call answers."""

    name: str
    when: Answers
    why: str


ALLOWED = [
    *(
        Allowed(
            name,
            lambda call, mount, plain: {mount, plain} == {"EISDIR", "EINVAL"},
            "a directory that was listed has a position of its filesystem's own, beyond which nothing can be read",
        )
        for name in ("read", "readv")
    ),
    Allowed(
        "fallocate",
        lambda call, mount, plain: mount in ("EOPNOTSUPP", "EBADF", "EINVAL", "ENODEV", "ESPIPE", "EPERM", "EISDIR"),
        "pyfuse3 has no fallocate: EOPNOTSUPP, and nothing changes (but set-id bits and ctime at the very first in a "
        "mount, which the kernel itself changes before it asks us); not asked of the reference",
    ),
    Allowed(
        "seek_hole",
        lambda call, mount, plain: (
            isinstance(mount, int) and isinstance(plain, int) and mount <= plain
            if call.arguments[2] == os.SEEK_DATA
            else isinstance(mount, int) and isinstance(plain, int) and mount >= plain
        ),
        "pyfuse3 has no lseek: the kernel takes the whole file for data, which is always true enough for a copy",
    ),
    Allowed(
        "seek_hole",
        lambda call, mount, plain: call.arguments[2] == os.SEEK_DATA and isinstance(mount, int) and plain == "ENXIO",
        "a file that ends in a hole has no more data for ext4; the kernel's own rule takes it for data",
    ),
]
"""Answers of calls that may differ. Whatever is not here must be equal."""

NOT_CALLED = {
    "setxattr with XATTR_CREATE | XATTR_REPLACE": "pyfuse3 keeps the flags to itself and knows each alone",
    "setxattr of the value that is there": "ext4 leaves ctime as it is; we and tmpfs do not",
    "chown(-1, -1) by others than root": "as KEPT_BY_OTHERS: EPERM on ext4 where a bit would have to go",
    "O_DIRECT": "ext4 wants aligned buffers; fsx covers it",
    "O_TMPFILE": "pyfuse3 has no tmpfile: EOPNOTSUPP",
    "system.posix_acl_*": "no access control lists here: EOPNOTSUPP",
}
"""What the vocabulary leaves out because the two sides must differ."""

LOST_BY_ROOT = (
    "A file that gets set-id bits while it is open for writing only loses them when root writes through that "
    "descriptor: the kernel leaves it to the daemon to take them away (FOPEN_DIRECT_IO), and libfuse does not hand on "
    "FUSE_WRITE_KILL_SUIDGID, which says who may keep them. The reference's bits are taken away too, and all goes on."
)

KEPT_BY_OTHERS = (
    "S_ISGID without S_IXGRP on a file of a group that the caller is not in goes with a write or chown on ext4 "
    "(setattr_should_drop_sgid), and stays on FUSE: fuse_setattr takes S_ISGID away only together with S_IXGRP. The "
    "mount's bit is taken away too, and all goes on."
)

NOT_COMPARED = {
    "st_dev": "two filesystems",
    "st_blocks": "blocks are the filesystem's own; sparse files are tested in tests/mount",
    "st_blksize": "as above",
    "st_size of directories": "ext4 counts blocks, we say 0",
    "atime": "a read is no change here, as with noatime; compared if set by somebody and the reference is noatime",
    "mtime, ctime": "clocks differ: that they change in the same calls is compared, and any value that somebody set",
    "times of fifos, sockets and devices": "pipes and drivers set them in the kernel's inode; FUSE never hears of it",
}
"""Attributes that are not compared, and why."""


def is_allowed(call: Call, mount: object, plain: object) -> bool:
    """Tell whether two different answers of a call are in the table."""
    return any(known.name == call.name and known.when(call, mount, plain) for known in ALLOWED)


class Times:
    """Which times had been seen of each file, so that a change on one side only is noticed."""

    def __init__(self, exact: bool, atime: bool) -> None:
        self._exact = exact
        self._atime = atime
        self._known: dict[tuple[int, int], tuple[os.stat_result, os.stat_result]] = {}
        now = time.time_ns()
        self._set_by_us = range(now - _YEAR_NS, now + _YEAR_NS)

    def forget(self) -> None:
        self._known.clear()

    def differences(self, mount: os.stat_result, plain: os.stat_result) -> Iterable[str]:
        """Say what differs in the times of one file, now and since it was last looked at."""
        if not stat.S_ISREG(plain.st_mode) and not stat.S_ISDIR(plain.st_mode) and not stat.S_ISLNK(plain.st_mode):
            return
        key = (mount.st_ino, plain.st_ino)
        before = self._known.get(key)
        self._known[key] = (mount, plain)
        for name in ("st_mtime_ns", "st_atime_ns") if self._atime else ("st_mtime_ns",):
            here, there = getattr(mount, name), getattr(plain, name)
            if here != there and (here not in self._set_by_us or there not in self._set_by_us):
                yield f"{name}: {here} and {there}"
        if before is None or not self._exact:
            return
        for name in ("st_mtime_ns", "st_ctime_ns"):
            moved = getattr(mount, name) != getattr(before[0], name)
            if moved != (getattr(plain, name) != getattr(before[1], name)):
                yield f"{name} has {'changed' if moved else 'not changed'}, unlike the reference's"
        if mount.st_ctime_ns < before[0].st_ctime_ns:
            yield "st_ctime has gone back"


def lost_by_root(mount: os.stat_result, plain: os.stat_result) -> bool:
    """Tell whether the two differ as LOST_BY_ROOT says."""
    set_id = stat.S_ISUID | stat.S_ISGID
    lost = plain.st_mode ^ mount.st_mode
    return bool(lost) and not lost & ~set_id and not mount.st_mode & lost


def kept_by_others(mount: os.stat_result, plain: os.stat_result) -> bool:
    """Tell whether the two differ as KEPT_BY_OTHERS says."""
    return (
        mount.st_mode ^ plain.st_mode == stat.S_ISGID and mount.st_mode & (stat.S_ISGID | stat.S_IXGRP) == stat.S_ISGID
    )


def attribute_differences(mount: os.stat_result, plain: os.stat_result) -> Iterable[str]:
    """Say what differs in the attributes of one file, its times left aside."""
    for name in ("st_mode", "st_nlink", "st_uid", "st_gid", "st_rdev"):
        here, there = getattr(mount, name), getattr(plain, name)
        if here != there:
            yield f"{name}: {here:#o} and {there:#o}" if name == "st_mode" else f"{name}: {here} and {there}"
    if mount.st_size != plain.st_size and not stat.S_ISDIR(plain.st_mode):
        yield f"st_size: {mount.st_size} and {plain.st_size}"


def content_difference(mount: int, plain: int) -> str | None:
    """Say where the contents of two open files differ."""
    offset = 0
    size = os.fstat(plain).st_size
    while True:
        here, there = (os.pread(fd, 1 << 20, offset) for fd in (mount, plain))
        if here != there:
            return f"content, {len(here)} and {len(there)} bytes from {offset} on: {_first_difference(here, there)}"
        offset += len(here)
        if not here:
            return None
        if offset >= _WHOLE_FILE and offset < size - _PIECE:
            offset = size - _PIECE


def _first_difference(here: bytes, there: bytes) -> str:
    place = next((i for i, (one, other) in enumerate(zip(here, there, strict=False)) if one != other), None)
    if place is None:
        return "one ends before the other"
    return f"at +{place} {here[place : place + 8]!r} and {there[place : place + 8]!r}"


# -- Whole trees -----------------------------------------------------------------------------------------------------


def manifest(root: int) -> dict[bytes, dict[str, Any]]:
    """Return all that a tree shows, by path: types, attributes, targets, contents, extended attributes."""
    found: dict[bytes, dict[str, Any]] = {b".": _described(b".", root)}
    todo = [b"."]
    while todo:
        above = todo.pop()
        fd = os.open(above, os.O_RDONLY | os.O_DIRECTORY, dir_fd=root)
        try:
            for name in sorted(os.fsencode(entry) for entry in os.listdir(fd)):
                path = above + b"/" + name
                described = _described(name, fd)
                found[path] = described
                if stat.S_ISDIR(described["mode"]):
                    todo.append(path)
        finally:
            os.close(fd)
    return found


def _described(name: bytes, directory: int) -> dict[str, Any]:
    status = os.stat(name, dir_fd=directory, follow_symlinks=False)
    kind = stat.S_IFMT(status.st_mode)
    described: dict[str, Any] = {
        "mode": status.st_mode,
        "nlink": status.st_nlink,
        "owner": (status.st_uid, status.st_gid),
        "rdev": status.st_rdev,
        "size": None if kind == stat.S_IFDIR else status.st_size,
        "status": status,
    }
    if kind == stat.S_IFLNK:
        described["target"] = os.readlink(name, dir_fd=directory)
    elif kind == stat.S_IFREG:
        described["content"] = _digest(name, directory, status.st_size)
    path = b"/proc/self/fd/%d/%s" % (directory, name)
    described["xattrs"] = {
        attribute: os.getxattr(path, attribute, follow_symlinks=False)
        for attribute in sorted(os.listxattr(path, follow_symlinks=False))
    }
    return described


def _digest(name: bytes, directory: int, size: int) -> str:
    digest = hashlib.blake2b(digest_size=16)
    fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW, dir_fd=directory)
    try:
        offset = 0
        while data := os.pread(fd, 1 << 20, offset):
            digest.update(data)
            offset += len(data)
            if offset >= _WHOLE_FILE and offset < size - _PIECE:
                offset = size - _PIECE
    finally:
        os.close(fd)
    return digest.hexdigest()


Manifest = dict[bytes, dict[str, Any]]


def manifest_differences(mount: Manifest, plain: Manifest, ignored: tuple[str, ...] = ("status",)) -> list[str]:
    """Say what differs between two trees."""
    found = [f"only in the mount: {path!r}" for path in mount.keys() - plain.keys()]
    found += [f"only in the reference: {path!r}" for path in plain.keys() - mount.keys()]
    for path in sorted(mount.keys() & plain.keys()):
        here, there = mount[path], plain[path]
        for name in here.keys() | there.keys():
            if name not in ignored and here.get(name) != there.get(name):
                found.append(f"{path!r}: {name}: {here.get(name)!r} and {there.get(name)!r}")
    return found


def identity_differences(pairs: Iterable[tuple[int, int]]) -> list[str]:
    """Say where one file on one side is two on the other, by (mount, reference) inode numbers."""
    by_mount: dict[int, int] = {}
    by_plain: dict[int, int] = {}
    found = []
    for mount, plain in pairs:
        if by_mount.setdefault(mount, plain) != plain or by_plain.setdefault(plain, mount) != mount:
            found.append(f"inode {mount} of the mount, {plain} of the reference: not the same file on both sides")
    return found
