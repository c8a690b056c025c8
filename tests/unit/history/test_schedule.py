"""Durations and schedules as people write them."""

import pytest

from helios_fs.errors import UsageError
from helios_fs.history.schedule import Schedule, parse_duration, parse_schedule


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("5m", 300), ("2h", 7200), ("1d", 86_400), ("007s", 7), ("366d", 366 * 86_400)]
)
def test_durations(text: str, seconds: int) -> None:
    assert parse_duration(text) == seconds
    assert parse_schedule(text) == Schedule(seconds, False)
    assert parse_schedule(f"quiet:{text}") == Schedule(seconds, True)


@pytest.mark.parametrize(
    "text",
    ["", "5", "m", "0s", "00h", "-5m", "+5m", "1.5h", "5 m", " 5m", "5m\n", "5M", "1w", "٣m", "9999999999s", "x"],
)
def test_what_is_no_duration(text: str) -> None:
    for parse in (parse_duration, parse_schedule):
        with pytest.raises(UsageError, match="is no duration: write 90s, 5m, 2h or 1d"):
            parse(text)
    with pytest.raises(UsageError, match="no duration"):
        parse_schedule(f"quiet:{text}")


def test_more_than_a_year() -> None:
    with pytest.raises(UsageError, match="more than a year"):
        parse_schedule("quiet:367d")
    with pytest.raises(UsageError):
        parse_schedule("Quiet:5m")
    with pytest.raises(UsageError):
        parse_schedule("quiet:quiet:5m")
