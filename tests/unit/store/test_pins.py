"""Pins: what one process needs keeps its packs, whoever collects; it ends with the process."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from helios_fs.objects.ids import KIND_BLOB, ObjectId, object_id
from helios_fs.objects.snapshot import Head, HeadMoved
from helios_fs.store.pins import Pins, pinned
from helios_fs.store.store import Store
from tests.unit.store.faults import Faults

ONE, TWO, THREE = (bytes([number]) * 32 for number in (1, 2, 3))


@pytest.fixture
def pins(path: str) -> Iterator[Pins]:
    made = Pins(path)
    yield made
    made.close()


def test_nothing_is_made_before_something_is_pinned(path: str, pins: Pins) -> None:
    pins.keep("nobody", [])
    pins.keep("nobody", [b""])
    assert not os.path.exists(path + "/run/pins")
    assert pinned(path) == set()


def test_pins_are_what_all_owners_need(path: str, pins: Pins) -> None:
    pins.keep("a", [ONE, TWO])
    pins.keep("b", [TWO, THREE])
    assert pinned(path) == {ONE, TWO, THREE}
    pins.keep("a", [ONE])
    assert pinned(path) == {ONE, TWO, THREE}
    pins.keep("b", [])
    assert pinned(path) == {ONE}
    pins.add("a", THREE)
    with pins.held(TWO, b""), pins.held(TWO):
        assert pinned(path) == {ONE, TWO, THREE}
    assert pinned(path) == {ONE, THREE}
    (file,) = os.scandir(path + "/run/pins")
    pins.close()
    assert pinned(path) == set() and not os.path.exists(file.path)
    pins.keep("again", [TWO])
    assert pinned(path) == {TWO}


def test_a_place_is_used_again(path: str, pins: Pins) -> None:
    for number in range(5000):
        pins.keep("a", [number.to_bytes(32, "big") for number in range(number + 1, number + 4)])
    (file,) = os.scandir(path + "/run/pins")
    assert file.stat().st_size == 2048 * 32
    assert len(pinned(path)) == 3


def test_several_stores_and_processes(path: str) -> None:
    """A file each; the pins of one that died are cleared by whoever looks next."""
    hold = (
        "import sys; from helios_fs.store.pins import Pins; pins = Pins(sys.argv[1]);"
        "pins.keep('x', [bytes([9]) * 32]); print('held', flush=True); sys.stdin.read()"
    )
    root = Path(__file__).parents[3]
    child = subprocess.Popen(
        [sys.executable, "-c", hold, path], cwd=root, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert child.stdout is not None and child.stdin is not None
    assert child.stdout.readline() == b"held\n"
    with Store.open(path) as a, Store.open(path) as b:
        a.pins.keep("a", [ONE])
        b.pins.keep("b", [TWO])
        assert pinned(path) == {ONE, TWO, bytes([9]) * 32}
        child.kill()
        child.wait()
        child.stdout.close()
        child.stdin.close()
        assert pinned(path) == {ONE, TWO}
        assert len(os.listdir(path + "/run/pins")) == 2
    assert os.listdir(path + "/run/pins") == []


def test_a_collection_in_another_process_sees_them(path: str, store: Store) -> None:
    blob = b"needed" * 50
    with store.writer() as writer:
        writer.put(KIND_BLOB, blob)
        writer.publish([HeadMoved(Head("main", b"", 1, 1))], "main", 0)
    name = object_id(KIND_BLOB, blob)
    collect = (
        "import sys; from helios_fs.store.store import Store; from helios_fs.store.gc import collect;"
        "store = Store.open(sys.argv[1]); print(collect(store).pins); store.close()"
    )

    def run() -> bytes:
        root = Path(__file__).parents[3]
        return subprocess.run(
            [sys.executable, "-c", collect, path], cwd=root, stdout=subprocess.PIPE, check=True
        ).stdout

    with store.pins.held(name):
        assert run() == b"1\n"
        assert store.objects.get(KIND_BLOB, name) == blob
    assert run() == b"0\n"
    assert not store.objects.has(name)


def test_a_full_disk_does_not_keep_anybody_from_reading(path: str, faults: Faults) -> None:
    """N4: what could not be written is tried again."""
    import errno

    made = Pins(path)
    faults.error, faults.fail_all = errno.ENOSPC, {"open", "write"}
    made.keep("a", [ONE])
    assert pinned_without(faults, path) == set()
    faults.fail_all = set()
    made.keep("a", [ONE])
    assert pinned(path) == {ONE}
    made.close()


def pinned_without(faults: Faults, path: str) -> set[bytes]:
    failing, faults.fail_all = faults.fail_all, set()
    try:
        return pinned(path)
    finally:
        faults.fail_all = failing


def test_one_that_a_collection_takes_for_dead_while_it_is_made_is_made_again(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The collection comes between the making of the file and its lock."""
    from helios_fs.store import files

    made, open_file = Pins(path), files.open_file
    came = []

    def open_and_collect(name: str, flags: int, mode: int = 0o600) -> int:
        fd = open_file(name, flags, mode)
        if "/pins/" in name and flags & os.O_CREAT and not came:
            came.append(name)
            assert pinned(path) == set()
            assert not os.path.exists(name)
        return fd

    monkeypatch.setattr(files, "open_file", open_and_collect)
    made.keep("a", [ObjectId(ONE)])
    assert came and pinned(path) == {ONE}
    made.close()
