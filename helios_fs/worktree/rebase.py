"""Rebase: after a seal, stand on the new base instead of on what the journal held.

The sealer says, inode by inode, what its content is called in the store now. Each step leaves what anybody can read
unchanged, so requests may run between any two steps.

B1. An inode may go from memory only when its directory's base knows it: all that settle are held until the end.
B2. What happened after the sealed epoch stays over the new base.
"""

from collections.abc import Iterable, Iterator
from typing import Final

from helios_fs.worktree import extents
from helios_fs.worktree.index import NO_NAMES, Index
from helios_fs.worktree.inode import Inode, State

_SLICE: Final = 512

Sealed = tuple[int, bytes, int]
"""(inode number, content id, size in bytes) as of the end of the sealed epoch."""


class Rebase:
    """One seal's results on their way into the index: `take` as they come, then `finish`."""

    def __init__(self, index: Index, epoch: int, position: int) -> None:
        """`epoch` is the last one that was sealed, `position` the journal position behind it."""
        self._index = index
        self._epoch = epoch
        self._position = position
        self._settled: list[Inode] = []

    def take(self, sealed: Iterable[Sealed]) -> None:
        """Let these inodes stand on what the store holds of them."""
        for ino, base, size in sealed:
            inode = self._index.inodes.get(ino)
            if inode is None:
                continue
            if inode.epoch <= self._epoch:
                self._settle(inode, base, size)
            else:
                _lift(inode, base, size, self._epoch, self._position)

    def _settle(self, inode: Inode, base: bytes, size: int) -> None:
        """It has not changed since: the base is all there is."""
        inode.base = base
        inode.base_size = inode.limit = size
        inode.regions = None
        inode.names = None
        self._clean(inode)

    def _clean(self, inode: Inode) -> None:
        inode.older = None
        inode.epoch = 0
        self._index.dirty.pop(inode.ino, None)
        inode.holds += 1
        self._settled.append(inode)

    def finish(self) -> Iterator[None]:
        """Clean what `take` was not told of, inodes whose last name had gone, and forget what nobody holds.

        Yields now and then, so that requests can run in between.
        """
        for ino, epoch in list(self._index.unlinked.items()):
            if epoch <= self._epoch:
                del self._index.unlinked[ino]
        for count, inode in enumerate(list(self._index.dirty.values())):
            if inode.epoch > self._epoch:
                _drop_older(inode, self._epoch)
            elif not inode.nlink:
                self._clean(inode)
            if count % _SLICE == _SLICE - 1:
                yield
        for count, inode in enumerate(self._settled):
            self._index.release(inode, 1)
            if count % _SLICE == _SLICE - 1:
                yield
        self._settled.clear()


def _lift(inode: Inode, base: bytes, size: int, epoch: int, position: int) -> None:
    """It has changed since: keep that, over the new base."""
    versions = _drop_older(inode, epoch)
    limit = size
    for version in versions:
        if version.own_base:
            break
        limit = min(limit, version.low)
        version.base = base
        version.base_size = size
        version.limit = limit
        if version.regions is not None:
            version.regions = extents.written_since(version.regions, position)
        if version.names is not None:
            with NO_NAMES.mutate() as kept:
                for name, dirent in version.names.items():
                    if dirent[1] > epoch:
                        kept[name] = dirent
                version.names = kept.finish()


def _drop_older(inode: Inode, epoch: int) -> list[State]:
    """Forget the states up to `epoch`; return those after it, oldest first."""
    versions: list[State] = [inode]
    while versions[-1].older is not None and versions[-1].older.epoch > epoch:
        versions.append(versions[-1].older)
    versions[-1].older = None
    versions.reverse()
    return versions
