"""The daemon behind one mount: the only file that knows all the parts, and wires them together.

G1. Order of start: lock, recover, mount, say that it is ready. Order of end: unmounted, journal synced, sealer gone.
G2. SIGTERM, SIGINT and SIGHUP are a clean unmount.
"""

import argparse
import functools
import logging
import os
import re
import resource
import signal
import sys
import time
from typing import Final, NoReturn

import pyfuse3
import trio

from helios_fs.control import server
from helios_fs.control.client import socket_name
from helios_fs.errors import HeliosError, MountFailed, NoSuchEntry, StoreFull
from helios_fs.fuse import loop
from helios_fs.fuse.forest import Forest, Options, ShownBranch
from helios_fs.fuse.mount import Mount
from helios_fs.fuse.transport import give_up_large_pipes, keep_freed_memory
from helios_fs.fuse.upkeep import AutoPrune, AutoSnapshot
from helios_fs.history.schedule import parse_schedule
from helios_fs.objects.snapshot import Snapshot
from helios_fs.service import BranchService
from helios_fs.store.store import Store
from helios_fs.worktree.recovery import known_snapshots

_log = logging.getLogger("helios_fs.daemon")

_SYNC_SECONDS: Final = 5.0
_READ_AHEAD_KB: Final = 1024
_PLAIN: Final = re.compile(r"[A-Za-z0-9/._#+@:=~-]")


class Daemon:
    """One mount of one branch, and of those below its `.branches`."""

    def __init__(
        self,
        store: Store,
        branch: str,
        mountpoint: str,
        options: dict[str, str],
        called: str,
        snapshot: Snapshot | None = None,
    ) -> None:
        """Recover the branch, whose lock the caller holds; or show a sealed `snapshot` of it, without any lock."""
        self._store = store
        self._called = called
        """What mountinfo and the control socket call it."""
        if snapshot is not None:
            options = {**options, "ro": ""}
        self._mountpoint = mountpoint
        self._options = options
        self._started_at = time.time()
        shown = Options(
            os.fsencode(options.get("snapshots_dir", ".snapshots")),
            os.fsencode(options.get("branches_dir", ".branches")),
            "show_snapshots" in options,
            "ro" in options,
        )
        self._forest = Forest(store, os.fsencode(mountpoint), shown)
        if snapshot is None:
            self._forest.open_first(branch)
        else:
            self._forest.show_frozen(branch, snapshot.tree)

    def _says_where_branches_are(self) -> str:
        """Return what tells the command line under which name `.branches` is, where that is another one."""
        return f"|{self._options['branches_dir']}" if "branches_dir" in self._options else ""

    def mount(self) -> None:
        """Make the kernel's side. Raises MountFailed."""
        options = {
            "default_permissions",
            "subtype=helios",
            f"fsname={quoted(self._store.path + '#' + self._called + self._says_where_branches_are())}",
        }
        options.update({"allow_other", "ro", "noexec"} & self._options.keys())
        if os.geteuid() == 0:
            # For others fusermount3 adds nodev and nosuid, whatever is asked for.
            options.update({"dev", "suid"} - {option.removeprefix("no") for option in self._options})
        give_up_large_pipes()
        keep_freed_memory()
        try:
            pyfuse3.init(Mount(self._forest), self._mountpoint, options)
        except RuntimeError as error:
            raise MountFailed(f"the kernel refused the mount at {self._mountpoint}: {error}") from error

    async def run(self, ready_fd: int | None) -> None:
        """Answer requests until unmounted; everything answered is durable on return."""
        run_directory = os.open(os.path.join(self._store.path, "run"), os.O_RDONLY | os.O_DIRECTORY)

        async def serve_branch(shown: ShownBranch, task_status: trio.TaskStatus[None]) -> None:
            service = BranchService(self._forest, shown, self._started_at)
            name = socket_name(self._called if shown is self._forest.first else shown.branch)
            await server.serve(run_directory, name, service, task_status=task_status)

        try:
            async with trio.open_nursery() as nursery:
                await nursery.start(self._forest.run, serve_branch)
                nursery.start_soon(self._sync_now_and_then)
                nursery.start_soon(self._end_on_signal)
                nursery.start_soon(self._tell_ready, ready_fd)
                self._start_upkeep(nursery)
                await loop.run()
                nursery.cancel_scope.cancel()
        finally:
            os.close(run_directory)

    def _start_upkeep(self, nursery: trio.Nursery) -> None:
        """Start what the mount does unasked, where it was told to, for the branch that is mounted."""
        shown, when = self._forest.first, self._options.get("auto_snapshot")
        service = BranchService(self._forest, shown, self._started_at)
        if when:
            take = functools.partial(service.take_automatic, f"helios mount --auto-snapshot {when}")
            nursery.start_soon(AutoSnapshot(parse_schedule(when), shown.worktree, take).run)
        if "retention" in self._options:
            nursery.start_soon(AutoPrune(self._store, shown.worktree, service.delete).run)

    async def _tell_ready(self, ready_fd: int | None) -> None:
        # The kernel answers nobody before the first request, INIT, is answered; a stat in a thread waits for that.
        await trio.to_thread.run_sync(os.stat, self._mountpoint)
        await trio.to_thread.run_sync(_raise_read_ahead, self._mountpoint)
        if ready_fd is not None:
            os.write(ready_fd, b"ready\n")
            os.close(ready_fd)

    async def _sync_now_and_then(self) -> None:
        """A snapshot or a branch survives a power cut within five seconds, asked for or not."""
        while True:
            await trio.sleep(_SYNC_SECONDS)
            for shown in self._forest.shown():
                journal = shown.worktree.journal
                if journal.broken is None and journal.synced < journal.end:
                    try:
                        await shown.durability.sync()
                    except HeliosError:
                        _log.exception("the journal of %s could not be synced; it is read-only", shown.branch)

    async def _end_on_signal(self) -> None:
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP) as signals:
            async for _ in signals:
                pyfuse3.terminate()

    def close(self) -> None:
        """Unmount where that is still to be done, and make the journal durable."""
        pyfuse3.close(unmount=True)
        self._forest.close_all()


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
    parser.add_argument("--snapshot")
    parser.add_argument("--called")
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
        if parsed.snapshot is not None:
            called = parsed.called or f"{parsed.branch}@{parsed.snapshot}"
            serve_snapshot(
                parsed.store, parsed.branch, parsed.snapshot, parsed.mountpoint, options, called, parsed.ready_fd
            )
        else:
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
        with store.lock_branch(branch):
            try:
                daemon = Daemon(store, branch, mountpoint, options, branch)
            except StoreFull:
                # Nobody can delete anything in a workspace that cannot be mounted.
                if not store.reserve.spend():
                    raise
                daemon = Daemon(store, branch, mountpoint, options, branch)
            _run(daemon, f"{store.path} (branch {branch})", mountpoint, ready_fd)
    finally:
        store.close()


def serve_snapshot(
    store_path: str,
    branch: str,
    snapshot_id: str,
    mountpoint: str,
    options: dict[str, str],
    called: str,
    ready_fd: int | None,
) -> None:
    """Run one mount of a sealed snapshot from beginning to end."""
    with Store.open(store_path) as store:
        snapshot = known_snapshots(store, branch).get(snapshot_id)
        daemon = Daemon(store, branch, mountpoint, options, called, snapshot)
        _run(daemon, f"{store.path} (snapshot {snapshot_id})", mountpoint, ready_fd)


def _allow_many_files() -> None:
    """Let the process have as many descriptors as it may: each open branch needs some."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _run(daemon: Daemon, what: str, mountpoint: str, ready_fd: int | None) -> None:
    _allow_many_files()
    daemon.mount()
    _log.info("%s is mounted at %s", what, mountpoint)
    # Handlers run for microseconds; a worker thread must not keep the loop waiting for milliseconds.
    sys.setswitchinterval(0.0005)
    try:
        trio.run(daemon.run, ready_fd)
    finally:
        daemon.close()
    _log.info("%s is unmounted", mountpoint)


if __name__ == "__main__":
    main()
