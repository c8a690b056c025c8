"""Which lines two texts have in common, and the hunks that lead from one to the other.

Knows sequences of bytes only; nothing of files, trees or patches' headers.

L1. What matches is equal, and in the same order on both sides: whatever else is chosen, the hunks are right.
L2. Cost is bounded by the number of lines, never by its square. Where few edits suffice, they are the fewest (Myers'
    greedy walk); else lines that occur once on each side become anchors (patience diff), and where there are none
    the walk gives up after a number of edits and goes on from where it got.
L3. A line ends in `\\n` or at the end of the text; nothing else ends one.
"""

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

CONTEXT_LINES: Final = 3

# At about ten million steps of the walk per second, no text takes more than some seconds.
_STEPS: Final = 8_000_000
_LEAST_EDITS: Final = 16
_MOST_EDITS: Final = 256
_DEEPEST: Final = 8
"""How often anchors are looked for between anchors."""

_Match = tuple[int, int, int]
_Chain = tuple["_Chain | None", int, int, int]


class Hunk(NamedTuple):
    """A run of changes with the lines around them: lines `a_start`..`a_end` of one become `b_start`..`b_end`."""

    a_start: int
    a_end: int
    b_start: int
    b_end: int
    changes: list[tuple[int, int, int, int]]
    """(a low, a high, b low, b high) of each change in it: the first lines go, the second come."""


def split_lines(data: bytes) -> list[bytes]:
    """Return the lines of a text with their ends (L3)."""
    lines = [line + b"\n" for line in data.split(b"\n")]
    last = lines.pop()[:-1]
    if last:
        lines.append(last)
    return lines


def matching_blocks(a: Sequence[bytes], b: Sequence[bytes]) -> list[_Match]:
    """Return (i, j, n) with `a[i:i+n] == b[j:j+n]`, ascending in both, such that no two touch (L1, L2)."""
    numbers: dict[bytes, int] = {}
    left = [numbers.setdefault(line, len(numbers)) for line in a]
    right = [numbers.setdefault(line, len(numbers)) for line in b]
    edits = min(_MOST_EDITS, max(_LEAST_EDITS, _STEPS // (len(left) + len(right) + 1)))
    found: list[_Match] = []
    # Gaps that are still to be looked at, the first on top, and matches already found behind them.
    stack: list[tuple[int, int, int, int, int]] = [(0, len(left), 0, len(right), 0)]
    while stack:
        a_low, a_high, b_low, b_high, depth = stack.pop()
        if depth < 0:
            found.append((a_low, b_low, a_high - a_low))
            continue
        head, tail = _common_ends(left, right, a_low, a_high, b_low, b_high)
        if head:
            found.append((a_low, b_low, head))
        if tail:
            stack.append((a_high - tail, a_high, b_high - tail, b_high, -1))
        gap = (a_low + head, a_high - tail, b_low + head, b_high - tail)
        if gap[0] == gap[1] or gap[2] == gap[3]:
            continue
        matches = _walk(left, right, *gap, edits, at_once=True)
        anchors = _anchors(left, right, *gap) if matches is None and depth < _DEEPEST else []
        if not anchors:
            found.extend(_walk(left, right, *gap, edits) or [] if matches is None else matches)
            continue
        # From the end, since a stack turns the order round; an anchor begins the gap behind it.
        a_end, b_end = gap[1], gap[3]
        for i, j in reversed(anchors):
            stack.append((i, a_end, j, b_end, depth + 1))
            a_end, b_end = i, j
        stack.append((gap[0], a_end, gap[2], b_end, depth + 1))
    return _joined(found)


def changes(a: Sequence[bytes], b: Sequence[bytes]) -> list[tuple[int, int, int, int]]:
    """Return (a low, a high, b low, b high) of each run of lines that differs, ascending."""
    found = []
    a_at = b_at = 0
    for i, j, n in [*matching_blocks(a, b), (len(a), len(b), 0)]:
        if i > a_at or j > b_at:
            found.append((a_at, i, b_at, j))
        a_at, b_at = i + n, j + n
    return found


def hunks(a: Sequence[bytes], b: Sequence[bytes], context: int = CONTEXT_LINES) -> Iterator[Hunk]:
    """Yield the hunks that turn `a` into `b`; changes with at most twice `context` lines between them share one."""
    group: list[tuple[int, int, int, int]] = []
    for change in changes(a, b):
        if group and change[0] - group[-1][1] > 2 * context:
            yield _hunk(group, len(a), context)
            group = []
        group.append(change)
    if group:
        yield _hunk(group, len(a), context)


def _hunk(group: list[tuple[int, int, int, int]], a_length: int, context: int) -> Hunk:
    first, last = group[0], group[-1]
    before = min(context, first[0])
    after = min(context, a_length - last[1])
    return Hunk(first[0] - before, last[1] + after, first[2] - before, last[3] + after, group)


def _joined(found: list[_Match]) -> list[_Match]:
    joined: list[_Match] = []
    for i, j, n in found:
        if joined:
            before_i, before_j, length = joined[-1]
            if (before_i + length, before_j + length) == (i, j):
                joined[-1] = (before_i, before_j, length + n)
                continue
        joined.append((i, j, n))
    return joined


def _common_ends(
    a: Sequence[int], b: Sequence[int], a_low: int, a_high: int, b_low: int, b_high: int
) -> tuple[int, int]:
    """Return how many elements two ranges have in common at their beginning, and how many more at their end."""
    most = min(a_high - a_low, b_high - b_low)
    head = 0
    while head < most and a[a_low + head] == b[b_low + head]:
        head += 1
    most -= head
    tail = 0
    while tail < most and a[a_high - 1 - tail] == b[b_high - 1 - tail]:
        tail += 1
    return head, tail


def _anchors(
    a: Sequence[int], b: Sequence[int], a_low: int, a_high: int, b_low: int, b_high: int
) -> list[tuple[int, int]]:
    """Return the longest ascending run of (i, j) where an element occurs once in each range."""
    in_a, in_b = Counter(a[a_low:a_high]), Counter(b[b_low:b_high])
    where = {b[j]: j for j in range(b_low, b_high) if in_b[b[j]] == 1}
    pairs = [(i, where[a[i]]) for i in range(a_low, a_high) if in_a[a[i]] == 1 and a[i] in where]
    # Patience sorting: `ends[n]` is the smallest j that ends an ascending run of n + 1 pairs.
    ends: list[int] = []
    last: list[int] = []
    before: list[int] = []
    for number, (_, j) in enumerate(pairs):
        pile = bisect_left(ends, j)
        before.append(last[pile - 1] if pile else -1)
        if pile == len(ends):
            ends.append(j)
            last.append(number)
        else:
            ends[pile], last[pile] = j, number
    run = []
    number = last[-1] if last else -1
    while number >= 0:
        run.append(pairs[number])
        number = before[number]
    return run[::-1]


def _walk(
    a: Sequence[int],
    b: Sequence[int],
    a_low: int,
    a_high: int,
    b_low: int,
    b_high: int,
    edits: int,
    at_once: bool = False,
) -> list[_Match] | None:
    """Return matches between two ranges by Myers' walk over the elements that both have, `edits` edits at a time.

    They are as many as can be where `at_once`; then it returns None where so many edits do not suffice.
    """
    common = set(a[a_low:a_high]) & set(b[b_low:b_high])
    a_where = [i for i in range(a_low, a_high) if a[i] in common]
    b_where = [j for j in range(b_low, b_high) if b[j] in common]
    left, right = [a[i] for i in a_where], [b[j] for j in b_where]
    found: list[_Match] = []
    x = y = 0
    while x < len(left) and y < len(right):
        chain, x, y = _greedy(left, right, x, y, edits)
        if at_once and (x < len(left) or y < len(right)):
            return None
        steps = []
        while chain is not None:
            chain, i, j, n = chain
            steps.append((i, j, n))
        for i, j, n in reversed(steps):
            found.extend((a_where[i + k], b_where[j + k], 1) for k in range(n))
    return found


def _greedy(a: Sequence[int], b: Sequence[int], a_low: int, b_low: int, edits: int) -> tuple["_Chain | None", int, int]:
    """Walk from (a_low, b_low) towards the ends as Myers does, until there or `edits` edits away.

    Returns the matches on the way, the last first, and how far it got. An O(ND) Difference Algorithm, Myers 1986.
    """
    n, m = len(a), len(b)
    # On diagonal k = x - y: how far x has come, and the matches on the way there.
    shift = a_low - b_low
    reach: dict[int, int] = {}
    chains: dict[int, _Chain | None] = {}
    for d in range(edits + 1):
        for k in range(shift - d, shift + d + 1, 2):
            right, down = reach.get(k - 1, -1), reach.get(k + 1, -1)
            x, chain = (-1, None) if d else (a_low, None)
            if 0 <= right < n:
                x, chain = right + 1, chains[k - 1]
            if down >= max(x, 0) and down - k <= m:
                x, chain = down, chains[k + 1]
            if x < 0:
                continue
            y = start = x - k
            while x < n and y < m and a[x] == b[y]:
                x += 1
                y += 1
            if y > start:
                chain = (chain, x - (y - start), start, y - start)
            reach[k], chains[k] = x, chain
            if x == n and y == m:
                return chain, n, m
    best = max(reach, key=lambda k: 2 * reach[k] - k)
    return chains[best], reach[best], reach[best] - best
