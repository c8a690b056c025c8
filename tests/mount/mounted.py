"""A mounted workspace as its user has it: made, mounted, killed and mounted again through the real command line."""

import os
import select
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from helios_fs.control import messages
from helios_fs.control.client import find_daemon

Helios = Callable[..., subprocess.CompletedProcess[str]]

PATIENCE_SECONDS = 60


class Workspace:
    """A store and its mountpoint below one folder."""

    def __init__(self, helios: Helios, folder: Path, make_store: bool = True) -> None:
        """Make the store, unless the caller brings one; nothing is mounted yet."""
        self.path = folder / "workspace"
        self.store = folder / "workspace-store"
        self.helios = helios
        self.path.mkdir()
        if make_store:
            helios("init", self.store, check=True)

    def mount(self) -> None:
        """Mount, also over what a daemon that was killed has left."""
        self.helios("mount", self.path, "--store", self.store, check=True)

    def unmount(self) -> None:
        """Unmount as a user does."""
        self.helios("unmount", self.path, check=True)

    def remount(self) -> None:
        """Unmount and mount again."""
        self.unmount()
        self.mount()

    def seal(self) -> None:
        """Return when everything up to now is sealed: nothing below the mount stands in the journal any more."""
        connection = find_daemon(str(self.store), "main")
        assert connection is not None, "no daemon listens"
        with connection:
            connection.ask(messages.Seal(), messages.Sealed, PATIENCE_SECONDS)

    def daemon(self) -> int:
        """Return the daemon's process id."""
        connection = find_daemon(str(self.store), "main")
        assert connection is not None, "no daemon listens"
        with connection:
            return connection.hello().pid

    def kill(self) -> None:
        """Kill the daemon as `kill -9` does; return when it is gone."""
        killer = Killer(self.daemon())
        killer.kill()
        killer.wait()

    def sealers(self) -> list[int]:
        """Return the sealer processes that work on this store."""
        found = []
        for process in Path("/proc").iterdir():
            if process.name.isdigit():
                try:
                    words = (process / "cmdline").read_bytes().split(b"\0")
                except OSError:
                    continue  # it ended while we looked
                if b"helios_fs.sealer.process" in words and os.fsencode(self.store) in words:
                    found.append(int(process.name))
        return found

    def remove(self) -> None:
        """Leave nothing behind, whatever state the test has left: no mount, no process."""
        if find_mounts(self.path):
            done = self.helios("unmount", self.path)
            if find_mounts(self.path):
                subprocess.run(["fusermount3", "-uz", str(self.path)], check=True, timeout=PATIENCE_SECONDS)
                raise AssertionError(f"helios unmount left the mount: {done.stdout}{done.stderr}")
        assert find_daemon(str(self.store), "main") is None, "the daemon has outlived its mount"
        for sealer in self.sealers():
            # A sealer that works ends when it next looks at its pipe.
            Killer(sealer).wait()


class Killer:
    """One process that will be killed, told apart from a later one with the same number."""

    def __init__(self, process: int) -> None:
        self._pidfd = os.pidfd_open(process)
        self._timer: threading.Timer | None = None

    def send(self, signal_number: int) -> None:
        """Send a signal; fine if it has ended already."""
        try:
            signal.pidfd_send_signal(self._pidfd, signal_number)
        except ProcessLookupError:
            pass

    def kill(self) -> None:
        """Send SIGKILL; fine if it has ended already."""
        self.send(signal.SIGKILL)

    def kill_after(self, seconds: float) -> None:
        """Kill it in a while."""
        self._timer = threading.Timer(seconds, self.kill)
        self._timer.start()

    def wait(self) -> None:
        """Return when it has ended."""
        if self._timer is not None:
            self._timer.join()
        poll = select.poll()
        poll.register(self._pidfd, select.POLLIN)
        assert poll.poll(PATIENCE_SECONDS * 1000), "it does not end"
        self.close()

    def close(self) -> None:
        """Let go of it."""
        os.close(self._pidfd)


def find_mounts(path: Path) -> bool:
    """Tell whether something is mounted at `path`, also where its daemon is gone."""
    wanted = str(path.resolve(strict=False)).replace(" ", "\\040")
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as mounts:
        return any(line.split()[4] == wanted for line in mounts)


@contextmanager
def mounted_workspace(helios: Helios, folder: Path) -> Iterator[Workspace]:
    """A new, empty, mounted workspace; unmounted afterwards, and verified gone."""
    workspace = Workspace(helios, folder)
    try:
        workspace.mount()
        yield workspace
    finally:
        workspace.remove()
