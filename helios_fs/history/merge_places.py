"""Under which names everything ends up in a three-way merge, and what conflicts there.

Knows identities and names (`merge_sides`), nothing of content but whether it changed.

P1. A name that one side took away or gave is gone or there. What that leaves in a state that no tree can have is a
    conflict, as is what both sides did to one name.
P2. A conflict is decided by forcing an identity to the names that it has on one side. Each is forced at most once to
    either side, to ours last; were all forced to ours, the names would be those of our tree. So deciding ends, and
    ends in a tree.
"""

import itertools
from typing import Final, Literal, NamedTuple

from helios_fs.history.delta import Key
from helios_fs.history.merge_sides import Side, Sides
from helios_fs.history.merge_text import Favour
from helios_fs.objects.entry import Entry, directory_key
from helios_fs.objects.ids import ROOT_INO
from helios_fs.store import maps
from helios_fs.worktree.inode import MAX_NAME_BYTES

Kind = Literal[
    "content",
    "binary",
    "attributes",
    "type",
    "both added",
    "delete/edit",
    "edit/delete",
    "delete/rename",
    "rename/delete",
    "rename/rename",
    "directory/file",
    "links",
]
"""What conflicts; of two words, what we did comes first."""


class Conflict(NamedTuple):
    """One path about which the sides disagree."""

    path: bytes
    kind: Kind


_NONE: Final[frozenset[Key]] = frozenset()
_LABEL_BYTES: Final = 100


def changed(former: Entry | None, entry: Entry) -> bool:
    """Tell whether a side changed an entry in what counts against a deletion; times alone do not."""
    if former is None:
        return True
    if (former.mode, former.uid, former.gid, former.xattrs) != (entry.mode, entry.uid, entry.gid, entry.xattrs):
        return True
    return not entry.is_directory and (former.content, former.size, former.rdev) != (
        entry.content,
        entry.size,
        entry.rdev,
    )


class Places:
    """The merged names of all identities that either side touched."""

    def __init__(self, sides: Sides, objects: maps.PageReader, favour: Favour, label: str) -> None:
        """`label` names what lies beside ours where both are kept."""
        self._sides = sides
        self._objects = objects
        self._label = label.replace("/", "-").encode()[:_LABEL_BYTES]
        self._ours, self._theirs = sides.ours, sides.theirs
        self._favour = favour
        self.conflicts: dict[tuple[int, Kind], set[Key]] = {}
        """Who is in conflict how, and under which name to say so."""
        self.at: dict[int, set[Key]] = {}
        self.by_key: dict[Key, set[int]] = {}
        self._forced: dict[int, Side] = {}
        self._below: dict[int, list[Key]] = {}
        for key in sides.names:
            self._below.setdefault(key[0], []).append(key)

    def run(self) -> None:
        """Find all merged names and conflicts."""
        for identity in sorted(self._sides.identities):
            forced = self._forced.get(identity)
            names = self._merged(identity) if forced is None else set(forced.names_of.get(identity, _NONE))
            self.at[identity] = names
            for key in names:
                self.by_key.setdefault(key, set()).add(identity)
        while self._mend_names() or self._mend_parents() or self._mend_loops():
            pass

    # -- Looking -----------------------------------------------------------------------------------------------------

    def meant(self, key: Key) -> int | None:
        """Return what a name means in the result; there is one answer once `run` is through."""
        return next(iter(self.by_key.get(key, ())), None)

    def hidden(self, identity: int) -> int:
        """Return how many names an inode has that no side changed, and that were not looked at."""
        for side in (self._ours, self._theirs):
            entry = side.entry(identity)
            if entry is not None:
                return 0 if entry.is_directory else entry.nlink - len(side.names_of.get(identity, _NONE))
        return 0

    def is_present(self, identity: int) -> bool:
        """Tell whether the result has it."""
        if identity == ROOT_INO or identity not in self.at or self.at[identity]:
            return True
        both = self._ours.entry(identity) is not None and self._theirs.entry(identity) is not None
        return both and self.hidden(identity) > 0

    def is_directory(self, identity: int) -> bool:
        """Tell whether it is a directory: the same on both sides (I2)."""
        entry = self._ours.entry(identity) or self._theirs.entry(identity) or self._sides.base.entries.get(identity)
        return entry is not None and entry.is_directory

    # -- One identity ------------------------------------------------------------------------------------------------

    def _merged(self, identity: int) -> set[Key]:
        base = self._sides.base.names_of.get(identity, _NONE)
        ours = self._ours.names_of.get(identity, _NONE)
        theirs = self._theirs.names_of.get(identity, _NONE)
        mine, other = self._ours.entry(identity), self._theirs.entry(identity)
        former = self._sides.base.entries.get(identity)
        if former is not None and (mine is None) != (other is None):
            return self._against_deletion(identity, former)
        if ours == base:
            return set(theirs)
        if theirs in (base, ours):
            return set(ours)
        names = {key for key in ours | theirs if (key in ours and key in theirs) or key not in base}
        is_linked = any(one is not None and one.nlink > 1 and not one.is_directory for one in (former, mine, other))
        if mine is None or other is None or (is_linked and (names or self.hidden(identity))):
            return names
        self._conflict(identity, "links" if is_linked else "rename/rename", ours)
        return set(theirs if self._favour == "theirs" else ours)

    def _against_deletion(self, identity: int, former: Entry) -> set[Key]:
        """One side deleted it: what did the other do?"""
        ours_deleted = self._ours.entry(identity) is None
        keeper = self._theirs if ours_deleted else self._ours
        entry = keeper.entry(identity)
        assert entry is not None
        names = keeper.names_of.get(identity, _NONE)
        moved = names != self._sides.base.names_of.get(identity, _NONE)
        if not moved and not changed(former, entry):
            return set()
        if moved:
            self._conflict(identity, "delete/rename" if ours_deleted else "rename/delete", names)
        else:
            self._conflict(identity, "delete/edit" if ours_deleted else "edit/delete", names)
        side = keeper if self._favour == "markers" else self._favoured()
        self._forced[identity] = side
        if side is keeper and entry.is_directory:
            self._keep_below(identity, keeper)
        return set(side.names_of.get(identity, _NONE))

    def _keep_below(self, directory: int, keeper: Side) -> None:
        """Keep what a kept directory holds, which nobody else has reason to."""
        pending = [directory]
        while pending:
            here = pending.pop()
            for key in self._below.get(here, ()):
                child = keeper.name(key)
                if child is not None and child not in self._forced:
                    self._forced[child] = keeper
                    if child in self.at:
                        self._place(child, set(keeper.names_of.get(child, _NONE)))
                    pending.append(child)

    def _favoured(self) -> Side:
        return self._theirs if self._favour == "theirs" else self._ours

    def _conflict(self, identity: int, kind: Kind, keys: set[Key] | frozenset[Key]) -> None:
        self.conflicts.setdefault((identity, kind), set()).update(keys)

    def _place(self, identity: int, names: set[Key]) -> None:
        for key in self.at.get(identity, set()) - names:
            self.by_key[key].discard(identity)
        for key in names:
            self.by_key.setdefault(key, set()).add(identity)
        self.at[identity] = names

    def _force(self, identity: int, side: Side) -> bool:
        """Give an identity the names that a side has; False where that was done before."""
        if self._forced.get(identity) in (side, self._ours):
            return False
        self._forced[identity] = side
        self._place(identity, set(side.names_of.get(identity, _NONE)))
        return True

    # -- What no tree can have ---------------------------------------------------------------------------------------

    def _mend_names(self) -> bool:
        """One name for two inodes."""
        mended = False
        for key, identities in list(self.by_key.items()):
            if len(identities) < 2:
                continue
            mended = True
            fresh = [one for one in identities if one not in self._forced]
            kind: Kind = "directory/file" if len({self.is_directory(one) for one in identities}) > 1 else "both added"
            if fresh:
                self._conflict(min(identities), kind, {key})
            if self._favour == "markers":
                mine = self._ours.name(key)
                keep = mine if mine in identities else min(identities)
                for loser in identities - {keep}:
                    self._place(loser, (self.at[loser] - {key}) | {self.beside(key)})
                continue
            done = [self._force(one, self._favoured()) for one in fresh]
            if not any(done):
                done = [self._force(one, self._ours) for one in list(identities)]
            assert any(done), "our tree has one inode under each name"
        return mended

    def beside(self, key: Key) -> Key:
        """Return a free name beside this one, for what theirs holds under it."""
        parent, name = key
        for number in itertools.count(1):
            tail = b"~" + self._label + (b"" if number == 1 else b"~%d" % number)
            new = (parent, name[: MAX_NAME_BYTES - len(tail)] + tail)
            if not self.by_key.get(new) and not self._is_taken(new):
                return new
        raise AssertionError("numbers do not end")

    def _is_taken(self, key: Key) -> bool:
        for side in (self._ours, self._theirs):
            entry = side.entry(key[0])
            content = entry.content if entry is not None and entry.is_directory else b""
            if content and maps.find(self._objects, content, directory_key(key[1])) is not None:
                return True
        return False

    def _mend_parents(self) -> bool:
        """A name in a directory that is gone."""
        mended = False
        for key, identities in list(self.by_key.items()):
            parent = key[0]
            for one in list(identities):
                if self.is_present(parent):
                    break
                mended = True
                ours_has = self._ours.entry(parent) is not None
                keeper = self._ours if ours_has else self._theirs
                if one not in self._forced and parent not in self._forced:
                    self._conflict(one, "edit/delete" if ours_has else "delete/edit", {key})
                side = keeper if self._favour == "markers" else self._favoured()
                forced = self._force(parent, side) if side is keeper else self._force(one, side)
                if not forced:
                    forced = self._force(one, self._ours) or self._force(parent, self._ours)
                if not forced:
                    self._place(one, self.at[one] - {key})
        return mended

    def _mend_loops(self) -> bool:
        """A directory that lies in itself."""
        # Ours has no loop, so there is a directory in it that lies elsewhere now.
        for start in [one for one, names in self.at.items() if names and names != self._ours.names_of.get(one)]:
            if start not in self._sides.base.entries or not self.is_directory(start):
                continue
            way: dict[int, None] = {start: None}
            above = self.parent_of(start)
            while above is not None and above not in way:
                way[above] = None
                above = self.parent_of(above)
            if above is None:
                continue
            loop = list(way)[list(way).index(above) :]
            fresh = [one for one in loop if one not in self._forced]
            if fresh:
                self._conflict(min(loop), "rename/rename", self._ours.names_of.get(min(loop), _NONE))
            done = [self._force(one, self._favoured()) for one in loop]
            if not any(done):
                done = [self._force(one, self._ours) for one in loop]
            assert any(done), "our tree has no loops"
            return True
        return False

    def parent_of(self, identity: int) -> int | None:
        """Return the directory that holds one of its merged names."""
        key = next(iter(self.at.get(identity, ())), None)
        return None if key is None or identity == ROOT_INO else key[0]
