"""`helios run`: a command in an instant branch of the workspace, which is then kept, merged or dropped.

R1. The command sees its branch where the workspace is, so absolute paths hold; nobody else sees that.
R2. Standard output is the command's; what is said about the run goes to stderr, or to the file that --json names.
R3. Nothing ends this program between the making of the branch and its outcome but SIGKILL, which keeps the branch.
R4. The outcome comes before the report: a reader that has gone changes nothing.
"""

import os
import shlex
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final, NamedTuple

import click

from helios_fs.cli import child, exit_codes, output, workspace
from helios_fs.cli.main import complain
from helios_fs.errors import HeliosError, NotPermitted, UsageError

if TYPE_CHECKING:
    from helios_fs.cli.outcome import Changes, Merge
    from helios_fs.cli.workspace import Workspace

_SHOWN: Final = 20
"""How many changed paths are listed for a person; a program asks for --json."""
_MESSAGE_CHARACTERS: Final = 500


class Options(NamedTuple):
    """What was asked for."""

    name: str | None
    choice: str | None
    """keep, merge or discard, where it was said."""
    on_failure: str | None
    message: str
    quiet: bool
    namespace: bool


class Run(NamedTuple):
    """What was run, and what came of it."""

    parent: "Workspace"
    branch: "Workspace"
    name: str
    """Whole name of the branch."""
    command: tuple[str, ...]
    ended: child.Ended
    seconds: float
    """How long the command ran."""


class Result(NamedTuple):
    """What became of the branch."""

    outcome: str
    """kept, merged or discarded."""
    changes: "Changes | None" = None
    merge: "Merge | None" = None
    snapshot: str = ""
    problem: str = ""
    """Why it is not what was asked for."""


@click.command("run", context_settings={"allow_interspersed_args": False})
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED, metavar="-- CMD…")
@click.option("--branch", "name", metavar="NAME", help="What the branch is called (default: run-TIME-RANDOM).")
@click.option("--keep", "choice", flag_value="keep", help="Keep the branch, whatever comes of it (the default).")
@click.option("--merge", "choice", flag_value="merge", help="If CMD succeeds, merge the branch and drop it.")
@click.option("--discard", "choice", flag_value="discard", help="Drop the branch, whatever comes of it.")
@click.option(
    "--on-failure",
    type=click.Choice(["keep", "discard"]),
    help="What becomes of the branch if CMD fails (default: discard with --discard, else keep).",
)
@click.option("-m", "message", default="", metavar="MSG", help="Message of the merge, or of a snapshot of what is kept.")
@click.option("--json", "json_path", metavar="FILE", help="Write what came of it to FILE as JSON (/dev/fd/3, say).")
@click.option("-q", "--quiet", is_flag=True, help="Do not say what changed, nor store it where it is dropped anyway.")
@click.option("--no-namespace", is_flag=True, help="Run below .branches, not at the workspace's own path.")
@workspace.options
@click.pass_context
def verb(
    ctx: click.Context,
    command: tuple[str, ...],
    name: str | None,
    choice: str | None,
    on_failure: str | None,
    message: str,
    json_path: str | None,
    quiet: bool,
    no_namespace: bool,
    directory: str | None,
    store: str | None,
) -> int:
    """Run CMD in a new branch of the workspace, and exit as CMD does.

    CMD starts where you stand. It sees the branch at the workspace's own path where this machine allows user and mount
    namespaces, else below .branches; HELIOS_BRANCH and HELIOS_WORKSPACE say which and where. What it changed is listed
    on stderr. If it cannot be started (exit code 126, 127), the branch is dropped, unless --keep is given. A merge
    with conflicts leaves the branch and the workspace as they are, and exits with 1.
    """
    options = Options(name, choice, on_failure, message, quiet, not no_namespace)
    where = workspace.find(ctx, directory, store)
    given = directory if directory is not None else (ctx.find_root().obj or {}).get("directory")
    below = _below(where, given or ".")
    # Before anything is done, so that a bad path costs nothing.
    report = open(json_path, "w", encoding="utf-8") if json_path is not None else None
    try:
        # What is sent from here on is kept for the command.
        mask = child.hold_signals()
        before = child.left_behind()
        run = _run(where, below, command, options, mask)
        result = _decide(run, options, before, wanted=report is not None or not quiet)
        code = _code(run, result)
        if report is not None:
            _write_report(report, run, result, code)
    finally:
        if report is not None:
            report.close()
    _say(run, result, options)
    return code
