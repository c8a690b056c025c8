"""`helios purge`: a leaked secret or a huge file out of all history and all branches, after asking."""

import os
import sys
from typing import TYPE_CHECKING

import click

from helios_fs.cli import exit_codes, output, workspace
from helios_fs.errors import Busy, NoSuchEntry, UsageError

if TYPE_CHECKING:
    from helios_fs.history.purge import Plan, Purged

_SHOWN = 20
"""Paths of a kind that are listed; --json lists all."""


@click.command("purge")
@click.argument("paths", nargs=-1, required=True, metavar="PATH…")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--dry-run", is_flag=True, help="Only say what would be done.")
@click.option("--same-content", is_flag=True, help="Purge other files with the same content too.")
@click.option("--json", "as_json", is_flag=True, help="Write the result as JSON.")
@workspace.options
@click.pass_context
def verb(
    ctx: click.Context,
    paths: tuple[str, ...],
    yes: bool,
    dry_run: bool,
    same_content: bool,
    as_json: bool,
    directory: str | None,
    store: str | None,
) -> int:
    """Take PATHs, files or directories, out of every snapshot and every branch; leave no byte of them in the store.

    Paths are relative to the root of the workspace; globs are those of .gitignore. No branch may be mounted. Snapshots
    keep their ids and names, but those that held a PATH get another tree hash. This cannot be undone.
    Exit code 3 where nothing holds a PATH, or where some of it is still in use: purge again then.
    """
    if not (yes or dry_run or sys.stdin.isatty()):
        raise UsageError("purging cannot be undone, and there is nobody to ask: use --yes, or --dry-run first")
    where = workspace.find(ctx, directory, store)
    refuse_mounted(where)
    from helios_fs.cli import progress
    from helios_fs.history.purge import purging

    with purging(where.store) as purge:
        plan = purge.plan(paths, same_content)
        if plan.missing and plan.is_empty and not plan.resumed:
            raise NoSuchEntry(f"{', '.join(plan.missing)}: no snapshot and no branch holds that")
        tell(plan, where)
        if dry_run:
            if as_json:
                output.write_json({**as_dict(plan), "done": False})
            return 0
        if not yes and not click.confirm("Purge all of this for ever?", err=True):
            output.note("nothing was purged")
            return exit_codes.NOT_DONE
        with progress.bar("purging") as draw:
            done = purge.run(plan, draw)
    if as_json:
        output.write_json({**as_dict(plan), "done": done.is_done, "left": done.left, **_space(done)})
    else:
        output.say(f"purged; {output.human_size(max(0, done.collected.bytes_freed))} freed")
    for problem in done.collected.problems:
        output.note(f"not removed: {problem}")
    if not done.is_done:
        output.note("some of it is still in the store, held by a program that reads it: purge again when it has ended")
    return 0 if done.is_done and not plan.missing else exit_codes.NOT_DONE


def refuse_mounted(where: workspace.Workspace) -> None:
    """Raise Busy, naming the mountpoints, where a branch of the store is mounted."""
    from helios_fs.cli import mounts

    found = sorted({mount.mountpoint for mount in mounts.listed() if mount.store == where.store})
    if found:
        raise Busy(
            f"mounted at {', '.join(found)}: unmount first (`helios unmount`), then purge with --store {where.store}"
        )


def tell(plan: "Plan", where: workspace.Workspace) -> None:
    """Say on stderr what a purge would do."""
    excision = plan.excision
    if plan.resumed:
        output.note("an earlier purge was interrupted: " + ", ".join(map(output.shown, plan.request.paths)))
    for text in plan.missing:
        output.note(f"{text}: no snapshot and no branch holds that")
    _list("to be purged", excision.paths)
    _list("other names of the same files, to be purged too", excision.links)
    if plan.request.same_content:
        _list("files with the same content, to be purged too", excision.same)
    else:
        _list("NOT purged: files with the same content (name them, or use --same-content)", excision.same)
    _list("NOT purged: files that share a part of the content (name them)", excision.parts)
    names = _branch_names(where)
    count = len(plan.snapshots)
    output.note(
        f"{output.human_size(plan.data_bytes)} in {count:,} snapshot{'s' * (count != 1)}, now in"
        f" {', '.join(names.get(one, one) for one in plan.branches) or 'no branch'}"
    )
    for snapshot, _ in plan.snapshots[:_SHOWN]:
        name = f" {output.shown(snapshot.name)}" if snapshot.name else ""
        output.note(f"  {snapshot.id}{name} ({names.get(snapshot.branch, snapshot.branch)})")
    if count > _SHOWN:
        output.note(f"  and {count - _SHOWN:,} more")
    if count:
        output.note("these snapshots keep their ids and get other tree hashes")


def _list(title: str, paths: set[bytes]) -> None:
    if not paths:
        return
    output.note(f"{title}:")
    for path in sorted(paths)[:_SHOWN]:
        output.note(f"  {output.shown(path)}")
    if len(paths) > _SHOWN:
        output.note(f"  and {len(paths) - _SHOWN:,} more")


def _branch_names(where: workspace.Workspace) -> dict[str, str]:
    from helios_fs.store.branches import Branches

    known = Branches(where.store)
    names = {}
    for info in known.all(deleted=True):
        try:
            names[info.id] = known.name_of(info.id) + (" (deleted)" if info.deleted_ns else "")
        except NoSuchEntry:
            names[info.id] = info.name
    return names


def as_dict(plan: "Plan") -> dict[str, object]:
    """Return a plan as --json writes it."""
    excision = plan.excision
    return {
        "paths": _paths(excision.paths),
        "links": _paths(excision.links),
        "same_content": _paths(excision.same),
        "same_content_purged": plan.request.same_content,
        "shares_content": _paths(excision.parts),
        "missing": plan.missing,
        "resumed": plan.resumed,
        "data_bytes": plan.data_bytes,
        "branches": plan.branches,
        "snapshots": [
            {"id": one.id, "branch": one.branch, "tree": one.tree.hex(), "new_tree": tree.hex()}
            for one, tree in plan.snapshots
        ],
    }


def _paths(paths: set[bytes]) -> list[str]:
    return [os.fsdecode(path) for path in sorted(paths)]


def _space(done: "Purged") -> dict[str, object]:
    return {"bytes_freed": done.collected.bytes_freed, "problems": list(done.collected.problems)}
