"""What is kept of files that were put together from many pieces."""

import pytest

from helios_fs.objects import record
from helios_fs.worktree import assembled
from helios_fs.worktree.assembled import MANY_PIECES, MAX_FILES, MAX_RUN_BYTES
from tests.model.harness import Branch
from tests.unit.worktree.trees import make, read

PIECE = b"0123456789"


def _log(branch: Branch, path: str, pieces: int = MANY_PIECES) -> bytes:
    """Write a file piece by piece, read it, and return what it holds."""
    inode = make(branch, path)
    for number in range(pieces):
        branch.worktree.write(inode, number * len(PIECE), PIECE)
    assert read(branch, path) == PIECE * pieces
    return PIECE * pieces


def test_a_file_of_many_pieces_is_put_together_once(branch: Branch, monkeypatch: pytest.MonkeyPatch) -> None:
    content = _log(branch, "/log")

    def refuse(*_: object) -> bytes:
        raise AssertionError("the journal was read again")

    monkeypatch.setattr(branch.worktree.journal, "read_data", refuse)
    assert read(branch, "/log") == content
    assert branch.worktree.read(branch.walk("/log"), 15, 20) == content[15:35]
    assert branch.worktree.read(branch.walk("/log"), len(content), 10) == b""


def test_a_file_of_few_pieces_is_not_kept(branch: Branch) -> None:
    _log(branch, "/few", MANY_PIECES - 1)
    assert branch.walk("/few").run is None


def test_what_is_kept_follows_writes(branch: Branch) -> None:
    content = bytearray(_log(branch, "/log"))
    inode = branch.walk("/log")
    branch.worktree.write(inode, 5, b"inside")
    content[5:11] = b"inside"
    branch.worktree.write(inode, len(content), b"appended")
    content += b"appended"
    branch.worktree.write(inode, len(content) - 3, b"over the end")
    content[-3:] = b"over the end"
    assert inode.run is not None and bytes(inode.run.data) == content
    assert read(branch, "/log") == content


def test_a_write_that_leaves_a_hole_is_no_part_of_it(branch: Branch) -> None:
    content = _log(branch, "/log")
    inode = branch.walk("/log")
    branch.worktree.write(inode, len(content) + 7, b"far")
    assert inode.run is not None and bytes(inode.run.data) == content
    assert read(branch, "/log") == content + bytes(7) + b"far"


def test_what_begins_behind_the_start_follows_writes_before_it(branch: Branch) -> None:
    content = bytearray(_log(branch, "/log"))
    inode = branch.walk("/log")
    branch.worktree.read(inode, 50, 1000)
    assert inode.run is not None and inode.run.start == 0
    assembled.Assembled().keep(inode, 50, bytes(content[50:]))
    branch.worktree.write(inode, 0, b"before")
    content[0:6] = b"before"
    assert inode.run is not None
    branch.worktree.write(inode, 45, b"across it")
    content[45:54] = b"across it"
    assert inode.run is None
    assert read(branch, "/log") == content


def test_a_cut_and_a_restored_content_end_it(branch: Branch) -> None:
    _log(branch, "/log")
    inode = branch.walk("/log")
    branch.worktree.setattr(inode, record.SET_SIZE, size=3)
    assert inode.run is None
    branch.worktree.setattr(inode, record.SET_SIZE, size=6)
    assert read(branch, "/log") == b"012" + bytes(3)


def test_it_does_not_grow_without_bound(branch: Branch) -> None:
    for number in range(MAX_FILES + 3):
        _log(branch, f"/log{number}")
    kept = [number for number in range(MAX_FILES + 3) if branch.walk(f"/log{number}").run is not None]
    assert kept == list(range(3, MAX_FILES + 3))
    inode = branch.walk("/log3")
    run = inode.run
    assert run is not None
    branch.worktree.write(inode, len(run.data), bytes(MAX_RUN_BYTES))
    assert inode.run is None
    assert len(read(branch, "/log3")) == MANY_PIECES * len(PIECE) + MAX_RUN_BYTES
    assert inode.run is None
