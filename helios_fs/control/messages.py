"""What the command line and a running mount say to each other.

One JSON object in a line each way, told apart by its `type`. Fields that are not known are ignored, so that an older
client may talk to a newer daemon; fields that are missing or of another type are refused.

Knows nothing of sockets or of how a request is carried out.

M1. Names and paths are bytes: in JSON they are base64, because JSON has no way to write a name that is not UTF-8.
M2. A message has no newline in it but the last.
"""

from typing import TYPE_CHECKING, Final, Literal

import msgspec

from helios_fs import errors
from helios_fs.errors import HeliosError, InvalidArgument

if TYPE_CHECKING:
    from helios_fs.objects.snapshot import Snapshot

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
    command: str = ""
    """What asked for it, as the snapshot keeps it."""


class ListSnapshots(msgspec.Struct, frozen=True, tag=True):
    """Every snapshot of the branch, sealed or not."""


class Seal(msgspec.Struct, frozen=True, tag=True):
    """Seal all that was done before this request, and answer when it is in the store."""


class Restore(msgspec.Struct, frozen=True, tag=True):
    """Bring back a snapshot's state, whole, or of some paths (relative to the root of the tree)."""

    id: str
    paths: list[bytes] = []
    user: str = ""
    command: str = ""
    """Who asked, and how: kept with the snapshot that is taken first."""


class DescribeSnapshot(msgspec.Struct, frozen=True, tag=True):
    """Say anew what is given of a snapshot; what is None stays as it is."""

    id: str
    name: bytes | None = None
    """Empty takes its name away."""
    message: str | None = None
    protected: bool | None = None


class DeleteSnapshots(msgspec.Struct, frozen=True, tag=True):
    """Delete these, or none where one of them is protected or not there."""

    ids: list[str]


class Merge(msgspec.Struct, frozen=True, tag=True):
    """Merge a sealed state of another branch into this one."""

    branch: str
    """Id of the other branch."""
    snapshot: str
    """Its snapshot that is merged; empty for a dry run."""
    tree: str
    """The snapshot's tree hash, in hex."""
    lsn: int
    """Everything before this position of its journal is in that tree."""
    labels: tuple[str, str]
    """What this branch and the other one are called."""
    favour: Literal["ours", "theirs", "markers"] | None = None
    dry_run: bool = False
    message: str = ""
    user: str = ""


class OpenBranch(msgspec.Struct, frozen=True, tag=True):
    """Open a branch that was made from this one, or from one that was."""

    branch: str
    """Its id."""


class CloseBranch(msgspec.Struct, frozen=True, tag=True):
    """Close a branch that was made from this one, if nobody uses it, so that another process can mount it."""

    branch: str


class ListBranches(msgspec.Struct, frozen=True, tag=True):
    """Every branch that was made from this one."""


class MakeBranch(msgspec.Struct, frozen=True, tag=True):
    """Make a branch of the working tree as it is now, or of a snapshot."""

    name: str
    uid: int
    """Who asks, as a user id."""
    snapshot: str = ""
    """Id of the snapshot in which it begins; empty for the working tree."""


class RenameBranch(msgspec.Struct, frozen=True, tag=True):
    """Give a branch that was made from this one another name."""

    branch: str
    name: str


class DeleteBranch(msgspec.Struct, frozen=True, tag=True):
    """Delete a branch that was made from this one."""

    branch: str
    force: bool = False
    """Even if that drops work that nobody else holds."""


class BringBackBranch(msgspec.Struct, frozen=True, tag=True):
    """Bring back a branch that was deleted and not collected yet."""

    branch: str


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
    command: str = ""
    protected: bool = False


class Snapshots(msgspec.Struct, frozen=True, tag=True):
    """All snapshots of the branch, oldest first."""

    snapshots: list[SnapshotInfo]


class SnapshotDescribed(msgspec.Struct, frozen=True, tag=True):
    """What is known of the snapshot now."""

    snapshot: SnapshotInfo


class SnapshotsDeleted(msgspec.Struct, frozen=True, tag=True):
    """They are gone, and stay gone if the daemon dies."""


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


class MergeConflict(msgspec.Struct, frozen=True):
    """One path about which two branches disagree."""

    path: bytes
    kind: str


class Merged(msgspec.Struct, frozen=True, tag=True):
    """The merge is done, or was found to have conflicts, or there was nothing to merge."""

    base: str
    """Id of the snapshot from which both sides were told."""
    snapshot: str
    """The snapshot with two parents; empty where nothing was changed."""
    conflicts: list[MergeConflict]
    """What conflicts, decided or not."""
    changed: int
    """How many inodes were changed, or would be."""
    up_to_date: bool
    """This branch has all of the other one already."""


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


class BranchOpened(msgspec.Struct, frozen=True, tag=True):
    """The branch is open, and has a control socket of its own."""

    path: bytes
    """Where its tree is."""


class BranchClosed(msgspec.Struct, frozen=True, tag=True):
    """Whether the branch is closed now; where not, somebody uses it."""

    closed: bool


class BranchNames(msgspec.Struct, frozen=True, tag=True):
    """The branches that were made from one."""

    branches: dict[str, str]
    """Name -> id."""


class BranchMade(msgspec.Struct, frozen=True, tag=True):
    """The branch is there, and survives the death of the daemon."""

    branch: str


class BranchChanged(msgspec.Struct, frozen=True, tag=True):
    """It is done, durably."""


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


Request = (
    Hello
    | TakeSnapshot
    | ListSnapshots
    | DescribeSnapshot
    | DeleteSnapshots
    | Seal
    | Restore
    | Merge
    | OpenBranch
    | CloseBranch
    | ListBranches
    | MakeBranch
    | RenameBranch
    | DeleteBranch
    | BringBackBranch
    | Collect
    | Stats
    | Unmount
)
Reply = (
    HelloReply
    | SnapshotTaken
    | Snapshots
    | SnapshotDescribed
    | SnapshotsDeleted
    | Sealed
    | Restored
    | Merged
    | BranchOpened
    | BranchClosed
    | BranchNames
    | BranchMade
    | BranchChanged
    | Collected
    | StatsReply
    | Unmounting
    | Failed
)

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


def info(snapshot: "Snapshot") -> SnapshotInfo:
    """Return what there is to tell of a snapshot."""
    return SnapshotInfo(
        id=snapshot.id,
        name=snapshot.name,
        message=snapshot.message,
        time_ns=snapshot.time_ns,
        parents=list(snapshot.parents),
        user=snapshot.user,
        host=snapshot.host,
        sealed=bool(snapshot.tree),
        tree=snapshot.tree.hex(),
        command=snapshot.command,
        protected=snapshot.protected,
    )


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
