"""Single operations, one client: the table that the README shows.

Rounds are interleaved: each round measures every row on every target, in an order that turns from round to round, so
that a slow minute of the machine hits all of them.
"""

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from benchmarks.report import Report
from benchmarks.run import Options
from benchmarks.targets import Target, mounted

Add = Callable[[str, list[float]], None]

_clock = time.perf_counter_ns
_PAGE = b"x" * 4096
_MEBIBYTE = os.urandom(1 << 20)


def measure(options: Options) -> None:
    """Print the table."""
    rounds, count, mebibytes = (2, 100, 16) if options.quick else (5, 1000, 128)
    report = Report("ops", "µs", options.json_file)
    with mounted(options.targets, options.scratch) as targets:
        for number in range(rounds):
            for target in _turned(targets, number):
                directory = target.path / f"round{number}"
                directory.mkdir()

                def add(row: str, samples: list[float], name: str = target.name) -> None:
                    report.add(row, name, samples)

                _names(directory, count, add)
                _small_writes(directory, count, add)
                _streams(directory, mebibytes, add)
                directory.rmdir()
    report.show()


def _turned(targets: list[Target], by: int) -> Iterator[Target]:
    for index in range(len(targets)):
        yield targets[(index + by) % len(targets)]


def _each(operation: Callable[[str], object], paths: list[str]) -> list[float]:
    clock = _clock
    took = []
    for path in paths:
        before = clock()
        operation(path)
        took.append((clock() - before) / 1000)
    return took


def _create(path: str) -> None:
    fd = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
    os.write(fd, _PAGE)
    os.close(fd)


def _read(path: str) -> None:
    fd = os.open(path, os.O_RDONLY)
    os.read(fd, 4096)
    os.close(fd)


def _names(directory: Path, count: int, add: Add) -> None:
    files = [f"{directory}/file{number}" for number in range(count)]
    moved = [f"{directory}/moved{number}" for number in range(count)]
    folders = [f"{directory}/folder{number}" for number in range(count)]
    absent = [f"{directory}/absent{number}" for number in range(count)]
    add("create + write 4 KiB + close", _each(_create, files))
    _each(os.stat, files)
    add("stat, warm", _each(os.stat, files))
    _each(_read, files)
    add("open + read 4 KiB + close, warm", _each(_read, files))
    _each(os.path.exists, absent)
    add("stat of a name that is not there, warm", _each(os.path.exists, absent))
    add("rename", _each(lambda path: os.rename(path, path.replace("/file", "/moved")), files))
    add("unlink", _each(os.unlink, moved))
    add("mkdir", _each(os.mkdir, folders))
    add("rmdir", _each(os.rmdir, folders))


def _small_writes(directory: Path, count: int, add: Add) -> None:
    path = f"{directory}/small"
    record = b"y" * 100
    fd = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o644)
    add("append 100 bytes", _each(lambda _: os.write(fd, record), [path] * count))
    os.close(fd)

    fd = os.open(path, os.O_RDWR)

    def write_stat_read(_: str) -> None:
        os.pwrite(fd, _PAGE, 0)
        os.stat(path)
        os.pread(fd, 4096, 0)

    def write_sync(_: str) -> None:
        os.pwrite(fd, _PAGE, 0)
        os.fsync(fd)

    add("write 4 KiB + stat + read 4 KiB", _each(write_stat_read, [path] * count))
    add("write 4 KiB + fsync", _each(write_sync, [path] * (count // 10)))
    os.close(fd)
    os.unlink(path)


def _streams(directory: Path, mebibytes: int, add: Add) -> None:
    path = f"{directory}/stream"
    turns = [path] * mebibytes
    fd = os.open(path, os.O_CREAT | os.O_WRONLY, 0o644)
    add("write 1 MiB, sequential", _each(lambda _: os.write(fd, _MEBIBYTE), turns))
    os.close(fd)
    fd = os.open(path, os.O_RDWR)
    overwrite = "write 1 MiB over it, through a descriptor that may also read"
    add(overwrite, _each(lambda _: os.write(fd, _MEBIBYTE), turns))
    # The mount's pages go; what lies below it may still have them in memory, except for the disk itself.
    os.fsync(fd)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    buffer = bytearray(1 << 20)
    for row in ("read 1 MiB, sequential, not cached by the mount", "read 1 MiB, sequential, warm"):
        os.lseek(fd, 0, os.SEEK_SET)
        add(row, _each(lambda _: os.readv(fd, [buffer]), turns))
    os.close(fd)
    os.unlink(path)
