#!/usr/bin/env python3
"""One command from a fresh checkout to a mounted workspace: `./mount.py ~/ws`.

Sets up what is missing (Debian packages where it may, a virtual environment, this package), makes the mountpoint and
mounts. Runs on the standard library alone, from any directory, any number of times: what is there is left as it is.

S1. Whatever it could not do it says in one line, with the command that would.
S2. A second run that has nothing to set up starts no apt-get and no pip.
"""

import argparse
import hashlib
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent
VENV = ROOT / ".venv"
STAMP = VENV / ".helios-setup"
HELIOS = VENV / "bin" / "helios"
LOG = Path(tempfile.gettempdir()) / f"helios-setup-{os.getuid()}.log"

# What pyfuse3 is compiled with and what a mount runs on: (what shows that it is there, Debian package).
COMMANDS = {"fusermount3": "fuse3", "pkg-config": "pkg-config", "cc": "gcc"}
TEST_COMMANDS = {
    "git": "git",
    "rsync": "rsync",
    "setfattr": "attr",
    "systemd-analyze": "systemd",
    "runuser": "util-linux",
    "sqlite3": "sqlite3",
    "make": "make",
    "ed": "ed",
    "vim": "vim",
    "zip": "zip",
    "unzip": "unzip",
    "patch": "patch",
    "node": "nodejs",
    "npm": "npm",
    "initdb": "postgresql",
}
# PostgreSQL's package makes and starts a server of its own unless it is told not to; no test wants that one.
NO_CLUSTER = "/etc/postgresql-common/createcluster.d/helios-tests.conf"


class CannotSetUp(Exception):
    """Something that a person has to do; the text is one line with the command."""


def main() -> int:
    """Set up, mount, say what to try; return the exit code."""
    parser = argparse.ArgumentParser(prog="mount.py", description="Set up HeliosFS and mount a workspace.")
    parser.add_argument("mountpoint", nargs="?", help="an empty directory, made if it is not there")
    parser.add_argument("--store", help="the store to mount (default: one of this mountpoint's own)")
    parser.add_argument("--setup-only", action="store_true", help="set up and mount nothing")
    parser.add_argument(
        "--dev", action="store_true", help="also set up what the tests need, and use this checkout's code"
    )
    options = parser.parse_args()
    if options.mountpoint is None and not options.setup_only:
        parser.error("say where to mount: ./mount.py ~/ws")
    try:
        set_up(options.dev)
        if not options.setup_only:
            return mount(options.mountpoint, options.store)
    except CannotSetUp as error:
        say(str(error))
        return 3
    except KeyboardInterrupt:
        say("interrupted; run the same command again to go on")
        return 130
    return 0


def say(text: str) -> None:
    """Write one line to stderr."""
    print(f"mount.py: {text}", file=sys.stderr, flush=True)


# -- Setting up ------------------------------------------------------------------------------------------------------


def set_up(dev: bool) -> None:
    """Bring packages, the virtual environment and the device to where a mount works. Raises CannotSetUp."""
    # An environment that runs this checkout's code goes on doing so, whoever brings it up to date.
    editable = dev or (STAMP.exists() and STAMP.read_text().startswith("dev "))
    wanted = fingerprint(editable)
    if not is_set_up(wanted):
        python = find_python()
        install_system_packages(missing_packages(python))
        make_environment(python)
        install_package(editable)
        STAMP.write_text(wanted)
    elif missing_commands({"fusermount3": "fuse3"}):
        install_system_packages(["fuse3"])
    if dev:
        install_test_packages()
    open_device()


def fingerprint(editable: bool) -> str:
    """Return what the environment must have been made from: the dependencies, and the sources where they are copied."""
    digest = hashlib.sha256((ROOT / "pyproject.toml").read_bytes())
    if not editable:
        for path in sorted((ROOT / "helios_fs").rglob("*.py")):
            digest.update(str(path.relative_to(ROOT)).encode() + b"\0" + path.read_bytes())
    return f"{'dev' if editable else 'copy'} {digest.hexdigest()}"


def is_set_up(wanted: str) -> bool:
    """Tell whether the environment is there, whole, and made from what is here now."""
    return HELIOS.exists() and (VENV / "bin" / "python").exists() and STAMP.exists() and STAMP.read_text() == wanted


def find_python() -> str:
    """Return a Python of 3.11 or newer, the system's where it has one: other users can read that one too."""
    candidates = ["/usr/bin/python3.11", "/usr/bin/python3", sys.executable, *filter(None, [shutil.which("python3")])]
    for candidate in candidates:
        probe = "import sys; sys.exit(sys.version_info < (3, 11))"
        if os.access(candidate, os.X_OK) and subprocess.run([candidate, "-c", probe], check=False).returncode == 0:
            return candidate
    raise CannotSetUp("needs Python 3.11 or newer: sudo apt-get install python3 python3-venv python3-dev")


def missing_commands(commands: dict[str, str]) -> list[str]:
    """Return the Debian packages of those commands that are not there."""
    # Debian keeps PostgreSQL's server off the PATH.
    servers = map(str, Path("/usr/lib/postgresql").glob("*/bin"))
    search = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin", *servers])
    return [package for command, package in commands.items() if shutil.which(command, path=search) is None]


def missing_packages(python: str) -> list[str]:
    """Return the Debian packages that are not there, judged by what they bring, not by a package list."""
    missing = missing_commands(COMMANDS)
    if shutil.which("pkg-config") is None or run_quietly(["pkg-config", "--exists", "fuse3"]) != 0:
        missing.append("libfuse3-dev")
    include = "import os, sysconfig, sys; sys.exit(not os.path.exists(sysconfig.get_path('include') + '/Python.h'))"
    if run_quietly([python, "-c", include]) != 0:
        missing.append("python3-dev")
    if run_quietly([python, "-c", "import ensurepip, venv"]) != 0:
        missing.append("python3-venv")
    return missing


def install_test_packages() -> None:
    """Install what some tests run; without it they are skipped, which one line says."""
    packages = missing_commands(TEST_COMMANDS)
    prefix = privilege() if "postgresql" in packages else None
    if prefix is not None:
        make = f"mkdir -p {os.path.dirname(NO_CLUSTER)} && echo 'create_main_cluster = off' >{NO_CLUSTER}"
        run_quietly([*prefix, "sh", "-c", make])
    try:
        install_system_packages(packages)
    except CannotSetUp as error:
        say(f"some tests will be skipped, or fail for root: {error}")
    finally:
        if prefix is not None:
            run_quietly([*prefix, "rm", "-f", NO_CLUSTER])


def install_system_packages(packages: list[str]) -> None:
    """Install Debian packages, as root or through sudo that asks for no password. Raises CannotSetUp."""
    if not packages:
        return
    command = ["apt-get", "install", "-y", "--no-install-recommends", *packages]
    by_hand = f"sudo apt-get update && sudo {shlex.join(command)}"
    if shutil.which("apt-get") is None:
        raise CannotSetUp(f"missing: {' '.join(packages)}; install what brings them here (on Debian: {by_hand})")
    prefix = privilege()
    if prefix is None:
        raise CannotSetUp(f"missing: {' '.join(packages)}, and no root here: {by_hand}")
    say(f"installing {' '.join(packages)}")
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    # The package list may be old or absent: try without the slow update first.
    if run_quietly([*prefix, *command], environment) == 0:
        return
    run_quietly([*prefix, "apt-get", "update"], environment)
    if run_quietly([*prefix, *command], environment) != 0:
        raise CannotSetUp(f"apt-get failed (see {LOG}): {by_hand}")


def privilege() -> list[str] | None:
    """Return what to put before a command that needs root, or None where there is no way without a password."""
    if os.geteuid() == 0:
        return []
    if shutil.which("sudo") is not None and run_quietly(["sudo", "-n", "true"]) == 0:
        return ["sudo", "-n"]
    return None


def make_environment(python: str) -> None:
    """Make the virtual environment, anew where there is a broken one. Raises CannotSetUp."""
    if run_quietly([str(VENV / "bin" / "python"), "-c", "import pip"]) == 0:
        return
    say(f"making {VENV}")
    # Copies would break when the interpreter is updated; links to one under /usr are readable to everybody.
    if run_quietly([python, "-m", "venv", "--clear", str(VENV)]) != 0:
        raise CannotSetUp(f"cannot make a virtual environment (see {LOG}): {python} -m venv --clear {VENV}")


def install_package(editable: bool) -> None:
    """Install this package and what it needs into the virtual environment. Raises CannotSetUp."""
    say("installing helios-fs and what it needs (a minute or so the first time)")
    pip = [str(VENV / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    command = [*pip, "-e", f"{ROOT}[dev]"] if editable else [*pip, str(ROOT)]
    if run_quietly(command) != 0:
        raise CannotSetUp(f"pip failed (see {LOG}): {shlex.join(command)}")


def open_device() -> None:
    """See to it that /dev/fuse is there and may be opened; where that is not in our hands, `helios mount` says so."""
    device = "/dev/fuse"
    if not os.path.exists(device):
        prefix = privilege()
        if prefix is None or run_quietly([*prefix, "modprobe", "fuse"]) != 0 or not os.path.exists(device):
            say(f"there is no {device}: sudo modprobe fuse (in a container: --device {device} --cap-add SYS_ADMIN)")
            return
    mode = os.stat(device).st_mode & 0o666
    if mode != 0o666:
        # Debian's default is 0666 (udev's 50-udev-default.rules): mounting is guarded by fusermount3, not by this mode.
        prefix = privilege()
        opened = prefix is not None and run_quietly([*prefix, "chmod", "666", device]) == 0
        if not opened and not os.access(device, os.R_OK | os.W_OK):
            say(f"{device} may not be opened by this user: sudo chmod 666 {device}")


def run_quietly(command: list[str], environment: dict[str, str] | None = None) -> int:
    """Run a command with its output in the log; return its exit code, 127 where it is not there."""
    with open(LOG, "ab") as log:
        log.write(f"$ {shlex.join(command)}\n".encode(errors="surrogateescape"))
        log.flush()
        try:
            return subprocess.run(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment, check=False
            ).returncode
        except OSError as error:
            log.write(f"{error}\n".encode())
            return 127


# -- Mounting --------------------------------------------------------------------------------------------------------


def mount(mountpoint: str, store: str | None) -> int:
    """Mount a store at `mountpoint` and say what to try; return the exit code of `helios mount`."""
    place = Path(mountpoint).expanduser().absolute()
    if not os.path.ismount(place):
        try:
            place.mkdir(parents=True, exist_ok=True)
        except FileExistsError:
            pass  # it is no directory: `helios mount` says so
        except OSError as error:
            if error.errno != 107:  # ENOTCONN: a stale mount, which `helios mount` clears
                raise CannotSetUp(f"cannot make {place}: {error.strerror}") from None
    if is_mounted_by_us(place):
        say(f"{place} is mounted already")
    else:
        command = [str(HELIOS), "mount", str(place), *(["--store", store] if store else [])]
        done = subprocess.run(command, check=False)
        if done.returncode != 0:
            return done.returncode
    where = shlex.quote(str(place))
    command_path = shlex.quote(str(HELIOS))
    print(f"cd {where} && echo hello > a.txt && mkdir .snapshots/first    # work, and freeze the state")
    print("echo changed > a.txt && cat .snapshots/first/a.txt            # every earlier state is a directory")
    print(f"{command_path} log -C {where}; {command_path} unmount {where}    # history; and when you are done")
    return 0


def is_mounted_by_us(place: Path) -> bool:
    """Tell whether a workspace is mounted there and answers."""
    return run_quietly([str(HELIOS), "stats", "-C", str(place)]) == 0 and os.path.ismount(place)


if __name__ == "__main__":
    sys.exit(main())
