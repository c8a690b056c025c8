"""Sealing of one branch as the mount sees it: when to ask for it, and how its results come into memory meanwhile.

Knows the sealer as a process at the other end of two pipes; whatever happens to that process, the mount goes on.

T1. No request waits for a seal, but for callers of `seal_now` and for writers once the journal is over its bound.
T2. A sealer that dies is started again; what it had not published it does again from the journal.
T3. Journal segments go only after the results of the seal that passed them are all in memory.
T4. Segments go only while no branch waits for a journal of its own: that will share them.
T5. What this mount reads of the store is pinned there for all other processes: the tree it stands on, also while a
    newer one is published and not yet taken in, the snapshots that are looked at, files that are open without a name.
T6. The new base and the trees of the snapshots that were sealed with it come into use at one instant: a view that is
    not told of its tree yet must not find the base of a later state below it.
"""

import logging
import time
from collections.abc import Awaitable, Callable
from typing import Final

import msgspec
import trio

from helios_fs.errors import Busy, HeliosError, StoreFault, StoreFull
from helios_fs.fuse.nodes import Nodes
from helios_fs.fuse.sealer_pipe import SealerPipe
from helios_fs.objects.entry import Tree
from helios_fs.sealer import messages
from helios_fs.store.gc import TIGHT
from helios_fs.store.store import Store
from helios_fs.worktree.rebase import Rebase
from helios_fs.worktree.worktree import Worktree

_log = logging.getLogger(__name__)

_LOOK_SECONDS: Final = 0.5
_QUIET_SECONDS: Final = 2.0
_BUSY_SECONDS: Final = 15.0
_BACKLOG_BYTES: Final = 64 << 20
_SPARE_SECONDS: Final = 60.0
_RETRY_SECONDS: Final = 5.0
BOUND_BYTES: Final = 1 << 30
"""Writers are slowed down while more than this is not sealed."""
_THROTTLE_SECONDS: Final = 0.005
_COLLECT_AFTER_BYTES: Final = 256 << 20
_RELEASE_SECONDS: Final = 60.0
_PATIENCE_SECONDS: Final = 60.0
"""How long a collection that somebody asked for waits for writers of other processes."""


class Sealing:
    """One branch's way to the sealer."""

    def __init__(
        self,
        worktree: Worktree,
        store: Store,
        nodes: Nodes,
        sealer: SealerPipe,
        fence: int,
        set_bound: Callable[[int], None],
        finish_forks: Callable[[], Awaitable[None]],
        pins: Callable[[], list[bytes]],
    ) -> None:
        """`set_bound(position)` is told behind which journal position writers are to be slowed down.

        `finish_forks()` gives the branches that were made from this one journals of their own; `pins()` are the objects
        that the whole mount needs.
        """
        self._worktree = worktree
        self._store = store
        self._nodes = nodes
        self._sealer = sealer
        self.fence = fence
        """The epoch under which the branch is owned."""
        self._set_bound = set_bound
        self._finish_forks = finish_forks
        self._all_pins = pins
        self._wanted = trio.Event()
        self._progressed = trio.Event()
        self._waiters = 0
        self._refused: HeliosError | None = None
        self._deleted = 0
        self._journaled_at_collect = worktree.journal.end
        head = store.head(worktree.branch)
        self.head = head
        self.seals = 0
        self.restarts = 0
        self._seen_end = worktree.journal.end
        self._changed_at = self._oldest_at = time.monotonic()
        set_bound(head.lsn + BOUND_BYTES)
        self._collectors = 0
        self._released_at = time.monotonic()
        self._pin()

    # -- Asking ------------------------------------------------------------------------------------------------------

    @property
    def backlog_bytes(self) -> int:
        """Bytes of journal that are not sealed."""
        return self._worktree.journal.end - self.head.lsn

    def nudge(self) -> None:
        """Ask for a seal soon."""
        self._wanted.set()

    async def seal_now(self) -> None:
        """Return when everything answered before the call is in the store. Raises what the sealer could not do."""
        target = self._worktree.journal.end
        self._waiters += 1
        try:
            while self.head.lsn < target:
                self._refused = None
                self._wanted.set()
                await self._progressed.wait()
                self._raise_refused(target)
        finally:
            self._waiters -= 1

    def _raise_refused(self, target: int) -> None:
        if self._refused is not None and self.head.lsn < target:
            raise self._refused

    async def throttle(self) -> None:
        """Let a writer wait a moment for the sealer."""
        self._wanted.set()
        await trio.sleep(_THROTTLE_SECONDS)

    # -- Running -----------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Seal whenever it is worth it, until cancelled."""
        while True:
            with trio.move_on_after(_LOOK_SECONDS):
                await self._wanted.wait()
            asked = self._wanted.is_set()
            self._wanted = trio.Event()
            if time.monotonic() - self._changed_at > _SPARE_SECONDS:
                self._worktree.journal.drop_spares()
            if time.monotonic() - self._released_at > _RELEASE_SECONDS:
                self._released_at = time.monotonic()
                self._store.objects.release_dropped()
            if not self.backlog_bytes or not (asked or self._worth_it()):
                continue
            try:
                async with self._sealer.turn():
                    await self._seal_once()
                if self._collection_is_due():
                    await self._collect_now_and_then()
            except HeliosError as error:
                _log.warning("sealing failed, and will be tried again: %s", error)
                if isinstance(error, StoreFull):
                    self._worktree.journal.drop_spares()
                self._refused = error
                self._report_progress()
                await trio.sleep(_RETRY_SECONDS if not self._waiters else _LOOK_SECONDS)
            except (trio.BrokenResourceError, trio.ClosedResourceError, OSError, msgspec.MsgspecError) as error:
                _log.warning("the sealer ended: %s; starting another", error)
                self.restarts += 1
                await trio.sleep(_LOOK_SECONDS)
                self._wanted.set()

    def _worth_it(self) -> bool:
        now = time.monotonic()
        end = self._worktree.journal.end
        if end != self._seen_end:
            self._seen_end = end
            self._changed_at = now
        quiet = now - self._changed_at >= _QUIET_SECONDS
        return quiet or self.backlog_bytes >= _BACKLOG_BYTES or now - self._oldest_at >= _BUSY_SECONDS

    def _report_progress(self) -> None:
        self._progressed.set()
        self._progressed = trio.Event()

    async def _seal_once(self) -> None:
        worktree = self._worktree
        # Nothing waits between its end and the choice of the position: a branch that is made from now on begins there.
        await self._finish_forks()
        if worktree.changed_in_epoch:
            worktree.freeze()
        self._pin()
        target = worktree.journal.end
        await self._sealer.say(messages.SealUpTo(worktree.branch, self.fence, target))
        begun = await self._sealer.hear()
        if not isinstance(begun, messages.Begun):
            raise StoreFault(f"the sealer answered out of turn: {type(begun).__name__}")
        tree = await self._tree(begun.head.tree)
        sealed_trees = dict(begun.snapshots)
        trees = await self._trees_of_shown(sealed_trees)
        # T6: nothing waits from here until every view knows where to read from.
        index = worktree.index
        index.links = tree.links
        index.base_root = tree.root
        for snapshot_id, tree_id in begun.snapshots:
            worktree.snapshots.sealed(snapshot_id, tree_id)
        for shown in self._nodes.shown():
            its_tree = sealed_trees.get(shown.snapshot_id)
            if its_tree is None:
                shown.view.rebased()
            else:
                shown.view.rebased(its_tree, trees[its_tree])
        rebase = Rebase(index, begun.head.epoch - 1, begun.head.lsn)
        while isinstance(batch := await self._sealer.hear(), messages.Batch):
            rebase.take(batch.sealed)
        for _ in rebase.finish():
            await trio.lowlevel.checkpoint()
        for shown in self._nodes.shown():
            shown.view.rebased()
        await self._finish_forks()
        worktree.journal.drop_below(begun.head.lsn, keep_open=any(i.regions for i in index.orphans.values()))
        self.head = begun.head
        self._pin()
        self.seals += 1
        self._deleted += begun.deleted
        self._oldest_at = time.monotonic()
        self._set_bound(begun.head.lsn + BOUND_BYTES)
        self._report_progress()

    async def _trees_of_shown(self, sealed: dict[str, bytes]) -> dict[bytes, Tree]:
        """Return the trees of those of the snapshots that are looked at when it returns."""
        trees: dict[bytes, Tree] = {}
        while True:
            wanted = {sealed[shown.snapshot_id] for shown in self._nodes.shown() if shown.snapshot_id in sealed}
            missing = wanted - trees.keys()
            if not missing:
                return trees
            # Somebody may begin to look at another one meanwhile.
            for tree_id in missing:
                trees[tree_id] = await self._tree(tree_id)

    async def _tree(self, tree_id: bytes) -> Tree:
        return await trio.to_thread.run_sync(self._store.objects.tree, tree_id)

    # -- Space -------------------------------------------------------------------------------------------------------

    def _collection_is_due(self) -> bool:
        # Whoever has asked wants to hear what was freed, so it is left to that collection.
        if self._collectors:
            return False
        return self._deleted > 0 or self._worktree.journal.end - self._journaled_at_collect > _COLLECT_AFTER_BYTES

    def pins(self) -> list[bytes]:
        """Return the trees and blobs that this branch shows or has open, whatever refs say."""
        pins = [self.head.tree]
        pins.extend(shown.view.tree_id for shown in self._nodes.shown() if shown.view.tree_id)
        pins.extend(orphan.base for orphan in self._worktree.index.orphans.values() if orphan.is_file and orphan.base)
        return pins

    def _pin(self) -> None:
        """Publish what this mount needs although no ref may lead to it."""
        self._store.pins.keep(self._worktree.branch, self.pins())

    async def _collect_now_and_then(self) -> None:
        """Collect what is easily had; where others are at work, after a later seal."""
        try:
            done = await self._collect(messages.Collect(self._all_pins()))
        except (Busy, StoreFault) as error:
            _log.info("nothing was collected: %s", error)
        else:
            for problem in done.problems:
                _log.warning("collecting: %s", problem)

    async def collect_now(self) -> messages.Collected:
        """Seal, and give back all the space that nothing needs; deleted branches end.

        Raises Busy where other processes write all the time, and what the sealer could not do.
        """
        self._collectors += 1
        try:
            return await self._seal_and_collect()
        finally:
            self._collectors -= 1

    async def _seal_and_collect(self) -> messages.Collected:
        try:
            await self.seal_now()
        except HeliosError as error:
            # On a full disk sealing may need what collecting gives.
            _log.warning("collecting without a seal before: %s", error)
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while True:
            try:
                return await self._collect(messages.Collect(self._all_pins(), TIGHT, 0.0))
            except Busy:
                if time.monotonic() > deadline:
                    raise
            except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
                raise StoreFault("the process that collects ended; see the log of the mount") from error
            await trio.sleep(_LOOK_SECONDS)

    async def _collect(self, request: messages.Collect) -> messages.Collected:
        async with self._sealer.turn():
            self._pin()
            await self._sealer.say(request)
            done = await self._sealer.hear()
        if not isinstance(done, messages.Collected):
            raise StoreFault(f"the sealer answered out of turn: {type(done).__name__}")
        self._store.objects.release_dropped()
        self._deleted = 0
        self._journaled_at_collect = self._worktree.journal.end
        return done

    async def release(self) -> None:
        """Let go of packs that another process has dropped, here and in the sealer, which is started anew."""
        self._store.objects.release_dropped()
        async with self._sealer.turn():
            await self._sealer.stop()
