"""The daemon's end of the control socket.

Knows who may ask and how requests come in, nothing of what they do: that is a `Service`.

S1. Only the daemon's own user and root are served.
S2. A client that is slow, stuck, gone or wrong harms its own connection only.
S3. Every request gets one reply; an error that nobody foresaw is logged and answered as HeliosError.
"""

import logging
import os
import socket
import stat
import struct
from typing import Final, Protocol, assert_never

import trio

from helios_fs.control import messages
from helios_fs.errors import HeliosError, InvalidArgument, NotPermitted

_log = logging.getLogger(__name__)

_UCRED: Final = struct.Struct("3i")
_RECEIVE_BYTES: Final = 64 * 1024
_BACKLOG: Final = 64


class Service(Protocol):
    """What a daemon does when it is asked. Each method may raise any HeliosError, which the client is told."""

    async def hello(self, request: messages.Hello) -> messages.HelloReply:
        """Say who this is."""

    async def take_snapshot(self, request: messages.TakeSnapshot) -> messages.SnapshotTaken:
        """Take a snapshot; with `sync`, return when it would survive a power cut."""

    async def list_snapshots(self, request: messages.ListSnapshots) -> messages.Snapshots:
        """List all snapshots of the branch, oldest first."""

    async def describe_snapshot(self, request: messages.DescribeSnapshot) -> messages.SnapshotDescribed:
        """Say anew what is given of a snapshot: name, message, protection."""

    async def delete_snapshots(self, request: messages.DeleteSnapshots) -> messages.SnapshotsDeleted:
        """Delete snapshots, all of them or none."""

    async def seal(self, request: messages.Seal) -> messages.Sealed:
        """Return when everything before the request is in the store."""

    async def restore(self, request: messages.Restore) -> messages.Restored:
        """Bring back a state, after a snapshot of the present one."""

    async def merge(self, request: messages.Merge) -> messages.Merged:
        """Merge another branch into this one, all of it or nothing."""

    async def collect(self, request: messages.Collect) -> messages.Collected:
        """Return when the space that nothing needs is free."""

    async def open_branch(self, request: messages.OpenBranch) -> messages.BranchOpened:
        """Open a branch below this one."""

    async def close_branch(self, request: messages.CloseBranch) -> messages.BranchClosed:
        """Close a branch that was made from this one, if nobody uses it."""

    async def list_branches(self, request: messages.ListBranches) -> messages.BranchNames:
        """List the branches that were made from this one; each has a journal of its own on return."""

    async def rename_branch(self, request: messages.RenameBranch) -> messages.BranchChanged:
        """Rename a branch that was made from this one."""

    async def make_branch(self, request: messages.MakeBranch) -> messages.BranchMade:
        """Make a branch of the working tree as it is now."""

    async def delete_branch(self, request: messages.DeleteBranch) -> messages.BranchChanged:
        """Delete a branch that was made from this one."""

    async def bring_back_branch(self, request: messages.BringBackBranch) -> messages.BranchChanged:
        """Bring back a branch that was deleted."""

    async def stats(self, request: messages.Stats) -> messages.StatsReply:
        """Return the counters."""

    async def unmount(self, request: messages.Unmount) -> messages.Unmounting:
        """Make everything durable and sealed, and see to it that the daemon ends soon after the return."""


def listen(folder_fd: int, name: str) -> trio.SocketListener:
    """Bind a socket of mode 0600 in a directory and listen; a socket left there by a dead daemon is replaced.

    The caller must own the branch: whoever is bound to that name loses it. Raises OSError.
    """
    path = f"/proc/self/fd/{folder_fd}/{name}"
    try:
        if stat.S_ISSOCK(os.stat(name, dir_fd=folder_fd, follow_symlinks=False).st_mode):
            os.unlink(name, dir_fd=folder_fd)
    except FileNotFoundError:
        pass
    bound = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        # The mode of the new name is that of the socket's own inode (unix_bind in net/unix/af_unix.c), so there is no
        # instant at which others could connect, and no umask to change for the whole process.
        os.fchmod(bound.fileno(), 0o600)
        bound.bind(path)
        bound.listen(_BACKLOG)
    except BaseException:
        bound.close()
        raise
    return trio.SocketListener(trio.socket.from_stdlib_socket(bound))


async def serve(
    folder_fd: int,
    name: str,
    service: Service,
    *,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Answer requests on the socket `name` in the directory `folder_fd` until cancelled.

    Reports started when it listens, so use `nursery.start`. Removes the name on the way out. Raises OSError where the
    socket cannot be made.
    """
    listener = listen(folder_fd, name)
    try:
        async with listener, trio.open_nursery() as nursery:
            task_status.started()
            while True:
                stream = await _accept(listener)
                nursery.start_soon(_converse, stream, service)
    finally:
        try:
            os.unlink(name, dir_fd=folder_fd)
        except FileNotFoundError:
            pass


async def _accept(listener: trio.SocketListener) -> trio.SocketStream:
    while True:
        try:
            return await listener.accept()
        except OSError as error:
            # Out of descriptors, as a rule: the connections that are open must end first.
            _log.warning("control socket: accept failed: %s", error)
            await trio.sleep(0.1)


async def _converse(stream: trio.SocketStream, service: Service) -> None:
    try:
        async with stream:
            refusal = _refusal(stream)
            if refusal is not None:
                await stream.send_all(messages.encode(messages.failure(refusal)))
                return
            buffer = bytearray()
            while True:
                line = await _next_line(stream, buffer)
                if line is None:
                    return
                await stream.send_all(messages.encode(await _answer(line, service)))
    except InvalidArgument as error:
        _log.warning("control socket: %s", error)
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        pass  # The client is gone, and with it the one who would care.


def _refusal(stream: trio.SocketStream) -> HeliosError | None:
    raw = stream.socket.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
    _, uid, _ = _UCRED.unpack(raw)
    if uid in (0, os.geteuid()):
        return None
    return NotPermitted("this workspace belongs to another user")


async def _next_line(stream: trio.SocketStream, buffer: bytearray) -> bytes | None:
    """Return the next line without its newline, or None at the end. Raises InvalidArgument after telling the client."""
    searched = 0
    while True:
        end = buffer.find(b"\n", searched)
        if end >= 0:
            line = bytes(buffer[:end])
            del buffer[: end + 1]
            return line
        searched = len(buffer)
        if searched > messages.MAX_REQUEST_BYTES:
            error = InvalidArgument(f"a request of more than {messages.MAX_REQUEST_BYTES} bytes")
            await stream.send_all(messages.encode(messages.failure(error)))
            raise error
        data = await stream.receive_some(_RECEIVE_BYTES)
        if not data:
            return None
        buffer += data


async def _answer(line: bytes, service: Service) -> messages.Reply:
    try:
        return await _dispatch(messages.decode_request(line), service)
    except HeliosError as error:
        return messages.failure(error)
    except Exception as error:  # a bug in one request must not end the mount
        _log.exception("control request failed")
        return messages.failure(HeliosError(f"the daemon failed: {type(error).__name__}: {error}; see its log"))


async def _dispatch(request: messages.Request, service: Service) -> messages.Reply:
    match request:
        case messages.Hello():
            return await service.hello(request)
        case messages.TakeSnapshot():
            return await service.take_snapshot(request)
        case messages.ListSnapshots():
            return await service.list_snapshots(request)
        case messages.DescribeSnapshot():
            return await service.describe_snapshot(request)
        case messages.DeleteSnapshots():
            return await service.delete_snapshots(request)
        case messages.Seal():
            return await service.seal(request)
        case messages.Restore():
            return await service.restore(request)
        case messages.Merge():
            return await service.merge(request)
        case messages.Collect():
            return await service.collect(request)
        case messages.OpenBranch():
            return await service.open_branch(request)
        case messages.CloseBranch():
            return await service.close_branch(request)
        case messages.ListBranches():
            return await service.list_branches(request)
        case messages.RenameBranch():
            return await service.rename_branch(request)
        case messages.MakeBranch():
            return await service.make_branch(request)
        case messages.DeleteBranch():
            return await service.delete_branch(request)
        case messages.BringBackBranch():
            return await service.bring_back_branch(request)
        case messages.Stats():
            return await service.stats(request)
        case messages.Unmount():
            return await service.unmount(request)
        case _:
            assert_never(request)
