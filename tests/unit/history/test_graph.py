"""The drawn graph, read back: every edge is in it, unbroken, and no other."""

from collections.abc import Sequence

from hypothesis import given, settings
from hypothesis import strategies as st

from helios_fs.history.graph import Row, draw, newest_first


def text(*nodes: tuple[str, Sequence[str]]) -> list[str]:
    return [f"{row.text}  {row.node}" if row.node else row.text for row in draw(nodes)]


def test_one_line() -> None:
    assert text(("b", ["a"]), ("a", [])) == ["*  b", "*  a"]


def test_a_branch_that_was_merged_and_one_that_was_not() -> None:
    drawn = text(("merge", ["m1", "b2"]), ("c", ["m0"]), ("b2", ["b1"]), ("m1", ["m0"]), ("b1", ["m0"]), ("m0", []))
    assert drawn == [
        "*  merge",
        "|\\",
        "| | *  c",
        "| * |  b2",
        "* | |  m1",
        "| * |  b1",
        "|/  |",
        "|__/",
        "*  m0",
    ]


def test_a_merge_of_three_moves_lines_over() -> None:
    drawn = text(("h", ["a"]), ("o", ["a", "b", "c"]), ("a", ["r"]), ("b", ["r"]), ("c", ["r"]), ("r", []))
    assert drawn == [
        "*  h",
        "| *  o",
        "| |\\",
        "| |\\ \\",
        "|/  | |",
        "*   | |  a",
        "|   * |  b",
        "|   | *  c",
        "|__/  |",
        "|____/",
        "*  r",
    ]


def test_histories_without_a_common_beginning_do_not_touch() -> None:
    assert text(("a", []), ("b", []), ("c", [])) == ["*  a", "  *  b", "*  c"]


def test_a_line_to_a_parent_that_is_not_shown_goes_on_to_the_end() -> None:
    assert text(("a", ["gone"]), ("b", ["c"]), ("c", [])) == ["*  a", "| *  b", "| *  c"]


def test_nothing() -> None:
    assert text() == []
    assert newest_first({}, {}) == []


@st.composite
def histories(draw_: st.DrawFn) -> list[tuple[int, list[int]]]:
    """Nodes 0, 1, … with parents of higher numbers, some merges of many, some beginnings."""
    count = draw_(st.integers(1, 25))
    nodes = []
    for node in range(count):
        last = min(count - 1, node + draw_(st.sampled_from([1, 3, 25])))
        most = draw_(st.sampled_from([1, 1, 2, 4])) if node < last else 0
        later = st.integers(node + 1, max(last, node + 1))
        parents = draw_(st.lists(later, max_size=most, unique=True))
        nodes.append((node, parents))
    return nodes


def cells(row: Row[int], width: int) -> tuple[str, str]:
    padded = row.text.ljust(2 * width)
    return padded[::2], padded[1::2]


def read_back(rows: list[Row[int]]) -> set[tuple[int, int]]:
    """Follow every line of a drawing from row to row, as an eye would, and return the edges."""
    width = max(len(row.text) for row in rows) // 2 + 1
    lines: dict[int, set[int]] = {}
    fresh: int | None = None  # the column of the node right above: its line may end here, without a parent
    edges = set()
    for row in rows:
        bars, gaps = cells(row, width)
        assert set(bars) <= set("*| _") and set(gaps) <= set("/\\_ ")
        moved = {at for at, gap in enumerate(gaps) if gap == "\\" and bars[at] == " "}
        joins = [at + 1 for at, gap in enumerate(gaps) if gap == "/"]
        if fresh is not None and bars[fresh] in " _" and fresh not in moved and fresh not in joins:
            del lines[fresh]
        assert {at for at, bar in enumerate(bars) if bar in "|*"} | moved | set(joins) >= set(lines), "a line is broken"
        if row.node is not None:
            assert not gaps.strip() and bars.count("*") == 1
            column = bars.index("*")
            assert {at for at, bar in enumerate(bars) if bar == "|"} == set(lines) - {column}
            edges |= {(child, row.node) for child in lines.pop(column, ())}
            lines[column] = {row.node}
            fresh = column
            continue
        if joins:
            [right] = joins
            assert "\\" not in gaps and bars[right] == " "
            left = right - 1
            while left and gaps[left - 1] == "_":
                left -= 1
            assert gaps.count("_") == right - 1 - left and bars[left] == "|"
            lines[left] |= lines.pop(right)
        else:
            column = gaps.index("\\")
            assert bars[column] == "|" and len(lines[column]) == 1
            assert moved == set(range(column + 1, column + 1 + len(moved)))
            for at in sorted(moved, reverse=True):
                assert at + 1 not in lines, "a line is pushed onto another"
                lines[at + 1] = lines.pop(at)
            assert column + 1 not in lines
            lines[column + 1] = set(lines[column])
        fresh = None
    return edges


@given(histories())
@settings(max_examples=300, deadline=None)
def test_every_edge_can_be_followed_and_no_other(history: list[tuple[int, list[int]]]) -> None:
    rows = list(draw(history))
    assert [row.node for row in rows if row.node is not None] == [node for node, _ in history]
    assert all(row.text == row.text.rstrip() for row in rows)
    assert read_back(rows) == {(node, parent) for node, parents in history for parent in parents}


@given(histories())
@settings(max_examples=100, deadline=None)
def test_children_come_before_their_parents_otherwise_the_newest_first(
    history: list[tuple[int, list[int]]],
) -> None:
    parents = dict(history)
    age = {node: (hash((node, 7)) % 5, str(node)) for node in parents}
    found = newest_first(parents, age)
    assert sorted(found) == sorted(parents)
    place = {node: at for at, node in enumerate(found)}
    assert all(place[node] < place[parent] for node in parents for parent in parents[node])
    for at, (one, following) in enumerate(zip(found, found[1:], strict=False)):
        # An older one comes first only where the newer one had to wait for its children.
        if age[one] < age[following]:
            assert any(following in parents[child] and place[child] == at for child in found)


def test_a_circle_is_left_out() -> None:
    parents = {"a": ["b"], "b": ["a"], "c": ["gone", "gone"]}
    assert newest_first(parents, {node: (0, node) for node in parents}) == ["c"]
