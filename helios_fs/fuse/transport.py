"""How writes get from the kernel into Python: two settings of the process that make it cheaper, and a question.

**Read, not spliced.** Where the pipe can grow to hold a whole request (1 MiB and a header), libfuse splices each
request into the pipe and copies it out of there; reading it straight into memory takes a seventh less time for a write
of 1 MiB, and pyfuse3 needs it in memory anyway. A pipe larger than /proc/sys/fs/pipe-max-size needs CAP_SYS_RESOURCE,
so an ordinary user's daemon never splices; root's gives that capability up. libfuse offers no option for it
(fuse_lowlevel.c, `fuse_session_receive_buf_int`, 3.14).

**Memory is kept.** Each write of 1 MiB arrives as a new bytes object; glibc would map fresh pages for it and give them
back, over and over (mallopt(3)).

**Pages passed by.** A descriptor that can only write needs no pages in the kernel's cache: see `may_write_directly`.

Measured in docs/decisions/large-writes.md and direct-writes.md.
"""

import ctypes
import logging
import os
import re
from typing import Final

_log = logging.getLogger(__name__)

_M_TRIM_THRESHOLD: Final = -1
_M_MMAP_THRESHOLD: Final = -3
_LARGEST_KEPT_BYTES: Final = 8 << 20
_FREE_KEPT_BYTES: Final = 16 << 20

_VERSION_3: Final = 0x20080522
_CAP_SYS_RESOURCE: Final = 24
_DIRECT_WRITES_SINCE: Final = (6, 18)


class _Header(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _Data(ctypes.Structure):
    _fields_ = (("effective", ctypes.c_uint32), ("permitted", ctypes.c_uint32), ("inheritable", ctypes.c_uint32))


def give_up_large_pipes() -> None:
    """Take CAP_SYS_RESOURCE from this thread's effective set (capset(2)); without it already, nothing happens."""
    libc = ctypes.CDLL(None, use_errno=True)
    header = _Header(_VERSION_3, 0)
    sets = (_Data * 2)()
    if libc.capget(ctypes.byref(header), ctypes.byref(sets)) != 0:
        _log.debug("capget failed; large writes may be slower")
        return
    sets[0].effective &= ~(1 << _CAP_SYS_RESOURCE)
    if libc.capset(ctypes.byref(header), ctypes.byref(sets)) != 0:
        _log.debug("capset failed; large writes may be slower")


def keep_freed_memory() -> None:
    """Let malloc serve objects of some MiB from memory that it keeps, up to 16 MiB of it."""
    libc = ctypes.CDLL(None)
    libc.mallopt(_M_MMAP_THRESHOLD, _LARGEST_KEPT_BYTES)
    libc.mallopt(_M_TRIM_THRESHOLD, _FREE_KEPT_BYTES)


def may_write_directly() -> bool:
    """Tell whether this kernel keeps mappings of a file true when it is written with FOPEN_DIRECT_IO.

    Since Linux 6.18 it drops the range's pages before such a write and again after it (fs/fuse/file.c,
    `fuse_direct_io`), as for O_DIRECT on a disk. Before that, a page that somebody reads through a mapping while it is
    written could stay as it was.
    """
    release = re.match(r"(\d+)\.(\d+)", os.uname().release)
    return release is not None and (int(release[1]), int(release[2])) >= _DIRECT_WRITES_SINCE
