"""What the command line may ask of an open branch: the methods behind its control socket.

Beside `daemon.py`, and like it above all floors: each method puts together what the parts of a branch can do.

V1. A request for a branch that is not open is answered by the mount that can open it (`open_branch`); the branch then
    has a socket of its own.
"""

import logging
import os
import time
from typing import TYPE_CHECKING, Final

import pyfuse3
import trio

from helios_fs import __version__
from helios_fs.control import messages
from helios_fs.errors import Busy, HeliosError, NotPermitted
from helios_fs.fuse.forest import Forest, ShownBranch
from helios_fs.fuse.history_dir import user_name
from helios_fs.fuse.invalidation import forget_attributes, forget_name, forget_snapshots
from helios_fs.history.restore import Restore

if TYPE_CHECKING:
    from helios_fs.history.merging import Merging, Outcome, Wanted

_log = logging.getLogger("helios_fs.daemon")

_HOST: Final = os.uname().nodename


class BranchService:
    """The service of one open branch."""

    def __init__(self, forest: Forest, shown: ShownBranch, started_at: float) -> None:
        self._forest = forest
        self._shown = shown
        self._started_at = started_at
        self._store = forest.store
        self._worktree = shown.worktree
        self._durability = shown.durability
        self._sealing = shown.sealing
        self._merge_lock = trio.Lock()

    def _forget_history(self) -> None:
        forget_attributes(self._shown.nodes.snapshots_nodeid)

    async def hello(self, request: messages.Hello) -> messages.HelloReply:
        """Say who this is."""
        return messages.HelloReply(
            pid=os.getpid(),
            store=os.fsencode(self._store.path),
            branch=self._shown.branch,
            mountpoint=self._shown.root_path(),
            version=__version__,
        )

    # -- Snapshots ---------------------------------------------------------------------------------------------------

    async def take_snapshot(self, request: messages.TakeSnapshot) -> messages.SnapshotTaken:
        """Take a snapshot, of what mappings have stored too."""
        if request.name:
            self._worktree.snapshots.check_name(request.name)
        await self._durability.write_back()
        snapshot = self._worktree.snapshot(request.name, request.message, request.user, _HOST, request.command)
        self._forget_history()
        if request.sync:
            await self._durability.sync()
        return messages.SnapshotTaken(snapshot.id)

    async def list_snapshots(self, request: messages.ListSnapshots) -> messages.Snapshots:
        """List the branch's snapshots, oldest first."""
        return messages.Snapshots([messages.info(snapshot) for snapshot in self._worktree.snapshots.all()])

    async def describe_snapshot(self, request: messages.DescribeSnapshot) -> messages.SnapshotDescribed:
        """Say anew what is given of a snapshot."""
        former = self._worktree.snapshots.get(request.id)
        snapshot = self._worktree.describe_snapshot(request.id, request.name, request.message, request.protected)
        if snapshot.name != former.name:
            await trio.to_thread.run_sync(forget_snapshots, self._shown.nodes.snapshots_nodeid, [former])
        return messages.SnapshotDescribed(messages.info(snapshot))

    async def delete_snapshots(self, request: messages.DeleteSnapshots) -> messages.SnapshotsDeleted:
        """Delete snapshots, all of them or none."""
        await self.delete(request.ids)
        return messages.SnapshotsDeleted()

    async def delete(self, ids: list[str]) -> None:
        """Delete snapshots, all of them or none. Raises NoSuchEntry, NotPermitted."""
        worktree, nodes = self._worktree, self._shown.nodes
        worktree.check_deletable(ids)
        gone = [worktree.snapshots.get(snapshot_id) for snapshot_id in dict.fromkeys(ids)]
        for snapshot in gone:
            worktree.delete_snapshot(snapshot.id)
        nodes.drop_idle()
        await trio.to_thread.run_sync(forget_snapshots, nodes.snapshots_nodeid, gone)

    async def take_automatic(self, command: str) -> None:
        """Take a snapshot that nobody asked for, where the tree has changed since the last one."""
        await self._durability.write_back()
        if self._worktree.changed_since_snapshot:
            self._worktree.snapshot(b"", "automatic", user_name(os.getuid()), _HOST, command)
            self._forget_history()

    async def seal(self, request: messages.Seal) -> messages.Sealed:
        """Seal everything up to now."""
        if self._shown.is_frozen:
            return messages.Sealed(self._sealing.head.tree.hex(), 0, 0)
        await self._durability.write_back()
        await self._sealing.seal_now()
        head = self._sealing.head
        return messages.Sealed(head.tree.hex(), head.lsn, head.epoch)

    async def restore(self, request: messages.Restore) -> messages.Restored:
        """Bring back a state, after a snapshot of the present one."""
        snapshot = self._worktree.snapshots.get(request.id)
        await self._durability.write_back()
        what = snapshot.name.decode(errors="replace") or snapshot.id
        message = f"before restoring {what}"
        undo = self._worktree.snapshot(b"", message, request.user, _HOST, request.command)
        self._forget_history()
        await self._sealing.seal_now()
        snapshot = self._worktree.snapshots.get(request.id)
        restore = Restore(self._worktree, self._store.objects)
        now = self._sealing.head.tree
        # From here until it is in the journal, where a collection finds it.
        with self._store.pins.held(now, snapshot.tree):
            plan = await trio.to_thread.run_sync(restore.plan, now, snapshot.tree, request.paths)
            changed = restore.apply(plan)
        await self._shown.tell(changed)
        return messages.Restored(undo.id, len(plan.steps) + len(plan.relinked))

    async def merge(self, request: messages.Merge) -> messages.Merged:
        """Merge another branch into this one; a second merge waits for the first."""
        # Loaded when it is asked for: it would make every mount a tenth slower to start.
        from helios_fs.history.merging import Merging, Source, Wanted

        source = Source(request.branch, request.snapshot, bytes.fromhex(request.tree), request.lsn)
        wanted = Wanted(source, request.labels, request.favour, request.dry_run, request.message, request.user, _HOST)
        async with self._merge_lock:
            merging = Merging(self._store, self._worktree, self._sealing.fence, wanted)
            # Nobody may take the branch for idle meanwhile.
            root = self._worktree.index.root
            root.holds += 1
            try:
                outcome = await self._merge(merging, wanted)
            finally:
                root.holds -= 1
                with trio.CancelScope(shield=True):
                    await trio.to_thread.run_sync(merging.close)
        conflicts = [messages.MergeConflict(path, kind) for path, kind in outcome.conflicts]
        return messages.Merged(outcome.base, outcome.snapshot, conflicts, outcome.changes, outcome.up_to_date)

    async def _merge(self, merging: "Merging", wanted: "Wanted") -> "Outcome":
        from helios_fs.history.merging import MAX_TRIES

        journal = self._worktree.journal
        for _ in range(MAX_TRIES):
            await self._durability.write_back()
            await self._sealing.seal_now()
            head = self._sealing.head
            ready = await trio.to_thread.run_sync(merging.prepare, head.tree)
            if ready.plan is None:
                if ready.up_to_date and not wanted.dry_run:
                    await trio.to_thread.run_sync(merging.keep)
                return merging.outcome(ready, "")
            if journal.end == head.lsn:
                break
        else:
            raise Busy(f"{wanted.labels[0]} keeps changing: merge when less is going on in it")
        changed, snapshot = merging.apply(ready)
        self._forget_history()
        await self._shown.tell(changed)
        await self._durability.sync()
        await trio.to_thread.run_sync(merging.keep)
        await self._sealing.seal_now()
        merging.sealed()
        return merging.outcome(ready, snapshot.id)

    async def collect(self, request: messages.Collect) -> messages.Collected:
        """Give back the space that nothing needs."""
        if request.release_only:
            await self._sealing.release()
            return messages.Collected()
        done = await self._sealing.collect_now()
        return messages.Collected(**{name: getattr(done, name) for name in messages.Collected.__struct_fields__})

    # -- Branches ----------------------------------------------------------------------------------------------------

    def _forget_branch(self, name: str | None = None) -> None:
        """Make the kernel ask for `.branches` again, and, from a thread only, for a name in it."""
        directory = self._shown.nodes.branches_nodeid
        if name is not None:
            forget_name(directory, name.encode())
        forget_attributes(directory)

    async def open_branch(self, request: messages.OpenBranch) -> messages.BranchOpened:
        """Open a branch that was made from this one, or from one that was; it has a socket then."""
        shown = await self._forest.open(request.branch)
        return messages.BranchOpened(shown.root_path())

    async def close_branch(self, request: messages.CloseBranch) -> messages.BranchClosed:
        """Close a branch that was made from this one, if nobody uses it: its parent's file tells who owns it then."""
        return messages.BranchClosed(await self._forest.close_if_idle(request.branch))

    async def list_branches(self, request: messages.ListBranches) -> messages.BranchNames:
        """List the branches that were made from this one."""
        await self._shown.children.finish()
        return messages.BranchNames(dict(self._shown.children.names()))

    async def make_branch(self, request: messages.MakeBranch) -> messages.BranchMade:
        """Make a branch of the working tree as it is now, of what mappings have stored too, or of a snapshot."""
        children = self._shown.children
        if request.snapshot:
            snapshot = self._worktree.snapshots.get(request.snapshot)
            if not snapshot.tree:
                await self._sealing.seal_now()
                snapshot = self._worktree.snapshots.get(request.snapshot)
            branch = await children.make_from(snapshot, request.name, request.uid)
        else:
            await self._durability.write_back()
            branch = children.make(request.name, request.uid)
        self._forget_branch()
        return messages.BranchMade(branch)

    async def rename_branch(self, request: messages.RenameBranch) -> messages.BranchChanged:
        """Rename a branch that was made from this one."""
        children = self._shown.children
        former = children.name_of(request.branch)
        await children.rename(request.branch, request.name)
        await trio.to_thread.run_sync(self._forget_branch, former)
        return messages.BranchChanged()

    async def delete_branch(self, request: messages.DeleteBranch) -> messages.BranchChanged:
        """Delete a branch that was made from this one."""
        children = self._shown.children
        name = children.name_of(request.branch)
        await children.delete(request.branch, request.force)
        await trio.to_thread.run_sync(self._forget_branch, name)
        return messages.BranchChanged()

    async def bring_back_branch(self, request: messages.BringBackBranch) -> messages.BranchChanged:
        """Bring back a branch that was deleted."""
        await self._shown.children.bring_back(request.branch)
        self._forget_branch()
        return messages.BranchChanged()

    # -- The mount ---------------------------------------------------------------------------------------------------

    async def stats(self, request: messages.Stats) -> messages.StatsReply:
        """Return the counters."""
        worktree, sealing = self._worktree, self._sealing
        return messages.StatsReply(
            {
                "uptime_seconds": round(time.time() - self._started_at, 3),
                "snapshots": len(worktree.snapshots),
                "branches": len(self._shown.children.names()),
                "branches_open": len(self._forest.shown()) - 1,
                "epoch": worktree.index.epoch,
                "inodes_in_memory": len(worktree.inodes),
                "inodes_dirty": len(worktree.index.dirty),
                "inodes_unlinked_open": len(worktree.index.orphans),
                "journal_end_bytes": worktree.journal.end,
                "journal_synced_bytes": worktree.journal.synced,
                "journal_unsealed_bytes": sealing.backlog_bytes,
                "seals": sealing.seals,
                "sealer_restarts": sealing.restarts,
                "views_open": len(self._shown.nodes.shown()),
            }
        )

    async def unmount(self, request: messages.Unmount) -> messages.Unmounting:
        """Seal and sync everything, then end."""
        if self._shown is not self._forest.first:
            raise NotPermitted("this branch is part of another mount: unmount that")
        await self._forest.watchers.stop()
        for shown in self._forest.shown():
            if shown.is_frozen:
                continue
            await shown.durability.write_back()
            try:
                await shown.sealing.seal_now()
            except HeliosError as error:
                # A full disk, or a branch that is read-only: the journal has everything, and the next mount seals it.
                _log.warning("unmounting with a journal that is not sealed: %s", error)
        try:
            for shown in self._forest.shown():
                if not shown.is_frozen:
                    await shown.durability.sync()
        finally:
            pyfuse3.terminate()
        return messages.Unmounting()
