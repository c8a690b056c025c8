"""`helios merge`: what one branch changed, into another; all of it or nothing.

The source is sealed and frozen as a snapshot first, by whoever owns it; then the owner of the target merges that.
"""

import os
import socket
from typing import Literal

import click

from helios_fs.cli import exit_codes, output, workspace
from helios_fs.cli.snapshot import user_name
from helios_fs.cli.workspace import Workspace
from helios_fs.control import messages
from helios_fs.errors import NoSuchEntry, UsageError

Favour = Literal["ours", "theirs", "markers"]


@click.command("merge")
@click.argument("merged", metavar="BRANCH")
@click.option("--into", metavar="B", help="The branch that is changed (default: the one that one stands in).")
@click.option("--ours", "favour", flag_value="ours", help="Where both changed the same, keep what B has.")
@click.option("--theirs", "favour", flag_value="theirs", help="Where both changed the same, take what BRANCH has.")
@click.option(
    "--markers", "favour", flag_value="markers", help="Where both changed the same, write both, between markers."
)
@click.option("--dry-run", is_flag=True, help="Only say what would conflict.")
@click.option("-m", "message", default="", metavar="MSG", help="Why; shown by log and show.")
@click.option("--json", "as_json", is_flag=True, help="Write the result as JSON.")
@workspace.options
@click.pass_context
def verb(
    ctx: click.Context,
    merged: str,
    into: str | None,
    favour: Favour | None,
    dry_run: bool,
    message: str,
    as_json: bool,
    directory: str | None,
    store: str | None,
) -> int:
    """Merge what BRANCH has changed since it and this branch were one; the result is one snapshot with two parents.

    Files that both changed are merged by lines. Conflicts are listed, one a line, and then nothing is changed, unless
    --ours, --theirs or --markers decides them. With --markers, of two files that cannot hold markers theirs is kept as
    NAME~BRANCH. Exit code 0: merged; 1: conflicts, nothing changed.
    """
    where = workspace.find(ctx, directory, store)
    target = where if into is None else workspace.of_branch(where.store, named(where, into))
    source = workspace.of_branch(where.store, named(where, merged))
    text = os.fsencode(message).decode(errors="replace")
    done = merge(target, source, favour, dry_run, text)
    stopped = bool(done.conflicts) and favour is None
    if as_json:
        output.write_json(
            {
                "base": done.base,
                "snapshot": done.snapshot or None,
                "changed": done.changed,
                "conflicts": [{"path": os.fsdecode(one.path), "kind": one.kind} for one in done.conflicts],
                "up_to_date": done.up_to_date,
            }
        )
    else:
        for one in done.conflicts:
            output.say(f"{output.shown(one.path) or '.'}: {one.kind}")
        _note(done, merged, stopped, dry_run)
        if done.snapshot:
            output.say(done.snapshot)
    return exit_codes.DIFFERENT if stopped else 0


def _note(done: messages.Merged, branch: str, stopped: bool, dry_run: bool) -> None:
    count = len(done.conflicts)
    if done.up_to_date:
        output.note(f"nothing to merge: all of {branch} is in this branch already")
    elif stopped:
        output.note(f"{count:,} conflicts, nothing was changed; --ours, --theirs or --markers decides them")
    elif dry_run:
        output.note(f"{done.changed:,} would change")
    else:
        output.note(f"merged {branch}, {done.changed:,} changed" + (f", {count:,} conflicts decided" if count else ""))


def named(where: Workspace, name: str) -> str:
    """Return the id of the branch that a name means: a whole name, or one below the branch that one stands in.

    Raises NoSuchEntry, InvalidArgument.
    """
    try:
        return workspace.branch_id(where.store, name)
    except NoSuchEntry:
        here = where.branch
        for part in name.split("/"):
            here = workspace.child(where.store, here, part)
        return here


def merge(
    target: Workspace, source: Workspace, favour: Favour | None = None, dry_run: bool = False, message: str = ""
) -> messages.Merged:
    """Merge a branch into another, each mounted or not. It survives the death of all daemons on return.

    Raises UsageError for a branch and itself, and what the merge could not be done for; then nothing was changed.
    """
    from helios_fs.store.branches import Branches

    if target.branch == source.branch:
        raise UsageError("a branch cannot be merged into itself")
    known = Branches(target.store)
    labels = (known.name_of(target.branch), known.name_of(source.branch))
    for branch in _between(target, source):
        workspace.settle(Workspace(target.store, branch, None))
    request = _ready(source, labels, dry_run)
    connection = workspace.find_daemon(target.store, target.branch)
    if connection is None:
        return _merge_offline(target, request, labels, favour, dry_run, message)
    with connection:
        asked = messages.Merge(*request, labels, favour, dry_run, message, user_name())
        return connection.ask(asked, messages.Merged)


def _between(target: Workspace, source: Workspace) -> list[str]:
    from helios_fs.history.merging import unsealed_between

    with workspace.open_store(target) as store:
        return unsealed_between(store, target.branch, source.branch)


Ready = tuple[str, str, str, int]
"""Branch, snapshot, tree in hex and journal position of what is merged, as in `messages.Merge`."""


def _ready(source: Workspace, labels: tuple[str, str], dry_run: bool) -> Ready:
    """Have the source sealed, with a snapshot of its newest state: it becomes the merge's second parent."""
    message = f"merged into {labels[0]}"
    connection = workspace.find_daemon(source.store, source.branch)
    if connection is None:
        from helios_fs.history.merging import source_offline

        with workspace.open_store(source) as store:
            found = source_offline(store, source.branch, message, user_name(), socket.gethostname(), dry_run)
        return found.branch, found.snapshot, found.tree.hex(), found.lsn
    with connection:
        sealed = connection.ask(messages.Seal(), messages.Sealed)
        known = connection.ask(messages.ListSnapshots(), messages.Snapshots).snapshots
        if dry_run or (known and known[-1].tree == sealed.tree):
            return source.branch, known[-1].id if known else "", sealed.tree, sealed.lsn
        taken = connection.ask(messages.TakeSnapshot(message=message, user=user_name()), messages.SnapshotTaken)
        again = connection.ask(messages.Seal(), messages.Sealed)
        known = connection.ask(messages.ListSnapshots(), messages.Snapshots).snapshots
    tree = next(one.tree for one in known if one.id == taken.id)
    # What was done after the snapshot is not in it.
    return source.branch, taken.id, tree, again.lsn if again.tree == tree else sealed.lsn


def _merge_offline(
    target: Workspace, request: Ready, labels: tuple[str, str], favour: Favour | None, dry_run: bool, message: str
) -> messages.Merged:
    from helios_fs.history.merging import Source, Wanted, merge_offline

    branch, snapshot, tree, lsn = request
    source = Source(branch, snapshot, bytes.fromhex(tree), lsn)
    wanted = Wanted(source, labels, favour, dry_run, message, user_name(), socket.gethostname())
    with workspace.open_store(target) as store:
        done = merge_offline(store, target.branch, wanted)
    conflicts = [messages.MergeConflict(path, kind) for path, kind in done.conflicts]
    return messages.Merged(done.base, done.snapshot, conflicts, done.changes, done.up_to_date)
