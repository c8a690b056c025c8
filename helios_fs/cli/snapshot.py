"""`helios snapshot` (also `commit`). The verb that people and agents call most, so it loads the least."""

import os

import click

from helios_fs.cli import workspace
from helios_fs.control import messages


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
    # The message travels as JSON, which has no room for bytes that are not UTF-8.
    text = os.fsencode(message).decode(errors="replace")
    request = messages.TakeSnapshot(os.fsencode(name), text, user_name(), sync)
    with workspace.connect(where) as connection:
        taken = connection.ask(request, messages.SnapshotTaken)
    if as_json:
        from helios_fs.cli.output import write_json

        write_json({"id": taken.id, "name": name, "message": text})
    else:
        click.echo(taken.id)


def user_name() -> str:
    """Return who calls, by name where the system knows one."""
    import pwd

    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())
