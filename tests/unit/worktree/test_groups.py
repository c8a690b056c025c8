"""Groups: what is changed in one happens altogether or not at all."""

import os
import shutil
from pathlib import Path

import pytest

from helios_fs.errors import ReadOnly, StoreFull
from helios_fs.journal import journal as journal_module
from helios_fs.journal.segment import HEADER_BYTES
from helios_fs.objects import record
from helios_fs.sealer.process import seal_offline
from helios_fs.store import files
from helios_fs.worktree.groups import group
from tests.model.harness import Branch, Dump
from tests.unit.worktree.trees import make, read, remove, rename, rewrite, seal


def started(path: Path) -> Branch:
    branch = Branch(str(path / "store"))
    make(branch, "/a", b"a before")
    make(branch, "/b", b"b before")
    branch.worktree.snapshot(b"before")
    return branch


def change(branch: Branch) -> None:
    rewrite(branch, "/a", b"a after")
    rename(branch, "/b", "/c")
    make(branch, "/d", b"d after")
    remove(branch, "/d")


def only_segment(branch: Branch) -> str:
    directory = Path(branch.path, "journals", "main")
    (segment,) = directory.glob("*.seg")
    return str(segment)


def cut_everywhere(tmp_path: Path, snapshot: bool) -> None:
    """Cut the journal at every byte of a group: all of it is there at the last one, nothing at any other."""
    branch = started(tmp_path)
    before = branch.dump()
    start = branch.worktree.journal.end
    with group(branch.worktree, 1 << 16):
        change(branch)
        if snapshot:
            branch.worktree.snapshot(b"merge")
    end = branch.worktree.journal.end
    after = branch.dump()
    segment = only_segment(branch)
    first = branch.worktree.journal.start
    branch.close()
    kept = shutil.copytree(branch.path, tmp_path / "kept")
    whole = Path(segment).read_bytes()[: end - first + HEADER_BYTES]
    states: dict[int, Dump] = {}
    for cut in range(start, end + 1):
        shutil.rmtree(branch.path)
        shutil.copytree(kept, branch.path)
        Path(segment).write_bytes(whole[: cut - first + HEADER_BYTES])
        opened = Branch(branch.path)
        states[cut] = opened.dump()
        names = {one.name for one in opened.worktree.snapshots.all()}
        assert names == ({b"before", b"merge"} if snapshot and cut == end else {b"before"})
        assert opened.worktree.journal.end == (end if cut == end else start)
        opened.close()
    assert states.pop(end) == after != before
    assert all(state == before for state in states.values())


def test_every_cut_in_a_group_gives_before_or_after(tmp_path: Path) -> None:
    cut_everywhere(tmp_path, snapshot=False)


def test_every_cut_in_a_group_that_ends_with_a_snapshot(tmp_path: Path) -> None:
    cut_everywhere(tmp_path, snapshot=True)


def test_sealing_offline_leaves_an_unfinished_group_out(tmp_path: Path) -> None:
    branch = started(tmp_path)
    before = branch.dump()
    with pytest.raises(RuntimeError), group(branch.worktree, 1 << 16):
        change(branch)
        raise RuntimeError
    branch.close()
    seal_offline(branch.path, "main")
    branch.open()
    assert branch.dump() == before
    branch.close()


def test_a_group_that_fails_makes_the_branch_read_only_until_recovery(tmp_path: Path) -> None:
    branch = started(tmp_path)
    before = branch.dump()
    with pytest.raises(RuntimeError), group(branch.worktree, 1 << 16):
        change(branch)
        raise RuntimeError
    with pytest.raises(ReadOnly):
        make(branch, "/e")
    with pytest.raises(ReadOnly), group(branch.worktree, 1):
        pass
    branch.reopen()
    assert branch.dump() == before
    make(branch, "/e", b"works")
    branch.reopen()
    assert read(branch, "/e") == b"works"
    branch.close()


def test_a_group_is_sealed_like_everything_else(tmp_path: Path) -> None:
    branch = started(tmp_path)
    with group(branch.worktree, 1 << 16):
        change(branch)
    after = branch.dump()
    seal(branch)
    assert branch.store.refs.head("main").lsn == branch.worktree.journal.end
    with group(branch.worktree, 1 << 16):
        branch.worktree.snapshot(b"merge")
    seal(branch)
    assert branch.store.refs.head("main").lsn == branch.worktree.journal.end
    branch.reopen()
    assert branch.dump() == after
    branch.close()


def test_a_full_disk_is_heard_of_before_anything_happens(tmp_path: Path) -> None:
    branch = started(tmp_path)
    before, end = branch.dump(), branch.worktree.journal.end

    def full(operation: str, path: str, length: int) -> None:
        if operation == "allocate":
            raise OSError(28, os.strerror(28))

    files.set_fault(full)
    try:
        with pytest.raises(StoreFull), group(branch.worktree, 1 << 16):
            raise AssertionError
    finally:
        files.set_fault(None)
    assert branch.worktree.journal.end == end
    assert branch.dump() == before
    make(branch, "/e", b"works")
    branch.reopen()
    assert read(branch, "/e") == b"works"
    branch.close()


def test_a_group_stays_in_one_segment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal_module, "SEGMENT_BYTES", 4096)
    branch = started(tmp_path)
    with group(branch.worktree, 1 << 16):
        for number in range(100):
            make(branch, f"/{number}", b"x" * 100)
    frames = list(branch.worktree.journal.frames(branch.worktree.journal.start))
    begin = next(frame.position for frame in frames if frame.kind == record.BEGIN)
    end = next(frame.position for frame in frames if frame.kind == record.END)
    starts = [int(path.stem, 16) for path in Path(branch.path, "journals", "main").glob("*.seg")]
    assert end - begin > 4096
    assert not [start for start in starts if begin < start <= end]
    make(branch, "/more", b"begins another")
    assert len(list(Path(branch.path, "journals", "main").glob("*.seg"))) == len(starts) + 1
    branch.close()
