"""Asking several filesystems, and the table of their answers in docs/posix.md."""

import json
import re
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.posix import filesystems
from tests.posix.known import KNOWN, Known
from tests.posix.probe import GROUPS, PROBES, load

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "posix.md"
BEGIN, END = "<!-- probes: written by `python -m tests.posix --compare --write` -->", "<!-- end of probes -->"

Answers = dict[str, str]


def ask(directory: Path) -> Answers:
    """Put every question to one filesystem, in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.posix", str(directory), "--json"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=250,
    )
    assert done.returncode == 0, done.stderr
    answers: Answers = json.loads(done.stdout)
    return answers


def ask_both(one: Path, other: Path) -> tuple[Answers, Answers]:
    """Ask two at the same time."""
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(ask, (one, other))
    return first, second


def compare() -> str:
    """Make and mount all filesystems, ask each, and return the tables. For root."""
    with (
        tempfile.TemporaryDirectory(prefix="posix-compare-") as folder,
        filesystems.mounted(Path(folder)) as places,
    ):
        seen = {name: ask(place) for name, place in places.items()}
    load()
    return "\n".join([f"{filesystems.versions()}; all asked as root.", "", *_differences(seen), *_everything(seen)])


def _row(*cells: str) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _head(*cells: str) -> list[str]:
    return [_row(*cells), "|" + "---|" * len(cells)]


def _differences(seen: dict[str, Answers]) -> list[str]:
    lines = ["### What differs from ext4", ""]
    lines += _head("", "HeliosFS", "ext4", "why", "what programs do then", "tested in")
    rows: dict[Known, list[str]] = {}
    for name, one in KNOWN.items():
        rows.setdefault(one, []).append(name)
    for one, names in rows.items():
        questions = "<br>".join(PROBES[name].question for name in names)
        theirs = "<br>".join(dict.fromkeys(seen["ext4"][name] for name in names))
        lines.append(_row(questions, one.answer, theirs, one.reason, one.programs, one.tested))
    return [*lines, ""]


def _everything(seen: dict[str, Answers]) -> list[str]:
    lines = ["### Every answer", "", "**Bold** where it is not ext4's.", ""]
    for group, title in GROUPS.items():
        lines += [f"#### {title}", "", *_head("", *filesystems.NAMES, "also in tests/")]
        for one in PROBES.values():
            if one.group == group:
                theirs = [seen[name][one.name] for name in filesystems.NAMES]
                usual = seen["ext4"][one.name]
                shown = [answer if answer == usual else f"**{answer}**" for answer in theirs]
                lines.append(_row(f"{one.question} (`{one.name}`)", *shown, one.also))
        lines.append("")
    return lines


def write(tables: str) -> None:
    """Put the tables into docs/posix.md, between the two marks."""
    before, _, rest = PAGE.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    PAGE.write_text(f"{before}{BEGIN}\n\n{tables}\n{END}{after}")


def committed(filesystem: str) -> Answers:
    """Return what docs/posix.md says that a filesystem answers."""
    column = filesystems.NAMES.index(filesystem)
    answers = {}
    for line in PAGE.read_text().partition(BEGIN)[2].partition(END)[0].splitlines():
        if found := re.match(r"\| .* \(`(\w+)`\) \| (.*) \|$", line):
            answers[found[1]] = found[2].split(" | ")[column].strip("* ")
    return answers
