"""The same system calls on a mount and on a plain directory: what they answer must be the same.

Where a plain directory cannot be asked (its own limits are others), the mount's answer is compared with what the manual
says.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.mount import system_calls
from tests.mount.mounted import Workspace
from tests.mount.one_mount import ORDINARY_USER, one_workspace, run_as
from tests.mount.system_calls import AS_ROOT, SCRIPTS, Script, file, mode, tried, write_into

pytestmark = pytest.mark.fuse


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workspace]:
    options = ("-o", "allow_other") if AS_ROOT else ()
    with one_workspace(tmp_path_factory.mktemp("semantics"), *options) as mounted:
        yield mounted


@pytest.fixture
def places(workspace: Workspace, tmp_path: Path, request: pytest.FixtureRequest) -> tuple[Path, Path]:
    """An empty directory in the mount and one outside."""
    inside, outside = workspace.path / request.node.name[:200], tmp_path / "plain"
    for place in (inside, outside):
        place.mkdir()
        place.chmod(0o777)
    return inside, outside


def _name(script: Script) -> str:
    return script.__name__


@pytest.mark.parametrize("script", SCRIPTS, ids=_name)
def test_as_on_a_plain_directory(places: tuple[Path, Path], script: Script) -> None:
    inside, outside = places
    assert script(inside) == script(outside)


@pytest.mark.root
@pytest.mark.parametrize(
    "script",
    [
        system_calls.set_id_bits,
        system_calls.set_gid_directory,
        system_calls.owner_of_new,
        system_calls.refusals,
        system_calls.link_counts,
    ],
    ids=_name,
)
def test_as_on_a_plain_directory_for_an_ordinary_user(places: tuple[Path, Path], script: Script) -> None:
    seen = [run_as(ORDINARY_USER, place, script) for place in places]
    assert seen[0] == seen[1]


@pytest.mark.root
def test_a_sticky_directory_and_what_belongs_to_others(places: tuple[Path, Path]) -> None:
    for place in places:
        for name, permissions in (("open", 0o777), ("sticky", 0o1777)):
            (place / name).mkdir()
            (place / name / "below").mkdir()
            for inner in ("one", "two", "three"):
                file(place / name / inner)
            (place / name).chmod(permissions)
    seen = [run_as(ORDINARY_USER, place, system_calls.others_in_a_sticky_directory) for place in places]
    assert seen[0] == seen[1]


@pytest.mark.root
def test_set_id_bits_of_others_go_when_an_ordinary_user_writes(places: tuple[Path, Path]) -> None:
    def change(base: Path) -> object:
        write_into(base / "written")
        os.close(os.open(base / "cut", os.O_WRONLY | os.O_TRUNC))
        os.truncate(base / "short", 1)
        return [mode(base / name) for name in ("written", "cut", "short")]

    for place in places:
        for name in ("written", "cut", "short"):
            file(place / name, permissions=0o6777)
    seen = [run_as(ORDINARY_USER, place, change) for place in places]
    assert seen[0] == seen[1]


@pytest.mark.root
def test_chown_to_others_clears_set_id_bits(places: tuple[Path, Path]) -> None:
    seen = []
    for place in places:
        for permissions in (0o6755, 0o2644, 0o6777):
            path = file(place / f"{permissions:o}", permissions=permissions)
            os.chown(path, 1234, 5678)
            seen.append((mode(path), path.stat().st_uid, path.stat().st_gid))
    assert seen[:3] == seen[3:]


@pytest.mark.root
def test_capabilities_go_when_a_file_is_written(places: tuple[Path, Path]) -> None:
    capability = bytes.fromhex("0100000200040000000000000000000000000000")
    seen = []
    for place in places:
        path = file(place / "program", permissions=0o755)
        os.setxattr(path, "security.capability", capability)
        assert os.getxattr(path, "security.capability") == capability
        write_into(path)
        seen.append(tried(os.getxattr, path, "security.capability"))
    assert seen == ["ENODATA", "ENODATA"]


@pytest.mark.root
def test_device_nodes(places: tuple[Path, Path]) -> None:
    inside, outside = places
    assert system_calls.device_nodes(inside) == system_calls.device_nodes(outside)


@pytest.mark.root
def test_trusted_attributes_are_for_root_to_see(places: tuple[Path, Path]) -> None:
    for place in places:
        os.setxattr(file(place / "file"), "trusted.secret", b"s")
        os.setxattr(place / "file", "user.known", b"k")
    seen = [run_as(ORDINARY_USER, place, lambda base: os.listxattr(base / "file")) for place in places]
    assert seen == [["user.known"], ["user.known"]]
    assert sorted(os.listxattr(places[0] / "file")) == ["trusted.secret", "user.known"]


def test_limits_of_extended_attributes(places: tuple[Path, Path]) -> None:
    path = file(places[0] / "file")
    largest = os.urandom(65_536)
    os.setxattr(path, "user.largest", largest)
    assert os.getxattr(path, "user.largest") == largest
    assert tried(os.setxattr, path, "user.larger", largest + b"x") == "E2BIG"
    assert tried(os.setxattr, path, "user." + "n" * 251, b"") == "ERANGE"
    os.setxattr(path, "user." + "n" * 250, b"longest name")
    os.removexattr(path, "user.largest")
    listed = 0
    for number in range(400):
        name = f"user.{number:0245}"
        answer = tried(os.setxattr, path, name, b"v")
        if answer is not None:
            assert answer == "ENOSPC"
            break
        listed += 1
    # listxattr(2) can return 64 KiB and no more.
    assert 250 < listed < 262
    assert len(os.listxattr(path)) == listed + 1


def test_all_attributes_of_a_file_together_have_a_limit(places: tuple[Path, Path]) -> None:
    """A file's entry, attributes included, must fit into one journal record: else a restore could not be replayed."""
    path = file(places[0] / "file")
    answers = [tried(os.setxattr, path, f"user.{number}", bytes(65_536)) for number in range(20)]
    assert answers.count(None) >= 4
    assert set(answers) == {None, "ENOSPC"}


def test_a_directory_of_5000_names(places: tuple[Path, Path], workspace: Workspace) -> None:
    directory = places[0]
    names = [f"name-{number:05}" for number in range(5000)]
    for name in names:
        (directory / name).touch()
    assert sorted(os.listdir(directory)) == names
    assert directory.stat().st_size >= 5000
    workspace.helios("status", "-C", workspace.path)
    assert sorted(entry.name for entry in os.scandir(directory)) == names


def test_listing_while_names_go_and_come(places: tuple[Path, Path]) -> None:
    """POSIX: what is there all the time is listed exactly once, whatever happens to the rest."""
    directory = places[0]
    staying = {f"stays-{number:04}" for number in range(1500)}
    going = [f"goes-{number:04}" for number in range(1500)]
    for name in (*staying, *going):
        (directory / name).touch()
    seen = []
    with os.scandir(directory) as entries:
        for number, entry in enumerate(entries):
            seen.append(entry.name)
            if number < len(going):
                os.unlink(directory / going[number])
            if number % 10 == 0:
                (directory / f"new-{number:04}").touch()
                os.rename(directory / f"new-{number:04}", directory / f"renamed-{number:04}")
    assert len(seen) == len(set(seen))
    assert staying <= set(seen)


def test_seeking_in_a_directory(places: tuple[Path, Path]) -> None:
    directory = places[0]
    for number in range(2000):
        (directory / f"{number:04}").touch()
    with os.scandir(directory) as first, os.scandir(directory) as second:
        one = [next(first).name for _ in range(700)]
        two = [entry.name for entry in second]
        one += [entry.name for entry in first]
    assert one == two
    assert sorted(one) == [f"{number:04}" for number in range(2000)]


class TestCachesAfterRestore:
    """What the kernel holds is right at once: no byte and no attribute of before the restore is shown."""

    def test_open_files_and_stat(self, places: tuple[Path, Path], workspace: Workspace) -> None:
        base = places[0]
        kept = file(base / "kept", "then " * 2000)
        file(base / "removed", "brought back")
        linked = file(base / "linked", "linked then")
        os.link(linked, base / "linked too")
        (base / "directory").mkdir()
        file(base / "directory" / "below", "deep")
        os.utime(kept, ns=(1_000_000_000_000_000_001, 1_000_000_000_000_000_002))
        (workspace.path / ".snapshots" / "then").mkdir()
        before = kept.stat()
        descriptor = os.open(kept, os.O_RDWR)
        kept.write_text("now")
        os.unlink(base / "removed")
        linked.write_text("linked now")
        file(base / "added")
        os.rename(base / "directory", base / "moved")
        assert tried(os.stat, base / "removed") == "ENOENT"
        assert [path.stat().st_size for path in (kept, linked, base / "added")] == [3, 10, 7]
        assert kept.read_text() == "now"
        workspace.helios("restore", "then", "-C", workspace.path, check=True)
        after = kept.stat()
        assert (after.st_size, after.st_mtime_ns, after.st_ino) == (before.st_size, before.st_mtime_ns, before.st_ino)
        assert os.pread(descriptor, 100, 9_995) == b"then "
        assert os.fstat(descriptor).st_size == 10_000
        assert kept.read_text() == "then " * 2000
        assert (base / "removed").read_text() == "brought back"
        assert linked.read_text() == (base / "linked too").read_text() == "linked then"
        assert sorted(os.listdir(base)) == ["directory", "kept", "linked", "linked too", "removed"]
        assert tried(os.stat, base / "added") == tried(os.stat, base / "moved") == "ENOENT"
        assert (base / "directory" / "below").read_text() == "deep"
        os.pwrite(descriptor, b"NEW", 0)
        os.close(descriptor)
        assert kept.read_text().startswith("NEWn then")
