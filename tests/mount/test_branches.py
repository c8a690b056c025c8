"""Branches below `.branches` of a real mount, and mounts of their own: made, changed, renamed, deleted, killed."""

import json
import mmap
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.mount.mounted import PATIENCE_SECONDS, Helios, Workspace
from tests.mount.one_mount import one_workspace
from tests.mount.system_calls import rename, tried

pytestmark = pytest.mark.fuse


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workspace]:
    with one_workspace(tmp_path_factory.mktemp("branches")) as mounted:
        (mounted.path / "directory").mkdir()
        (mounted.path / "directory" / "inner").write_text("inner")
        yield mounted


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    """A name that no other test of this module uses."""
    return str(request.node.name)[:100]


@pytest.fixture
def branch(shared: Workspace, name: str) -> Path:
    """A new branch of the shared workspace."""
    path = shared.path / ".branches" / name
    path.mkdir()
    return path


def test_what_was_not_saved_is_in_it_and_nobody_sees_anothers_changes(shared: Workspace, name: str) -> None:
    (shared.path / name).write_text("before")
    branch = shared.path / ".branches" / name
    branch.mkdir()
    (shared.path / name).write_text("later, in the parent")
    assert (branch / name).read_text() == "before"
    (branch / name).write_text("in the branch")
    (branch / "directory" / "new").write_text("new")
    assert (shared.path / name).read_text() == "later, in the parent"
    assert not (shared.path / "directory" / "new").exists()
    assert (branch / "directory" / "inner").read_text() == "inner"
    assert (branch / name).read_text() == "in the branch"


def test_no_file_of_a_branch_has_the_number_of_another_tree(shared: Workspace, branch: Path) -> None:
    for path in (".", "directory", "directory/inner"):
        live, theirs = (shared.path / path).stat(), (branch / path).stat()
        assert live.st_dev == theirs.st_dev
        assert live.st_ino != theirs.st_ino
    entries = {entry.name: entry.inode() for entry in os.scandir(branch)}
    assert entries["directory"] == (branch / "directory").stat().st_ino


def test_branches_of_branches(branch: Path) -> None:
    (branch / "file").write_text("one")
    below = branch / ".branches" / "below"
    below.mkdir()
    (branch / "file").write_text("two")
    (below / "file").write_text("three")
    deepest = below / ".branches" / "deepest"
    deepest.mkdir()
    (deepest / "file").write_text("four")
    assert [(path / "file").read_text() for path in (branch, below, deepest)] == ["two", "three", "four"]
    assert tried(os.rmdir, branch) == "EBUSY"
    assert tried(os.rmdir, below) == "EBUSY"
    assert os.listdir(branch / ".branches") == ["below"]


def test_each_has_snapshots_of_its_own(shared: Workspace, name: str) -> None:
    (shared.path / ".snapshots" / f"{name}-before").mkdir()
    branch = shared.path / ".branches" / name
    branch.mkdir()
    (branch / "file").write_text("one")
    (branch / ".snapshots" / "mine").mkdir()
    (branch / "file").write_text("two")
    (shared.path / ".snapshots" / f"{name}-after").mkdir()
    listed = os.listdir(branch / ".snapshots")
    assert "mine" in listed and f"{name}-before" in listed and f"{name}-after" not in listed
    assert "mine" not in os.listdir(shared.path / ".snapshots")
    assert (branch / ".snapshots" / "mine" / "file").read_text() == "one"
    assert tried(os.rmdir, branch / ".snapshots" / f"{name}-before") == "EPERM"
    (branch / ".snapshots" / "mine").rmdir()


def test_it_is_renamed_and_stays_what_it_is(shared: Workspace, branch: Path) -> None:
    (branch / "file").write_text("kept")
    with open(branch / "file") as opened:
        other = branch.with_name(f"{branch.name}-renamed")
        branch.rename(other)
        assert opened.read() == "kept"
    assert (other / "file").read_text() == "kept"
    assert not branch.exists()
    assert tried(rename, other, other.with_name(".hidden"), 0) == "EINVAL"
    second = branch.with_name(f"{branch.name}-second")
    second.mkdir()
    assert tried(rename, other, second, 0) == "EEXIST"
    shared.remount()
    assert (other / "file").read_text() == "kept"


def test_rmdir_refuses_to_drop_work(shared: Workspace, branch: Path) -> None:
    (branch / "file").write_text("work")
    assert tried(os.rmdir, branch) == "EPERM"
    refused = shared.helios("branch", "-C", shared.path, "-d", branch.name)
    assert refused.returncode == 3 and "--force" in refused.stderr and refused.stderr.count("\n") == 1
    shared.helios("branch", "-C", shared.path, "-d", branch.name, "--force", check=True)
    assert not branch.exists()
    shared.helios("branch", "-C", shared.path, "--undelete", branch.name, check=True)
    assert (branch / "file").read_text() == "work"


def test_one_without_work_goes(shared: Workspace, branch: Path) -> None:
    assert (branch / "directory" / "inner").read_text() == "inner"
    branch.rmdir()
    assert not branch.exists() and branch.name not in os.listdir(branch.parent)
    branch.mkdir()
    assert (branch / "directory" / "inner").read_text() == "inner"
    branch.rmdir()


def test_nothing_moves_between_trees(shared: Workspace, branch: Path) -> None:
    (branch / "file").write_text("here")
    other = branch.with_name(f"{branch.name}-other")
    other.mkdir()
    for target in (shared.path / f"{branch.name}-moved", other / "moved"):
        assert tried(os.rename, branch / "file", target) == "EXDEV"
        assert tried(os.link, branch / "file", target) == "EXDEV"
    assert tried(os.rename, shared.path / "directory", branch / "moved") == "EXDEV"
    assert (branch / "file").read_text() == "here"


@pytest.mark.parametrize(
    ("text", "error"),
    [
        (".dot", "EINVAL"),
        ("-dash", "EINVAL"),
        ("~1", "EINVAL"),
        ("a:b", "EINVAL"),
        ("main", "EINVAL"),
        ("new\nline", "EINVAL"),
        ("n" * 256, "ENAMETOOLONG"),
        (os.fsdecode(b"\xff"), "EINVAL"),
    ],
)
def test_names_that_are_none(shared: Workspace, text: str, error: str) -> None:
    assert tried(os.mkdir, shared.path / ".branches" / text) == error


def test_the_directory_itself(shared: Workspace, branch: Path) -> None:
    control = shared.path / ".branches"
    assert ".branches" not in os.listdir(shared.path)
    assert tried(os.mkdir, branch) == "EEXIST"
    assert tried(os.rmdir, control) == "EPERM"
    assert tried(os.rename, control, shared.path / "elsewhere") == "EPERM"
    assert tried(os.open, control / "file", os.O_CREAT | os.O_WRONLY) == "EPERM"
    assert tried(os.symlink, "x", control / "link") == "EPERM"
    assert tried(os.stat, control / "absent") == "ENOENT"
    assert tried(os.unlink, branch) in ("EISDIR", "EPERM")
    assert control.stat().st_nlink == 2 + len(os.listdir(control))


def test_what_a_mapping_has_stored_is_in_the_branch(shared: Workspace, name: str) -> None:
    path = shared.path / name
    path.write_bytes(bytes(4096))
    with open(path, "r+b") as opened, mmap.mmap(opened.fileno(), 4096) as mapped:
        mapped[:6] = b"stored"
        branch = shared.path / ".branches" / name
        branch.mkdir()
        mapped[:6] = b"later!"
        assert (branch / name).read_bytes()[:6] == b"stored"


def test_the_command_line_in_a_branch(shared: Workspace, branch: Path) -> None:
    """Verbs act on the branch that one stands in."""

    def helios(*arguments: str) -> str:
        return shared.helios(*arguments, "-C", str(branch), check=True).stdout

    (branch / "file").write_text("one")
    taken = helios("snapshot", "here").strip()
    (branch / "file").write_text("two")
    assert "file" in helios("status")
    assert taken in helios("log")
    helios("restore", "here")
    assert (branch / "file").read_text() == "one"
    below = Path(helios("branch", "below", "--from", "here").strip())
    assert below == branch / ".branches" / "below"
    assert (below / "file").read_text() == "one"
    listed = {row["name"]: row for row in json.loads(helios("branch", "--json"))}
    assert {branch.name, f"{branch.name}/below", "main"} <= set(listed)
    assert listed[branch.name]["current"] and not listed["main"]["current"]
    helios("branch", "-m", "below", "renamed")
    assert (branch / ".branches" / "renamed" / "file").read_text() == "one"
    helios("branch", "-d", "renamed")
    assert os.listdir(branch / ".branches") == []


def test_bad_input_to_the_command(shared: Workspace, branch: Path) -> None:
    for arguments, code in (
        (["branch", branch.name], 3),
        (["branch", ""], 3),
        (["branch", "a//b"], 3),
        (["branch", ".."], 3),
        (["branch", "n" * 256], 3),
        (["branch", "x", "--from", "0000000000"], 3),
        (["branch", "-d", "absent"], 3),
        (["branch", "--undelete", "absent"], 3),
        (["branch", "-d", "main"], 3),
        (["branch", "--force"], 2),
        (["branch", "one", "-d", "two"], 2),
        (["log", "--branch", "absent"], 3),
    ):
        done = shared.helios(*arguments, "-C", shared.path)
        assert done.returncode == code, (arguments, done.stderr)
        assert done.stderr.startswith("helios: ") and done.stderr.count("\n") == 1, (arguments, done.stderr)


def test_many_idle_ones(shared: Workspace, name: str) -> None:
    """They are listed without being opened, and cost one directory each."""
    control = shared.path / ".branches"
    for number in range(200):
        (control / f"{name}-{number}").mkdir()
    listed = set(os.listdir(control))
    assert {f"{name}-{number}" for number in range(200)} <= listed
    stats = json.loads(shared.helios("stats", "--json", "-C", shared.path, check=True).stdout)
    assert stats["mount"]["branches"] >= 200
    assert stats["mount"]["branches_open"] < 100
    assert (control / f"{name}-177" / "directory" / "inner").read_text() == "inner"


# -- Mounts of their own, and deaths ---------------------------------------------------------------------------------


@pytest.fixture
def elsewhere(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """Mountpoints, unmounted at the end."""
    made: list[Path] = []

    def mountpoint(called: str) -> Path:
        path = tmp_path / called
        path.mkdir()
        made.append(path)
        return path

    yield mountpoint
    for path in made:
        subprocess.run(["fusermount3", "-uz", path], capture_output=True, check=False, timeout=PATIENCE_SECONDS)


def _mount(workspace: Workspace, path: Path, *options: str) -> subprocess.CompletedProcess[str]:
    return workspace.helios("mount", path, "--store", workspace.store, *options)


def test_a_mount_of_its_own(shared: Workspace, branch: Path, elsewhere: Callable[[str], Path]) -> None:
    (branch / "file").write_text("one")
    point = elsewhere("own")
    done = _mount(shared, point, "--branch", branch.name)
    assert done.returncode == 0, done.stderr
    assert (point / "file").read_text() == "one"
    (point / "file").write_text("two")
    assert tried(os.stat, branch) == "EBUSY"
    assert tried(os.listdir, branch) == "EBUSY"
    second = _mount(shared, elsewhere("second"), "--branch", branch.name)
    assert second.returncode == 3 and str(point) in second.stderr and "process" in second.stderr
    assert shared.helios("branch", "-C", shared.path, "-d", branch.name, "--force").returncode == 3
    (point / ".branches" / "below").mkdir()
    (point / ".branches" / "below" / "file").write_text("three")
    shared.helios("unmount", point, check=True)
    assert (branch / "file").read_text() == "two"
    assert (branch / ".branches" / "below" / "file").read_text() == "three"


def test_one_that_is_in_use_is_not_taken_away(
    shared: Workspace, branch: Path, elsewhere: Callable[[str], Path]
) -> None:
    (branch / "file").write_text("one")
    with open(branch / "file"):
        refused = _mount(shared, elsewhere("own"), "--branch", branch.name)
    assert refused.returncode == 3
    assert f"branch {branch.name} of" in refused.stderr and str(branch) in refused.stderr


def test_a_snapshot_mounted(shared: Workspace, branch: Path, elsewhere: Callable[[str], Path]) -> None:
    (branch / "file").write_text("one")
    (branch / ".snapshots" / "then").mkdir()
    (branch / "file").write_text("two")
    point = elsewhere("snapshot")
    done = _mount(shared, point, "--branch", branch.name, "--snapshot", "then")
    assert done.returncode == 0, done.stderr
    assert (point / "file").read_text() == "one"
    assert tried(os.mkdir, point / "new") == "EROFS"
    assert tried(os.open, point / "file", os.O_WRONLY) == "EROFS"
    again = elsewhere("again")
    assert _mount(shared, again, "--branch", branch.name, "--snapshot", "then").returncode == 0
    shared.helios("unmount", point, check=True)
    assert (again / "file").read_text() == "one"
    shared.helios("unmount", again, check=True)


def test_branches_survive_the_death_of_the_daemon(tmp_path: Path, helios: Helios) -> None:
    workspace = Workspace(helios, tmp_path)
    try:
        workspace.mount()
        (workspace.path / "file").write_text("one")
        control = workspace.path / ".branches"
        (control / "used").mkdir()
        (control / "used" / "file").write_text("two")
        (control / "used" / ".branches" / "below").mkdir()
        (control / "just-made").mkdir()
        workspace.kill()
        workspace.mount()
        assert sorted(os.listdir(control)) == ["just-made", "used"]
        assert (control / "used" / "file").read_text() == "two"
        assert (control / "used" / ".branches" / "below" / "file").read_text() == "two"
        assert (control / "just-made" / "file").read_text() == "one"
    finally:
        workspace.remove()


def test_a_branch_whose_parents_owner_has_died_is_mounted_all_the_same(
    tmp_path: Path, helios: Helios, elsewhere: Callable[[str], Path]
) -> None:
    workspace = Workspace(helios, tmp_path)
    try:
        workspace.mount()
        (workspace.path / "file").write_text("unsealed")
        (workspace.path / ".branches" / "orphan").mkdir()
        workspace.kill()
        point = elsewhere("orphan")
        done = _mount(workspace, point, "--branch", "orphan")
        assert done.returncode == 0, done.stderr
        assert (point / "file").read_text() == "unsealed"
        workspace.helios("unmount", point, check=True)
    finally:
        workspace.remove()


WRITER = """
import os, sys, time
folder, seed, ends = sys.argv[1], sys.argv[2], time.monotonic() + float(sys.argv[3])
number = -1
while number < 99 or time.monotonic() < ends:
    number += 1
    with open(f"{folder}/file{number % 17}", "w") as opened:
        opened.write(f"{seed} {number} " * (number % 400 + 1))
    if number % 5 == 4:
        os.rename(f"{folder}/file{number % 17}", f"{folder}/moved{number % 17}")
    if number % 97 == 96:
        os.mkdir(f"{folder}/.snapshots/s{number}")
print(number + 1)
"""


def expected(seed: str, rounds: int) -> dict[str, str]:
    """Return what WRITER leaves behind."""
    files: dict[str, str] = {}
    for number in range(rounds):
        files[f"file{number % 17}"] = f"{seed} {number} " * (number % 400 + 1)
        if number % 5 == 4:
            files[f"moved{number % 17}"] = files.pop(f"file{number % 17}")
    return files


@pytest.mark.timeout(1800)
def test_many_written_at_once_hold_exactly_their_own(
    shared: Workspace, name: str, elsewhere: Callable[[str], Path]
) -> None:
    """Ten branches in one mount and two mounts of their own; HELIOS_TORTURE: fifty and eight, for ten minutes."""
    torture = "HELIOS_TORTURE" in os.environ
    inside, outside, seconds = (50, 8, 600) if torture else (10, 2, 1)
    folders: list[Path] = []
    for number in range(inside + outside):
        folder = shared.path / ".branches" / f"{name}-{number}"
        folder.mkdir()
        if number >= inside:
            point = elsewhere(f"own{number}")
            done = _mount(shared, point, "--branch", folder.name)
            assert done.returncode == 0, done.stderr
            folder = point
        folders.append(folder)
    running = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, str(folder), f"seed{number}", str(seconds)],
            stdout=subprocess.PIPE,
            text=True,
        )
        for number, folder in enumerate(folders)
    ]
    rounds = [int(process.communicate(timeout=3600)[0]) for process in running]
    for number, folder in enumerate(folders):
        found = {path.name: path.read_text() for path in folder.iterdir() if path.name.startswith(("file", "moved"))}
        assert found == expected(f"seed{number}", rounds[number])
    assert not list(shared.path.glob("file*"))


def test_another_name_for_a_tree_that_has_branches_of_its_own(tmp_path: Path, helios: Helios) -> None:
    source = tmp_path / "source"
    (source / ".branches").mkdir(parents=True)
    (source / ".branches" / "own").write_text("mine")
    workspace = Workspace(helios, tmp_path, make_store=False)
    made = helios("init", workspace.store, "--from", source, check=True)
    assert "branches_dir=NAME" in made.stderr
    assert "branches_dir=NAME" in helios("doctor", "--store", workspace.store).stdout
    refused = helios("mount", workspace.path, "--store", workspace.store, "-o", "branches_dir=.snapshots")
    assert refused.returncode == 2
    try:
        options = ("-o", "branches_dir=forks,show_snapshots")
        helios("mount", workspace.path, "--store", workspace.store, *options, check=True)
        assert (workspace.path / ".branches" / "own").read_text() == "mine"
        assert {".branches", ".snapshots", "forks"} <= set(os.listdir(workspace.path))
        branch = Path(helios("branch", "one", "-C", workspace.path, check=True).stdout.strip())
        assert branch == workspace.path / "forks" / "one"
        (branch / "file").write_text("in the branch")
        below = Path(helios("branch", "two", "-C", branch, check=True).stdout.strip())
        assert below == branch / "forks" / "two"
        assert (below / "file").read_text() == "in the branch"
        assert "file" in helios("status", "-C", branch, check=True).stdout
        assert sorted(os.listdir(branch / "forks")) == ["two"]
    finally:
        workspace.remove()
