"""Scripts of system calls: each works in an empty directory and returns what it saw.

They know nothing of mounts; `test_semantics.py` runs them in one and in a plain directory.
"""

import ctypes
import errno
import fcntl
import mmap
import os
import socket
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from tests.mount.mounted import PATIENCE_SECONDS

Script = Callable[[Path], object]

AS_ROOT = os.geteuid() == 0
NOREPLACE, EXCHANGE = 1, 2

_libc = ctypes.CDLL(None, use_errno=True)


def tried(action: Callable[..., object], *arguments: object) -> object:
    """Return what a call returned, or the name of its error."""
    try:
        return action(*arguments)
    except OSError as error:
        return errno.errorcode[error.errno or 0]


def rename(old: Path, new: Path, flags: int) -> None:
    """renameat2(2), which Python does not offer."""
    if _libc.renameat2(-100, os.fsencode(old), -100, os.fsencode(new), flags) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def mode(path: Path) -> str:
    return stat.filemode(path.lstat().st_mode)


def file(path: Path, content: str = "content", permissions: int = 0o644) -> Path:
    path.write_text(content)
    path.chmod(permissions)
    return path


def write_into(path: Path) -> None:
    with open(path, "r+b") as opened:
        opened.write(b"x")


# -- Set-id bits, groups, sticky -------------------------------------------------------------------------------------


def set_id_bits(base: Path) -> object:
    seen: list[object] = []
    changes: list[Callable[[Path], object]] = [
        write_into,
        lambda path: os.truncate(path, 2),
        lambda path: os.close(os.open(path, os.O_WRONLY | os.O_TRUNC)),
        lambda path: os.chown(path, -1, -1),
        lambda path: os.chown(path, os.geteuid(), os.getegid()),
        lambda path: os.chmod(path, 0o6711),
        os.utime,
    ]
    for permissions in (0o4755, 0o2755, 0o2644, 0o6777, 0o755):
        for number, change in enumerate(changes):
            path = file(base / f"{permissions:o}-{number}", permissions=permissions)
            seen.append((permissions, number, tried(change, path), mode(path)))
    directory = base / "directory"
    directory.mkdir()
    directory.chmod(0o6755)
    os.chown(directory, os.geteuid(), os.getegid())
    seen.append(mode(directory))
    return seen


def set_gid_directory(base: Path) -> object:
    directory = base / "directory"
    directory.mkdir()
    if AS_ROOT and os.geteuid() == 0:
        os.chown(directory, -1, 12345)
    directory.chmod(0o2775)
    (directory / "below").mkdir()
    file(directory / "file")
    os.symlink("x", directory / "link")
    os.mkfifo(directory / "fifo")
    created = os.open(directory / "executable", os.O_CREAT | os.O_WRONLY, 0o2775)
    os.close(created)
    return [(name, mode(directory / name), (directory / name).lstat().st_gid) for name in sorted(os.listdir(directory))]


def others_in_a_sticky_directory(base: Path) -> object:
    """Run as somebody who owns nothing here."""
    open_for_all, sticky = base / "open", base / "sticky"
    seen = []
    for directory in (open_for_all, sticky):
        seen.append(
            [
                tried(os.unlink, directory / "one"),
                tried(os.rename, directory / "two", directory / "other"),
                tried(os.rmdir, directory / "below"),
                tried(os.chmod, directory / "three", 0o777),
                tried(os.chown, directory / "three", os.geteuid(), -1),
                tried(os.utime, directory / "three"),
                tried(write_into, directory / "three"),
                tried(os.listxattr, directory / "three"),
                tried(os.setxattr, directory / "three", "user.x", b"1"),
                tried(os.setxattr, directory / "three", "trusted.x", b"1"),
                tried(os.mkdir, directory / "mine"),
                tried(os.rmdir, directory / "mine"),
            ]
        )
    return seen


def owner_of_new(base: Path) -> object:
    old = os.umask(0o027)
    try:
        os.close(os.open(base / "file", os.O_CREAT | os.O_WRONLY, 0o666))
        (base / "directory").mkdir(0o777)
        os.mknod(base / "node", 0o666 | stat.S_IFREG)
    finally:
        os.umask(old)
    return [(mode(base / n), (base / n).stat().st_uid == os.geteuid()) for n in ("file", "directory", "node")]


# -- Links, names, sizes ---------------------------------------------------------------------------------------------


def link_counts(base: Path) -> object:
    seen = []

    def look() -> None:
        seen.append([(n, (base / n).lstat().st_nlink) for n in sorted(os.listdir(base))] + [base.stat().st_nlink])

    (base / "a").mkdir()
    (base / "b").mkdir()
    look()
    (base / "a" / "c").mkdir()
    look()
    os.rename(base / "a" / "c", base / "b" / "c")
    look()
    rename(base / "b" / "c", file(base / "f"), EXCHANGE)
    look()
    file(base / "one")
    os.link(base / "one", base / "two")
    os.link(base / "one", base / "a" / "three")
    look()
    opened = os.open(base / "one", os.O_RDONLY)
    os.unlink(base / "one")
    os.rename(base / "a" / "three", base / "two")
    look()
    os.unlink(base / "a" / "three")
    seen.append(os.fstat(opened).st_nlink)
    os.unlink(base / "two")
    seen.append(os.fstat(opened).st_nlink)
    os.close(opened)
    os.symlink("x", base / "s")
    os.link(base / "s", base / "t", follow_symlinks=False)
    seen.append((base / "t").lstat().st_nlink)
    return seen


def refusals(base: Path) -> object:
    (base / "full" / "below").mkdir(parents=True)
    (base / "empty").mkdir()
    file(base / "file")
    os.symlink("nowhere", base / "dangling")
    long = "n" * 256
    return [
        tried(os.rmdir, base / "full"),
        tried(os.rmdir, base / "file"),
        tried(os.unlink, base / "empty"),
        tried(os.unlink, base / "absent"),
        tried(os.rename, base / "full", base / "full" / "below" / "itself"),
        tried(os.rename, base / "full" / "below", base / "full"),
        tried(os.rename, base / "empty", base / "full"),
        tried(os.rename, base / "file", base / "empty"),
        tried(os.rename, base / "empty", base / "file"),
        tried(os.rename, base / "absent", base / "file"),
        tried(os.mkdir, base / "file"),
        tried(os.symlink, "x", base / "file"),
        tried(os.link, base / "empty", base / "hard"),
        tried(os.link, base / "file", base / "empty"),
        tried(os.listdir, base / "file"),
        tried(os.open, base / "dangling", os.O_RDONLY),
        tried(os.open, base / "file", os.O_CREAT | os.O_EXCL),
        tried(os.open, base / "empty", os.O_WRONLY),
        tried(os.truncate, base / "empty", 0),
        tried(os.truncate, base / "file", -1),
        tried(os.mkdir, base / long),
        tried(os.stat, base / long),
        tried(os.rename, base / "file", base / long),
        tried(os.link, base / "file", base / long),
        tried(os.symlink, "t" * 4096, base / "too-long"),
        tried(os.symlink, "t" * 4095, base / "long-enough"),
        tried(lambda: len(os.readlink(base / "long-enough"))),
        tried(os.stat, base / "file" / "below"),
        tried(os.getxattr, base / "file", "user.absent"),
        tried(os.removexattr, base / "file", "user.absent"),
        tried(os.setxattr, base / "file", "user.x", b"", os.XATTR_REPLACE),
        tried(os.setxattr, base / "file", "user.x", b"", os.XATTR_CREATE),
        tried(os.setxattr, base / "file", "user.x", b"", os.XATTR_CREATE),
        tried(os.setxattr, base / "file", "user.", b"1"),
        tried(os.setxattr, base / "file", "other.x", b"1"),
        sorted(os.listdir(base)),
    ]


def rename_flags(base: Path) -> object:
    one, two, directory = file(base / "one", "1"), file(base / "two", "2"), base / "directory"
    directory.mkdir()
    file(directory / "inner", "inner")
    seen = [
        tried(rename, one, two, NOREPLACE),
        tried(rename, one, base / "three", NOREPLACE),
        tried(rename, base / "three", base / "absent", EXCHANGE),
        tried(rename, base / "three", two, EXCHANGE),
        tried(rename, directory, two, EXCHANGE),
        tried(rename, base / "two", base / "two" / "inner", EXCHANGE),
        tried(rename, base / "two" / "inner", base / "three", EXCHANGE),
        tried(rename, one, two, NOREPLACE | EXCHANGE),
        tried(rename, base / "three", base / "x", 8),
        tried(rename, base / "three", base / "x", 1 << 30),
    ]
    shown = {str(p.relative_to(base)): p.read_text() for p in sorted(base.rglob("*")) if p.is_file()}
    return seen, shown


def names_are_bytes(base: Path) -> object:
    root = os.fsencode(base)
    names = [
        b"n" * 255,
        b"\xff\xfe",
        "ä".encode() * 127,
        b"new\nline",
        b"-",
        b" ",
        b"\x01",
        b"a\\b",
        b"~",
        b"...",
        b"\xc3",
    ]
    for name in names:
        with open(root + b"/" + name, "wb") as opened:
            opened.write(name)
    os.rename(root + b"/\xff\xfe", root + b"/\xfe\xff")
    return sorted((name, Path(os.fsdecode(root + b"/" + name)).read_bytes()) for name in os.listdir(root))


def holes(base: Path) -> object:
    seen: list[object] = []
    path = base / "sparse"
    with open(path, "wb") as opened:
        fd = opened.fileno()
        for offset, length in ((0, 4096), (1 << 20, 4096), ((1 << 20) + 4096, 8192), (5 << 32, 4096), (1 << 20, 4096)):
            os.pwrite(fd, b"x" * length, offset)
            os.fsync(fd)
            seen.append((os.fstat(fd).st_size, os.fstat(fd).st_blocks))
        os.ftruncate(fd, (1 << 20) + 4096)
        os.fsync(fd)
        seen.append((os.fstat(fd).st_size, os.fstat(fd).st_blocks))
        os.ftruncate(fd, 1 << 30)
        seen.append((os.fstat(fd).st_size, os.fstat(fd).st_blocks))
    with open(path, "rb") as opened:
        for offset in (0, 4090, 4096, (1 << 20) - 5, (1 << 20) + 4090, (1 << 30) - 3, 1 << 30):
            seen.append(os.pread(opened.fileno(), 10, offset))
    with open(base / "empty", "wb") as opened:
        os.ftruncate(opened.fileno(), 1 << 33)
        seen.append((os.fstat(opened.fileno()).st_size, os.fstat(opened.fileno()).st_blocks))
    return seen


def far_offsets(base: Path) -> object:
    fd = os.open(base / "far", os.O_RDWR | os.O_CREAT)
    positions = [(1 << 32) - 3, 1 << 32, (1 << 40) + 1, (1 << 43) + 7]
    for position in positions:
        os.pwrite(fd, str(position).encode(), position)
    seen = [os.pread(fd, len(str(position)), position) for position in positions]
    seen.append(os.fstat(fd).st_size)
    os.close(fd)
    return seen


def unlinked_but_open(base: Path) -> object:
    path = file(base / "file", "before")
    opened = os.open(path, os.O_RDWR)
    os.unlink(path)
    file(path, "another")
    os.pwrite(opened, b"AFTER", 100_000)
    os.fchmod(opened, 0o600)
    os.setxattr(opened, "user.x", b"1")
    os.fsync(opened)
    status = os.fstat(opened)
    seen = [os.pread(opened, 6, 0), os.pread(opened, 9, 100_000), status.st_nlink, status.st_size, status.st_mode]
    seen += [os.getxattr(opened, "user.x"), path.read_text(), tried(os.link, f"/proc/self/fd/{opened}", base / "again")]
    os.ftruncate(opened, 3)
    seen.append(os.pread(opened, 10, 0))
    os.close(opened)
    directory = base / "directory"
    directory.mkdir()
    held = os.open(directory, os.O_RDONLY)
    os.rmdir(directory)
    seen += [os.listdir(held), os.fstat(held).st_nlink]
    seen.append(tried(lambda: os.open("new", os.O_CREAT | os.O_WRONLY, dir_fd=held)))
    os.close(held)
    return seen


def replaced_but_open(base: Path) -> object:
    old, new = file(base / "old", "old"), file(base / "new", "new")
    with open(old, "rb") as opened:
        os.replace(new, old)
        return opened.read(), old.read_text(), os.listdir(base), os.fstat(opened.fileno()).st_nlink


APPENDER = """
import os, sys
fd = os.open(sys.argv[1], os.O_WRONLY | os.O_APPEND)
for number in range(300):
    os.write(fd, f"{sys.argv[2]} {number:06}\\n".encode())
"""


def two_appenders(base: Path) -> object:
    path = file(base / "log", "")
    writers = [subprocess.Popen([sys.executable, "-c", APPENDER, str(path), who]) for who in "ab"]
    assert [writer.wait(PATIENCE_SECONDS) for writer in writers] == [0, 0]
    lines = path.read_text().splitlines()
    # Every line whole, none lost, each writer's own in order.
    return [[line for line in lines if line[0] == who] for who in "ab"], len(lines)


def append_and_truncate(base: Path) -> object:
    path = file(base / "file", "12345")
    first = os.open(path, os.O_WRONLY | os.O_APPEND)
    second = os.open(path, os.O_RDWR)
    os.write(first, b"678")
    os.pwrite(second, b"abc", 1)
    os.ftruncate(second, 4)
    os.write(first, b"9")
    os.close(first)
    os.close(os.open(path, os.O_WRONLY))
    seen = [path.read_bytes(), os.lseek(second, 0, os.SEEK_END)]
    os.close(os.open(path, os.O_WRONLY | os.O_TRUNC))
    os.close(second)
    return [*seen, path.read_bytes()]


def times_of(base: Path) -> object:
    path = file(base / "file")
    seen = []
    for pair in [
        (1, 2),
        (1_700_000_000_123_456_789, 1_700_000_000_987_654_321),
        (-1, -1_500_000_001),
        (4_102_444_800_000_000_001, 7_000_000_000_000_000_001),
        (-2_000_000_000_000_000_000, 0),
    ]:
        os.utime(path, ns=pair)
        seen.append((path.stat().st_atime_ns, path.stat().st_mtime_ns))
    os.symlink("x", base / "link")
    os.utime(base / "link", ns=(5, 6), follow_symlinks=False)
    seen.append((base / "link").lstat().st_mtime_ns)
    os.utime(base, ns=(7, 8))
    seen.append(base.stat().st_mtime_ns)
    return seen


def which_times_change(base: Path) -> object:
    """Set all times far back, do one thing, and see whose times have moved."""
    directory, other, path = base / "directory", base / "other", base / "directory" / "file"
    target = base / "other" / "target"
    actions: list[Callable[[], object]] = [
        path.read_text,
        lambda: write_into(path),
        lambda: path.chmod(0o600),
        lambda: os.chown(path, os.geteuid(), -1),
        lambda: os.setxattr(path, "user.x", b"1"),
        lambda: os.removexattr(path, "user.x"),
        lambda: os.truncate(path, 3),
        lambda: os.truncate(path, 3),
        lambda: os.link(path, directory / "second"),
        lambda: os.unlink(directory / "second"),
        lambda: os.rename(path, target),
        lambda: os.rename(target, path),
        (other / "below").mkdir,
        lambda: os.rename(other / "below", directory / "below"),
        lambda: os.rmdir(directory / "below"),
        lambda: os.symlink("x", directory / "link"),
        lambda: os.readlink(directory / "link"),
        lambda: rename(path, file(target), EXCHANGE),
        lambda: os.listdir(directory),
        lambda: os.utime(path, ns=(1, 1)),
    ]
    directory.mkdir()
    other.mkdir()
    file(path)
    seen = []
    for action in actions:
        marks = [p for p in (directory, other, path, target) if p.exists()]
        for mark in marks:
            os.utime(mark, ns=(10, 10))
        before = {mark: mark.stat().st_ctime_ns for mark in marks}
        action()
        # atime is left out: it follows the mount's options.
        seen.append(
            [(m.name, m.stat().st_mtime_ns == 10, m.stat().st_ctime_ns == before[m]) for m in marks if m.exists()]
        )
    return seen


def special_files(base: Path) -> object:
    os.mkfifo(base / "fifo", 0o640)
    reading = os.open(base / "fifo", os.O_RDONLY | os.O_NONBLOCK)
    writing = os.open(base / "fifo", os.O_WRONLY)
    os.write(writing, b"through")
    seen: list[object] = [os.read(reading, 10), (base / "fifo").stat().st_size, mode(base / "fifo")]
    os.close(reading)
    os.close(writing)
    here = os.getcwd()
    os.chdir(base)  # a socket's path may have 108 bytes
    try:
        with socket.socket(socket.AF_UNIX) as server, socket.socket(socket.AF_UNIX) as client:
            server.bind("socket")
            server.listen()
            client.connect("socket")
            with server.accept()[0] as accepted:
                client.sendall(b"hello")
                seen.append(accepted.recv(10))
        seen += [mode(base / "socket"), tried(os.open, "socket", os.O_RDONLY)]
    finally:
        os.chdir(here)
    os.rename(base / "socket", base / "moved")
    os.unlink(base / "moved")
    return seen


def device_nodes(base: Path) -> object:
    os.mknod(base / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    os.mknod(base / "block", stat.S_IFBLK | 0o600, os.makedev(259, 70000))
    (base / "null").chmod(0o666)
    (base / "null").write_bytes(b"gone")
    seen = [(mode(base / name), (base / name).stat().st_rdev) for name in ("null", "block")]
    return seen, (base / "null").read_bytes()


def small_attributes(base: Path) -> object:
    path = file(base / "file")
    os.setxattr(path, "user.one", b"1")
    os.setxattr(path, "user.\xff\u00fc", b"\0\xff")
    os.setxattr(path, "user.empty", b"")
    os.setxattr(path, "user.one", b"2")
    seen = [(name, os.getxattr(path, name)) for name in sorted(os.listxattr(path))]
    os.removexattr(path, "user.one")
    os.setxattr(base, "user.directory", b"d")
    os.symlink("file", base / "link")
    return [
        seen,
        sorted(os.listxattr(path)),
        os.getxattr(base, "user.directory"),
        tried(lambda: os.setxattr(base / "link", "user.x", b"1", follow_symlinks=False)),
    ]


def negative_lookups(base: Path) -> object:
    path = base / "name"
    seen: list[object] = []
    for _ in range(3):
        seen.append(tried(os.stat, path))
        path.write_text("there")
        seen.append(path.read_text())
        os.rename(path, base / "elsewhere")
        seen.append(tried(os.stat, path))
        os.link(base / "elsewhere", path)
        seen.append(path.stat().st_nlink)
        os.unlink(path)
        os.symlink("elsewhere", path)
        seen.append(path.read_text())
        os.unlink(path)
        os.unlink(base / "elsewhere")
        path.mkdir()
        seen.append(path.is_dir())
        path.rmdir()
    return seen


def deep_tree(base: Path) -> object:
    """Deeper than a path can name: by descriptors down, and by descriptors up again."""
    depth = 1500
    fd = os.open(base, os.O_RDONLY)
    for _ in range(depth):
        os.mkdir("deeper", dir_fd=fd)
        below = os.open("deeper", os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = below
    with open(os.open("file", os.O_CREAT | os.O_WRONLY, dir_fd=fd), "w") as opened:
        opened.write("down here")
    with open(os.open("file", os.O_RDONLY, dir_fd=fd)) as opened:
        seen = [opened.read()]
    os.unlink("file", dir_fd=fd)
    for _ in range(depth):
        above = os.open("..", os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        os.rmdir("deeper", dir_fd=above)
        fd = above
    os.close(fd)
    return [*seen, os.listdir(base)]


def memory_mappings(base: Path) -> object:
    path = base / "mapped"
    path.write_bytes(bytes(100_000))
    with open(path, "r+b") as opened, mmap.mmap(opened.fileno(), 0) as mapped:
        mapped[5:10] = b"store"
        mapped[70_000:70_004] = b"more"
        mapped.flush()
        seen: list[object] = [path.read_bytes()[5:10], os.pread(opened.fileno(), 4, 70_000)]
        os.pwrite(opened.fileno(), b"by write", 200)
        seen.append(bytes(mapped[200:208]))
        mapped[300:304] = b"late"
    seen += [path.read_bytes()[300:304], path.stat().st_size]
    with (
        open(path, "rb") as opened,
        mmap.mmap(opened.fileno(), 0, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ) as mapped,
    ):
        seen.append(bytes(mapped[5:10]))
    return seen


def locks(base: Path) -> object:
    path = file(base / "locked")
    with open(path, "r+") as one, open(path, "r+") as two:
        fcntl.flock(one, fcntl.LOCK_EX)
        seen = [tried(fcntl.flock, two, fcntl.LOCK_EX | fcntl.LOCK_NB)]
        fcntl.flock(one, fcntl.LOCK_UN)
        seen.append(tried(fcntl.flock, two, fcntl.LOCK_EX | fcntl.LOCK_NB))
        seen.append(tried(fcntl.lockf, one, fcntl.LOCK_EX | fcntl.LOCK_NB, 10, 5))
    return seen


SCRIPTS: list[Script] = [
    set_id_bits,
    set_gid_directory,
    owner_of_new,
    link_counts,
    refusals,
    rename_flags,
    names_are_bytes,
    holes,
    far_offsets,
    unlinked_but_open,
    replaced_but_open,
    two_appenders,
    append_and_truncate,
    times_of,
    which_times_change,
    special_files,
    small_attributes,
    negative_lookups,
    deep_tree,
    memory_mappings,
    locks,
]
