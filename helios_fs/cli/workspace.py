"""Which store and branch a verb acts on, and who answers for it: a running daemon, or the store itself.

W1. While a daemon owns the branch it is asked; nobody else touches the branch's journal.
W2. Without one, what the journal still holds is sealed first, so that the store alone tells the whole history.
"""

import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import click

from helios_fs.control import client, messages
from helios_fs.errors import InvalidArgument, NoSuchEntry, UsageError
from helios_fs.objects.snapshot import MAIN_BRANCH

if TYPE_CHECKING:
    from helios_fs.store.store import Store

_F = TypeVar("_F", bound=Callable[..., Any])


class Workspace(NamedTuple):
    """A branch of a store, and where it is mounted, if it is."""

    store: str
    """Absolute path without symlinks."""
    branch: str
    mountpoint: str | None
    """Where the branch's tree is: the mountpoint, or below its `.branches`."""


def options(function: _F) -> _F:
    """Give a verb the options that name a workspace: -C and --store."""
    function = click.option("-C", "directory", metavar="PATH", help="The workspace that PATH is in (default: here).")(
        function
    )
    return click.option("--store", metavar="STORE", help="This store, mounted or not.")(function)


def find(ctx: click.Context, directory: str | None, store: str | None, branch: str = "main") -> Workspace:
    """Return the workspace that the options name, or that the current directory is in.

    Raises UsageError where there is none.
    """
    given = ctx.find_root().obj or {}
    if directory is None and store is None:
        directory, store = given.get("directory"), given.get("store")
    from helios_fs.cli import mounts

    if store is not None:
        path = os.path.realpath(store)
        if not os.path.isdir(path):
            raise UsageError(f"{store}: there is no such store (`helios init {store}` makes one)")
        for mount in mounts.listed():
            if (mount.store, mount.branch) == (path, branch):
                return Workspace(path, branch, mount.mountpoint)
        return Workspace(path, branch, None)
    path = os.path.realpath(directory or ".")
    found = mounts.find_mount_of(path)
    if found is None:
        where = directory or "here"
        raise UsageError(f"{where}: not in a mounted workspace (use -C PATH or --store STORE, or mount one first)")
    from helios_fs.cli.standing import find_branch

    return Workspace(found.store, *find_branch(found, path))


def connect(workspace: Workspace) -> client.Connection:
    """Return a connection to the daemon that owns the workspace. Raises NoSuchEntry where none runs."""
    found = find_daemon(workspace)
    if found is None:
        if workspace.mountpoint is not None:
            raise NoSuchEntry(
                f"{workspace.mountpoint}: its daemon is gone; clear it with `fusermount3 -uz {workspace.mountpoint}`"
                f" and mount again"
            )
        raise NoSuchEntry(f"{workspace.store}: not mounted; `helios mount MOUNTPOINT --store {workspace.store}` first")
    return found


def find_daemon(workspace: Workspace) -> client.Connection | None:
    """Return a connection to the daemon that has, or can open, the workspace's branch; None where none runs.

    A mount opens a branch below its `.branches` when somebody needs it; until then its parent's owner is asked to.
    """
    found = client.find_daemon(workspace.store, workspace.branch)
    if found is not None or workspace.branch == MAIN_BRANCH:
        return found
    from helios_fs.store.branches import Branches

    info = Branches(workspace.store).find(workspace.branch)
    parent = find_daemon(Workspace(workspace.store, info.parent, None)) if info is not None else None
    if parent is None:
        return None
    with parent:
        parent.ask(messages.OpenBranch(workspace.branch), messages.BranchOpened)
    return client.find_daemon(workspace.store, workspace.branch)


def open_store(workspace: Workspace) -> "Store":
    """Return the workspace's store, for reading what is sealed. Raises NotAStore or WrongVersion."""
    from helios_fs.store.store import Store

    return Store.open(workspace.store)


def settle(workspace: Workspace) -> str:
    """Have everything up to now sealed, by the daemon or without one; return the working tree's hash in hex."""
    connection = find_daemon(workspace)
    if connection is not None:
        with connection:
            return connection.ask(messages.Seal(), messages.Sealed).tree
    from helios_fs.sealer.process import seal_offline

    seal_offline(workspace.store, workspace.branch)
    with open_store(workspace) as store:
        return store.head(workspace.branch).tree.hex()


def snapshots(workspace: Workspace) -> list[messages.SnapshotInfo]:
    """Return all snapshots of the branch, oldest first, sealed or not."""
    connection = find_daemon(workspace)
    if connection is not None:
        with connection:
            return connection.ask(messages.ListSnapshots(), messages.Snapshots).snapshots
    settle(workspace)
    with open_store(workspace) as store:
        return [
            messages.SnapshotInfo(
                one.id, one.name, one.message, one.time_ns, one.parents, one.user, one.host, True, one.tree.hex()
            )
            for one in store.refs.snapshots(workspace.branch)
        ]


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
