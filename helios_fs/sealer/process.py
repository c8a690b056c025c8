"""The sealer: a process of its own that turns journals into store, and ends with its daemon.

It reads the journal and the store, writes packs and refs, and knows nothing of the daemon's memory. `seal_offline` is
the same work for a branch that no daemon owns.

Z1. What it publishes is the state at a journal position that closes an epoch, whole or not at all.
Z2. It publishes under the fencing epoch it was asked with; once another owner has the branch it is refused.
Z3. It never changes the journal: the daemon drops what is sealed, when it has been told so.
"""

import os
import signal
import sys
import threading
from collections.abc import Iterator
from queue import SimpleQueue
from typing import BinaryIO, Final, NoReturn

import msgspec

from helios_fs.errors import HeliosError, StoreFull
from helios_fs.journal.journal import Frame, Journal
from helios_fs.objects import record
from helios_fs.objects.entry import Tree
from helios_fs.objects.snapshot import (
    Head,
    HeadMoved,
    RefEvent,
    SnapshotChanged,
    SnapshotDeleted,
    SnapshotSealed,
    decode_fork,
    decode_snapshot,
)
from helios_fs.sealer import messages
from helios_fs.sealer.collect import collect_store
from helios_fs.sealer.seal import seal_epoch
from helios_fs.store.store import Store
from helios_fs.store.writer import Writer
from helios_fs.worktree.rebase import Sealed
from helios_fs.worktree.recovery import journal_directory
from helios_fs.worktree.replay import CLOSES_EPOCH, finished

_BATCH: Final = 256
_NEEDS_A_TREE: Final = frozenset({record.SNAPSHOT, record.FORK})
_DELETES: Final = frozenset({record.UNLINK, record.SNAPSHOT_DELETE})
_NICENESS: Final = 5


class Outcome:
    """What one seal gave: the new head, and what became of inodes and snapshots."""

    def __init__(self, head: Head) -> None:
        self.head = head
        self.sealed: dict[int, Sealed] = {}
        self.snapshots: list[tuple[str, bytes]] = []
        self.deleted = 0


def seal(store: Store, writer: Writer, journal: Journal, branch: str, fence: int, lsn: int) -> Outcome:
    """Seal everything before `lsn`; published and durable on return.

    Raises Fenced, StoreFull, StoreFault, CorruptObject with nothing published.
    """
    head = store.head(branch)
    tree: Tree = store.objects.tree(head.tree)
    tree_id: bytes = head.tree
    epoch = head.epoch
    outcome = Outcome(head)
    events: list[RefEvent] = []
    for frames in _epochs(journal.frames(head.lsn, lsn)):
        closing = frames[-1]
        result = seal_epoch(writer, journal, tree, epoch, frames)
        tree, tree_id = result.tree, result.tree_id
        for ino in result.gone:
            outcome.sealed.pop(ino, None)
        outcome.sealed.update({sealed[0]: sealed for sealed in result.sealed})
        events.extend(_snapshot_events(store, branch, frames, tree_id, outcome))
        epoch += sum(frame.kind in CLOSES_EPOCH for frame in frames)
        head = Head(branch, tree_id, closing.next_position, epoch)
    outcome.head = head
    events.append(HeadMoved(head))
    writer.publish(events, branch, fence)
    return outcome


def _epochs(frames: Iterator[Frame]) -> Iterator[list[Frame]]:
    """Group frames by the states that they must be sealed to: each snapshot's, and the last one of a closed epoch.

    Epochs between which nobody took a snapshot become one, so that what was made in one and removed in the next is
    never stored. What comes after the last closing record is not sealed yet.
    """
    group: list[Frame] = []
    closed = 0
    for frame in frames:
        group.append(frame)
        if frame.kind in _NEEDS_A_TREE:
            yield group
            group, closed = [], 0
        elif frame.kind in CLOSES_EPOCH:
            closed = len(group)
    if closed:
        yield group[:closed]


def _snapshot_events(
    store: Store, branch: str, frames: list[Frame], tree_id: bytes, outcome: Outcome
) -> Iterator[RefEvent]:
    """Yield what these records mean for refs.

    A snapshot that the parent took before the fork is the parent's; it is published here where the parent has not come
    to it: the tree is the same.
    """
    lineage = store.branches.lineage(branch)
    for frame in frames:
        if frame.kind in _NEEDS_A_TREE:
            is_fork = frame.kind == record.FORK
            taken = decode_fork(frame.payload).snapshot if is_fork else decode_snapshot(frame.payload)
            snapshot = msgspec.structs.replace(taken, tree=tree_id)
            outcome.snapshots.append((snapshot.id, tree_id))
            is_ours = snapshot.branch == branch or (is_fork and _made_here(store, branch, snapshot.branch))
            is_inherited = snapshot.branch in lineage and not is_ours
            if is_ours or (is_inherited and store.head(snapshot.branch).lsn <= frame.position):
                yield SnapshotSealed(snapshot)
        elif frame.kind == record.SNAPSHOT_CHANGED:
            yield SnapshotChanged(*record.unpack_snapshot_changed(frame.payload))
        elif frame.kind == record.SNAPSHOT_DELETE:
            outcome.deleted += 1
            yield SnapshotDeleted(frame.payload.decode("ascii"))


def _made_here(store: Store, branch: str, child: str) -> bool:
    info = store.branches.find(child)
    return info is not None and info.parent == branch


def seal_offline(store_path: str, branch: str) -> None:
    """Seal what the journal of a branch holds, where no daemon owns it. Durable on return.

    Raises Busy where a daemon does, and what `Store.open` and `seal` do.
    """
    store = Store.open(store_path)
    try:
        with store.lock_branch(branch):
            head = store.head(branch)
            journal = Journal.open(journal_directory(store, branch), head.lsn)
            try:
                close_last_epoch(journal, head)
                fence = store.take_branch(branch)
                outcome = seal(store, store.writer(), journal, branch, fence, journal.end)
                journal.drop_below(outcome.head.lsn, keep_open=False)
            finally:
                journal.close()
    finally:
        store.close()


def close_last_epoch(journal: Journal, head: Head) -> None:
    """Cut off a torn tail, and end the last epoch with a FREEZE if it is open."""
    position, epoch, is_open, time_ns = head.lsn, head.epoch, False, 0
    for frame in finished(journal.frames(head.lsn, check_data=True)):
        position, time_ns = frame.next_position, frame.time_ns
        is_open = frame.kind not in CLOSES_EPOCH
        epoch += not is_open
    journal.recovered_to(position)
    if is_open:
        journal.append(record.FREEZE, 0, time_ns, record.pack_freeze(epoch))
        journal.sync()


def _receive(pipe: BinaryIO, requests: "SimpleQueue[messages.Request]") -> None:
    """Hand requests over, and end the process at once when the daemon does: what is not published is not missed.

    PR_SET_PDEATHSIG would not do: it goes by the daemon's thread that started us, and trio's threads come and go.
    """
    try:
        while len(prefix := pipe.read(messages.LENGTH.size)) == messages.LENGTH.size:
            requests.put(messages.decode_request(pipe.read(messages.LENGTH.unpack(prefix)[0])))
    finally:
        os._exit(0)


def _serve(store: Store, requests: "SimpleQueue[messages.Request]", replies: BinaryIO) -> NoReturn:
    writer = store.writer()

    def say(message: messages.Reply) -> None:
        replies.write(messages.frame(message))
        replies.flush()

    while True:
        request = requests.get()
        try:
            if isinstance(request, messages.Collect):
                done = collect_store(
                    store, writer, request.pins, slack=request.slack, grace_seconds=request.grace_seconds
                )
                say(messages.Collected(*done))
                continue
            outcome = _seal_up_to(store, writer, request.branch, request.fence, request.lsn)
            # A collection of another process may have dropped packs that are open here.
            store.objects.release_dropped()
        except HeliosError as error:
            writer.discard()
            say(messages.Refused(type(error).__name__, str(error)))
            continue
        say(messages.Begun(outcome.head, outcome.snapshots, outcome.deleted, 0))
        rows = list(outcome.sealed.values())
        for start in range(0, len(rows), _BATCH):
            say(messages.Batch(rows[start : start + _BATCH]))
        say(messages.Done())


def _seal_up_to(store: Store, writer: Writer, branch: str, fence: int, lsn: int) -> Outcome:
    head = store.head(branch)
    journal = Journal.open(journal_directory(store, branch), head.lsn, writable=False)
    try:
        return seal(store, writer, journal, branch, fence, lsn)
    except StoreFull:
        writer.discard()
        # Once deletions are sealed, the journal lets go of what was deleted.
        deletes = any(frame.kind in _DELETES for frame in journal.frames(head.lsn, lsn))
        if not (deletes and store.reserve.spend()):
            raise
        return seal(store, writer, journal, branch, fence, lsn)
    finally:
        journal.close()


def main() -> None:
    """Serve one daemon until it closes the pipe or dies: sealer STORE."""
    store_path = sys.argv[1]
    requests: SimpleQueue[messages.Request] = SimpleQueue()
    threading.Thread(target=_receive, args=(sys.stdin.buffer, requests), daemon=True).start()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.nice(_NICENESS)
    store = Store.open(store_path)
    try:
        _serve(store, requests, sys.stdout.buffer)
    finally:
        store.close()


if __name__ == "__main__":
    main()
