"""The raw files of a store: every read, write, sync and name change goes through here.

Knows nothing of packs, journals or refs. It exists so that tests can make any one call fail, fall short or never
happen: `set_fault` installs a function that sees each call first.

F1. An OSError becomes StoreFull (no room, quota) or StoreFault (anything else), with the path in its text.
F2. A short write is an error to the caller: `append` says how much arrived and the caller cuts it back.
"""

import errno
import os
from collections.abc import Callable, Sequence
from typing import Final

from helios_fs.errors import ColdObject, HeliosError, StoreFault, StoreFull

Fault = Callable[[str, str, int], int | None]
"""Called as fault(operation, path or "", length); raises OSError to fail, returns a number to shorten a write."""

_fault: Fault | None = None
_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT})


def set_fault(fault: Fault | None) -> None:
    """Let `fault` see every raw operation from now on; None ends it. For tests only."""
    global _fault  # noqa: PLW0603 - the one seam, process-wide on purpose
    _fault = fault


def converted(error: OSError, what: str) -> HeliosError:
    """Return the error of ours that says what an OSError means for the store."""
    if error.errno in _FULL:
        return StoreFull(f"{what}: no space left on the disk that holds the store")
    return StoreFault(f"{what}: {error.strerror or error}")


def open_file(path: str, flags: int, mode: int = 0o600) -> int:
    """Open a file and return its descriptor."""
    try:
        if _fault is not None:
            _fault("open", path, 0)
        return os.open(path, flags | os.O_CLOEXEC, mode)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise converted(error, path) from error


def append(fd: int, buffers: Sequence[bytes | memoryview], length: int) -> None:
    """Append `buffers`, `length` bytes in all, by one system call. Not durable before `sync_data`.

    Raises StoreFull or StoreFault; then some of the bytes may be in the file, and the caller must cut them off.
    """
    try:
        if _fault is not None:
            limit = _fault("append", "", length)
            if limit is not None:
                os.write(fd, b"".join(buffers)[:limit])
                raise OSError(errno.ENOSPC, "short write")
        written = os.writev(fd, buffers)
    except OSError as error:
        raise converted(error, "append") from error
    if written != length:
        raise StoreFull("append: only a part was written; the disk that holds the store is full")


def append_at(fd: int, buffers: Sequence[bytes | memoryview], length: int, offset: int) -> None:
    """Put `buffers`, `length` bytes in all, at `offset` by one system call. Not durable before `sync_data`.

    For files that are longer than what they hold. Raises as `append` does.
    """
    try:
        if _fault is not None:
            limit = _fault("append", "", length)
            if limit is not None:
                os.pwrite(fd, b"".join(buffers)[:limit], offset)
                raise OSError(errno.ENOSPC, "short write")
        written = os.pwritev(fd, buffers, offset)
    except OSError as error:
        raise converted(error, "append") from error
    if written != length:
        raise StoreFull("append: only a part was written; the disk that holds the store is full")


def write_at(fd: int, data: bytes | memoryview, offset: int) -> None:
    """Write all of `data` at `offset`."""
    try:
        if _fault is not None:
            _fault("write", "", len(data))
        view = memoryview(data)
        while view:
            count = os.pwrite(fd, view, offset)
            view = view[count:]
            offset += count
    except OSError as error:
        raise converted(error, "write") from error


def read_at(fd: int, length: int, offset: int) -> bytes:
    """Return `length` bytes at `offset`, fewer only at the end of the file."""
    try:
        if _fault is not None:
            _fault("read", "", length)
        data = os.pread(fd, length, offset)
        while len(data) < length:
            more = os.pread(fd, length - len(data), offset + len(data))
            if not more:
                break
            data += more
        return data
    except OSError as error:
        raise converted(error, "read") from error


def read_cached_at(fd: int, length: int, offset: int, object_id: bytes) -> bytes:
    """As `read_at`, but raises ColdObject(object_id) where the kernel would have to wait for the disk.

    RWF_NOWAIT (preadv2(2), Linux 4.14); a filesystem that does not know it is read as usual.
    """
    buffer = bytearray(length)
    try:
        if _fault is not None:
            _fault("read", "", length)
        count = os.preadv(fd, [buffer], offset, os.RWF_NOWAIT)
    except BlockingIOError:
        raise ColdObject(object_id) from None
    except OSError as error:
        if error.errno == errno.EOPNOTSUPP:
            return read_at(fd, length, offset)
        raise converted(error, "read") from error
    if count < length:
        # A part was in memory, or the file ends here: `read_at` tells which, in a thread.
        raise ColdObject(object_id)
    return bytes(buffer)


def sync_data(fd: int) -> None:
    """Return when the file's data, and the length needed to read it, would survive a power cut."""
    try:
        if _fault is not None:
            _fault("sync", "", 0)
        os.fdatasync(fd)
    except OSError as error:
        raise converted(error, "fdatasync") from error


def sync_directory(path: str) -> None:
    """Return when the names in a directory would survive a power cut."""
    try:
        if _fault is not None:
            _fault("sync", path, 0)
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
    except OSError as error:
        raise converted(error, path) from error


def cut(fd: int, length: int) -> None:
    """Truncate a file to `length` bytes."""
    try:
        if _fault is not None:
            _fault("cut", "", length)
        os.ftruncate(fd, length)
    except OSError as error:
        raise converted(error, "ftruncate") from error


def allocate(fd: int, offset: int, length: int) -> None:
    """Take `length` bytes of disk space at `offset`. A file that ends before them grows; none ever shrinks."""
    try:
        if _fault is not None:
            _fault("allocate", "", length)
        os.posix_fallocate(fd, offset, length)
    except OSError as error:
        raise converted(error, "fallocate") from error


def remove(path: str) -> None:
    """Remove a file; one that is not there is fine."""
    try:
        if _fault is not None:
            _fault("remove", path, 0)
        os.unlink(path)
    except FileNotFoundError:
        pass
    except OSError as error:
        raise converted(error, path) from error


def remove_directory(path: str) -> None:
    """Remove an empty directory; one that is not there is fine."""
    try:
        if _fault is not None:
            _fault("remove", path, 0)
        os.rmdir(path)
    except FileNotFoundError:
        pass
    except OSError as error:
        raise converted(error, path) from error


def replace(source: str, target: str) -> None:
    """Rename `source` over `target`. Durable after `sync_directory`."""
    try:
        if _fault is not None:
            _fault("rename", target, 0)
        os.replace(source, target)
    except OSError as error:
        raise converted(error, target) from error


def link(source: str, target: str) -> None:
    """Give a file one more name; one that is there already is fine. Durable after `sync_directory`."""
    try:
        if _fault is not None:
            _fault("link", target, 0)
        os.link(source, target)
    except FileExistsError:
        pass
    except OSError as error:
        raise converted(error, target) from error


def announce(operation: str, path: str) -> None:
    """Let a fault see an operation that a library performs itself (an LMDB commit)."""
    try:
        if _fault is not None:
            _fault(operation, path, 0)
    except OSError as error:
        raise converted(error, path) from error
