"""How often to kill, and from which seed."""

import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.mount.mounted import Helios, Workspace, mounted_workspace


@pytest.fixture
def mounted(helios: Helios, tmp_path: Path) -> Iterator[Workspace]:
    """A mounted, empty workspace that can be unmounted, killed and mounted again."""
    with mounted_workspace(helios, tmp_path) as workspace:
        yield workspace


@pytest.fixture
def kills() -> int:
    """How often one test kills: HELIOS_KILLS in all (12; 200 where HELIOS_TORTURE is set), by the tests there are."""
    in_all = int(os.environ.get("HELIOS_KILLS") or (200 if os.environ.get("HELIOS_TORTURE") else 12))
    return max(2, in_all // 5)


@pytest.fixture
def chance() -> random.Random:
    """The source of all that is random; a failure prints its seed, and HELIOS_SEED repeats it."""
    seed = int(os.environ.get("HELIOS_SEED") or random.SystemRandom().randrange(1 << 32))
    print(f"HELIOS_SEED={seed}")
    return random.Random(seed)
