"""All branches that one mount shows: the one that is mounted, and those below its `.branches`, opened when needed.

Knows how a branch is opened, put together and closed; what is asked of it is the handlers'.

E1. A branch is open in one process: whoever opens it holds its lock. One that another process owns raises Busy.
E2. Opening waits for disks, so it runs in a thread; requests for other branches flow meanwhile.
E3. A branch that nobody has used for a while, and that is sealed, is closed: what is idle costs next to nothing.
"""

import logging
from collections.abc import Awaitable, Callable
from typing import Final, NamedTuple

import trio

from helios_fs.errors import HeliosError, NoSuchEntry, ReadOnly
from helios_fs.fuse.branches_dir import BranchesDir
from helios_fs.fuse.children import ChildBranches
from helios_fs.fuse.durability import Durability
from helios_fs.fuse.history_dir import HistoryDir
from helios_fs.fuse.invalidation import forget_name
from helios_fs.fuse.nodes import CONTROL_VIEW, Nodes, Numbers
from helios_fs.fuse.operations import Operations
from helios_fs.fuse.place import Place
from helios_fs.fuse.sealer_pipe import SealerPipe
from helios_fs.fuse.sealing import Sealing
from helios_fs.fuse.watchers import Watchers
from helios_fs.history.changed import Changed
from helios_fs.objects.snapshot import Head
from helios_fs.store.locks import BranchLock
from helios_fs.store.store import Store
from helios_fs.worktree.frozen import frozen
from helios_fs.worktree.inos import Inos
from helios_fs.worktree.recovery import take_over
from helios_fs.worktree.view import View
from helios_fs.worktree.worktree import Worktree

_log = logging.getLogger(__name__)

_LOOK_SECONDS: Final = 30.0
_FORGET_SECONDS: Final = 0.5
_MANY: Final = 256
"""Open branches, each of which has some descriptors and some hundred KiB."""

Serve = Callable[..., Awaitable[None]]
"""serve(branch, task_status=…) answers the control socket of an open branch until cancelled."""


class Options(NamedTuple):
    """What was asked for with -o."""

    snapshots_name: bytes = b".snapshots"
    branches_name: bytes = b".branches"
    listed: bool = False
    read_only: bool = False


class ShownBranch:
    """One open branch, with all that answers for it."""

    nodes: Nodes

    def __init__(
        self,
        forest: "Forest",
        worktree: Worktree,
        fence: int,
        lock: BranchLock | None,
        parent: "ShownBranch | None",
        is_frozen: bool = False,
    ) -> None:
        """`fence` is the epoch under which the branch is owned, `lock` what is released when it is closed.

        One that `is_frozen` shows a snapshot: it is not owned, has no branches and is never sealed.
        """
        self.is_frozen = is_frozen
        self.worktree = worktree
        self.branch = worktree.branch
        self.lock = lock
        self.parent = parent
        self.scope = trio.CancelScope()
        """Around its tasks."""
        self._forest = forest
        numbers, options = forest.numbers, forest.options
        if parent is None:
            self._numbers_taken = [CONTROL_VIEW]
            self.place = Place(worktree.index)
        else:
            self._numbers_taken = [numbers.take(None), numbers.take(None, self.branch)]
            nodeid = parent.nodes.branch_nodeid(self.branch)
            self.place = Place(worktree.index, self._numbers_taken[1], numbers.next_generation(), nodeid)
        self.nodes = Nodes(self._open_view, numbers, self._numbers_taken[0])
        self.durability = Durability(worktree, self.root_path, self.place.nodeid)
        history = HistoryDir(
            worktree,
            self.nodes,
            self.durability,
            options.snapshots_name,
            options.listed,
            options.read_only,
            self.place,
            options.branches_name,
        )
        self.operations = Operations(worktree, forest.store, history, self.durability, options.read_only, self.place)
        self.nodes.owner = self.operations
        for number in self._numbers_taken:
            numbers.owners[number] = self.operations
        if parent is not None:
            forest.roots[self.place.root_nodeid] = self.operations
        self.children = ChildBranches(forest, self)
        if not is_frozen:
            history.show_branches(BranchesDir(self.nodes, worktree.index.root, self.children))
        self.sealing = Sealing(
            worktree,
            forest.store,
            self.nodes,
            forest.sealer,
            fence,
            self.operations.set_throttle,
            self.children.finish,
            forest.pins,
        )
        self.operations.throttle = self.sealing.throttle

    def _open_view(self, snapshot_id: str) -> View:
        worktree = self.worktree
        snapshot = worktree.snapshots.get(snapshot_id)
        if snapshot.tree:
            # Before it is read; the next seal lets go of it again where nobody looks any more.
            self._forest.store.pins.add(self.branch, snapshot.tree)
        tree = worktree.objects.tree(snapshot.tree) if snapshot.tree else None
        return View(worktree.index, worktree.objects, worktree.journal, snapshot.epoch, snapshot.tree, tree)

    def root_path(self) -> bytes:
        """Return where its tree is now."""
        if self.parent is None:
            return self._forest.mountpoint
        name = self.parent.children.name_of(self.branch)
        return b"/".join([self.parent.root_path(), self._forest.options.branches_name, name.encode()])

    async def tell(self, changed: Changed) -> None:
        """Return when the kernel knows what was changed in the tree without it; watchers hear of it soon after."""
        mountpoint = self._forest.mountpoint
        await self._forest.watchers.tell(changed, self.root_path()[len(mountpoint) :].lstrip(b"/"), self.place)

    @property
    def is_unused(self) -> bool:
        """Whether nobody holds anything of it: the kernel has forgotten all but what is dirty."""
        index = self.worktree.index
        held = any(inode.holds for inode in index.inodes.values() if inode is not index.root and not inode.is_directory)
        return not held and not index.orphans and not self.nodes.shown()

    @property
    def is_idle(self) -> bool:
        """Whether nobody holds anything of it, and the store has all of it."""
        return (
            len(self.worktree.index.inodes) == 1
            and self.worktree.index.root.holds == 1
            and self.is_unused
            and not self.children.unfinished
            and self.worktree.journal.end == self.sealing.head.lsn
        )

    async def run(self, serve: Serve, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Seal and answer the control socket until it is closed; reports started when the socket listens."""
        with self.scope:
            async with trio.open_nursery() as nursery:
                await nursery.start(serve, self)
                task_status.started()
                if self.is_frozen:
                    await trio.sleep_forever()
                nursery.start_soon(self.sealing.run)
                nursery.start_soon(self.children.run)

    def close(self) -> None:
        """Let go of the branch. What is not synced is in its journal all the same."""
        self.scope.cancel()
        if self.worktree.journal.broken is None:
            self.worktree.journal.sync()
        self.worktree.journal.close()
        for number in self._numbers_taken:
            self._forest.numbers.free(number)
        self._forest.roots.pop(self.place.root_nodeid, None)
        if self.lock is not None:
            self.lock.release()


class Forest:
    """The branches of one mount."""

    def __init__(self, store: Store, mountpoint: bytes, options: Options) -> None:
        self.store = store
        self.mountpoint = mountpoint
        self.options = options
        self.numbers = Numbers()
        self.roots: dict[int, Operations] = {}
        """Nodeids of the roots of open branches below `.branches` -> who answers for them."""
        self.sealer = SealerPipe(store.path)
        self.watchers = Watchers(mountpoint)
        self._inos = Inos(store.reserve_inos)
        self._open: dict[str, ShownBranch] = {}
        self._opening: dict[str, trio.Lock] = {}
        self._nursery: trio.Nursery | None = None
        self._serve: Serve | None = None
        self.first: ShownBranch

    def open_first(self, branch: str) -> ShownBranch:
        """Open the branch that is mounted, whose lock the caller holds."""
        self.first = ShownBranch(self, *self._take_over(branch), None, None)
        self._open[branch] = self.first
        return self.first

    def show_frozen(self, branch: str, tree_id: bytes) -> ShownBranch:
        """Show a sealed snapshot of a branch as the tree that is mounted; nothing of it is anybody's to change."""
        self.store.pins.keep(("frozen", branch), [tree_id])
        self.first = ShownBranch(self, frozen(self.store, branch, tree_id), 0, None, None, is_frozen=True)
        self.first.sealing.head = Head(branch, tree_id, 0, 0)
        self._open[branch] = self.first
        return self.first

    def shown(self) -> list[ShownBranch]:
        """Return the branches that are open."""
        return list(self._open.values())

    def pins(self) -> list[bytes]:
        """Return what all of them need of the store, whatever refs say."""
        return [pin for shown in self._open.values() for pin in shown.sealing.pins()]

    def find(self, branch: str) -> ShownBranch | None:
        """Return a branch, if it is open."""
        return self._open.get(branch)

    async def open(self, branch: str) -> ShownBranch:
        """Return a branch that was made from one that is open, opened where it is not.

        Raises Busy where another process owns it, NoSuchEntry where it is gone or no descendant, CorruptObject.
        """
        shown = self._open.get(branch)
        if shown is not None:
            return shown
        async with self._opening.setdefault(branch, trio.Lock()):
            shown = self._open.get(branch)
            if shown is not None:
                return shown
            parent = await self._parent_of(branch)
            if self._nursery is None or self._serve is None:
                raise ReadOnly("the mount is only starting; try again")
            lock = self.store.lock_branch(branch)
            try:
                worktree, fence = await trio.to_thread.run_sync(self._take_over, branch)
                shown = ShownBranch(self, worktree, fence, lock, parent)
            except BaseException:
                lock.release()
                raise
            self._open[branch] = shown
            await self._nursery.start(shown.run, self._serve)
            return shown

    def _take_over(self, branch: str) -> tuple[Worktree, int]:
        return take_over(self.store, branch, self._inos)

    async def _parent_of(self, branch: str) -> ShownBranch:
        for shown in self._open.values():
            if shown.children.has(branch):
                await shown.children.finish_one(branch)
                return shown
        info = await trio.to_thread.run_sync(self.store.branches.find, branch)
        if info is None or info.deleted_ns or branch == self.first.branch:
            raise NoSuchEntry(f"no branch with the id {branch} was made from the one that is mounted")
        parent = await self.open(info.parent)
        if not parent.children.has(branch):
            raise NoSuchEntry(f"there is no branch with the id {branch}")
        return parent

    def branch_of(self, nodeid: int, owner: Operations) -> str | None:
        """Return the id of the branch whose root a nodeid of `owner` is, while that is not open; None otherwise."""
        for shown in self._open.values():
            if shown.operations is owner:
                return shown.nodes.branch_of(nodeid)
        return None

    # -- Running -----------------------------------------------------------------------------------------------------

    async def run(self, serve: Serve, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Seal, and answer the control sockets, until cancelled; `serve(branch)` answers one branch's.

        Reports started when the socket of the branch that is mounted listens.
        """
        try:
            async with trio.open_nursery() as nursery:
                self._nursery, self._serve = nursery, serve
                await nursery.start(self.first.run, serve)
                task_status.started()
                nursery.start_soon(self.watchers.run)
                nursery.start_soon(self._close_what_is_idle)
        finally:
            await self.sealer.stop()

    async def _close_what_is_idle(self) -> None:
        ends: dict[str, int] = {}
        while True:
            await trio.sleep(_LOOK_SECONDS)
            for shown in self.shown():
                end = shown.worktree.journal.end
                is_quiet = shown.parent is not None and ends.get(shown.branch) == end
                # Making the kernel forget takes the path from under whoever has his working directory there, so it is
                # asked to only where too many are open.
                if is_quiet and (shown.is_idle or len(self._open) > _MANY):
                    await self.close_if_idle(shown.branch)
                ends[shown.branch] = end

    async def close_if_idle(self, branch: str) -> bool:
        """Close a branch below `.branches` that nobody uses; tell whether it is closed."""
        shown = self._open.get(branch)
        if shown is None:
            return True
        if shown.parent is None or any(other.parent is shown for other in self.shown()):
            return False
        is_there = shown.parent.children.has(branch)
        try:
            if is_there:
                await shown.sealing.seal_now()
                directory, name = shown.parent.nodes.branches_nodeid, shown.parent.children.name_of(branch)
                # What the kernel has looked up and nobody uses it forgets now, and says so in requests of its own.
                await trio.to_thread.run_sync(forget_name, directory, name.encode())
        except HeliosError:
            return False
        with trio.move_on_after(_FORGET_SECONDS):
            while not shown.is_unused:
                await trio.sleep(_FORGET_SECONDS / 50)
        # Of one that was deleted nobody misses what is not sealed.
        if not (shown.is_idle if is_there else shown.is_unused) or self._open.get(branch) is not shown:
            return False
        self.close(shown)
        return True

    def close_soon(self, shown: ShownBranch) -> None:
        """Close a branch that was deleted, as soon as nobody uses it."""
        if self._nursery is not None:
            self._nursery.start_soon(self.close_if_idle, shown.branch)

    def close(self, shown: ShownBranch) -> None:
        """Close a branch below `.branches`."""
        self._open.pop(shown.branch, None)
        try:
            shown.close()
            self.store.pins.keep(shown.branch, ())
        except HeliosError:
            _log.exception("branch %s could not be closed cleanly; its journal has everything", shown.branch)

    def close_all(self) -> None:
        """Make everything durable and let go of every branch."""
        for shown in self.shown():
            self.close(shown)
