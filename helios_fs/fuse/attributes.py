"""Inodes as the kernel wants to hear of them.

One `EntryAttributes` is filled and returned again and again: pyfuse3 copies it into its reply before any other handler
can run, because no handler waits between filling and returning.
"""

import stat
from typing import Final

import pyfuse3

from helios_fs.worktree.inode import Inode

FOREVER: Final = 10.0**9
"""Seconds. The daemon is the only writer: what the kernel knows stays true until it is told otherwise."""

_BLOCK: Final = 4096
_FIELDS: Final = (
    *("st_ino", "generation", "st_mode", "st_nlink", "st_uid", "st_gid", "st_rdev", "st_size", "st_blocks"),
    *("st_blksize", "st_atime_ns", "st_mtime_ns", "st_ctime_ns"),
)

_reply: Final = pyfuse3.EntryAttributes()
_reply.st_blksize = _BLOCK
_reply.attr_timeout = FOREVER
_reply.entry_timeout = FOREVER
_reply.generation = 0

_stale: Final = pyfuse3.EntryAttributes()
_stale.st_blksize = _BLOCK
_stale.attr_timeout = 0.0
_stale.entry_timeout = FOREVER

_passing: Final = pyfuse3.EntryAttributes()
_passing.st_blksize = _BLOCK

_once: Final = pyfuse3.EntryAttributes()
_once.attr_timeout = 0.0
_once.entry_timeout = 0.0

_absent: Final = pyfuse3.EntryAttributes()
_absent.st_ino = pyfuse3.InodeT(0)
_absent.entry_timeout = FOREVER
_absent.attr_timeout = FOREVER


def absent() -> pyfuse3.EntryAttributes:
    """Return the reply that lets the kernel remember that a name is not there; raising ENOENT would not."""
    return _absent


def live(inode: Inode) -> pyfuse3.EntryAttributes:
    """Return the attributes of an inode of the working tree."""
    reply = _reply
    reply.st_ino = inode.ino
    reply.generation = 0
    reply.st_mode = inode.mode
    reply.st_nlink = inode.nlink
    reply.st_uid = inode.uid
    reply.st_gid = inode.gid
    reply.st_rdev = inode.rdev
    reply.st_size = inode.size
    reply.st_blocks = (inode.allocated + (_BLOCK - 1)) // _BLOCK * (_BLOCK // 512)
    reply.st_atime_ns = inode.atime_ns
    reply.st_mtime_ns = inode.mtime_ns
    reply.st_ctime_ns = inode.ctime_ns
    return reply


def viewed(inode: Inode, nodeid: int, generation: int) -> pyfuse3.EntryAttributes:
    """Return the attributes of an inode of a snapshot, under the nodeid that it has there."""
    reply = live(inode)
    reply.st_ino = nodeid
    reply.generation = generation
    return reply


def made_up(nodeid: int, mode: int, like: Inode, size: int = 0) -> pyfuse3.EntryAttributes:
    """Return the attributes of something that no tree holds; owner and times are those of `like`.

    What a symlink's name means changes with every snapshot: the kernel always asks again. A directory stays as it is
    until the kernel itself, or somebody who tells it, changes it.
    """
    is_directory = stat.S_ISDIR(mode)
    reply = _passing
    reply.attr_timeout = reply.entry_timeout = FOREVER if is_directory else 0.0
    reply.st_ino = nodeid
    reply.st_mode = mode
    reply.st_nlink = 2 if is_directory else 1
    reply.st_uid = like.uid
    reply.st_gid = like.gid
    reply.st_size = size
    reply.st_atime_ns = like.atime_ns
    reply.st_mtime_ns = like.mtime_ns
    reply.st_ctime_ns = like.ctime_ns
    return reply


def to_be_asked(nodeid: int, like: Inode) -> pyfuse3.EntryAttributes:
    """Return attributes of a directory that tell its type only: the kernel asks before it uses any other."""
    _stale.st_ino = nodeid
    _stale.st_mode = like.mode
    _stale.st_nlink = 2
    _stale.st_uid = like.uid
    _stale.st_gid = like.gid
    return _stale


def for_once(reply: pyfuse3.EntryAttributes) -> pyfuse3.EntryAttributes:
    """Return the same attributes of a name that the kernel must ask for again."""
    for field in _FIELDS:
        setattr(_once, field, getattr(reply, field))
    return _once


def for_removal(nodeid: int, mode: int, uid: int) -> pyfuse3.EntryAttributes:
    """Return attributes of something that its owner may take away, and that the kernel must ask for again."""
    _once.st_ino = nodeid
    _once.generation = 0
    _once.st_mode = mode
    _once.st_nlink = 2 if stat.S_ISDIR(mode) else 1
    _once.st_uid = uid
    _once.st_size = 0
    return _once
