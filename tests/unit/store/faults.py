"""A way to make the raw operations of a store fail."""

import errno
import os


class Faults:
    """Sees every raw operation; fails those that a test chooses."""

    def __init__(self) -> None:
        self.seen: list[str] = []
        self.fail_at = -1
        """Position in `seen` of the one operation to fail."""
        self.fail_all: set[str] = set()
        """Operations that fail whenever they come."""
        self.error = errno.EIO
        self.short: int | None = None
        """Instead of failing, write only so many bytes of the append at `fail_at`."""

    def __call__(self, operation: str, path: str, length: int) -> int | None:
        position = len(self.seen)
        self.seen.append(operation)
        if operation in self.fail_all:
            raise OSError(self.error, os.strerror(self.error))
        if position == self.fail_at:
            if operation == "append" and self.short is not None:
                return min(self.short, length)
            raise OSError(self.error, os.strerror(self.error))
        return None
