import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from helios_fs.errors import CorruptObject, StoreFault, StoreFull
from helios_fs.objects.ids import KIND_BLOB, object_id
from helios_fs.objects.snapshot import Head, HeadMoved, Snapshot, SnapshotChanged, SnapshotDeleted, SnapshotSealed
from helios_fs.store import gc, maps
from helios_fs.store.environment import HEADS, OBJECTS, SNAPSHOTS
from helios_fs.store.packs import pack_numbers, pack_path
from helios_fs.store.store import Store
from tests.unit.store.faults import Faults
from tests.unit.store.trees import store_tree


def _fill(path: str) -> tuple[bytes, int]:
    """Two seals, three snapshots of which one is renamed and one deleted, garbage collected once."""
    with Store.open(path) as store:
        store.reserve_inos(1000)
        fence = store.take_branch("main")
        for number in range(3):
            with store.writer() as writer:
                tree = store_tree(writer, {b"a": b"%d" % number * 60, b"same": b"same" * 60}, large=b"x" * 900)
                snapshot = Snapshot(f"{number:010d}", "main", tree, [], 1, number, b"name%d" % number)
                writer.publish([SnapshotSealed(snapshot), HeadMoved(Head("main", tree, number, number))], "main", fence)
        with store.writer() as writer:
            writer.publish(
                [SnapshotChanged(f"{1:010d}", b"other", "m", True), SnapshotDeleted(f"{0:010d}")], "main", fence
            )
        gc.collect(store)
    return tree, fence


def _state(path: str) -> dict[str, object]:
    with Store.open(path) as store:
        found: dict[str, object] = {}
        with store.index.environment.read() as txn:
            for name in (OBJECTS, HEADS, SNAPSHOTS):
                found[name.decode()] = dict(txn.scan(name))
        for head in store.refs.heads():
            tree = store.objects.tree(head.tree)
            found[head.branch] = list(maps.scan(store.objects, tree.root.content))
        return found


def _flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 0xFF
    path.write_bytes(data)


def _missing(index: Path) -> None:
    shutil.rmtree(index)


def _without_data(index: Path) -> None:
    (index / "data.mdb").unlink()


def _truncated(index: Path) -> None:
    os.truncate(index / "data.mdb", (index / "data.mdb").stat().st_size // 2)


def _empty(index: Path) -> None:
    os.truncate(index / "data.mdb", 0)


def _damaged_meta(index: Path) -> None:
    _flip(index / "data.mdb", 16)


def _marked(index: Path) -> None:
    (index / "damaged").touch()


def _noise(index: Path) -> None:
    (index / "data.mdb").write_bytes(os.urandom(40_000))


@pytest.mark.parametrize("harm", [_missing, _without_data, _truncated, _empty, _damaged_meta, _marked, _noise])
def test_a_harmed_index_is_built_again_with_the_same_content(path: str, harm: object) -> None:
    _, fence = _fill(path)
    before = _state(path)
    assert before["main"]
    harm(Path(path, "index"))  # type: ignore[operator]  # one of the functions above
    assert _state(path) == before
    with Store.open(path) as store:
        assert [(s.id, s.name) for s in store.refs.snapshots("main")] == [
            (f"{1:010d}", b"other"),
            (f"{2:010d}", b"name2"),
        ]
        # Nothing that was given out is given out again, even if the log's last records were lost.
        assert store.reserve_inos(1)[0] > 1002
        assert store.take_branch("main") > fence
        with store.writer() as writer:
            writer.put(KIND_BLOB, b"more")
            writer.publish([], "main", fence + (1 << 20) + 1)
        assert len(set(pack_numbers(path + "/packs"))) == len(os.listdir(path + "/packs"))


def test_an_index_of_another_layout_or_store_is_built_again(path: str, tmp_path: Path) -> None:
    _fill(path)
    before = _state(path)
    with Store.open(path) as store, store.index.environment.write() as txn:
        txn.put_number(b"version", 99)
    assert _state(path) == before
    other = str(tmp_path / "other")
    Store.create(other)
    Store.open(other).close()
    shutil.rmtree(path + "/index")
    shutil.copytree(other + "/index", path + "/index")
    assert _state(path) == before


def test_a_damaged_value_costs_a_rebuild_never_wrong_bytes(path: str) -> None:
    _fill(path)
    before = _state(path)
    with Store.open(path) as store:
        raw_env, handle = store.index.environment._env, store.index.environment.handle(HEADS)
        with raw_env.begin(write=True) as raw:
            ((key, value),) = list(raw.cursor(db=handle))
            raw.put(key, b"\xff" + value[1:], db=handle)
        with pytest.raises(CorruptObject):
            store.refs.head("main")
        program = "import sys; from helios_fs.store.store import Store; Store.open(sys.argv[1])"
        root = str(Path(__file__).parents[3])
        done = subprocess.run([sys.executable, "-c", program, path], cwd=root, capture_output=True, text=True)
        assert "Busy: the index of " in done.stderr and "another process uses it" in done.stderr
    assert _state(path) == before


def test_a_damaged_counter_is_noticed_at_open(path: str) -> None:
    _fill(path)
    before = _state(path)
    with Store.open(path) as store:
        raw_env, handle = store.index.environment._env, store.index.environment.handle(b"meta")
        with raw_env.begin(write=True) as raw:
            raw.put(b"version", b"\xff" * 16, db=handle)
    assert _state(path) == before


def test_progress_is_told_in_bytes(path: str) -> None:
    _fill(path)
    shutil.rmtree(path + "/index")
    calls: list[tuple[int, int]] = []
    Store.open(path, lambda done, total: calls.append((done, total))).close()
    total = sum(entry.stat().st_size for entry in os.scandir(path + "/packs"))
    assert calls[-1] == (total, total)
    assert [done for done, _ in calls] == sorted(done for done, _ in calls)
    calls.clear()
    Store.open(path, lambda done, total: calls.append((done, total))).close()
    assert calls == []


def test_damaged_records_are_left_out_and_the_rest_is_found(path: str) -> None:
    _fill(path)
    with Store.open(path) as store:
        blob = object_id(KIND_BLOB, b"2" * 60)
        location = store.index.find(blob)
        assert location is not None
    _flip(Path(pack_path(path + "/packs", location.pack)), location.offset + 57)
    before = _state(path)
    shutil.rmtree(path + "/index")
    after = _state(path)
    lost = before["objects"].keys() - after["objects"].keys()  # type: ignore[attr-defined]  # a dict
    assert lost == {blob}


def test_a_pack_without_a_good_header_is_left_out(path: str, caplog: pytest.LogCaptureFixture) -> None:
    _fill(path)
    Path(path, "packs", "00000063.pack").write_bytes(b"torn")
    before = _state(path)
    shutil.rmtree(path + "/index")
    assert _state(path) == before
    assert "pack 00000063" in caplog.text
    with Store.open(path) as store:
        assert store.index.next_pack() == 0x64


def test_a_torn_tail_of_the_ref_log_is_cut_off(path: str) -> None:
    _fill(path)
    refs = Path(path, "refs")
    size = refs.stat().st_size
    refs.write_bytes(refs.read_bytes() + b"HREF torn")
    before = _state(path)
    assert refs.stat().st_size == size
    refs.write_bytes(refs.read_bytes() + b"HREF torn")
    shutil.rmtree(path + "/index")
    assert _state(path) == before
    assert refs.stat().st_size == size


def test_a_rebuild_that_fails_or_dies_can_be_repeated(path: str, faults: Faults) -> None:
    _fill(path)
    before = _state(path)
    faults.seen = []
    shutil.rmtree(path + "/index")
    Store.open(path).close()
    count = len(faults.seen)
    for number in range(count):
        shutil.rmtree(path + "/index")
        faults.seen, faults.fail_at = [], number
        try:
            Store.open(path).close()
        except (StoreFault, StoreFull):
            pass
        faults.fail_at = -1
        assert _state(path) == before


def test_objects_of_dropped_packs_are_not_missed(path: str) -> None:
    """Ref log records name pack extents that a collection has dropped since."""
    _fill(path)
    with Store.open(path) as store:
        for number in range(3):
            with store.writer() as writer:
                writer.publish([SnapshotDeleted(f"{number:010d}")], "main", store.take_branch("main"))
        assert gc.collect(store).packs_dropped
    before = _state(path)
    shutil.rmtree(path + "/index")
    assert _state(path) == before


def test_two_processes_that_find_the_index_missing_build_it_once(path: str) -> None:
    _fill(path)
    before = _state(path)
    shutil.rmtree(path + "/index")
    children = []
    for _ in range(4):
        child = os.fork()
        if child == 0:
            with Store.open(path) as store:
                os._exit(0 if store.refs.head("main").lsn == 2 else 1)
        children.append(child)
    assert [os.waitpid(child, 0)[1] for child in children] == [0] * 4
    assert _state(path) == before
