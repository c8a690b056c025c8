"""L0: the newest state of a branch in memory, over an immutable base tree; every change is a journal record."""
