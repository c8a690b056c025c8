"""A filesystem in memory, small enough to read at once, to try the request loop on a real mount.

`python tiny_mount.py MOUNTPOINT [--stock] [--deceive]` mounts, prints "ready", and ends by unmount or by a line on its
standard input ("terminate"). Nothing is cached by the kernel, so that every call is a request.

Names that mean something: `sleep-N` answers a getattr after N ms, `thread-N` the same in a thread (a lookup that waits
would make the kernel keep back all others in that directory), `denied` is refused, `ticks` has as its size how often
a timer of 10 ms has fired, `fast` is there only while the fast loop runs; `steady` is the one name that the kernel
may keep, so that a forced statx of it is one request.
"""

import errno
import select
import stat
import sys
import time
from collections.abc import Sequence
from typing import Final

import pyfuse3
import trio
from pyfuse3 import FileHandleT, FileNameT, FlagT, InodeT, ModeT

from helios_fs.fuse import loop

TICKS: Final = 2
FAST: Final = 3
STEADY: Final = 4
FIRST_WAITING: Final = {b"sleep": 100_000, b"thread": 200_000}
"""A file that waits has this number plus the milliseconds."""


class DeceivingPoll:
    """A `select.poll` that says "readable" now and then when nothing is: a request that was taken back."""

    def __init__(self) -> None:
        self._real = _real_poll()
        self._calls = 0

    def register(self, fd: int, events: int) -> None:
        self._real.register(fd, events)

    def poll(self, timeout_ms: int) -> object:
        self._calls += 1
        return self._real.poll(timeout_ms) or self._calls % 50 == 0


_real_poll = select.poll


class TinyOperations(pyfuse3.Operations):
    def __init__(self) -> None:
        super().__init__()
        self.ticks = 0
        self._inodes: dict[bytes, int] = {}
        self._content: dict[int, bytearray] = {}
        self._steady = self._attributes(STEADY, stat.S_IFREG | 0o644, 0)
        self._steady.entry_timeout = 1000

    async def lookup(
        self, parent_inode: InodeT, name: FileNameT, ctx: pyfuse3.RequestContext
    ) -> pyfuse3.EntryAttributes:
        kind, _, number = name.partition(b"-")
        if kind in FIRST_WAITING:
            return self._of(FIRST_WAITING[kind] + int(number))
        if name == b"denied":
            raise pyfuse3.FUSEError(errno.EACCES)
        if name == b"ticks":
            return self._of(TICKS)
        if name == b"steady":
            return self._steady
        if name == b"fast" and vars(pyfuse3)["trio"] is not trio:
            return self._of(FAST)
        if name in self._inodes:
            return self._of(self._inodes[name])
        raise pyfuse3.FUSEError(errno.ENOENT)

    async def getattr(self, inode: InodeT, ctx: pyfuse3.RequestContext) -> pyfuse3.EntryAttributes:
        if inode == STEADY:
            return self._steady
        if inode >= FIRST_WAITING[b"thread"]:
            await trio.to_thread.run_sync(time.sleep, (inode - FIRST_WAITING[b"thread"]) / 1000)
        elif inode >= FIRST_WAITING[b"sleep"]:
            await trio.sleep((inode - FIRST_WAITING[b"sleep"]) / 1000)
        return self._of(inode)

    async def setattr(
        self,
        inode: InodeT,
        attr: pyfuse3.EntryAttributes,
        fields: pyfuse3.SetattrFields,
        fh: FileHandleT | None,
        ctx: pyfuse3.RequestContext,
    ) -> pyfuse3.EntryAttributes:
        return self._of(inode)

    async def create(
        self, parent_inode: InodeT, name: FileNameT, mode: ModeT, flags: FlagT, ctx: pyfuse3.RequestContext
    ) -> tuple[pyfuse3.FileInfo, pyfuse3.EntryAttributes]:
        inode = self._inodes[name] = 10 + len(self._inodes)
        self._content[inode] = bytearray()
        return pyfuse3.FileInfo(fh=FileHandleT(inode), keep_cache=False), self._of(inode)

    async def open(self, inode: InodeT, flags: FlagT, ctx: pyfuse3.RequestContext) -> pyfuse3.FileInfo:
        return pyfuse3.FileInfo(fh=FileHandleT(inode), keep_cache=False)

    async def read(self, fh: FileHandleT, off: int, size: int) -> bytes:
        return bytes(self._content[fh][off : off + size])

    async def write(self, fh: FileHandleT, off: int, buf: bytes) -> int:
        self._content[fh][off : off + len(buf)] = buf
        return len(buf)

    async def forget(self, inode_list: Sequence[tuple[InodeT, int]]) -> None:
        pass

    def _of(self, inode: int) -> pyfuse3.EntryAttributes:
        if inode == pyfuse3.ROOT_INODE:
            return self._attributes(inode, stat.S_IFDIR | 0o755, 0)
        if inode == TICKS:
            return self._attributes(inode, stat.S_IFREG | 0o444, self.ticks)
        return self._attributes(inode, stat.S_IFREG | 0o644, len(self._content.get(inode, b"")))

    @staticmethod
    def _attributes(inode: int, mode: int, size: int) -> pyfuse3.EntryAttributes:
        entry = pyfuse3.EntryAttributes()
        entry.st_ino = InodeT(inode)
        entry.st_mode = ModeT(mode)
        entry.st_size = size
        entry.entry_timeout = entry.attr_timeout = 0
        return entry


async def tick(operations: TinyOperations) -> None:
    while True:
        await trio.sleep(0.01)
        operations.ticks += 1


async def obey_standard_input() -> None:
    if await trio.to_thread.run_sync(sys.stdin.readline, abandon_on_cancel=True) == "terminate\n":
        pyfuse3.terminate()


async def serve(operations: TinyOperations) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(tick, operations)
        nursery.start_soon(obey_standard_input)
        await loop.run()
        nursery.cancel_scope.cancel()


def main() -> None:
    if "--stock" in sys.argv:
        vars(loop)["_TESTED_VERSIONS"] = ()  # as if this pyfuse3 were a new one
    if "--deceive" in sys.argv:
        vars(select)["poll"] = DeceivingPoll  # what no client can do at will
    operations = TinyOperations()
    pyfuse3.init(operations, sys.argv[1], {"fsname=helios-tiny"})
    print("ready", flush=True)
    try:
        trio.run(serve, operations)
    finally:
        pyfuse3.close(unmount=True)


if __name__ == "__main__":
    main()
