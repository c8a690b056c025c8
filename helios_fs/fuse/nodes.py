"""Node ids: how the kernel's 64-bit numbers name inodes of the working tree, of snapshots, and the control directories.

D1. A nodeid is view << 48 | inode number; view 0 is the tree of the branch that is mounted, so its nodeids are its
    inode numbers. A branch below `.branches` has a view number while it is open, after a remount the same as before:
    git and make take a file whose number has changed for another file.
D2. A view number is taken at the first lookup below a snapshot's directory, given back after the last forget, and used
    again with another generation. At most one view of a branch is open that nobody holds anything of.
D3. The control directories of a branch, its snapshots' own directories, their other names and the roots of branches
    made from it have a view number to themselves: listing any number of snapshots or branches takes no view.
D4. Bit 63 of a file handle marks a descriptor through which a shared mapping may be written, bit 62 one whose writes
    pass the kernel's pages by; no nodeid has them.
"""

import zlib
from collections.abc import Callable
from typing import Any, Final

from helios_fs.errors import Busy, NoSuchEntry
from helios_fs.objects.ids import MAX_INO
from helios_fs.worktree.inode import Inode
from helios_fs.worktree.view import View

VIEW_SHIFT: Final = 48
CONTROL_VIEW: Final = 0x3FFF
WRITABLE_HANDLE: Final = 1 << 63
DIRECT_HANDLE: Final = 1 << 62
NODEID_MASK: Final = DIRECT_HANDLE - 1

_SNAPSHOTS: Final = 1
_LATEST: Final = 2
_BRANCHES: Final = 3
SNAPSHOTS_NODEID: Final = (CONTROL_VIEW << VIEW_SHIFT) | _SNAPSHOTS
LATEST_NODEID: Final = (CONTROL_VIEW << VIEW_SHIFT) | _LATEST
_SNAPSHOT_RANGE: Final = 1 << 40
_ALIAS_RANGE: Final = 2 << 40
BRANCH_RANGE: Final = 4 << 40
GONE_RANGE: Final = 8 << 40
"""Of what only the process that tells watchers is shown, to take it away again (pretence.py)."""
_ORDINAL_MASK: Final = (1 << 40) - 1


class Numbers:
    """The view numbers of one mount, and whose they are."""

    def __init__(self) -> None:
        self.owners: dict[int, Any] = {}
        """View number -> who answers requests for its nodeids; `Any`, for this module knows no requests."""
        self._last = 0
        self._generation = 0

    def take(self, owner: object, named: str = "") -> int:
        """Return a number that nobody has; for one name always the same, while that is free. Raises Busy."""
        last = zlib.crc32(named.encode()) if named else self._last
        for step in range(1, CONTROL_VIEW):
            number = (last + step - 1) % (CONTROL_VIEW - 1) + 1
            if number not in self.owners:
                if not named:
                    self._last = number
                self.owners[number] = owner
                return number
        raise Busy("too many snapshots and branches are being looked at")

    def free(self, number: int) -> None:
        """Give a number back."""
        self.owners.pop(number, None)

    def next_generation(self) -> int:
        """Return a number that tells one use of a view number from the next."""
        self._generation += 1
        return self._generation


class ShownView:
    """A view with the number under which the kernel knows it."""

    __slots__ = ("generation", "number", "snapshot_id", "view")

    def __init__(self, number: int, generation: int, snapshot_id: str, view: View) -> None:
        self.number = number
        self.generation = generation
        self.snapshot_id = snapshot_id
        self.view = view

    def nodeid(self, node: Inode) -> int:
        """Return the nodeid of an inode of this view."""
        return (self.number << VIEW_SHIFT) | node.ino


class Nodes:
    """Which snapshot, and which view, a nodeid belongs to."""

    def __init__(
        self, open_view: Callable[[str], View], numbers: Numbers | None = None, control: int = CONTROL_VIEW
    ) -> None:
        """`open_view(snapshot id)` returns a new view of a snapshot; `control` is the number of the control nodes."""
        self._open_view = open_view
        self._numbers = numbers if numbers is not None else Numbers()
        self._control = control
        self.owner: object = None
        """Who answers for the views that are opened here."""
        self.snapshots_nodeid = (control << VIEW_SHIFT) | _SNAPSHOTS
        self.latest_nodeid = (control << VIEW_SHIFT) | _LATEST
        self.branches_nodeid = (control << VIEW_SHIFT) | _BRANCHES
        self._branch_ordinals: dict[str, int] = {}
        self._branch_ids: list[str] = []
        self._ordinals: dict[str, int] = {}
        self._snapshot_ids: list[str] = []
        self._by_number: dict[int, ShownView] = {}
        self._by_snapshot: dict[str, ShownView] = {}
        self._newest: ShownView | None = None

    def snapshot_nodeid(self, snapshot_id: str) -> int:
        """Return the nodeid of a snapshot's directory."""
        return (self._control << VIEW_SHIFT) | _SNAPSHOT_RANGE | self._ordinal(snapshot_id)

    def alias_nodeid(self, snapshot_id: str) -> int:
        """Return the nodeid of the symlink that a named snapshot's id is."""
        return (self._control << VIEW_SHIFT) | _ALIAS_RANGE | self._ordinal(snapshot_id)

    def branch_nodeid(self, branch: str) -> int:
        """Return the nodeid of the root of a branch that was made from this one."""
        ordinal = self._branch_ordinals.get(branch)
        if ordinal is None:
            ordinal = self._branch_ordinals[branch] = len(self._branch_ids)
            self._branch_ids.append(branch)
        return (self._control << VIEW_SHIFT) | BRANCH_RANGE | ordinal

    def branch_of(self, nodeid: int) -> str | None:
        """Return the id of the branch whose root this is, or None."""
        if nodeid >> VIEW_SHIFT != self._control or not nodeid & BRANCH_RANGE:
            return None
        return self._branch_ids[nodeid & _ORDINAL_MASK]

    def _ordinal(self, snapshot_id: str) -> int:
        ordinal = self._ordinals.get(snapshot_id)
        if ordinal is None:
            ordinal = self._ordinals[snapshot_id] = len(self._snapshot_ids)
            self._snapshot_ids.append(snapshot_id)
        return ordinal

    def snapshot_of(self, nodeid: int) -> str | None:
        """Return the snapshot whose directory this is, or None."""
        if nodeid >> VIEW_SHIFT != self._control or not nodeid & _SNAPSHOT_RANGE:
            return None
        return self._snapshot_ids[nodeid & _ORDINAL_MASK]

    def alias_of(self, nodeid: int) -> str | None:
        """Return the snapshot whose id this symlink is, or None."""
        if nodeid >> VIEW_SHIFT != self._control or not nodeid & _ALIAS_RANGE:
            return None
        return self._snapshot_ids[nodeid & _ORDINAL_MASK]

    def show(self, snapshot_id: str) -> ShownView:
        """Return the view of a snapshot, opened where nobody looks at it yet. Raises Busy when all are taken."""
        shown = self._by_snapshot.get(snapshot_id)
        if shown is None:
            self.drop_idle()
            view = self._open_view(snapshot_id)
            shown = ShownView(self._numbers.take(self.owner), self._numbers.next_generation(), snapshot_id, view)
            number = shown.number
            self._by_number[number] = shown
            self._by_snapshot[snapshot_id] = self._newest = shown
        return shown

    def drop_idle(self) -> None:
        """Close the view that was opened last where nobody holds anything of it: most are asked one question only."""
        newest, self._newest = self._newest, None
        if newest is not None and not newest.view.in_use:
            self._close(newest)

    def _close(self, shown: ShownView) -> None:
        if self._by_number.get(shown.number) is shown:
            del self._by_number[shown.number]
            del self._by_snapshot[shown.snapshot_id]
            self._numbers.free(shown.number)

    def locate(self, nodeid: int) -> tuple[ShownView, Inode]:
        """Return view and inode of a nodeid in a snapshot. Raises NoSuchEntry where it is not one."""
        snapshot_id = self.snapshot_of(nodeid)
        if snapshot_id is not None:
            shown = self.show(snapshot_id)
            return shown, shown.view.current(shown.view.root)
        found = self._by_number.get(nodeid >> VIEW_SHIFT)
        node = found.view.nodes.get(nodeid & MAX_INO) if found is not None else None
        if found is None or node is None:
            raise NoSuchEntry(f"nothing is known of node {nodeid:#x}")
        return found, found.view.current(node)

    def release(self, nodeid: int, count: int) -> None:
        """Give back holds on an inode of a view; the view goes with the last of them."""
        shown = self._by_number.get(nodeid >> VIEW_SHIFT)
        node = shown.view.nodes.get(nodeid & MAX_INO) if shown is not None else None
        if shown is None or node is None:
            return
        shown.view.release(node, count)
        if not shown.view.in_use:
            self._close(shown)

    def shown(self) -> list[ShownView]:
        """Return the views that are open."""
        return list(self._by_number.values())
