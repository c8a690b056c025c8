"""Extended attributes."""

import ctypes
import os

from tests.posix.probe import check, file, probe, refused
from tests.posix.system import OTHER_USER, as_other, call

CAPABILITY = bytes.fromhex("0100000200040000000000000000000000000000")


def _set_and_get(path: str, name: str, value: bytes) -> None:
    os.setxattr(path, name, value, follow_symlinks=False)
    check(os.getxattr(path, name, follow_symlinks=False) == value, "another value")
    check(name in os.listxattr(path, follow_symlinks=False), "not listed")
    os.removexattr(path, name, follow_symlinks=False)
    check(refused(lambda: os.getxattr(path, name, follow_symlinks=False)) == "ENODATA", "not removed")


@probe("user.*")
def user_attribute() -> None:
    _set_and_get(str(file("file")), "user.x", b"bytes \0\xff")


@probe("trusted.*, for root", root=True)
def trusted_attribute() -> None:
    _set_and_get(str(file("file")), "trusted.x", b"bytes")


@probe("trusted.* are not listed to others, nor theirs to set", root=True, also="mount/test_semantics.py")
def trusted_of_others() -> None:
    os.setxattr(file("file", mode=0o666), "trusted.x", b"1")
    os.setxattr("file", "user.x", b"1")
    listed, answer = as_other(lambda: (os.listxattr("file"), refused(lambda: os.setxattr("file", "trusted.y", b"1"))))
    check(listed == ["user.x"], "listed")
    check(answer == "EPERM", answer)


@probe("security.capability", root=True)
def capability_attribute() -> None:
    _set_and_get(str(file("file")), "security.capability", CAPABILITY)


@probe("system.* and unknown kinds: EOPNOTSUPP")
def unknown_attribute() -> None:
    file("file")
    answers = {refused(lambda n=name: os.setxattr("file", n, b"")) for name in ("other.x", "nodot")}
    check(answers == {"EOPNOTSUPP"}, ", ".join(answers))


@probe("Largest value, of 100, 4,000, 65,536 bytes")
def largest_value() -> str:
    file("file")
    return next(
        f"{size:,}" for size in (65_536, 4_000, 100) if refused(os.setxattr, "file", "user.x", bytes(size)) == "done"
    )


@probe("A value of 65,537 bytes: E2BIG")
def too_large_a_value() -> None:
    check(refused(os.setxattr, file("file"), "user.x", bytes(65_537)) == "E2BIG", "taken")


@probe("When a file has too many: ENOSPC")
def too_many() -> None:
    file("file")
    answers = [refused(os.setxattr, "file", f"user.{number}", bytes(4_000)) for number in range(400)]
    check(set(answers) == {"done", "ENOSPC"}, ", ".join(sorted(set(answers))))


@probe("ERANGE: a buffer that is too small; 0 asks for the size")
def small_buffer() -> None:
    os.setxattr(file("file"), "user.x", b"four")
    buffer = ctypes.create_string_buffer(3)
    check(refused(call, "getxattr", b"file", b"user.x", buffer, 3) == "ERANGE", "cut")
    check(refused(call, "listxattr", b"file", buffer, 3) == "ERANGE", "a list is cut")
    check(call("getxattr", b"file", b"user.x", None, 0) == 4, "another size")


@probe("Names of 255 bytes; longer: ERANGE")
def long_attribute_names() -> None:
    os.setxattr(file("file"), "user." + "n" * 250, b"1")
    check(refused(os.setxattr, "file", "user." + "n" * 251, b"1") == "ERANGE", "longer too")


@probe("XATTR_CREATE: EEXIST; XATTR_REPLACE: ENODATA")
def create_and_replace() -> None:
    file("file")
    check(refused(os.setxattr, "file", "user.x", b"1", os.XATTR_REPLACE) == "ENODATA", "made")
    os.setxattr("file", "user.x", b"1", os.XATTR_CREATE)
    check(refused(os.setxattr, "file", "user.x", b"2", os.XATTR_CREATE) == "EEXIST", "replaced")


@probe("An empty value is one")
def empty_value() -> None:
    _set_and_get(str(file("file")), "user.x", b"")


@probe("user.* on a directory")
def attribute_of_a_directory() -> None:
    os.mkdir("directory")
    _set_and_get("directory", "user.x", b"1")


@probe("user.* on a symlink and on a fifo: EPERM")
def attribute_of_a_symlink() -> None:
    os.symlink("x", "link")
    os.mkfifo("fifo")
    for name in ("link", "fifo"):
        answer = refused(lambda n=name: os.setxattr(n, "user.x", b"1", follow_symlinks=False))
        check(answer == "EPERM", answer)


@probe("trusted.* on a symlink and on a device", root=True)
def trusted_of_a_symlink() -> None:
    os.symlink("x", "link")
    _set_and_get("link", "trusted.x", b"1")
    os.mknod("device", 0o020600, os.makedev(1, 3))
    _set_and_get("device", "trusted.x", b"1")


@probe("By permission: reading takes read, setting takes write", root=True)
def attribute_of_others() -> None:
    os.setxattr(file("readable", mode=0o644), "user.x", b"1")
    os.setxattr(file("closed", mode=0o600), "user.x", b"1")

    def attempt() -> list[str]:
        return [
            refused(os.getxattr, "readable", "user.x"),
            refused(os.setxattr, "readable", "user.x", b"2"),
            refused(os.getxattr, "closed", "user.x"),
        ]

    check(as_other(attempt) == ["done", "EACCES", "EACCES"], "something else")


@probe("They stay with rename, link, chmod, truncate, chown", root=True)
def attributes_stay() -> None:
    os.setxattr(file("file"), "user.x", b"1")
    os.rename("file", "other")
    os.link("other", "second")
    os.chmod("second", 0o600)
    os.truncate("second", 0)
    os.chown("second", OTHER_USER, -1)
    check(os.getxattr("second", "user.x") == b"1", "gone")
