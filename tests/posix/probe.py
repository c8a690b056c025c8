"""What a probe is: one question about a filesystem, and the function that puts it.

A probe works in the current directory, which is new, empty, open to all and its own. It returns None for "yes" or a
short text; an OSError that it raises becomes "no: ERRNO". It never says anything that differs from one run to the next.
"""

import errno
import importlib
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, NoReturn

from tests.posix.system import Killed, in_child

Question = Callable[[], "str | None"]

GROUPS = {
    "files": "Opening, writing, running",
    "space": "Room, holes, clones, copies",
    "names": "Names, links, special files",
    "mappings": "Memory mappings",
    "locks": "Locks and leases",
    "directories": "Directories",
    "attributes": "Attributes and times",
    "permissions": "Permissions",
    "xattrs": "Extended attributes",
    "watching": "Watching",
    "transfers": "Other ways in and out",
}
"""The modules that hold probes, and what each is called."""

PATIENCE_SECONDS = 20
PROGRAMS = "posix/test_programs.py"
"""Where it is tested what programs do with an answer of "no"."""
AS_ROOT = os.geteuid() == 0


class Probe(NamedTuple):
    """One question."""

    group: str
    name: str
    question: str
    function: Question
    root: bool
    also: str


PROBES: dict[str, Probe] = {}
"""All of them, in the order of the table."""


class NoError(Exception):
    """The answer is no, and this is why."""


def probe(question: str, *, root: bool = False, also: str = "") -> Callable[[Question], Question]:
    """Add a probe. `root`: only root can ask; `also`: the tests (below tests/) that look at the same more closely."""

    def add(function: Question) -> Question:
        name = function.__name__
        assert name not in PROBES, name
        PROBES[name] = Probe(function.__module__.rpartition(".")[2], name, question, function, root, also)
        return function

    return add


def check(condition: bool, otherwise: str) -> None:
    """Answer "no: `otherwise`" unless the condition holds."""
    if not condition:
        raise NoError(otherwise)


def refused(action: Callable[..., object], *arguments: object) -> str:
    """Return the name of the error that a call ends with, or "done"."""
    try:
        action(*arguments)
    except OSError as error:
        return name_of(error)
    return "done"


def name_of(error: OSError) -> str:
    """Return ENOENT for an ENOENT; what Linux has one number for has one name here."""
    name = errno.errorcode.get(error.errno or 0, str(error.errno))
    return {"ENOTSUP": "EOPNOTSUPP", "EDEADLOCK": "EDEADLK"}.get(name, name)


def file(name: str, content: bytes = b"content", mode: int = 0o644) -> Path:
    """Make a file in the current directory."""
    path = Path(name)
    path.write_bytes(content)
    path.chmod(mode)
    return path


def ask(one: Probe, directory: Path) -> str:
    """Put one question to the filesystem that holds `directory`, in a process of its own."""
    place = directory / one.name
    place.mkdir()
    place.chmod(0o777)
    try:
        return in_child(lambda: _answer(one, place))
    except Killed as killed:
        return f"no: {killed}"
    finally:
        # What a descriptor still holds may lie here for a moment, where the daemon hides it; the caller clears up.
        shutil.rmtree(place, ignore_errors=True)


def _answer(one: Probe, place: Path) -> str:
    os.umask(0o022)
    os.chdir(place)
    signal.signal(signal.SIGALRM, _give_up)
    signal.alarm(PATIENCE_SECONDS)
    try:
        return one.function() or "yes"
    except NoError as no:
        return f"no: {no}"
    except OSError as error:
        return f"no: {name_of(error)}"


def _give_up(*_: object) -> NoReturn:
    raise NoError("it hangs")


def load() -> None:
    """Load all probes; the order is that of the table."""
    for group in GROUPS:
        importlib.import_module(f"tests.posix.{group}")


def ask_all(directory: Path) -> dict[str, str]:
    """Put every question that this user can put."""
    load()
    return {one.name: ask(one, directory) for one in PROBES.values() if AS_ROOT or not one.root}
