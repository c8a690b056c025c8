"""`helios diff` as its user has it: on a mount with unsaved changes, and on a store that nobody has mounted."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.mount.mounted import Workspace
from tests.mount.one_mount import one_workspace, runner
from tests.mount.system_calls import file

pytestmark = pytest.mark.fuse

Diff = Callable[..., subprocess.CompletedProcess[str]]


def _fill(root: Path) -> None:
    (root / "src" / "deep").mkdir(parents=True)
    file(root / "src" / "a.c", "".join(f"line {n}\n" for n in range(30)))
    file(root / "src" / "deep" / "b.c", "deep\n")
    file(root / "src" / "run.sh", "#!/bin/sh\n")
    (root / "image").write_bytes(b"\0\1\2" * 100_000)
    os.symlink("src/a.c", root / "link")
    file(root / "moved away", "the same content\n")
    file(root / "gone", "no newline at the end")
    file(root / "becomes", "a directory\n")


def _change(root: Path) -> None:
    text = (root / "src" / "a.c").read_text()
    file(root / "src" / "a.c", text.replace("line 7\n", "LINE 7\nand more\n"))
    (root / "src" / "run.sh").chmod(0o755)
    with (root / "image").open("r+b") as image:
        image.seek(150_000)
        image.write(b"other bytes")
    (root / "link").unlink()
    os.symlink("image", root / "link")
    (root / "moved away").rename(root / "src" / "deep" / "here now")
    (root / "gone").unlink()
    (root / "becomes").unlink()
    (root / "becomes").mkdir()
    file(root / "becomes" / os.fsdecode(b'odd\n"\xff'), "odd")
    os.mkfifo(root / "src" / "fifo")


NAMES = [
    "T becomes",
    'A "becomes/odd\\012\\042\\377"',
    "D gone",
    "M image",
    "M link",
    "D moved away",
    "M src/a.c",
    "A src/deep/here now",
    "A src/fifo",
    "M src/run.sh",
]


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workspace]:
    """A workspace with a snapshot `one`, an empty one `two`, and changes since that no snapshot holds."""
    with one_workspace(tmp_path_factory.mktemp("diff")) as mounted:
        _fill(mounted.path)
        (mounted.path / ".snapshots" / "one").mkdir()
        (mounted.path / ".snapshots" / "two").mkdir()
        _change(mounted.path)
        yield mounted


@pytest.fixture
def diff(workspace: Workspace) -> Diff:
    """Run `helios diff` there."""

    def run(*arguments: str | Path, code: int = 1) -> subprocess.CompletedProcess[str]:
        done = workspace.helios("diff", "-C", workspace.path, *arguments)
        assert done.returncode == code, f"{done.returncode}: {done.stdout}{done.stderr}"
        return done

    return run


def test_names_since_the_newest_snapshot(diff: Diff) -> None:
    done = diff()
    assert done.stdout.splitlines() == NAMES
    assert done.stderr == ""
    assert diff("--name-status").stdout == done.stdout


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["one"], NAMES),
        (["~1"], NAMES),
        (["two..main"], NAMES),
        (["..main"], NAMES),
        (["one", "src/a.c"], ["M src/a.c"]),
        (["one..", "--", "src/deep"], ["A src/deep/here now"]),
        (["src/deep"], ["A src/deep/here now"]),
        (["gone", "link"], ["D gone", "M link"]),
        (["--", "gone"], ["D gone"]),
        (["*.c"], ["M src/a.c"]),
        (["two", "src/*", "b*s"], [*NAMES[:2], *NAMES[6:]]),
        (["becomes"], NAMES[:2]),
        (["main..one", "gone"], ["A gone"]),
    ],
)
def test_states_and_paths(diff: Diff, arguments: list[str], expected: list[str]) -> None:
    assert diff(*arguments).stdout.splitlines() == expected


@pytest.mark.parametrize(
    "arguments",
    [["one..two"], ["one..two", "-p"], ["one..two", "--stat"], ["main..main"], ["src/deep/b.c"], ["*.none"]],
)
def test_no_difference(diff: Diff, arguments: list[str]) -> None:
    done = diff(*arguments, code=0)
    assert done.stdout == done.stderr == ""


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["nothing"], 3, "nothing: no such snapshot or branch"),
        (["one", "nothing"], 3, "nothing: no such path, neither in one nor in working tree"),
        (["one..nothing"], 3, "no such snapshot or branch"),
        (["nothing", "--"], 3, "no such snapshot or branch"),
        (["~5"], 3, "only 2 snapshots"),
        (["one", "/etc/passwd"], 2, "not in the workspace"),
        (["one", "two", "--", "src"], 2, "only one"),
        (["--patch", "--json"], 2, "choose"),
        (["--nothing"], 2, "--nothing"),
    ],
)
def test_what_cannot_be_answered(diff: Diff, arguments: list[str], code: int, message: str) -> None:
    done = diff(*arguments, code=code)
    assert done.stdout == ""
    assert message in done.stderr
    assert done.stderr.count("\n") == 1


def test_paths_from_the_current_directory(workspace: Workspace) -> None:
    folder = workspace.path / "src"
    inside = workspace.helios("diff", "-C", folder, "deep", "../gone", "*.sh")
    assert inside.stdout.splitlines() == ["D gone", "A src/deep/here now", "M src/run.sh"]


def test_a_name_that_means_two_things_is_asked_about(workspace: Workspace, diff: Diff) -> None:
    both = workspace.path / "two"
    file(both, "a file called as a snapshot")
    try:
        done = diff("two", code=2)
        assert "a file here too" in done.stderr
        assert "A two" in diff("two", "--").stdout
        assert diff("--", "two").stdout == diff("./two").stdout == "A two\n"
    finally:
        both.unlink()


def test_stat(diff: Diff) -> None:
    done = diff("--stat")
    lines = [" ".join(line.split()) for line in done.stdout.splitlines()]
    assert lines == [
        "becomes | 1 -",
        '"becomes/odd\\012\\042\\377" | 1 +',
        "gone | 1 -",
        "image | Bin 300,000 -> 300,000 bytes",
        "link | 2 +-",
        "src/a.c | 3 ++-",
        "moved away => src/deep/here now | 0",
        "src/run.sh | 0",
        "8 files changed, 4 lines added, 4 removed",
    ]
    assert done.stderr == "not shown: fifos, sockets and devices: src/fifo\n"


def test_json(workspace: Workspace, diff: Diff) -> None:
    said = json.loads(diff("--json").stdout)
    assert set(said) == {"a", "b", "changes"}
    snapshots = json.loads(workspace.helios("log", "--json", "-C", workspace.path, check=True).stdout)
    assert said["a"] == {
        "label": "two", "branch": "main", "snapshot": snapshots[0]["id"], "tree": snapshots[0]["tree"],
    }  # fmt: skip
    assert {key: said["b"][key] for key in ("label", "branch", "snapshot")} == {
        "label": "working tree", "branch": "main", "snapshot": None,
    }  # fmt: skip
    assert [one["kind"] for one in said["changes"]] == [name[0] for name in NAMES]
    by_path = {one["path"]: one for one in said["changes"]}
    assert by_path["src/run.sh"] == {
        "kind": "M", "path": "src/run.sh",
        "old": {"mode": "100644", "size_bytes": 10}, "new": {"mode": "100755", "size_bytes": 10},
    }  # fmt: skip
    assert by_path["gone"]["new"] is None
    assert by_path[os.fsdecode(b'becomes/odd\n"\xff')]["old"] is None
    assert json.loads(diff("one..two", "--json", code=0).stdout)["changes"] == []


def test_json_of_stat(diff: Diff) -> None:
    said = json.loads(diff("--json", "--stat").stdout)
    assert said["left_out"] == [{"path": "src/fifo", "reason": "fifos, sockets and devices"}]
    files = {one["path"]: one for one in said["files"]}
    assert files["src/deep/here now"]["renamed_from"] == "moved away"
    assert (files["src/a.c"]["added_lines"], files["src/a.c"]["removed_lines"]) == (2, 1)
    assert files["image"]["added_lines"] is None
    assert files["gone"]["new_size_bytes"] is None


def test_git_applies_the_patch(workspace: Workspace, diff: Diff, tmp_path: Path) -> None:
    checkout = tmp_path / "checkout"
    shutil.copytree(workspace.path / ".snapshots" / "one", checkout, symlinks=True)
    patch = tmp_path / "patch"
    done = diff("one", "-p")
    patch.write_bytes(os.fsencode(done.stdout))
    assert done.stderr == "not shown: fifos, sockets and devices: src/fifo\n"
    for arguments in (["init", "-q"], ["add", "-A"], ["apply", "--index", str(patch)]):
        subprocess.run(["git", *arguments], cwd=checkout, check=True, timeout=60)
    shutil.rmtree(checkout / ".git")
    compared = subprocess.run(
        ["diff", "-r", "--no-dereference", "--exclude=fifo", checkout, workspace.path], capture_output=True, timeout=60
    )
    assert compared.returncode == 0, compared.stdout
    assert os.access(checkout / "src" / "run.sh", os.X_OK)


def test_a_store_that_is_not_mounted(tmp_path: Path) -> None:
    helios = runner(tmp_path)
    mounted = Workspace(helios, tmp_path)
    try:
        mounted.mount()
        _fill(mounted.path)
        helios("snapshot", "one", "-C", mounted.path, check=True)
        _change(mounted.path)
        mounted.kill()  # what changed is in the journal only
        subprocess.run(["fusermount3", "-uz", mounted.path], check=True, timeout=60)
    finally:
        mounted.remove()
    done = helios("diff", "--store", mounted.store, "one")
    assert done.stdout.splitlines() == NAMES
    assert done.returncode == 1
    assert helios("--store", mounted.store, "diff", "src/deep").stdout == "A src/deep/here now\n"
    assert helios("diff", "--store", mounted.store, "one..one").returncode == 0


def test_without_a_snapshot(tmp_path: Path) -> None:
    helios = runner(tmp_path)
    helios("init", tmp_path / "store", check=True)
    done = helios("diff", "--store", tmp_path / "store")
    assert done.returncode == 3
    assert "no snapshots yet" in done.stderr
    assert helios("diff", "--store", tmp_path / "store", "main").returncode == 0


def test_a_reader_that_has_had_enough(workspace: Workspace, environment: dict[str, str]) -> None:
    """`helios diff -p | head -1` ends quietly."""
    command = (
        f"{shutil.which('timeout')} 60 {sys.executable} -m helios_fs.cli.main diff -C {workspace.path} -p | head -1"
    )
    done = subprocess.run(["sh", "-c", command], env=environment, capture_output=True, text=True, timeout=90)
    assert done.stdout == "diff --git a/becomes b/becomes\n"
    assert "Traceback" not in done.stderr


def test_branches(tmp_path: Path) -> None:
    helios = runner(tmp_path)
    mounted = Workspace(helios, tmp_path)

    def said(*arguments: str, at: Path | None = None) -> list[str]:
        where = ["-C", os.fspath(at)] if at is not None else ["--store", os.fspath(mounted.store)]
        done = helios("diff", *where, *arguments)
        assert done.returncode == (1 if done.stdout else 0), done.stderr
        return done.stdout.splitlines()

    try:
        mounted.mount()
        root, work = mounted.path, mounted.path / ".branches" / "work"
        file(root / "a", "a")
        (root / ".snapshots" / "first").mkdir()
        file(root / "unsaved", "in the branch too")
        work.mkdir()
        assert said("main..work", at=root) == []
        file(work / "theirs", "theirs")
        (work / ".branches" / "deep").mkdir()
        file(work / ".branches" / "deep" / "a", "deep")
        file(root / "ours", "ours")
        expected = {
            ("work",): ["A ours", "D theirs"],
            ("main..work",): ["D ours", "A theirs"],
            ("first..work",): ["A theirs", "A unsaved"],
            ("work:latest..work",): ["A theirs"],
            ("work..work/deep",): ["M a"],
            ("main:first..work/deep", "a"): ["M a"],
        }
        for arguments, lines in expected.items():
            assert said(*arguments, at=root) == lines
        assert said(at=work) == ["A theirs"]
        assert said("--branch", "work", at=root) == ["A theirs"]
        assert said("main", at=work) == ["D ours", "A theirs"]
        assert said("first", at=work / ".branches" / "deep") == ["M a", "A theirs", "A unsaved"]
        mounted.unmount()
        for arguments, lines in expected.items():
            assert said(*arguments) == lines
    finally:
        mounted.remove()


def test_a_branch_that_was_just_made(workspace: Workspace, diff: Diff) -> None:
    """It counts from the instant that `mkdir` returns."""
    for number in range(10):
        branch = workspace.path / ".branches" / f"new{number}"
        branch.mkdir()
        assert diff(f"..new{number}").stdout.splitlines() == NAMES
