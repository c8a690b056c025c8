"""`helios branch` on stores that nobody has mounted, in processes of its own."""

import json
from pathlib import Path

import pytest

from helios_fs.errors import CorruptObject, NoSuchEntry
from helios_fs.store.branches import Branches, decode_branch, encode_branch
from tests.conftest import Helios


@pytest.fixture
def store(helios: Helios, tmp_path: Path) -> Path:
    """A store filled from a directory."""
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "file").write_text("content")
    path = tmp_path / "store"
    helios("init", path, "--from", tmp_path / "source", check=True)
    return path


def names(helios: Helios, store: Path) -> list[str]:
    listed = helios("branch", "--store", store, "--json", check=True).stdout
    return [row["name"] for row in json.loads(listed)]


def test_branches_are_made_renamed_deleted_and_brought_back(helios: Helios, store: Path) -> None:
    at = ("--store", store)
    helios("branch", "a", *at, check=True)
    helios("branch", "a/b", *at, check=True)
    helios("branch", "c", *at, "--branch", "a", check=True)
    assert names(helios, store) == ["main", "a", "a/b", "a/c"]
    refused = helios("branch", "-d", "a", *at)
    assert refused.returncode == 3 and "branches of its own (b, c)" in refused.stderr
    helios("branch", "-m", "a/b", "a/d", *at, check=True)
    helios("branch", "-m", "a", "z", *at, check=True)
    assert names(helios, store) == ["main", "z", "z/c", "z/d"]
    assert helios("branch", "-m", "z/c", "z/d", *at).returncode == 3
    assert helios("branch", "-m", "z/c", "x/y", *at).returncode == 2
    helios("branch", "-d", "z/c", *at, check=True)
    assert names(helios, store) == ["main", "z", "z/d"]
    helios("branch", "--undelete", "z/c", *at, check=True)
    assert names(helios, store) == ["main", "z", "z/c", "z/d"]


def test_a_branch_of_a_snapshot(helios: Helios, store: Path, tmp_path: Path) -> None:
    at = ("--store", store)
    taken = json.loads(helios("log", *at, "--json", check=True).stdout)
    assert taken == []
    helios("branch", "first", *at, check=True)
    beginning = json.loads(helios("log", *at, "--branch", "first", "--json", check=True).stdout)
    assert [one["message"] for one in beginning] == ["branch first"]
    helios("branch", "second", "--from", beginning[0]["id"], *at, "--branch", "first", check=True)
    history = json.loads(helios("log", *at, "--branch", "first/second", "--json", check=True).stdout)
    assert [one["parents"] for one in history] == [[beginning[0]["id"]], []]
    out = tmp_path / "out"
    helios("materialize", "latest", out, *at, "--branch", "first/second", check=True)
    assert (out / "file").read_text() == "content"


def test_a_name_that_was_deleted_can_be_given_again(helios: Helios, store: Path) -> None:
    at = ("--store", store)
    helios("branch", "a", *at, check=True)
    helios("branch", "-d", "a", *at, check=True)
    helios("branch", "a", *at, check=True)
    refused = helios("branch", "--undelete", "a", *at)
    assert refused.returncode == 3 and "a branch named 'a' exists" in refused.stderr
    assert helios("branch", "--undelete", "never", *at).returncode == 3


def test_names_and_files(helios: Helios, store: Path) -> None:
    helios("branch", "a", "--store", store, check=True)
    helios("branch", "a/b", "--store", store, check=True)
    branches = Branches(str(store))
    deep = branches.by_name("a/b")
    assert (branches.name_of(deep), branches.by_name("main"), branches.called("gone")) == ("a/b", "main", "gone")
    assert branches.lineage(deep) == [deep, branches.by_name("a"), "main"]
    for absent in ("b", "a/x", "a/b/c"):
        with pytest.raises(NoSuchEntry):
            branches.by_name(absent)
    raw = encode_branch(branches.get(deep))
    assert decode_branch(raw, "here") == branches.get(deep)
    for at in range(len(raw)):
        with pytest.raises(CorruptObject):
            decode_branch(raw[:at] + bytes([raw[at] ^ 1]) + raw[at + 1 :], "here")
        with pytest.raises(CorruptObject):
            decode_branch(raw[:at], "here")
