"""`helios restore`: the past back into the working tree, live, and never without a way back."""

import os
from collections.abc import Sequence

import click

from helios_fs.cli import output, workspace
from helios_fs.cli.snapshot import command_line, user_name
from helios_fs.control import messages
from helios_fs.errors import UsageError


@click.command("restore")
@click.argument("id_", metavar="ID")
@click.argument("paths", nargs=-1, metavar="[PATH]…")
@click.option("--json", "as_json", is_flag=True, help="Write the result as JSON.")
@workspace.options
@click.pass_context
def verb(
    ctx: click.Context, id_: str, paths: tuple[str, ...], as_json: bool, directory: str | None, store: str | None
) -> None:
    """Bring back the state of snapshot ID, whole or of some PATHs, in the mounted working tree.

    The present state is kept as a snapshot first; its id is printed, and restoring that undoes this.
    """
    where = workspace.find(ctx, directory, store)
    given = directory if directory is not None else (ctx.find_root().obj or {}).get("directory")
    wanted = paths_in_tree(paths, where.mountpoint, given or ".")
    with workspace.connect(where) as connection:
        known = connection.ask(messages.ListSnapshots(), messages.Snapshots).snapshots
        found = workspace.pick(known, id_)
        done = connection.ask(messages.Restore(found.id, wanted, user_name(), command_line()), messages.Restored)
    if as_json:
        output.write_json({"id": found.id, "undo": done.undo_snapshot_id, "changed": done.changed})
        return
    output.note(f"restored from {found.id}, {done.changed} changed; `helios restore {done.undo_snapshot_id}` undoes it")
    output.say(done.undo_snapshot_id)


def paths_in_tree(paths: Sequence[str], mountpoint: str | None, base: str) -> list[bytes]:
    """Return paths relative to the root of the tree; none at all means the whole tree.

    A path is taken from the directory `base` where that is in the mount, else from the root of the tree. What it names
    may be gone, and its last part is not followed where it is a symlink. Raises UsageError for one outside the mount.
    """
    root = mountpoint or "/"
    start = os.path.realpath(base)
    if os.path.commonpath([root, start]) != root or mountpoint is None:
        start = root
    found = []
    for path in paths:
        # Trailing slashes would hide the last part.
        joined = os.path.join(start, path.rstrip("/") or path)
        if os.path.basename(joined) in ("", ".", ".."):
            full = os.path.realpath(joined)
        else:
            full = os.path.join(os.path.realpath(os.path.dirname(joined)), os.path.basename(joined))
        if os.path.commonpath([root, full]) != root:
            raise UsageError(f"{path}: not in the workspace at {root}")
        if full == root:
            return []
        found.append(os.fsencode(os.path.relpath(full, root)))
    return found
