"""`helios init`: a new store, empty or filled from a directory.

N1. What could be read is taken in whole or the store is not made: an error or Ctrl-C leaves nothing behind.
N2. A file that cannot be read is named on stderr and left out; the exit code is 0, as with `cp` of a live tree one
    wants the rest, unless not even the directory itself could be read.
"""

import os
import shutil

import click

from helios_fs.cli import output
from helios_fs.errors import UsageError


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
    path = os.path.realpath(given)
    if source is not None:
        _check_source(source, path)
    was_there = os.path.isdir(path)
    result: dict[str, object] = {"store": path}
    make_store(path)
    try:
        if source is not None:
            from helios_fs.cli import filling

            result.update(filling.fill(path, source, exclude))
    except BaseException:
        _take_back(path, was_there)
        raise
    if as_json:
        output.write_json(result)
    else:
        output.say(path)


def make_store(path: str) -> None:
    """Make an empty store whose tree belongs to this user. Raises EntryExists, StoreFull, StoreFault."""
    from helios_fs.objects.snapshot import MAIN_BRANCH
    from helios_fs.store.store import Store
    from helios_fs.worktree.recovery import begin_branch

    was_there = os.path.isdir(path)
    Store.create(path)
    try:
        with Store.open(path) as store:
            lock = store.lock_branch(MAIN_BRANCH)
            try:
                begin_branch(store, MAIN_BRANCH)
            finally:
                lock.release()
    except BaseException:
        _take_back(path, was_there)
        raise


def _check_source(source: str, store: str) -> None:
    if not os.path.isdir(source):
        raise UsageError(f"--from {source}: " + ("not a directory" if os.path.exists(source) else "does not exist"))
    if os.path.commonpath([os.path.realpath(source), store]) == os.path.realpath(source):
        raise UsageError(f"--from {source}: the store would lie in the directory that it is filled from")


def _take_back(path: str, was_there: bool) -> None:
    """Remove a store that was made a moment ago, and only it: `Store.create` takes no directory with anything in it."""
    if was_there:
        for entry in os.scandir(path):
            if entry.is_dir(follow_symlinks=False):
                shutil.rmtree(entry.path, ignore_errors=True)
            else:
                os.unlink(entry.path)
    else:
        shutil.rmtree(path, ignore_errors=True)
