"""Who is who in a three-way merge: both sides' inodes under one set of identities.

An identity is an inode number of the base, or of the side that made it. Knows what differs (`delta`), nothing of
conflicts.

I1. A new inode under the name of one that is gone is that one, written anew (editors and git replace files); so is a
    new file under the name of one that was moved aside, and the one moved aside is a file of its own then.
I2. Directories are never identified with what is not one, nor moved aside as in I1.
I3. What both sides made under one name in one directory is one identity: ours.
"""

from typing import Final

from helios_fs.history.delta import Delta, Key
from helios_fs.objects.entry import Entry

_NOBODY: Final[dict[bytes, int]] = {}


class Side:
    """One side of the merge, in terms of identities."""

    def __init__(self, delta: Delta, base: "Base") -> None:
        self.delta = delta
        self.base = base
        self.identity_of: dict[int, int] = {}
        """Of the inodes whose identity is not their own number."""
        self.names: dict[Key, int] = {}
        self.values: dict[Key, bytes] = {}
        self.entries: dict[int, Entry] = {}
        self.number: dict[int, int] = {}
        """The side's inode of an identity that the side has."""
        self.names_of: dict[int, set[Key]] = {}

    def identity(self, ino: int) -> int:
        """Return who an inode of this side is."""
        return self.identity_of.get(ino, ino)

    def is_new(self, ino: int) -> bool:
        """Tell whether this side made an inode, which it has."""
        return ino in self.delta.after.entries and ino not in self.base.entries

    def settle(self) -> None:
        """Write down what the side has, now that all identities are known."""
        for ino, entry in self.delta.after.entries.items():
            self.entries[self.identity(ino)] = entry
            self.number[self.identity(ino)] = ino
        for (parent, name), ino in self.delta.after.names.items():
            key = (self.identity(parent), name)
            self.names[key] = self.identity(ino)
            self.values[key] = self.delta.after.values[parent, name]

    def entry(self, identity: int) -> Entry | None:
        """Return what the side holds of an identity, or None."""
        found = self.entries.get(identity)
        if found is not None or identity in self.delta.before.entries:
            return found
        return self.base.entries.get(identity)

    def name(self, key: Key) -> int | None:
        """Return what a name means on this side, or None."""
        found = self.names.get(key)
        if found is not None or key in self.delta.before.names:
            return found
        return self.base.names.get(key)

    def is_linked(self, identity: int) -> bool:
        """Tell whether the side's link table has it."""
        number = self.number.get(identity, identity)
        if identity in self.entries or identity in self.delta.before.entries:
            return number in self.delta.after.linked and identity in self.entries
        return identity in self.base.linked


class Base:
    """The base as far as either side differs from it."""

    def __init__(self, ours: Delta, theirs: Delta) -> None:
        self.names = {**ours.before.names, **theirs.before.names}
        self.values = {**ours.before.values, **theirs.before.values}
        self.entries = {**ours.before.entries, **theirs.before.entries}
        self.linked = ours.before.linked | theirs.before.linked
        self.names_of: dict[int, set[Key]] = {}

    def name(self, key: Key) -> int | None:
        """Return what a name means in the base, or None."""
        return self.names.get(key)


class Sides:
    """Base, ours and theirs under one set of identities."""

    def __init__(self, ours: Delta, theirs: Delta) -> None:
        self.base = Base(ours, theirs)
        self.ours, self.theirs = Side(ours, self.base), Side(theirs, self.base)
        self._aside = 0
        below = _by_directory(self.base.names)
        for side in (self.ours, self.theirs):
            self._find_replaced(side, below)
        self._find_added_twice()
        self.ours.settle()
        self.theirs.settle()
        self.names = self.base.names.keys() | self.ours.names.keys() | self.theirs.names.keys()
        self.identities = self.base.entries.keys() | self.ours.entries.keys() | self.theirs.entries.keys()
        for key in self.names:
            for find, names_of in (
                (self.base.name, self.base.names_of),
                (self.ours.name, self.ours.names_of),
                (self.theirs.name, self.theirs.names_of),
            ):
                meant = find(key)
                if meant is not None:
                    names_of.setdefault(meant, set()).add(key)

    def _find_replaced(self, side: Side, below: dict[int, dict[bytes, int]]) -> None:
        """Find the new inodes that are old ones written anew (I1), from the root down."""
        after = side.delta.after
        mine = _by_directory(after.names)
        taken: set[int] = set()
        pending = [(ino, ino) for ino in mine if not side.is_new(ino)]
        while pending:
            ino, identity = pending.pop()
            former = below.get(identity, _NOBODY)
            for name, new in mine.get(ino, _NOBODY).items():
                old = former.get(name)
                if old is None or old == new or old in taken or not side.is_new(new):
                    continue
                entry = self.base.entries[old]
                if entry.is_directory != after.entries[new].is_directory:
                    continue
                still = after.entries.get(old)
                if still is not None:
                    if entry.is_directory or entry.nlink > 1 or still.nlink > 1:
                        continue
                    self._aside -= 1
                    side.identity_of[old] = self._aside
                taken.add(old)
                side.identity_of[new] = old
                if entry.is_directory:
                    pending.append((new, old))

    def _find_added_twice(self) -> None:
        """Find what both sides made under one name (I3), from the root down."""
        ours, theirs = self.ours, self.theirs
        mine, other = _by_directory(ours.delta.after.names), _by_directory(theirs.delta.after.names)
        known = {ours.identity(ino): ino for ino in mine}
        pending = [(known[theirs.identity(ino)], ino) for ino in other if theirs.identity(ino) in known]
        while pending:
            one, two = pending.pop()
            for name, new in other.get(two, _NOBODY).items():
                here = mine.get(one, _NOBODY).get(name)
                if here is None or here == new or not _both_unclaimed(ours, here, theirs, new):
                    continue
                a, b = ours.delta.after.entries[here], theirs.delta.after.entries[new]
                if a.is_directory != b.is_directory or (not a.is_directory and a.nlink + b.nlink > 2):
                    continue
                theirs.identity_of[new] = here
                if a.is_directory:
                    pending.append((here, new))


def _both_unclaimed(ours: Side, here: int, theirs: Side, new: int) -> bool:
    return (
        ours.is_new(here)
        and theirs.is_new(new)
        and here not in ours.identity_of
        and new not in theirs.identity_of
        and here not in theirs.delta.after.entries
    )


def _by_directory(names: dict[Key, int]) -> dict[int, dict[bytes, int]]:
    found: dict[int, dict[bytes, int]] = {}
    for (parent, name), ino in names.items():
        found.setdefault(parent, {})[name] = ino
    return found
