"""`helios log` and `helios show`: history, and one snapshot."""

import os

import click

from helios_fs.cli import output, workspace
from helios_fs.control.messages import SnapshotInfo


@click.command("log")
@click.option("-n", "count", type=click.IntRange(min=0), metavar="N", help="Only the newest N.")
@click.option("--json", "as_json", is_flag=True, help="Write the result as JSON.")
@workspace.options
@click.pass_context
def verb(ctx: click.Context, count: int | None, as_json: bool, directory: str | None, store: str | None) -> None:
    """List the snapshots of this workspace, newest first."""
    known = workspace.snapshots(workspace.find(ctx, directory, store))[::-1]
    if count is not None:
        known = known[:count]
    if as_json:
        output.write_json([as_dict(one) for one in known])
        return
    width = max((len(output.shown(one.name)) for one in known), default=0)
    for one in known:
        name = output.shown(one.name) if one.name else ""
        subject = one.message.splitlines()[0] if one.message else ""
        output.say(f"{one.id}  {output.local_time(one.time_ns)}  {name:{width}}  {subject}".rstrip())
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
