"""A sealed snapshot as a working tree that nothing can change: what `mount --snapshot` shows.

It has no journal, takes no lock, and is nobody's to seal; any number of mounts may show the same one.
"""

from helios_fs.errors import ReadOnly
from helios_fs.journal.journal import Journal
from helios_fs.store.store import Store
from helios_fs.worktree.index import Index
from helios_fs.worktree.inos import Inos
from helios_fs.worktree.recovery import known_snapshots
from helios_fs.worktree.worktree import Worktree


def frozen(store: Store, branch: str, tree_id: bytes) -> Worktree:
    """Return the working tree of a sealed snapshot of a branch. Raises ObjectMissing, CorruptObject."""
    objects = store.objects.without_waiting()
    index = Index(objects, store.objects.tree(tree_id), 1)
    journal = Journal.refusing(ReadOnly("a snapshot never changes"))
    return Worktree(branch, index, journal, objects, Inos(lambda count: range(0)), known_snapshots(store, branch))
