"""The one place where an error of ours becomes an errno. A test asserts that every class is here."""

import errno
from typing import Final

from helios_fs import errors

ERRNO: Final[dict[type[errors.HeliosError], int]] = {
    errors.NoSuchEntry: errno.ENOENT,
    errors.EntryExists: errno.EEXIST,
    errors.NotADirectory: errno.ENOTDIR,
    errors.IsADirectory: errno.EISDIR,
    errors.DirectoryNotEmpty: errno.ENOTEMPTY,
    errors.NameTooLong: errno.ENAMETOOLONG,
    errors.InvalidArgument: errno.EINVAL,
    errors.ReadOnly: errno.EROFS,
    errors.CrossesView: errno.EXDEV,
    errors.NotPermitted: errno.EPERM,
    errors.NoSuchAttribute: errno.ENODATA,
    errors.AttributeExists: errno.EEXIST,
    errors.AttributeTooLarge: errno.ENOSPC,
    errors.NotSupported: errno.EOPNOTSUPP,
    errors.TooManyLinks: errno.EMLINK,
    errors.FileTooLarge: errno.EFBIG,
    errors.Busy: errno.EBUSY,
    errors.StoreFull: errno.ENOSPC,
    errors.StoreFault: errno.EIO,
    errors.CorruptObject: errno.EIO,
    errors.ObjectMissing: errno.EIO,
    errors.ColdObject: errno.EIO,
    errors.NotAStore: errno.EIO,
    errors.WrongVersion: errno.EIO,
    errors.Fenced: errno.EROFS,
    errors.SnapshotUnsealed: errno.EAGAIN,
    errors.UsageError: errno.EINVAL,
    errors.MountFailed: errno.EIO,
}
