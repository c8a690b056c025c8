"""`helios log` and `helios show`: history, and one snapshot."""

import os

import click

from helios_fs.cli import output, workspace
from helios_fs.cli.workspace import Workspace
from helios_fs.control.messages import SnapshotInfo
from helios_fs.errors import UsageError


@click.command("log")
@click.argument("path", required=False)
@click.option("-n", "count", type=click.IntRange(min=0), metavar="N", help="Only the newest N.")
@click.option(
    "--graph", is_flag=True, help="Draw how snapshots follow one another, merges and other branches included."
)
@click.option("--all", "every", is_flag=True, help="The snapshots of all branches.")
@click.option("--json", "as_json", is_flag=True, help="Write the result as JSON.")
@workspace.options
@click.pass_context
def verb(
    ctx: click.Context,
    path: str | None,
    count: int | None,
    graph: bool,
    every: bool,
    as_json: bool,
    directory: str | None,
    store: str | None,
) -> None:
    """List the snapshots of this workspace, newest first; with PATH those in which it changed since the one before.

    A directory changes with anything below it. A: added, M: modified, D: deleted, T: of another type.
    """
    if graph and path is not None:
        raise UsageError("--graph and PATH exclude each other")
    if every and workspace.names_branch(ctx):
        raise UsageError("--all and --branch exclude each other")
    where = workspace.find(ctx, directory, store)
    if path is not None:
        from helios_fs.cli import lineage_log
        from helios_fs.cli.restore import paths_in_tree

        given = directory if directory is not None else (ctx.find_root().obj or {}).get("directory")
        wanted = paths_in_tree([path], where.mountpoint, given or ".")
        lineage_log.of_path(where, wanted[0] if wanted else b"", count, every, as_json)
    elif graph or every:
        from helios_fs.cli import lineage_log

        lineage_log.of_branches(where, count, graph, every, as_json)
    else:
        _of_branch(where, count, as_json)


def _of_branch(where: Workspace, count: int | None, as_json: bool) -> None:
    known = workspace.snapshots(where)[::-1][:count]
    if as_json:
        output.write_json([as_dict(one) for one in known])
        return
    width = max((len(output.shown(one.name)) for one in known), default=0)
    for one in known:
        output.say(line(one, width))
    note_if_none(known)


def line(one: SnapshotInfo, width: int = 0) -> str:
    """Return a snapshot as one line; names take up at least `width` characters."""
    name = output.shown(one.name) if one.name else ""
    subject = one.message.splitlines()[0] if one.message else ""
    return f"{one.id}  {output.local_time(one.time_ns)}  {name:{width}}  {subject}".rstrip()


def note_if_none(known: object) -> None:
    """Say that there are no snapshots, where there are none."""
    if not known:
        output.note("no snapshots yet (`helios snapshot` takes one)")


@click.command("show")
@click.argument("id_", metavar="ID")
@click.option("--json", "as_json", is_flag=True, help="Write the result as JSON.")
@workspace.options
@click.pass_context
def show(ctx: click.Context, id_: str, as_json: bool, directory: str | None, store: str | None) -> None:
    """Show one snapshot: when, by whom, why, and the hash that proves its tree."""
    where = workspace.find(ctx, directory, store)
    one = workspace.pick_sealed(where, id_)
    if as_json:
        output.write_json(as_dict(one))
        return
    output.say(f"snapshot {one.id}")
    if one.name:
        output.say(f"name     {output.shown(one.name)}")
    output.say(f"time     {output.local_time(one.time_ns)}")
    output.say(f"by       {one.user or '?'}@{one.host or '?'}")
    if one.command:
        output.say(f"command  {output.shown(one.command.encode())}")
    if one.protected:
        output.say("protected from deletion")
    if one.parents:
        output.say(f"parent   {' '.join(one.parents)}")
    output.say(f"tree     {one.tree}")
    if where.mountpoint is not None:
        folder = os.fsdecode(one.name) if one.name else one.id
        output.say(f"files    {output.shown(os.fsencode(os.path.join(where.mountpoint, '.snapshots', folder)))}")
    if one.message:
        output.say("")
        for line in one.message.splitlines():
            output.say(f"    {line}")


def as_dict(one: SnapshotInfo) -> dict[str, object]:
    """Return a snapshot as --json writes it."""
    return {
        "id": one.id,
        "name": os.fsdecode(one.name),
        "message": one.message,
        "time": output.iso_time(one.time_ns),
        "time_ns": one.time_ns,
        "parents": one.parents,
        "user": one.user,
        "host": one.host,
        "command": one.command,
        "protected": one.protected,
        "sealed": one.sealed,
        "tree": one.tree,
    }
