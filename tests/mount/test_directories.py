"""Directories: listings while names come and go, large and deep ones, and moving them while they are in use."""

import errno
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.mount.mounted import PATIENCE_SECONDS, Workspace
from tests.mount.system_calls import EXCHANGE, file, rename, tried
from tests.posix.system import Directory, in_child

pytestmark = pytest.mark.fuse

LONG = "n" * 200
"""A few hundred names that end so do not fit into one getdents(2)."""


def fill(directory: Path, *names: str) -> set[str]:
    for name in names:
        os.mknod(directory / name)
    return set(names)


# -- Listings while names come and go --------------------------------------------------------------------------------


def test_every_position_of_a_listing_stays_one(shared: Workspace, folder: Path) -> None:
    """POSIX: telldir is good until rewinddir or closedir, whatever happens in between."""
    names = [f"{number:03}-{LONG}" for number in range(400)]
    fill(folder, *names)
    shared.seal()
    stream = Directory(folder)
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
        os.unlink(os.fsencode(folder) + b"/" + name)
    new = fill(folder, *(f"new-{number}-{LONG}" for number in range(100)))
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


def test_several_readers_while_another_process_changes_the_directory(shared: Workspace, folder: Path) -> None:
    staying = fill(folder, *(f"stays-{number}-{LONG}" for number in range(300)))
    changer = subprocess.Popen(
        [sys.executable, "-c", COMING_AND_GOING, folder, LONG],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert changer.stdin is not None and changer.stdout is not None
    readers = [os.scandir(folder) for _ in range(5)]
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
            (shared.path / ".snapshots" / "while listing").mkdir()
        if turn == 6:
            shared.seal()
    changer.stdin.close()
    assert changer.wait(PATIENCE_SECONDS) == 0
    changer.stdout.close()
    assert turn > 6
    for names in seen:
        assert len(names) == len(set(names)), "a name twice"
        assert staying <= set(names), "one that was there throughout is left out"
    then = shared.path / ".snapshots" / "while listing" / folder.name
    assert staying <= set(os.listdir(then))


def test_a_listing_goes_on_where_its_directory_moves_and_ends_where_it_goes(folder: Path) -> None:
    (folder / "one").mkdir()
    names = fill(folder / "one", *(f"{number}-{LONG}" for number in range(300)))
    with os.scandir(folder / "one") as moving, os.scandir(folder / "one") as ending:
        seen = {next(moving).name for _ in range(20)}
        first = {next(ending).name for _ in range(20)}
        os.rename(folder / "one", folder / "two")
        seen |= {entry.name for entry in moving}
        shutil.rmtree(folder / "two")
        rest = {entry.name for entry in ending}
    assert seen == names
    # What it still lists was in the C library's buffer.
    assert first | rest < names
    assert not first & rest


def test_rm_while_others_list(folder: Path) -> None:
    doomed = folder / "doomed"
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
    assert os.listdir(folder) == []


def test_a_large_directory(shared: Workspace, folder: Path) -> None:
    """20,000 entries; HELIOS_TORTURE: a million."""
    count = 1_000_000 if "HELIOS_TORTURE" in os.environ else 20_000
    os.chdir(folder)
    try:
        for number in range(count):
            os.mknod(f"{number}")
    finally:
        os.chdir("/")
    assert folder.stat().st_size == count
    assert len(set(os.listdir(folder))) == count
    shared.remount()
    assert sorted(map(int, os.listdir(folder))) == list(range(count))
    for number in range(0, count, count // 100):
        assert (folder / f"{number}").is_file()
        assert not (folder / f"{number}-absent").exists()
        os.rename(folder / f"{number}", folder / f"{count + number}")
    # Deleting what a listing brings, while it goes on.
    with os.scandir(folder) as entries:
        for entry in entries:
            os.unlink(entry.path)
    assert os.listdir(folder) == []
    os.rmdir(folder)


# -- Deep ones -------------------------------------------------------------------------------------------------------


def test_deeper_than_a_path_can_name(shared: Workspace, folder: Path) -> None:
    """By steps down, working there, through a seal and a remount, and programs that walk it."""
    name, depth = "d" * 255, 40
    assert depth * len(name) > 2 * 4096

    def descend(make: bool) -> tuple[object, int, str]:
        os.chdir(folder)
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
    (shared.path / ".snapshots" / "deep").mkdir()
    shared.remount()
    assert in_child(lambda: descend(False)) == deepest
    assert tried(os.stat, folder / "/".join([name] * depth)) == "ENAMETOOLONG"
    for walked in (folder, shared.path / ".snapshots" / "deep" / folder.name):
        found = subprocess.run(["find", ".", "-name", "again"], cwd=walked, capture_output=True, timeout=60)
        assert found.stdout.count(b"/") == depth + 1
    subprocess.run(["rm", "-r", folder], check=True, timeout=PATIENCE_SECONDS)
    assert not folder.exists()


def test_a_path_of_exactly_path_max(folder: Path) -> None:
    """4,095 bytes and a NUL: the longest that a system call takes."""
    room = 4095 - len(os.fsencode(folder))
    directory, left = folder, room
    while left > 256:
        directory, left = directory / ("d" * 200), left - 201
    directory.mkdir(parents=True)
    longest = directory / ("f" * (left - 1))
    assert len(os.fsencode(longest)) == 4095
    longest.write_text("there")
    assert longest.read_text() == "there"
    assert tried(os.stat, f"{longest}x") == "ENAMETOOLONG"
    shutil.rmtree(folder)


# -- Moving what is in use -------------------------------------------------------------------------------------------


def test_directories_move_with_open_files_and_processes_in_them(shared: Workspace, folder: Path) -> None:
    inner = folder / "a" / "b" / "c"
    inner.mkdir(parents=True)
    (folder / "other").mkdir()
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

        os.rename(folder / "a", folder / "other" / "moved")
        assert ask("/bin/pwd") == str(folder / "other" / "moved" / "b" / "c")
        os.rename(folder / "other" / "moved" / "b", folder / "b")
        assert ask("/bin/pwd") == str(folder / "b" / "c")
        (shared.path / ".snapshots" / "moved").mkdir()
        opened.write("after!")
        opened.flush()
        assert ask("cat file; echo") == "after!"
        assert ask("echo new > made && cat ../c/made") == "new"
        assert "file" in [entry.name for entry in listing]
        rename(folder / "b", folder / "other", EXCHANGE)
        assert ask("/bin/pwd") == str(folder / "other" / "c")
        shutil.rmtree(folder / "other")
        assert ask("cat ../c/file 2>/dev/null || echo gone") == "gone"
        assert ask("echo x 2>/dev/null > new || echo refused") == "refused"
        opened.seek(0)
        assert opened.read() == "after!"
    then = shared.path / ".snapshots" / "moved" / folder.name
    assert (then / "b" / "c" / "file").read_text() == "before"


def test_no_directory_below_itself(folder: Path) -> None:
    (folder / "a" / "b" / "c" / "d").mkdir(parents=True)
    a, c = folder / "a", folder / "a" / "b" / "c"
    assert [
        tried(os.rename, a, a / "x"),
        tried(os.rename, a, c / "d" / "x"),
        tried(os.rename, a / "b", c / "d"),
        tried(rename, a, c / "d", EXCHANGE),
        tried(rename, c, a, EXCHANGE),
    ] == ["EINVAL"] * 5
    os.rename(c, folder / "c")
    # Once outside, the former parent may go into it.
    os.rename(a, folder / "c" / "d" / "a")
    assert tried(os.rename, folder / "c", folder / "c" / "d" / "a" / "b" / "c") == "EINVAL"
    assert (folder / "c" / "d" / "a" / "b").is_dir()


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


def test_two_directories_that_are_moved_into_each_other_at_once(folder: Path) -> None:
    """Whoever is first wins; never do both go and are lost to the tree."""
    (folder / "a").mkdir()
    (folder / "b").mkdir()
    child = os.fork()
    if child == 0:
        moved, refusals = _swap(folder / "a", folder / "b")
        os._exit(2 * (moved > 0) + (not refusals <= {errno.ENOENT, errno.EINVAL}))
    moved, refusals = _swap(folder / "b", folder / "a")
    ended = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert refusals <= {errno.ENOENT, errno.EINVAL} and not ended & 1
    # One of them may have been too slow to win even once.
    assert moved or ended & 2
    assert {path.name for path in folder.rglob("*")} <= {"a", "b", "inside"}
    assert len(list(folder.rglob("*"))) == 2
