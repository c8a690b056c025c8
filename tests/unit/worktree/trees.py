"""Small working trees, made through the facade."""

import stat

from helios_fs.objects import record
from helios_fs.worktree.inode import Inode
from tests.model.harness import Branch

FILE = stat.S_IFREG | 0o644
DIRECTORY = stat.S_IFDIR | 0o755


def make(branch: Branch, path: str, data: bytes | None = b"", mode: int = FILE) -> Inode:
    """Make a file with `data`, or something else where `mode` says so."""
    above, _, name = path.rpartition("/")
    inode = branch.worktree.create(branch.walk(above), name.encode(), mode, 7, 8)
    if data and stat.S_ISREG(mode):
        branch.worktree.write(inode, 0, data)
    return inode


def directory(branch: Branch, path: str) -> Inode:
    return make(branch, path, None, DIRECTORY)


def read(branch: Branch, path: str) -> bytes:
    return branch.worktree.read(branch.walk(path), 0, 1 << 22)


def rewrite(branch: Branch, path: str, data: bytes) -> None:
    """Let a file have this content and no other."""
    inode = branch.walk(path)
    branch.worktree.setattr(inode, record.SET_SIZE, size=0)
    branch.worktree.write(inode, 0, data)


def remove(branch: Branch, path: str) -> Inode:
    above, _, name = path.rpartition("/")
    parent = branch.walk(above)
    if branch.walk(path).is_directory:
        return branch.worktree.rmdir(parent, name.encode())
    return branch.worktree.unlink(parent, name.encode())


def rename(branch: Branch, old: str, new: str, exchange: bool = False, replace: bool = True) -> None:
    (above, _, name), (new_above, _, new_name) = old.rpartition("/"), new.rpartition("/")
    branch.worktree.rename(
        branch.walk(above), name.encode(), branch.walk(new_above), new_name.encode(), exchange, replace
    )


def seal(branch: Branch) -> None:
    branch.begin_seal()
    branch.finish_seal()
