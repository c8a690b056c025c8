"""`helios init`: a new store, empty or filled from a directory.

N1. What could be read is taken in whole or the store is not made: an error or Ctrl-C leaves nothing behind.
N2. A file that cannot be read is named on stderr and left out, and the exit code is 0 all the same: the store is good.
    A directory that cannot be read at all makes no store (exit code 3).
"""

import os
import shutil
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from helios_fs.cli import output
from helios_fs.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from helios_fs.history.ingest import IngestReport


@click.command("init")
@click.argument("store", required=False)
@click.option("--from", "source", metavar="DIR", help="Fill it from this directory.")
@click.option("--exclude", multiple=True, metavar="GLOB", help="Leave these out (as in .gitignore); may be repeated.")
@click.option("--json", "as_json", is_flag=True, help="Write the result as JSON.")
@click.pass_context
def verb(ctx: click.Context, store: str | None, source: str | None, exclude: tuple[str, ...], as_json: bool) -> None:
    """Make a store at STORE, a directory that is not there yet or empty; with --from, filled from DIR."""
    given = store or (ctx.find_root().obj or {}).get("store")
    if given is None:
        raise UsageError("say where: helios init STORE")
    if exclude and source is None:
        raise UsageError("--exclude needs --from")
    if source is not None and not os.path.isdir(source):
        raise UsageError(f"--from {source}: {'not a directory' if os.path.exists(source) else 'does not exist'}")
    path = os.path.realpath(given)
    report = None
    if source is None:
        make_store(path)
    else:
        report = fill_store(path, source, exclude)
        tell(report)
    if as_json:
        output.write_json({"store": path, **(as_dict(report) if report else {})})
    else:
        output.say(path)


def make_store(path: str) -> None:
    """Make an empty store whose tree belongs to this user. Raises EntryExists, StoreFull, StoreFault."""
    from helios_fs.objects.snapshot import MAIN_BRANCH
    from helios_fs.store.store import Store
    from helios_fs.worktree.recovery import begin_branch

    was_there = os.path.isdir(path)
    Store.create(path)
    with _taken_back_on_failure(path, was_there), Store.open(path) as store, store.lock_branch(MAIN_BRANCH):
        begin_branch(store, MAIN_BRANCH)


def fill_store(path: str, source: str, exclude: "Sequence[str]") -> "IngestReport":
    """Make a store filled from a directory. Raises what `make_store` does, and what keeps `source` from being read."""
    from helios_fs.cli import progress
    from helios_fs.history.ingest import Progress, ingest
    from helios_fs.objects.snapshot import MAIN_BRANCH
    from helios_fs.store.store import Store

    was_there = os.path.isdir(path)
    Store.create(path)
    with _taken_back_on_failure(path, was_there), Store.open(path) as store, progress.bar("taking in") as draw:

        def report(now: Progress) -> None:
            if draw is not None:
                draw(now.entries, now.total_entries, now.data_bytes)

        return ingest(store, source, MAIN_BRANCH, exclude, report)


def tell(report: "IngestReport") -> None:
    """Say on stderr what was taken in, and each thing that was not or may not be as it was."""
    for path, reason in report.problems:
        output.note(f"left out: {output.shown(path) or '.'}: {reason}")
    for path in report.changed:
        output.note(f"was being written while it was read: {output.shown(path)}")
    for path in report.hidden:
        output.note(
            f"{output.shown(path)} is in the store, but the mount's own hides it"
            f" (mount with -o {os.fsdecode(path).lstrip('.')}_dir=NAME to see it)"
        )
    if report.acls_skipped:
        output.note(f"{report.acls_skipped} POSIX ACLs were not taken in: this filesystem keeps modes only")
    if report.xattrs_unreadable:
        output.note(f"{report.xattrs_unreadable} extended attributes could not be read")
    output.note(
        f"took in {report.files:,} files ({output.human_size(report.data_bytes)}), {report.directories:,} directories,"
        f" {report.symlinks:,} symlinks, {report.others:,} others"
        + (f"; excluded {report.excluded:,}" if report.excluded else "")
        + (f"; left out {len(report.problems):,}" if report.problems else "")
    )


def as_dict(report: "IngestReport") -> dict[str, object]:
    """Return a report as --json writes it."""
    return {
        "tree": report.tree.hex(),
        "files": report.files,
        "directories": report.directories,
        "symlinks": report.symlinks,
        "others": report.others,
        "links": report.links,
        "data_bytes": report.data_bytes,
        "excluded": report.excluded,
        "problems": [{"path": os.fsdecode(path), "reason": reason} for path, reason in report.problems],
        "changed": [os.fsdecode(path) for path in report.changed],
        "hidden": [os.fsdecode(path) for path in report.hidden],
        "acls_skipped": report.acls_skipped,
        "xattrs_unreadable": report.xattrs_unreadable,
    }


@contextmanager
def _taken_back_on_failure(path: str, was_there: bool) -> "Iterator[None]":
    """Remove the store that was made a moment ago where the block fails or is interrupted."""
    try:
        yield
    except BaseException:
        _take_back(path, was_there)
        raise


def _take_back(path: str, was_there: bool) -> None:
    """Remove a new store, and only it: `Store.create` takes no directory with anything in it."""
    if was_there:
        for entry in os.scandir(path):
            if entry.is_dir(follow_symlinks=False):
                shutil.rmtree(entry.path, ignore_errors=True)
            else:
                os.unlink(entry.path)
    else:
        shutil.rmtree(path, ignore_errors=True)
