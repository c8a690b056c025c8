"""git in the mount: repositories stay whole, and clean after a remount."""

import os
import random
import subprocess
from pathlib import Path

import pytest

from tests.mount.mounted import Workspace

pytestmark = pytest.mark.fuse


def git(where: Path, *arguments: str) -> str:
    environment = {
        **os.environ,
        "GIT_CONFIG_GLOBAL": "/dev/null",
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_AUTHOR_NAME": "A",
        "GIT_AUTHOR_EMAIL": "a@example.org",
        "GIT_COMMITTER_NAME": "A",
        "GIT_COMMITTER_EMAIL": "a@example.org",
        # Whatever a clock says, an entry of the index must not depend on it.
        "GIT_OPTIONAL_LOCKS": "0",
    }
    done = subprocess.run(["git", "-C", str(where), *arguments], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, f"git {arguments}: {done.stdout}{done.stderr}"
    return done.stdout


def fill(repository: Path, files: int, seed: int) -> None:
    source = random.Random(seed)
    for number in range(files):
        directory = repository / f"d{number % 7}" / f"e{number % 3}"
        directory.mkdir(parents=True, exist_ok=True)
        (directory / f"file{number}.txt").write_bytes(source.randbytes(source.randrange(1, 5000)).hex().encode())
    (repository / "tool.sh").write_text("#!/bin/sh\n")
    (repository / "tool.sh").chmod(0o755)
    (repository / "link").unlink(missing_ok=True)
    (repository / "link").symlink_to(f"d{seed}/e0")


def test_commit_check_and_clean_after_a_remount(mounted: Workspace) -> None:
    repository = mounted.path / "repository"
    repository.mkdir()
    git(repository, "init", "-q")
    for seed in range(3):
        fill(repository, 120, seed)
        git(repository, "add", "-A")
        git(repository, "commit", "-q", "-m", f"state {seed}")
    git(repository, "fsck", "--full", "--strict")
    before = git(repository, "rev-parse", "HEAD^{tree}")
    mounted.remount()
    # Inode numbers and times must be what they were: with --porcelain=2 and no refresh, a changed stat would show.
    assert git(repository, "status", "--porcelain") == ""
    assert git(repository, "diff-files") == "", "the remount has changed what stat says"
    assert git(repository, "rev-parse", "HEAD^{tree}") == before
    git(repository, "fsck", "--full", "--strict")


def test_clone_branch_merge_rebase_and_collect(mounted: Workspace, tmp_path: Path) -> None:
    origin = mounted.path / "origin"
    origin.mkdir()
    git(origin, "init", "-q", "-b", "trunk")
    fill(origin, 60, 1)
    git(origin, "add", "-A")
    git(origin, "commit", "-q", "-m", "first")
    # Inside the mount (hard links), out of it and back in (packs).
    git(mounted.path, "clone", "-q", "origin", "local")
    git(tmp_path, "clone", "-q", str(origin), "outside")
    git(mounted.path, "clone", "-q", "--no-local", str(tmp_path / "outside"), "back")
    clone = mounted.path / "back"
    git(clone, "switch", "-q", "-c", "topic")
    (clone / "topic.txt").write_text("topic\n")
    git(clone, "add", "-A")
    git(clone, "commit", "-q", "-m", "topic")
    git(clone, "switch", "-q", "trunk")
    (clone / "trunk.txt").write_text("trunk\n")
    git(clone, "add", "-A")
    git(clone, "commit", "-q", "-m", "trunk")
    git(clone, "merge", "-q", "-m", "merge", "topic")
    git(clone, "gc", "-q", "--prune=now")
    for repository in (origin, mounted.path / "local", clone):
        git(repository, "fsck", "--full")
        assert git(repository, "status", "--porcelain") == ""


def test_a_worktree_and_a_stash(mounted: Workspace) -> None:
    repository = mounted.path / "repository"
    repository.mkdir()
    git(repository, "init", "-q")
    fill(repository, 20, 4)
    git(repository, "add", "-A")
    git(repository, "commit", "-q", "-m", "first")
    git(repository, "worktree", "add", "-q", "../second")
    assert git(mounted.path / "second", "status", "--porcelain") == ""
    (repository / "tool.sh").write_text("#!/bin/sh\necho changed\n")
    git(repository, "stash", "push", "-q")
    assert git(repository, "status", "--porcelain") == ""
    git(repository, "stash", "pop", "-q")
    assert (repository / "tool.sh").read_text().endswith("changed\n")
