"""Writes that pass the kernel's pages by: what other descriptors and mappings see of them."""

import mmap
import os
import stat
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.mount.mounted import Workspace
from tests.mount.one_mount import one_workspace
from tests.mount.system_calls import AS_ROOT, file

pytestmark = pytest.mark.fuse

PAGE = 4096


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workspace]:
    with one_workspace(tmp_path_factory.mktemp("direct")) as mounted:
        yield mounted


def _look_again_and_again(path: Path) -> None:
    """Fault the first page in, over and over, until the file says that it is over."""
    fd = os.open(path, os.O_RDONLY)
    with mmap.mmap(fd, PAGE, mmap.MAP_SHARED, mmap.PROT_READ) as mapped:
        while mapped[8:9] != b"\xff":
            pass


def test_a_mapping_shows_every_write_that_has_returned(workspace: Workspace) -> None:
    """Another process faults the page in all the time, so that reads of it race with the writes."""
    path = workspace.path / "counted"
    path.write_bytes(bytes(PAGE))
    looking = os.fork()
    if looking == 0:
        _look_again_and_again(path)
        os._exit(0)
    writing = os.open(path, os.O_WRONLY)
    reading = os.open(path, os.O_RDONLY)
    with mmap.mmap(reading, PAGE, mmap.MAP_SHARED, mmap.PROT_READ) as mapped:
        try:
            for number in range(1, 5001):
                os.pwrite(writing, struct.pack("<Q", number), 0)
                assert struct.unpack_from("<Q", mapped)[0] == number
                assert struct.unpack("<Q", os.pread(reading, 8, 0))[0] == number
        finally:
            os.pwrite(writing, b"\xff", 8)
            assert os.waitpid(looking, 0)[1] == 0
    os.close(writing)
    os.close(reading)


def test_stores_through_a_mapping_and_writes_into_the_same_page_both_stay(workspace: Workspace) -> None:
    path = workspace.path / "shared"
    path.write_bytes(bytes(PAGE))
    mapping = os.open(path, os.O_RDWR)
    writing = os.open(path, os.O_WRONLY)
    with mmap.mmap(mapping, PAGE, mmap.MAP_SHARED) as mapped:
        for number in range(1, 256):
            mapped[number] = number
            os.pwrite(writing, bytes([number]), PAGE - number)
            assert mapped[PAGE - number] == number
        mapped.flush()
    os.close(mapping)
    os.close(writing)
    content = path.read_bytes()
    assert all(content[number] == content[PAGE - number] == number for number in range(1, 256))


def test_appends_of_many_processes_are_whole(workspace: Workspace) -> None:
    path = workspace.path / "log"
    script = 'for n in $(seq 200); do echo "$1 line $n of this process"; done >> "$0"'
    running = [subprocess.Popen(["sh", "-c", script, str(path), str(number)]) for number in range(6)]
    assert [process.wait(60) for process in running] == [0] * 6
    expected = {f"{number} line {n} of this process" for number in range(6) for n in range(1, 201)}
    lines = path.read_text().splitlines()
    assert len(lines) == len(expected) and set(lines) == expected


def test_large_writes_from_any_address_and_through_splice(workspace: Workspace, tmp_path: Path) -> None:
    content = os.urandom(5 * 1024 * 1024 + 123)
    source = tmp_path / "source"
    source.write_bytes(content)
    written = workspace.path / "written"
    with open(written, "wb", buffering=0) as opened:
        view = memoryview(content)
        done = 0
        while done < len(content):
            done += opened.write(view[done : done + 3_000_001])
    assert written.read_bytes() == content
    spliced = workspace.path / "spliced"
    with open(source, "rb") as reading, open(spliced, "wb") as opened:
        offset = 0
        while sent := os.sendfile(opened.fileno(), reading.fileno(), offset, len(content)):
            offset += sent
    assert spliced.read_bytes() == content
    subprocess.run(["cp", source, workspace.path / "copied"], check=True)
    subprocess.run(["cmp", source, workspace.path / "copied"], check=True)
    subprocess.run(["dd", f"if={source}", f"of={spliced}", "bs=3000", "conv=notrunc", "status=none"], check=True)
    assert spliced.read_bytes() == content


def test_set_id_bits_given_while_a_file_is_being_written_go_with_the_next_write(workspace: Workspace) -> None:
    path = file(workspace.path / "program", permissions=0o755)
    writing = os.open(path, os.O_WRONLY)
    os.chmod(path, 0o6755)
    assert stat.S_IMODE(path.stat().st_mode) == 0o6755
    os.write(writing, b"x")
    os.close(writing)
    assert stat.S_IMODE(path.stat().st_mode) == 0o755


@pytest.mark.root
def test_capabilities_given_while_a_file_is_being_written_go_with_the_next_write(workspace: Workspace) -> None:
    path = file(workspace.path / "capable", permissions=0o755)
    writing = os.open(path, os.O_WRONLY)
    os.setxattr(path, "security.capability", bytes.fromhex("0100000200040000000000000000000000000000"))
    os.write(writing, b"x")
    os.close(writing)
    assert "security.capability" not in os.listxattr(path)


@pytest.mark.root
def test_root_keeps_the_set_id_bits_of_what_it_opens_and_writes(workspace: Workspace, tmp_path: Path) -> None:
    """As on a plain directory: whoever has CAP_FSETID keeps them."""
    assert AS_ROOT
    for path in (workspace.path / "owned", tmp_path / "owned"):
        file(path, permissions=0o6755)
        writing = os.open(path, os.O_WRONLY)
        os.write(writing, b"x")
        os.close(writing)
        assert stat.S_IMODE(path.stat().st_mode) == 0o6755
