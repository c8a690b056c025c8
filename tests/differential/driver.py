"""Runs sequences of calls on a mount and on a plain directory, and says where they part.

A round is a list of calls that begins in two fresh directories; the same list does the same again, so it can be
shrunk. Between the calls of the actors stand the driver's own: comparisons of the whole trees, snapshots, seals,
unmounting, killing the daemon.

D1. A seed and a round's number decide the round's calls, nothing else does.
D2. Each round leaves both directories removed, whatever happened in it.
"""

import os
import shutil
import stat
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from helios_fs.control import messages
from helios_fs.control.client import find_daemon
from tests.differential.actor import Actor, Report
from tests.differential.calls import ACTORS, DRIVER, Call, Choice, Seeded, choose_call, prologue
from tests.differential.compare import (
    Manifest,
    Times,
    attribute_differences,
    identity_differences,
    manifest,
    manifest_differences,
)
from tests.differential.operations import refuses_to_allocate
from tests.mount.mounted import Workspace

BRANCH = "other"

_DEEP = "/".join("0123456789")
"""A tree's root lies so deep that no `..` of a few calls leads out of what is the test's own."""

_WHOLE_EVERY = 150
_KEPT_SNAPSHOTS = 3


class Difference(NamedTuple):
    """The two sides part at `calls[number]`."""

    number: int
    texts: list[str]


class Trees:
    """A workspace, a plain directory, and the actors that work in both."""

    def __init__(self, workspace: Workspace, plain: Path, noatime: bool, options: tuple[str, ...]) -> None:
        self.workspace = workspace
        self._options = options
        self._plain = plain
        self._rounds = 0
        self._root = os.geteuid() == 0
        self.users = self._root
        (workspace.path / ".branches" / BRANCH).mkdir(exist_ok=True)
        self._learn()
        exact = _has_fine_times(plain)
        self.times = Times(exact, noatime)
        self.actors = [Actor(number, exact, noatime) for number in range(ACTORS)]
        self.worked: Counter[str] = Counter()
        self.tried: Counter[str] = Counter()

    def end(self) -> None:
        for actor in self.actors:
            actor.end()

    def run(self, calls: list[Call], in_branch: bool, whole_every: int = _WHOLE_EVERY) -> Difference | None:
        """Make the calls in two fresh directories and return the first difference."""
        self._rounds += 1
        place = _Round(self, f"round-{self._rounds}", in_branch)
        try:
            return place.run(calls, whole_every)
        finally:
            place.remove()

    # -- What a round needs of the mount -----------------------------------------------------------------------------

    def live(self, in_branch: bool) -> Path:
        return self.workspace.path / ".branches" / BRANCH if in_branch else self.workspace.path

    def plain(self) -> Path:
        return self._plain

    def end_daemon(self, killed: bool) -> None:
        """Unmount, or kill -9."""
        if killed:
            self.workspace.kill()
        else:
            self.workspace.unmount()

    def mount(self) -> None:
        self.workspace.helios("mount", self.workspace.path, "--store", self.workspace.store, *self._options, check=True)
        self._learn()

    def _learn(self) -> None:
        """Let the kernel hear once that there is no fallocate: it takes set-id bits away before it asks us."""
        path = self.workspace.path / "learning"
        with open(path, "wb") as opened:
            assert refuses_to_allocate(opened.fileno())
        path.unlink()

    def seal(self, in_branch: bool) -> None:
        """Have all up to now sealed."""
        branch = f"main/{BRANCH}" if in_branch else "main"
        connection = find_daemon(str(self.workspace.store), branch)
        if connection is not None:  # a branch that nobody uses is closed, and sealed then
            with connection:
                connection.ask(messages.Seal(), messages.Sealed)


class _Round:
    """Two fresh directories, and what is known of them."""

    def __init__(self, trees: Trees, name: str, in_branch: bool) -> None:
        self._trees = trees
        self._in_branch = in_branch
        self._name = name
        self._live = trees.live(in_branch)
        self._mount = self._live / name / _DEEP
        self._plain = trees.plain() / name / _DEEP
        self._snapshots: dict[str, Manifest] = {}
        self._taken = 0
        for path in (self._mount, self._plain):
            path.mkdir(parents=True)
            for part in (path, *path.parents[:10]):
                part.chmod(0o777)
        self._enter()

    def _enter(self) -> None:
        for actor in self._trees.actors:
            actor.ask("enter", str(self._mount), str(self._plain))

    def _leave(self) -> None:
        for actor in self._trees.actors:
            actor.ask("leave")

    def remove(self) -> None:
        self._leave()
        for name in self._snapshots:
            (self._live / ".snapshots" / name).rmdir()
        for top in (self._live / self._name, self._trees.plain() / self._name):
            shutil.rmtree(top)

    # -- Calls -------------------------------------------------------------------------------------------------------

    def run(self, calls: list[Call], whole_every: int) -> Difference | None:
        number, since = 0, 0
        while number < len(calls):
            batch = [calls[number]]
            while number + len(batch) < len(calls) and calls[number + len(batch)].actor == batch[0].actor != DRIVER:
                batch.append(calls[number + len(batch)])
            done, texts = self._run_batch(batch)
            since += len(batch)
            if not texts and since >= whole_every:
                since = 0
                texts = self.whole()
            if texts:
                return Difference(number + done, texts)
            number += len(batch)
        texts = self.whole() or self.check_snapshots()
        return Difference(len(calls) - 1, texts) if texts else None

    def _run_batch(self, batch: list[Call]) -> tuple[int, list[str]]:
        if batch[0].actor == DRIVER:
            self._trees.tried[batch[0].name] += 1
            self._trees.worked[batch[0].name] += 1
            return 0, getattr(self, batch[0].name)(*batch[0].arguments)
        for call in batch:
            self._trees.tried[call.name] += 1
        report: Report = self._trees.actors[batch[0].actor].ask("run", batch)
        self._trees.worked.update(report.worked)
        return report.done, report.differences

    # -- Calls of the driver: each returns what differs --------------------------------------------------------------

    def _manifests(self) -> tuple[Manifest, Manifest]:
        found = []
        for path in (self._mount, self._plain):
            fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
            try:
                found.append(manifest(fd))
            finally:
                os.close(fd)
        return found[0], found[1]

    def whole(self) -> list[str]:
        """Compare all that both trees show, and which names mean the same file."""
        mount, plain = self._manifests()
        found = manifest_differences(mount, plain)
        pairs = []
        for path in mount.keys() & plain.keys():
            here, there = mount[path]["status"], plain[path]["status"]
            pairs.append((here.st_ino, there.st_ino))
            found += [f"{path!r}: {text}" for text in attribute_differences(here, there)]
            found += [f"{path!r}: {text}" for text in self._trees.times.differences(here, there)]
        for actor in self._trees.actors:
            pairs += [(here, there) for here, there, _ in actor.ask("identities")]
        return found + identity_differences(pairs)

    def snapshot(self) -> list[str]:
        """Take a snapshot and remember what it must show for ever."""
        self._taken += 1
        name = f"{self._name}-{self._taken}"
        mount, plain = self._manifests()
        found = manifest_differences(mount, plain)
        (self._live / ".snapshots" / name).mkdir()
        self._snapshots[name] = mount
        while len(self._snapshots) > _KEPT_SNAPSHOTS:
            oldest = next(iter(self._snapshots))
            found += self._check_snapshot(oldest)
            (self._live / ".snapshots" / oldest).rmdir()
            del self._snapshots[oldest]
        return found

    def check_snapshots(self) -> list[str]:
        return [text for name in self._snapshots for text in self._check_snapshot(name)]

    def _check_snapshot(self, name: str) -> list[str]:
        fd = os.open(self._live / ".snapshots" / name / self._name / _DEEP, os.O_RDONLY | os.O_DIRECTORY)
        try:
            shown = manifest(fd)
        finally:
            os.close(fd)
        then = self._snapshots[name]
        return [f"snapshot {name}: {text}" for text in [*manifest_differences(shown, then), *_changed(shown, then)]]

    def seal(self) -> list[str]:
        self._trees.seal(self._in_branch)
        return []

    def spoil(self, path: bytes) -> list[str]:
        """Change the reference alone, where there is such a file: the test of the test."""
        try:
            with open(os.path.join(os.fsencode(self._plain), path), "r+b") as opened:
                opened.write(b"spoiled")
        except OSError:
            pass
        return self.whole()

    def remount(self, killed: bool) -> list[str]:
        """Unmount or kill, mount again: all is as it was, inode numbers and times too."""
        if not killed:
            self._leave()
        before, _ = self._manifests()
        self._trees.end_daemon(killed)
        if killed:
            self._leave()  # what was open is of no use any more
        self._trees.mount()
        self._trees.times.forget()
        self._enter()
        after, plain = self._manifests()
        found = [*manifest_differences(after, before), *_changed(after, before), *manifest_differences(after, plain)]
        for path in before.keys() & after.keys():
            was, now = before[path]["status"].st_ino, after[path]["status"].st_ino
            if was != now:
                found.append(f"{path!r}: st_ino was {was}, is {now}")
        return [f"after {'kill' if killed else 'unmount'}: {text}" for text in found] + self.check_snapshots()


def _changed(now: Manifest, then: Manifest) -> Iterator[str]:
    """Say whose times are others than they were."""
    for path in now.keys() & then.keys():
        for name in ("st_mtime_ns", "st_ctime_ns", "st_atime_ns"):
            values = [getattr(of[path]["status"], name) for of in (now, then)]
            if values[0] != values[1] and stat.S_IFMT(now[path]["mode"]) in (stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK):
                yield f"{path!r}: {name} is {values[0]}, was {values[1]}"


# -- Rounds ----------------------------------------------------------------------------------------------------------


def choose_calls(choice: Choice, length: int, users: bool, remounts: bool) -> list[Call]:
    """Return a round's calls: runs of one actor's, and now and then the driver's."""
    calls = prologue()
    while len(calls) < length:
        kind = choice.below(40)
        if kind == 0:
            name = choice.pick(["snapshot"] * 4 + ["check_snapshots", "seal", "seal", "whole"])
            calls.append(Call(DRIVER, name))
        elif kind == 1 and remounts and choice.below(12) == 0:
            calls.append(Call(DRIVER, "remount", (bool(choice.below(2)),)))
        actor = choice.below(ACTORS)
        calls += [choose_call(choice, actor, users) for _ in range(1 + choice.below(20))]
    return calls


def round_of(seed: int, number: int, users: bool) -> list[Call]:
    """Return the calls of a round of a long run."""
    return choose_calls(Seeded(f"{seed}/{number}"), 2000, users, True)


# -- The reference ---------------------------------------------------------------------------------------------------


def _has_fine_times(directory: Path) -> bool:
    """Tell whether two changes always get two times (multigrain timestamps, Linux 6.13)."""
    path = directory / "times"
    seen = set()
    with open(path, "wb", buffering=0) as opened:
        for _ in range(20):
            opened.write(b"x")
            seen.add(os.fstat(opened.fileno()).st_mtime_ns)
    path.unlink()
    return len(seen) == 20


@contextmanager
def reference(folder: Path) -> Iterator[tuple[Path, bool]]:
    """A plain directory below `folder`, and whether reads leave its times alone; root mounts it so."""
    plain = folder / "reference"
    plain.mkdir()
    if os.geteuid() != 0:
        yield plain, False
        return
    subprocess.run(["mount", "--bind", plain, plain], check=True)
    try:
        subprocess.run(["mount", "-o", "remount,bind,noatime,dev,suid", plain], check=True)
        yield plain, True
    finally:
        subprocess.run(["umount", plain], check=True)


class Progress:
    """How fast a long run goes, said now and then."""

    def __init__(self) -> None:
        self.began = time.monotonic()
        self.calls = 0

    def text(self) -> str:
        seconds = time.monotonic() - self.began
        return f"{self.calls:,} calls in {seconds:.0f} s ({self.calls / max(seconds, 0.001):,.0f}/s)"


def summary(trees: Trees) -> dict[str, Any]:
    """Return how often each call was made and how often it succeeded."""
    return {name: (trees.tried[name], trees.worked[name]) for name in sorted(trees.tried)}
