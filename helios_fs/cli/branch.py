"""`helios branch`: lists branches, makes, renames and deletes them, mounted or not."""

import os
import socket

import click

from helios_fs.cli import output, workspace
from helios_fs.cli.snapshot import user_name
from helios_fs.cli.workspace import Workspace
from helios_fs.control import messages
from helios_fs.errors import NoSuchEntry, UsageError


@click.command("branch")
@click.argument("name", required=False)
@click.option("--from", "from_", metavar="ID", help="Begin with this snapshot, not with the working tree as it is now.")
@click.option("-d", "--delete", "delete", metavar="NAME", help="Delete a branch.")
@click.option("--force", is_flag=True, help="With -d: even if that drops work that nobody else holds.")
@click.option("--undelete", metavar="NAME", help="Bring back a branch that was deleted since the last `helios gc`.")
@click.option("-m", "--move", "move", nargs=2, metavar="OLD NEW", help="Rename a branch.")
@click.option("--json", "as_json", is_flag=True, help="Write the result as JSON.")
@workspace.options
@click.pass_context
def verb(
    ctx: click.Context,
    name: str | None,
    from_: str | None,
    delete: str | None,
    force: bool,
    undelete: str | None,
    move: tuple[str, str] | None,
    as_json: bool,
    directory: str | None,
    store: str | None,
) -> None:
    """List the branches, or make the branch NAME of the working tree as it is now.

    A NAME is below the branch that one stands in, as in `.branches/NAME`; `a/b` names the branch b of branch a.
    """
    if sum(one is not None for one in (name, delete, undelete, move)) > 1:
        raise UsageError("one of NAME, --delete, --undelete and --move at a time")
    if (from_ is not None and name is None) or (force and delete is None):
        raise UsageError("--from needs a NAME, --force needs --delete")
    where = workspace.find(ctx, directory, store)
    if name is not None:
        made = make(where, name, from_)
        _tell({"name": name, "id": made.branch, "path": made.mountpoint}, made.mountpoint or name, as_json)
    elif delete is not None:
        remove(where, delete, force)
        _tell({"deleted": delete}, None, as_json)
    elif undelete is not None:
        bring_back(where, undelete)
        _tell({"undeleted": undelete}, None, as_json)
    elif move is not None:
        rename(where, *move)
        _tell({"name": move[1]}, None, as_json)
    else:
        _list(where, as_json)


def _tell(report: dict[str, object], line: str | None, as_json: bool) -> None:
    if as_json:
        output.write_json(report)
    elif line is not None:
        output.say(line)


def _parent(where: Workspace, name: str) -> tuple[Workspace, str]:
    """Return the branch below which `name` is meant, and the last part of it."""
    above, _, last = name.rpartition("/")
    for part in above.split("/") if above else ():
        where = workspace.of_branch(where.store, workspace.child(where.store, where.branch, part))
    return where, last


def make(where: Workspace, name: str, snapshot: str | None = None) -> Workspace:
    """Make a branch below the one at `where`, of its working tree or of one of its snapshots.

    It survives the death of the daemon on return. Raises EntryExists, InvalidArgument, NameTooLong, NoSuchEntry.
    """
    from helios_fs.store.branches import check_name

    parent, last = _parent(where, name)
    check_name(last)
    found = workspace.pick_sealed(parent, snapshot) if snapshot is not None else None
    connection = workspace.find_daemon(parent.store, parent.branch)
    if connection is not None:
        with connection:
            request = messages.MakeBranch(last, os.getuid(), found.id if found is not None else "")
            branch = connection.ask(request, messages.BranchMade).branch
        path = os.path.join(parent.mountpoint, parent.branches_dir, last) if parent.mountpoint else None
        return Workspace(parent.store, branch, path, parent.branches_dir)
    from helios_fs.history import branching

    host = socket.gethostname()
    with workspace.open_store(parent) as store:
        if found is None:
            info = branching.fork_offline(store, parent.branch, last, user_name(), host)
            return Workspace(parent.store, info.id, None)
        with store.lock_branch(parent.branch):
            branching.check_free(store, parent.branch, last)
            sealed = workspace.stored_snapshot(store, parent.branch, found.id)
            info = branching.fork_snapshot(store, parent.branch, sealed, last, user_name(), host)
    return Workspace(parent.store, info.id, None)


def remove(where: Workspace, name: str, force: bool = False) -> None:
    """Delete a branch below the one at `where`. Durable on return.

    Raises Busy where it is mounted or has branches, NotPermitted where it has work that nobody else holds.
    """
    parent, last = _parent(where, name)
    branch = workspace.child(parent.store, parent.branch, last)
    connection = workspace.find_daemon(parent.store, parent.branch)
    if connection is not None:
        with connection:
            connection.ask(messages.DeleteBranch(branch, force), messages.BranchChanged)
        return
    from helios_fs.history.branching import delete_offline

    with workspace.open_store(parent) as store:
        delete_offline(store, branch, force)


def bring_back(where: Workspace, name: str) -> None:
    """Bring back a branch that was deleted and not collected yet; the one deleted last, of several with that name."""
    from helios_fs.history.branching import undelete_branch

    parent, last = _parent(where, name)
    with workspace.open_store(parent) as store:
        gone = [info for info in store.branches.all(deleted=True) if info.parent == parent.branch and info.deleted_ns]
        found = [info for info in gone if info.name == last]
        if not found:
            raise NoSuchEntry(f"there is no deleted branch {name}; `helios gc` ends them for good")
        newest = max(found, key=lambda info: info.deleted_ns)
        connection = workspace.find_daemon(parent.store, parent.branch)
        if connection is None:
            with store.lock_branch(parent.branch):
                undelete_branch(store, newest.id)
            return
    with connection:
        connection.ask(messages.BringBackBranch(newest.id), messages.BranchChanged)


def rename(where: Workspace, old: str, new: str) -> None:
    """Give a branch another name below the same parent. Durable on return. Raises EntryExists, InvalidArgument."""
    parent, last = _parent(where, old)
    above, _, wanted = new.rpartition("/")
    if above and above != old.rpartition("/")[0]:
        raise UsageError(f"{new}: a branch stays below the one that it was made from")
    branch = workspace.child(parent.store, parent.branch, last)
    connection = workspace.find_daemon(parent.store, parent.branch)
    if connection is not None:
        with connection:
            connection.ask(messages.RenameBranch(branch, wanted), messages.BranchChanged)
        return
    from helios_fs.history.branching import rename_branch

    with workspace.open_store(parent) as store, store.lock_branch(parent.branch):
        rename_branch(store, branch, wanted)


def _list(where: Workspace, as_json: bool) -> None:
    from helios_fs.cli import mounts
    from helios_fs.store.branches import Branches

    # Whoever owns a branch finishes what was made from it, so that the files below tell all of it.
    workspace.names_of(where.store, where.branch)
    branches = Branches(where.store)
    shown = {one.branch: one.mountpoint for one in mounts.listed() if one.store == where.store and not one.snapshot}
    rows = [
        {
            "name": branches.name_of(info.id),
            "id": info.id,
            "created": output.iso_time(info.created_ns),
            "by": f"{info.user or '?'}@{info.host or '?'}",
            "mounted": shown.get(info.id),
            "current": info.id == where.branch,
        }
        for info in branches.all()
    ]
    rows.sort(key=lambda row: str(row["name"]))
    rows.insert(
        0,
        {
            "name": "main",
            "id": "main",
            "created": None,
            "by": None,
            "mounted": shown.get("main"),
            "current": where.branch == "main",
        },
    )
    if as_json:
        output.write_json(rows)
        return
    width = max(len(str(row["name"])) for row in rows)
    for row in rows:
        mounted = f"mounted at {row['mounted']}" if row["mounted"] else ""
        mark = "*" if row["current"] else " "
        output.say(f"{mark} {row['name']!s:{width}}  {row['created'] or '':25}  {mounted}".rstrip())
