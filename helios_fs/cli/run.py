"""`helios run`: a command in an instant branch of the workspace, which is then kept, merged or dropped.

R1. The command sees its branch where the workspace is, so absolute paths hold; nobody else sees that.
R2. Standard output is the command's; what is said about the run goes to stderr, or to the file that --json names.
R3. Nothing ends this program between the making of the branch and its outcome but SIGKILL, which keeps the branch.
R4. The outcome comes before the report: a reader that has gone changes nothing.
"""

import os
import shlex
import signal
import time
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Final, NamedTuple, TextIO

import click

from helios_fs.cli import child, exit_codes, output, workspace
from helios_fs.errors import Busy, HeliosError, NotPermitted, UsageError

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
    dropped: bool = False
    """Whether the branch is gone."""
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
@click.option(
    "-m", "message", default="", metavar="MSG", help="Message of the merge, or of a snapshot of what is kept."
)
@click.option("--json", "json_path", metavar="FILE", help="Write what came of it to FILE as JSON (/dev/fd/3, say).")
@click.option("-q", "--quiet", is_flag=True, help="Do not say what changed, nor store it where it is dropped anyway.")
@click.option("--no-namespace", is_flag=True, help="Run below .branches, not at the workspace's own path.")
@click.option("-C", "directory", metavar="PATH", help="As if called in PATH (default: here).")
@click.option("--store", metavar="STORE", help="The workspace that has this store, which must be mounted.")
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
        run = _run(where, below, command, options, mask)
        result = _decide(run, options, wanted=report is not None or not quiet)
        code = _code(run, result)
        if report is not None:
            _write_report(report, run, result, code)
    finally:
        if report is not None:
            report.close()
    _say(run, result, options)
    return code


def _below(where: "Workspace", base: str) -> str:
    """Return where one stands, relative to the root of the tree; the root itself where one stands outside of it."""
    if where.mountpoint is None:
        raise UsageError(f"{where.store}: not mounted; `helios mount MOUNTPOINT --store {where.store}` first")
    relative = os.path.relpath(os.path.realpath(base), where.mountpoint)
    return "" if relative == "." or relative.split("/")[0] == ".." else relative


def _run(where: "Workspace", below: str, command: tuple[str, ...], options: Options, mask: set[signal.Signals]) -> Run:
    """Make the branch, run the command in it to its end, and say how that went."""
    from helios_fs.cli import outcome
    from helios_fs.store.branches import Branches

    branch = outcome.make_branch(where, options.name)
    assert where.mountpoint is not None and branch.mountpoint is not None
    try:
        # This opens the branch too, so its file is there to be read.
        if not os.path.isdir(os.path.join(branch.mountpoint, below)):
            raise UsageError(f"{below}: not a directory of the working tree; stand in one that is")
        name = Branches(where.store).name_of(branch.branch)
    except BaseException:
        outcome.discard_branch(where, branch.branch)
        raise

    def environment(place: str) -> Mapping[str, str]:
        return {**os.environ, "HELIOS_BRANCH": name, "HELIOS_WORKSPACE": place}

    def not_shown(why: str) -> None:
        output.note(f"helios: the command runs in {branch.mountpoint}, for it cannot be shown elsewhere ({why})")

    shown_at = where.mountpoint if options.namespace else None
    # The mount is in use while a command runs in it, wherever the caller stands.
    held = os.open(where.mountpoint, os.O_PATH)
    started = time.monotonic()
    ended = child.run_over(branch.mountpoint, shown_at, below, command, environment, mask, not_shown)
    os.close(held)
    if ended.failure:
        output.note(f"helios: {ended.failure}")
    return Run(where, branch, name, command, ended, time.monotonic() - started)


# -- What becomes of the branch --------------------------------------------------------------------------------------


def _decide(run: Run, options: Options, wanted: bool) -> Result:
    """Keep, merge or drop the branch; look at what changed first, where that is `wanted`."""
    from helios_fs.cli import outcome

    choice = _choice(run.ended, options)
    left = (child.left_behind if choice == "keep" else child.end_left_behind)(run.ended.others)
    if left:
        output.note(f"helios: what the command started goes on: {', '.join(map(str, left))}")
    changes = None
    if wanted and not run.ended.failure:
        try:
            changes = outcome.changes(run.branch)
        except (HeliosError, OSError) as error:
            # A full disk, say: all the more reason to drop what is to be dropped.
            output.note(f"helios: what changed cannot be told: {error}")
    try:
        if choice == "merge":
            return _merge(run, options, changes)
        if choice == "discard":
            outcome.discard_branch(run.parent, run.branch.branch)
            return Result("discarded", changes, dropped=True)
        if options.message:
            return Result("kept", changes, snapshot=outcome.snapshot_branch(run.branch, options.message))
        unasked = options.name is None and options.choice is None
        if unasked and not left and changes is not None and not changes.changed and _drop_if_held(run):
            return Result("discarded", changes, dropped=True)
        return Result("kept", changes)
    except (HeliosError, OSError) as error:
        return Result("kept", changes, problem=str(error))


def _choice(ended: child.Ended, options: Options) -> str:
    if ended.failure:
        return "keep" if options.choice == "keep" else "discard"
    if ended.code != 0:
        return options.on_failure or ("discard" if options.choice == "discard" else "keep")
    return options.choice or "keep"


def _merge(run: Run, options: Options, changes: "Changes | None") -> Result:
    from helios_fs.cli import outcome

    message = options.message or f"run: {shlex.join(run.command)}"[:_MESSAGE_CHARACTERS]
    merge = outcome.merge_branch(run.parent, run.branch, message)
    if merge.conflicts:
        return Result("kept", changes, merge, problem=f"{len(merge.conflicts)} conflicts with the workspace")
    return Result("merged", changes, merge, dropped=_drop_if_held(run))


def _drop_if_held(run: Run) -> bool:
    """Drop a branch of which nobody needs anything; one that has branches or snapshots of its own, say, is kept."""
    from helios_fs.cli import outcome

    try:
        outcome.discard_branch(run.parent, run.branch.branch, force=False)
    except (NotPermitted, Busy):
        return False
    return True


def _code(run: Run, result: Result) -> int:
    if run.ended.code or not result.problem:
        return run.ended.code
    return exit_codes.DIFFERENT if result.merge is not None else exit_codes.NOT_DONE


# -- What is said about it -------------------------------------------------------------------------------------------


def _say(run: Run, result: Result, options: Options) -> None:
    """Tell a person, on stderr, what changed and what became of the branch."""
    name = run.name
    if result.changes is not None and not options.quiet:
        changed = result.changes.changed
        output.note(f"helios: {len(changed):,} changed in {name}:" if changed else f"helios: nothing changed in {name}")
        for kind, path in changed[:_SHOWN]:
            output.note(f"{kind} {output.shown(path) or '.'}")
        if len(changed) > _SHOWN:
            output.note(f"… and {len(changed) - _SHOWN:,} more")
    if result.problem:
        output.note(f"helios: {result.problem}")
        for kind, path in result.merge.conflicts[:_SHOWN] if result.merge else []:
            output.note(f"{kind} {output.shown(path)}")
    if result.merge is not None and result.merge.snapshot:
        output.note(f"helios: merged {name} as snapshot {result.merge.snapshot}")
    if not result.dropped:
        merge = f"helios merge {shlex.quote(name)}"
        # Here a name is meant below where one stands.
        drop = f"helios branch --force -d {shlex.quote(name.rpartition('/')[2])}"
        output.note(f"helios: kept as {name}; `{merge}` takes it over, `{drop}` drops it")
    elif not options.quiet:
        output.note(f"helios: dropped {name}")


def _write_report(file: TextIO, run: Run, result: Result, code: int) -> None:
    """Write all of it for a program; names that are not UTF-8 appear as Python's surrogate escapes (\\udcXX)."""
    import json

    changes, merge = result.changes, result.merge

    def listed(found: Iterable[tuple[str, bytes]]) -> list[dict[str, str]]:
        return [{"kind": kind, "path": os.fsdecode(path)} for kind, path in found]

    report = {
        "command": run.command,
        "exit_code": code,
        "command_exit_code": run.ended.code,
        "signal": run.ended.signal or None,
        "seconds": round(run.seconds, 3),
        "branch": run.name,
        "branch_id": run.branch.branch,
        "workspace": run.parent.mountpoint,
        "shown_at_workspace": run.ended.shown,
        "outcome": result.outcome,
        "branch_dropped": result.dropped,
        "problem": result.problem or run.ended.failure or None,
        "snapshot": result.snapshot or (merge.snapshot if merge is not None else "") or None,
        "conflicts": listed(merge.conflicts) if merge is not None else [],
        "base_tree": changes.base_tree if changes is not None else None,
        "tree": changes.tree if changes is not None else None,
        "changes": listed(changes.changed) if changes is not None else None,
    }
    json.dump(report, file, indent=2)
    file.write("\n")
