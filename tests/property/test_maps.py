"""Sorted maps: any history of edits gives the content of a dict, and the same pages as a map built at once (M1)."""

import random

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from helios_fs.objects.pages import boundary_level
from helios_fs.store import maps
from tests.unit.store.pages import Pages


def _with_level(level: int, count: int) -> list[bytes]:
    found: list[bytes] = []
    number = 0
    while len(found) < count:
        key = number.to_bytes(4, "big")
        if boundary_level(key) == level:
            found.append(key)
        number += 1
    return found


# Real boundaries are one key in 64, which short random maps would hardly ever meet. These keys are chosen so that a
# map of a few dozen has several levels.
_KEYS = sorted(_with_level(0, 60) + _with_level(1, 40) + _with_level(2, 12) + _with_level(3, 3))
_keys = st.sampled_from(_KEYS)
_values = st.sampled_from([b"", b"one", b"two", b"x" * 40])
_edits = st.dictionaries(_keys, st.none() | _values, max_size=40)


def _check_rules(pages: Pages, root: bytes) -> None:
    """P1 to P3 of objects/pages.py."""
    if not root:
        return
    level_ids = [root]
    top = pages.page(root)
    assert top.level == 0 or len(top.keys) > 1
    for level in range(top.level, -1, -1):
        below: list[bytes] = []
        for position, page_id in enumerate(level_ids):
            page = pages.page(page_id)
            assert page.level == level
            assert all(boundary_level(key) <= level for key in page.keys[:-1])
            assert boundary_level(page.keys[-1]) > level or position == len(level_ids) - 1
            if level:
                for key, child in zip(page.keys, page.values, strict=True):
                    assert pages.page(child).keys[-1] == key
                below += page.values
        level_ids = below


class MapHistory(RuleBasedStateMachine):
    @initialize(content=st.dictionaries(_keys, _values, max_size=len(_KEYS)))
    def build(self, content: dict[bytes, bytes]) -> None:
        self.pages = Pages()
        self.model = dict(content)
        self.root = maps.edit(self.pages, b"", content)

    @rule(edits=_edits)
    def edit(self, edits: dict[bytes, bytes | None]) -> None:
        before = dict(self.model)
        former = self.root
        for key, value in edits.items():
            if value is None:
                self.model.pop(key, None)
            else:
                self.model[key] = value
        self.root = maps.edit(self.pages, former, edits)
        expected = [
            (key, before.get(key), self.model.get(key))
            for key in sorted(before.keys() | self.model.keys())
            if before.get(key) != self.model.get(key)
        ]
        assert list(maps.differences(self.pages, former, self.root)) == expected
        assert list(maps.differences(self.pages, self.root, former)) == [(k, b, a) for k, a, b in expected]

    @rule(keys=st.sets(_keys, max_size=len(_KEYS)))
    def remove(self, keys: set[bytes]) -> None:
        self.edit(dict.fromkeys(keys))

    @rule(key=_keys)
    def look(self, key: bytes) -> None:
        ordered = sorted(self.model.items())
        assert maps.find(self.pages, self.root, key) == self.model.get(key)
        below = [item for item in ordered if item[0] <= key]
        above = [item for item in ordered if item[0] >= key]
        assert maps.last_at_or_before(self.pages, self.root, key) == (below[-1] if below else None)
        assert maps.find_first(self.pages, self.root, key) == (above[0] if above else None)
        assert list(maps.scan(self.pages, self.root, start=key)) == above
        assert list(maps.scan(self.pages, self.root, after=key)) == [item for item in above if item[0] != key]

    @invariant()
    def equals_the_model(self) -> None:
        assert dict(maps.scan(self.pages, self.root)) == self.model
        assert [key for key, _ in maps.scan(self.pages, self.root)] == sorted(self.model)
        assert maps.edit(Pages(), b"", self.model) == self.root
        _check_rules(self.pages, self.root)


TestMapHistory = MapHistory.TestCase
TestMapHistory.settings = settings(max_examples=150, stateful_step_count=15, deadline=None)


@given(st.integers(0, 2**32))
@settings(max_examples=10, deadline=None)
def test_large_random_maps(seed: int) -> None:
    source = random.Random(seed)
    pages = Pages()
    model = {source.randbytes(8): source.randbytes(10) for _ in range(3000)}
    root = maps.edit(pages, b"", model)
    for _ in range(5):
        edits: dict[bytes, bytes | None] = dict.fromkeys(source.sample(sorted(model), 40))
        edits |= {source.randbytes(8): b"new" for _ in range(40)}
        for key, value in edits.items():
            if value is None:
                del model[key]
            else:
                model[key] = value
        root = maps.edit(pages, root, edits)
    assert root == maps.edit(Pages(), b"", model)
    assert dict(maps.scan(pages, root)) == model
