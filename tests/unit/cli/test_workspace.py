"""Finding the workspace and the snapshot that somebody means."""

import os
from pathlib import Path

import pytest

from helios_fs.cli import mounts, restore, workspace
from helios_fs.cli.mounts import Mount
from helios_fs.control.messages import SnapshotInfo
from helios_fs.errors import InvalidArgument, NoSuchEntry, UsageError


def snapshot(id_: str, name: bytes = b"") -> SnapshotInfo:
    return SnapshotInfo(id_, name, "", 0, [], "", "", True, "")


KNOWN = [snapshot("01aaaaaaaa", b"first"), snapshot("01ab000000"), snapshot("02kzzzzzzz", b"caf\xe9")]


@pytest.mark.parametrize(
    ("text", "index"),
    [
        ("01aaaaaaaa", 0),
        ("first", 0),
        ("01aa", 0),
        ("01AB", 1),
        ("02", 2),
        ("latest", 2),
        ("~0", 2),
        ("~2", 0),
        ("latest~1", 1),
        (os.fsdecode(b"caf\xe9"), 2),
    ],
)
def test_pick(text: str, index: int) -> None:
    assert workspace.pick(KNOWN, text) is KNOWN[index]


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("01a", InvalidArgument),
        ("", NoSuchEntry),
        ("~3", NoSuchEntry),
        ("~x", NoSuchEntry),
        ("~", NoSuchEntry),
        ("firs", NoSuchEntry),
        ("first~1", NoSuchEntry),
        ("~²", NoSuchEntry),
    ],
)
def test_pick_refuses(text: str, error: type[Exception]) -> None:
    with pytest.raises(error):
        workspace.pick(KNOWN, text)


def test_a_name_goes_before_the_start_of_an_id() -> None:
    named = snapshot("03aaaaaaaa", b"02k")
    assert workspace.pick([*KNOWN, named], "02k") is named


def test_pick_without_any() -> None:
    with pytest.raises(NoSuchEntry, match="no snapshots yet"):
        workspace.pick([], "latest")


MOUNTINFO = rb"""22 1 0:20 / / rw - ext4 /dev/sda1 rw
45 22 0:42 / /home/me/ws rw,relatime shared:7 - fuse.helios /srv/s\043main rw,user_id=0
46 45 0:43 / /home/me/ws/mnt rw - tmpfs tmpfs rw
47 22 0:44 / /home/me/my\040ws\134\011x rw - fuse.helios /srv/a%20b%25#c\043a/b rw
48 22 0:45 / /covered rw - fuse.helios /srv/below\043main rw
49 22 0:46 / /covered rw - tmpfs tmpfs rw
50 22 0:47 / /odd rw - fuse.sshfs host:/x rw
nonsense
"""


def test_parse_mountinfo() -> None:
    parsed = dict(mounts.parse(MOUNTINFO))
    assert parsed["/home/me/ws"] == Mount("/home/me/ws", "/srv/s", "main", "rw,relatime", called="main")
    assert parsed["/home/me/my ws\\\tx"] == Mount("/home/me/my ws\\\tx", "/srv/a b%#c", "a/b", "rw", called="a/b")
    assert parsed["/covered"] is None
    assert parsed["/odd"] is None
    assert len(mounts.parse(MOUNTINFO)) == 7


@pytest.fixture
def mountinfo(monkeypatch: pytest.MonkeyPatch) -> None:
    # A machine's real mounts cannot be had in every arrangement; the real file is read by the tests on real mounts.
    monkeypatch.setattr(mounts, "_all", lambda: mounts.parse(MOUNTINFO))


@pytest.mark.usefixtures("mountinfo")
@pytest.mark.parametrize(
    ("path", "mountpoint"),
    [
        ("/home/me/ws", "/home/me/ws"),
        ("/home/me/ws/a/b", "/home/me/ws"),
        ("/home/me/ws2", None),
        ("/home/me/ws/mnt/x", None),
        ("/covered/x", None),
        ("/", None),
    ],
)
def test_find_mount_of(path: str, mountpoint: str | None) -> None:
    found = mounts.find_mount_of(path)
    assert (found and found.mountpoint) == mountpoint


@pytest.mark.usefixtures("mountinfo")
def test_find_mount_at() -> None:
    assert mounts.find_mount_at("/covered") == (True, None)
    assert mounts.find_mount_at("/nowhere") == (False, None)
    assert mounts.find_mount_at("/home/me/ws")[1] is not None


class TestPathsInTree:
    @pytest.fixture
    def root(self, tmp_path: Path) -> Path:
        (tmp_path / "ws" / "sub").mkdir(parents=True)
        (tmp_path / "ws" / "link").symlink_to("sub")
        (tmp_path / "to-ws").symlink_to("ws")
        return tmp_path / "ws"

    @pytest.mark.parametrize(
        ("base", "path", "expected"),
        [
            ("ws", "a", [b"a"]),
            ("ws", "gone/deep/a", [b"gone/deep/a"]),
            ("ws/sub", "a", [b"sub/a"]),
            ("ws/sub", "../a", [b"a"]),
            ("ws/sub", "..", []),
            ("ws/sub", ".", [b"sub"]),
            ("ws", "link", [b"link"]),
            ("ws", "link/", [b"link"]),
            ("ws", "link/a", [b"sub/a"]),
            ("ws", ".", []),
            ("to-ws", "a", [b"a"]),
            (".", "a", [b"a"]),
            ("ws", "caf\udce9", [b"caf\xe9"]),
        ],
    )
    def test_relative(self, root: Path, base: str, path: str, expected: list[bytes]) -> None:
        assert restore.paths_in_tree([path], str(root), str(root.parent / base)) == expected

    def test_absolute(self, root: Path) -> None:
        assert restore.paths_in_tree([f"{root}/a/b"], str(root), "/") == [b"a/b"]
        assert restore.paths_in_tree([f"{root.parent}/to-ws/a"], str(root), "/") == [b"a"]
        assert restore.paths_in_tree([str(root)], str(root), "/") == []

    def test_one_for_everything_wins(self, root: Path) -> None:
        assert restore.paths_in_tree(["a", "."], str(root), str(root)) == []

    @pytest.mark.parametrize("path", ["..", "../other", "/etc"])
    def test_outside(self, root: Path, path: str) -> None:
        with pytest.raises(UsageError, match="not in the workspace"):
            restore.paths_in_tree([path], str(root), str(root))
