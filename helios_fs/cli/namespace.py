"""Show one directory at the path of another, to one process and what it starts (mount_namespaces(7)).

Knows nothing of workspaces or branches: two directories and a mount namespace.

N1. Nobody outside sees anything of it, and it is gone with the last process in it.
N2. Who one is stays the same: an ordinary user needs a user namespace (user_namespaces(7)), and in it the user and the
    group are mapped to themselves. Other users' and groups' numbers appear as `nobody` there.
N3. A process that `show` has failed in is spoiled, for it may be in half a namespace; a new one starts afresh.
"""

import ctypes
import os
from typing import Final

# From linux/sched.h and linux/mount.h.
_CLONE_NEWNS: Final = 0x00020000
_CLONE_NEWUSER: Final = 0x10000000
_MS_BIND: Final = 4096
_MS_REC: Final = 16384
_MS_SLAVE: Final = 1 << 19


def show(directory: str, at: str) -> None:
    """Let this process see `directory` where it saw `at`, both absolute and existing. Only for a single-threaded one.

    The working directory and what is open already stay where they are: change directory afterwards. What others mount
    or unmount later is seen here too, so a disk can be unmounted while a run is on.

    Raises OSError where the machine does not allow it, by a sysctl, seccomp, an LSM or for want of a capability.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    user, group = os.geteuid(), os.getegid()
    if libc.unshare(_CLONE_NEWNS) != 0:
        # A root that lacks CAP_SYS_ADMIN would be a root that may not chown in a user namespace with one user in it:
        # a build is better off with the directory where it is.
        if user == 0:
            raise _failed("unshare")
        if libc.unshare(_CLONE_NEWUSER | _CLONE_NEWNS) != 0:
            raise _failed("unshare")
        _write("/proc/self/setgroups", "deny")
        _write("/proc/self/uid_map", f"{user} {user} 1")
        _write("/proc/self/gid_map", f"{group} {group} 1")
    # Before the bind: where / is shared, it would appear for everybody.
    if libc.mount(b"none", b"/", None, ctypes.c_ulong(_MS_REC | _MS_SLAVE), None) != 0:
        raise _failed("mount")
    source, target = os.fsencode(directory), os.fsencode(at)
    if libc.mount(source, target, None, ctypes.c_ulong(_MS_BIND | _MS_REC), None) != 0:
        raise _failed("mount")


def _failed(call: str) -> OSError:
    number = ctypes.get_errno()
    return OSError(number, f"{call}: {os.strerror(number)}")


def _write(path: str, text: str) -> None:
    fd = os.open(path, os.O_WRONLY)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)
