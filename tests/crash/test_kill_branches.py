"""kill -9 of the daemon while branches are made, filled, nested, renamed and sealed: what had returned is there.

HELIOS_KILLS says how often; HELIOS_SEED repeats the instants of a run.
"""

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from tests.crash import branch_operations
from tests.mount.mounted import PATIENCE_SECONDS, Helios, Killer, Workspace, mounted_workspace

pytestmark = [pytest.mark.fuse, pytest.mark.timeout(3600)]

WRITERS = 3


def test_branches_outlive_the_daemon(helios: Helios, tmp_path: Path) -> None:
    kills = int(os.environ.get("HELIOS_KILLS", "2"))
    seed = int(os.environ.get("HELIOS_SEED", random.SystemRandom().getrandbits(32)))
    print(f"HELIOS_SEED={seed}")
    chance = random.Random(seed)
    with mounted_workspace(helios, tmp_path) as mounted:
        logs = [tmp_path / f"log{number}" for number in range(WRITERS)]
        for life in range(kills):
            _write_and_kill(mounted, logs, life * 1000, chance.uniform(0.05, 2.5))
            mounted.mount()
            for log in logs:
                _check(mounted, log)


def _write_and_kill(mounted: Workspace, logs: list[Path], first: int, seconds: float) -> None:
    program = branch_operations.__file__
    assert program is not None
    writers = [
        subprocess.Popen(
            [sys.executable, program, str(mounted.path), str(log), f"w{number}", str(first)],
            stderr=subprocess.PIPE,
            text=True,
        )
        for number, log in enumerate(logs)
    ]
    killer = Killer(mounted.daemon())
    killer.kill_after(seconds)
    killer.wait()
    for writer in writers:
        complaint = writer.communicate(timeout=PATIENCE_SECONDS)[1]
        # It ended because the mount was gone under it, and for no other reason.
        assert "[Errno 107]" in complaint or "[Errno 103]" in complaint, complaint


def _check(mounted: Workspace, log: Path) -> None:
    """Check that every step of a log is there; the one that was under way may be."""
    files: dict[str, str] = {}
    snapshots: list[tuple[str, str]] = []
    moved: dict[str, str] = {}
    branches: set[str] = set()
    for line in log.read_text().splitlines():
        kind, *words = json.loads(line)
        if kind == "write":
            files[words[0]] = words[1]
        elif kind == "snapshot":
            snapshots.append((words[0], words[0]))
        elif kind == "rename":
            moved[words[0]] = words[1]
        else:
            branches.add(words[0])
    control = mounted.path / ".branches"
    listed = set(os.listdir(control))
    for name in branches:
        # The last rename may have happened without having returned.
        where = moved.get(name, name)
        assert where in listed or f"{where}-moved" in listed, name
        moved[name] = where if where in listed else f"{where}-moved"
    for path, text in files.items():
        parts = path.split("/")
        if parts[0] == ".branches":
            parts[1] = moved[parts[1]]
            name = path.split("/")[1]
            # What its parent held when it was made, whatever became of that since.
            assert (control / parts[1] / name).read_text() == f"parent {name}"
        found = mounted.path.joinpath(*parts).read_text()
        assert found == text or (parts[0] != ".branches" and found == f"later {path}"), path
    for name, snapshot in snapshots:
        own = control / moved[name] / ".snapshots" / snapshot / "own"
        assert own.read_text() == f"own {name}" * 100
