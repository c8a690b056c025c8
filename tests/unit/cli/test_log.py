"""`log` over several branches, on stores without a mount, in processes of its own."""

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest

from helios_fs.journal.journal import Journal
from helios_fs.objects.snapshot import Head, HeadMoved, RefEvent, Snapshot, SnapshotSealed
from helios_fs.store.branches import Branches, BranchInfo, journal_directory
from helios_fs.store.store import Store
from tests.conftest import Helios


@pytest.fixture
def store(helios: Helios, tmp_path: Path) -> Path:
    """A store with `main`, a branch `side` of it that was merged once, and `side/deep`."""
    path = tmp_path / "store"
    helios("init", path, check=True)
    helios("log", "--store", path, check=True)  # begins main
    with Store.open(str(path)) as opened:
        tree = opened.refs.head("main").tree

        def taken(branch: str, number: int, *parents: int, name: bytes = b"", message: str = "") -> RefEvent:
            ids = [f"0{parent:09d}" for parent in parents]
            return SnapshotSealed(
                Snapshot(f"0{number:09d}", branch, tree, ids, number * 10**9, number, name, message, "me", "here")
            )

        _begin(opened, "b1", "main", "side", 3)
        _begin(opened, "b2", "b1", "deep", 6)
        events = {
            "main": [
                taken("main", 1, name=b"first"),
                taken("main", 4, 1),
                taken("main", 7, 4, 5, message="merge side"),
            ],
            "b1": [taken("b1", 3, 1), taken("b1", 5, 3)],
            "b2": [taken("b2", 6, 5), taken("b2", 8, 6)],
        }
        for branch, its_events in events.items():
            with opened.writer() as writer:
                head = HeadMoved(Head(branch, tree, 0, 1)) if branch != "main" else None
                writer.publish([*its_events, *([head] if head else [])], branch, opened.take_branch(branch))
    return path


def _begin(store: Store, branch: str, parent: str, name: str, first: int) -> None:
    directory = journal_directory(store.path, branch)
    os.mkdir(directory)
    Journal.create(directory, 0).close()
    tree = store.refs.head("main").tree
    info = BranchInfo(branch, parent, name, Head(branch, tree, 0, 1), 0, first, f"0{first:09d}", first)
    Branches(store.path).write(info)


def said(helios: Helios, store: Path, *arguments: str) -> list[str]:
    lines = helios("log", *arguments, "--store", store, check=True).stdout.splitlines()
    return [re.sub(r"  \d{4}-\d\d-\d\d \d\d:\d\d:0(\d)", r" @\1", line).rstrip() for line in lines]


def test_the_graph_of_all_branches(helios: Helios, store: Path) -> None:
    assert said(helios, store, "--graph", "--all") == [
        "*  0000000008 @8 (side/deep)",
        "| *  0000000007 @7    merge side (main)",
        "| |\\",
        "* | |  0000000006 @6",
        "|_|/",
        "* |  0000000005 @5 (side)",
        "| *  0000000004 @4",
        "* |  0000000003 @3",
        "|/",
        "*  0000000001 @1  first",
    ]


def test_the_graph_of_one_branch_has_what_was_merged_into_it(helios: Helios, store: Path) -> None:
    assert [line.split("  ")[0] for line in said(helios, store, "--graph")] == [
        "*",
        "|\\",
        "| *",
        "* |",
        "| *",
        "|/",
        "*",
    ]
    assert said(helios, store, "--graph", "--branch", "side") == [
        "*  0000000005 @5 (side)",
        "*  0000000003 @3",
        "*  0000000001 @1  first",
    ]
    assert len(said(helios, store, "--graph", "-n", "2", "--all")) == 3


def test_a_list_of_all_branches(helios: Helios, store: Path) -> None:
    found: list[dict[str, Any]] = json.loads(helios("log", "--all", "--json", "--store", store, check=True).stdout)
    assert [(one["id"][-1], one["branch"]) for one in found] == [
        ("8", "side/deep"), ("7", "main"), ("6", "side/deep"), ("5", "side"),
        ("4", "main"), ("3", "side"), ("1", "main"),
    ]  # fmt: skip
    assert said(helios, store, "--all")[-1] == "0000000001 @1  first  (main)"
    assert len(said(helios, store, "--all", "-n", "0")) == 0


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (("--graph", "a"), 2, "exclude each other"),
        (("--all", "--branch", "side"), 2, "exclude each other"),
        (("--branch", "none"), 3, "there is no branch none"),
        (("--branch", ""), 3, "must not be empty"),
    ],
)
def test_refusals(helios: Helios, store: Path, arguments: tuple[str, ...], code: int, text: str) -> None:
    refused = helios("log", *arguments, "--store", store)
    assert refused.returncode == code and text in refused.stderr and refused.stderr.count("\n") == 1
