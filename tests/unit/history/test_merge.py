"""Merging trees: what comes together, and each kind of conflict, decided each way."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from helios_fs.history.merge import Merged, merge_trees
from helios_fs.history.merge_text import Favour
from helios_fs.objects import record
from helios_fs.objects.pages import Page
from helios_fs.store.objects import Objects
from tests.model.harness import Branch
from tests.unit.history.merging import fork, head, merged, shown
from tests.unit.worktree.trees import directory, make, remove, rename, rewrite

LINES = b"1\n2\n3\n4\n5\n"


class Fork:
    """A branch `main` with something in it, and `agent` made from it."""

    def __init__(self, path: str) -> None:
        self.main = Branch(path)
        directory(self.main, "/d")
        directory(self.main, "/d/e")
        make(self.main, "/d/e/deep", b"deep\n")
        make(self.main, "/d/text", LINES)
        make(self.main, "/top", b"top\n")
        make(self.main, "/binary", b"\0binary")
        make(self.main, "/one", b"linked\n")
        self.main.worktree.link(self.main.walk("/one"), self.main.walk("/d"), b"two")
        self.main.worktree.create(self.main.walk("/"), b"link", stat.S_IFLNK | 0o777, 0, 0, 0, b"target")
        self.base = head(self.main)
        self.agent = fork(self.main, "agent")

    def merge(self, favour: Favour = None) -> Merged:
        return merged(self.base, self.main, self.agent, favour)

    def files(self, favour: Favour = None) -> dict[str, object]:
        """Merge, and return path -> content of all that is no directory."""
        result = self.merge(favour)
        assert result.tree_id, result.conflicts
        rows = shown(self.main.store.objects, result.tree_id)
        return {path: row[4] for path, row in rows.items() if row[0] != stat.S_IFDIR}

    def conflicts(self) -> list[tuple[str, str]]:
        result = self.merge()
        assert not result.tree_id
        return [(path.decode(), kind) for path, kind in result.conflicts]

    def row(self, path: str, favour: Favour = None) -> tuple[object, ...]:
        return shown(self.main.store.objects, self.merge(favour).tree_id)[path]

    def close(self) -> None:
        self.agent.close()
        self.main.close()


@pytest.fixture
def two(tmp_path: Path) -> Iterator[Fork]:
    opened = Fork(str(tmp_path / "store"))
    yield opened
    opened.close()


def chmod(branch: Branch, path: str, mode: int) -> None:
    branch.worktree.setattr(branch.walk(path), record.SET_MODE, mode=mode)


def replace(branch: Branch, path: str, data: bytes) -> None:
    """Write it anew under another name and move that over it, as editors do."""
    make(branch, "/.new", data)
    rename(branch, "/.new", path)


# -- What comes together ---------------------------------------------------------------------------------------------


def test_nothing_changed_by_them(two: Fork) -> None:
    rewrite(two.main, "/top", b"ours")
    assert two.merge() == (head(two.main), [], 0)


def test_only_they_changed(two: Fork) -> None:
    rewrite(two.agent, "/top", b"theirs")
    make(two.agent, "/d/new", b"new")
    remove(two.agent, "/d/e/deep")
    result = two.merge()
    assert shown(two.main.store.objects, result.tree_id) == shown(two.main.store.objects, head(two.agent))
    assert result.changes == 3


def test_both_made_the_same_change(two: Fork) -> None:
    for branch in (two.main, two.agent):
        rewrite(branch, "/top", b"same")
        make(branch, "/new", b"same too")
        directory(branch, "/made")
        make(branch, "/made/by-both", b"same")
        remove(branch, "/link")
        rename(branch, "/binary", "/moved")
    files = two.files()
    assert (files["/top"], files["/new"], files["/made/by-both"]) == (b"same", b"same too", b"same")
    assert "/moved" in files and "/link" not in files


def test_different_lines_of_one_file(two: Fork) -> None:
    rewrite(two.main, "/d/text", LINES.replace(b"1", b"one"))
    rewrite(two.agent, "/d/text", LINES.replace(b"5", b"five"))
    assert two.files()["/d/text"] == b"one\n2\n3\n4\nfive\n"


@pytest.mark.parametrize("how", ["ours", "theirs", "both"])
def test_a_file_that_an_editor_replaced_is_the_same_file(two: Fork, how: str) -> None:
    (replace if how != "theirs" else rewrite)(two.main, "/d/text", LINES.replace(b"1", b"one"))
    (replace if how != "ours" else rewrite)(two.agent, "/d/text", LINES.replace(b"5", b"five"))
    assert two.files()["/d/text"] == b"one\n2\n3\n4\nfive\n"


def test_a_file_that_an_editor_moved_aside_keeps_its_name_with_the_new_one(two: Fork) -> None:
    rename(two.main, "/d/text", "/d/text~")
    make(two.main, "/d/text", LINES.replace(b"1", b"one"))
    rewrite(two.agent, "/d/text", LINES.replace(b"5", b"five"))
    files = two.files()
    assert files["/d/text"] == b"one\n2\n3\n4\nfive\n"
    assert files["/d/text~"] == LINES


@pytest.mark.parametrize("mover", ["ours", "theirs"])
def test_an_edit_follows_a_rename(two: Fork, mover: str) -> None:
    one, other = (two.main, two.agent) if mover == "ours" else (two.agent, two.main)
    rename(one, "/d/text", "/d/e/renamed")
    rewrite(other, "/d/text", b"edited\n")
    rename(one, "/top", "/d/top")
    chmod(other, "/top", 0o600)
    files = two.files()
    assert files["/d/e/renamed"] == b"edited\n"
    assert "/d/text" not in files
    assert two.row("/d/top")[1] == 0o600


@pytest.mark.parametrize("mover", ["ours", "theirs"])
def test_what_is_done_in_a_directory_follows_its_rename(two: Fork, mover: str) -> None:
    one, other = (two.main, two.agent) if mover == "ours" else (two.agent, two.main)
    rename(one, "/d", "/moved")
    rewrite(other, "/d/e/deep", b"edited\n")
    make(other, "/d/e/new", b"new")
    remove(other, "/d/text")
    files = two.files()
    assert files["/moved/e/deep"] == b"edited\n"
    assert files["/moved/e/new"] == b"new"
    assert not [path for path in files if path.startswith("/d") or path == "/moved/text"]


def test_each_attribute_by_itself(two: Fork) -> None:
    chmod(two.main, "/top", 0o600)
    two.agent.worktree.setattr(two.agent.walk("/top"), record.SET_UID | record.SET_MTIME, uid=5, mtime_ns=5)
    two.main.worktree.setxattr(two.main.walk("/top"), b"user.a", b"ours")
    two.agent.worktree.setxattr(two.agent.walk("/top"), b"user.b", b"theirs")
    row = two.row("/top")
    assert (row[1], row[2], row[5]) == (0o600, 5, ((b"user.a", b"ours"), (b"user.b", b"theirs")))


def test_links_of_both_sides(two: Fork) -> None:
    two.main.worktree.link(two.main.walk("/top"), two.main.walk("/"), b"ours")
    two.agent.worktree.link(two.agent.walk("/top"), two.agent.walk("/"), b"theirs")
    remove(two.main, "/one")
    rewrite(two.agent, "/one", b"changed\n")
    files = two.files()
    assert files["/ours"] == files["/theirs"] == b"top\n"
    assert two.row("/top")[3] == 3
    assert files["/d/two"] == b"changed\n"
    assert two.row("/d/two")[3] == 1


def test_a_file_with_two_names_changed_by_both_and_no_name_changed(two: Fork) -> None:
    rewrite(two.main, "/one", b"ours\n")
    rewrite(two.agent, "/d/two", b"theirs\n")
    assert two.conflicts() == [("one", "content")]
    assert two.files("theirs")["/one"] == b"theirs\n"


def test_a_deleted_directory_that_nobody_else_changed(two: Fork) -> None:
    for path in ("/d/e/deep", "/d/e", "/d/text", "/d/two", "/d"):
        remove(two.agent, path)
    rewrite(two.main, "/top", b"ours")
    assert set(two.files()) == {"/top", "/binary", "/one", "/link"}


# -- Conflicts -------------------------------------------------------------------------------------------------------


def decided(two: Fork, path: str) -> tuple[object, object]:
    return two.files("ours").get(path), two.files("theirs").get(path)


def test_the_same_lines(two: Fork) -> None:
    rewrite(two.main, "/top", b"ours\n")
    rewrite(two.agent, "/top", b"theirs\n")
    assert two.conflicts() == [("top", "content")]
    assert decided(two, "/top") == (b"ours\n", b"theirs\n")
    assert two.files("markers")["/top"] == b"<<<<<<< main\nours\n=======\ntheirs\n>>>>>>> agent\n"


def test_binary_files(two: Fork) -> None:
    rewrite(two.main, "/binary", b"\0ours")
    rewrite(two.agent, "/binary", b"\0theirs")
    assert two.conflicts() == [("binary", "binary")]
    assert decided(two, "/binary") == (b"\0ours", b"\0theirs")
    files = two.files("markers")
    assert (files["/binary"], files["/binary~agent"]) == (b"\0ours", b"\0theirs")


def test_symlinks(two: Fork) -> None:
    for branch, target in ((two.main, b"ours"), (two.agent, b"theirs")):
        remove(branch, "/link")
        branch.worktree.create(branch.walk("/"), b"link", stat.S_IFLNK | 0o777, 0, 0, 0, target)
    assert two.conflicts() == [("link", "content")]
    assert decided(two, "/link") == (b"ours", b"theirs")
    assert two.files("markers")["/link~agent"] == b"theirs"


def test_attributes(two: Fork) -> None:
    chmod(two.main, "/d", 0o700)
    chmod(two.agent, "/d", 0o711)
    two.main.worktree.setxattr(two.main.walk("/top"), b"user.a", b"ours")
    two.agent.worktree.setxattr(two.agent.walk("/top"), b"user.a", b"theirs")
    assert two.conflicts() == [("d", "attributes"), ("top", "attributes")]
    assert (two.row("/d", "ours")[1], two.row("/d", "theirs")[1]) == (0o700, 0o711)
    assert two.row("/top", "theirs")[5] == ((b"user.a", b"theirs"),)


@pytest.mark.parametrize("deleter", ["ours", "theirs"])
def test_delete_against_edit(two: Fork, deleter: str) -> None:
    one, other = (two.main, two.agent) if deleter == "ours" else (two.agent, two.main)
    remove(one, "/top")
    rewrite(other, "/top", b"edited\n")
    assert two.conflicts() == [("top", "delete/edit" if deleter == "ours" else "edit/delete")]
    expected = (None, b"edited\n") if deleter == "ours" else (b"edited\n", None)
    assert decided(two, "/top") == expected
    assert two.files("markers")["/top"] == b"edited\n"


@pytest.mark.parametrize("deleter", ["ours", "theirs"])
def test_a_deleted_directory_against_what_is_done_in_it(two: Fork, deleter: str) -> None:
    one, other = (two.main, two.agent) if deleter == "ours" else (two.agent, two.main)
    for path in ("/d/e/deep", "/d/e", "/d/text", "/d/two", "/d"):
        remove(one, path)
    rewrite(other, "/d/text", b"edited\n")
    make(other, "/d/e/new", b"new")
    kind = "delete/edit" if deleter == "ours" else "edit/delete"
    assert two.conflicts() == [("d/e/new", kind), ("d/text", kind)]
    keeper = "theirs" if deleter == "ours" else "ours"
    for favour in (keeper, "markers"):
        files = two.files(favour)  # type: ignore[arg-type]  # a literal
        assert {path for path in files if path.startswith("/d")} == {"/d/text", "/d/e/new"}
    assert not [path for path in two.files(deleter) if path.startswith("/d")]  # type: ignore[arg-type]  # a literal


def test_delete_against_rename(two: Fork) -> None:
    remove(two.main, "/top")
    rename(two.agent, "/top", "/renamed")
    rename(two.main, "/binary", "/moved")
    remove(two.agent, "/binary")
    assert two.conflicts() == [("moved", "rename/delete"), ("renamed", "delete/rename")]
    assert {"/moved", "/renamed"} & set(two.files("ours")) == {"/moved"}
    assert {"/moved", "/renamed"} & set(two.files("theirs")) == {"/renamed"}
    assert {"/moved", "/renamed"} <= set(two.files("markers"))


def test_a_directory_deleted_here_and_renamed_there_comes_back_whole(two: Fork) -> None:
    for path in ("/d/e/deep", "/d/e"):
        remove(two.main, path)
    rename(two.agent, "/d/e", "/kept")
    assert two.conflicts() == [("kept", "delete/rename")]
    assert two.files("theirs")["/kept/deep"] == b"deep\n"
    assert "/kept/deep" not in two.files("ours")


def test_renamed_differently(two: Fork) -> None:
    rename(two.main, "/top", "/ours")
    rename(two.agent, "/top", "/theirs")
    rewrite(two.agent, "/theirs", b"edited\n")
    assert two.conflicts() == [("ours", "rename/rename")]
    assert {"/ours", "/theirs"} & set(two.files("ours")) == {"/ours"}
    assert two.files("ours")["/ours"] == b"edited\n"
    assert {"/ours", "/theirs"} & set(two.files("theirs")) == {"/theirs"}


def test_directories_moved_into_each_other(two: Fork) -> None:
    directory(two.main, "/x")
    two.base = head(two.main)
    two.agent.close()
    two.agent = fork(two.main, "again")
    rename(two.main, "/x", "/d/x")
    rename(two.agent, "/d", "/x/d")
    assert [kind for _, kind in two.conflicts()] == ["rename/rename"]
    assert "/d/e/deep" in two.files("ours")
    assert "/x/d/e/deep" in two.files("theirs")


def test_a_file_here_and_a_symlink_there(two: Fork) -> None:
    rewrite(two.main, "/top", b"ours\n")
    remove(two.agent, "/top")
    two.agent.worktree.create(two.agent.walk("/"), b"top", stat.S_IFLNK | 0o777, 0, 0, 0, b"theirs")
    assert ("top", "type") in two.conflicts()
    assert decided(two, "/top") == (b"ours\n", b"theirs")
    assert two.files("markers")["/top~agent"] == b"theirs"


def test_both_added(two: Fork) -> None:
    make(two.main, "/new", b"ours\n")
    make(two.agent, "/new", b"theirs\n")
    assert two.conflicts() == [("new", "both added")]
    assert decided(two, "/new") == (b"ours\n", b"theirs\n")
    assert two.files("markers")["/new"] == b"<<<<<<< main\nours\n=======\ntheirs\n>>>>>>> agent\n"


def test_both_added_a_directory(two: Fork) -> None:
    for branch, name in ((two.main, "ours"), (two.agent, "theirs")):
        directory(branch, "/new")
        directory(branch, "/new/below")
        make(branch, f"/new/below/{name}", name.encode())
    files = two.files()
    assert (files["/new/below/ours"], files["/new/below/theirs"]) == (b"ours", b"theirs")


def test_a_directory_against_a_file(two: Fork) -> None:
    make(two.main, "/new", b"ours")
    directory(two.agent, "/new")
    make(two.agent, "/new/in", b"theirs")
    assert two.conflicts() == [("new", "directory/file")]
    assert two.files("ours")["/new"] == b"ours"
    assert two.files("theirs")["/new/in"] == b"theirs"
    files = two.files("markers")
    assert (files["/new"], files["/new~agent/in"]) == (b"ours", b"theirs")


def test_something_moved_to_where_the_other_side_made_something(two: Fork) -> None:
    rename(two.main, "/top", "/new")
    make(two.agent, "/new", b"theirs\n")
    assert two.conflicts() == [("new", "both added")]
    assert two.files("ours")["/new"] == b"top\n"
    theirs = two.files("theirs")
    assert (theirs["/new"], theirs["/top"]) == (b"theirs\n", b"top\n")
    files = two.files("markers")
    assert (files["/new"], files["/new~agent"]) == (b"top\n", b"theirs\n")


def test_the_last_names_taken_away_by_both(two: Fork) -> None:
    remove(two.main, "/one")
    remove(two.agent, "/d/two")
    assert two.conflicts() == [("d/two", "links")]
    assert {"/one", "/d/two"} & set(two.files("ours")) == {"/d/two"}
    assert {"/one", "/d/two"} & set(two.files("theirs")) == {"/one"}


def test_a_name_beside_is_never_one_that_is_taken(two: Fork) -> None:
    make(two.main, "/binary~agent", b"taken")
    rewrite(two.main, "/binary", b"\0ours")
    rewrite(two.agent, "/binary", b"\0theirs")
    files = two.files("markers")
    assert (files["/binary~agent"], files["/binary~agent~2"]) == (b"taken", b"\0theirs")


def test_a_long_name_gets_one_beside_it(two: Fork) -> None:
    name = "n" * 255
    make(two.main, f"/{name}", b"\0ours")
    make(two.agent, f"/{name}", b"\0theirs")
    assert two.files("markers")["/" + "n" * 249 + "~agent"] == b"\0theirs"


def test_large_files_and_devices_conflict_without_being_read(two: Fork) -> None:
    for branch in (two.main, two.agent):
        make(branch, "/large", os.urandom(1 << 20) * 9)
        branch.worktree.create(branch.walk("/"), b"null", stat.S_IFCHR | 0o600, 0, 0, 259 + (branch is two.main))
    assert two.conflicts() == [("large", "both added"), ("null", "both added")]


def test_cost_follows_what_differs(two: Fork, monkeypatch: pytest.MonkeyPatch) -> None:
    directory(two.main, "/many")
    for number in range(5000):
        make(two.main, f"/many/{number}", b"x")
    two.base = head(two.main)
    two.agent.close()
    two.agent = fork(two.main, "again")
    rewrite(two.main, "/many/7", b"ours")
    rewrite(two.agent, "/many/1500", b"theirs")
    head(two.main), head(two.agent)
    read: set[bytes] = set()
    original = Objects.page

    def counted(self: Objects, object_id: bytes, wait: bool | None = None) -> Page:
        read.add(object_id)
        return original(self, object_id, wait)

    monkeypatch.setattr(Objects, "page", counted)
    with two.main.store.writer() as writer:
        trees = (two.base, head(two.main), head(two.agent))
        read.clear()
        result = merge_trees(two.main.store.objects, writer, *trees, take_ino=two.main.worktree.take_ino)
    assert result.changes == 1
    assert len(read) < 25, "some ten of a hundred pages"
