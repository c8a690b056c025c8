"""`.snapshots` on a real mount: what the table in the product's description promises of it."""

import mmap
import os
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from helios_fs.control import messages
from helios_fs.control.client import find_daemon
from helios_fs.objects.ids import looks_like_snapshot_id
from tests.mount.mounted import PATIENCE_SECONDS, Workspace
from tests.mount.one_mount import one_workspace
from tests.mount.system_calls import EXCHANGE, NOREPLACE, file, rename, tried

pytestmark = pytest.mark.fuse


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workspace]:
    with one_workspace(tmp_path_factory.mktemp("snapshots")) as mounted:
        yield mounted


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    """A name that no other test uses, for a directory and a snapshot."""
    return request.node.name


@pytest.fixture
def place(workspace: Workspace, name: str) -> Path:
    """An empty directory in the mount."""
    directory = workspace.path / name
    directory.mkdir()
    return directory


@pytest.fixture
def history(workspace: Workspace) -> Path:
    return workspace.path / ".snapshots"


def seal(workspace: Workspace) -> None:
    """Have everything up to now sealed."""
    connection = find_daemon(str(workspace.store), "main")
    assert connection is not None
    with connection:
        connection.ask(messages.Seal(), messages.Sealed, PATIENCE_SECONDS)


def snapshots(workspace: Workspace) -> list[messages.SnapshotInfo]:
    connection = find_daemon(str(workspace.store), "main")
    assert connection is not None
    with connection:
        return connection.ask(messages.ListSnapshots(), messages.Snapshots, PATIENCE_SECONDS).snapshots


def id_of(workspace: Workspace, name: str) -> str:
    return next(snapshot.id for snapshot in snapshots(workspace) if snapshot.name == os.fsencode(name))


def make_one_of_everything(place: Path) -> None:
    file(place / "file", "content")
    (place / "directory").mkdir()
    file(place / "directory" / "below", "x" * 200_000)
    os.symlink("file", place / "link")
    os.link(place / "file", place / "directory" / "hard")
    os.mkfifo(place / "fifo")
    os.setxattr(place / "file", "user.x", b"value")


def shown(place: Path) -> dict[str, object]:
    """Everything below a directory but for inode numbers and links' counts of directories."""
    found: dict[str, object] = {}
    for path in sorted(place.rglob("*")):
        status = path.lstat()
        row = (status.st_mode, status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_uid, status.st_nlink)
        content: object = None
        if stat.S_ISREG(status.st_mode):
            content = (path.read_bytes(), {key: os.getxattr(path, key) for key in os.listxattr(path)})
        elif stat.S_ISLNK(status.st_mode):
            content = os.readlink(path)
        found[str(path.relative_to(place))] = (row, content)
    return found


# -- The directory itself --------------------------------------------------------------------------------------------


def test_mkdir_ls_mv_rmdir(workspace: Workspace, place: Path, history: Path, name: str) -> None:
    file(place / "file", "then")
    (history / name).mkdir()
    identity = id_of(workspace, name)
    assert (history / identity).lstat().st_size == len(name)
    file(place / "file", "now")
    assert (history / name / name / "file").read_text() == "then"
    assert looks_like_snapshot_id(identity)
    assert {name, identity, "latest"} <= set(os.listdir(history))
    (history / name).rename(history / "renamed")
    assert (history / "renamed" / name / "file").read_text() == "then"
    assert os.readlink(history / identity) == os.readlink(history / "latest") == "renamed"
    assert tried(os.stat, history / name) == "ENOENT"
    assert (history / identity).lstat().st_size == len("renamed")
    (history / "renamed").rmdir()
    assert tried(os.stat, history / "renamed") == "ENOENT"
    assert tried(os.lstat, history / identity) == "ENOENT"
    assert not {"renamed", name, identity} & set(os.listdir(history))
    assert file(place / "file").exists()


def test_each_is_one_directory_and_its_other_names_are_symlinks(
    workspace: Workspace, place: Path, history: Path, name: str
) -> None:
    (history / name).mkdir()
    unnamed = workspace.helios("snapshot", "-C", workspace.path, check=True).stdout.strip()
    entries = {entry.name: entry for entry in os.scandir(history)}
    named = id_of(workspace, name)
    assert entries[name].is_dir(follow_symlinks=False)
    assert entries[unnamed].is_dir(follow_symlinks=False)
    assert entries[named].is_symlink()
    assert entries["latest"].is_symlink()
    assert (os.readlink(history / named), os.readlink(history / "latest")) == (name, unnamed)
    assert (history / named).stat().st_ino == (history / name).stat().st_ino
    assert (history / name).stat().st_ino != (history / unnamed).stat().st_ino
    assert entries[name].inode() == (history / name).stat().st_ino
    # A name for one that had none: its directory moves, its id becomes a symlink.
    (history / unnamed).rename(history / (name + "-2"))
    assert os.readlink(history / unnamed) == name + "-2"
    assert (history / (name + "-2") / name).is_dir()


def test_latest_is_always_the_newest(workspace: Workspace, place: Path, history: Path, name: str) -> None:
    latest = history / "latest"
    for number in range(3):
        file(place / "file", str(number))
        new = history / f"{name}{'-' * number}"
        new.mkdir()
        # tar and git allocate as many bytes for the target as stat says.
        assert latest.lstat().st_size == len(new.name)
        assert os.readlink(latest) == new.name
        assert (latest / name / "file").read_text() == str(number)
    new.rmdir()
    assert os.readlink(latest) == f"{name}-"
    assert (latest / name / "file").read_text() == "1"
    taken = workspace.helios("snapshot", "-C", workspace.path, check=True).stdout.strip()
    assert latest.lstat().st_size == len(taken)
    assert os.readlink(latest) == taken


def test_what_stat_says_of_the_directory_follows(workspace: Workspace, history: Path, name: str) -> None:
    before = history.stat()
    workspace.helios("snapshot", name, "-C", workspace.path, check=True)
    after = history.stat()
    assert stat.S_ISDIR(after.st_mode)
    assert after.st_nlink == before.st_nlink + 1
    assert after.st_mtime_ns > before.st_mtime_ns
    assert len([entry for entry in os.scandir(history) if entry.is_dir(follow_symlinks=False)]) == after.st_nlink - 2
    (history / f"{name}-again").mkdir()
    assert history.stat().st_nlink == after.st_nlink + 1
    (history / f"{name}-again").rmdir()
    assert history.stat().st_nlink == after.st_nlink
    group = os.stat(workspace.path).st_gid
    for owner in {*os.getgroups(), group}:
        os.chown(workspace.path, -1, owner)
        assert history.stat().st_gid == owner
    os.chown(workspace.path, -1, group)


def test_it_is_hidden_and_cannot_be_taken_away(workspace: Workspace, history: Path) -> None:
    root = workspace.path
    assert not {".snapshots", ".branches"} & set(os.listdir(root))
    assert history.is_dir()
    assert tried(os.mkdir, history) == "EEXIST"
    assert tried(os.rmdir, history) == "EPERM"
    assert tried(os.rename, history, root / "other") == "EPERM"
    assert tried(os.rename, file(root / "some file"), history) in ("EISDIR", "EPERM", "EXDEV")
    assert tried(os.mkdir, root / ".branches") == "EEXIST"
    assert tried(os.rmdir, root / ".branches") == "EPERM"
    # Only the root has one.
    (root / "below").mkdir()
    (root / "below" / ".snapshots").mkdir()
    assert ".snapshots" in os.listdir(root / "below")


def test_before_the_first_snapshot(mounted: Workspace) -> None:
    history = mounted.path / ".snapshots"
    assert os.listdir(history) == []
    assert tried(os.lstat, history / "latest") == "ENOENT"
    (history / "one").mkdir()
    assert len(os.listdir(history)) == 3
    (history / "one").rmdir()
    assert os.listdir(history) == []
    assert tried(os.readlink, history / "latest") == "ENOENT"


@pytest.mark.parametrize(
    ("refused", "error"),
    [
        ("latest", "EEXIST"),
        ("0abcdefghj", "EINVAL"),
        ("~1", "EINVAL"),
        ("n" * 256, "ENAMETOOLONG"),
        (".", "EEXIST"),
    ],
)
def test_names_that_are_refused(workspace: Workspace, history: Path, refused: str, error: str) -> None:
    count = len(snapshots(workspace))
    assert tried(os.mkdir, history / refused) == error
    assert len(snapshots(workspace)) == count


def test_names_that_are_taken(workspace: Workspace, history: Path, name: str) -> None:
    (history / name).mkdir()
    (history / (name + "2")).mkdir()
    identity = id_of(workspace, name)
    count = len(snapshots(workspace))
    assert tried(os.mkdir, history / name) == "EEXIST"
    assert tried(os.mkdir, history / identity) == "EEXIST"
    assert tried(os.rename, history / name, history / (name + "2")) in ("EEXIST", "ENOTEMPTY")
    assert tried(os.rename, history / name, history / "latest") in ("EEXIST", "ENOTDIR")
    assert tried(rename, history / name, history / (name + "2"), NOREPLACE) == "EEXIST"
    assert tried(rename, history / name, history / (name + "2"), EXCHANGE) == "EINVAL"
    assert tried(os.rename, history / name, history / "0abcdefghj") == "EINVAL"
    assert len(snapshots(workspace)) == count


@pytest.mark.parametrize("odd", [b"\xff\xfe", b"n" * 255, b"a b\nc", "ü".encode()])
def test_names_that_are_allowed(workspace: Workspace, history: Path, odd: bytes) -> None:
    path = os.fsencode(history) + b"/" + odd
    os.mkdir(path)
    assert odd in os.listdir(os.fsencode(history))
    assert os.readlink(os.fsencode(history) + b"/latest") == odd
    again = workspace.helios("snapshot", os.fsdecode(odd), "-C", workspace.path)
    assert again.returncode == 3
    assert "exists" in again.stderr
    assert "Traceback" not in again.stderr
    os.rmdir(path)


def test_only_snapshots_can_be_made_there(workspace: Workspace, history: Path, name: str) -> None:
    (history / name).mkdir()
    identity = id_of(workspace, name)
    outcomes = [
        tried(os.open, history / "file", os.O_CREAT | os.O_WRONLY),
        tried(os.symlink, "x", history / "link"),
        tried(os.mkfifo, history / "fifo"),
        tried(os.unlink, history / identity),
        tried(os.unlink, history / "latest"),
        tried(os.chmod, history, 0o700),
        tried(os.utime, history),
        tried(os.utime, history / "latest", None),
        tried(os.setxattr, history, "user.x", b""),
    ]
    assert set(outcomes) <= {"EPERM", "EROFS"}
    assert tried(os.rmdir, history / identity) == "ENOTDIR"
    assert tried(os.rmdir, history / "absent") == "ENOENT"


# -- What a snapshot shows -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sealed", [False, True])
def test_a_snapshot_is_whole_and_stays_as_it_is(
    workspace: Workspace, place: Path, history: Path, name: str, sealed: bool
) -> None:
    make_one_of_everything(place)
    if sealed:
        seal(workspace)
    before = shown(place)
    (history / name).mkdir()
    kept = history / name / name
    assert shown(kept) == before
    if sealed:
        seal(workspace)
        assert shown(kept) == before
    file(place / "directory" / "below", "changed")
    os.truncate(place / "file", 2)
    os.unlink(place / "link")
    os.rename(place / "directory", place / "moved")
    os.rename(place / "fifo", place / "directory")
    os.setxattr(place / "file", "user.x", b"other")
    assert shown(kept) == before
    seal(workspace)
    assert shown(kept) == before
    subprocess.run(["rm", "-rf", *place.iterdir()], check=True)
    (history / (name + "-after")).mkdir()
    assert shown(kept) == before
    assert shown(history / (name + "-after") / name) == {}
    assert shown(place) == {}


def test_it_is_there_after_a_kill_and_a_remount(mounted: Workspace) -> None:
    make_one_of_everything(mounted.path)
    before = shown(mounted.path)
    (mounted.path / ".snapshots" / "one").mkdir()
    file(mounted.path / "file", "later")
    mounted.kill()
    mounted.mount()
    assert shown(mounted.path / ".snapshots" / "one") == before
    mounted.remount()
    assert shown(mounted.path / ".snapshots" / "one") == before
    assert (mounted.path / "file").read_text() == "later"


def test_inode_numbers_are_not_those_of_the_live_files(
    workspace: Workspace, place: Path, history: Path, name: str
) -> None:
    make_one_of_everything(place)
    (history / name).mkdir()
    kept = history / name / name
    for path in ["file", "directory", "directory/below", "link", "fifo"]:
        live, then = (place / path).lstat(), (kept / path).lstat()
        assert live.st_dev == then.st_dev
        assert live.st_ino != then.st_ino
        assert not os.path.samestat(live, then)
    assert (kept / "file").stat().st_ino == (kept / "directory" / "hard").stat().st_ino
    numbers = {entry.name: entry.inode() for entry in os.scandir(kept)}
    assert numbers["file"] == (kept / "file").stat().st_ino
    assert (history / name).stat().st_ino != workspace.path.stat().st_ino


@pytest.mark.parametrize("sealed", [False, True])
def test_every_change_is_refused(workspace: Workspace, place: Path, history: Path, name: str, sealed: bool) -> None:
    make_one_of_everything(place)
    (history / name).mkdir()
    if sealed:
        seal(workspace)
    kept = history / name / name
    before = shown(kept)
    for target in (kept, history / name):
        in_place: list[tuple[Callable[..., object], *tuple[object, ...]]] = [
            (os.mkdir, target / "new"),
            (os.symlink, "x", target / "new"),
            (os.mkfifo, target / "new"),
            (os.open, target / "new", os.O_CREAT | os.O_WRONLY),
            (os.chmod, target, 0o700),
            (os.chown, target, os.geteuid(), os.getegid()),
            (os.utime, target),
            (os.setxattr, target, "user.x", b"1"),
            (os.rename, target / name, target / "new"),
            (os.rmdir, target / name),
        ]
        for call, *arguments in in_place[:8] if target == kept else in_place:
            assert tried(call, *arguments) == "EROFS", (call, arguments)
    on_files: list[tuple[Callable[..., object], *tuple[object, ...]]] = [
        (os.unlink, kept / "file"),
        (os.rmdir, kept / "directory"),
        (os.rename, kept / "file", kept / "other"),
        (os.rename, kept / "file", kept / "directory" / "below"),
        (rename, kept / "file", kept / "directory" / "below", EXCHANGE),
        (os.link, kept / "file", kept / "other"),
        (os.truncate, kept / "file", 0),
        (os.open, kept / "file", os.O_WRONLY),
        (os.open, kept / "file", os.O_RDWR),
        (os.open, kept / "file", os.O_WRONLY | os.O_TRUNC),
        (os.open, kept / "file", os.O_RDWR | os.O_CREAT),
        (os.chmod, kept / "file", 0o600),
        (os.utime, kept / "file", (1, 1)),
        (os.setxattr, kept / "file", "user.x", b"1"),
        (os.removexattr, kept / "file", "user.x"),
    ]
    for call, *arguments in on_files:
        assert tried(call, *arguments) == "EROFS", (call, arguments)
    assert shown(kept) == before == shown(place)


def test_nothing_moves_or_is_linked_out_or_in(workspace: Workspace, place: Path, history: Path, name: str) -> None:
    make_one_of_everything(place)
    (history / name).mkdir()
    (history / (name + "2")).mkdir()
    kept, other = history / name / name, history / (name + "2") / name
    for source, target in [
        (kept / "file", place / "out"),
        (place / "file", kept / "in"),
        (kept / "file", other / "across"),
        (kept / "directory", place / "out"),
        (kept / "file", history / "out"),
        (place / "directory", history / "in"),
        (history / name, place / "out"),
    ]:
        assert tried(os.rename, source, target) == "EXDEV", (source, target)
    for source, target in [
        (kept / "file", place / "out"),
        (place / "file", kept / "in"),
        (kept / "file", other / "across"),
    ]:
        assert tried(os.link, source, target) in ("EXDEV", "EROFS"), (source, target)
    subprocess.run(["cp", "-a", kept / "file", place / "copied out"], check=True)
    subprocess.run(["mv", place / "copied out", place / "fine"], check=True)


def test_one_that_is_in_use_can_be_deleted(workspace: Workspace, place: Path, history: Path, name: str) -> None:
    """What is open stays readable; a directory that is gone answers ENOENT, and the mount lives on."""
    make_one_of_everything(place)
    (history / name).mkdir()
    identity = id_of(workspace, name)
    kept = history / name / name
    with open(kept / "directory" / "below") as opened:
        root, below = (os.open(path, os.O_PATH) for path in (history / name, kept))
        listed = os.open(kept, os.O_RDONLY)
        (history / name).rmdir()
        seal(workspace)
        file(place / "directory" / "below", "changed")
        assert opened.read(5) == "xxxxx"
        assert sorted(os.listdir(listed)) == ["directory", "fifo", "file", "link"]
        assert tried(os.stat, history / name) == tried(os.lstat, history / identity) == "ENOENT"
        for directory in (root, below):
            tried(os.listdir, f"/proc/self/fd/{directory}")
            tried(lambda fd=directory: os.close(os.open(".", os.O_RDONLY | os.O_DIRECTORY, dir_fd=fd)))
            tried(lambda fd=directory: os.stat("absent", dir_fd=fd))
            tried(lambda fd=directory: os.listxattr(f"/proc/self/fd/{fd}"))
            os.close(directory)
        os.close(listed)
        assert opened.read(5) == "xxxxx"
    assert (place / "file").read_text() == "content"


def test_one_that_somebody_stands_in_can_be_deleted(workspace: Workspace, history: Path, name: str) -> None:
    (history / name).mkdir()
    directory = os.open(history / name, os.O_PATH)
    try:
        (history / name).rmdir()
        assert tried(lambda: os.close(os.open(".", os.O_RDONLY | os.O_DIRECTORY, dir_fd=directory))) == "ENOENT"
        assert tried(lambda: os.stat("absent", dir_fd=directory)) == "ENOENT"
    finally:
        os.close(directory)
    assert history.is_dir()


def test_a_name_can_be_used_again(workspace: Workspace, place: Path, history: Path, name: str) -> None:
    for content in ("one", "two", "three"):
        file(place / "file", content)
        (history / name).mkdir()
        assert (history / name / name / "file").read_text() == content
        (history / name).rmdir()
        assert tried(os.stat, history / name) == "ENOENT"


# -- What is in it ---------------------------------------------------------------------------------------------------


def mapped_store(path: Path, payload: bytes) -> tuple[mmap.mmap, int]:
    descriptor = os.open(path, os.O_RDWR)
    mapped = mmap.mmap(descriptor, 0)
    mapped[100 : 100 + len(payload)] = payload
    return mapped, descriptor


@pytest.mark.parametrize("how", ["mkdir", "helios"])
@pytest.mark.parametrize("kind", ["plain", "two names", "not readable", "moved", "descriptor closed"])
def test_what_a_shared_mapping_stored_is_in_it(
    workspace: Workspace, place: Path, history: Path, name: str, how: str, kind: str
) -> None:
    path = file(place / "mapped", "\0" * 50_000)
    if kind == "two names":
        os.link(path, place / "second")
        os.unlink(path)
        path = place / "second"
    mapped, descriptor = mapped_store(path, b"stored before")
    try:
        if kind == "not readable":
            path.chmod(0)
        elif kind == "moved":
            path = path.rename(place / "elsewhere")
        elif kind == "descriptor closed":
            os.close(descriptor)
        taken = name.replace("/", " ")
        if how == "mkdir":
            (history / taken).mkdir()
        else:
            workspace.helios("snapshot", taken, "-C", workspace.path, check=True)
        mapped[100:112] = b"stored after"
        if kind == "not readable":
            path.chmod(0o600)
            if os.geteuid() != 0:
                return  # in the snapshot nobody but root may read it
        kept = history / taken / name / path.name
        assert kept.read_bytes()[100:113] == b"stored before"
    finally:
        mapped.close()
        if kind != "descriptor closed":
            os.close(descriptor)
    assert path.read_bytes()[100:112] == b"stored after"


WRITER = """
import os, sys
fd = os.open(sys.argv[1], os.O_WRONLY)
number = 0
while True:
    number += 1
    text = b"%08d" % number
    os.pwrite(fd, text, 0)        # the first is never behind the second
    os.pwrite(fd, text, 200_000)
    if number == 1:
        print("writing", flush=True)
"""


def test_a_snapshot_is_one_instant_while_others_write(
    workspace: Workspace, place: Path, history: Path, name: str
) -> None:
    path = file(place / "file", "")
    writer = subprocess.Popen([sys.executable, "-c", WRITER, path], stdout=subprocess.PIPE)
    assert writer.stdout is not None
    with writer.stdout:
        try:
            assert writer.stdout.readline() == b"writing\n"
            for number in range(40):
                (history / f"{name}{number}").mkdir()
                if number == 20:
                    seal(workspace)
        finally:
            writer.kill()
            writer.wait(PATIENCE_SECONDS)
    seen = []
    for number in range(40):
        content = (history / f"{name}{number}" / name / "file").read_bytes()
        first, second = int(content[:8]), int(content[200_000:])
        assert first - 1 <= second <= first
        seen.append(second)
    assert seen == sorted(seen)
    assert seen[0] < seen[-1]
    seal(workspace)
    for number, second in enumerate(seen):
        assert int((history / f"{name}{number}" / name / "file").read_bytes()[200_000:]) == second
        (history / f"{name}{number}").rmdir()


def test_every_call_that_returned_before_is_in_it_and_none_after(
    workspace: Workspace, place: Path, history: Path, name: str
) -> None:
    """Several threads create files; each knows what it had made before and after its own snapshots."""
    problems: list[object] = []

    def work(who: int) -> None:
        for number in range(15):
            (place / f"{who}-{number}").touch()
            taken = history / f"{name}-{who}-{number}"
            taken.mkdir()
            (place / f"{who}-{number}-after").touch()
            names = {entry for entry in os.listdir(taken / name) if entry.startswith(f"{who}-")}
            expected = {f"{who}-{n}" for n in range(number + 1)} | {f"{who}-{n}-after" for n in range(number)}
            if names != expected:
                problems.append((who, number, names ^ expected))

    threads = [threading.Thread(target=work, args=(who,)) for who in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_SECONDS)
    assert problems == []


def test_many_snapshots_are_listed_and_looked_at(workspace: Workspace, place: Path, history: Path, name: str) -> None:
    for number in range(300):
        (history / f"{name}{number:03}").mkdir()
    listed = {entry for entry in os.listdir(history) if entry.startswith(name)}
    assert len(listed) == 300
    before = open_views(workspace)
    # A long listing asks for attributes of each; so does a search for a name that none of them has.
    subprocess.run(["ls", "-l", history], check=True, stdout=subprocess.DEVNULL)
    assert [entry for entry in listed if (history / entry / "absent").exists()] == []
    assert all(tried(os.getxattr, history / entry, "user.absent") == "ENODATA" for entry in listed)
    assert open_views(workspace) <= before + 1
    for entry in listed:
        (history / entry).rmdir()
    assert open_views(workspace) <= before


def open_views(workspace: Workspace) -> int:
    connection = find_daemon(str(workspace.store), "main")
    assert connection is not None
    with connection:
        return int(connection.ask(messages.Stats(), messages.StatsReply, PATIENCE_SECONDS).counters["views_open"])


def drop_from_the_page_cache(folder: Path) -> None:
    for path in folder.rglob("*"):
        if path.is_file():
            with open(path, "rb") as opened:
                os.fsync(opened.fileno())
                os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def test_a_listing_of_what_is_on_disk_only_names_everything_once(mounted: Workspace) -> None:
    """Directories of many pages that neither the daemon nor the kernel has in memory, live and in a snapshot."""
    directory = mounted.path / "directory"
    directory.mkdir()
    names = [f"{number:05}-{'n' * 60}" for number in range(3000)]
    for name in names:
        (directory / name).write_text(name)
    (mounted.path / ".snapshots" / "kept").mkdir()
    for place in (mounted.path / ".snapshots" / "kept" / "directory", directory):
        mounted.unmount()
        drop_from_the_page_cache(mounted.store / "packs")
        mounted.mount()
        with os.scandir(place) as entries:
            assert sorted(entry.name for entry in entries) == names
        assert all((place / name).read_text() == name for name in names[::100])
