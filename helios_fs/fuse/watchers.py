"""Telling the kernel, and by it whoever watches, what the daemon has changed itself: a restore, a merge.

The kernel tells whoever watches a directory (inotify, fanotify) of system calls only, whatever pyfuse3 has it forget.
So a process makes some (touch.py), and its requests are answered as if they did what is done already (pretence.py).
Why, which events come, and what it costs: docs/decisions/watching.md.

W1. A number is the process's while its requests are answered so, for it is waited for only when they no longer are: a
    dead process that nobody has waited for keeps its number.
W2. The answers are in place from a change until it is told. At any other time requests take the way they always do.
W3. Who asked for the change does not wait for the process, and only events are lost where it cannot start or dies.
W4. The process has nothing of the mount open while there is nothing to tell, and is gone before the mount is.
"""

import logging
import operator
import os
import subprocess
import sys
from collections import deque
from typing import TYPE_CHECKING, Final, NamedTuple

import trio

from helios_fs.fuse import touch
from helios_fs.fuse.invalidation import invalidate
from helios_fs.fuse.place import Place
from helios_fs.fuse.pretence import NOBODY, Key, Pretence
from helios_fs.history.changed import Changed, Name, Path

if TYPE_CHECKING:
    from helios_fs.fuse.mount import Mount

_log = logging.getLogger(__name__)

MAX_TOUCHES: Final = 20_000
"""Paths of one change that are touched; where there are more, it is the directories that hold them."""
_BATCH: Final = 256
_IDLE_SECONDS: Final = 30.0
_END_SECONDS: Final = 5.0


class _Change(NamedTuple):
    """What watchers are to hear of one change."""

    start: bytes
    """Which directory of the mount its tree is."""
    touches: list[touch.Touch]
    gone: dict[Key, int]
    made: set[Key]
    moved: dict[Key, Key]


class Watchers:
    """Those who watch one mount."""

    def __init__(self, mountpoint: bytes) -> None:
        self._mountpoint = mountpoint
        self.device = 0
        """The mount's st_dev; while it is not known, watchers are told nothing."""
        self._pretence: Pretence | None = None
        self._coming = 0
        """Changes of which the kernel is hearing."""
        self._waiting: deque[_Change] = deque()
        self._news = trio.Event()
        self._process: trio.Process | None = None
        self._is_busy = False
        self._is_stopped = False
        self._scope = trio.CancelScope()
        self._ended = trio.Event()

    def of(self, mount: "Mount") -> None:
        """Say which mount it is whose requests are answered."""
        self._pretence = Pretence(mount)

    async def tell(self, changed: Changed, start: bytes, place: Place) -> None:
        """Return when the kernel knows of a change; watchers hear of it soon after.

        `place` is where the tree is in the mount, `start` the path of its root. To be called before anybody can have
        seen the change.
        """
        change = self._describe(changed, start, place)
        if change is None or self._pretence is None:
            await trio.to_thread.run_sync(invalidate, changed, place)
            return
        self._pretence.begin()
        self._coming += 1
        try:
            await trio.to_thread.run_sync(invalidate, changed, place)
        finally:
            self._coming -= 1
            self._waiting.append(change)
            self._news.set()

    def _describe(self, changed: Changed, start: bytes, place: Place) -> _Change | None:
        if not self.device or self._is_stopped:
            return None
        touches = _touches(changed)
        if len(touches) > MAX_TOUCHES:
            above = sorted({os.path.dirname(path) for touched in touches for path in touched[2:] if path})
            _log.info("%d paths have changed: watchers hear of %d directories only", len(touches), len(above))
            return _Change(start, [(touch.ALTERED, b"", path, b"") for path in above[:MAX_TOUCHES]], {}, set(), {})
        gone = {_key(place, name): name.mode for name in changed.gone}
        made = {_key(place, name) for name in changed.made}
        moved = {(place.nodeid_of(each.directory), each.old[-1]): _key(place, each.new) for each in changed.moved}
        return _Change(start, touches, gone, made.union(moved.values()), moved) if touches else None

    # -- The process -------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Tell what there is to tell, until cancelled. The process is gone on return, unless it cannot be ended."""
        try:
            with self._scope:
                while True:
                    with trio.move_on_after(_IDLE_SECONDS) as patience:
                        await self._news.wait()
                    if patience.cancelled_caught:
                        await self._end()
                        await self._news.wait()
                    self._news = trio.Event()
                    await self._tell_all()
        finally:
            self._is_stopped = True
            await self._end()
            self._ended.set()

    async def stop(self) -> None:
        """Stop in the middle, and return when the process is gone."""
        self._is_stopped = True
        self._scope.cancel()
        if self._process is not None:
            await self._ended.wait()

    async def _tell_all(self) -> None:
        assert self._pretence is not None
        try:
            while self._waiting:
                change = self._waiting.popleft()
                self._pretence.expect(change.gone, change.made, change.moved)
                for first in range(0, len(change.touches), _BATCH):
                    await self._send(touch.pack(change.start, change.touches[first : first + _BATCH]))
        except (OSError, trio.BrokenResourceError, ValueError) as error:
            _log.warning("watchers do not hear of all that has changed: %s", error)
            self._waiting.clear()
            await self._end()
        if not self._coming and not self._waiting:
            self._pretence.end()

    async def _send(self, batch: bytes) -> None:
        assert self._pretence is not None
        if self._process is None:
            self._process = await trio.lowlevel.open_process(
                [sys.executable, "-B", "-P", touch.__file__, os.fsdecode(self._mountpoint), str(self.device)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                cwd="/",
            )
            self._pretence.process = self._process.pid
        assert self._process.stdin is not None and self._process.stdout is not None
        self._is_busy = True
        await self._process.stdin.send_all(batch)
        failed = await self._process.stdout.receive_some(64)
        self._is_busy = False
        if not failed:
            raise trio.BrokenResourceError("the process that touches it has ended")
        if int(failed):
            _log.debug("%d paths could not be touched", int(failed))

    async def _end(self) -> None:
        """End the process. While the mount's requests are read, that never takes long."""
        process = self._process
        if process is None or self._pretence is None:
            return
        assert process.stdin is not None and process.stdout is not None
        with trio.CancelScope(shield=True), trio.move_on_after(_END_SECONDS):
            if self._is_busy:
                process.kill()
            await process.stdin.aclose()
            watch = os.pidfd_open(process.pid)
            try:
                await trio.lowlevel.wait_readable(watch)
            finally:
                os.close(watch)
            # It is dead, and keeps its number until the next line but one (W1).
            self._pretence.process, self._process, self._is_busy = NOBODY, None, False
            await process.wait()
            await process.stdout.aclose()


def _key(place: Place, name: Name) -> Key:
    return place.nodeid_of(name.directory), name.path[-1]


def _touches(changed: Changed) -> list[touch.Touch]:
    """Return what is to be touched: a name before what lies below it, and what leaves it before what takes it."""
    join = b"/".join
    named: list[tuple[int, int, bytes, Name, Path]]
    named = [(len(name.path), 0, touch.GONE, name, ()) for name in changed.gone]
    named += [(len(new.path), 1, touch.MOVED, new, old) for _, old, new in changed.moved]
    named += [(len(name.path), 2, touch.MADE, name, ()) for name in changed.made]
    named.sort(key=operator.itemgetter(0, 1))
    touches = [(kind, b"%d" % name.mode, join(name.path), join(old)) for _, _, kind, name, old in named]
    touches += [(touch.WRITTEN, b"", join(path), b"") for path in dict.fromkeys(changed.written)]
    touches += [(touch.ALTERED, b"", join(path), b"") for path in dict.fromkeys(changed.altered)]
    return touches
