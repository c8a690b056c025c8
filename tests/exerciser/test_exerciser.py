"""The exerciser, for a few seconds; for HELIOS_EXERCISER_SECONDS (an hour) where HELIOS_TORTURE is set.

HELIOS_SEED repeats what each process does.
"""

import os
import random
from pathlib import Path

import pytest

from tests.exerciser.exercise import exercise
from tests.mount.one_mount import one_workspace

pytestmark = [pytest.mark.fuse, pytest.mark.timeout(24 * 3600)]

TORTURE = bool(os.environ.get("HELIOS_TORTURE"))


def seed() -> int:
    chosen = int(os.environ.get("HELIOS_SEED") or random.SystemRandom().getrandbits(32))
    print(f"HELIOS_SEED={chosen}")
    return chosen


@pytest.mark.parametrize("in_branch", [False, True], ids=["working tree", "branch"])
def test_every_byte_is_what_the_model_says(tmp_path: Path, in_branch: bool) -> None:
    seconds = float(os.environ.get("HELIOS_EXERCISER_SECONDS", "3600")) / 2 if TORTURE else 4
    with one_workspace(tmp_path) as workspace:
        done = exercise(workspace, seed(), 2, tmp_path, seconds, in_branch=in_branch)
    print(f"{done} operations, no difference")
    assert done > 500
