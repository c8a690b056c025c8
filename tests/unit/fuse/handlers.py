"""Request handlers on a branch without a mount: what the kernel would ask, asked directly."""

import types
from collections.abc import Awaitable, Callable
from typing import TypeVar

import pyfuse3
import pytest
import trio

from helios_fs.fuse.durability import Durability
from helios_fs.fuse.history_dir import HistoryDir
from helios_fs.fuse.nodes import Nodes
from helios_fs.fuse.operations import Operations
from helios_fs.worktree.view import View
from tests.model.harness import Branch

_T = TypeVar("_T")


def caller(uid: int = 0) -> pyfuse3.RequestContext:
    """What a handler learns of who asks; the real class cannot be made from Python."""
    return types.SimpleNamespace(uid=uid, gid=uid, pid=1, umask=0)  # type: ignore[return-value]  # same attributes


class Handlers:
    """The handlers of a mount of a branch."""

    def __init__(self, branch: Branch, read_only: bool = False) -> None:
        self.branch = branch
        worktree = branch.worktree
        self.durability = Durability(worktree, lambda: b"/nowhere")
        self.nodes = Nodes(self._open_view)
        self.history = HistoryDir(worktree, self.nodes, self.durability, b".snapshots", False, read_only)
        self.operations = Operations(worktree, branch.store, self.history, self.durability, read_only)

    def _open_view(self, snapshot_id: str) -> View:
        worktree = self.branch.worktree
        snapshot = worktree.snapshots.get(snapshot_id)
        tree = worktree.objects.tree(snapshot.tree) if snapshot.tree else None
        return View(worktree.index, worktree.objects, worktree.journal, snapshot.epoch, snapshot.tree, tree)

    def ask(self, handler: str, *arguments: object) -> object:
        """Return what a handler answers."""
        return run(getattr(self.operations, handler), *arguments)

    def refuse(self, handler: str, *arguments: object) -> int:
        """Return the errno that a handler answers."""
        with pytest.raises(pyfuse3.FUSEError) as raised:
            self.ask(handler, *arguments)
        return raised.value.errno


def run(handler: Callable[..., Awaitable[_T]], *arguments: object) -> _T:
    return trio.run(handler, *arguments)  # type: ignore[arg-type]  # whatever the handler takes
