"""Mappings: what processes that share one see, what read(2), snapshots and branches see of it, and running programs.

Where a plain directory says what must happen, the same script runs there.
"""

import errno
import faulthandler
import mmap
import os
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.mount.mounted import PATIENCE_SECONDS, Workspace

pytestmark = pytest.mark.fuse

PAGE = 4096


def mapped(path: Path, length: int = 0) -> mmap.mmap:
    with open(path, "r+b") as opened:
        return mmap.mmap(opened.fileno(), length)


def in_child(action: Callable[[], object]) -> int:
    """Run something in a process of its own and return how that ended: its exit code, or minus the signal."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            faulthandler.disable()
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            action()
            code = 0
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_processes_that_share_a_mapping_see_each_other_s_stores(folder: Path) -> None:
    """Two processes hand a number back and forth, each through a mapping and a descriptor of its own."""
    path = folder / "file"
    path.write_bytes(bytes(3 * PAGE))
    script = (
        "import mmap, sys\n"
        "opened = open(sys.argv[1], 'r+b')\n"
        "memory = mmap.mmap(opened.fileno(), 0)\n"
        "for number in range(1, 200, 2):\n"
        "    sys.stdin.readline()\n"
        "    assert memory[0] == memory[2 * 4096 + 5] == number, number\n"
        "    memory[0] = memory[2 * 4096 + 5] = number + 1\n"
        "    print(flush=True)\n"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", script, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert other.stdin is not None and other.stdout is not None
    with mapped(path) as memory, other:
        for number in range(1, 200, 2):
            memory[0] = memory[2 * PAGE + 5] = number
            other.stdin.write("\n")
            other.stdin.flush()
            assert other.stdout.readline() == "\n"
            assert memory[0] == memory[2 * PAGE + 5] == number + 1
    assert other.returncode == 0


def test_stores_are_seen_at_once_by_reads_and_by_snapshots_and_branches_made_afterwards(
    shared: Workspace, folder: Path
) -> None:
    """Without msync."""
    path = folder / "file"
    path.write_bytes(bytes(5 * PAGE))
    below = path.relative_to(shared.path)
    with mapped(path) as memory, open(path, "rb", buffering=0) as reading:
        for number in range(1, 20):
            at = number * 1000
            memory[at : at + 4] = b"%04d" % number
            assert os.pread(reading.fileno(), 4, at) == b"%04d" % number
            (shared.path / ".snapshots" / f"stored{number}").mkdir()
            memory[at + 4 : at + 8] = b"late"
            kept = (shared.path / ".snapshots" / f"stored{number}" / below).read_bytes()
            assert kept[at : at + 8] == b"%04d" % number + bytes(4)
            assert kept[:at] == path.read_bytes()[:at]
        for number in range(3):
            memory[0:1] = bytes([number + 1])
            (shared.path / ".branches" / f"stored{number}").mkdir()
            memory[0:1] = b"x"
            branched = shared.path / ".branches" / f"stored{number}" / below
            assert branched.read_bytes()[:1] == bytes([number + 1])
            with mapped(branched) as other:
                other[1:2] = b"b"
                assert memory[1:2] == b"\0"
                memory[2:3] = b"m"
                assert other[2:3] == (b"\0" if number == 0 else b"m")
                memory[2:3] = b"m"


def test_a_mapping_lives_on_when_its_file_is_closed_unlinked_or_replaced(folder: Path) -> None:
    for gone in ("unlinked", "replaced"):
        path = folder / gone
        path.write_bytes(b"old " * 5000)
        with mapped(path) as memory:
            if gone == "unlinked":
                path.unlink()
            else:
                (folder / "new").write_bytes(b"new " * 6000)
                (folder / "new").rename(path)
            memory[0:4] = b"mine"
            memory.flush()
            if gone == "replaced":
                assert path.read_bytes() == b"new " * 6000
            assert memory[:8] == b"mineold "
            assert memory[-4:] == b"old "
            assert memory[:] == b"mine" + b"old " * 4999


def test_a_private_mapping_keeps_its_stores_to_itself(folder: Path) -> None:
    path = folder / "file"
    path.write_bytes(b"a" * 2 * PAGE)
    with open(path, "rb") as opened:
        memory = mmap.mmap(opened.fileno(), 0, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ | mmap.PROT_WRITE)
    with memory:
        memory[0:4] = b"mine"
        with open(path, "r+b") as opened:
            opened.write(b"file")
            opened.seek(PAGE)
            opened.write(b"seen")
        assert path.read_bytes()[:8] == b"fileaaaa"
        assert memory[0:8] == b"mineaaaa"
        assert memory[PAGE : PAGE + 5] == b"seena"  # a page that was not stored into is the file's


def beyond_the_end(base: Path) -> object:
    """What lies behind the end in its page, what becomes of stores there, and what lies behind that page."""
    path = base / "short"
    path.write_bytes(b"x" * (PAGE + 100))
    seen: list[object] = []
    with open(path, "r+b") as opened:
        os.ftruncate(opened.fileno(), 3 * PAGE)
        memory = mmap.mmap(opened.fileno(), 0)
        os.ftruncate(opened.fileno(), PAGE + 100)
    with memory:
        seen.append(memory[PAGE + 98 : PAGE + 104])
        memory[PAGE + 100 : PAGE + 104] = b"tail"
        seen.append(memory[PAGE + 98 : PAGE + 104])
        seen.append(path.stat().st_size)
        memory.flush(0, 2 * PAGE)
        seen.append(path.read_bytes()[-4:])
        seen.append(in_child(lambda: memory[2 * PAGE]))
        os.truncate(path, PAGE + 102)
        os.truncate(path, 3 * PAGE)
        seen.append(memory[PAGE + 98 : PAGE + 106])
        seen.append(path.read_bytes()[PAGE + 98 : PAGE + 106])
        seen.append(memory[2 * PAGE])
        os.truncate(path, 10)
        seen.append(memory[8:12])
        seen.append(in_child(lambda: memory[PAGE]))
        seen.append(in_child(lambda: memory.__setitem__(2 * PAGE, 1)))
        os.truncate(path, 0)
        seen.append(in_child(lambda: memory[0]))
        path.write_bytes(b"again")
        seen.append(memory[0:8])
    return seen


def test_truncation_under_a_mapping_is_as_on_a_plain_directory(folder: Path, tmp_path: Path) -> None:
    found = beyond_the_end(folder)
    assert found == beyond_the_end(tmp_path)
    assert isinstance(found, list) and found.count(-signal.SIGBUS) == 4


def test_stores_behind_the_end_are_seen_alike_by_all(shared: Workspace, folder: Path) -> None:
    """When the file grows over them they are its content or gone, by the filesystem (tmpfs keeps them, ext4 does not).

    A FUSE daemon never hears of them before they are content: the kernel writes the page back once the file has grown.
    """
    ways: list[Callable[[Path], None]] = [
        lambda path: os.truncate(path, 300),
        lambda path: _pwrite(path, os.O_WRONLY, b"behind", 294),
        lambda path: _pwrite(path, os.O_RDWR, b"behind", 294),
        lambda path: _pwrite(path, os.O_WRONLY | os.O_APPEND, b"a" * 200, 0),
        lambda path: _pwrite(path, os.O_RDWR | os.O_APPEND, b"a" * 200, 0),
    ]
    grown: list[bytes] = []
    for number, grow in enumerate(ways):
        path = folder / str(number)
        path.write_bytes(b"x" * PAGE)
        with mapped(path) as memory:
            os.truncate(path, 100)
            memory[100:400] = b"z" * 300
            grow(path)
            grown.append(path.read_bytes())
            assert memory[:300] == grown[-1]
            assert grown[-1][:100] == b"x" * 100
            (shared.path / ".snapshots" / f"grown{number}").mkdir()
        below = path.relative_to(shared.path)
        assert (shared.path / ".snapshots" / f"grown{number}" / below).read_bytes() == grown[-1]
    assert [content[294:] for content in grown[1:3]] == [b"behind"] * 2
    assert all(content[100:] == b"a" * 200 for content in grown[3:])
    assert all(content[100:294] in (bytes(194), b"z" * 194) for content in grown[:3])
    shared.remount()
    assert [(folder / str(number)).read_bytes() for number in range(len(ways))] == grown


def _pwrite(path: Path, flags: int, data: bytes, offset: int) -> None:
    fd = os.open(path, flags)
    os.pwrite(fd, data, offset)
    os.close(fd)


def test_programs_run_from_the_mount_and_are_not_written_meanwhile(folder: Path, tmp_path: Path) -> None:
    def run(base: Path) -> object:
        program = base / "program"
        shutil.copy("/bin/sleep", program)
        seen: list[object] = [subprocess.run([program, "0"]).returncode]
        running = subprocess.Popen([program, str(PATIENCE_SECONDS)])
        try:
            seen.append(tried(program, os.O_WRONLY))
            seen.append(tried(program, os.O_RDWR | os.O_TRUNC))
            seen.append(tried(program, os.O_RDONLY))
            # It is replaced while it runs, as package managers do, and goes on.
            shutil.copy("/bin/true", base / "new")
            os.rename(base / "new", program)
            seen.append(subprocess.run([program]).returncode)
            seen.append(running.poll())
            seen.append(os.stat(f"/proc/{running.pid}/exe").st_nlink)
        finally:
            running.kill()
            running.wait()
        writing = os.open(program, os.O_WRONLY)
        try:
            subprocess.run([program])
        except OSError as error:
            seen.append(errno.errorcode[error.errno or 0])
        os.close(writing)
        seen.append(subprocess.run([program]).returncode)
        return seen

    found = run(folder)
    assert found == run(tmp_path)
    assert found == [0, "ETXTBSY", "ETXTBSY", 0, 0, None, 0, "ETXTBSY", 0]


def tried(path: Path, flags: int) -> object:
    try:
        os.close(os.open(path, flags))
    except OSError as error:
        return errno.errorcode[error.errno or 0]
    return 0


def test_what_was_stored_survives_its_process_and_a_remount(shared: Workspace, folder: Path) -> None:
    """A process that stores and dies without msync has still stored; so does one that is killed."""
    path = folder / "file"
    path.write_bytes(bytes(10 * PAGE))

    def store_and_die() -> None:
        memory = mapped(path)
        memory[5 * PAGE : 5 * PAGE + 6] = b"stored"
        os.kill(os.getpid(), signal.SIGKILL)

    assert in_child(store_and_die) == -signal.SIGKILL
    assert path.read_bytes()[5 * PAGE :][:6] == b"stored"
    shared.remount()
    assert path.read_bytes()[5 * PAGE :][:6] == b"stored"
