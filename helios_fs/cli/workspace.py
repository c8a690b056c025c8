"""Which store and branch a verb acts on, and who answers for it: a running daemon, or the store itself.

W1. While a daemon owns the branch it is asked; nobody else touches the branch's journal.
W2. Without one, what the journal still holds is sealed first, so that the store alone tells the whole history.
W3. A branch below `.branches` belongs to the daemon of the mount that shows it, which opens it when it is asked.
"""

import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import click

from helios_fs.control import client, messages
from helios_fs.errors import InvalidArgument, NoSuchEntry, UsageError

if TYPE_CHECKING:
    from helios_fs.cli.mounts import Mount
    from helios_fs.objects.snapshot import Snapshot
    from helios_fs.store.store import Store

_F = TypeVar("_F", bound=Callable[..., Any])

_BRANCH = "helios_fs.branch"
"""Where a command line's --branch is kept until the workspace is found."""


class Workspace(NamedTuple):
    """A branch of a store, and where it is mounted, if it is."""

    store: str
    """Absolute path without symlinks."""
    branch: str
    """Its id, which stays whatever its name becomes; `main` for the first one."""
    mountpoint: str | None
    """The directory that shows the branch: where it is mounted, or MOUNT/.branches/NAME."""
    branches_dir: str = ".branches"
    """The name under which that mount shows branches."""


def options(function: _F) -> _F:
    """Give a verb the options that name a workspace: -C, --store and --branch."""
    function = click.option(
        "--branch",
        metavar="BRANCH",
        expose_value=False,
        callback=_remember_branch,
        help="This branch of it (default: main, or the one that PATH is in).",
    )(function)
    function = click.option("-C", "directory", metavar="PATH", help="The workspace that PATH is in (default: here).")(
        function
    )
    return click.option("--store", metavar="STORE", help="This store, mounted or not.")(function)


def _remember_branch(ctx: click.Context, parameter: click.Parameter, value: str | None) -> None:
    if value is not None:
        ctx.meta[_BRANCH] = value


def names_branch(ctx: click.Context) -> bool:
    """Tell whether the command line names a branch with --branch."""
    return _BRANCH in ctx.meta


def find(ctx: click.Context, directory: str | None, store: str | None) -> Workspace:
    """Return the workspace that the options name, or that the current directory is in.

    Raises UsageError where there is none, NoSuchEntry where it has no such branch.
    """
    found = _find(ctx, directory, store)
    wanted = ctx.meta.get(_BRANCH)
    return found if wanted is None else of_branch(found.store, branch_id(found.store, wanted))


def _find(ctx: click.Context, directory: str | None, store: str | None) -> Workspace:
    given = ctx.find_root().obj or {}
    if directory is None and store is None:
        directory, store = given.get("directory"), given.get("store")
    from helios_fs.cli import mounts

    if store is not None:
        path = os.path.realpath(store)
        if not os.path.isdir(path):
            raise UsageError(f"{store}: there is no such store (`helios init {store}` makes one)")
        return of_branch(path, "main")
    path = os.path.realpath(directory or ".")
    found = mounts.find_mount_of(path)
    if found is None:
        where = directory or "here"
        raise UsageError(f"{where}: not in a mounted workspace (use -C PATH or --store STORE, or mount one first)")
    return _below(found, path)


def _below(mount: "Mount", path: str) -> Workspace:
    """Return the branch of a mount that an absolute path is in: each `.branches/NAME` on the way leads into another.

    The way begins at the directory of the mount that is at its mountpoint: / for all but bind mounts.
    """
    point, branch = mount.mountpoint, mount.branch
    parts = mount.directory.strip("/").split("/")
    while len(parts) > 1 and parts[0] == mount.branches_dir:
        branch = child(mount.store, branch, parts[1])
        parts = parts[2:]
    parts = os.path.relpath(path, point).split("/")
    while len(parts) > 1 and parts[0] == mount.branches_dir:
        branch = child(mount.store, branch, parts[1])
        point = os.path.join(point, mount.branches_dir, parts[1])
        parts = parts[2:]
    return Workspace(mount.store, branch, point, mount.branches_dir)


def child(store: str, parent: str, name: str) -> str:
    """Return the id of a branch by the id of the one that it was made from, and its own part of the name."""
    from helios_fs.store.branches import Branches

    known = {info.name: info.id for info in Branches(store).children(parent)}
    if name not in known:
        known = names_of(store, parent)
    if name not in known:
        raise NoSuchEntry(f"there is no branch {name} (`helios branch` lists them)")
    return known[name]


def names_of(store: str, parent: str) -> dict[str, str]:
    """Return name -> id of a branch's branches, as its owner knows them: one that was just made has no file yet."""
    connection = client.find_daemon(store, parent)
    if connection is not None:
        with connection:
            return connection.ask(messages.ListBranches(), messages.BranchNames).branches
    from helios_fs.history.branching import adopt
    from helios_fs.store.store import Store

    with Store.open(store) as opened:
        adopt(opened, parent)
        return {info.name: info.id for info in opened.branches.children(parent)}


def branch_id(store: str, name: str) -> str:
    """Return the id of the branch with this whole name. Raises NoSuchEntry, InvalidArgument."""
    from helios_fs.store.branches import check_name

    here = "main"
    for part in name.split("/") if name != here else ():
        check_name(part)
        here = child(store, here, part)
    return here


def of_branch(store: str, branch: str) -> Workspace:
    """Return a branch of a store with the place where it is shown, if it is."""
    from helios_fs.cli import mounts
    from helios_fs.store.branches import Branches

    below: list[str] = []
    here = branch
    shown = {one.branch: one for one in mounts.listed() if one.store == store and not one.snapshot}
    while here not in shown:
        info = Branches(store).find(here)
        if info is None:
            return Workspace(store, branch, None)
        below.insert(0, info.name)
        here = info.parent
    point, directory = shown[here].mountpoint, shown[here].branches_dir
    for name in below:
        point = os.path.join(point, directory, name)
    return Workspace(store, branch, point, directory)


def stored_snapshot(store: "Store", branch: str, snapshot_id: str) -> "Snapshot":
    """Return a sealed snapshot of a branch's history as the store has it. Raises NoSuchEntry."""
    from helios_fs.worktree.recovery import known_snapshots

    return known_snapshots(store, branch).get(snapshot_id)


def find_daemon(store: str, branch: str) -> client.Connection | None:
    """Return a connection to whoever owns a branch, or None where nobody does.

    One that is not open is opened by the mount that shows it below `.branches`, if there is one.
    """
    found = client.find_daemon(store, branch)
    if found is not None or branch == "main":
        return found
    from helios_fs.store.branches import Branches

    info = Branches(store).find(branch)
    if info is None or info.deleted_ns:
        return None
    above = find_daemon(store, info.parent)
    if above is None:
        return None
    with above:
        above.ask(messages.OpenBranch(branch), messages.BranchOpened)
    return client.find_daemon(store, branch)


def let_go(store: str, branch: str, owner: int) -> bool:
    """Have process `owner` close a branch that it shows below `.branches`, if nobody uses it; tell whether it did."""
    from helios_fs.store.branches import Branches

    info = Branches(store).find(branch)
    above = client.find_daemon(store, info.parent) if info is not None else None
    if above is None:
        return False
    with above:
        if above.hello().pid != owner:
            return False
        return above.ask(messages.CloseBranch(branch), messages.BranchClosed).closed


def connect(workspace: Workspace) -> client.Connection:
    """Return a connection to the daemon that owns the workspace. Raises NoSuchEntry where none runs."""
    found = find_daemon(workspace.store, workspace.branch)
    if found is None:
        if workspace.mountpoint is not None:
            raise NoSuchEntry(
                f"{workspace.mountpoint}: its daemon is gone; clear it with `fusermount3 -uz {workspace.mountpoint}`"
                f" and mount again"
            )
        raise NoSuchEntry(f"{workspace.store}: not mounted; `helios mount MOUNTPOINT --store {workspace.store}` first")
    return found


def open_store(workspace: Workspace) -> "Store":
    """Return the workspace's store, for reading what is sealed. Raises NotAStore or WrongVersion."""
    from helios_fs.store.store import Store

    return Store.open(workspace.store)


def settle(workspace: Workspace) -> str:
    """Have everything up to now sealed, by the daemon or without one; return the working tree's hash in hex."""
    connection = find_daemon(workspace.store, workspace.branch)
    if connection is not None:
        with connection:
            return connection.ask(messages.Seal(), messages.Sealed).tree
    from helios_fs.history.branching import seal_alone

    with open_store(workspace) as store:
        seal_alone(store, workspace.branch)
        return store.head(workspace.branch).tree.hex()


def snapshots(workspace: Workspace) -> list[messages.SnapshotInfo]:
    """Return all snapshots of the branch, oldest first, sealed or not."""
    connection = find_daemon(workspace.store, workspace.branch)
    if connection is not None:
        with connection:
            return connection.ask(messages.ListSnapshots(), messages.Snapshots).snapshots
    settle(workspace)
    with open_store(workspace) as store:
        from helios_fs.worktree.recovery import known_snapshots

        return [messages.info(one) for one in known_snapshots(store, workspace.branch).all()]


def pick(known: Sequence[messages.SnapshotInfo], text: str) -> messages.SnapshotInfo:
    """Return the snapshot that `text` means: an id, a name, `latest`, `~N`, or a unique start of an id.

    Raises NoSuchEntry where there is none and InvalidArgument where there are several.
    """
    wanted = os.fsencode(text)
    for one in known:
        if text == one.id or (one.name and wanted == one.name):
            return one
    if not known:
        raise NoSuchEntry(f"{text}: there are no snapshots yet (`helios snapshot` takes one)")
    if text == "latest":
        return known[-1]
    # `latest~N` says the same as `~N`, which some shells take for a directory where N is 0.
    start, tilde, digits = text.partition("~")
    if tilde and start in ("", "latest") and digits.isascii() and digits.isdecimal():
        back = int(digits)
        if back >= len(known):
            raise NoSuchEntry(f"{text}: there are only {len(known)} snapshots (~0 is the newest)")
        return known[-1 - back]
    matches = [one for one in known if text and one.id.startswith(text.lower())]
    if len(matches) == 1:
        return matches[0]
    if matches:
        some = ", ".join(one.id for one in matches[:3])
        raise InvalidArgument(f"{text}: {len(matches)} snapshots begin with that: {some}{', …' * (len(matches) > 3)}")
    raise NoSuchEntry(f"{text}: no such snapshot (`helios log` lists them)")


def pick_sealed(workspace: Workspace, text: str) -> messages.SnapshotInfo:
    """As `pick`, but of a snapshot whose whole state is in the store, sealing it first where it is not."""
    found = pick(snapshots(workspace), text)
    if not found.sealed:
        settle(workspace)
        found = pick(snapshots(workspace), found.id)
    return found
