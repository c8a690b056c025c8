"""Attributes: inode numbers for life, blocks, times and the rules by which they move.

What a plain directory shows too is compared in test_semantics.py; here is what a mount adds: seal, remount, history.
"""

import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.mount.mounted import PATIENCE_SECONDS, Workspace
from tests.mount.system_calls import file

pytestmark = pytest.mark.fuse

SECOND = 10**9
FIRST_NS, LAST_NS = -(1 << 63), (1 << 63) - 1


def one_of_everything(base: Path) -> None:
    (base / "directory" / "below").mkdir(parents=True)
    file(base / "file", "content", 0o640)
    os.link(base / "file", base / "directory" / "hard")
    os.symlink("file", base / "link")
    os.mkfifo(base / "fifo", 0o600)
    file(base / "empty", "")
    with open(base / "sparse", "wb") as sparse:
        os.pwrite(sparse.fileno(), b"x" * 10_000, 1 << 20)
        os.ftruncate(sparse.fileno(), 3 << 20)
    with open(base / "scattered", "wb") as scattered:
        for page in range(64):
            os.pwrite(scattered.fileno(), b"x", page * 4096)
    (base / "large").write_bytes(os.urandom(1 << 20))
    os.utime(base / "large", ns=(-1, 4_102_444_800_123_456_789))
    os.utime(base / "link", ns=(5, 6), follow_symlinks=False)


def shown(base: Path) -> dict[str, tuple[int, ...]]:
    """What stat says of all below `base`, and that listings and lookups agree."""
    seen = {}
    for path in [base, *base.rglob("*")]:
        status = path.lstat()
        for entry in os.scandir(path) if path.is_dir() and not path.is_symlink() else ():
            assert entry.inode() == os.lstat(entry.path).st_ino
        seen[str(path.relative_to(base))] = (
            status.st_ino, status.st_mode, status.st_nlink, status.st_uid, status.st_gid, status.st_rdev,
            status.st_size, status.st_blocks, status.st_atime_ns, status.st_mtime_ns, status.st_ctime_ns,
        )  # fmt: skip
    return seen


# -- Inode numbers ---------------------------------------------------------------------------------------------------


def test_all_attributes_stay_whatever_happens_below(shared: Workspace, folder: Path) -> None:
    """Sealing, a remount and the death of the daemon are no changes."""
    one_of_everything(folder)
    before = shown(folder)
    for action in (shared.seal, shared.remount, shared.seal, shared.kill, shared.mount):
        action()
        if action != shared.kill:
            assert shown(folder) == before, action.__name__


def test_a_restore_brings_numbers_and_times_back(shared: Workspace, folder: Path) -> None:
    one_of_everything(folder)
    before = shown(folder)
    (shared.path / ".snapshots" / "numbers").mkdir()
    (folder / "file").write_text("another content")
    (folder / "directory" / "hard").unlink()
    os.rename(folder / "directory", folder / "moved")
    (folder / "link").unlink()
    os.truncate(folder / "sparse", 100)
    (folder / "new").write_text("made later")
    shared.helios("restore", "numbers", str(folder), "-C", shared.path, check=True)
    after = shown(folder)
    # The change time is that of the restore.
    assert {name: status[:-1] for name, status in after.items()} == {n: s[:-1] for n, s in before.items()}


def test_a_number_is_that_of_one_file_for_ever(folder: Path) -> None:
    seen = set()
    for _ in range(300):
        seen.add(file(folder / "file").stat().st_ino)
        (folder / "file").unlink()
        (folder / "file").mkdir()
        seen.add((folder / "file").stat().st_ino)
        (folder / "file").rmdir()
    assert len(seen) == 600


def test_no_two_files_of_all_trees_share_a_number(shared: Workspace, folder: Path) -> None:
    """(st_dev, st_ino) over the working tree, two snapshots, a branch, its snapshots and a branch of it."""
    one_of_everything(folder)
    root = shared.path
    (root / ".snapshots" / "one").mkdir()
    file(folder / "file", "later")
    (root / ".branches" / "work").mkdir()
    work = root / ".branches" / "work"
    file(work / folder.name / "file", "in the branch")
    (work / ".snapshots" / "two").mkdir()
    (work / ".branches" / "deeper").mkdir()
    trees = [
        root,
        root / ".snapshots" / "one",
        work,
        work / ".snapshots" / "one",
        work / ".snapshots" / "two",
        work / ".branches" / "deeper",
    ]
    for remounted in (False, True):
        if remounted:
            shared.seal()
            shared.remount()
        numbers: dict[tuple[int, int], str] = {}
        for tree in trees:
            controls = [tree / ".snapshots", tree / ".branches"] if ".snapshots" not in tree.parts else []
            for path in [tree, *controls, *tree.rglob("*")]:
                name = f"{tree.relative_to(root)}: {path.relative_to(tree)}"
                status = path.lstat()
                known = numbers.setdefault((status.st_dev, status.st_ino), name)
                assert known == name or {Path(known).name, Path(name).name} == {"file", "hard"}, (known, name)
                assert known.split(":")[0] == name.split(":", maxsplit=1)[0], (known, name)


# -- Blocks ----------------------------------------------------------------------------------------------------------


def test_blocks_follow_writes_holes_and_cuts(shared: Workspace, folder: Path) -> None:
    path = folder / "file"
    seen = []
    with open(path, "w+b") as opened:
        fd = opened.fileno()
        steps: list[Callable[[], object]] = [
            lambda: os.ftruncate(fd, 1 << 20),
            lambda: os.pwrite(fd, b"d" * 8192, 4096),
            lambda: os.pwrite(fd, b"D" * 8192, 8192),
            lambda: os.pwrite(fd, b"d" * 4096, 512 << 10),
            lambda: os.ftruncate(fd, 256 << 10),
            lambda: os.ftruncate(fd, 10_000),
            lambda: os.ftruncate(fd, 0),
        ]
        for step in steps:
            step()
            live = os.fstat(fd).st_blocks
            shared.seal()
            assert os.fstat(fd).st_blocks == live
            seen.append(live * 512)
    assert seen == [0, 8192, 12288, 16384, 12288, 8192, 0]
    said = subprocess.run(["du", "--block-size=1", path], capture_output=True, text=True, check=True)
    assert said.stdout.split()[0] == "0"


# -- Times -----------------------------------------------------------------------------------------------------------


def test_times_are_kept_from_1677_to_2262_and_the_nearest_otherwise(shared: Workspace, folder: Path) -> None:
    """Signed nanoseconds in 64 bits. pyfuse3 hands over seconds and nanoseconds apart, so nothing wraps before us."""
    far = {
        FIRST_NS: FIRST_NS,
        LAST_NS: LAST_NS,
        -9_223_372_036 * SECOND + 1: -9_223_372_036 * SECOND + 1,
        LAST_NS + 1: LAST_NS,
        FIRST_NS - 1: FIRST_NS,
        253_402_300_799 * SECOND: LAST_NS,  # the year 9999
        -62_135_596_800 * SECOND: FIRST_NS,  # the year 1
        0: 0,
        -1: -1,
    }
    for number, asked in enumerate(far):
        os.utime(file(folder / f"{number}"), ns=(asked, asked))
    for _ in range(2):
        seen = [(folder / f"{number}").stat() for number in range(len(far))]
        assert [status.st_mtime_ns for status in seen] == list(far.values())
        assert [status.st_atime_ns for status in seen] == list(far.values())
        shared.remount()


def test_a_read_is_no_change(shared: Workspace, folder: Path) -> None:
    """No access time moves by itself, whatever rule is asked for at mount: as with noatime."""
    one_of_everything(folder)
    for path in (folder / "file", folder / "directory", folder / "link"):
        os.utime(path, ns=(10, 20), follow_symlinks=False)
    shared.unmount()
    shared.helios("mount", shared.path, "--store", shared.store, "-o", "relatime", check=True)
    (folder / "file").read_text()
    os.listdir(folder / "directory")
    os.readlink(folder / "link")
    (folder / "link").read_text()
    shared.remount()
    for path in (folder / "file", folder / "directory", folder / "link"):
        assert (path.lstat().st_atime_ns, path.lstat().st_mtime_ns) == (10, 20)


def test_an_access_time_that_somebody_sets_is_kept(shared: Workspace, folder: Path) -> None:
    path = file(folder / "file")
    made = path.stat()
    assert made.st_atime_ns <= made.st_mtime_ns
    subprocess.run(["touch", "-a", "-d", "@1234567890.123456789", path], check=True, timeout=PATIENCE_SECONDS)
    assert (path.stat().st_atime_ns, path.stat().st_mtime_ns) == (1_234_567_890_123_456_789, made.st_mtime_ns)
    subprocess.run(["touch", "-m", "-d", "@5.000000006", path], check=True, timeout=PATIENCE_SECONDS)
    shared.remount()
    assert (path.stat().st_atime_ns, path.stat().st_mtime_ns) == (1_234_567_890_123_456_789, 5_000_000_006)


def test_change_times_are_the_clocks_and_go_on(folder: Path) -> None:
    """What make and git compare: no change has the time of the one before, and none lies outside of its moment."""
    path = file(folder / "file")
    last = 0
    for number in range(200):
        before = time.time_ns()
        with open(path, "ab") as opened:
            opened.write(b"x")
        os.utime(path, ns=(number, number))
        status = path.stat()
        assert max(last + 1, before) <= status.st_ctime_ns <= time.time_ns()
        last = status.st_ctime_ns


def test_a_listing_shows_the_times_that_a_change_has_left(folder: Path) -> None:
    """Attributes that the kernel has cached follow each change at once: the parent's by what happens below."""
    (folder / "directory").mkdir()
    seen = [(folder / "directory").stat().st_mtime_ns]
    inner = folder / "directory" / "file"
    actions: list[Callable[[], object]] = [
        lambda: file(inner),
        lambda: os.link(inner, folder / "directory" / "other"),
        lambda: os.rename(inner, folder / "out"),
        lambda: os.rename(folder / "out", folder / "directory" / "back"),
        lambda: os.unlink(folder / "directory" / "back"),
    ]
    for action in actions:
        action()
        seen.append((folder / "directory").stat().st_mtime_ns)
    assert seen == sorted(set(seen))


# -- What new files get ----------------------------------------------------------------------------------------------


def test_umask_takes_from_every_kind(folder: Path) -> None:
    kinds: dict[str, Callable[[Path], object]] = {
        "file": lambda path: os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o7777)),
        "node": lambda path: os.mknod(path, 0o106777),
        "fifo": lambda path: os.mkfifo(path, 0o777),
        "directory": lambda path: os.mkdir(path, 0o1777),
    }
    plain = folder.parent.parent / "umask"
    plain.mkdir()
    seen: list[list[int]] = [[], []]
    for mask in (0, 0o002, 0o022, 0o027, 0o077, 0o777):
        for name, make in kinds.items():
            for base, modes in zip((folder, plain), seen, strict=True):
                former = os.umask(mask)
                try:
                    make(base / f"{name}-{mask:o}")
                finally:
                    os.umask(former)
                modes.append((base / f"{name}-{mask:o}").stat().st_mode)
    assert seen[0] == seen[1]


@pytest.mark.root
def test_set_gid_directories(shared: Workspace, folder: Path) -> None:
    """What is made there has its group; what is moved there keeps its own; it lasts."""
    group = folder / "group"
    group.mkdir()
    os.chown(group, -1, 4321)
    group.chmod(0o2775)
    file(folder / "moved")
    os.rename(folder / "moved", group / "moved")
    file(group / "file")
    (group / "directory").mkdir()
    file(group / "directory" / "inner")
    os.symlink("x", group / "link")
    os.mkfifo(group / "fifo")
    shared.remount()
    groups = {path.name: path.lstat().st_gid for path in group.rglob("*")}
    assert groups.pop("moved") == 0
    assert set(groups.values()) == {4321}
    assert (group / "directory").stat().st_mode & 0o2000
    assert not (group / "file").stat().st_mode & 0o2000
