"""Recovery: a branch's memory from its last seal and its journal, after a crash or a clean end alike.

Knows nothing of mounts. Cost follows what is not sealed.
"""

import os
import stat
import time
from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from helios_fs.errors import CorruptObject, NoSuchEntry
from helios_fs.journal.journal import Frame, Journal
from helios_fs.journal.reserve import RESERVE_BYTES
from helios_fs.objects import record
from helios_fs.objects.entry import Tree, encode_tree
from helios_fs.objects.ids import KIND_TREE, ROOT_INO, looks_like_snapshot_id
from helios_fs.objects.snapshot import MAIN_BRANCH, Fork, Head, HeadMoved, SnapshotChanged, decode_fork, decode_snapshot
from helios_fs.store import branches
from helios_fs.store.store import Store
from helios_fs.worktree.index import Index
from helios_fs.worktree.inode import Inode
from helios_fs.worktree.inos import Inos
from helios_fs.worktree.replay import BESIDE_THE_TREE, CLOSES_EPOCH, finished, replay_frame
from helios_fs.worktree.snapshots import Snapshots
from helios_fs.worktree.worktree import Worktree

FORKS_RESERVE_BYTES: Final = 64 * 1024
"""What the journals of all branches but the first keep for a full disk: there may be thousands."""


MAX_EPOCH: Final = 1 << 63


def journal_directory(store: Store, branch: str) -> str:
    """Return where a branch's journal lies."""
    return branches.journal_directory(store.path, branch)


def open_journal(store: Store, head: Head) -> Journal:
    """Open the journal of a branch whose lock the caller holds, for appending behind what `recover` finds whole."""
    reserve = RESERVE_BYTES if head.branch == MAIN_BRANCH else FORKS_RESERVE_BYTES
    return Journal.open(journal_directory(store, head.branch), head.lsn, reserve_bytes=reserve)


def known_snapshots(store: Store, branch: str) -> Snapshots:
    """Return the sealed snapshots of a branch's history: its own, and those from before it was made."""
    info = store.branches.find(branch)
    snapshots = Snapshots(branch, info.snapshot if info is not None else "")
    lineage = [store.refs.snapshots(branch)]
    before = MAX_EPOCH
    while info is not None:
        before = min(before, info.fork_epoch)
        lineage.append([one for one in store.refs.snapshots(info.parent) if one.epoch < before])
        info = store.branches.find(info.parent)
    for generation in reversed(lineage):
        for snapshot in generation:
            snapshots.add(snapshot)
    return snapshots


def begin_branch(store: Store, branch: str) -> None:
    """Give the first branch of a new store an empty tree, owned by this process's user. Durable on return.

    The caller holds the branch's lock.
    """
    now_ns = time.time_ns()
    root = Inode(ROOT_INO, stat.S_IFDIR | 0o755, os.getuid(), os.getgid(), 0, now_ns)
    root.nlink = 2
    writer = store.writer()
    tree_id = writer.put(KIND_TREE, encode_tree(Tree(root.entry(b""), b"")))
    writer.publish([HeadMoved(Head(branch, tree_id, 0, 1))], branch, store.take_branch(branch))
    writer.close()


def take_over(store: Store, branch: str, inos: Inos | None = None) -> tuple[Worktree, int]:
    """Become the owner of a branch whose lock the caller holds: its working tree, and the epoch to publish under.

    The epoch comes first: a sealer that a former owner left behind can then publish nothing more, and what it had
    published is part of what is recovered. Raises as `recover` does.
    """
    if branch == MAIN_BRANCH and not store.refs.has_head(branch):
        begin_branch(store, branch)
    fence = store.take_branch(branch)
    _begin_at_the_fork(store, branch)
    return recover(store, branch, inos=inos), fence


def _begin_at_the_fork(store: Store, branch: str) -> None:
    """Let a branch that was never sealed begin with the tree that its parent has sealed at the fork, if it has.

    What the parent had not sealed when the branch was made need then not be replayed.
    """
    info = store.branches.find(branch)
    if info is None or info.base.lsn >= info.fork_lsn or store.refs.has_head(branch):
        return
    beginning = store.refs.find_snapshot(branch, info.snapshot)
    if beginning is not None:
        base = Head(branch, beginning.tree, info.fork_lsn, info.fork_epoch + 1)
        store.branches.write(msgspec.structs.replace(info, base=base))


def recover(
    store: Store, branch: str, progress: Callable[[int, int], None] | None = None, inos: Inos | None = None
) -> Worktree:
    """Return the working tree of a branch whose lock the caller holds: its last seal and all the journal says since.

    The torn tail of an append or a group that never finished is cut off; what was acknowledged is not part of it.
    `progress(done, total)` is told bytes; `inos` is the process's supply of inode numbers, if it has one. Raises
    CorruptObject where the journal is damaged, NoSuchEntry where there is no such branch.
    """
    try:
        head = store.head(branch)
    except NoSuchEntry:
        if branch != MAIN_BRANCH:
            raise
        begin_branch(store, branch)
        head = store.head(branch)
    tree = store.objects.tree(head.tree)
    journal = open_journal(store, head)
    index = Index(store.objects, tree, head.epoch)
    snapshots = known_snapshots(store, branch)
    info = store.branches.find(branch)
    own_from = info.fork_lsn if info is not None else 0
    lineage = store.branches.lineage(branch)
    forks: list[tuple[Fork, int]] = []
    position = head.lsn
    changed = False
    latest = snapshots.latest()
    differs = latest is None or latest.tree != head.tree
    for frame in finished(journal.frames(head.lsn, check_data=True)):
        replay_frame(index, frame)
        fork = replay_snapshots(index, lineage, snapshots, frame, inherited=frame.position < own_from)
        if fork is not None:
            forks.append((fork, frame.next_position))
        if frame.position < own_from <= frame.next_position:
            # The record that made this branch: its first snapshot is the tree as it is here.
            differs = False
        changed = frame.kind not in CLOSES_EPOCH
        if frame.kind not in BESIDE_THE_TREE:
            differs = frame.kind != record.SNAPSHOT
        position = frame.next_position
        if progress is not None:
            progress(position - head.lsn, journal.end - head.lsn)
    journal.recovered_to(position)
    # From here on a request may be waiting for the answer.
    index.objects = store.objects.without_waiting()
    worktree = Worktree(branch, index, journal, index.objects, inos or Inos(store.reserve_inos), snapshots)
    worktree.changed_in_epoch = changed
    worktree.unfinished_forks = [(fork, at) for fork, at in forks if not _is_there(store, fork)]
    if not differs:
        worktree.unchanged_since_snapshot()
    return worktree


def _is_there(store: Store, fork: Fork) -> bool:
    try:
        return store.branches.find(fork.snapshot.branch) is not None
    except CorruptObject:
        # It was being written when the power went; the record that it was made from is still here (B1).
        return False


def replay_snapshots(
    index: Index, lineage: Sequence[str], snapshots: Snapshots, frame: Frame, inherited: bool = False
) -> Fork | None:
    """Apply what a record says of snapshots and epochs; return a fork that this branch made.

    `lineage` is the branch's id, then those of the branches that it descends from.
    An `inherited` record is the parent's, from before this branch was made; what it names may be gone since. Raises
    CorruptObject where it does not fit (Y1).
    """
    made: Fork | None = None
    try:
        if frame.kind == record.SNAPSHOT:
            snapshot = decode_snapshot(frame.payload)
            if snapshot.epoch != index.epoch or not looks_like_snapshot_id(snapshot.id):
                raise CorruptObject(f"the record at {frame.position:#x} is no snapshot of epoch {index.epoch}")
            snapshots.add(snapshot)
        elif frame.kind == record.FORK:
            fork = decode_fork(frame.payload)
            if fork.snapshot.epoch != index.epoch:
                raise CorruptObject(f"the record at {frame.position:#x} is no fork of epoch {index.epoch}")
            if fork.snapshot.branch in lineage:
                snapshots.add(fork.snapshot)
            elif fork.parent == lineage[0]:
                made = fork
        elif frame.kind == record.SNAPSHOT_CHANGED:
            snapshots.change(SnapshotChanged(*record.unpack_snapshot_changed(frame.payload)))
        elif frame.kind == record.SNAPSHOT_DELETE:
            snapshots.delete(frame.payload.decode("ascii"))
        elif frame.kind == record.FREEZE and record.unpack_freeze(frame.payload) != index.epoch:
            raise CorruptObject(f"the record at {frame.position:#x} does not close epoch {index.epoch}")
    except (UnicodeDecodeError, NoSuchEntry) as error:
        if not inherited:
            raise CorruptObject(f"the record at {frame.position:#x} names no snapshot") from error
    if frame.kind in CLOSES_EPOCH:
        index.epoch += 1
    return made
