"""A first look at a directory that is to be taken in: how much it holds, and which inodes have several names there.

Knows system calls only. What it cannot see it passes over: the walk that takes things in says what is the matter.
"""

import os
import stat
from dataclasses import dataclass, field

from helios_fs.history.descent import Descent
from helios_fs.history.select import Selection

Identity = tuple[int, int]
"""(st_dev, st_ino)."""


@dataclass
class Survey:
    """What a first look found."""

    entries: int = 0
    data_bytes: int = 0
    names_of: dict[Identity, int] = field(default_factory=dict)
    """How many names in the source each inode with more than one link has."""


def survey(descent: Descent, selection: Selection, left_out: Identity) -> Survey:
    """Return what a source holds of what is selected; `left_out` is a directory to stay out of. Closes `descent`."""
    found = Survey()
    try:
        waiting = [(b"", _count(found, descent.fd, b"", selection, left_out))]
        while waiting:
            path, directories = waiting[-1]
            if not directories:
                waiting.pop()
                if waiting:
                    descent.leave()
                continue
            name = directories.pop()
            try:
                fd = descent.enter(name)
            except OSError:
                continue
            below = joined(path, name)
            waiting.append((below, _count(found, fd, below, selection, left_out)))
    except OSError:
        pass  # a directory on the way was moved: the totals stay short
    finally:
        descent.close()
    return found


def _count(found: Survey, fd: int, path: bytes, selection: Selection, left_out: Identity) -> list[bytes]:
    """Count what a directory holds; return the names of its directories."""
    directories = []
    with os.scandir(fd) as entries:
        for entry in entries:
            name = os.fsencode(entry.name)
            is_directory = entry.is_dir(follow_symlinks=False)
            if selection.excludes(joined(path, name), is_directory):
                continue
            try:
                status = entry.stat(follow_symlinks=False)
            except OSError:
                continue
            found.entries += 1
            identity = (status.st_dev, status.st_ino)
            if is_directory:
                if identity != left_out:
                    directories.append(name)
                continue
            if stat.S_ISREG(status.st_mode):
                found.data_bytes += status.st_size
            if status.st_nlink > 1:
                found.names_of[identity] = found.names_of.get(identity, 0) + 1
    return directories


def joined(directory: bytes, name: bytes) -> bytes:
    """Return the path of a name in a directory, the root being the empty path."""
    return directory + b"/" + name if directory else name
