"""Space that a journal keeps for the day when the disk is full: taking a name away appends a record too.

Knows one file, never what its space is used for. It is given back to the disk a little at a time, so that whoever else
writes to the full disk cannot take all of it.

E1. It is spent only for records that lead to free space: names that go, epochs that close.
E2. It is taken only where there is plenty of room, again so once a seal has made room; having none is no error.
"""

import os
from typing import Final

from helios_fs.errors import HeliosError
from helios_fs.store import files

FILE_NAME: Final = "reserve"
RESERVE_BYTES: Final = 1 << 20
"""Room for some ten thousand deletions."""
STEP_BYTES: Final = 64 * 1024
_PLENTY: Final = 16
"""The reserve is taken only where the disk has this many times its size."""


class Reserve:
    """The reserve of one journal, which the caller owns."""

    def __init__(self, directory: str, size: int = RESERVE_BYTES) -> None:
        """`size` is in bytes."""
        self._directory = directory
        self._size = size
        self._path = os.path.join(directory, FILE_NAME)
        self._left = 0

    @property
    def is_whole(self) -> bool:
        """Whether nothing of it is spent."""
        return self._left == self._size

    def take(self) -> None:
        """Take what is missing of it, where the disk has plenty of room."""
        try:
            room = os.statvfs(self._directory)
            fd = files.open_file(self._path, os.O_RDWR | os.O_CREAT)
            try:
                self._left = os.fstat(fd).st_size
                if self._left != self._size and room.f_bavail * room.f_frsize >= _PLENTY * self._size:
                    files.allocate(fd, 0, self._size)
                    self._left = self._size
            finally:
                os.close(fd)
        except (HeliosError, OSError):
            return  # E2

    def spend(self) -> bool:
        """Give the disk a step of it back; False where nothing is left."""
        if not self._left:
            return False
        left = max(0, self._left - STEP_BYTES)
        try:
            fd = files.open_file(self._path, os.O_RDWR)
            try:
                files.cut(fd, left)
            finally:
                os.close(fd)
        except (HeliosError, OSError):
            left = 0
        self._left = left
        return True
