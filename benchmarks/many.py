"""Many clients at one time: how much a target gets done for 1, 2, 4 and 8 processes that each mind their own files."""

import multiprocessing
import os
import time
from multiprocessing.synchronize import Barrier
from pathlib import Path

from benchmarks.report import Report
from benchmarks.run import Options
from benchmarks.targets import mounted

_PAGE = b"z" * 4096


def measure(options: Options) -> None:
    """Print how many microseconds of the wall clock one file costs: made, written, stat'ed, read, renamed, removed."""
    rounds, files = (2, 100) if options.quick else (5, 500)
    report = Report("many", "µs of wall clock per file", options.json_file)
    with mounted(options.targets, options.scratch) as targets:
        for number in range(rounds):
            for clients in (1, 2, 4, 8):
                for target in targets:
                    directory = target.path / f"round{number}.{clients}"
                    directory.mkdir()
                    seconds = _together(directory, clients, files)
                    report.add(f"{clients} clients", target.name, [seconds * 1e6 / (clients * files)])
    report.show()


def _together(directory: Path, clients: int, files: int) -> float:
    context = multiprocessing.get_context("fork")
    barrier = context.Barrier(clients + 1)
    workers = [context.Process(target=_work, args=(directory, client, files, barrier)) for client in range(clients)]
    for worker in workers:
        worker.start()
    barrier.wait()
    began = time.monotonic()
    for worker in workers:
        worker.join()
        if worker.exitcode != 0:
            raise RuntimeError(f"a client failed in {directory}")
    return time.monotonic() - began


def _work(directory: Path, client: int, files: int, barrier: Barrier) -> None:
    own = f"{directory}/{client}"
    os.mkdir(own)
    barrier.wait()
    for number in range(files):
        path = f"{own}/{number}"
        fd = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
        os.write(fd, _PAGE)
        os.close(fd)
        if os.stat(path).st_size != len(_PAGE):
            raise RuntimeError(f"{path}: wrong size")
        fd = os.open(path, os.O_RDONLY)
        if os.read(fd, 8192) != _PAGE:
            raise RuntimeError(f"{path}: wrong content")
        os.close(fd)
        os.rename(path, path + ".done")
        os.unlink(path + ".done")
