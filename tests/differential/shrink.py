"""Fewer calls that still differ: delta debugging over a list of calls."""

import time
from collections.abc import Callable

from tests.differential.calls import Call

Differs = Callable[[list[Call]], int | None]
"""Returns the number of the call at which the two sides part, if they do."""


def shrink(calls: list[Call], differs: Differs, seconds: float = 120) -> list[Call]:
    """Return a short list of calls that still differ; the best that is found in the time given."""
    deadline = time.monotonic() + seconds
    piece = max(1, len(calls) // 2)
    while True:
        place, removed = max(0, len(calls) - piece), False
        while place >= 0:
            if time.monotonic() > deadline:
                return calls
            fewer = calls[:place] + calls[place + piece :]
            at = differs(fewer) if fewer else None
            if at is not None:
                calls = fewer[: at + 1]
                removed = True
                place = min(place, len(calls))
            if place == 0:
                break
            place = max(0, place - piece)
        if piece == 1 and not removed:
            return calls
        piece = max(1, piece // 2) if piece > 1 else 1


def program(calls: list[Call]) -> str:
    """Return calls as a text that `--replay` reads."""
    return "\n".join(["CALLS = [", *(f"    {call!r}," for call in calls), "]", ""])
