"""Allocating, holes, clones, copies inside the kernel."""

import fcntl
import os
from pathlib import Path

from tests.posix.probe import PROGRAMS, check, file, probe, refused
from tests.posix.system import fallocate

KIB = 1024
KEEP_SIZE, PUNCH_HOLE, COLLAPSE, ZERO, INSERT, UNSHARE = 1, 2, 8, 16, 32, 64
FICLONE, FICLONERANGE, FIDEDUPERANGE, FIEMAP = 0x40049409, 0x4020940D, 0xC0189436, 0xC020660B


def _open(content: bytes = b"d" * 64 * KIB) -> int:
    return os.open(file("file", content), os.O_RDWR)


@probe("fallocate: room, and the size grows", also=PROGRAMS)
def allocate() -> None:
    fd = _open(b"")
    fallocate(fd, 0, 0, 64 * KIB)
    check(os.fstat(fd).st_size == 64 * KIB and os.fstat(fd).st_blocks >= 128, "no room")


@probe("fallocate: FALLOC_FL_KEEP_SIZE", also=PROGRAMS)
def allocate_keeping_size() -> None:
    fd = _open(b"")
    fallocate(fd, KEEP_SIZE, 0, 64 * KIB)
    check(os.fstat(fd).st_size == 0, "the size grew")


@probe("fallocate: FALLOC_FL_PUNCH_HOLE", also=PROGRAMS)
def punch_hole() -> None:
    fd = _open()
    fallocate(fd, PUNCH_HOLE | KEEP_SIZE, 16 * KIB, 16 * KIB)
    check(os.pread(fd, 16 * KIB, 16 * KIB) == bytes(16 * KIB), "not zeros")


@probe("fallocate: FALLOC_FL_ZERO_RANGE")
def zero_range() -> None:
    fd = _open()
    fallocate(fd, ZERO, 16 * KIB, 16 * KIB)
    check(os.pread(fd, 16 * KIB, 16 * KIB) == bytes(16 * KIB), "not zeros")


@probe("fallocate: FALLOC_FL_COLLAPSE_RANGE")
def collapse_range() -> None:
    fd = _open()
    fallocate(fd, COLLAPSE, 16 * KIB, 16 * KIB)
    check(os.fstat(fd).st_size == 48 * KIB, "the size stayed")


@probe("fallocate: FALLOC_FL_INSERT_RANGE")
def insert_range() -> None:
    fd = _open()
    fallocate(fd, INSERT, 16 * KIB, 16 * KIB)
    check(os.fstat(fd).st_size == 80 * KIB, "the size stayed")


@probe("fallocate: FALLOC_FL_UNSHARE_RANGE")
def unshare_range() -> None:
    fallocate(_open(), UNSHARE, 0, 16 * KIB)


@probe("posix_fallocate of the C library", also=PROGRAMS)
def posix_fallocate() -> None:
    fd = _open(b"keep")
    os.posix_fallocate(fd, 0, 64 * KIB)
    check(os.fstat(fd).st_size == 64 * KIB, "the size stayed")
    check(os.pread(fd, 10, 0) == b"keep" + bytes(6), "the content changed")


def _sparse() -> int:
    fd = os.open("sparse", os.O_RDWR | os.O_CREAT)
    os.ftruncate(fd, 1024 * KIB)
    os.pwrite(fd, b"d" * 64 * KIB, 256 * KIB)
    os.fsync(fd)
    return fd


@probe("SEEK_DATA finds data behind a hole", also=PROGRAMS)
def seek_data() -> None:
    check(os.lseek(_sparse(), 0, os.SEEK_DATA) == 256 * KIB, "all is said to be data")


@probe("SEEK_HOLE finds a hole behind data", also=PROGRAMS)
def seek_hole() -> None:
    check(os.lseek(_sparse(), 256 * KIB, os.SEEK_HOLE) == 320 * KIB, "none but at the end")


@probe("SEEK_DATA, SEEK_HOLE: ENXIO at the end")
def seek_past_the_end() -> None:
    fd = _sparse()
    for whence in (os.SEEK_DATA, os.SEEK_HOLE):
        check(refused(os.lseek, fd, 1024 * KIB, whence) == "ENXIO", "no error")


@probe("Holes take no blocks", also="mount/test_semantics.py")
def holes_take_no_blocks() -> None:
    check(os.fstat(_sparse()).st_blocks * 512 == 64 * KIB, "they do")


@probe("FIEMAP (filefrag)", also=PROGRAMS)
def fiemap() -> None:
    fcntl.ioctl(_open(), FIEMAP, bytearray(b"\0" * 8 + b"\xff" * 8 + bytes(16)))


@probe("FICLONE (cp --reflink=always)", also=PROGRAMS)
def clone() -> None:
    fcntl.ioctl(os.open("clone", os.O_RDWR | os.O_CREAT), FICLONE, _open())


@probe("FIDEDUPERANGE (duperemove)")
def deduplicate() -> None:
    one = _open()
    other = os.open(file("other", b"d" * 64 * KIB), os.O_RDWR)
    head = (0).to_bytes(8, "little") + (64 * KIB).to_bytes(8, "little") + (1).to_bytes(8, "little")
    asked = bytearray(head + other.to_bytes(8, "little") + bytes(24))
    fcntl.ioctl(one, FIDEDUPERANGE, asked)
    status = int.from_bytes(asked[40:44], "little", signed=True)
    if status < 0:
        raise OSError(-status, os.strerror(-status))


@probe("copy_file_range copies", also=PROGRAMS)
def copy_file_range() -> None:
    out = os.open("copy", os.O_RDWR | os.O_CREAT)
    copied = os.copy_file_range(_open(), out, 64 * KIB)
    check(copied == 64 * KIB and Path("copy").read_bytes() == b"d" * 64 * KIB, f"{copied} bytes")


@probe("copy_file_range within one file")
def copy_within_a_file() -> None:
    fd = _open(b"12345678" + bytes(8))
    check(os.copy_file_range(fd, fd, 8, 0, 8) == 8, "short")
    check(os.pread(fd, 16, 0) == b"12345678" * 2, "other bytes")


@probe("Truncating, and growing again, leaves zeros")
def truncate_and_grow() -> None:
    fd = _open(b"secret" * 1000)
    os.ftruncate(fd, 3)
    os.ftruncate(fd, 6000)
    check(os.pread(fd, 6000, 0) == b"sec" + bytes(5997), "old bytes come back")
