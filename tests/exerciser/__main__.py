"""`python -m tests.exerciser`: exercise a new mount, carry out a log again, or make a log shorter."""

import argparse
import random
import sys
import tempfile
import time
from pathlib import Path

from tests.exerciser.exercise import Failed, exercise
from tests.exerciser.reduce import reduce, replay
from tests.mount.one_mount import one_workspace


def main() -> int:
    """Run; 0: no difference."""
    parser = argparse.ArgumentParser(prog="python -m tests.exerciser")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().getrandbits(32))
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--branch", action="store_true", help="in a branch, not in the working tree")
    parser.add_argument("--folder", type=Path, help="for the store, the mount and logs; default: a new one in /tmp")
    parser.add_argument("--replay", type=Path, metavar="LOG", help="carry out the operations of a log")
    parser.add_argument("--reduce", type=Path, metavar="LOG", help="leave out what a failure does not need")
    given = parser.parse_args()
    folder = given.folder or Path(tempfile.mkdtemp(prefix="helios-exerciser."))
    folder.mkdir(exist_ok=True)
    print(f"seed {given.seed}, {given.processes} processes, in {folder}", flush=True)
    if given.reduce:
        reduce(given.reduce, folder, given.branch)
        return 0
    begun = time.monotonic()
    with one_workspace(folder) as workspace:
        try:
            if given.replay:
                replay(given.replay, workspace, given.branch)
                return 0
            done = exercise(
                workspace,
                given.seed,
                given.processes,
                folder,
                given.seconds,
                given.branch,
                lambda line: print(f"{time.monotonic() - begun:.0f} s, {line}", flush=True),
            )
        except Failed as failure:
            print(f"seed {given.seed}: {failure}", file=sys.stderr)
            return 1
    print(f"seed {given.seed}: {done} operations in {time.monotonic() - begun:.0f} s, no difference")
    return 0


if __name__ == "__main__":
    sys.exit(main())
