"""The daemon behind one mount: the only file that knows all the parts, and wires them together.

G1. Order of start: lock, recover, mount, say that it is ready. Order of end: unmounted, journal synced, sealer gone.
G2. SIGTERM, SIGINT and SIGHUP are a clean unmount.
"""

import argparse
import logging
import os
import re
import signal
import sys
import time
from typing import Final, NoReturn

import pyfuse3
import trio

from helios_fs import __version__
from helios_fs.control import messages, server
from helios_fs.control.client import socket_name
from helios_fs.errors import HeliosError, MountFailed, NoSuchEntry, ReadOnly, StoreFull
from helios_fs.fuse import loop
from helios_fs.fuse.durability import Durability
from helios_fs.fuse.history_dir import HistoryDir
from helios_fs.fuse.invalidation import forget_attributes, invalidate
from helios_fs.fuse.nodes import SNAPSHOTS_NODEID, Nodes
from helios_fs.fuse.operations import Operations
from helios_fs.fuse.sealing import Sealing
from helios_fs.fuse.transport import give_up_large_pipes, keep_freed_memory
from helios_fs.history.restore import Restore
from helios_fs.objects.snapshot import Snapshot
from helios_fs.store.store import Store
from helios_fs.worktree.recovery import recover
from helios_fs.worktree.view import View
from helios_fs.worktree.worktree import Worktree

_log = logging.getLogger("helios_fs.daemon")

_SYNC_SECONDS: Final = 5.0
_READ_AHEAD_KB: Final = 1024
_PLAIN: Final = re.compile(r"[A-Za-z0-9/._#+@:=~-]")


class Daemon:
    """One mount of one branch, and the service behind its control socket."""

    def __init__(self, store: Store, branch: str, mountpoint: str, options: dict[str, str]) -> None:
        """Recover the branch, whose lock the caller holds."""
        self._store = store
        self._branch = branch
        self._mountpoint = mountpoint
        self._options = options
        self._started_at = time.time()
        self.worktree: Worktree = recover(store, branch)
        self._fence = store.take_branch(branch)
        self._durability = Durability(self.worktree, mountpoint)
        self._nodes = Nodes(self._open_view)
        read_only = "ro" in options
        history = HistoryDir(
            self.worktree,
            self._nodes,
            self._durability,
            os.fsencode(options.get("snapshots_dir", ".snapshots")),
            "show_snapshots" in options,
            read_only,
        )
        self._operations = Operations(self.worktree, store, history, self._durability, read_only)
        self._sealing: Sealing | None = None

    def _open_view(self, snapshot_id: str) -> View:
        worktree = self.worktree
        snapshot = worktree.snapshots.get(snapshot_id)
        if snapshot.tree:
            # Before it is read; the next seal lets go of it again where nobody looks any more.
            self._store.pins.add(self._branch, snapshot.tree)
        tree = worktree.objects.tree(snapshot.tree) if snapshot.tree else None
        return View(worktree.index, worktree.objects, worktree.journal, snapshot.epoch, snapshot.tree, tree)

    def mount(self) -> None:
        """Make the kernel's side. Raises MountFailed."""
        options = {
            "default_permissions",
            "subtype=helios",
            f"fsname={quoted(self._store.path + '#' + self._branch)}",
        }
        if "allow_other" in self._options:
            options.add("allow_other")
        if "ro" in self._options:
            options.add("ro")
        if os.geteuid() == 0:
            options.update({"dev", "suid"})
        give_up_large_pipes()
        keep_freed_memory()
        try:
            pyfuse3.init(self._operations, self._mountpoint, options)
        except RuntimeError as error:
            raise MountFailed(f"the kernel refused the mount at {self._mountpoint}: {error}") from error

    async def run(self, ready_fd: int | None) -> None:
        """Answer requests until unmounted; everything answered is durable on return."""
        sealing = Sealing(self.worktree, self._store, self._nodes, self._fence, self._operations.set_throttle)
        self._sealing = sealing
        self._operations.throttle = sealing.throttle
        run_directory = os.open(os.path.join(self._store.path, "run"), os.O_RDONLY | os.O_DIRECTORY)
        try:
            async with trio.open_nursery() as nursery:
                await nursery.start(server.serve, run_directory, socket_name(self._branch), self)
                nursery.start_soon(sealing.run)
                nursery.start_soon(self._sync_now_and_then)
                nursery.start_soon(self._end_on_signal)
                nursery.start_soon(self._tell_ready, ready_fd)
                await loop.run()
                nursery.cancel_scope.cancel()
        finally:
            with trio.CancelScope(shield=True):
                await sealing.close()
            os.close(run_directory)

    async def _tell_ready(self, ready_fd: int | None) -> None:
        # The kernel answers nobody before the first request, INIT, is answered; a stat in a thread waits for that.
        await trio.to_thread.run_sync(os.stat, self._mountpoint)
        await trio.to_thread.run_sync(_raise_read_ahead, self._mountpoint)
        if ready_fd is not None:
            os.write(ready_fd, b"ready\n")
            os.close(ready_fd)

    async def _sync_now_and_then(self) -> None:
        """A snapshot survives a power cut within five seconds, asked for or not."""
        while True:
            await trio.sleep(_SYNC_SECONDS)
            if self.worktree.journal.synced < self.worktree.journal.end:
                try:
                    await self._durability.sync()
                except HeliosError:
                    _log.exception("the journal could not be synced; the branch is read-only")
                    return

    async def _end_on_signal(self) -> None:
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP) as signals:
            async for _ in signals:
                pyfuse3.terminate()

    def close(self) -> None:
        """Unmount where that is still to be done, and make the journal durable."""
        pyfuse3.close(unmount=True)
        if self.worktree.journal.broken is None:
            self.worktree.journal.sync()
        self.worktree.journal.close()

    # -- The control socket's service --------------------------------------------------------------------------------

    def _seal(self) -> Sealing:
        if self._sealing is None:
            raise ReadOnly("the mount is only starting; try again")
        return self._sealing

    async def hello(self, request: messages.Hello) -> messages.HelloReply:
        """Say who this is."""
        return messages.HelloReply(
            pid=os.getpid(),
            store=os.fsencode(self._store.path),
            branch=self._branch,
            mountpoint=os.fsencode(self._mountpoint),
            version=__version__,
        )

    async def take_snapshot(self, request: messages.TakeSnapshot) -> messages.SnapshotTaken:
        """Take a snapshot, of what mappings have stored too."""
        if request.name:
            self.worktree.snapshots.check_name(request.name)
        await self._durability.write_back()
        snapshot = self.worktree.snapshot(request.name, request.message, request.user, os.uname().nodename)
        forget_attributes(SNAPSHOTS_NODEID)
        if request.sync:
            await self._durability.sync()
        return messages.SnapshotTaken(snapshot.id)

    async def list_snapshots(self, request: messages.ListSnapshots) -> messages.Snapshots:
        """List the branch's snapshots, oldest first."""
        return messages.Snapshots([_info(snapshot) for snapshot in self.worktree.snapshots.all()])

    async def seal(self, request: messages.Seal) -> messages.Sealed:
        """Seal everything up to now."""
        await self._durability.write_back()
        await self._seal().seal_now()
        head = self._seal().head
        return messages.Sealed(head.tree.hex(), head.lsn, head.epoch)

    async def restore(self, request: messages.Restore) -> messages.Restored:
        """Bring back a state, after a snapshot of the present one."""
        snapshot = self.worktree.snapshots.get(request.id)
        await self._durability.write_back()
        what = snapshot.name.decode(errors="replace") or snapshot.id
        undo = self.worktree.snapshot(message=f"before restoring {what}")
        forget_attributes(SNAPSHOTS_NODEID)
        await self._seal().seal_now()
        snapshot = self.worktree.snapshots.get(request.id)
        restore = Restore(self.worktree, self._store.objects)
        now = self._seal().head.tree
        # From here until it is in the journal, where a collection finds it.
        with self._store.pins.held(now, snapshot.tree):
            plan = await trio.to_thread.run_sync(restore.plan, now, snapshot.tree, request.paths)
            changed = restore.apply(plan)
        await trio.to_thread.run_sync(invalidate, changed)
        return messages.Restored(undo.id, len(plan.steps) + len(plan.relinked))

    async def collect(self, request: messages.Collect) -> messages.Collected:
        """Give back the space that nothing needs."""
        if request.release_only:
            await self._seal().release()
            return messages.Collected()
        done = await self._seal().collect_now()
        return messages.Collected(**{name: getattr(done, name) for name in messages.Collected.__struct_fields__})

    async def stats(self, request: messages.Stats) -> messages.StatsReply:
        """Return the counters."""
        worktree, sealing = self.worktree, self._seal()
        return messages.StatsReply(
            {
                "uptime_seconds": round(time.time() - self._started_at, 3),
                "snapshots": len(worktree.snapshots),
                "epoch": worktree.index.epoch,
                "inodes_in_memory": len(worktree.inodes),
                "inodes_dirty": len(worktree.index.dirty),
                "inodes_unlinked_open": len(worktree.index.orphans),
                "journal_end_bytes": worktree.journal.end,
                "journal_synced_bytes": worktree.journal.synced,
                "journal_unsealed_bytes": sealing.backlog_bytes,
                "seals": sealing.seals,
                "sealer_restarts": sealing.restarts,
                "views_open": len(self._nodes.shown()),
            }
        )

    async def unmount(self, request: messages.Unmount) -> messages.Unmounting:
        """Seal and sync everything, then end."""
        await self._durability.write_back()
        try:
            await self._seal().seal_now()
        except HeliosError as error:
            # A full disk, or a branch that is read-only: the journal has everything, and the next mount seals it.
            _log.warning("unmounting with a journal that is not sealed: %s", error)
        try:
            await self._durability.sync()
        finally:
            pyfuse3.terminate()
        return messages.Unmounting()


def _info(snapshot: Snapshot) -> messages.SnapshotInfo:
    return messages.SnapshotInfo(
        id=snapshot.id,
        name=snapshot.name,
        message=snapshot.message,
        time_ns=snapshot.time_ns,
        parents=list(snapshot.parents),
        user=snapshot.user,
        host=snapshot.host,
        sealed=bool(snapshot.tree),
        tree=snapshot.tree.hex(),
    )


def quoted(text: str) -> str:
    """Return text as a mount option can carry it: bytes that are not plain ASCII as %XX."""
    return "".join(
        chr(byte) if _PLAIN.match(chr(byte)) and byte < 128 else f"%{byte:02X}" for byte in os.fsencode(text)
    )


def _raise_read_ahead(mountpoint: str) -> None:
    """Let the kernel ask for more at once when a file is read in order; only root may, and it is no loss otherwise."""
    device = os.stat(mountpoint).st_dev
    path = f"/sys/class/bdi/{os.major(device)}:{os.minor(device)}/read_ahead_kb"
    try:
        with open(path, "w") as knob:
            knob.write(str(_READ_AHEAD_KB))
    except OSError:
        _log.debug("%s: read-ahead stays as it is", path)


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="helios_fs.daemon", description="Started by `helios mount`.")
    parser.add_argument("--store", required=True)
    parser.add_argument("--branch", required=True)
    parser.add_argument("--mountpoint", required=True)
    parser.add_argument("--ready-fd", type=int)
    parser.add_argument("-o", dest="options", action="append", default=[])
    return parser.parse_args(arguments)


def main() -> NoReturn:
    """Mount, serve, unmount. Tells `--ready-fd` one line: `ready`, or `failed CODE TEXT`."""
    parsed = _parse(sys.argv[1:])
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr)
    options = {name: value for name, _, value in (option.partition("=") for option in parsed.options)}
    try:
        serve(parsed.store, parsed.branch, parsed.mountpoint, options, parsed.ready_fd)
    except (HeliosError, OSError) as error:
        text = " ".join(str(error).split()) or type(error).__name__
        if isinstance(error, NoSuchEntry):
            text = f"there is no branch {parsed.branch} in {parsed.store}: {text}"
        _log.error("%s", text)
        if parsed.ready_fd is not None:
            os.write(parsed.ready_fd, f"failed 3 {text}\n".encode(errors="backslashreplace"))
        sys.exit(3)
    sys.exit(0)


def serve(store_path: str, branch: str, mountpoint: str, options: dict[str, str], ready_fd: int | None) -> None:
    """Run one mount from beginning to end."""
    store = Store.open(store_path)
    try:
        lock = store.lock_branch(branch)
        try:
            try:
                daemon = Daemon(store, branch, mountpoint, options)
            except StoreFull:
                # Nobody can delete anything in a workspace that cannot be mounted.
                if not store.reserve.spend():
                    raise
                daemon = Daemon(store, branch, mountpoint, options)
            daemon.mount()
            _log.info("%s (branch %s) is mounted at %s", store.path, branch, mountpoint)
            # Handlers run for microseconds; a worker thread must not keep the loop waiting for milliseconds.
            sys.setswitchinterval(0.0005)
            try:
                trio.run(daemon.run, ready_fd)
            finally:
                daemon.close()
            _log.info("%s is unmounted", mountpoint)
        finally:
            lock.release()
    finally:
        store.close()


if __name__ == "__main__":
    main()
