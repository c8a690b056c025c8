"""What each call of the vocabulary does to one tree: one function for each, named as the call.

A function answers with what the call returned, as a plain value without numbers that depend on the tree (descriptors,
inode numbers), and raises OSError where the call fails.
"""

import ctypes
import errno
import fcntl
import mmap
import os
import random
import stat
import struct
from collections.abc import Callable
from typing import Any

from tests.differential.calls import SLOTS, At, Data, Slot

EMPTY = 1_000_000
"""What an empty slot holds: a descriptor that nobody has (EBADF)."""

_PATTERN = random.Random(4).randbytes(1 << 21)
_AT_FDCWD = -100
_AT_SYMLINK_NOFOLLOW = 0x100
_AT_SYMLINK_FOLLOW = 0x400
_GETDENTS64 = 217
_MANY_PARTS = 1000
_MAP_LIMIT = 1 << 22

_libc = ctypes.CDLL(None, use_errno=True)
_libc.sendfile.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t]
_libc.fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]


class Timespec(ctypes.Structure):
    """As utimensat(2) takes it."""

    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))


class Scan:
    """A directory that is being listed in parts: what had to be seen throughout, and what was."""

    def __init__(self, fd: int) -> None:
        self.lasting = _numbered(fd)
        self.seen: list[tuple[bytes, int]] = []
        self.ended = False


class Side:
    """One of the two trees, as one actor has it: its root, current directory and open descriptors."""

    def __init__(self, root: int, on_mount: bool) -> None:
        self.root = root
        self.on_mount = on_mount
        self.here = os.dup(root)
        self.fds = [EMPTY] * SLOTS
        self.scans: dict[int, Scan] = {}

    def fd(self, slot: Slot) -> int:
        return self.fds[slot.number]

    def base(self, at: At) -> int | None:
        return None if at.slot is None else self.fds[at.slot]

    def put(self, slot: Slot, fd: int) -> None:
        old, self.fds[slot.number] = self.fds[slot.number], fd
        self.scans.pop(slot.number, None)
        if old != EMPTY:
            os.close(old)

    def move(self, fd: int) -> None:
        os.close(self.here)
        self.here = fd
        os.fchdir(fd)

    def close(self) -> None:
        for number in range(SLOTS):
            try:
                self.put(Slot(number), EMPTY)
            except OSError:
                pass  # the daemon was killed; the kernel has let go of it all the same
        os.close(self.here)


def _checked(answer: int) -> int:
    if answer < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return answer


def is_path(fd: int) -> bool:
    """Tell whether a descriptor stands for a place only (O_PATH)."""
    return bool(fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_PATH)


def _bytes(data: Data) -> bytes:
    start = data.mark * 977
    return _PATTERN[start : start + data.length]


# -- Names -----------------------------------------------------------------------------------------------------------


def _open(side: Side, at: At, flags: int, mode: int, slot: Slot) -> None:
    side.put(slot, os.open(at.path, flags, mode, dir_fd=side.base(at)))


def _open_directory(side: Side, at: At, slot: Slot) -> None:
    side.put(slot, os.open(at.path, os.O_RDONLY | os.O_DIRECTORY))


def _mkdir(side: Side, at: At, mode: int) -> None:
    os.mkdir(at.path, mode, dir_fd=side.base(at))


def _rmdir(side: Side, at: At) -> None:
    os.rmdir(at.path, dir_fd=side.base(at))


def _unlink(side: Side, at: At) -> None:
    os.unlink(at.path, dir_fd=side.base(at))


def _mknod(side: Side, at: At, mode: int, device: int) -> None:
    os.mknod(at.path, mode, device, dir_fd=side.base(at))


def _symlink(side: Side, target: bytes, at: At) -> None:
    os.symlink(target, at.path, dir_fd=side.base(at))


def _readlink(side: Side, at: At) -> bytes:
    return os.readlink(at.path, dir_fd=side.base(at))


def _number(side: Side, at: At) -> int:
    base = side.base(at)
    return _AT_FDCWD if base is None else base


def _link(side: Side, old: At, new: At, follow: bool) -> None:
    flags = _AT_SYMLINK_FOLLOW if follow else 0
    _checked(_libc.linkat(_number(side, old), old.path, _number(side, new), new.path, flags))


def _link_open(side: Side, slot: Slot, new: At) -> None:
    old = b"/proc/self/fd/%d" % side.fd(slot)
    _checked(_libc.linkat(_AT_FDCWD, old, _number(side, new), new.path, _AT_SYMLINK_FOLLOW))


def _rename(side: Side, old: At, new: At, flags: int) -> None:
    _checked(_libc.renameat2(_number(side, old), old.path, _number(side, new), new.path, flags))


def _remove_tree(side: Side, at: At) -> int:
    """As `rm -r`: everything below, in the order of names; what cannot be removed stays."""
    failed = 0
    try:
        for name in sorted(os.listdir(at.path)):
            path = at.path + b"/" + name
            if stat.S_ISDIR(os.lstat(path).st_mode):
                failed += _remove_tree(side, At(path))
            else:
                failed += _tried(os.unlink, path)
        failed += _tried(os.rmdir, at.path)
    except OSError:
        failed += 1
    return failed


def _tried(action: Callable[[bytes], None], path: bytes) -> int:
    try:
        action(path)
    except OSError:
        return 1
    return 0


def _chdir(side: Side, at: At) -> None:
    os.chdir(at.path)
    side.move(os.open(b".", os.O_PATH | os.O_DIRECTORY))


def _fchdir(side: Side, slot: Slot) -> None:
    os.fchdir(side.fd(slot))
    side.move(os.dup(side.fd(slot)))


def _chdir_root(side: Side) -> None:
    side.move(os.dup(side.root))


# -- Content ---------------------------------------------------------------------------------------------------------


def _write(side: Side, slot: Slot, data: Data) -> int:
    return os.write(side.fd(slot), _bytes(data))


def _pwrite(side: Side, slot: Slot, data: Data, offset: int) -> int:
    return os.pwrite(side.fd(slot), _bytes(data), offset)


def _writev(side: Side, slot: Slot, parts: tuple[Data, ...]) -> int:
    return os.writev(side.fd(slot), [_bytes(part) for part in parts])


def _write_path(side: Side, at: At, data: Data) -> int:
    """As `echo > path` does it: three calls that belong together so often that they are one here."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NONBLOCK
    fd = os.open(at.path, flags, 0o666, dir_fd=side.base(at))
    try:
        return os.write(fd, _bytes(data))
    finally:
        os.close(fd)


def _read(side: Side, slot: Slot, length: int) -> bytes:
    return os.read(side.fd(slot), length)


def _pread(side: Side, slot: Slot, length: int, offset: int) -> bytes:
    return os.pread(side.fd(slot), length, offset)


def _readv(side: Side, slot: Slot, lengths: tuple[int, ...]) -> bytes:
    buffers = [bytearray(length) for length in lengths]
    done = os.readv(side.fd(slot), buffers)
    return b"".join(bytes(buffer) for buffer in buffers)[:done]


def _lseek(side: Side, slot: Slot, offset: int, whence: int) -> object:
    if _is_directory(side.fd(slot)):
        return _rewind(side, slot)
    return os.lseek(side.fd(slot), offset, whence)


def _is_directory(fd: int) -> bool:
    """Tell whether positions in this file are its filesystem's own affair."""
    return fd != EMPTY and stat.S_ISDIR(os.fstat(fd).st_mode)


def _seek_hole(side: Side, slot: Slot, offset: int, whence: int) -> object:
    if _is_directory(side.fd(slot)):
        return _rewind(side, slot)
    try:
        return os.lseek(side.fd(slot), offset, whence)
    finally:
        os.lseek(side.fd(slot), 0, os.SEEK_SET)


def _fallocate(side: Side, slot: Slot, mode: int, offset: int, length: int) -> object:
    """On the mount alone: the kernel refuses it there, and whatever it says, nothing may change."""
    if side.on_mount:
        if _libc.fallocate(side.fd(slot), mode, offset, length) == 0:
            return "fallocate is said to be done"
        return None
    return None


def refuses_to_allocate(fd: int) -> bool:
    return _libc.fallocate(fd, 0, 0, 1) != 0 and ctypes.get_errno() == errno.EOPNOTSUPP


def _truncate(side: Side, at: At, size: int) -> None:
    os.truncate(at.path, size)


def _ftruncate(side: Side, slot: Slot, size: int) -> None:
    os.ftruncate(side.fd(slot), size)


def _close(side: Side, slot: Slot) -> None:
    side.put(slot, EMPTY)


def _dup(side: Side, old: Slot, new: Slot) -> None:
    if old != new:
        side.put(new, os.dup(side.fd(old)))
        side.scans.pop(old.number, None)  # two descriptors with one position


def _fsync(side: Side, slot: Slot, data_only: bool) -> None:
    (os.fdatasync if data_only else os.fsync)(side.fd(slot))


def _syncfs(side: Side, slot: Slot) -> None:
    fd = side.fd(slot)
    if side.on_mount or fd == EMPTY or is_path(fd):  # ext4 would sync the disk of everybody
        _checked(_libc.syncfs(fd))


def _advise(side: Side, slot: Slot) -> None:
    """Let the kernel forget the pages that it has of a file."""
    fd = side.fd(slot)
    if stat.S_ISREG(os.fstat(fd).st_mode):
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)


def _mappable(fd: int) -> int:
    """Return how much of a file can be mapped without SIGBUS."""
    status = os.fstat(fd)
    return min(status.st_size, _MAP_LIMIT) if stat.S_ISREG(status.st_mode) else 0


def _map_write(side: Side, slot: Slot, offset: int, data: Data) -> object:
    fd, content = side.fd(slot), _bytes(data)
    end = offset + len(content)
    if not content or end > _mappable(fd):
        return "beyond the end"
    with mmap.mmap(fd, end) as mapped:
        mapped[offset:end] = content
        mapped.flush()
    return None


def _map_read(side: Side, slot: Slot, offset: int, length: int) -> bytes:
    fd = side.fd(slot)
    end = offset + length
    if not length or end > _mappable(fd):
        return b"beyond the end"
    with mmap.mmap(fd, end, mmap.MAP_SHARED, mmap.PROT_READ) as mapped:
        return mapped[offset:end]


def _sendfile(side: Side, out: Slot, source: Slot, offset: int, length: int) -> int:
    """Send on after a short count, as sendfile(2) asks of those who call it."""
    place = ctypes.c_int64(offset)
    sent = 0
    while sent < length:
        count = _checked(_libc.sendfile(side.fd(out), side.fd(source), ctypes.addressof(place), length - sent))
        if not count:
            break
        sent += count
    return sent


def _copy_file_range(side: Side, source: Slot, out: Slot, from_: int, to: int, length: int) -> int:
    copied = 0
    while copied < length:
        count = os.copy_file_range(side.fd(source), side.fd(out), length - copied, from_ + copied, to + copied)
        if not count:
            break
        copied += count
    return copied


# -- Attributes ------------------------------------------------------------------------------------------------------


def _plain(status: os.stat_result) -> tuple[int, ...]:
    return (status.st_mode, status.st_nlink, status.st_uid, status.st_gid, status.st_rdev)


def _stat(side: Side, at: At, follow: bool) -> tuple[int, ...]:
    return _plain(os.stat(at.path, dir_fd=side.base(at), follow_symlinks=follow))


def _fstat(side: Side, slot: Slot) -> tuple[int, ...]:
    return _plain(os.stat(side.fd(slot)))


def _access(side: Side, at: At, mode: int) -> bool:
    return os.access(at.path, mode, dir_fd=side.base(at))


def _chmod(side: Side, at: At, mode: int) -> None:
    os.chmod(at.path, mode, dir_fd=side.base(at))


def _fchmod(side: Side, slot: Slot, mode: int) -> None:
    os.fchmod(side.fd(slot), mode)


def _chown(side: Side, at: At, user: int, group: int, follow: bool) -> None:
    os.chown(at.path, user, group, dir_fd=side.base(at), follow_symlinks=follow)


def _fchown(side: Side, slot: Slot, user: int, group: int) -> None:
    os.fchown(side.fd(slot), user, group)


def _pair(times: tuple[tuple[int, int], tuple[int, int]]) -> Any:
    return (Timespec * 2)(*(Timespec(*time) for time in times))


def _utime(side: Side, at: At, times: tuple[tuple[int, int], tuple[int, int]], follow: bool) -> None:
    flags = 0 if follow else _AT_SYMLINK_NOFOLLOW
    _checked(_libc.utimensat(_number(side, at), at.path, _pair(times), flags))


def _futime(side: Side, slot: Slot, times: tuple[tuple[int, int], tuple[int, int]]) -> None:
    _checked(_libc.futimens(side.fd(slot), _pair(times)))


def _setxattr(side: Side, at: At, name: str, value: bytes, flags: int, follow: bool) -> None:
    os.setxattr(at.path, name, value, flags, follow_symlinks=follow)


def _fsetxattr(side: Side, slot: Slot, name: str, value: bytes, flags: int) -> None:
    os.setxattr(side.fd(slot), name, value, flags)


def _getxattr(side: Side, at: At, name: str, follow: bool) -> bytes:
    return os.getxattr(at.path, name, follow_symlinks=follow)


def _listxattr(side: Side, at: At, follow: bool) -> list[str]:
    return sorted(os.listxattr(at.path, follow_symlinks=follow))


def _removexattr(side: Side, at: At, name: str, follow: bool) -> None:
    os.removexattr(at.path, name, follow_symlinks=follow)


def _statvfs(side: Side, at: At) -> int:
    return os.statvfs(at.path).f_namemax


# -- Directories, locks ----------------------------------------------------------------------------------------------


def _listdir(side: Side, at: At) -> list[bytes]:
    return sorted(os.listdir(at.path))


def _entries(buffer: bytes) -> list[tuple[bytes, int]]:
    """Return names and inode numbers of what getdents64(2) has written."""
    found, place = [], 0
    while place < len(buffer):
        ino, _, length, _ = struct.unpack_from("=QqHB", buffer, place)
        name = buffer[place + 19 : place + length].split(b"\0", 1)[0]
        if name not in (b".", b".."):
            found.append((name, ino))
        place += length
    return found


def _getdents(fd: int, size: int) -> bytes:
    buffer = ctypes.create_string_buffer(size)
    length = _checked(_libc.syscall(_GETDENTS64, fd, buffer, size))
    return buffer.raw[:length]


def _numbered(fd: int) -> set[tuple[bytes, int]]:
    """Return what a directory holds now, by a descriptor of our own."""
    own = os.open(b".", os.O_RDONLY | os.O_DIRECTORY, dir_fd=fd)
    try:
        found: set[tuple[bytes, int]] = set()
        parts = 0
        while part := _getdents(own, 1 << 15):
            found.update(_entries(part))
            parts += 1
            if parts > _MANY_PARTS:
                raise RuntimeError(f"a listing without end: {part!r}")
        return found
    finally:
        os.close(own)


def _part(fd: int, size: int) -> bytes:
    try:
        return _getdents(fd, size)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
    return _getdents(fd, 300)  # which name is too long for the buffer is a matter of order


def _scan(side: Side, slot: Slot, size: int, at: At, begin: bool) -> object:
    """Open a directory and read a part of it, or read on; at the end, say whether all that lasted was seen once.

    The two sides come to the end at different calls: their order differs. A listing that has ended stays so.
    """
    if begin:
        _open_directory(side, at, slot)
        side.scans[slot.number] = Scan(side.fd(slot))
    elif slot.number not in side.scans:
        return "nothing is being listed"
    fd = side.fd(slot)
    scan = side.scans[slot.number]
    if scan.ended:
        return None
    try:
        scan.lasting &= _numbered(fd)
        part = _part(fd, size)
    except OSError:
        # Removed, or closed to this user: one side may have come to its end before.
        scan.ended = True
        return None
    scan.seen += _entries(part)
    if part:
        return None
    scan.ended = True
    wrong = [name for name, number in scan.lasting if scan.seen.count((name, number)) != 1]
    return ("not seen exactly once", sorted(wrong)) if wrong and side.on_mount else None


def _rewind(side: Side, slot: Slot) -> None:
    side.scans.pop(slot.number, None)
    os.lseek(side.fd(slot), 0, os.SEEK_SET)


def _flock(side: Side, slot: Slot, kind: int) -> None:
    fcntl.flock(side.fd(slot), kind | fcntl.LOCK_NB)


def _lock(side: Side, slot: Slot, kind: int, start: int, length: int) -> None:
    kinds = (fcntl.LOCK_SH, fcntl.LOCK_EX, fcntl.LOCK_UN)
    fcntl.lockf(side.fd(slot), kinds[kind] | (fcntl.LOCK_NB if kind < 2 else 0), length, start)


OPERATIONS: dict[str, Callable[..., object]] = {
    name.removeprefix("_"): action
    for name, action in list(globals().items())
    if name.startswith("_") and callable(action) and getattr(action, "__module__", "") == __name__
}


def answer(side: Side, name: str, arguments: tuple[Any, ...]) -> object:
    """Carry out a call in a tree; return its answer, or the name of its error."""
    try:
        os.fchdir(side.here)
        return OPERATIONS[name](side, *arguments)
    except OSError as error:
        return errno.errorcode.get(error.errno or 0, str(error.errno))
    except ValueError as error:
        return f"ValueError: {error}"
