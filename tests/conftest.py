"""Fixtures that every kind of test may use."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

Helios = Callable[..., subprocess.CompletedProcess[str]]

# A shell without job control starts what runs in the background with these ignored, and all its children inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGQUIT, signal.SIG_DFL)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skip, with the reason, what this machine or user cannot run."""
    fuse_missing = None
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        fuse_missing = "/dev/fuse cannot be opened (sudo modprobe fuse; sudo chmod 666 /dev/fuse)"
    elif shutil.which("fusermount3") is None:
        fuse_missing = "fusermount3 is missing (apt-get install fuse3)"
    for item in items:
        if item.get_closest_marker("root") and os.geteuid() != 0:
            item.add_marker(pytest.mark.skip(reason="needs root"))
        if fuse_missing and item.get_closest_marker("fuse"):
            item.add_marker(pytest.mark.skip(reason=fuse_missing))


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """The environment of a command that finds this checkout's package and keeps its data below the test's folder."""
    root = str(Path(__file__).parents[1])
    path = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH", "")]))
    return {**os.environ, "PYTHONPATH": path, "XDG_DATA_HOME": str(tmp_path / "xdg-data"), "NO_COLOR": "1"}


@pytest.fixture
def helios(environment: dict[str, str], tmp_path: Path) -> Helios:
    """Run the real command line in a process of its own: `helios("log", "--json", cwd=…, check=True)`."""

    def run(
        *arguments: str | os.PathLike[str], check: bool = False, **more: object
    ) -> subprocess.CompletedProcess[str]:
        options: dict[str, object] = {"cwd": tmp_path, "env": environment, "timeout": 120, **more}
        done = subprocess.run(
            [sys.executable, "-c", "from helios_fs.cli.start import main; main()", *map(os.fspath, arguments)],
            capture_output=True,
            text=True,
            errors="surrogateescape",
            stdin=subprocess.DEVNULL,
            **options,  # type: ignore[call-overload]  # keyword arguments as they come
        )
        if check:
            assert done.returncode == 0, f"helios {arguments} exited {done.returncode}:\n{done.stdout}{done.stderr}"
        return done

    return run


@pytest.fixture
def workspace(helios: Helios, tmp_path: Path) -> Iterator[Path]:
    """A mounted, empty workspace whose store is `tmp_path / "store"`; unmounted when the test is over."""
    mountpoint = tmp_path / "ws"
    mountpoint.mkdir()
    helios("init", tmp_path / "store", check=True)
    helios("mount", mountpoint, "--store", tmp_path / "store", check=True)
    yield mountpoint
    if os.path.ismount(mountpoint):
        helios("unmount", mountpoint, check=True)
