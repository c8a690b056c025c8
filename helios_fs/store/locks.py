"""Locks between processes: flock(2) on files below `run/`.

Knows nothing of what a lock protects. A lock ends with its holder, however that dies; the file stays, and holds the
number of the process that last took it, for messages only.

L1. Two `FileLock`s exclude each other even within one process: a lock belongs to the open file, not to the process.
L2. Nothing here sleeps or polls: a caller waits in flock(2), or is told at once that it would have to.
"""

import fcntl
import os
import urllib.parse
from typing import Self

from blake3 import blake3

from helios_fs.errors import Busy
from helios_fs.store import files


class FileLock:
    """One lock file, not yet held."""

    def __init__(self, path: str, flags: int = os.O_RDWR | os.O_CREAT) -> None:
        self._fd = files.open_file(path, flags)

    @classmethod
    def on_directory(cls, path: str) -> Self:
        """Return a lock on a directory itself; it cannot be signed."""
        return cls(path, os.O_RDONLY | os.O_DIRECTORY)

    def acquire(self, exclusive: bool, wait: bool) -> bool:
        """Take the lock, or change how it is held; False where somebody else has it and `wait` is False.

        A change from shared to exclusive may let another holder in between.
        """
        mode = (fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH) | (0 if wait else fcntl.LOCK_NB)
        try:
            fcntl.flock(self._fd, mode)
        except BlockingIOError:
            return False
        except OSError as error:
            raise files.converted(error, "flock") from error
        return True

    def release(self) -> None:
        """Let others have it; it can be acquired again."""
        fcntl.flock(self._fd, fcntl.LOCK_UN)

    def close(self) -> None:
        """Release it and forget the file. Closing twice is fine."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def sign(self) -> None:
        """Write the number of this process into the file, for whoever is refused."""
        files.cut(self._fd, 0)
        files.write_at(self._fd, b"%d\n" % os.getpid(), 0)

    def holder(self) -> str:
        """Return the process number that the last holder wrote, or `?`."""
        text = files.read_at(self._fd, 32, 0).strip()
        return text.decode() if text.isdigit() else "?"


class BranchLock:
    """The right to write a branch's journal; held until released, until a `with` of it or this process ends."""

    def __init__(self, store_path: str, branch: str, called: str = "") -> None:
        """Take it. Raises Busy, by the name `called`, where another mount or program has the branch."""
        self.branch = branch
        self._lock = FileLock(os.path.join(store_path, "run", lock_name(branch)))
        try:
            if not self._lock.acquire(exclusive=True, wait=False):
                holder = self._lock.holder()
                raise Busy(f"branch {called or branch} of {store_path} is in use by process {holder}")
            self._lock.sign()
        except BaseException:
            self._lock.close()
            raise

    def release(self) -> None:
        """Give it up. Releasing twice is fine."""
        self._lock.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


def lock_name(branch: str) -> str:
    """Return the file name of a branch's lock: its quoted name, or a hash where that would be too long."""
    quoted = urllib.parse.quote(branch, safe="")
    if len(quoted) > 200:
        quoted = "%" + blake3(branch.encode()).hexdigest()
    return quoted + ".lock"
