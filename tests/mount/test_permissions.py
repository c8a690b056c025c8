"""Who gets in, and who may do what: several users on one mount, and nobody else without allow_other."""

import os
import stat
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.mount.mounted import PATIENCE_SECONDS, Workspace
from tests.mount.one_mount import ORDINARY_USER, one_workspace, run_as, runner
from tests.mount.system_calls import AS_ROOT, file, tried
from tests.posix.permissions import CAPABILITY
from tests.posix.system import in_child

pytestmark = pytest.mark.fuse

SHARED = 4321
"""A group of some."""
MEMBER, STRANGER = 1234, 1235


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workspace]:
    options = ("-o", "allow_other") if AS_ROOT else ()
    with one_workspace(tmp_path_factory.mktemp("permissions"), *options) as mounted:
        yield mounted


@pytest.fixture
def place(workspace: Workspace, request: pytest.FixtureRequest) -> Path:
    directory = workspace.path / request.node.name
    directory.mkdir()
    directory.chmod(0o777)
    return directory


def everything(base: Path) -> set[object]:
    """Try all kinds of requests as somebody; return the answers."""
    return {
        tried(os.stat, base / "file"),
        tried(os.listdir, base),
        tried(os.open, base / "file", os.O_RDONLY),
        tried(os.open, base / "new", os.O_CREAT | os.O_WRONLY),
        tried(os.mkdir, base / "directory"),
        tried(os.unlink, base / "file"),
        tried(os.rename, base / "file", base / "moved"),
        tried(os.listxattr, base / "file"),
        tried(os.statvfs, base / "file"),
        tried(os.stat, base / ".snapshots"),
        tried(os.mkdir, base / ".snapshots" / "mine"),
        tried(os.mkdir, base / ".branches" / "mine"),
    }


@pytest.mark.root
def test_without_allow_other_nobody_else_gets_in(tmp_path: Path) -> None:
    """Whatever the modes say: the kernel asks the daemon nothing for them."""
    with one_workspace(tmp_path) as workspace:
        file(workspace.path / "file", permissions=0o666)
        workspace.path.chmod(0o777)
        for groups in ([], [0]):
            answers = in_child(lambda: everything(workspace.path), ORDINARY_USER, 0, groups)
            assert answers == {"EACCES"}
        assert run_as(ORDINARY_USER, workspace.path, everything) == {"EACCES"}
        assert os.listdir(workspace.path) == ["file"]


@pytest.fixture
def theirs() -> Iterator[Path]:
    """A folder of an ordinary user's own; the way to `tmp_path` is closed to others."""
    with tempfile.TemporaryDirectory(prefix="helios-theirs-") as folder:
        os.chown(folder, ORDINARY_USER, ORDINARY_USER)
        yield Path(folder)


@pytest.mark.root
def test_nor_does_root_into_the_mount_of_a_user(theirs: Path) -> None:
    helios = runner(theirs)

    def mount() -> int:
        (theirs / "ws").mkdir()
        helios("init", theirs / "store", check=True)
        helios("mount", theirs / "ws", "--store", theirs / "store", check=True)
        file(theirs / "ws" / "file")
        return (theirs / "ws" / "file").stat().st_uid

    assert in_child(mount, ORDINARY_USER) == ORDINARY_USER
    try:
        assert everything(theirs / "ws") == {"EACCES"}
    finally:
        in_child(lambda: helios("unmount", theirs / "ws", check=True).returncode, ORDINARY_USER)


# -- With allow_other ------------------------------------------------------------------------------------------------


def _as(user: int, action: Callable[[], object], groups: tuple[int, ...] = ()) -> object:
    return in_child(action, user, groups=groups)


@pytest.mark.root
def test_who_should_not_see_does_not_see_now_nor_then(workspace: Workspace, place: Path) -> None:
    """Modes of a snapshot are those of then; they hold there, and in a branch, as they do in the working tree."""
    secret = file(place / "secret", "secret", 0o600)
    (place / "closed").mkdir(0o700)
    file(place / "closed" / "inner", permissions=0o666)
    (workspace.path / ".snapshots" / "then").mkdir()
    secret.chmod(0o644)
    (place / "closed").chmod(0o755)
    (workspace.path / ".branches" / "branch").mkdir()
    then = workspace.path / ".snapshots" / "then" / place.name
    branch = workspace.path / ".branches" / "branch" / place.name
    (branch / "secret").chmod(0o600)

    def look(base: Path) -> Callable[[], list[object]]:
        return lambda: [tried((base / "secret").read_text), tried(os.stat, base / "closed" / "inner") == "EACCES"]

    os.chdir(workspace.path)
    try:
        relative = {base: base.relative_to(workspace.path) for base in (place, then, branch)}
        seen = {base: _as(STRANGER, look(path)) for base, path in relative.items()}
        assert seen == {place: ["secret", False], then: ["EACCES", True], branch: ["EACCES", False]}
        controls = [
            _as(STRANGER, lambda: tried(os.mkdir, Path(".snapshots/theirs"))),
            _as(STRANGER, lambda: tried(os.rmdir, Path(".snapshots/then"))),
            _as(STRANGER, lambda: tried(os.mkdir, Path(".branches/theirs"))),
            _as(STRANGER, lambda: tried(os.rmdir, Path(".branches/branch"))),
            _as(STRANGER, lambda: tried(os.rename, Path(".branches/branch"), Path(".branches/theirs"))),
        ]
        assert controls == ["EACCES"] * 5
    finally:
        os.chdir("/")


@pytest.mark.root
def test_two_users_and_a_group(workspace: Workspace, place: Path) -> None:
    """One makes and shares with a group; a member by a supplementary group works with it; a stranger does not."""
    os.chdir(place)
    try:

        def make() -> None:
            os.umask(0o007)
            Path("shared").mkdir()
            os.chown("shared", -1, SHARED)
            Path("shared").chmod(0o2770)
            file(Path("shared/file"), permissions=0o660)

        def work() -> list[object]:
            os.umask(0o007)
            file(Path("shared/theirs"), permissions=0o660)
            return [
                tried(Path("shared/file").write_text, "by a member"),
                Path("shared/theirs").stat().st_gid,
                tried(os.chmod, "shared/file", 0o666),
                tried(os.chown, "shared/file", MEMBER, -1),
            ]

        def stay_out() -> list[object]:
            return [tried(os.listdir, "shared"), tried(os.stat, "shared/file"), tried(os.rename, "shared", "x")]

        _as(ORDINARY_USER, make, (SHARED,))
        assert _as(MEMBER, work, (SHARED, 99)) == [11, SHARED, "EPERM", "EPERM"]
        assert _as(STRANGER, stay_out, (99,)) == ["EACCES", "EACCES", None]
        assert _as(ORDINARY_USER, Path("x/theirs").read_text, (SHARED,)) == "content"
        os.chdir("/")
        assert (place / "x" / "theirs").stat().st_uid == MEMBER
    finally:
        os.chdir("/")


CHANGES: dict[str, Callable[[], object]] = {
    "write": lambda: os.pwrite(os.open("file", os.O_RDWR), b"x", 0),
    "append": lambda: os.write(os.open("file", os.O_WRONLY | os.O_APPEND), b"x"),
    "truncate": lambda: os.truncate("file", 1),
    "O_TRUNC": lambda: os.open("file", os.O_WRONLY | os.O_TRUNC),
    "nothing": lambda: os.open("file", os.O_WRONLY),
    "chgrp": lambda: os.chown("file", -1, SHARED),
    "chmod": lambda: os.chmod("file", 0o6775),
}
ACTORS = {"root": (0, ()), "owner": (MEMBER, (SHARED,)), "member": (STRANGER, (99,)), "stranger": (ORDINARY_USER, ())}


# Set-gid without execution by the group is another matter: the kernel's FUSE keeps it (docs/posix.md).
@pytest.mark.root
def test_set_id_bits_and_capabilities_go_and_stay_gone(workspace: Workspace, place: Path, tmp_path: Path) -> None:
    """Each mode, changed in each way by each user, as on a plain directory; and the daemon's mind is the kernel's."""
    seen: list[dict[str, object]] = []

    def look(base: Path) -> dict[str, object]:
        return {
            path.name: (oct(path.stat().st_mode), path.stat().st_gid, "security.capability" in os.listxattr(path))
            for path in base.iterdir()
        }

    plain = tmp_path / "plain"
    plain.mkdir()
    for base in (place, plain):
        for mode in (0o6777, 0o2777, 0o4777, 0o777):
            for how, change in CHANGES.items():
                for who, (user, groups) in ACTORS.items():
                    os.chdir(base)
                    os.chown(file(Path("file")), MEMBER, 99)
                    Path("file").chmod(mode)
                    os.setxattr("file", "security.capability", CAPABILITY)
                    in_child(partial(tried, change), user, groups=groups)
                    os.rename("file", f"{mode:o}-{how}-{who}")
        os.chdir("/")
        seen.append(look(base))
    assert len(seen[0]) == 4 * len(CHANGES) * len(ACTORS)
    assert seen[0] == seen[1]
    workspace.kill()
    workspace.helios("mount", workspace.path, "--store", workspace.store, "-o", "allow_other", check=True)
    assert look(place) == seen[0]


# -- Access control lists: the kernel does them for a FUSE mount only where the daemon negotiates it ------------------


def run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        list(map(str, command)),
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
        env={**os.environ, "LC_ALL": "C"},
    )


def test_setfacl_says_that_there_are_none(place: Path) -> None:
    path = file(place / "file", permissions=0o640)
    done = run("setfacl", "-m", "u:65534:rw", path)
    assert (done.returncode, done.stderr) == (1, f"setfacl: {path}: Operation not supported\n")
    assert run("setfacl", "-d", "-m", "u:65534:rw", place).returncode == 1
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    # What is no more than a mode is one, and nothing can be taken away.
    assert run("setfacl", "-m", "g::r", path).returncode == run("setfacl", "-b", path).returncode == 0
    assert "group::r--\nother::---" in run("getfacl", "-c", path).stdout
    assert tried(os.getxattr, path, "system.posix_acl_access") in ("ENODATA", "EOPNOTSUPP")


@pytest.mark.parametrize(
    ("command", "code"),
    [
        (["cp", "-a", "FROM", "TO"], 1),
        (["cp", "-r", "FROM", "TO"], 0),
        (["rsync", "-aA", "FROM/", "TO/"], 23),
        (["rsync", "-a", "FROM/", "TO/"], 0),
        (["sh", "-c", "mkdir 'TO' && tar --acls -C 'FROM' -cf - . | tar --acls -C 'TO' -xpf -"], 0),
    ],
    ids=["cp -a", "cp -r", "rsync -A", "rsync", "tar --acls"],
)
def test_programs_that_copy_lists_say_so_and_copy_the_rest(
    place: Path, tmp_path: Path, command: list[str], code: int
) -> None:
    sources, target = tmp_path / "sources", place / "target"
    (sources / "directory").mkdir(parents=True)
    for path in (file(sources / "file"), file(sources / "directory" / "inner")):
        assert run("setfacl", "-m", "u:65534:rw", path).returncode == 0
    done = run(*(word.replace("FROM", str(sources)).replace("TO", str(target)) for word in command))
    assert done.returncode == code, done.stderr
    assert ("Operation not supported" in done.stderr) == ("-r" not in command and " ".join(command[:2]) != "rsync -a")
    assert {str(path.relative_to(target)) for path in target.rglob("*")} == {"file", "directory", "directory/inner"}
    assert (target / "directory" / "inner").read_text() == "content"
    # Within a mount there is nothing to lose.
    again = run("cp", "-a", target, place / "again")
    assert (again.returncode, again.stderr) == (0, "")
