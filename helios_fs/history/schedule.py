"""When a mount takes snapshots by itself, as people write it: `5m`, or `quiet:30s`.

Pure: knows text and seconds; no clocks.
"""

import re
from typing import Final, NamedTuple

from helios_fs.errors import UsageError

_DURATION: Final = re.compile(r"([0-9]{1,9})([smhd])")
_SECONDS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_MOST_SECONDS: Final = 366 * 86_400
_QUIET: Final = "quiet:"


class Schedule(NamedTuple):
    """When to take a snapshot of a tree that has changed since the last one."""

    seconds: int
    when_quiet: bool
    """Once nothing has changed for that long, instead of each time that long has passed."""


def parse_duration(text: str) -> int:
    """Return a duration in seconds: `90s`, `5m`, `2h`, `1d`. Raises UsageError."""
    found = _DURATION.fullmatch(text)
    seconds = int(found[1]) * _SECONDS[found[2]] if found is not None else 0
    if not seconds:
        raise UsageError(f"'{text}' is no duration: write 90s, 5m, 2h or 1d")
    if seconds > _MOST_SECONDS:
        raise UsageError(f"'{text}' is more than a year")
    return seconds


def parse_schedule(text: str) -> Schedule:
    """Return what a duration, or `quiet:` and a duration, says. Raises UsageError."""
    return Schedule(parse_duration(text.removeprefix(_QUIET)), text.startswith(_QUIET))
