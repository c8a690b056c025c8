"""What differs between two trees, and what it costs to know."""

import itertools
import os
import stat
from collections.abc import Iterator

import pytest

from helios_fs.errors import NoSuchEntry, ObjectMissing
from helios_fs.history.diff import Change, diff_trees, find_entry
from helios_fs.objects.entry import Entry, Tree, directory_key, encode_entry, encode_tree, ino_key
from helios_fs.objects.ids import KIND_TREE, ROOT_INO
from helios_fs.objects.pages import Page
from helios_fs.store import maps
from helios_fs.store.objects import Objects
from helios_fs.store.store import Store
from helios_fs.store.writer import Writer

Files = dict[bytes, Entry | int]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    path = str(tmp_path_factory.mktemp("diff") / "store")
    Store.create(path)
    with Store.open(path) as opened:
        yield opened


_numbers = itertools.count(2)


def _entry(content: bytes = b"", mode: int = 0o644, kind: int = stat.S_IFREG, **more: int) -> Entry:
    values = {"uid": 0, "gid": 0, "nlink": 1, "rdev": 0, "atime_ns": 0, "mtime_ns": 0, "ctime_ns": 0, **more}
    return Entry(
        ino=next(_numbers), mode=kind | mode, size=len(content), allocated=0, content=content, **values
    )  # fmt: skip


def _tree(store: Store, files: Files, linked: dict[int, Entry] | None = None, **root: int) -> bytes:
    """Store a tree of paths; directories that are only named in paths are made."""
    with store.writer() as writer:
        content = _directory(writer, b"", files)
        entry = Entry(
            ROOT_INO, stat.S_IFDIR | root.get("mode", 0o755), 0, 0, 2, 0, 0, 0, 0, root.get("mtime", 0), 0, content
        )
        links = maps.edit(writer, b"", {ino_key(ino): encode_entry(value) for ino, value in (linked or {}).items()})
        tree = writer.put(KIND_TREE, encode_tree(Tree(entry, links)))
        writer.publish([], "main", store.take_branch("main"))
    return tree


def _directory(writer: Writer, path: bytes, files: Files) -> bytes:
    edits: dict[bytes, bytes | None] = {}
    below = {name[len(path) :].split(b"/")[0] for name in files if name.startswith(path)}
    for name in below - {b""}:
        value = files.get(path + name)
        prefix = path + name + b"/"
        if any(other.startswith(prefix) for other in files):
            like = files.get(prefix, None)
            mode = like.mode if isinstance(like, Entry) else stat.S_IFDIR | 0o755
            mtime = like.mtime_ns if isinstance(like, Entry) else 0
            content = _directory(writer, prefix, files)
            value = Entry(1000, mode, 0, 0, 2, 0, 0, 0, 0, mtime, 0, content)
        assert value is not None
        edits[directory_key(name)] = encode_entry(value)
    return maps.edit(writer, b"", edits)


def _said(store: Store, a: bytes, b: bytes) -> list[tuple[str, bytes]]:
    return [(change.kind, change.path) for change in diff_trees(store.objects, a, b)]


_A, _B, _C = _entry(b"a" * 32), _entry(b"b" * 32), _entry(b"c" * 32)
_EMPTY_DIRECTORY = _entry(kind=stat.S_IFDIR, mode=0o755)


def test_added_modified_deleted_in_the_order_of_the_paths(store: Store) -> None:
    a = _tree(store, {b"same": _A, b"gone": _A, b"m/x": _A, b"m/y": _B, b"old/one": _A, b"old/sub/two": _B})
    b = _tree(
        store,
        {b"same": _A, b"m/x": _C, b"m/y": _B, b"m.c": _C, b"new/one": _A, b"new/sub/two": _B, b"e": _EMPTY_DIRECTORY},
    )
    assert _said(store, a, b) == [
        ("A", b"e"),
        ("D", b"gone"),
        ("M", b"m/x"),
        ("A", b"m.c"),
        ("A", b"new"),
        ("A", b"new/one"),
        ("A", b"new/sub"),
        ("A", b"new/sub/two"),
        ("D", b"old"),
        ("D", b"old/one"),
        ("D", b"old/sub"),
        ("D", b"old/sub/two"),
    ]
    change = next(change for change in diff_trees(store.objects, a, b) if change.kind == "M")
    assert change == Change(b"m/x", "M", _A, _C)
    assert _said(store, a, a) == []
    back = [(kind, path) for kind, path in _said(store, b, a) if kind == "D"]
    assert back == [("D", path) for kind, path in _said(store, a, b) if kind == "A"]


def test_types_that_change(store: Store) -> None:
    a = _tree(store, {b"x": _A, b"y/in": _B, b"z": _entry(b"target", kind=stat.S_IFLNK)})
    b = _tree(store, {b"x/deep/in": _B, b"y": _A, b"z": _entry(b"target", kind=stat.S_IFIFO)})
    assert _said(store, a, b) == [
        ("T", b"x"),
        ("A", b"x/deep"),
        ("A", b"x/deep/in"),
        ("T", b"y"),
        ("D", b"y/in"),
        ("T", b"z"),
    ]


def test_what_counts_as_a_change(store: Store) -> None:
    def changed(**now: int) -> list[tuple[str, bytes]]:
        content = b"c" * 32
        return _said(store, _tree(store, {b"d/f": _entry(content)}), _tree(store, {b"d/f": _entry(content, **now)}))

    assert changed(atime_ns=1, ctime_ns=2, nlink=3) == []
    for now in ({"mode": 0o600}, {"uid": 1}, {"gid": 1}, {"mtime_ns": 1}, {"rdev": 1}):
        assert changed(**now) == [("M", b"d/f")]

    plain = _tree(store, {b"d/f": _A})
    assert (
        _said(store, plain, _tree(store, {b"d/f": _A, b"d/": _entry(kind=stat.S_IFDIR, mode=0o755, mtime_ns=5)})) == []
    )
    assert _said(store, plain, _tree(store, {b"d/f": _A, b"d/": _entry(kind=stat.S_IFDIR, mode=0o700)})) == [
        ("M", b"d")
    ]
    assert _said(store, plain, _tree(store, {b"d/f": _A}, mtime=5)) == []
    assert _said(store, plain, _tree(store, {b"d/f": _A}, mode=0o700)) == [("M", b"")]


def test_a_changed_file_shows_at_each_of_its_names(store: Store) -> None:
    def linked(content: bytes, more: Files, **values: int) -> bytes:
        names: Files = {b"a/one": 500, b"a/same": _A, b"b/c/two": 500, b"b/other": 501, b"z/three": 500, **more}
        table = {500: _entry(content, nlink=3, **values), 501: _entry(b"other", nlink=2)}
        return _tree(store, names, table)

    before, after = linked(b"1" * 32, {}), linked(b"2" * 32, {})
    assert _said(store, before, after) == [("M", b"a/one"), ("M", b"b/c/two"), ("M", b"z/three")]
    assert _said(store, before, linked(b"1" * 32, {}, ctime_ns=1)) == []
    later = linked(b"2" * 32, {b"a/b": _B, b"zz": 501})
    assert _said(store, before, later) == [
        ("A", b"a/b"),
        ("M", b"a/one"),
        ("M", b"b/c/two"),
        ("M", b"z/three"),
        ("A", b"zz"),
    ]
    changes = list(diff_trees(store.objects, before, after))
    assert [(change.a.content, change.b.content) for change in changes if change.a and change.b] == [
        (b"1" * 32, b"2" * 32)
    ] * 3


def test_a_name_that_moves_into_or_out_of_the_link_table(store: Store) -> None:
    alone = _tree(store, {b"x": _A})
    shared = _tree(store, {b"x": _A.ino, b"y": _A.ino}, {_A.ino: _entry(_A.content, nlink=2)})
    assert _said(store, alone, shared) == [("A", b"y")]
    assert _said(store, shared, alone) == [("D", b"y")]
    moved = _tree(store, {b"x": _A.ino, b"new/y": _A.ino}, {_A.ino: _entry(_B.content, nlink=2)})
    assert _said(store, shared, moved) == [("A", b"new"), ("A", b"new/y"), ("M", b"x"), ("D", b"y")]


class _Counting:
    """The store's objects; counts the pages that are read."""

    def __init__(self, objects: Objects) -> None:
        self._objects = objects
        self.pages = 0

    def page(self, object_id: bytes) -> Page:
        self.pages += 1
        return self._objects.page(object_id)

    def get(self, kind: int, object_id: bytes) -> bytes:
        raise AssertionError("a diff needs no content")

    def tree(self, object_id: bytes) -> Tree:
        return self._objects.tree(object_id)


def test_cost_follows_what_differs(store: Store) -> None:
    files: Files = {b"%d/%d" % (directory, number): _A for directory in range(12) for number in range(150)}
    a = _tree(store, files)
    b = _tree(store, {**files, b"7/7": _B})
    counting = _Counting(store.objects)
    assert [change.path for change in diff_trees(counting, a, b)] == [b"7/7"]
    assert counting.pages < 30


def test_depth_costs_no_recursion(store: Store) -> None:
    content_a, content_b = _A.content, _B.content
    with store.writer() as writer:
        roots = []
        for leaf in (content_a, content_b):
            entry = _entry(leaf)
            for _ in range(1500):
                content = maps.edit(writer, b"", {directory_key(b"d"): encode_entry(entry)})
                entry = Entry(9, stat.S_IFDIR | 0o755, 0, 0, 3, 0, 1, 0, 0, 0, 0, content)
            roots.append(writer.put(KIND_TREE, encode_tree(Tree(entry, b""))))
        writer.publish([], "main", store.take_branch("main"))
    path = b"/".join([b"d"] * 1500)
    assert _said(store, roots[0], roots[1]) == [("M", path)]
    assert find_entry(store.objects, roots[1], path).content == content_b


def test_find_entry(store: Store) -> None:
    name = b"\xff" * 255
    tree = _tree(store, {b"a/b/" + name: _A, b"linked": 7, b"lost": 8}, {7: _B}, mode=0o711)
    assert find_entry(store.objects, tree, b"").mode == stat.S_IFDIR | 0o711
    assert find_entry(store.objects, tree, b"a/b/" + name) == _A
    assert find_entry(store.objects, tree, b"a/b").is_directory
    assert find_entry(store.objects, tree, b"linked") == _B
    for path in (b"missing", b"a/missing", b"a/b/" + name + b"/below", b"linked/x", b"..", b"/", b"a//b", b"\xfe"):
        with pytest.raises(NoSuchEntry):
            find_entry(store.objects, tree, path)
    with pytest.raises(ObjectMissing):
        find_entry(store.objects, tree, b"lost")
    with pytest.raises(ObjectMissing):
        find_entry(store.objects, os.urandom(32), b"a")
