"""Locks and leases."""

import fcntl
import os
import signal
import struct

from tests.posix.probe import check, file, probe, refused
from tests.posix.system import Killed, in_child

NOW = fcntl.LOCK_EX | fcntl.LOCK_NB
OFD_SETLK = 37


def _flocked(kind: int = NOW) -> str:
    """What another process hears that wants a flock."""
    return in_child(lambda: refused(fcntl.flock, os.open("file", os.O_RDWR), kind))


def _locked(kind: int = NOW, length: int = 0, start: int = 0) -> str:
    """What another process hears that wants a POSIX lock."""
    return in_child(lambda: refused(fcntl.lockf, os.open("file", os.O_RDWR), kind, length, start))


@probe("flock between processes")
def flock() -> None:
    fd = os.open(file("file"), os.O_RDWR)
    fcntl.flock(fd, fcntl.LOCK_EX)
    check(_flocked() == "EAGAIN", "two hold it")
    fcntl.flock(fd, fcntl.LOCK_UN)
    check(_flocked() == "done", "not given back")


@probe("flock: several readers, no writer")
def flock_shared() -> None:
    fcntl.flock(os.open(file("file"), os.O_RDONLY), fcntl.LOCK_SH)
    check(_flocked(fcntl.LOCK_SH | fcntl.LOCK_NB) == "done", "one reader only")
    check(_flocked() == "EAGAIN", "a writer too")


@probe("flock of a directory")
def flock_of_a_directory() -> None:
    one, two = os.open(".", os.O_RDONLY), os.open(".", os.O_RDONLY)
    fcntl.flock(one, NOW)
    check(refused(fcntl.flock, two, NOW) == "EAGAIN", "two hold it")


@probe("flock belongs to the open file: dup shares, close gives back")
def flock_and_close() -> None:
    fd = os.open(file("file"), os.O_RDWR)
    fcntl.flock(fd, NOW)
    other = os.dup(fd)
    os.close(fd)
    check(_flocked() == "EAGAIN", "given back too soon")
    os.close(other)
    check(_flocked() == "done", "not given back")


@probe("fcntl locks between processes, by ranges")
def fcntl_lock() -> None:
    fd = os.open(file("file", bytes(100)), os.O_RDWR)
    fcntl.lockf(fd, NOW, 10, 20)
    check(_locked(NOW, 5, 25) == "EAGAIN", "two hold it")
    check(_locked(NOW, 5, 0) == _locked(NOW, 0, 30) == "done", "beyond its range")


@probe("fcntl locks: F_GETLK names the holder")
def fcntl_holder() -> None:
    fd = os.open(file("file"), os.O_RDWR)
    fcntl.lockf(fd, NOW)

    def who() -> tuple[int, int]:
        asked = struct.pack("hhqqi4x", fcntl.F_WRLCK, 0, 0, 0, 0)
        kind, _, _, _, pid = struct.unpack("hhqqi4x", fcntl.fcntl(os.open("file", os.O_RDWR), fcntl.F_GETLK, asked))
        return kind, pid

    check(in_child(who) == (fcntl.F_WRLCK, os.getpid()), "somebody else")


@probe("fcntl locks go with any close, and with the process")
def fcntl_and_close() -> None:
    fd = os.open(file("file"), os.O_RDWR)
    fcntl.lockf(fd, NOW)
    os.close(os.open("file", os.O_RDONLY))
    check(_locked() == "done", "not by a close")

    def die() -> None:
        fcntl.lockf(os.open("file", os.O_RDWR), NOW)
        os.kill(os.getpid(), signal.SIGKILL)

    try:
        in_child(die)
    except Killed:
        pass
    check(_locked() == "done", "not by death")


@probe("fcntl locks: EDEADLK")
def deadlock() -> None:
    fd = os.open(file("file"), os.O_RDWR)
    fcntl.lockf(fd, fcntl.LOCK_EX, 1, 0)
    ready, tell = os.pipe()
    answered, answer = os.pipe()
    child = os.fork()
    if child == 0:
        own = os.open("file", os.O_RDWR)
        fcntl.lockf(own, fcntl.LOCK_EX, 1, 1)
        os.write(tell, b"r")
        os.write(answer, refused(fcntl.lockf, own, fcntl.LOCK_EX, 1, 0).encode())
        os._exit(0)
    os.read(ready, 1)
    mine = refused(fcntl.lockf, fd, fcntl.LOCK_EX, 1, 1)
    os.close(fd)
    others = os.read(answered, 100).decode()
    os.waitpid(child, 0)
    check("EDEADLK" in (mine, others), "both were to wait for ever")


@probe("OFD locks: between descriptors of one process")
def ofd_lock() -> None:
    one, two = (os.open(file("file"), os.O_RDWR) for _ in range(2))
    wanted = struct.pack("hhqqi4x", fcntl.F_WRLCK, 0, 0, 0, 0)
    fcntl.fcntl(one, OFD_SETLK, wanted)
    check(refused(fcntl.fcntl, two, OFD_SETLK, wanted) == "EAGAIN", "two hold it")
    os.close(one)
    fcntl.fcntl(two, OFD_SETLK, wanted)


@probe("Leases: F_SETLEASE for reading")
def read_lease() -> None:
    fd = os.open(file("file"), os.O_RDONLY)
    fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_RDLCK)
    check(fcntl.fcntl(fd, fcntl.F_GETLEASE) == fcntl.F_RDLCK, "not held")


@probe("Leases: F_SETLEASE for writing")
def write_lease() -> None:
    fcntl.fcntl(os.open(file("file"), os.O_RDWR), fcntl.F_SETLEASE, fcntl.F_WRLCK)


@probe("Leases: SIGIO when somebody opens the file")
def broken_lease() -> None:
    heard: list[int] = []
    former = signal.signal(signal.SIGIO, lambda number, _: heard.append(number))
    try:
        fd = os.open(file("file"), os.O_RDONLY)
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_RDLCK)
        check(in_child(lambda: refused(os.open, "file", os.O_WRONLY | os.O_NONBLOCK)) == "EAGAIN", "not held")
        check(heard == [signal.SIGIO], "not told")
    finally:
        signal.signal(signal.SIGIO, former)
