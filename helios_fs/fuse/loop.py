"""The request loop: pyfuse3's own, with a cheaper wait for the next request.

Knows pyfuse3's workers and trio's scheduler; knows nothing of what a request means.

pyfuse3's workers take turns: one holds a lock and waits until the kernel's descriptor is readable, reads one request,
releases the lock and answers. As it comes, every request pays for a lock handed from task to task and for a pass
through trio's scheduler, although most handlers never wait for anything. pyfuse3 looks up `Lock`, `open_nursery` and
`lowlevel.wait_readable` on its module attribute `pyfuse3.trio` each time it needs them (`pyfuse3.asyncio` lives of the
same seam). `run` puts a substitute there for as long as it runs.

Why it is sound:

L1. Only the worker that holds the baton waits for or reads from the descriptor. Between the answer "readable" and the
    read there is no checkpoint. The descriptor is non-blocking, so a request that its caller took back in that instant
    (a client killed) is an EAGAIN, never a daemon that hangs in read(2); the worker is then started again.
L2. A worker that comes back for the baton while it is free takes it without a checkpoint. So a handler that never
    waits costs no scheduling at all.
L3. While the baton is free and workers are parked, the end of any task's step wakes one of them. So as soon as a
    handler really waits, another worker reads; no handler has to say so. pyfuse3 starts one more worker whenever it
    reads a request while nobody is parked or waiting, so there is always one to wake, up to `max_tasks`.
L4. Whatever the load, a worker passes through trio at least once in `TURN_SECONDS`, plus the handler that is running
    then: timers, sockets and cancellation get their turn.
L5. `pyfuse3.terminate` marks the seam as closing before it wakes whoever waits, and nobody goes to sleep on a closing
    seam. An unmount makes the descriptor readable with ENODEV for good. Either way each worker that ends frees the
    baton, and by L3 wakes the next one, until all have ended.

Why it spins: a sleep costs some 10 µs of Python on either side, and on a virtual machine tens of µs until a core is
awake again. So after a request the worker asks for up to `SPIN_SECONDS` whether the next one is there, which is what
the sleep would cost anyway; and it does so only while requests do come that close together. Measured in
docs/decisions/request-loop.md: less latency, and also less CPU.
"""

import errno
import logging
import os
import select
import time
from collections import deque
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Any, Final

import pyfuse3
import trio

TURN_SECONDS: Final = 0.001
"""The longest time between two passes through trio's scheduler (L4)."""

SPIN_SECONDS: Final = 0.000_050
"""How long a worker asks for the next request before it goes to sleep."""

CLOSE_SECONDS: Final = 0.000_100
"""A sleep shorter than this means that requests come close together, and that spinning pays."""

_TESTED_VERSIONS: Final[tuple[str, ...]] = ("3.5.",)
"""Releases of pyfuse3 whose use of the seam has been read and tested."""

_log = logging.getLogger(__name__)


class _Baton(trio.abc.Instrument):
    """The lock around waiting and reading: taking it while it is free is no checkpoint (L1 to L3)."""

    def __init__(self) -> None:
        self.held = False
        self.parked: deque[trio.lowlevel.Task] = deque()

    async def __aenter__(self) -> None:
        while self.held:
            await self._park()
        self.held = True

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.held = False

    async def _park(self) -> None:
        task = trio.lowlevel.current_task()
        self.parked.append(task)

        def abort(_: object) -> trio.lowlevel.Abort:
            # A worker that was woken a moment ago is not parked any more; trio then never asks.
            self.parked.remove(task)
            return trio.lowlevel.Abort.SUCCEEDED

        await trio.lowlevel.wait_task_rescheduled(abort)

    def wake_one(self) -> None:
        """Let one parked worker read, unless somebody does."""
        if self.parked and not self.held:
            trio.lowlevel.reschedule(self.parked.popleft())

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        """Called by trio whenever a task has yielded or ended (L3)."""
        self.wake_one()


class _Nursery:
    """A trio nursery for workers: one that lost the race of L1 is started again."""

    def __init__(self) -> None:
        self._manager = trio.open_nursery()

    async def __aenter__(self) -> "_Nursery":
        self._nursery = await self._manager.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        return await self._manager.__aexit__(kind, error, traceback)

    def start_soon(self, worker: Callable[..., Awaitable[None]], *args: object, name: object = None) -> None:
        """Start a worker."""
        self._nursery.start_soon(self._run_worker, worker, args, name=name)

    async def _run_worker(self, worker: Callable[..., Awaitable[None]], args: tuple[object, ...]) -> None:
        while True:
            try:
                return await worker(*args)
            except OSError as error:
                # pyfuse3 gives no other sign. Its count of workers still has the one that ended, so one replaces it.
                if error.errno != errno.EAGAIN or "fuse_session_receive_buf" not in str(error):
                    raise


class _Seam:
    """Stands where pyfuse3 expects the module `trio`, and where it expects `trio.lowlevel`."""

    ClosedResourceError = trio.ClosedResourceError
    open_nursery = _Nursery
    current_task = staticmethod(trio.lowlevel.current_task)
    current_trio_token = staticmethod(trio.lowlevel.current_trio_token)

    def __init__(self, baton: _Baton) -> None:
        self.lowlevel = self
        self._baton = baton
        self._closing = False
        self._fd = -1
        self._poll: Callable[[int], object] = select.poll().poll
        self._spins = True
        self._turn_ends = 0.0

    def Lock(self) -> _Baton:  # noqa: N802 - the name pyfuse3 asks for
        """Return the one baton."""
        return self._baton

    def notify_closing(self, fd: int) -> None:
        """Make the worker that waits for `fd` raise ClosedResourceError, or the next one that would (L5)."""
        self._closing = True
        trio.lowlevel.notify_closing(fd)

    async def wait_readable(self, fd: int) -> None:
        """Return when a request can be read from `fd`. A checkpoint only now and then (L4).

        Raises trio.ClosedResourceError once `notify_closing` was called.
        """
        if fd != self._fd:
            self._adopt(fd)
        poll = self._poll
        now = time.monotonic()
        if now < self._turn_ends:
            if poll(0):
                return
            if self._spins:
                stop = now + SPIN_SECONDS
                while time.monotonic() < stop:
                    if poll(0):
                        return
        else:
            await trio.lowlevel.checkpoint()
            if self._closing:
                raise trio.ClosedResourceError
            if poll(0):
                self._turn_ends = time.monotonic() + TURN_SECONDS
                return
        await self._sleep(fd)

    async def _sleep(self, fd: int) -> None:
        before = time.monotonic()
        await trio.lowlevel.wait_readable(fd)
        now = time.monotonic()
        self._spins = now - before < CLOSE_SECONDS
        self._turn_ends = now + TURN_SECONDS

    def _adopt(self, fd: int) -> None:
        os.set_blocking(fd, False)
        poller = select.poll()
        poller.register(fd, select.POLLIN)
        self._fd = fd
        self._poll = poller.poll


def seam_is_open() -> bool:
    """Tell whether this pyfuse3 is one that the substitute was tested with, and nobody else took its place."""
    return pyfuse3.__version__.startswith(_TESTED_VERSIONS) and _module().get("trio") is trio


async def run(min_tasks: int = 1, max_tasks: int = 99) -> None:
    """Answer requests until the filesystem is unmounted or `pyfuse3.terminate` is called; `pyfuse3.init` came before.

    At most `max_tasks` requests wait at one time; beyond `min_tasks` idle workers end. Where the seam is closed it is
    pyfuse3's own loop, slower and otherwise the same; the log says so once.
    """
    if not seam_is_open():
        _log.warning("pyfuse3 %s was not tested with the fast request loop; using its own", pyfuse3.__version__)
        await pyfuse3.main(min_tasks, max_tasks)
        return
    baton = _Baton()
    module = _module()
    module["trio"] = _Seam(baton)
    trio.lowlevel.add_instrument(baton)
    try:
        await pyfuse3.main(min_tasks, max_tasks)
    finally:
        trio.lowlevel.remove_instrument(baton)
        module["trio"] = trio


def _module() -> dict[str, Any]:
    # `trio` is no part of pyfuse3's declared interface, so the type checker knows it only as an entry here.
    return vars(pyfuse3)
