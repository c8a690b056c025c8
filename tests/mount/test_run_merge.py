"""`helios run --merge`: what succeeded goes into the workspace, or nothing of it does."""

import json
import os
from pathlib import Path

import pytest

from tests.conftest import Helios

pytestmark = pytest.mark.fuse


def branches(workspace: Path) -> list[str]:
    return os.listdir(workspace / ".branches")


def test_success_is_merged_and_the_branch_dropped(helios: Helios, workspace: Path, tmp_path: Path) -> None:
    (workspace / "file").write_text("before\n")
    report = tmp_path / "report"
    arguments = ["run", "--merge", "-m", "why", "--json", report, "--", "sh", "-c", "echo after > file; touch new"]
    done = helios(*arguments, cwd=workspace, check=True)
    found = json.loads(report.read_text())
    assert (found["outcome"], found["branch_dropped"], found["conflicts"]) == ("merged", True, [])
    assert f"as snapshot {found['snapshot']}" in done.stderr
    assert (workspace / "file").read_text() == "after\n" and (workspace / "new").exists() and not branches(workspace)
    assert helios("log", "-n", "1", cwd=workspace, check=True).stdout.rstrip().endswith("why")


def test_failure_is_not_merged(helios: Helios, workspace: Path) -> None:
    done = helios("run", "--merge", "--branch", "b", "--", "sh", "-c", "touch new; exit 3", cwd=workspace)
    assert done.returncode == 3 and branches(workspace) == ["b"] and not (workspace / "new").exists()


def test_a_conflict_changes_nothing_and_keeps_the_branch(helios: Helios, workspace: Path, tmp_path: Path) -> None:
    (workspace / "file").write_text("before\n")
    script = f"echo mine > file; touch new; echo theirs > {workspace}/file"
    # Without a namespace the command can reach the workspace itself.
    arguments = ["run", "--merge", "--branch", "b", "--no-namespace", "--json", tmp_path / "report"]
    done = helios(*arguments, "--", "sh", "-c", script, cwd=workspace)
    found = json.loads((tmp_path / "report").read_text())
    assert (done.returncode, found["exit_code"], found["command_exit_code"]) == (1, 1, 0)
    assert found["outcome"] == "kept" and [one["path"] for one in found["conflicts"]] == ["file"]
    assert "helios: 1 conflicts with the workspace" in done.stderr and "kept as b" in done.stderr
    assert (workspace / "file").read_text() == "theirs\n" and not (workspace / "new").exists()
    assert (workspace / ".branches" / "b" / "file").read_text() == "mine\n"


def test_nothing_to_merge(helios: Helios, workspace: Path) -> None:
    done = helios("run", "--merge", "--", "true", cwd=workspace, check=True)
    assert "nothing changed" in done.stderr and not branches(workspace)


def test_a_branch_with_branches_of_its_own_is_merged_and_kept(helios: Helios, workspace: Path) -> None:
    script = "touch new; mkdir .branches/inner; touch .branches/inner/work"
    done = helios("run", "--merge", "--branch", "b", "--", "sh", "-c", script, cwd=workspace, check=True)
    assert (workspace / "new").exists() and branches(workspace) == ["b"]
    assert "merged b as snapshot" in done.stderr and "kept as b" in done.stderr
