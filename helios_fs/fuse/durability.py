"""Durability: fsync for many at once, and what shared mappings have stored but the daemon has not seen.

U1. `sync` returns when every request answered before it would survive a power cut; callers that come together share
    one fdatasync.
U2. `write_back` returns when what mappings had stored before it, in files that still have a name, has arrived as
    writes. It waits in a thread: the writes it causes are requests that the loop must answer meanwhile.
"""

import ctypes
import errno
import logging
import os
from collections.abc import Callable
from operator import attrgetter
from typing import Final

import pyfuse3
import trio

from helios_fs.errors import HeliosError
from helios_fs.worktree.inode import Inode
from helios_fs.worktree.worktree import Worktree

_log = logging.getLogger(__name__)

# sync_file_range(2): wait for what is being written, write what is dirty, wait for it.
_WRITE_AND_WAIT: Final = 1 | 2 | 4

_libc: Final = ctypes.CDLL(None, use_errno=True)
_sync_file_range: Final = _libc.sync_file_range
_sync_file_range.argtypes = (ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint)


class Durability:
    """What fsync and snapshots wait for."""

    def __init__(
        self, worktree: Worktree, root_path: Callable[[], bytes], nodeid: Callable[[Inode], int] = attrgetter("ino")
    ) -> None:
        """`root_path()` says where the branch's tree is now; `nodeid(inode)` how the kernel calls an inode of it."""
        self._worktree = worktree
        self._root_path = root_path
        self._nodeid = nodeid
        self._syncing: trio.Event | None = None
        self._mappable: dict[Inode, int] = {}

    async def sync(self) -> None:
        """Return when everything answered so far would survive a power cut. Raises StoreFault, finally."""
        journal = self._worktree.journal
        target = journal.end
        while journal.synced < target or journal.broken is not None:
            if self._syncing is not None:
                await self._syncing.wait()
                continue
            self._syncing = trio.Event()
            try:
                await trio.to_thread.run_sync(journal.sync)
            finally:
                self._syncing.set()
                self._syncing = None

    def opened_for_mapping(self, inode: Inode) -> None:
        """Remember a descriptor through which a shared mapping could be written."""
        self._mappable[inode] = self._mappable.get(inode, 0) + 1

    def closed_for_mapping(self, inode: Inode) -> None:
        """Forget such a descriptor; the kernel closes it only after the last mapping of it is gone."""
        count = self._mappable.get(inode, 0) - 1
        if count > 0:
            self._mappable[inode] = count
        else:
            self._mappable.pop(inode, None)

    def is_mappable(self, inode: Inode) -> bool:
        """Tell whether a shared mapping of a file may be written."""
        return inode in self._mappable

    @property
    def has_mappable(self) -> bool:
        """Whether `write_back` has anything to ask for."""
        return bool(self._mappable)

    async def write_back(self) -> None:
        """Have the kernel write back what shared mappings had stored before the call."""
        targets = [(self._nodeid(inode), self._path(inode)) for inode in self._mappable if inode.nlink]
        if targets:
            await trio.to_thread.run_sync(_write_back, targets)

    def _path(self, inode: Inode) -> bytes | None:
        names = []
        here = inode
        while here.parent is not None:
            names.append(here.name)
            here = here.parent
        if here is not self._worktree.index.root or not names:
            return None
        return b"/".join([self._root_path(), *reversed(names)])


def _write_back(targets: list[tuple[int, bytes | None]]) -> None:
    for ino, path in targets:
        try:
            if path is None or not _through_descriptor(path, ino):
                # No name that is known, or one that this process may not open: slower, and the cache is lost.
                pyfuse3.invalidate_inode(ino)
        except (OSError, HeliosError) as error:
            if getattr(error, "errno", None) != errno.ENOENT:
                _log.warning("mapped pages of inode %d could not be written back: %s", ino, error)


def _through_descriptor(path: bytes, ino: int) -> bool:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        if os.fstat(fd).st_ino != ino:
            return False
        return int(_sync_file_range(fd, 0, 0, _WRITE_AND_WAIT)) == 0
    finally:
        os.close(fd)
