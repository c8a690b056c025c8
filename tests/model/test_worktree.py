"""The working tree against a plain model: any sequence of changes, snapshots, seals and reopenings.

Hypothesis looks for short counterexamples; long random runs look for what needs many steps. Both print what repeats
them. HELIOS_MODEL_EXAMPLES and HELIOS_MODEL_STEPS make them longer, HELIOS_MODEL_SEED repeats a run.
"""

import os
import random
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, given, settings

from helios_fs.worktree import worktree
from tests.model.steps import STEPS, Steps


@pytest.fixture(autouse=True, scope="module")
def keep_what_has_a_single_piece() -> Iterator[None]:
    """So that short runs exercise what is kept of files of many pieces (worktree/assembled.py)."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(worktree, "MANY_PIECES", 1)
        yield


@given(data=st.data())
@settings(
    max_examples=int(os.environ.get("HELIOS_MODEL_EXAMPLES", "40")),
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
def test_short_sequences(data: st.DataObject) -> None:
    """A few steps, shrunk where they fail."""

    def choose(options: Sequence[Any]) -> Any:
        return options[data.draw(st.integers(0, len(options) - 1))]

    with tempfile.TemporaryDirectory(prefix="helios-model-") as folder:
        steps = Steps(folder, choose)
        try:
            for name in data.draw(st.lists(st.sampled_from(STEPS), max_size=40)):
                getattr(steps, name)()
                steps.same()
        finally:
            steps.close()


@pytest.mark.parametrize("run", range(8))
def test_long_sequences(run: int, tmp_path: Path) -> None:
    """Hundreds of steps over one store."""
    seed = int(os.environ.get("HELIOS_MODEL_SEED", random.SystemRandom().getrandbits(32)))
    generator = random.Random(seed)
    steps = Steps(str(tmp_path), generator.choice)
    done: list[str] = []
    try:
        for _ in range(int(os.environ.get("HELIOS_MODEL_STEPS", "400"))):
            done.append(generator.choice(STEPS))
            getattr(steps, done[-1])()
            steps.same()
    except BaseException:
        print(f"seed {seed}, after {len(done)} steps: … {' '.join(done[-12:])}")
        raise
    finally:
        steps.close()
