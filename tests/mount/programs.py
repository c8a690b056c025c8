"""Programs that tests run in a mount: found or said to be missing, run to the end or said why they failed."""

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.mount.mounted import PATIENCE_SECONDS

TORTURE = "HELIOS_TORTURE" in os.environ

# Debian keeps PostgreSQL's server programs off the PATH.
_SERVERS = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: float(path.parent.name))
_SEARCH = os.pathsep.join([*map(str, _SERVERS[-1:]), os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])


def need(program: str, package: str) -> str:
    """Return the path of a program. Where it is missing, root has failed to set up; others skip the test."""
    found = shutil.which(program, path=_SEARCH)
    if found is not None:
        return found
    missing = f"{program} is missing: make setup, or apt-get install {package}"
    if os.geteuid() == 0:
        pytest.fail(missing)
    pytest.skip(missing)


def run(
    *command: str | Path,
    where: Path | None = None,
    stdin: str = "",
    code: int = 0,
    seconds: float = PATIENCE_SECONDS,
    **variables: str,
) -> str:
    """Run a program until it ends with this exit code; return what it printed. `variables` join the environment."""
    done = subprocess.run(
        list(map(str, command)),
        cwd=where,
        input=stdin,
        capture_output=True,
        text=True,
        errors="surrogateescape",
        timeout=seconds,
        env=os.environ | {"LC_ALL": "C.UTF-8"} | variables,
    )
    assert done.returncode == code, f"{command}: exit {done.returncode}: {done.stdout}{done.stderr}"
    return done.stdout


def differences(one: Path, other: Path, *options: str) -> str:
    """Return what rsync would change: content, names, links, modes, owners, times, extended attributes."""
    return run("rsync", "-aHAXn", "--delete", "--checksum", "--itemize-changes", *options, f"{one}/", f"{other}/")


def replies(daemon: int, action: Callable[[], object]) -> int:
    """Return how many requests the kernel sent to a quiet daemon during an action that only reads.

    The daemon answers each by one write(2) (but for forgets, which have no answer), and writes nothing else meanwhile.
    """
    before = _writes(daemon)
    action()
    return _writes(daemon) - before


def _writes(process: int) -> int:
    fields = dict(line.split(": ") for line in Path(f"/proc/{process}/io").read_text().splitlines())
    return int(fields["syscw"])
