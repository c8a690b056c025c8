"""`python -m tests.posix.lost_growth DIR [SECONDS]`: shows a fault of FUSE in Linux 6.18, on any FUSE filesystem.

A page that a mapping has stored into and that holds the end of its file is being written back while a write(2) makes
the file longer, within that page. The write may then be lost: it has returned, and zeros are read. One after msync or
fsync is not. ext4 loses none.

Probably: writing back zeroes the page behind the end of the file (iomap_writeback_folio, which FUSE uses since 6.17),
and `fuse_perform_write` has put the new bytes there, unlocked the page, and not sent them yet.
"""

import argparse
import ctypes
import mmap
import os
import time
from pathlib import Path

_WRITE_AND_WAIT = 1 | 2 | 4
_BYTES = 86


def lost_growth(folder: Path, seconds: float) -> tuple[int, int]:
    """Return how often a file grew, and how many of these writes were lost. Leaves nothing behind."""
    path = folder / "growing"
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o644)
    child = 0
    try:
        os.ftruncate(fd, mmap.PAGESIZE)
        with mmap.mmap(fd, mmap.PAGESIZE) as memory:
            child = os.fork()
            if child == 0:
                _write_back_for_ever(path)
            return _grow(fd, memory, seconds)
    finally:
        if child:
            os.kill(child, 9)
            os.waitpid(child, 0)
        os.close(fd)
        path.unlink()


def _write_back_for_ever(path: Path) -> None:
    libc = ctypes.CDLL(None)
    libc.sync_file_range.argtypes = (ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint)
    fd = os.open(path, os.O_RDONLY)
    while os.getppid() != 1:
        libc.sync_file_range(fd, 0, 0, _WRITE_AND_WAIT)
    os._exit(0)


def _grow(fd: int, memory: mmap.mmap, seconds: float) -> tuple[int, int]:
    rounds = lost = 0
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        os.ftruncate(fd, 2)
        memory[0:2] = rounds.to_bytes(8, "little")[:2]
        data = os.urandom(_BYTES)
        os.pwrite(fd, data, 2)
        lost += os.pread(fd, _BYTES, 2) != data
        rounds += 1
    return rounds, lost


def main() -> None:
    """Show it."""
    parser = argparse.ArgumentParser(prog="python -m tests.posix.lost_growth")
    parser.add_argument("folder", type=Path)
    parser.add_argument("seconds", type=float, nargs="?", default=10)
    given = parser.parse_args()
    rounds, lost = lost_growth(given.folder, given.seconds)
    print(f"{given.folder}: {rounds} writes, {lost} lost")


if __name__ == "__main__":
    main()
