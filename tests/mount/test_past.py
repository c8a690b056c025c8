"""What people say of snapshots and which they keep, on a real mount and without one."""

import errno
import getpass
import json
import os
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.mount.mounted import PATIENCE_SECONDS, Helios, Workspace

pytestmark = pytest.mark.fuse


def snapshots(helios: Helios, where: Path) -> list[dict[str, Any]]:
    """Return what `log` says, oldest first."""
    found: list[dict[str, Any]] = json.loads(helios("log", "--json", "--store", where, check=True).stdout)
    return found[::-1]


def take(helios: Helios, workspace: Workspace, *arguments: str) -> str:
    return helios("snapshot", *arguments, "-C", workspace.path, check=True).stdout.strip()


def test_a_snapshot_is_named_described_and_protected(helios: Helios, mounted: Workspace) -> None:
    here = mounted.path
    (here / "a").write_text("1")
    one = take(helios, mounted)
    folder = here / ".snapshots"
    assert (folder / one / "a").read_text() == "1"
    held = os.open(folder / one, os.O_RDONLY)  # the kernel holds the directory while its name goes
    told = helios("describe", one, "--name", "first", "-m", "why", "--protect", "-C", here, check=True).stdout
    assert told == f"{one}\n"
    assert (folder / one).is_symlink() and (folder / "first" / "a").read_text() == "1"
    assert sorted(os.listdir(folder)) == sorted([one, "first", "latest"])
    with pytest.raises(PermissionError) as refused:
        (folder / "first").rmdir()
    assert refused.value.errno == errno.EPERM
    done = helios("delete", "first", "-C", here)
    assert done.returncode == 3 and f"{one} is protected" in done.stderr and "--unprotect" in done.stderr
    mounted.kill()
    mounted.mount()
    [known] = snapshots(helios, mounted.store)
    assert (known["name"], known["message"], known["protected"]) == ("first", "why", True)
    assert "protected" in helios("show", "first", "-C", here, check=True).stdout
    (folder / "first").rename(folder / "second")
    helios("describe", "second", "--no-name", "--unprotect", "-C", here, check=True)
    assert (folder / one / "a").read_text() == "1" and not (folder / "second").exists()
    os.close(held)
    (folder / one).rmdir()
    assert snapshots(helios, mounted.store) == []


def test_who_made_a_snapshot_and_how(helios: Helios, mounted: Workspace) -> None:
    here = mounted.path
    (here / "a").write_text("1")
    (here / ".snapshots" / "made").mkdir()
    take(helios, mounted, "asked", "-m", "two words")
    helios("restore", "made", "a", "-C", here, check=True)
    made, asked, undo = snapshots(helios, mounted.store)
    for one in (made, asked, undo):
        assert (one["user"], one["host"]) == (getpass.getuser(), socket.gethostname())
    assert made["command"] == "mkdir"
    assert asked["command"] == f"helios snapshot asked -m 'two words' -C {here}"
    assert undo["command"].startswith("helios restore made a") and undo["message"] == "before restoring made"
    assert "command  helios snapshot asked" in helios("show", "asked", "-C", here, check=True).stdout


@pytest.mark.parametrize("is_mounted", [True, False])
def test_deleting_several_is_all_or_none(helios: Helios, mounted: Workspace, is_mounted: bool) -> None:
    names = ["one", "two", "three"]
    ids = [take(helios, mounted, name) for name in names]
    helios("describe", "two", "--protect", "-C", mounted.path, check=True)
    if not is_mounted:
        mounted.unmount()
    where = ("--store", mounted.store)
    for wanted in (["one", "two"], ["one", "nothing"]):
        assert helios("delete", *wanted, *where).returncode == 3
    assert [one["id"] for one in snapshots(helios, mounted.store)] == ids
    gone = helios("delete", "one", ids[2], "three", *where, check=True).stdout.split()
    assert gone == [ids[0], ids[2]]
    helios("describe", "two", "-m", "", "--unprotect", "--name", "last", "--json", *where, check=True)
    [left] = snapshots(helios, mounted.store)
    assert (left["name"], left["protected"]) == ("last", False)
    if is_mounted:
        assert sorted(os.listdir(mounted.path / ".snapshots")) == sorted([ids[1], "last", "latest"])


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        ((), 2, "nothing to say"),
        (("--name", "x", "--no-name"), 2, "exclude each other"),
        (("--name", ""), 2, "must not be empty"),
        (("--name", "a/b"), 3, "must not be empty, '.' or '..', nor contain '/'"),
        (("--name", "taken"), 3, "a snapshot named 'taken' exists"),
        (("--name", "latest"), 3, "always means the newest"),
        (("--name", "x" * 256), 3, "may have 255 bytes"),
    ],
)
def test_what_nobody_can_say(
    helios: Helios, mounted: Workspace, arguments: tuple[str, ...], code: int, text: str
) -> None:
    one = take(helios, mounted)
    take(helios, mounted, "taken")
    refused = helios("describe", one, *arguments, "-C", mounted.path)
    assert (refused.returncode, refused.stdout) == (code, "")
    assert text in refused.stderr and refused.stderr.count("\n") == 1


def test_in_which_snapshots_a_path_changed(helios: Helios, mounted: Workspace) -> None:
    here = mounted.path
    (here / "d").mkdir()
    (here / "d" / "a").write_text("1")
    (here / "other").write_text("1")
    added = take(helios, mounted, "added", "-m", "the first")
    (here / "other").write_text("2")
    take(helios, mounted)
    (here / "d" / "a").write_text("two")
    modified = take(helios, mounted)
    (here / "d" / "a").unlink()
    deleted = take(helios, mounted)
    (here / "d" / "a").symlink_to("x")
    (here / "d" / "b").write_text("1")

    def said(path: str, *more: str, cwd: Path = here) -> list[list[str]]:
        return [line.split() for line in helios("log", path, *more, cwd=cwd, check=True).stdout.splitlines()]

    assert [row[:2] for row in said("d/a")] == [["D", deleted], ["M", modified], ["A", added]]
    assert said("a", cwd=here / "d") == said("d/a") == said(f"{here}/d/a")
    assert said("d/a")[-1][4:] == ["added", "the", "first"]
    assert [row[0] for row in said("d")] == ["M", "M", "A"]
    assert len(said(".")) == 4 and len(said("d", "-n", "1")) == 1
    none = helios("log", "nothing", cwd=here, check=True)
    assert (none.stdout, none.stderr) == ("", "nothing: changed in no snapshot\n")
    assert helios("log", "/etc", cwd=here).returncode == 2
    mounted.unmount()
    found = json.loads(helios("log", "d/a", "--json", "--store", mounted.store, check=True).stdout)
    assert [(one["kind"], one["id"], one["branch"]) for one in found] == [
        ("D", deleted, "main"), ("M", modified, "main"), ("A", added, "main")
    ]  # fmt: skip
    mounted.mount()


@pytest.mark.parametrize("is_mounted", [True, False])
def test_prune(helios: Helios, mounted: Workspace, is_mounted: bool) -> None:
    ids = [take(helios, mounted, *(["named"] if number == 1 else [])) for number in range(6)]
    helios("describe", ids[2], "--protect", "-C", mounted.path, check=True)
    if not is_mounted:
        mounted.unmount()
    where = ("--store", mounted.store)
    dry = helios("prune", "--keep-last", "2", "--dry-run", *where, check=True)
    assert [line.split()[:2] for line in dry.stdout.splitlines()] == [
        ["keep", ids[5]], ["keep", ids[4]], ["gone", ids[3]], ["keep", ids[2]], ["keep", ids[1]], ["gone", ids[0]]
    ]  # fmt: skip
    assert dry.stdout.splitlines()[3].endswith("(protected)") and dry.stderr == "2 would go, 4 kept\n"
    assert len(snapshots(helios, mounted.store)) == 6
    done = json.loads(helios("prune", "--keep-last", "2", "--json", *where, check=True).stdout)
    assert done["deleted"] == [ids[0], ids[3]] and not done["dry_run"]
    assert done["snapshots"][-2]["reasons"] == ["named"] and done["snapshots"][-1]["keep"] is False
    assert [one["id"] for one in snapshots(helios, mounted.store)] == [ids[1], ids[2], ids[4], ids[5]]

    refused = helios("prune", *where)
    assert refused.returncode == 2 and "no rule given" in refused.stderr
    helios("prune", "--keep-daily", "1", "--named", "--save", *where, check=True)
    assert [one["id"] for one in snapshots(helios, mounted.store)] == [ids[2], ids[5]]
    helios("describe", ids[2], "--unprotect", *where, check=True)
    assert helios("prune", *where, check=True).stderr == "1 deleted, 1 kept\n"
    helios("prune", "--forget", *where, check=True)
    assert helios("prune", *where).returncode == 2


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("--keep-last", "0"), "would keep nothing but the newest"),
        (("--keep-last", "-1"), "-1 is not in the range"),
        (("--keep-daily", "x"), "not a valid integer"),
        (("--named",), "no rule given"),
        (("--save",), "no rule given"),
        (("--forget", "--keep-last", "1"), "goes with no other option"),
    ],
)
def test_rules_that_make_no_sense(helios: Helios, tmp_path: Path, arguments: tuple[str, ...], text: str) -> None:
    helios("init", tmp_path / "store", check=True)
    refused = helios("prune", *arguments, "--store", tmp_path / "store")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert text in refused.stderr and refused.stderr.count("\n") == 1


def eventually(done: Callable[[], bool]) -> None:
    """Return once something is so, which another process brings about in its own time."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not done():
        assert time.monotonic() < deadline, "it never was so"
        time.sleep(0.05)


@pytest.mark.parametrize("when", ["1s", "quiet:1s"])
def test_automatic_snapshots(helios: Helios, mounted: Workspace, when: str) -> None:
    take(helios, mounted)
    mounted.unmount()
    helios("mount", mounted.path, "--store", mounted.store, "--auto-snapshot", when, check=True)
    folder = mounted.path / ".snapshots"
    before = set(os.listdir(folder))
    (mounted.path / "a").write_text("1")
    eventually(lambda: set(os.listdir(folder)) > before)
    assert (folder / "latest" / "a").read_text() == "1"
    _, made = snapshots(helios, mounted.store)
    assert (made["message"], made["name"]) == ("automatic", "")
    assert (made["user"], made["command"]) == (getpass.getuser(), f"helios mount --auto-snapshot {when}")
    helios("describe", made["id"], "-m", "kept", "-C", mounted.path, check=True)
    (mounted.path / "a").write_text("2")
    eventually(lambda: (folder / "latest" / "a").read_text() == "2")
    assert len(snapshots(helios, mounted.store)) == 3


def test_a_mount_prunes_by_itself(helios: Helios, mounted: Workspace) -> None:
    for _ in range(2):
        take(helios, mounted)
    helios("prune", "--keep-last", "2", "--save", "-C", mounted.path, check=True)
    take(helios, mounted)
    keep = take(helios, mounted)
    mounted.unmount()
    done = helios("mount", mounted.path, "--store", mounted.store, "--prune", check=True)
    assert done.stderr == ""
    folder = mounted.path / ".snapshots"
    eventually(lambda: len(os.listdir(folder)) == 3)
    assert keep in os.listdir(folder)
    mounted.unmount()
    helios("prune", "--forget", "--store", mounted.store, check=True)
    done = helios("mount", mounted.path, "--store", mounted.store, "-o", "retention", check=True)
    assert "keeps no rules yet" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("--auto-snapshot", "5"), "'5' is no duration: write 90s, 5m, 2h or 1d"),
        (("--auto-snapshot", ""), "'' is no duration"),
        (("--auto-snapshot", "quiet:"), "'' is no duration"),
        (("--auto-snapshot", "9999d"), "more than a year"),
        (("-o", "auto_snapshot"), "'' is no duration"),
        (("-o", "ro", "--auto-snapshot", "5m"), "read-only mount neither takes nor deletes"),
        (("-o", "ro", "--prune"), "read-only mount neither takes nor deletes"),
        (("-o", "retention=5"), "no such mount option"),
    ],
)
def test_schedules_that_make_no_sense(helios: Helios, tmp_path: Path, arguments: tuple[str, ...], text: str) -> None:
    (tmp_path / "ws").mkdir()
    refused = helios("mount", tmp_path / "ws", *arguments)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert text in refused.stderr and refused.stderr.count("\n") == 1
