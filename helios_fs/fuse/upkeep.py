"""What a mount does unasked, where it was told to: snapshots now and then, and letting old ones go.

Knows when; what is done is the daemon's. Time is trio's clock, so tests need not wait.

K1. A tree that has not changed since its newest snapshot gets no other one.
K2. What goes wrong is logged and tried again later; the mount goes on.
"""

import logging
from collections.abc import Awaitable, Callable
from typing import Final

import trio

from helios_fs.errors import HeliosError
from helios_fs.history import pruning
from helios_fs.history.schedule import Schedule
from helios_fs.objects.snapshot import Snapshot
from helios_fs.store.store import Store
from helios_fs.worktree.worktree import Worktree

_log = logging.getLogger(__name__)

_LOOKS_FOR_QUIET: Final = 20
_PRUNE_SECONDS: Final = 60.0
_DELETED_AT_ONCE: Final = 500
"""Deleting takes the loop some 10 µs each; requests wait for no more than this many."""


class AutoSnapshot:
    """Takes snapshots by a schedule."""

    def __init__(self, schedule: Schedule, worktree: Worktree, take: Callable[[], Awaitable[None]]) -> None:
        """`take` takes a snapshot where the tree has changed, with what mappings have stored."""
        self._schedule = schedule
        self._worktree = worktree
        self._take = take

    async def run(self) -> None:
        """Take snapshots until cancelled."""
        if self._schedule.when_quiet:
            await self._when_quiet()
        while True:
            await trio.sleep(self._schedule.seconds)
            await self._try()

    async def _when_quiet(self) -> None:
        seconds = self._schedule.seconds
        position, since = self._worktree.tree_position, trio.current_time()
        while True:
            await trio.sleep(seconds / _LOOKS_FOR_QUIET)
            now = trio.current_time()
            if position != self._worktree.tree_position:
                position, since = self._worktree.tree_position, now
            elif now - since >= seconds and self._worktree.changed_since_snapshot:
                await self._try()
                since = now

    async def _try(self) -> None:
        try:
            await self._take()
        except HeliosError as error:
            _log.warning("no automatic snapshot was taken: %s", error)


class AutoPrune:
    """Applies the rules of retention that the branch keeps, whenever its snapshots have changed."""

    def __init__(self, store: Store, worktree: Worktree, delete: Callable[[list[str]], Awaitable[None]]) -> None:
        """`delete` deletes snapshots, all of which are there and may be deleted when it is called."""
        self._store = store
        self._worktree = worktree
        self._delete = delete

    async def run(self) -> None:
        """Look at the snapshots once a minute, until cancelled."""
        seen = None
        while True:
            version = self._worktree.snapshots.version
            if seen != version:
                try:
                    await self.prune()
                    seen = version
                except HeliosError as error:
                    _log.warning("snapshots were not pruned: %s", error)
            await trio.sleep(_PRUNE_SECONDS)

    async def prune(self) -> None:
        """Delete what no rule keeps. Without rules everything stays."""
        rules = pruning.find_rules(self._store.path, self._worktree.branch)
        if rules is None or not rules.keeps_anything:
            return
        snapshots = self._worktree.snapshots.all()
        verdicts = await trio.to_thread.run_sync(pruning.plan, self._store, self._worktree.branch, snapshots, rules)
        gone = [verdict.id for verdict in verdicts if not verdict.reasons]
        judged = {one.id: one for one in snapshots}
        for start in range(0, len(gone), _DELETED_AT_ONCE):
            # What somebody has protected, renamed or deleted while the rules were applied is left alone.
            part = [judged[snapshot_id] for snapshot_id in gone[start : start + _DELETED_AT_ONCE]]
            await self._delete([one.id for one in part if self._is_as_judged(one)])
        if gone:
            _log.info("%d snapshots went, as no rule kept them", len(gone))

    def _is_as_judged(self, snapshot: Snapshot) -> bool:
        found = self._worktree.snapshots.find(snapshot.id.encode())
        return found is not None and (found.name, found.protected) == (snapshot.name, snapshot.protected)
