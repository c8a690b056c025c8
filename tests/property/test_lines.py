"""Line differences: always right, bounded in cost, and small where the change is small."""

from hypothesis import given, settings
from hypothesis import strategies as st

from helios_fs.history import lines

_texts = st.lists(st.sampled_from([b"a\n", b"b\n", b"c\n", b"\n", b"}\n", b"  x\r\n", b"long line\n"]), max_size=60)
_many = st.lists(st.integers(0, 40).map(lambda n: b"%d\n" % n), max_size=300)


def _applied(a: list[bytes], b: list[bytes], context: int) -> list[bytes]:
    made, at = [], 0
    for hunk in lines.hunks(a, b, context):
        assert a[at : hunk.a_start] == b[len(made) : hunk.b_start]
        made += a[at : hunk.a_start]
        at = hunk.a_start
        for a_low, a_high, b_low, b_high in hunk.changes:
            assert a_low < a_high or b_low < b_high
            made += a[at:a_low]
            assert len(made) == b_low
            made += b[b_low:b_high]
            at = a_high
        made += a[at : hunk.a_end]
        at = hunk.a_end
        assert len(made) == hunk.b_end
    return made + a[at:]


@settings(max_examples=400, deadline=None)
@given(a=_texts | _many, b=_texts | _many, context=st.integers(0, 4))
def test_hunks_lead_from_one_to_the_other(a: list[bytes], b: list[bytes], context: int) -> None:
    assert _applied(a, b, context) == b
    assert (lines.changes(a, b) == []) == (a == b)


@settings(max_examples=200, deadline=None)
@given(a=_many, b=_many)
def test_matches_ascend_and_are_equal(a: list[bytes], b: list[bytes]) -> None:
    x = y = -1
    for i, j, n in lines.matching_blocks(a, b):
        assert n > 0 and i > x and j > y
        assert a[i : i + n] == b[j : j + n]
        assert not (i == x + 1 and j == y + 1 and x >= 0), "two that touch are one"
        x, y = i + n - 1, j + n - 1


@settings(max_examples=200, deadline=None)
@given(a=_texts, b=_texts)
def test_short_texts_match_as_well_as_can_be(a: list[bytes], b: list[bytes]) -> None:
    ours = sum(n for _, _, n in lines.matching_blocks(a, b))
    best = [0] * (len(b) + 1)
    for line in a:
        before = best
        best = [0]
        for j, other in enumerate(b):
            best.append(before[j] + 1 if line == other else max(before[j + 1], best[j]))
    assert ours == best[-1]


@settings(max_examples=200, deadline=None)
@given(data=st.binary(max_size=200) | st.text("ab\n\r", max_size=50).map(str.encode))
def test_lines_end_at_newlines_only(data: bytes) -> None:
    parts = lines.split_lines(data)
    assert b"".join(parts) == data
    assert all(part.endswith(b"\n") and part.count(b"\n") == 1 for part in parts[:-1])
    assert all(parts)
