"""The process that touches through the mount what the daemon has changed, so that watchers hear of it.

`python touch.py MOUNTPOINT DEVICE` reads batches from its standard input, and writes a line when one is done: how many
paths it could not touch. It ends when its input does. The daemon knows these system calls by the process that makes
them and answers that all is well, without doing anything: the kernel then tells whoever watches (fuse/pretence.py).
Imports next to nothing, so that it is there at once.

T1. One thread: the daemon knows it by its number.
T2. Nothing outside the mount is touched, and no symlink followed: every directory on the way is of the device DEVICE.
T3. No descriptor in the mount stays open between two batches, and none for longer than one directory takes.
"""

import ctypes
import os
import stat
import sys
from typing import Final

GONE: Final = b"d"
"""A name is gone: GONE, mode, path, empty."""
MOVED: Final = b"m"
"""A name is another one now: MOVED, mode, new path, old path."""
MADE: Final = b"c"
"""A name has come: MADE, mode, path, empty."""
WRITTEN: Final = b"w"
"""A file's content is another: WRITTEN, empty, path, empty."""
ALTERED: Final = b"a"
"""Attributes are others: ALTERED, empty, path, empty."""
FIELDS: Final = 4
LENGTH_BYTES: Final = 8
Touch = tuple[bytes, bytes, bytes, bytes]
"""What, mode in decimal digits, path, former path; paths are relative to the batch's directory."""

_ROOT_INO: Final = 1
_UTIME_OMIT: Final = (1 << 30) - 2
_UTIME_NOW: Final = (1 << 30) - 1
_AT_SYMLINK_NOFOLLOW: Final = 0x100
_DIRECTORY: Final = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_EXECUTABLE: Final = 0o111

_libc: Final = ctypes.CDLL(None, use_errno=True)
# struct timespec[2]: seconds and nanoseconds of atime, then of mtime. To watchers a new mtime alone is a modification,
# both are a change of attributes (fsnotify_change in the kernel's include/linux/fsnotify.h).
_Times: Final = ctypes.c_long * 4
_MODIFIED: Final = _Times(0, _UTIME_OMIT, 0, _UTIME_NOW)
_ATTRIBUTES: Final = _Times(0, _UTIME_NOW, 0, _UTIME_NOW)


def pack(directory: bytes, touches: list[Touch]) -> bytes:
    """Return a batch as the process reads it; `directory` is where in the mount all paths begin."""
    fields = [directory]
    for touch in touches:
        fields.extend(touch)
    body = b"\0".join(fields)
    return len(body).to_bytes(LENGTH_BYTES, "little") + body


def _unpack(body: bytes) -> tuple[bytes, list[list[bytes]]]:
    directory, *fields = body.split(b"\0")
    return directory, [fields[start : start + FIELDS] for start in range(0, len(fields), FIELDS)]


class Walk:
    """Descriptors of directories in one mount, one at a time."""

    def __init__(self, mountpoint: bytes, device: int) -> None:
        self._mountpoint = mountpoint
        self._device = device
        self._path: bytes | None = None
        self._fd = -1

    def directory(self, path: bytes) -> int:
        """Return a descriptor of a directory of the mount, good until the next call. Raises OSError."""
        if path != self._path:
            self.close()
            self._fd = self.open(path)
            self._path = path
        return self._fd

    def open(self, path: bytes) -> int:
        """Return a new descriptor of a directory of the mount. Raises OSError."""
        here = os.open(self._mountpoint, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            if os.fstat(here).st_ino != _ROOT_INO:
                raise NotADirectoryError("not the mount's root")
            self._check(here)
            for name in filter(None, path.split(b"/")):
                above, here = here, os.open(name, _DIRECTORY, dir_fd=here)
                os.close(above)
                self._check(here)
        except BaseException:
            os.close(here)
            raise
        return here

    def _check(self, fd: int) -> None:
        if os.fstat(fd).st_dev != self._device:
            raise NotADirectoryError("not in the mount")

    def close(self) -> None:
        """Let go of the mount."""
        if self._path is not None:
            os.close(self._fd)
            self._path = None


def _set_times(directory: int, name: bytes, times: "ctypes.Array[ctypes.c_long]") -> None:
    if _libc.utimensat(directory, name, times, _AT_SYMLINK_NOFOLLOW):
        raise OSError(ctypes.get_errno(), "utimensat")


def _write(directory: int, name: bytes) -> None:
    """Open a file for writing, tell of a modification, close it."""
    found = os.stat(name, dir_fd=directory, follow_symlinks=False)
    # While a program is open for writing nobody can start it (ETXTBSY); a fifo or a device is not ours to open.
    if not stat.S_ISREG(found.st_mode) or found.st_mode & _EXECUTABLE:
        _set_times(directory, name, _MODIFIED if stat.S_ISREG(found.st_mode) else _ATTRIBUTES)
        return
    try:
        fd = os.open(name, os.O_WRONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=directory)
    except PermissionError:
        _set_times(directory, name, _MODIFIED)
        return
    try:
        _set_times(directory, name, _MODIFIED)
    finally:
        os.close(fd)


def _make(directory: int, name: bytes, mode: int) -> None:
    """Make a name that is there already, as the daemon knows."""
    try:
        if stat.S_ISDIR(mode):
            os.mkdir(name, dir_fd=directory)
        elif stat.S_ISLNK(mode):
            os.symlink(b"-", name, dir_fd=directory)
        else:
            os.mknod(name, stat.S_IFMT(mode), dir_fd=directory)
    except (FileExistsError, PermissionError):
        # Somebody has it open already, or we may make nothing here.
        if not stat.S_ISREG(mode):
            _set_times(directory, name, _ATTRIBUTES)
    if stat.S_ISREG(mode):
        _write(directory, name)


def _move(walk: Walk, old: bytes, new: bytes, mode: int) -> None:
    to = walk.directory(os.path.dirname(new))
    try:
        from_ = walk.open(os.path.dirname(old))
        try:
            os.rename(os.path.basename(old), os.path.basename(new), src_dir_fd=from_, dst_dir_fd=to)
        finally:
            os.close(from_)
    except OSError:
        # The old name means something else now, or its directory is gone.
        _make(to, os.path.basename(new), mode)


def touch(walk: Walk, start: bytes, kind: bytes, mode: bytes, path: bytes, old: bytes) -> None:
    """Touch one path. Raises OSError where that is not possible."""
    path = os.path.join(start, path)
    if kind == MOVED:
        _move(walk, os.path.join(start, old), path, int(mode))
        return
    if not path:
        # The mount's root has no name to be found under.
        _set_times(walk.directory(b""), b".", _ATTRIBUTES)
        return
    name = os.path.basename(path)
    directory = walk.directory(os.path.dirname(path))
    if kind == GONE:
        (os.rmdir if stat.S_ISDIR(int(mode)) else os.unlink)(name, dir_fd=directory)
    elif kind == MADE:
        _make(directory, name, int(mode))
    elif kind == WRITTEN:
        _write(directory, name)
    else:
        _set_times(directory, name, _ATTRIBUTES)


def touch_all(walk: Walk, body: bytes) -> int:
    """Touch a batch; return how many paths could not be touched."""
    start, touches = _unpack(body)
    failed = 0
    try:
        for kind, mode, path, old in touches:
            try:
                touch(walk, start, kind, mode, path, old)
            except OSError:
                failed += 1
    finally:
        walk.close()
    return failed


def main() -> None:
    """Touch what the standard input says, until it ends."""
    walk = Walk(os.fsencode(sys.argv[1]), int(sys.argv[2]))
    with open(0, "rb") as batches:
        while len(head := batches.read(LENGTH_BYTES)) == LENGTH_BYTES:
            os.write(1, b"%d\n" % touch_all(walk, batches.read(int.from_bytes(head, "little"))))


if __name__ == "__main__":
    main()
