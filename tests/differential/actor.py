"""A process that makes calls in both trees, as a user of its own, and compares what they say.

It is told a batch of calls at a time over a pipe and answers how far it came: a call is carried out in the reference,
then in the mount, then looked at, before the next begins. Descriptors, current directories and locks last from one
batch to the next.
"""

import os
import stat
import traceback
from collections import Counter
from collections.abc import Iterable
from multiprocessing.connection import Connection, Pipe
from typing import Any, NamedTuple

from tests.differential.calls import ALWAYS_SEEN, At, Call, Slot
from tests.differential.compare import (
    Times,
    attribute_differences,
    content_difference,
    is_allowed,
    kept_by_others,
    lost_by_root,
)
from tests.differential.operations import EMPTY, Side, answer, is_path


class User(NamedTuple):
    """Who an actor is."""

    uid: int
    gid: int
    groups: tuple[int, ...]


USERS = (User(0, 0, (0,)), User(1000, 1000, (1000, 2000)), User(1001, 1001, (2000,)))


class Report(NamedTuple):
    """How far a batch came."""

    done: int
    """Calls that agreed."""
    differences: list[str]
    """Of the call after those; empty if all agreed."""
    worked: dict[str, int]
    """Name of a call -> how often it succeeded."""


class Actor:
    """The actor's process as the driver sees it."""

    def __init__(self, number: int, exact_times: bool, atime: bool) -> None:
        self.connection, theirs = Pipe()
        self.pid = os.fork()
        if self.pid == 0:
            status = 1
            try:
                self.connection.close()
                _Process(number, theirs, exact_times, atime).serve()
                status = 0
            except EOFError:
                status = 0
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(status)
        theirs.close()

    def ask(self, *request: Any) -> Any:
        self.connection.send(request)
        return self.connection.recv()

    def end(self) -> None:
        self.connection.send(("end",))
        self.connection.close()
        os.waitpid(self.pid, 0)


class _Process:
    """The actor itself."""

    def __init__(self, number: int, connection: Connection, exact_times: bool, atime: bool) -> None:
        self._connection = connection
        self._times = Times(exact_times, atime)
        self._sides: list[Side] = []
        self._user = USERS[number] if os.geteuid() == 0 else None
        if self._user is not None:
            os.setgroups(self._user.groups)
            os.setresgid(self._user.gid, self._user.gid, self._user.gid)

    def serve(self) -> None:
        while True:
            request, *arguments = self._connection.recv()
            if request == "end":
                self.leave()
                return
            self._connection.send(getattr(self, request)(*arguments))

    # -- Requests ----------------------------------------------------------------------------------------------------

    def enter(self, mount: str, plain: str) -> None:
        """Work in these two directories from now on; nothing of the former ones is held."""
        self.leave()
        roots = [os.open(path, os.O_RDONLY | os.O_DIRECTORY) for path in (mount, plain)]
        self._sides = [Side(roots[0], True), Side(roots[1], False)]
        os.umask(0o022)

    def leave(self) -> None:
        """Close all that is open."""
        self._as_root()
        os.chdir("/")
        for side in self._sides:
            side.close()
            os.close(side.root)
        self._sides = []
        self._times.forget()

    def run(self, calls: list[Call]) -> Report:
        """Make calls until one differs."""
        worked: Counter[str] = Counter()
        for done, call in enumerate(calls):
            try:
                differences = self._step(call, worked)
            except Exception:
                differences = [traceback.format_exc()]
            if differences:
                return Report(done, differences, dict(worked))
        return Report(len(calls), [], dict(worked))

    def identities(self) -> list[tuple[int, int, int]]:
        """Return (mount, reference) inode numbers of what is open here, and the size of regular files."""
        found = []
        for mount, plain in zip(*(side.fds for side in self._sides), strict=True):
            if EMPTY not in (mount, plain):
                status = os.fstat(plain)
                found.append((os.fstat(mount).st_ino, status.st_ino, status.st_size))
        return found

    # -- One call ----------------------------------------------------------------------------------------------------

    def _as_root(self) -> None:
        if self._user is not None and self._user.uid:
            os.setresuid(-1, 0, -1)

    def _as_user(self) -> None:
        if self._user is not None and self._user.uid:
            os.setresuid(self._user.uid, self._user.uid, 0)

    def _step(self, call: Call, worked: Counter[str]) -> list[str]:
        mount, plain = self._sides
        if call.name == "umask":
            os.umask(call.arguments[0])
            return []
        self._as_user()
        there = answer(plain, call.name, call.arguments)
        here = answer(mount, call.name, call.arguments)
        self._as_root()
        if here != there and not is_allowed(call, here, there):
            return [f"answer: {_short(here)} on the mount, {_short(there)} on the reference"]
        if not (isinstance(there, str) and there[:1] == "E"):
            worked[call.name] += 1
        if call.look == 0:
            return []
        return list(self._look(call))

    def _look(self, call: Call) -> Iterable[str]:
        slots: set[int] = set()
        here = (self._sides[0].here, self._sides[1].here)
        paths: set[tuple[tuple[int, int], bytes]] = set()
        for argument in call.arguments:
            if isinstance(argument, Slot):
                slots.add(argument.number)
            elif isinstance(argument, At):
                if argument.slot is None:
                    path = argument.path
                    paths |= {(here, path), (here, os.path.dirname(path.rstrip(b"/")) or b".")}
                else:
                    slots.add(argument.slot)
                    below = (self._sides[0].fds[argument.slot], self._sides[1].fds[argument.slot])
                    if EMPTY not in below:
                        paths.add((below, argument.path))
        closely = call.look > 1
        for folders, path in paths:
            yield from self._look_at_path(call.name, folders, path, closely)
        for number in slots:
            yield from self._look_at_slot(call.name, number, closely)

    def _look_at_path(self, call: str, folders: tuple[int, int], path: bytes, closely: bool) -> Iterable[str]:
        seen: list[os.stat_result | str] = []
        for folder in folders:
            try:
                seen.append(os.lstat(path, dir_fd=folder))
            except OSError as error:
                seen.append(os.strerror(error.errno or 0))
        mount, plain = seen
        if isinstance(mount, str) or isinstance(plain, str):
            if mount != plain:
                yield f"{path!r}: {_short(mount)} on the mount, {_short(plain)} on the reference"
            return
        if stat.S_ISREG(plain.st_mode) and self._put_right(call, mount, plain, folders, path):
            mount, plain = (os.lstat(path, dir_fd=folder) for folder in folders)
        for difference in self._differences(mount, plain):
            yield f"{path!r}: {difference}"
        if stat.S_ISLNK(plain.st_mode):
            yield from self._look_behind(call, folders, path)
        if closely and stat.S_ISREG(plain.st_mode) and stat.S_ISREG(mount.st_mode):
            fds = [os.open(path, os.O_RDONLY | os.O_NOFOLLOW, dir_fd=folder) for folder in folders]
            difference = content_difference(*fds)
            for fd in fds:
                os.close(fd)
            if difference:
                yield f"{path!r}: {difference}"

    def _look_behind(self, call: str, folders: tuple[int, int], path: bytes) -> Iterable[str]:
        """Look at what a symlink leads to: the call may have followed it."""
        try:
            mount, plain = (os.stat(path, dir_fd=folder) for folder in folders)
        except OSError:
            return  # Whether it leads anywhere, the call's own answer tells.
        if stat.S_ISREG(plain.st_mode) and self._put_right(call, mount, plain, folders, path):
            mount, plain = (os.stat(path, dir_fd=folder) for folder in folders)
        for difference in self._differences(mount, plain):
            yield f"behind {path!r}: {difference}"

    def _look_at_slot(self, name: str, number: int, closely: bool) -> Iterable[str]:
        mount, plain = (side.fds[number] for side in self._sides)
        if EMPTY in (mount, plain):
            if mount != plain:
                yield f"slot {number}: open on one side only"
            return
        status, shown = os.fstat(plain), os.fstat(mount)
        if self._put_right(name, shown, status, (mount, plain)):
            status, shown = os.fstat(plain), os.fstat(mount)
        for difference in self._differences(shown, status):
            yield f"slot {number}: {difference}"
        if stat.S_ISREG(status.st_mode):
            positions = [os.lseek(fd, 0, os.SEEK_CUR) if not is_path(fd) else 0 for fd in (mount, plain)]
            if positions[0] != positions[1]:
                yield f"slot {number}: position {positions[0]} and {positions[1]}"
            if closely:
                fds = [os.open(f"/proc/self/fd/{fd}", os.O_RDONLY) for fd in (mount, plain)]
                difference = content_difference(*fds)
                for fd in fds:
                    os.close(fd)
                if difference:
                    yield f"slot {number}: {difference}"

    def _put_right(
        self, call: str, mount: os.stat_result, plain: os.stat_result, fds: tuple[int, int], path: bytes | None = None
    ) -> bool:
        """Where set-id bits differ as they may, let them be the same again; see `compare.py`.

        `fds` are two open files, or two directories below which `path` is meant.
        """
        if mount.st_mode == plain.st_mode or call not in ALWAYS_SEEN or self._user is None:
            return False
        if self._user.uid == 0 and lost_by_root(mount, plain):
            side, mode = 1, stat.S_IMODE(mount.st_mode)
        elif self._user.uid != 0 and kept_by_others(mount, plain):
            side, mode = 0, stat.S_IMODE(plain.st_mode)
        else:
            return False
        if path is None:
            os.chmod(f"/proc/self/fd/{fds[side]}", mode)
        else:
            os.chmod(path, mode, dir_fd=fds[side])
        return True

    def _differences(self, mount: os.stat_result, plain: os.stat_result) -> Iterable[str]:
        yield from attribute_differences(mount, plain)
        yield from self._times.differences(mount, plain)


def _short(value: object) -> str:
    if isinstance(value, os.stat_result):
        return f"there, mode {value.st_mode:o}"
    text = repr(value)
    return text if len(text) < 200 else f"{text[:150]}… ({len(text)} characters)"
