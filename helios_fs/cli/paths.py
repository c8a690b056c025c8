"""Which paths of a tree the PATH arguments of a verb mean: paths with all below them, and globs.

N1. A path is relative to the directory that the verb acts from, where that is in the mount, else to the root.
N2. What has `*`, `?` or `[` is a glob with the rules of .gitignore, counted from that same directory; a file that is
    really called so is meant too.
"""

import os
import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Final

from helios_fs.cli.restore import paths_in_tree
from helios_fs.errors import NoSuchEntry

if TYPE_CHECKING:
    from helios_fs.store.objects import Objects

_WILD: Final = re.compile(r"[*?\[]")
_SPECIAL: Final = re.compile(r"([*?\[\]\\!# ])")


class Wanted:
    """The paths and globs of a command line; none at all means everything."""

    def __init__(self, arguments: Sequence[str], mountpoint: str | None, base: str) -> None:
        """Raises UsageError for a path outside the mount and for a glob that cannot be one."""
        from helios_fs.history.select import Selection

        self._literal: list[tuple[str, bytes]] = []
        self._roots: set[bytes] = set()
        self._everything = not arguments
        globs = []
        for argument in arguments:
            wild = _WILD.search(argument) is not None
            if wild:
                globs.append(_anchored(argument, mountpoint, base))
            found = paths_in_tree([argument], mountpoint, base)
            self._everything |= not found
            self._roots.update(found)
            self._literal += [(argument, path) for path in found if not wild]
        self._globs = Selection(globs) if globs else None

    def takes(self, path: bytes, is_directory: bool) -> bool:
        """Tell whether a path of the tree is meant."""
        if self._everything:
            return True
        if self._globs is not None and self._globs.takes(path, is_directory):
            return True
        at = len(path)
        while at >= 0:
            if path[:at] in self._roots:
                return True
            at = path.rfind(b"/", 0, at)
        return False

    def find_missing(self, objects: "Objects", trees: Iterable[bytes]) -> str | None:
        """Return the first argument that is no glob and names nothing in any of the trees, or None."""
        from helios_fs.history.diff import find_entry

        for argument, path in self._literal:
            for tree in trees:
                try:
                    find_entry(objects, tree, path)
                    break
                except NoSuchEntry:
                    continue
            else:
                return argument
        return None


def _anchored(glob: str, mountpoint: str | None, base: str) -> str:
    """Return a glob as .gitignore at the root of the tree would say it."""
    parts = glob.split("/")
    plain = next(number for number, part in enumerate(parts) if _WILD.search(part))
    head, tail = "/".join(parts[:plain]), "/".join(parts[plain:])
    start = paths_in_tree([head or ("/" if glob.startswith("/") else ".")], mountpoint, base)
    anywhere = "" if plain or "/" in tail.rstrip("/") else "**/"
    return "/" + "".join(_SPECIAL.sub(r"\\\1", os.fsdecode(path)) + "/" for path in start) + anywhere + tail
