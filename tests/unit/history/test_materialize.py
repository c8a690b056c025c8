"""Writing a tree out, and rsync's word on whether it is the same."""

import errno
import os
import shutil
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from helios_fs.errors import DirectoryNotEmpty, NotADirectory, NotPermitted, ObjectMissing, StoreFull
from helios_fs.history.ingest import ingest
from helios_fs.history.materialize import MaterializeReport, Progress, materialize
from helios_fs.history.select import Selection
from helios_fs.objects.entry import Entry, Tree, directory_key, encode_entry, encode_tree
from helios_fs.objects.ids import KIND_TREE
from helios_fs.store import maps
from helios_fs.store.store import Store
from tests.unit.history.sources import make_root_only, make_source, rsync_differences

_needs_rsync = pytest.mark.skipif(shutil.which("rsync") is None, reason="rsync is missing (apt-get install rsync)")


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


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "deep" / "out"


def _through(store: Store, source: Path, out: Path, select: Selection | None = None) -> MaterializeReport:
    report = ingest(store, str(source), "main")
    return materialize(store.objects, report.tree, str(out), select)


@_needs_rsync
def test_rsync_sees_no_difference(store: Store, source: Path, out: Path) -> None:
    make_source(source)
    if os.geteuid() == 0:
        make_root_only(source)
    else:
        (source / "none").unlink()
    report = _through(store, source, out)
    assert rsync_differences(source, out) == ""
    assert report.problems == []
    assert report.links == 3
    assert (report.owners_skipped, report.set_ids_dropped, report.xattrs_skipped, report.devices_skipped) == (0,) * 4
    sparse = (out / "sparse").stat()
    assert sparse.st_blocks <= (source / "sparse").stat().st_blocks
    assert (out / "hard").stat().st_ino == (out / "src/deep/hard.c").stat().st_ino
    assert (out / "fifo").lstat().st_atime_ns == 1_000_000_001
    assert rsync_differences(out, source) == ""


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory that an ordinary user can reach; it is that user until the test is over."""
    path = Path("/var/tmp") / f"helios-test-{os.getpid()}"
    path.mkdir(mode=0o755)
    os.chown(path, 65534, 65534)
    groups = os.getgroups()
    try:
        yield path
    finally:
        os.seteuid(0)
        os.setegid(0)
        os.setgroups(groups)
        shutil.rmtree(path)


def _become_ordinary() -> None:
    os.setgroups([])
    os.setegid(65534)
    os.seteuid(65534)


@_needs_rsync
@pytest.mark.root
def test_an_ordinary_user_gets_own_files_back_whole(place: Path) -> None:
    _become_ordinary()
    (place / "own").mkdir()
    make_source(place / "own")
    (place / "own/none").unlink()
    Store.create(str(place / "store"))
    with Store.open(str(place / "store")) as store:
        report = _through(store, place / "own", place / "out")
    assert (report.problems, report.owners_skipped, report.set_ids_dropped, report.xattrs_skipped) == ([], 0, 0, 0)
    assert rsync_differences(place / "own", place / "out") == ""


@pytest.mark.root
def test_an_ordinary_user_gets_foreign_files_as_far_as_may_be(place: Path) -> None:
    source = place / "source"
    source.mkdir()
    for name, owner in (("theirs", 0), ("group", 65534)):
        (source / name).write_bytes(b"x")
        os.chown(source / name, owner, 0)
        (source / name).chmod(0o6755)
    os.setxattr(source / "theirs", b"trusted.t", b"1")
    os.mknod(source / "device", 0o020666, os.makedev(1, 3))
    os.mkfifo(source / "fifo")
    os.symlink("theirs", source / "link")
    os.chown(source / "link", 65534, 65534, follow_symlinks=False)
    Store.create(str(place / "store"))
    with Store.open(str(place / "store")) as store:
        tree = ingest(store, str(source), "main").tree
        store.objects.warm(tree)
        for path in (place / "store", *(place / "store").rglob("*")):
            os.chown(path, 65534, 65534)
        _become_ordinary()
        report = materialize(store.objects, tree, str(place / "out"))
    assert report.problems == []
    # The root directory, theirs, group and fifo; theirs loses both set-id bits, group one; the device is left out.
    assert (report.owners_skipped, report.set_ids_dropped, report.devices_skipped) == (4, 2, 1)
    assert report.xattrs_skipped == 1
    assert stat.S_IMODE((place / "out/theirs").stat().st_mode) == 0o755
    assert stat.S_IMODE((place / "out/group").stat().st_mode) == 0o4755
    assert _paths(place / "out") == {"theirs", "group", "fifo", "link"}


def test_only_into_an_empty_directory(store: Store, source: Path, out: Path) -> None:
    (source / "file").write_bytes(b"x")
    tree = ingest(store, str(source), "main").tree
    out.mkdir(parents=True)
    materialize(store.objects, tree, str(out))
    with pytest.raises(DirectoryNotEmpty):
        materialize(store.objects, tree, str(out))
    for place in (out / "file", out / "file/below"):
        with pytest.raises(NotADirectory):
            materialize(store.objects, tree, str(place))
    with pytest.raises(NotPermitted):
        materialize(store.objects, tree, "/proc/nothing/here")
    with pytest.raises(ObjectMissing):
        materialize(store.objects, bytes(32), str(out.parent / "other"))


def _paths(root: Path) -> set[str]:
    return {str(path.relative_to(root)) for path in root.rglob("*")}


def test_selection(store: Store, source: Path, tmp_path: Path) -> None:
    for name in ("src/a.c", "src/a.o", "src/deep/b.c", "doc/x.txt", "doc/deep/y.txt", "top.c"):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes(b"x")
    tree = ingest(store, str(source), "main").tree

    def chosen(name: str, include: list[str], exclude: list[str]) -> set[str]:
        materialize(store.objects, tree, str(tmp_path / name), Selection(include, exclude))
        return _paths(tmp_path / name)

    assert chosen("1", [], ["*.o", "doc/"]) == {"src", "src/a.c", "src/deep", "src/deep/b.c", "top.c"}
    assert chosen("2", ["*.txt"], []) == {"doc", "doc/x.txt", "doc/deep", "doc/deep/y.txt"}
    assert chosen("3", ["/src"], ["deep"]) == {"src", "src/a.c", "src/a.o"}
    assert chosen("4", ["/doc/deep"], []) == {"doc", "doc/deep", "doc/deep/y.txt"}
    assert chosen("5", ["nothing"], []) == set()
    for path in ("src/a.c", "src", "doc/deep"):
        assert (
            (source / path).stat().st_mtime_ns == (tmp_path / "1" / path).stat().st_mtime_ns
            if "doc" not in path
            else True
        )
    assert (source / "doc").stat().st_mtime_ns == (tmp_path / "4/doc").stat().st_mtime_ns


def test_progress_and_counts(store: Store, source: Path, out: Path) -> None:
    make_source(source)
    tree = ingest(store, str(source), "main").tree
    said: list[Progress] = []
    report = materialize(store.objects, tree, str(out), progress=said.append)
    assert said[-1].entries == len(list(out.rglob("*")))
    assert said[-1].data_bytes == report.data_bytes
    assert (report.directories, report.symlinks, report.others, report.links) == (7, 3, 2, 3)


def test_what_one_entry_refuses_is_reported_and_the_rest_is_written(store: Store, source: Path, out: Path) -> None:
    (source / "good").write_bytes(b"x")
    report = ingest(store, str(source), "main")
    good = store.objects.tree(report.tree).root
    bad = Entry(900, stat.S_IFREG | 0o644, 0, 0, 1, 0, 0, 0, 0, 0, 0, b"")
    directory = msgspec.structs.replace(bad, ino=901, mode=stat.S_IFDIR | 0o755)
    edits: dict[bytes, bytes | None] = {
        directory_key(b"n" * 256): encode_entry(bad),
        directory_key(b"d" * 256): encode_entry(directory),
        directory_key(b"nothing-of-the-kind"): encode_entry(msgspec.structs.replace(bad, mode=0o030644)),
        directory_key(b"odd"): encode_entry(
            msgspec.structs.replace(
                bad, uid=os.geteuid(), gid=os.getegid(), size=9, xattrs={b"user.x": b"1", b"nonsense": b"2"}
            )
        ),
    }
    with store.writer() as writer:
        root = msgspec.structs.replace(good, content=maps.edit(writer, good.content, edits))
        tree = writer.put(KIND_TREE, encode_tree(Tree(root, b"")))
        dangling = msgspec.structs.replace(
            good, content=maps.edit(writer, b"", {directory_key(b"linked"): encode_entry(77)})
        )
        broken = writer.put(KIND_TREE, encode_tree(Tree(dangling, b"")))
        writer.publish([], "main", store.take_branch("main"))
    done = materialize(store.objects, tree, str(out))
    assert _paths(out) == {"good", "odd"}
    assert {problem.path[:1] for problem in done.problems} == {b"n", b"d"}
    assert len(done.problems) == 3
    assert done.xattrs_skipped == 1
    assert (out / "odd").read_bytes() == bytes(9)
    with pytest.raises(ObjectMissing):
        materialize(store.objects, broken, str(out.parent / "broken"))


@pytest.mark.root
def test_a_full_disk_ends_it(store: Store, source: Path, tmp_path: Path) -> None:
    (source / "big").write_bytes(os.urandom(4 << 20))
    tree = ingest(store, str(source), "main").tree
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)]).returncode:
        pytest.skip("this container may not mount a tmpfs")
    try:
        with pytest.raises(StoreFull, match="big: no space left"):
            materialize(store.objects, tree, str(disk / "out"))
        assert _paths(disk / "out") == set()
    finally:
        subprocess.run(["umount", str(disk)], check=True)


@pytest.mark.root
def test_a_read_only_disk_is_reported(store: Store, source: Path, tmp_path: Path) -> None:
    with pytest.raises(NotPermitted, match=os.strerror(errno.EROFS)):
        disk = tmp_path / "disk"
        disk.mkdir()
        if subprocess.run(["mount", "-t", "tmpfs", "-o", "ro", "tmpfs", str(disk)]).returncode:
            pytest.skip("this container may not mount a tmpfs")
        try:
            materialize(store.objects, ingest(store, str(source), "main").tree, str(disk / "out"))
        finally:
            subprocess.run(["umount", str(disk)], check=True)


def test_deep_trees(store: Store, source: Path, out: Path) -> None:
    path = source
    for _ in range(150):
        path /= "d"
    path.mkdir(parents=True)
    (path / "file").write_bytes(b"deep")
    report = _through(store, source, out)
    before = set(os.listdir("/proc/self/fd"))
    materialize(store.objects, store.refs.head("main").tree, str(out.parent / "again"))
    assert set(os.listdir("/proc/self/fd")) == before
    assert report.directories == 151
    assert (out / path.relative_to(source) / "file").read_bytes() == b"deep"
    assert (out / "d/d").stat().st_mtime_ns == (source / "d/d").stat().st_mtime_ns
