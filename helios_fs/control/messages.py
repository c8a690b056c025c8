"""What the command line and a running mount say to each other.

One JSON object in a line each way, told apart by its `type`. Fields that are not known are ignored, so that an older
client may talk to a newer daemon; fields that are missing or of another type are refused.

Knows nothing of sockets or of how a request is carried out.

M1. Names and paths are bytes: in JSON they are base64, because JSON has no way to write a name that is not UTF-8.
M2. A message has no newline in it but the last.
"""

from typing import Final

import msgspec

from helios_fs import errors
from helios_fs.errors import HeliosError, InvalidArgument

MAX_REQUEST_BYTES: Final = 1 << 20
"""A request line may not be longer; replies may."""


class Hello(msgspec.Struct, frozen=True, tag=True):
    """Who are you?"""


class TakeSnapshot(msgspec.Struct, frozen=True, tag=True):
    """Freeze the working tree as it is now."""

    name: bytes = b""
    message: str = ""
    user: str = ""
    sync: bool = False
    """Answer only when the snapshot would survive a power cut."""


class ListSnapshots(msgspec.Struct, frozen=True, tag=True):
    """Every snapshot of the branch, sealed or not."""


class Seal(msgspec.Struct, frozen=True, tag=True):
    """Seal all that was done before this request, and answer when it is in the store."""


class Restore(msgspec.Struct, frozen=True, tag=True):
    """Bring back a snapshot's state, whole, or of some paths (relative to the root of the tree)."""

    id: str
    paths: list[bytes] = []


class Collect(msgspec.Struct, frozen=True, tag=True):
    """Give back the space that nothing needs: end deleted branches, drop and rewrite packs."""

    release_only: bool = False
    """Only let go of packs that another process has dropped."""


class Stats(msgspec.Struct, frozen=True, tag=True):
    """Counters of the running mount."""


class Unmount(msgspec.Struct, frozen=True, tag=True):
    """Make everything durable and sealed, unmount and end."""


class HelloReply(msgspec.Struct, frozen=True, tag=True):
    """The daemon that owns a branch."""

    pid: int
    store: bytes
    """Absolute path of the store."""
    branch: str
    mountpoint: bytes
    """Absolute path."""
    version: str


class SnapshotTaken(msgspec.Struct, frozen=True, tag=True):
    """The snapshot is there, and survives the death of the daemon."""

    id: str


class SnapshotInfo(msgspec.Struct, frozen=True):
    """One snapshot as the daemon knows it."""

    id: str
    name: bytes
    message: str
    time_ns: int
    """Nanoseconds since 1970."""
    parents: list[str]
    user: str
    host: str
    sealed: bool
    tree: str
    """Tree hash in hex; empty while it is in the journal only."""


class Snapshots(msgspec.Struct, frozen=True, tag=True):
    """All snapshots of the branch, oldest first."""

    snapshots: list[SnapshotInfo]


class Sealed(msgspec.Struct, frozen=True, tag=True):
    """Everything up to a position is in the store."""

    tree: str
    """Tree hash of the working tree as of the request, in hex."""
    lsn: int
    epoch: int


class Restored(msgspec.Struct, frozen=True, tag=True):
    """The state is back."""

    undo_snapshot_id: str
    """The snapshot of the working tree that was taken first; restoring it undoes the restore."""
    changed: int
    """How many paths were changed."""


class Collected(msgspec.Struct, frozen=True, tag=True):
    """Space came back. The fields are those of `store.gc.Collected`."""

    bytes_freed: int = 0
    packs_dropped: int = 0
    packs_rewritten: int = 0
    packs_kept: int = 0
    live_bytes: int = 0
    dead_bytes: int = 0
    pins: int = 0
    problems: tuple[str, ...] = ()


class StatsReply(msgspec.Struct, frozen=True, tag=True):
    """Counters by name; a name ends in its unit."""

    counters: dict[str, int | float]


class Unmounting(msgspec.Struct, frozen=True, tag=True):
    """Everything is durable and sealed; the mount and the daemon are about to go."""


class Failed(msgspec.Struct, frozen=True, tag=True):
    """The request was not carried out."""

    error: str
    """Name of a class in helios_fs/errors.py."""
    message: str


Request = Hello | TakeSnapshot | ListSnapshots | Seal | Restore | Collect | Stats | Unmount
Reply = HelloReply | SnapshotTaken | Snapshots | Sealed | Restored | Collected | StatsReply | Unmounting | Failed

_encode = msgspec.json.Encoder().encode
_request_decoder: msgspec.json.Decoder[Request] = msgspec.json.Decoder(Request)
_reply_decoder: msgspec.json.Decoder[Reply] = msgspec.json.Decoder(Reply)


def encode(message: Request | Reply) -> bytes:
    """Return a message as one line, its newline included."""
    return _encode(message) + b"\n"


def decode_request(line: bytes) -> Request:
    """Return the request in a line. Raises InvalidArgument."""
    try:
        return _request_decoder.decode(line)
    except (msgspec.MsgspecError, ValueError) as error:
        raise InvalidArgument(f"the request cannot be understood: {error}") from error


def decode_reply(line: bytes) -> Reply:
    """Return the reply in a line. Raises InvalidArgument, as where the daemon is of another version."""
    try:
        return _reply_decoder.decode(line)
    except (msgspec.MsgspecError, ValueError) as error:
        raise InvalidArgument(f"the daemon's reply cannot be understood: {error}") from error


def failure(error: HeliosError) -> Failed:
    """Return the reply that says an error."""
    # Text from OSError may hold a path that is not UTF-8; JSON takes no lone surrogates.
    text = str(error).encode(errors="backslashreplace").decode()
    return Failed(type(error).__name__, text)


def raised(failed: Failed) -> HeliosError:
    """Return the error that a reply says, in the class that it was raised in where this program knows it."""
    found = getattr(errors, failed.error, None)
    if isinstance(found, type) and issubclass(found, HeliosError) and found is not errors.ColdObject:
        return found(failed.message)
    return HeliosError(failed.message)
