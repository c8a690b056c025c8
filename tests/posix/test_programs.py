"""Programs meet what a mount cannot do: each does the right thing, or says that it cannot and leaves all as it was."""

import os
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.mount.mounted import PATIENCE_SECONDS
from tests.mount.one_mount import one_workspace
from tests.posix.probe import AS_ROOT

pytestmark = pytest.mark.fuse

KIB = 1024
UNSUPPORTED = "Operation not supported"


@pytest.fixture(scope="module")
def mountpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    options = ("-o", "allow_other") if AS_ROOT else ()
    with one_workspace(tmp_path_factory.mktemp("programs"), *options) as workspace:
        yield workspace.path


@pytest.fixture
def place(mountpoint: Path, request: pytest.FixtureRequest) -> Path:
    directory = mountpoint / request.node.name
    directory.mkdir()
    return directory


def run(*command: str | Path, where: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        list(map(str, command)),
        cwd=where,
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
        env={**os.environ, "LC_ALL": "C"},
    )


def done(*command: str | Path, where: Path | None = None) -> str:
    ended = run(*command, where=where)
    assert ended.returncode == 0, f"{command}: {ended.stdout}{ended.stderr}"
    return ended.stdout


def refused(*command: str | Path) -> str:
    ended = run(*command)
    assert ended.returncode != 0, f"{command}: {ended.stdout}{ended.stderr}"
    return ended.stderr


def sparse(path: Path) -> bytes:
    """Make a file with a hole before, between and behind two pieces of data."""
    with open(path, "wb") as opened:
        os.pwrite(opened.fileno(), b"first" * 4096, 256 * KIB)
        os.pwrite(opened.fileno(), b"second" * 4096, 700 * KIB)
        os.ftruncate(opened.fileno(), 1024 * KIB)
    return path.read_bytes()


# -- O_TMPFILE -------------------------------------------------------------------------------------------------------


def test_temporary_files_have_no_name_that_stays(place: Path) -> None:
    with tempfile.TemporaryFile(dir=place) as opened:
        opened.write(b"scratch")
        opened.seek(0)
        assert opened.read() == b"scratch"
        assert os.listdir(place) == []
    with tempfile.NamedTemporaryFile(dir=place) as named:
        assert [entry.name for entry in os.scandir(place)] == [Path(named.name).name]
    assert os.listdir(place) == []


def test_sort_spills_into_it(place: Path) -> None:
    """A program with temporary files of its own: mkstemp, unlink, read again."""
    lines = [f"{(number * 7919) % 20_011:06}\n" for number in range(20_000)]
    (place / "lines").write_text("".join(lines))
    done("sort", "-S", "32k", "-T", place, "-o", place / "sorted", place / "lines")
    assert (place / "sorted").read_text() == "".join(sorted(lines))
    assert sorted(os.listdir(place)) == ["lines", "sorted"]


# -- fallocate -------------------------------------------------------------------------------------------------------


def test_posix_fallocate_writes_what_it_cannot_reserve(place: Path) -> None:
    path = place / "database"
    path.write_bytes(b"kept")
    with open(path, "r+b") as opened:
        os.posix_fallocate(opened.fileno(), 0, 1024 * KIB)
        os.posix_fallocate(opened.fileno(), 100 * KIB, 10 * KIB)
    assert path.read_bytes() == b"kept" + bytes(1024 * KIB - 4)
    with open(path, "rb") as opened, pytest.raises(OSError, match="Bad file descriptor"):
        os.posix_fallocate(opened.fileno(), 0, 2048 * KIB)


@pytest.mark.parametrize("option", ["--length=1M", "--keep-size", "--punch-hole", "--zero-range", "--collapse-range"])
def test_the_program_fallocate_says_that_it_cannot(place: Path, option: str) -> None:
    path = place / "file"
    path.write_bytes(b"d" * 64 * KIB)
    length = [] if option.startswith("--length") else ["--length=4096"]
    said = refused("fallocate", option, *length, path)
    assert UNSUPPORTED in said or "unsupported" in said
    assert path.read_bytes() == b"d" * 64 * KIB


def test_the_program_fallocate_by_writing(place: Path) -> None:
    done("fallocate", "--posix", "--length=1M", place / "file")
    assert (place / "file").read_bytes() == bytes(1024 * KIB)


def test_an_image_is_made_and_its_filesystem_checked(place: Path) -> None:
    """As qemu-img, mkfs and fsck use an image: a sparse file, written here and there, discarded where it can be."""
    image = place / "image"
    done("truncate", "-s", "32M", image)
    done("mkfs.ext4", "-q", "-F", image)
    assert image.stat().st_blocks * 512 < 16 << 20, "it is not sparse"
    done("e2fsck", "-fn", image)


# -- Holes, clones, copies -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["auto", "always", "never"])
def test_cp_copies_sparse_files(place: Path, tmp_path: Path, how: str) -> None:
    content = sparse(place / "sparse")
    for copy in (place / "copy", tmp_path / "copy"):
        done("cp", f"--sparse={how}", place / "sparse", copy)
        assert copy.read_bytes() == content
        if how == "always":
            assert copy.stat().st_blocks * 512 < 128 * KIB
    done("cp", f"--sparse={how}", tmp_path / "copy", place / "back")
    assert (place / "back").read_bytes() == content


def test_tar_and_rsync_copy_sparse_files(place: Path, tmp_path: Path) -> None:
    content = sparse(place / "sparse")
    done("tar", "-S", "-cf", tmp_path / "archive", "sparse", where=place)
    (place / "tar").mkdir()
    done("tar", "-S", "-xf", tmp_path / "archive", where=place / "tar")
    done("rsync", "-S", place / "sparse", place / "rsync")
    for copy in (place / "tar" / "sparse", place / "rsync"):
        assert copy.read_bytes() == content
        assert copy.stat().st_blocks * 512 < 128 * KIB


def test_a_reader_of_data_between_holes_sees_all_data(place: Path) -> None:
    """What qemu-img, tar and rsync do where SEEK_DATA works, on a file of which all is said to be data."""
    content = sparse(place / "sparse")
    seen, at = bytearray(len(content)), 0
    with open(place / "sparse", "rb") as opened:
        while at < len(content):
            start = os.lseek(opened.fileno(), at, os.SEEK_DATA)
            at = os.lseek(opened.fileno(), start, os.SEEK_HOLE)
            seen[start:at] = os.pread(opened.fileno(), at - start, start)
    assert seen == content


def test_cp_reflink(place: Path) -> None:
    (place / "file").write_bytes(b"content" * 10_000)
    done("cp", "--reflink=auto", place / "file", place / "copy")
    assert (place / "copy").read_bytes() == b"content" * 10_000
    assert UNSUPPORTED in refused("cp", "--reflink=always", place / "file", place / "clone")


def test_copies_by_the_kernel(place: Path, tmp_path: Path) -> None:
    """copy_file_range has no request of its own: the kernel copies, and across filesystems the program does."""
    content = os.urandom(3 << 20)
    (place / "file").write_bytes(content)
    shutil.copyfile(place / "file", place / "by Python")
    done("cp", place / "file", place / "by cp")
    done("cp", place / "file", tmp_path / "outside")
    done("cp", tmp_path / "outside", place / "back")
    for copy in (place / "by Python", place / "by cp", tmp_path / "outside", place / "back"):
        assert copy.read_bytes() == content


# -- Times of birth, flags, extents ----------------------------------------------------------------------------------


def test_the_time_of_birth_is_not_made_up(place: Path) -> None:
    (place / "file").touch()
    assert done("stat", "-c", "%w %W", place / "file").strip() == "- 0"
    assert "birth time" in refused("find", place, "-newerBt", "2020-01-01")
    assert done("ls", "-l", "--time=birth", place / "file").split()[-2] == "?"


def test_flags_of_files(place: Path) -> None:
    path = place / "file"
    path.write_text("content")
    assert "While reading flags" in run("lsattr", path).stderr
    assert "reading flags" in refused("chattr", "+i", path)
    done("cp", "-a", path, place / "copy")
    path.unlink()


@pytest.mark.root
def test_filefrag_knows_of_no_extent(place: Path) -> None:
    (place / "file").write_bytes(bytes(KIB * 64))
    assert "0 extents" in run("filefrag", place / "file").stdout


# -- Whiteouts -------------------------------------------------------------------------------------------------------


@pytest.fixture
def layers(place: Path) -> Path:
    for part in ("lower", "upper", "work", "merged"):
        (place / part).mkdir()
    for name in ("kept", "removed", "renamed"):
        (place / "lower" / name).write_text(name)
    return place


def _options(layers: Path) -> str:
    return ",".join(f"{part}dir={layers / part}" for part in ("lower", "upper", "work"))


@pytest.mark.root
def test_fuse_overlayfs_on_a_mount_makes_whiteouts(layers: Path) -> None:
    merged = layers / "merged"
    for again in (False, True):
        done("fuse-overlayfs", "-o", _options(layers), merged)
        try:
            if not again:
                (merged / "removed").unlink()
                (merged / "renamed").rename(merged / "other")
            assert sorted(os.listdir(merged)) == ["kept", "other"]
        finally:
            done("umount", merged)
    whiteout = (layers / "upper" / "renamed").lstat()
    assert (stat.S_ISCHR(whiteout.st_mode), whiteout.st_rdev) == (True, 0)
    assert sorted(os.listdir(layers / "lower")) == ["kept", "removed", "renamed"]


def test_memory_that_cannot_be_punched_stays(place: Path) -> None:
    import mmap

    (place / "file").write_bytes(b"d" * 8192)
    with open(place / "file", "r+b") as opened, mmap.mmap(opened.fileno(), 0) as mapped:
        with pytest.raises(OSError, match=UNSUPPORTED):
            mapped.madvise(mmap.MADV_REMOVE)
        assert mapped[:] == b"d" * 8192
