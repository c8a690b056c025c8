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

ROUND: Final = 250
"""Operations, after which all processes wait for each other: the mount may then go away."""

BUSY: Final = -1
"""The number of the process that only keeps the sealer at work."""

REMOUNT: Final = "remount"
KILL: Final = "kill"
STAY: Final = "stay"
ENDINGS: Final = (STAY, STAY, REMOUNT, KILL)
"""Of a round."""


def work(pipe: Connection, place: Place, seed: int, process: int, log: Path) -> None:
    """Do rounds until told to end; on a failure, save what was done at `log`."""
    data_seed = f"{seed} {process}"
    done: list[Operation] = []
    try:
        performer = Busy(place) if process == BUSY else Performer(place, process, data_seed)
        generator = Generator(seed, process)
        steps = STEPS if process == BUSY else ROUND
        while True:
            for _ in range(steps):
                done.append(generator.next())
                performer.perform(done[-1])
            records = 0 if isinstance(performer, Busy) else performer.records
            pipe.send(("round", (generator.number, records)))
            ending = pipe.recv()
            if ending is None:
                performer.let_go()
                break
            done.append(Operation(0, ending))
            if ending == STAY:
                performer.next_round()
                continue
            if ending == REMOUNT:
                performer.let_go()
            pipe.send(("ready", (generator.number, records)))
            assert pipe.recv() == "mounted"
            performer.survive(ending == KILL)
            performer.next_round()
        pipe.send(("ended", (generator.number, records)))
    except BaseException as error:
        save(log, data_seed, done)
        last = done[-1] if done else None
        pipe.send(("failed", f"{''.join(traceback.format_exception(error))}\nprocess {process}, {last}\nlog: {log}"))
        # Its files are left as they are; the mount may be gone under them.
        os._exit(1)
