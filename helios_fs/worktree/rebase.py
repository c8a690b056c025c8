"""Rebase: after a seal, stand on the new base instead of on what the journal held.

The sealer says, inode by inode, what its content is called in the store now. Each step leaves what anybody can read
unchanged, so requests may run between any two steps.

B1. Directories come before what lies in them: an inode may go from memory only when its directory's base knows it.
B2. What happened after the sealed epoch stays over the new base.
"""

from collections.abc import Iterable

from helios_fs.worktree import extents
from helios_fs.worktree.index import NO_NAMES, Index
from helios_fs.worktree.inode import Inode, State

Sealed = tuple[int, bytes, int]
"""(inode number, content id, size in bytes) as of the end of the sealed epoch."""


def rebase(index: Index, sealed: Iterable[Sealed], epoch: int, position: int) -> None:
    """Let the inodes in `sealed` stand on what the store holds of them at the end of `epoch`, at journal `position`."""
    for ino, base, size in sealed:
        inode = index.inodes.get(ino)
        if inode is None:
            continue
        if inode.epoch <= epoch:
            _settle(index, inode, base, size)
        else:
            _lift(inode, base, size, epoch, position)


def _settle(index: Index, inode: Inode, base: bytes, size: int) -> None:
    """It has not changed since: the base is all there is."""
    inode.base = base
    inode.base_size = inode.limit = size
    inode.regions = None
    inode.names = None
    inode.older = None
    inode.epoch = 0
    index.dirty.pop(inode.ino, None)
    index.forget_if_idle(inode)


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


def finish(index: Index, inodes: Iterable[Inode], epoch: int) -> None:
    """Clean what `rebase` was not told of: inodes that had lost their last name when the epoch ended."""
    for inode in inodes:
        if inode.epoch > epoch:
            _drop_older(inode, epoch)
        elif not inode.nlink:
            inode.older = None
            inode.epoch = 0
            index.dirty.pop(inode.ino, None)
            index.forget_if_idle(inode)
