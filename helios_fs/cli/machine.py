"""What a mount needs from this machine and from its mountpoint, found out before anything is tried.

Each check returns what is wrong and what to do about it, or None. `helios mount` stops at the first that matters,
`helios doctor` lists them all.
"""

import errno
import os
import shlex
import shutil
import stat
import subprocess
from typing import Final, Literal, NamedTuple

from helios_fs.cli import mounts
from helios_fs.errors import MountFailed

FUSE_DEVICE: Final = "/dev/fuse"
FUSE_CONFIG: Final = "/etc/fuse.conf"

_ANSWER_SECONDS: Final = 10.0
"""How long a mount may take to answer: nothing that it does for others takes seconds."""


class Finding(NamedTuple):
    """One thing that is wrong."""

    problem: str
    remedy: str
    """What to do: a command where there is one."""
    kind: str
    """A word that programs can tell it by."""
    serious: bool = True
    """False where everything works, but not as one may expect."""

    def __str__(self) -> str:
        """Return it as one line."""
        return f"{self.problem}; {self.remedy}"


def fuse_device(path: str = FUSE_DEVICE) -> Finding | None:
    """Check that the kernel's FUSE device can be opened by this user."""
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CLOEXEC))
    except FileNotFoundError:
        return Finding(f"there is no {path}", "load the module: sudo modprobe fuse", "fuse-device-missing")
    except PermissionError:
        return Finding(f"{path} may not be opened by this user", f"sudo chmod 666 {path}", "fuse-device-closed")
    except OSError as error:
        remedy = "load the module: sudo modprobe fuse"
        return Finding(f"{path} cannot be opened: {error.strerror}", remedy, "fuse-device-broken")
    return None


def fusermount() -> Finding | None:
    """Check that fusermount3 is there, and set-uid where this user needs that."""
    path = shutil.which("fusermount3")
    if path is None:
        return Finding("fusermount3 is missing", "sudo apt-get install fuse3", "fusermount-missing")
    if os.geteuid() != 0 and not os.stat(path).st_mode & stat.S_ISUID:
        return Finding(f"{path} is not set-uid root", f"sudo chmod u+s {path}", "fusermount-not-setuid")
    return None


def allow_other(config: str = FUSE_CONFIG) -> Finding | None:
    """Check that this user may let others see a mount."""
    if os.geteuid() == 0:
        return None
    try:
        with open(config, encoding="utf-8", errors="replace") as file:
            if any(line.strip() == "user_allow_other" for line in file):
                return None
    except OSError:
        pass
    return Finding(
        f"-o allow_other needs root, or the line user_allow_other in {config}",
        f"echo user_allow_other | sudo tee -a {config}",
        "user-allow-other-missing",
        serious=False,
    )


def state_of(mountpoint: str, timeout_seconds: float = _ANSWER_SECONDS) -> Literal["fine", "dead", "stuck"]:
    """Ask a mount: dead is one whose daemon is gone ("Transport endpoint is not connected"), stuck one that waits."""
    import threading

    answers: list[int] = []

    def ask() -> None:
        try:
            # Not stat: the kernel keeps the root's attributes and would go on answering for a daemon that is dead.
            os.statvfs(mountpoint)
            answers.append(0)
        except OSError as error:
            answers.append(error.errno or 0)

    # A daemon that is stopped lets a system call wait for ever, so another thread waits; it ends with this process.
    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(timeout_seconds)
    if not answers:
        return "stuck"
    return "dead" if answers[0] == errno.ENOTCONN else "fine"


def is_stale(mountpoint: str) -> bool:
    """Tell whether a mount is there whose daemon is gone. Raises MountFailed for one that does not answer."""
    state = state_of(mountpoint)
    if state == "stuck":
        raise MountFailed(
            f"{mountpoint}: what is mounted there does not answer; if it never will, end its daemon, then"
            f" fusermount3 -uz {shlex.quote(mountpoint)}"
        )
    return state == "dead"


def clear_stale(mountpoint: str) -> None:
    """Take away a mount whose daemon is gone. Raises MountFailed with the command that would do it."""
    command = ["fusermount3", "-uz", "--", mountpoint]
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
        said = done.stderr.strip()
    except OSError as error:
        said = f"fusermount3: {error.strerror}"
    if mounts.find_mount_at(mountpoint)[1] is not None and is_stale(mountpoint):
        raise MountFailed(
            f"{mountpoint}: a mount whose daemon is gone is in the way and cannot be cleared ({said});"
            f" sudo umount -l {shlex.quote(mountpoint)}"
        )


def check_mountpoint(mountpoint: str) -> None:
    """Check that something can be mounted there; `mountpoint` is absolute and no symlink. Raises MountFailed."""
    quoted = shlex.quote(mountpoint)
    mounted, ours = mounts.find_mount_at(mountpoint)
    if ours is not None:
        raise MountFailed(
            f"{mountpoint}: already mounted (branch {ours.branch} of {ours.store}); helios unmount {quoted}"
        )
    if mounted:
        raise MountFailed(f"{mountpoint}: something else is mounted there; choose another directory")
    try:
        if not stat.S_ISDIR(os.stat(mountpoint).st_mode):
            raise MountFailed(f"{mountpoint}: not a directory; choose an empty directory")
        with os.scandir(mountpoint) as entries:
            if any(True for _ in entries):
                raise MountFailed(
                    f"{mountpoint}: not empty, and a mount would hide what is in it; choose an empty directory, or"
                    f" take it in with: helios init STORE --from {quoted}"
                )
    except FileNotFoundError:
        raise MountFailed(f"{mountpoint}: does not exist; mkdir -p {quoted}") from None
    except OSError as error:
        raise MountFailed(f"{mountpoint}: {error.strerror}") from error
    if os.geteuid() != 0 and not os.access(mountpoint, os.W_OK):
        raise MountFailed(
            f"{mountpoint}: you may not write there, and fusermount3 wants that; choose another directory"
        )


def users_of(mountpoint: str, daemon: int) -> list[str]:
    """Return the processes that use a mount, as "pid (name)", as far as this user may see.

    The daemon itself, what it has started and this process are left out.

    Reads links in /proc only, so a mount that does not answer cannot block it.
    """
    prefix = mountpoint.rstrip("/") + "/"
    ignored = (daemon, os.getpid())
    users = []
    for pid in filter(str.isdecimal, os.listdir("/proc")):
        if int(pid) in ignored or not any(link == mountpoint or link.startswith(prefix) for link in _links(pid)):
            continue
        if _parent(pid) != daemon:
            try:
                with open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as file:
                    users.append(f"{pid} ({file.read().strip()})")
            except OSError:
                continue
    return users


def _parent(pid: str) -> int:
    """Return who started a process; 0 where it is gone. Its name, in brackets, may have spaces (proc(5))."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return int(file.read().rpartition(b")")[2].split()[1])
    except OSError:
        return 0


def _links(pid: str) -> list[str]:
    found = []
    names = [f"/proc/{pid}/{name}" for name in ("cwd", "root", "exe")]
    for folder in ("fd", "map_files"):
        try:
            names += [f"/proc/{pid}/{folder}/{name}" for name in os.listdir(f"/proc/{pid}/{folder}")]
        except OSError:
            continue
    for name in names:
        try:
            found.append(os.readlink(name))
        except OSError:
            continue
    return found
