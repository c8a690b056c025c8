"""`helios unmount`: returns when everything is written, the mount is gone and its daemon has ended.

U1. A mount that somebody uses is not taken away from under them, unless asked to.
"""

import os
import select
import shlex
import time
from typing import Final

import click

from helios_fs.cli import machine, mounts, output, workspace
from helios_fs.control import client, messages
from helios_fs.errors import Busy, HeliosError, MountFailed

_PATIENCE_SECONDS: Final = 60.0
"""How long a daemon may take to end once everything is durable."""


@click.command("unmount")
@click.argument("mountpoint", required=False)
@click.option("--force", is_flag=True, help="Also while programs use it; they get errors from then on.")
@workspace.options
@click.pass_context
def verb(ctx: click.Context, mountpoint: str | None, force: bool, directory: str | None, store: str | None) -> None:
    """Write everything out, unmount MOUNTPOINT, and return when its daemon has ended."""
    if mountpoint is None:
        where = workspace.find(ctx, directory, store)
        if where.mountpoint is None:
            raise MountFailed(f"{where.store}: not mounted")
        point, mount = where.mountpoint, mounts.find_mount_at(where.mountpoint)[1]
    else:
        point = os.path.realpath(mountpoint)
        mount = mounts.find_mount_at(point)[1]
    if mount is None:
        raise MountFailed(f"{mountpoint or point}: no HeliosFS workspace is mounted there")
    if machine.is_stale(point):
        machine.clear_stale(point)
        output.note(f"{point}: its daemon was gone already; the mount is cleared, and nothing acknowledged is lost")
        return
    connection = client.find_daemon(mount.store, mount.called)
    if connection is None:
        raise MountFailed(f"{point}: its daemon does not listen (another machine's or container's?); try again there")
    with connection:
        _end(connection, point, force)


def _end(connection: client.Connection, point: str, force: bool) -> None:
    daemon = connection.hello()
    if not force and (users := machine.users_of(point, daemon.pid)):
        some = ", ".join(users[:5]) + (", …" if len(users) > 5 else "")
        raise Busy(f"{point}: in use by {some}; end them, or helios unmount --force {shlex.quote(point)}")
    try:
        watch = os.pidfd_open(daemon.pid)
    except OSError:
        watch = -1  # of another pid namespace: its hanging up must do
    try:
        connection.ask(messages.Unmount(), messages.Unmounting)
        connection.wait_for_hangup(_PATIENCE_SECONDS)
        if watch >= 0 and not _ended(watch, _PATIENCE_SECONDS):
            raise Busy(f"{point}: everything is written, but the daemon (process {daemon.pid}) does not end")
    finally:
        if watch >= 0:
            os.close(watch)
    if not _gone(point, _PATIENCE_SECONDS):
        if machine.is_stale(point):
            machine.clear_stale(point)
        else:
            raise HeliosError(f"{point}: everything is written and the daemon has ended, but the mount is still there")


def _ended(pidfd: int, timeout_seconds: float) -> bool:
    """Wait until a process has ended: its pidfd becomes readable (pidfd_open(2))."""
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(timeout_seconds * 1000))


def _gone(point: str, timeout_seconds: float) -> bool:
    """Wait until no mount of ours is there, or only a stale one; mountinfo polls as changed (proc_pid_mounts(5))."""
    deadline = time.monotonic() + timeout_seconds
    with open("/proc/self/mountinfo", "rb") as file:
        poll = select.poll()
        poll.register(file, select.POLLERR | select.POLLPRI)
        while mounts.find_mount_at(point)[1] is not None:
            left = deadline - time.monotonic()
            if left <= 0 or machine.is_stale(point):
                return False
            poll.poll(left * 1000)
    return True
