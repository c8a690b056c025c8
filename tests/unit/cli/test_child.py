"""A command as the child of `helios run`: its exit code, its signals, its terminal, what it leaves behind."""

import json
import os
import pty
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.mount.one_mount import ORDINARY_USER

CALLING = Path(__file__).with_name("calling.py")
ROOT = Path(__file__).parents[3]


class Caller:
    """Two directories, and commands that see the first where the second is."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.branch = folder / "branch"
        self.workspace = folder / "workspace"
        for one in (self.branch, self.workspace):
            (one / "sub").mkdir(parents=True)
            (one / "name").write_text(one.name)
        self.environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{os.environ.get('PYTHONPATH', '')}"}

    def words(self, *command: str, below: str = "", shown: bool = True) -> list[str]:
        place = str(self.workspace) if shown else ""
        return [sys.executable, str(CALLING), str(self.branch), place, below, *command]

    def run(self, *command: str, **options: object) -> subprocess.CompletedProcess[str]:
        words = self.words(*command, **options)  # type: ignore[arg-type]  # below and shown as they come
        return subprocess.run(words, capture_output=True, text=True, env=self.environment, timeout=60)

    def start(self, *command: str, **options: object) -> subprocess.Popen[str]:
        pipe = subprocess.PIPE
        return subprocess.Popen(
            self.words(*command), stdout=pipe, stderr=pipe, text=True, env=self.environment, **options  # type: ignore[call-overload]  # as they come
        )  # fmt: skip


@pytest.fixture
def caller(tmp_path: Path) -> Caller:
    return Caller(tmp_path)


def ended(done: subprocess.CompletedProcess[str]) -> list[object]:
    return json.loads(done.stderr.splitlines()[-1])  # type: ignore[no-any-return]  # a list, as calling.py writes it


def test_shown_at_the_path_of_another(caller: Caller) -> None:
    done = caller.run("sh", "-c", "pwd; echo $PWD; cat ../name; echo new > ../made; exit 7", below="sub")
    assert (done.returncode, ended(done)) == (7, [7, 0, "", True, [], 0, []])
    assert done.stdout.split() == [str(caller.workspace / "sub")] * 2 + ["branch"]
    assert (caller.branch / "made").exists() and not (caller.workspace / "made").exists()
    assert (caller.workspace / "name").read_text() == "workspace"


def test_who_one_is_stays_the_same(caller: Caller) -> None:
    done = caller.run("sh", "-c", "id -u; id -g; id -ru; stat -c %u:%g name; touch made; stat -c %u:%g made")
    mine = f"{os.getuid()}:{os.getgid()}"
    assert done.stdout.split() == [str(os.getuid()), str(os.getgid()), str(os.getuid()), mine, mine]
    assert os.stat(caller.branch / "made").st_uid == os.getuid()


@pytest.mark.root
def test_an_ordinary_user_needs_no_privilege(caller: Caller) -> None:
    os.chown(caller.branch, ORDINARY_USER, ORDINARY_USER)
    environment = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT)}
    for folder in [caller.folder, *caller.folder.parents]:
        if not folder.stat().st_mode & 0o001:
            folder.chmod(folder.stat().st_mode | 0o011)
    script = "id -u; id -g; pwd; cat name; touch made; grep CapEff /proc/self/status; umount . 2>&1 || echo refused"
    done = subprocess.run(
        caller.words("sh", "-c", script), capture_output=True, text=True, env=environment, timeout=60,
        user=ORDINARY_USER, group=ORDINARY_USER, extra_groups=[],
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    said = done.stdout.splitlines()
    assert said[:4] == [str(ORDINARY_USER)] * 2 + [str(caller.workspace), "branchCapEff:\t0000000000000000"]
    assert said[-1] == "refused" and os.stat(caller.branch / "made").st_uid == ORDINARY_USER


def test_where_it_cannot_be_shown_it_runs_where_it_is(caller: Caller) -> None:
    caller.workspace.rename(caller.folder / "elsewhere")
    done = caller.run("sh", "-c", "pwd; echo $PWD", below="sub")
    assert done.stdout.split() == [str(caller.branch / "sub")] * 2
    code, _, failure, shown, told, *_ = ended(done)
    assert (code, failure, shown) == (0, "", False) and "mount: No such file" in str(told)


def test_a_path_through_a_symlink_stays_what_it_was(caller: Caller) -> None:
    (caller.folder / "link").symlink_to(caller.workspace)
    caller.environment["PWD"] = str(caller.folder / "link" / "sub")
    assert caller.run("printenv", "PWD", below="sub").stdout.strip() == caller.environment["PWD"]
    assert caller.run("printenv", "PWD", below="sub", shown=False).stdout.strip() == str(caller.branch / "sub")


def test_without_a_namespace(caller: Caller) -> None:
    assert caller.run("pwd", shown=False).stdout.strip() == str(caller.branch)


@pytest.mark.parametrize(
    ("command", "code", "text"),
    [
        (["no-such-command"], 127, "no-such-command: No such file"),
        (["./missing"], 127, "./missing: No such file"),
        ([""], 127, "No such file"),
        (["./name"], 126, "./name: Permission denied"),
        (["./sub"], 126, "./sub: Permission denied"),
    ],
)
def test_what_cannot_be_started(caller: Caller, command: list[str], code: int, text: str) -> None:
    done = caller.run(*command)
    assert done.returncode == code and text in str(ended(done)[2])


def test_a_script_that_does_not_say_by_what_runs_in_sh(caller: Caller) -> None:
    (caller.branch / "script").write_text("echo $1 $0\n")
    (caller.branch / "script").chmod(0o755)
    assert caller.run("./script", "word").stdout == "word ./script\n"


def test_ended_by_a_signal(caller: Caller) -> None:
    done = caller.run("sh", "-c", "kill -SEGV $$")
    assert (done.returncode, ended(done)[:2]) == (128 + signal.SIGSEGV, [128 + signal.SIGSEGV, signal.SIGSEGV])


@pytest.mark.parametrize("name", ["INT", "TERM", "HUP", "QUIT", "USR1", "USR2", "WINCH"])
def test_a_signal_is_passed_on_once(caller: Caller, name: str) -> None:
    # It looks again and again: one that waits for something else may have had its signal just before it began to wait.
    script = f"trap 'echo got; n=1' {name}; echo ready; while [ -z $n ]; do sleep 0.05; done; exit 9"
    running = caller.start("sh", "-c", script)
    assert running.stdout is not None and running.stdout.readline() == "ready\n"
    running.send_signal(getattr(signal, "SIG" + name))
    said, _ = running.communicate(timeout=60)
    assert (said, running.returncode) == ("got\n", 9)


@pytest.mark.parametrize("name", ["INT", "TERM", "HUP"])
def test_a_signal_ends_the_whole_job(caller: Caller, name: str) -> None:
    # The shell waits for `cat`, and ignores SIGINT until that has ended.
    running = caller.start("sh", "-c", "mkfifo fifo; sh -c 'echo ready; exec cat fifo'; echo went on")
    assert running.stdout is not None and running.stdout.readline() == "ready\n"
    running.send_signal(getattr(signal, "SIG" + name))
    said, _ = running.communicate(timeout=60)
    assert (said, running.returncode) == ("", 128 + getattr(signal, "SIG" + name))


def test_other_children_are_left_alone(caller: Caller) -> None:
    os.mkfifo(caller.branch / "fifo")
    words = quoted(caller.words("true"))
    script = f"cat {caller.branch}/fifo > /dev/null 2>&1 & exec {words}"
    done = subprocess.run(
        ["sh", "-c", script], env=caller.environment, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, timeout=60
    )
    assert json.loads(done.stderr)[-2:] == [0, []]
    # `cat` still reads, so this does not wait.
    (caller.branch / "fifo").write_text("x")


def test_signals_are_as_they_were_before(caller: Caller) -> None:
    script = "grep -E 'Sig(Blk|Ign)' /proc/self/status"
    plain = subprocess.run(["sh", "-c", script], stdout=subprocess.PIPE, text=True)
    assert caller.run("sh", "-c", script).stdout == plain.stdout
    # As under nohup, and with SIGCHLD ignored by whoever started us.
    words = " ".join(f"'{word}'" for word in caller.words("grep", "SigIgn", "/proc/self/status"))
    ignoring = "import os,signal; signal.signal(1, signal.SIG_IGN); signal.signal(17, signal.SIG_IGN);"
    ignoring += f"os.execv('/bin/sh', ['sh', '-c', \"\"\"{words}\"\"\"])"
    done = subprocess.run(
        [sys.executable, "-c", ignoring], capture_output=True, text=True, env=caller.environment, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.split()[1], 16) & 1, "SIGHUP stays ignored"


def test_killed_itself_it_takes_the_command_along(caller: Caller) -> None:
    running = caller.start("sh", "-c", "echo $$; exec cat fifo")
    os.mkfifo(caller.branch / "fifo")
    assert running.stdout is not None
    watch = os.pidfd_open(int(running.stdout.readline()))
    running.kill()
    assert select.select([watch], [], [], 30)[0], "the command lives on"
    os.close(watch)
    running.communicate(timeout=30)


def test_what_is_left_behind_is_ended(caller: Caller) -> None:
    script = "(trap '' TERM; touch one; read x < fifo) >&- 2>&- & setsid sh -c 'touch two; read x < fifo' >&- 2>&- &"
    script += " until [ -e one -a -e two ]; do :; done"
    os.mkfifo(caller.branch / "fifo")
    done = caller.run("sh", "-c", script)
    *_, left, remaining = ended(done)
    assert isinstance(left, int) and left >= 2 and remaining == []


class Terminal:
    """A shell with job control on a terminal of its own."""

    def __init__(self, caller: Caller) -> None:
        self.shell, self._screen = pty.fork()
        if self.shell == 0:
            environment = {**caller.environment, "PS1": "", "PS2": "", "TERM": "dumb", "HISTFILE": ""}
            os.execve("/bin/bash", ["bash", "--norc", "--noprofile", "--noediting", "-i"], environment)
        self._seen = b""
        self.type("stty -echo; set +o history; echo be''gin\n")
        self.wait_for("begin")

    def type(self, text: str) -> None:
        os.write(self._screen, text.encode())

    def wait_for(self, text: str) -> None:
        """Return when the terminal has shown this, since the last time."""
        while text.encode() not in self._seen:
            assert select.select([self._screen], [], [], 30)[0], f"no {text!r} in {self._seen!r}"
            self._seen += os.read(self._screen, 4096)
        self._seen = self._seen.partition(text.encode())[2]

    def close(self) -> None:
        os.kill(self.shell, signal.SIGKILL)
        os.waitpid(self.shell, 0)
        os.close(self._screen)


@pytest.fixture
def terminal(caller: Caller) -> Iterator[Terminal]:
    opened = Terminal(caller)
    yield opened
    opened.close()


def quoted(words: list[str]) -> str:
    return " ".join("'" + word.replace("'", "'\\''") + "'" for word in words)


def test_a_terminal_stays_usable(caller: Caller, terminal: Terminal) -> None:
    words = quoted(caller.words("sh", "-c", "test -t 0 && echo ready; read x; echo got:$x"))
    terminal.type(words + "\n")
    terminal.wait_for("ready")
    terminal.type("hello\n")
    terminal.wait_for("got:hello")
    # In a pipeline with a program that reads the keyboard too, neither takes the terminal from the other.
    terminal.type(quoted(caller.words("echo", "piped")) + " | sh -c 'cat; read x < /dev/tty; echo typed:$x'\n")
    terminal.wait_for("piped")
    terminal.type("word\n")
    terminal.wait_for("typed:word")


def test_ctrl_c_and_ctrl_z(caller: Caller, terminal: Terminal) -> None:
    script = "n=0; trap 'n=$((n+1)); echo int:$n; [ $n = 2 ] && exit 5' INT; trap 'echo contin''ued' CONT; echo ready"
    terminal.type(quoted(caller.words("sh", "-c", script + "; while :; do read x; done")) + "; echo code:$?\n")
    terminal.wait_for("ready")
    terminal.type("\x03")
    terminal.wait_for("int:1")
    terminal.type("\x1a")
    terminal.wait_for("Stopped")
    terminal.type("jobs; echo lis''ted\n")
    terminal.wait_for("listed")
    terminal.type("fg; echo code:$?\n")
    # The shell names the job before it hands the terminal over.
    terminal.wait_for("continued")
    terminal.type("\x03")
    terminal.wait_for("int:2")
    terminal.wait_for("code:5")
