"""What doctor says of a store in each kind of trouble."""

import json
import os
import signal
from pathlib import Path

import pytest

from helios_fs.store.store import Store
from tests.conftest import Helios


def kinds(helios: Helios, *arguments: str | Path) -> tuple[int, set[str]]:
    done = helios("doctor", "--json", *arguments)
    return done.returncode, {one["kind"] for one in json.loads(done.stdout)}


@pytest.mark.fuse
def test_a_good_machine(helios: Helios, tmp_path: Path) -> None:
    helios("init", "s", check=True)
    _, found = kinds(helios, "--store", tmp_path / "s")
    # Mounts of others may be stale, and an ordinary user may not be allowed `allow_other`; this store is well.
    assert found <= {"stale-mount", "user-allow-other-missing", "disk-full"}


@pytest.mark.parametrize(
    ("damage", "kind"),
    [
        (lambda store: os.unlink(store / "format"), "not-a-store"),
        (lambda store: os.rmdir(store / "journals" / "main"), None),
        (lambda store: (store / "format").write_text("helios-store 7\nid " + "0" * 32 + "\n"), "wrong-version"),
        (lambda store: os.truncate(store / "format", 20), "store-broken"),
        (lambda store: os.truncate(store / "refs", 3), "store-broken"),
    ],
)
def test_a_store_in_trouble(helios: Helios, tmp_path: Path, damage: object, kind: str | None) -> None:
    helios("init", "s", check=True)
    (tmp_path / "s" / "journals" / "main").mkdir(exist_ok=True)
    assert callable(damage)
    damage(tmp_path / "s")
    code, found = kinds(helios, "--store", tmp_path / "s")
    if kind is None:
        assert not found & {"not-a-store", "wrong-version", "store-broken"}
    else:
        assert code == 1 and kind in found


def test_a_branch_that_somebody_holds_without_answering(helios: Helios, tmp_path: Path) -> None:
    helios("init", "s", check=True)
    with Store.open(str(tmp_path / "s")) as store:
        lock = store.lock_branch("main")
        try:
            code, found = kinds(helios, "--store", tmp_path / "s")
            assert code == 1 and "store-locked" in found
            said = helios("log", "--store", tmp_path / "s")
            assert said.returncode == 3 and str(os.getpid()) in said.stderr
        finally:
            lock.release()


def test_a_store_that_is_named_and_not_there(helios: Helios) -> None:
    done = helios("doctor", "--store", "missing")
    assert done.returncode == 2 and "no such store" in done.stderr


@pytest.mark.fuse
@pytest.mark.slow
def test_a_daemon_that_does_not_answer(helios: Helios, workspace: Path, tmp_path: Path) -> None:
    found = json.loads(helios("doctor", "--json", "-C", workspace).stdout)
    [owner] = [one["problem"] for one in found if one["kind"] == "store-in-use"]
    pid = int(owner.split("process ")[1].split(",")[0])
    os.kill(pid, signal.SIGSTOP)
    try:
        code, stuck = kinds(helios, "--store", tmp_path / "store")
    finally:
        os.kill(pid, signal.SIGCONT)
    assert code == 1 and "daemon-stuck" in stuck
