"""What a snapshot shows while a seal of it comes into memory."""

from pathlib import Path

import pytest
import trio

from helios_fs.fuse.sealer_pipe import SealerPipe
from helios_fs.fuse.sealing import Sealing
from helios_fs.objects.entry import Tree
from helios_fs.sealer import messages
from helios_fs.worktree.view import View
from tests.model.harness import Branch
from tests.unit.fuse.handlers import Handlers
from tests.unit.worktree.trees import directory, make, seal


def content(view: View) -> bytes:
    """Read the file through the view as a request does."""
    folder = view.get(view.current(view.root), b"d")
    return view.read(view.get(folder, b"file"), 0, 100)


@pytest.mark.parametrize("shown_before", [True, False])
def test_a_snapshot_shows_the_same_while_its_tree_is_being_loaded(tmp_path: Path, shown_before: bool) -> None:
    """Its directory is unchanged since the base, and a file of it is replaced after the snapshot (T6)."""
    branch = Branch(str(tmp_path / "store"))
    worktree = branch.worktree
    directory(branch, "/d")
    make(branch, "/d/file", b"old")
    seal(branch)
    taken = worktree.snapshot(b"taken")
    make(branch, "/d/new", b"new, and longer")
    folder = branch.walk("/d")
    worktree.rename(folder, b"new", folder, b"file", exchange=False, replace=True)
    handlers = Handlers(branch)
    seen: list[bytes] = []

    async def go() -> None:
        pipe = SealerPipe(branch.path)
        sealing = Sealing(
            worktree, branch.store, handlers.nodes, pipe, branch.fence, lambda position: None, nothing, list
        )
        load = sealing._tree

        def look() -> None:
            view = handlers.nodes.show(taken.id).view
            # As every seal leaves it: looked at again before it is next used.
            view.rebased()
            seen.append(content(view))

        async def load_and_look(tree_id: bytes) -> Tree:
            loaded = await load(tree_id)
            look()
            return loaded

        if shown_before:
            look()
        sealing._tree = load_and_look  # type: ignore[method-assign]  # requests run while a tree is loaded
        try:
            await sealing._seal_once()
        finally:
            await pipe.stop()
        look()

    trio.run(go)
    assert len(seen) >= 3
    assert set(seen) == {b"old"}
    branch.close()


async def nothing() -> None:
    """There are no branches to finish."""


def test_an_answer_that_nobody_waits_for_is_not_the_next_ones(tmp_path: Path) -> None:
    """A branch is closed, or an error comes, between a request and its answer (P1 in sealer_pipe.py)."""
    branch = Branch(str(tmp_path / "store"))
    make(branch, "/file", b"content")
    branch.worktree.freeze()

    async def go() -> None:
        pipe = SealerPipe(branch.path)
        with trio.CancelScope() as scope:
            async with pipe.turn():
                await pipe.say(messages.Collect([]))
                scope.cancel()
                await pipe.hear()
        assert scope.cancelled_caught
        with pytest.raises(RuntimeError):
            async with pipe.turn():
                await pipe.say(messages.Collect([]))
                raise RuntimeError
        async with pipe.turn():
            await pipe.say(messages.SealUpTo("main", branch.fence, branch.worktree.journal.end))
            begun = await pipe.hear()
            assert isinstance(begun, messages.Begun) and begun.head.lsn == branch.worktree.journal.end
            while isinstance(await pipe.hear(), messages.Batch):
                pass
        async with pipe.turn():
            await pipe.say(messages.Collect([]))
            assert isinstance(await pipe.hear(), messages.Collected)
        await pipe.stop()

    trio.run(go)
    branch.close()
