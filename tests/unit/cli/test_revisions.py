"""What a text means as a state: snapshots before branches, and where `A..B` is split."""

import os
import time
from pathlib import Path

import pytest

from helios_fs.cli import revisions
from helios_fs.cli.workspace import Workspace
from helios_fs.errors import InvalidArgument, NoSuchEntry
from helios_fs.history.ingest import ingest
from helios_fs.journal.journal import Journal
from helios_fs.objects.snapshot import Snapshot, SnapshotSealed
from helios_fs.store.branches import BranchInfo, journal_directory
from helios_fs.store.store import Store

BRANCHES = {"main": "main", "work": "b1", "work/deep": "b2", "both": "b3", "01": "b4", "latest": "b5"}
SNAPSHOTS = {
    "main": {"01aaaaaaaa": b"first", "01ab000000": b"", "02kzzzzzzz": b"both", "03aaaaaaaa": b"v1..v2"},
    "b1": {"04aaaaaaaa": b"first", "04bbbbbbbb": b"a:b"},
    "b3": {},
}


@pytest.fixture(scope="module")
def where(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A store with branches in it, each with a tree of its own; nothing is mounted."""
    folder = tmp_path_factory.mktemp("revisions")
    path = str(folder / "store")
    Store.create(path)
    with Store.open(path) as store:
        for name, branch in BRANCHES.items():
            source = folder / branch
            source.mkdir()
            (source / "file").write_text(name)
            ingest(store, str(source), branch)
            _add_snapshots(store, branch)
            if branch != "main":
                _write_file(store, name, branch)
    return Workspace(path, "main", None)


def _add_snapshots(store: Store, branch: str) -> None:
    tree = store.refs.head(branch).tree
    events = [
        SnapshotSealed(Snapshot(id_, branch, tree, [], time.time_ns(), 1, name))
        for id_, name in SNAPSHOTS.get(branch, {}).items()
    ]
    with store.writer() as writer:
        writer.publish([*events], branch, store.take_branch(branch))


def _write_file(store: Store, name: str, branch: str) -> None:
    parent, _, own = name.rpartition("/")
    Journal.create(journal_directory(store.path, branch), 0).close()
    store.branches.write(BranchInfo(branch, BRANCHES[parent or "main"], own, store.refs.head(branch), 0, 1, "", 1))


def _said(found: revisions.Revision) -> tuple[str, str, str | None]:
    return found.label, found.branch, found.snapshot.id if found.snapshot else None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("first", ("first", "main", "01aaaaaaaa")),
        ("01ab", ("01ab000000", "main", "01ab000000")),
        ("~0", ("v1..v2", "main", "03aaaaaaaa")),
        ("latest", ("v1..v2", "main", "03aaaaaaaa")),
        ("both", ("both", "main", "02kzzzzzzz")),
        ("01", ("01", "b4", None)),
        ("main", ("main", "main", None)),
        ("work", ("work", "b1", None)),
        ("work/deep", ("work/deep", "b2", None)),
        ("work:first", ("work:first", "b1", "04aaaaaaaa")),
        ("work:~1", ("work:first", "b1", "04aaaaaaaa")),
        ("work:a:b", ("work:a:b", "b1", "04bbbbbbbb")),
        ("main:both", ("main:both", "main", "02kzzzzzzz")),
    ],
)
def test_resolve(where: Workspace, text: str, said: tuple[str, str, str | None]) -> None:
    found = revisions.resolve(where, text)
    assert _said(found) == said
    with Store.open(where.store) as store:
        assert found.tree == store.refs.head(found.branch).tree.hex()


@pytest.mark.parametrize(
    ("text", "error", "match"),
    [
        ("nothing", NoSuchEntry, "^nothing: no such snapshot or branch"),
        ("work/none", NoSuchEntry, "^work/none: no such snapshot or branch"),
        ("", NoSuchEntry, "no such"),
        ("01a", InvalidArgument, "2 snapshots begin"),
        ("~9", NoSuchEntry, "only 4 snapshots"),
        ("work:nothing", NoSuchEntry, "nothing: no such snapshot"),
        ("work:", NoSuchEntry, "no such"),
        ("both:~0", NoSuchEntry, "no snapshots yet"),
        ("../up", NoSuchEntry, "no such"),
        (os.fsdecode(b"\xff"), NoSuchEntry, "no such"),
        ("x" * 300, NoSuchEntry, "no such"),
        ("b1", NoSuchEntry, "no such"),
    ],
)
def test_resolve_refuses(where: Workspace, text: str, error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        revisions.resolve(where, text)


@pytest.mark.parametrize(
    ("text", "a", "b"),
    [
        ("first", "first", "working tree"),
        ("first..work", "first", "work"),
        ("first..", "first", "working tree"),
        ("..work", "v1..v2", "work"),
        ("main..work:first", "main", "work:first"),
        ("v1..v2", "v1..v2", "working tree"),
        ("v1..v2..v1..v2", "v1..v2", "v1..v2"),
        ("work..v1..v2", "work", "v1..v2"),
    ],
)
def test_resolve_range(where: Workspace, text: str, a: str, b: str) -> None:
    assert tuple(end.label for end in revisions.resolve_range(where, text)) == (a, b)


@pytest.mark.parametrize("text", ["..", "first..nothing", "nothing..first", "first...work", "../first", "...."])
def test_resolve_range_refuses(where: Workspace, text: str) -> None:
    with pytest.raises(NoSuchEntry):
        revisions.resolve_range(where, text)


def test_a_branch_of_its_own_counts_as_this_one(where: Workspace) -> None:
    work = where._replace(branch="b1")
    assert _said(revisions.resolve(work, "first")) == ("first", "b1", "04aaaaaaaa")
    assert _said(revisions.resolve(work, "main:first")) == ("main:first", "main", "01aaaaaaaa")
    assert _said(revisions.working_tree(work)) == ("working tree", "b1", None)
    assert _said(revisions.newest_snapshot(work)) == ("a:b", "b1", "04bbbbbbbb")
    assert revisions.branch_name(work, "b2") == "work/deep"


def test_no_path_is_needed_for_any_of_this(where: Workspace) -> None:
    assert not Path(where.store, "run", "main.sock").exists()
