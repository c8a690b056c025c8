"""Answers for the process that touches what has changed: whatever it asks for, nothing comes of it."""

import errno
import os
import stat
import types
from collections.abc import Iterator
from pathlib import Path

import pyfuse3
import pytest

from helios_fs.fuse.pretence import Pretence
from helios_fs.objects.ids import ROOT_INO
from tests.model.harness import Branch
from tests.unit.fuse.handlers import Handlers, caller, run
from tests.unit.worktree.trees import directory, make

PROCESS = 77


def process() -> pyfuse3.RequestContext:
    return types.SimpleNamespace(uid=0, gid=0, pid=PROCESS, umask=0)  # type: ignore[return-value]  # same attributes


@pytest.fixture
def branch(tmp_path: Path) -> Iterator[Branch]:
    opened = Branch(str(tmp_path / "store"))
    directory(opened, "/d")
    make(opened, "/file", b"content")
    yield opened
    opened.close()


@pytest.fixture
def pretence(branch: Branch) -> Pretence:
    operations = Handlers(branch).operations
    vars(operations)["divert"] = vars(operations).update
    pretence = Pretence(operations)  # type: ignore[arg-type]  # a mount of one branch
    pretence.process = PROCESS
    return pretence


def refuse(handler: object, *arguments: object) -> int:
    with pytest.raises(pyfuse3.FUSEError) as raised:
        run(handler, *arguments)  # type: ignore[arg-type]  # returns what can be awaited
    return raised.value.errno


@pytest.fixture(autouse=True)
def nothing_changes(branch: Branch, pretence: Pretence) -> Iterator[None]:
    before, end = branch.dump(), branch.worktree.journal.end
    yield
    assert branch.dump() == before and branch.worktree.journal.end == end


def test_a_name_that_is_there_is_made(branch: Branch, pretence: Pretence) -> None:
    key = (ROOT_INO, b"file")
    pretence.expect({}, {key}, {})
    holds = branch.walk("/file").holds
    assert refuse(pretence.lookup, *key, process()) == errno.ENOENT
    assert run(pretence.lookup, *key, caller()).st_ino == branch.walk("/file").ino  # type: ignore[attr-defined]
    assert run(pretence.mknod, *key, stat.S_IFREG, 0, process()).st_ino == branch.walk("/file").ino  # type: ignore[attr-defined]
    assert branch.walk("/file").holds == holds + 2
    assert refuse(pretence.mknod, *key, stat.S_IFREG, 0, process()) == errno.EPERM


def test_what_is_something_else_or_nothing_by_now_is_not_made(branch: Branch, pretence: Pretence) -> None:
    pretence.expect({}, {(ROOT_INO, b"file"), (ROOT_INO, b"gone")}, {})
    holds = branch.walk("/file").holds
    assert refuse(pretence.mkdir, ROOT_INO, b"file", 0o755, process()) == errno.EEXIST
    assert refuse(pretence.symlink, ROOT_INO, b"file", b"-", process()) == errno.EEXIST
    assert refuse(pretence.mkdir, ROOT_INO, b"gone", 0o755, process()) == errno.ENOENT
    assert refuse(pretence.mkdir, ROOT_INO, b"never heard of", 0o755, process()) == errno.EPERM
    assert branch.walk("/file").holds == holds


def test_what_somebody_has_opened_is_there_for_the_process_too(branch: Branch, pretence: Pretence) -> None:
    inode = branch.walk("/file").ino
    pretence.expect({}, {(ROOT_INO, b"file")}, {})
    run(pretence.open, inode, os.O_RDONLY, process())
    assert refuse(pretence.lookup, ROOT_INO, b"file", process()) == errno.ENOENT
    run(pretence.open, inode, os.O_RDONLY, caller())
    assert run(pretence.lookup, ROOT_INO, b"file", process()).st_ino == inode  # type: ignore[attr-defined]


@pytest.mark.parametrize("mode", [stat.S_IFREG | 0o644, stat.S_IFDIR | 0o755])
def test_a_name_that_is_gone_is_taken_away(pretence: Pretence, mode: int) -> None:
    key = (ROOT_INO, b"gone")
    handler = pretence.rmdir if stat.S_ISDIR(mode) else pretence.unlink
    pretence.expect({key: mode}, set(), {})
    assert refuse(handler, *key, process()) == errno.EPERM
    shown: pyfuse3.EntryAttributes = run(pretence.lookup, *key, process())  # type: ignore[assignment]
    assert (shown.st_mode, shown.entry_timeout, shown.attr_timeout) == (mode, 0.0, 0.0)
    assert run(pretence.lookup, *key, caller()).st_ino == 0  # type: ignore[attr-defined]
    run(handler, *key, process())
    assert refuse(handler, *key, process()) == errno.EPERM


def test_a_name_that_has_come_back_is_not_taken_away(branch: Branch, pretence: Pretence) -> None:
    pretence.expect({(ROOT_INO, b"file"): stat.S_IFREG, (ROOT_INO, b"d"): stat.S_IFDIR}, set(), {})
    for name, handler in ((b"file", pretence.unlink), (b"d", pretence.rmdir)):
        shown = run(pretence.lookup, ROOT_INO, name, process())
        assert shown.st_ino == branch.walk("/" + name.decode()).ino  # type: ignore[attr-defined]
        assert refuse(handler, ROOT_INO, name, process()) == errno.EPERM


def test_a_name_is_moved_to_where_it_is(branch: Branch, pretence: Pretence) -> None:
    old, new = (branch.walk("/d").ino, b"old"), (ROOT_INO, b"file")
    pretence.expect({}, {new}, {old: new})
    holds = branch.walk("/file").holds
    assert refuse(pretence.rename, *old, *new, 0, process()) == errno.ENOENT
    shown: pyfuse3.EntryAttributes = run(pretence.lookup, *old, process())  # type: ignore[assignment]
    assert (shown.st_ino, shown.st_size, shown.entry_timeout) == (branch.walk("/file").ino, 7, 0.0)
    assert refuse(pretence.lookup, *new, process()) == errno.ENOENT
    run(pretence.rename, *old, *new, 0, process())
    assert branch.walk("/file").holds == holds + 1
    assert run(pretence.lookup, *new, process()).st_ino == branch.walk("/file").ino  # type: ignore[attr-defined]


def test_a_move_that_is_not_so_any_more_is_refused(branch: Branch, pretence: Pretence) -> None:
    there, gone = (ROOT_INO, b"d"), (ROOT_INO, b"gone")
    pretence.expect({}, set(), {there: (ROOT_INO, b"file"), gone: (ROOT_INO, b"nowhere")})
    assert run(pretence.lookup, *there, process()).st_ino == branch.walk("/d").ino  # type: ignore[attr-defined]
    assert refuse(pretence.rename, *there, ROOT_INO, b"file", 0, process()) == errno.EBUSY
    assert run(pretence.lookup, *gone, process()).st_ino == 0  # type: ignore[attr-defined]
    assert refuse(pretence.rename, *gone, ROOT_INO, b"nowhere", 0, process()) == errno.ENOENT
    assert refuse(pretence.rename, *gone, ROOT_INO, b"elsewhere", 0, process()) == errno.EPERM


def test_attributes_are_told_and_stay(branch: Branch, pretence: Pretence) -> None:
    attr, fields = pyfuse3.EntryAttributes(), types.SimpleNamespace(update_mode=True)
    attr.st_mode = stat.S_IFREG
    told = run(pretence.setattr, branch.walk("/file").ino, attr, fields, None, process())
    assert told.st_mode == branch.walk("/file").mode  # type: ignore[attr-defined]


def test_others_are_answered_as_ever(branch: Branch, pretence: Pretence) -> None:
    """All that the process asks for, by somebody else, on names that make the handlers refuse."""
    gone = (ROOT_INO, b"gone")
    pretence.expect({gone: stat.S_IFREG}, {(ROOT_INO, b"file")}, {gone: (ROOT_INO, b"file")})
    assert refuse(pretence.mknod, ROOT_INO, b"file", stat.S_IFREG, 0, caller()) == errno.EEXIST
    assert refuse(pretence.mkdir, ROOT_INO, b"d", 0, caller()) == errno.EEXIST
    assert refuse(pretence.symlink, ROOT_INO, b"file", b"-", caller()) == errno.EEXIST
    assert refuse(pretence.unlink, *gone, caller()) == errno.ENOENT
    assert refuse(pretence.rmdir, *gone, caller()) == errno.ENOENT
    assert refuse(pretence.rename, *gone, ROOT_INO, b"file", 0, caller()) == errno.ENOENT
    nothing = pyfuse3.SetattrFields()
    told = refuse(pretence.setattr, 1 << 40, pyfuse3.EntryAttributes(), nothing, None, caller())
    assert told in (errno.EROFS, errno.ENOENT, errno.EPERM)
