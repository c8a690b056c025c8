"""Recovery: a branch's memory from its last seal and its journal, after a crash or a clean end alike.

Knows nothing of mounts. Cost follows what is not sealed.
"""

import os
import stat
import time
from collections.abc import Callable

from helios_fs.errors import CorruptObject, NoSuchEntry
from helios_fs.journal.journal import Frame, Journal
from helios_fs.objects import record
from helios_fs.objects.entry import Tree, encode_tree
from helios_fs.objects.ids import KIND_TREE, ROOT_INO, looks_like_snapshot_id
from helios_fs.objects.snapshot import MAIN_BRANCH, Head, HeadMoved, decode_snapshot
from helios_fs.store.store import Store
from helios_fs.worktree.index import Index
from helios_fs.worktree.inode import Inode
from helios_fs.worktree.inos import Inos
from helios_fs.worktree.replay import CLOSES_EPOCH, finished, replay_frame
from helios_fs.worktree.snapshots import Snapshots
from helios_fs.worktree.worktree import Worktree


def journal_directory(store: Store, branch: str) -> str:
    """Return where a branch's journal lies."""
    return os.path.join(store.path, "journals", branch)


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


def recover(store: Store, branch: str, progress: Callable[[int, int], None] | None = None) -> Worktree:
    """Return the working tree of a branch whose lock the caller holds: its last seal and all the journal says since.

    The torn tail of an append or a group that never finished is cut off; what had been acknowledged is never part of
    it.
    `progress(done, total)` is told bytes. Raises CorruptObject where the journal is damaged, NoSuchEntry where there
    is no such branch.
    """
    try:
        head = store.refs.head(branch)
    except NoSuchEntry:
        if branch != MAIN_BRANCH:
            raise
        begin_branch(store, branch)
        head = store.refs.head(branch)
    tree = store.objects.tree(head.tree)
    journal = Journal.open(journal_directory(store, branch), head.lsn)
    index = Index(store.objects, tree, head.epoch)
    snapshots = Snapshots()
    for snapshot in store.refs.snapshots(branch):
        snapshots.add(snapshot)
    position = head.lsn
    changed = False
    for frame in finished(journal.frames(head.lsn, check_data=True)):
        replay_frame(index, frame)
        replay_snapshots(index, snapshots, frame)
        changed = frame.kind not in CLOSES_EPOCH
        position = frame.next_position
        if progress is not None:
            progress(position - head.lsn, journal.end - head.lsn)
    journal.recovered_to(position)
    # From here on a request may be waiting for the answer.
    index.objects = store.objects.without_waiting()
    worktree = Worktree(branch, index, journal, index.objects, Inos(store.reserve_inos), snapshots)
    worktree.changed_in_epoch = changed
    return worktree


def replay_snapshots(index: Index, snapshots: Snapshots, frame: Frame) -> None:
    """Apply what a record says of snapshots and epochs. Raises CorruptObject where it does not fit (Y1)."""
    try:
        if frame.kind == record.SNAPSHOT:
            snapshot = decode_snapshot(frame.payload)
            if snapshot.epoch != index.epoch or not looks_like_snapshot_id(snapshot.id):
                raise CorruptObject(f"the record at {frame.position:#x} is no snapshot of epoch {index.epoch}")
            snapshots.add(snapshot)
        elif frame.kind == record.SNAPSHOT_RENAME:
            snapshots.rename(*record.unpack_snapshot_rename(frame.payload))
        elif frame.kind == record.SNAPSHOT_DELETE:
            snapshots.delete(frame.payload.decode("ascii"))
        elif frame.kind == record.FREEZE and record.unpack_freeze(frame.payload) != index.epoch:
            raise CorruptObject(f"the record at {frame.position:#x} does not close epoch {index.epoch}")
    except (UnicodeDecodeError, NoSuchEntry) as error:
        raise CorruptObject(f"the record at {frame.position:#x} names no snapshot") from error
    if frame.kind in CLOSES_EPOCH:
        index.epoch += 1
