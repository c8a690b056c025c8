"""Taking paths out of trees: which names they mean in each tree, who else holds the same bytes, the trees without them.

Knows trees and pages; nothing of snapshots, branches, or of how the bytes leave the disk (`purge.py`).

C1. What goes: a name that was asked for, with all below it; in every tree, any other name of an inode that had such a
    name, while it holds the same content; where asked, any other file with the same content.
C2. Directories lose the names and count fewer; their times stay. An inode of the link table goes with its last name,
    and counts its names otherwise. All else is the same object as before.
C3. Each directory is read once for each path at which it stands, whatever the number of trees that share it.
"""

import enum
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Final, NamedTuple

import msgspec

from helios_fs.errors import ObjectMissing, UsageError
from helios_fs.history.select import Selection
from helios_fs.objects.entry import (
    INLINE_LIMIT,
    Entry,
    Tree,
    decode_chunk,
    decode_entry,
    directory_key,
    encode_entry,
    encode_tree,
    ino_key,
)
from helios_fs.objects.ids import KIND_PAGE, KIND_TREE, object_id
from helios_fs.objects.pages import Page, decode_page
from helios_fs.store import maps
from helios_fs.store.objects import Objects

_GLOB: Final = frozenset("*?[")


class _Rule(enum.Flag):
    """On what a name goes that stands at a path."""

    NONE = 0
    FILE = enum.auto()
    """It is no directory."""
    DIRECTORY = enum.auto()
    LINK = enum.auto()
    """It is another name of an inode that lost one, with content that is to go."""
    SAME = enum.auto()
    """It is a file with content that is to go."""


class _Node:
    """A path, as one step on the way to what goes."""

    def __init__(self) -> None:
        self.below: dict[bytes, _Node] = {}
        self.rule = _Rule.NONE

    def at(self, path: bytes) -> "_Node":
        """Return the node of a path below this one."""
        here = self
        for name in path.split(b"/"):
            here = here.below.setdefault(name, _Node())
        return here


class _Listing(NamedTuple):
    """What one directory holds, at one path."""

    matches: list[tuple[bytes, Entry | int]]
    directories: list[tuple[bytes, Entry]]


class Targets:
    """What was asked for: paths from the root of the tree, or globs with the rules of .gitignore."""

    def __init__(self, paths: Sequence[str], exists: Iterable[bytes] = ()) -> None:
        """A text with `*`, `?` or `[` is a glob unless it is a path in `exists`. Raises UsageError."""
        known = set(exists)
        self.literals: set[bytes] = set()
        globs = []
        for text in paths:
            path = as_path(text)
            if _GLOB.isdisjoint(text) or path in known:
                self.literals.add(path)
            else:
                globs.append("\\" + text if text[0] in "!#" else text)
        self._selection = Selection(globs) if globs else None
        self._above = {path[:at] for path in self.literals for at, letter in enumerate(path) if letter == 0x2F}

    def mean(self, path: bytes, is_directory: bool) -> bool:
        """Tell whether a path is meant itself."""
        return path in self.literals or (self._selection is not None and self._selection.takes(path, is_directory))

    def reach_below(self, path: bytes) -> bool:
        """Tell whether something below a directory may be meant."""
        return self._selection is not None or path in self._above


def as_path(text: str) -> bytes:
    """Return the path that a text means, from the root of the tree. Raises UsageError."""
    raw = text.encode(errors="surrogateescape")
    parts = [part for part in raw.split(b"/") if part not in (b"", b".")]
    if not parts or b".." in parts:
        raise UsageError(
            f"{text or '(nothing)'}: name something in the tree, by its path from the root of the workspace"
        )
    return b"/".join(parts)


class Excision:
    """The same paths taken out of many trees."""

    def __init__(self, objects: Objects, targets: Targets, same_content: bool = False) -> None:
        self._objects = objects
        self._targets = targets
        self._same_content = same_content
        self._root = _Node()
        self._listings: dict[tuple[bytes, bytes], _Listing] = {}
        self._chunk_lists: dict[bytes, frozenset[bytes]] = {}
        self._gone: dict[bytes, Counter[int]] = {}
        self.paths: set[bytes] = set()
        """Names that were asked for and found; what lies below them is not listed."""
        self.links: set[bytes] = set()
        """Other names of the same inodes: they go too."""
        self.same: set[bytes] = set()
        """Other files with the same content."""
        self.parts: set[bytes] = set()
        """Other files that share a part of the content: never purged unless they are named."""
        self.contents: dict[bytes, int] = {}
        """Content that goes, and the size of a file that has it."""
        self.blobs: set[bytes] = set()
        """Ids of all its bytes: small files whole, large ones in chunks."""
        self.shared: set[bytes] = set()
        """Those of `blobs` that other files hold too."""
        self._inos: set[int] = set()

    # -- Finding -----------------------------------------------------------------------------------------------------

    def find(self, tree_ids: Iterable[bytes]) -> None:
        """Find what goes in these trees, and who else has it. Raises CorruptObject, ObjectMissing."""
        trees = [self._objects.tree(tree_id) for tree_id in dict.fromkeys(tree_ids)]
        for tree in trees:
            self._find_in(tree)
        for content, size in self.contents.items():
            self.blobs |= {content} if size <= INLINE_LIMIT else self._chunks(content)
        if self.contents:
            self._find_others(trees)

    def _find_in(self, tree: Tree) -> None:
        pending = [(b"", tree.root)]
        while pending:
            path, directory = pending.pop()
            listing = self._listing(path, directory)
            pending += listing.directories
            for found, value in listing.matches:
                is_directory = isinstance(value, Entry) and value.is_directory
                self.paths.add(found)
                self._root.at(found).rule |= _Rule.DIRECTORY if is_directory else _Rule.FILE
                linked: Iterable[int] = ()
                if isinstance(value, int):
                    linked = (value,)
                elif value.is_directory:
                    linked = self._linked_below(value.content)
                else:
                    self._take(value)
                for ino in linked:
                    if self._take(self._linked(tree, ino)):
                        self._inos.add(ino)

    def _listing(self, path: bytes, directory: Entry) -> _Listing:
        key = (directory.content, path)
        listing = self._listings.get(key)
        if listing is None:
            listing = self._listings[key] = _Listing([], [])
            for name, value in self._names(directory.content):
                here = path + b"/" + name if path else name
                is_directory = isinstance(value, Entry) and value.is_directory
                if self._targets.mean(here, is_directory):
                    listing.matches.append((here, value))
                elif isinstance(value, Entry) and is_directory and self._targets.reach_below(here):
                    listing.directories.append((here, value))
        return listing

    def _names(self, content: bytes) -> Iterator[tuple[bytes, Entry | int]]:
        for key, value in maps.scan(self._objects, content):
            yield key[8:], decode_entry(value)

    def _take(self, entry: Entry) -> bool:
        if not entry.is_file or not entry.content:
            return False
        self.contents[entry.content] = entry.size
        return True

    def _linked_below(self, content: bytes) -> Counter[int]:
        """Take all files below a directory that goes; return its names of inodes of the link table."""
        names = self._gone.get(content)
        if names is None:
            names = self._gone[content] = Counter()
            pending = [content] if content else []
            while pending:
                for _, value in self._names(pending.pop()):
                    if isinstance(value, int):
                        names[value] += 1
                    elif not value.is_directory:
                        self._take(value)
                    elif value.content:
                        pending.append(value.content)
        return names

    def _linked(self, tree: Tree, ino: int) -> Entry:
        value = maps.find(self._objects, tree.links, ino_key(ino))
        entry = decode_entry(value) if value is not None else None
        if not isinstance(entry, Entry):
            raise ObjectMissing(f"inode {ino} has a name but is not in its tree's link table")
        return entry

    def _chunks(self, content: bytes) -> frozenset[bytes]:
        """Return the blobs of a chunk list."""
        known = self._chunk_lists.get(content)
        if known is None:
            found = frozenset(decode_chunk(value).blob for _, value in maps.scan(self._objects, content))
            known = self._chunk_lists[content] = found
        return known

    # -- Who else has it ---------------------------------------------------------------------------------------------

    def _find_others(self, trees: list[Tree]) -> None:
        """Find other names of the same inodes and other files with the same bytes, outside of what goes."""
        alike = self._alike_in_link_tables(trees)
        seen: set[tuple[bytes, bytes]] = set()
        for tree in trees:
            pending = [(b"", tree.root.content)]
            while pending:
                path, content = pending.pop()
                if not content or (content, path) in seen:
                    continue
                seen.add((content, path))
                for name, value in self._names(content):
                    here = path + b"/" + name if path else name
                    if isinstance(value, Entry) and value.is_directory:
                        if not self._targets.mean(here, True):
                            pending.append((here, value.content))
                    elif self._targets.mean(here, False):
                        continue
                    elif isinstance(value, Entry):
                        self._compare(here, value)
                    elif value in self._inos:
                        self.links.add(here)
                        self._root.at(here).rule |= _Rule.LINK
                    else:
                        for entry in alike.get(value, ()):
                            self._compare(here, entry)

    def _alike_in_link_tables(self, trees: list[Tree]) -> dict[int, list[Entry]]:
        """Return the other inodes with several names that hold some of the same bytes."""
        found: dict[int, list[Entry]] = {}
        for links in {tree.links for tree in trees if tree.links}:
            for key, value in maps.scan(self._objects, links):
                entry, ino = decode_entry(value), int.from_bytes(key, "big")
                if isinstance(entry, Entry) and ino not in self._inos and self._bytes_in_common(entry):
                    found.setdefault(ino, []).append(entry)
        return found

    def _bytes_in_common(self, entry: Entry) -> set[bytes]:
        if not entry.is_file or not entry.content:
            return set()
        blobs = {entry.content} if entry.size <= INLINE_LIMIT else self._chunks(entry.content)
        return self.blobs & blobs

    def _compare(self, path: bytes, entry: Entry) -> None:
        common = self._bytes_in_common(entry)
        if not common:
            return
        if entry.content in self.contents:
            self.same.add(path)
            if self._same_content:
                self._root.at(path).rule |= _Rule.SAME
                return
        else:
            self.parts.add(path)
        self.shared |= common

    # -- Rewriting ---------------------------------------------------------------------------------------------------

    def without(self, writer: maps.PageWriter, tree_id: bytes) -> bytes:
        """Return the id of a tree without what goes: itself where it has nothing of it. Durable when the writer is."""
        tree = self._objects.tree(tree_id)
        lost: Counter[int] = Counter()
        top = _Frame(self._root, tree.root, None, b"")
        frames = [top]
        for frame in frames:
            frames += self._cut(tree, frame, lost)
        for frame in reversed(frames):
            frame.finish(writer)
        links = self._links_without(writer, tree, lost)
        if top.entry == tree.root and links == tree.links:
            return tree_id
        return writer.put(KIND_TREE, encode_tree(Tree(top.entry, links)))

    def _cut(self, tree: Tree, frame: "_Frame", lost: Counter[int]) -> list["_Frame"]:
        """Take names out of one directory; return those below it in which there is something to do."""
        below = []
        for name, node in frame.node.below.items():
            value = maps.find(self._objects, frame.entry.content, directory_key(name))
            if value is None:
                continue
            entry = decode_entry(value)
            if self._goes(tree, node.rule, entry):
                frame.remove(name, isinstance(entry, Entry) and entry.is_directory)
                if isinstance(entry, int):
                    lost[entry] += 1
                elif entry.is_directory:
                    lost.update(self._linked_below(entry.content))
            elif isinstance(entry, Entry) and entry.is_directory and node.below:
                below.append(_Frame(node, entry, frame, name))
        return below

    def _goes(self, tree: Tree, rule: _Rule, value: Entry | int) -> bool:
        if isinstance(value, Entry) and value.is_directory:
            return _Rule.DIRECTORY in rule
        if _Rule.FILE in rule:
            return True
        if isinstance(value, int):
            asked = _Rule.LINK in rule and value in self._inos
            return (asked or _Rule.SAME in rule) and self._linked(tree, value).content in self.contents
        return _Rule.SAME in rule and value.is_file and value.content in self.contents

    def _links_without(self, writer: maps.PageWriter, tree: Tree, lost: Counter[int]) -> bytes:
        edits: dict[bytes, bytes | None] = {}
        for ino, count in lost.items():
            entry = self._linked(tree, ino)
            left = entry.nlink - count
            edits[ino_key(ino)] = encode_entry(msgspec.structs.replace(entry, nlink=left)) if left > 0 else None
        return maps.edit(writer, tree.links, edits) if edits else tree.links


class _Frame:
    """One directory while names are taken out of it."""

    def __init__(self, node: _Node, entry: Entry, above: "_Frame | None", name: bytes) -> None:
        self.node = node
        self.entry = entry
        self._above = above
        self._name = name
        self._edits: dict[bytes, bytes | None] = {}
        self._names = self._directories = 0

    def remove(self, name: bytes, is_directory: bool) -> None:
        """Take one name out."""
        self._edits[directory_key(name)] = None
        self._names += 1
        self._directories += is_directory

    def finish(self, writer: maps.PageWriter) -> None:
        """Make the new directory, once all below it are made, and tell the one above."""
        if not self._edits:
            return
        self.entry = msgspec.structs.replace(
            self.entry,
            content=maps.edit(writer, self.entry.content, self._edits),
            size=self.entry.size - self._names,
            nlink=self.entry.nlink - self._directories,
        )
        if self._above is not None:
            self._above._edits[directory_key(self._name)] = encode_entry(self.entry)


class Scratch:
    """A writer that keeps what it is given in memory: for finding out what a rewrite would give."""

    def __init__(self, objects: Objects) -> None:
        self._objects = objects
        self._pages: dict[bytes, Page] = {}

    def page(self, object_id: bytes) -> Page:
        """Return a page, stored or not. Raises as `Objects.page` does."""
        return self._pages.get(object_id) or self._objects.page(object_id)

    def put(self, kind: int, payload: bytes) -> bytes:
        """Return the id that an object would have."""
        name = object_id(kind, payload)
        if kind == KIND_PAGE:
            self._pages[name] = decode_page(payload)
        return name
