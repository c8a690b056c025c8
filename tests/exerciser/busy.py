"""A process that keeps the sealer at work: many small files and snapshots, and one seal asked for after the other."""

import os
from typing import Final

from tests.exerciser.model import Difference
from tests.exerciser.place import Place

_FILES: Final = 40
_SNAPSHOTS: Final = 5
STEPS: Final = 5
"""Of a round."""


class Busy:
    """Small files that are written anew all the time."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._folder = place.root / "busy"
        self._folder.mkdir()
        self._expected: dict[str, bytes] = {}
        self._snapshots: list[tuple[str, dict[str, bytes]]] = []

    def step(self, number: int) -> None:
        """Write some of the files, take a snapshot, and have it sealed."""
        for at in range(_FILES):
            name = f"f{(number * 7 + at) % (3 * _FILES)}"
            content = b"%d %s\n" % (number, os.fsencode(name)) * (1 + (number * at) % 300)
            (self._folder / name).write_bytes(content)
            self._expected[name] = content
        snapshot = f"busy-{number}"
        (self._place.root / ".snapshots" / snapshot).mkdir()
        self._snapshots.append((snapshot, dict(self._expected)))
        self._place.seal()
        if len(self._snapshots) > _SNAPSHOTS:
            gone = self._snapshots.pop(number % _SNAPSHOTS)[0]
            (self._place.root / ".snapshots" / gone).rmdir()

    def look(self) -> None:
        """Look whether all files, and those in snapshots, are as they were written."""
        trees = [(f".snapshots/{name}/busy", expected) for name, expected in self._snapshots]
        for path, expected in [("busy", self._expected), *trees]:
            folder = self._place.root / path
            found = {name: (folder / name).read_bytes() for name in os.listdir(folder)}
            if found != expected:
                wrong = [name for name in found | expected if found.get(name) != expected.get(name)]
                raise Difference(f"{folder}: {wrong} differ")
