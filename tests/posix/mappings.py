"""Memory mappings."""

import ctypes
import mmap
import os
import platform
from pathlib import Path

from tests.posix.probe import PROGRAMS, check, file, probe
from tests.posix.system import Killed, in_child, map_file

PAGE = mmap.PAGESIZE
_RETURN_42 = {"x86_64": b"\xb8\x2a\x00\x00\x00\xc3", "aarch64": b"\x40\x05\x80\x52\xc0\x03\x5f\xd6"}


def _shared(size: int = 2 * PAGE) -> tuple[int, mmap.mmap]:
    fd = os.open(file("mapped", bytes(size)), os.O_RDWR)
    return fd, mmap.mmap(fd, size)


@probe("A store into a shared mapping is seen by read", also="mount/test_semantics.py")
def store_is_read() -> None:
    fd, mapped = _shared()
    mapped[PAGE : PAGE + 5] = b"store"
    check(os.pread(fd, 5, PAGE) == b"store", "old bytes")


@probe("A write is seen by a shared mapping", also="mount/test_direct_writes.py")
def write_is_mapped() -> None:
    fd, mapped = _shared()
    check(mapped[0] == 0, "not zero")
    os.pwrite(fd, b"write", 0)
    with open("mapped", "r+b", buffering=0) as other:
        other.seek(100)
        other.write(b"other")
    check(mapped[:5] == b"write" and mapped[100:105] == b"other", "old bytes")


@probe("Two processes share a mapping")
def mapping_of_two() -> None:
    _, mapped = _shared()

    def child() -> bytes:
        with open("mapped", "r+b") as opened, mmap.mmap(opened.fileno(), 0) as own:
            own[10:15] = b"child"
            return own[:6]

    mapped[:6] = b"parent"
    check(in_child(child) == b"parent" and mapped[10:15] == b"child", "two memories")


@probe("msync, then it is in the file")
def msync() -> None:
    _, mapped = _shared()
    mapped[:4] = b"sync"
    mapped.flush()
    check(Path("mapped").read_bytes()[:4] == b"sync", "old bytes")


@probe("A private mapping does not change the file")
def private_mapping() -> None:
    with open(file("mapped"), "r+b") as opened:
        mapped = mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_COPY)
        mapped[:3] = b"CON"
    check(Path("mapped").read_bytes() == b"content", "it does")


@probe("A shared mapping outlives its descriptor and its name")
def mapping_outlives() -> None:
    fd, mapped = _shared()
    other = os.open("mapped", os.O_RDONLY)
    os.close(fd)
    os.unlink("mapped")
    mapped[:4] = b"late"
    check(os.pread(other, 4, 0) == b"late", "old bytes")


@probe("A file that is replaced by rename stays mapped")
def mapping_of_the_replaced() -> None:
    _, mapped = _shared()
    mapped[:3] = b"old"
    os.rename(file("new", b"new"), "mapped")
    check(mapped[:3] == b"old" and Path("mapped").read_bytes() == b"new", "other bytes")


@probe("mtime moves on by a store, at msync")
def mtime_of_a_store() -> None:
    fd, mapped = _shared()
    os.utime("mapped", ns=(10, 10))
    mapped[:4] = b"time"
    mapped.flush()
    check(os.fstat(fd).st_mtime_ns != 10, "it stays")


@probe("PROT_EXEC: code in a file runs")
def executable_mapping() -> None:
    code = _RETURN_42[platform.machine()]
    fd = os.open(file("code", code), os.O_RDONLY)
    address = map_file(fd, len(code), mmap.PROT_READ | mmap.PROT_EXEC, mmap.MAP_PRIVATE)
    check(in_child(ctypes.CFUNCTYPE(ctypes.c_int)(address)) == 42, "something else")


@probe("Zeros between the file's end and the page's")
def zeros_behind_the_end() -> None:
    fd = os.open(file("mapped"), os.O_RDWR)
    mapped = map_file(fd, PAGE, mmap.PROT_READ, mmap.MAP_SHARED)
    check(ctypes.string_at(mapped, PAGE) == b"content" + bytes(PAGE - 7), "other bytes")


def _dies(touch: int) -> None:
    try:
        in_child(lambda: ctypes.string_at(touch, 1))
    except Killed as killed:
        check(str(killed) == "SIGBUS", str(killed))
        return
    check(False, "no signal")


@probe("SIGBUS behind the last page")
def bus_error() -> None:
    fd = os.open(file("mapped"), os.O_RDWR)
    _dies(map_file(fd, 2 * PAGE, mmap.PROT_READ, mmap.MAP_SHARED) + PAGE)


@probe("SIGBUS where the file was truncated")
def bus_error_after_truncate() -> None:
    fd = os.open(file("mapped", bytes(2 * PAGE)), os.O_RDWR)
    mapped = map_file(fd, 2 * PAGE, mmap.PROT_READ, mmap.MAP_SHARED)
    ctypes.string_at(mapped + PAGE, 1)
    os.ftruncate(fd, PAGE)
    _dies(mapped + PAGE)


@probe("A shared mapping through O_DIRECT")
def mapping_of_direct() -> None:
    fd = os.open(file("mapped", bytes(PAGE)), os.O_RDWR | os.O_DIRECT)
    with mmap.mmap(fd, PAGE) as mapped:
        mapped[:4] = b"both"
        mapped.flush()
    check(Path("mapped").read_bytes()[:4] == b"both", "old bytes")


@probe("madvise: WILLNEED, DONTNEED; mincore")
def memory_advice() -> None:
    _, mapped = _shared()
    mapped[:4] = b"kept"
    mapped.madvise(mmap.MADV_WILLNEED)
    mapped.madvise(mmap.MADV_DONTNEED)
    check(mapped[:4] == b"kept", "lost")


@probe("madvise: MADV_REMOVE", also=PROGRAMS)
def memory_removal() -> None:
    _, mapped = _shared()
    mapped.madvise(mmap.MADV_REMOVE)
