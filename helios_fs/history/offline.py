"""Changing a branch that no daemon owns.

Knows how a branch is owned and recovered; nothing of what is changed.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from helios_fs.store.store import Store
from helios_fs.worktree.recovery import recover
from helios_fs.worktree.worktree import Worktree


@contextmanager
def owned(store: Store, branch: str) -> Iterator[Worktree]:
    """Own a branch for the length of a `with`; what was done to it is durable when that ends without an error.

    Nothing is sealed. Raises Busy where somebody else owns the branch, and what `recover` does.
    """
    with store.lock_branch(branch):
        worktree = recover(store, branch)
        try:
            yield worktree
            worktree.journal.sync()
        finally:
            worktree.journal.close()
