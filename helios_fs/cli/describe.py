"""`helios describe` and `helios delete`: what people say of snapshots, and which of them they keep.

Both ask the daemon that owns the branch, or own it themselves where none does.
"""

import os
from collections.abc import Sequence

import click

from helios_fs.cli import output, workspace
from helios_fs.cli.log import as_dict
from helios_fs.cli.snapshot import sendable
from helios_fs.cli.workspace import Workspace
from helios_fs.control import messages
from helios_fs.errors import UsageError

_IDS_AT_ONCE = 1_000
"""Of more than these, some may go before another is refused; the daemon does nothing else meanwhile."""


@click.command("describe")
@click.argument("id_", metavar="ID")
@click.option("-m", "message", metavar="MSG", help="Why it was taken; an empty one takes the message away.")
@click.option("--name", metavar="NAME", help="Its name, and that of its directory in .snapshots.")
@click.option("--no-name", is_flag=True, help="Take its name away.")
@click.option("--protect/--unprotect", "protected", default=None, help="Refuse to delete it, or allow it again.")
@click.option("--json", "as_json", is_flag=True, help="Write the result as JSON.")
@workspace.options
@click.pass_context
def verb(
    ctx: click.Context,
    id_: str,
    message: str | None,
    name: str | None,
    no_name: bool,
    protected: bool | None,
    as_json: bool,
    directory: str | None,
    store: str | None,
) -> None:
    """Say anew what snapshot ID is called, why it was taken, and whether it may be deleted; print its id."""
    if no_name and name is not None:
        raise UsageError("--name and --no-name exclude each other")
    if message is None and name is None and not no_name and protected is None:
        raise UsageError("nothing to say: give -m, --name, --no-name, --protect or --unprotect")
    if name == "":
        raise UsageError("--name: a name must not be empty (--no-name takes it away)")
    where = workspace.find(ctx, directory, store)
    found = workspace.pick(workspace.snapshots(where), id_)
    request = messages.DescribeSnapshot(
        found.id,
        b"" if no_name else None if name is None else os.fsencode(name),
        None if message is None else sendable(message),
        protected,
    )
    described = describe(where, request)
    if as_json:
        output.write_json(as_dict(described))
    else:
        output.say(described.id)


@click.command("delete")
@click.argument("ids", nargs=-1, required=True, metavar="ID…")
@click.option("--json", "as_json", is_flag=True, help="Write the result as JSON.")
@workspace.options
@click.pass_context
def delete(ctx: click.Context, ids: Sequence[str], as_json: bool, directory: str | None, store: str | None) -> None:
    """Delete snapshots, all of them or, where one is protected or not there, none; print their ids."""
    where = workspace.find(ctx, directory, store)
    known = workspace.snapshots(where)
    found = list(dict.fromkeys(workspace.pick(known, text).id for text in ids))
    delete_snapshots(where, found)
    if as_json:
        output.write_json({"deleted": found})
        return
    for one in found:
        output.say(one)


def describe(where: Workspace, request: messages.DescribeSnapshot) -> messages.SnapshotInfo:
    """Have a snapshot described, and return what is known of it then. It survives the daemon's death."""
    connection = workspace.find_daemon(where.store, where.branch)
    if connection is not None:
        with connection:
            return connection.ask(request, messages.SnapshotDescribed).snapshot
    from helios_fs.history.offline import owned

    with workspace.open_store(where) as store, owned(store, where.branch) as worktree:
        described = worktree.describe_snapshot(request.id, request.name, request.message, request.protected)
        return messages.info(described)


def delete_snapshots(where: Workspace, ids: Sequence[str]) -> None:
    """Have snapshots deleted. Raises NotPermitted for a protected one, with none deleted."""
    connection = workspace.find_daemon(where.store, where.branch)
    if connection is not None:
        with connection:
            for start in range(0, len(ids), _IDS_AT_ONCE):
                request = messages.DeleteSnapshots(list(ids[start : start + _IDS_AT_ONCE]))
                connection.ask(request, messages.SnapshotsDeleted)
        return
    from helios_fs.history.offline import owned

    with workspace.open_store(where) as store, owned(store, where.branch) as worktree:
        worktree.check_deletable(ids)
        for snapshot_id in ids:
            worktree.delete_snapshot(snapshot_id)
