"""Which paths of a tree are meant: globs with the rules of .gitignore, on paths relative to the tree's root.

Knows paths only. Names that are not UTF-8 take part as they are (surrogate escapes).

G1. `exclude` wins over `include`. What lies below an excluded directory is excluded, as in git.
G2. With `include`, only what matches it, or lies below something that does, is taken; directories above it come along.
"""

import os
from collections.abc import Sequence

import pathspec

from helios_fs.errors import UsageError


class Selection:
    """Include and exclude globs, as given on a command line; without any, everything is taken."""

    def __init__(self, include: Sequence[str] = (), exclude: Sequence[str] = ()) -> None:
        """Raises UsageError for a glob that cannot be one."""
        self._include = _compiled(include)
        self._exclude = _compiled(exclude)

    @property
    def has_includes(self) -> bool:
        """Whether a directory may come along only because of what is in it."""
        return self._include is not None

    def excludes(self, path: bytes, is_directory: bool) -> bool:
        """Tell whether a path is left out, and everything below it with it."""
        return self._exclude is not None and self._exclude.match_file(_text(path, is_directory))

    def takes(self, path: bytes, is_directory: bool) -> bool:
        """Tell whether a path is meant by itself. Of one that is not, something below may be, unless it is excluded."""
        if self.excludes(path, is_directory):
            return False
        return self._include is None or self._include.match_file(_text(path, is_directory))


def _text(path: bytes, is_directory: bool) -> str:
    text = os.fsdecode(path)
    return text + "/" if is_directory else text


def _compiled(globs: Sequence[str]) -> pathspec.GitIgnoreSpec | None:
    try:
        return pathspec.GitIgnoreSpec.from_lines(globs) if globs else None
    except ValueError as error:
        raise UsageError(f"not a glob: {error}") from error
