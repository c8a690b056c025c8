"""What a restore or a merge has changed in a working tree, for those who have to be told: the kernel, and watchers.

Plain values: knows nothing of how either hears of it.
"""

import stat
from typing import NamedTuple

from helios_fs.objects.entry import Entry

Path = tuple[bytes, ...]


class Name(NamedTuple):
    """A name that has come or gone."""

    directory: int
    """Number of the directory that has or had it."""
    path: Path
    """Where it is in the tree."""
    mode: int
    """What it means or meant; only the type is sure to be right still when somebody reads this."""


class Moved(NamedTuple):
    """An inode that has another name now."""

    directory: int
    """Number of the directory that had it."""
    old: Path
    new: Name


class Changed:
    """What one restore has changed."""

    def __init__(self) -> None:
        self.names: list[tuple[int, bytes, int]] = []
        """(directory, name, inode that the name has lost, or 0)."""
        self.inodes: list[int] = []
        """Inodes whose content or attributes are others now."""
        self.gone: list[Name] = []
        """What was removed; of a directory itself only, not what lay below it."""
        self.made: list[Name] = []
        """What has come back; likewise."""
        self.moved: list[Moved] = []
        self.written: list[Path] = []
        """Files whose content is another."""
        self.altered: list[Path] = []
        """What is as it was but for its attributes."""

    def compare(self, path: Path, now: Entry, then: Entry) -> None:
        """Note what is new in an inode that stays. The times of a directory say nothing of their own."""
        if then.is_directory:
            if _rights(now) != _rights(then):
                self.altered.append(path)
        elif stat.S_ISREG(then.mode) and (now.content, now.size) != (then.content, then.size):
            self.written.append(path)
        elif (*_rights(now), now.mtime_ns, now.atime_ns) != (*_rights(then), then.mtime_ns, then.atime_ns):
            self.altered.append(path)


def _rights(entry: Entry) -> tuple[int, int, int, dict[bytes, bytes] | None]:
    return entry.mode, entry.uid, entry.gid, entry.xattrs
