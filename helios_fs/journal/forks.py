"""Forks: a journal that begins with what another one holds, and goes on on its own.

Its first segments are the other's, the same files under second names in its own directory; then comes a segment of its
own, which begins at the fork. What the other journal appends to a shared file later lies behind that, and is not read.
"""

import os

from helios_fs.journal.journal import Journal
from helios_fs.journal.segment import HEADER_BYTES, SUFFIX, Segment
from helios_fs.store import files


def fork(journal: Journal, directory: str, start: int, position: int) -> None:
    """Begin another journal, in `directory`: all that `journal` has from `start` to `position`, then its own.

    Durable after `sync_fork`, where `journal` was synced up to `position` before. Repeating one that failed is fine.
    May run in a thread while `journal` grows, but not while it drops segments. Raises StoreFull, StoreFault.
    """
    os.makedirs(directory, mode=0o700, exist_ok=True)
    for path in journal.files_between(start, position):
        files.link(path, os.path.join(directory, os.path.basename(path)))
    Segment.create(directory, position).close()


def sync_fork(directory: str) -> None:
    """Return when what `fork` made, and every other file in `directory`, would survive a power cut."""
    for name in os.listdir(directory):
        fd = files.open_file(os.path.join(directory, name), os.O_RDONLY)
        try:
            files.sync_data(fd)
        finally:
            os.close(fd)
    files.sync_directory(directory)
    files.sync_directory(os.path.dirname(directory))


def is_untouched(directory: str, position: int) -> bool:
    """Tell whether nothing was appended to the journal that was begun in `directory` by a fork at `position`."""
    names = sorted(name for name in os.listdir(directory) if name.endswith(SUFFIX))
    newest = os.path.join(directory, names[-1]) if names else ""
    return names[-1:] == [f"{position:016x}{SUFFIX}"] and os.path.getsize(newest) == HEADER_BYTES
