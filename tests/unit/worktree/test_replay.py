"""Replay of records that nobody here wrote: CorruptObject or a state that holds together, never anything else."""

import random
import stat
from collections.abc import Sequence

import pytest

from helios_fs.errors import CorruptObject
from helios_fs.journal.journal import Frame
from helios_fs.objects import record
from helios_fs.objects.entry import Entry, encode_entry
from helios_fs.objects.snapshot import Snapshot, encode_snapshot
from helios_fs.worktree.index import Index
from helios_fs.worktree.recovery import replay_snapshots
from helios_fs.worktree.replay import replay_frame
from helios_fs.worktree.snapshots import Snapshots
from tests.model.harness import Branch
from tests.unit.worktree.trees import DIRECTORY, FILE, directory, make, seal

ABSENT = 999_999


def frame(kind: int, payload: bytes, flags: int = 0, data_bytes: int = 0, data_position: int = 0) -> Frame:
    return Frame(0x100, kind, flags, 77, payload, data_position, data_bytes, 0x200)


@pytest.fixture
def index(branch: Branch) -> Index:
    """1: root; /d (with /d/e and /d/f), /file, /two = /other (two names), /link (a symlink); all of it in memory."""
    directory(branch, "/d")
    directory(branch, "/d/e")
    make(branch, "/d/f", b"f")
    make(branch, "/file", b"content")
    make(branch, "/two", b"two")
    branch.worktree.link(branch.walk("/two"), branch.walk("/"), b"other")
    branch.worktree.create(branch.walk("/"), b"link", stat.S_IFLNK | 0o777, 0, 0, 0, b"target")
    return branch.worktree.index


def ino(branch: Branch, path: str) -> int:
    return branch.walk(path).ino


def entry(number: int, mode: int = FILE) -> Entry:
    links, size = (2, 0) if stat.S_ISDIR(mode) else (1, 5)
    return Entry(number, mode, 0, 0, links, 0, size, size, 1, 1, 1, b"")


def unfit(branch: Branch) -> Sequence[tuple[str, Frame]]:
    root, d, e, f = 1, ino(branch, "/d"), ino(branch, "/d/e"), ino(branch, "/d/f")
    file, two, link = ino(branch, "/file"), ino(branch, "/two"), ino(branch, "/link")

    def create(parent: int, number: int, name: bytes) -> Frame:
        return frame(record.CREATE, record.pack_create(parent, number, FILE, 0, 0, 0, name))

    def rename(*arguments: object) -> Frame:
        return frame(record.RENAME, record.pack_rename(*arguments))  # type: ignore[arg-type]  # as the test says

    def size(number: int, bytes_: int) -> Frame:
        return frame(record.SETATTR, record.pack_setattr(number, record.SET_SIZE, 0, 0, 0, bytes_, 0, 0))

    return [
        ("unknown kind", frame(99, b"")),
        ("bind: not in the link table", frame(record.BIND, record.pack_bind([(ABSENT, 0, b"")]))),
        ("bind: no such directory", frame(record.BIND, record.pack_bind([(ABSENT, 88_888, b"x")]))),
        ("bind: not in the base", frame(record.BIND, record.pack_bind([(ABSENT, d, b"x")]))),
        ("create: no parent", create(ABSENT, 5000, b"x")),
        ("create: in a file", create(file, 5000, b"x")),
        ("create: taken", create(root, 5000, b"file")),
        ("create: number in use", create(root, file, b"x")),
        ("create: the root's number", create(root, root, b"x")),
        ("create: no name", create(root, 5000, b"")),
        ("create: a path", create(root, 5000, b"a/b")),
        ("write: no inode", frame(record.WRITE, record.pack_write(ABSENT, 0), data_bytes=5)),
        ("write: directory", frame(record.WRITE, record.pack_write(d, 0), data_bytes=5)),
        ("write: symlink", frame(record.WRITE, record.pack_write(link, 0), data_bytes=5)),
        ("write: nothing", frame(record.WRITE, record.pack_write(file, 5))),
        ("write: too far", frame(record.WRITE, record.pack_write(file, (1 << 64) - 1), data_bytes=5)),
        ("size: directory", size(d, 5)),
        ("size: too large", size(file, 1 << 63)),
        ("setattr: no inode", size(ABSENT, 5)),
        ("unlink: another's name", frame(record.UNLINK, record.pack_named(root, file, b"link"))),
        ("unlink: elsewhere", frame(record.UNLINK, record.pack_named(d, file, b"file"))),
        ("unlink: another's name of two", frame(record.UNLINK, record.pack_named(root, two, b"file"))),
        ("unlink: full directory", frame(record.UNLINK, record.pack_named(root, d, b"d"))),
        ("unlink: in a file", frame(record.UNLINK, record.pack_named(file, file, b"file"))),
        ("rename: into itself", rename(root, d, e, 0, 0, b"d", b"x")),
        ("rename: exchange into itself", rename(d, e, root, d, record.EXCHANGE, b"e", b"d")),
        ("rename: exchange with nothing", rename(root, file, root, 0, record.EXCHANGE, b"file", b"x")),
        ("rename: not its name", rename(root, file, root, 0, 0, b"link", b"x")),
        ("rename: taken", rename(root, file, d, 0, 0, b"file", b"f")),
        ("rename: replaced is another", rename(root, file, d, two, 0, b"file", b"f")),
        ("rename: over a full directory", rename(d, e, root, d, 0, b"e", b"d")),
        ("rename: one inode's names", rename(root, two, root, two, 0, b"two", b"other")),
        ("rename: to a file", rename(root, file, two, 0, 0, b"file", b"x")),
        ("link: directory", frame(record.LINK, record.pack_named(root, d, b"x"))),
        ("link: taken", frame(record.LINK, record.pack_named(d, file, b"f"))),
        ("xattr: no inode", frame(record.SETXATTR, record.pack_xattr(ABSENT, b"user.x", b"1"))),
        ("graft: taken", frame(record.GRAFT, record.pack_graft(d, b"f", entry(5000)))),
        ("graft: number in use", frame(record.GRAFT, record.pack_graft(d, b"x", entry(f)))),
        ("assume: no inode", frame(record.ASSUME, record.pack_assume(entry(ABSENT)))),
        ("assume: another type", frame(record.ASSUME, record.pack_assume(entry(file, DIRECTORY)))),
        ("assume: a reference", frame(record.ASSUME, encode_entry(5))),
        *[(f"kind {kind}: cut short", frame(kind, b"\x01")) for kind in (1, 2, 3, 4, 5, 6, 7, 8, 9, 14, 15)],
    ]


def test_a_record_that_does_not_fit_is_damage(branch: Branch, index: Index) -> None:
    before = branch.dump()
    for name, one in unfit(branch):
        with pytest.raises(CorruptObject) as raised:
            replay_frame(index, one)
        assert str(raised.value), name
        assert branch.dump() == before, name


def test_records_on_inodes_without_a_name_change_nothing(branch: Branch, index: Index) -> None:
    before = branch.dump()
    replay_frame(index, frame(record.WRITE, record.pack_write(ABSENT, 0), record.ORPHAN, 5))
    assert branch.dump() == before


def test_a_removed_inode_takes_no_more_records(branch: Branch, index: Index) -> None:
    file = branch.walk("/file")
    file.holds += 1
    branch.worktree.unlink(index.root, b"file")
    with pytest.raises(CorruptObject):
        replay_frame(index, frame(record.SETXATTR, record.pack_xattr(file.ino, b"user.x", b"1")))


def test_a_bind_that_the_store_contradicts(branch: Branch) -> None:
    directory(branch, "/d")
    sealed = make(branch, "/d/sealed", b"x").ino
    seal(branch)
    branch.reopen()
    number = ino(branch, "/d")
    index = branch.worktree.index
    for chain in ([(sealed, number, b"other")], [(ABSENT, number, b"sealed")], [(sealed, ABSENT, b"sealed")]):
        with pytest.raises(CorruptObject):
            replay_frame(index, frame(record.BIND, record.pack_bind(chain)))
    replay_frame(index, frame(record.BIND, record.pack_bind([(sealed, number, b"sealed")])))
    assert index.inodes[sealed].bound == index.epoch


@pytest.mark.parametrize(
    "one",
    [
        frame(record.SNAPSHOT, b"\xc1"),
        frame(record.SNAPSHOT, encode_snapshot(Snapshot("0000000000", "main", b"", [], 1, 55))),
        frame(record.SNAPSHOT, encode_snapshot(Snapshot("no id at all", "main", b"", [], 1, 1))),
        frame(record.SNAPSHOT, encode_snapshot(Snapshot("", "main", b"", [], 1, 1))),
        frame(record.SNAPSHOT_CHANGED, b"\xc1"),
        frame(record.SNAPSHOT_CHANGED, record.pack_snapshot_changed("0000000000", b"x", "", False)),
        frame(record.SNAPSHOT_DELETE, b"\xff\xfe"),
        frame(record.FREEZE, b""),
        frame(record.FREEZE, record.pack_freeze(55)),
    ],
)
def test_records_of_snapshots_that_do_not_fit(index: Index, one: Frame) -> None:
    epoch, snapshots = index.epoch, Snapshots("main")
    with pytest.raises(CorruptObject):
        replay_snapshots(index, ["main"], snapshots, one)
    assert (index.epoch, len(snapshots)) == (epoch, 0)


def _random_frame(chance: random.Random, numbers: list[int]) -> Frame:
    def number() -> int:
        return chance.choice(numbers)

    def name() -> bytes:
        return chance.choice([b"a", b"b", b"d", b"e", b"f", b"file", b"two", b"other", b""])

    small = chance.choice([0, 1, 5, 131_072, 1 << 40])
    mode = chance.choice([FILE, DIRECTORY, stat.S_IFLNK | 0o777])
    fresh = chance.choice([*numbers, *range(6000, 6010)])
    kind, payload, data = chance.choice(
        [
            (record.CREATE, record.pack_create(number(), fresh, mode, 0, 0, 0, name(), b"t"), 0),
            (record.CREATE, record.pack_create(number(), fresh, mode, 0, 0, 0, name(), b"t"), 0),
            (record.WRITE, record.pack_write(number(), small), chance.choice([0, 1, 200_000])),
            (record.SETATTR, record.pack_setattr(number(), chance.randrange(64), 0o600, 1, 2, small, 3, 4), 0),
            (record.UNLINK, record.pack_named(number(), number(), name()), 0),
            (
                record.RENAME,
                record.pack_rename(
                    number(), number(), number(), chance.choice([0, number()]), chance.randrange(2), name(), name()
                ),
                0,
            ),
            (record.LINK, record.pack_named(number(), number(), name()), 0),
            (record.SETXATTR, record.pack_xattr(number(), b"user.x", b"1"), 0),
            (record.REMOVEXATTR, record.pack_xattr(number(), b"user.x"), 0),
            (record.GRAFT, record.pack_graft(number(), name(), entry(fresh, mode)), 0),
            (record.ASSUME, record.pack_assume(entry(number(), mode)), 0),
            (record.BIND, record.pack_bind([(number(), number(), name())]), 0),
        ]
    )
    if chance.random() < 0.1 and payload:
        at = chance.randrange(len(payload))
        payload = payload[:at] + chance.randbytes(1) + payload[at + 1 :]
    return frame(kind, payload, 0, data)


@pytest.mark.parametrize("seed", range(30))
def test_any_records_leave_a_tree_that_holds_together(branch: Branch, index: Index, seed: int) -> None:
    chance = random.Random(seed)
    numbers = [*index.inodes, ABSENT, *range(6000, 6010)]
    applied = 0
    for step in range(400):
        if step % 50 == 49:
            index.epoch += 1
        try:
            replay_frame(index, _random_frame(chance, numbers))
            applied += 1
        except CorruptObject:
            pass
    assert applied > 10
    for inode in list(index.inodes.values()):
        above, steps = inode, 0
        while above.parent is not None:
            above = above.parent
            steps += 1
            assert steps < 100, "a directory lies in itself"
    _walk(index)


def _walk(index: Index) -> None:
    """Every name in memory leads to an inode that is there, and link counts are as many as names."""
    names: dict[int, int] = {}
    subdirectories: dict[int, int] = {}
    for inode in index.inodes.values():
        if inode.is_directory and inode.nlink:
            for child, _, _ in (inode.names or {}).values():
                if child is not None:
                    assert index.inodes.get(child.ino) is child
                    names[child.ino] = names.get(child.ino, 0) + 1
                    subdirectories[inode.ino] = subdirectories.get(inode.ino, 0) + child.is_directory
    for inode in index.inodes.values():
        if inode.nlink and inode is not index.root and not inode.base:
            expected = 2 + subdirectories.get(inode.ino, 0) if inode.is_directory else names.get(inode.ino, 0)
            assert inode.nlink == expected
