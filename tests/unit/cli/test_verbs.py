"""The verbs, each in a process of its own, on real stores and real mounts."""

import json
import os
import pty
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.conftest import Helios

pytestmark = pytest.mark.fuse


def daemon_of(helios: Helios, mountpoint: Path) -> int:
    """Return the pid of the daemon behind a mount, from what doctor says of it."""
    found = json.loads(helios("doctor", "--json", "-C", mountpoint).stdout)
    [in_use] = [one["problem"] for one in found if one["kind"] == "store-in-use"]
    return int(in_use.split("process ")[1].split(",")[0])


def wait_dead(pid: int) -> None:
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    import select

    assert select.select([fd], [], [], 30)[0]
    os.close(fd)


def has_ended(pid: int) -> bool:
    """Tell whether a process is gone, or dead and only not reaped by its parent yet."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def test_a_day_in_a_workspace(helios: Helios, workspace: Path) -> None:
    (workspace / "sub").mkdir()
    (workspace / "a").write_text("one")
    assert "no snapshots yet" in helios("log", cwd=workspace, check=True).stderr
    first = helios("snapshot", "first", "-m", "the first", cwd=workspace, check=True).stdout.strip()
    assert helios("status", cwd=workspace / "sub", check=True).stdout == ""
    (workspace / "a").write_text("two")
    (workspace / "b").write_text("new")
    os.rmdir(workspace / "sub")
    assert helios("status", cwd=workspace, check=True).stdout.splitlines() == ["M a", "A b", "D sub"]
    second = helios("commit", "--sync", "--json", "-C", workspace, check=True)
    second_id = json.loads(second.stdout)["id"]

    lines = helios("log", "-C", workspace, check=True).stdout.splitlines()
    assert [line.split()[0] for line in lines] == [second_id, first]
    assert lines[1].endswith("first  the first")
    assert len(helios("log", "-n", "1", "-C", workspace, check=True).stdout.splitlines()) == 1
    shown = json.loads(helios("show", "first", "--json", "-C", workspace, check=True).stdout)
    assert (shown["id"], shown["message"], shown["sealed"], len(shown["tree"])) == (first, "the first", True, 64)
    assert f"snapshot {first}" in helios("show", "~1", "-C", workspace, check=True).stdout
    assert (workspace / ".snapshots" / "first" / "a").read_text() == "one"

    undo = helios("restore", "first", "a", "../gone", cwd=workspace, check=False)
    assert undo.returncode == 2 and "not in the workspace" in undo.stderr
    helios("restore", "first", "a", cwd=workspace, check=True)
    assert ((workspace / "a").read_text(), (workspace / "b").exists()) == ("one", True)
    undo = helios("restore", first[:9], cwd=workspace, check=True)
    assert sorted(os.listdir(workspace)) == ["a", "sub"]
    helios("restore", undo.stdout.strip(), "--json", cwd=workspace, check=True)
    assert ((workspace / "b").read_text(), (workspace / "sub").exists()) == ("new", False)


def test_without_a_mount_all_that_reads_works(helios: Helios, workspace: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    odd = os.fsdecode(b"caf\xe9 \n")
    (workspace / odd).write_text("x")
    helios("snapshot", odd, "-C", workspace, check=True)
    (workspace / "later").write_text("y")
    os.kill(daemon_of(helios, workspace), signal.SIGKILL)
    helios("unmount", workspace)
    assert not os.path.ismount(workspace)
    assert helios("status", "--store", store, check=True).stdout == "A later\n"
    [one] = json.loads(helios("log", "--json", "--store", store, check=True).stdout)
    assert one["name"] == odd
    assert r'"caf\351 \012"' in helios("--store", store, "log", check=True).stdout
    out = tmp_path / "out"
    helios("materialize", odd, out, "--store", store, check=True)
    assert os.listdir(os.fsencode(out)) == [b"caf\xe9 \n"]
    refused = helios("materialize", odd, out, "--store", store)
    assert refused.returncode == 3 and "not empty" in refused.stderr
    stats = json.loads(helios("stats", "--json", "--store", store, check=True).stdout)
    assert (stats["running"], stats["disk"]["sealed_snapshots"]) == (False, 1)
    assert "not mounted" in helios("stats", "--store", store, check=True).stdout
    for verb in (["snapshot"], ["restore", "latest"]):
        refused = helios(*verb, "--store", store)
        assert refused.returncode == 3 and "helios mount" in refused.stderr


def test_status_for_programs(helios: Helios, workspace: Path) -> None:
    nothing = json.loads(helios("status", "--json", "-C", workspace, check=True).stdout)
    assert (nothing["snapshot"], nothing["changes"]) == (None, [])
    assert "everything is new" in helios("status", "-C", workspace, check=True).stderr
    taken = helios("snapshot", "one", "-C", workspace, check=True).stdout.strip()
    assert "no change since" in helios("status", "-C", workspace, check=True).stderr
    os.symlink("x", os.fsencode(workspace) + b"/caf\xe9")
    some = json.loads(helios("status", "--json", "-C", workspace, check=True).stdout)
    assert (some["snapshot"], some["changes"]) == (taken, [{"kind": "A", "path": os.fsdecode(b"caf\xe9")}])
    workspace.chmod(0o700)
    assert helios("status", "-C", workspace, check=True).stdout.splitlines() == ["M .", r'A "caf\351"']


def test_stats_of_a_mount(helios: Helios, workspace: Path) -> None:
    (workspace / "a").write_text("x")
    shown = helios("stats", "-C", workspace, check=True).stdout
    assert f"mounted at  {workspace}" in shown and "journal_end_bytes" in shown
    figures = json.loads(helios("stats", "--json", "-C", workspace, check=True).stdout)
    assert figures["running"] is True and figures["mount"]["journal_end_bytes"] > 0


def test_materialize_while_mounted_takes_globs(helios: Helios, workspace: Path, tmp_path: Path) -> None:
    for name in ("a.c", "b.c", "c.h"):
        (workspace / name).write_text(name)
    helios("snapshot", "-C", workspace, check=True)
    out = tmp_path / "out"
    arguments = ["materialize", "latest", out, "--include", "*.c", "--exclude", "b*", "--json", "-C", workspace]
    report = json.loads(helios(*arguments, check=True).stdout)
    assert (report["files"], os.listdir(out)) == (1, ["a.c"])
    assert helios("materialize", "latest", tmp_path / "o2", "-C", workspace, check=True).stderr.startswith(
        "wrote 3 files"
    )


class TestInit:
    def test_from_a_directory(self, helios: Helios, tmp_path: Path) -> None:
        source = tmp_path / "source"
        (source / "sub").mkdir(parents=True)
        (source / "sub" / "file").write_text("x")
        (source / "left.o").write_text("x")
        (source / ".snapshots").mkdir()
        os.mkfifo(source / "fifo")
        (source / "loop").symlink_to(".")
        done = helios("init", tmp_path / "s", "--from", source, "--exclude", "*.o", check=True)
        assert done.stdout == f"{tmp_path}/s\n"
        assert "took in 1 files" in done.stderr and "excluded 1" in done.stderr and ".snapshots is in" in done.stderr
        helios("materialize", "latest", tmp_path / "out", "--store", tmp_path / "s")
        findings = json.loads(helios("doctor", "--json", "--store", tmp_path / "s").stdout)
        assert "name-hidden" in {one["kind"] for one in findings}
        report = json.loads(helios("init", tmp_path / "s2", "--from", source, "--json", check=True).stdout)
        assert (report["files"], report["hidden"], report["others"]) == (2, [".snapshots"], 1)

    @pytest.mark.parametrize(
        ("arguments", "code", "text"),
        [
            (["init"], 2, "say where"),
            (["init", "s", "--exclude", "x"], 2, "needs --from"),
            (["init", "s", "--from", "missing"], 2, "does not exist"),
            (["init", "s", "--from", "file"], 2, "not a directory"),
            (["init", "full"], 3, "not empty"),
            (["init", "file"], 3, "not a directory"),
            (["init", "file/below"], 3, "file"),
        ],
    )
    def test_refused(self, helios: Helios, tmp_path: Path, arguments: list[str], code: int, text: str) -> None:
        (tmp_path / "file").touch()
        (tmp_path / "full").mkdir()
        (tmp_path / "full" / "mine").touch()
        done = helios(*arguments)
        assert (done.returncode, done.stdout) == (code, "")
        assert done.stderr.startswith("helios: ") and text in done.stderr and done.stderr.count("\n") == 1
        assert sorted(os.listdir(tmp_path)) == ["file", "full"]
        assert os.listdir(tmp_path / "full") == ["mine"]

    def test_a_glob_that_is_none_leaves_nothing_behind(self, helios: Helios, tmp_path: Path) -> None:
        (tmp_path / "source").mkdir()
        (tmp_path / "s").mkdir()
        done = helios("init", "s", "--from", "source", "--exclude", "!")
        assert done.returncode == 2 and "not a glob" in done.stderr
        assert os.listdir(tmp_path / "s") == []

    def test_a_store_is_not_made_twice(self, helios: Helios, tmp_path: Path) -> None:
        helios("init", "s", check=True)
        done = helios("init", "s")
        assert done.returncode == 3 and "is a store already" in done.stderr

    def test_a_store_in_what_it_is_filled_from_leaves_itself_out(self, helios: Helios, tmp_path: Path) -> None:
        (tmp_path / "source").mkdir()
        (tmp_path / "source" / "good").touch()
        inside = tmp_path / "source" / "s"
        done = helios("init", inside, "--from", tmp_path / "source", check=True)
        assert "left out: s: is the store itself" in done.stderr and "took in 1 files" in done.stderr
        report = json.loads(helios("init", "s2", "--from", "source", "--exclude", "s", "--json", check=True).stdout)
        assert (report["files"], report["problems"]) == (1, [])

    def test_a_person_sees_a_bar(self, environment: dict[str, str], tmp_path: Path) -> None:
        (tmp_path / "source").mkdir()
        for number in range(20):
            (tmp_path / "source" / f"f{number}").write_text("x")
        command = [sys.executable, "-m", "helios_fs.cli.main", "init", "s", "--from", "source"]
        controller, terminal = pty.openpty()
        with os.fdopen(controller, "rb", buffering=0) as screen:
            running = subprocess.Popen(
                command, cwd=tmp_path, env={**environment, "TERM": "xterm"}, stderr=terminal, stdout=subprocess.PIPE
            )
            os.close(terminal)
            seen = b""
            try:
                while data := screen.read(65536):
                    seen += data
            except OSError:
                pass  # EIO is how Linux says that the other side of a terminal is closed
            said, _ = running.communicate()
        assert running.returncode == 0 and said == f"{tmp_path}/s\n".encode()
        assert b"taking in" in seen and b"20/20" in seen and b"took in 20 files" in seen

    def test_ctrl_c_leaves_nothing_behind(self, environment: dict[str, str], tmp_path: Path) -> None:
        (tmp_path / "source").mkdir()
        for number in range(40):
            (tmp_path / "source" / f"f{number}").write_bytes(os.urandom(4 << 20))
        command = [sys.executable, "-m", "helios_fs.cli.main", "init", "s", "--from", "source"]
        running = subprocess.Popen(command, cwd=tmp_path, env=environment, stderr=subprocess.PIPE)
        packs = tmp_path / "s" / "packs"
        while not (packs.is_dir() and os.listdir(packs)):
            assert running.poll() is None
        running.send_signal(signal.SIGINT)
        _, said = running.communicate()
        assert (running.returncode, said.strip()) == (130, b"helios: interrupted")
        assert not (tmp_path / "s").exists()


class TestMount:
    @pytest.mark.parametrize(
        ("arguments", "code", "text"),
        [
            (["mount"], 2, "MOUNTPOINT"),
            (["mount", "missing"], 3, "does not exist; mkdir -p"),
            (["mount", "file"], 3, "not a directory"),
            (["mount", "full"], 3, "not empty"),
            (["mount", "empty", "--store", "missing"], 3, "helios init missing"),
            (["mount", "empty", "--store", "full"], 3, "not a HeliosFS store"),
            (["mount", "empty", "--store", "s", "--branch", "other"], 3, "other"),
            (["mount", "empty", "--store", "s", "-o", "magic"], 2, "magic"),
            (["mount", "empty", "--nonsense"], 2, "--nonsense"),
            (["nonsense"], 2, "nonsense"),
            (["unmount", "empty"], 3, "no HeliosFS workspace"),
            (["unmount"], 2, "not in a mounted workspace"),
            (["log"], 2, "not in a mounted workspace"),
            (["log", "--store", "missing"], 2, "no such store"),
            (["log", "--store", "full"], 3, "not a HeliosFS store"),
            (["unmount", "--store", "s"], 3, "not mounted"),
        ],
    )
    def test_refused(self, helios: Helios, tmp_path: Path, arguments: list[str], code: int, text: str) -> None:
        (tmp_path / "file").touch()
        (tmp_path / "full").mkdir()
        (tmp_path / "full" / "mine").touch()
        (tmp_path / "empty").mkdir()
        helios("init", "s", check=True)
        done = helios(*arguments)
        assert (done.returncode, done.stdout) == (code, ""), done.stderr
        assert done.stderr.startswith("helios: ") and text in done.stderr and done.stderr.count("\n") == 1
        assert not os.path.ismount(tmp_path / "empty")

    def test_a_store_from_a_newer_program(self, helios: Helios, tmp_path: Path) -> None:
        (tmp_path / "ws").mkdir()
        helios("init", "s", check=True)
        text = (tmp_path / "s" / "format").read_text()
        (tmp_path / "s" / "format").write_text(text.replace("helios-store 0", "helios-store 99"))
        done = helios("mount", "ws", "--store", "s")
        assert done.returncode == 3 and "newer HeliosFS" in done.stderr and done.stderr.count("\n") == 1
        done = helios("doctor", "--json", "--store", "s")
        assert done.returncode == 1
        assert "wrong-version" in {one["kind"] for one in json.loads(done.stdout)}

    def test_twice(self, helios: Helios, workspace: Path, tmp_path: Path) -> None:
        done = helios("mount", workspace, "--store", "store")
        assert done.returncode == 3 and "already mounted" in done.stderr
        (tmp_path / "other").mkdir()
        done = helios("mount", "other", "--store", "store")
        assert done.returncode == 3 and f"already mounted at {workspace}" in done.stderr
        assert not os.path.ismount(tmp_path / "other")

    def test_the_default_store_is_made_once_and_found_again(self, helios: Helios, tmp_path: Path) -> None:
        (tmp_path / "ws").mkdir()
        done = helios("mount", "ws", check=True)
        assert "made a new store" in done.stderr
        (tmp_path / "ws" / "a").write_text("x")
        helios("unmount", "ws", check=True)
        assert not (tmp_path / "ws" / "a").exists()
        assert helios("mount", "ws", check=True).stderr == ""
        assert (tmp_path / "ws" / "a").read_text() == "x"
        [store] = os.listdir(tmp_path / "xdg-data" / "helios")
        assert stat.S_IMODE((tmp_path / "xdg-data" / "helios" / store).stat().st_mode) == 0o700
        helios("unmount", "ws", check=True)

    def test_options_reach_the_mount(self, helios: Helios, tmp_path: Path) -> None:
        (tmp_path / "ws").mkdir()
        helios("init", "s", check=True)
        options = "ro,noatime,nodev,nosuid,noexec,show_snapshots,snapshots_dir=.past"
        helios("mount", "ws", "--store", "s", "-o", options, check=True)
        flags = os.statvfs(tmp_path / "ws").f_flag
        assert all(flags & one for one in (os.ST_RDONLY, os.ST_NODEV, os.ST_NOSUID, os.ST_NOEXEC))
        assert sorted(os.listdir(tmp_path / "ws")) == [".branches", ".past"]
        with pytest.raises(OSError, match="Read-only"):
            (tmp_path / "ws" / "a").touch()
        helios("unmount", "ws", check=True)

    def test_a_store_path_of_any_bytes(self, helios: Helios, tmp_path: Path) -> None:
        folder = tmp_path / "a b,c\\#%41é"
        (folder / "ws").mkdir(parents=True)
        helios("init", folder / "s", check=True)
        helios("mount", folder / "ws", "--store", folder / "s", check=True)
        helios("snapshot", "one", cwd=folder / "ws", check=True)
        helios("unmount", folder / "ws", check=True)
        assert "one" in helios("log", "--store", folder / "s", check=True).stdout

    @pytest.mark.parametrize("signal_number", [signal.SIGINT, signal.SIGTERM])
    def test_in_the_foreground(
        self, helios: Helios, environment: dict[str, str], tmp_path: Path, signal_number: signal.Signals
    ) -> None:
        (tmp_path / "ws").mkdir()
        helios("init", "s", check=True)
        command = [sys.executable, "-m", "helios_fs.cli.main", "mount", "ws", "--store", "s", "--foreground"]
        with open(tmp_path / "said", "wb") as said:
            running = subprocess.Popen(command, cwd=tmp_path, env=environment, stderr=said, stdout=said)
        deadline = time.monotonic() + 60
        while helios("snapshot", "-C", "ws").returncode != 0:
            assert running.poll() is None and time.monotonic() < deadline
        (tmp_path / "ws" / "a").write_text("x")
        running.send_signal(signal_number)
        assert running.wait(60) == 0
        assert not os.path.ismount(tmp_path / "ws")
        assert helios("status", "--store", "s", check=True).stdout == "A a\n"


class TestAfterADeadDaemon:
    def test_it_is_seen_named_and_cleared(self, helios: Helios, workspace: Path, tmp_path: Path) -> None:
        (workspace / "a").write_text("kept")
        pid = daemon_of(helios, workspace)
        os.kill(pid, signal.SIGKILL)
        wait_dead(pid)
        done = helios("doctor", "--json")
        assert done.returncode == 1
        stale = [one for one in json.loads(done.stdout) if one["kind"] == "stale-mount"]
        assert any(str(workspace) in one["problem"] for one in stale)
        assert f"problem: {workspace}" in helios("doctor").stdout
        done = helios("snapshot", "-C", workspace)
        assert done.returncode == 3 and "fusermount3 -uz" in done.stderr
        done = helios("mount", workspace, "--store", tmp_path / "store", check=True)
        assert "cleared" in done.stderr
        assert (workspace / "a").read_text() == "kept"

    def test_unmount_clears_it(self, helios: Helios, workspace: Path) -> None:
        pid = daemon_of(helios, workspace)
        os.kill(pid, signal.SIGKILL)
        wait_dead(pid)
        assert "nothing acknowledged is lost" in helios("unmount", workspace, check=True).stderr
        assert not os.path.ismount(workspace)


class TestUnmount:
    def test_not_while_it_is_used(self, helios: Helios, workspace: Path) -> None:
        with open(workspace / "a", "w") as file:
            done = helios("unmount", workspace)
            assert done.returncode == 3 and f"in use by {os.getpid()} " in done.stderr
            file.write("still works")
        assert (workspace / "a").read_text() == "still works"
        child = subprocess.Popen(["cat"], cwd=workspace, stdin=subprocess.PIPE)
        try:
            assert helios("unmount", "-C", workspace).returncode == 3
            helios("unmount", "--force", workspace, check=True)
        finally:
            child.communicate()
        assert not os.path.ismount(workspace)

    def test_on_return_everything_is_done(self, helios: Helios, workspace: Path, tmp_path: Path) -> None:
        (workspace / "big").write_bytes(os.urandom(1 << 20))
        pid = daemon_of(helios, workspace)
        helios("unmount", workspace, check=True)
        assert has_ended(pid)
        assert not os.path.ismount(workspace)
        assert os.listdir(workspace) == []
        assert not (tmp_path / "store" / "run" / "main.sock").exists()


def test_help_and_version(helios: Helios) -> None:
    shown = helios("--help", check=True).stdout
    for verb in (
        "init",
        "mount",
        "unmount",
        "status",
        "snapshot",
        "log",
        "show",
        "materialize",
        "restore",
        "stats",
        "doctor",
    ):
        assert verb in shown
        assert "Usage: helios" in helios(verb, "--help", check=True).stdout
    assert helios("--version", check=True).stdout.startswith("helios 0.")
    assert helios().returncode == 2


def test_a_reader_that_goes_away_is_no_error_message(
    environment: dict[str, str], helios: Helios, workspace: Path
) -> None:
    for number in range(3):
        helios("snapshot", f"s{number}", "-C", workspace, check=True)
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "helios_fs.cli.main", "log", "--json", "-C", str(workspace)]
    done = subprocess.run(command, env=environment, stdout=writer, stderr=subprocess.PIPE, check=False)
    os.close(writer)
    assert done.stderr == b""


def test_snapshot_loads_nothing_heavy(environment: dict[str, str], workspace: Path) -> None:
    code = (
        "import sys; before = set(sys.modules);"  # what coverage has loaded is not ours
        "from helios_fs.cli.main import run; assert run(['snapshot', '-C', sys.argv[1]]) == 0;"
        "print([m for m in ('rich', 'trio', 'pyfuse3', 'lmdb', 'json', 'zstandard', 'asyncio', 'helios_fs.store')"
        " if m in sys.modules and m not in before])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(workspace)], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]"
