"""What is mounted where, read from /proc/self/mountinfo (proc_pid_mountinfo(5)).

Never touches a mount itself: a stale or stuck one would answer with an error, or not at all.
"""

import os
import re
from typing import Final, NamedTuple

FSTYPE: Final = "fuse.helios"

BRANCHES: Final = ".branches"
"""The directory that shows branches, unless the mount was asked to call it something else."""

_PERCENT: Final = re.compile(rb"%([0-9A-F]{2})")
_OCTAL: Final = re.compile(rb"\\([0-7]{3})")


class Mount(NamedTuple):
    """One line of mountinfo that is a HeliosFS mount."""

    mountpoint: str
    """Absolute path, surrogateescape."""
    store: str
    branch: str
    """Id of the branch that the daemon mounted."""
    options: str
    snapshot: str = ""
    """Id of the snapshot that is mounted, where it is one."""

    called: str = ""
    """What its daemon's control socket is named after: the branch, or one name for each mount of a snapshot."""
    directory: str = "/"
    """Which directory of the mount is shown there; another than / is a bind mount, as of a branch's tree."""
    branches_dir: str = BRANCHES
    """The name under which the mount shows branches."""


def _unescape(field: bytes) -> str:
    return os.fsdecode(_OCTAL.sub(lambda match: bytes([int(match[1], 8)]), field))


def _unquote(source: str) -> str:
    """Undo the daemon's `quoted`: what a mount option cannot carry is written as %XX."""
    return os.fsdecode(_PERCENT.sub(lambda match: bytes([int(match[1], 16)]), os.fsencode(source)))


def parse(mountinfo: bytes) -> list[tuple[str, Mount | None]]:
    """Return each mountpoint with what HeliosFS has mounted there, None where it is something else, in mount order."""
    found: list[tuple[str, Mount | None]] = []
    for line in mountinfo.splitlines():
        before, separator, after = line.partition(b" - ")
        if not separator:
            continue
        fields = before.split(b" ")
        fstype, source = after.split(b" ")[:2]
        mountpoint = _unescape(fields[4])
        mount = None
        if fstype == FSTYPE.encode():
            # The daemon writes what is not plain ASCII as %XX: a mount option can hold no more.
            plain = _PERCENT.sub(lambda match: bytes([int(match[1], 16)]), os.fsencode(_unescape(source)))
            store, _, shown = os.fsdecode(plain).rpartition("#")
            shown, _, branches_dir = shown.partition("|")
            branch, _, snapshot = shown.partition("@")
            options, directory = os.fsdecode(fields[5]), _unescape(fields[3])
            id_ = snapshot.partition(".")[0]
            mount = Mount(mountpoint, store, branch, options, id_, shown, directory, branches_dir or BRANCHES)
        found.append((mountpoint, mount))
    return found


def _all() -> list[tuple[str, Mount | None]]:
    with open("/proc/self/mountinfo", "rb") as file:
        return parse(file.read())


def listed() -> list[Mount]:
    """Return every HeliosFS mount that this process can see, in mount order."""
    return [mount for _, mount in _all() if mount is not None]


def find_mount_at(mountpoint: str) -> tuple[bool, Mount | None]:
    """Return whether anything is mounted exactly there, and what it is if it is ours; the uppermost counts."""
    for path, mount in reversed(_all()):
        if path == mountpoint:
            return True, mount
    return False, None


def find_mount_of(path: str) -> Mount | None:
    """Return the HeliosFS mount that an absolute path without symlinks lies in, or None."""
    best: tuple[str, Mount | None] = ("", None)
    for mountpoint, mount in _all():
        inside = path == mountpoint or path.startswith(mountpoint.rstrip("/") + "/")
        # What was mounted later at the same place covers what was there.
        if inside and len(mountpoint) >= len(best[0]):
            best = (mountpoint, mount)
    return best[1]
