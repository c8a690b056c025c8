"""Sealing one epoch: the tree before it and its records give the tree after it, and cost what has changed."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from helios_fs.errors import CorruptObject
from helios_fs.journal.journal import Journal
from helios_fs.objects import record
from helios_fs.objects.entry import Entry, Tree, decode_entry, directory_key, ino_key
from helios_fs.objects.ids import ROOT_INO
from helios_fs.sealer.seal import SealedEpoch, seal_epoch
from helios_fs.store import content, maps
from helios_fs.worktree.recovery import journal_directory
from tests.model.harness import Branch
from tests.unit.worktree.trees import directory, make, remove, rename, seal


@pytest.fixture
def branch(tmp_path: Path) -> Iterator[Branch]:
    opened = Branch(str(tmp_path / "store"))
    yield opened
    opened.close()


def sealed_epoch(branch: Branch) -> SealedEpoch:
    """Seal the open epoch without publishing it."""
    head = branch.store.refs.head("main")
    journal = Journal.open(journal_directory(branch.store, "main"), head.lsn, writable=False)
    try:
        frames = list(journal.frames(head.lsn, branch.worktree.journal.end))
        return seal_epoch(branch.writer, journal, branch.store.objects.tree(head.tree), head.epoch, frames)
    finally:
        journal.close()


def find(branch: Branch, tree: Tree, path: str) -> Entry:
    here = tree.root
    for name in path.strip("/").split("/"):
        value = maps.find(branch.writer, here.content, directory_key(name.encode()))
        assert value is not None, path
        entry = decode_entry(value)
        if isinstance(entry, int):
            linked = maps.find(branch.writer, tree.links, ino_key(entry))
            assert linked is not None
            entry = decode_entry(linked)
        assert isinstance(entry, Entry)
        here = entry
    return here


def names(branch: Branch, directory_content: bytes) -> set[bytes]:
    return {key[8:] for key, _ in maps.scan(branch.writer, directory_content)} if directory_content else set()


def test_an_entry_says_all_there_is_to_say(branch: Branch) -> None:
    file = make(branch, "/file", b"content")
    facade = branch.worktree
    facade.setattr(
        file,
        record.SET_MODE | record.SET_UID | record.SET_GID | record.SET_ATIME | record.SET_MTIME,
        0o4755,
        11,
        12,
        0,
        -5,
        7,
    )
    facade.setxattr(file, b"user.x", b"1")
    facade.create(branch.walk("/"), b"node", stat.S_IFCHR | 0o600, 1, 2, os.makedev(1, 3))
    facade.create(branch.walk("/"), b"link", stat.S_IFLNK | 0o777, 1, 2, 0, b"target")
    result = sealed_epoch(branch)
    entry = find(branch, result.tree, "/file")
    assert entry == file.entry(entry.content)
    assert content.read_content(branch.writer, entry.content, 7, 0, 100) == b"content"
    assert find(branch, result.tree, "/node").rdev == os.makedev(1, 3)
    link = find(branch, result.tree, "/link")
    assert (link.content, link.size) == (b"target", 6)
    assert (result.tree.root.size, result.tree.root.nlink) == (3, 2)


def test_the_same_records_give_the_same_tree(branch: Branch) -> None:
    directory(branch, "/d")
    make(branch, "/d/file", os.urandom(500_000))
    make(branch, "/empty")
    branch.worktree.link(branch.walk("/empty"), branch.walk("/d"), b"second")
    first = sealed_epoch(branch)
    branch.writer.discard()
    second = sealed_epoch(branch)
    assert first.tree_id == second.tree_id
    assert first.sealed == second.sealed


def test_what_comes_and_goes_is_never_stored(branch: Branch) -> None:
    for number in range(20):
        make(branch, f"/{number}", os.urandom(10_000))
        remove(branch, f"/{number}")
    kept = make(branch, "/kept", b"kept")
    result = sealed_epoch(branch)
    assert names(branch, result.tree.root.content) == {b"kept"}
    assert {row[0] for row in result.sealed} == {ROOT_INO, kept.ino}
    assert len(result.gone) == 20
    # The root's page, the kept file's blob, the tree.
    assert branch.writer.unpublished == 3


def test_directories_come_first_and_from_the_root_down(branch: Branch) -> None:
    path = ""
    for name in "abc":
        path += "/" + name
        directory(branch, path)
        make(branch, path + "/file", b"x")
    result = sealed_epoch(branch)
    order = [row[0] for row in result.sealed]
    above = [ROOT_INO, *[branch.walk(p).ino for p in ("/a", "/a/b", "/a/b/c")]]
    assert order[:4] == above


def test_only_the_way_to_a_change_is_written(branch: Branch) -> None:
    for top in "abc":
        directory(branch, f"/{top}")
        for number in range(300):
            make(branch, f"/{top}/{number:03}", b"%d" % number)
    seal(branch)
    before = branch.store.objects.tree(branch.store.refs.head("main").tree)
    branch.worktree.write(branch.walk("/b/007"), 0, b"changed")
    result = sealed_epoch(branch)
    assert {row[0] for row in result.sealed} == {ROOT_INO, branch.walk("/b").ino, branch.walk("/b/007").ino}
    assert find(branch, result.tree, "/a") == find(branch, before, "/a")
    # A blob, the tree, one or a few pages: never a page for each name.
    assert branch.writer.unpublished < 8


def test_a_change_of_attributes_alone_keeps_the_content(branch: Branch) -> None:
    make(branch, "/file", os.urandom(400_000))
    seal(branch)
    before = find(branch, branch.store.objects.tree(branch.store.refs.head("main").tree), "/file")
    branch.worktree.setattr(branch.walk("/file"), record.SET_MODE, mode=0o600)
    result = sealed_epoch(branch)
    entry = find(branch, result.tree, "/file")
    assert entry.content == before.content
    assert entry.mode == stat.S_IFREG | 0o600


def test_files_with_several_names_live_in_the_link_table(branch: Branch) -> None:
    directory(branch, "/d")
    make(branch, "/one", b"content")
    seal(branch)
    inode = branch.walk("/one")
    inode.holds += 1
    branch.worktree.link(inode, branch.walk("/d"), b"two")
    result = sealed_epoch(branch)
    for path, above in (("/one", result.tree.root), ("/d/two", find(branch, result.tree, "/d"))):
        value = maps.find(branch.writer, above.content, directory_key(path.rpartition("/")[2].encode()))
        assert value is not None and decode_entry(value) == inode.ino
    assert find(branch, result.tree, "/one").nlink == 2
    seal(branch)
    remove(branch, "/one")
    assert find(branch, sealed_epoch(branch).tree, "/d/two").nlink == 1
    remove(branch, "/d/two")
    result = sealed_epoch(branch)
    assert inode.ino in result.gone
    assert result.tree.links == b""


def test_moves_take_names_with_them(branch: Branch) -> None:
    directory(branch, "/a")
    directory(branch, "/a/b")
    make(branch, "/a/b/file", b"1")
    make(branch, "/x", b"x")
    seal(branch)
    rename(branch, "/a/b", "/moved")
    rename(branch, "/x", "/a/x")
    branch.worktree.write(branch.walk("/moved/file"), 0, b"2")
    result = sealed_epoch(branch)
    assert names(branch, result.tree.root.content) == {b"a", b"moved"}
    assert names(branch, find(branch, result.tree, "/a").content) == {b"x"}
    entry = find(branch, result.tree, "/moved/file")
    assert content.read_content(branch.writer, entry.content, 1, 0, 1) == b"2"
    assert (result.tree.root.nlink, find(branch, result.tree, "/a").nlink) == (4, 2)


def test_a_directory_that_is_emptied_has_no_content(branch: Branch) -> None:
    directory(branch, "/d")
    make(branch, "/d/file", b"x")
    seal(branch)
    remove(branch, "/d/file")
    entry = find(branch, sealed_epoch(branch).tree, "/d")
    assert (entry.content, entry.size) == (b"", 0)


def test_a_tree_deeper_than_a_stack(branch: Branch) -> None:
    here = branch.worktree.index.root
    for _ in range(1500):
        here = branch.worktree.create(here, b"x", stat.S_IFDIR | 0o755, 0, 0)
    result = sealed_epoch(branch)
    entry, depth = result.tree.root, 0
    while entry.content:
        value = maps.find(branch.writer, entry.content, directory_key(b"x"))
        assert value is not None
        below = decode_entry(value)
        assert isinstance(below, Entry)
        entry, depth = below, depth + 1
    assert depth == 1500


def test_damaged_data_is_never_sealed(branch: Branch) -> None:
    make(branch, "/file", b"x" * 50_000)
    segment = next(Path(journal_directory(branch.store, "main")).glob("*.seg"))
    with open(segment, "r+b") as opened:
        opened.seek(-1000, os.SEEK_END)
        opened.write(b"?")
    with pytest.raises(CorruptObject):
        sealed_epoch(branch)
    assert branch.store.refs.head("main").lsn == 0
