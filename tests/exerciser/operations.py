"""Operations on files, at random, the same every time for a seed.

An operation does not depend on what those before it have done: its numbers are taken relative to what there is when it
is carried out, so that any of them can be left out (reduce.py).
"""

import json
import os
import random
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Final

MIB: Final = 1 << 20
MOST_BYTES: Final = 3 * MIB
"""Of a file; a write that begins before it may end behind it."""
NAMES: Final = ("a", "b", "c")
SLOTS: Final = 6
"""Descriptors that stay open from one operation to the next."""
MAPPINGS: Final = 3

_BORDERS: Final = (4096, 64 * 1024, 128 * 1024, 256 * 1024, MIB)
"""Of pages, of the smallest, usual and largest chunk, and of a region of extents."""

ACCESS: Final = (os.O_RDWR, os.O_RDWR, os.O_WRONLY, os.O_WRONLY, os.O_RDONLY)
FLAGS: Final = (0, 0, 0, 0, os.O_APPEND, os.O_DIRECT, os.O_SYNC, os.O_DSYNC, os.O_APPEND | os.O_DSYNC)

WEIGHTS: Final = {
    "open": 80,
    "close": 25,
    "write": 100,
    "pwrite": 120,
    "writev": 30,
    "burst": 20,
    "read": 60,
    "pread": 80,
    "truncate": 30,
    "ftruncate": 30,
    "map": 45,
    "store": 90,
    "load": 90,
    "msync": 20,
    "unmap": 15,
    "fsync": 12,
    "fdatasync": 8,
    "copy_range": 15,
    "sendfile": 15,
    "splice": 15,
    "replace": 15,
    "unlink": 6,
    "link": 8,
    "rename": 8,
    "seek_holes": 15,
    "snapshot": 14,
    "look_back": 25,
    "forget_snapshot": 8,
    "branch": 2,
    "change_branch": 8,
    "look_into_branch": 8,
    "forget_branch": 1.5,
    "append_shared": 20,
    "change_part": 20,
    "seal": 3,
    "forget_pages": 12,
    "check_all": 15,
}


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation: its number, which says what it writes too, its kind, and whatever else it takes."""

    number: int
    kind: str
    name: str = NAMES[0]
    other: str = NAMES[1]
    slot: int = 0
    offset: int = 0
    target: int = 0
    length: int = 1
    flags: int = 0
    choice: int = field(default=0)
    """A number below 1,000 for what is left to choose."""


class Generator:
    """The operations of one process, one after the other, from a beginning with nothing."""

    def __init__(self, seed: str) -> None:
        self._chance = random.Random(seed)
        self._kinds = list(WEIGHTS)
        self._weights = list(WEIGHTS.values())
        self.number = 0

    def next(self) -> Operation:
        """Return the next operation."""
        chance = self._chance
        self.number += 1
        return Operation(
            self.number,
            chance.choices(self._kinds, self._weights)[0],
            chance.choice(NAMES),
            chance.choice(NAMES),
            chance.randrange(SLOTS),
            self._offset(),
            self._offset(),
            self._length(),
            chance.choice(ACCESS) | chance.choice(FLAGS) | (os.O_TRUNC if chance.random() < 0.04 else 0),
            chance.randrange(1000),
        )

    def _offset(self) -> int:
        chance = self._chance
        if chance.random() < 0.5:
            border = chance.choice(_BORDERS)
            most = MOST_BYTES if chance.random() < 0.3 else max(border, 512 * 1024)
            near = border * chance.randrange(most // border + 1) + chance.choice((-4096, -100, -2, -1, 0, 0, 1, 2, 100))
            return max(0, near)
        return int(2 ** chance.uniform(0, 21.5)) - 1

    def _length(self) -> int:
        chance = self._chance
        if chance.random() < 0.3:
            return max(1, chance.choice((1, 2, 4, 16, *_BORDERS)) + chance.choice((-1, 0, 0, 1)))
        return int(2 ** chance.uniform(0, 17 if chance.random() < 0.9 else 20))


def data(seed: str, operation: Operation, length: int) -> bytes:
    """Return what an operation writes: mostly bytes that no other writes, else what compresses, or occurs again."""
    if operation.choice % 10 == 0:
        return bytes([operation.number % 256]) * length
    if operation.choice % 10 == 1:
        again = random.Random(operation.choice).randbytes(65_536)
        return (again * (length // 65_536 + 1))[:length]
    return random.Random(f"{seed} {operation.number}").randbytes(length)


def save(path: Path, seed: str, operations: list[Operation]) -> None:
    """Write operations down so that they can be carried out again."""
    lines = [json.dumps(seed), *(json.dumps(asdict(operation)) for operation in operations)]
    path.write_text("\n".join(lines) + "\n")


def load(path: Path) -> tuple[str, list[Operation]]:
    """Read what `save` has written: the seed of the data, and the operations."""
    first, *lines = path.read_text().splitlines()
    return json.loads(first), [Operation(**json.loads(line)) for line in lines]
