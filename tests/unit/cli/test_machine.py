"""What can be wrong with a machine, a mountpoint, mount options; and how things are written."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from helios_fs.cli import machine, mount, output
from helios_fs.errors import MountFailed, UsageError


def test_fuse_device(tmp_path: Path) -> None:
    missing = machine.fuse_device(str(tmp_path / "fuse"))
    assert missing is not None and "modprobe fuse" in missing.remedy
    (tmp_path / "fuse").touch()
    assert machine.fuse_device(str(tmp_path / "fuse")) is None
    (tmp_path / "folder").mkdir()
    broken = machine.fuse_device(str(tmp_path / "folder"))
    assert broken is not None and broken.kind == "fuse-device-broken"


def test_fusermount(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    missing = machine.fusermount()
    assert missing is not None and "apt-get install fuse3" in str(missing)


AS_ORDINARY_USER = """
import os, sys
from helios_fs.cli import machine
if os.geteuid() == 0:
    os.setuid(65534)
for function, path in (("fuse_device", sys.argv[1]), ("allow_other", sys.argv[2]), ("allow_other", sys.argv[3])):
    found = getattr(machine, function)(path)
    print(found.kind if found else None)
"""


def test_what_only_an_ordinary_user_meets(environment: dict[str, str]) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:  # not below tmp_path, which others may not enter
        os.chmod(folder, 0o755)
        device, without, with_it = (os.path.join(folder, name) for name in ("fuse", "a.conf", "b.conf"))
        Path(device).touch(0)
        os.chmod(device, 0)
        Path(without).write_text("#user_allow_other\n")
        Path(with_it).write_text("mount_max = 10\nuser_allow_other\n")
        done = subprocess.run(
            [sys.executable, "-c", AS_ORDINARY_USER, device, without, with_it],
            env=environment, capture_output=True, text=True, check=False, cwd="/",
        )  # fmt: skip
    assert done.stdout.split() == ["fuse-device-closed", "user-allow-other-missing", "None"], done.stderr


class TestMountpoint:
    def test_missing(self, tmp_path: Path) -> None:
        with pytest.raises(MountFailed, match=r"does not exist; mkdir -p '.*two words'"):
            machine.check_mountpoint(str(tmp_path / "two words"))

    def test_a_file(self, tmp_path: Path) -> None:
        (tmp_path / "x").touch()
        with pytest.raises(MountFailed, match="not a directory"):
            machine.check_mountpoint(str(tmp_path / "x"))

    def test_below_a_file(self, tmp_path: Path) -> None:
        (tmp_path / "x").touch()
        with pytest.raises(MountFailed, match="Not a directory"):
            machine.check_mountpoint(str(tmp_path / "x" / "y"))

    def test_not_empty(self, tmp_path: Path) -> None:
        (tmp_path / "x").touch()
        with pytest.raises(MountFailed, match="not empty"):
            machine.check_mountpoint(str(tmp_path))

    def test_something_else_is_mounted(self) -> None:
        with pytest.raises(MountFailed, match="something else is mounted"):
            machine.check_mountpoint("/proc")

    def test_good(self, tmp_path: Path) -> None:
        machine.check_mountpoint(str(tmp_path))


def test_users_of_a_directory(tmp_path: Path) -> None:
    child = subprocess.Popen(["cat"], cwd=tmp_path, stdin=subprocess.PIPE)
    try:
        assert machine.users_of(str(tmp_path), 1) == [f"{child.pid} (cat)"]
        assert machine.users_of(str(tmp_path), child.pid) == []
        assert machine.users_of(str(tmp_path)[:-1], 1) == []
    finally:
        child.communicate()


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ([], []),
        (["ro"], ["ro"]),
        (["ro,noatime", "allow_other"], ["ro", "allow_other"]),
        (["defaults,rw,dev,,suid"], []),
        (["nodev,,nosuid,noexec"], ["nodev", "nosuid", "noexec"]),
        (["snapshots_dir=.history"], ["snapshots_dir=.history"]),
    ],
)
def test_mount_options(given: list[str], kept: list[str]) -> None:
    assert mount.parse_options(given) == kept


@pytest.mark.parametrize(
    "option",
    [
        "allow_root",
        "ro=1",
        "noatime=3",
        "snapshots_dir",
        "snapshots_dir=",
        "snapshots_dir=a/b",
        "snapshots_dir=..",
        "snapshots_dir=" + "x" * 256,
    ],
)
def test_mount_options_refused(option: str) -> None:
    with pytest.raises(UsageError, match=option.split("=", maxsplit=1)[0]):
        mount.parse_options([option])


def test_a_large_log_is_put_aside(tmp_path: Path) -> None:
    os.close(mount.open_log(str(tmp_path), "a/b"))
    log = tmp_path / "run" / "a%2Fb.log"
    os.truncate(log, 5 << 20)
    os.close(mount.open_log(str(tmp_path), "a/b"))
    assert log.stat().st_size == 0
    assert (tmp_path / "run" / "a%2Fb.log.1").stat().st_size == 5 << 20


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (b"plain", "plain"),
        ("größe 本".encode(), "größe 本"),
        (b"caf\xe9", r'"caf\351"'),
        (b"two\nlines", r'"two\012lines"'),
        (b'say "x"', 'say "x"'),
        (b'"x', r'"\042x"'),
        (b"back\\slash", "back\\slash"),
        (b"back\\slash\xff", r'"back\134slash\377"'),
        (b"", ""),
    ],
)
def test_names_are_shown(name: bytes, text: str) -> None:
    assert output.shown(name) == text


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (1 << 30, "1.0 GiB"),
        (5 << 40, "5.0 TiB"),
        (1 << 51, "2048.0 TiB"),
    ],
)
def test_sizes(size: int, text: str) -> None:
    assert output.human_size(size) == text


def test_times() -> None:
    assert output.iso_time(1_000_000_001_000_000_002) == "2001-09-09T01:46:41.000000002Z"


def test_json_takes_any_name(capsys: pytest.CaptureFixture[str]) -> None:
    name = os.fsdecode(b"caf\xe9")
    output.write_json({"name": name})
    assert json.loads(capsys.readouterr().out) == {"name": name}
