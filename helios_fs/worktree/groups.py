"""Groups of changes that happen together or not at all, also where the daemon is killed between two of them.

Knows the facade and the journal; nothing of what the changes are.

G1. Between BEGIN and END, or the SNAPSHOT that stands for it, nobody else appends: a group never waits.
G2. All of a group is in one segment, so that recovery can cut it off.
G3. Memory that shows a part of a group that failed is wrong, so the branch is read-only then (W3 in worktree.py), and
    the next recovery is back where the group began.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from helios_fs.errors import ReadOnly
from helios_fs.journal.frame import HEADER_BYTES
from helios_fs.objects import record
from helios_fs.worktree.worktree import Worktree

_MARKS_BYTES: Final = 2 * HEADER_BYTES


@contextmanager
def group(worktree: Worktree, bound_bytes: int) -> Iterator[None]:
    """Let all changes made inside happen together; on return they survive the death of the process.

    `bound_bytes` is how much journal they take at most. A snapshot taken inside ends the group. Raises StoreFull before
    anything has happened; ReadOnly where the branch takes no changes. What is raised inside is raised on, and makes
    the branch read-only.
    """
    journal = worktree.journal
    if worktree.fault is not None or journal.in_group:
        raise ReadOnly("the branch is read-only after a fault; unmount and mount it again")
    journal.reserve_room(bound_bytes + _MARKS_BYTES)
    epoch = worktree.index.epoch
    journal.append(record.BEGIN, 0, time.time_ns(), b"")
    worktree.changed_in_epoch = True
    journal.in_group = True
    try:
        yield
        if worktree.index.epoch == epoch:
            journal.append(record.END, 0, time.time_ns(), b"")
    except BaseException as error:
        worktree.fault = error
        raise
    finally:
        journal.in_group = False
