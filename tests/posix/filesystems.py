"""The filesystems that are compared, made and mounted in one folder. For root.

ext4 is made in a file of that folder; the others lie on it, so that they differ from it by what they do themselves.
"""

import os
import platform
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.mount.one_mount import one_workspace

NAMES = ("HeliosFS", "ext4", "overlayfs", "fuse-overlayfs", "bindfs")
_OPTIONS = "allow_other,dev,suid"


def _run(*command: str | Path) -> str:
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout + done.stderr


@contextmanager
def _unmounted_after(mountpoint: Path) -> Iterator[Path]:
    try:
        yield mountpoint
    finally:
        _run("umount", mountpoint)


@contextmanager
def mounted(folder: Path) -> Iterator[dict[str, Path]]:
    """Make all of them below `folder`; yield where each is mounted."""
    places = {name: folder / name for name in NAMES if name != "HeliosFS"}
    for place in places.values():
        place.mkdir()
    with ExitStack() as stack:
        disk, ext4 = folder / "disk", places["ext4"]
        os.truncate(os.open(disk, os.O_CREAT | os.O_RDWR), 256 << 20)
        _run("mkfs.ext4", "-q", "-b", "4096", "-I", "256", disk)
        _run("mount", "-o", "loop", disk, ext4)
        stack.enter_context(_unmounted_after(ext4))
        for name in ("overlayfs", "fuse-overlayfs", "bindfs"):
            for part in ("lower", "upper", "work"):
                (ext4 / name / part).mkdir(parents=True)
            below = ext4 / name
            layers = f"lowerdir={below}/lower,upperdir={below}/upper,workdir={below}/work"
            if name == "overlayfs":
                _run("mount", "-t", "overlay", "-o", layers, "overlay", places[name])
            elif name == "fuse-overlayfs":
                _run("fuse-overlayfs", "-o", f"{layers},{_OPTIONS}", places[name])
            else:
                _run("bindfs", "-o", _OPTIONS, below / "upper", places[name])
            stack.enter_context(_unmounted_after(places[name]))
        workspace = stack.enter_context(one_workspace(folder, "-o", "allow_other"))
        yield {"HeliosFS": workspace.path, **places}


def versions() -> str:
    """Return what was compared, in one line."""
    overlay = _run("fuse-overlayfs", "--version").split("fuse-overlayfs: version")[1].split()[0]
    return f"Linux {platform.release()}, fuse-overlayfs {overlay}, {_run('bindfs', '--version').strip()}"
