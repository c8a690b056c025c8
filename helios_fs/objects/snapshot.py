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
    command: str = ""
    """What made it: a command line, `mkdir`, or the rule by which the mount did."""
    protected: bool = False
    """Nobody deletes it until this is taken back."""


class Fork(msgspec.Struct, array_like=True, frozen=True):
    """A branch was made: what the record in its parent's journal says."""

    name: str
    """Its own part of the name."""
    parent: str
    """Id of the branch that it was made from."""
    snapshot: Snapshot
    """The state in which it begins; the snapshot is the new branch's own, and names its id."""


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


class SnapshotChanged(msgspec.Struct, array_like=True, frozen=True, tag="change"):
    """What people say of a snapshot is this from now on."""

    id: str
    name: bytes
    """Empty: it has none."""
    message: str
    protected: bool


class SnapshotDeleted(msgspec.Struct, array_like=True, frozen=True, tag="delete"):
    """A snapshot was deleted; its state may go when nothing else needs it."""

    id: str


class BranchGone(msgspec.Struct, array_like=True, frozen=True, tag="gone"):
    """A deleted branch is at an end: its head, its snapshots and its fencing epoch are no more."""

    branch: str


RefEvent = HeadMoved | SnapshotSealed | SnapshotChanged | SnapshotDeleted | BranchGone

_encode = msgspec.msgpack.Encoder().encode
_decode_events = msgspec.msgpack.Decoder(list[RefEvent]).decode
_decode_snapshot = msgspec.msgpack.Decoder(Snapshot).decode
_decode_fork = msgspec.msgpack.Decoder(Fork).decode
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


def changed(snapshot: Snapshot, change: SnapshotChanged) -> Snapshot:
    """Return a snapshot as it is after a change; its state, time and author never change."""
    return msgspec.structs.replace(snapshot, name=change.name, message=change.message, protected=change.protected)


def encode_snapshot(snapshot: Snapshot) -> bytes:
    """Return the bytes of a snapshot."""
    return _encode(snapshot)


def decode_snapshot(data: bytes) -> Snapshot:
    """Return a snapshot. Raises CorruptObject."""
    try:
        return _decode_snapshot(data)
    except (msgspec.MsgspecError, ValueError) as error:
        raise CorruptObject(f"a snapshot cannot be decoded: {error}") from error


def encode_fork(fork: Fork) -> bytes:
    """Return the bytes of a fork."""
    return _encode(fork)


def decode_fork(data: bytes) -> Fork:
    """Return a fork. Raises CorruptObject."""
    try:
        return _decode_fork(data)
    except (msgspec.MsgspecError, ValueError) as error:
        raise CorruptObject(f"a fork cannot be decoded: {error}") from error


def encode_head(head: Head) -> bytes:
    """Return the bytes of a branch head."""
    return _encode(head)


def decode_head(data: bytes) -> Head:
    """Return a branch head. Raises CorruptObject."""
    try:
        return _decode_head(data)
    except (msgspec.MsgspecError, ValueError) as error:
        raise CorruptObject(f"a branch head cannot be decoded: {error}") from error
