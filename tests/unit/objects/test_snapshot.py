import pytest

from helios_fs.errors import CorruptObject
from helios_fs.objects import snapshot
from helios_fs.objects.snapshot import (
    Head,
    HeadMoved,
    RefEvent,
    Snapshot,
    SnapshotChanged,
    SnapshotDeleted,
    SnapshotSealed,
)

_SNAPSHOT = Snapshot("0123456789", "main", b"t" * 32, ["0000000000"], 5, 3, b"na\xffme", "message", "me", "here")


def test_events_come_back_in_order_and_by_kind() -> None:
    head = Head("main", b"t" * 32, 77, 4)
    events: list[RefEvent] = [
        SnapshotSealed(_SNAPSHOT),
        HeadMoved(head),
        SnapshotChanged(_SNAPSHOT.id, b"", "why", True),
        SnapshotDeleted(_SNAPSHOT.id),
    ]
    assert snapshot.decode_events(snapshot.encode_events(events)) == events


def test_snapshots_and_heads_come_back() -> None:
    assert snapshot.decode_snapshot(snapshot.encode_snapshot(_SNAPSHOT)) == _SNAPSHOT
    head = Head("a/b", b"", 2**60, 1)
    assert snapshot.decode_head(snapshot.encode_head(head)) == head


@pytest.mark.parametrize("decode", [snapshot.decode_events, snapshot.decode_snapshot, snapshot.decode_head])
@pytest.mark.parametrize("data", [b"", b"\xc1", b"\x91\x92\xa4what\x01", b"\x92\xa4head\xc0", b"\xa2\xff\xff"])
def test_hostile_bytes_are_refused(decode: object, data: bytes) -> None:
    with pytest.raises(CorruptObject):
        decode(data)  # type: ignore[operator]  # one of the three above
