"""System calls that Python does not offer, and doing something in a process of its own."""

import ctypes
import os
import pickle
import signal
import struct
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

_T = TypeVar("_T")

_libc = ctypes.CDLL(None, use_errno=True)
_libc.fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_long, ctypes.c_long]
_libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
_libc.mmap.restype = ctypes.c_void_p
_libc.fanotify_mark.argtypes = [ctypes.c_int, ctypes.c_uint, ctypes.c_uint64, ctypes.c_int, ctypes.c_char_p]
_libc.sync_file_range.argtypes = [ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint]
_libc.vmsplice.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_uint]
_libc.opendir.restype = ctypes.c_void_p
_libc.readdir.argtypes = _libc.closedir.argtypes = _libc.rewinddir.argtypes = [ctypes.c_void_p]
_libc.readdir.restype = ctypes.c_void_p
_libc.telldir.argtypes = [ctypes.c_void_p]
_libc.telldir.restype = ctypes.c_long
_libc.seekdir.argtypes = [ctypes.c_void_p, ctypes.c_long]

AT_FDCWD = -100
AT_EMPTY_PATH = 0x1000
AT_SYMLINK_FOLLOW = 0x400

OTHER_USER, THIRD_USER = 65534, 1234
"""Two who own nothing."""


def _raise() -> None:
    number = ctypes.get_errno()
    raise OSError(number, os.strerror(number))


def call(name: str, *arguments: object) -> int:
    """Call a function of libc. Raises OSError where it returns -1."""
    result = getattr(_libc, name)(*arguments)
    if result == -1:
        _raise()
    return int(result or 0)


def rename(old: str | Path, new: str | Path, flags: int) -> None:
    """renameat2(2): 1 NOREPLACE, 2 EXCHANGE, 4 WHITEOUT."""
    call("renameat2", AT_FDCWD, os.fsencode(old), AT_FDCWD, os.fsencode(new), flags)


def fallocate(fd: int, mode: int, offset: int, length: int) -> None:
    """fallocate(2), with its modes."""
    call("fallocate", fd, mode, offset, length)


class Status(NamedTuple):
    """What of statx(2) stat(2) does not have."""

    mask: int
    attributes_mask: int
    birth_ns: int
    mount: int


def statx(path: str | Path) -> Status:
    """statx(2), asking for all there is."""
    buffer = ctypes.create_string_buffer(256)
    call("statx", AT_FDCWD, os.fsencode(path), 0x100, 0xFFFF, buffer)  # AT_SYMLINK_NOFOLLOW
    mask, attributes_mask = struct.unpack_from("=I", buffer)[0], struct.unpack_from("=Q", buffer, 56)[0]
    seconds, nanoseconds = struct.unpack_from("=qI", buffer, 80)
    return Status(mask, attributes_mask, seconds * 10**9 + nanoseconds, struct.unpack_from("=Q", buffer, 144)[0])


def map_file(fd: int, length: int, protection: int, flags: int) -> int:
    """mmap(2); return the address."""
    address = _libc.mmap(None, length, protection, flags, fd, 0)
    if address == ctypes.c_void_p(-1).value:
        _raise()
    return int(address)


class Directory:
    """A directory stream, with the positions that os.scandir does not show."""

    def __init__(self, path: str | Path) -> None:
        self._stream = _libc.opendir(os.fsencode(path))
        if not self._stream:
            _raise()

    def read(self) -> bytes | None:
        """Return the next name, or None at the end."""
        entry = _libc.readdir(self._stream)
        # struct dirent: d_ino, d_off, d_reclen, d_type, d_name.
        return ctypes.string_at(entry + 19) if entry else None

    def rest(self) -> list[bytes]:
        """Return all that follow, without the dots."""
        return [name for name in iter(self.read, None) if name not in (b".", b"..")]

    def tell(self) -> int:
        """telldir(3)."""
        return int(_libc.telldir(self._stream))

    def seek(self, position: int) -> None:
        """seekdir(3)."""
        _libc.seekdir(self._stream, position)

    def rewind(self) -> None:
        """rewinddir(3)."""
        _libc.rewinddir(self._stream)

    def close(self) -> None:
        """closedir(3)."""
        _libc.closedir(self._stream)


class Killed(Exception):
    """A child was ended by a signal."""


def in_child(
    action: Callable[[], _T],
    user: int | None = None,
    group: int = -1,
    groups: Sequence[int] = (),
    where: Path | None = None,
) -> _T:
    """Do something in a process of its own, as somebody else if wanted; return or raise what it did.

    `where` becomes its directory before it becomes somebody else: the way there need not be open to that user.

    Raises Killed with the signal's name where one ended it.
    """
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(reading)
            if where is not None:
                os.chdir(where)
            if user is not None:
                os.setgroups(groups)
                os.setgid(group if group >= 0 else user)
                os.setuid(user)
            try:
                answer: object = (True, action())
            except BaseException as error:
                answer = (False, error)
            os.write(writing, pickle.dumps(answer))
        finally:
            os._exit(0)
    os.close(writing)
    try:
        with open(reading, "rb") as pipe:
            raw = pipe.read()
    except BaseException:
        os.kill(child, signal.SIGKILL)
        raise
    finally:
        status = os.waitpid(child, 0)[1]
    if os.WIFSIGNALED(status):
        raise Killed(signal.Signals(os.WTERMSIG(status)).name)
    done, value = pickle.loads(raw)
    if not done:
        raise value
    return value  # type: ignore[no-any-return]  # what `action` returned


def as_other(action: Callable[[], _T], groups: Sequence[int] = ()) -> _T:
    """Do something as a user who owns nothing."""
    return in_child(action, OTHER_USER, groups=groups)
