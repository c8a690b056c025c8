"""The rules of retention that a branch keeps, and what they mean for its snapshots now.

Knows the file `retention` beside a branch's journal, and refs; `retention.py` judges, whoever owns the branch deletes.
"""

import os
from collections.abc import Sequence
from typing import Final

from helios_fs.history.retention import Kept, Rules, Verdict, decode_rules, encode_rules, judge, needed_to_merge
from helios_fs.store import files
from helios_fs.store.branches import Branches, journal_directory
from helios_fs.store.store import Store

FILE_NAME: Final = "retention"
_NEW_SUFFIX: Final = ".new"


def find_rules(store_path: str, branch: str) -> Rules | None:
    """Return the rules that a branch keeps, or None. Raises CorruptObject, StoreFault."""
    try:
        fd = files.open_file(os.path.join(journal_directory(store_path, branch), FILE_NAME), os.O_RDONLY)
    except FileNotFoundError:
        return None
    try:
        return decode_rules(files.read_at(fd, 1 << 16, 0))
    finally:
        os.close(fd)


def save_rules(store_path: str, branch: str, rules: Rules) -> None:
    """Let a branch keep these rules. Durable on return. Raises StoreFull, StoreFault."""
    directory = journal_directory(store_path, branch)
    path = os.path.join(directory, FILE_NAME)
    fd = files.open_file(path + _NEW_SUFFIX, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    try:
        files.write_at(fd, encode_rules(rules), 0)
        files.sync_data(fd)
    finally:
        os.close(fd)
    files.replace(path + _NEW_SUFFIX, path)
    files.sync_directory(directory)


def forget_rules(store_path: str, branch: str) -> None:
    """Let a branch keep no rules. Durable on return."""
    directory = journal_directory(store_path, branch)
    files.remove(os.path.join(directory, FILE_NAME))
    files.sync_directory(directory)


def plan(store: Store, branch: str, snapshots: Sequence[Kept], rules: Rules) -> list[Verdict]:
    """Return what rules say of a branch's snapshots, oldest first. Reads refs, so it may wait for the disk."""
    info = Branches(store.path).find(branch)
    needed = needed_to_merge(info.snapshot if info is not None else "", store.refs.all_snapshots())
    return judge(snapshots, rules, needed)
