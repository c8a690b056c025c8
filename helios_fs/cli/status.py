"""`helios status`: the working tree against the newest snapshot."""

import os

import click

from helios_fs.cli import output, workspace


@click.command("status")
@click.option("--json", "as_json", is_flag=True, help="Write the result as JSON.")
@workspace.options
@click.pass_context
def verb(ctx: click.Context, as_json: bool, directory: str | None, store: str | None) -> None:
    """List what has changed since the last snapshot: M modified, A added, D deleted, T of another type.

    Times and link counts of directories, access times and inode numbers are no change. Paths are relative to the root
    of the workspace. Exit code 0, changes or none.
    """
    where = workspace.find(ctx, directory, store)
    now = bytes.fromhex(workspace.settle(where))
    known = [one for one in workspace.snapshots(where) if one.sealed]
    if not known:
        if as_json:
            output.write_json({"snapshot": None, "tree": now.hex(), "changes": []})
        output.note("no snapshots yet, so everything is new (`helios snapshot` takes the first)")
        return
    newest = known[-1]
    from helios_fs.history.diff import diff_trees

    then = bytes.fromhex(newest.tree)
    with workspace.open_store(where) as opened, opened.pins.held(then, now):
        changes = diff_trees(opened.objects, then, now)
        if as_json:
            listed = [{"kind": change.kind, "path": os.fsdecode(change.path)} for change in changes]
            output.write_json({"snapshot": newest.id, "tree": now.hex(), "changes": listed})
            return
        count = 0
        for change in changes:
            count += 1
            output.say(f"{change.kind} {output.shown(change.path) or '.'}")
    name = f" ({output.shown(newest.name)})" if newest.name else ""
    output.note(
        f"{count:,} changed since snapshot {newest.id}{name}" if count else f"no change since {newest.id}{name}"
    )
