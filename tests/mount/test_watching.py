"""Who watches sees what other processes do through a mount, and what the daemon changes itself: restore and merge."""

import ctypes
import errno
import os
import select
import signal
import stat
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from helios_fs.control import messages
from helios_fs.control.client import find_daemon
from helios_fs.fuse import touch
from tests.mount.mounted import PATIENCE_SECONDS, Helios, Killer, Workspace, find_mounts

pytestmark = pytest.mark.fuse

_libc = ctypes.CDLL(None, use_errno=True)
_EVENTS = {
    0x2: "modify",
    0x4: "attrib",
    0x8: "close_write",
    0x40: "moved_from",
    0x80: "moved_to",
    0x100: "create",
    0x200: "delete",
    0x400: "delete_self",
    0x800: "move_self",
}
_ALL = sum(_EVENTS)
_IS_DIRECTORY = 0x40000000
_HEADER = struct.Struct("iIII")


class Event(NamedTuple):
    """One event, as inotify(7) reports it."""

    where: str
    what: str
    name: str
    is_directory: bool = False


class Inotify:
    """Watches, and what they have seen."""

    def __init__(self, *paths: Path) -> None:
        self.fd = _libc.inotify_init1(os.O_CLOEXEC)
        self.cookies: list[int] = []
        """Of renames, in the order in which they were reported."""
        self._names = {_libc.inotify_add_watch(self.fd, os.fsencode(path), _ALL): path.name for path in paths}
        assert -1 not in self._names, os.strerror(ctypes.get_errno())
        self._last = paths[0]

    def read(self) -> list[Event]:
        """Return the events that have come, at least one."""
        ready, _, _ = select.select([self.fd], [], [], PATIENCE_SECONDS)
        assert ready, "no event comes"
        data, found = os.read(self.fd, 1 << 20), []
        while data:
            watch, mask, cookie, length = _HEADER.unpack_from(data)
            name = os.fsdecode(data[_HEADER.size : _HEADER.size + length].rstrip(b"\0"))
            data = data[_HEADER.size + length :]
            if what := _EVENTS.get(mask & _ALL):
                found.append(Event(self._names[watch], what, name, bool(mask & _IS_DIRECTORY)))
            if cookie:
                self.cookies.append(cookie)
        return found

    def read_to(self, last: Event) -> list[Event]:
        """Return the events up to one, without it."""
        found: list[Event] = []
        while last not in found:
            found += self.read()
        assert found[-1] == last, f"there is more behind it: {found}"
        return found[:-1]

    def read_all(self, expected: set[Event]) -> list[Event]:
        """Return the events up to the last of some that are expected, in whatever order they come."""
        found: list[Event] = []
        while not expected <= set(found):
            found += self.read()
        assert set(found) == expected
        return found

    def close(self) -> None:
        os.close(self.fd)


@pytest.fixture
def watch() -> Iterator[Callable[..., Inotify]]:
    """Watch some paths for as long as the test runs."""
    watching: list[Inotify] = []

    def start(*paths: Path) -> Inotify:
        watching.append(Inotify(*paths))
        return watching[-1]

    yield start
    for each in watching:
        each.close()


@pytest.fixture
def here(shared: Workspace, request: pytest.FixtureRequest) -> Path:
    path = shared.path / request.node.name
    path.mkdir()
    return path


def helios(shared: Workspace, *arguments: str) -> str:
    return shared.helios(*arguments, "-C", os.fspath(shared.path), check=True).stdout


def ask(shared: Workspace, message: Any, reply: type) -> Any:
    connection = find_daemon(os.fspath(shared.store), "main")
    assert connection is not None
    with connection:
        return connection.ask(message, reply)


def take(shared: Workspace) -> str:
    """Take a snapshot; return its id."""
    snapshot: str = ask(shared, messages.TakeSnapshot(), messages.SnapshotTaken).id
    return snapshot


def restore(shared: Workspace, snapshot: str, *paths: Path) -> None:
    """As `helios restore` does."""
    below = [os.fsencode(path.relative_to(shared.path)) for path in paths]
    ask(shared, messages.Restore(snapshot, below, "test", "test"), messages.Restored)


def sealed(shared: Workspace) -> tuple[str, int, int]:
    """The tree's hash, and how long the journal is: any record since the last call makes it longer."""
    tree = ask(shared, messages.Seal(), messages.Sealed)
    return tree.tree, tree.lsn, ask(shared, messages.Stats(), messages.StatsReply).counters["journal_end_bytes"]


def attributes(top: Path) -> dict[str, os.stat_result]:
    return {os.fspath(path): path.lstat() for path in [top, *top.rglob("*")]}


def contents(top: Path) -> dict[str, bytes]:
    return {os.fspath(path): path.read_bytes() for path in top.rglob("*") if stat.S_ISREG(path.lstat().st_mode)}


def touchers(shared: Workspace) -> list[int]:
    """The processes that tell watchers, by the daemon that has started them."""
    found, daemon = [], shared.daemon()
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            try:
                words = (process / "cmdline").read_bytes().split(b"\0")
                parent = int((process / "stat").read_bytes().rpartition(b")")[2].split()[1])
            except OSError:
                continue  # it ended while we looked
            if parent == daemon and os.fsencode(touch.__file__) in words:
                found.append(int(process.name))
    return found


@contextmanager
def held_back(shared: Workspace, here: Path, watch: Callable[..., Inotify]) -> Iterator[None]:
    """What is changed within is told afterwards only."""
    folder = here / "for the first time"
    folder.mkdir()
    then = take(shared)
    (folder / "file").write_text("")
    first = watch(folder)
    restore(shared, then)
    first.read_to(Event(folder.name, "delete", "file"))
    [toucher] = touchers(shared)
    process = Killer(toucher)
    process.send(signal.SIGSTOP)
    try:
        yield
    finally:
        process.send(signal.SIGCONT)
        process.close()


# -- What other processes do ------------------------------------------------------------------------------------------

_WORK = """
import os
with open("file", "w") as file:
    file.write("x")
os.chmod("file", 0o600)
os.mkdir("sub")
os.rename("file", "sub/moved")
os.unlink("sub/moved")
os.rmdir("sub")
"""


def test_what_another_process_does_is_seen(here: Path, watch: Callable[..., Inotify]) -> None:
    seen = watch(here)
    subprocess.run([sys.executable, "-c", _WORK], cwd=here, check=True)
    name = here.name
    assert seen.read_to(Event(name, "delete", "sub", True)) == [
        Event(name, "create", "file"),
        Event(name, "modify", "file"),
        Event(name, "close_write", "file"),
        Event(name, "attrib", "file"),
        Event(name, "create", "sub", True),
        Event(name, "moved_from", "file"),
    ]


# -- What the daemon does ---------------------------------------------------------------------------------------------


def furnish(here: Path) -> None:
    """Make something of everything."""
    (here / "d").mkdir()
    (here / "d" / "changed").write_text("before")
    (here / "d" / "removed").write_text("before")
    (here / "d" / "mode").write_text("")
    (here / "d" / "link").symlink_to("before")
    (here / "d" / "old").write_text("renamed")
    (here / "d" / "program").write_text("#!/bin/sh\n")
    (here / "d" / "program").chmod(0o755)
    os.mkfifo(here / "d" / "fifo")
    (here / "whole").mkdir()
    (here / "whole" / "file").write_text("before")
    (here / "folder").mkdir()
    (here / "folder" / "file").write_text("in a directory that is renamed")


def wreck(here: Path) -> None:
    """Change, remove, rename and add."""
    (here / "d" / "changed").write_text("after, and longer")
    (here / "d" / "removed").unlink()
    (here / "d" / "mode").chmod(0o600)
    (here / "d" / "link").unlink()
    (here / "d" / "old").rename(here / "d" / "new")
    with (here / "d" / "program").open("a") as program:
        program.write("exit 1\n")
    (here / "d" / "fifo").unlink()
    (here / "whole" / "file").unlink()
    (here / "whole").rmdir()
    (here / "folder").rename(here / "renamed")
    (here / "d" / "added").write_text("after")
    (here / "empty").mkdir()


def expected(top: str) -> set[Event]:
    """What is told when `wreck` is undone."""
    return {
        Event(top, "delete", "empty", True),
        Event(top, "moved_from", "renamed", True),
        Event(top, "moved_to", "folder", True),
        Event("renamed", "move_self", "", True),
        Event(top, "create", "whole", True),
        Event("d", "delete", "added"),
        Event("d", "moved_from", "new"),
        Event("d", "moved_to", "old"),
        *(Event("d", "create", name) for name in ("removed", "link", "fifo")),
        *(Event("d", what, name) for what in ("modify", "close_write") for name in ("removed", "changed")),
        Event("d", "modify", "program"),
    }


LAST = Event("d", "attrib", "mode")


def check(seen: Inotify, top: str) -> None:
    """Read all that is told when `wreck` is undone."""
    events = seen.read_to(LAST)
    assert {event._replace(is_directory=event.is_directory or event.what == "move_self") for event in events} == (
        expected(top)
    )
    assert len(events) == len(expected(top)), "something is told twice"
    assert len(seen.cookies) == 4 and len(set(seen.cookies)) == 2, "who moved from where cannot be told"
    created, modified = (events.index(Event("d", what, "removed")) for what in ("create", "modify"))
    assert created < modified < events.index(Event("d", "close_write", "removed"))


def test_a_restore_is_seen_and_telling_changes_nothing(
    shared: Workspace, here: Path, watch: Callable[..., Inotify]
) -> None:
    furnish(here)
    before = contents(here)
    with held_back(shared, here, watch):
        then = take(shared)
        wreck(here)
        seen = watch(here, here / "d", here / "renamed")
        restore(shared, then)
        told, shown = sealed(shared), attributes(here)
    check(seen, here.name)
    assert sealed(shared) == told
    assert attributes(here) == shown
    assert contents(here) == before
    assert helios(shared, "diff", then) == ""


def test_a_path_of_a_directory_in_a_directory(shared: Workspace, here: Path, watch: Callable[..., Inotify]) -> None:
    deep = here / "a" / "b" / "c"
    deep.mkdir(parents=True)
    (deep / "file").write_text("before")
    (deep / "other").write_text("before")
    then = take(shared)
    (deep / "file").write_text("after, and longer")
    (deep / "other").write_text("after, and longer")
    seen = watch(here, here / "a", deep)
    restore(shared, then, deep / "file")
    assert seen.read_to(Event("c", "close_write", "file")) == [Event("c", "modify", "file")]
    assert (deep / "other").read_text() == "after, and longer"


def test_a_directory_that_is_nowhere_else_and_one_of_another_type(
    shared: Workspace, here: Path, watch: Callable[..., Inotify]
) -> None:
    (here / "was a directory").mkdir()
    (here / "was a directory" / "file").write_text("")
    (here / "was a file").write_text("")
    then = take(shared)
    (here / "was a directory" / "file").unlink()
    (here / "was a directory").rmdir()
    (here / "was a directory").write_text("")
    (here / "was a file").unlink()
    (here / "was a file").mkdir()
    seen = watch(here)
    restore(shared, then)
    events = seen.read_all(
        {
            Event(here.name, "delete", "was a directory"),
            Event(here.name, "delete", "was a file", True),
            Event(here.name, "create", "was a directory", True),
            *(Event(here.name, what, "was a file") for what in ("create", "modify", "close_write")),
        }
    )
    for name in ("was a directory", "was a file"):
        what = [event.what for event in events if event.name == name]
        assert what[:2] == ["delete", "create"]


@pytest.mark.parametrize("target", ["main", "a branch"])
def test_a_merge_is_seen(shared: Workspace, here: Path, watch: Callable[..., Inotify], target: str) -> None:
    furnish(here)
    below = here.relative_to(shared.path)
    helios(shared, "branch", "source")
    helios(shared, "branch", "target")
    branches = shared.path / ".branches"
    root = shared.path if target == "main" else branches / "target"
    work, where = branches / "source" / below, root / below
    (work / "d" / "changed").write_text("merged")
    (work / "d" / "old").rename(work / "d" / "new")
    (work / "d" / "removed").unlink()
    (work / "added").mkdir()
    (work / "added" / "file").write_text("")
    os.listdir(where / "d")
    seen = watch(where, where / "d")
    shared.helios("merge", "source", "-C", os.fspath(root), check=True)
    name = here.name
    assert set(seen.read_to(Event("d", "close_write", "changed"))) == {
        Event("d", "delete", "removed"),
        Event("d", "moved_from", "old"),
        Event("d", "moved_to", "new"),
        Event(name, "create", "added", True),
        Event("d", "modify", "changed"),
    }
    assert (where / "d" / "changed").read_text() == "merged" and os.listdir(where / "added") == ["file"]
    for branch in ("source", "target"):
        helios(shared, "branch", "--force", "-d", branch)


def test_what_the_mounts_owner_may_not_enter_is_passed_over(
    shared: Workspace, here: Path, watch: Callable[..., Inotify]
) -> None:
    closed = here / "closed"
    closed.mkdir()
    (closed / "file").write_text("before")
    closed.chmod(0)
    then = take(shared)
    closed.chmod(0o755)
    (closed / "file").write_text("after, and longer")
    seen = watch(here, closed)
    restore(shared, then)
    told = {Event(here.name, "attrib", "closed", True), Event("closed", "attrib", "", True)}
    if os.geteuid() == 0:
        told |= {Event("closed", "modify", "file"), Event("closed", "close_write", "file")}
    seen.read_all(told)
    closed.chmod(0o755)
    assert (closed / "file").read_text() == "before"


# -- While it is told -------------------------------------------------------------------------------------------------


def test_a_name_is_there_all_the_time(shared: Workspace, here: Path, watch: Callable[..., Inotify]) -> None:
    """It is made once more, for watchers to see it, and nobody may find it missing meanwhile."""
    (here / "file").write_text("content")
    (here / "d").mkdir()
    (here / "d" / "below").write_text("below")
    (here / "moved").write_text("")
    (here / "link").symlink_to("file")
    then = take(shared)
    seen = watch(here)
    missing: list[OSError] = []
    for _ in range(40):
        (here / "file").unlink()
        (here / "d" / "below").unlink()
        (here / "d").rmdir()
        (here / "link").unlink()
        (here / "moved").rename(here / "elsewhere")
        restore(shared, then)
        told = False
        while not told:
            for name in ("file", "d/below", "link", "moved"):
                try:
                    (here / name).stat()
                except OSError as error:
                    missing.append(error)
            assert not os.path.lexists(here / "elsewhere")
            while select.select([seen.fd], [], [], 0)[0]:
                told = Event(here.name, "create", "link") in seen.read() or told
    assert not missing


def test_what_is_open_already_keeps_its_name(shared: Workspace, here: Path, watch: Callable[..., Inotify]) -> None:
    with held_back(shared, here, watch):
        (here / "file").write_text("content")
        then = take(shared)
        (here / "file").unlink()
        seen = watch(here)
        restore(shared, then)
        file = (here / "file").open()
    with file:
        assert seen.read_to(Event(here.name, "close_write", "file")) == [Event(here.name, "modify", "file")]
        assert os.readlink(f"/proc/self/fd/{file.fileno()}") == os.fspath(here / "file")
        assert file.read() == "content"


def test_what_comes_and_goes_before_it_is_told(shared: Workspace, here: Path, watch: Callable[..., Inotify]) -> None:
    """The process may ask for what it likes: what is there stays, what is not there does not come."""
    with held_back(shared, here, watch):
        for name in ("made", "replaced", "mode"):
            (here / name).write_text("")
        (here / "moved").write_text("moved")
        then = take(shared)
        for name in ("made", "replaced"):
            (here / name).unlink()
        (here / "moved").rename(here / "elsewhere")
        (here / "gone").write_text("")
        (here / "mode").chmod(0o600)
        seen = watch(here)
        restore(shared, then)
        (here / "made").unlink()
        (here / "replaced").unlink()
        (here / "replaced").mkdir()
        (here / "gone").write_text("again")
        (here / "elsewhere").write_text("another")
    last = Event(here.name, "attrib", "mode")
    while last not in seen.read():
        pass
    assert sorted(os.listdir(here)) == ["elsewhere", "for the first time", "gone", "mode", "moved", "replaced"]
    assert (here / "elsewhere").read_text() == "another" and (here / "moved").read_text() == "moved"
    assert (here / "gone").read_text() == "again" and os.listdir(here / "replaced") == []


def test_a_writer_in_the_middle_keeps_what_it_wrote(
    shared: Workspace, here: Path, watch: Callable[..., Inotify]
) -> None:
    (here / "file").write_bytes(b"a" * 10_000)
    then = take(shared)
    seen = watch(here)
    for size in range(20):
        (here / "file").write_bytes(b"b" * 5000)
        restore(shared, then)
        with (here / "file").open("ab") as file:
            for _ in range(size):
                file.write(b"c" * 100)
                file.flush()
        expected_bytes = b"a" * 10_000 + b"c" * 100 * size
        assert (here / "file").read_bytes() == expected_bytes
        seen.read()
        assert (here / "file").read_bytes() == expected_bytes


def test_the_process_may_die(shared: Workspace, here: Path, watch: Callable[..., Inotify]) -> None:
    (here / "file").write_text("before")
    then = take(shared)
    with held_back(shared, here, watch):
        (here / "file").write_text("after, and longer")
        restore(shared, then)
        [toucher] = touchers(shared)
        killer = Killer(toucher)
        killer.kill()
        killer.wait()
    (here / "file").write_text("after")
    seen = watch(here)
    restore(shared, then)
    assert seen.read_to(Event(here.name, "close_write", "file")) == [Event(here.name, "modify", "file")]
    log = (shared.store / "run" / "main.log").read_text()
    assert log.count("watchers do not hear of all that has changed") == 1


def test_an_unmount_does_not_wait_for_it(helios: Helios, mounted: Workspace) -> None:
    for number in range(2000):
        (mounted.path / f"file{number}").write_text("")
    then = take(mounted)
    for number in range(2000):
        (mounted.path / f"file{number}").unlink()
    restore(mounted, then)
    mounted.unmount()
    assert not find_mounts(mounted.path)


# -- Programs that watch ----------------------------------------------------------------------------------------------


class Tail:
    """A `tail` that follows a file. It trusts inotify where it knows the filesystem to be local, so it polls here."""

    def __init__(self, *arguments: str) -> None:
        self._process = subprocess.Popen(
            ["tail", *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )

    def __enter__(self) -> "Tail":
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()

    def line(self) -> str:
        """Return what it says next."""
        assert self._process.stdout is not None
        ready, _, _ = select.select([self._process.stdout], [], [], PATIENCE_SECONDS)
        assert ready, "tail says nothing"
        return os.read(self._process.stdout.fileno(), 1 << 16).decode()


def test_tail_follows_a_file_that_is_restored(shared: Workspace, here: Path) -> None:
    (here / "log").write_text("one\ntwo\nthree\n")
    then = take(shared)
    (here / "log").write_text("one\n")
    with Tail("-f", "-s", "0.05", os.fspath(here / "log")) as tail:
        assert tail.line() == "one\n"
        restore(shared, then)
        assert tail.line() == "two\nthree\n"
        with (here / "log").open("a") as log:
            log.write("four\n")
        assert tail.line() == "four\n"


def test_tail_finds_a_file_that_comes_back(shared: Workspace, here: Path) -> None:
    (here / "log").write_text("back\n")
    then = take(shared)
    (here / "log").unlink()
    with Tail("-F", "-s", "0.05", os.fspath(here / "log")) as tail:
        said = ""
        while "cannot open" not in said:
            said += tail.line()
        restore(shared, then)
        said = tail.line()
        while "back\n" not in said.splitlines(keepends=True):
            said += tail.line()


def test_watchdog(shared: Workspace, here: Path) -> None:
    from watchdog.events import FileSystemEvent, FileSystemEventHandler
    from watchdog.observers.inotify import InotifyObserver

    furnish(here)
    then = take(shared)
    wreck(here)
    found: set[tuple[str, str]] = set()
    done = threading.Event()

    class Handler(FileSystemEventHandler):
        def on_any_event(self, event: FileSystemEvent) -> None:
            for path in filter(None, [event.src_path, event.dest_path]):
                found.add((event.event_type, os.path.relpath(os.fsdecode(path), here)))
            if event.src_path == os.fspath(here / "d" / "mode"):
                done.set()

    observer = InotifyObserver()
    observer.schedule(Handler(), os.fspath(here), recursive=True)
    observer.start()
    try:
        restore(shared, then)
        assert done.wait(PATIENCE_SECONDS), found
    finally:
        observer.stop()
        observer.join()
    assert found >= {
        ("created", "whole"),
        ("created", "d/removed"),
        ("created", "d/link"),
        ("modified", "d/changed"),
        ("closed", "d/changed"),
        ("modified", "d/program"),
        ("moved", "d/new"),
        ("moved", "d/old"),
        ("moved", "renamed"),
        ("moved", "folder"),
        ("deleted", "d/added"),
        ("deleted", "empty"),
    }


# -- fanotify ---------------------------------------------------------------------------------------------------------

_FAN_CLOEXEC = 0x1
_FAN_MARK_ADD = 0x1
_FAN_MARK_FILESYSTEM = 0x100
_FAN_MODIFY, _FAN_CLOSE_WRITE, _FAN_CREATE, _FAN_EVENT_ON_CHILD = 0x2, 0x8, 0x100, 0x0800_0000
_FAN_REPORT_FID = 0x200
_FAN_EVENT = struct.Struct("IBBHQii")


def fanotify(flags: int) -> int:
    fd: int = _libc.fanotify_init(_FAN_CLOEXEC | flags, os.O_RDONLY)
    assert fd >= 0, os.strerror(ctypes.get_errno())
    return fd


def mark(fd: int, path: Path, what: int, flags: int = 0) -> int:
    """Return 0, or the errno."""
    done = _libc.fanotify_mark(fd, _FAN_MARK_ADD | flags, ctypes.c_uint64(what), -1, os.fsencode(path))
    return 0 if done == 0 else ctypes.get_errno()


@pytest.mark.root
def test_fanotify_by_a_mark_on_a_directory(shared: Workspace, here: Path) -> None:
    (here / "file").write_text("before")
    then = take(shared)
    (here / "file").write_text("after, and longer")
    fd = fanotify(0)
    try:
        assert mark(fd, here, _FAN_CLOSE_WRITE | _FAN_EVENT_ON_CHILD) == 0
        restore(shared, then)
        ready, _, _ = select.select([fd], [], [], PATIENCE_SECONDS)
        assert ready, "no event comes"
        length, _, _, _, mask, file, _ = _FAN_EVENT.unpack_from(os.read(fd, 4096))
        assert length == _FAN_EVENT.size and mask == _FAN_CLOSE_WRITE
        assert os.readlink(f"/proc/self/fd/{file}") == os.fspath(here / "file")
        os.close(file)
    finally:
        os.close(fd)


@pytest.mark.root
def test_fanotify_by_names_takes_marks_on_directories_only(shared: Workspace, here: Path) -> None:
    """A FUSE filesystem has no id of its own (f_fsid is 0), so it cannot be marked as a whole."""
    (here / "file").write_text("")
    then = take(shared)
    (here / "file").unlink()
    fd = fanotify(_FAN_REPORT_FID)
    try:
        assert mark(fd, here, _FAN_CREATE, _FAN_MARK_FILESYSTEM) == errno.ENODEV
        assert mark(fd, here, _FAN_CREATE | _FAN_MODIFY | _FAN_EVENT_ON_CHILD) == 0
        restore(shared, then)
        seen = 0
        while seen != _FAN_CREATE | _FAN_MODIFY:
            ready, _, _ = select.select([fd], [], [], PATIENCE_SECONDS)
            assert ready, "no event comes"
            events = os.read(fd, 4096)
            while events:
                length, _, _, _, mask, _, _ = _FAN_EVENT.unpack_from(events)
                seen, events = seen | mask, events[length:]
    finally:
        os.close(fd)
