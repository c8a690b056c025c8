"""The shell transcripts of the README, pasted into a shell: what they show is what comes out."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SECTIONS = ["For CI jobs and agents"]

pytestmark = [pytest.mark.fuse, pytest.mark.slow]


def transcript(section: str) -> list[tuple[str, str]]:
    """Return (command, what it shows) for all commands in the console blocks of a section, in order."""
    text = (ROOT / "README.md").read_text().partition(f"\n## {section}\n")[2].partition("\n## ")[0]
    steps: list[tuple[str, str]] = []
    for line in "\n".join(re.findall(r"```console\n(.*?)```", text, re.DOTALL)).splitlines():
        if line.startswith("$ "):
            steps.append((line[2:] + "\n", ""))
        elif line.startswith("> "):
            steps[-1] = (steps[-1][0] + line[2:] + "\n", "")
        elif line:
            steps[-1] = (steps[-1][0], steps[-1][1] + line + "\n")
    return steps


def same(text: str) -> str:
    """Return what is to be compared: ids of snapshots differ."""
    return re.sub(r"\b0[0-9a-z]{9}\b", "ID", text)


@pytest.mark.parametrize("section", SECTIONS)
def test_a_transcript(section: str, environment: dict[str, str], tmp_path: Path) -> None:
    steps = transcript(section)
    assert len(steps) > 5
    home, programs = tmp_path / "home", tmp_path / "bin"
    home.mkdir()
    programs.mkdir()
    script = f"#!/bin/sh\nexec {shlex.quote(sys.executable)} -c 'from helios_fs.cli.start import main; main()' \"$@\"\n"
    (programs / "helios").write_text(script)
    (programs / "helios").chmod(0o755)
    environment |= {"HOME": str(home), "PATH": f"{programs}:{os.environ['PATH']}", "LC_ALL": "C.UTF-8"}
    mark = "---- next ----\n"
    pasted = "".join(f"{command}echo '{mark[:-1]}'\n" for command, _ in steps)
    try:
        done = subprocess.run(
            ["bash", "--norc", "--noprofile"],
            input=pasted, cwd=home, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            timeout=120,
        )  # fmt: skip
        shown = done.stdout.split(mark)
        for (command, expected), found in zip(steps, shown, strict=False):
            assert same(found) == same(expected.replace("/home/you", str(home))), f"$ {command}{done.stdout}"
        assert len(shown) == len(steps) + 1
    finally:
        for point in filter(os.path.ismount, home.iterdir()):
            subprocess.run(["helios", "unmount", "--force", point], env=environment, timeout=60, check=True)
