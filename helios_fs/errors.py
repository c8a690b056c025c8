"""Every error that HeliosFS raises on purpose.

One flat tree under `HeliosError`, named by meaning. `fuse/errnos.py` maps each class to an errno, the command line
prints `str(error)` as its one line. Foreign errors (OSError, lmdb.Error) are converted where they enter.
"""


class HeliosError(Exception):
    """Something went wrong that a user can be told in one line."""


# -- What a request can be told --------------------------------------------------------------------------------------


class NoSuchEntry(HeliosError):
    """The name, inode or snapshot is not there."""


class EntryExists(HeliosError):
    """The name is taken."""


class NotADirectory(HeliosError):
    """A directory was needed."""


class IsADirectory(HeliosError):
    """Something other than a directory was needed."""


class DirectoryNotEmpty(HeliosError):
    """The directory still has entries."""


class NameTooLong(HeliosError):
    """A name of more than 255 bytes, or a path or symlink target that the kernel could not take."""


class InvalidArgument(HeliosError):
    """The request makes no sense: a directory into itself, an unknown rename flag, a bad name."""


class ReadOnly(HeliosError):
    """The place cannot be changed: a snapshot, or a branch that went read-only after a fault."""


class CrossesView(HeliosError):
    """A rename or link from one tree (working tree, snapshot, branch) to another."""


class NotPermitted(HeliosError):
    """The operation is refused whoever asks."""


class NoSuchAttribute(HeliosError):
    """The extended attribute is not there."""


class AttributeExists(HeliosError):
    """The extended attribute is there already and the caller wanted a new one."""


class AttributeTooLarge(HeliosError):
    """The extended attributes of one inode would outgrow what can be listed or read back."""


class NotSupported(HeliosError):
    """This filesystem does not do that."""


class TooManyLinks(HeliosError):
    """An inode cannot have more names."""


class FileTooLarge(HeliosError):
    """An offset past the largest file size."""


class Busy(HeliosError):
    """Somebody else holds it: a store, a branch, a mountpoint."""


# -- What the disk can do to us --------------------------------------------------------------------------------------


class StoreFull(HeliosError):
    """The disk that holds the store has no room; nothing was changed."""


class StoreFault(HeliosError):
    """A read, write or sync of the store failed (EIO and its like)."""


class CorruptObject(HeliosError):
    """Stored bytes do not match their checksum or cannot be decoded; they are never returned."""


class ObjectMissing(HeliosError):
    """The store does not hold an object that something refers to."""


class ColdObject(HeliosError):
    """An object is on disk only, and the caller may not wait: load it in a thread, then ask again.

    Raised before anything has changed, so that the whole operation can be repeated.
    """

    def __init__(self, object_id: bytes) -> None:
        super().__init__(object_id.hex())
        self.object_id = object_id


class NotAStore(HeliosError):
    """The directory is not a HeliosFS store, or not a whole one."""


class WrongVersion(HeliosError):
    """The store was made by a program with another on-disk format."""


class Fenced(HeliosError):
    """Another owner has taken this branch since; this process must not publish any more."""


class SnapshotUnsealed(HeliosError):
    """The snapshot is still only in the journal; seal it first."""


# -- What the command line can be told -------------------------------------------------------------------------------


class UsageError(HeliosError):
    """The command was called in a way that cannot work (exit code 2)."""


class MountFailed(HeliosError):
    """The mount could not be made or removed; the text says why and what to do."""
