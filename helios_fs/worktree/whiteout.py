"""Renames that leave a whiteout behind (RENAME_WHITEOUT, renameat2(2)): a character device 0/0 under the old name.

What a union filesystem needs of its upper layer: the kernel's overlayfs takes a mount as one only where it can do this.

O1. The move and the whiteout are one group of the journal: after any crash both have happened or neither.
"""

import stat
from typing import Final

from helios_fs.worktree.groups import group
from helios_fs.worktree.inode import Inode
from helios_fs.worktree.worktree import Worktree

_MOST_BYTES: Final = 4096
"""More than a RENAME with two names of 255 bytes and a CREATE with one take."""


def rename_leaving_whiteout(
    worktree: Worktree,
    old_parent: Inode,
    old_name: bytes,
    new_parent: Inode,
    new_name: bytes,
    replace: bool,
    uid: int,
    gid: int,
) -> None:
    """Move a name, over an existing one where `replace`, and make a whiteout of user `uid` and group `gid` there.

    Raises as `Worktree.rename` does, and then nothing was changed.
    """
    inode, other = worktree.check_rename(old_parent, old_name, new_parent, new_name, False, replace)
    if other is inode:
        return
    worktree.bind(old_parent, new_parent, inode, *([other] if other is not None else []))
    with group(worktree, _MOST_BYTES):
        worktree.rename(old_parent, old_name, new_parent, new_name, exchange=False, replace=replace)
        worktree.create(old_parent, old_name, stat.S_IFCHR, uid, gid)
