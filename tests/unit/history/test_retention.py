"""Which snapshots rules keep: the newest of each period, never less than what must stay."""

import datetime
import time
from typing import Final

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helios_fs.errors import CorruptObject
from helios_fs.history.retention import Rules, decode_rules, encode_rules, judge, needed_to_merge
from helios_fs.objects.snapshot import Snapshot

START: Final = int(datetime.datetime(2026, 11, 21, 12, 0, tzinfo=datetime.UTC).timestamp())
HOUR: Final = 3600
DAY: Final = 24 * HOUR


def taken(number: int, seconds: int, **more: object) -> Snapshot:
    one = Snapshot(f"{number:010d}", "main", b"", [], seconds * 10**9, number)
    return msgspec.structs.replace(one, **more)


def kept(times: list[int], rules: Rules) -> list[int]:
    """Return which of some snapshots, given by their times, oldest first, stay."""
    snapshots = [taken(number, at) for number, at in enumerate(times)]
    return [int(verdict.id) for verdict in judge(snapshots, rules, local=time.gmtime) if verdict.reasons]


def test_each_rule() -> None:
    hourly = [START + HOUR * number // 4 for number in range(40)]  # four an hour, ten hours
    assert kept(hourly, Rules(last=3)) == [37, 38, 39]
    assert kept(hourly, Rules(hourly=3)) == [31, 35, 39]
    assert kept(hourly, Rules(last=2, hourly=2)) == [35, 38, 39]
    daily = [START + DAY * number // 2 for number in range(59)]  # two a day, from 21 November to 20 December
    assert kept(daily, Rules(daily=2)) == [56, 58]
    assert kept(daily, Rules(daily=1, last=2)) == [57, 58]
    assert kept(daily, Rules(weekly=3)) == [30, 44, 58]  # Sundays
    assert kept(daily, Rules(monthly=12)) == [18, 58]
    assert kept(daily, Rules(yearly=2)) == [58]


def test_hours_without_a_snapshot_do_not_count() -> None:
    assert kept([START, START + 1, START + 50 * HOUR, START + 90 * HOUR], Rules(hourly=3)) == [1, 2, 3]


def test_the_hour_that_comes_twice_is_two(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    try:
        first = int(datetime.datetime(2026, 10, 25, 0, 30, tzinfo=datetime.UTC).timestamp())
        snapshots = [taken(0, first), taken(1, first + HOUR)]
        assert all(verdict.reasons for verdict in judge(snapshots, Rules(hourly=2)))
        assert [bool(verdict.reasons) for verdict in judge(snapshots, Rules(daily=2))] == [False, True]
    finally:
        monkeypatch.undo()
        time.tzset()


def test_what_stays_whatever_the_rules_say() -> None:
    snapshots = [
        taken(0, 0, protected=True),
        taken(1, 0, name=b"named"),
        taken(2, 0, parents=["0000000000", "0000000009"]),
        taken(3, 0),
        taken(4, 0),
        taken(5, 0),
    ]
    reasons = {int(one.id): one.reasons for one in judge(snapshots, Rules(), {"0000000003"})}
    assert reasons == {0: ("protected",), 1: ("named",), 2: ("merge",), 3: ("merge",), 4: (), 5: ("newest",)}
    reasons = {int(one.id): one.reasons for one in judge(snapshots, Rules(named=True))}
    assert [number for number, why in reasons.items() if not why] == [1, 3, 4]
    assert judge([], Rules(last=1)) == []


def test_what_merges_need() -> None:
    snapshots = [taken(1, 0, parents=["a"]), taken(2, 0, parents=["b", "c", "d"]), taken(3, 0)]
    assert needed_to_merge("first", snapshots) == {"first", "c", "d"}
    assert needed_to_merge("", []) == {""}


_PERIODS = {
    "hourly": "%Y %j %H", "daily": "%Y %j", "weekly": "%G %V", "monthly": "%Y %m", "yearly": "%Y"
}  # fmt: skip

_snapshots = st.lists(
    st.tuples(st.integers(0, 3 * 365 * DAY), st.booleans(), st.sampled_from([b"", b"", b"n"])), max_size=60
).map(
    lambda rows: [
        taken(number, START + at, protected=protected, name=name and b"%s%d" % (name, number))
        for number, (at, protected, name) in enumerate(sorted(rows))
    ]
)
_rules = st.builds(Rules, *[st.integers(0, 6)] * 6, named=st.booleans())


@given(_snapshots, _rules)
@settings(max_examples=200, deadline=None)
def test_exactly_the_newest_of_each_period_stays(snapshots: list[Snapshot], rules: Rules) -> None:
    verdicts = judge(snapshots, rules, local=time.gmtime)
    assert [one.id for one in verdicts] == [one.id for one in snapshots]
    reasons = {one.id: set(one.reasons) for one in verdicts}
    for rule, form in _PERIODS.items():
        periods: dict[str, str] = {}
        for one in snapshots:
            periods[time.strftime(form, time.gmtime(one.time_ns // 10**9))] = one.id  # the newest comes last
        # Oldest first, for dictionaries keep the order of the first of each period.
        newest = list(periods.values())[len(periods) - min(len(periods), getattr(rules, rule)) :]
        assert [one for one in reasons if rule in reasons[one]] == newest
    last = {one.id for one in snapshots[len(snapshots) - min(len(snapshots), max(rules.last, 1)) :]}
    for one in snapshots:
        why = reasons[one.id]
        assert ("protected" in why) == one.protected
        assert ("named" in why) == (bool(one.name) and not rules.named)
        assert bool(why & {"newest", "last"}) == (one.id in last)
    if snapshots:
        assert "newest" in reasons[snapshots[-1].id]


@given(_snapshots, _rules)
@settings(max_examples=100, deadline=None)
def test_pruning_twice_is_pruning_once(snapshots: list[Snapshot], rules: Rules) -> None:
    left = {one.id for one in judge(snapshots, rules, local=time.gmtime) if one.reasons}
    again = judge([one for one in snapshots if one.id in left], rules, local=time.gmtime)
    assert all(one.reasons for one in again)


@given(_rules)
def test_rules_are_kept_as_they_were(rules: Rules) -> None:
    assert decode_rules(encode_rules(rules)) == rules
    assert rules.keeps_anything == any(getattr(rules, name) for name in ("last", *_PERIODS))


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b'{"daily":"x"}', b'{"daily":-1}', b"\xff"])
def test_what_is_no_rule(data: bytes) -> None:
    with pytest.raises(CorruptObject, match="rules of retention cannot be read"):
        decode_rules(data)
