"""Making, renaming and deleting branches: what is more than a change of one working tree.

Knows working trees, journals and the store; nothing of mounts or of how it is asked.

K1. A branch is made by one record in its parent's journal, which ends an epoch: O(1), whatever is dirty. It survives
    the death of the process at once.
K2. What the record says becomes a journal and a file of the branch's own (`finish_fork`), soon after, by whoever owns
    the parent, and before the parent seals anything more. Until then recovery of the parent finds the record.
K3. The new journal begins with what its parent has not sealed: the same files, shared. So it needs its parent no more.
K4. A branch is deleted only where that loses nothing, or by force; and even then it can be brought back until the next
    collection of garbage.
"""

import time

import msgspec

from helios_fs.errors import Busy, EntryExists, NotPermitted
from helios_fs.journal import forks
from helios_fs.journal.journal import Journal
from helios_fs.objects import record
from helios_fs.objects.ids import snapshot_ids
from helios_fs.objects.snapshot import Fork, Head, HeadMoved, Snapshot, SnapshotSealed, encode_fork
from helios_fs.store.branches import BranchInfo, check_name, journal_directory, new_branch_id
from helios_fs.store.store import Store
from helios_fs.worktree.recovery import FORKS_RESERVE_BYTES, recover, take_over
from helios_fs.worktree.worktree import Worktree


def fork(worktree: Worktree, name: str, user: str, host: str) -> tuple[Fork, int]:
    """Make a branch of a working tree as it is now; return what was recorded and the position behind the record.

    The caller has seen to it that the name is free. It survives the death of the process on return. Raises
    InvalidArgument, NameTooLong, StoreFull, ReadOnly.
    """
    check_name(name)
    newest = worktree.snapshots.newest
    beginning = Snapshot(
        id=snapshot_ids.take(newest.id if newest is not None else ""),
        branch=new_branch_id(),
        tree=b"",
        parents=[newest.id] if newest is not None else [],
        time_ns=time.time_ns(),
        epoch=worktree.index.epoch,
        message=f"branch {name}",
        user=user,
        host=host,
    )
    made = Fork(name, worktree.branch, beginning)
    worktree.end_epoch(record.FORK, encode_fork(made), frees=False)
    return made, worktree.journal.end


def finish_fork(store: Store, journal: Journal, made: Fork, position: int) -> BranchInfo:
    """Give a branch its journal and its file; `position` is the one behind the record in its parent's journal.

    The parent's `journal` is synced up to there, and drops nothing meanwhile. Durable after `settle_fork`, which comes
    before the first change of the branch and before the parent seals the record; repeating one that failed is fine.
    May wait for the disk: call it from a thread. Raises StoreFull, StoreFault.
    """
    beginning = made.snapshot
    head = store.head(made.parent)
    forks.fork(journal, journal_directory(store.path, beginning.branch), head.lsn, position)
    info = BranchInfo(
        id=beginning.branch,
        parent=made.parent,
        name=made.name,
        base=msgspec.structs.replace(head, branch=beginning.branch),
        fork_lsn=position,
        fork_epoch=beginning.epoch,
        snapshot=beginning.id,
        created_ns=beginning.time_ns,
        user=beginning.user,
        host=beginning.host,
    )
    store.branches.write(info, durably=False)
    return info


def settle_fork(store: Store, branch: str) -> None:
    """Make a branch's journal and its file durable. Waits for the disk. Raises StoreFault."""
    forks.sync_fork(journal_directory(store.path, branch))


def finish_all(store: Store, worktree: Worktree) -> None:
    """Do what an owner that died had not come to: give every branch that its journal names a journal of its own."""
    if worktree.unfinished_forks:
        worktree.journal.sync()
    while worktree.unfinished_forks:
        made, position = worktree.unfinished_forks[0]
        finish_fork(store, worktree.journal, made, position)
        settle_fork(store, made.snapshot.branch)
        worktree.unfinished_forks.pop(0)


def fork_offline(store: Store, parent: str, name: str, user: str, host: str) -> BranchInfo:
    """Make a branch of one that nobody has mounted. Durable on return. Raises Busy, and as `fork` does."""
    with store.lock_branch(parent):
        worktree, _ = take_over(store, parent)
        try:
            finish_all(store, worktree)
            check_free(store, parent, name)
            made, position = fork(worktree, name, user, host)
            worktree.journal.sync()
            info = finish_fork(store, worktree.journal, made, position)
            settle_fork(store, info.id)
            return info
        finally:
            worktree.journal.close()


def seal_alone(store: Store, branch: str) -> None:
    """Seal a branch that nobody owns, once the branches that its journal names have journals of their own.

    Durable on return. Raises Busy where somebody owns it, and as `seal_offline` does.
    """
    # A mount makes branches too, and must not load what only the sealer needs.
    from helios_fs.sealer.process import seal_offline

    adopt(store, branch)
    seal_offline(store.path, branch)


def adopt(store: Store, parent: str) -> None:
    """Finish the branches of a parent whose owner has died before it could. Raises Busy where somebody owns it."""
    with store.lock_branch(parent):
        worktree = recover(store, parent)
        try:
            finish_all(store, worktree)
        finally:
            worktree.journal.close()


def fork_snapshot(store: Store, parent: str, snapshot: Snapshot, name: str, user: str, host: str) -> BranchInfo:
    """Make a branch that begins with a sealed snapshot of its parent's history. Durable on return.

    The caller owns the parent, and has seen to it that the name is free. Raises InvalidArgument, StoreFull, StoreFault.
    """
    check_name(name)
    branch, epoch = new_branch_id(), snapshot.epoch + 1
    beginning = Snapshot(
        id=snapshot_ids.take(snapshot.id),
        branch=branch,
        tree=snapshot.tree,
        parents=[snapshot.id],
        time_ns=time.time_ns(),
        epoch=epoch,
        message=f"branch {name} from {snapshot.id}",
        user=user,
        host=host,
    )
    base = Head(branch, snapshot.tree, 0, epoch + 1)
    with store.writer() as writer:
        writer.publish([SnapshotSealed(beginning), HeadMoved(base)], branch, store.take_branch(branch))
    Journal.create(journal_directory(store.path, branch), 0, FORKS_RESERVE_BYTES).close()
    info = BranchInfo(
        id=branch,
        parent=parent,
        name=name,
        base=base,
        fork_lsn=0,
        fork_epoch=epoch,
        snapshot=beginning.id,
        created_ns=beginning.time_ns,
        user=user,
        host=host,
    )
    store.branches.write(info)
    return info


def delete_offline(store: Store, branch: str, force: bool) -> None:
    """Delete a branch that nobody has open, of a parent that nobody has mounted.

    Raises Busy, and as `delete_branch` does.
    """
    with store.lock_branch(store.branches.get(branch).parent), store.lock_branch(branch):
        worktree = recover(store, branch)
        try:
            finish_all(store, worktree)
            delete_branch(store, branch, worktree.journal.end, force)
        finally:
            worktree.journal.close()


def check_free(store: Store, parent: str, name: str) -> None:
    """Refuse a name that a branch of this parent has. Raises EntryExists."""
    if any(child.name == name for child in store.branches.children(parent)):
        raise EntryExists(f"a branch named '{name}' exists")


def rename_branch(store: Store, branch: str, name: str) -> BranchInfo:
    """Give a branch another name, below the same parent. Durable on return. Raises EntryExists, InvalidArgument."""
    check_name(name)
    info = store.branches.get(branch)
    check_free(store, info.parent, name)
    renamed = msgspec.structs.replace(info, name=name)
    store.branches.write(renamed)
    return renamed


def delete_untouched(store: Store, branch: str) -> bool:
    """Delete a branch that nobody has open and in which nobody has done anything; tell whether it was one.

    Raises Busy where it is open, or has branches of its own.
    """
    with store.lock_branch(branch):
        info = store.branches.get(branch)
        if not forks.is_untouched(journal_directory(store.path, branch), info.fork_lsn):
            return False
        delete_branch(store, branch, info.fork_lsn)
        return True


def delete_branch(store: Store, branch: str, journal_end: int, force: bool = False) -> BranchInfo:
    """Delete a branch whose lock the caller holds; `journal_end` is the end of its journal. Durable on return.

    Raises Busy where branches were made from it, and, without `force`, NotPermitted where it has work that nobody else
    holds.
    """
    info = store.branches.get(branch)
    children = store.branches.children(branch)
    if children:
        raise Busy(f"branch {info.name} has branches of its own ({', '.join(child.name for child in children[:3])})")
    if not force and journal_end > max(info.fork_lsn, info.kept_lsn):
        raise NotPermitted(
            f"branch {info.name} has changes that no other branch holds: merge it, or"
            f" `helios branch --force -d {info.name}`"
        )
    deleted = msgspec.structs.replace(info, deleted_ns=time.time_ns())
    store.branches.write(deleted)
    return deleted


def undelete_branch(store: Store, branch: str) -> BranchInfo:
    """Bring back a branch that was deleted and not collected yet. Durable on return. Raises EntryExists."""
    info = store.branches.get(branch)
    check_free(store, info.parent, info.name)
    back = msgspec.structs.replace(info, deleted_ns=0)
    store.branches.write(back)
    return back
