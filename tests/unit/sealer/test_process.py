"""The sealer: over real pipes as a daemon drives it, and offline where no daemon is."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from helios_fs.errors import Busy, CorruptObject, Fenced, NoSuchEntry, StoreFault, StoreFull
from helios_fs.journal.journal import Journal
from helios_fs.journal.segment import HEADER_BYTES
from helios_fs.objects import record
from helios_fs.sealer import messages, process
from helios_fs.store import files
from helios_fs.store.store import Store
from helios_fs.worktree.recovery import journal_directory
from tests.model.harness import Branch
from tests.unit.worktree.trees import directory, make, read, remove, seal

PATIENCE_SECONDS = 60


@pytest.fixture
def branch(tmp_path: Path) -> Iterator[Branch]:
    """An empty branch whose daemon is this process."""
    opened = Branch(str(tmp_path / "store"))
    yield opened
    opened.close()


class Sealer:
    """A sealer process, and a daemon's end of its pipes."""

    def __init__(self, branch: Branch, fence: int) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "helios_fs.sealer.process", branch.path],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        assert self.process.stdin is not None and self.process.stdout is not None
        self.fence = fence
        self.stdin, self.stdout = self.process.stdin, self.process.stdout

    def seal_up_to(self, lsn: int) -> None:
        self.say(messages.SealUpTo("main", self.fence, lsn))

    def say(self, message: messages.Request) -> None:
        self.stdin.write(messages.frame(message))
        self.stdin.flush()

    def hear(self) -> messages.Reply:
        prefix = self.stdout.read(messages.LENGTH.size)
        assert len(prefix) == messages.LENGTH.size, "it has ended"
        return messages.decode_reply(self.stdout.read(messages.LENGTH.unpack(prefix)[0]))

    def end(self) -> int:
        """Close the pipe, as a daemon that dies does."""
        self.stdin.close()
        return self.process.wait(PATIENCE_SECONDS)

    def close(self) -> bytes:
        self.process.kill()
        said = self.process.stderr.read() if self.process.stderr is not None else b""
        self.process.wait(PATIENCE_SECONDS)
        for pipe in (self.stdin, self.stdout, self.process.stderr):
            if pipe is not None:
                pipe.close()
        return said


@pytest.fixture
def sealer(branch: Branch) -> Iterator[Sealer]:
    started = Sealer(branch, branch.fence)
    yield started
    assert started.close() == b""


def seal_and_hear(sealer: Sealer, lsn: int) -> tuple[messages.Begun, list[tuple[int, bytes, int]]]:
    sealer.seal_up_to(lsn)
    begun = sealer.hear()
    assert isinstance(begun, messages.Begun)
    rows: list[tuple[int, bytes, int]] = []
    while isinstance(reply := sealer.hear(), messages.Batch):
        rows += reply.sealed
    assert isinstance(reply, messages.Done)
    return begun, rows


# -- Over pipes ------------------------------------------------------------------------------------------------------


def test_it_seals_what_it_is_asked_for(branch: Branch, sealer: Sealer) -> None:
    directory(branch, "/d")
    file = make(branch, "/d/file", b"content" * 1000)
    snapshot = branch.worktree.snapshot(b"one")
    first_end = branch.worktree.journal.end
    make(branch, "/later", b"later")
    branch.worktree.freeze()
    make(branch, "/open", b"not closed yet")
    begun, rows = seal_and_hear(sealer, first_end)
    assert (begun.head.lsn, begun.head.epoch, begun.deleted) == (first_end, 2, 0)
    assert [identity for identity, _ in begun.snapshots] == [snapshot.id]
    trees = begun.snapshots
    assert {row[0] for row in rows} == {1, branch.walk("/d").ino, file.ino}
    assert next(row[2] for row in rows if row[0] == file.ino) == 7000
    # It reads what is appended after it has started, and stops at the last record that closes an epoch.
    begun, rows = seal_and_hear(sealer, branch.worktree.journal.end)
    assert begun.head.epoch == 3
    assert begun.head.lsn < branch.worktree.journal.end
    assert branch.walk("/later").ino in {row[0] for row in rows}
    assert branch.store.refs.head("main") == begun.head
    [sealed] = branch.store.refs.snapshots("main")
    assert sealed.name == b"one"
    assert [(sealed.id, sealed.tree)] == trees
    # The journal is as it was: its owner drops what is sealed.
    assert branch.worktree.journal.start == 0
    branch.reopen()
    assert read(branch, "/open") == b"not closed yet"
    assert sealer.end() == 0


def test_many_inodes_come_in_batches(branch: Branch, sealer: Sealer) -> None:
    inodes = {make(branch, f"/{number}", b"x").ino for number in range(700)}
    branch.worktree.freeze()
    begun, rows = seal_and_hear(sealer, branch.worktree.journal.end)
    assert rows[0][0] == 1, "directories come first"
    assert {row[0] for row in rows} == inodes | {1}
    assert len(rows) == 701
    assert begun.snapshots == []


def test_it_collects_what_nothing_needs(branch: Branch, sealer: Sealer) -> None:
    make(branch, "/file", os.urandom(100_000))
    snapshot = branch.worktree.snapshot(b"one")
    seal_and_hear(sealer, branch.worktree.journal.end)
    packs = os.path.join(branch.path, "packs")
    before = sum(entry.stat().st_size for entry in os.scandir(packs))
    remove(branch, "/file")
    branch.worktree.delete_snapshot(snapshot.id)
    branch.worktree.freeze()
    begun, _ = seal_and_hear(sealer, branch.worktree.journal.end)
    assert begun.deleted == 1
    sealer.say(messages.Collect([begun.head.tree]))
    reply = sealer.hear()
    assert isinstance(reply, messages.Collected)
    left = sum(entry.stat().st_size for entry in os.scandir(packs))
    assert left < 2000 and reply.bytes_freed >= 100_000 and before - left >= reply.bytes_freed - 2000
    assert (reply.packs_rewritten, reply.dead_bytes, reply.problems) == (1, 0, ())
    seal_and_hear(sealer, branch.worktree.journal.end)


def test_it_is_refused_once_another_owns_the_branch(branch: Branch, sealer: Sealer) -> None:
    """Z2: with the fencing epoch of a former owner nothing is published."""
    make(branch, "/file", b"x")
    branch.worktree.freeze()
    head = branch.store.refs.head("main")
    branch.store.take_branch("main")
    sealer.seal_up_to(branch.worktree.journal.end)
    refused = sealer.hear()
    assert isinstance(refused, messages.Refused)
    assert refused.error == "Fenced"
    assert branch.store.refs.head("main") == head


def test_damage_is_refused_and_the_next_request_is_served(branch: Branch, sealer: Sealer) -> None:
    make(branch, "/file", b"x" * 50_000)
    branch.worktree.freeze()
    end = branch.worktree.journal.end
    segment = next(Path(journal_directory(branch.store, "main")).glob("*.seg"))
    whole = segment.read_bytes()
    with open(segment, "r+b") as opened:
        opened.seek(HEADER_BYTES + end - 5000)
        opened.write(b"?" * 100)
    for _ in range(2):
        sealer.seal_up_to(end)
        refused = sealer.hear()
        assert isinstance(refused, messages.Refused)
        assert refused.error == "CorruptObject"
        assert branch.store.refs.head("main").lsn == 0
    with open(segment, "r+b") as opened:
        opened.write(whole)
    begun, _ = seal_and_hear(sealer, end)
    assert begun.head.lsn == end


def test_it_ends_with_its_daemon(branch: Branch, sealer: Sealer) -> None:
    assert sealer.end() == 0


def test_it_ends_with_its_daemon_before_it_was_asked_anything(branch: Branch) -> None:
    started = Sealer(branch, branch.fence)
    try:
        assert started.end() == 0
    finally:
        started.close()


@pytest.mark.parametrize("garbage", [b"\x05\x00\x00\x00hello", b"\x01\x00", b"\x02\x00\x00\x00\xc1\xc1"])
def test_it_ends_where_it_does_not_understand(branch: Branch, garbage: bytes) -> None:
    started = Sealer(branch, branch.fence)
    try:
        started.stdin.write(garbage)
        started.stdin.flush()
        if len(garbage) < 4:
            started.stdin.close()
        assert started.process.wait(PATIENCE_SECONDS) == 0
    finally:
        started.close()


def test_an_interrupt_of_the_terminal_is_not_for_it(branch: Branch, sealer: Sealer) -> None:
    make(branch, "/file", b"x")
    branch.worktree.freeze()
    seal_and_hear(sealer, branch.worktree.journal.end)
    sealer.process.send_signal(signal.SIGINT)
    begun, _ = seal_and_hear(sealer, branch.worktree.journal.end)
    assert begun.head.lsn == branch.worktree.journal.end


def test_requests_that_wait_in_the_pipe_are_all_served(branch: Branch, sealer: Sealer) -> None:
    ends = []
    for number in range(5):
        make(branch, f"/{number}", b"x")
        branch.worktree.freeze()
        ends.append(branch.worktree.journal.end)
    for end in ends:
        sealer.seal_up_to(end)
    heads = []
    for _ in ends:
        begun = sealer.hear()
        assert isinstance(begun, messages.Begun)
        heads.append(begun.head.lsn)
        while not isinstance(sealer.hear(), messages.Done):
            pass
    assert heads == ends


def test_messages_that_are_none_are_told() -> None:
    with pytest.raises(msgspec.MsgspecError):
        messages.decode_request(b"\xc1")
    with pytest.raises(msgspec.MsgspecError):
        messages.decode_reply(messages.frame(messages.SealUpTo("main", 1, 1))[messages.LENGTH.size :])


# -- In this process -------------------------------------------------------------------------------------------------


def sealed_here(branch: Branch, lsn: int | None = None) -> process.Outcome:
    head = branch.store.refs.head("main")
    journal = Journal.open(journal_directory(branch.store, "main"), head.lsn, writable=False)
    try:
        end = branch.worktree.journal.end if lsn is None else lsn
        return process.seal(branch.store, branch.writer, journal, "main", branch.fence, end)
    finally:
        journal.close()


def test_epochs_without_a_snapshot_between_become_one(branch: Branch) -> None:
    """What was made in one and removed in the next is never stored: a full disk is emptied that way."""
    make(branch, "/large", os.urandom(3 << 20))
    kept = make(branch, "/kept", b"kept")
    branch.worktree.freeze()
    branch.worktree.write(kept, 0, b"KEPT")
    branch.worktree.freeze()
    remove(branch, "/large")
    branch.worktree.freeze()
    outcome = sealed_here(branch)
    assert outcome.head.epoch == 4
    packs = Path(branch.path, "packs")
    assert sum(path.stat().st_size for path in packs.iterdir()) < 100_000
    branch.reopen()
    assert read(branch, "/kept") == b"KEPT"
    assert set(branch.dump()) == {"", "/kept"}
    assert branch.worktree.index.epoch == 4


def test_each_snapshot_between_epochs_has_its_own_tree(branch: Branch) -> None:
    file = make(branch, "/file", b"1")
    branch.worktree.freeze()
    branch.worktree.write(file, 0, b"2")
    one = branch.worktree.snapshot(b"one")
    branch.worktree.write(file, 0, b"3")
    branch.worktree.freeze()
    branch.worktree.write(file, 0, b"4")
    two = branch.worktree.snapshot(b"two")
    branch.worktree.write(file, 0, b"5")
    outcome = sealed_here(branch)
    assert outcome.head.epoch == 5
    assert [identity for identity, _ in outcome.snapshots] == [one.id, two.id]
    branch.reopen()
    contents = [branch.dump_snapshot(s.id)["/file"][8] for s in (one, two)]
    assert contents == [b"2", b"4"]
    assert read(branch, "/file") == b"5"


def test_nothing_new_is_nothing_sealed(branch: Branch) -> None:
    head = branch.store.refs.head("main")
    outcome = sealed_here(branch)
    assert outcome.head == head
    assert (outcome.sealed, outcome.snapshots) == ({}, [])


def test_described_and_deleted_snapshots_are_published_as_such(branch: Branch) -> None:
    kept, gone = branch.worktree.snapshot(b"kept"), branch.worktree.snapshot(b"gone")
    branch.worktree.describe_snapshot(kept.id, b"renamed", "why", True)
    branch.worktree.delete_snapshot(gone.id)
    branch.worktree.freeze()
    outcome = sealed_here(branch)
    assert outcome.deleted == 1
    [found] = branch.store.refs.snapshots("main")
    assert (found.id, found.name, found.message, found.protected) == (kept.id, b"renamed", "why", True)


def test_a_seal_of_deletions_may_spend_the_reserve(branch: Branch) -> None:
    make(branch, "/file", b"x" * 1000)
    seal(branch)
    file = branch.walk("/file")
    reserve = Path(branch.path, "reserve")
    assert reserve.exists()

    class Disk:
        """Full until the reserve is gone."""

        def __call__(self, operation: str, path: str, length: int) -> int | None:
            if operation in ("append", "write") and reserve.exists():
                raise OSError(28, "full")
            return None

    branch.worktree.write(file, 0, b"y")
    branch.worktree.freeze()
    files.set_fault(Disk())
    try:
        with pytest.raises(StoreFull):
            process._seal_up_to(branch.store, branch.writer, "main", branch.fence, branch.worktree.journal.end)
        assert reserve.exists(), "nothing was deleted, so nothing would be won"
        files.set_fault(None)
        remove(branch, "/file")
        branch.worktree.freeze()
        files.set_fault(Disk())
        outcome = process._seal_up_to(branch.store, branch.writer, "main", branch.fence, branch.worktree.journal.end)
    finally:
        files.set_fault(None)
    assert outcome.head == branch.store.refs.head("main")
    assert not reserve.exists()


# -- Offline ---------------------------------------------------------------------------------------------------------


def offline(branch: Branch) -> None:
    """Seal as `helios` does without a mount, then open the branch again."""
    branch.close()
    try:
        process.seal_offline(branch.path, "main")
    finally:
        branch.open()


def test_offline_an_open_epoch_is_closed_and_sealed(branch: Branch) -> None:
    make(branch, "/file", b"content")
    snapshot = branch.worktree.snapshot(b"one")
    branch.worktree.write(branch.walk("/file"), 0, b"CON")
    before = branch.dump()
    offline(branch)
    head = branch.store.refs.head("main")
    assert (head.lsn, head.epoch) == (branch.worktree.journal.end, 3)
    assert branch.dump() == before
    assert branch.dump_snapshot(snapshot.id)["/file"][8] == b"content"
    assert not branch.worktree.index.dirty
    # Nothing is left to do; doing it again changes nothing.
    offline(branch)
    assert branch.store.refs.head("main") == head


def test_offline_a_torn_tail_is_cut_off(branch: Branch) -> None:
    make(branch, "/kept", b"kept")
    end = branch.worktree.journal.end
    make(branch, "/torn", b"torn")
    segment = next(Path(journal_directory(branch.store, "main")).glob("*.seg"))
    branch.close()
    os.truncate(segment, HEADER_BYTES + end + 20)
    process.seal_offline(branch.path, "main")
    branch.open()
    assert set(branch.dump()) == {"", "/kept"}
    assert read(branch, "/kept") == b"kept"


def test_offline_it_is_refused_while_somebody_owns_the_branch(branch: Branch) -> None:
    make(branch, "/file", b"x")
    lock = branch.store.lock_branch("main")
    end = branch.worktree.journal.end
    try:
        with pytest.raises(Busy, match=str(os.getpid())):
            process.seal_offline(branch.path, "main")
    finally:
        lock.release()
    assert branch.store.refs.head("main").lsn == 0
    assert branch.worktree.journal.end == end


def test_offline_a_former_owner_is_fenced(branch: Branch) -> None:
    make(branch, "/file", b"x")
    branch.worktree.freeze()
    stale = branch.fence
    offline(branch)
    branch.fence = stale
    make(branch, "/more", b"x")
    branch.worktree.freeze()
    with pytest.raises(Fenced):
        sealed_here(branch)
    branch.writer.discard()


def test_offline_there_must_be_such_a_branch(branch: Branch) -> None:
    with pytest.raises(NoSuchEntry):
        process.seal_offline(branch.path, "other")
    # Nothing is left locked.
    branch.store.lock_branch("other").release()


def test_offline_damage_is_told_and_nothing_published(branch: Branch) -> None:
    make(branch, "/file", b"x" * 10_000)
    branch.worktree.snapshot()
    for number in range(3):
        make(branch, f"/{number}", b"y")
    branch.worktree.journal.append(record.UNLINK, 0, 1, record.pack_named(1, 999_999, b"never was"))
    branch.close()
    try:
        with pytest.raises(CorruptObject):
            process.seal_offline(branch.path, "main")
        with Store.open(branch.path) as store:
            assert store.refs.head("main").lsn == 0
            with pytest.raises((CorruptObject, StoreFault)):
                process.seal_offline(branch.path, "main")
    finally:
        for segment in Path(branch.path, "journals", "main").glob("*.seg"):
            segment.unlink()
        branch.open()
