"""Differences as patches in git's extended format, which `git apply` takes; and how many lines each changes.

Knows entries and their content; nothing of snapshots' names or of a command line. The format is that of
git-diff(1), "Generating patch text with -p", with names relative to the root of the tree after `a/` and `b/`.

P1. Applied to what the first tree holds, a patch gives what the second holds, as far as git can say it: content, the
    execute bit, symlinks. Changes that it cannot say are `left_out`, never passed over. What comes anew belongs to
    whoever applies it, with his permissions, and a directory that loses its last file goes.
P2. A file that went and one that came with the same content (not empty, of one type) are one rename.
P3. What is text is decided as git does it, by a NUL, but in all of the file; what is larger than `TEXT_LIMIT_BYTES`
    is shown as binary, whatever it holds, and read in pieces. Memory is bounded by two texts and the changes.
P4. Of large binary files a patch holds the chunks that one side lacks, and where the other chunks are; but all of both
    is read once, for the names that git gives to contents.
"""

import re
import stat
from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

from helios_fs.history import lines
from helios_fs.history.binary_patch import NO_BLOB, Span, blob_id, delta, literal
from helios_fs.history.diff import Change
from helios_fs.objects.entry import INLINE_LIMIT, Entry
from helios_fs.store.content import chunks_in, read_content
from helios_fs.store.objects import Objects

TEXT_LIMIT_BYTES: Final = 8 << 20
FILE_LIMIT_BYTES: Final = 512 << 20
"""`git apply` refuses a patch of 1 GiB and more; each side of a binary file is in it once."""

_PIECE_BYTES: Final = 4 << 20
_NO_NEWLINE: Final = b"\\ No newline at end of file\n"
# What git's verify_path() refuses: a repository's own directory, also as NTFS would take it for one.
_REFUSED_BY_GIT: Final = re.compile(rb"(?i)(\.git|git~1)[. ]*(:.*)?", re.DOTALL)
_REFUSED_AS_SYMLINK: Final = re.compile(rb"(?i)(\.gitmodules|gitmod~[1-4])[. ]*(:.*)?", re.DOTALL)
_ESCAPES: Final = {
    7: b"\\a",
    8: b"\\b",
    9: b"\\t",
    10: b"\\n",
    11: b"\\v",
    12: b"\\f",
    13: b"\\r",
    34: b'\\"',
    92: b"\\\\",
}

EMPTY_DIRECTORIES: Final = "directories that are empty on one side"
SPECIAL_FILES: Final = "fifos, sockets and devices"
ATTRIBUTES: Final = "changes of owner, xattrs, permissions other than the execute bit, or times alone"
REFUSED_NAMES: Final = "names that git refuses (.git)"
TOO_LARGE: Final = f"files of more than {FILE_LIMIT_BYTES >> 20} MiB"


class Side(NamedTuple):
    """A file or symlink as one of the trees has it."""

    path: bytes
    entry: Entry


class Step(NamedTuple):
    """One file of a patch: made, changed, renamed or removed. At least one side is there."""

    old: Side | None
    new: Side | None

    @property
    def is_rename(self) -> bool:
        """Whether it only gets another name, and perhaps another mode."""
        return self.old is not None and self.new is not None and self.old.path != self.new.path

    @property
    def path(self) -> bytes:
        """The path by which it is listed: the newer where there are two."""
        side = self.new or self.old
        assert side is not None
        return side.path


class LeftOut(NamedTuple):
    """A path with a difference that git has no words for, and which kind of difference."""

    path: bytes
    reason: str


class Plan(NamedTuple):
    """What goes into a patch, in the order of the changes, and what cannot."""

    steps: list[Step]
    left_out: list[LeftOut]


class Counts(NamedTuple):
    """How much a step changes: lines of text, or None for a file that is not shown as text."""

    added: int | None
    removed: int | None


def plan(found: Iterable[Change]) -> Plan:
    """Return what a patch of these changes consists of. Reads no content."""
    steps: list[Step] = []
    left_out: list[LeftOut] = []
    replaced = set()
    for change in found:
        reason = _reason_to_leave_out(change)
        if reason is not None:
            left_out.append(LeftOut(change.path, reason))
        if reason in (REFUSED_NAMES, TOO_LARGE):
            continue
        old, new = _side(change.path, change.a), _side(change.path, change.b)
        if change.kind == "T":
            replaced.add(change.path)
        if old is not None and new is not None and change.kind == "T":
            steps += [Step(old, None), Step(None, new)]  # as git has it: one thing goes, another comes
        elif old is not None and new is not None and _same_for_git(old.entry, new.entry):
            continue
        elif old is not None or new is not None:
            steps.append(Step(old, new))
    return Plan(_with_renames(steps, replaced), left_out)


def write_patch(objects: Objects, step: Step) -> Iterator[bytes]:
    """Yield one file's part of a patch. Raises CorruptObject, ObjectMissing, StoreFault."""
    old, new = step.old, step.new
    if step.is_rename or (old is not None and new is not None and _same_content(old.entry, new.entry)):
        yield _header(step)
        return
    texts = _texts(objects, step)
    if texts is None:
        ids = [blob_id(*_content(objects, side)) if side is not None else NO_BLOB for side in (old, new)]
    else:
        ids = [blob_id(len(t), [t]) if side is not None else NO_BLOB for side, t in zip((old, new), texts, strict=True)]
    if ids[0] == ids[1]:  # holes on one side are zeros on the other
        if old and new and _git_mode(old.entry) != _git_mode(new.entry):
            yield _header(step)
        return
    yield _header(step)
    mode = b" %o" % _git_mode(new.entry) if old and new and _git_mode(old.entry) == _git_mode(new.entry) else b""
    yield b"index %s..%s%s\n" % (ids[0], ids[1], mode)
    if texts is None:
        yield b"GIT binary patch\n"
        yield from _binary_half(objects, old, new)
        yield from _binary_half(objects, new, old)
    elif any(texts):
        yield from _text_patch(step, *texts)


def count(objects: Objects, step: Step) -> Counts:
    """Return how many lines a step adds and removes. Raises CorruptObject, ObjectMissing, StoreFault."""
    if step.is_rename or (step.old and step.new and _same_content(step.old.entry, step.new.entry)):
        return Counts(0, 0)
    texts = _texts(objects, step)
    if texts is None:
        return Counts(None, None)
    changed = lines.changes(lines.split_lines(texts[0]), lines.split_lines(texts[1]))
    return Counts(sum(d - c for _, _, c, d in changed), sum(b - a for a, b, _, _ in changed))


def quoted(path: bytes) -> bytes:
    """Return a name as git writes it in a patch: itself, or in C's quotes where it could be misread."""
    try:
        path.decode()
        plain = 256
    except UnicodeDecodeError:
        plain = 128
    # `git apply` gives up on `a/x /y b/x /y`, which it takes to end at the first space.
    if b" /" not in path and all(32 <= byte < plain and byte not in b'"\\\x7f' for byte in path):
        return path
    parts = [
        _ESCAPES.get(byte) or (bytes([byte]) if 32 <= byte < plain and byte != 127 else b"\\%03o" % byte)
        for byte in path
    ]
    return b'"' + b"".join(parts) + b'"'


# -- What goes into a patch ------------------------------------------------------------------------------------------


def _reason_to_leave_out(change: Change) -> str | None:
    """Return what of a change a patch cannot say, or None where it says it all."""
    a, b = change.a, change.b
    there = [entry for entry in (a, b) if entry is not None]
    if _refused(change.path, any(stat.S_ISLNK(entry.mode) for entry in there)):
        return REFUSED_NAMES
    unlike = a is None or b is None or not _same_content(a, b)
    if unlike and any(entry.is_file and entry.size > FILE_LIMIT_BYTES for entry in there):
        return TOO_LARGE
    if any(not entry.is_directory and not _fits_git(entry) for entry in there):
        return SPECIAL_FILES
    if change.kind != "M":
        return EMPTY_DIRECTORIES if any(entry.is_directory and not entry.content for entry in there) else None
    assert a is not None and b is not None
    if a.is_directory or (a.uid, a.gid, a.xattrs) != (b.uid, b.gid, b.xattrs):
        return ATTRIBUTES
    executable = stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH
    if (a.mode ^ b.mode) & ~executable or _same_for_git(a, b):
        return ATTRIBUTES
    return None


def _refused(path: bytes, is_symlink: bool) -> bool:
    for name in re.split(rb"[/\\]", path):
        if _REFUSED_BY_GIT.fullmatch(name) or (is_symlink and _REFUSED_AS_SYMLINK.fullmatch(name)):
            return True
    return False


def _fits_git(entry: Entry) -> bool:
    return entry.is_file or stat.S_ISLNK(entry.mode)


def _side(path: bytes, entry: Entry | None) -> Side | None:
    return Side(path, entry) if entry is not None and _fits_git(entry) else None


def _git_mode(entry: Entry) -> int:
    """Return the mode that git keeps of a file: whether its owner may execute it, and no more."""
    if stat.S_ISLNK(entry.mode):
        return 0o120000
    return 0o100755 if entry.mode & stat.S_IXUSR else 0o100644


def _same_content(a: Entry, b: Entry) -> bool:
    return (stat.S_IFMT(a.mode), a.size, a.content) == (stat.S_IFMT(b.mode), b.size, b.content)


def _same_for_git(a: Entry, b: Entry) -> bool:
    return _git_mode(a) == _git_mode(b) and _same_content(a, b)


def _with_renames(steps: list[Step], replaced: set[bytes]) -> list[Step]:
    """Join what went and what came with the same content into renames (P2), each where the new name was listed.

    Not those that are `replaced`: git has no rename to what lies below the name of a symlink that goes by it.
    """
    gone: dict[tuple[int, int, bytes], list[Side]] = {}
    for old, new in steps:
        if old is not None and new is None and old.entry.size and old.path not in replaced:
            gone.setdefault(_identity(old.entry), []).append(old)
    joined: list[Step] = []
    renamed: set[bytes] = set()
    for step in steps:
        old, new = step
        if new is not None and old is None and new.path not in replaced:
            sources = gone.get(_identity(new.entry))
            if sources:
                # The one with the same last part of its name where there is one, else the first.
                name = new.path.rpartition(b"/")[2]
                at = next((n for n, side in enumerate(sources) if side.path.rpartition(b"/")[2] == name), 0)
                source = sources.pop(at)
                renamed.add(source.path)
                joined.append(Step(source, new))
                continue
        joined.append(step)
    return [step for step in joined if step.new is not None or step.path not in renamed]


def _identity(entry: Entry) -> tuple[int, int, bytes]:
    return stat.S_IFMT(entry.mode), entry.size, entry.content


# -- How it is written -----------------------------------------------------------------------------------------------


def _header(step: Step) -> bytes:
    old, new = step.old, step.new
    path_a, path_b = (old or new), (new or old)
    assert path_a is not None and path_b is not None
    parts = [b"diff --git %s %s\n" % (quoted(b"a/" + path_a.path), quoted(b"b/" + path_b.path))]
    if old is None:
        parts.append(b"new file mode %o\n" % _git_mode(path_b.entry))
    elif new is None:
        parts.append(b"deleted file mode %o\n" % _git_mode(path_a.entry))
    elif _git_mode(old.entry) != _git_mode(new.entry):
        parts.append(b"old mode %o\nnew mode %o\n" % (_git_mode(old.entry), _git_mode(new.entry)))
    if step.is_rename:
        parts.append(
            b"similarity index 100%%\nrename from %s\nrename to %s\n" % (quoted(path_a.path), quoted(path_b.path))
        )
    return b"".join(parts)


def _text_patch(step: Step, before: bytes, after: bytes) -> Iterator[bytes]:
    yield b"--- %s\n" % (_label(b"a/", step.old))
    yield b"+++ %s\n" % (_label(b"b/", step.new))
    a, b = lines.split_lines(before), lines.split_lines(after)
    for hunk in lines.hunks(a, b):
        yield b"@@ -%s +%s @@\n" % (_range(hunk.a_start, hunk.a_end), _range(hunk.b_start, hunk.b_end))
        at = hunk.a_start
        for a_low, a_high, b_low, b_high in hunk.changes:
            yield from _marked(b" ", a[at:a_low])
            yield from _marked(b"-", a[a_low:a_high])
            yield from _marked(b"+", b[b_low:b_high])
            at = a_high
        yield from _marked(b" ", a[at : hunk.a_end])


def _label(prefix: bytes, side: Side | None) -> bytes:
    if side is None:
        return b"/dev/null"
    # Without the tab, what reads the patch would take a name to end at its first space.
    return quoted(prefix + side.path) + (b"\t" if b" " in side.path else b"")


def _range(start: int, end: int) -> bytes:
    """Return lines as a hunk's header counts them: from 1, and an empty range by the line before it."""
    length = end - start
    if length == 1:
        return b"%d" % (start + 1)
    return b"%d,%d" % (start + (length > 0), length)


def _marked(mark: bytes, part: list[bytes]) -> Iterator[bytes]:
    for line in part:
        yield mark + line
    if part and not part[-1].endswith(b"\n"):
        yield b"\n" + _NO_NEWLINE


def _texts(objects: Objects, step: Step) -> tuple[bytes, bytes] | None:
    """Return both sides as texts, b"" for one that is not there, or None where they are not shown as text (P3)."""
    found = []
    for side in (step.old, step.new):
        if side is None:
            found.append(b"")
        elif stat.S_ISLNK(side.entry.mode):
            found.append(side.entry.content)
        elif side.entry.size > TEXT_LIMIT_BYTES:
            return None
        else:
            data = read_content(objects, side.entry.content, side.entry.size, 0, side.entry.size)
            if b"\0" in data:
                return None
            found.append(data)
    return found[0], found[1]


def _binary_half(objects: Objects, old: Side | None, new: Side | None) -> Iterator[bytes]:
    """Yield the half of a binary patch that leads from one side to the other."""
    if old is not None and new is not None and min(old.entry.size, new.entry.size) > INLINE_LIMIT:
        a, b = old.entry, new.entry
        spans = _spans(objects, a, b)
        if any(span.source is not None for span in spans):
            yield from delta(a.size, b.size, spans, lambda start, length: _bytes_of(objects, b, start, length))
            return
    yield from literal(*_content(objects, new))


def _spans(objects: Objects, a: Entry, b: Entry) -> list[Span]:
    """Return where the older file has the chunks of the newer one. Reads chunk lists only."""
    where = {chunk.blob: offset for offset, chunk in chunks_in(objects, a.content, 0, a.size)}
    spans: list[Span] = []

    def add(start: int, length: int, source: int | None) -> None:
        if spans:
            last = spans[-1]
            follows = None if last.source is None else last.source + last.length
            if source == follows:
                spans[-1] = Span(last.start, last.length + length, last.source)
                return
        spans.append(Span(start, length, source))

    at = 0
    for offset, chunk in chunks_in(objects, b.content, 0, b.size):
        if offset > at:
            add(at, offset - at, None)
        add(offset, chunk.length, where.get(chunk.blob))
        at = offset + chunk.length
    if at < b.size:
        add(at, b.size - at, None)
    return spans


def _content(objects: Objects, side: Side | None) -> tuple[int, Iterator[bytes]]:
    """Return the size of a file, 0 for one that is not there, and its bytes in pieces, holes being zeros."""
    if side is None:
        return 0, iter(())
    return side.entry.size, _bytes_of(objects, side.entry, 0, side.entry.size)


def _bytes_of(objects: Objects, entry: Entry, start: int, length: int) -> Iterator[bytes]:
    for at in range(start, start + length, _PIECE_BYTES):
        yield read_content(objects, entry.content, entry.size, at, min(_PIECE_BYTES, start + length - at))
