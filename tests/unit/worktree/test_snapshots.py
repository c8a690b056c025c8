"""The list of snapshots: names and ids, and which names nobody may take."""

import pytest

from helios_fs.errors import EntryExists, HeliosError, InvalidArgument, NameTooLong, NoSuchEntry
from helios_fs.objects.ids import SnapshotId, next_snapshot_id
from helios_fs.objects.snapshot import Snapshot, SnapshotChanged
from helios_fs.worktree.snapshots import Snapshots


def ids(count: int) -> list[str]:
    found: list[SnapshotId] = []
    for _ in range(count):
        found.append(next_snapshot_id(found[-1] if found else None))
    return list(found)


def snapshot(identity: str, name: bytes = b"", tree: bytes = b"") -> Snapshot:
    return Snapshot(identity, "main", tree, [], 5, 1, name)


@pytest.fixture
def three() -> tuple[Snapshots, list[str]]:
    found = Snapshots("main")
    identities = ids(3)
    for identity, name in zip(identities, (b"first", b"", b"\xff"), strict=True):
        found.add(snapshot(identity, name))
    return found, identities


@pytest.mark.parametrize(
    ("name", "error"),
    [
        (b"", InvalidArgument),
        (b".", InvalidArgument),
        (b"..", InvalidArgument),
        (b"a/b", InvalidArgument),
        (b"a\0b", InvalidArgument),
        (b"~1", InvalidArgument),
        (b"~", InvalidArgument),
        (b"n" * 256, NameTooLong),
        (b"latest", EntryExists),
        (b"first", EntryExists),
        (b"\xff", EntryExists),
        (b"0123456789", InvalidArgument),
        (b"9zzzzzzzzz", InvalidArgument),
    ],
)
def test_names_that_are_refused(three: tuple[Snapshots, list[str]], name: bytes, error: type[HeliosError]) -> None:
    with pytest.raises(error) as raised:
        three[0].check_name(name)
    assert type(raised.value) is error
    assert "\n" not in str(raised.value)


def test_the_id_of_a_snapshot_is_taken(three: tuple[Snapshots, list[str]]) -> None:
    with pytest.raises(EntryExists, match="id of a snapshot"):
        three[0].check_name(three[1][1].encode())


@pytest.mark.parametrize(
    "name",
    [b"n" * 255, b"\xfe", b"a b", b"-", b"...", b"012345678", b"01234567890", b"a123456789", b"0123456i89", b"Latest"],
)
def test_names_that_are_allowed(three: tuple[Snapshots, list[str]], name: bytes) -> None:
    three[0].check_name(name)


def test_they_are_found_by_name_and_by_id(three: tuple[Snapshots, list[str]]) -> None:
    found, identities = three
    assert len(found) == 3
    assert [one.id for one in found.all()] == identities
    assert found.find(b"first") == found.find(identities[0].encode()) == found.get(identities[0])
    assert found.find(b"\xff") == found.get(identities[2])
    assert found.find(b"\xfe") is None
    assert found.find(b"") is None
    with pytest.raises(NoSuchEntry):
        found.get("0000000000")


def test_a_new_name_takes_the_place_of_the_old_one(three: tuple[Snapshots, list[str]]) -> None:
    found, identities = three
    version = found.version
    found.change(SnapshotChanged(identities[0], b"renamed", "why", True))
    assert found.version != version
    assert found.find(b"first") is None
    assert found.find(b"renamed") == found.get(identities[0])
    found.check_name(b"first")
    found.change(SnapshotChanged(identities[0], b"", "", False))
    assert found.find(b"renamed") is None
    assert found.find(b"") is None
    assert [one.id for one in found.all()] == identities
    with pytest.raises(NoSuchEntry):
        found.change(SnapshotChanged("0000000000", b"x", "", False))


def test_deleting_frees_the_name_and_keeps_the_line_of_parents(three: tuple[Snapshots, list[str]]) -> None:
    found, identities = three
    latest = found.latest()
    assert latest is not None and latest.id == identities[2]
    found.delete(identities[2])
    found.delete(identities[2])
    latest = found.latest()
    assert latest is not None and latest.id == identities[1]
    # The next one still comes after the one that was deleted.
    assert found.newest is not None and found.newest.id == identities[2]
    found.check_name(b"\xff")
    for identity in identities:
        found.delete(identity)
    assert found.latest() is None
    assert len(found) == 0


def test_sealing_tells_the_tree(three: tuple[Snapshots, list[str]]) -> None:
    found, identities = three
    found.sealed(identities[0], b"t" * 32)
    assert (found.get(identities[0]).tree, found.get(identities[0]).name) == (b"t" * 32, b"first")
    found.delete(identities[1])
    found.sealed(identities[1], b"t" * 32)
    assert len(found) == 2
