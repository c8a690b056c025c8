"""Which snapshot follows which, across branches and past deleted ones."""

from hypothesis import given
from hypothesis import strategies as st

from helios_fs.history.lineage import Key, Lineage
from helios_fs.objects.snapshot import Head, Snapshot
from helios_fs.store.branches import BranchInfo


def taken(branch: str, number: int, *parents: int) -> Snapshot:
    return Snapshot(f"{number:010d}", branch, b"", [f"{parent:010d}" for parent in parents], number, number)


def begun(branch: str, parent: str, first: int) -> BranchInfo:
    return BranchInfo(branch, parent, branch, Head(branch, b"", 0, 1), 0, first, f"{first:010d}", first)


def key(branch: str, number: int) -> Key:
    return Key(branch, f"{number:010d}")


MAIN = [taken("main", 1), taken("main", 3, 1), taken("main", 6, 3, 5), taken("main", 8, 6)]
SIDE = [taken("side", 4, 3), taken("side", 5, 4), taken("side", 7, 5)]
DEEP = [taken("deep", 9, 7)]
BRANCHES = [begun("side", "main", 4), begun("deep", "side", 9)]


def without(*gone: int) -> Lineage:
    return Lineage([one for one in MAIN + SIDE + DEEP if one.time_ns not in gone], BRANCHES)


def test_parents_that_are_there() -> None:
    lineage = without()
    assert lineage.parents(key("main", 1)) == []
    assert lineage.parents(key("main", 6)) == [key("main", 3), key("side", 5)]
    assert lineage.parents(key("side", 4)) == [key("main", 3)]
    assert lineage.of_branch("side") == [key("side", 4), key("side", 5), key("side", 7)]
    assert lineage.of_branch("none") == []


def test_what_stands_in_for_a_deleted_one() -> None:
    assert without(3).parents(key("main", 6)) == [key("main", 1), key("side", 5)]
    assert without(3).parents(key("side", 4)) == [key("main", 1)]
    assert without(4).parents(key("side", 5)) == [key("main", 3)]
    assert without(4, 5, 7, 3).parents(key("deep", 9)) == [key("main", 1)]
    assert without(1, 3).parents(key("side", 4)) == []
    assert without(5).parents(key("main", 6)) == [key("main", 3)]
    assert without(1).parents(key("main", 3)) == []


def test_ancestors() -> None:
    assert set(without().with_ancestors([key("main", 6)])) == {
        key("main", 6), key("main", 3), key("main", 1), key("side", 5), key("side", 4)
    }  # fmt: skip
    assert without().with_ancestors([]) == {}


def test_one_id_in_two_branches() -> None:
    lineage = Lineage([taken("main", 1), taken("side", 1), taken("side", 2, 1), taken("main", 2, 1)], [])
    assert lineage.parents(key("side", 2)) == [key("side", 1)]
    assert lineage.parents(key("main", 2)) == [key("main", 1)]


@given(st.sets(st.integers(1, 9)))
def test_whatever_is_deleted_the_rest_hangs_together(gone: set[int]) -> None:
    lineage = without(*gone)
    whole = without()
    left = set(lineage.snapshots)
    for one in left:
        before = set(whole.with_ancestors(whole.parents(one)))
        parents = lineage.parents(one)
        assert set(parents) <= before & left
        line = [one]
        while following := whole.parents(line[-1]):
            line.append(following[0])
        # The nearest in the straight line that is left; what was merged in stays where it is.
        nearest = [older for older in line[1:] if older in left][:1]
        merged = [other for other in whole.parents(one)[1:] if other in left]
        assert parents == nearest + merged
