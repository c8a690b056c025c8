"""What a mount does unasked, by a clock that jumps."""

from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest
import trio
import trio.testing

from helios_fs.errors import StoreFull
from helios_fs.fuse.upkeep import AutoPrune, AutoSnapshot
from helios_fs.history import pruning
from helios_fs.history.retention import Rules
from helios_fs.history.schedule import parse_schedule
from tests.model.harness import Branch
from tests.unit.worktree.trees import make, rewrite, seal


@pytest.fixture
def branch(tmp_path: Path) -> Iterator[Branch]:
    opened = Branch(str(tmp_path / "store"))
    make(opened, "/file", b"0")
    opened.worktree.snapshot()
    yield opened
    opened.close()


class Taking:
    """A branch whose automatic snapshots are noted with the time at which they were taken."""

    def __init__(self, branch: Branch) -> None:
        self.branch = branch
        self.times: list[float] = []
        self.failing = False

    async def take(self) -> None:
        if self.failing:
            raise StoreFull("no room")
        if self.branch.worktree.changed_since_snapshot:
            self.branch.worktree.snapshot()
            self.times.append(round(trio.current_time(), 1))

    def change(self) -> None:
        rewrite(self.branch, "/file", b"%f" % trio.current_time())


def play(taking: Taking, schedule: str, *steps: tuple[float, Callable[[], object]]) -> list[float]:
    """Run a schedule, do things at some times, and return when snapshots were taken; the last step ends it."""

    async def main() -> None:
        start = trio.current_time()
        auto = AutoSnapshot(parse_schedule(schedule), taking.branch.worktree, taking.take)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(auto.run)
            for at, step in steps:
                await trio.sleep_until(start + at)
                step()
            nursery.cancel_scope.cancel()

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
    return taking.times


def nothing() -> None:
    pass


def test_every_five_minutes_with_a_change(branch: Branch) -> None:
    taking = Taking(branch)
    steps = [(10, taking.change), (20, taking.change), (700, taking.change), (1300, nothing)]
    assert play(taking, "5m", *steps) == [300, 900]
    assert [bool(one.parents) for one in branch.worktree.snapshots.all()] == [False, True, True]


@pytest.mark.parametrize("schedule", ["1m", "quiet:1m"])
def test_describing_deleting_and_sealing_are_no_change(branch: Branch, schedule: str) -> None:
    taking = Taking(branch)
    [first] = branch.worktree.snapshots.all()
    steps: list[tuple[float, Callable[[], object]]] = [
        (10, lambda: branch.worktree.describe_snapshot(first.id, b"named")),
        (20, lambda: seal(branch)),
        (30, lambda: branch.worktree.delete_snapshot(first.id)),
        (3000, nothing),
    ]
    assert play(taking, schedule, *steps) == []


def test_once_it_is_quiet_after_a_change(branch: Branch) -> None:
    taking = Taking(branch)
    busy: list[tuple[float, Callable[[], object]]] = [(at, taking.change) for at in range(10, 200, 20)]
    play(taking, "quiet:30s", *busy, (195, lambda: seal(branch)), (1000, nothing))
    # The last change was at 190: sealing is none; the look that sees the quiet comes at most a twentieth later.
    [only] = taking.times
    assert 220 <= only <= 223


def test_what_changed_before_the_mount_counts(branch: Branch) -> None:
    rewrite(branch, "/file", b"before")
    taking = Taking(branch)
    [only] = play(taking, "quiet:10s", (100, nothing))
    assert 10 <= only <= 11


@pytest.mark.parametrize("schedule", ["1m", "quiet:1m"])
def test_what_fails_is_tried_again(branch: Branch, schedule: str, caplog: pytest.LogCaptureFixture) -> None:
    taking = Taking(branch)
    taking.failing = True

    def room() -> None:
        taking.failing = False

    play(taking, schedule, (1, taking.change), (200, room), (400, nothing))
    assert len(taking.times) == 1 and taking.times[0] > 200
    assert "no automatic snapshot was taken: no room" in caplog.text


class TestPrune:
    def run(self, branch: Branch, until: int, steps: Callable[[int], Awaitable[None]] | None = None) -> list[list[str]]:
        """Prune until nothing has been left to do for a while; `steps` is called after each deletion."""
        deleted: list[list[str]] = []

        async def delete(ids: list[str]) -> None:
            for snapshot_id in ids:
                branch.worktree.delete_snapshot(snapshot_id)
            deleted.append(ids)
            if steps is not None:
                await steps(len(deleted))

        async def main() -> None:
            with trio.move_on_at(until):
                await AutoPrune(branch.store, branch.worktree, delete).run()

        trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0.01))
        return deleted

    def test_without_rules_everything_stays(self, branch: Branch) -> None:
        branch.worktree.snapshot()
        assert self.run(branch, 600) == []
        pruning.save_rules(branch.path, "main", Rules(named=True))
        assert self.run(branch, 600) == []

    def test_rules_are_applied_when_snapshots_have_changed(self, branch: Branch) -> None:
        ids = [one.id for one in branch.worktree.snapshots.all()]
        ids += [branch.worktree.snapshot(name).id for name in (b"", b"named", b"", b"")]
        branch.worktree.describe_snapshot(ids[3], protected=True)
        pruning.save_rules(branch.path, "main", Rules(last=1))

        async def more(count: int) -> None:
            if count == 1:
                ids.append(branch.worktree.snapshot().id)
                pruning.save_rules(branch.path, "main", Rules(last=1, named=True))

        # What came while the rules were applied is looked at a minute later.
        assert self.run(branch, 600, more) == [[ids[0], ids[1]], [ids[2], ids[4]]]
        assert [one.id for one in branch.worktree.snapshots.all()] == [ids[3], ids[5]]

    def test_damaged_rules_delete_nothing(self, branch: Branch, caplog: pytest.LogCaptureFixture) -> None:
        branch.worktree.snapshot()
        Path(branch.path, "journals", "main", "retention").write_bytes(b"{")
        assert self.run(branch, 600) == []
        assert "snapshots were not pruned" in caplog.text
