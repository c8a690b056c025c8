"""Merging a text by lines: what two sides made of one base.

Knows bytes and lines, nothing of files. The differences come from rapidfuzz (MIT, well kept, in C++): of the merge
libraries for Python, merge3 is under the GPL and three-merge was last released in 2020 and merges letters.

X1. A stretch that only one side changed is that side's; that both changed alike is theirs; anything else conflicts.
X2. Memory is bounded: where the differing middles of two texts have more than `_MAX_CELLS` pairs of lines, the lines
    that both have once anchor the comparison, and what lies between two anchors is compared by itself or not at all.
"""

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Final, Literal, NamedTuple

from rapidfuzz.distance import Indel

MAX_BYTES: Final = 8 << 20
"""Larger files are not merged by lines."""
_BINARY_BYTES: Final = 8000
"""A NUL among the first of them makes a file binary, as in git."""
_MAX_CELLS: Final = 400_000_000
"""Pairs of lines that are compared at once; each costs a bit of memory."""

Favour = Literal["ours", "theirs", "markers"] | None


class MergedText(NamedTuple):
    """The result, and in how many places the sides conflict."""

    data: bytes
    conflicts: int


class _Stretch(NamedTuple):
    base: list[bytes]
    ours: list[bytes]
    theirs: list[bytes]


def is_text(data: bytes) -> bool:
    """Tell whether this can be merged by lines."""
    return len(data) <= MAX_BYTES and b"\0" not in data[:_BINARY_BYTES]


def merge_lines(
    base: bytes, ours: bytes, theirs: bytes, favour: Favour = None, labels: tuple[str, str] = ("ours", "theirs")
) -> MergedText:
    """Return what both sides made of `base`, with conflicts decided by `favour`.

    With None conflicts are only counted, and the data holds our lines there.
    """
    merged: list[bytes] = []
    conflicts = 0
    for stretch in _stretches(_lines(base), _lines(ours), _lines(theirs)):
        if stretch.ours in (stretch.base, stretch.theirs):
            merged += stretch.theirs
        elif stretch.theirs == stretch.base:
            merged += stretch.ours
        else:
            conflicts += 1
            if favour == "theirs":
                merged += stretch.theirs
            elif favour == "markers":
                merged += _marked(stretch, labels)
            else:
                merged += stretch.ours
    return MergedText(b"".join(merged), conflicts)


def _lines(data: bytes) -> list[bytes]:
    lines = data.split(b"\n")
    last = lines.pop()
    return [line + b"\n" for line in lines] + ([last] if last else [])


def _stretches(base: list[bytes], ours: list[bytes], theirs: list[bytes]) -> Iterator[_Stretch]:
    """Cut the three texts where all of them agree; runs that agree come as stretches too."""
    in_ours, in_theirs = _matches(base, ours), _matches(base, theirs)
    b = o = t = 0
    for line in sorted(in_ours.keys() & in_theirs.keys()):
        if (line, in_ours[line], in_theirs[line]) != (b, o, t):
            yield _Stretch(base[b:line], ours[o : in_ours[line]], theirs[t : in_theirs[line]])
        b, o, t = line + 1, in_ours[line] + 1, in_theirs[line] + 1
        yield _Stretch([base[line]], [base[line]], [base[line]])
    yield _Stretch(base[b:], ours[o:], theirs[t:])


def _marked(stretch: _Stretch, labels: tuple[str, str]) -> list[bytes]:
    """Return both sides between markers; what both begin or end with stands outside of them."""
    ours, theirs = stretch.ours, stretch.theirs
    shorter = min(len(ours), len(theirs))
    head = next((at for at in range(shorter) if ours[at] != theirs[at]), shorter)
    tail = next((at for at in range(shorter - head) if ours[-1 - at] != theirs[-1 - at]), shorter - head)
    return [
        *ours[:head],
        b"<<<<<<< %s\n" % labels[0].encode(),
        *_ended(ours[head : len(ours) - tail]),
        b"=======\n",
        *_ended(theirs[head : len(theirs) - tail]),
        b">>>>>>> %s\n" % labels[1].encode(),
        *ours[len(ours) - tail :],
    ]


def _ended(lines: list[bytes]) -> list[bytes]:
    """Return the lines, the last with a newline: a marker begins a line."""
    if lines and not lines[-1].endswith(b"\n"):
        return [*lines[:-1], lines[-1] + b"\n"]
    return lines


# -- Comparing two texts ---------------------------------------------------------------------------------------------


def _matches(a: Sequence[bytes], b: Sequence[bytes]) -> dict[int, int]:
    """Return which line of `b` each line of `a` is, for those that both have in the same order."""
    # The library compares hashes: numbers that stand for lines cannot collide.
    numbers: dict[bytes, int] = {}
    one = [numbers.setdefault(line, len(numbers)) for line in a]
    other = [numbers.setdefault(line, len(numbers)) for line in b]
    found: dict[int, int] = {}
    for low, high, other_low, other_high in _pieces(one, other, 0, len(one), 0, len(other), found):
        for block in Indel.opcodes(one[low:high], other[other_low:other_high]).as_matching_blocks():
            for at in range(block.size):
                found[low + block.a + at] = other_low + block.b + at
    return found


def _pieces(
    a: list[int], b: list[int], low: int, high: int, b_low: int, b_high: int, found: dict[int, int]
) -> Iterator[tuple[int, int, int, int]]:
    """Yield the stretches of `a` and `b` to compare; what they begin and end with in common goes into `found`."""
    while low < high and b_low < b_high and a[low] == b[b_low]:
        found[low] = b_low
        low, b_low = low + 1, b_low + 1
    while low < high and b_low < b_high and a[high - 1] == b[b_high - 1]:
        high, b_high = high - 1, b_high - 1
        found[high] = b_high
    if low == high or b_low == b_high:
        return
    if (high - low) * (b_high - b_low) <= _MAX_CELLS:
        yield low, high, b_low, b_high
        return
    for at, b_at in [*_anchors(a, b, low, high, b_low, b_high), (high, b_high)]:
        if (at - low) * (b_at - b_low) <= _MAX_CELLS:
            yield low, at, b_low, b_at
        if at < high:
            found[at] = b_at
        low, b_low = at + 1, b_at + 1


def _anchors(a: list[int], b: list[int], low: int, high: int, b_low: int, b_high: int) -> list[tuple[int, int]]:
    """Return the longest ascending row of lines that stand once in both stretches (as patience diff does)."""
    in_a, in_b = Counter(a[low:high]), Counter(b[b_low:b_high])
    where = {b[at]: at for at in range(b_low, b_high) if in_b[b[at]] == 1}
    ends: list[int] = []
    rows: list[tuple[int, int, int]] = []
    tops: list[int] = []
    for at in range(low, high):
        if in_a[a[at]] != 1 or a[at] not in where:
            continue
        b_at = where[a[at]]
        length = bisect_left(ends, b_at)
        rows.append((at, b_at, tops[length - 1] if length else -1))
        if length == len(ends):
            ends.append(b_at)
            tops.append(len(rows) - 1)
        else:
            ends[length] = b_at
            tops[length] = len(rows) - 1
    found = []
    here = tops[-1] if tops else -1
    while here >= 0:
        at, b_at, here = rows[here]
        found.append((at, b_at))
    return found[::-1]
