"""A history of nodes and their parents drawn as text, newest first, in the manner of `git log --graph`.

Pure: knows nothing of snapshots, branches or terminals. Of the libraries for it, asciidag is a port of git's code, and
so under the GPL, and renderdag (0.1.1) too young to lean on.

A drawing has two characters for each column: the column itself (`*` a node, `|` a line that goes on), then the gap to
its right, in which lines change columns:

    *        a merge of two
    |\\
    | *      `|\\`: below the node, a second parent gets the column to its right; `\\ \\` moves others over
    * |
    | | *
    |_|/     `/`, with `_` to its left: a column's line joins one further left, passing behind the lines between
    |/
    *

G1. Every edge is one line, unbroken from its node down to its parent's, or to the last row where the parent is not
    drawn. Two lines share a column only from where they have joined, when they lead to one parent.
G2. No line is broken by another: where one passes a column that is in use, the `|` of that column stays.
G3. A row moves one line only, or several by one column to the right: nothing has to be guessed.
G4. A node that begins a line never stands right below one that ended in that column.
"""

import heapq
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from typing import Generic, NamedTuple, TypeVar

K = TypeVar("K", bound=Hashable)


class Row(NamedTuple, Generic[K]):
    """A line of the drawing: its characters, and the node that stands in it, if one does."""

    text: str
    node: K | None


def newest_first(parents: Mapping[K, Sequence[K]], age: Mapping[K, tuple[int, str]]) -> list[K]:
    """Return all nodes, each before its parents, otherwise those with the highest `age` first.

    Parents that are no nodes do not count. A circle, which no history has, is left out.
    """
    waiting = dict.fromkeys(parents, 0)
    for node in parents:
        for parent in set(parents[node]):
            if parent in waiting:
                waiting[parent] += 1
    order = {node: place for place, node in enumerate(sorted(parents, key=age.__getitem__, reverse=True))}
    by_place = list(order)
    ready = [place for node, place in order.items() if not waiting[node]]
    heapq.heapify(ready)
    found: list[K] = []
    while ready:
        node = by_place[heapq.heappop(ready)]
        found.append(node)
        for parent in set(parents[node]):
            if parent in waiting:
                waiting[parent] -= 1
                if not waiting[parent]:
                    heapq.heappush(ready, order[parent])
    return found


def draw(nodes: Iterable[tuple[K, Sequence[K]]]) -> Iterator[Row[K]]:
    """Yield the rows for nodes with their parents; every node comes before its parents (`newest_first`)."""
    columns: list[K | None] = []
    ended = -1
    for node, parents in nodes:
        column = _column_of(columns, node, ended)
        for other in [index for index, leads_to in enumerate(columns) if leads_to == node and index > column]:
            columns[other] = None
            yield Row(_join(columns, column, other), None)
        _trim(columns)
        yield Row("".join("* " if at == column else _bar(one) for at, one in enumerate(columns)).rstrip(), node)
        different = list(dict.fromkeys(parents))
        columns[column] = different[0] if different else None
        ended = -1 if different else column
        for parent in reversed(different[1:]):
            yield Row(_fork(columns, column, parent), None)
        _trim(columns)


def _column_of(columns: list[K | None], node: K, ended: int) -> int:
    """Return the leftmost column that leads to a node, or else give it one, but not the one that just ended (G4)."""
    if node in columns:
        return columns.index(node)
    # The one that ended may have been trimmed; behind it there is always room.
    columns.extend([None] * (ended + 2 - len(columns)))
    if None not in columns[:ended] + columns[ended + 1 :]:
        columns.append(None)
    free = next(at for at, one in enumerate(columns) if one is None and at != ended)
    columns[free] = node
    return free


def _bar(leads_to: K | None) -> str:
    return "  " if leads_to is None else "| "


def _join(columns: list[K | None], left: int, right: int) -> str:
    """Return the row in which the line in column `right`, free by now, goes over to column `left`."""
    cells = [_bar(one) for one in columns]
    for at in range(left, right):
        bar = cells[at][0]
        cells[at] = ("_" if bar == " " else bar) + ("/" if at == right - 1 else "_")
    return "".join(cells).rstrip()


def _fork(columns: list[K | None], column: int, parent: K) -> str:
    """Give a further parent the column to the right, moving others over, and return the row in which that is done."""
    try:
        free = columns.index(None, column + 1)
    except ValueError:
        free = len(columns)
        columns.append(None)
    cells = [_bar(one) for one in columns]
    cells[column] = "|\\"
    for at in range(column + 1, free):
        cells[at] = " \\"
    columns[column + 2 : free + 1] = columns[column + 1 : free]
    columns[column + 1] = parent
    return "".join(cells).rstrip()


def _trim(columns: list[K | None]) -> None:
    while columns and columns[-1] is None:
        columns.pop()
