"""`helios materialize`: a snapshot as a plain directory, on any filesystem."""

import os
from typing import TYPE_CHECKING

import click

from helios_fs.cli import exit_codes, output, workspace

if TYPE_CHECKING:
    from helios_fs.history.materialize import MaterializeReport


@click.command("materialize")
@click.argument("id_", metavar="ID")
@click.argument("out", metavar="OUT")
@click.option("--include", multiple=True, metavar="GLOB", help="Only these (as in .gitignore); may be repeated.")
@click.option("--exclude", multiple=True, metavar="GLOB", help="Leave these out; may be repeated.")
@click.option("--json", "as_json", is_flag=True, help="Write the result as JSON.")
@workspace.options
@click.pass_context
def verb(
    ctx: click.Context,
    id_: str,
    out: str,
    include: tuple[str, ...],
    exclude: tuple[str, ...],
    as_json: bool,
    directory: str | None,
    store: str | None,
) -> int:
    """Write the state of snapshot ID into OUT, a directory that is empty or not there yet.

    Exit code 3 where something could not be written; the rest is there then.
    """
    from helios_fs.cli import progress
    from helios_fs.history.materialize import Progress, materialize
    from helios_fs.history.select import Selection

    select = Selection(include, exclude)
    where = workspace.find(ctx, directory, store)
    snapshot = workspace.pick_sealed(where, id_)
    tree = bytes.fromhex(snapshot.tree)
    # A collection of another process leaves alone what is pinned.
    with workspace.open_store(where) as opened, opened.pins.held(tree), progress.bar("writing out") as draw:

        def tell(now: Progress) -> None:
            if draw is not None:
                draw(now.entries, 0, now.data_bytes)

        report = materialize(opened.objects, tree, out, select, tell)
    _complain(report)
    if as_json:
        output.write_json({"id": snapshot.id, "out": os.path.realpath(out), **as_dict(report)})
    else:
        output.note(
            f"wrote {report.files:,} files ({output.human_size(report.data_bytes)}),"
            f" {report.directories:,} directories, {report.symlinks:,} symlinks, {report.others:,} others"
        )
    return exit_codes.NOT_DONE if report.problems else 0


def _complain(report: "MaterializeReport") -> None:
    for path, reason in report.problems:
        output.note(f"not written: {output.shown(path)}: {reason}")
    for count, text in (
        (report.owners_skipped, "entries belong to you instead of their owner: only root can give files away"),
        (report.set_ids_dropped, "set-id bits were dropped with their owners"),
        (report.xattrs_skipped, "extended attributes could not be kept"),
        (report.devices_skipped, "device nodes were left out: only root can make them"),
    ):
        if count:
            output.note(f"{count:,} {text}")


def as_dict(report: "MaterializeReport") -> dict[str, object]:
    """Return a report as --json writes it."""
    return {
        "files": report.files,
        "directories": report.directories,
        "symlinks": report.symlinks,
        "others": report.others,
        "links": report.links,
        "data_bytes": report.data_bytes,
        "owners_skipped": report.owners_skipped,
        "set_ids_dropped": report.set_ids_dropped,
        "xattrs_skipped": report.xattrs_skipped,
        "devices_skipped": report.devices_skipped,
        "problems": [{"path": os.fsdecode(path), "reason": reason} for path, reason in report.problems],
    }
