"""The exit codes of `helios`, as docs and scripts rely on them."""

from typing import Final

DIFFERENT: Final = 1
"""A difference, a conflict, or problems found."""
USAGE: Final = 2
NOT_DONE: Final = 3
INTERRUPTED: Final = 130
