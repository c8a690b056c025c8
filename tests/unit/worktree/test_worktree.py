"""The facade: what is refused is refused before anything is appended; a fault makes the branch read-only."""

import os
import stat
from collections.abc import Callable, Iterator

import pytest

from helios_fs.errors import (
    AttributeTooLarge,
    DirectoryNotEmpty,
    EntryExists,
    FileTooLarge,
    HeliosError,
    InvalidArgument,
    IsADirectory,
    NameTooLong,
    NoSuchAttribute,
    NoSuchEntry,
    NotADirectory,
    NotPermitted,
    ReadOnly,
    StoreFull,
    TooManyLinks,
)
from helios_fs.journal.frame import MAX_PAYLOAD_BYTES
from helios_fs.objects import record
from helios_fs.store import files
from helios_fs.worktree import apply, worktree
from helios_fs.worktree.index import Index
from helios_fs.worktree.inode import MAX_FILE_BYTES, Inode
from helios_fs.worktree.worktree import MAX_TIME_NS, MIN_TIME_NS
from helios_fs.worktree.xattrs import MAX_XATTR_BYTES
from tests.model.harness import Branch
from tests.unit.worktree.trees import FILE, directory, make, read, remove, rename, seal

Call = Callable[[Branch], object]


def held(branch: Branch, path: str) -> Inode:
    """Keep an inode in memory, as an open descriptor does."""
    inode = branch.walk(path)
    inode.holds += 1
    return inode


def gone(branch: Branch, path: str) -> Inode:
    inode = held(branch, path)
    remove(branch, path)
    return inode


REFUSALS: list[tuple[str, type[HeliosError], Call]] = [
    ("create: taken", EntryExists, lambda b: make(b, "/file")),
    ("create: taken in the base", EntryExists, lambda b: make(b, "/sealed")),
    ("create: name", NameTooLong, lambda b: make(b, "/" + "n" * 256)),
    ("create: in a file", NotADirectory, lambda b: b.worktree.create(b.walk("/file"), b"x", FILE, 0, 0)),
    ("unlink: absent", NoSuchEntry, lambda b: b.worktree.unlink(b.walk("/"), b"absent")),
    ("unlink: directory", IsADirectory, lambda b: b.worktree.unlink(b.walk("/"), b"full")),
    ("rmdir: file", NotADirectory, lambda b: b.worktree.rmdir(b.walk("/"), b"file")),
    ("rmdir: full", DirectoryNotEmpty, lambda b: b.worktree.rmdir(b.walk("/"), b"full")),
    ("rmdir: absent", NoSuchEntry, lambda b: b.worktree.rmdir(b.walk("/"), b"absent")),
    ("rename: absent", NoSuchEntry, lambda b: rename(b, "/absent", "/x")),
    ("rename: name", NameTooLong, lambda b: rename(b, "/file", "/" + "n" * 256)),
    ("rename: no replace", EntryExists, lambda b: rename(b, "/file", "/sealed", replace=False)),
    ("rename: into itself", InvalidArgument, lambda b: rename(b, "/full", "/full/below/x")),
    ("rename: exchange into itself", InvalidArgument, lambda b: rename(b, "/full/below", "/full", exchange=True)),
    ("rename: exchange with nothing", NoSuchEntry, lambda b: rename(b, "/file", "/absent", exchange=True)),
    ("rename: file over directory", IsADirectory, lambda b: rename(b, "/file", "/empty")),
    ("rename: directory over file", NotADirectory, lambda b: rename(b, "/empty", "/file")),
    ("rename: over a full directory", DirectoryNotEmpty, lambda b: rename(b, "/empty", "/full")),
    ("link: directory", NotPermitted, lambda b: b.worktree.link(b.walk("/full"), b.walk("/"), b"x")),
    ("link: taken", EntryExists, lambda b: b.worktree.link(b.walk("/file"), b.walk("/"), b"sealed")),
    ("write: too far", FileTooLarge, lambda b: b.worktree.write(b.walk("/file"), MAX_FILE_BYTES, b"x")),
    ("truncate: directory", IsADirectory, lambda b: b.worktree.setattr(b.walk("/full"), record.SET_SIZE, size=0)),
    (
        "truncate: too far",
        FileTooLarge,
        lambda b: b.worktree.setattr(b.walk("/file"), record.SET_SIZE, size=MAX_FILE_BYTES + 1),
    ),
    ("truncate: negative", FileTooLarge, lambda b: b.worktree.setattr(b.walk("/file"), record.SET_SIZE, size=-1)),
    ("getxattr: absent", NoSuchAttribute, lambda b: b.worktree.getxattr(b.walk("/file"), b"user.absent")),
    ("removexattr: absent", NoSuchAttribute, lambda b: b.worktree.removexattr(b.walk("/file"), b"user.absent")),
    ("setxattr: name", AttributeTooLarge, lambda b: b.worktree.setxattr(b.walk("/file"), b"n" * 256, b"")),
    ("setxattr: value", AttributeTooLarge, lambda b: b.worktree.setxattr(b.walk("/file"), b"n", bytes(65_537))),
    ("snapshot: name", InvalidArgument, lambda b: b.worktree.snapshot(b"a/b")),
    ("snapshot: taken", EntryExists, lambda b: b.worktree.snapshot(b"taken")),
    ("snapshot describe: absent", NoSuchEntry, lambda b: b.worktree.describe_snapshot("0000000000", b"x")),
    ("snapshot delete: absent", NoSuchEntry, lambda b: b.worktree.delete_snapshot("0000000000")),
    (
        "graft: in memory",
        InvalidArgument,
        lambda b: b.worktree.graft(b.walk("/"), b"x", b.walk("/file").entry(b"")),
    ),
    (
        "graft: taken",
        EntryExists,
        lambda b: b.worktree.graft(b.walk("/"), b"file", b.walk("/file").entry(b"")),
    ),
    (
        "assume: another's",
        InvalidArgument,
        lambda b: b.worktree.assume(b.walk("/file"), b.walk("/sealed").entry(b"")),
    ),
]


@pytest.fixture
def filled(branch: Branch) -> Branch:
    """A tree with something sealed, something in the journal, and a snapshot."""
    make(branch, "/sealed", b"in the store")
    make(branch, "/untouched", b"by anybody")
    directory(branch, "/full")
    directory(branch, "/full/below")
    directory(branch, "/empty")
    seal(branch)
    make(branch, "/file", b"in the journal")
    branch.worktree.snapshot(b"taken")
    for path in ("/file", "/sealed", "/full", "/full/below", "/empty", "/"):
        # In this epoch too the journal says where each of them lies, so that nothing needs to be said again.
        branch.worktree.setattr(branch.walk(path), record.SET_MODE, mode=0o755)
    return branch


@pytest.mark.parametrize(("error", "call"), [(e, c) for _, e, c in REFUSALS], ids=[name for name, _, _ in REFUSALS])
def test_what_is_refused_is_not_in_the_journal(filled: Branch, error: type[HeliosError], call: Call) -> None:
    before, end = filled.dump(), filled.worktree.journal.end
    with pytest.raises(error) as raised:
        call(filled)
    assert type(raised.value) is error
    assert str(raised.value)
    assert filled.worktree.journal.end == end
    assert filled.worktree.fault is None
    assert filled.dump() == before


def test_what_has_no_name_any_more_takes_none(filled: Branch) -> None:
    worktree = filled.worktree
    file, empty = gone(filled, "/file"), gone(filled, "/empty")
    other = filled.walk("/sealed")
    end = worktree.journal.end
    with pytest.raises(NoSuchEntry):
        worktree.link(file, filled.walk("/"), b"again")
    with pytest.raises(NoSuchEntry):
        worktree.create(empty, b"x", FILE, 0, 0)
    with pytest.raises(NoSuchEntry):
        worktree.link(other, empty, b"x")
    with pytest.raises(NoSuchEntry):
        worktree.rename(filled.walk("/"), b"sealed", empty, b"x", exchange=False, replace=True)
    assert worktree.journal.end == end


def test_links_have_a_limit(filled: Branch, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worktree, "MAX_LINKS", 3)
    file, root = filled.walk("/file"), filled.walk("/")
    filled.worktree.link(file, root, b"2")
    filled.worktree.link(file, root, b"3")
    with pytest.raises(TooManyLinks):
        filled.worktree.link(file, root, b"4")
    assert file.nlink == 3


def test_attributes_have_limits(filled: Branch) -> None:
    file, facade = filled.walk("/file"), filled.worktree
    with pytest.raises(AttributeTooLarge, match="names"):
        for number in range(300):
            facade.setxattr(file, b"%0255d" % number, b"")
    assert len(file.xattrs or {}) == 256
    another = filled.walk("/sealed")
    with pytest.raises(AttributeTooLarge, match="512 KiB"):
        for number in range(10):
            facade.setxattr(another, b"%d" % number, bytes(65_536))
    # What is there may be replaced, and an entry with all of it still fits into a record of a restore.
    facade.setxattr(another, b"0", bytes(65_536))
    held_bytes = sum(len(key) + len(value) for key, value in (another.xattrs or {}).items())
    assert MAX_XATTR_BYTES - 66_000 < held_bytes <= MAX_XATTR_BYTES
    assert len(record.pack_assume(another.entry(b""))) < MAX_PAYLOAD_BYTES


def test_a_removed_attribute_is_gone(filled: Branch) -> None:
    file, facade = filled.walk("/file"), filled.worktree
    facade.setxattr(file, b"user.a", b"1")
    facade.setxattr(file, b"user.b", b"2")
    facade.removexattr(file, b"user.a")
    assert file.xattrs == {b"user.b": b"2"}
    facade.removexattr(file, b"user.b")
    assert file.xattrs is None


def test_owner_times_and_mode_come_back(filled: Branch) -> None:
    everything = record.SET_MODE | record.SET_UID | record.SET_GID | record.SET_ATIME | record.SET_MTIME
    filled.worktree.setattr(filled.walk("/file"), everything, 0o4711, 11, 12, 0, -5, 1 << 70)
    filled.reopen()
    inode = filled.walk("/file")
    assert (inode.mode, inode.uid, inode.gid) == (stat.S_IFREG | 0o4711, 11, 12)
    # What 64 bits cannot say becomes the nearest that they can.
    assert (inode.atime_ns, inode.mtime_ns) == (-5, MAX_TIME_NS)
    filled.worktree.setattr(inode, record.SET_ATIME, atime_ns=-(1 << 70))
    assert inode.atime_ns == MIN_TIME_NS


def test_what_is_made_in_a_set_gid_directory_takes_its_group(filled: Branch) -> None:
    full = filled.walk("/full")
    filled.worktree.setattr(full, record.SET_MODE | record.SET_GID, mode=0o2755, gid=77)
    assert make(filled, "/full/file").gid == 77
    below = directory(filled, "/full/deeper")
    assert (below.gid, below.mode & stat.S_ISGID) == (77, stat.S_ISGID)


def test_writing_nothing_is_nothing(filled: Branch) -> None:
    end = filled.worktree.journal.end
    assert filled.worktree.write(filled.walk("/file"), 5, b"") == 0
    assert filled.worktree.journal.end == end


def test_both_names_of_one_inode_stay(filled: Branch) -> None:
    filled.worktree.link(filled.walk("/file"), filled.walk("/"), b"second")
    before, end = filled.dump(), filled.worktree.journal.end
    rename(filled, "/file", "/second")
    rename(filled, "/file", "/second", exchange=True)
    assert filled.dump() == before
    assert filled.worktree.journal.end == end


def test_an_unlinked_file_lives_while_it_is_held(filled: Branch) -> None:
    inode = gone(filled, "/sealed")
    facade = filled.worktree
    facade.write(inode, 3, b"STORED")
    facade.setattr(inode, record.SET_SIZE, size=20)
    facade.setxattr(inode, b"user.x", b"1")
    facade.removexattr(inode, b"user.x")
    assert facade.read(inode, 0, 100) == b"in STOREDore" + bytes(8)
    assert inode.ino in filled.worktree.index.orphans
    seal(filled)
    assert facade.read(inode, 0, 100) == b"in STOREDore" + bytes(8)
    filled.worktree.index.release(inode, 1)
    assert inode.ino not in filled.worktree.inodes
    filled.reopen()
    assert set(filled.dump()) == {"", "/file", "/untouched", "/full", "/full/below", "/empty"}


def test_a_chain_deeper_than_one_record_can_say(branch: Branch, monkeypatch: pytest.MonkeyPatch) -> None:
    """Binding a file far down names all directories above it: more than a record holds, or a restart would cut it."""
    monkeypatch.setattr(worktree, "MAX_BIND_STEPS", 5)
    path = ""
    for _ in range(23):
        path += "/" + "n" * 255
        directory(branch, path)
    make(branch, path + "/file", b"before")
    seal(branch)
    branch.reopen()
    branch.worktree.write(branch.walk(path + "/file"), 0, b"AFTER!")
    binds = [f for f in branch.worktree.journal.frames(branch.worktree.journal.start) if f.kind == record.BIND]
    assert [len(record.unpack_bind(frame.payload)) for frame in binds[-5:]] == [5, 5, 5, 5, 4]
    branch.reopen()
    assert read(branch, path + "/file") == b"AFTER!"
    seal(branch)
    branch.reopen()
    assert read(branch, path + "/file") == b"AFTER!"


# -- Faults ----------------------------------------------------------------------------------------------------------


class Surprise(Exception):
    """What nobody foresaw."""


CHANGES: list[tuple[str, Call]] = [
    ("create", lambda b: make(b, "/new", None)),
    ("write", lambda b: b.worktree.write(b.walk("/file"), 3, b"half done")),
    ("setattr_", lambda b: b.worktree.setattr(b.walk("/sealed"), record.SET_SIZE, size=4)),
    ("unlink", lambda b: remove(b, "/sealed")),
    ("rename", lambda b: rename(b, "/full/below", "/empty")),
    ("exchange", lambda b: rename(b, "/sealed", "/file", exchange=True)),
    ("link", lambda b: b.worktree.link(b.walk("/sealed"), b.walk("/full"), b"second")),
    ("setxattr", lambda b: b.worktree.setxattr(b.walk("/sealed"), b"user.x", b"1")),
]


@pytest.mark.parametrize("when", ["before", "midway", "after"])
@pytest.mark.parametrize(("name", "call"), CHANGES, ids=[name for name, _ in CHANGES])
def test_an_exception_while_applying_makes_the_branch_read_only(
    filled: Branch, monkeypatch: pytest.MonkeyPatch, name: str, call: Call, when: str
) -> None:
    """W3: memory may be half changed, the journal is right, and a reopening shows what was acknowledged and this."""
    seal(filled)
    with monkeypatch.context() as patched:
        if when == "midway":
            # The first inode of the change is touched, and nothing more.
            patched.setattr(Index, "touch", _raising(Index.touch, afterwards=True))
        else:
            patched.setattr(apply, name, _raising(getattr(apply, name), when == "after"))
        with pytest.raises(Surprise):
            call(filled)
    assert isinstance(filled.worktree.fault, Surprise)
    end = filled.worktree.journal.end
    untouched: list[Call] = [
        lambda b: make(b, "/full/another", None),
        lambda b: b.worktree.write(b.walk("/untouched"), 0, b"x"),
        lambda b: b.worktree.setxattr(b.walk("/full"), b"user.x", b"1"),
        lambda b: b.worktree.snapshot(b"new"),
        lambda b: b.worktree.freeze(),
    ]
    for refused in untouched:
        with pytest.raises(ReadOnly):
            refused(filled)
    assert filled.worktree.journal.end == end
    filled.reopen()
    assert filled.worktree.fault is None
    expected = Branch(filled.path + "-expected")
    try:
        _as_filled(expected)
        call(expected)
        assert _comparable(filled) == _comparable(expected)
    finally:
        expected.close()
    make(filled, "/works again")


def _as_filled(branch: Branch) -> None:
    make(branch, "/sealed", b"in the store")
    make(branch, "/untouched", b"by anybody")
    directory(branch, "/full")
    directory(branch, "/full/below")
    directory(branch, "/empty")
    make(branch, "/file", b"in the journal")
    for path in ("/file", "/sealed", "/full", "/full/below", "/empty", "/"):
        branch.worktree.setattr(branch.walk(path), record.SET_MODE, mode=0o755)


def _comparable(branch: Branch) -> dict[str, tuple[object, ...]]:
    return {path: (*row[1:6], *row[8:]) for path, row in branch.dump().items()}


def _raising(healthy: Callable[..., object], afterwards: bool) -> Callable[..., object]:
    def change(*arguments: object) -> object:
        if afterwards:
            healthy(*arguments)
        raise Surprise

    return change


@pytest.fixture
def full_disk() -> Iterator[Callable[[], None]]:
    """Lets every append fail from when it is called."""

    def fault(operation: str, path: str, length: int) -> int | None:
        if operation == "append":
            raise OSError(28, os.strerror(28))
        return None

    yield lambda: files.set_fault(fault)
    files.set_fault(None)


@pytest.mark.parametrize(("name", "call"), CHANGES, ids=[name for name, _ in CHANGES])
def test_a_full_disk_changes_nothing(filled: Branch, full_disk: Callable[[], None], name: str, call: Call) -> None:
    before, end = filled.dump(), filled.worktree.journal.end
    full_disk()
    with pytest.raises(StoreFull):
        call(filled)
    files.set_fault(None)
    assert filled.worktree.fault is None
    assert (filled.dump(), filled.worktree.journal.end) == (before, end)
    call(filled)
    filled.reopen()
    assert _comparable(filled) != {path: (*row[1:6], *row[8:]) for path, row in before.items()}
