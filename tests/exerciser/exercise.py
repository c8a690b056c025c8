"""Several processes that exercise one mount, which is unmounted, killed and mounted again between their rounds."""

import contextlib
import multiprocessing
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, Final

from helios_fs.cli.workspace import child
from tests.exerciser.model import Difference
from tests.exerciser.place import Place, run_helios
from tests.exerciser.shared import ROUNDS_PER_LOG, check_log, log_name
from tests.exerciser.worker import BUSY, ENDINGS, KILL, REMOUNT, STAY, work
from tests.mount.mounted import Workspace

_PATIENCE_SECONDS: Final = 600
"""For one round of all processes."""
_ROUNDS_PER_GC: Final = 10
BRANCH: Final = "work"


class Failed(Exception):
    """A process found a difference, or did not come to an end."""


@dataclass
class Worker:
    """A process and the way to it."""

    number: int
    process: BaseProcess
    pipe: Connection
    operations: int = 0
    records: int = 0
    """That it has appended to the log of all."""

    def receive(self, seconds: float) -> Any:
        """Return what it says next. Raises Failed."""
        if not self.pipe.poll(seconds):
            raise Failed(f"{self.process.name} says nothing for {seconds} s")
        try:
            kind, value = self.pipe.recv()
        except EOFError:
            raise Failed(f"{self.process.name} has ended without a word") from None
        if kind == "failed":
            raise Failed(value)
        return value


def tree(workspace: Workspace, in_branch: bool) -> Place:
    """Return the working tree of a mount, or of a branch of it, made where it was not there."""
    if not in_branch:
        return Place(workspace.path, workspace.store)
    (workspace.path / ".branches" / BRANCH).mkdir(exist_ok=True)
    return Place(workspace.path / ".branches" / BRANCH, workspace.store, child(str(workspace.store), "main", BRANCH))


@contextlib.contextmanager
def workers(numbers: list[int], start: Callable[[int, Connection], BaseProcess]) -> Iterator[list[Worker]]:
    """Processes that are gone when the block ends, however it ends."""
    running: list[Worker] = []
    try:
        for number in numbers:
            ours, theirs = multiprocessing.Pipe()
            process = start(number, theirs)
            process.start()
            theirs.close()
            running.append(Worker(number, process, ours))
        yield running
    finally:
        for worker in running:
            worker.process.join(10 if worker.process.exitcode is None else 0)
            if worker.process.exitcode is None:
                worker.process.kill()
                worker.process.join()
            worker.pipe.close()


def exercise(
    workspace: Workspace,
    seed: int,
    processes: int,
    logs: Path,
    seconds: float,
    in_branch: bool = False,
    say: Callable[[str], None] = print,
) -> int:
    """Exercise for so many seconds; return how many operations were done in all.

    Raises Failed. The endings of rounds depend on the seed, as all that the processes do.
    """
    chance = random.Random(f"{seed} endings")
    place = tree(workspace, in_branch)
    spawning = multiprocessing.get_context("spawn")
    end = time.monotonic() + seconds

    def start(number: int, pipe: Connection) -> BaseProcess:
        log = logs / f"process{number}.log"
        return spawning.Process(target=work, args=(pipe, place, seed, number, log), name=f"process {number}")

    with workers([*range(processes), BUSY], start) as running:
        rounds = 0
        while True:
            _round(running)
            _check_log(place, running, rounds)
            done = sum(worker.operations for worker in running)
            rounds += 1
            if time.monotonic() > end:
                break
            ending = chance.choice(ENDINGS)
            say(f"round {rounds}: {done} operations, then {ending}")
            _tell(running, ending)
            _end_round(workspace, running, ending)
            if ending != STAY:
                _check_log(place, running, rounds - 1)
                _tell(running, "mounted")
            if rounds % _ROUNDS_PER_GC == 0:
                run_helios("gc", "--store", str(workspace.store))
        _tell(running, None)
        for worker in running:
            worker.receive(_PATIENCE_SECONDS)
    return done


def _check_log(place: Place, running: list[Worker], rounds: int) -> None:
    """Check the log of all after so many whole rounds; one that they have left is not needed any more."""
    path = place.root / log_name(rounds)
    if rounds >= ROUNDS_PER_LOG and rounds % ROUNDS_PER_LOG == 0:
        (place.root / log_name(rounds - 1)).unlink(missing_ok=True)
    try:
        check_log(path, {worker.number: worker.records for worker in running if worker.number != BUSY})
    except Difference as difference:
        raise Failed(str(difference)) from difference


def _tell(running: list[Worker], word: str | None) -> None:
    for worker in running:
        worker.pipe.send(word)


def _round(running: list[Worker]) -> None:
    """Wait for all; the first that fails ends it."""
    waiting = {worker.pipe: worker for worker in running}
    end = time.monotonic() + _PATIENCE_SECONDS
    while waiting:
        ready = wait(list(waiting), end - time.monotonic())
        if not ready:
            raise Failed(f"no end of the round: {[worker.process.name for worker in waiting.values()]}")
        for pipe in ready:
            worker = waiting.pop(pipe)  # type: ignore[call-overload]  # only connections are waited for
            worker.operations, worker.records = worker.receive(0)


def _end_round(workspace: Workspace, running: list[Worker], ending: str) -> None:
    if ending == STAY:
        return
    _round(running)
    if ending == REMOUNT:
        workspace.unmount()
    elif ending == KILL:
        workspace.kill()
    workspace.mount()
