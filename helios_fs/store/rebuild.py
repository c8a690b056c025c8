"""Building the index again from packs and ref log, where it is missing, truncated or damaged.

Knows how packs and ref log are read. The caller makes sure that nobody else has the index open.

B1. The new index is made beside the old one and takes its place by a rename: a crash leaves the one or the other.
B2. Everything that it names is durable: packs are synced before the index is.
B3. Numbers that a lost tail of the ref log may have given out are stepped over by a wide margin.
"""

import logging
import os
import shutil
from collections.abc import Callable
from typing import Final

from helios_fs.errors import CorruptObject
from helios_fs.store import files
from helios_fs.store.environment import INDEX_VERSION, META, OBJECTS, Environment, WriteTransaction
from helios_fs.store.index import FIRST_INO, apply, encode_location
from helios_fs.store.packs import PackFile, pack_numbers, pack_path
from helios_fs.store.reflog import HEADER_BYTES, Published, RefLog

Progress = Callable[[int, int], None]
"""Called as progress(bytes done, bytes in all)."""

_MARGIN: Final = 1 << 20
_log: Final = logging.getLogger("helios.store")


def rebuild(path: str, store_id: bytes, log: RefLog, progress: Progress | None = None) -> None:
    """Make `index/` of the store at `path` anew. Reads every pack once. Raises StoreFull, StoreFault."""
    fresh, final = os.path.join(path, "index.new"), os.path.join(path, "index")
    shutil.rmtree(fresh, ignore_errors=True)
    try:
        os.mkdir(fresh, 0o700)
    except OSError as error:
        raise files.converted(error, fresh) from error
    environment = Environment(fresh, create=True, synced=False)
    try:
        newest = _enter_packs(environment, os.path.join(path, "packs"), store_id, progress)
        _apply_log(environment, log, store_id, newest)
        environment.sync()
    finally:
        environment.close()
    shutil.rmtree(final, ignore_errors=True)
    files.sync_directory(fresh)
    files.replace(fresh, final)
    files.sync_directory(path)


def _enter_packs(environment: Environment, directory: str, store_id: bytes, progress: Progress | None) -> int:
    """Enter the objects of all packs; return the highest pack number, -1 where there is none."""
    numbers = pack_numbers(directory)
    sizes = {number: os.stat(pack_path(directory, number)).st_size for number in numbers}
    total, done = sum(sizes.values()), 0
    for number in numbers:
        try:
            pack = PackFile(directory, number, store_id)
        except CorruptObject as error:
            # Torn while it was made, or damaged: its records cannot be checked, so they are not entered.
            _log.warning("%s", error)
        else:
            with environment.write() as txn:
                for object_id, location in pack.scan():
                    if txn.find(OBJECTS, object_id) is None:
                        txn.put(OBJECTS, object_id, encode_location(location))
            files.sync_data(pack.fd)
        done += sizes[number]
        if progress is not None:
            progress(done, total)
    return numbers[-1] if numbers else -1


def _apply_log(environment: Environment, log: RefLog, store_id: bytes, newest_pack: int) -> None:
    with environment.write() as txn:
        end = HEADER_BYTES
        for record, behind in log.records(HEADER_BYTES):
            apply(txn, record)
            end = behind
            if isinstance(record, Published):
                newest_pack = max([newest_pack, *(extent.pack for extent in record.extents)])
        log.cut(end)
        # In a new store nothing can have been given out yet; anywhere else a record may have been lost.
        margin = _MARGIN if end > HEADER_BYTES or newest_pack >= 0 else 0
        _start(txn, store_id)
        txn.put_number(b"next_ino", max(txn.find_number(b"next_ino"), FIRST_INO) + margin)
        txn.put_number(b"fence", txn.find_number(b"fence") + margin)
        txn.put_number(b"next_pack", newest_pack + 1)
        txn.put_number(b"ref_log", min(end, log.size()))


def _start(txn: WriteTransaction, store_id: bytes) -> None:
    txn.put_number(b"version", INDEX_VERSION)
    txn.put(META, b"store", store_id)
