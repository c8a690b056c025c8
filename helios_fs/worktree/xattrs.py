"""How large extended attributes may be: the kernel's limits, and one of ours.

Knows nothing of what an attribute means.
"""

from collections.abc import Mapping
from typing import Final

from helios_fs.errors import AttributeTooLarge
from helios_fs.worktree.inode import MAX_NAME_BYTES

MAX_XATTR_VALUE_BYTES: Final = 65_536
MAX_XATTR_LIST_BYTES: Final = 65_536
MAX_XATTR_BYTES: Final = 512 * 1024
"""Names and values of one inode together: an entry must fit into one journal record, and into a page beside others."""


def check_xattr(held: Mapping[bytes, bytes], name: bytes, value: bytes) -> None:
    """Refuse an attribute that is too large beside those that an inode holds. Raises AttributeTooLarge."""
    if len(name) > MAX_NAME_BYTES or len(value) > MAX_XATTR_VALUE_BYTES:
        raise AttributeTooLarge("an attribute may have a name of 255 bytes and a value of 64 KiB")
    listed = sum(len(other) + 1 for other in held) + (0 if name in held else len(name) + 1)
    if listed > MAX_XATTR_LIST_BYTES:
        raise AttributeTooLarge("the names of an inode's attributes may have 64 KiB in all")
    if listed + sum(len(other) for key, other in held.items() if key != name) + len(value) > MAX_XATTR_BYTES:
        raise AttributeTooLarge("the attributes of an inode may have 512 KiB in all")
