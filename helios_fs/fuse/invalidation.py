"""Telling the kernel what the daemon has changed itself."""

import errno
import logging
from collections.abc import Iterable

import pyfuse3

from helios_fs.fuse.place import Place
from helios_fs.history.changed import Changed
from helios_fs.objects.snapshot import Snapshot

_log = logging.getLogger(__name__)


def invalidate(changed: Changed, place: Place) -> None:
    """Make the kernel forget names and pages that are no longer true, in the tree at `place`.

    Blocks while requests on the same directory are in flight: call it from a thread, never from a handler.
    """
    for directory, name, lost in changed.names:
        parent, gone = place.nodeid_of(directory), place.nodeid_of(lost) if lost else 0
        try:
            pyfuse3.invalidate_entry(parent, name, gone)
        except OSError as error:
            # ENOENT: it did not know the name. ENOTEMPTY, EBUSY: a directory in use, which it drops itself later.
            if gone and error.errno in (errno.ENOTEMPTY, errno.EBUSY, errno.ENOENT):
                forget_name(parent, name)
            elif error.errno != errno.ENOENT:
                _log.warning("the kernel keeps an old name: %s", error)
    for ino in changed.inodes:
        try:
            pyfuse3.invalidate_inode(place.nodeid_of(ino))
        except OSError as error:
            if error.errno != errno.ENOENT:
                _log.warning("the kernel keeps old pages of inode %d: %s", ino, error)


def forget_attributes(nodeid: int) -> None:
    """Make the kernel ask for the attributes of a node again. Waits for nothing."""
    try:
        pyfuse3.invalidate_inode(nodeid, attr_only=True)
    except OSError as error:
        if error.errno != errno.ENOENT:
            _log.warning("the kernel keeps old attributes of node %#x: %s", nodeid, error)


def forget_snapshots(directory: int, snapshots: Iterable[Snapshot]) -> None:
    """Make the kernel forget the names of snapshots in a `.snapshots`, known by its nodeid; blocks as `invalidate`."""
    for snapshot in snapshots:
        forget_name(directory, snapshot.id.encode())
        if snapshot.name:
            forget_name(directory, snapshot.name)
    forget_attributes(directory)


def forget_name(parent: int, name: bytes) -> None:
    """Make the kernel look a name up again. Blocks as `invalidate` does."""
    try:
        pyfuse3.invalidate_entry(parent, name)
    except OSError as error:
        if error.errno != errno.ENOENT:
            _log.warning("the kernel keeps an old name: %s", error)
