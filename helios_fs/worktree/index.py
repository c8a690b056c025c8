"""The live index: one merged picture of a branch's newest state over an immutable base tree.

Knows nothing of the journal's frames or of requests. A lookup costs the same however many epochs are not sealed.

N1. What memory says of a name or an inode hides what the base says.
N2. An inode is in `inodes` exactly while I1 holds for it; `dirty` holds those with `epoch` > 0.
N3. Nothing below may have changed when ColdObject is raised, so that the caller can repeat the operation.
"""

from collections.abc import Iterator
from typing import Final

import immutables

from helios_fs.errors import CorruptObject, ObjectMissing
from helios_fs.objects.entry import Entry, Tree, decode_entry, directory_key, ino_key, name_hash
from helios_fs.objects.ids import ROOT_INO
from helios_fs.store import maps
from helios_fs.store.content import ObjectReader
from helios_fs.worktree.inode import UNCUT, Dirent, Inode, State

NO_NAMES: Final[immutables.Map[bytes, Dirent]] = immutables.Map()


class Index:
    """Inodes and names of one branch; `objects` reads the base."""

    def __init__(self, objects: ObjectReader, tree: Tree, epoch: int) -> None:
        self.objects: ObjectReader = objects
        self.links = tree.links
        self.base_root = tree.root
        self.epoch = epoch
        self.root = Inode.from_entry(tree.root)
        self.root.holds = 1
        self.inodes: dict[int, Inode] = {ROOT_INO: self.root}
        self.dirty: dict[int, Inode] = {}
        self.orphans: dict[int, Inode] = {}
        """Inodes without a name that somebody still holds."""
        self.unlinked: dict[int, int] = {}
        """Inodes that the base's link table has and that lost their last name since -> the epoch of that."""
        self.gone: dict[int, bool] | None = None
        """Where a sealer wants to know: inodes that lost their last name, and whether the link table had them."""

    # -- Finding -----------------------------------------------------------------------------------------------------

    def find(self, parent: Inode, name: bytes) -> Inode | None:
        """Return what `name` means in a directory, or None."""
        names = parent.names
        if names is not None:
            dirent = names.get(name)
            if dirent is not None:
                return dirent[0]
        if not parent.base:
            return None
        value = maps.find(self.objects, parent.base, directory_key(name))
        if value is None:
            return None
        return self.load(parent, name, value)

    def load(self, parent: Inode, name: bytes, value: bytes) -> Inode:
        """Return the inode that a directory's page in the base describes."""
        entry = decode_entry(value)
        if isinstance(entry, int):
            return self.linked(entry)
        inode = self.inodes.get(entry.ino)
        if inode is None:
            inode = Inode.from_entry(entry)
            inode.parent = parent
            inode.name = name
            parent.holds += 1
            self.inodes[entry.ino] = inode
        return inode

    def linked(self, ino: int) -> Inode:
        """Return an inode that is kept in the link table."""
        inode = self.inodes.get(ino)
        if inode is None:
            if ino in self.unlinked:
                raise ObjectMissing(f"inode {ino} has lost its last name")
            inode = Inode.from_entry(linked_entry(self.objects, self.links, ino))
            inode.linked = True
            self.inodes[ino] = inode
        return inode

    def listing(self, directory: Inode, after: int, overlay: list[tuple[int, bytes]]) -> Iterator[tuple[int, bytes]]:
        """Yield (hash, name) in the order of hashes, from the first above `after`.

        `overlay` is what `overlay_names` said when the listing began; a name that is gone since is left out, one that
        came since may be. The directory must not change while the iterator is in use.
        """
        start = (after + 1).to_bytes(8, "big")
        changed = iter(_from(overlay, after))
        base = maps.scan(self.objects, directory.base, start=start) if directory.base else iter(())
        here = next(changed, None)
        for key, value in base:
            below = (int.from_bytes(key[:8], "big"), key[8:])
            while here is not None and here < below:
                if self.find(directory, here[1]) is not None:
                    yield here
                here = next(changed, None)
            if here == below:
                here = next(changed, None)
            names = directory.names
            if names is None or below[1] not in names:
                self.load(directory, below[1], value)
                yield below
            elif self.find(directory, below[1]) is not None:
                yield below
        while here is not None:
            if self.find(directory, here[1]) is not None:
                yield here
            here = next(changed, None)

    # -- Changing ----------------------------------------------------------------------------------------------------

    def touch(self, inode: Inode) -> None:
        """Get an inode ready to change: what it was before stays visible to the snapshots of earlier epochs."""
        if inode.epoch != self.epoch:
            if inode.epoch:
                before = State()
                inode.copy_to(before)
                inode.older = before
            inode.epoch = self.epoch
            inode.low = UNCUT
            inode.own_base = False
            self.dirty[inode.ino] = inode

    def add(self, inode: Inode) -> None:
        """Take in a new inode, which the base does not have."""
        inode.epoch = inode.bound = self.epoch
        self.inodes[inode.ino] = inode
        self.dirty[inode.ino] = inode

    def hold(self, inode: Inode, parent: Inode | None, name: bytes) -> None:
        """Say that `inode` lies in `parent` under `name` now, and nowhere else (linked inodes lie nowhere)."""
        former = inode.parent
        inode.parent = parent
        inode.name = name
        if parent is not None:
            parent.holds += 1
        if former is not None:
            self.release(former, 1)

    def release(self, inode: Inode, count: int) -> None:
        """Give back `count` holds, and forget the inode where that was the last reason to keep it."""
        inode.holds -= count
        if inode.holds <= 0:
            self.forget_if_idle(inode)

    def forget_if_idle(self, inode: Inode) -> None:
        """Forget an inode that nobody holds and that the base can give again, or that has no name any more."""
        while not inode.holds:
            if inode.epoch and (inode.nlink or inode.older or inode.epoch != self.epoch):
                return
            self.dirty.pop(inode.ino, None)
            self.orphans.pop(inode.ino, None)
            if self.inodes.get(inode.ino) is inode:
                del self.inodes[inode.ino]
            parent = inode.parent
            if parent is None:
                return
            inode.parent = None
            parent.holds -= 1
            inode = parent


def overlay_names(directory: Inode) -> list[tuple[int, bytes]]:
    """Return (hash, name) of what changed in a directory and still means something, in the order of hashes."""
    if directory.names is None:
        return []
    return sorted([(name_hash(name), name) for name, dirent in directory.names.items() if dirent[0] is not None])


def _from(overlay: list[tuple[int, bytes]], after: int) -> list[tuple[int, bytes]]:
    low, high = 0, len(overlay)
    while low < high:
        middle = (low + high) // 2
        if overlay[middle][0] <= after:
            low = middle + 1
        else:
            high = middle
    return overlay[low:] if low else overlay


def linked_entry(objects: maps.PageReader, links: bytes, ino: int) -> Entry:
    """Return an inode's entry in the link table. Raises ObjectMissing where there is none."""
    value = maps.find(objects, links, ino_key(ino)) if links else None
    if value is None:
        raise ObjectMissing(f"the link table has no inode {ino}")
    entry = decode_entry(value)
    if isinstance(entry, int):
        raise CorruptObject(f"the link table's inode {ino} refers to another")
    return entry
