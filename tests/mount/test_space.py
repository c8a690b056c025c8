"""`helios gc` and `helios purge` as people call them: on mounts, without, with files open, interrupted."""

import json
import os
import pty
import select
import shutil
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from helios_fs.control import messages
from helios_fs.control.client import find_daemon, socket_name
from helios_fs.store.branches import Branches
from tests.conftest import Helios

pytestmark = pytest.mark.fuse

MIB = 1 << 20


def packs_bytes(store: Path) -> int:
    return sum(entry.stat().st_size for entry in os.scandir(store / "packs"))


def holders(store: Path, needle: bytes) -> list[Path]:
    """Return the files of a store that hold these bytes."""
    return [path for path in store.rglob("*") if path.is_file() and needle in path.read_bytes()]


def fill(workspace: Path, folder: str, count: int, size: int) -> None:
    (workspace / folder).mkdir(exist_ok=True)
    for number in range(count):
        (workspace / folder / str(number)).write_bytes(os.urandom(size))


def test_a_store_shrinks_to_what_it_holds(helios: Helios, workspace: Path, tmp_path: Path) -> None:
    """Mounted all the while: what is kept, what is looked at and what is open without a name stays whole."""
    store = tmp_path / "store"
    fill(workspace, "kept", 40, 100_000)
    (workspace / "open").write_bytes(first := os.urandom(300_000))
    for number in range(6):
        fill(workspace, "changing", 30, 100_000)
        helios("snapshot", f"s{number}", "-C", workspace, check=True)
        helios("gc", "-C", workspace, check=True)
    before = packs_bytes(store)
    assert before > 20 * MIB
    kept = {path.name: path.read_bytes() for path in (workspace / "kept").iterdir()}
    shutil.rmtree(workspace / "changing")
    looked_at = os.open(workspace / ".snapshots/s2/changing/7", os.O_RDONLY)
    before_deletion = os.pread(looked_at, 200_000, 0)
    with (workspace / "open").open("rb") as unlinked:
        os.unlink(workspace / "open")
        for number in range(6):
            os.rmdir(workspace / f".snapshots/s{number}")
        done = json.loads(helios("gc", "--json", "-C", workspace, check=True).stdout)
        assert (done["problems"], done["store"]) == ([], str(store))
        assert done["bytes_freed"] > 10 * MIB and done["pins"] > 1
        assert packs_bytes(store) < before - 10 * MIB
        for fd in (unlinked.fileno(), looked_at):
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        assert unlinked.read() == first
        assert os.pread(looked_at, 200_000, 0) == before_deletion
    os.close(looked_at)
    assert {path.name: path.read_bytes() for path in (workspace / "kept").iterdir()} == kept
    done_again = helios("gc", "-C", workspace, check=True)
    assert done_again.stdout.endswith("freed\n") and "are needed" in done_again.stderr
    helios("unmount", workspace, check=True)
    helios("gc", "--store", store, check=True)
    assert packs_bytes(store) < 1.2 * 4_000_000
    helios("mount", workspace, "--store", store, check=True)
    assert {path.name: path.read_bytes() for path in (workspace / "kept").iterdir()} == kept
    assert os.listdir(workspace) == ["kept"]


def test_a_collection_in_another_process_leaves_what_a_mount_needs(
    helios: Helios, workspace: Path, environment: dict[str, str]
) -> None:
    """It sees what the mount pins: a file that is open without a name, a view of a snapshot that is deleted."""
    store = workspace.parent / "store"
    first, second = os.urandom(300_000), os.urandom(100_000)
    (workspace / "unlinked").write_bytes(first)
    (workspace / "viewed").write_bytes(second)
    helios("snapshot", "one", "-C", workspace, check=True)
    helios("status", "-C", workspace, check=True)
    unlinked = os.open(workspace / "unlinked", os.O_RDONLY)
    viewed = os.open(workspace / ".snapshots/one/viewed", os.O_RDONLY)
    os.unlink(workspace / "unlinked")
    os.unlink(workspace / "viewed")
    (workspace / "new").write_bytes(b"so that there is something")
    os.rmdir(workspace / ".snapshots/one")
    helios("snapshot", "two", "-C", workspace, check=True)
    helios("status", "-C", workspace, check=True)
    collect = (
        "import sys; from helios_fs.store.store import Store; from helios_fs.sealer.collect import collect_store;"
        "store = Store.open(sys.argv[1]); collect_store(store, wait=True, slack=0.0); store.close()"
    )
    subprocess.run([sys.executable, "-c", collect, str(store)], env=environment, check=True, timeout=60)
    for fd, data in ((unlinked, first), (viewed, second)):
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        assert os.pread(fd, 400_000, 0) == data
        os.close(fd)
    assert packs_bytes(store) > 400_000
    # The kernel may remember names below a deleted snapshot for as long as it likes, but not without the mount.
    helios("unmount", workspace, check=True)
    helios("gc", "--store", store, check=True)
    assert packs_bytes(store) < 10_000


def test_collecting_while_others_write(helios: Helios, workspace: Path) -> None:
    writer = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import os, sys\nfor n in range(400):\n open(f'{sys.argv[1]}/f{n % 20}', 'wb').write(os.urandom(60000))\n"
            " n % 40 or os.mkdir(f'{sys.argv[1]}/.snapshots/n{n}')\n"
            " n % 80 or os.rmdir(f'{sys.argv[1]}/.snapshots/n{n}')",
            str(workspace),
        ]
    )
    while writer.poll() is None:
        helios("gc", "-C", workspace, check=True)
    assert writer.returncode == 0
    connection = find_daemon(str(workspace.parent / "store"), "main")
    assert connection is not None
    with connection:
        # As a collection by another daemon asks for; the next seal goes on as before.
        assert connection.ask(messages.Collect(release_only=True), messages.Collected).packs_dropped == 0
        assert connection.ask(messages.Seal(), messages.Sealed).tree
    assert len(os.listdir(workspace / ".snapshots")) >= 5
    for path in (workspace / ".snapshots").rglob("f*"):
        assert len(path.read_bytes()) == 60000


def test_gc_without_a_mount_and_on_a_terminal(helios: Helios, workspace: Path, environment: dict[str, str]) -> None:
    fill(workspace, "d", 3, 100_000)
    helios("snapshot", "one", "-C", workspace, check=True)
    store = workspace.parent / "store"
    os.rmdir(workspace / ".snapshots/one")
    shutil.rmtree(workspace / "d")
    helios("unmount", workspace, check=True)
    master, slave = pty.openpty()
    done = subprocess.run(
        [sys.executable, "-m", "helios_fs.cli.main", "gc", "--store", str(store)],
        env=environment, stderr=slave, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, timeout=60, check=True,
    )  # fmt: skip
    os.close(slave)
    drawn = os.read(master, 1 << 16)
    os.close(master)
    assert b"collecting" in drawn and done.stdout.endswith(b"freed\n")
    assert packs_bytes(store) < 5000


# -- Purge -----------------------------------------------------------------------------------------------------------


def test_a_branch_that_is_closed_while_a_collection_begins(helios: Helios, workspace: Path) -> None:
    """Whoever listens for it takes the connection and hangs up; the others are asked all the same."""
    store = workspace.parent / "store"
    os.mkdir(workspace / ".branches/side")
    helios("branch", "-C", workspace, check=True)
    (side,) = Branches(str(store)).all()
    run = os.open(store / "run", os.O_PATH)
    with socket.socket(socket.AF_UNIX) as closing:
        closing.bind(f"/proc/self/fd/{run}/{socket_name(side.id)}")
        os.close(run)
        closing.listen()

        def hang_up() -> None:
            connection, _ = closing.accept()
            # With a request unread: the other end is reset.
            select.select([connection], [], [], 30)
            connection.close()

        thread = threading.Thread(target=hang_up)
        thread.start()
        done = helios("gc", "-C", workspace)
        thread.join(30)
    assert not thread.is_alive()
    assert done.returncode == 0, done.stderr


@pytest.fixture
def leaked(helios: Helios, workspace: Path) -> tuple[Path, bytes, bytes]:
    """A workspace that is unmounted again: its store, and bytes of a key and of a huge file in it."""
    key, huge = os.urandom(1000), os.urandom(3 * MIB)
    (workspace / "conf").mkdir()
    (workspace / "conf/key").write_bytes(key)
    (workspace / "huge").write_bytes(huge)
    (workspace / "file").write_text("stays")
    helios("snapshot", "one", "-C", workspace, check=True)
    (workspace / "file").write_text("stays too")
    (workspace / "copy").write_bytes(key)
    helios("snapshot", "two", "-C", workspace, check=True)
    refused = helios("purge", "conf/key", "--yes", "-C", workspace)
    assert (refused.returncode, refused.stdout) == (3, "") and f"mounted at {workspace}" in refused.stderr
    helios("unmount", workspace, check=True)
    return workspace.parent / "store", key[500:540], huge[MIB : MIB + 40]


def test_a_leaked_key_goes_for_ever(helios: Helios, workspace: Path, leaked: tuple[Path, bytes, bytes]) -> None:
    store, key, huge = leaked
    before = json.loads(helios("log", "--json", "--store", store, check=True).stdout)
    unanswered = helios("purge", "conf/key", "--store", store)
    assert unanswered.returncode == 2 and "--yes" in unanswered.stderr
    planned = json.loads(helios("purge", "conf", "huge", "--dry-run", "--json", "--store", store, check=True).stdout)
    assert (planned["paths"], planned["same_content"], planned["done"]) == (["conf", "huge"], ["copy"], False)
    assert holders(store, key) and holders(store, huge)

    done = helios("purge", "conf", "huge", "--yes", "--same-content", "--store", store, check=True)
    assert "copy" in done.stderr and "2 snapshots, now in main" in done.stderr and "other tree hashes" in done.stderr
    assert holders(store, key) == holders(store, huge) == []
    after = json.loads(helios("log", "--json", "--store", store, check=True).stdout)
    assert [one["id"] for one in after] == [one["id"] for one in before]
    assert all(a["tree"] != b["tree"] for a, b in zip(after, before, strict=True))
    again = helios("purge", "conf", "--yes", "--store", store)
    assert again.returncode == 3 and "no snapshot and no branch holds that" in again.stderr

    helios("mount", workspace, "--store", store, check=True)
    assert os.listdir(workspace) == ["file"]
    assert (workspace / ".snapshots/one/file").read_text() == "stays"
    (workspace / "file").write_text("and goes on")
    helios("snapshot", "three", "-C", workspace, check=True)
    assert helios("status", "-C", workspace, check=True).stdout == ""


@pytest.mark.parametrize(("answer", "code"), [(b"n\n", 3), (b"y\n", 0)])
def test_it_asks(environment: dict[str, str], leaked: tuple[Path, bytes, bytes], answer: bytes, code: int) -> None:
    store, key, _ = leaked
    master, slave = pty.openpty()
    os.write(master, answer)
    done = subprocess.run(
        [sys.executable, "-m", "helios_fs.cli.main", "purge", "conf/key", "copy", "--store", str(store)],
        env=environment, stdin=slave, capture_output=True, timeout=60,
    )  # fmt: skip
    os.close(slave)
    os.close(master)
    assert done.returncode == code, done.stderr
    assert b"Purge all of this for ever?" in done.stderr
    assert bool(holders(store, key)) == bool(code)


def test_a_purge_that_is_killed_is_finished_by_the_next(
    helios: Helios, environment: dict[str, str], leaked: tuple[Path, bytes, bytes]
) -> None:
    store, key, huge = leaked
    die_before_collecting = (
        "import os, signal\nimport helios_fs.history.purge as purge\n"
        "purge.collect_store = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)\n"
        "from helios_fs.cli.main import main\nimport sys\nmain()"
    )
    killed = subprocess.run(
        [sys.executable, "-c", die_before_collecting, "purge", "conf", "copy", "--yes", "--store", str(store)],
        env=environment, capture_output=True, timeout=60,
    )  # fmt: skip
    assert killed.returncode == -signal.SIGKILL
    assert holders(store, key) and (store / "purge").exists()
    assert "a purge was interrupted" in helios("gc", "--store", store, check=True).stderr
    assert (store / "purge").exists()
    done = helios("purge", "huge", "--yes", "--store", store, check=True)
    assert "an earlier purge was interrupted: conf, copy" in done.stderr
    assert holders(store, key) == holders(store, huge) == []
    assert not (store / "purge").exists()


def test_branches_lose_a_purged_path_and_deleted_ones_end(helios: Helios, workspace: Path) -> None:
    """One that was made the moment before the daemon is killed, too: its parent's journal alone knows of it."""
    store = workspace.parent / "store"
    secret, dropped = os.urandom(2000), os.urandom(2000)
    (workspace / "file").write_text("stays")
    for name in ("side", "gone"):
        os.mkdir(workspace / ".branches" / name)
    (workspace / ".branches/side/secret").write_bytes(secret)
    (workspace / ".branches/gone/file").write_bytes(dropped)
    helios("branch", "-d", "gone", "--force", "-C", workspace, check=True)
    (workspace / "secret").write_bytes(secret)
    connection = find_daemon(str(store), "main")
    assert connection is not None
    with connection:
        daemon = os.pidfd_open(connection.hello().pid)
        os.mkdir(workspace / ".branches/late")
        signal.pidfd_send_signal(daemon, signal.SIGKILL)
        assert select.select([daemon], [], [], 30)[0]
        os.close(daemon)
    subprocess.run(["fusermount3", "-uz", str(workspace)], check=True, timeout=30)
    done = json.loads(helios("purge", "secret", "--yes", "--json", "--store", store, check=True).stdout)
    assert done["done"] and len(done["branches"]) == 3
    assert holders(store, secret[100:140]) == holders(store, dropped[100:140]) == []
    helios("mount", workspace, "--store", store, check=True)
    assert sorted(os.listdir(workspace / ".branches")) == ["late", "side"]
    for tree in (workspace, workspace / ".branches/late", workspace / ".branches/side"):
        assert os.listdir(tree) == ["file"]
        assert (tree / "file").read_text() == "stays"
