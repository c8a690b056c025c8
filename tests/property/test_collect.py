"""Any order of changes, snapshots, deletions and collections: what is reachable verifies, what is not is gone."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from helios_fs.objects.entry import Entry, decode_entry
from helios_fs.objects.snapshot import Head, HeadMoved, Snapshot, SnapshotDeleted, SnapshotSealed
from helios_fs.store import content, gc, maps
from helios_fs.store.packs import FILE_HEADER_BYTES
from helios_fs.store.reach import Reach
from helios_fs.store.store import Store
from tests.unit.store.trees import store_tree

_FILES = st.dictionaries(st.sampled_from([b"a", b"b", b"c", b"d", b"e"]), st.integers(0, 12), min_size=1, max_size=5)
"""Names and the number of one of a few contents."""
_STEPS = st.one_of(
    st.tuples(st.just("seal"), _FILES, st.booleans()),
    st.tuples(st.just("delete"), st.integers(0, 30), st.none()),
    st.tuples(st.just("collect"), st.sampled_from([gc.HALF_DEAD, gc.TIGHT, gc.NOTHING_LEFT]), st.none()),
    st.tuples(st.just("pin"), st.integers(0, 30), st.none()),
    st.tuples(st.just("reopen"), st.none(), st.none()),
)


def _bytes(number: int) -> bytes:
    return bytes([number]) * 10 + (b"%d" % number) * 3000 if number % 2 else b"%032d" % number * 700


def _shown(store: Store, tree_id: bytes) -> dict[bytes, bytes]:
    tree = store.objects.tree(tree_id)
    (below,) = [decode_entry(value) for _, value in maps.scan(store.objects, tree.root.content)]
    assert isinstance(below, Entry)
    found = {}
    for key, value in maps.scan(store.objects, below.content):
        entry = decode_entry(value)
        if isinstance(entry, Entry) and entry.is_file:
            found[key[8:]] = content.read_content(store.objects, entry.content, entry.size, 0, 1 << 20)
    return found


class _Model:
    """The store, and plain copies of all that must be in it."""

    def __init__(self, path: str) -> None:
        self.path = path
        Store.create(path)
        self.store = Store.open(path)
        self.trees: dict[bytes, dict[bytes, bytes]] = {}
        self.snapshots: dict[str, bytes] = {}
        self.head = b""
        self.pinned = b""
        self.count = 0

    def step(self, what: str, value: object, more: object) -> None:
        if what == "seal":
            assert isinstance(value, dict)
            self.seal({name: _bytes(number) for name, number in value.items()}, bool(more))
        elif what == "delete" and self.snapshots:
            assert isinstance(value, int)
            name = sorted(self.snapshots)[value % len(self.snapshots)]
            del self.snapshots[name]
            with self.store.writer() as writer:
                writer.publish([SnapshotDeleted(name)], "main", 0)
        elif what == "collect":
            assert isinstance(value, float)
            self.collect(value)
        elif what == "pin" and self.live():
            assert isinstance(value, int)
            self.pinned = sorted(self.live())[value % len(self.live())]
            self.store.pins.keep("model", [self.pinned])
        elif what == "reopen":
            self.store.close()
            self.store = Store.open(self.path)
            self.pinned = b""

    def seal(self, data: dict[bytes, bytes], snapshot: bool) -> None:
        self.count += 1
        with self.store.writer() as writer:
            self.head = store_tree(writer, data)
            self.trees[self.head] = data
            events = [HeadMoved(Head("main", self.head, self.count, self.count))]
            if snapshot:
                name = f"{self.count:010d}"
                self.snapshots[name] = self.head
                events.insert(0, SnapshotSealed(Snapshot(name, "main", self.head, [], 1, self.count)))
            writer.publish(events, "main", 0)

    def live(self) -> set[bytes]:
        return {self.head, self.pinned, *self.snapshots.values()} - {b""}

    def collect(self, slack: float) -> None:
        done = gc.collect(self.store, slack=slack)
        size = sum(entry.stat().st_size for entry in os.scandir(self.path + "/packs"))
        assert size == done.live_bytes + done.dead_bytes + done.packs_kept * FILE_HEADER_BYTES
        assert done.problems == ()
        if slack < gc.HALF_DEAD:
            assert done.dead_bytes <= slack * done.live_bytes
        if slack == gc.NOTHING_LEFT:
            for tree in self.trees.keys() - self.live():
                assert not self.store.objects.has(tree)

    def check(self) -> None:
        # One without anything cached.
        with Store.open(self.path) as fresh:
            for tree in self.live():
                assert _shown(fresh, tree) == self.trees[tree]
            Reach(fresh).walk_all([])


@settings(deadline=None, max_examples=60)
@given(st.lists(_STEPS, min_size=6, max_size=40))
def test_what_is_reachable_stays_and_nothing_else(steps: list[tuple[str, object, object]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        model = _Model(folder + "/store")
        try:
            for step in steps:
                model.step(*step)
                model.check()
            model.collect(gc.NOTHING_LEFT)
            model.check()
        finally:
            model.store.close()


_WRITER = """
import os, random, sys
from helios_fs.objects.snapshot import Head, HeadMoved, Snapshot, SnapshotDeleted, SnapshotSealed
from helios_fs.store.reach import Reach
from helios_fs.store.store import Store
from tests.property.test_collect import _shown
from tests.unit.store.trees import store_tree

path, branch, rounds = sys.argv[1], sys.argv[2], int(sys.argv[3])
chance = random.Random(branch)
store = Store.open(path)
writer = store.writer()
snapshots = {}
for number in range(1, rounds + 1):
    # Contents that others write too, so that deduplication meets what is about to be dropped.
    data = {b"%d" % name: (b"%d " % chance.randrange(12)) * 9000 for name in range(6)}
    data[b"own"] = os.urandom(20000)
    tree = store_tree(writer, data)
    name = f"{number:010d}"
    snapshot = SnapshotSealed(Snapshot(name, branch, tree, [], 1, number))
    events = [snapshot, HeadMoved(Head(branch, tree, number, number))]
    snapshots[name] = (tree, data)
    if len(snapshots) > 3:
        gone = chance.choice(sorted(snapshots))
        del snapshots[gone]
        events.append(SnapshotDeleted(gone))
    writer.publish(events, branch, 0)
    with Store.open(path) as fresh:
        for tree, data in snapshots.values():
            assert _shown(fresh, tree) == data
print("done", flush=True)
"""


def test_writers_in_other_processes_while_everything_is_collected(tmp_path: Path) -> None:
    path = str(tmp_path / "store")
    Store.create(path)
    root = Path(__file__).parents[2]
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", _WRITER, path, f"branch{number}", "40"],
            cwd=root, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )
        for number in range(3)
    ]  # fmt: skip
    collections = rewritten = 0
    with Store.open(path) as store:
        while any(one.poll() is None for one in writers):
            done = gc.collect(store, wait=True, slack=gc.NOTHING_LEFT if collections % 2 else gc.TIGHT)
            collections += 1
            rewritten += done.packs_rewritten
        for one in writers:
            out, err = one.communicate()
            assert (out, one.returncode) == (b"done\n", 0), err.decode()
        assert collections > 3 and rewritten > 3
        done = gc.collect(store, slack=gc.NOTHING_LEFT)
        assert done.dead_bytes == 0 and done.problems == ()
        Reach(store).walk_all([])
        for snapshot in store.refs.all_snapshots():
            assert len(_shown(store, snapshot.tree)) == 7
