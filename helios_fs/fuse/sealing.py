"""Sealing as the mount sees it: when to ask for it, and how its results come into memory between requests.

Knows the sealer as a process at the other end of two pipes; whatever happens to that process, the mount goes on.

T1. No request waits for a seal, but for callers of `seal_now` and for writers once the journal is over its bound.
T2. A sealer that dies is started again; what it had not published it does again from the journal.
T3. Journal segments go only after the results of the seal that passed them are all in memory.
T4. What this mount reads of the store is pinned there for all other processes: the tree it stands on, also while a
    newer one is published and not yet taken in, the snapshots that are looked at, files that are open without a name.
"""

import logging
import subprocess
import sys
from collections.abc import Callable
from typing import Final

import msgspec
import trio

from helios_fs.errors import Busy, HeliosError, StoreFault, StoreFull
from helios_fs.fuse.nodes import Nodes
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
    """One mount's sealer."""

    def __init__(
        self, worktree: Worktree, store: Store, nodes: Nodes, fence: int, set_bound: Callable[[int], None]
    ) -> None:
        """`set_bound(position)` is told behind which journal position writers are to be slowed down."""
        self._worktree = worktree
        self._store = store
        self._nodes = nodes
        self._fence = fence
        self._set_bound = set_bound
        self._process: trio.Process | None = None
        self._received = bytearray()
        self._wanted = trio.Event()
        self._progressed = trio.Event()
        self._waiters = 0
        self._refused: HeliosError | None = None
        self._deleted = 0
        self._journaled_at_collect = worktree.journal.end
        head = store.refs.head(worktree.branch)
        self.head = head
        self.seals = 0
        self.restarts = 0
        self._seen_end = worktree.journal.end
        self._changed_at = self._oldest_at = trio.current_time()
        set_bound(head.lsn + BOUND_BYTES)
        self._talking = trio.Lock()
        """Held by whoever says something to the sealer, until the answer is heard."""
        self._collectors = 0
        self._released_at = trio.current_time()
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
            if trio.current_time() - self._changed_at > _SPARE_SECONDS:
                self._worktree.journal.drop_spares()
            if trio.current_time() - self._released_at > _RELEASE_SECONDS:
                self._released_at = trio.current_time()
                self._store.objects.release_dropped()
            if not self.backlog_bytes or not (asked or self._worth_it()):
                continue
            try:
                async with self._talking:
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
                await self._stop()
                self.restarts += 1
                await trio.sleep(_LOOK_SECONDS)
                self._wanted.set()

    def _worth_it(self) -> bool:
        now = trio.current_time()
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
        if worktree.changed_in_epoch:
            worktree.freeze()
        self._pin()
        await self._say(messages.SealUpTo(worktree.journal.end))
        begun = await self._hear()
        if not isinstance(begun, messages.Begun):
            raise StoreFault(f"the sealer answered out of turn: {type(begun).__name__}")
        tree = await self._tree(begun.head.tree)
        index = worktree.index
        index.links = tree.links
        index.base_root = tree.root
        for snapshot_id, tree_id in begun.snapshots:
            worktree.snapshots.sealed(snapshot_id, tree_id)
        sealed_trees = dict(begun.snapshots)
        for shown in self._nodes.shown():
            its_tree = sealed_trees.get(shown.snapshot_id)
            if its_tree is None:
                shown.view.rebased()
            else:
                shown.view.rebased(its_tree, await self._tree(its_tree))
        rebase = Rebase(index, begun.head.epoch - 1, begun.head.lsn)
        while isinstance(batch := await self._hear(), messages.Batch):
            rebase.take(batch.sealed)
        for _ in rebase.finish():
            await trio.lowlevel.checkpoint()
        for shown in self._nodes.shown():
            shown.view.rebased()
        worktree.journal.drop_below(begun.head.lsn, keep_open=any(i.regions for i in index.orphans.values()))
        self.head = begun.head
        self._pin()
        self.seals += 1
        self._deleted += begun.deleted
        self._oldest_at = trio.current_time()
        self._set_bound(begun.head.lsn + BOUND_BYTES)
        self._report_progress()

    async def _tree(self, tree_id: bytes) -> Tree:
        return await trio.to_thread.run_sync(self._store.objects.tree, tree_id)

    # -- Space -------------------------------------------------------------------------------------------------------

    def _collection_is_due(self) -> bool:
        # Whoever has asked wants to hear what was freed, so it is left to that collection.
        if self._collectors:
            return False
        return self._deleted > 0 or self._worktree.journal.end - self._journaled_at_collect > _COLLECT_AFTER_BYTES

    def _pin(self) -> None:
        """Publish what this mount needs although no ref may lead to it."""
        pins = [self.head.tree]
        pins.extend(shown.view.tree_id for shown in self._nodes.shown() if shown.view.tree_id)
        pins.extend(orphan.base for orphan in self._worktree.index.orphans.values() if orphan.is_file and orphan.base)
        self._store.pins.keep(self._worktree.branch, pins)

    async def _collect_now_and_then(self) -> None:
        """Collect what is easily had; where others are at work, after a later seal."""
        try:
            done = await self._collect(messages.Collect([]))
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
        deadline = trio.current_time() + _PATIENCE_SECONDS
        while True:
            try:
                return await self._collect(messages.Collect([], TIGHT, 0.0))
            except Busy:
                if trio.current_time() > deadline:
                    raise
            except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
                await self._stop()
                raise StoreFault("the process that collects ended; see the log of the mount") from error
            await trio.sleep(_LOOK_SECONDS)

    async def _collect(self, request: messages.Collect) -> messages.Collected:
        async with self._talking:
            self._pin()
            await self._say(request)
            done = await self._hear()
        if not isinstance(done, messages.Collected):
            raise StoreFault(f"the sealer answered out of turn: {type(done).__name__}")
        self._store.objects.release_dropped()
        self._deleted = 0
        self._journaled_at_collect = self._worktree.journal.end
        return done

    async def release(self) -> None:
        """Let go of packs that another process has dropped, here and in the sealer, which is started anew."""
        self._store.objects.release_dropped()
        async with self._talking:
            await self._stop()

    # -- The process -------------------------------------------------------------------------------------------------

    async def _say(self, message: messages.Request) -> None:
        if self._process is None:
            self._received.clear()
            self._process = await trio.lowlevel.open_process(
                [
                    sys.executable,
                    "-m",
                    "helios_fs.sealer.process",
                    self._store.path,
                    self._worktree.branch,
                    str(self._fence),
                ],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
            )
        assert self._process.stdin is not None
        await self._process.stdin.send_all(messages.frame(message))

    async def _hear(self) -> messages.Reply:
        (length,) = messages.LENGTH.unpack(await self._take(messages.LENGTH.size))
        reply: messages.Reply = messages.decode_reply(await self._take(length))
        if isinstance(reply, messages.Refused):
            if reply.error == "StoreFull":
                raise StoreFull(reply.message)
            if reply.error == "Busy":
                raise Busy(reply.message)
            raise StoreFault(f"{reply.error}: {reply.message}")
        return reply

    async def _take(self, count: int) -> bytes:
        assert self._process is not None and self._process.stdout is not None
        while len(self._received) < count:
            more = await self._process.stdout.receive_some(1 << 16)
            if not more:
                raise trio.BrokenResourceError("its pipe was closed")
            self._received += more
        taken = bytes(self._received[:count])
        del self._received[:count]
        return taken

    async def _stop(self) -> None:
        if self._process is not None:
            process, self._process = self._process, None
            process.kill()
            with trio.CancelScope(shield=True):
                await process.wait()

    async def close(self) -> None:
        """End the sealer and wait until it is gone. Whatever it had not published stays in the journal."""
        await self._stop()
