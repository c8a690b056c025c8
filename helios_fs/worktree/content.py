"""The bytes of files: what the journal holds over what the store holds.

C1. At any offset the newest piece wins; below `limit` the base shows through; everything else inside `size` is zero.
C2. Nothing is returned that was not checked: the journal and the store verify what they read.
"""

from helios_fs.journal.journal import Journal
from helios_fs.store import content as stored
from helios_fs.store.content import ObjectReader
from helios_fs.worktree import extents
from helios_fs.worktree.inode import Piece, State


def read(journal: Journal, objects: ObjectReader, file: State, offset: int, length: int) -> bytes:
    """Return up to `length` bytes at `offset`, fewer only at the end of the file.

    Raises ColdObject where `objects` may not wait for the disk, CorruptObject where bytes do not verify.
    """
    end = min(offset + length, file.size)
    if end <= offset:
        return b""
    if file.regions is None:
        if end <= file.limit:
            return stored.read_content(objects, file.base, file.base_size, offset, end - offset)
        return _assemble(journal, objects, file, offset, end, [])
    pieces = extents.pieces_in(file.regions, offset, end)
    if len(pieces) == 1 and pieces[0][0] == offset and pieces[0][1] == end:
        return _read_piece(journal, pieces[0])
    return _assemble(journal, objects, file, offset, end, pieces)


def _read_piece(journal: Journal, piece: Piece) -> bytes:
    start, end, position, origin, length = piece
    return journal.read_data(position, length, start - origin, end - origin)


def _assemble(
    journal: Journal, objects: ObjectReader, file: State, offset: int, end: int, pieces: list[Piece]
) -> bytes:
    buffer = bytearray(end - offset)
    at = offset
    for piece in [*pieces, (end, end, 0, 0, 0)]:
        visible = min(piece[0], file.limit)
        if at < visible and file.base:
            below = stored.read_content(objects, file.base, file.base_size, at, visible - at)
            buffer[at - offset : at - offset + len(below)] = below
        if piece[1] > piece[0]:
            buffer[piece[0] - offset : piece[1] - offset] = _read_piece(journal, piece)
        at = piece[1]
    return bytes(buffer)


def covered(objects: ObjectReader, file: State, start: int, end: int) -> int:
    """Return how many bytes of start..end are data, not holes."""
    total = 0
    at = start
    pieces = extents.pieces_in(file.regions, start, end) if file.regions is not None and end > start else []
    for piece in [*pieces, (end, end, 0, 0, 0)]:
        visible = min(piece[0], file.limit)
        if at < visible and file.base:
            total += stored.covered(objects, file.base, file.base_size, at, visible)
        total += piece[1] - piece[0]
        at = piece[1]
    return total
