"""Renames that leave a whiteout: both or neither, after any crash."""

import shutil
import stat
from pathlib import Path

import pytest

from helios_fs.errors import EntryExists, NoSuchEntry
from helios_fs.journal.segment import HEADER_BYTES
from helios_fs.worktree.whiteout import rename_leaving_whiteout
from tests.model.harness import Branch
from tests.unit.worktree.trees import directory, make, read


def started(tmp_path: Path) -> Branch:
    branch = Branch(str(tmp_path / "store"))
    directory(branch, "/from")
    directory(branch, "/to")
    make(branch, "/from/file", b"moved")
    make(branch, "/to/taken", b"replaced")
    return branch


def leave(branch: Branch, old: str, new: str, replace: bool = True) -> None:
    (above, _, name), (new_above, _, new_name) = old.rpartition("/"), new.rpartition("/")
    old_parent, new_parent = branch.walk(above), branch.walk(new_above)
    rename_leaving_whiteout(branch.worktree, old_parent, name.encode(), new_parent, new_name.encode(), replace, 7, 8)


@pytest.mark.parametrize("new", ["/to/free", "/to/taken", "/from/beside"])
def test_a_device_takes_the_old_name(tmp_path: Path, new: str) -> None:
    branch = started(tmp_path)
    leave(branch, "/from/file", new)
    for _ in range(2):
        whiteout = branch.walk("/from/file")
        assert (stat.S_IFMT(whiteout.mode), whiteout.rdev) == (stat.S_IFCHR, 0)
        assert (whiteout.uid, whiteout.gid) == (7, 8)
        assert read(branch, new) == b"moved"
        branch.reopen()
    branch.close()


def test_a_refusal_changes_nothing(tmp_path: Path) -> None:
    branch = started(tmp_path)
    before = branch.dump()
    with pytest.raises(EntryExists):
        leave(branch, "/from/file", "/to/taken", replace=False)
    with pytest.raises(NoSuchEntry):
        leave(branch, "/from/absent", "/to/free")
    assert branch.dump() == before
    make(branch, "/works")
    branch.close()


def test_every_cut_gives_before_or_after(tmp_path: Path) -> None:
    branch = started(tmp_path)
    before, start = branch.dump(), branch.worktree.journal.end
    leave(branch, "/from/file", "/to/taken")
    after, end, first = branch.dump(), branch.worktree.journal.end, branch.worktree.journal.start
    branch.close()
    (segment,) = Path(branch.path, "journals", "main").glob("*.seg")
    whole = segment.read_bytes()
    kept = shutil.copytree(branch.path, tmp_path / "kept")
    for cut in range(start, end + 1):
        shutil.rmtree(branch.path)
        shutil.copytree(kept, branch.path)
        segment.write_bytes(whole[: cut - first + HEADER_BYTES])
        opened = Branch(branch.path)
        assert opened.dump() == (after if cut == end else before)
        opened.close()
