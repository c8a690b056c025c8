"""Space that is kept for the day when the disk is full: deleting must be possible then, and deleting writes too.

Knows one file, never what its space is used for.

E1. The reserve is given up only for work that makes space: publishing deletions, dropping packs.
E2. It is taken again when there is plenty of room; having none is no error.
"""

import os
from typing import Final

from helios_fs.errors import HeliosError
from helios_fs.store import files

RESERVE_BYTES: Final = 2 * 1024 * 1024
_PLENTY: Final = 16
"""The reserve is taken only where the disk has this many times its size."""


class Reserve:
    """The reserve file of a store."""

    def __init__(self, path: str) -> None:
        self._path = os.path.join(path, "reserve")
        self._directory = path

    def spend(self) -> bool:
        """Give its space to the disk; False where there is none to give."""
        if not os.path.exists(self._path):
            return False
        try:
            files.remove(self._path)
        except HeliosError:
            return False
        return True

    def restore(self) -> None:
        """Take it again if it is missing and the disk has plenty of room."""
        if os.path.exists(self._path):
            return
        fresh = self._path + ".new"
        try:
            room = os.statvfs(self._directory)
            if room.f_bavail * room.f_frsize < _PLENTY * RESERVE_BYTES:
                return
            fd = files.open_file(fresh, os.O_WRONLY | os.O_CREAT)
            try:
                files.allocate(fd, 0, RESERVE_BYTES)
            finally:
                os.close(fd)
            files.replace(fresh, self._path)
        except (HeliosError, OSError):
            return  # E2
