"""What watchers are told of a change, and in which order; tests/mount/test_watching.py tries whether they hear it."""

import logging
import stat
from pathlib import Path

import pytest
import trio

from helios_fs.fuse import touch, watchers
from helios_fs.fuse.mount import Mount
from helios_fs.fuse.place import Place
from helios_fs.fuse.watchers import Watchers
from helios_fs.history.changed import Changed, Moved, Name
from tests.model.harness import Branch

FILE = stat.S_IFREG | 0o644


def test_what_leaves_a_name_comes_before_what_takes_it_and_a_directory_before_what_is_in_it() -> None:
    changed = Changed()
    changed.made = [Name(2, (b"d", b"new"), FILE), Name(1, (b"taken",), FILE)]
    changed.gone = [Name(2, (b"d", b"old"), FILE), Name(1, (b"taken",), FILE)]
    changed.moved = [Moved(1, (b"before",), Name(1, (b"d",), stat.S_IFDIR))]
    changed.written = [(b"a",), (b"a",)]
    changed.altered = [()]
    assert [(kind, path, old) for kind, _, path, old in watchers._touches(changed)] == [
        (touch.GONE, b"taken", b""),
        (touch.MOVED, b"d", b"before"),
        (touch.MADE, b"taken", b""),
        (touch.GONE, b"d/old", b""),
        (touch.MADE, b"d/new", b""),
        (touch.WRITTEN, b"a", b""),
        (touch.ALTERED, b"", b""),
    ]


def test_of_very_much_only_the_directories_are_touched(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    branch = Branch(str(tmp_path / "store"))
    try:
        changed = Changed()
        changed.written = [(b"d%d" % (number % 7), b"%d" % number) for number in range(watchers.MAX_TOUCHES + 1)]
        told = Watchers(b"/nowhere")
        assert told._describe(changed, b"", Place(branch.worktree.index)) is None, "its device is not known"
        told.device = 1
        with caplog.at_level(logging.INFO):
            described = told._describe(changed, b"", Place(branch.worktree.index))
        assert described is not None
        assert {(kind, path) for kind, _, path, _ in described.touches} == {
            (touch.ALTERED, b"d%d" % number) for number in range(7)
        }
        assert "20001 paths have changed: watchers hear of 7 directories only" in caplog.text
    finally:
        branch.close()


class _Mount:
    """A mount that nobody asks anything."""

    lookup = forget = getattr = open = mknod = mkdir = symlink = unlink = rmdir = rename = setattr = None

    def __init__(self) -> None:
        self.diverted: list[int] = []

    def divert(self, answers: dict[str, object]) -> None:
        self.diverted.append(len(answers))


def test_one_that_cannot_start_costs_nothing_but_events(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watchers.sys, "executable", "/no/such/interpreter")
    monkeypatch.setattr(watchers, "_IDLE_SECONDS", 0.01)
    branch = Branch(str(tmp_path / "store"))
    mount = _Mount()

    async def tell() -> None:
        told = Watchers(b"/nowhere")
        told.device = 1
        told.of(mount)  # type: ignore[arg-type]
        changed = Changed()
        changed.written = [(b"file",)]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(told.run)
            for _ in range(2):
                await told.tell(changed, b"", Place(branch.worktree.index))
                with trio.fail_after(10):
                    while not mount.diverted or mount.diverted[-1]:
                        await trio.sleep(0.001)
            await told.stop()
        await told.tell(changed, b"", Place(branch.worktree.index))

    try:
        trio.run(tell)
    finally:
        branch.close()
    assert caplog.text.count("watchers do not hear of all that has changed") == 2
    assert mount.diverted == [9, 0, 9, 0]


def test_a_mount_gives_its_handlers_away_and_takes_them_back() -> None:
    mount = Mount.__new__(Mount)
    mount._diverted = []
    mount.divert({"lookup": len, "open": len})
    assert mount.lookup is len and mount.open is len  # type: ignore[comparison-overlap]
    mount.divert({"open": len})
    assert mount.lookup is not len and mount.open is len  # type: ignore[comparison-overlap]
    mount.divert({})
    assert "open" not in vars(mount)
