"""Carry out the operations of a log again, and leave out what its failure does not need."""

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from helios_fs.errors import HeliosError
from tests.exerciser.exercise import tree
from tests.exerciser.operations import Operation, load, save
from tests.exerciser.performer import Performer
from tests.exerciser.place import ROOT, Place
from tests.exerciser.worker import ENDINGS, KILL, REMOUNT, STAY
from tests.mount.mounted import Workspace


def replay(log: Path, workspace: Workspace, in_branch: bool) -> None:
    """Carry out the operations of a log on a mount. Raises what the failure raised."""
    seed, operations = load(log)
    place = tree(workspace, in_branch)
    performer = Performer(place, 0, seed)
    with _sealing(place):
        try:
            for operation in operations:
                _carry_out(performer, workspace, operation)
        finally:
            performer.let_go()


@contextmanager
def _sealing(place: Place) -> Iterator[None]:
    """Ask for one seal after the other, as other processes did when the log was written."""
    ended = threading.Event()

    def ask() -> None:
        while not ended.wait(0.02):
            try:
                place.seal()
            except (HeliosError, OSError, AssertionError):
                pass  # the mount is away for a moment

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        yield
    finally:
        ended.set()
        asking.join()


def _carry_out(performer: Performer, workspace: Workspace, operation: Operation) -> None:
    if operation.kind == REMOUNT:
        performer.let_go()
        workspace.remount()
        performer.survive(killed=False)
    elif operation.kind == KILL:
        workspace.kill()
        workspace.mount()
        performer.survive(killed=True)
    elif operation.kind != STAY:
        performer.perform(operation)
    if operation.kind in ENDINGS:
        performer.shared.next_round()


def reduce(log: Path, folder: Path, in_branch: bool, tries: int = 2) -> None:
    """Leave out operations for as long as the rest fails; what is left is saved beside the log, and printed."""
    seed, operations = load(log)
    kept = folder / "reduced.log"
    attempt = 0

    def fails(chosen: list[Operation]) -> bool:
        nonlocal attempt
        for _ in range(tries):
            attempt += 1
            save(folder / "attempt.log", seed, chosen)
            where = folder / f"attempt{attempt}"
            where.mkdir()
            command = [sys.executable, "-m", "tests.exerciser", "--replay", str(folder / "attempt.log")]
            command += ["--folder", str(where), *(["--branch"] if in_branch else [])]
            done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=3600)
            subprocess.run(["rm", "-rf", str(where)], check=True)
            if done.returncode:
                print(f"{len(chosen)} operations fail: {done.stderr.strip().splitlines()[-1]}", flush=True)
                save(kept, seed, chosen)
                return True
        return False

    if not fails(operations):
        print("the log does not fail when it is carried out again")
        return
    shortest = _without_what_is_not_needed(operations, fails)
    save(kept, seed, shortest)
    print(*shortest, f"saved as {kept}", sep="\n")


def _without_what_is_not_needed(
    operations: list[Operation], fails: Callable[[list[Operation]], bool]
) -> list[Operation]:
    """Zeller's ddmin: leave out ever smaller parts; ends when no single operation can go."""
    parts = 2
    while len(operations) >= 2:
        size = max(1, len(operations) // parts)
        for start in range(0, len(operations), size):
            rest = operations[:start] + operations[start + size :]
            if rest and fails(rest):
                operations = rest
                parts = max(2, parts - 1)
                break
        else:
            if size == 1:
                break
            parts = min(len(operations), parts * 2)
    return operations
