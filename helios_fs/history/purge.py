"""Purging: paths out of all history and all branches of a store, and every byte of them off its disk.

Knows branches, snapshots, journals and the order in which things must happen; how a tree loses a path is `excise.py`.
A store is purged while none of its branches is mounted: the caller's process owns them all meanwhile.

H1. Everything is sealed first, so that trees are all there is to rewrite.
H2. One record of the ref log moves every head and every snapshot at once to trees without the paths. Before it nothing
    has changed; what comes after it only removes bytes that nothing needs.
H3. The file `purge` says from before that record until the last byte is gone what was asked for: whoever purges next
    finishes it. A kill loses nothing else.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Final, NamedTuple

import msgspec
import xxhash

from helios_fs.errors import Busy, CorruptObject, NoSuchEntry
from helios_fs.history.branching import seal_alone
from helios_fs.history.diff import find_entry
from helios_fs.history.excise import Excision, Scratch, Targets, as_path
from helios_fs.journal.journal import Journal
from helios_fs.journal.segment import SPARE_SUFFIX, SUFFIX
from helios_fs.objects.snapshot import MAIN_BRANCH, Head, HeadMoved, RefEvent, Snapshot, SnapshotSealed
from helios_fs.sealer.collect import collect_store, has_segments, head_of
from helios_fs.store import files
from helios_fs.store.branches import Branches, BranchInfo, journal_directory
from helios_fs.store.gc import NOTHING_LEFT, Collected
from helios_fs.store.objects import Objects
from helios_fs.store.reach import Progress
from helios_fs.store.store import Store

FILE_NAME: Final = "purge"
_NEW_SUFFIX: Final = ".new"
_MAGIC: Final = b"HELPURG\0"
_CHECK_BYTES: Final = 8


class Request(msgspec.Struct, array_like=True, frozen=True):
    """What was asked for, as the file `purge` keeps it."""

    paths: list[bytes]
    same_content: bool = False

    @property
    def texts(self) -> list[str]:
        """The paths as they were given."""
        return [os.fsdecode(path) for path in self.paths]


class Plan(NamedTuple):
    """What a purge would do."""

    request: Request
    """With what an earlier purge left unfinished."""
    resumed: bool
    """Whether an earlier purge was interrupted."""
    excision: Excision
    snapshots: list[tuple[Snapshot, bytes]]
    """Those that hold some of it, and the trees that they get."""
    heads: list[tuple[Head, bytes]]
    bases: list[tuple[BranchInfo, bytes]]
    """Branches that begin with a tree that holds some of it."""
    missing: list[str]
    """Paths that no snapshot and no branch holds."""

    @property
    def data_bytes(self) -> int:
        """Size of all that goes, each content once."""
        return sum(self.excision.contents.values())

    @property
    def branches(self) -> list[str]:
        """Ids of the branches that hold some of it now."""
        return sorted({head.branch for head, _ in self.heads} | {info.id for info, _ in self.bases})

    @property
    def is_empty(self) -> bool:
        """Whether no snapshot and no branch holds any of it."""
        return not (self.snapshots or self.heads or self.bases)


class Purged(NamedTuple):
    """What a purge did."""

    collected: Collected
    left: int
    """Objects of what was purged that are still in the store, though no other path of it holds them: somebody reads
    them, or a pack could not be rewritten."""
    is_done: bool
    """Whether nothing is left to be finished by purging again."""


@contextmanager
def purging(store_path: str) -> Iterator["Purge"]:
    """Own all branches of a store, sealed, while the block runs.

    Raises Busy, naming the process, where one of them is mounted or in use; StoreFull, StoreFault, CorruptObject where
    a journal cannot be sealed.
    """
    with ExitStack() as stack:
        store = stack.enter_context(Store.open(store_path))
        branches: list[str] = []
        # A journal may name branches that have none of their own yet; sealing it makes them.
        while new := {MAIN_BRANCH, *(info.id for info in Branches(store.path).all(deleted=True))} - {*branches}:
            for branch in sorted(new):
                if _is_begun(store, branch):
                    seal_alone(store, branch)
            branches += sorted(new)
        locks = stack.enter_context(ExitStack())
        for branch in branches:
            locks.callback(store.lock_branch(branch).release)
        known = {info.id for info in Branches(store.path).all(deleted=True)}
        if not known <= set(branches) or any(_has_unsealed(store, branch) for branch in branches):
            raise Busy(f"{store.path}: somebody changed a branch meanwhile; try again")
        yield Purge(store, branches, locks)


def _is_begun(store: Store, branch: str) -> bool:
    """Tell whether there is something to seal; a branch nobody has written to has no journal, or no head."""
    return has_segments(journal_directory(store.path, branch)) and head_of(store, branch) is not None


def _has_unsealed(store: Store, branch: str) -> bool:
    head = head_of(store, branch)
    directory = journal_directory(store.path, branch)
    if head is None or not has_segments(directory):
        return False
    journal = Journal.open(directory, head.lsn, writable=False)
    try:
        return next(journal.frames(head.lsn), None) is not None
    finally:
        journal.close()


class Purge:
    """One purge of a store whose branches this process owns; see `purging`."""

    def __init__(self, store: Store, branches: list[str], locks: ExitStack) -> None:
        self._store = store
        self._branches = branches
        self._locks = locks

    # -- What it would do --------------------------------------------------------------------------------------------

    def plan(self, paths: Sequence[str], same_content: bool = False) -> Plan:
        """Find everything that holds the paths. Changes nothing. Raises UsageError, CorruptObject, ObjectMissing."""
        for path in paths:
            as_path(path)
        unfinished = read_request(self._store.path)
        earlier = unfinished or Request([])
        all_paths = dict.fromkeys([*earlier.paths, *map(os.fsencode, paths)])
        request = Request(list(all_paths), same_content or earlier.same_content)
        snapshots = self._store.refs.all_snapshots()
        heads = self._store.refs.heads()
        infos = Branches(self._store.path).all(deleted=True)
        trees = {
            *(snapshot.tree for snapshot in snapshots),
            *(head.tree for head in heads),
            *(info.base.tree for info in infos),
        } - {b""}
        exists = {path for path in map(as_path, request.texts) if self._is_anywhere(trees, path)}
        excision = Excision(self._store.objects, Targets(request.texts, exists), request.same_content)
        excision.find(trees)
        scratch = Scratch(self._store.objects)
        new = {tree: excision.without(scratch, tree) for tree in trees}
        new[b""] = b""
        return Plan(
            request,
            unfinished is not None,
            excision,
            [(one, new[one.tree]) for one in snapshots if new[one.tree] != one.tree],
            [(one, new[one.tree]) for one in heads if new[one.tree] != one.tree],
            [(one, new[one.base.tree]) for one in infos if new[one.base.tree] != one.base.tree],
            [text for text in paths if not _found(text, excision, exists)],
        )

    def _is_anywhere(self, trees: set[bytes], path: bytes) -> bool:
        objects = self._store.objects
        return any(_has_path(objects, tree_id, path) for tree_id in trees)

    # -- Doing it ----------------------------------------------------------------------------------------------------

    def run(self, plan: Plan, progress: Progress | None = None) -> Purged:
        """Carry out a plan. On return no byte of it is in the store, but for what `Purged.left` counts; durable.

        Raises StoreFull, StoreFault, CorruptObject: before the trees are published nothing has changed, afterwards
        another purge finishes it. The branches are free again on return.
        """
        store = self._store
        write_request(store.path, plan.request)
        # A tree that only a branch's file is to name must outlive the time until it does.
        with store.pins.held(*(tree for _, tree in plan.bases)):
            if not plan.is_empty:
                self._publish(plan)
            for info, tree in plan.bases:
                base = msgspec.structs.replace(info.base, tree=tree)
                Branches(store.path).write(msgspec.structs.replace(info, base=base))
        for branch in self._branches:
            begin_journal_anew(store, branch)
        # Deleted branches end under their own locks.
        self._locks.close()
        collected = collect_store(store, wait=True, slack=NOTHING_LEFT, progress=progress)
        excision = plan.excision
        left = sum(store.objects.has(blob) for blob in excision.blobs - excision.shared)
        # Of what an interrupted purge took out of the trees nobody knows the names any more: no pin may be left.
        is_done = not (left or collected.problems or collected.dead_bytes or (plan.resumed and collected.pins))
        if is_done:
            files.remove(os.path.join(store.path, FILE_NAME))
            files.sync_directory(store.path)
        return Purged(collected, left, is_done)

    def _publish(self, plan: Plan) -> None:
        store = self._store
        writer = store.writer()
        try:
            excision = plan.excision
            events: list[RefEvent] = []
            for snapshot, tree in plan.snapshots:
                assert excision.without(writer, snapshot.tree) == tree
                events.append(SnapshotSealed(msgspec.structs.replace(snapshot, tree=tree)))
            for head, tree in plan.heads:
                assert excision.without(writer, head.tree) == tree
                events.append(HeadMoved(msgspec.structs.replace(head, tree=tree)))
            for info, tree in plan.bases:
                assert excision.without(writer, info.base.tree) == tree
            writer.publish(events, MAIN_BRANCH, store.take_branch(MAIN_BRANCH))
        finally:
            writer.close()


def _has_path(objects: Objects, tree_id: bytes, path: bytes) -> bool:
    try:
        find_entry(objects, tree_id, path)
    except NoSuchEntry:
        return False
    return True


def _found(text: str, excision: Excision, exists: set[bytes]) -> bool:
    if as_path(text) in exists:
        return True
    alone = Targets([text])
    return any(alone.mean(path, True) or alone.mean(path, False) for path in excision.paths)


def begin_journal_anew(store: Store, branch: str) -> None:
    """Remove all that a sealed journal's files have ever held. The caller holds the branch's lock. Durable on return.

    Raises CorruptObject where it is not sealed, StoreFull, StoreFault.
    """
    directory = journal_directory(store.path, branch)
    head = head_of(store, branch)
    if head is None or not os.path.isdir(directory):
        return
    if _has_unsealed(store, branch):
        raise CorruptObject(f"{directory}: it holds records that are not sealed")
    # Oldest first: a kill leaves a journal that still reaches the head, or none, which begins there.
    for name in sorted(os.listdir(directory)):
        if name.endswith((SUFFIX, SPARE_SUFFIX)):
            files.remove(os.path.join(directory, name))
    journal = Journal.create(directory, head.lsn)
    try:
        journal.sync()
    finally:
        journal.close()
    files.sync_directory(directory)


def read_request(store_path: str) -> Request | None:
    """Return what an interrupted purge was asked for, or None. Raises CorruptObject."""
    path = os.path.join(store_path, FILE_NAME)
    try:
        fd = files.open_file(path, os.O_RDONLY)
    except FileNotFoundError:
        return None
    try:
        raw = files.read_at(fd, os.fstat(fd).st_size, 0)
    finally:
        os.close(fd)
    start = len(_MAGIC) + _CHECK_BYTES
    body = raw[start:]
    if raw[:start] != _MAGIC + xxhash.xxh3_64_intdigest(body).to_bytes(_CHECK_BYTES, "little"):
        raise CorruptObject(f"{path}: the file of an interrupted purge is damaged; remove it and purge again")
    return msgspec.msgpack.decode(body, type=Request)


def write_request(store_path: str, request: Request) -> None:
    """Keep what a purge is asked for. Durable on return. Raises StoreFull, StoreFault."""
    path = os.path.join(store_path, FILE_NAME)
    body = msgspec.msgpack.encode(request)
    check = xxhash.xxh3_64_intdigest(body).to_bytes(_CHECK_BYTES, "little")
    fd = files.open_file(path + _NEW_SUFFIX, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    try:
        files.write_at(fd, _MAGIC + check + body, 0)
        files.sync_data(fd)
    finally:
        os.close(fd)
    files.replace(path + _NEW_SUFFIX, path)
    files.sync_directory(store_path)
