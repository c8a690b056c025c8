"""Snapshots and branches that were made on the way, and what must be in them for ever."""

import os
from collections import OrderedDict
from pathlib import Path
from typing import Final

from tests.exerciser.model import Content, Difference
from tests.exerciser.place import Place

MOST_SNAPSHOTS: Final = 8
MOST_BRANCHES: Final = 3


class Past:
    """What one process has kept: its files only, whatever others do in the same tree."""

    def __init__(self, place: Place, folder: str) -> None:
        self._place = place
        self._folder = folder
        self._snapshots: OrderedDict[str, dict[str, bytes]] = OrderedDict()
        self._branches: OrderedDict[str, dict[str, Content]] = OrderedDict()

    # -- Snapshots ---------------------------------------------------------------------------------------------------

    def take(self, number: int, names: dict[str, Content]) -> None:
        """Take a snapshot, and look whether everything is in it."""
        name = f"{self._folder}-{number}"
        (self._place.root / ".snapshots" / name).mkdir()
        self._snapshots[name] = {path: bytes(content.data) for path, content in names.items()}
        self._look_at(name)
        if len(self._snapshots) > MOST_SNAPSHOTS:
            self.forget(0)

    def look(self, choice: int) -> None:
        """Look whether one of the snapshots is as it was."""
        if self._snapshots:
            self._look_at(list(self._snapshots)[choice % len(self._snapshots)])

    def look_at_all(self) -> None:
        """Look whether all snapshots and branches are as they must be."""
        for name in self._snapshots:
            self._look_at(name)
        for name in self._branches:
            self._look_into(name)

    def _look_at(self, name: str) -> None:
        folder = self._place.root / ".snapshots" / name / self._folder
        expected = self._snapshots[name]
        _same_names(folder, set(expected))
        for path, content in expected.items():
            found = (folder / path).read_bytes()
            if found != content:
                kept = Content()
                kept.data[:] = content
                raise Difference(kept.explain(0, found, content, f"{path} in snapshot {name}"))

    def forget(self, choice: int) -> None:
        """Delete a snapshot."""
        if self._snapshots:
            name = list(self._snapshots)[choice % len(self._snapshots)]
            (self._place.root / ".snapshots" / name).rmdir()
            del self._snapshots[name]

    def forget_all(self) -> None:
        """Delete all snapshots and branches."""
        while self._snapshots:
            self.forget(0)
        while self._branches:
            self.forget_branch(0)

    # -- Branches ----------------------------------------------------------------------------------------------------

    def branch(self, number: int, names: dict[str, Content]) -> None:
        """Make a branch, and look whether everything is in it."""
        while len(self._branches) >= MOST_BRANCHES:
            self.forget_branch(0)
        name = f"b-{self._folder}-{number}"
        (self._place.root / ".branches" / name).mkdir()
        kept = self._branches[name] = {}
        copies: dict[int, Content] = {}  # names of one file are names of one file there too
        for path, content in names.items():
            copy = copies.setdefault(id(content), Content())
            copy.data[:] = content.data
            kept[path] = copy
        self._look_into(name)

    def change_branch(self, number: int, choice: int, offset: int, data: bytes) -> None:
        """Write into a file of a branch, or cut it."""
        if not self._branches:
            return
        branch = list(self._branches)[choice % len(self._branches)]
        names = self._branches[branch]
        if not names:
            return
        name = sorted(names)[choice % len(names)]
        path = self._files(branch) / name
        if choice % 7 == 0:
            os.truncate(path, offset)
            names[name].truncate(number, offset)
        else:
            fd = os.open(path, os.O_WRONLY if choice % 2 else os.O_RDWR)
            try:
                os.pwrite(fd, data, offset)
            finally:
                os.close(fd)
            names[name].write(number, "written in the branch", offset, data)
        names[name].compare(0, path.read_bytes(), f"{name} in branch {branch}", whole=True)

    def look_into_branch(self, choice: int) -> None:
        """Look whether a branch is as it must be."""
        if self._branches:
            self._look_into(list(self._branches)[choice % len(self._branches)])

    def _files(self, branch: str) -> Path:
        return self._place.root / ".branches" / branch / self._folder

    def _look_into(self, branch: str) -> None:
        names = self._branches[branch]
        _same_names(self._files(branch), set(names))
        for name, content in names.items():
            content.compare(0, (self._files(branch) / name).read_bytes(), f"{name} in branch {branch}", whole=True)

    def forget_branch(self, choice: int) -> None:
        """Delete a branch, whatever is in it."""
        if self._branches:
            name = list(self._branches)[choice % len(self._branches)]
            self._place.delete_branch(name)
            del self._branches[name]


def _same_names(folder: Path, expected: set[str]) -> None:
    found = set(os.listdir(folder))
    if found != expected:
        raise Difference(f"{folder} holds {sorted(found)}, not {sorted(expected)}")
