"""A script of file operations that is the same every time for a seed, so that two trees can be compared at any step.

`python random_operations.py ROOT LOG SEED FIRST` carries out steps FIRST, FIRST+1, … below ROOT until something fails,
and appends one byte to LOG after each step that has returned. What a step does depends on the seed and the steps
before it only, never on what is found in ROOT. Each step makes one system call that changes something, so after a
crash a tree is in the state before or after a step, never between.
"""

import os
import random
import sys
from collections.abc import Callable
from dataclasses import dataclass

MOST_FILES = 250
MOST_DIRECTORIES = 20


@dataclass(frozen=True)
class Step:
    """One operation: its kind, the path below the root, and whatever else it takes."""

    kind: str
    path: str
    other: str = ""
    number: int = 0
    data: bytes = b""


class Script:
    """The steps, one after the other, and the names that there are after each of them."""

    def __init__(self, seed: int) -> None:
        self._chance = random.Random(seed)
        self._files: dict[str, int] = {}  # path -> which file: two names may mean one
        self._symlinks: list[str] = []
        self._directories = ["."]
        self.number = 0

    def next(self) -> Step:
        """Return the next step; from then on it counts as done."""
        self.number += 1
        while True:
            kind = self._chance.choices(list(_WEIGHTS), list(_WEIGHTS.values()))[0]
            step: Step | None = getattr(self, f"_{kind}")()
            if step is not None:
                return step

    def _new_path(self, prefix: str) -> str:
        return os.path.join(self._chance.choice(self._directories), f"{prefix}{self.number}")

    def _file(self) -> str:
        return self._chance.choice(list(self._files))

    def _create(self) -> Step | None:
        if len(self._files) >= MOST_FILES:
            return None
        path = self._new_path("file")
        self._files[path] = self.number
        return Step("create", path, number=0o600 | self._chance.randrange(0o100))

    def _write(self) -> Step | None:
        if not self._files:
            return None
        data = bytes([self._chance.randrange(256)]) * int(2 ** self._chance.uniform(0, 16))
        return Step("write", self._file(), number=int(2 ** self._chance.uniform(0, 18)) - 1, data=data)

    def _append(self) -> Step | None:
        data = b"%d\n" % self.number * self._chance.randrange(1, 40)
        return Step("append", self._file(), data=data) if self._files else None

    def _truncate(self) -> Step | None:
        length = int(2 ** self._chance.uniform(0, 18)) - 1
        return Step("truncate", self._file(), number=length) if self._files else None

    def _chmod(self) -> Step | None:
        mode = 0o600 | self._chance.randrange(0o100)
        return Step("chmod", self._file(), number=mode) if self._files else None

    def _setxattr(self) -> Step | None:
        if not self._files:
            return None
        data = self._chance.randbytes(self._chance.randrange(100))
        return Step("setxattr", self._file(), f"user.{self._chance.randrange(3)}", data=data)

    def _unlink(self) -> Step | None:
        names = [*self._files, *self._symlinks]
        if not names:
            return None
        path = self._chance.choice(names)
        self._forget(path)
        return Step("unlink", path)

    def _link(self) -> Step | None:
        if not 0 < len(self._files) < MOST_FILES:
            return None
        path, other = self._file(), self._new_path("link")
        self._files[other] = self._files[path]
        return Step("link", path, other)

    def _symlink(self) -> Step | None:
        if len(self._symlinks) >= MOST_DIRECTORIES:
            return None
        path = self._new_path("symlink")
        self._symlinks.append(path)
        return Step("symlink", path, f"to/{self.number}")

    def _replace(self) -> Step | None:
        if not self._files:
            return None
        path, other = self._file(), self._file()
        if self._files[path] == self._files[other]:
            return None  # rename(2): two names of one file stay as they are
        self._files[other] = self._files.pop(path)
        return Step("rename", path, other)

    def _move(self) -> Step | None:
        if not self._files:
            return None
        path, other = self._file(), self._new_path("moved")
        self._files[other] = self._files.pop(path)
        return Step("rename", path, other)

    def _mkdir(self) -> Step | None:
        if len(self._directories) >= MOST_DIRECTORIES:
            return None
        path = self._new_path("dir")
        self._directories.append(path)
        return Step("mkdir", path)

    def _move_directory(self) -> Step | None:
        path, other = self._chance.choice(self._directories), self._new_path("dir")
        if path == "." or other.startswith(path + "/"):
            return None
        self._files = {_moved(name, path, other): file for name, file in self._files.items()}
        self._symlinks = [_moved(name, path, other) for name in self._symlinks]
        self._directories = [_moved(name, path, other) for name in self._directories]
        return Step("rename", path, other)

    def _rmdir(self) -> Step | None:
        path = self._chance.choice(self._directories)
        names = (*self._files, *self._symlinks, *self._directories)
        if path == "." or any(name.startswith(path + "/") for name in names):
            return None
        self._directories.remove(path)
        return Step("rmdir", path)

    def _snapshot(self) -> Step:
        return Step("snapshot", f"at{self.number}")

    def _forget(self, path: str) -> None:
        if path in self._files:
            del self._files[path]
        else:
            self._symlinks.remove(path)


_WEIGHTS = {
    "create": 20,
    "write": 30,
    "append": 15,
    "truncate": 5,
    "chmod": 4,
    "setxattr": 4,
    "unlink": 10,
    "link": 3,
    "symlink": 2,
    "replace": 6,
    "move": 6,
    "mkdir": 4,
    "move_directory": 2,
    "rmdir": 2,
    "snapshot": 0.5,
}


def perform(root: str, step: Step, take_snapshot: Callable[[str, str], None]) -> None:
    """Carry out one step below `root`."""
    path, other = os.path.join(root, step.path), os.path.join(root, step.other)
    match step.kind:
        case "create":
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, step.number))
        case "write":
            _write(path, os.O_WRONLY, step.data, step.number)
        case "append":
            _write(path, os.O_WRONLY | os.O_APPEND, step.data, None)
        case "truncate":
            os.truncate(path, step.number)
        case "chmod":
            os.chmod(path, step.number)
        case "setxattr":
            os.setxattr(path, step.other, step.data)
        case "unlink":
            os.unlink(path)
        case "link":
            os.link(path, other)
        case "symlink":
            os.symlink(step.other, path)
        case "rename":
            os.rename(path, other)
        case "mkdir":
            os.mkdir(path)
        case "rmdir":
            os.rmdir(path)
        case "snapshot":
            take_snapshot(root, step.path)


def _moved(name: str, source: str, target: str) -> str:
    return target + name[len(source) :] if name == source or name.startswith(source + "/") else name


def _write(path: str, flags: int, data: bytes, offset: int | None) -> None:
    fd = os.open(path, flags)
    try:
        while data:
            # A short write is no error; where it was a dying mount, the next one says so.
            written = os.write(fd, data) if offset is None else os.pwrite(fd, data, offset)
            data = data[written:]
            offset = None if offset is None else offset + written
    finally:
        os.close(fd)


def make_snapshot(root: str, name: str) -> None:
    """Take a snapshot of a mounted workspace."""
    os.mkdir(os.path.join(root, ".snapshots", name))


def main() -> None:
    root, log_path, seed, first = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    os.umask(0)
    script = Script(seed)
    log = os.open(log_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    for _ in range(first):
        script.next()
    print("ready", flush=True)
    while True:
        perform(root, script.next(), make_snapshot)
        os.write(log, b".")


if __name__ == "__main__":
    main()
