"""The daemon's end of the pipes to its sealer: one process for all branches that a mount shows.

Knows messages, never what is sealed or why.

P1. Whoever talks to it does so in a `turn`, from the request to the last reply. A turn that ends before that, because
    its branch is closed or an error came between, ends the process: what it has still to say would be taken for the
    answer to the next request.
P2. It is started at the first request, and again after it died; a request that it died of is the caller's to repeat.
"""

import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

from helios_fs.errors import Busy, StoreFault, StoreFull
from helios_fs.sealer import messages


class SealerPipe:
    """One sealer process, started when it is needed."""

    def __init__(self, store_path: str) -> None:
        self._store_path = store_path
        self._process: trio.Process | None = None
        self._received = bytearray()
        self._turn = trio.Lock()
        self._is_talking = False

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Let nobody else talk to it for the length of a `with`."""
        async with self._turn:
            try:
                yield
            finally:
                if self._is_talking:
                    await self.stop()

    async def say(self, message: messages.Request) -> None:
        """Send a request. Raises trio.BrokenResourceError, OSError where the process is gone."""
        if self._process is None:
            self._received.clear()
            self._process = await trio.lowlevel.open_process(
                [sys.executable, "-m", "helios_fs.sealer.process", self._store_path],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
            )
        assert self._process.stdin is not None
        self._is_talking = True
        await self._process.stdin.send_all(messages.frame(message))

    async def hear(self) -> messages.Reply:
        """Return the next reply. Raises what the sealer could not do as StoreFull, Busy or StoreFault."""
        (length,) = messages.LENGTH.unpack(await self._take(messages.LENGTH.size))
        reply: messages.Reply = messages.decode_reply(await self._take(length))
        self._is_talking = isinstance(reply, messages.Begun | messages.Batch)
        if isinstance(reply, messages.Refused):
            if reply.error == "StoreFull":
                raise StoreFull(reply.message)
            if reply.error == "Busy":
                raise Busy(reply.message)
            raise StoreFault(f"{reply.error}: {reply.message}")
        return reply

    async def _take(self, count: int) -> bytes:
        assert self._process is not None and self._process.stdout is not None
        while len(self._received) < count:
            more = await self._process.stdout.receive_some(1 << 16)
            if not more:
                raise trio.BrokenResourceError("its pipe was closed")
            self._received += more
        taken = bytes(self._received[:count])
        del self._received[:count]
        return taken

    async def stop(self) -> None:
        """End the process and wait until it is gone. What it had not published stays in the journals."""
        if self._process is not None:
            process, self._process = self._process, None
            self._is_talking = False
            process.kill()
            with trio.CancelScope(shield=True):
                await process.wait()
