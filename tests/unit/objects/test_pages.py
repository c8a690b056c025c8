import pytest

from helios_fs.errors import CorruptObject
from helios_fs.objects import pages
from helios_fs.objects.pages import Page, boundary_level, decode_page, encode_page


def test_a_page_comes_back() -> None:
    page = Page(1, [b"a", b"b"], [b"1", b"2"])
    assert decode_page(encode_page(page)) == page


@pytest.mark.parametrize(
    "page",
    [
        Page(0, [], []),
        Page(0, [b"a"], []),
        Page(0, [b"a"], [b"1", b"2"]),
        Page(-1, [b"a"], [b"1"]),
        Page(0, [b"b", b"a"], [b"1", b"2"]),
        Page(0, [b"a", b"a"], [b"1", b"2"]),
    ],
)
def test_a_page_that_breaks_its_rules_is_refused(page: Page) -> None:
    with pytest.raises(CorruptObject):
        decode_page(encode_page(page))


def test_bytes_that_are_no_page_are_refused() -> None:
    for data in (b"", b"\xc1", b"\x93\x00\x90", b"\x93\x00\xdd\xff\xff\xff\xff", b"\x00" * 100):
        with pytest.raises(CorruptObject):
            decode_page(data)


def test_boundaries_are_as_rare_as_they_should_be() -> None:
    levels = [boundary_level(b"%d" % number) for number in range(64 * 1024)]
    first = sum(level >= 1 for level in levels)
    second = sum(level >= 2 for level in levels)
    assert 800 < first < 1250  # 1024 expected
    assert 2 <= second < 40  # 16 expected
    assert max(levels) <= 64 // pages.FANOUT_BITS


def test_a_hash_of_zero_has_the_highest_level(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pages.xxhash, "xxh3_64_intdigest", lambda key, seed: 0)
    assert boundary_level(b"any") == 10
