"""Directories: listings while names come and go, large and deep ones, and moving them while they are in use."""

import errno
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.mount.mounted import PATIENCE_SECONDS, Workspace
from tests.mount.one_mount import one_workspace
from tests.mount.system_calls import EXCHANGE, file, rename, tried
from tests.posix.system import Directory, in_child

pytestmark = pytest.mark.fuse

LONG = "n" * 200
"""A few hundred names that end so do not fit into one getdents(2)."""


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workspace]:
    with one_workspace(tmp_path_factory.mktemp("directories")) as mounted:
        yield mounted


@pytest.fixture
def place(workspace: Workspace, request: pytest.FixtureRequest) -> Path:
    directory = workspace.path / request.node.name
    directory.mkdir()
    return directory


def fill(directory: Path, *names: str) -> set[str]:
    for name in names:
        os.mknod(directory / name)
    return set(names)


# -- Listings while names come and go --------------------------------------------------------------------------------


def test_every_position_of_a_listing_stays_one(workspace: Workspace, place: Path) -> None:
    """POSIX: telldir is good until rewinddir or closedir, whatever happens in between."""
    names = [f"{number:03}-{LONG}" for number in range(400)]
    fill(place, *names)
    workspace.seal()
    stream = Directory(place)
    positions = {}
    order = []
    while True:
        position = stream.tell()
        name = stream.read()
        if name is None:
            break
        positions[name] = position
        order.append(name)
    gone = {os.fsencode(name) for name in names[::3]}
    for name in gone:
        os.unlink(os.fsencode(place) + b"/" + name)
    new = fill(place, *(f"new-{number}-{LONG}" for number in range(100)))
    for name in order[::17]:
        stream.seek(positions[name])
        seen = [other for other in stream.rest() if os.fsdecode(other) not in new]
        behind = [other for other in order[order.index(name) :] if other not in gone and other not in (b".", b"..")]
        assert seen == behind
    stream.rewind()
    assert {os.fsdecode(name) for name in stream.rest()} == {*names, *new} - {os.fsdecode(name) for name in gone}
    stream.close()


COMING_AND_GOING = """
import os, sys
directory, long = sys.argv[1:]
os.chdir(directory)
number = 0
while sys.stdin.readline():
    for turn in range(40):
        os.mknod(f"new-{number}-{long}")
        os.rename(f"new-{number}-{long}", f"moved-{number}-{long}")
        if number >= 100:
            os.unlink(f"moved-{number - 100}-{long}")
        number += 1
    print("done", flush=True)
"""


def test_several_readers_while_another_process_changes_the_directory(workspace: Workspace, place: Path) -> None:
    staying = fill(place, *(f"stays-{number}-{LONG}" for number in range(300)))
    changer = subprocess.Popen(
        [sys.executable, "-c", COMING_AND_GOING, place, LONG],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert changer.stdin is not None and changer.stdout is not None
    readers = [os.scandir(place) for _ in range(5)]
    seen: list[list[str]] = [[] for _ in readers]
    running = True
    turn = 0
    while running:
        # One asks for changes and reads on while they happen; the readers are in different places.
        changer.stdin.write("go\n")
        changer.stdin.flush()
        running = False
        for number, reader in enumerate(readers):
            for _ in range(10 * (number + 1)):
                entry = next(reader, None)
                if entry is not None:
                    seen[number].append(entry.name)
                    running = True
        changer.stdout.readline()
        turn += 1
        if turn == 3:
            (workspace.path / ".snapshots" / "while listing").mkdir()
        if turn == 6:
            workspace.seal()
    changer.stdin.close()
    assert changer.wait(PATIENCE_SECONDS) == 0
    changer.stdout.close()
    assert turn > 6
    for names in seen:
        assert len(names) == len(set(names)), "a name twice"
        assert staying <= set(names), "one that was there throughout is left out"
    then = workspace.path / ".snapshots" / "while listing" / place.name
    assert staying <= set(os.listdir(then))


def test_a_listing_goes_on_where_its_directory_moves_and_ends_where_it_goes(place: Path) -> None:
    (place / "one").mkdir()
    names = fill(place / "one", *(f"{number}-{LONG}" for number in range(300)))
    with os.scandir(place / "one") as moving, os.scandir(place / "one") as ending:
        seen = {next(moving).name for _ in range(20)}
        first = {next(ending).name for _ in range(20)}
        os.rename(place / "one", place / "two")
        seen |= {entry.name for entry in moving}
        shutil.rmtree(place / "two")
        rest = {entry.name for entry in ending}
    assert seen == names
    # What it still lists was in the C library's buffer.
    assert first | rest < names
    assert not first & rest


def test_rm_while_others_list(place: Path) -> None:
    doomed = place / "doomed"
    for number in range(20):
        (doomed / f"{number}").mkdir(parents=True)
        fill(doomed / f"{number}", *(f"{inner}-{LONG}" for inner in range(60)))
    listing = subprocess.Popen(["sh", "-c", f"while ls -lR '{doomed}' >/dev/null 2>&1; test -d '{doomed}'; do :; done"])
    try:
        done = subprocess.run(["rm", "-rf", doomed], capture_output=True, timeout=PATIENCE_SECONDS)
    finally:
        if doomed.exists():
            listing.kill()
        listing.wait(PATIENCE_SECONDS)
    assert (done.returncode, done.stderr) == (0, b"")
    assert os.listdir(place) == []


def test_a_large_directory(workspace: Workspace, place: Path) -> None:
    """20,000 entries; HELIOS_TORTURE: a million."""
    count = 1_000_000 if "HELIOS_TORTURE" in os.environ else 20_000
    os.chdir(place)
    try:
        for number in range(count):
            os.mknod(f"{number}")
    finally:
        os.chdir("/")
    assert place.stat().st_size == count
    assert len(set(os.listdir(place))) == count
    workspace.remount()
    assert sorted(map(int, os.listdir(place))) == list(range(count))
    for number in range(0, count, count // 100):
        assert (place / f"{number}").is_file()
        assert not (place / f"{number}-absent").exists()
        os.rename(place / f"{number}", place / f"{count + number}")
    # Deleting what a listing brings, while it goes on.
    with os.scandir(place) as entries:
        for entry in entries:
            os.unlink(entry.path)
    assert os.listdir(place) == []
    os.rmdir(place)


# -- Deep ones -------------------------------------------------------------------------------------------------------


def test_deeper_than_a_path_can_name(workspace: Workspace, place: Path) -> None:
    """By steps down, working there, through a seal and a remount, and programs that walk it."""
    name, depth = "d" * 255, 40
    assert depth * len(name) > 2 * 4096

    def descend(make: bool) -> tuple[object, int, str]:
        os.chdir(place)
        for _ in range(depth):
            if make:
                os.mkdir(name)
            os.chdir(name)
        if make:
            file(Path("bottom"), "down here")
            os.link("bottom", "again")
            os.rename("bottom", "moved")
        return tried(os.getcwd), os.stat("moved").st_nlink, Path("again").read_text()

    # The C library finds the way up by itself where the kernel's path is too long.
    deepest = in_child(lambda: descend(True))
    assert deepest[1:] == (2, "down here")
    assert deepest[0] == "ENAMETOOLONG" or len(str(deepest[0])) > 8192
    (workspace.path / ".snapshots" / "deep").mkdir()
    workspace.remount()
    assert in_child(lambda: descend(False)) == deepest
    assert tried(os.stat, place / "/".join([name] * depth)) == "ENAMETOOLONG"
    for walked in (place, workspace.path / ".snapshots" / "deep" / place.name):
        found = subprocess.run(["find", ".", "-name", "again"], cwd=walked, capture_output=True, timeout=60)
        assert found.stdout.count(b"/") == depth + 1
    subprocess.run(["rm", "-r", place], check=True, timeout=PATIENCE_SECONDS)
    assert not place.exists()


def test_a_path_of_exactly_path_max(place: Path) -> None:
    """4,095 bytes and a NUL: the longest that a system call takes."""
    room = 4095 - len(os.fsencode(place))
    directory, left = place, room
    while left > 256:
        directory, left = directory / ("d" * 200), left - 201
    directory.mkdir(parents=True)
    longest = directory / ("f" * (left - 1))
    assert len(os.fsencode(longest)) == 4095
    longest.write_text("there")
    assert longest.read_text() == "there"
    assert tried(os.stat, f"{longest}x") == "ENAMETOOLONG"
    shutil.rmtree(place)


# -- Moving what is in use -------------------------------------------------------------------------------------------


def test_directories_move_with_open_files_and_processes_in_them(workspace: Workspace, place: Path) -> None:
    inner = place / "a" / "b" / "c"
    inner.mkdir(parents=True)
    (place / "other").mkdir()
    path = file(inner / "file", "before")
    with (
        subprocess.Popen(
            ["sh"], cwd=inner, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        ) as shell,
        open(path, "r+") as opened,
        os.scandir(inner) as listing,
    ):

        def ask(command: str) -> str:
            assert shell.stdin is not None and shell.stdout is not None
            shell.stdin.write(command + "\n")
            return shell.stdout.readline().strip()

        os.rename(place / "a", place / "other" / "moved")
        assert ask("/bin/pwd") == str(place / "other" / "moved" / "b" / "c")
        os.rename(place / "other" / "moved" / "b", place / "b")
        assert ask("/bin/pwd") == str(place / "b" / "c")
        (workspace.path / ".snapshots" / "moved").mkdir()
        opened.write("after!")
        opened.flush()
        assert ask("cat file; echo") == "after!"
        assert ask("echo new > made && cat ../c/made") == "new"
        assert "file" in [entry.name for entry in listing]
        rename(place / "b", place / "other", EXCHANGE)
        assert ask("/bin/pwd") == str(place / "other" / "c")
        shutil.rmtree(place / "other")
        assert ask("cat ../c/file 2>/dev/null || echo gone") == "gone"
        assert ask("echo x 2>/dev/null > new || echo refused") == "refused"
        opened.seek(0)
        assert opened.read() == "after!"
    then = workspace.path / ".snapshots" / "moved" / place.name
    assert (then / "b" / "c" / "file").read_text() == "before"


def test_no_directory_below_itself(place: Path) -> None:
    (place / "a" / "b" / "c" / "d").mkdir(parents=True)
    a, c = place / "a", place / "a" / "b" / "c"
    assert [
        tried(os.rename, a, a / "x"),
        tried(os.rename, a, c / "d" / "x"),
        tried(os.rename, a / "b", c / "d"),
        tried(rename, a, c / "d", EXCHANGE),
        tried(rename, c, a, EXCHANGE),
    ] == ["EINVAL"] * 5
    os.rename(c, place / "c")
    # Once outside, the former parent may go into it.
    os.rename(a, place / "c" / "d" / "a")
    assert tried(os.rename, place / "c", place / "c" / "d" / "a" / "b" / "c") == "EINVAL"
    assert (place / "c" / "d" / "a" / "b").is_dir()


def _swap(one: Path, other: Path) -> tuple[int, set[int]]:
    moved, refusals = 0, set()
    for _ in range(300):
        try:
            os.rename(one, other / "inside")
            moved += 1
            os.rename(other / "inside", one)
        except OSError as error:
            refusals.add(error.errno or 0)
    return moved, refusals


def test_two_directories_that_are_moved_into_each_other_at_once(place: Path) -> None:
    """Whoever is first wins; never do both go and are lost to the tree."""
    (place / "a").mkdir()
    (place / "b").mkdir()
    child = os.fork()
    if child == 0:
        _, refusals = _swap(place / "a", place / "b")
        os._exit(0 if refusals <= {errno.ENOENT, errno.EINVAL} else 1)
    moved, refusals = _swap(place / "b", place / "a")
    assert os.waitpid(child, 0)[1] == 0
    assert refusals <= {errno.ENOENT, errno.EINVAL}
    assert moved > 0
    assert {path.name for path in place.rglob("*")} <= {"a", "b", "inside"}
    assert len(list(place.rglob("*"))) == 2
