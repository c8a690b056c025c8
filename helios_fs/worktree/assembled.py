"""Bytes of files that were put together from many small pieces, kept for the next read.

A file that is written in pieces of 100 bytes and read in between (a log that somebody follows, a database's page that
is written again and again) would otherwise be put together anew for each read, at some 2 µs a piece.

M1. What is kept was verified when it was read, and every later change of the file is made to it too, or it goes.
M2. It is a cache: at most `MAX_FILES` files, `MAX_RUN_BYTES` of each.
"""

from typing import Final

from helios_fs.worktree.inode import Inode, Run

MANY_PIECES: Final = 16
"""A read that took fewer is as fast without."""
MAX_RUN_BYTES: Final = 256 * 1024
MAX_FILES: Final = 32


class Assembled:
    """The runs of one worktree; each hangs at its inode."""

    def __init__(self) -> None:
        self._files: dict[Inode, None] = {}

    def keep(self, inode: Inode, start: int, data: bytes) -> None:
        """Remember that `inode` holds `data` at `start`; the file remembered longest makes room."""
        if len(data) > MAX_RUN_BYTES:
            return
        self._files.pop(inode, None)
        self._files[inode] = None
        inode.run = Run(start, data)
        if len(self._files) > MAX_FILES:
            self.drop(next(iter(self._files)))

    def drop(self, inode: Inode) -> None:
        """Forget the run of a file that changes in some other way than by a write."""
        inode.run = None
        self._files.pop(inode, None)

    def written(self, inode: Inode, offset: int, data: bytes) -> None:
        """Let the run of a file, which has one, follow a write; `data` has reached the journal."""
        run = inode.run
        assert run is not None
        start, end = run.start, run.start + len(run.data)
        if offset > end or offset + len(data) < start:
            return
        if offset < start or offset + len(data) > start + MAX_RUN_BYTES:
            self.drop(inode)
            return
        run.data[offset - start : offset - start + len(data)] = data


def find(inode: Inode, offset: int, end: int) -> bytes | None:
    """Return bytes offset..end of a file, if its run has them all."""
    run = inode.run
    if run is None or offset < run.start or end > run.start + len(run.data):
        return None
    return bytes(memoryview(run.data)[offset - run.start : end - run.start])
