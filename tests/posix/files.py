"""Opening, writing, syncing, running."""

import fcntl
import mmap
import os
import resource
import shutil
import signal
import struct
import subprocess
from pathlib import Path

from tests.posix.probe import PROGRAMS, check, file, probe, refused
from tests.posix.system import AT_FDCWD, AT_SYMLINK_FOLLOW, Killed, as_other, call, in_child


@probe("O_TMPFILE: a file without a name", also=PROGRAMS)
def o_tmpfile() -> None:
    fd = os.open(".", os.O_TMPFILE | os.O_RDWR, 0o600)
    call("linkat", AT_FDCWD, b"/proc/self/fd/%d" % fd, AT_FDCWD, b"named", AT_SYMLINK_FOLLOW)
    os.close(fd)


@probe("O_EXCL: one of two makes the file")
def o_excl() -> None:
    os.close(os.open("one", os.O_CREAT | os.O_EXCL))
    check(refused(os.open, "one", os.O_CREAT | os.O_EXCL) == "EEXIST", "made twice")


@probe("O_NOFOLLOW: ELOOP at a symlink")
def o_nofollow() -> None:
    os.symlink(file("target"), "link")
    check(refused(os.open, "link", os.O_RDONLY | os.O_NOFOLLOW) == "ELOOP", "followed")


@probe("O_PATH: a descriptor for fstat and openat")
def o_path() -> None:
    file("file")
    fd = os.open(".", os.O_PATH)
    check(os.stat("file", dir_fd=fd).st_size == 7, "not found below it")
    os.close(fd)


@probe("openat2: RESOLVE_BENEATH")
def openat2_beneath() -> None:
    how = struct.pack("=QQQ", 0, 0, 0x08)
    check(refused(call, "syscall", 437, AT_FDCWD, b"../x", how, len(how)) == "EXDEV", "left the directory")


@probe("O_APPEND: each write goes to the end", also="mount/test_semantics.py")
def o_append() -> None:
    one, two = (os.open("log", os.O_WRONLY | os.O_CREAT | os.O_APPEND) for _ in range(2))
    for fd in (one, two, one):
        os.write(fd, b"12345")
    check(os.stat("log").st_size == 15, "overwritten")


@probe("O_DIRECT: aligned reads and writes", also="mount/test_direct_writes.py")
def o_direct() -> None:
    fd = os.open("file", os.O_RDWR | os.O_CREAT | os.O_DIRECT)
    block = mmap.mmap(-1, 4096)
    block.write(b"d" * 4096)
    os.pwrite(fd, block, 4096)
    check(os.preadv(fd, [block], 4096) == 4096 and block[:] == b"d" * 4096, "other bytes")


@probe("O_DIRECT: a write that is not aligned")
def o_direct_unaligned() -> None:
    fd = os.open("file", os.O_RDWR | os.O_CREAT | os.O_DIRECT)
    os.write(fd, b"seven b")
    check(Path("file").read_bytes() == b"seven b", "other bytes")


@probe("O_SYNC and O_DSYNC")
def o_sync() -> None:
    for flag in (os.O_SYNC, os.O_DSYNC):
        fd = os.open("file", os.O_WRONLY | os.O_CREAT | flag)
        check(os.write(fd, b"durable") == 7, "short")
        os.close(fd)


@probe("O_NOATIME: for the owner only", root=True)
def o_noatime() -> None:
    file("file")
    os.close(os.open("file", os.O_RDONLY | os.O_NOATIME))
    check(as_other(lambda: refused(os.open, "file", os.O_RDONLY | os.O_NOATIME)) == "EPERM", "for others too")


@probe("fsync, fdatasync, syncfs, sync_file_range")
def syncs() -> None:
    with open("file", "wb") as opened:
        opened.write(b"bytes")
        opened.flush()
        os.fsync(opened)
        os.fdatasync(opened)
        call("syncfs", opened.fileno())
        call("sync_file_range", opened.fileno(), 0, 0, 7)


@probe("fsync of a directory")
def sync_of_a_directory() -> None:
    fd = os.open(".", os.O_RDONLY)
    os.fsync(fd)
    os.close(fd)


@probe("preadv2, pwritev2: RWF_DSYNC, RWF_APPEND")
def flags_of_one_write() -> None:
    fd = os.open("file", os.O_RDWR | os.O_CREAT)
    os.pwritev(fd, [b"1234"], 0, os.RWF_DSYNC)
    os.pwritev(fd, [b"56"], 0, 0x10)  # RWF_APPEND, which Python 3.11 has no name for here
    check(os.pread(fd, 10, 0) == b"123456", "not at the end")


@probe("posix_fadvise, readahead")
def advice() -> None:
    with open(file("file", bytes(10_000))) as opened:
        for kind in (os.POSIX_FADV_SEQUENTIAL, os.POSIX_FADV_WILLNEED, os.POSIX_FADV_DONTNEED):
            os.posix_fadvise(opened.fileno(), 0, 0, kind)
        call("readahead", opened.fileno(), 0, 10_000)


@probe("A file that is unlinked while open is there until closed", also="mount/test_semantics.py")
def unlinked_but_open() -> None:
    fd = os.open("file", os.O_RDWR | os.O_CREAT)
    os.unlink("file")
    os.write(fd, b"still here")
    check(os.fstat(fd).st_nlink == 0 and os.pread(fd, 20, 0) == b"still here", "gone")
    check(os.listdir() == [], "it has another name")


@probe("Nothing in the directory is left of it: rmdir works")
def no_leftover() -> None:
    os.mkdir("directory")
    with open("directory/file", "wb"):
        os.unlink("directory/file")
        os.rmdir("directory")


@probe("Largest size by ftruncate, a power of two")
def largest_size() -> str:
    fd = os.open("file", os.O_RDWR | os.O_CREAT)
    return next(f"2^{n}" for n in range(62, 0, -1) if refused(os.ftruncate, fd, 1 << n) == "done")


@probe("RLIMIT_FSIZE: EFBIG and SIGXFSZ")
def limit_of_sizes() -> None:
    def write(handling: "signal.Handlers") -> str:
        signal.signal(signal.SIGXFSZ, handling)
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
        with open("file", "wb", buffering=0) as opened:
            opened.write(bytes(4096))
            return refused(opened.write, b"x")

    check(in_child(lambda: write(signal.SIG_IGN)) == "EFBIG", "no EFBIG")
    try:
        in_child(lambda: write(signal.SIG_DFL))
    except Killed as killed:
        check(str(killed) == "SIGXFSZ", str(killed))
        return
    check(False, "no SIGXFSZ")


@probe("A program runs", also="mount/test_programs_build.py")
def execution() -> None:
    shutil.copy("/usr/bin/id", "program")
    check(subprocess.run(["./program", "-u"], capture_output=True, check=True).stdout.strip().isdigit(), "no output")


@probe("A script runs, by its #!")
def execution_of_a_script() -> None:
    file("script", b"#!/bin/sh\necho ran\n", 0o755)
    check(subprocess.run(["./script"], capture_output=True, check=True).stdout == b"ran\n", "no output")


@probe("ETXTBSY: a program that runs is not written")
def text_busy() -> None:
    shutil.copy("/usr/bin/cat", "program")
    running = subprocess.Popen(["./program"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        answer = refused(os.open, "program", os.O_WRONLY)
    finally:
        running.communicate()
    check(answer == "ETXTBSY", "written")


@probe("ETXTBSY: a program that is being written does not run")
def busy_text() -> None:
    shutil.copy("/usr/bin/true", "program")
    with open("program", "r+b"):
        check(refused(subprocess.run, ["./program"]) == "ETXTBSY", "it runs")


@probe("FIONREAD, F_GETFL, F_DUPFD on a file")
def small_controls() -> None:
    with open(file("file"), "rb", buffering=0) as opened:
        answer = fcntl.ioctl(opened, 0x541B, bytes(4))
        check(int.from_bytes(answer, "little") == 7, f"{answer!r}")
        os.close(fcntl.fcntl(opened, fcntl.F_DUPFD_CLOEXEC, 0))


@probe("FS_IOC_GETFLAGS (lsattr)", also=PROGRAMS)
def get_flags() -> None:
    with open(file("file")) as opened:
        fcntl.ioctl(opened, 0x80086601, bytes(8))


@probe("FS_IOC_SETFLAGS: chattr +i", root=True, also=PROGRAMS)
def immutable() -> None:
    with open(file("file")) as opened:
        before = fcntl.ioctl(opened, 0x80086601, bytes(8))
        fcntl.ioctl(opened, 0x40086602, (int.from_bytes(before, "little") | 0x10).to_bytes(8, "little"))
        try:
            check(refused(os.unlink, "file") == "EPERM", "unlinked")
        finally:
            fcntl.ioctl(opened, 0x40086602, before)
