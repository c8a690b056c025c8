"""Files that all processes of an exercise change at once: a log that they append to, and one with a part for each."""

import hashlib
import mmap
import os
from pathlib import Path
from typing import Final

from tests.exerciser.model import PAGE, Content, Difference
from tests.exerciser.place import Place

LOG: Final = "shared-log"
ROUNDS_PER_LOG: Final = 20
"""After so many rounds all begin another log."""
PARTS: Final = "shared-parts"
PART_BYTES: Final = 100_003
"""Not a multiple of a page: neighbours share one."""
MOST_PARTS: Final = 64


class Shared:
    """What one process does to the files of all."""

    def __init__(self, place: Place, process: int) -> None:
        self._root = place.root
        self._process = process
        self._log: int | None = None
        self._parts: int | None = None
        self._mine = Content()
        self._rounds = 0
        self.records = 0

    def next_round(self) -> None:
        """Go on with the next round."""
        self._rounds += 1
        if self._rounds % ROUNDS_PER_LOG == 0:
            self.records = 0
            if self._log is not None:
                os.close(self._log)
                self._log = None

    def append(self, length: int, flags: int) -> None:
        """Append a record that says how long it is, and prove that it is whole, by one system call."""
        if self._log is None:
            self._log = os.open(self._root / log_name(self._rounds), os.O_CREAT | os.O_APPEND | flags, 0o644)
        record = encode(self._process, self.records, length)
        written = os.write(self._log, record)
        assert written == len(record), f"{written} of {len(record)} bytes were appended"
        self.records += 1

    def change_part(self, number: int, offset: int, data: bytes, mapped: bool) -> None:
        """Change bytes of this process's part by a write, or by a store through a mapping that is synced at once."""
        if self._parts is None:
            self._parts = os.open(self._root / PARTS, os.O_CREAT | os.O_RDWR, 0o644)
            # As long as it will ever be: it must not grow while others store into its last page (lost_growth.py).
            os.pwrite(self._parts, b"\0", MOST_PARTS * PART_BYTES)
        offset %= PART_BYTES
        data = data[: PART_BYTES - offset]
        start = self._process * PART_BYTES
        if mapped and self._mine.size >= offset + len(data):
            skipped = start % PAGE
            with mmap.mmap(self._parts, skipped + self._mine.size, offset=start - skipped) as memory:
                memory[skipped + offset : skipped + offset + len(data)] = data
                memory.flush()
        else:
            mapped = False
            os.pwrite(self._parts, data, start + offset)
        self._mine.write(number, "stored in its part" if mapped else "written in its part", offset, data)
        self.check_part()

    def check_part(self) -> None:
        """Compare this process's part: no other changes it."""
        if self._mine.size:
            fd = os.open(self._root / PARTS, os.O_RDONLY)
            try:
                found = os.pread(fd, self._mine.size, self._process * PART_BYTES)
            finally:
                os.close(fd)
            self._mine.compare(0, found, f"part of process {self._process}", whole=True)

    def let_go(self) -> None:
        """Close the files; fine where the mount is gone."""
        for fd in (self._log, self._parts):
            if fd is not None:
                try:
                    os.close(fd)
                except OSError:
                    pass
        self._log = self._parts = None


def log_name(rounds: int) -> str:
    """Return the name of the log after so many rounds."""
    return f"{LOG}-{rounds // ROUNDS_PER_LOG}"


def encode(process: int, number: int, length: int) -> bytes:
    """Return a record of the log."""
    head = b"%d %d %d\n" % (process, number, length)
    seed = hashlib.sha256(head).digest()
    return head + (seed * (length // len(seed) + 1))[:length] + b"\n"


def check_log(path: Path, counts: dict[int, int]) -> None:
    """Compare the log with how many records each process had appended: none is lost, torn, twice or out of turn."""
    seen = dict.fromkeys(counts, 0)
    content = path.read_bytes() if path.exists() else b""
    at = 0
    while at < len(content):
        try:
            process, number, length = map(int, content[at : content.index(b"\n", at)].split())
        except ValueError:
            raise Difference(f"{path.name}: no record begins at {at}: {content[at : at + 60]!r}") from None
        record = encode(process, number, length)
        if content[at : at + len(record)] != record or number != seen.get(process):
            raise Difference(
                f"{path.name}: record {number} of process {process} at {at} is torn, or not the next: {seen}"
            )
        seen[process] += 1
        at += len(record)
    if seen != counts:
        raise Difference(f"{path.name} has {seen} records, of {counts}")
