"""`helios stats`: figures of a running mount, and of the store on disk."""

import os
import stat

import click

from helios_fs.cli import output, workspace
from helios_fs.control import messages
from helios_fs.store.branches import Branches

Figures = dict[str, int | float]


@click.command("stats")
@click.option("--json", "as_json", is_flag=True, help="Write the result as JSON.")
@workspace.options
@click.pass_context
def verb(ctx: click.Context, as_json: bool, directory: str | None, store: str | None) -> None:
    """Show figures of the workspace: its running mount, if there is one, and its store on disk."""
    where = workspace.find(ctx, directory, store)
    running: Figures = {}
    connection = workspace.find_daemon(where.store, where.branch)
    if connection is not None:
        with connection:
            running = connection.ask(messages.Stats(), messages.StatsReply).counters
    on_disk = disk_figures(where)
    name = Branches(where.store).name_of(where.branch)
    if as_json:
        output.write_json(
            {
                "store": where.store,
                "branch": name,
                "mountpoint": where.mountpoint,
                "running": connection is not None,
                "mount": running,
                "disk": on_disk,
            }
        )
        return
    output.say(f"store       {output.shown(os.fsencode(where.store))}")
    output.say(f"branch      {output.shown(os.fsencode(name))}")
    output.say(f"mounted at  {output.shown(os.fsencode(where.mountpoint)) if where.mountpoint else '(not mounted)'}")
    for title, figures in (("mount", running), ("disk", on_disk)):
        if figures:
            output.say(f"{title}:")
            width = max(map(len, figures))
            for name, value in figures.items():
                output.say(f"  {name:{width}}  {_readable(name, value)}")


def _readable(name: str, value: float) -> str:
    if name.endswith("_bytes"):
        return output.human_size(value)
    return f"{value:,}"


def disk_figures(where: workspace.Workspace) -> Figures:
    """Return what the store takes on disk, by part, and how many snapshots are sealed in it."""
    with workspace.open_store(where) as store:
        sealed = len(store.refs.snapshots(where.branch))
        disk = store.statvfs()
    figures: Figures = {"sealed_snapshots": sealed}
    for part in ("packs", "journals", "index", "refs"):
        figures[f"{part}_bytes"] = _allocated(os.path.join(where.store, part))
    figures["disk_free_bytes"] = disk.f_bavail * disk.f_frsize
    return figures


def _allocated(path: str) -> int:
    """Return the bytes on disk of a file, or of all files below a directory; what vanishes meanwhile counts nothing."""
    try:
        status = os.lstat(path)
        if not stat.S_ISDIR(status.st_mode):
            return status.st_blocks * 512
        return sum(_allocated(os.path.join(path, name)) for name in os.listdir(path))
    except FileNotFoundError:
        return 0
