import os
import threading
from pathlib import Path

import pytest

from helios_fs.errors import Busy, StoreFault
from helios_fs.store.locks import BranchLock, FileLock, lock_name
from helios_fs.store.store import Store
from tests.unit.store.faults import Faults


def test_a_branch_has_one_owner_who_is_named(path: str) -> None:
    with Store.open(path) as one, Store.open(path) as other:
        lock = one.lock_branch("main")
        with pytest.raises(Busy, match=f"branch main of .* is in use by process {os.getpid()}"):
            other.lock_branch("main")
        side = other.lock_branch("main/side")
        lock.release()
        lock.release()
        other.lock_branch("main").release()
        side.release()


def test_a_lock_ends_with_its_process(path: str) -> None:
    ready, done = os.pipe(), os.pipe()
    child = os.fork()
    if child == 0:
        BranchLock(path, "main")
        os.write(ready[1], b"x")
        os.read(done[0], 1)
        os._exit(0)
    os.read(ready[0], 1)
    with pytest.raises(Busy, match=f"process {child}$"):
        BranchLock(path, "main")
    os.kill(child, 9)
    os.waitpid(child, 0)
    BranchLock(path, "main").release()


def test_long_and_odd_branch_names_have_distinct_file_names() -> None:
    names = ["main", "a/b", "a%2Fb", "a" * 300, "a" * 301, "é/ü", "..", "."]
    made = [lock_name(name) for name in names]
    assert len(set(made)) == len(names)
    assert all("/" not in name and len(name) < 255 and name not in {".", ".."} for name in made)


def test_shared_and_exclusive(tmp_path: Path) -> None:
    path = str(tmp_path / "lock")
    one, other = FileLock(path), FileLock(path)
    assert one.acquire(exclusive=False, wait=False)
    assert other.acquire(exclusive=False, wait=False)
    assert not other.acquire(exclusive=True, wait=False)
    one.release()
    assert other.acquire(exclusive=True, wait=False)
    assert other.holder() == "?"
    waiting = threading.Thread(target=one.acquire, args=(True, True))
    waiting.start()
    other.close()
    other.close()
    waiting.join(30)
    assert not waiting.is_alive()
    one.close()


def test_a_lock_that_the_system_refuses_is_a_fault(tmp_path: Path) -> None:
    lock = FileLock(str(tmp_path / "lock"))
    fd = os.open("/dev/null", os.O_RDONLY)
    os.close(fd)
    lock.close()
    lock._fd = fd  # a descriptor that is closed: flock answers EBADF
    with pytest.raises(StoreFault):
        lock.acquire(exclusive=True, wait=False)


def test_a_branch_lock_that_cannot_be_signed_is_not_kept(path: str, faults: Faults) -> None:
    faults.fail_all = {"write"}
    with pytest.raises(StoreFault):
        BranchLock(path, "main")
    faults.fail_all = set()
    BranchLock(path, "main").release()
