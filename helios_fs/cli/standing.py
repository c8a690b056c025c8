"""Which branch's tree a path is in: below `.branches`, or where a namespace shows a branch in the workspace's place.

Knows paths, mountinfo and the branches' files; asks no daemon and touches no mount.

S1. `MOUNT/.branches/a/…` is branch `a` of the one that is mounted; `MOUNT/.branches` itself is not yet.
S2. A bind mount of `MOUNT/.branches/a` is branch `a` too, wherever it is (as in `helios run`).
"""

import os
from typing import Final

from helios_fs.cli.mounts import Mount

BRANCHES_NAME: Final = ".branches"


def find_branch(mount: Mount, path: str) -> tuple[str, str]:
    """Return the id of the branch whose tree an absolute path in a mount is in, and the path of that tree's root.

    Raises NoSuchEntry for a branch that is gone.
    """
    names, rest = _leading_branches(mount.shown)
    root = mount.mountpoint
    if not rest:
        below, _ = _leading_branches(os.path.relpath(path, root))
        root = os.path.join(root, *(part for name in below for part in (BRANCHES_NAME, name)))
        names += below
    branch = mount.branch
    if names:
        from helios_fs.store.branches import Branches

        known = Branches(mount.store)
        for name in names:
            branch = known.child(branch, name).id
    return branch, root


def _leading_branches(path: str) -> tuple[list[str], list[str]]:
    """Split `.branches/a/.branches/b/c/d` into ([a, b], [c, d])."""
    parts = [part for part in path.split("/") if part and part != "."]
    names = []
    while len(parts) >= 2 and parts[0] == BRANCHES_NAME:
        names.append(parts[1])
        parts = parts[2:]
    return names, parts
