"""Where operations are carried out: a branch's tree in a mount, and what can be asked of its daemon."""

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from helios_fs.control import messages
from helios_fs.control.client import find_daemon
from helios_fs.errors import Busy

ROOT = Path(__file__).parents[2]
_TRIES = 5


@dataclass(frozen=True)
class Place:
    """A tree with `.snapshots` and `.branches`, and the branch that it is."""

    root: Path
    store: Path
    branch: str = "main"
    """Its id."""

    def seal(self) -> None:
        """Have all that was done before this call sealed; a killed daemon's sealer may still be at work."""
        connection = find_daemon(str(self.store), self.branch)
        assert connection is not None, "no daemon listens"
        with connection:
            for _ in range(_TRIES - 1):
                try:
                    connection.ask(messages.Seal(), messages.Sealed, 300)
                    return
                except Busy as busy:
                    print(f"a seal was refused, and is asked for again: {busy}", file=sys.stderr, flush=True)
            connection.ask(messages.Seal(), messages.Sealed, 300)

    def delete_branch(self, name: str) -> None:
        """Delete a branch of this one with all that is in it."""
        run_helios("-C", str(self.root), "branch", "--delete", name, "--force")


def run_helios(*arguments: str) -> None:
    """Run the command line; raise if it fails."""
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
    done = subprocess.run(
        [sys.executable, "-m", "helios_fs.cli.main", *arguments],
        env={**os.environ, "PYTHONPATH": path, "NO_COLOR": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    if done.returncode:
        raise OSError(f"helios {' '.join(arguments)} exited {done.returncode}: {done.stdout}{done.stderr}")
