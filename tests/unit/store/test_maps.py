"""Sorted maps: cost, and pages that are not what they should be. Content is tests/property/test_maps.py."""

import pytest

from helios_fs.errors import CorruptObject
from helios_fs.objects.ids import KIND_PAGE
from helios_fs.objects.pages import Page, boundary_level, encode_page
from helios_fs.store import maps
from tests.unit.store.pages import Pages

_COUNT = 50_000
_KEYS = [number.to_bytes(8, "big") for number in range(_COUNT)]


@pytest.fixture(scope="module")
def large() -> tuple[Pages, bytes]:
    pages = Pages()
    return pages, maps.edit(pages, b"", {key: b"value" + key for key in _KEYS})


@pytest.fixture
def counted(large: tuple[Pages, bytes]) -> tuple[Pages, bytes]:
    large[0].read.clear()
    large[0].written.clear()
    return large


def _height(pages: Pages, root: bytes) -> int:
    return pages.page(root).level + 1


def _boundary_key(level: int) -> bytes:
    return next(key for key in _KEYS[_COUNT // 2 :] if boundary_level(key) == level)


@pytest.mark.parametrize("key", [_KEYS[0], _KEYS[777], _KEYS[_COUNT // 2], _KEYS[-1]])
def test_one_changed_value_costs_one_page_on_each_level(counted: tuple[Pages, bytes], key: bytes) -> None:
    pages, root = counted
    height = _height(pages, root)
    pages.read.clear()
    changed = maps.edit(pages, root, {key: b"changed"})
    assert changed != root
    assert len(pages.written) == height
    assert len(pages.read) == height
    pages.read.clear()
    assert list(maps.differences(pages, root, changed)) == [(key, b"value" + key, b"changed")]
    assert len(pages.read) <= 2 * height + 2


@pytest.mark.parametrize("level", [0, 1, 2])
def test_one_key_more_or_less_costs_a_few_pages(counted: tuple[Pages, bytes], level: int) -> None:
    """A key that ends a page on `level` levels: without it, each of these pages is joined with the next."""
    pages, root = counted
    key = _boundary_key(level)
    height = _height(pages, root)
    pages.read.clear()
    without = maps.edit(pages, root, {key: None})
    assert len(pages.written) <= height
    assert len(pages.read) <= 2 * height
    pages.read.clear()
    pages.written.clear()
    assert maps.edit(pages, without, {key: b"value" + key}) == root
    assert len(pages.written) <= 2 * height
    assert len(pages.read) <= 2 * height
    pages.read.clear()
    assert list(maps.differences(pages, without, root)) == [(key, None, b"value" + key)]
    assert len(pages.read) <= 4 * height


def test_many_edits_cost_at_most_their_own_pages(counted: tuple[Pages, bytes]) -> None:
    pages, root = counted
    edits: dict[bytes, bytes | None] = dict.fromkeys(_KEYS[:: _COUNT // 20], b"changed")
    height = _height(pages, root)
    pages.read.clear()
    maps.edit(pages, root, edits)
    assert len(pages.written) <= len(edits) * height
    assert len(pages.read) <= len(edits) * height


def test_an_edit_that_changes_nothing_writes_nothing(counted: tuple[Pages, bytes]) -> None:
    pages, root = counted
    assert maps.edit(pages, root, {}) == root
    assert pages.read == []
    assert maps.edit(pages, root, {_KEYS[5]: b"value" + _KEYS[5], b"not there": None}) == root
    assert pages.written == []
    small = maps.edit(pages, b"", {b"a": b"1"})
    pages.written.clear()
    assert maps.edit(pages, small, {b"a": b"1", b"b": None}) == small
    assert pages.written == []


def test_looking_costs_one_page_on_each_level(counted: tuple[Pages, bytes]) -> None:
    pages, root = counted
    height = _height(pages, root)
    pages.read.clear()
    assert maps.find(pages, root, _KEYS[4321]) == b"value" + _KEYS[4321]
    assert maps.find(pages, root, _KEYS[4321] + b"x") is None
    assert maps.last_at_or_before(pages, root, _KEYS[4321] + b"x") == (_KEYS[4321], b"value" + _KEYS[4321])
    assert maps.find_first(pages, root, _KEYS[4321][:-1] + b"\xff") is not None
    assert len(pages.read) <= 4 * height + 1
    pages.read.clear()
    items = maps.scan(pages, root, after=_KEYS[100])
    assert [next(items)[0] for _ in range(5)] == _KEYS[101:106]
    assert len(pages.read) <= 2 * height


def test_the_last_key_of_the_page_before_is_found(counted: tuple[Pages, bytes]) -> None:
    pages, root = counted
    for level in (1, 2):
        last = _boundary_key(level)
        assert maps.last_at_or_before(pages, root, last + b"\0") == (last, b"value" + last)
    assert maps.last_at_or_before(pages, root, b"") is None
    assert maps.last_at_or_before(pages, root, b"\xff" * 8) == (_KEYS[-1], b"value" + _KEYS[-1])


def test_an_empty_map_has_nothing() -> None:
    pages = Pages()
    assert maps.find(pages, b"", b"a") is None
    assert maps.find_first(pages, b"", b"a") is None
    assert maps.last_at_or_before(pages, b"", b"a") is None
    assert list(maps.scan(pages, b"")) == []
    assert list(maps.differences(pages, b"", b"")) == []
    assert maps.edit(pages, b"", {b"a": None}) == b""
    assert pages.read == []


def test_a_map_shrinks_by_several_levels_at_once(counted: tuple[Pages, bytes]) -> None:
    pages, root = counted
    for kept in (_KEYS[:1], _KEYS[7:9], _KEYS[-1:], []):
        edits = dict.fromkeys(set(_KEYS) - set(kept))
        assert maps.edit(pages, root, edits) == maps.edit(pages, b"", {key: b"value" + key for key in kept})


@pytest.mark.parametrize(("level", "key"), [(1, b"c"), (2, b"b")], ids=["another key", "another level"])
def test_pages_that_do_not_fit_together_are_refused(level: int, key: bytes) -> None:
    """Each page is sound by itself; what is wrong is only how they hang together. No walk may go round in circles."""
    pages = Pages()
    leaf = pages.put(KIND_PAGE, encode_page(Page(0, [b"a", b"b"], [b"1", b"2"])))
    other = pages.put(KIND_PAGE, encode_page(Page(0, [b"x", b"y"], [b"1", b"2"])))
    root = pages.put(KIND_PAGE, encode_page(Page(level, [key, b"y"], [leaf, other])))
    sound = maps.edit(pages, b"", {b"a": b"1"})
    for call in (
        lambda: maps.find(pages, root, b"a"),
        lambda: list(maps.scan(pages, root)),
        lambda: maps.last_at_or_before(pages, root, b"a"),
        lambda: maps.edit(pages, root, {b"a": b"new"}),
        lambda: list(maps.differences(pages, root, sound)),
    ):
        with pytest.raises(CorruptObject):
            call()
