"""One mounted workspace for all tests of a module, and running a part of a test as somebody else."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from tests.mount.mounted import Workspace
from tests.posix.system import in_child

_T = TypeVar("_T")

ORDINARY_USER = 65534
"""`nobody` on Debian; its files are nobody's else in a test."""


def runner(folder: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Return what the fixture `helios` returns, for as long as `folder` is there."""
    path = os.pathsep.join(filter(None, [str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")]))
    environment = {**os.environ, "PYTHONPATH": path, "XDG_DATA_HOME": str(folder / "xdg-data"), "NO_COLOR": "1"}

    def run(*arguments: str | os.PathLike[str], check: bool = False) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [sys.executable, "-m", "helios_fs.cli.main", *map(os.fspath, arguments)],
            capture_output=True,
            text=True,
            errors="surrogateescape",
            stdin=subprocess.DEVNULL,
            cwd=folder,
            env=environment,
            timeout=120,
        )
        assert not check or done.returncode == 0, f"helios {arguments}: {done.stdout}{done.stderr}"
        return done

    return run


@contextmanager
def one_workspace(folder: Path, *options: str) -> Iterator[Workspace]:
    """A mounted workspace that several tests share; each of them works in a directory of its own."""
    workspace = Workspace(runner(folder), folder)
    try:
        workspace.helios("mount", workspace.path, "--store", workspace.store, *options, check=True)
        yield workspace
    finally:
        workspace.remove()


def run_as(user: int, where: Path, action: Callable[[Path], _T]) -> _T:
    """Run `action(Path("."))` in `where` in a child process of another user, and return what it returned.

    For root only. The way to `where` need not be open to that user.
    """
    return in_child(lambda: action(Path(".")), user, where=where)
