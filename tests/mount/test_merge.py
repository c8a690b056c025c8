"""`helios merge` as people and agents use it: through mounts, with files open, killed in the middle, and without."""

import json
import os
import random
from pathlib import Path

import pytest

from tests.mount.mounted import Helios, Killer, Workspace

pytestmark = pytest.mark.fuse


def filled(mounted: Workspace) -> tuple[Path, Path]:
    """Something in the workspace, and a branch `agent` of it; return both trees."""
    (mounted.path / "text").write_text("1\n2\n3\n4\n5\n")
    (mounted.path / "top").write_text("top\n")
    (mounted.path / "d").mkdir()
    (mounted.path / "d/in").write_text("in\n")
    agent = mounted.path / ".branches/agent"
    agent.mkdir()
    return mounted.path, agent


def test_what_an_agent_did_comes_back(helios: Helios, mounted: Workspace) -> None:
    main, agent = filled(mounted)
    first = helios("snapshot", "-C", main, check=True).stdout.strip()
    (agent / "text").write_text("1\n2\n3\n4\nfive\n")
    (agent / "d").rename(agent / "e")
    (agent / "new").write_text("new\n")
    (main / "text").write_text("one\n2\n3\n4\n5\n")
    (main / "d/in").write_text("edited\n")
    with open(main / "text") as held, open(main / "d/in") as inside:
        assert (held.read(), inside.read()) == ("one\n2\n3\n4\n5\n", "edited\n")
        done = helios("merge", "agent", "-C", main, "-m", "well done", check=True)
        held.seek(0)
        inside.seek(0)
        assert held.read() == "one\n2\n3\n4\nfive\n", "what is open shows the merged text"
        assert inside.read() == "edited\n"
        assert os.fstat(inside.fileno()).st_ino == (main / "e/in").stat().st_ino, "a rename is no copy"
    assert sorted(os.listdir(main)) == ["e", "new", "text", "top"]
    shown = json.loads(helios("show", "--json", done.stdout.strip(), "-C", main, check=True).stdout)
    assert shown["message"] == "well done"
    assert shown["parents"][0] == first
    assert len(shown["parents"]) == 2, "the other one is the agent's snapshot"
    again = helios("merge", "agent", "-C", main, check=True)
    assert (again.stdout, "nothing to merge" in again.stderr) == ("", True)
    agent.rmdir()
    mounted.remount()
    assert (main / "text").read_text() == "one\n2\n3\n4\nfive\n"


def test_conflicts_are_listed_and_nothing_changes(helios: Helios, mounted: Workspace) -> None:
    main, agent = filled(mounted)
    (main / "top").write_text("ours\n")
    (agent / "top").write_text("theirs\n")
    (agent / "d/in").unlink()
    (main / "d/in").write_text("edited\n")
    (agent / "new").write_text("new\n")
    done = helios("merge", "agent", "-C", main)
    assert (done.returncode, done.stdout) == (1, "d/in: edit/delete\ntop: content\n")
    assert not (main / "new").exists()
    dry = helios("merge", "agent", "-C", main, "--dry-run", "--json")
    assert dry.returncode == 1
    assert [one["kind"] for one in json.loads(dry.stdout)["conflicts"]] == ["edit/delete", "content"]
    helios("merge", "agent", "-C", main, "--markers", check=True)
    assert (main / "top").read_text() == "<<<<<<< main\nours\n=======\ntheirs\n>>>>>>> agent\n"
    assert (main / "d/in").read_text() == "edited\n"


def test_branches_of_two_daemons_and_of_none(helios: Helios, mounted: Workspace, tmp_path: Path) -> None:
    main, agent = filled(mounted)
    (agent / "new").write_text("new\n")
    helios("branch", "other", "-C", main, check=True)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    helios("mount", elsewhere, "--store", mounted.store, "--branch", "other", check=True)
    try:
        (elsewhere / "of-other").write_text("other\n")
        helios("merge", "other", "-C", main, check=True)
        assert (main / "of-other").read_text() == "other\n"
        helios("merge", "agent", "--into", "other", "-C", main, check=True)
        assert (elsewhere / "new").read_text() == "new\n"
    finally:
        helios("unmount", elsewhere, check=True)
    mounted.unmount()
    helios("--store", mounted.store, "merge", "agent", check=True)
    helios("--store", mounted.store, "merge", "main", "--into", "agent", check=True)
    mounted.mount()
    assert (main / "new").read_text() == "new\n"
    assert (agent / "of-other").read_text() == "other\n"


def test_what_is_refused(helios: Helios, mounted: Workspace) -> None:
    main, _ = filled(mounted)
    assert helios("merge", "main", "-C", main).returncode == 2
    nobody = helios("merge", "nobody", "-C", main)
    assert (nobody.returncode, nobody.stderr.count("\n")) == (3, 1)
    assert helios("merge", "agent", "--into", "", "-C", main).returncode == 3


@pytest.mark.parametrize("seed", range(6))
def test_a_kill_leaves_before_or_after(helios: Helios, mounted: Workspace, seed: int) -> None:
    main, agent = filled(mounted)
    for number in range(150):
        (agent / f"new-{number}").write_text("new\n")
    os.rename(agent / "d", agent / "e")
    before = set(os.listdir(main))
    after = before - {"d"} | {"e"} | {f"new-{number}" for number in range(150)}
    killer = Killer(mounted.daemon())
    killer.kill_after(0.1 + 0.25 * random.Random(seed).random())
    helios("merge", "agent", "-C", main)
    killer.wait()
    mounted.mount()
    assert set(os.listdir(main)) in (before, after)
    helios("merge", "agent", "-C", main, check=True)
    assert set(os.listdir(main)) == after
    assert (main / "e/in").read_text() == "in\n"
