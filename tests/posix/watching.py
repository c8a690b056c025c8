"""Who watches hears: inotify, fanotify, dnotify. What each cause tells is under "Watching" in docs/posix.md."""

import fcntl
import os
import signal
import struct
from pathlib import Path

from tests.posix.probe import check, file, probe
from tests.posix.system import AT_FDCWD, call, in_child

IN_ACCESS, IN_MODIFY, IN_ATTRIB, IN_CLOSE_WRITE, IN_MOVED_FROM, IN_MOVED_TO = 1, 2, 4, 8, 0x40, 0x80
IN_CREATE, IN_DELETE, IN_DELETE_SELF, IN_MOVE_SELF = 0x100, 0x200, 0x400, 0x800
FAN_CREATE, FAN_MODIFY = 0x100, 2


def _watch(path: str) -> int:
    fd = call("inotify_init1", os.O_NONBLOCK)
    call("inotify_add_watch", fd, os.fsencode(path), 0xFFF)
    return fd


def _events(fd: int) -> int:
    """Return all kinds of events that have arrived, as one mask."""
    raw, mask, at = os.read(fd, 65536), 0, 0
    while at < len(raw):
        _, kind, _, length = struct.unpack_from("iIII", raw, at)
        mask |= kind
        at += 16 + length
    return mask


@probe("inotify on a directory: create, modify, close, attributes, move, delete")
def inotify_of_a_directory() -> None:
    fd = _watch(".")

    def act() -> None:
        file("one")
        os.chmod("one", 0o600)
        os.rename("one", "two")
        os.unlink("two")

    in_child(act)
    wanted = IN_CREATE | IN_MODIFY | IN_CLOSE_WRITE | IN_ATTRIB | IN_MOVED_FROM | IN_MOVED_TO | IN_DELETE
    missing = wanted & ~_events(fd)
    check(missing == 0, f"without {missing:#x}")


@probe("inotify on a file: modify, attributes, move, delete")
def inotify_of_a_file() -> None:
    fd = _watch(str(file("one")))

    def act() -> None:
        with open("one", "ab") as opened:
            opened.write(b"more")
        os.rename("one", "two")
        os.unlink("two")

    in_child(act)
    missing = (IN_MODIFY | IN_MOVE_SELF | IN_ATTRIB | IN_DELETE_SELF) & ~_events(fd)
    check(missing == 0, f"without {missing:#x}")


@probe("inotify: access by read")
def inotify_of_reading() -> None:
    fd = _watch(str(file("one")))
    in_child(Path("one").read_bytes)
    check(bool(_events(fd) & IN_ACCESS), "not told")


def _fanotify(kind: int, mask: int, init: int = 0) -> int:
    fd = call("fanotify_init", init | 0x2, os.O_RDONLY)  # FAN_NONBLOCK
    call("fanotify_mark", fd, 1 | kind, mask, AT_FDCWD, b".")
    return fd


@probe("fanotify, a mark on a directory, names told (FAN_REPORT_DFID_NAME)", root=True)
def fanotify_of_a_directory() -> None:
    fd = _fanotify(0, FAN_CREATE | 0x08000000, 0xC00)  # FAN_EVENT_ON_CHILD
    in_child(lambda: file("made"))
    check(b"made" in os.read(fd, 4096), "no name")


@probe("fanotify, a mark on the mount", root=True)
def fanotify_of_a_mount() -> None:
    fd = _fanotify(0x10, FAN_MODIFY)
    in_child(lambda: file("made"))
    check(len(os.read(fd, 4096)) >= 24, "not told")


@probe("fanotify, a mark on the filesystem, with file handles", root=True)
def fanotify_of_a_filesystem() -> None:
    fd = _fanotify(0x100, FAN_CREATE, 0xC00)
    in_child(lambda: file("made"))
    check(b"made" in os.read(fd, 4096), "no name")


@probe("dnotify (F_NOTIFY)")
def dnotify() -> None:
    heard: list[int] = []
    former = signal.signal(signal.SIGIO, lambda number, _: heard.append(number))
    fd = os.open(".", os.O_RDONLY)
    try:
        fcntl.fcntl(fd, fcntl.F_NOTIFY, fcntl.DN_CREATE)
        in_child(lambda: file("made"))
        check(heard == [signal.SIGIO], "not told")
    finally:
        os.close(fd)
        signal.signal(signal.SIGIO, former)
