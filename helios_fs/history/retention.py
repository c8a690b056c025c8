"""Which snapshots to keep: rules such as "the newest of each of the last seven days".

Pure: knows times, names and protection; nothing of stores, nothing of how a snapshot is deleted.

N1. The newest snapshot always stays, and so does whatever is protected, has a name (unless the rules say otherwise),
    is a merge, or is needed for one.
N2. A rule "N hourly" keeps the newest snapshot of each of the N newest hours that have one, as restic and borg do;
    hours without any do not count. Days, ISO weeks, months and years are those of local time.
N3. A snapshot stays if any rule keeps it. A rule of 0 keeps nothing.
"""

import time
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Final, NamedTuple, Protocol

import msgspec

from helios_fs.errors import CorruptObject
from helios_fs.objects.snapshot import Snapshot


class Rules(msgspec.Struct, frozen=True):
    """How many to keep of each kind."""

    last: int = 0
    hourly: int = 0
    daily: int = 0
    weekly: int = 0
    monthly: int = 0
    yearly: int = 0
    named: bool = False
    """Whether snapshots with a name go like others."""

    @property
    def keeps_anything(self) -> bool:
        """Whether any rule keeps something: without one, nearly everything would go."""
        return any((self.last, self.hourly, self.daily, self.weekly, self.monthly, self.yearly))


class Kept(Protocol):
    """What a rule looks at of a snapshot."""

    @property
    def id(self) -> str:
        """Its id; those of one branch ascend."""

    @property
    def name(self) -> bytes:
        """Its name, or nothing."""

    @property
    def time_ns(self) -> int:
        """When it was taken, in nanoseconds since 1970."""

    @property
    def protected(self) -> bool:
        """Whether nobody may delete it."""

    @property
    def parents(self) -> Sequence[str]:
        """What it follows; from the second on, what was merged."""


class Verdict(NamedTuple):
    """What becomes of one snapshot, and why."""

    id: str
    reasons: tuple[str, ...]
    """Why it stays; empty where it goes."""


_Local = Callable[[int], time.struct_time]

_PERIODS: Final[dict[str, Callable[[time.struct_time], tuple[int, ...]]]] = {
    "hourly": lambda local: (local.tm_year, local.tm_yday, local.tm_hour, local.tm_gmtoff or 0),
    "daily": lambda local: (local.tm_year, local.tm_yday),
    "weekly": lambda local: tuple(map(int, time.strftime("%G %V", local).split())),
    "monthly": lambda local: (local.tm_year, local.tm_mon),
    "yearly": lambda local: (local.tm_year,),
}


def _local_time(seconds: int) -> time.struct_time:
    return time.localtime(seconds)


def judge(
    snapshots: Sequence[Kept], rules: Rules, needed: Collection[str] = (), local: _Local = _local_time
) -> list[Verdict]:
    """Return what becomes of each of a branch's snapshots, given and returned oldest first.

    `needed` are ids of those that merges need; `local` gives the local time of seconds since 1970.
    """
    reasons: dict[str, list[str]] = {one.id: [] for one in snapshots}
    for one in snapshots:
        if one.protected:
            reasons[one.id].append("protected")
        if one.name and not rules.named:
            reasons[one.id].append("named")
        if one.id in needed or len(one.parents) > 1:
            reasons[one.id].append("merge")
    newest_first = snapshots[::-1]
    for place, one in enumerate(newest_first[: max(rules.last, 1)]):
        reasons[one.id].append("newest" if not place else "last")
    for rule, period_of in _PERIODS.items():
        most = getattr(rules, rule)
        periods: set[tuple[int, ...]] = set()
        for one in newest_first:
            if len(periods) == most:
                break
            period = period_of(local(one.time_ns // 1_000_000_000))
            if period not in periods:
                periods.add(period)
                reasons[one.id].append(rule)
    return [Verdict(one.id, tuple(reasons[one.id])) for one in snapshots]


def needed_to_merge(began: str, snapshots: Iterable[Snapshot]) -> set[str]:
    """Return the ids of snapshots, beside merges, without which a merge could not find where branches parted.

    They are the one in which the branch began (`began`, empty for `main`), and what was merged into any branch;
    `snapshots` are those of all branches.
    """
    return {began}.union(*(one.parents[1:] for one in snapshots))


def encode_rules(rules: Rules) -> bytes:
    """Return rules as a branch keeps them: a JSON object in a line."""
    return msgspec.json.encode(rules) + b"\n"


def decode_rules(data: bytes) -> Rules:
    """Return the rules in a file. Raises CorruptObject."""
    try:
        rules = msgspec.json.decode(data, type=Rules)
    except (msgspec.MsgspecError, ValueError) as error:
        raise CorruptObject(f"the rules of retention cannot be read: {error}") from error
    if min(rules.last, rules.hourly, rules.daily, rules.weekly, rules.monthly, rules.yearly) < 0:
        raise CorruptObject("the rules of retention cannot be read: a number is negative")
    return rules
