"""Bad input on real mounts and stores: one clear line, the right exit code or errno, and nothing lost.

What `helios mount` says of mountpoints and options is tested with the command line (`tests/unit/cli/test_verbs.py`);
here are stores that are damaged or taken, disks that are full, signals, and handlers that raise.
"""

import errno
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from helios_fs.control import messages
from helios_fs.control.client import find_daemon
from helios_fs.errors import StoreFull
from helios_fs.store.locks import BranchLock
from tests.mount.mounted import PATIENCE_SECONDS, Helios, Killer, Workspace, find_mounts
from tests.mount.one_mount import runner
from tests.mount.system_calls import tried

pytestmark = pytest.mark.fuse


def says_in_one_line(done: subprocess.CompletedProcess[str], *words: str, code: int = 3) -> None:
    assert done.returncode == code, done
    assert done.stdout == ""
    assert done.stderr.startswith("helios: "), done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
    assert all(word in done.stderr for word in words), done.stderr


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, "it does not come to that"
        time.sleep(0.02)


def sealed(workspace: Workspace) -> bool:
    """Ask for a seal, and say whether there was room for it."""
    connection = find_daemon(str(workspace.store), "main")
    assert connection is not None
    with connection:
        try:
            connection.ask(messages.Seal(), messages.Sealed, PATIENCE_SECONDS)
        except StoreFull:
            return False
    return True


# -- Mountpoints -----------------------------------------------------------------------------------------------------


def test_mountpoints_that_cannot_be(mounted: Workspace, tmp_path: Path) -> None:
    full = tmp_path / "full"
    full.mkdir()
    (full / "mine").write_text("mine")
    store = tmp_path / "another-store"
    mounted.helios("init", store, check=True)
    says_in_one_line(mounted.helios("mount", full, "--store", store), "not empty")
    says_in_one_line(mounted.helios("mount", full / "mine", "--store", store), "not a directory")
    says_in_one_line(mounted.helios("mount", tmp_path / "absent", "--store", store), "mkdir")
    says_in_one_line(mounted.helios("mount", mounted.path, "--store", store), "already mounted")
    (mounted.path / "inside").mkdir()
    assert (full / "mine").read_text() == "mine"
    if os.geteuid() != 0:
        # fusermount3 lets an ordinary user mount over a list of filesystems, and FUSE is not on it (fusermount.c).
        says_in_one_line(mounted.helios("mount", mounted.path / "inside", "--store", store), "refused the mount")
        return
    # A workspace inside a workspace is unusual, and works.
    mounted.helios("mount", mounted.path / "inside", "--store", store, check=True)
    (mounted.path / "inside" / "file").write_text("inner")
    mounted.helios("unmount", mounted.path / "inside", check=True)
    assert os.listdir(mounted.path / "inside") == []


# -- Stores ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with content, sealed and in the journal, whose daemon was killed."""
    folder = tmp_path_factory.mktemp("original")
    source = folder / "source"
    source.mkdir()
    for number in range(50):
        (source / f"sealed-{number}").write_bytes(content(number))
    workspace = Workspace(runner(folder), folder)
    shutil.rmtree(workspace.store)
    workspace.helios("init", workspace.store, "--from", source, check=True)
    workspace.mount()
    (workspace.path / "journaled").write_text("j" * 5000)
    (workspace.path / ".snapshots" / "kept").mkdir()
    workspace.kill()
    subprocess.run(["fusermount3", "-uz", workspace.path], check=True)
    return workspace.store


@pytest.fixture
def filled(original: Path, helios: Helios, tmp_path: Path) -> Workspace:
    """A copy of it, that may be damaged."""
    workspace = Workspace(helios, tmp_path, make_store=False)
    shutil.copytree(original, workspace.store, ignore=shutil.ignore_patterns("*.sock"))
    return workspace


def content(number: int) -> bytes:
    return bytes([number]) * 5000


def reads_right_or_not_at_all(path: Path, expected: bytes) -> None:
    try:
        assert path.read_bytes() == expected
    except OSError as error:
        assert error.errno in (errno.EIO, errno.ENOENT), error


DAMAGE = [
    ("format", "empty"),
    ("refs", "empty"),
    ("refs", "half"),
    ("refs", "garbage"),
    ("index/data.mdb", "empty"),
    ("index/data.mdb", "half"),
    ("index/data.mdb", "garbage"),
    ("index/data.mdb", "missing"),
    ("packs", "half"),
    ("packs", "garbage"),
    ("packs", "missing"),
    ("journals/main", "half"),
    ("journals/main", "garbage"),
    ("journals/main", "missing"),
]


@pytest.mark.parametrize(("what", "how"), DAMAGE)
def test_a_store_that_is_damaged(filled: Workspace, what: str, how: str) -> None:
    """It is refused in one line, or mounted with every file right or EIO; never wrong, never with a traceback."""
    path = filled.store / what
    if path.is_dir():
        path = max((p for p in path.iterdir() if p.name != "reserve"), key=lambda p: p.stat().st_size)
    size = path.stat().st_size
    if how == "missing":
        path.unlink()
    elif how == "garbage":
        with open(path, "r+b") as opened:
            opened.seek(size // 3)
            opened.write(os.urandom(min(200, size - size // 3)))
    else:
        os.truncate(path, 0 if how == "empty" else size // 2)
    done = filled.helios("mount", filled.path, "--store", filled.store)
    if done.returncode:
        says_in_one_line(done)
        assert not find_mounts(filled.path)
        doctor = filled.helios("doctor", "--store", filled.store)
        assert doctor.returncode in (0, 1)
        assert "Traceback" not in doctor.stderr
        return
    try:
        for number in range(50):
            reads_right_or_not_at_all(filled.path / f"sealed-{number}", content(number))
        if (filled.path / "journaled").exists() and (filled.path / "journaled").stat().st_size:
            # Where a journal breaks off, whatever came before is there, and nothing after.
            reads_right_or_not_at_all(filled.path / "journaled", b"j" * 5000)
        reads_right_or_not_at_all(filled.path / ".snapshots" / "kept" / "sealed-7", content(7))
        if what == "index/data.mdb":
            # The index can be built again: nothing at all is missing.
            assert (filled.path / "sealed-49").read_bytes() == content(49)
            assert (filled.path / "journaled").read_text() == "j" * 5000
        (filled.path / "new").write_text("alive")
        assert (filled.path / "new").read_text() == "alive"
    finally:
        if filled.helios("unmount", filled.path).returncode:
            filled.helios("unmount", "--force", filled.path)
            subprocess.run(["fusermount3", "-uzq", filled.path], check=False)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"helios-store 1\nid " + b"a" * 32 + b"\n", ["newer"]),
        (b"helios-store 0\nid abc\n", ["truncated or damaged"]),
        (b"\0" * 100, ["not a HeliosFS store"]),
    ],
)
def test_a_store_that_is_not_one_or_not_of_this_version(filled: Workspace, text: bytes, words: list[str]) -> None:
    (filled.store / "format").write_bytes(text)
    for arguments in (["mount", filled.path], ["log"]):
        says_in_one_line(filled.helios(*arguments, "--store", filled.store), *words)


def test_a_store_that_is_locked(filled: Workspace) -> None:
    lock = BranchLock(str(filled.store), "main")
    try:
        says_in_one_line(
            filled.helios("mount", filled.path, "--store", filled.store), "in use by process", str(os.getpid())
        )
    finally:
        lock.release()
    assert not find_mounts(filled.path)
    filled.mount()
    assert (filled.path / "journaled").read_text() == "j" * 5000
    filled.remove()


# -- Signals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_unmounts_cleanly_also_while_files_are_open(mounted: Workspace, number: signal.Signals) -> None:
    (mounted.path / "file").write_text("before the signal")
    daemon = mounted.daemon()
    watch = Killer(daemon)
    with open(mounted.path / "open", "w") as opened:
        opened.write("flushed")
        opened.flush()
        os.kill(daemon, number)
        watch.wait()
        assert not find_mounts(mounted.path)
    assert os.listdir(mounted.path) == []
    mounted.mount()
    assert (mounted.path / "file").read_text() == "before the signal"
    assert (mounted.path / "open").read_text() == "flushed"


# -- Handlers that raise ---------------------------------------------------------------------------------------------

BROKEN_DAEMON = """
import sys
from helios_fs import daemon
from helios_fs.worktree.worktree import Worktree

healthy_read, healthy_create, healthy_find = Worktree.read, Worktree.create, Worktree.unlink

def read(self, inode, offset, length):
    if inode.name == b"broken":
        raise ZeroDivisionError("nobody foresaw this")
    return healthy_read(self, inode, offset, length)

def create(self, parent, name, *rest, **more):
    if name.startswith(b"unlucky"):
        raise KeyError(name)
    return healthy_create(self, parent, name, *rest, **more)

Worktree.read, Worktree.create = read, create
daemon.main()
"""


def test_a_handler_that_raises(helios: Helios, environment: dict[str, str], tmp_path: Path) -> None:
    workspace = Workspace(helios, tmp_path)
    reading, writing = os.pipe()
    arguments = ["--store", str(workspace.store), "--branch", "main", "--mountpoint", str(workspace.path)]
    with open(tmp_path / "log", "wb") as log:
        running = subprocess.Popen(
            [sys.executable, "-c", BROKEN_DAEMON, *arguments, "--ready-fd", str(writing)],
            env=environment,
            stdout=log,
            stderr=log,
            pass_fds=[writing],
        )
    os.close(writing)
    try:
        with open(reading) as ready:
            assert ready.readline() == "ready\n"
        (workspace.path / "healthy").write_text("fine")
        (workspace.path / "broken").write_text("cannot be read")
        for _ in range(3):
            assert tried((workspace.path / "broken").read_text) == "EIO"
            assert tried((workspace.path / "unlucky").touch) == "EIO"
            assert tried((workspace.path / "unlucky directory").mkdir) == "EIO"
            assert (workspace.path / "healthy").read_text() == "fine"
        assert sorted(os.listdir(workspace.path)) == ["broken", "healthy"]
        (workspace.path / "later").write_text("still alive")
        workspace.unmount()
        assert running.wait(PATIENCE_SECONDS) == 0
    finally:
        workspace.remove()
        running.wait(PATIENCE_SECONDS)
    said = (tmp_path / "log").read_text()
    assert "ZeroDivisionError: nobody foresaw this" in said
    assert "KeyError" in said
    workspace.mount()
    assert (workspace.path / "broken").read_text() == "cannot be read"
    workspace.remove()


# -- A full disk -----------------------------------------------------------------------------------------------------


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A small disk of its own."""
    target = tmp_path / "disk"
    target.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=48m", "none", target], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"a tmpfs cannot be mounted here: {done.stderr.strip()}")
    try:
        yield target
    finally:
        subprocess.run(["umount", target], check=True)


@pytest.fixture
def small(helios: Helios, disk: Path, tmp_path: Path) -> Iterator[Workspace]:
    """A workspace whose store lies on the small disk."""
    workspace = Workspace(helios, disk)
    workspace.path = tmp_path / "mountpoint"
    workspace.path.mkdir()
    try:
        workspace.mount()
        yield workspace
    finally:
        workspace.remove()


def fill(path: Path) -> None:
    """Write into a file until the disk that holds it is full."""
    with open(path, "wb", buffering=0) as filler:
        for size in (1 << 20, 4096, 1):
            try:
                while True:
                    filler.write(bytes(size))
            except OSError as error:
                assert error.errno == errno.ENOSPC


@pytest.mark.root
def test_a_full_disk(small: Workspace, disk: Path) -> None:
    """Writes get ENOSPC, reads and deletions go on; once there is room, so do writes; a remount finds everything."""
    kept = {f"kept-{number}": os.urandom(3000) for number in range(20)}
    for name, data in kept.items():
        (small.path / name).write_bytes(data)
    (small.path / "full").mkdir()
    for number in range(300):
        (small.path / "full" / f"{number}").write_bytes(b"goes")
    (small.path / ".snapshots" / "before").mkdir()
    fill(disk / "filler")
    outcomes = {tried((small.path / f"new-{number}").write_bytes, bytes(200_000)) for number in range(5)}
    assert outcomes == {"ENOSPC"}
    assert tried((small.path / "kept-0").write_bytes, bytes(1 << 20)) == "ENOSPC"
    for name, data in list(kept.items())[1:]:
        assert (small.path / name).read_bytes() == data
    assert (small.path / ".snapshots" / "before" / "kept-0").read_bytes() == kept["kept-0"]
    for number in range(300):
        (small.path / "full" / f"{number}").unlink()
    (small.path / "full").rmdir()
    assert not (small.path / "full").exists()
    (small.path / ".snapshots" / "before").rmdir()
    (disk / "filler").unlink()
    (small.path / "after").write_bytes(bytes(200_000))
    (small.path / "kept-0").write_bytes(kept["kept-0"])
    shown = {path.name: path.read_bytes() for path in small.path.iterdir() if path.name.startswith("kept")}
    assert shown == kept
    small.remount()
    assert {path.name: path.read_bytes() for path in small.path.iterdir() if path.name.startswith("kept")} == kept
    assert (small.path / "after").read_bytes() == bytes(200_000)
    assert not (small.path / "full").exists()


@pytest.mark.root
def test_a_disk_that_the_workspace_itself_has_filled_can_be_emptied(small: Workspace) -> None:
    (small.path / "kept").write_text("kept")
    count = 0
    answer: object = 0
    while answer != "ENOSPC":
        answer = tried((small.path / f"large-{count}").write_bytes, os.urandom(1 << 20))
        count += 1
        assert count < 100
    assert (small.path / "kept").read_text() == "kept"
    for number in range(count):
        (small.path / f"large-{number}").unlink(missing_ok=True)
    # The sealer passes the deletions, then the journal lets go of what was deleted.
    wait_until(lambda: sealed(small) and tried((small.path / "again").write_bytes, os.urandom(10 << 20)) != "ENOSPC")
    assert sorted(os.listdir(small.path)) == ["again", "kept"]


@pytest.mark.root
@pytest.mark.parametrize("how", ["unmount", "kill"])
def test_a_workspace_on_a_full_disk_can_be_mounted_again(small: Workspace, disk: Path, how: str) -> None:
    (small.path / "written").write_bytes(b"w" * 300_000)
    fill(disk / "filler")
    if how == "unmount":
        small.unmount()
    else:
        small.kill()
    fill(disk / "more filler")
    small.mount()
    assert (small.path / "written").read_bytes() == b"w" * 300_000
    fill(disk / "even more filler")
    (small.path / "written").unlink()
    small.remount()
    assert os.listdir(small.path) == []
