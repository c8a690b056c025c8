"""Steps on a branch and on a plain model of it, to be compared after each.

The model is a tree of plain objects, and a snapshot of it a copy of everything that it shows. A seal may be half taken
in at any moment, files may stay open after their last name is gone, the kernel may forget or keep what it likes.
"""

import copy
import os
import stat
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from helios_fs.errors import (
    DirectoryNotEmpty,
    EntryExists,
    HeliosError,
    InvalidArgument,
    IsADirectory,
    NotADirectory,
    NotPermitted,
)
from helios_fs.history.restore import Restore
from helios_fs.objects import record
from helios_fs.worktree.inode import Inode
from tests.model.harness import Branch, Dump, Row

Choose = Callable[[Sequence[Any]], Any]
"""Picks one of several."""

NAMES = ["a", "b", "c"]
KINDS = [stat.S_IFREG, stat.S_IFREG, stat.S_IFREG, stat.S_IFDIR, stat.S_IFDIR, stat.S_IFLNK, stat.S_IFIFO]
# Around the sizes at which a region, a blob and a block of checksums end.
OFFSETS = [0, 1, 5, 9, 30, 4095, 32767, 131071, 131072, 131073, 200_000, 300_000]
LENGTHS = [1, 2, 7, 40, 4096, 32769, 131073]
BYTES = [1, 7, 77, 255]
MODES = [0o600, 0o755, 0o4711]
VALUES = [b"", b"x", b"yy"]


class Thing:
    """One inode of the model."""

    def __init__(self, kind: int, mode: int) -> None:
        self.kind = kind
        self.mode = mode
        self.data = bytearray()
        self.target = b""
        self.xattrs: dict[bytes, bytes] = {}
        self.names: dict[str, Thing] = {}
        self.nlink = 2 if kind == stat.S_IFDIR else 1
        self.inode: int = 0


class Steps:
    """A branch and its model; each method is one step on both."""

    def __init__(self, folder: str, choose: Choose, parent: "Steps | None" = None, name: str = "main") -> None:
        """Make an empty branch in `folder` and an empty model, or open the branch `name`, just made from `parent`.

        `choose` decides everything.
        """
        self.choose = choose
        self.branch = Branch(os.path.join(folder, "store"), name)
        self.root = Thing(stat.S_IFDIR, 0o755)
        self.snapshots: dict[str, Dump] = {}
        self.models: dict[str, Thing] = {}
        self.said: dict[str, tuple[bytes, str, bool]] = {}
        if parent is not None:
            self.root = copy.deepcopy(parent.root)
            self.snapshots = dict(parent.snapshots)
            self.models = dict(parent.models)
            self.said = dict(parent.said)
        self.open: list[tuple[Inode, Thing]] = []
        self.lookups: list[Inode] = []

    def close(self) -> None:
        """Let go of the branch."""
        self.branch.close()

    # -- Finding a place ---------------------------------------------------------------------------------------------

    def places(self, kind: int | None = None) -> list[tuple[str, Thing]]:
        """Return every (path, thing) of the model, of one kind or all."""
        found: list[tuple[str, Thing]] = []

        def visit(thing: Thing, path: str) -> None:
            found.append((path, thing))
            for name, child in sorted(thing.names.items()):
                visit(child, f"{path}/{name}")

        visit(self.root, "")
        return [(p, t) for p, t in found if kind is None or t.kind == kind]

    def pick(self, kind: int | None = None) -> tuple[str, Thing]:
        """Draw one of them."""
        return self.choose(self.places(kind))

    # -- Changes -----------------------------------------------------------------------------------------------------

    def create(self) -> None:
        """Make something new, or hear that the name is taken."""
        name = self.choose(NAMES)
        kind = self.choose(KINDS)
        path, directory = self.pick(stat.S_IFDIR)
        target = b"target" if kind == stat.S_IFLNK else b""
        try:
            inode = self.branch.worktree.create(self.branch.walk(path), name.encode(), kind | 0o640, 7, 8, 0, target)
        except EntryExists:
            assert name in directory.names
            return
        assert name not in directory.names
        thing = Thing(kind, 0o640)
        thing.target = target
        thing.inode = inode.ino
        directory.names[name] = thing
        directory.nlink += kind == stat.S_IFDIR

    def write(self) -> None:
        """Write into a file that has a name."""
        offset = self.choose(OFFSETS)
        length = self.choose(LENGTHS)
        byte = self.choose(BYTES)
        places = self.places(stat.S_IFREG)
        if places:
            path, thing = self.choose(places)
            self._write(self.branch.walk(path), thing, offset, bytes([byte]) * length)

    def _write(self, inode: Inode, thing: Thing, offset: int, payload: bytes) -> None:
        assert self.branch.worktree.write(inode, offset, payload) == len(payload)
        thing.data.extend(bytes(max(0, offset + len(payload) - len(thing.data))))
        thing.data[offset : offset + len(payload)] = payload

    def truncate(self) -> None:
        """Cut a file or let it grow."""
        size = self.choose(OFFSETS)
        places = self.places(stat.S_IFREG)
        if places:
            path, thing = self.choose(places)
            self.branch.worktree.setattr(self.branch.walk(path), record.SET_SIZE, size=size)
            del thing.data[size:]
            thing.data.extend(bytes(size - len(thing.data)))

    def chmod(self) -> None:
        """Change permission bits."""
        mode = self.choose(MODES)
        path, thing = self.pick()
        self.branch.worktree.setattr(self.branch.walk(path), record.SET_MODE, mode=mode)
        thing.mode = mode

    def setxattr(self) -> None:
        """Set an attribute, or remove it where the value is empty."""
        value = self.choose(VALUES)
        path, thing = self.pick()
        inode = self.branch.walk(path)
        if value:
            self.branch.worktree.setxattr(inode, b"user.x", value)
            thing.xattrs[b"user.x"] = value
        elif thing.xattrs.pop(b"user.x", None) is not None:
            self.branch.worktree.removexattr(inode, b"user.x")

    def remove(self) -> None:
        """Take a name away; a full directory refuses."""
        name = self.choose(NAMES)
        path, directory = self.pick(stat.S_IFDIR)
        thing = directory.names.get(name)
        if thing is None:
            return
        parent = self.branch.walk(path)
        if thing.kind != stat.S_IFDIR:
            self.branch.worktree.unlink(parent, name.encode())
            thing.nlink -= 1
        else:
            try:
                self.branch.worktree.rmdir(parent, name.encode())
            except DirectoryNotEmpty:
                assert thing.names
                return
            assert not thing.names
            directory.nlink -= 1
            thing.nlink = 0
        del directory.names[name]

    def rename(self) -> None:
        """Move, replace or exchange; what the kernel would refuse is refused."""
        name = self.choose(NAMES)
        new_name = self.choose(NAMES)
        exchange = self.choose([False, False, True])
        replace = self.choose([True, True, False])
        old_path, old = self.pick(stat.S_IFDIR)
        new_path, new = self.pick(stat.S_IFDIR)
        if name not in old.names:
            return
        thing, other = old.names[name], new.names.get(new_name)
        arguments = (self.branch.walk(old_path), name.encode(), self.branch.walk(new_path), new_name.encode())
        try:
            self.branch.worktree.rename(*arguments, exchange=exchange, replace=replace)
        except InvalidArgument:
            inside = [t for _, t in _below(thing)] if thing.kind == stat.S_IFDIR else []
            outside = [t for _, t in _below(other)] if exchange and other and other.kind == stat.S_IFDIR else []
            assert any(t is new for t in inside) or any(t is old for t in outside)
        except EntryExists:
            assert other is not None and not replace and not exchange
        except DirectoryNotEmpty:
            assert other is not None and other.names and not exchange
        except IsADirectory:
            assert other is not None and other.kind == stat.S_IFDIR and thing.kind != stat.S_IFDIR
        except NotADirectory:
            assert other is not None and other.kind != stat.S_IFDIR and thing.kind == stat.S_IFDIR
        except HeliosError:
            assert exchange and other is None
        else:
            if other is thing:
                return
            _move(old, name, new, new_name, exchange)

    def link(self) -> None:
        """Give a file one more name."""
        name = self.choose(NAMES)
        path, thing = self.pick()
        new_path, directory = self.pick(stat.S_IFDIR)
        if thing.kind == stat.S_IFDIR or name in directory.names:
            return
        self.branch.worktree.link(self.branch.walk(path), self.branch.walk(new_path), name.encode())
        directory.names[name] = thing
        thing.nlink += 1

    # -- The kernel's side -------------------------------------------------------------------------------------------

    def look_up(self) -> None:
        """Let the kernel hold something."""
        path, _ = self.pick()
        inode = self.branch.walk(path)
        inode.holds += 1
        self.lookups.append(inode)

    def forget_all(self) -> None:
        """Let the kernel forget everything that it held."""
        for inode in self.lookups:
            self.branch.worktree.index.release(inode, 1)
        self.lookups = []

    def open_file(self) -> None:
        """Open a file, to be used after its names are gone."""
        places = self.places(stat.S_IFREG)
        if places and len(self.open) < 4:
            path, thing = self.choose(places)
            inode = self.branch.walk(path)
            inode.holds += 1
            self.open.append((inode, thing))

    def write_open(self) -> None:
        """Write through a descriptor."""
        if not self.open:
            return
        offset = self.choose(OFFSETS)
        length = self.choose(LENGTHS)
        byte = self.choose(BYTES)
        self._write(*self.open[0], offset, bytes([byte]) * length)

    def close_file(self) -> None:
        """Close a descriptor."""
        if not self.open:
            return
        inode, _ = self.open.pop(0)
        self.branch.worktree.index.release(inode, 1)

    # -- History -----------------------------------------------------------------------------------------------------

    def snapshot(self) -> None:
        """Take a snapshot; it must show for ever what the tree shows now."""
        before = self.branch.dump()
        taken = self.branch.worktree.snapshot()
        self.snapshots[taken.id] = before
        self.models[taken.id] = copy.deepcopy(self.root)

    def look_at_snapshot(self) -> None:
        """Compare a snapshot with what it was."""
        if not self.snapshots:
            return
        snapshot_id = self.choose(list(self.snapshots))
        assert self.branch.dump_snapshot(snapshot_id) == self.snapshots[snapshot_id]
        worktree = self.branch.worktree
        found = worktree.snapshots.get(snapshot_id)
        assert (found.name, found.message, found.protected) == self.said.get(snapshot_id, (b"", "", False))
        newest = worktree.snapshots.newest
        if newest is not None and newest.id in self.snapshots and not worktree.changed_since_snapshot:
            assert self.branch.dump() == self.snapshots[newest.id]

    def describe_snapshot(self) -> None:
        """Say something else of a snapshot."""
        if not self.snapshots:
            return
        snapshot_id = self.choose(list(self.snapshots))
        words = (
            self.choose([b"", b"the " + snapshot_id.encode()]),
            self.choose(["", "why"]),
            self.choose([False, True]),
        )
        self.branch.worktree.describe_snapshot(snapshot_id, *words)
        self.said[snapshot_id] = words

    def delete_snapshot(self) -> None:
        """Delete a snapshot."""
        if not self.snapshots:
            return
        snapshot_id = self.choose(list(self.snapshots))
        if self.said.get(snapshot_id, (b"", "", False))[2]:
            with pytest.raises(NotPermitted):
                self.branch.worktree.delete_snapshot(snapshot_id)
            return
        self.branch.worktree.delete_snapshot(snapshot_id)
        del self.snapshots[snapshot_id]
        self.branch.views.pop(snapshot_id, None)

    def restore(self) -> None:
        """Bring a snapshot's state back, whole, with descriptors open and the kernel holding what it likes."""
        if not self.snapshots:
            return
        snapshot_id = self.choose(list(self.snapshots))
        self.snapshot()
        self.seal()
        worktree = self.branch.worktree
        restore = Restore(worktree, self.branch.store.objects)
        now = self.branch.store.head(self.branch.name).tree
        restore.apply(restore.plan(now, worktree.snapshots.get(snapshot_id).tree))
        then, held = self.snapshots[snapshot_id], {inode.ino for inode in [*self.lookups, *(i for i, _ in self.open)]}
        shown = self.branch.dump()
        assert {path: _restorable(row) for path, row in shown.items()} == {p: _restorable(r) for p, r in then.items()}
        self.root = copy.deepcopy(self.models[snapshot_id])
        for path, thing in self.places():
            if thing is not self.root:
                assert shown[path][0] == then[path][0] or then[path][0] in held
                thing.inode = int(str(shown[path][0]))
        self._find_open_again()

    def adopt(self, shown: Dump) -> None:
        """Let the model be what the branch shows, after something that the model does not follow: a merge."""
        self.root = _things(shown)
        self.open, self.lookups = [], []
        for snapshot in self.branch.worktree.snapshots.all():
            if snapshot.id not in self.snapshots:
                self.snapshots[snapshot.id] = self.branch.dump_snapshot(snapshot.id)
                self.models[snapshot.id] = _things(self.snapshots[snapshot.id])
                self.said[snapshot.id] = (snapshot.name, snapshot.message, snapshot.protected)

    def _find_open_again(self) -> None:
        """Let each descriptor whose file is in the restored tree be the model's file there."""
        by_number = {thing.inode: thing for _, thing in self.places(stat.S_IFREG)}
        self.open = [(inode, by_number.get(inode.ino, thing) if inode.nlink else thing) for inode, thing in self.open]

    def freeze(self) -> None:
        """Close an epoch that nobody seals yet, as a seal that failed has done."""
        self.branch.worktree.freeze()

    def begin_seal(self) -> None:
        """Seal; the results come in later, step by step."""
        self.branch.begin_seal()

    def seal(self) -> None:
        """Seal, and take all of it in."""
        self.branch.begin_seal()
        self.branch.finish_seal()

    def step_seal(self) -> None:
        """Take in a part of a seal's results."""
        self.branch.step_seal()

    def finish_seal(self) -> None:
        """Take in the rest of them."""
        self.branch.finish_seal()

    def reopen(self) -> None:
        """Kill and start again: descriptors and the kernel's memory are gone, nothing else."""
        self.open = []
        self.lookups = []
        self.branch.reopen()

    # -- What must always hold ---------------------------------------------------------------------------------------

    def same(self) -> None:
        """The working tree shows what the model holds, and descriptors read what was written."""
        shown = {path: (r[0], r[1], r[2], r[4], r[8], r[9], r[10]) for path, r in self.branch.dump().items()}
        expected = {
            path: (
                thing.inode,
                thing.kind,
                thing.mode,
                thing.nlink,
                bytes(thing.data),
                thing.target,
                tuple(sorted(thing.xattrs.items())),
            )
            for path, thing in self.places()
        }
        assert shown == expected
        for inode, thing in self.open:
            assert self.branch.worktree.read(inode, 0, 1 << 22) == bytes(thing.data)


def _things(shown: Dump) -> Thing:
    """Return the model of a tree by what it shows."""
    things: dict[int, Thing] = {}
    by_path: dict[str, Thing] = {}
    for path in sorted(shown):
        ino, kind, mode, _, nlink, _, _, _, data, target, xattrs = shown[path]
        thing = by_path[path] = things.setdefault(int(str(ino)), Thing(int(str(kind)), int(str(mode))))
        thing.inode, thing.nlink = int(str(ino)), int(str(nlink))
        thing.data, thing.target = bytearray(data), bytes(target)  # type: ignore[arg-type]  # a row's are bytes
        thing.xattrs = dict(xattrs)  # type: ignore[call-overload]  # pairs
        above, _, name = path.rpartition("/")
        if path:
            by_path[above].names[name] = thing
    return by_path[""]


def _restorable(row: Row) -> Row:
    """Return what a restore brings back: all but the inode number and the time of the last change."""
    return (*row[1:7], *row[8:])


def _below(thing: Thing) -> list[tuple[str, Thing]]:
    found = [("", thing)]
    for name, child in thing.names.items():
        found.extend((f"{name}/{path}", t) for path, t in _below(child))
    return found


def _move(old: Thing, name: str, new: Thing, new_name: str, exchange: bool) -> None:
    thing, other = old.names[name], new.names.get(new_name)
    for parent, child, step in ((old, thing, -1), (new, thing, 1)):
        parent.nlink += step * (child.kind == stat.S_IFDIR)
    if exchange:
        assert other is not None
        for parent, step in ((new, -1), (old, 1)):
            parent.nlink += step * (other.kind == stat.S_IFDIR)
        old.names[name] = other
    else:
        del old.names[name]
        if other is not None:
            new.nlink -= other.kind == stat.S_IFDIR
            other.nlink = 0 if other.kind == stat.S_IFDIR else other.nlink - 1
    new.names[new_name] = thing


STEPS: list[str] = [
    *["create", "write", "seal"] * 4,
    *["truncate", "remove", "rename", "link", "snapshot", "reopen", "look_at_snapshot"] * 3,
    *["begin_seal", "step_seal", "step_seal", "finish_seal", "look_up", "forget_all", "open_file", "write_open"] * 2,
    *["freeze", "chmod", "setxattr", "close_file", "delete_snapshot", "restore", "restore"],
    *["describe_snapshot"],
]
"""Names of the steps, each as often as it is to be likely."""
