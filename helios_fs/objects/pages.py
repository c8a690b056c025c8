"""Pages: the nodes of every sorted map in the store (directories, chunk lists, link tables).

A map is a tree of pages, split where the hash of a key says so, never where an edit happened to stop. Equal maps are
therefore equal trees, page by page, whatever their history; one change rewrites one page on each level.

P1. A leaf holds keys in ascending order with their values; an inner page holds, for each child, the child's last key
    and the child's id.
P2. A page at level n ends after a key whose boundary level is above n, or with the map's last key.
P3. The root is the first level with a single page; an empty map has no page and the empty id.
"""

from typing import Final

import msgspec
import xxhash

from helios_fs.errors import CorruptObject

FANOUT_BITS: Final = 6
"""A page holds 2**FANOUT_BITS items on average."""


class Page(msgspec.Struct, array_like=True, frozen=True):
    """One page: level 0 is a leaf."""

    level: int
    keys: list[bytes]
    values: list[bytes]


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Page).decode


def encode_page(page: Page) -> bytes:
    """Return the canonical bytes of a page."""
    return _encode(page)


def decode_page(data: bytes) -> Page:
    """Return a page whose keys ascend and match its values in number. Raises CorruptObject."""
    try:
        page = _decode(data)
    except (msgspec.MsgspecError, ValueError) as error:
        raise CorruptObject(f"a tree page cannot be decoded: {error}") from error
    keys = page.keys
    if not keys or len(keys) != len(page.values) or page.level < 0:
        raise CorruptObject("a tree page has no keys, or not as many values")
    if any(a >= b for a, b in zip(keys, keys[1:], strict=False)):
        raise CorruptObject("the keys of a tree page do not ascend")
    return page


def boundary_level(key: bytes) -> int:
    """Return on how many levels a page ends after `key`: 0 for most keys, 1 for one in 64, 2 for one in 4096."""
    bits = xxhash.xxh3_64_intdigest(key, seed=0x48454C494F53)
    if bits == 0:
        return 64 // FANOUT_BITS
    return ((bits & -bits).bit_length() - 1) // FANOUT_BITS
