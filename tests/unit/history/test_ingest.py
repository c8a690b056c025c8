"""Taking a directory in."""

import os
import stat
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from helios_fs.errors import Busy, EntryExists, InvalidArgument, NoSuchEntry, NotADirectory, NotPermitted, UsageError
from helios_fs.history.descent import Descent
from helios_fs.history.diff import find_entry
from helios_fs.history.ingest import IngestReport, Progress, ingest
from helios_fs.objects.entry import INLINE_LIMIT, Entry, decode_entry
from helios_fs.objects.ids import ROOT_INO
from helios_fs.store import files, maps
from helios_fs.store.content import data_ranges, read_content
from helios_fs.store.store import Store
from tests.unit.history.sources import NOISE, make_source


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    Store.create(str(tmp_path / "store"))
    with Store.open(str(tmp_path / "store")) as opened:
        yield opened


@pytest.fixture
def source(tmp_path: Path) -> Path:
    root = tmp_path / "source"
    root.mkdir()
    return root


def _content(store: Store, entry: Entry) -> bytes:
    return read_content(store.objects, entry.content, entry.size, 0, entry.size)


def _all(store: Store, report: IngestReport) -> dict[bytes, Entry | int]:
    found: dict[bytes, Entry | int] = {}

    def walk(path: bytes, entry: Entry) -> None:
        found[path] = entry
        assert entry.is_directory
        for key, value in maps.scan(store.objects, entry.content):
            child = decode_entry(value)
            below = path + b"/" + key[8:]
            if isinstance(child, Entry) and child.is_directory:
                walk(below, child)
            else:
                found[below] = child

    walk(b"", store.objects.tree(report.tree).root)
    return found


def test_everything_is_taken_as_it_is(store: Store, source: Path) -> None:
    make_source(source)
    if os.geteuid() != 0:
        (source / "none").unlink()  # which only root can read
    os.setxattr(source, "user.root", b"yes")
    source.chmod(0o751)
    said: list[Progress] = []
    report = ingest(store, str(source), "main", progress=said.append)

    assert report.problems == []
    assert (report.files, report.links) == (8 - (os.geteuid() != 0), 3)
    assert (report.directories, report.symlinks, report.others) == (7, 3, 2)
    assert report.hidden == [b".snapshots"]
    assert report.changed == []
    assert store.refs.head("main").tree == report.tree
    assert (store.refs.head("main").lsn, store.refs.head("main").epoch) == (0, 1)
    last = said[-1]
    assert last.entries == last.total_entries == len(list(source.rglob("*")))
    assert last.data_bytes == report.data_bytes
    assert last.total_data_bytes == sum(
        path.stat().st_size for path in source.rglob("*") if path.is_file() and not path.is_symlink()
    )

    root = find_entry(store.objects, report.tree, b"")
    assert (root.ino, root.mode, root.xattrs) == (ROOT_INO, stat.S_IFDIR | 0o751, {b"user.root": b"yes"})
    for path in _all(store, report):
        entry = find_entry(store.objects, report.tree, path.strip(b"/"))
        status = os.lstat(bytes(source) + path)
        assert (entry.mode, entry.uid, entry.gid, entry.rdev) == (
            status.st_mode, status.st_uid, status.st_gid, status.st_rdev,
        )  # fmt: skip
        assert (entry.mtime_ns, entry.nlink) == (status.st_mtime_ns, status.st_nlink), path
        if entry.is_directory:
            assert entry.size == len(os.listdir(bytes(source) + path))
        else:
            assert entry.size == status.st_size
    assert _content(store, find_entry(store.objects, report.tree, b"src/large.bin")) == NOISE
    assert find_entry(store.objects, report.tree, b"dangling").content == b"/nowhere/\xff"
    assert find_entry(store.objects, report.tree, b"src/a.o").xattrs == {b"user.note": b"\0x"}
    sparse = find_entry(store.objects, report.tree, b"sparse")
    assert sparse.allocated <= 16384
    ranges = list(data_ranges(store.objects, sparse.content, sparse.size, 0, sparse.size))
    assert [start <= offset < end for (start, end), offset in zip(ranges, (1 << 20, 5 << 30), strict=True)] == [
        True
    ] * 2
    assert find_entry(store.objects, report.tree, b"fifo").atime_ns == 1_000_000_001


def test_hard_links_share_an_entry_and_inode_numbers_are_unique(store: Store, source: Path) -> None:
    make_source(source)
    outside = source.parent / "outside"
    (source / "half").write_bytes(b"its other name is outside")
    os.link(source / "half", outside)
    report = ingest(store, str(source), "main")
    found = _all(store, report)
    assert found[b"/hard"] == found[b"/src/a.c"] == found[b"/src/deep/hard.c"]
    assert isinstance(found[b"/hard"], int)
    assert isinstance(found[b"/fifo"], int)
    linked = find_entry(store.objects, report.tree, b"hard")
    assert (linked.nlink, linked.ino) == (3, found[b"/hard"])
    assert find_entry(store.objects, report.tree, b"fifo").nlink == 2
    half = found[b"/half"]
    assert isinstance(half, Entry)
    assert half.nlink == 1
    numbers = {path: value if isinstance(value, int) else value.ino for path, value in found.items()}
    assert len(set(numbers.values())) == len(numbers) - 3
    assert not set(numbers.values()) & set(store.reserve_inos(10))


def test_exclusion_follows_gitignore(store: Store, source: Path) -> None:
    make_source(source)
    report = ingest(store, str(source), "main", ["*.o", "/src/deep/", "!keep.o"])
    paths = set(_all(store, report))
    assert b"/src/a.c" in paths
    assert not {b"/src/a.o", b"/src/deep", b"/src/deep/er"} & paths
    assert report.excluded == 2
    assert find_entry(store.objects, report.tree, b"src").nlink == 2
    assert find_entry(store.objects, report.tree, b"hard").nlink == 2
    with pytest.raises(UsageError):
        ingest(store, str(source), "other", ["!"])


def test_a_store_inside_the_source_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")
    (tmp_path / "mine").mkdir()
    Store.create(str(tmp_path / "mine/store"))
    with Store.open(str(tmp_path / "mine/store")) as store:
        report = ingest(store, str(tmp_path), "main")
        assert set(_all(store, report)) == {b"", b"/file", b"/mine"}
        assert [problem.path for problem in report.problems] == [b"mine/store"]
        for inside in (tmp_path / "mine/store", tmp_path / "mine/store/packs"):
            with pytest.raises(InvalidArgument):
                ingest(store, str(inside), "other")


def test_a_source_that_cannot_be_taken(store: Store, source: Path) -> None:
    (source / "file").write_bytes(b"")
    (source / "link").symlink_to(".")
    with pytest.raises(NoSuchEntry):
        ingest(store, str(source / "missing"), "main")
    with pytest.raises(NotADirectory):
        ingest(store, str(source / "file"), "main")
    (source / "loop").symlink_to("loop")
    with pytest.raises(NotPermitted):
        ingest(store, str(source / "loop"), "main")
    lock = store.lock_branch("main")
    with pytest.raises(Busy):
        ingest(store, str(source), "main")
    lock.release()
    ingest(store, str(source / "link"), "main")
    with pytest.raises(EntryExists):
        ingest(store, str(source), "main")


def test_what_cannot_be_read_is_left_out_and_named(store: Store, source: Path, as_ordinary_user: None) -> None:
    for name in ("closed", "listed"):
        (source / name).mkdir()
        (source / name / "inner").write_bytes(b"")
    (source / "secret").write_bytes(b"x")
    (source / "open").write_bytes(b"y")
    for name in ("closed", "secret"):
        (source / name).chmod(0)
    (source / "listed").chmod(0o400)
    report = ingest(store, str(source), "main")
    (source / "closed").chmod(0o700)
    (source / "listed").chmod(0o700)
    assert {problem.path: problem.reason for problem in report.problems} == {
        b"closed": "Permission denied",
        b"secret": "Permission denied",
        b"listed/inner": "Permission denied",
    }
    assert set(_all(store, report)) == {b"", b"/open", b"/listed"}


@pytest.fixture
def as_ordinary_user(source: Path, store: Store) -> Iterator[None]:
    """Without root's power to read everything, in this thread."""
    if os.geteuid() != 0:
        yield
        return
    for path in (source, source.parent, Path(store.path)):
        os.chown(path, 65534, 65534)
    for path in Path(store.path).rglob("*"):
        os.chown(path, 65534, 65534)
    above = source.parent
    opened = []
    while above != above.parent:
        if not above.stat().st_mode & 0o001:
            opened.append((above, stat.S_IMODE(above.stat().st_mode)))
            above.chmod(opened[-1][1] | 0o011)
        above = above.parent
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)
        for path, mode in opened:
            path.chmod(mode)


def test_what_vanishes_is_named(store: Store, source: Path) -> None:
    for number in range(40):
        (source / f"{number}").write_bytes(b"x")
    victims = sorted(source.iterdir())

    def remove(progress: Progress) -> None:
        while victims:
            victim = victims.pop()
            if os.fsencode(victim.name) != progress.path:
                victim.unlink()

    report = ingest(store, str(source), "main", progress=remove)
    assert len(report.problems) == 39
    assert {problem.reason for problem in report.problems} == {"vanished while it was taken in"}
    assert report.files == 1


def test_a_file_that_keeps_changing_is_taken_and_named(store: Store, source: Path) -> None:
    size = 4 << 20
    (source / "busy").write_bytes(os.urandom(size))
    (source / "quiet").write_bytes(b"q")
    times = 0

    def rewrite(operation: str, _path: str, _length: int) -> None:
        """Change the file whenever its content goes into a pack."""
        nonlocal times
        if operation == "append":
            times += 1
            with (source / "busy").open("r+b") as file:
                file.write(os.urandom(size))
            os.utime(source / "busy", ns=(times, times))

    files.set_fault(rewrite)
    try:
        report = ingest(store, str(source), "main")
    finally:
        files.set_fault(None)
    assert times >= 3
    assert report.changed == [b"busy"]
    assert len(_content(store, find_entry(store.objects, report.tree, b"busy"))) == size


def test_a_file_that_changed_once_is_read_again(store: Store, source: Path) -> None:
    size = 4 << 20
    (source / "busy").write_bytes(os.urandom(size))
    final = os.urandom(size // 2)
    changes = [final]

    def rewrite(operation: str, _path: str, _length: int) -> None:
        if operation == "append" and changes:
            (source / "busy").write_bytes(changes.pop())

    files.set_fault(rewrite)
    try:
        report = ingest(store, str(source), "main")
    finally:
        files.set_fault(None)
    assert report.changed == []
    assert _content(store, find_entry(store.objects, report.tree, b"busy")) == final


def test_deeper_than_descriptors_or_paths_go(store: Store, source: Path) -> None:
    descent = Descent(str(source))
    for _ in range(1500):
        os.mkdir(b"deeper", dir_fd=descent.fd)
        descent.enter(b"deeper")
    os.close(os.open(b"bottom", os.O_CREAT | os.O_WRONLY, dir_fd=descent.fd))
    descent.close()
    before = set(os.listdir("/proc/self/fd"))
    report = ingest(store, str(source), "main")
    assert set(os.listdir("/proc/self/fd")) == before
    assert (report.directories, report.files, report.problems) == (1501, 1, [])
    assert find_entry(store.objects, report.tree, b"deeper/" * 1500 + b"bottom").is_file
    subprocess.run(["rm", "-rf", str(source)], check=True)  # deeper than shutil, and so pytest, can remove


def test_a_descent_notices_when_its_way_back_was_moved(source: Path) -> None:
    descent = Descent(str(source))
    for _ in range(70):
        os.mkdir(b"d", dir_fd=descent.fd)
        descent.enter(b"d")
    (source / "d/d").rename(source / "elsewhere")
    with pytest.raises(OSError):
        for _ in range(70):
            descent.leave()
    descent.close()
    descent.close()


@pytest.mark.root
def test_acls_are_counted(store: Store, source: Path) -> None:
    (source / "file").write_bytes(b"x")
    # Version 2; owner rw, user 7 r, group r, mask r, others none (linux/posix_acl_xattr.h).
    entries = ((1, 6, 0xFFFFFFFF), (2, 4, 7), (4, 4, 0xFFFFFFFF), (0x10, 4, 0xFFFFFFFF), (0x20, 0, 0xFFFFFFFF))
    acl = b"\2\0\0\0" + b"".join(
        tag.to_bytes(2, "little") + perm.to_bytes(2, "little") + uid.to_bytes(4, "little") for tag, perm, uid in entries
    )
    os.setxattr(source / "file", "system.posix_acl_access", acl)
    report = ingest(store, str(source), "main")
    assert report.acls_skipped == 1
    assert find_entry(store.objects, report.tree, b"file").xattrs is None


def test_a_large_directory_and_equal_sources_give_equal_pages(
    tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(700):
        (source / f"{number}").write_bytes(b"%d" % (number % 7))
    os.link(source / "1", source / "one")
    os.link(source / "2", source / "two")
    roots = []
    for batch in (16384, 100):
        monkeypatch.setattr("helios_fs.history.ingest._BATCH", batch)
        monkeypatch.setattr("helios_fs.history.ingest._INOS", 50)
        monkeypatch.setattr("helios_fs.history.ingest._PUBLISH_EVERY", 20 if batch == 100 else 1000)
        monkeypatch.setattr("time.time_ns", lambda: 5)
        path = str(tmp_path / f"store{batch}")
        Store.create(path)
        with Store.open(path) as store:
            roots.append(ingest(store, str(source), "main").tree)
    assert roots[0] == roots[1]


@pytest.mark.slow
def test_the_interpreters_library_takes_a_few_seconds(store: Store) -> None:
    report = ingest(store, os.path.dirname(os.__file__), "main")
    assert report.files > 100
    total = sum(entry.size > INLINE_LIMIT for entry in _all(store, report).values() if isinstance(entry, Entry))
    assert total > 0


def test_a_directory_that_is_moved_away_ends_it(store: Store, source: Path) -> None:
    path = source
    for _ in range(70):
        path /= "d"
    path.mkdir(parents=True)

    def move(progress: Progress) -> None:
        if (source / "d/d").exists():
            (source / "d/d").rename(source / "elsewhere")

    with pytest.raises(NotPermitted, match="was moved while it was taken in"):
        _ingest_saying_all(store, source, move, after=b"/".join([b"d"] * 70))
    with pytest.raises(NoSuchEntry):
        store.refs.head("main")


def _ingest_saying_all(store: Store, source: Path, say: Callable[[Progress], None], after: bytes) -> None:
    """Take `source` in, calling `say` as soon as `after` was reached."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("helios_fs.history.ingest._PROGRESS_SECONDS", 0)
        ingest(store, str(source), "main", progress=lambda progress: say(progress) if progress.path == after else None)


def test_an_ordinary_users_xattrs_are_kept(source: Path, store: Store, as_ordinary_user: None) -> None:
    (source / "file").write_bytes(b"x")
    os.setxattr(source / "file", b"user.seen", b"1")
    report = ingest(store, str(source), "main")
    assert report.xattrs_unreadable == 0
    assert find_entry(store.objects, report.tree, b"file").xattrs == {b"user.seen": b"1"}


@pytest.mark.root
def test_files_of_others_are_taken_where_they_can_be_read(source: Path, store: Store, as_ordinary_user: None) -> None:
    os.seteuid(0)
    (source / "theirs").write_bytes(b"x")
    (source / "theirs").chmod(0o644)
    os.seteuid(65534)
    report = ingest(store, str(source), "main")
    assert report.problems == []
    assert find_entry(store.objects, report.tree, b"theirs").uid == 0
