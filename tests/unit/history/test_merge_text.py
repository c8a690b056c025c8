"""Merging texts by lines, held against what git makes of the same."""

import random
import subprocess
from pathlib import Path

import pytest

from helios_fs.history import merge_text
from helios_fs.history.merge_text import MAX_BYTES, is_text, merge_lines


def test_changes_in_different_places_are_both_there() -> None:
    base = b"1\n2\n3\n4\n5\n"
    merged = merge_lines(base, b"one\n2\n3\n4\n5\n", b"1\n2\n3\n4\nfive\nsix\n")
    assert merged == (b"one\n2\n3\n4\nfive\nsix\n", 0)


def test_the_same_change_on_both_sides() -> None:
    assert merge_lines(b"1\n2\n", b"1\nx\n", b"1\nx\n") == (b"1\nx\n", 0)


@pytest.mark.parametrize(
    ("favour", "expected"),
    [
        ("ours", b"a\nO\nz\n"),
        ("theirs", b"a\nT\nz\n"),
        ("markers", b"a\n<<<<<<< main\nO\n=======\nT\n>>>>>>> agent\nz\n"),
    ],
)
def test_conflicts_are_decided(favour: merge_text.Favour, expected: bytes) -> None:
    assert merge_lines(b"a\nb\nz\n", b"a\nO\nz\n", b"a\nT\nz\n", favour, ("main", "agent")) == (expected, 1)


def test_markers_begin_a_line_where_the_last_one_has_no_end() -> None:
    merged = merge_lines(b"", b"ours", b"theirs", "markers", ("o", "t"))
    assert merged.data == b"<<<<<<< o\nours\n=======\ntheirs\n>>>>>>> t\n"


def test_what_both_begin_and_end_with_stands_outside_the_markers() -> None:
    merged = merge_lines(b"", b"same\na\nend\n", b"same\nb\nend\n", "markers", ("o", "t"))
    assert merged.data == b"same\n<<<<<<< o\na\n=======\nb\n>>>>>>> t\nend\n"


def test_what_can_be_merged_by_lines() -> None:
    assert is_text(b"")
    assert is_text(b"\xff\xfe no NUL")
    assert is_text(b"x" * 8000 + b"\0")
    assert not is_text(b"x" * 7999 + b"\0")
    assert not is_text(b"x" * (MAX_BYTES + 1))


def _edited(random_: random.Random, lines: list[bytes]) -> list[bytes]:
    lines = list(lines)
    for _ in range(random_.randrange(3)):
        at = random_.randrange(len(lines) + 1)
        match random_.randrange(3):
            case 0:
                lines.insert(at, b"new %d\n" % random_.randrange(4))
            case 1 if lines:
                lines.pop(at % len(lines))
            case _ if lines:
                lines[at % len(lines)] = b"changed %d\n" % random_.randrange(4)
    return lines


def test_git_merges_the_same(tmp_path: Path) -> None:
    """Lines that repeat can be matched in more than one way, so these do not."""
    for seed in range(150):
        random_ = random.Random(seed)
        base = [b"line %d\n" % number for number in range(random_.randrange(14))]
        sides = [base, _edited(random_, base), _edited(random_, base)]
        for name, lines in zip(("base", "ours", "theirs"), sides, strict=True):
            (tmp_path / name).write_bytes(b"".join(lines))
        git = subprocess.run(
            ["git", "merge-file", "-p", "-q", "ours", "base", "theirs"], cwd=tmp_path, capture_output=True
        )
        merged = merge_lines(*(b"".join(lines) for lines in sides))
        assert (git.returncode == 0) == (merged.conflicts == 0), seed
        if not merged.conflicts:
            assert merged.data == git.stdout, seed


def test_long_texts_are_compared_between_anchors(monkeypatch: pytest.MonkeyPatch) -> None:
    base = [b"%d\n" % number for number in range(2000)]
    ours, theirs = list(base), list(base)
    for at in range(3, 2000, 40):
        ours[at] = b"ours %d\n" % at
        theirs[at + 20] = b"theirs %d\n" % at
    expected = [theirs[at] if theirs[at] != base[at] else ours[at] for at in range(2000)]
    monkeypatch.setattr(merge_text, "_MAX_CELLS", 100)
    assert merge_lines(b"".join(base), b"".join(ours), b"".join(theirs)) == (b"".join(expected), 0)


def test_texts_with_no_line_in_common_that_are_too_long_to_compare(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(merge_text, "_MAX_CELLS", 4)
    base, ours, theirs = (b"".join(b"%s %d\n" % (name, at) for at in range(9)) for name in (b"b", b"o", b"t"))
    assert merge_lines(base, ours, theirs) == (ours, 1)
    assert merge_lines(base, base, theirs) == (theirs, 0)
