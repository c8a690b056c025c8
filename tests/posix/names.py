"""Names: rename, links, special files, handles; what statx says of them."""

import ctypes
import os
import socket
import stat
import struct
from pathlib import Path

from tests.posix.probe import PROGRAMS, NoError, check, file, probe, refused
from tests.posix.system import AT_EMPTY_PATH, AT_FDCWD, AT_SYMLINK_FOLLOW, as_other, call, rename, statx


@probe("RENAME_NOREPLACE", also="mount/test_semantics.py")
def rename_noreplace() -> None:
    file("one")
    rename("one", "two", 1)
    check(refused(rename, "two", file("one"), 1) == "EEXIST", "replaced")


@probe("RENAME_EXCHANGE", also="mount/test_semantics.py")
def rename_exchange() -> None:
    os.mkdir("two")
    rename(file("one"), "two", 2)
    check(Path("one").is_dir() and Path("two").is_file(), "not exchanged")


@probe("RENAME_WHITEOUT", root=True, also=PROGRAMS)
def rename_whiteout() -> None:
    rename(file("one"), "two", 4)
    check(stat.S_ISCHR(os.lstat("one").st_mode), "no whiteout")


@probe("rename onto another name of the same file changes nothing")
def rename_to_itself() -> None:
    os.link(file("one"), "two")
    os.rename("one", "two")
    check(sorted(os.listdir()) == ["one", "two"], "one name went")


@probe("rename replaces a file that is open")
def rename_over_open() -> None:
    with open(file("old", b"old"), "rb") as opened:
        os.rename(file("new", b"new"), "old")
        check(opened.read() == b"old" and Path("old").read_bytes() == b"new", "other content")


@probe("Hard links: one inode, its number of names")
def hard_links() -> None:
    os.link(file("one"), "two")
    one, two = os.stat("one"), os.stat("two")
    check((one.st_ino, one.st_dev) == (two.st_ino, two.st_dev), "two inodes")
    check(one.st_nlink == 2, f"st_nlink is {one.st_nlink}")


@probe("A write through one name shows through the other")
def hard_links_share() -> None:
    os.link(file("one"), "two")
    with open("two", "ab") as opened:
        opened.write(b" and more")
    check(Path("one").read_bytes() == b"content and more", "two contents")
    check(os.stat("one").st_size == 16, "two sizes")


@probe("Hard links to symlinks and fifos")
def hard_links_to_others() -> None:
    os.symlink("x", "link")
    os.mkfifo("fifo")
    for name in ("link", "fifo"):
        os.link(name, f"{name}-2", follow_symlinks=False)
        check(os.lstat(name).st_nlink == 2, "st_nlink stayed")


@probe("linkat: AT_EMPTY_PATH", root=True)
def link_by_descriptor() -> None:
    with open(file("one")) as opened:
        call("linkat", opened.fileno(), b"", AT_FDCWD, b"two", AT_EMPTY_PATH)
    check(os.stat("one").st_nlink == 2, "st_nlink stayed")


@probe("linkat of a file without a name: ENOENT")
def link_of_the_nameless() -> None:
    with open(file("one")) as opened:
        os.unlink("one")
        opened_as = b"/proc/self/fd/%d" % opened.fileno()
        answer = refused(call, "linkat", AT_FDCWD, opened_as, AT_FDCWD, b"two", AT_SYMLINK_FOLLOW)
    check(answer == "ENOENT", answer)


@probe("Symlinks of 4,095 bytes")
def long_symlink() -> None:
    os.symlink("t" * 4095, "link")
    check(len(os.readlink("link")) == os.lstat("link").st_size == 4095, "other size")


@probe("A fifo carries bytes")
def fifo() -> None:
    os.mkfifo("fifo")
    reading = os.open("fifo", os.O_RDONLY | os.O_NONBLOCK)
    writing = os.open("fifo", os.O_WRONLY)
    os.write(writing, b"through")
    check(os.read(reading, 10) == b"through", "other bytes")


@probe("A socket is bound, connected to, renamed")
def unix_socket() -> None:
    with socket.socket(socket.AF_UNIX) as server, socket.socket(socket.AF_UNIX) as client:
        server.bind("socket")
        server.listen()
        os.rename("socket", "moved")
        client.connect("moved")
        check(stat.S_ISSOCK(os.lstat("moved").st_mode), "no socket")


@probe("mknod of a plain file")
def node_of_a_file() -> None:
    os.mknod("file", stat.S_IFREG | 0o640)
    check(os.stat("file").st_mode == stat.S_IFREG | 0o640, "other mode")


@probe("mknod of a device, which works", root=True)
def node_of_a_device() -> None:
    os.mknod("null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    Path("null").write_bytes(b"gone")
    check(Path("null").read_bytes() == b"" and os.stat("null").st_rdev == os.makedev(1, 3), "not /dev/null")


@probe("mknod of a block device", root=True)
def node_of_a_disk() -> None:
    os.mknod("disk", stat.S_IFBLK | 0o600, os.makedev(259, 70000))
    check(os.stat("disk").st_rdev == os.makedev(259, 70000), "other number")


@probe("mknod of a whiteout, character device 0/0", root=True)
def node_of_a_whiteout() -> None:
    os.mknod("whiteout", stat.S_IFCHR, os.makedev(0, 0))
    check(os.listdir() == ["whiteout"] and stat.S_ISCHR(os.lstat("whiteout").st_mode), "not shown")


@probe("mknod of a whiteout by an ordinary user", root=True)
def whiteout_of_a_user() -> None:
    as_other(lambda: os.mknod("whiteout", stat.S_IFCHR, os.makedev(0, 0)))


@probe("mknod of a device by an ordinary user: EPERM", root=True)
def device_of_a_user() -> None:
    check(as_other(lambda: refused(os.mknod, "x", stat.S_IFCHR, os.makedev(1, 3))) == "EPERM", "made")


@probe("Names of 255 bytes; 256 are ENAMETOOLONG")
def long_names() -> None:
    file("n" * 255)
    check(refused(file, "n" * 256) == "ENAMETOOLONG", "256 too")


@probe("Names of any bytes, and case matters")
def any_names() -> None:
    for name in (b"\xff\xfe", b"new\nline", b"A", b"a", b" "):
        with open(name, "wb"):
            pass
    check(len(os.listdir(b".")) == 5, "some are one")


@probe("statx: the time of birth", also=PROGRAMS)
def birth_time() -> None:
    check(bool(statx(file("file")).mask & 0x800), "not told")


@probe("statx: mask without birth, mount and alignment")
def statx_mask() -> str:
    return f"{statx(file('file')).mask & 0x7FF:#x}"


@probe("statx: the mount's id")
def statx_mount() -> None:
    check(statx(file("file")).mount > 0, "not told")


@probe("statx: attributes immutable, append, compressed")
def statx_attributes() -> None:
    check(bool(statx(file("file")).attributes_mask & 0x34), "not told")


def _handle(path: str) -> ctypes.Array[ctypes.c_char]:
    handle = ctypes.create_string_buffer(struct.pack("=Ii", 128, 0), 136)
    call("name_to_handle_at", AT_FDCWD, os.fsencode(path), handle, ctypes.byref(ctypes.c_int()), 0)
    return handle


@probe("name_to_handle_at", also=PROGRAMS)
def handle_of_a_name() -> None:
    file("file")
    _handle("file")


@probe("open_by_handle_at, while the file is known", root=True)
def open_by_handle() -> None:
    file("file")
    here = os.open(".", os.O_RDONLY)
    fd = call("open_by_handle_at", here, _handle("file"), os.O_RDONLY)
    check(os.read(fd, 10) == b"content", "other content")


@probe("open_by_handle_at of a file that is gone: ESTALE", root=True)
def open_stale_handle() -> None:
    file("file")
    handle = _handle("file")
    os.unlink("file")
    answer = refused(call, "open_by_handle_at", os.open(".", os.O_RDONLY), handle, os.O_RDONLY)
    if answer != "ESTALE":
        raise NoError(answer)
