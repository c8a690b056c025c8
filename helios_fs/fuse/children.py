"""The branches that were made from one that is open: their names, and how they come to have a journal of their own.

C1. While a branch is open here, nobody else makes, renames or deletes what was made from it: its names are kept in
    memory.
C2. A branch that was made is there at once. Its journal is made a moment later, for many at once, or when somebody
    needs it: it is looked into, its parent is sealed, the mount ends.
"""

from __future__ import annotations

import logging
import socket
from typing import TYPE_CHECKING, Final

import trio

from helios_fs.errors import EntryExists, HeliosError, NoSuchEntry
from helios_fs.fuse.history_dir import user_name
from helios_fs.history import branching
from helios_fs.objects.snapshot import Fork, Snapshot
from helios_fs.store.branches import check_name

if TYPE_CHECKING:
    from helios_fs.fuse.forest import Forest, ShownBranch

_log = logging.getLogger(__name__)

_BURST_SECONDS: Final = 0.05
_BURST_TURNS: Final = 20
"""A new branch waits until none has followed for so long, a second at most: one sync of the journal does for all."""
_RETRY_SECONDS: Final = 5.0
_HOST: Final = socket.gethostname()


class ChildBranches:
    """What was made from one branch."""

    def __init__(self, forest: Forest, shown: ShownBranch) -> None:
        self._forest = forest
        self._shown = shown
        self._store = forest.store
        self._names = {info.name: info.id for info in self._store.branches.children(shown.branch)}
        self._unfinished: list[tuple[Fork, int]] = list(shown.worktree.unfinished_forks)
        self._names.update({made.name: made.snapshot.branch for made, _ in self._unfinished})
        self._unsettled: set[str] = set()
        """Those whose journal and file may not survive a power cut yet."""
        self._finishing = trio.Lock()
        self._wanted = trio.Event()
        if self._unfinished:
            self._wanted.set()

    @property
    def unfinished(self) -> int:
        """How many have no journal of their own yet."""
        return len(self._unfinished)

    def names(self) -> dict[str, str]:
        """Return name -> branch id of those that are there."""
        return self._names

    def has(self, branch: str) -> bool:
        """Whether a branch was made from this one, and is there."""
        return branch in self._names.values()

    def name_of(self, branch: str) -> str:
        """Return what one is called. Raises NoSuchEntry."""
        for name, known in self._names.items():
            if known == branch:
                return name
        raise NoSuchEntry(f"there is no branch with the id {branch}")

    def make(self, name: str, uid: int) -> str:
        """Make a branch of the working tree as it is now; return its id.

        It survives the death of the process on return. Raises EntryExists, InvalidArgument, NameTooLong, StoreFull.
        """
        check_name(name)
        if name in self._names:
            raise EntryExists(f"a branch named '{name}' exists")
        made, position = branching.fork(self._shown.worktree, name, user_name(uid), _HOST)
        branch = made.snapshot.branch
        self._names[name] = branch
        self._unfinished.append((made, position))
        self._wanted.set()
        return branch

    async def make_from(self, snapshot: Snapshot, name: str, uid: int) -> str:
        """Make a branch that begins with a sealed snapshot; return its id. Durable on return. Raises as `make` does."""
        check_name(name)
        async with self._finishing:
            if name in self._names:
                raise EntryExists(f"a branch named '{name}' exists")
            info = await trio.to_thread.run_sync(
                branching.fork_snapshot, self._store, self._shown.branch, snapshot, name, user_name(uid), _HOST
            )
            self._names[name] = info.id
        return info.id

    async def finish(self) -> None:
        """Return when every branch that was made has a journal of its own, durably. Raises StoreFull, StoreFault.

        Between the moment when nothing was left to do and the return nobody else runs.
        """
        async with self._finishing:
            while self._unfinished or self._unsettled:
                for made, position in list(self._unfinished):
                    await self._finish(made, position)
                for branch in list(self._unsettled):
                    await self._settle(branch)

    async def finish_one(self, branch: str) -> None:
        """As `finish`, for one of them: it is about to be used."""
        async with self._finishing:
            for made, position in list(self._unfinished):
                if made.snapshot.branch == branch:
                    await self._finish(made, position)
            if branch in self._unsettled:
                await self._settle(branch)

    async def _finish(self, made: Fork, position: int) -> None:
        journal = self._shown.worktree.journal
        if journal.synced < position:
            await self._shown.durability.sync()
        await trio.to_thread.run_sync(branching.finish_fork, self._store, journal, made, position)
        self._unsettled.add(made.snapshot.branch)
        self._unfinished.remove((made, position))

    async def _settle(self, branch: str) -> None:
        await trio.to_thread.run_sync(branching.settle_fork, self._store, branch)
        self._unsettled.discard(branch)

    async def run(self) -> None:
        """Finish what was made, soon after it was, until cancelled."""
        while True:
            await self._wanted.wait()
            await self._let_a_burst_pass()
            self._wanted = trio.Event()
            try:
                await self.finish()
            except HeliosError as error:
                _log.warning("a branch has no journal yet, and it will be tried again: %s", error)
                self._wanted.set()
                await trio.sleep(_RETRY_SECONDS)

    async def _let_a_burst_pass(self) -> None:
        for _ in range(_BURST_TURNS):
            made = len(self._unfinished)
            await trio.sleep(_BURST_SECONDS)
            if made == len(self._unfinished):
                return

    async def delete(self, branch: str, force: bool = False) -> None:
        """Delete one. Raises Busy where another process has it or it has branches, NotPermitted where work is lost."""
        if not (self._forest.find(branch) is None and await self._delete_untouched(branch)):
            shown = await self._forest.open(branch)
            await shown.children.finish()
            end = shown.worktree.journal.end
            await trio.to_thread.run_sync(branching.delete_branch, self._store, branch, end, force)
            self._forest.close_soon(shown)
        self._names.pop(self.name_of(branch), None)

    async def _delete_untouched(self, branch: str) -> bool:
        """Delete one without opening it, where nobody has done anything in it."""
        async with self._finishing:
            for made, position in list(self._unfinished):
                if made.snapshot.branch == branch:
                    await self._finish(made, position)
            return await trio.to_thread.run_sync(branching.delete_untouched, self._store, branch)

    async def rename(self, branch: str, name: str) -> None:
        """Rename one. Raises EntryExists, InvalidArgument, NameTooLong."""
        check_name(name)
        await self.finish()
        if name in self._names:
            raise EntryExists(f"a branch named '{name}' exists")
        await trio.to_thread.run_sync(branching.rename_branch, self._store, branch, name)
        former = self.name_of(branch)
        del self._names[former]
        self._names[name] = branch

    async def bring_back(self, branch: str) -> None:
        """Bring back one that was deleted. Raises EntryExists, NoSuchEntry."""
        info = await trio.to_thread.run_sync(branching.undelete_branch, self._store, branch)
        self._names[info.name] = info.id
