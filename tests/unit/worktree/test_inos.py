"""Inode numbers: never twice, never waiting for the store while there are some left."""

import threading

import pytest

from helios_fs.errors import StoreFault, StoreFull
from helios_fs.worktree import inos
from helios_fs.worktree.inos import Inos

RANGE = 40


@pytest.fixture(autouse=True)
def small_ranges(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inos, "RANGE", RANGE)
    monkeypatch.setattr(inos, "_LOW", RANGE // 4)


class Supply:
    """Hands out ranges with gaps in between; may fail, or be made to wait."""

    def __init__(self) -> None:
        self.asked: list[threading.Thread] = []
        self.failures = 0
        self.gate = threading.Event()
        self.gate.set()

    def __call__(self, count: int) -> range:
        self.asked.append(threading.current_thread())
        assert self.gate.wait(30)
        if self.failures:
            self.failures -= 1
            raise StoreFull("no space left")
        start = 1000 * len(self.asked)
        return range(start, start + count)


def test_numbers_are_unique_and_ranges_come_in_a_thread() -> None:
    supply = Supply()
    numbers = Inos(supply)
    taken = [numbers.take() for _ in range(10 * RANGE)]
    assert len(set(taken)) == len(taken)
    assert taken == sorted(taken)
    assert supply.asked[0] is threading.main_thread()
    assert threading.main_thread() not in supply.asked[1:]


def test_a_slow_store_is_waited_for_only_when_the_last_number_is_gone() -> None:
    supply = Supply()
    numbers = Inos(supply)
    supply.gate.clear()
    taken = [numbers.take() for _ in range(RANGE)]
    assert len(supply.asked) == 2, "the next range was asked for ahead of need"
    threading.Timer(0.05, supply.gate.set).start()
    taken += [numbers.take() for _ in range(RANGE)]
    assert len(set(taken)) == 2 * RANGE


def test_a_store_that_fails_is_asked_again() -> None:
    supply = Supply()
    numbers = Inos(supply)
    supply.failures = 3
    taken = [numbers.take() for _ in range(RANGE)]
    while supply.failures:
        # It was asked in vain while there were numbers left; now that there are none, each call asks, and says so.
        with pytest.raises(StoreFault, match="inode numbers"):
            numbers.take()
    taken += [numbers.take() for _ in range(RANGE)]
    assert len(set(taken)) == 2 * RANGE


def test_a_mount_without_numbers_does_not_begin() -> None:
    supply = Supply()
    supply.failures = 1
    with pytest.raises(StoreFull):
        Inos(supply)
