"""`.snapshots` asked directly: what the kernel may keep, what it must ask again, who is told what."""

import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pyfuse3
import pytest

from helios_fs.fuse.nodes import LATEST_NODEID, SNAPSHOTS_NODEID
from helios_fs.objects.ids import ROOT_INO
from tests.model.harness import Branch
from tests.unit.fuse.handlers import Handlers, caller
from tests.unit.worktree.trees import directory, make, rewrite, seal


@pytest.fixture
def branch(tmp_path: Path) -> Iterator[Branch]:
    opened = Branch(str(tmp_path / "store"))
    directory(opened, "/d")
    make(opened, "/d/file", b"content")
    yield opened
    opened.close()


@pytest.fixture
def handlers(branch: Branch) -> Handlers:
    return Handlers(branch)


def look(handlers: Handlers, parent: int, name: bytes) -> tuple[int, int, float, float, int]:
    """Return nodeid, mode, how long name and attributes may be kept, and size; the reply itself is used again."""
    reply = handlers.ask("lookup", parent, name)
    assert isinstance(reply, pyfuse3.EntryAttributes)
    return reply.st_ino, reply.st_mode, reply.entry_timeout, reply.attr_timeout, reply.st_size


def test_directories_may_be_kept_and_symlinks_never(branch: Branch, handlers: Handlers) -> None:
    taken = branch.worktree.snapshot(b"one")
    nodeid, mode, entry, attributes, _ = look(handlers, SNAPSHOTS_NODEID, b"one")
    assert stat.S_ISDIR(mode)
    assert min(entry, attributes) > 1_000_000
    for name in (taken.id.encode(), b"latest"):
        nodeid, mode, entry, attributes, size = look(handlers, SNAPSHOTS_NODEID, name)
        assert stat.S_ISLNK(mode)
        assert (entry, attributes, size) == (0, 0, 3)
        assert handlers.ask("readlink", nodeid, caller()) == b"one"


def test_the_directory_itself_is_known_until_it_changes(branch: Branch, handlers: Handlers) -> None:
    nodeid, mode, entry, attributes, _ = look(handlers, ROOT_INO, b".snapshots")
    assert (nodeid, stat.S_IMODE(mode)) == (SNAPSHOTS_NODEID, 0o755)
    assert entry > 1_000_000
    assert attributes > 1_000_000
    assert links(handlers) == 2
    branch.worktree.snapshot()
    branch.worktree.snapshot()
    assert links(handlers) == 4


def links(handlers: Handlers) -> int:
    reply = handlers.ask("getattr", SNAPSHOTS_NODEID)
    assert isinstance(reply, pyfuse3.EntryAttributes)
    return int(reply.st_nlink)


def test_a_name_that_is_not_there_is_never_kept(handlers: Handlers, branch: Branch) -> None:
    assert handlers.refuse("lookup", SNAPSHOTS_NODEID, b"absent") == errno.ENOENT
    assert handlers.refuse("lookup", SNAPSHOTS_NODEID, b"latest") == errno.ENOENT
    assert handlers.refuse("getattr", LATEST_NODEID) == errno.ENOENT
    assert handlers.refuse("readlink", LATEST_NODEID, caller()) == errno.ENOENT
    assert handlers.refuse("lookup", ROOT_INO, b".branches") == errno.ENOENT


def test_in_a_snapshot_it_is_for_there_nothing_changes(handlers: Handlers, branch: Branch) -> None:
    branch.worktree.snapshot(b"one")
    root, *_ = look(handlers, SNAPSHOTS_NODEID, b"one")
    nodeid, _, entry, *_ = look(handlers, root, b"absent")
    assert nodeid == 0
    assert entry > 1_000_000
    assert handlers.refuse("lookup", root, b"n" * 256) == errno.ENAMETOOLONG


def test_mkdir_takes_a_snapshot_in_the_name_of_who_asks(branch: Branch, handlers: Handlers) -> None:
    reply = handlers.ask("mkdir", SNAPSHOTS_NODEID, b"mine", 0o755, caller(uid=0))
    assert isinstance(reply, pyfuse3.EntryAttributes)
    handlers.ask("mkdir", SNAPSHOTS_NODEID, b"theirs", 0o755, caller(uid=54321))
    mine, theirs = branch.worktree.snapshots.all()
    assert (mine.name, mine.user, theirs.user) == (b"mine", "root", "54321")
    assert mine.host == os.uname().nodename
    assert handlers.refuse("mkdir", SNAPSHOTS_NODEID, b"mine", 0o755, caller()) == errno.EEXIST
    assert handlers.refuse("mkdir", SNAPSHOTS_NODEID, b"n" * 256, 0o755, caller()) == errno.ENAMETOOLONG
    assert len(branch.worktree.snapshots) == 2


def test_other_names_of_a_snapshot_are_not_to_be_removed_or_moved(branch: Branch, handlers: Handlers) -> None:
    taken = branch.worktree.snapshot(b"one")
    for name in (b"latest", taken.id.encode()):
        assert handlers.refuse("rmdir", SNAPSHOTS_NODEID, name, caller()) == errno.EOPNOTSUPP
        arguments = (SNAPSHOTS_NODEID, name, SNAPSHOTS_NODEID, b"new", 0, caller())
        assert handlers.refuse("rename", *arguments) == errno.EOPNOTSUPP
    assert handlers.refuse("rmdir", SNAPSHOTS_NODEID, b"absent", caller()) == errno.ENOENT
    arguments = (SNAPSHOTS_NODEID, b"one", SNAPSHOTS_NODEID, b"~1", 0, caller())
    assert handlers.refuse("rename", *arguments) == errno.EINVAL
    assert len(branch.worktree.snapshots) == 1


def test_a_read_only_mount_takes_and_deletes_none(branch: Branch) -> None:
    branch.worktree.snapshot(b"one")
    handlers = Handlers(branch, read_only=True)
    assert handlers.refuse("mkdir", SNAPSHOTS_NODEID, b"two", 0o755, caller()) == errno.EROFS
    assert handlers.refuse("rmdir", SNAPSHOTS_NODEID, b"one", caller()) == errno.EROFS
    arguments = (SNAPSHOTS_NODEID, b"one", SNAPSHOTS_NODEID, b"two", 0, caller())
    assert handlers.refuse("rename", *arguments) == errno.EROFS
    assert len(branch.worktree.snapshots) == 1
    assert look(handlers, SNAPSHOTS_NODEID, b"one")[0]


@pytest.mark.parametrize("sealed", [False, True])
def test_a_file_of_a_snapshot_is_read_while_it_is_open(branch: Branch, handlers: Handlers, sealed: bool) -> None:
    branch.worktree.snapshot(b"one")
    if sealed:
        seal(branch)
    root, *_ = look(handlers, SNAPSHOTS_NODEID, b"one")
    below, *_ = look(handlers, root, b"d")
    nodeid, mode, *_ = look(handlers, below, b"file")
    assert stat.S_ISREG(mode)
    info = handlers.ask("open", nodeid, os.O_RDONLY, caller())
    assert isinstance(info, pyfuse3.FileInfo)
    handlers.ask("forget", [(nodeid, 1), (below, 1)])
    rewrite(branch, "/d/file", b"changed")
    assert handlers.ask("read", info.fh, 0, 100) == b"content"
    handlers.ask("release", nodeid)
    assert handlers.nodes.shown() == []
    assert handlers.refuse("read", nodeid, 0, 100) == errno.ENOENT


def test_attributes_of_snapshots_and_of_what_is_made_up(branch: Branch, handlers: Handlers) -> None:
    branch.worktree.setxattr(branch.walk("/d"), b"user.x", b"1")
    branch.worktree.setxattr(branch.walk("/d"), b"trusted.x", b"2")
    taken = branch.worktree.snapshot(b"one")
    root, *_ = look(handlers, SNAPSHOTS_NODEID, b"one")
    below, *_ = look(handlers, root, b"d")
    assert handlers.ask("getxattr", below, b"user.x", caller()) == b"1"
    assert handlers.refuse("getxattr", below, b"user.y", caller()) == errno.ENODATA
    assert handlers.ask("listxattr", below, caller(uid=1)) == [b"user.x"]
    assert sorted(handlers.ask("listxattr", below, caller())) == [b"trusted.x", b"user.x"]  # type: ignore[call-overload]  # a list
    alias, *_ = look(handlers, SNAPSHOTS_NODEID, taken.id.encode())
    for nodeid in (SNAPSHOTS_NODEID, LATEST_NODEID, alias):
        assert handlers.ask("listxattr", nodeid, caller()) == []
        assert handlers.refuse("getxattr", nodeid, b"user.x", caller()) == errno.ENODATA
        assert handlers.refuse("setxattr", nodeid, b"user.x", b"", caller()) == errno.EPERM
    assert handlers.refuse("setxattr", root, b"user.x", b"", caller()) == errno.EROFS
    assert handlers.refuse("setxattr", below, b"user.x", b"", caller()) == errno.EROFS


def test_nothing_moves_between_trees(branch: Branch, handlers: Handlers) -> None:
    branch.worktree.snapshot(b"one")
    branch.worktree.snapshot(b"two")
    one, two = (look(handlers, SNAPSHOTS_NODEID, name)[0] for name in (b"one", b"two"))
    below, *_ = look(handlers, one, b"d")
    file, *_ = look(handlers, below, b"file")
    places = {"live": ROOT_INO, "one": one, "below": below, "two": two, "control": SNAPSHOTS_NODEID}
    for source, target, error in [
        ("live", "one", errno.EXDEV),
        ("one", "live", errno.EXDEV),
        ("one", "two", errno.EXDEV),
        ("below", "two", errno.EXDEV),
        ("one", "below", errno.EROFS),
        ("one", "one", errno.EROFS),
        ("live", "control", errno.EXDEV),
        ("control", "live", errno.EXDEV),
    ]:
        arguments = (places[source], b"d", places[target], b"new", 0, caller())
        assert handlers.refuse("rename", *arguments) == error, (source, target)
    assert handlers.refuse("link", file, ROOT_INO, b"new", caller()) == errno.EXDEV
    assert handlers.refuse("link", branch.walk("/d/file").ino, one, b"new", caller()) == errno.EXDEV
    assert handlers.refuse("link", file, two, b"new", caller()) == errno.EROFS


def test_a_deleted_snapshot_answers_for_nothing_any_more(branch: Branch, handlers: Handlers) -> None:
    taken = branch.worktree.snapshot(b"one")
    root, *_ = look(handlers, SNAPSHOTS_NODEID, b"one")
    alias, *_ = look(handlers, SNAPSHOTS_NODEID, taken.id.encode())
    assert look(handlers, root, b"absent")[0] == 0
    handlers.ask("rmdir", SNAPSHOTS_NODEID, b"one", caller())
    assert handlers.nodes.shown() == []
    for handler, arguments in {
        "getattr": (root,),
        "opendir": (root, caller()),
        "lookup": (root, b"d"),
        "listxattr": (root, caller()),
    }.items():
        assert handlers.refuse(handler, *arguments) == errno.ENOENT
    assert handlers.refuse("getattr", alias) == errno.ENOENT
    assert handlers.refuse("readlink", alias, caller()) == errno.ENOENT
