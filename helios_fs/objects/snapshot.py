"""Snapshots and branch heads as refs keep them: the ref log's events.

A snapshot's state is a tree hash; its name and message can change, so they live in refs, never in an object.
"""

from typing import Final

import msgspec

from helios_fs.errors import CorruptObject

MAIN_BRANCH: Final = "main"


class Snapshot(msgspec.Struct, array_like=True, frozen=True):
    """One frozen state of a branch."""

    id: str
    branch: str
    tree: bytes
    """Tree hash, 32 bytes; empty while the state is in the journal only."""
    parents: list[str]
    """Ids of the snapshots it follows: one, none for the first, two for a merge."""
    time_ns: int
    epoch: int
    """The epoch of its branch's journal that it closed."""
    name: bytes = b""
    message: str = ""
    user: str = ""
    host: str = ""


class Head(msgspec.Struct, array_like=True, frozen=True):
    """Where a branch stands in the store: the tree that holds everything its journal said before `lsn`."""

    branch: str
    tree: bytes
    lsn: int
    epoch: int
    """The first epoch that is not sealed; epoch numbers start at 1."""


class HeadMoved(msgspec.Struct, array_like=True, frozen=True, tag="head"):
    """The branch was sealed up to a new position."""

    head: Head


class SnapshotSealed(msgspec.Struct, array_like=True, frozen=True, tag="snapshot"):
    """A snapshot became complete in the store."""

    snapshot: Snapshot


class SnapshotRenamed(msgspec.Struct, array_like=True, frozen=True, tag="rename"):
    """A snapshot got another name, or none."""

    id: str
    name: bytes


class SnapshotDeleted(msgspec.Struct, array_like=True, frozen=True, tag="delete"):
    """A snapshot was deleted; its state may go when nothing else needs it."""

    id: str


class BranchGone(msgspec.Struct, array_like=True, frozen=True, tag="gone"):
    """A deleted branch is at an end: its head, its snapshots and its fencing epoch are no more."""

    branch: str


RefEvent = HeadMoved | SnapshotSealed | SnapshotRenamed | SnapshotDeleted | BranchGone

_encode = msgspec.msgpack.Encoder().encode
_decode_events = msgspec.msgpack.Decoder(list[RefEvent]).decode
_decode_snapshot = msgspec.msgpack.Decoder(Snapshot).decode
_decode_head = msgspec.msgpack.Decoder(Head).decode


def encode_events(events: list[RefEvent]) -> bytes:
    """Return the bytes of events that take effect together."""
    return _encode(events)


def decode_events(data: bytes) -> list[RefEvent]:
    """Return the events of one ref log record. Raises CorruptObject."""
    try:
        return _decode_events(data)
    except (msgspec.MsgspecError, ValueError) as error:
        raise CorruptObject(f"a ref log record cannot be decoded: {error}") from error


def encode_snapshot(snapshot: Snapshot) -> bytes:
    """Return the bytes of a snapshot."""
    return _encode(snapshot)


def decode_snapshot(data: bytes) -> Snapshot:
    """Return a snapshot. Raises CorruptObject."""
    try:
        return _decode_snapshot(data)
    except (msgspec.MsgspecError, ValueError) as error:
        raise CorruptObject(f"a snapshot cannot be decoded: {error}") from error


def encode_head(head: Head) -> bytes:
    """Return the bytes of a branch head."""
    return _encode(head)


def decode_head(data: bytes) -> Head:
    """Return a branch head. Raises CorruptObject."""
    try:
        return _decode_head(data)
    except (msgspec.MsgspecError, ValueError) as error:
        raise CorruptObject(f"a branch head cannot be decoded: {error}") from error
