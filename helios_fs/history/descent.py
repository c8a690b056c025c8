"""Going down a directory tree by descriptors, so that nothing that moves or is replaced meanwhile leads astray.

D1. A directory is opened by name below the descriptor of its parent, and never through a symlink.
D2. At most `_OPEN` descriptors are held, however deep the tree: one further up is closed, and opened again through
    `..` of its child on the way back; it must then be the directory that it was.
"""

import errno
import os
from typing import Final

_FLAGS: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_OPEN: Final = 64


class Descent:
    """A stack of open directories; the topmost is where we are."""

    def __init__(self, root: bytes | str) -> None:
        """Open the root, which may be a symlink to a directory. Raises OSError."""
        self._open: list[int] = [os.open(root, _FLAGS & ~os.O_NOFOLLOW)]
        self._identities = [_identity(self._open[0])]

    @property
    def fd(self) -> int:
        """The descriptor of the directory where we are."""
        return self._open[-1]

    @property
    def root_fd(self) -> int:
        """The descriptor of the root, which stays open."""
        return self._open[0]

    def enter(self, name: bytes) -> int:
        """Open a directory here and go into it. Raises OSError; then we are where we were."""
        fd = os.open(name, _FLAGS, dir_fd=self.fd)
        self._open.append(fd)
        self._identities.append(_identity(fd))
        far = len(self._open) - 1 - _OPEN
        if far > 0 and self._open[far] >= 0:
            os.close(self._open[far])
            self._open[far] = -1
        return fd

    def leave(self) -> None:
        """Go back up. Raises OSError where the directory above is no longer what it was; then the descent is over."""
        fd = self._open.pop()
        self._identities.pop()
        try:
            if self._open[-1] < 0:
                above = os.open("..", _FLAGS, dir_fd=fd)
                self._open[-1] = above
                if _identity(above) != self._identities[-1]:
                    raise OSError(errno.ESTALE, "the directory was moved meanwhile")
        finally:
            os.close(fd)

    def close(self) -> None:
        """Close whatever is open. Closing twice is fine."""
        while self._open:
            fd = self._open.pop()
            if fd >= 0:
                os.close(fd)


def _identity(fd: int) -> tuple[int, int]:
    status = os.fstat(fd)
    return status.st_dev, status.st_ino
