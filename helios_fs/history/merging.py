"""Merging one branch into another: what the merged tree is, and how it becomes the target's working tree.

Knows working trees, journals and the store; nothing of mounts or of how it is asked. `merge_offline` does all of it
for a target that nobody has open; a daemon does the same steps with its own sealer between them.

J1. The source is a snapshot: the target's new one names it as its second parent, and the next merge begins there.
J2. The target changes in one group whose last record is that snapshot: after a crash it is there with all, or not.
J3. Nothing between the target's seal and its change: where it has changed, it is sealed and merged again.
J4. What the merge made is pinned by a ref from before the journal names it until the target's seal does.
J5. The source is said to be held by the target (`kept_lsn`) only once the target's journal is durable.
"""

from typing import Final, NamedTuple

import msgspec

from helios_fs.errors import InvalidArgument, NoSuchEntry, NotPermitted
from helios_fs.history.ancestry import Base, History
from helios_fs.history.branching import finish_all
from helios_fs.history.merge import Merged, merge_trees
from helios_fs.history.merge_places import Conflict
from helios_fs.history.merge_text import Favour
from helios_fs.history.restore import Changed, Plan, Restore
from helios_fs.objects.snapshot import MAIN_BRANCH, Head, HeadMoved, Snapshot
from helios_fs.sealer.process import seal
from helios_fs.store.store import Store
from helios_fs.store.writer import Writer
from helios_fs.worktree.recovery import take_over
from helios_fs.worktree.worktree import Worktree

MAX_TRIES: Final = 5
"""How often a target that keeps changing is merged into again."""
_PIN: Final = "merging into "
"""No branch's id begins like this."""


class Source(NamedTuple):
    """What is merged: a sealed state of another branch."""

    branch: str
    snapshot: str
    """Id of the snapshot that is this state; a dry run needs none."""
    tree: bytes
    lsn: int
    """Everything before this position of its branch's journal is in the snapshot."""


class Wanted(NamedTuple):
    """How it is to be merged."""

    source: Source
    labels: tuple[str, str]
    """What target and source are called."""
    favour: Favour = None
    dry_run: bool = False
    message: str = ""
    user: str = ""
    host: str = ""


class Outcome(NamedTuple):
    """What came of it."""

    base: str
    """The snapshot from which both sides were told."""
    conflicts: list[Conflict]
    changes: int
    snapshot: str
    """The target's new snapshot; empty where nothing was done: a conflict, a dry run, or nothing to merge."""
    up_to_date: bool
    """The target has all of the source already."""


class Ready(NamedTuple):
    """A merge that was computed, and only has to be applied."""

    merged: Merged
    base: Base
    up_to_date: bool
    plan: Plan | None
    """None where there is nothing to apply."""


class Merging:
    """One merge into one branch, whose owner the caller is."""

    def __init__(self, store: Store, worktree: Worktree, fence: int, wanted: Wanted) -> None:
        """Raises InvalidArgument for a branch and itself."""
        if wanted.source.branch == worktree.branch:
            raise InvalidArgument(f"{wanted.labels[0]} cannot be merged into itself")
        self._store = store
        self._worktree = worktree
        self._fence = fence
        self._wanted = wanted
        self._restore = Restore(worktree, store.objects)
        self._writer: Writer | None = None
        self._pinned = False
        self._needs_pin = False

    def prepare(self, ours: bytes) -> Ready:
        """Merge the source into the tree `ours`, sealed just now. May run in a thread; publishes, changes nothing.

        Raises NoSuchEntry where the source's snapshot is gone, NotPermitted where the branches have nothing in common,
        CorruptObject, StoreFull, StoreFault.
        """
        self._discard()
        source, snapshot = self._wanted.source, self._wanted.source.snapshot
        if not self._wanted.dry_run and self._store.refs.find_snapshot(source.branch, snapshot) is None:
            raise NoSuchEntry(f"{self._wanted.labels[1]} has no snapshot '{snapshot}' any more; merge again")
        history = History(self._store.refs.all_snapshots(), self._store.branches.all(deleted=True))
        base = history.base(self._worktree.branch, source.branch)
        if base is None:
            raise NotPermitted(f"{self._wanted.labels[1]} and {self._wanted.labels[0]} have no snapshot in common")
        if source.tree == base.tree:
            return Ready(Merged(ours, [], 0), base, True, None)
        self._writer = self._store.writer()
        merged = merge_trees(
            self._store.objects,
            self._writer,
            base.tree,
            ours,
            source.tree,
            self._wanted.favour,
            take_ino=lambda: self._store.reserve_inos(1)[0],
            labels=self._wanted.labels,
        )
        if not merged.tree_id or self._wanted.dry_run:
            self._discard()
            return Ready(merged, base, False, None)
        self._pin(merged.tree_id)
        return Ready(merged, base, False, self._restore.plan(ours, merged.tree_id))

    def apply(self, ready: Ready) -> tuple[Changed, Snapshot]:
        """Change the working tree, and take the snapshot with two parents. It survives the death of the process.

        The working tree is still as `prepare` was told. Raises StoreFull or ReadOnly with nothing changed.
        """
        assert ready.plan is not None
        wanted = self._wanted
        taken: list[Snapshot] = []

        def take() -> None:
            text = wanted.message or f"merge {wanted.labels[1]}"
            taken.append(self._worktree.snapshot(b"", text, wanted.user, wanted.host, other=wanted.source.snapshot))

        changed = self._restore.apply(ready.plan, take)
        self._needs_pin = True
        return changed, taken[0]

    def keep(self) -> None:
        """Write down that the source's work is held by the target too. The target's journal is synced (J5)."""
        source = self._wanted.source
        info = self._store.branches.find(source.branch) if source.branch != MAIN_BRANCH else None
        if info is not None and info.kept_lsn < source.lsn:
            self._store.branches.write(msgspec.structs.replace(info, kept_lsn=source.lsn))

    def sealed(self) -> None:
        """Hear that the target has been sealed since `apply`."""
        self._needs_pin = False

    def close(self) -> None:
        """Let go of what was merged, and of the pin where nothing needs it any more. May run in a thread."""
        if self._pinned and not self._needs_pin:
            self._pin(b"")
        self._discard()

    def _discard(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def _pin(self, tree: bytes) -> None:
        assert self._writer is not None
        pinned = Head(_PIN + self._worktree.branch, tree, 0, 0)
        self._writer.publish([HeadMoved(pinned)], self._worktree.branch, self._fence)
        self._pinned = bool(tree)

    def outcome(self, ready: Ready, snapshot: str) -> Outcome:
        """Return what is to be told."""
        return Outcome(
            ready.base.snapshot, ready.merged.conflicts, ready.merged.changes, snapshot, up_to_date=ready.up_to_date
        )


def unsealed_between(store: Store, *branches: str) -> list[str]:
    """Return the branches from which these were made whose beginnings the store has not yet: seal them first.

    A common ancestor may be where one of them began.
    """
    found: list[str] = []
    for branch in branches:
        info = store.branches.find(branch)
        while info is not None:
            info = store.branches.find(info.parent)
            if info is None or info.id in (*branches, *found):
                continue
            if store.refs.find_snapshot(info.id, info.snapshot) is None:
                found.append(info.id)
    return found


def merge_offline(store: Store, target: str, wanted: Wanted) -> Outcome:
    """Merge into a branch that nobody has open. Durable on return.

    Raises Busy where somebody has, and what `Merging` does; then nothing was changed.
    """
    with store.lock_branch(target):
        worktree, fence = take_over(store, target)
        try:
            finish_all(store, worktree)
            return _merge(store, worktree, fence, wanted)
        finally:
            worktree.journal.close()


def _merge(store: Store, worktree: Worktree, fence: int, wanted: Wanted) -> Outcome:
    merging = Merging(store, worktree, fence, wanted)
    try:
        ready = merging.prepare(_sealed(store, worktree, fence))
        if ready.plan is None:
            if ready.up_to_date and not wanted.dry_run:
                merging.keep()
            return merging.outcome(ready, "")
        _, snapshot = merging.apply(ready)
        worktree.journal.sync()
        merging.keep()
        _sealed(store, worktree, fence)
        merging.sealed()
        return merging.outcome(ready, snapshot.id)
    finally:
        merging.close()


def source_offline(store: Store, branch: str, message: str, user: str, host: str, dry_run: bool = False) -> Source:
    """Seal a branch that nobody has open, with a snapshot of its newest state; one that is there already will do.

    Durable on return. Raises Busy where somebody has it, and what sealing does.
    """
    with store.lock_branch(branch):
        worktree, fence = take_over(store, branch)
        try:
            finish_all(store, worktree)
            tree = _sealed(store, worktree, fence)
            own = store.refs.snapshots(branch)
            if dry_run:
                return Source(branch, "", tree, store.head(branch).lsn)
            if not own or own[-1].tree != tree:
                worktree.snapshot(b"", message, user, host)
                worktree.journal.sync()
                _sealed(store, worktree, fence)
                own = store.refs.snapshots(branch)
            return Source(branch, own[-1].id, own[-1].tree, store.head(branch).lsn)
        finally:
            worktree.journal.close()


def _sealed(store: Store, worktree: Worktree, fence: int) -> bytes:
    """Seal everything up to now, and return the tree. The working tree in memory stays as it is."""
    if worktree.changed_in_epoch:
        worktree.freeze()
        worktree.journal.sync()
    with store.writer() as writer:
        outcome = seal(store, writer, worktree.journal, worktree.branch, fence, worktree.journal.end)
    return outcome.head.tree
