"""A mount answers every probe as ext4 does, or as `known.py` lists and docs/posix.md tells."""

import subprocess
from pathlib import Path

import pytest

from tests.mount.one_mount import one_workspace
from tests.posix import answers
from tests.posix.known import KNOWN
from tests.posix.probe import AS_ROOT, PROBES, load

pytestmark = pytest.mark.fuse

TESTS = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> tuple[answers.Answers, answers.Answers]:
    """What a mount answers, and what ext4 does: this machine's own, or else that of docs/posix.md."""
    load()
    folder = tmp_path_factory.mktemp("posix")
    with one_workspace(folder, *(("-o", "allow_other") if AS_ROOT else ())) as workspace:
        if _is_usual_ext4(folder):
            (folder / "plain").mkdir()
            seen = answers.ask_both(workspace.path, folder / "plain")
        else:
            seen = answers.ask(workspace.path), answers.committed("ext4")
        assert list(workspace.path.iterdir()) == [], "the probes have left something"
    return seen


def _is_usual_ext4(folder: Path) -> bool:
    found = subprocess.run(["findmnt", "-nro", "FSTYPE,OPTIONS", "-T", folder], capture_output=True, text=True)
    return found.stdout.startswith("ext4 ") and "relatime" in found.stdout


def test_every_answer_is_that_of_ext4_or_known(asked: tuple[answers.Answers, answers.Answers]) -> None:
    ours, theirs = asked
    unexpected = {
        name: (answer, theirs[name])
        for name, answer in ours.items()
        if answer != (KNOWN[name].answer if name in KNOWN else theirs[name])
    }
    assert unexpected == {}, "(ours, ext4's)"
    assert len(ours) >= (190 if AS_ROOT else 150)


def test_every_known_difference_is_one(asked: tuple[answers.Answers, answers.Answers]) -> None:
    ours, theirs = asked
    assert [name for name in KNOWN if name in ours and ours[name] == theirs[name]] == []
    assert KNOWN.keys() <= PROBES.keys()


def test_the_page_says_what_the_mount_answers(asked: tuple[answers.Answers, answers.Answers]) -> None:
    page = answers.committed("HeliosFS")
    assert {name: page.get(name) for name in asked[0]} == asked[0], "python -m tests.posix --compare --write"
    assert page.keys() == PROBES.keys()


def test_what_the_page_names_is_there() -> None:
    load()
    named = {one.also for one in PROBES.values()} | {one.tested for one in KNOWN.values()}
    assert [name for name in named if name and not (TESTS / name).exists()] == []
