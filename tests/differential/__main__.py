"""The differential tester from the command line: `python -m tests.differential --seed S --seconds N [--branch]`."""

import argparse
import os
import shutil
import signal
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from tests.differential import calls as vocabulary
from tests.differential.calls import Call
from tests.differential.driver import Difference, Progress, Trees, reference, round_of, summary
from tests.differential.shrink import program, shrink
from tests.mount.one_mount import one_workspace


def long_run(trees: Trees, seed: int, seconds: float, in_branch: bool | None, first: int = 0) -> Difference | None:
    """Run rounds until the time is over or the two sides differ; print what happened."""
    progress, number, said = Progress(), first, 0.0
    found: Difference | None = None
    print(f"differential: seed {seed}, {seconds:.0f} s", flush=True)
    while time.monotonic() - progress.began < seconds:
        calls = round_of(seed, number, trees.users)
        branch = bool(number % 2) if in_branch is None else in_branch
        found = trees.run(calls, branch)
        progress.calls += len(calls) if found is None else found.number + 1
        if found is not None:
            _tell(trees, calls, branch, found, seed, number)
            break
        number += 1
        if time.monotonic() - said > 30:
            said = time.monotonic()
            print(f"  round {number}: {progress.text()}", flush=True)
    print(f"differential: seed {seed}, rounds {first} to {number}, {progress.text()}", flush=True)
    return found


def _tell(trees: Trees, calls: list[Call], branch: bool, found: Difference, seed: int, number: int) -> None:
    print(f"DIFFERENCE with seed {seed} in round {number} (branch: {branch}) at call {found.number}:")
    print(f"  {calls[found.number]}\n  " + "\n  ".join(found.texts[:10]), flush=True)

    def differs(fewer: list[Call]) -> int | None:
        again = trees.run(fewer, branch, whole_every=10)
        if again is None:
            return None
        if again.number == len(fewer):
            return again.number - 1  # found when all was compared at the end
        # Another difference is for another day.
        return again.number if fewer[again.number].name == calls[found.number].name else None

    fewest = shrink(calls[: found.number + 1], differs)
    again = trees.run(fewest, branch, whole_every=1)
    path = Path(tempfile.gettempdir()) / f"differential-{seed}-{number}.py"
    path.write_text(program(fewest))
    print(f"shrunk to {len(fewest)} calls in {path}; python -m tests.differential --replay {path}")
    print(program(fewest))
    print("  " + "\n  ".join(again.texts[:10] if again else ["(not every time)"]), flush=True)


def _replay(trees: Trees, path: str, in_branch: bool) -> Difference | None:
    names: dict[str, list[Call]] = {}
    exec(Path(path).read_text(), dict(vars(vocabulary)), names)
    found = trees.run(names["CALLS"], in_branch, whole_every=1)
    if found is None:
        print("no difference")
    else:
        print(names["CALLS"][found.number], *found.texts, sep="\n  ")
    return found


def main() -> int:
    """Exit 1 where the two sides differ."""
    parser = argparse.ArgumentParser(prog="python -m tests.differential", description=__doc__)
    parser.add_argument("--seed", type=int, default=time.time_ns() % 1_000_000)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--first-round", type=int, default=0)
    parser.add_argument("--branch", action=argparse.BooleanOptionalAction, default=None)
    parser.add_argument("--replay", help="a file with the calls of a difference")
    parser.add_argument("--counts", action="store_true", help="say how often each call succeeded")
    parsed = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(3))  # nothing is left behind by `timeout` either
    folder = Path(tempfile.mkdtemp(prefix="differential."))
    folder.chmod(0o755)
    try:
        with ExitStack() as stack:
            plain, noatime = stack.enter_context(reference(folder))
            options = ("-o", "allow_other") if os.geteuid() == 0 else ()
            trees = Trees(stack.enter_context(one_workspace(folder, *options)), plain, noatime, options)
            stack.callback(trees.end)
            if parsed.replay:
                found = _replay(trees, parsed.replay, bool(parsed.branch))
            else:
                found = long_run(trees, parsed.seed, parsed.seconds, parsed.branch, parsed.first_round)
            if parsed.counts:
                for name, (tried, worked) in summary(trees).items():
                    print(f"{name:16} {tried:8} {worked:8}")
    finally:
        shutil.rmtree(folder)
    return 0 if found is None else 1


if __name__ == "__main__":
    sys.exit(main())
