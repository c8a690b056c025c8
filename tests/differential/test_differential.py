"""No program may notice that this is not ext4: the same calls on a mount and on a plain directory agree at each step.

HELIOS_TORTURE: seeded rounds for HELIOS_DIFF_SECONDS (3600), from seed HELIOS_DIFF_SEED (by the clock).
"""

import os
import time
from collections.abc import Iterator, Sequence
from typing import TypeVar

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.differential.__main__ import long_run
from tests.differential.calls import ACTORS, DRIVER, At, Call, Data, Seeded, Slot, choose_call, prologue
from tests.differential.driver import Trees, choose_calls, reference
from tests.differential.shrink import shrink
from tests.mount.one_mount import one_workspace

pytestmark = pytest.mark.fuse

_T = TypeVar("_T")
_TORTURE = "HELIOS_TORTURE" in os.environ


@pytest.fixture(scope="module")
def trees(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trees]:
    folder = tmp_path_factory.mktemp("differential")
    options = ("-o", "allow_other") if os.geteuid() == 0 else ()
    with reference(folder) as (plain, noatime), one_workspace(folder, *options) as workspace:
        both = Trees(workspace, plain, noatime, options)
        try:
            yield both
        finally:
            both.end()


class _Drawn:
    """Choices that hypothesis makes, and can make smaller."""

    def __init__(self, draw: st.DrawFn) -> None:
        self._draw = draw

    def pick(self, options: Sequence[_T]) -> _T:
        return options[self._draw(st.integers(0, len(options) - 1))]

    def below(self, limit: int) -> int:
        return self._draw(st.integers(0, limit - 1))


@st.composite
def _call(draw: st.DrawFn) -> Call:
    if draw(st.integers(0, 40)) == 40:
        return Call(DRIVER, draw(st.sampled_from(["whole", "snapshot", "check_snapshots", "seal"])))
    return choose_call(_Drawn(draw), draw(st.integers(0, ACTORS - 1)), os.geteuid() == 0)


@pytest.mark.timeout(600)  # hypothesis makes a failing example smaller for five minutes at most
@settings(
    max_examples=int(os.environ.get("HELIOS_DIFF_EXAMPLES", "60")),
    deadline=None,
    derandomize=not _TORTURE,
    database=None,
    phases=(Phase.generate, Phase.shrink),
    suppress_health_check=list(HealthCheck),
)
@given(calls=st.lists(_call(), min_size=20, max_size=60), in_branch=st.booleans())
def test_a_few_calls_that_hypothesis_chooses(trees: Trees, calls: list[Call], in_branch: bool) -> None:
    found = trees.run([*prologue(), *calls], in_branch)
    assert found is None, "\n".join(found.texts)


@pytest.mark.parametrize("in_branch", [False, True], ids=["working tree", "branch"])
def test_thousands_of_calls_with_snapshots_and_remounts(trees: Trees, in_branch: bool) -> None:
    calls = choose_calls(_seeded(in_branch), 2000, trees.users, remounts=False)
    calls[500:500] = [Call(DRIVER, "remount", (False,))]
    calls[1000:1000] = [Call(DRIVER, "snapshot"), Call(DRIVER, "remount", (True,))]
    found = trees.run(calls, in_branch)
    assert found is None, f"at {calls[found.number]}:\n" + "\n".join(found.texts)
    # Calls that all fail agree too, and say nothing.
    for name in ("open", "mkdir", "rename", "unlink", "link", "write", "pread", "scan", "setxattr", "truncate"):
        assert trees.worked[name] > 0, name


def _seeded(in_branch: bool) -> Seeded:
    return Seeded(f"in the default run, {in_branch}")


@pytest.mark.slow
@pytest.mark.skipif(not _TORTURE, reason="takes HELIOS_DIFF_SECONDS; HELIOS_TORTURE=1 runs it")
@pytest.mark.timeout(0)
def test_a_million_calls(trees: Trees, capsys: pytest.CaptureFixture[str]) -> None:
    seed = int(os.environ.get("HELIOS_DIFF_SEED") or time.time_ns() % 1_000_000)
    with capsys.disabled():
        found = long_run(trees, seed, float(os.environ.get("HELIOS_DIFF_SECONDS") or 3600), None)
    assert found is None, "\n".join(found.texts)


def test_a_difference_is_found_and_shrunk(trees: Trees) -> None:
    """A sequence that lies about one tree is told from one that does not, and only what matters is left of it."""
    wrong = Call(DRIVER, "spoil", (b"a/d",))
    calls = [*prologue(), *choose_calls(_seeded(False), 200, trees.users, remounts=False), wrong]

    def differs(fewer: list[Call]) -> int | None:
        found = trees.run(fewer, in_branch=False)
        return None if found is None else found.number

    assert differs(calls[:-1]) is None
    assert differs(calls) is not None
    small = [Call(0, "umask", (0,)), Call(0, "write_path", (At(b"e"), Data(10, 1))), Call(0, "close", (Slot(0),))]
    fewest = shrink([*small, Call(DRIVER, "spoil", (b"e",)), *small], differs)
    assert [call.name for call in fewest] == ["write_path", "spoil"]
