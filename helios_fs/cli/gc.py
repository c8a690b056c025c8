"""`helios gc`: the space that no snapshot and no branch needs goes back to the disk."""

import os
from typing import TYPE_CHECKING

import click

from helios_fs.cli import exit_codes, output, workspace
from helios_fs.control import client, messages
from helios_fs.errors import Busy, HeliosError

if TYPE_CHECKING:
    from helios_fs.cli import progress


@click.command("gc")
@click.option("--json", "as_json", is_flag=True, help="Write the result as JSON.")
@workspace.options
@click.pass_context
def verb(ctx: click.Context, as_json: bool, directory: str | None, store: str | None) -> int:
    """Give back the space that no snapshot, branch, open file or running program needs.

    Branches that were deleted can no longer be brought back afterwards. Mounted or not; while mounted everything goes
    on. The index of the store (index/data.mdb) does not shrink: what it no longer needs, it uses again.
    Exit code 3 where something that should have gone could not.
    """
    where = workspace.find(ctx, directory, store)
    done = collect(where)
    if as_json:
        output.write_json({**as_dict(done), "store": where.store})
    else:
        output.say(f"{output.human_size(max(0, done.bytes_freed))} freed")
        output.note(f"{done.packs_dropped:,} packs dropped, {done.packs_rewritten:,} of them rewritten")
        output.note(f"{output.human_size(done.live_bytes)} in {done.packs_kept:,} packs are needed")
        if done.pins:
            output.note(f"{done.pins:,} trees and files are held by mounts and running programs")
        if done.dead_bytes:
            output.note(
                f"{output.human_size(done.dead_bytes)} not needed lie among what is; they go when there is more"
            )
    for problem in done.problems:
        output.note(f"not collected: {problem}")
    if os.path.exists(os.path.join(where.store, "purge")):
        output.note("a purge was interrupted: `helios purge` again finishes it")
    return exit_codes.NOT_DONE if done.problems else 0


def collect(where: workspace.Workspace) -> messages.Collected:
    """Collect in the workspace's store: by a daemon that has a branch of it mounted, else here.

    Raises Busy where others write to it all the time.
    """
    from helios_fs.cli import progress

    asked = daemons(where)
    with progress.bar("collecting") as draw:
        if not asked:
            return _offline(where, draw)
        try:
            # What lies in journals only is not garbage, but what it replaced may be: all of them seal first.
            for connection in asked[1:]:
                connection.ask(messages.Seal(), messages.Sealed)
            done = asked[0].ask(messages.Collect(), messages.Collected)
            for connection in asked[1:]:
                # A dropped pack that a mount has open is not free yet.
                connection.ask(messages.Collect(release_only=True), messages.Collected)
        finally:
            for connection in asked:
                connection.close()
    return done


def daemons(where: workspace.Workspace) -> list[client.Connection]:
    """Return connections to the daemons that own a branch of the store, the workspace's own first."""
    from helios_fs.objects.snapshot import MAIN_BRANCH
    from helios_fs.store.branches import Branches
    from helios_fs.store.store import read_format

    read_format(where.store)
    branches = [where.branch, MAIN_BRANCH, *(info.id for info in Branches(where.store).all())]
    found: dict[int, client.Connection] = {}
    for branch in dict.fromkeys(branches):
        connection = client.find_daemon(where.store, branch)
        if connection is None:
            continue
        try:
            pid = connection.hello().pid
        except client.HungUp:
            # The branch was closed, or deleted, since we connected.
            connection.close()
            continue
        if pid in found:
            connection.close()
        else:
            found[pid] = connection
    return list(found.values())


def _offline(where: workspace.Workspace, draw: "progress.Report | None") -> messages.Collected:
    from helios_fs.history.branching import seal_alone
    from helios_fs.objects.snapshot import MAIN_BRANCH
    from helios_fs.sealer.collect import collect_store
    from helios_fs.store.branches import Branches
    from helios_fs.store.gc import TIGHT

    problems: list[str] = []
    with workspace.open_store(where) as opened:
        for branch in (MAIN_BRANCH, *(info.id for info in Branches(where.store).all())):
            try:
                seal_alone(opened, branch)
            except Busy:
                continue  # Whoever has it seals it.
            except HeliosError as error:
                # A full disk, as a rule: collecting makes room, and its journal keeps what it needs.
                problems.append(f"branch {branch} could not be sealed: {error}")
        done = collect_store(opened, wait=True, slack=TIGHT, progress=draw)
    return messages.Collected(*done[:-1], (*problems, *done.problems))


def as_dict(done: messages.Collected) -> dict[str, object]:
    """Return what was done as --json writes it."""
    return {name: getattr(done, name) for name in done.__struct_fields__}
