"""Extents: which bytes of a file were written since its base, and by which journal records.

A file's changes are a persistent map from region number to a small tuple of pieces, so that one write copies one
region's tuple and never the whole file's, and an older version costs nothing until the file changes again.

X1. The pieces of a region ascend, do not overlap, and lie inside it.
"""

from collections.abc import Iterator
from typing import Final

import immutables

from helios_fs.worktree.inode import Piece, Regions

REGION_BYTES: Final = 128 * 1024
EMPTY: Final[Regions] = immutables.Map()


def insert(regions: Regions | None, start: int, end: int, position: int) -> Regions:
    """Return the map after bytes start..end were written by the record whose data is at `position`."""
    length = end - start
    if regions is None:
        regions = EMPTY
    first = start // REGION_BYTES
    last = (end - 1) // REGION_BYTES
    if first == last:
        pieces = regions.get(first)
        piece = (start, end, position, start, length)
        return regions.set(first, _merged(pieces, piece) if pieces else (piece,))
    changed = regions.mutate()
    for number in range(first, last + 1):
        piece = (max(start, number * REGION_BYTES), min(end, (number + 1) * REGION_BYTES), position, start, length)
        pieces = regions.get(number)
        changed[number] = _merged(pieces, piece) if pieces else (piece,)
    return changed.finish()


def _merged(pieces: tuple[Piece, ...], piece: Piece) -> tuple[Piece, ...]:
    start, end = piece[0], piece[1]
    if pieces[-1][1] <= start:
        return (*pieces, piece)
    if len(pieces) == 1 and pieces[0][0] >= start and pieces[0][1] <= end:
        return (piece,)
    before = [p for p in pieces if p[1] <= start]
    after = [p for p in pieces if p[0] >= end]
    for old in pieces:
        if old[0] < start < old[1]:
            before.append((old[0], start, *old[2:]))
        if old[0] < end < old[1]:
            after.insert(0, (end, old[1], *old[2:]))
    return (*before, piece, *after)


def cut(regions: Regions, size: int) -> Regions | None:
    """Return the map without what lies at or behind `size`."""
    boundary = size // REGION_BYTES
    beyond = [number for number in regions if number >= boundary]
    if not beyond:
        return regions
    with regions.mutate() as changed:
        for number in beyond:
            kept: tuple[Piece, ...] = ()
            if number == boundary:
                kept = tuple([(p[0], min(p[1], size), *p[2:]) for p in regions[number] if p[0] < size])
            if kept:
                changed[number] = kept
            else:
                del changed[number]
        remaining = changed.finish()
    return remaining or None


def written_since(regions: Regions, position: int) -> Regions | None:
    """Return the map with only what records at or behind `position` wrote: the rest is in the base now."""
    with immutables.Map[int, tuple[Piece, ...]]().mutate() as kept:
        for number, pieces in regions.items():
            newer = tuple([p for p in pieces if p[2] >= position])
            if newer:
                kept[number] = newer
        remaining = kept.finish()
    return remaining or None


def pieces_in(regions: Regions, start: int, end: int) -> list[Piece]:
    """Return what lies in start..end, clipped to it, ascending; pieces of one record that touch are joined."""
    found: list[Piece] = []
    for number in range(start // REGION_BYTES, (end - 1) // REGION_BYTES + 1):
        for piece in regions.get(number, ()):
            if piece[1] <= start:
                continue
            if piece[0] >= end:
                break
            low, high = max(piece[0], start), min(piece[1], end)
            if found and found[-1][2] == piece[2] and found[-1][1] == low:
                found[-1] = (found[-1][0], high, *piece[2:])
            else:
                found.append((low, high, *piece[2:]))
    return found


def ranges(regions: Regions) -> Iterator[tuple[int, int]]:
    """Yield the written ranges of a file, ascending and disjoint; those that touch are joined."""
    start = end = -1
    for number in sorted(regions):
        for piece in regions[number]:
            if piece[0] == end:
                end = piece[1]
                continue
            if end > start:
                yield start, end
            start, end = piece[0], piece[1]
    if end > start:
        yield start, end
