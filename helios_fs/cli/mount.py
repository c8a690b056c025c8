"""`helios mount`: checks what can be checked, starts the daemon and waits until the mount answers.

M1. On return with exit code 0 the mount is ready. On any other the daemon that was started is gone.
M2. The daemon keeps nothing of the terminal: a session of its own, / as its directory, a log in the store.
"""

import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Final

import click

from helios_fs.cli import machine, output, workspace
from helios_fs.control.client import find_daemon, socket_name
from helios_fs.errors import HeliosError, MountFailed, UsageError
from helios_fs.history.schedule import parse_schedule

if TYPE_CHECKING:
    from collections.abc import Sequence

_FLAGS: Final = frozenset({"allow_other", "show_snapshots", "ro", "retention", "nodev", "nosuid", "noexec"})
_WITH_VALUE: Final = frozenset({"snapshots_dir", "branches_dir"})
_SCHEDULED: Final = "auto_snapshot"
# What mount(8) and fstab pass along and what is so anyway.
_NO_EFFECT: Final = frozenset(
    {"defaults", "rw", "noatime", "relatime", "async", "user", "nouser", "auto", "noauto", "_netdev",
     "nofail", "exec", "dev", "suid"}
)  # fmt: skip
_MAX_LOG_BYTES: Final = 4 << 20


@click.command("mount")
@click.argument("mountpoint")
@click.option("--store", metavar="STORE", help="The store to mount (default: one of this mountpoint's own).")
@click.option("--branch", default="main", show_default=True, metavar="BRANCH", help="The branch to show.")
@click.option("--snapshot", "snapshot", metavar="ID", help="Show this snapshot of the branch, read-only.")
@click.option("--foreground", is_flag=True, help="Stay; log to stderr; Ctrl-C unmounts.")
@click.option(
    "--auto-snapshot",
    metavar="WHEN",
    help="Take snapshots by itself: 5m (every 5 minutes with a change), or quiet:30s (after a change, once nothing"
    " has happened for 30 seconds).",
)
@click.option("--prune", is_flag=True, help="Delete old snapshots by the rules of `helios prune --save`.")
@click.option(
    "-o",
    "options",
    multiple=True,
    metavar="OPT[,OPT…]",
    help="allow_other, ro, nodev, nosuid, noexec, show_snapshots, snapshots_dir=NAME, branches_dir=NAME,"
    " auto_snapshot=WHEN, retention.",
)
@click.pass_context
def verb(
    ctx: click.Context,
    mountpoint: str,
    store: str | None,
    branch: str,
    snapshot: str | None,
    foreground: bool,
    auto_snapshot: str | None,
    prune: bool,
    options: tuple[str, ...],
) -> None:
    """Mount a workspace at MOUNTPOINT, an empty directory; return when it is ready.

    Without --store, a store of the mountpoint's own below $XDG_DATA_HOME/helios is used, and made the first time.
    """
    store = store or (ctx.find_root().obj or {}).get("store")
    asked = [*options, *([f"auto_snapshot={auto_snapshot}"] if auto_snapshot is not None else [])]
    wanted = parse_options([*asked, "retention"] if prune else asked)
    point = os.path.realpath(mountpoint)
    for finding in (machine.fuse_device(), machine.fusermount()):
        if finding is not None:
            raise MountFailed(str(finding))
    if "allow_other" in wanted and (refused := machine.allow_other()) is not None:
        raise MountFailed(str(refused))
    if machine.is_stale(point):
        machine.clear_stale(point)
        output.note(f"{mountpoint}: cleared a mount whose daemon was gone")
    machine.check_mountpoint(point)
    path = existing_store(store) if store is not None else default_store(point)
    identity = workspace.branch_id(path, branch)
    arguments = ["--store", path, "--branch", identity, "--mountpoint", point]
    called = identity
    if snapshot is None:
        _check_unowned(path, identity, branch)
    else:
        found = workspace.pick_sealed(workspace.of_branch(path, identity), snapshot)
        # Any number of mounts may show one snapshot: each has a name, and so a socket, of its own.
        called = f"{identity}@{found.id}.{os.getpid()}"
        arguments += ["--snapshot", found.id, "--called", called]
    if "retention" in wanted:
        _say_if_no_rules(path, identity, branch)
    for one in wanted:
        arguments += ["-o", one]
    if foreground:
        _become_daemon(arguments)
    start_daemon(path, called, arguments)


def parse_options(given: "Sequence[str]") -> list[str]:
    """Return the mount options that matter, one by one. Raises UsageError for one that is not known."""
    kept: list[str] = []
    for option in (part for text in given for part in text.split(",") if part):
        name, equals, value = option.partition("=")
        if name == _SCHEDULED:
            parse_schedule(value)
            kept.append(option)
        elif name in _WITH_VALUE:
            # mountinfo tells the command line what `.branches` is called, behind a |.
            if not value or set(value) & set("/|#") or value in (".", "..") or len(os.fsencode(value)) > 255:
                raise UsageError(f"-o {name}=NAME: {value!r} is no name for a directory")
            kept.append(option)
        elif name in _FLAGS and not equals:
            kept.append(option)
        elif name not in _NO_EFFECT or equals:
            known = ", ".join(sorted(_FLAGS | {f"{one}=NAME" for one in _WITH_VALUE} | {f"{_SCHEDULED}=WHEN"}))
            raise UsageError(f"-o {option}: no such mount option (there are: {known})")
    shown = dict(one.split("=", 1) for one in kept if one.partition("=")[0] in _WITH_VALUE)
    if shown.get("snapshots_dir", ".snapshots") == shown.get("branches_dir", ".branches"):
        raise UsageError("-o snapshots_dir and branches_dir: two directories need two names")
    unasked = [one for one in kept if one.partition("=")[0] in (_SCHEDULED, "retention")]
    if "ro" in kept and unasked:
        raise UsageError(f"-o {unasked[0]}: a read-only mount neither takes nor deletes snapshots")
    return kept


def existing_store(store: str) -> str:
    """Return a store's absolute path. Raises MountFailed where there is none."""
    path = os.path.realpath(store)
    if not os.path.isdir(path):
        raise MountFailed(f"{store}: there is no such store; helios init {store}")
    return path


def default_store(mountpoint: str) -> str:
    """Return the store that belongs to a mountpoint, made first where it is not there yet."""
    import hashlib

    data = os.environ.get("XDG_DATA_HOME") or os.path.expanduser("~/.local/share")
    # Two mountpoints may have one name: the hash of the whole path tells them apart.
    mark = hashlib.sha256(os.fsencode(mountpoint)).hexdigest()[:8]
    path = os.path.join(os.path.realpath(data), "helios", f"{os.path.basename(mountpoint) or 'root'}-{mark}")
    if not os.path.exists(os.path.join(path, "format")):
        from helios_fs.cli.init import make_store

        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        make_store(path)
        output.note(f"made a new store: {path}")
    return path


def _say_if_no_rules(store: str, branch: str, name: str) -> None:
    from helios_fs.history.pruning import find_rules

    if find_rules(store, branch) is None:
        output.note(f"branch {name} keeps no rules yet, so no snapshot goes: `helios prune … --save` sets some")


def _check_unowned(store: str, branch: str, name: str) -> None:
    connection = find_daemon(store, branch)
    if connection is None:
        return
    with connection:
        owner = connection.hello()
    where = os.fsdecode(owner.mountpoint)
    if workspace.let_go(store, branch, owner.pid):
        return
    raise MountFailed(f"branch {name} of {store} is already mounted at {where} (process {owner.pid})")


def _become_daemon(arguments: list[str]) -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    os.execv(sys.executable, [sys.executable, "-m", "helios_fs.daemon", *arguments])


def start_daemon(store: str, branch: str, arguments: list[str]) -> None:
    """Start a daemon and return when its mount is ready. Raises MountFailed with the reason that it gave."""
    ready, tell = os.pipe2(os.O_CLOEXEC)
    with open(ready, "rb") as reader:
        log = open_log(store, branch)
        try:
            daemon = subprocess.Popen(
                [sys.executable, "-m", "helios_fs.daemon", "--ready-fd", str(tell), *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                pass_fds=[tell],
                start_new_session=True,
            )
        finally:
            os.close(tell)
            os.close(log)
        try:
            answer = reader.readline().decode(errors="replace").strip()
        except BaseException:
            daemon.send_signal(signal.SIGTERM)
            daemon.wait()
            raise
    if answer == "ready":
        # It outlives this process on purpose: keep Popen from warning that nobody waited.
        daemon.returncode = 0
        return
    daemon.wait()
    log_path = log_path_of(store, branch)
    word, _, rest = answer.partition(" ")
    if word != "failed":
        raise MountFailed(f"the daemon ended before the mount was ready (exit {daemon.returncode}); see {log_path}")
    code, _, text = rest.partition(" ")
    if code == "2":
        raise UsageError(text)
    raise HeliosError(text or f"the daemon failed; see {log_path}")


def log_path_of(store: str, branch: str) -> str:
    """Return where the daemon of a branch logs."""
    return os.path.join(store, "run", socket_name(branch).removesuffix(".sock") + ".log")


def open_log(store: str, branch: str) -> int:
    """Open the daemon's log to append; one that has grown large is kept once, as .1. Raises OSError."""
    path = log_path_of(store, branch)
    os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
    log = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    if os.fstat(log).st_size > _MAX_LOG_BYTES:
        os.rename(path, path + ".1")
        os.close(log)
        log = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    return log
