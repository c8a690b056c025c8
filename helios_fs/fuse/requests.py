"""What all request handlers share: the parts they need, and what becomes of an exception.

O2. Whatever a handler raises becomes an errno here: any other exception would end the whole mount.
O3. A handler that meets a cold object has changed nothing; it is loaded in a thread, and the handler runs again.
"""

import errno
import logging
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import pyfuse3
import trio
from pyfuse3 import FUSEError

from helios_fs.errors import ColdObject, HeliosError
from helios_fs.fuse.durability import Durability
from helios_fs.fuse.errnos import ERRNO
from helios_fs.fuse.history_dir import HistoryDir
from helios_fs.fuse.place import Place
from helios_fs.store.store import Store
from helios_fs.worktree.inode import Inode
from helios_fs.worktree.worktree import Worktree

_T = TypeVar("_T")
_log = logging.getLogger(__name__)


class Requests(pyfuse3.Operations):
    """A mount's parts, and the way from an exception to a reply."""

    supports_dot_lookup = False
    enable_writeback_cache = False
    enable_acl = False

    def __init__(
        self,
        worktree: Worktree,
        store: Store,
        history: HistoryDir,
        durability: Durability,
        read_only: bool,
        place: Place | None = None,
    ) -> None:
        """`place` is where the branch's tree is in the mount; without it, the tree is the mount's root."""
        super().__init__()
        self._worktree = worktree
        self._index = worktree.index
        self._place = place if place is not None else Place(worktree.index)
        self._root_nodeid = self._place.root_nodeid
        self._get = self._place.get
        self._show = self._place.show
        self._store = store
        self._history = history
        self._durability = durability
        self._hidden = history.hidden_names
        self._overlays: dict[int, list[tuple[int, bytes]]] = {}
        self._read_only = read_only
        self.throttle_at = 1 << 62
        """Journal position behind which writers are slowed down."""
        self.throttle: Callable[[], Awaitable[None]] = trio.lowlevel.checkpoint

    def set_throttle(self, position: int) -> None:
        """Slow writers down once the journal is past `position`."""
        self.throttle_at = position

    # -- Errors ------------------------------------------------------------------------------------------------------

    async def _again(self, error: Exception, handler: Callable[..., Awaitable[_T]], *arguments: Any) -> _T:
        """Do what an exception calls for: wait for a cold object and run the handler again, or raise an errno."""
        if isinstance(error, FUSEError):
            raise error
        if isinstance(error, ColdObject):
            try:
                await trio.to_thread.run_sync(self._store.objects.warm, error.object_id)
            except HeliosError as warming:
                raise self._errno(warming) from warming
            return await handler(*arguments)
        raise self._errno(error) from error

    @staticmethod
    def _errno(error: Exception) -> FUSEError:
        number = ERRNO.get(type(error))  # type: ignore[arg-type]  # any class may be asked for
        if number is None:
            _log.error("a request failed in a way nobody foresaw", exc_info=error)
            number = errno.EIO
        elif number == errno.EIO:
            _log.error("%s: %s", type(error).__name__, error)
        return FUSEError(number)

    def _live(self, nodeid: int) -> Inode:
        """Return an inode of the working tree that is to be changed. Raises what changing anything else deserves."""
        inode = self._get(nodeid)
        if inode is None:
            self._history.refuse_change(nodeid)
        elif self._read_only:
            raise FUSEError(errno.EROFS)
        assert inode is not None
        return inode
