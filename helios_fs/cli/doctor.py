"""`helios doctor`: what is wrong on this machine, with the mounts on it, and with a store; and what to do.

D1. It changes nothing, and a mount or store that does not answer cannot block it for long.
"""

import os
import shlex
from collections.abc import Iterator

import click

from helios_fs.cli import exit_codes, machine, mounts, output, workspace
from helios_fs.cli.machine import Finding
from helios_fs.errors import Busy, HeliosError, NoSuchEntry, NotAStore, UsageError, WrongVersion

_LOW_ROOM_BYTES = 256 << 20
_HIDDEN = {b".snapshots": "snapshots_dir", b".branches": "branches_dir"}
"""Names that the mount keeps for itself -> the mount option that gives them to the tree."""


@click.command("doctor")
@click.option("--json", "as_json", is_flag=True, help="Write the result as JSON.")
@workspace.options
@click.pass_context
def verb(ctx: click.Context, as_json: bool, directory: str | None, store: str | None) -> int:
    """Look for what is wrong here, and say what to do. Exit code 1 where something needs doing.

    Looks at this machine and its mounts; at a store, too, where one is named or the current directory is in one.
    """
    findings = list(of_machine())
    findings += of_mounts()
    where = _find_workspace(ctx, directory, store)
    if where is not None:
        findings += of_store(where)
    if as_json:
        output.write_json([{**one._asdict()} for one in findings])
    else:
        for one in findings:
            output.say(f"{'problem' if one.serious else 'note'}: {one.problem}")
            output.say(f"    {one.remedy}")
        if not any(one.serious for one in findings):
            output.say("no problems found")
    return exit_codes.DIFFERENT if any(one.serious for one in findings) else 0


def _find_workspace(ctx: click.Context, directory: str | None, store: str | None) -> workspace.Workspace | None:
    given = ctx.find_root().obj or {}
    named = directory or store or given.get("directory") or given.get("store")
    try:
        return workspace.find(ctx, directory, store)
    except (UsageError, FileNotFoundError):
        if named:
            raise
        return None


def of_machine() -> Iterator[Finding]:
    """Find what keeps any workspace from being mounted here."""
    for found in (machine.fuse_device(), machine.fusermount(), machine.allow_other()):
        if found is not None:
            yield found
    try:
        # Its C library is what a broken installation lacks, and only loading it shows that.
        import importlib

        importlib.import_module("pyfuse3")
    except ImportError as error:
        yield Finding(f"pyfuse3 does not load: {error}", "sudo apt-get install libfuse3-3", "pyfuse3-broken")


def of_mounts() -> Iterator[Finding]:
    """Find mounts whose daemon is gone, or does not answer."""
    for mount in mounts.listed():
        quoted, store = shlex.quote(mount.mountpoint), shlex.quote(mount.store)
        state = machine.state_of(mount.mountpoint)
        if state == "stuck":
            remedy = f"see {store}/run/*.log; if it never will, end its daemon, then fusermount3 -uz {quoted}"
            yield Finding(f"{mount.mountpoint}: this mount does not answer", remedy, "stuck-mount")
        if state == "dead":
            yield Finding(
                f"{mount.mountpoint}: the daemon of this mount is gone",
                f"fusermount3 -uz {quoted}, or mount it again: helios mount {quoted} --store {store}",
                "stale-mount",
            )


def of_store(where: workspace.Workspace) -> Iterator[Finding]:
    """Find what is wrong with a store, and what its owner may not expect."""
    path = shlex.quote(where.store)
    try:
        owner = client_of(where)
    except HeliosError as error:
        yield Finding(f"the daemon of {where.store} does not answer: {error}", "see its log in run/", "daemon-stuck")
        return
    if owner is not None:
        remedy = "nothing to do: helios unmount sets it free"
        yield Finding(f"{where.store} is in use by {owner}", remedy, "store-in-use", serious=False)
    try:
        with workspace.open_store(where) as store:
            try:
                store.lock_branch(where.branch).release()
            except Busy as error:
                if owner is None:
                    yield Finding(str(error), "wait until it has ended, or end it", "store-locked")
            disk = store.statvfs()
            free = disk.f_bavail * disk.f_frsize
            if free < _LOW_ROOM_BYTES:
                remedy = "make room there; reading and deleting still work"
                yield Finding(f"only {output.human_size(free)} are free on the disk of {path}", remedy, "disk-full")
            yield from _hidden(where)
    except NotAStore as error:
        if os.path.exists(os.path.join(where.store, "format")):
            yield Finding(str(error), "it is damaged: keep a copy of it before you try anything", "store-broken")
        else:
            yield Finding(str(error), f"name another, or make one: helios init {path}", "not-a-store")
    except WrongVersion as error:
        yield Finding(str(error), "use the program that made it; nothing was changed", "wrong-version")
    except HeliosError as error:
        yield Finding(f"{path} cannot be opened: {error}", "keep a copy of it before you try anything", "store-broken")


def client_of(where: workspace.Workspace) -> str | None:
    """Return who owns the branch and answers for it, as "process PID at MOUNTPOINT", or None."""
    connection = workspace.find_daemon(where.store, where.branch)
    if connection is None:
        return None
    with connection:
        owner = connection.hello()
    return f"process {owner.pid}, mounted at {os.fsdecode(owner.mountpoint)}"


def _hidden(where: workspace.Workspace) -> Iterator[Finding]:
    """Find a name of the tree that the mount's own directory hides. As of the last seal: a mount cannot make one."""
    from helios_fs.objects.entry import directory_key
    from helios_fs.store import maps

    with workspace.open_store(where) as store:
        try:
            tree = store.objects.tree(store.head(where.branch).tree)
        except NoSuchEntry:
            return
        for name, option in _HIDDEN.items():
            if maps.find(store.objects, tree.root.content, directory_key(name)) is not None:
                yield Finding(
                    f"the tree has a {name.decode()} of its own, which the mount's hides",
                    f"helios mount -o {option}=NAME shows ours under another name",
                    "name-hidden",
                    serious=False,
                )
