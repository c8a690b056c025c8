"""Inode numbers: taken one by one from ranges that are reserved ahead, in a thread, in the store's index."""

import threading
from collections.abc import Callable
from typing import Final

from helios_fs.errors import HeliosError, StoreFault

RANGE: Final = 1 << 20
_LOW: Final = RANGE // 4


class Inos:
    """A supply of inode numbers that are unique in the store. `take` never waits for the store's index."""

    def __init__(self, reserve: Callable[[int], range]) -> None:
        """`reserve(count)` returns a range of numbers, durably ours; it may be called in a thread."""
        self._reserve = reserve
        self._current = iter(reserve(RANGE))
        self._left = RANGE
        self._next: range | None = None
        self._refill: threading.Thread | None = None

    def take(self) -> int:
        """Return a number that nobody has. Raises StoreFault where no new range could be reserved in time."""
        if self._left < _LOW and self._refill is None:
            self._refill = threading.Thread(target=self._fetch, daemon=True)
            self._refill.start()
        if not self._left:
            refill = self._refill
            if refill is not None:
                refill.join()
                self._refill = None
            if self._next is None:
                raise StoreFault("no inode numbers could be reserved")
            self._current, self._left, self._next = iter(self._next), len(self._next), None
        self._left -= 1
        return next(self._current)

    def _fetch(self) -> None:
        try:
            self._next = self._reserve(RANGE)
        except HeliosError:
            # `take` tries again at the next call, and says so when the last number is gone.
            self._refill = None
