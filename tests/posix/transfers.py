"""Bytes that go by other ways than read and write: splice, sendfile, asynchronous I/O."""

import ctypes
import mmap
import os
import platform
import socket
import struct
from pathlib import Path

from tests.posix.probe import check, file, probe, refused
from tests.posix.system import call

CONTENT = bytes(range(256)) * 32
_AIO = {"x86_64": (206, 209, 208), "aarch64": (0, 2, 4)}
"""Numbers of io_setup, io_submit, io_getevents."""


@probe("splice from a file into a pipe, and back")
def splice() -> None:
    source = os.open(file("source", CONTENT), os.O_RDONLY)
    target = os.open("target", os.O_WRONLY | os.O_CREAT)
    reading, writing = os.pipe()
    check(os.splice(source, writing, len(CONTENT)) == len(CONTENT), "short")
    check(os.splice(reading, target, len(CONTENT)) == len(CONTENT), "short")
    check(Path("target").read_bytes() == CONTENT, "other bytes")


@probe("vmsplice, then splice into a file")
def vmsplice() -> None:
    reading, writing = os.pipe()
    buffer = ctypes.create_string_buffer(CONTENT, len(CONTENT))
    vector = struct.pack("PN", ctypes.addressof(buffer), len(CONTENT))
    call("vmsplice", writing, vector, 1, 0)
    target = os.open("target", os.O_WRONLY | os.O_CREAT)
    check(os.splice(reading, target, len(CONTENT)) == len(CONTENT), "short")
    check(Path("target").read_bytes() == CONTENT, "other bytes")


@probe("sendfile to a socket")
def sendfile_to_a_socket() -> None:
    one, two = socket.socketpair()
    with one, two, open(file("source", CONTENT), "rb") as source:
        check(os.sendfile(one.fileno(), source.fileno(), 0, len(CONTENT)) == len(CONTENT), "short")
        check(two.recv(len(CONTENT), socket.MSG_WAITALL) == CONTENT, "other bytes")


@probe("sendfile to a file")
def sendfile_to_a_file() -> None:
    with open(file("source", CONTENT), "rb") as source, open("target", "wb") as target:
        check(os.sendfile(target.fileno(), source.fileno(), 0, len(CONTENT)) == len(CONTENT), "short")
    check(Path("target").read_bytes() == CONTENT, "other bytes")


@probe("preadv, pwritev: many buffers in one call")
def vectors() -> None:
    fd = os.open("file", os.O_RDWR | os.O_CREAT)
    check(os.pwritev(fd, [b"12", b"", b"345"], 3) == 5, "short")
    first, second = bytearray(4), bytearray(4)
    check(os.preadv(fd, [first, second], 0) == 8 and first + second == b"\0\0\x0012345", "other bytes")


@probe("preadv2: RWF_NOWAIT of what is cached")
def nowait() -> None:
    fd = os.open(file("file"), os.O_RDONLY)
    os.pread(fd, 10, 0)
    buffer = bytearray(7)
    check(os.preadv(fd, [buffer], 0, os.RWF_NOWAIT) == 7, "short")


@probe("Linux AIO (io_submit): write, fsync, read")
def linux_aio() -> None:
    setup, submit, get = _AIO[platform.machine()]
    context = ctypes.c_ulong(0)
    call("syscall", setup, 8, ctypes.byref(context))
    fd = os.open("file", os.O_RDWR | os.O_CREAT | os.O_DIRECT)
    block = mmap.mmap(-1, 4096)
    address = ctypes.addressof(ctypes.c_char.from_buffer(block))
    for opcode, length in ((1, 4096), (2, 0), (0, 4096)):
        block[:] = b"a" * 4096 if opcode == 1 else bytes(4096)
        control = struct.pack("=QIIHhIQQqQII", 0, 0, 0, opcode, 0, fd, address if length else 0, length, 0, 0, 0, 0)
        buffer = ctypes.create_string_buffer(control, len(control))
        call("syscall", submit, context, 1, ctypes.byref(ctypes.c_void_p(ctypes.addressof(buffer))))
        event = ctypes.create_string_buffer(32)
        call("syscall", get, context, 1, 1, event, None)
        result = struct.unpack_from("=QQq", event)[2]
        if result < 0:
            raise OSError(-result, os.strerror(-result))
        check(result == length, f"{result}")
    check(block[:] == b"a" * 4096, "other bytes")


class _Ring:
    """The least of io_uring(7): one operation at a time."""

    def __init__(self) -> None:
        parameters = ctypes.create_string_buffer(120)
        self._fd = call("syscall", 425, 4, parameters)
        words = struct.unpack("=30I", parameters.raw)
        self._tail, self._array = words[11], words[16]
        self._completion_head, self._completions = words[20], words[25]
        self._rings = mmap.mmap(self._fd, max(self._array + 64, self._completions + 256))
        self._requests = mmap.mmap(self._fd, 4 * 64, offset=0x10000000)
        self._done = 0

    def do(self, opcode: int, fd: int, address: int, length: int) -> int:
        """Return what one operation at offset 0 returns. Raises OSError."""
        slot = self._done % 4
        self._requests[slot * 64 : slot * 64 + 64] = struct.pack(
            "=BBHiQQII32x", opcode, 0, 0, fd, 0, address, length, 0
        )
        struct.pack_into("=I", self._rings, self._array + 4 * slot, slot)
        struct.pack_into("=I", self._rings, self._tail, self._done + 1)
        call("syscall", 426, self._fd, 1, 1, 1, None, 0)  # IORING_ENTER_GETEVENTS
        place = self._completions + 16 * (self._done % 8)
        result = struct.unpack_from("=Qi", self._rings, place)[1]
        self._done += 1
        struct.pack_into("=I", self._rings, self._completion_head, self._done)
        if result < 0:
            raise OSError(-result, os.strerror(-result))
        return int(result)


@probe("io_uring: write, fsync, read")
def io_uring() -> None:
    ring = _Ring()
    fd = os.open("file", os.O_RDWR | os.O_CREAT)
    buffer = ctypes.create_string_buffer(CONTENT, len(CONTENT))
    address = ctypes.addressof(buffer)
    check(ring.do(23, fd, address, len(CONTENT)) == len(CONTENT), "short")
    check(ring.do(3, fd, 0, 0) == 0, "no sync")
    ctypes.memset(address, 0, len(CONTENT))
    check(ring.do(22, fd, address, len(CONTENT)) == len(CONTENT), "short")
    check(buffer.raw == CONTENT, "other bytes")


@probe("ioctl that nobody knows: ENOTTY")
def unknown_control() -> None:
    import fcntl

    with open(file("file")) as opened:
        check(refused(fcntl.ioctl, opened, 0x4DEAD) == "ENOTTY", "something else")
