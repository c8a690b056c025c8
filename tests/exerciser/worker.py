"""One process of an exercise: does its operations in rounds, and tells when a round is over."""

import os
import traceback
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Final

from tests.exerciser.busy import STEPS, Busy
from tests.exerciser.operations import Generator, Operation, save
from tests.exerciser.performer import Performer
from tests.exerciser.place import Place
from tests.exerciser.shared import Shared

ROUND: Final = 250
"""Operations, after which all processes wait for each other: the mount may then go away."""

BUSY: Final = -1
"""The number of the process that only keeps the sealer at work."""

REMOUNT: Final = "remount"
KILL: Final = "kill"
STAY: Final = "stay"
ENDINGS: Final = (STAY, STAY, REMOUNT, KILL)
"""Of a round."""


CHAPTER: Final = 20
"""Rounds, after which a process begins anew with nothing: what a failure can depend on is not older."""


def work(pipe: Connection, place: Place, seed: int, process: int, log: Path) -> None:
    """Do rounds until told to end; on a failure, save what was done in this chapter at `log`."""
    work_of = _KeepBusy(place) if process == BUSY else _Exercise(place, seed, process)
    try:
        while True:
            work_of.round()
            pipe.send(("round", (work_of.operations, work_of.records)))
            ending = pipe.recv()
            if ending is None:
                work_of.let_go()
                break
            work_of.done.append(Operation(0, ending))
            if ending == REMOUNT:
                work_of.let_go()
            if ending != STAY:
                pipe.send(("ready", (work_of.operations, work_of.records)))
                assert pipe.recv() == "mounted"
                work_of.survive(ending == KILL)
            work_of.next_round()
        pipe.send(("ended", (work_of.operations, work_of.records)))
    except BaseException as error:
        save(log, work_of.seed, work_of.done)
        last = next((operation for operation in reversed(work_of.done) if operation.number), None)
        trace = "".join(traceback.format_exception(error))
        pipe.send(("failed", f"{trace}\nprocess {process}, {len(work_of.done)} operations, {last}\nlog: {log}"))
        # Its files are left as they are; the mount may be gone under them.
        os._exit(1)


class _Exercise:
    """The rounds of a process that exercises files."""

    def __init__(self, place: Place, seed: int, process: int) -> None:
        self._place = place
        self._run_seed = seed
        self._process = process
        self._shared = Shared(place, process)
        self._rounds = 0
        self.operations = 0
        self._begin()

    def _begin(self) -> None:
        self.seed = f"{self._run_seed} {self._process} {self._rounds // CHAPTER}"
        self.done: list[Operation] = []
        self._generator = Generator(self.seed)
        self._performer = Performer(self._place, self._process, self.seed, self._shared)

    @property
    def records(self) -> int:
        return self._shared.records

    def round(self) -> None:
        for _ in range(ROUND):
            self.done.append(self._generator.next())
            self._performer.perform(self.done[-1])
            self.operations += 1

    def let_go(self) -> None:
        self._performer.let_go()

    def survive(self, killed: bool) -> None:
        self._performer.survive(killed)

    def next_round(self) -> None:
        self._shared.next_round()
        self._rounds += 1
        if self._rounds % CHAPTER == 0:
            self._performer.clear()
            self._begin()


class _KeepBusy:
    """The rounds of the process that keeps the sealer at work."""

    def __init__(self, place: Place) -> None:
        self._busy = Busy(place)
        self.seed = ""
        self.done: list[Operation] = []
        self.operations = self.records = 0

    def round(self) -> None:
        for _ in range(STEPS):
            self.operations += 1
            self._busy.step(self.operations)

    def let_go(self) -> None:
        """Nothing stays open."""

    def survive(self, killed: bool) -> None:
        self._busy.look()

    def next_round(self) -> None:
        self.done.clear()
