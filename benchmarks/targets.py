"""What is measured: a plain directory on the disk, and filesystems that are mounted over one.

Each target is mounted with the options that it comes with, and knows nothing of what is measured. A target is a
context manager; leaving it unmounts, also after an error, and waits until the mount is gone.
"""

import os
import shutil
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

PATIENCE_SECONDS = 120
CHECKOUT = Path(__file__).parents[1]


class Target(ABC):
    """One filesystem at `path`, for as long as the context lasts."""

    name: str
    needs: str | None = None
    """The program without which there is nothing to measure."""

    def __init__(self, scratch: Path, tree: Path | None = None) -> None:
        """Keep everything below `scratch`; start with a copy of `tree` in it."""
        self.path = scratch / self.name / "mnt"
        self._below = scratch / self.name / "below"
        self._tree = tree

    def __enter__(self) -> Self:
        self.path.mkdir(parents=True)
        self._below.mkdir()
        try:
            self._prepare()
            self.mount()
        except BaseException:
            self._clear()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            self.unmount()
        finally:
            self._clear()

    def _prepare(self) -> None:
        """Put the tree below."""
        self._fill(self._below)

    def daemon(self) -> int | None:
        """Return the id of the process that serves the mount: the one whose command line names its path."""
        wanted = os.fsencode(self.path)
        for process in Path("/proc").iterdir():
            if process.name.isdigit() and wanted in _command_line(process):
                return int(process.name)
        return None

    @abstractmethod
    def mount(self) -> None:
        """Return when `path` shows the tree."""

    def unmount(self) -> None:
        """Unmount; nothing to do where it is not mounted."""
        if os.path.ismount(self.path):
            run("fusermount3", "-u", str(self.path))

    def _clear(self) -> None:
        if os.path.ismount(self.path):
            subprocess.run(["fusermount3", "-uz", str(self.path)], timeout=PATIENCE_SECONDS)
        shutil.rmtree(self.path.parent, ignore_errors=True)

    def _fill(self, directory: Path) -> None:
        if self._tree is not None:
            run("cp", "-a", f"{self._tree}/.", str(directory))


class Plain(Target):
    """A directory on the disk itself."""

    name = "disk"

    def _prepare(self) -> None:
        self._fill(self.path)

    def mount(self) -> None:
        """Nothing to do."""


class Bindfs(Target):
    """bindfs over a plain directory."""

    name = "bindfs"
    needs = "bindfs"

    def mount(self) -> None:
        """Mount it."""
        run("bindfs", str(self._below), str(self.path))


class FuseOverlayfs(Target):
    """fuse-overlayfs, the tree in its lower layer."""

    name = "fuse-overlayfs"
    needs = "fuse-overlayfs"

    def _prepare(self) -> None:
        for layer in ("lower", "upper", "work"):
            (self._below / layer).mkdir()
        self._fill(self._below / "lower")

    def mount(self) -> None:
        """Mount it."""
        options = f"lowerdir={self._below}/lower,upperdir={self._below}/upper,workdir={self._below}/work"
        run("fuse-overlayfs", "-o", options, str(self.path))


class Helios(Target):
    """A workspace, through the command line."""

    name = "helios"

    def _prepare(self) -> None:
        run(*helios(), "init", str(self._below / "store"), *(["--from", str(self._tree)] if self._tree else []))

    def mount(self) -> None:
        """Mount it."""
        run(*helios(), "mount", str(self.path), "--store", str(self._below / "store"))

    def unmount(self) -> None:
        """Unmount; nothing to do where it is not mounted."""
        if os.path.ismount(self.path):
            run(*helios(), "unmount", str(self.path))


class Before(Helios):
    """A workspace served by another checkout, the one that $HELIOS_BEFORE names: what a change costs, in one run."""

    name = "before"

    def _prepare(self) -> None:
        tree = ["--from", str(self._tree)] if self._tree else []
        run(*helios(), "init", str(self._below / "store"), *tree, checkout=self._checkout())

    def mount(self) -> None:
        """Mount it."""
        run(*helios(), "mount", str(self.path), "--store", str(self._below / "store"), checkout=self._checkout())

    @staticmethod
    def _checkout() -> Path:
        return Path(os.environ["HELIOS_BEFORE"])


COMPARED: tuple[type[Target], ...] = (Plain, Bindfs, FuseOverlayfs, Helios)
ALL: tuple[type[Target], ...] = (*COMPARED, Before)


def chosen(names: Sequence[str]) -> list[type[Target]]:
    """Return the targets of these names that this machine has; say on stderr which it has not."""
    known = {target.name: target for target in ALL}
    found = []
    for name in names:
        target = known[name]
        if target.needs and shutil.which(target.needs) is None:
            print(f"{name}: not measured, {target.needs} is not installed", file=sys.stderr)
        else:
            found.append(target)
    return found


@contextmanager
def mounted(targets: Sequence[type[Target]], scratch: Path, tree: Path | None = None) -> Iterator[list[Target]]:
    """Mount all of them at one time."""
    with ExitStack() as stack:
        yield [stack.enter_context(target(scratch, tree)) for target in targets]


def helios() -> list[str]:
    """Return the command that starts our command line: $HELIOS, or this interpreter's own."""
    if given := os.environ.get("HELIOS"):
        return given.split()
    return [sys.executable, "-m", "helios_fs.cli.main"]


def run(*command: str, checkout: Path = CHECKOUT) -> str:
    """Run a command and return what it printed; raise with what it complained of."""
    # So that the checkout's package is found, installed or not.
    path = os.pathsep.join(filter(None, [str(checkout), os.environ.get("PYTHONPATH", "")]))
    environment = os.environ | {"PYTHONPATH": path}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=20 * PATIENCE_SECONDS)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}: exit {done.returncode}: {done.stdout}{done.stderr}")
    return done.stdout


def make_tree(root: Path, files: int, size_bytes: int = 1000) -> list[str]:
    """Fill `root` with small files of different content, 100 to a directory; return their relative paths."""
    began = time.monotonic()
    names = []
    for number in range(files):
        if number % 100 == 0:
            directory = f"d{number // 10_000:03}/e{number // 100 % 100:02}"
            (root / directory).mkdir(parents=True)
        name = f"{directory}/f{number % 100:02}.txt"
        text = f"file {number}\n".encode()
        with open(root / name, "wb", buffering=0) as file:
            file.write((text * (size_bytes // len(text) + 1))[:size_bytes])
        names.append(name)
    print(f"made {files} files in {time.monotonic() - began:.1f} s", file=sys.stderr)
    return names


def _command_line(process: Path) -> list[bytes]:
    try:
        return (process / "cmdline").read_bytes().split(b"\0")
    except OSError:
        return []  # it ended while we looked
