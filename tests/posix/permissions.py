"""Who may do what, and what a change takes away. All as root: it takes several users to ask."""

import os
import shutil
import stat
import struct
import subprocess
from pathlib import Path

from tests.posix.probe import check, file, probe, refused
from tests.posix.system import OTHER_USER, THIRD_USER, as_other, in_child

DETAIL = "mount/test_permissions.py"
CAPABILITY = bytes.fromhex("0100000200040000000000000000000000000000")
_OWNER, _USER, _GROUP, _MASK, _OTHERS = 1, 2, 4, 16, 32


def acl(user: int, permissions: int) -> bytes:
    """Return a POSIX access control list: rw for the owner, `permissions` for one user, nothing for others."""
    entries = [(_OWNER, 6, -1), (_USER, permissions, user), (_GROUP, 0, -1), (_MASK, 7, -1), (_OTHERS, 0, -1)]
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHi", *entry) for entry in entries)


def _write(name: str = "file") -> None:
    with open(name, "r+b") as opened:
        opened.write(b"x")


def _special(mode: int) -> str:
    kept = [name for name, bit in (("set-uid", stat.S_ISUID), ("set-gid", stat.S_ISGID)) if mode & bit]
    return " and ".join(kept) + " kept" if kept else "dropped"


@probe("Other users are let in at all", root=True, also=DETAIL)
def other_users() -> None:
    file("file")
    check(as_other(Path("file").read_bytes) == b"content", "other content")


@probe("Others without permission: EACCES to read, list, search, make", root=True, also=DETAIL)
def no_permission() -> None:
    file("file", mode=0o600)
    os.mkdir("closed", 0o700)
    file("closed/inner")
    os.mkdir("visible", 0o755)

    def attempt() -> set[str]:
        return {
            refused(os.open, "file", os.O_RDONLY),
            refused(os.listdir, "closed"),
            refused(os.stat, "closed/inner"),
            refused(os.mkdir, "visible/x"),
        }

    check(as_other(attempt) == {"EACCES"}, "let in")


@probe("Search without read, and read without search, of directories", root=True)
def search_and_read() -> None:
    for name, mode in (("search", 0o711), ("read", 0o744)):
        os.mkdir(name)
        file(f"{name}/file")
        os.chmod(name, mode)

    def attempt() -> list[str]:
        return [refused(action, name) for name, action in (("search", os.listdir), ("read", os.listdir))] + [
            refused(os.stat, f"{name}/file") for name in ("search", "read")
        ]

    check(as_other(attempt) == ["EACCES", "done", "done", "EACCES"], "something else")


@probe("Members of a group, by a supplementary one too", root=True, also=DETAIL)
def groups() -> None:
    os.chown(file("file", mode=0o660), 0, 4321)
    check(as_other(lambda: refused(_write)) == "EACCES", "let in without")
    as_other(_write, groups=[4321])
    in_child(_write, OTHER_USER, 4321)


@probe("The owner's own bits count, not the others'", root=True)
def owner_without_bits() -> None:
    os.chown(file("file", mode=0o077), OTHER_USER, 0)
    check(as_other(lambda: refused(_write)) == "EACCES", "let in")


@probe("Root passes all permissions", root=True)
def root_passes() -> None:
    as_other(lambda: file("file", mode=0))
    _write()


@probe("chmod and chown are the owner's; chgrp to a group of his", root=True)
def changing_owners() -> None:
    file("theirs")
    os.chown(file("own"), OTHER_USER, OTHER_USER)

    def attempt() -> list[str]:
        return [
            refused(os.chmod, "theirs", 0o777),
            refused(os.chown, "theirs", OTHER_USER, -1),
            refused(os.chown, "own", THIRD_USER, -1),
            refused(os.chown, "own", -1, 4321),
            refused(os.chown, "own", -1, 1111),
        ]

    check(as_other(attempt, groups=[4321]) == ["EPERM", "EPERM", "EPERM", "done", "EPERM"], "something else")


@probe("A sticky directory: only the owner removes and renames", root=True, also="mount/test_semantics.py")
def sticky() -> None:
    os.mkdir("sticky")
    os.chmod("sticky", 0o1777)
    file("sticky/theirs", mode=0o666)

    def attempt() -> list[str]:
        file("sticky/own")
        return [
            refused(os.unlink, "sticky/theirs"),
            refused(os.rename, "sticky/theirs", "sticky/x"),
            refused(os.rename, "sticky/own", "sticky/theirs"),
            refused(os.unlink, "sticky/own"),
        ]

    check(as_other(attempt) == ["EPERM", "EPERM", "EPERM", "done"], "something else")


@probe("A set-uid program runs as its owner", root=True)
def set_uid_program() -> None:
    shutil.copy("/usr/bin/id", "program")
    os.chown("program", THIRD_USER, -1)
    os.chmod("program", 0o4755)
    shown = as_other(lambda: subprocess.run(["./program", "-u"], capture_output=True, check=True).stdout)
    check(shown.strip() == b"%d" % THIRD_USER, "as its caller")


@probe("Set-id bits after a write by somebody else", root=True, also=DETAIL)
def bits_after_write() -> str:
    file("file", mode=0o6777)
    as_other(_write)
    return _special(os.stat("file").st_mode)


@probe("Set-id bits after a write by root", root=True, also=DETAIL)
def bits_after_write_by_root() -> str:
    file("file", mode=0o6777)
    _write()
    return _special(os.stat("file").st_mode)


@probe("Set-id bits after an append by root through O_WRONLY", root=True, also=DETAIL)
def bits_after_append_by_root() -> str:
    fd = os.open(file("file"), os.O_WRONLY | os.O_APPEND)
    os.chmod("file", 0o6777)
    os.write(fd, b"x")
    return _special(os.stat("file").st_mode)


@probe("Set-id bits after a truncate by somebody else", root=True, also=DETAIL)
def bits_after_truncate() -> str:
    file("file", mode=0o6777)
    as_other(lambda: os.truncate("file", 1))
    return _special(os.stat("file").st_mode)


@probe("Set-id bits after O_TRUNC by somebody else", root=True, also=DETAIL)
def bits_after_o_trunc() -> str:
    file("file", mode=0o6777)
    as_other(lambda: os.close(os.open("file", os.O_WRONLY | os.O_TRUNC)))
    return _special(os.stat("file").st_mode)


@probe("Set-id bits after chown, a program", root=True, also=DETAIL)
def bits_after_chown() -> str:
    os.chown(file("file", mode=0o6755), THIRD_USER, THIRD_USER)
    return _special(os.stat("file").st_mode)


@probe("Set-gid without execution stays at chown (a sign for locks)", root=True)
def set_gid_without_execution() -> str:
    os.chown(file("file", mode=0o2644), THIRD_USER, THIRD_USER)
    return _special(os.stat("file").st_mode)


@probe("Set-gid without execution after a write by somebody not in the group", root=True, also=DETAIL)
def set_gid_without_execution_after_write() -> str:
    file("file", mode=0o2666)
    as_other(_write)
    return _special(os.stat("file").st_mode)


@probe("Set-gid without execution after a truncate by somebody not in the group", root=True, also=DETAIL)
def set_gid_without_execution_after_truncate() -> str:
    file("file", mode=0o2666)
    as_other(lambda: os.truncate("file", 1))
    return _special(os.stat("file").st_mode)


@probe("chmod +s by somebody not in the group drops set-gid", root=True)
def set_gid_of_a_stranger() -> str:
    os.chown(file("file", mode=0o755), OTHER_USER, 4321)
    as_other(lambda: os.chmod("file", 0o2755))
    return _special(os.stat("file").st_mode)


def _capable() -> None:
    os.setxattr(file("file", mode=0o777), "security.capability", CAPABILITY)


def _capability() -> str:
    return "kept" if "security.capability" in os.listxattr("file") else "dropped"


@probe("Capabilities after a write by somebody else", root=True, also=DETAIL)
def capability_after_write() -> str:
    _capable()
    as_other(_write)
    return _capability()


@probe("Capabilities after a write by root", root=True, also=DETAIL)
def capability_after_write_by_root() -> str:
    _capable()
    _write()
    return _capability()


@probe("Capabilities after a truncate", root=True, also=DETAIL)
def capability_after_truncate() -> str:
    _capable()
    os.truncate("file", 1)
    return _capability()


@probe("Capabilities after O_TRUNC", root=True, also=DETAIL)
def capability_after_o_trunc() -> str:
    _capable()
    os.close(os.open("file", os.O_WRONLY | os.O_TRUNC))
    return _capability()


@probe("Capabilities after chown", root=True, also=DETAIL)
def capability_after_chown() -> str:
    _capable()
    os.chown("file", THIRD_USER, -1)
    return _capability()


@probe("A program's capabilities work", root=True)
def capabilities_work() -> None:
    """CAP_DAC_OVERRIDE on a copy of cat lets somebody read what is closed to all."""
    shutil.copy("/usr/bin/cat", "program")
    os.chmod("program", 0o755)
    os.setxattr("program", "security.capability", struct.pack("<5I", 0x02000001, 1 << 1, 0, 0, 0))
    file("secret", mode=0)
    shown = as_other(lambda: subprocess.run(["./program", "secret"], capture_output=True).stdout)
    check(shown == b"content", "they do not")


@probe("Access control lists: setfacl", also=DETAIL)
def acl_is_set() -> None:
    os.setxattr(file("file"), "system.posix_acl_access", acl(OTHER_USER, 6))


@probe("Access control lists are obeyed", root=True, also=DETAIL)
def acl_is_obeyed() -> None:
    os.setxattr(file("file", mode=0o600), "system.posix_acl_access", acl(OTHER_USER, 6))
    as_other(_write)


@probe("Default access control lists are inherited", also=DETAIL)
def acl_is_inherited() -> None:
    os.setxattr(".", "system.posix_acl_default", acl(OTHER_USER, 6))
    check("system.posix_acl_access" in os.listxattr(file("file")), "they are not")
