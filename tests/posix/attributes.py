"""Attributes and times."""

import os
import stat
import time
from collections.abc import Callable
from pathlib import Path

from tests.posix.probe import check, file, probe, refused
from tests.posix.system import Directory, as_other

DETAIL = "mount/test_attributes.py"
SECOND = 10**9


def _keeps(nanoseconds: int) -> None:
    file("file")
    os.utime("file", ns=(nanoseconds, nanoseconds))
    seen = os.stat("file").st_mtime_ns
    check(seen == nanoseconds, f"it becomes {seen // SECOND} s")


@probe("Times to the nanosecond", also=DETAIL)
def nanoseconds() -> None:
    _keeps(1_234_567_890_123_456_789)


@probe("Times before 1970")
def times_before_1970() -> None:
    _keeps(-1_500_000_001)


@probe("Times before 1901")
def times_before_1901() -> None:
    _keeps(-5_000_000_000 * SECOND)


@probe("Times after 2038")
def times_after_2038() -> None:
    _keeps(3_000_000_000 * SECOND + 1)


@probe("Times after 2106")
def times_after_2106() -> None:
    _keeps(5_000_000_000 * SECOND + 1)


@probe("Times after 2446")
def times_after_2446() -> None:
    _keeps(17_000_000_000 * SECOND + 1)


def _atime_follows(action: Callable[[], object], path: str) -> str:
    """Which rule the time of the last access follows."""
    rules = []
    soon = time.time_ns() + 3600 * SECOND  # later than the ctime that utime will set
    for atime, mtime in ((10, 20), (soon, 20)):
        os.utime(path, ns=(atime, mtime), follow_symlinks=False)
        action()
        rules.append(os.lstat(path).st_atime_ns != atime)
    return {(False, False): "noatime", (True, False): "relatime", (True, True): "strictatime"}.get(
        (rules[0], rules[1]), "odd"
    )


@probe("atime after a read, by the mount's default rule", also=DETAIL)
def atime_of_a_file() -> str:
    return _atime_follows(file("file").read_bytes, "file")


@probe("atime after a listing", also=DETAIL)
def atime_of_a_directory() -> str:
    os.mkdir("directory")
    file("directory/file")
    return _atime_follows(lambda: Directory("directory").rest(), "directory")


@probe("atime after readlink", also=DETAIL)
def atime_of_a_symlink() -> str:
    os.symlink(".", "link")
    return _atime_follows(lambda: os.readlink("link"), "link")


def _moves(path: str, action: Callable[[], object]) -> str:
    """Which of mtime and ctime move with an action."""
    os.utime(path, ns=(10, 10), follow_symlinks=False)
    before = os.lstat(path)
    action()
    after = os.lstat(path)
    moved = [name for name in ("mtime", "ctime") if getattr(before, f"st_{name}_ns") != getattr(after, f"st_{name}_ns")]
    return "+".join(moved) or "none"


@probe("What write moves", also="mount/test_semantics.py")
def times_of_write() -> str:
    file("file")
    return _moves("file", lambda: Path("file").write_bytes(b"more"))


@probe("What chmod moves")
def times_of_chmod() -> str:
    file("file")
    return _moves("file", lambda: os.chmod("file", 0o600))


@probe("What link moves, in the file")
def times_of_link() -> str:
    file("file")
    return _moves("file", lambda: os.link("file", "other"))


@probe("What rename moves, in the file")
def times_of_rename() -> str:
    file("file")
    before = os.stat("file")
    os.rename("file", "other")
    after = os.stat("other")
    return "ctime" if before.st_ctime_ns != after.st_ctime_ns and before.st_mtime_ns == after.st_mtime_ns else "none"


@probe("What setxattr moves")
def times_of_setxattr() -> str:
    file("file")
    return _moves("file", lambda: os.setxattr("file", "user.x", b"1"))


@probe("What truncate to the same size moves")
def times_of_truncate() -> str:
    file("file")
    return _moves("file", lambda: os.truncate("file", 7))


@probe("What unlink of one of two names moves, in the file")
def times_of_unlink() -> str:
    os.link(file("file"), "other")
    return _moves("file", lambda: os.unlink("other"))


@probe("What making, renaming and removing a name moves, in the directory")
def times_of_a_parent() -> str:
    os.mkdir("directory")
    moved = {
        _moves("directory", action)
        for action in (
            lambda: file("directory/file"),
            lambda: os.rename("directory/file", "directory/other"),
            lambda: os.unlink("directory/other"),
            lambda: os.mkdir("directory/below"),
            lambda: os.rmdir("directory/below"),
            lambda: os.symlink("x", "directory/link"),
        )
    }
    return " or ".join(sorted(moved))


@probe("What write to a file moves, in the directory")
def times_of_an_uncle() -> str:
    os.mkdir("directory")
    file("directory/file")
    return _moves("directory", lambda: file("directory/file"))


@probe("Two changes have two times, when somebody looks in between")
def times_tell_apart() -> None:
    file("file")
    seen = set()
    for _ in range(20):
        with open("file", "ab") as opened:
            opened.write(b"x")
        seen.add(os.stat("file").st_mtime_ns)
    check(len(seen) == 20, "some are the same")


@probe("utimensat: UTIME_OMIT and UTIME_NOW; who may", root=True)
def touching() -> None:
    file("file", mode=0o666)
    answers = as_other(lambda: [refused(os.utime, "file"), refused(lambda: os.utime("file", ns=(1, 1)))])
    check(answers == ["done", "EPERM"], ", ".join(answers))


@probe("umask")
def umask() -> None:
    os.umask(0o027)
    os.close(os.open("file", os.O_CREAT | os.O_WRONLY, 0o666))
    os.mkdir("directory", 0o777)
    modes = [stat.S_IMODE(os.stat(name).st_mode) for name in ("file", "directory")]
    check(modes == [0o640, 0o750], f"{modes[0]:o} and {modes[1]:o}")


@probe("A set-gid directory gives its group, and its bit to directories", root=True, also=DETAIL)
def set_gid_directory() -> None:
    os.mkdir("directory")
    os.chown("directory", -1, 4321)
    os.chmod("directory", 0o2777)
    as_other(lambda: (file("directory/file"), os.mkdir("directory/below")))
    below, made = os.stat("directory/below"), os.stat("directory/file")
    check(below.st_gid == made.st_gid == 4321, "the maker's group")
    check(bool(below.st_mode & stat.S_ISGID), "no bit")


@probe("chmod of a symlink: EOPNOTSUPP")
def mode_of_a_symlink() -> None:
    os.symlink("x", "link")
    fd = os.open("link", os.O_PATH | os.O_NOFOLLOW)
    check(refused(os.chmod, f"/proc/self/fd/{fd}", 0o600) in ("EOPNOTSUPP", "ENOENT"), "done")


@probe("st_ino stays: write, rename, link, chmod, replace of another", also=DETAIL)
def stable_inode_number() -> None:
    number = os.stat(file("file")).st_ino
    file("file", b"more")
    os.rename("file", "other")
    os.link("other", "second")
    os.rename(file("third"), "other")
    check(os.stat("second").st_ino == number != os.stat("other").st_ino, "it changes")


@probe("st_ino: fstat, stat and a listing agree")
def one_inode_number() -> None:
    with open(file("file")) as opened:
        numbers = {os.fstat(opened.fileno()).st_ino, os.stat("file").st_ino, next(os.scandir()).inode()}
    check(len(numbers) == 1, "they do not")


@probe("st_blocks after a write, at once")
def blocks_after_a_write() -> None:
    fd = os.open("file", os.O_CREAT | os.O_WRONLY)
    os.write(fd, bytes(8192))
    check(os.fstat(fd).st_blocks == 16, f"{os.fstat(fd).st_blocks}")


@probe("st_blocks of one byte in each of 16 pages")
def blocks_of_scattered_bytes() -> str:
    fd = os.open("file", os.O_CREAT | os.O_WRONLY)
    for page in range(16):
        os.pwrite(fd, b"x", page * 4096)
    os.fsync(fd)
    return str(os.fstat(fd).st_blocks)


@probe("st_blksize")
def block_size() -> str:
    return str(os.stat(file("file")).st_blksize)


@probe("statvfs: sizes, names of 255 bytes")
def room() -> None:
    answer = os.statvfs(".")
    check(answer.f_namemax == 255 and answer.f_blocks >= answer.f_bfree >= answer.f_bavail > 0, "odd")
    check(answer.f_files >= answer.f_ffree > 0, "no inodes")


@probe("A time in the future, a size of 0 and a mode of 0 are kept")
def odd_values() -> None:
    path = Path("file")
    file("file", b"", 0)
    os.utime(path, ns=(4 * 10**18, 4 * 10**18))
    answer = path.stat()
    check((answer.st_size, stat.S_IMODE(answer.st_mode), answer.st_mtime_ns) == (0, 0, 4 * 10**18), "not kept")
