"""What becomes of one inode that both sides have: attributes and content, each three-way by itself.

Knows entries and blobs, nothing of names.

N1. Attributes that only one side changed are that side's. Times never conflict: the later one is taken; the time of
    the last change stays ours, as the working tree sets it when it takes the rest.
N2. Content that both changed is merged by lines where all three are text; else it conflicts.
"""

from collections.abc import Callable
from typing import NamedTuple, TypeVar

import msgspec

from helios_fs.history.merge_places import Kind
from helios_fs.history.merge_text import MAX_BYTES, Favour, is_text, merge_lines
from helios_fs.objects.entry import Entry
from helios_fs.sealer.content import ObjectWriter, store_content
from helios_fs.store.content import read_content

_T = TypeVar("_T")


class MergedEntry(NamedTuple):
    """An entry, and why it is in conflict, if it is."""

    entry: Entry
    conflicts: list[Kind]
    keep_both: bool
    """Ours was taken, and theirs is to be kept beside it."""


class Entries:
    """Merges entries; merged content is put into the writer."""

    def __init__(self, writer: ObjectWriter, favour: Favour, labels: tuple[str, str], now_ns: int) -> None:
        """`now_ns` becomes the time of content that neither side has."""
        self._writer = writer
        self._favour = favour
        self._labels = labels
        self._now_ns = now_ns

    def merge(self, base: Entry | None, ours: Entry, theirs: Entry) -> MergedEntry:
        """Return what both sides made of an inode. Its number, link count and a directory's content are ours.

        Raises what reading and putting objects raises.
        """
        conflicts: list[Kind] = []
        clashes: list[bool] = []

        def pick(of: Callable[[Entry], _T]) -> _T:
            one, other = of(ours), of(theirs)
            former = one if base is None else of(base)
            if other in (one, former):
                return one
            if base is not None and one == former:
                return other
            clashes.append(True)
            return other if self._favour == "theirs" else one

        merged = msgspec.structs.replace(
            ours,
            mode=pick(_permissions) | (ours.mode & ~0o7777),
            uid=pick(_uid),
            gid=pick(_gid),
            xattrs=self._xattrs(base, ours, theirs, clashes),
            atime_ns=max(ours.atime_ns, theirs.atime_ns),
            mtime_ns=_later(base, ours, theirs),
        )
        if base is None and not ours.is_directory:
            # Two files of one name: what differs besides content is said once, with it.
            clashes = clashes if _content(ours) == _content(theirs) else []
        if clashes:
            conflicts.append("attributes" if base is not None else "both added")
        keep_both = False
        if not ours.is_directory:
            merged, kind, keep_both = self._content(base, ours, theirs, merged)
            if kind is not None:
                conflicts.append(kind)
        return MergedEntry(merged, conflicts, keep_both)

    def _xattrs(self, base: Entry | None, ours: Entry, theirs: Entry, clashes: list[bool]) -> dict[bytes, bytes] | None:
        before, one, other = ((entry.xattrs or {}) if entry is not None else {} for entry in (base, ours, theirs))
        if other in (one, before):
            return ours.xattrs
        merged = {}
        for name in sorted({*before, *one, *other}):
            former, mine, new = before.get(name), one.get(name), other.get(name)
            value = mine
            if mine == former:
                value = new
            elif new not in (former, mine):
                clashes.append(True)
                value = new if self._favour == "theirs" else mine
            if value is not None:
                merged[name] = value
        return merged or None

    def _content(
        self, base: Entry | None, ours: Entry, theirs: Entry, merged: Entry
    ) -> tuple[Entry, Kind | None, bool]:
        one, other = _content(ours), _content(theirs)
        former = _content(base) if base is not None else None
        if other in (former, one):
            return merged, None, False
        if one == former:
            return _with_content(merged, theirs), None, False
        added = base is None
        if ours.is_file and theirs.is_file and (base is None or base.is_file):
            texts = [self._text(entry) for entry in (base, ours, theirs)]
            if texts[0] is not None and texts[1] is not None and texts[2] is not None:
                result = merge_lines(texts[0], texts[1], texts[2], self._favour, self._labels)
                entry = merged
                if not result.conflicts or self._favour is not None:
                    entry = self._stored(merged, ours, theirs, result.data, (texts[1], texts[2]))
                return entry, ("both added" if added else "content") if result.conflicts else None, False
        kind: Kind = "both added" if added else "binary"
        if len({entry.mode & ~0o7777 for entry in (base, ours, theirs) if entry is not None}) > 1:
            kind = "type"
        elif not ours.is_file and not added:
            kind = "content"
        if self._favour == "theirs":
            return _with_content(merged, theirs), kind, False
        return merged, kind, self._favour == "markers"

    def _text(self, entry: Entry | None) -> bytes | None:
        """Return a file's bytes where they can be merged by lines."""
        if entry is None:
            return b""
        if entry.size > MAX_BYTES:
            return None
        data = read_content(self._writer, entry.content, entry.size, 0, entry.size)
        return data if is_text(data) else None

    def _stored(self, merged: Entry, ours: Entry, theirs: Entry, data: bytes, texts: tuple[bytes, bytes]) -> Entry:
        for entry, text in zip((ours, theirs), texts, strict=True):
            if data == text:
                return _with_content(merged, entry)
        content, _ = store_content(
            self._writer, b"", 0, len(data), 0, [(0, len(data))], lambda at, length: data[at : at + length]
        )
        return msgspec.structs.replace(
            merged, content=content, size=len(data), allocated=len(data), mtime_ns=self._now_ns
        )


def _permissions(entry: Entry) -> int:
    return entry.mode & 0o7777


def _uid(entry: Entry) -> int:
    return entry.uid


def _gid(entry: Entry) -> int:
    return entry.gid


def _later(base: Entry | None, ours: Entry, theirs: Entry) -> int:
    if base is not None and ours.mtime_ns == base.mtime_ns:
        return theirs.mtime_ns
    if base is not None and theirs.mtime_ns == base.mtime_ns:
        return ours.mtime_ns
    return max(ours.mtime_ns, theirs.mtime_ns)


def _content(entry: Entry) -> tuple[int, bytes, int, int]:
    """Return what tells one content from another, the type included."""
    return entry.mode & ~0o7777, entry.content, entry.size, entry.rdev


def _with_content(entry: Entry, other: Entry) -> Entry:
    """Return an entry with type and content of another."""
    return msgspec.structs.replace(
        entry,
        mode=(entry.mode & 0o7777) | (other.mode & ~0o7777),
        content=other.content,
        size=other.size,
        allocated=other.allocated,
        rdev=other.rdev,
    )
