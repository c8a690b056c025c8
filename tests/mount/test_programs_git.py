"""git in the mount: repositories stay whole, and clean after a remount."""

import os
import random
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.mount.mounted import Workspace
from tests.mount.programs import TORTURE, replies

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


def test_commit_check_and_clean_after_a_remount(shared: Workspace, folder: Path) -> None:
    repository = folder / "repository"
    repository.mkdir()
    git(repository, "init", "-q")
    for seed in range(3):
        fill(repository, 120, seed)
        git(repository, "add", "-A")
        git(repository, "commit", "-q", "-m", f"state {seed}")
    git(repository, "fsck", "--full", "--strict")
    before = git(repository, "rev-parse", "HEAD^{tree}")
    shared.remount()
    # Inode numbers and times must be what they were: with --porcelain=2 and no refresh, a changed stat would show.
    assert git(repository, "status", "--porcelain") == ""
    assert git(repository, "diff-files") == "", "the remount has changed what stat says"
    assert git(repository, "rev-parse", "HEAD^{tree}") == before
    git(repository, "fsck", "--full", "--strict")


def test_clone_branch_merge_rebase_and_collect(folder: Path, tmp_path: Path) -> None:
    origin = folder / "origin"
    origin.mkdir()
    git(origin, "init", "-q", "-b", "trunk")
    fill(origin, 60, 1)
    git(origin, "add", "-A")
    git(origin, "commit", "-q", "-m", "first")
    # Inside the mount (hard links), out of it and back in (packs).
    git(folder, "clone", "-q", "origin", "local")
    git(tmp_path, "clone", "-q", str(origin), "outside")
    git(folder, "clone", "-q", "--no-local", str(tmp_path / "outside"), "back")
    clone = folder / "back"
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
    for repository in (origin, folder / "local", clone):
        git(repository, "fsck", "--full")
        assert git(repository, "status", "--porcelain") == ""


def test_a_worktree_and_a_stash(folder: Path) -> None:
    repository = folder / "repository"
    commit_files(repository, 20, 4)
    git(repository, "worktree", "add", "-q", "../second")
    assert git(folder / "second", "status", "--porcelain") == ""
    (repository / "tool.sh").write_text("#!/bin/sh\necho changed\n")
    git(repository, "stash", "push", "-q")
    assert git(repository, "status", "--porcelain") == ""
    git(repository, "stash", "pop", "-q")
    assert (repository / "tool.sh").read_text().endswith("changed\n")


def test_a_worktree_across_the_mounts_border(folder: Path, tmp_path: Path) -> None:
    for repository, worktree in (
        (folder / "inside", tmp_path / "of-inside"),
        (tmp_path / "plain", folder / "of-plain"),
    ):
        commit_files(repository, 30, 5)
        git(repository, "worktree", "add", "-q", "-b", "topic", str(worktree))
        (worktree / "tool.sh").write_text("#!/bin/sh\necho changed\n")
        git(worktree, "commit", "-q", "-a", "-m", "topic")
        git(repository, "merge", "-q", "topic")
        assert (repository / "tool.sh").read_text().endswith("changed\n")
        git(repository, "fsck", "--full")
        git(repository, "worktree", "remove", str(worktree))
        assert not worktree.exists()


def test_a_submodule(folder: Path) -> None:
    part, whole = folder / "part", folder / "whole"
    commit_files(part, 20, 6)
    commit_files(whole, 20, 7)
    # git trusts no path in a submodule unless it is told to (CVE-2022-39253).
    git(whole, "-c", "protocol.file.allow=always", "submodule", "--quiet", "add", "../part", "vendor/part")
    git(whole, "commit", "-q", "-m", "with a part")
    git(folder, "-c", "protocol.file.allow=always", "clone", "-q", "--recurse-submodules", "whole", "clone")
    clone = folder / "clone"
    assert (clone / "vendor/part/tool.sh").stat().st_mode & 0o777 == 0o755
    for place in (whole, clone):
        assert git(place, "submodule", "status").startswith(" ")
        assert git(place, "status", "--porcelain") == ""
        git(place, "fsck", "--full")


@pytest.mark.slow
def test_thousands_of_objects(shared: Workspace, folder: Path) -> None:
    files = 3000 if TORTURE else 700
    repository, clone = folder / "repository", folder / "clone"
    for seed in (8, 9):
        commit_files(repository, files, seed)
    assert len(list(repository.glob(".git/objects/??/*"))) > 2 * files
    git(folder, "clone", "-q", "repository", "clone")
    git(clone, "fsck", "--full")
    git(clone, "gc", "-q", "--prune=now")
    assert git(clone, "count-objects").startswith("0 objects")
    shared.remount()
    git(clone, "fsck", "--full")
    assert git(clone, "status", "--porcelain") == ""


def test_status_after_a_remount_looks_each_file_up_once(shared: Workspace, folder: Path) -> None:
    repository = folder / "repository"
    commit_files(repository, 500, 11)
    paths = git(repository, "ls-files").split()
    for path in paths:
        # A file as young as the index is read by each status: git cannot tell that it has not changed since.
        os.utime(repository / path, (1_700_000_000, 1_700_000_000), follow_symlinks=False)
    git(repository, "update-index", "--refresh")
    directories = {parent for path in paths for parent in Path(path).parents}
    shared.remount()
    asked = replies(shared.daemon(), lambda: git(repository, "status", "--porcelain"))
    # One lookup for each file and no other request on it. A directory is looked up, asked for its attributes, opened,
    # listed until nothing comes any more, searched for a .gitignore and closed; git reads some files of its own.
    assert len(paths) <= asked < len(paths) + 8 * len(directories) + 80
    # Whatever is known by then is not asked again; directories are listed again.
    assert replies(shared.daemon(), lambda: git(repository, "status", "--porcelain")) < 8 * len(directories) + 80


@pytest.mark.slow
def test_a_clone_while_snapshots_are_taken(shared: Workspace, folder: Path, tmp_path: Path) -> None:
    """What is read is being sealed at the same time: packs, and loose objects that are read back at once."""
    origin = tmp_path / "origin"
    commit_files(origin, 1000, 10)
    for number in range(20 if TORTURE else 1):
        packed, loose = folder / f"packed{number}", folder / f"loose{number}"
        with snapshots_all_the_time(shared, tmp_path.name + str(number)) as taken:
            git(folder, "clone", "-q", "--no-local", str(origin), packed.name)
            git(folder, "clone", "-q", str(origin), loose.name)
            git(packed, "repack", "-q", "-a", "-d", "-f")
            git(packed, "fsck", "--full", "--strict")
            git(loose, "fsck", "--full", "--strict")
        assert len(taken) > 3
        for clone in (packed, loose):
            assert git(clone, "status", "--porcelain") == ""
            kept = shared.path / ".snapshots" / taken[-1] / clone.relative_to(shared.path)
            git(kept, "fsck", "--full")
            assert git(kept, "diff-index", "--name-only", "HEAD", "--cached") == ""


def commit_files(repository: Path, files: int, seed: int) -> None:
    """Make the repository where there is none yet, write files and commit them."""
    if not repository.exists():
        repository.mkdir()
        git(repository, "init", "-q", "-b", "trunk")
    fill(repository, files, seed)
    git(repository, "add", "-A")
    git(repository, "commit", "-q", "-m", f"state {seed}")


@contextmanager
def snapshots_all_the_time(workspace: Workspace, prefix: str) -> Iterator[list[str]]:
    """Take a snapshot every 100 ms and once more at the end; what is yielded are their names so far."""
    done = threading.Event()
    taken: list[str] = []

    def take() -> None:
        name = f"{prefix}.{len(taken)}"
        (workspace.path / ".snapshots" / name).mkdir()
        taken.append(name)

    def take_all() -> None:
        while not done.wait(0.1):
            take()

    thread = threading.Thread(target=take_all)
    thread.start()
    try:
        yield taken
    finally:
        done.set()
        thread.join()
    take()
