"""Collecting garbage in a whole store: deleted branches end, journals say what they need, then packs go.

Knows branches and journals; which objects are reachable, and where they lie, is the store's affair (`store/gc.py`).

Q1. What a journal takes from the store (GRAFT, ASSUME) and has not sealed yet is needed, whoever owns the journal, and
    if nobody does: the snapshot that it came from may be gone.
Q2. A branch ends only under its lock, if no branch made from it is left, and once its parent has sealed the record that
    made it. Its refs go first, its file last: it is either a deleted branch or none.
"""

import os
import time
from collections.abc import Collection, Iterator
from typing import Final

from helios_fs.errors import Busy, NoSuchEntry
from helios_fs.journal.journal import Journal
from helios_fs.objects import record
from helios_fs.objects.snapshot import MAIN_BRANCH, BranchGone, Head
from helios_fs.store import branches, files
from helios_fs.store.branches import Branches, BranchInfo
from helios_fs.store.gc import HALF_DEAD, Collected, collect
from helios_fs.store.locks import lock_name
from helios_fs.store.reach import Progress
from helios_fs.store.store import Store
from helios_fs.store.writer import Writer

GRACE_SECONDS: Final = 3600.0
"""A deleted branch can be brought back for so long, unless somebody asks for its space."""


def collect_store(
    store: Store,
    writer: Writer | None = None,
    pins: Collection[bytes] = (),
    wait: bool = False,
    slack: float = HALF_DEAD,
    progress: Progress | None = None,
    grace_seconds: float = 0.0,
) -> Collected:
    """End branches deleted more than `grace_seconds` ago, then collect. The rest is as in `store.gc.collect`."""
    if writer is not None and not writer.idle:
        raise Busy("this process has objects that are not published; publish them before collecting garbage")
    end_deleted_branches(store, time.time_ns() - int(grace_seconds * 1e9))
    return collect(store, writer, pins, wait, slack, lambda: needed_by_journals(store), progress)


def end_deleted_branches(store: Store, before_ns: int) -> list[str]:
    """End the branches deleted before a time, of which nobody has the lock; return their ids. Durable on return.

    Raises StoreFull, StoreFault; what is left then ends the next time.
    """
    known = {info.id: info for info in Branches(store.path).all(deleted=True)}
    ended: list[str] = []
    while True:
        # Those made from a branch end before it.
        parents = {info.parent for info in known.values()}
        ending = [one for one in known.values() if one.deleted_ns and one.deleted_ns <= before_ns]
        before = len(ended)
        for info in ending:
            if info.id not in parents and _end_if_free(store, info.id):
                ended.append(info.id)
                del known[info.id]
        if len(ended) == before:
            return ended


def _end_if_free(store: Store, branch: str) -> bool:
    try:
        lock = store.lock_branch(branch)
    except Busy:
        return False
    try:
        info = Branches(store.path).find(branch)
        if info is None or not info.deleted_ns:
            return False  # It was brought back, or somebody else was quicker.
        parent = head_of(store, info.parent)
        if parent is not None and parent.lsn < info.fork_lsn:
            return False  # Its parent's journal still has the record that made it, and would make it again.
        _end(store, info)
    finally:
        lock.release()
    return True


def _end(store: Store, info: BranchInfo) -> None:
    with Writer(store.path, store.store_id, store.index, store.objects, store.reserve) as writer:
        writer.publish([BranchGone(info.id)], info.id, store.take_branch(info.id))
    directory = branches.journal_directory(store.path, info.id)
    for name in sorted(os.listdir(directory)):
        if name != branches.FILE_NAME:
            files.remove(os.path.join(directory, name))
    files.sync_directory(directory)
    files.remove(os.path.join(directory, branches.FILE_NAME))
    files.remove_directory(directory)
    files.sync_directory(os.path.dirname(directory))
    # Ids are never used twice, so nobody can come for this lock any more.
    files.remove(os.path.join(store.path, "run", lock_name(info.id)))


def head_of(store: Store, branch: str) -> Head | None:
    """Return where a branch is sealed: its head, or where it begins; None where it has never been used."""
    try:
        return store.head(branch)
    except NoSuchEntry:
        return None


def needed_by_journals(store: Store) -> set[bytes]:
    """Return the content that unsealed records of all journals take from the store. Raises CorruptObject, StoreFault.

    Exact while all writers are kept out: heads stand still then, and what lies behind them stays in the journals.
    """
    found: set[bytes] = set()
    for branch in (MAIN_BRANCH, *(info.id for info in Branches(store.path).all(deleted=True))):
        found.update(_needed_by(store, branch))
    return found


def _needed_by(store: Store, branch: str) -> Iterator[bytes]:
    head = head_of(store, branch)
    directory = branches.journal_directory(store.path, branch)
    if head is None or not has_segments(directory):
        return
    journal = Journal.open(directory, head.lsn, writable=False)
    try:
        for frame in journal.frames(head.lsn):
            entry = None
            if frame.kind == record.GRAFT:
                entry = record.unpack_graft(frame.payload)[2]
            elif frame.kind == record.ASSUME:
                entry = record.unpack_assume(frame.payload)
            # A directory assumes attributes only.
            takes_all = frame.kind == record.GRAFT and entry is not None and entry.is_directory
            if entry is not None and entry.content and (entry.is_file or takes_all):
                yield entry.content
    finally:
        journal.close()


def has_segments(directory: str) -> bool:
    """Tell whether a journal's directory holds any of it."""
    try:
        return any(name.endswith(".seg") for name in os.listdir(directory))
    except FileNotFoundError:
        return False
