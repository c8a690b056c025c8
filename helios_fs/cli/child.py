"""Run a command as if it had been called itself, and be there when it has ended.

Knows nothing of workspaces or branches.

K1. What reaches this process reaches the command. It stays in this process group, so a terminal's signals (Ctrl-C,
    Ctrl-Z, a new size) and those to the whole group come to it directly; those sent to this process alone are passed
    on, and those that end or stop a job to all of it that is in this group. It stops when the command stops, so a
    shell's job control works; the terminal's foreground is never moved.
K2. The command starts with the signal mask, dispositions and descriptors that this program was started with.
K3. No signal that can be caught ends this process: it goes on after the command, to clean up. SIGKILL here is SIGKILL
    for the command too.
K4. What the command leaves behind becomes a child of this process, so nothing that it started goes unnoticed.
"""

import ctypes
import errno
import os
import signal
import sys
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Final, NamedTuple, NoReturn

from helios_fs.cli import namespace

NOT_EXECUTABLE: Final = 126
NOT_FOUND: Final = 127

_PR_SET_PDEATHSIG: Final = 1
_PR_SET_CHILD_SUBREAPER: Final = 36
_GRACE_SECONDS: Final = 2.0
"""How long what a command left behind may take to end after SIGTERM."""

_PASSED_ON: Final = frozenset(
    {
        signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGALRM,
        signal.SIGWINCH, signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU, signal.SIGCONT,
    }
)  # fmt: skip
_TO_THE_WHOLE_JOB: Final = frozenset(
    {signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGTSTP, signal.SIGCONT}
)
"""A shell that waits for a program ignores most of these: as from a terminal, both must get them."""


class Ended(NamedTuple):
    """How a command ended."""

    code: int
    """As a shell has it: its exit code, 128 + n for signal n, 126 not executable, 127 not found."""
    signal: int = 0
    """The signal that ended it, or 0."""
    failure: str = ""
    """Why it could not be started, or nothing where it was."""
    shown: bool = False
    """Whether it saw the directory at the other path."""
    others: frozenset[int] = frozenset()
    """Children that this process had before: they are none of the command's."""


class _Failure(Exception):
    """What a child that could not start its command has said."""

    def __init__(self, stage: str, number: int, text: str) -> None:
        super().__init__(text)
        self.stage = stage
        self.number = number


def hold_signals() -> set[signal.Signals]:
    """Block what is to be passed on, until this process ends; return the mask that was, for the command."""
    # Where it was started with SIGCHLD ignored, the kernel would keep the exit code to itself.
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _PASSED_ON | {signal.SIGCHLD})
    return {one for one in before if isinstance(one, signal.Signals)}


def run_over(
    directory: str,
    shown_at: str | None,
    below: str,
    argv: Sequence[str],
    environment: Callable[[str], Mapping[str, str]],
    mask: Iterable[signal.Signals],
    tell: Callable[[str], None],
) -> Ended:
    """Run a command to its end in the directory `below` (relative, or empty) of `directory`, and say how it ended.

    It sees `directory` at `shown_at`, where one is given and the machine allows it. Where it does not, `tell` is called
    with why, and the command sees `directory` where it is. `environment(where)` is what it gets for either place; PWD
    stays where it means the same directory by another path. `mask` is what `hold_signals` returned.
    """
    others = frozenset(left_behind())
    for place in [shown_at, None] if shown_at is not None else [None]:
        where = os.path.join(place or directory, below) if below else place or directory
        env = dict(environment(place or directory))
        if "PWD" not in env or os.path.realpath(env["PWD"]) != where:
            env["PWD"] = where
        try:
            child = _start(directory, place, where, argv, env, mask)
        except _Failure as failure:
            if failure.stage == "show":
                tell(str(failure))
                continue
            code = NOT_FOUND if (failure.stage, failure.number) == ("start", errno.ENOENT) else NOT_EXECUTABLE
            return Ended(code, failure=str(failure), others=others)
        return _wait(child, others)._replace(shown=place is not None, others=others)
    raise AssertionError("the last place needs no namespace")


# -- Starting --------------------------------------------------------------------------------------------------------


def _start(
    directory: str,
    place: str | None,
    where: str,
    argv: Sequence[str],
    env: Mapping[str, str],
    mask: Iterable[signal.Signals],
) -> int:
    """Return the process id of the command, once it runs. Raises _Failure where it does not."""
    sys.stdout.flush()
    sys.stderr.flush()
    libc = ctypes.CDLL(None)
    libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    parent = os.getpid()
    # The kernel closes the child's end when the command starts, and what was said before that is why it does not.
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        stage = "show"
        try:
            if place is not None:
                namespace.show(directory, place)
            stage = "enter"
            os.chdir(where)
            stage = "start"
            libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
            if os.getppid() != parent:
                os._exit(NOT_EXECUTABLE)
            _restore_signals(mask)
            _execute(argv, env)
        except OSError as error:
            os.write(writing, f"{stage} {error.errno} {error.strerror}".encode())
        finally:
            os._exit(NOT_EXECUTABLE)
    os.close(writing)
    with open(reading, "rb") as pipe:
        said = pipe.read().decode()
    if not said:
        return child
    os.waitpid(child, 0)
    stage, number, text = said.split(" ", 2)
    name = {"show": place, "enter": where, "start": argv[0]}[stage]
    raise _Failure(stage, int(number), f"{name}: {text}")


def _restore_signals(mask: Iterable[signal.Signals]) -> None:
    """Undo what Python and `hold_signals` have changed."""
    for one in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(one, signal.SIG_DFL)
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        # One that came meanwhile would become a KeyboardInterrupt between here and exec.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _execute(argv: Sequence[str], env: Mapping[str, str]) -> NoReturn:
    """Become the command, as execvp(3) does: along PATH, and through sh where a script does not say by what."""
    name = argv[0]
    folders = [""] if "/" in name else os.get_exec_path(env) if name else []
    refused: OSError = FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
    for folder in folders:
        path = os.path.join(folder, name)
        try:
            try:
                os.execve(path, list(argv), env)
            except OSError as error:
                if error.errno != errno.ENOEXEC:
                    raise
                os.execve("/bin/sh", ["sh", path, *argv[1:]], env)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except PermissionError as error:
            # A directory of PATH that this user may not search holds nothing for them.
            if os.path.exists(path):
                refused = error
    raise refused


# -- Waiting ---------------------------------------------------------------------------------------------------------


def _wait(child: int, others: Collection[int]) -> Ended:
    """Pass signals on until the command has ended; return how."""
    while True:
        got = signal.sigwaitinfo(_PASSED_ON | {signal.SIGCHLD})
        if got.si_signo != signal.SIGCHLD:
            # Above 0 the kernel sent it, for a terminal, and to the command as well.
            if got.si_code <= 0:
                _pass_on(child, got.si_signo, others)
            continue
        while (changed := _changed()) is not None:
            pid, status = changed
            if pid != child:
                continue
            if os.WIFSTOPPED(status):
                if _stop():
                    _pass_on(child, signal.SIGCONT, others)
            elif os.WIFSIGNALED(status):
                return Ended(128 + os.WTERMSIG(status), os.WTERMSIG(status))
            elif os.WIFEXITED(status):
                return Ended(os.WEXITSTATUS(status))


def _changed() -> tuple[int, int] | None:
    """Return a child that has ended or stopped and its status, or None where none has."""
    try:
        found = os.waitpid(-1, os.WNOHANG | os.WUNTRACED)
    except ChildProcessError:
        return None
    return found if found[0] else None


def _stop() -> bool:
    """Stop as the command did, until a shell continues this process; False where no shell is there to do so."""
    if signal.SIGCONT in signal.sigpending():
        return True  # continued already, command and all
    # The kernel discards it in an orphaned process group, where nobody could ever continue us.
    os.kill(os.getpid(), signal.SIGTSTP)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTSTP})
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTSTP})
    return signal.sigtimedwait({signal.SIGCONT}, 0) is not None


def _pass_on(child: int, number: int, others: Collection[int]) -> None:
    _send(child, number)
    if number not in _TO_THE_WHOLE_JOB:
        return
    here, told, found = os.getpgrp(), {child}, {child}
    while found:
        # Again, for what was started while we looked.
        found = {process for process, group in _descendants(others) if group == here} - told
        for process in found:
            _send(process, number)
        told |= found


def _send(process: int, number: int) -> None:
    try:
        os.kill(process, number)
    except (ProcessLookupError, PermissionError):
        pass  # it has ended, or has become somebody else (sudo), whom the terminal reaches and we do not


# -- What it has left behind -----------------------------------------------------------------------------------------


def left_behind(others: Collection[int] = ()) -> list[int]:
    """Return the descendants of this process but for children among `others`, and theirs; the dead are reaped."""
    while _changed() is not None:
        pass
    try:
        # Quick where there is nothing, which is nearly always.
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return []
    return [process for process, _ in _descendants(others)]


def _descendants(others: Collection[int]) -> list[tuple[int, int]]:
    """Return (process id, process group) of all living descendants but for `others` and theirs."""
    children: dict[int, list[tuple[int, int]]] = {}
    for name in filter(str.isdecimal, os.listdir("/proc")):
        try:
            with open(f"/proc/{name}/stat", "rb") as file:
                state, parent, group = file.read().rpartition(b")")[2].split()[:3]
        except OSError:
            continue  # it ended while we looked
        if state != b"Z" and int(name) not in others:
            children.setdefault(int(parent), []).append((int(name), int(group)))
    found: list[tuple[int, int]] = []
    following = [os.getpid()]
    while following:
        here = children.get(following.pop(), [])
        found += here
        following += [process for process, _ in here]
    return found


def end_left_behind(others: Collection[int]) -> list[int]:
    """End what a command left running, by SIGTERM and, after two seconds, SIGKILL; return what even that did not."""
    left = left_behind(others)
    started = time.monotonic()
    for process in left:
        _send(process, signal.SIGTERM)
        _send(process, signal.SIGCONT)
    while left and (spent := time.monotonic() - started) < 2 * _GRACE_SECONDS:
        if spent >= _GRACE_SECONDS:
            for process in left:
                _send(process, signal.SIGKILL)
        # A grandchild's end tells us nothing until it has become our child, so look again now and then.
        signal.sigtimedwait({signal.SIGCHLD}, 0.05)
        left = left_behind(others)
    return left
