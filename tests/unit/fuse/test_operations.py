"""Request handlers, as far as a mount cannot be brought to ask for it: races, cold objects, errors nobody foresaw."""

import errno
import logging
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pyfuse3
import pytest

from helios_fs.errors import ColdObject, CorruptObject, HeliosError
from helios_fs.fuse.nodes import VIEW_SHIFT, WRITABLE_HANDLE
from helios_fs.objects.ids import ROOT_INO
from helios_fs.store import files
from helios_fs.worktree.worktree import Worktree
from tests.model.harness import Branch
from tests.unit.fuse.handlers import Handlers, caller
from tests.unit.worktree.trees import directory, make, read, remove, seal

MODE = stat.S_IFREG | 0o644


@pytest.fixture
def branch(tmp_path: Path) -> Iterator[Branch]:
    opened = Branch(str(tmp_path / "store"))
    directory(opened, "/d")
    make(opened, "/file", b"content")
    seal(opened)
    yield opened
    opened.close()


@pytest.fixture
def handlers(branch: Branch) -> Handlers:
    return Handlers(branch)


# -- What the kernel does not know yet -------------------------------------------------------------------------------


def test_a_file_that_came_back_behind_the_kernels_back_is_opened(branch: Branch, handlers: Handlers) -> None:
    """After a restore the kernel may still think that a name is free, and ask to create what is there."""
    inode = branch.walk("/file")
    info, attributes = handlers.ask("create", ROOT_INO, b"file", MODE, os.O_RDWR | os.O_CREAT, caller())  # type: ignore[misc]  # a pair
    assert attributes.st_ino == inode.ino
    assert info.fh == inode.ino | WRITABLE_HANDLE
    assert branch.walk("/file").holds == 2
    assert read(branch, "/file") == b"content"


def test_such_a_file_is_cut_where_that_was_asked_for(branch: Branch, handlers: Handlers) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
    _, attributes = handlers.ask("create", ROOT_INO, b"file", MODE, flags, caller())  # type: ignore[misc]  # a pair
    assert attributes.st_size == 0
    assert read(branch, "/file") == b""


def test_but_not_where_it_must_be_new_or_is_a_directory(branch: Branch, handlers: Handlers) -> None:
    end = branch.worktree.journal.end
    flags = os.O_WRONLY | os.O_CREAT
    assert handlers.refuse("create", ROOT_INO, b"file", MODE, flags | os.O_EXCL, caller()) == errno.EEXIST
    assert handlers.refuse("create", ROOT_INO, b"d", MODE, flags, caller()) == errno.EEXIST
    assert branch.worktree.journal.end == end


def test_what_nobody_knows_of_is_no_harm(branch: Branch, handlers: Handlers) -> None:
    unknown = 999_999
    for nodeid in (unknown, 7 << VIEW_SHIFT | 5):
        assert handlers.refuse("getattr", nodeid) == errno.ENOENT
        assert handlers.refuse("lookup", nodeid, b"x") == errno.ENOENT
        assert handlers.refuse("opendir", nodeid, caller()) == errno.ENOENT
        assert handlers.refuse("open", nodeid, os.O_RDONLY, caller()) == errno.ENOENT
        assert handlers.refuse("readlink", nodeid, caller()) == errno.ENOENT
        assert handlers.refuse("listxattr", nodeid, caller()) == errno.ENOENT
        assert handlers.refuse("getxattr", nodeid, b"user.x", caller()) == errno.ENOENT
        assert handlers.refuse("removexattr", nodeid, b"user.x", caller()) in (errno.ENOENT, errno.EROFS)
        assert handlers.refuse("mkdir", nodeid, b"x", MODE, caller()) in (errno.ENOENT, errno.EROFS)
        assert handlers.refuse("read", nodeid, 0, 10) == errno.ENOENT
        handlers.ask("forget", [(nodeid, 3)])
        handlers.ask("release", nodeid)
        handlers.ask("releasedir", nodeid)
    assert handlers.refuse("write", unknown, 0, b"x") == errno.EIO
    assert branch.worktree.fault is None


# -- Lookup counts ---------------------------------------------------------------------------------------------------


def test_an_inode_goes_with_the_last_forget(branch: Branch, handlers: Handlers) -> None:
    attributes = handlers.ask("lookup", ROOT_INO, b"file")
    handlers.ask("lookup", ROOT_INO, b"file")
    number = attributes.st_ino  # type: ignore[attr-defined]  # what lookup returns
    assert branch.worktree.inodes[number].holds == 2
    handlers.ask("forget", [(number, 1)])
    assert number in branch.worktree.inodes
    handlers.ask("forget", [(number, 1)])
    assert number not in branch.worktree.inodes


def test_a_name_that_is_not_there_is_remembered(handlers: Handlers) -> None:
    attributes = handlers.ask("lookup", ROOT_INO, b"absent")
    assert attributes.st_ino == 0  # type: ignore[attr-defined]  # what lookup returns
    assert attributes.entry_timeout > 1_000_000  # type: ignore[attr-defined]  # what lookup returns
    assert handlers.refuse("lookup", ROOT_INO, b"n" * 256) == errno.ENAMETOOLONG


def test_an_unlinked_file_goes_with_the_last_close(branch: Branch, handlers: Handlers) -> None:
    number = branch.walk("/file").ino
    info = handlers.ask("open", number, os.O_RDWR, caller())
    handle = info.fh  # type: ignore[attr-defined]  # what open returns
    assert handlers.durability.has_mappable
    handlers.ask("unlink", ROOT_INO, b"file", caller())
    handlers.ask("write", handle, 0, b"CON")
    assert handlers.ask("read", handle, 0, 100) == b"CONtent"
    handlers.ask("release", handle)
    assert number not in branch.worktree.inodes
    assert not handlers.durability.has_mappable


# -- Errors ----------------------------------------------------------------------------------------------------------


class Cold:
    """Objects that are on disk only until somebody warms them."""

    def __init__(self, branch: Branch, monkeypatch: pytest.MonkeyPatch) -> None:
        self.warmed: list[bytes] = []
        self.failure: HeliosError | None = None
        healthy = branch.store.objects.page

        def page(object_id: bytes, wait: bool | None = None) -> object:
            if object_id not in self.warmed:
                raise ColdObject(object_id)
            return healthy(object_id, wait)

        def warm(object_id: bytes) -> None:
            if self.failure is not None:
                raise self.failure
            self.warmed.append(object_id)

        monkeypatch.setattr(branch.store.objects, "page", page)
        monkeypatch.setattr(branch.store.objects, "warm", warm)


@pytest.mark.parametrize(
    ("handler", "arguments"),
    [
        ("lookup", (ROOT_INO, b"file")),
        ("create", (ROOT_INO, b"new", MODE, os.O_CREAT, caller())),
        ("mkdir", (ROOT_INO, b"new", 0o755, caller())),
        ("symlink", (ROOT_INO, b"new", b"target", caller())),
        ("mknod", (ROOT_INO, b"new", stat.S_IFIFO | 0o600, 0, caller())),
        ("unlink", (ROOT_INO, b"file", caller())),
        ("rmdir", (ROOT_INO, b"d", caller())),
        ("rename", (ROOT_INO, b"file", ROOT_INO, b"new", 0, caller())),
    ],
)
def test_a_cold_object_is_warmed_and_the_request_runs_again(
    branch: Branch, handlers: Handlers, monkeypatch: pytest.MonkeyPatch, handler: str, arguments: tuple[object, ...]
) -> None:
    cold = Cold(branch, monkeypatch)
    end = branch.worktree.journal.end
    handlers.ask(handler, *arguments)
    assert cold.warmed == [branch.worktree.index.root.base]
    if handler != "lookup":
        assert branch.worktree.journal.end > end
    assert branch.worktree.fault is None


def test_what_cannot_be_warmed_is_an_error(
    branch: Branch, handlers: Handlers, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    cold = Cold(branch, monkeypatch)
    cold.failure = CorruptObject("a page that is damaged")
    end = branch.worktree.journal.end
    assert handlers.refuse("lookup", ROOT_INO, b"file") == errno.EIO
    assert handlers.refuse("mkdir", ROOT_INO, b"new", 0o755, caller()) == errno.EIO
    assert branch.worktree.journal.end == end
    assert "a page that is damaged" in caplog.text


@pytest.mark.parametrize("handler", ["create", "unlink", "rmdir", "rename", "link", "write", "setattr", "setxattr"])
def test_an_error_nobody_foresaw_is_logged_with_where_it_came_from(
    handlers: Handlers,
    branch: Branch,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    handler: str,
) -> None:
    def surprising(*arguments: object, **more: object) -> None:
        raise ZeroDivisionError("nobody foresaw this")

    monkeypatch.setattr(Worktree, handler, surprising)
    file = branch.walk("/file")
    file.holds += 1
    arguments: dict[str, tuple[object, ...]] = {
        "create": (ROOT_INO, b"new", MODE, 0, caller()),
        "unlink": (ROOT_INO, b"file", caller()),
        "rmdir": (ROOT_INO, b"d", caller()),
        "rename": (ROOT_INO, b"file", ROOT_INO, b"new", 0, caller()),
        "link": (file.ino, ROOT_INO, b"new", caller()),
        "write": (file.ino, 0, b"x"),
        "setattr": (file.ino, pyfuse3.EntryAttributes(), fields(update_mode=True), None, caller()),
        "setxattr": (file.ino, b"user.x", b"1", caller()),
    }
    with caplog.at_level(logging.ERROR):
        assert handlers.refuse(handler, *arguments[handler]) == errno.EIO
    assert "nobody foresaw this" in caplog.text
    assert "in surprising" in caplog.text


def fields(**wanted: bool) -> pyfuse3.SetattrFields:
    """The real class cannot be filled from Python."""
    import types

    names = ("mode", "uid", "gid", "size", "atime", "mtime")
    return types.SimpleNamespace(**{f"update_{name}": False for name in names} | wanted)  # type: ignore[return-value]  # same attributes


@pytest.fixture
def full_disk() -> Iterator[Callable[[], None]]:
    def fault(operation: str, path: str, length: int) -> int | None:
        if operation == "append":
            raise OSError(errno.ENOSPC, "full")
        return None

    yield lambda: files.set_fault(fault)
    files.set_fault(None)


def test_a_full_disk_is_said(branch: Branch, handlers: Handlers, full_disk: Callable[[], None]) -> None:
    full_disk()
    assert handlers.refuse("mkdir", ROOT_INO, b"new", 0o755, caller()) == errno.ENOSPC
    assert handlers.refuse("unlink", ROOT_INO, b"file", caller()) == errno.ENOSPC
    assert handlers.ask("getattr", ROOT_INO) is not None
    assert handlers.ask("statfs", caller()) is not None


def test_a_failed_sync_is_final(branch: Branch, handlers: Handlers) -> None:
    make(branch, "/another", b"x")

    def fault(operation: str, path: str, length: int) -> int | None:
        if operation == "sync":
            raise OSError(errno.EIO, "the disk is broken")
        return None

    files.set_fault(fault)
    try:
        assert handlers.refuse("fsync", branch.walk("/another").ino, False) == errno.EIO
    finally:
        files.set_fault(None)
    # The kernel may have dropped what it could not write: nobody is told that all is well again.
    assert handlers.refuse("fsync", branch.walk("/another").ino, False) == errno.EROFS
    assert handlers.refuse("mkdir", ROOT_INO, b"new", 0o755, caller()) == errno.EROFS
    assert read(branch, "/another") == b"x"


def test_flush_is_asked_for_once(handlers: Handlers) -> None:
    assert handlers.refuse("flush", 5) == errno.ENOSYS


def test_unknown_rename_flags_are_refused(handlers: Handlers) -> None:
    for flags in (3, 6, 7, 8, 1 << 20):
        assert handlers.refuse("rename", ROOT_INO, b"file", ROOT_INO, b"new", flags, caller()) == errno.EINVAL


def test_our_own_names_are_not_to_be_used(branch: Branch, handlers: Handlers) -> None:
    end = branch.worktree.journal.end
    for name in (b".snapshots", b".branches"):
        assert handlers.refuse("mkdir", ROOT_INO, name, 0o755, caller()) == errno.EPERM
        assert handlers.refuse("unlink", ROOT_INO, name, caller()) == errno.EPERM
        assert handlers.refuse("rename", ROOT_INO, b"file", ROOT_INO, name, 0, caller()) == errno.EPERM
        assert handlers.refuse("rename", ROOT_INO, name, ROOT_INO, b"x", 0, caller()) == errno.EPERM
    assert branch.worktree.journal.end == end
    assert handlers.ask("mkdir", branch.walk("/d").ino, b".snapshots", 0o755, caller()) is not None


def test_a_read_only_mount_changes_nothing(branch: Branch) -> None:
    handlers = Handlers(branch, read_only=True)
    file, end = branch.walk("/file"), branch.worktree.journal.end
    file.holds += 1
    for handler, arguments in {
        "mkdir": (ROOT_INO, b"x", 0o755, caller()),
        "unlink": (ROOT_INO, b"file", caller()),
        "link": (file.ino, ROOT_INO, b"x", caller()),
        "setxattr": (file.ino, b"user.x", b"", caller()),
    }.items():
        assert handlers.refuse(handler, *arguments) == errno.EROFS
    for flags in (os.O_WRONLY, os.O_RDWR, os.O_TRUNC):
        assert handlers.refuse("open", file.ino, flags, caller()) == errno.EROFS
    assert handlers.ask("open", file.ino, os.O_RDONLY, caller()) is not None
    assert branch.worktree.journal.end == end


def test_writers_wait_once_the_journal_is_past_its_bound(branch: Branch, handlers: Handlers) -> None:
    waited = []

    async def throttle() -> None:
        waited.append(branch.worktree.journal.end)

    file = branch.walk("/file")
    file.holds += 1
    handlers.operations.throttle = throttle
    handlers.ask("write", file.ino, 0, b"x")
    assert waited == []
    handlers.operations.set_throttle(branch.worktree.journal.end - 1)
    handlers.ask("write", file.ino, 0, b"y")
    assert len(waited) == 1
    assert read(branch, "/file") == b"yontent"


@pytest.mark.parametrize(
    ("name", "to_set", "to_have"),
    [
        (b"system.posix_acl_access", errno.EOPNOTSUPP, errno.ENODATA),
        (b"system.other", errno.EOPNOTSUPP, errno.EOPNOTSUPP),
        (b"other.x", errno.EOPNOTSUPP, errno.EOPNOTSUPP),
        (b"user", errno.EOPNOTSUPP, errno.EOPNOTSUPP),
        (b"user.", errno.EINVAL, errno.EINVAL),
    ],
)
def test_attributes_that_there_are_not(
    branch: Branch, handlers: Handlers, name: bytes, to_set: int, to_have: int
) -> None:
    file = branch.walk("/file")
    file.holds += 1
    assert handlers.refuse("setxattr", file.ino, name, b"x", caller()) == to_set
    assert handlers.refuse("getxattr", file.ino, name, caller()) == to_have
    assert handlers.refuse("removexattr", file.ino, name, caller()) == to_have


def test_removed_directories_stay_readable_while_they_are_open(branch: Branch, handlers: Handlers) -> None:
    number = branch.walk("/d").ino
    handle = handlers.ask("opendir", number, caller())
    remove(branch, "/d")
    assert handlers.ask("getattr", number) is not None
    assert handlers.refuse("mkdir", number, b"x", 0o755, caller()) == errno.ENOENT
    handlers.ask("releasedir", handle)
    assert number not in branch.worktree.inodes
