"""`helios run`: a command in an instant branch, with a real kernel, real namespaces and real signals."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import Helios
from tests.mount.mounted import Workspace
from tests.mount.one_mount import one_workspace

pytestmark = pytest.mark.fuse

PYTHON = [sys.executable, "-c", "from helios_fs.cli.start import main; main()"]


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workspace]:
    """A workspace with a file in a directory; each test makes branches of its own."""
    with one_workspace(tmp_path_factory.mktemp("run")) as workspace:
        (workspace.path / "sub").mkdir()
        (workspace.path / "sub" / "file").write_text("before\n")
        yield workspace


@pytest.fixture
def sub(shared: Workspace) -> Path:
    """A directory to stand in; the workspace is as it was when the test is over, and has no new branch."""
    before = branches(shared)
    yield shared.path / "sub"  # type: ignore[misc]  # a fixture that cleans up
    assert (shared.path / "sub" / "file").read_text() == "before\n" and os.listdir(shared.path) == ["sub"]
    assert branches(shared) == before, "a test that keeps a branch drops it"


def branches(workspace: Workspace) -> set[str]:
    return set(os.listdir(workspace.path / ".branches"))


def drop(helios: Helios, where: Path, name: str) -> None:
    helios("branch", "-d", name, "--force", "-C", where, check=True)


def test_where_it_runs_and_as_what(helios: Helios, sub: Path) -> None:
    script = "pwd; echo $PWD $HELIOS_BRANCH $HELIOS_WORKSPACE; cat file; id -u; stat -c %u file; test -d ../.snapshots"
    done = helios("run", "--branch", "one", "--discard", "--", "sh", "-c", script, cwd=sub, check=True)
    mine = str(os.getuid())
    assert done.stdout.split() == [str(sub), str(sub), "one", str(sub.parent), "before", mine, mine]
    assert done.stderr.splitlines() == ["helios: nothing changed in one", "helios: dropped one"]


def test_what_changed_is_said_and_kept(helios: Helios, sub: Path, shared: Workspace) -> None:
    script = "echo after > file; touch new; mkdir deep; exit 7"
    done = helios("run", "--", "sh", "-c", script, cwd=sub)
    assert (done.returncode, done.stdout) == (7, "")
    said = done.stderr.splitlines()
    [name] = [one for one in branches(shared) if one.startswith("run-")]
    assert said[:4] == [f"helios: 3 changed in {name}:", "A sub/deep", "M sub/file", "A sub/new"]
    assert f"`helios merge {name}`" in said[4] and f"`helios branch --force -d {name}`" in said[4]
    assert (shared.path / ".branches" / name / "sub" / "file").read_text() == "after\n"
    drop(helios, sub, name)


def test_a_report_for_programs(helios: Helios, sub: Path, tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    script = "for n in $(seq 30); do echo $n > f$n; done; rm file; kill -USR1 $$"
    done = helios("run", "--discard", "--branch", "r", "--json", report, "--", "sh", "-c", script, cwd=sub)
    assert done.returncode == 128 + signal.SIGUSR1
    assert "… and 11 more" in done.stderr
    found = json.loads(report.read_text())
    assert len(found["changes"]) == 31 and {"kind": "D", "path": "sub/file"} in found["changes"]
    found = {name: found[name] for name in ("command", "exit_code", "signal", "branch", "outcome", "branch_dropped")}
    assert found == {
        "command": ["sh", "-c", script], "exit_code": 138, "signal": signal.SIGUSR1, "branch": "r",
        "outcome": "discarded", "branch_dropped": True,
    }  # fmt: skip


def test_a_report_to_a_descriptor(environment: dict[str, str], sub: Path) -> None:
    reading, writing = os.pipe()
    command = [*PYTHON, "run", "--discard", "-q", "--json", f"/dev/fd/{writing}", "--", "touch", "x"]
    done = subprocess.run(command, cwd=sub, env=environment, pass_fds=[writing], capture_output=True, timeout=60)
    os.close(writing)
    with open(reading) as pipe:
        assert json.load(pipe)["changes"] == [{"kind": "A", "path": "sub/x"}]
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


@pytest.mark.parametrize(
    ("options", "succeeds", "kept"),
    [
        ([], True, True),
        ([], False, True),
        (["--keep", "--on-failure", "discard"], False, False),
        (["--keep", "--on-failure", "discard"], True, True),
        (["--discard"], True, False),
        (["--discard"], False, False),
        (["--discard", "--on-failure", "keep"], False, True),
        (["--merge", "--on-failure", "discard"], False, False),
        (["--merge"], False, True),
    ],
)
def test_outcomes(helios: Helios, sub: Path, shared: Workspace, options: list[str], succeeds: bool, kept: bool) -> None:
    script = f"touch changed; exit {0 if succeeds else 5}"
    done = helios("run", "--branch", "o", *options, "--", "sh", "-c", script, cwd=sub)
    assert done.returncode == (0 if succeeds else 5), done.stderr
    assert ("o" in branches(shared)) == kept
    if kept:
        drop(helios, sub, "o")


def test_an_empty_run_leaves_no_branch_unless_it_was_wanted(helios: Helios, sub: Path, shared: Workspace) -> None:
    before = branches(shared)
    assert "nothing changed" in helios("run", "--", "true", cwd=sub, check=True).stderr
    assert branches(shared) == before
    helios("run", "--branch", "wanted", "--", "true", cwd=sub, check=True)
    assert branches(shared) == before | {"wanted"}
    drop(helios, sub, "wanted")


def test_a_message_is_a_snapshot_of_what_is_kept(helios: Helios, sub: Path, shared: Workspace) -> None:
    helios("run", "--branch", "m", "-m", "tried it", "--", "touch", "x", cwd=sub, check=True)
    log = helios("log", cwd=shared.path / ".branches" / "m" / "sub", check=True).stdout.splitlines()
    assert len(log) == 2 and log[0].endswith("tried it") and log[1].endswith("branch m")
    drop(helios, sub, "m")


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (["--", "no-such-command"], 127, "no-such-command: No such file"),
        (["--merge", "--", "./file"], 126, "./file: Permission denied"),
        (["--branch", "taken", "--", "touch", "ran"], 3, "'taken' exists"),
        (["--branch", "", "--", "true"], 3, "empty"),
        (["--branch", "..", "--", "true"], 3, "dot"),
        (["--branch", "a/b", "--", "true"], 3, "slash"),
        (["--branch", "main", "--", "true"], 3, "first branch"),
        (["--branch", "x" * 256, "--", "true"], 3, "255 bytes"),
        (["--json", "missing/report", "--", "true"], 3, "missing/report: No such file"),
        (["--"], 2, "CMD"),
        (["--on-failure", "merge", "--", "true"], 2, "on-failure"),
    ],
)
def test_refused(helios: Helios, sub: Path, shared: Workspace, arguments: list[str], code: int, text: str) -> None:
    (shared.path / ".branches" / "taken").mkdir()
    try:
        before = branches(shared)
        done = helios("run", *arguments, cwd=sub)
        assert (done.returncode, done.stdout) == (code, "")
        first, *more = done.stderr.splitlines()
        assert first.startswith("helios: ") and text in first
        assert not more or (code > 100 and more == [f"helios: dropped {more[0].split()[-1]}"])
        assert branches(shared) == before
    finally:
        (shared.path / ".branches" / "taken").rmdir()


def test_a_command_that_does_not_exist_keeps_the_branch_where_it_is_wanted(helios: Helios, sub: Path) -> None:
    assert helios("run", "--keep", "--branch", "k", "--", "no-such-command", cwd=sub).returncode == 127
    drop(helios, sub, "k")


def test_where_there_is_no_tree_to_run_in(helios: Helios, sub: Path, shared: Workspace, tmp_path: Path) -> None:
    done = helios("run", "--", "true", cwd=tmp_path)
    assert done.returncode == 2 and "not in a mounted workspace" in done.stderr and done.stderr.count("\n") == 1
    done = helios("--store", tmp_path / "workspace-store", "run", "--", "true")
    assert done.returncode == 2 and "no such store" in done.stderr
    helios("init", tmp_path / "unmounted", check=True)
    done = helios("--store", tmp_path / "unmounted", "run", "--", "true")
    assert done.returncode == 2 and "not mounted" in done.stderr


def test_from_elsewhere(helios: Helios, sub: Path, shared: Workspace) -> None:
    assert helios("-C", sub, "run", "--discard", "--", "pwd", check=True).stdout.strip() == str(sub)
    done = helios("run", "--discard", "--store", shared.store, "--", "pwd", check=True)
    assert done.stdout.strip() == str(shared.path)


def test_below_branches_where_there_is_no_namespace(helios: Helios, sub: Path, shared: Workspace) -> None:
    arguments = ["run", "--branch", "b", "--discard", "--no-namespace", "--"]
    script = "pwd; echo $HELIOS_WORKSPACE; cat file"
    done = helios(*arguments, "sh", "-c", script, cwd=sub, check=True)
    place = shared.path / ".branches" / "b"
    assert done.stdout.split() == [str(place / "sub"), str(place), "before"]


@pytest.mark.root
def test_where_namespaces_are_not_allowed_one_line_says_so(
    environment: dict[str, str], sub: Path, shared: Workspace
) -> None:
    command = ["setpriv", "--bounding-set", "-sys_admin", *PYTHON, "run", "--branch", "b", "--discard", "-q", "--"]
    done = subprocess.run([*command, "pwd"], cwd=sub, env=environment, capture_output=True, text=True, timeout=60)
    place = shared.path / ".branches" / "b"
    assert (done.returncode, done.stdout) == (0, f"{place}/sub\n")
    assert done.stderr.count("\n") == 1 and f"runs in {place}" in done.stderr and "unshare" in done.stderr


def test_killed_outright_it_keeps_the_branch(
    helios: Helios, environment: dict[str, str], sub: Path, shared: Workspace, tmp_path: Path
) -> None:
    os.mkfifo(tmp_path / "fifo")
    script = f"echo work > file; echo ready; exec cat {tmp_path}/fifo"
    command = [*PYTHON, "run", "--branch", "b", "--discard", "--", "sh", "-c", script]
    running = subprocess.Popen(command, cwd=sub, env=environment, stdout=subprocess.PIPE, text=True)
    assert running.stdout is not None and running.stdout.readline() == "ready\n"
    running.kill()
    # The command has ended too when nobody has its output open any more.
    assert running.communicate(timeout=60)[0] == ""
    assert (shared.path / ".branches" / "b" / "sub" / "file").read_text() == "work\n"
    drop(helios, sub, "b")


def test_the_command_line_in_a_run_means_the_branch(helios: Helios, sub: Path) -> None:
    inner = " ".join(f"'{word}'" for word in PYTHON)
    script = f"""
        {inner} run --branch inner -q -- sh -c 'echo inner > file; echo $HELIOS_BRANCH; pwd'
        cat file ../.branches/inner/sub/file
        {inner} snapshot mine; ls ../.snapshots; {inner} status
    """
    done = helios("run", "--branch", "outer", "--discard", "-q", "--", "sh", "-c", script, cwd=sub, check=True)
    words = done.stdout.split()
    assert words[:4] == ["outer/inner", str(sub), "before", "inner"]
    assert "mine" in words[4:] and not os.path.exists(sub.parent / ".snapshots" / "mine")


def test_what_runs_on_is_ended_before_the_branch_is_dropped(helios: Helios, sub: Path, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    script = f"(echo $$; exec cat {tmp_path}/fifo) > started & until [ -s started ]; do :; done"
    done = helios("run", "--branch", "d", "--discard", "--", "sh", "-c", script, cwd=sub, check=True)
    assert done.stderr.splitlines() == ["helios: 1 changed in d:", "A sub/started", "helios: dropped d"]


def test_what_runs_on_in_a_branch_that_is_kept_is_named(helios: Helios, sub: Path, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    script = f"cat {tmp_path}/fifo > /dev/null 2>&1 & echo $!"
    done = helios("run", "--branch", "d", "--", "sh", "-c", script, cwd=sub, check=True)
    pid = int(done.stdout)
    assert done.stderr.splitlines()[0] == f"helios: what the command started goes on: {pid}"
    watch = os.pidfd_open(pid)
    signal.pidfd_send_signal(watch, signal.SIGKILL)
    os.close(watch)
    drop(helios, sub, "d")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_the_command_and_the_branch_is_still_dropped(
    environment: dict[str, str], sub: Path, tmp_path: Path, number: int
) -> None:
    os.mkfifo(tmp_path / "fifo")
    command = [*PYTHON, "run", "--branch", "s", "--discard", "--", "sh", "-c", f"echo ready; cat {tmp_path}/fifo"]
    running = subprocess.Popen(
        command, cwd=sub, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert running.stdout is not None and running.stdout.readline() == "ready\n"
    running.send_signal(number)
    _, said = running.communicate(timeout=60)
    assert running.returncode == 128 + number and said.endswith("helios: dropped s\n")


def test_many_at_once_each_alone(environment: dict[str, str], sub: Path) -> None:
    script = 'echo $1 > file; echo $1 > only-$1; ls | tr "\\n" " "; cat file'
    running = [
        subprocess.Popen(
            [*PYTHON, "run", "--discard", "-q", "--", "sh", "-c", script, "sh", str(number)],
            cwd=sub, env=environment, stdout=subprocess.PIPE, text=True,
        )
        for number in range(12)
    ]  # fmt: skip
    for number, one in enumerate(running):
        said, _ = one.communicate(timeout=120)
        assert (one.returncode, said) == (0, f"file only-{number} {number}\n")


def test_absolute_paths_of_a_virtual_environment_hold(helios: Helios, sub: Path) -> None:
    script = f"""
        {sys.executable} -m venv --without-pip v && v/bin/python -c 'import sys; print(sys.prefix)' &&
        head -1 v/bin/activate > /dev/null && grep -c "$PWD/v" v/pyvenv.cfg v/bin/activate
    """
    done = helios("run", "--branch", "v", "-q", "--discard", "--", "sh", "-c", script, cwd=sub, check=True)
    assert done.stdout.splitlines()[0] == f"{sub}/v" and "activate:0" not in done.stdout


def test_the_workspace_is_in_use_while_a_command_runs(
    helios: Helios, environment: dict[str, str], sub: Path, shared: Workspace, tmp_path: Path
) -> None:
    os.mkfifo(tmp_path / "fifo")
    command = [*PYTHON, "-C", str(sub), "run", "--discard", "-q", "--", "sh", "-c", f"echo; read x < {tmp_path}/fifo"]
    running = subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE)
    assert running.stdout is not None and running.stdout.readline()
    refused = helios("unmount", shared.path)
    assert refused.returncode == 3 and "in use by" in refused.stderr and str(running.pid) in refused.stderr
    (tmp_path / "fifo").write_text("\n")
    assert running.wait(60) == 0
    running.stdout.close()
