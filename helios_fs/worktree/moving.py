"""What may be moved where: the rules of rename(2) that need more than one inode.

Knows inodes only.
"""

from helios_fs.errors import DirectoryNotEmpty, InvalidArgument, IsADirectory, NotADirectory
from helios_fs.worktree.inode import Inode


def check_outside(directory: Inode | None, inode: Inode) -> None:
    """Refuse to move a directory into itself or below itself. Raises InvalidArgument."""
    while directory is not None:
        if directory is inode:
            raise InvalidArgument("a directory cannot be moved into itself")
        directory = directory.parent


def check_replaceable(inode: Inode, other: Inode) -> None:
    """Refuse to move `inode` over `other` where rename(2) does.

    Raises IsADirectory, NotADirectory, DirectoryNotEmpty.
    """
    if other.is_directory:
        if not inode.is_directory:
            raise IsADirectory("is a directory")
        if other.size:
            raise DirectoryNotEmpty("the directory is not empty")
    elif inode.is_directory:
        raise NotADirectory("not a directory")
