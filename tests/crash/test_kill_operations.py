"""kill -9 of the daemon while a program changes files: what had returned is there, what had not is whole or absent.

The same script runs on a plain directory, which says what must be there.
"""

import copy
import hashlib
import os
import random
import shutil
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from helios_fs.control import messages
from helios_fs.control.client import find_daemon
from helios_fs.errors import HeliosError
from tests.crash import random_operations
from tests.crash.random_operations import Script, Step, perform
from tests.mount.mounted import PATIENCE_SECONDS, Killer, Workspace

pytestmark = [pytest.mark.fuse, pytest.mark.timeout(3600)]

Described = dict[str, tuple[object, ...]]


class Plain:
    """A plain directory that the script is carried out on too, and copies of it where the script took snapshots."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.path = folder / "plain"
        self.snapshots = folder / "plain-snapshots"
        self.path.mkdir()
        self.snapshots.mkdir()
        self.script = Script(seed)

    def go_to(self, number: int) -> None:
        """Carry out the steps up to `number`."""
        former = os.umask(0)
        try:
            while self.script.number < number:
                perform(str(self.path), self.script.next(), self._copy)
        finally:
            os.umask(former)

    def peek(self) -> Step:
        """Return the next step without carrying it out."""
        return copy.deepcopy(self.script).next()

    def _copy(self, root: str, name: str) -> None:
        shutil.copytree(root, self.snapshots / name, symlinks=True)


def describe(root: Path) -> Described:
    """Return all that a user can see of a tree but its times and numbers."""
    found: Described = {}
    names: dict[int, list[str]] = {}
    for directory, folders, files in os.walk(root):
        for path in (Path(directory, name) for name in folders + files):
            status = path.lstat()
            name = str(path.relative_to(root))
            content: object = None
            if stat.S_ISLNK(status.st_mode):
                content = os.readlink(path)
            elif stat.S_ISREG(status.st_mode):
                content = (status.st_size, hashlib.sha256(path.read_bytes()).hexdigest(), status.st_nlink)
                names.setdefault(status.st_ino, []).append(name)
            attributes = tuple(
                (key, os.getxattr(path, key)) for key in sorted(os.listxattr(path, follow_symlinks=False))
            )
            found[name] = (status.st_mode, content, attributes)
    found["hard links"] = tuple(sorted(tuple(sorted(group)) for group in names.values() if len(group) > 1))
    return found


@contextmanager
def writing(mounted: Workspace, log: Path, seed: int, first: int) -> Iterator["subprocess.Popen[str]"]:
    program = random_operations.__file__
    assert program is not None
    command = [sys.executable, program, str(mounted.path), str(log), str(seed), str(first)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as writer:
        try:
            assert writer.stdout is not None
            assert writer.stdout.readline() == "ready\n"
            yield writer
        finally:
            writer.kill()


def interrupted(mounted: Workspace, log: Path, seed: int, first: int, seconds: float) -> int:
    """Let the script run from step `first`, kill the daemon after `seconds`; return how many steps had returned."""
    log.unlink(missing_ok=True)
    with writing(mounted, log, seed, first) as writer:
        killer = Killer(mounted.daemon())
        killer.kill_after(seconds)
        complaint = writer.communicate(timeout=PATIENCE_SECONDS)[1]
        killer.wait()
    # It ended because the mount was gone under it, and for no other reason.
    assert "[Errno 107]" in complaint or "[Errno 103]" in complaint, complaint
    return first + log.stat().st_size


def check(mounted: Workspace, plain: Plain, returned: int) -> None:
    """Check that the mount is in the state after step `returned` or, the one that was under way, the next."""
    found = describe(mounted.path)
    plain.go_to(returned)
    expected = describe(plain.path)
    if found != expected:
        step = plain.peek()
        before = (plain.path / step.path).read_bytes() if step.kind in ("write", "append") else b""
        plain.go_to(returned + 1)
        if step.kind in ("write", "append"):
            take_over_part(mounted.path / step.path, plain.path / step.path, step, before)
        expected = describe(plain.path)
    wrong = {name for name in found | expected if found.get(name) != expected.get(name)}
    assert not wrong, f"after step {returned}: {[(name, expected.get(name), found.get(name)) for name in wrong][:3]}"


def take_over_part(path: Path, plain: Path, step: Step, before: bytes) -> None:
    """Let the plain file have what was written where a write(2) was under way of which only a first part arrived.

    The kernel cuts a write in two where a page of the caller's buffer is not in memory; each part is whole or absent.
    """
    content = path.read_bytes()
    offset = step.number if step.kind == "write" else len(before)
    for length in range(len(step.data)):
        if content == (before.ljust(offset, b"\0")[:offset] + step.data[:length]) + before[offset + length :]:
            plain.write_bytes(content)
            return


def check_snapshots(mounted: Workspace, plain: Plain, chance: random.Random) -> None:
    """Check that the snapshots that had been taken are there, and some of them whole."""
    taken = os.listdir(plain.snapshots)
    assert set(taken) <= set(os.listdir(mounted.path / ".snapshots"))
    for name in chance.sample(taken, min(3, len(taken))):
        kept, expected = describe(mounted.path / ".snapshots" / name), describe(plain.snapshots / name)
        # A plain copy has its own files for hard links, and copytree leaves link counts behind.
        assert {path: _but_links(entry) for path, entry in kept.items() if path != "hard links"} == {
            path: _but_links(entry) for path, entry in expected.items() if path != "hard links"
        }, f"snapshot {name}"


def _but_links(entry: tuple[object, ...]) -> tuple[object, ...]:
    mode, content, attributes = entry
    return (mode, content[:2] if isinstance(content, tuple) else content, attributes)


def test_kill_while_files_change(mounted: Workspace, tmp_path: Path, kills: int, chance: random.Random) -> None:
    seed = chance.randrange(1 << 32)
    plain = Plain(tmp_path, seed)
    for _ in range(kills):
        first = plain.script.number
        returned = interrupted(mounted, tmp_path / "log", seed, first, chance.uniform(0.1, 1.2))
        mounted.mount()
        check(mounted, plain, returned)
        check_snapshots(mounted, plain, chance)


def test_kill_while_it_seals(mounted: Workspace, tmp_path: Path, kills: int, chance: random.Random) -> None:
    seed = chance.randrange(1 << 32)
    plain = Plain(tmp_path, seed)
    for _ in range(kills):
        first = plain.script.number
        with sealing(mounted) as seals:
            returned = interrupted(mounted, tmp_path / "log", seed, first, chance.uniform(0.2, 1.5))
        assert seals.asked, "not one seal was asked for"
        mounted.mount()
        check(mounted, plain, returned)
        check_snapshots(mounted, plain, chance)
        print(f"{seals.answered} of {seals.asked} seals were done, {returned - first} steps")
    mounted.remount()
    check(mounted, plain, plain.script.number)


def test_kill_of_the_sealer_stops_nothing(
    mounted: Workspace, tmp_path: Path, kills: int, chance: random.Random
) -> None:
    seed = chance.randrange(1 << 32)
    plain = Plain(tmp_path, seed)
    log = tmp_path / "log"
    with writing(mounted, log, seed, 0) as writer, sealing(mounted):
        for _ in range(kills):
            before = log.stat().st_size if log.exists() else 0
            for sealer in mounted.sealers():
                killer = Killer(sealer)
                killer.kill_after(chance.uniform(0.05, 0.5))
                killer.wait()
            while (log.stat().st_size if log.exists() else 0) < before + 20:
                assert writer.poll() is None, "the writer has ended"
    check(mounted, plain, log.stat().st_size)
    mounted.remount()
    check(mounted, plain, plain.script.number)
    check_snapshots(mounted, plain, chance)


@dataclass
class Seals:
    """How many seals were asked for, and how many were told to be done."""

    asked: int = 0
    answered: int = 0


@contextmanager
def sealing(mounted: Workspace) -> Iterator[Seals]:
    """Ask for one seal after the other until the daemon is gone or the block ends; yields how many."""
    ended = threading.Event()
    seals = Seals()

    def ask() -> None:
        connection = find_daemon(str(mounted.store), "main")
        assert connection is not None
        with connection:
            while not ended.is_set():
                try:
                    seals.asked += 1
                    connection.ask(messages.Seal(), messages.Sealed)
                    seals.answered += 1
                except (HeliosError, OSError):
                    return

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        yield seals
    finally:
        ended.set()
        asking.join(PATIENCE_SECONDS)
        assert not asking.is_alive()
