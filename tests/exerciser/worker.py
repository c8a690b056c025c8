"""One process of an exercise: does its operations in rounds, and tells when a round is over."""

import os
import traceback
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Final

from tests.exerciser.operations import Generator, Operation, save
from tests.exerciser.performer import Performer
from tests.exerciser.place import Place

ROUND: Final = 250
"""Operations, after which all processes wait for each other: the mount may then go away."""

REMOUNT: Final = "remount"
KILL: Final = "kill"
STAY: Final = "stay"
ENDINGS: Final = (STAY, STAY, REMOUNT, KILL)
"""Of a round."""


def work(pipe: Connection, place: Place, seed: int, process: int, operations: int, log: Path) -> None:
    """Do rounds until told to end, or until `operations` are done; on a failure, save what was done at `log`."""
    name = f"w{process}"
    data_seed = f"{seed} {process}"
    done: list[Operation] = []
    try:
        performer = Performer(place, name, data_seed)
        generator = Generator(seed, process)
        while True:
            for _ in range(min(ROUND, operations - generator.number) if operations else ROUND):
                done.append(generator.next())
                performer.perform(done[-1])
            pipe.send(("round", generator.number))
            ending = pipe.recv()
            if ending is None:
                performer.let_go()
                break
            done.append(Operation(0, ending))
            if ending == STAY:
                continue
            if ending == REMOUNT:
                performer.let_go()
            pipe.send(("ready", generator.number))
            assert pipe.recv() == "mounted"
            performer.survive(ending == KILL)
        pipe.send(("ended", generator.number))
    except BaseException as error:
        save(log, data_seed, done)
        last = done[-1] if done else None
        pipe.send(("failed", f"{''.join(traceback.format_exception(error))}\nprocess {process}, {last}\nlog: {log}"))
        # Its files are left as they are; the mount may be gone under them.
        os._exit(1)
