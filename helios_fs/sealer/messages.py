"""What the daemon and its sealer say to each other over a pair of pipes: a length of four bytes, then MessagePack."""

import struct
from typing import Final

import msgspec

from helios_fs.objects.snapshot import Head

LENGTH: Final = struct.Struct("<I")


class SealUpTo(msgspec.Struct, array_like=True, tag="seal"):
    """Seal everything of a branch before this journal position, right behind a record that closes an epoch."""

    branch: str
    fence: int
    """The epoch under which the daemon owns the branch."""
    lsn: int


class Collect(msgspec.Struct, array_like=True, tag="collect"):
    """Drop packs that neither refs, nor pins in the store, nor these objects need."""

    pins: list[bytes]
    slack: float = 1.0
    """How many dead bytes may stay for each live one."""
    grace_seconds: float = 3600.0
    """Branches deleted longer ago end now."""


class Begun(msgspec.Struct, array_like=True, tag="begun"):
    """The store has it, durably: the branch's new head, and the trees of the snapshots that were sealed with it."""

    head: Head
    snapshots: list[tuple[str, bytes]]
    deleted: int
    bytes_stored: int


class Batch(msgspec.Struct, array_like=True, tag="batch"):
    """Inodes and their content in the store: (inode number, content id, size); directories come first."""

    sealed: list[tuple[int, bytes, int]]


class Done(msgspec.Struct, array_like=True, tag="done"):
    """That was all of it."""


class Collected(msgspec.Struct, array_like=True, tag="collected"):
    """Space that came back."""

    bytes_freed: int
    packs_dropped: int
    packs_rewritten: int = 0
    packs_kept: int = 0
    live_bytes: int = 0
    dead_bytes: int = 0
    pins: int = 0
    problems: tuple[str, ...] = ()


class Refused(msgspec.Struct, array_like=True, tag="refused"):
    """It could not be done; nothing was published. `error` is the class's name."""

    error: str
    message: str


Request = SealUpTo | Collect
Reply = Begun | Batch | Done | Collected | Refused

_encode = msgspec.msgpack.Encoder().encode
decode_request = msgspec.msgpack.Decoder(Request).decode
decode_reply = msgspec.msgpack.Decoder(Reply).decode


def frame(message: Request | Reply) -> bytes:
    """Return a message as it goes over the pipe."""
    body = _encode(message)
    return LENGTH.pack(len(body)) + body
