"""A request that no cache answers: statx(2) with AT_STATX_FORCE_SYNC makes the kernel ask the daemon."""

import ctypes
import os
import time
from pathlib import Path

_AT_FDCWD = -100
_AT_STATX_FORCE_SYNC = 0x2000
_STATX_BASIC_STATS = 0x7FF

_statx = ctypes.CDLL(None, use_errno=True).statx
_buffer = ctypes.create_string_buffer(256)


def forced_statx(path: Path, count: int) -> list[float]:
    """Return how long each of `count` calls took, in microseconds."""
    name = os.fsencode(path)
    if _statx(_AT_FDCWD, name, _AT_STATX_FORCE_SYNC, _STATX_BASIC_STATS, _buffer) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), str(path))
    clock = time.perf_counter_ns
    took = []
    for _ in range(count):
        before = clock()
        _statx(_AT_FDCWD, name, _AT_STATX_FORCE_SYNC, _STATX_BASIC_STATS, _buffer)
        took.append((clock() - before) / 1000)
    return took
