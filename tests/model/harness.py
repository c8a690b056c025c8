"""A branch without a mount: store, journal, working tree and sealer in one process, driven step by step.

Seals go through the same functions as in a mount; their results can be taken in one batch at a time, with anything
in between.
"""

import os
import stat
from collections import Counter
from collections.abc import Iterator

from helios_fs.journal.journal import Journal
from helios_fs.objects.entry import Entry, decode_entry
from helios_fs.objects.ids import ROOT_INO
from helios_fs.sealer.process import seal
from helios_fs.store import maps
from helios_fs.store.store import Store
from helios_fs.worktree.index import overlay_names
from helios_fs.worktree.inode import Inode
from helios_fs.worktree.rebase import Rebase
from helios_fs.worktree.recovery import journal_directory, take_over
from helios_fs.worktree.view import View
from helios_fs.worktree.worktree import Worktree

Row = tuple[object, ...]
Dump = dict[str, Row]


class Branch:
    """One branch of a store in `path`, opened."""

    def __init__(self, path: str, name: str = "main") -> None:
        """`name` is the branch's id."""
        self.path = path
        self.name = name
        if not os.path.exists(path):
            Store.create(path)
        self.open()

    def open(self) -> None:
        """Open store and branch, as a mount does after a crash."""
        self.store = Store.open(self.path)
        self.worktree: Worktree
        self.worktree, self.fence = take_over(self.store, self.name)
        # No event loop here: whoever meets a cold object may wait.
        self.worktree.index.objects = self.worktree.objects = self.store.objects
        self.writer = self.store.writer()
        self.views: dict[str, View] = {}
        self.running: Iterator[None] | None = None

    def close(self) -> None:
        """Let go of everything, as a kill would: nothing is sealed or synced."""
        self.running = None
        self.worktree.journal.close()
        self.store.close()

    def reopen(self) -> None:
        """Close and open again."""
        self.close()
        self.open()

    # -- Sealing -----------------------------------------------------------------------------------------------------

    def begin_seal(self, batch: int = 2) -> None:
        """Seal everything up to now; the results wait to be taken in by `step_seal`."""
        if self.worktree.changed_in_epoch:
            self.worktree.freeze()
        self.finish_seal()
        target = self.worktree.journal.end
        journal = Journal.open(journal_directory(self.store, self.name), self.store.head(self.name).lsn, writable=False)
        try:
            outcome = seal(self.store, self.writer, journal, self.name, self.fence, target)
        finally:
            journal.close()
        self.check_link_table()
        self.running = self._take_in(outcome, batch)

    def check_link_table(self) -> None:
        """The sealed tree's link table holds each inode that directories refer to, with as many names, and no other."""
        objects = self.store.objects
        tree = objects.tree(self.store.head(self.name).tree)
        names: Counter[int] = Counter()

        pending = [tree.root.content]
        while pending:
            for _, value in maps.scan(objects, pending.pop()):
                entry = decode_entry(value)
                if isinstance(entry, int):
                    names[entry] += 1
                elif entry.is_directory and entry.content:
                    pending.append(entry.content)
        table = [(int.from_bytes(key, "big"), decode_entry(value)) for key, value in maps.scan(objects, tree.links)]
        assert names == {ino: entry.nlink for ino, entry in table if isinstance(entry, Entry)}

    def _take_in(self, outcome, batch):  # type: ignore[no-untyped-def]
        index = self.worktree.index
        tree = self.store.objects.tree(outcome.head.tree)
        index.links, index.base_root = tree.links, tree.root
        for snapshot_id, tree_id in outcome.snapshots:
            self.worktree.snapshots.sealed(snapshot_id, tree_id)
        trees = dict(outcome.snapshots)
        for snapshot_id, view in self.views.items():
            tree_id = trees.get(snapshot_id, b"")
            view.rebased(tree_id, self.store.objects.tree(tree_id) if tree_id else None)
        rebase = Rebase(index, outcome.head.epoch - 1, outcome.head.lsn)
        rows = list(outcome.sealed.values())
        for start in range(0, len(rows), batch):
            rebase.take(rows[start : start + batch])
            yield
        yield from rebase.finish()
        for view in self.views.values():
            view.rebased()
        keep_open = any(orphan.regions for orphan in index.orphans.values())
        self.worktree.journal.drop_below(outcome.head.lsn, keep_open)

    def step_seal(self) -> None:
        """Take in one batch of the results of the running seal."""
        if self.running is not None:
            try:
                next(self.running)
            except StopIteration:
                self.running = None

    def finish_seal(self) -> None:
        """Take in all that is left of the running seal."""
        while self.running is not None:
            self.step_seal()

    # -- Looking -----------------------------------------------------------------------------------------------------

    def walk(self, path: str) -> Inode:
        """Return the inode at a path."""
        here = self.worktree.index.root
        for name in path.split("/"):
            if name:
                found = self.worktree.index.find(here, name.encode())
                assert found is not None, path
                here = found
        return here

    def dump(self) -> Dump:
        """Return everything that the working tree shows."""
        rows: Dump = {}
        index = self.worktree.index

        def visit(inode: Inode, path: str) -> None:
            rows[path] = row(inode, self.worktree.read(inode, 0, 1 << 22) if inode.is_file else b"")
            if inode.is_directory:
                for _, name in list(index.listing(inode, 2, overlay_names(inode))):
                    child = index.find(inode, name)
                    assert child is not None
                    visit(child, f"{path}/{name.decode()}")

        visit(index.root, "")
        return rows

    def view(self, snapshot_id: str) -> View:
        """Return the view of a snapshot, kept until it is reopened."""
        view = self.views.get(snapshot_id)
        if view is None:
            worktree = self.worktree
            snapshot = worktree.snapshots.get(snapshot_id)
            tree = self.store.objects.tree(snapshot.tree) if snapshot.tree else None
            view = View(worktree.index, self.store.objects, worktree.journal, snapshot.epoch, snapshot.tree, tree)
            self.views[snapshot_id] = view
        return view

    def dump_snapshot(self, snapshot_id: str) -> Dump:
        """Return everything that a snapshot shows."""
        rows: Dump = {}
        view = self.view(snapshot_id)

        def visit(node: Inode, path: str) -> None:
            node = view.current(node)
            rows[path] = row(node, view.read(node, 0, 1 << 22) if node.is_file else b"")
            if node.is_directory:
                for _, name in list(view.listing(node, 2)):
                    visit(view.get(node, name), f"{path}/{name.decode()}")

        visit(view.root, "")
        return rows


def row(inode: Inode, data: bytes) -> Row:
    """Return what a user could see of an inode."""
    return (
        inode.ino if inode.ino != ROOT_INO else 0,
        stat.S_IFMT(inode.mode),
        stat.S_IMODE(inode.mode),
        inode.uid,
        inode.nlink,
        inode.size,
        inode.mtime_ns,
        inode.ctime_ns,
        data,
        inode.base if stat.S_ISLNK(inode.mode) else b"",
        tuple(sorted((inode.xattrs or {}).items())),
    )
