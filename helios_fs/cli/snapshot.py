"""`helios snapshot` (also `commit`). The verb that people and agents call most, so it loads the least."""

import os
import sys
from typing import Final

import click

from helios_fs.cli import workspace
from helios_fs.control import messages

_MAX_COMMAND: Final = 500


@click.command("snapshot")
@click.argument("name", default="")
@click.option("-m", "message", default="", metavar="MSG", help="Why; shown by log and show.")
@click.option("--sync", is_flag=True, help="Return only when the snapshot would survive a power cut.")
@click.option("--json", "as_json", is_flag=True, help="Write the result as JSON.")
@workspace.options
@click.pass_context
def verb(
    ctx: click.Context, name: str, message: str, sync: bool, as_json: bool, directory: str | None, store: str | None
) -> None:
    """Take a snapshot of the working tree, under NAME where one is given, and print its id."""
    where = workspace.find(ctx, directory, store)
    text = sendable(message)
    request = messages.TakeSnapshot(os.fsencode(name), text, user_name(), sync, command_line())
    with workspace.connect(where) as connection:
        taken = connection.ask(request, messages.SnapshotTaken)
    if as_json:
        from helios_fs.cli.output import write_json

        write_json({"id": taken.id, "name": name, "message": text})
    else:
        click.echo(taken.id)


def sendable(text: str) -> str:
    """Return text as JSON can carry it, which has no room for bytes that are not UTF-8."""
    return os.fsencode(text).decode(errors="replace")


def command_line() -> str:
    """Return how this process was called, as a snapshot keeps it; cut off where it is long."""
    import shlex

    text = sendable(shlex.join(["helios", *sys.argv[1:]]))
    return text if len(text) <= _MAX_COMMAND else text[: _MAX_COMMAND - 1] + "…"


def user_name() -> str:
    """Return who calls, by name where the system knows one."""
    import pwd

    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())
