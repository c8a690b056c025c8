"""Restore: make the live working tree what a snapshot holds, whole or at some paths, under the feet of its users.

`plan` compares two trees of the store, and may run in a thread; `apply` changes the working tree by ordinary journal
records. Knows nothing of the kernel: it returns what the kernel must be told.

R1. Cost follows what differs: equal pages are never opened, a directory that comes back whole is one record.
R2. A file that is the same inode in both keeps its number, so open descriptors show the restored bytes. One that was
    removed since gets its number back unless somebody still holds it open; then it gets a new one, and the descriptor
    keeps what it had.
    One that has another name now is renamed back, and stays the same inode whoever holds it.
R3. Removals come first, additions from the root down, attributes of directories last: restored times stay.
R4. All of it happens or nothing: one group of the journal (worktree/groups.py).
"""

import stat
from collections.abc import Callable, Iterator, Sequence
from typing import Final, NamedTuple

import msgspec

from helios_fs.errors import NoSuchEntry, ObjectMissing
from helios_fs.history.changed import Changed, Moved, Name, Path
from helios_fs.objects.entry import Entry, Tree, decode_entry, directory_key, encode_entry, ino_key
from helios_fs.store import maps
from helios_fs.store.objects import Objects
from helios_fs.worktree.groups import group
from helios_fs.worktree.index import linked_entry, overlay_names
from helios_fs.worktree.inode import Inode
from helios_fs.worktree.worktree import Worktree

_RECORD_BYTES: Final = 1024
"""More than it takes to remove a name, however long: a BIND of directory and file, and an UNLINK."""
_SLACK_BYTES: Final = 64 * 1024


class Step(NamedTuple):
    """One name that differs: what it means now, and what it meant."""

    path: Path
    now: Entry | None
    then: Entry | None


class Move(NamedTuple):
    """An inode that has another name in the state to bring back. Below a moved directory, paths are its new ones."""

    ino: int
    old: Path
    new: Path


class Plan(NamedTuple):
    """What a restore has to do."""

    steps: list[Step]
    relinked: list[Entry]
    """Files with several names whose content or attributes differ, as they were."""
    whole: dict[int, frozenset[int]]
    """Directories to bring back that can come as one record: their number -> the numbers of all that lies below."""
    then: Tree
    below: dict[int, int]
    """Directories that go or come back: their number -> how many names lie below."""
    moved: list[Move]
    """What is in both under different names, in an order in which each can be taken from where it is."""


class Restore:
    """Restores one working tree."""

    def __init__(self, worktree: Worktree, objects: Objects) -> None:
        """`objects` may wait for the disk."""
        self._worktree = worktree
        self._index = worktree.index
        self._objects = objects
        self._changed = Changed()
        self._brought_back: dict[int, Inode] = {}
        self._parked: dict[Path, tuple[Inode, bytes]] = {}
        """New path of what is on its way there -> itself, and its name in the root meanwhile."""
        self._left: dict[Path, tuple[int, Path]] = {}
        """The same -> number of the directory that it left, and the path that it had."""

    # -- Comparing ---------------------------------------------------------------------------------------------------

    def plan(self, now_id: bytes, then_id: bytes, paths: Sequence[bytes] = ()) -> Plan:
        """Return what differs between two trees, or between what they hold at `paths`, from the root down.

        Raises NoSuchEntry for a path that neither has.
        """
        now, then = self._objects.tree(now_id), self._objects.tree(then_id)
        wanted = {tuple(part for part in path.split(b"/") if part not in (b"", b".")) for path in paths} or {()}
        plan = Plan([], [], {}, then, {}, [])
        made: set[Path] = set()
        for path in sorted(wanted):
            if self._find(then, path) is None and self._find(now, path) is None:
                text = b"/".join(path).decode(errors="replace")
                raise NoSuchEntry(f"{text}: neither the snapshot nor the working tree has it")
            if not any(path[:depth] in wanted for depth in range(len(path))):
                plan.steps.extend(self._one_path(now, then, path, made))
        moved = self._find_moved(now, then, plan)
        for step in plan.steps:
            is_new = step.now is None or (step.then is not None and step.now.ino != step.then.ino)
            if is_new and step.then is not None and step.then.ino in moved:
                continue
            if is_new and step.then is not None and step.then.is_directory and step.then.content:
                self._see_whether_whole(step.then, plan)
            gone = step.now if is_new else None
            if (
                gone is not None
                and gone.is_directory
                and gone.content
                and gone.ino not in plan.below
                and gone.ino not in moved
            ):
                plan.below[gone.ino] = sum(1 for _ in self._below(gone.content))
        # A changed file with several names is found in the link tables: the directories that name it may be equal.
        differing = {
            key: after
            for key, before, after in maps.differences(self._objects, now.links, then.links)
            if before is not None and after is not None
        }
        if differing and () not in wanted:
            named = {ino_key(ino) for path in wanted for ino in self._linked_below(then, path)}
            differing = {key: after for key, after in differing.items() if key in named}
        plan.relinked.extend(entry for entry in map(decode_entry, differing.values()) if isinstance(entry, Entry))
        return plan

    def _find_moved(self, now: Tree, then: Tree, plan: Plan) -> set[int]:
        """Find what only changed its name, and what differs below such directories; return the numbers."""
        gone: dict[int, tuple[Path, Entry]] = {}
        back: dict[int, tuple[Path, Entry]] = {}
        moved: set[int] = set()
        seen = 0
        while seen < len(plan.steps):
            fresh, seen = plan.steps[seen:], len(plan.steps)
            for path, former, wanted in fresh:
                if former is not None and (wanted is None or former.ino != wanted.ino):
                    gone[former.ino] = path, former
                if wanted is not None and (former is None or former.ino != wanted.ino):
                    back[wanted.ino] = path, wanted
            for ino in sorted((gone.keys() & back.keys()) - moved):
                (old, former), (new, wanted) = gone[ino], back[ino]
                is_linked = not wanted.is_directory and former.nlink + wanted.nlink > 2
                if is_linked or stat.S_IFMT(former.mode) != stat.S_IFMT(wanted.mode):
                    continue
                moved.add(ino)
                plan.moved.append(Move(ino, old, new))
                if wanted.is_directory:
                    plan.steps.extend(self._directory(now, then, new, former.content, wanted.content))
        return moved

    def _see_whether_whole(self, directory: Entry, plan: Plan) -> None:
        below = list(self._below(directory.content))
        plan.below[directory.ino] = len(below)
        if not any(isinstance(entry, int) for entry in below):
            plan.whole[directory.ino] = frozenset(entry.ino for entry in below if isinstance(entry, Entry))

    def _below(self, content: bytes) -> Iterator[Entry | int]:
        pending = [content]
        while pending:
            for _, value in maps.scan(self._objects, pending.pop()):
                entry = decode_entry(value)
                yield entry
                if isinstance(entry, Entry) and entry.is_directory and entry.content:
                    pending.append(entry.content)

    def _linked_below(self, tree: Tree, path: Path) -> Iterator[int]:
        here = self._find(tree, path)
        if here is not None and here.is_directory and here.content:
            yield from (entry for entry in self._below(here.content) if isinstance(entry, int))

    def _one_path(self, now: Tree, then: Tree, path: Path, made: set[Path]) -> Iterator[Step]:
        """Yield what to do for one path; `made` are the missing directories that earlier paths bring back."""
        wanted, former = self._find(then, path), self._find(now, path)
        if wanted is None:
            yield Step(path, former, None)
            return
        b = then.root
        here: Entry | None = now.root
        for depth in range(1, len(path)):
            above = self._child(then, b, path[depth - 1])
            present = None if here is None else self._child(now, here, path[depth - 1])
            assert above is not None
            b, here = above, present
            if here is None or not here.is_directory:
                # A directory on the way is missing: it comes back with nothing but what was asked for in it.
                if path[:depth] not in made:
                    made.add(path[:depth])
                    yield Step(path[:depth], here, msgspec.structs.replace(b, content=b"", size=0, nlink=2))
                here = None
        yield from self._what_differs(now, then, path, former, wanted)

    def _what_differs(self, now: Tree, then: Tree, path: Path, former: Entry | None, wanted: Entry) -> Iterator[Step]:
        if former is None or former.ino != wanted.ino or former.is_directory != wanted.is_directory:
            yield Step(path, former, wanted)
            return
        if former != wanted:
            yield Step(path, former, wanted)
        if wanted.is_directory:
            yield from self._directory(now, then, path, former.content, wanted.content)

    def _find(self, tree: Tree, path: Path) -> Entry | None:
        here: Entry | None = tree.root
        for name in path:
            here = self._child(tree, here, name) if here is not None else None
        return here

    def _child(self, tree: Tree, directory: Entry, name: bytes) -> Entry | None:
        if not directory.is_directory or not directory.content:
            return None
        value = maps.find(self._objects, directory.content, directory_key(name))
        return None if value is None else self._entry(tree, value)

    def _entry(self, tree: Tree, value: bytes) -> Entry:
        entry = decode_entry(value)
        return linked_entry(self._objects, tree.links, entry) if isinstance(entry, int) else entry

    def _directory(self, now: Tree, then: Tree, path: Path, a: bytes, b: bytes) -> Iterator[Step]:
        """Yield what differs below two directories; what lies above comes before what lies below it."""
        pending = [(path, a, b)]
        while pending:
            path, a, b = pending.pop()
            for key, before, after in maps.differences(self._objects, a, b):
                former = None if before is None else self._entry(now, before)
                wanted = None if after is None else self._entry(then, after)
                here = (*path, key[8:])
                yield Step(here, former, wanted)
                if former is not None and wanted is not None and former.ino == wanted.ino and wanted.is_directory:
                    pending.append((here, former.content, wanted.content))

    # -- Changing ----------------------------------------------------------------------------------------------------

    def apply(self, plan: Plan, last: Callable[[], object] | None = None) -> Changed:
        """Carry out a plan. On return all of it is journaled and visible; returns what the kernel must hear.

        `last` is called when all else is done, and happens with it: it may take a snapshot. Raises StoreFull, and
        ReadOnly where the branch takes no changes, with nothing done; what is raised later makes the branch read-only,
        and the next mount shows it as it was before.
        """
        self._plan = plan
        if not plan.steps and not plan.relinked and last is None:
            return self._changed
        former, self._index.objects = self._index.objects, self._objects
        try:
            with group(self._worktree, self._bound_bytes(plan)):
                self._carry_out(plan)
                if last is not None:
                    last()
        finally:
            self._index.objects = former
        return self._changed

    def _bound_bytes(self, plan: Plan) -> int:
        """Return how much journal a plan takes at most."""
        total = _SLACK_BYTES + 2 * _RECORD_BYTES * len(plan.moved)
        total += sum(_RECORD_BYTES + len(encode_entry(entry)) for entry in plan.relinked)
        for path, now, then in plan.steps:
            total += _RECORD_BYTES + sum(map(len, path)) + 64 * len(path)
            if then is not None:
                total += 2 * len(encode_entry(then))
            if now is not None and (then is None or then.ino != now.ino):
                total += _RECORD_BYTES * plan.below.get(now.ino, 0)
            if then is not None and (now is None or then.ino != now.ino) and then.is_directory:
                whole = plan.whole.get(then.ino)
                if whole is None or not whole.isdisjoint(self._worktree.inodes):
                    total += 2 * _RECORD_BYTES * plan.below.get(then.ino, 0)
        return total

    def _carry_out(self, plan: Plan) -> None:
        steps = plan.steps
        self._compare(steps)
        for move in plan.moved:
            self._park(move)
        for step in steps:
            if step.now is not None and (step.then is None or step.then.ino != step.now.ino):
                self._remove_path(step.path)
        # Files that stay come before names that come back: a name that comes back may be another one of theirs.
        for step in steps:
            if step.then is not None and step.now is not None and step.now.ino == step.then.ino:
                self._assume(step.path, step.then)
        for step in steps:
            if step.then is not None and (step.now is None or step.now.ino != step.then.ino):
                self._bring_back(step.path, step.then)
        for entry in plan.relinked:
            inode = self._live_link(entry.ino)
            if inode is not None and entry.ino not in self._brought_back:
                self._worktree.assume(inode, entry)
                self._changed.inodes.append(inode.ino)
        for step in reversed(steps):
            if step.then is not None and step.then.is_directory:
                self._assume(step.path, step.then)

    def _compare(self, steps: list[Step]) -> None:
        before = {step.now.ino: step.now for step in steps if step.now is not None}
        for path, _, then in steps:
            if then is not None and (now := before.get(then.ino)) is not None:
                self._changed.compare(path, now, then)

    def _park(self, move: Move) -> None:
        """Take an inode that changes its name out of the way, to the root, until its place is free."""
        parent, root = self._walk(move.old[:-1]), self._index.root
        inode = self._index.find(parent, move.old[-1]) if parent is not None and parent.is_directory else None
        if parent is None or inode is None or inode.ino != move.ino:
            return
        name = b".moving-%d" % move.ino
        while self._index.find(root, name) is not None:
            name += b"-"
        self._worktree.rename(parent, move.old[-1], root, name, exchange=False, replace=False)
        self._changed.names.append((parent.ino, move.old[-1], 0))
        self._parked[move.new] = inode, name
        self._left[move.new] = parent.ino, move.old

    def _unpark(self, path: Path, entry: Entry, parent: Inode | None) -> None:
        inode, name = self._parked.pop(path)
        if parent is None or not parent.is_directory:
            self._remove(self._index.root, name, inode)
            return
        self._worktree.rename(self._index.root, name, parent, path[-1], exchange=False, replace=False)
        self._changed.names.append((parent.ino, path[-1], 0))
        former, old = self._left.pop(path)
        self._changed.moved.append(Moved(former, old, Name(parent.ino, path, entry.mode)))
        self._assume(path, entry)

    def _walk(self, path: Path) -> Inode | None:
        here: Inode | None = self._index.root
        if self._parked:
            for depth in range(len(path), 0, -1):
                if path[:depth] in self._parked:
                    here, path = self._parked[path[:depth]][0], path[depth:]
                    break
        for name in path:
            if here is None or not here.is_directory:
                return None
            here = self._index.find(here, name)
        return here

    def _remove_path(self, path: Path) -> None:
        parent = self._walk(path[:-1])
        if parent is None or not parent.is_directory:
            return
        inode = self._index.find(parent, path[-1])
        if inode is not None:
            self._changed.gone.append(Name(parent.ino, path, inode.mode))
            self._remove(parent, path[-1], inode)

    def _remove(self, parent: Inode, name: bytes, inode: Inode) -> None:
        found = [(parent, name, inode)]
        for _, _, here in found:
            if here.is_directory:
                for _, child_name in list(self._index.listing(here, 0, overlay_names(here))):
                    child = self._index.find(here, child_name)
                    if child is not None:
                        found.append((here, child_name, child))
        for above, called, here in reversed(found):
            if here.is_directory:
                self._worktree.rmdir(above, called)
            else:
                self._worktree.unlink(above, called)
            if here.nlink:
                # The kernel would take "lost" for the end of the file, whatever other names it has.
                self._changed.inodes.append(here.ino)
            self._changed.names.append((above.ino, called, 0 if here.nlink else here.ino))

    def _bring_back(self, path: Path, entry: Entry) -> None:
        parent = self._walk(path[:-1])
        if parent is not None and parent.is_directory:
            occupant = self._index.find(parent, path[-1])
            if occupant is not None:
                self._changed.gone.append(Name(parent.ino, path, occupant.mode))
                self._remove(parent, path[-1], occupant)
        if path in self._parked:
            self._unpark(path, entry, parent)
            return
        if parent is None or not parent.is_directory:
            return
        name = path[-1]
        self._place(parent, name, entry)
        self._changed.names.append((parent.ino, name, 0))
        self._changed.made.append(Name(parent.ino, path, entry.mode))

    def _place(self, parent: Inode, name: bytes, entry: Entry) -> None:
        """Put a stored entry, with all that lies below it, under a free name."""
        pending = [(parent, name, entry)]
        bare: list[tuple[Inode, Entry]] = []
        while pending:
            above, called, wanted = pending.pop()
            directory = self._place_one(above, called, wanted)
            if directory is not None:
                bare.append((directory, wanted))
                below = maps.scan(self._objects, wanted.content)
                pending.extend((directory, key[8:], self._entry(self._plan.then, value)) for key, value in below)
        for directory, wanted in bare:
            self._worktree.assume(directory, msgspec.structs.replace(wanted, ino=directory.ino))

    def _place_one(self, parent: Inode, name: bytes, entry: Entry) -> Inode | None:
        """Put it there as another name of an inode that is there, or as it was.

        Returns a directory that could not come back whole and is empty now.
        """
        if entry.nlink > 1 and not entry.is_directory:
            other = self._brought_back.get(entry.ino) or self._live_link(entry.ino)
            if other is not None:
                self._worktree.link(other, parent, name)
                self._changed.inodes.append(other.ino)
                return None
        number = entry.ino if entry.ino not in self._worktree.inodes else self._worktree.take_ino()
        if not entry.is_directory:
            inode = self._worktree.graft(parent, name, msgspec.structs.replace(entry, ino=number, nlink=1))
            self._brought_back[entry.ino] = inode
            return None
        below = self._plan.whole.get(entry.ino)
        if not entry.content or (below is not None and below.isdisjoint(self._worktree.inodes)):
            self._worktree.graft(parent, name, msgspec.structs.replace(entry, ino=number))
            return None
        return self._worktree.graft(
            parent, name, msgspec.structs.replace(entry, ino=number, content=b"", size=0, nlink=2)
        )

    def _live_link(self, ino: int) -> Inode | None:
        inode = self._index.inodes.get(ino)
        if inode is None:
            try:
                inode = self._index.linked(ino)
            except ObjectMissing:
                return None
        return inode if inode.nlink else None

    def _assume(self, path: Path, entry: Entry) -> None:
        inode = self._walk(path)
        if inode is None or inode.ino != entry.ino:
            return
        self._worktree.assume(inode, entry)
        self._changed.inodes.append(inode.ino)
