"""`.snapshots`: history as directories, and the read-only trees below it.

Everything here answers for nodeids that are not in the working tree's table.

H1. One directory for each snapshot, under its name or else its id; the id of a named one, and `latest`, are symlinks.
H2. Whatever would change a snapshot answers EROFS; what would leave its tree answers EXDEV.
H3. A name that is not there is never cached, nor is a symlink; a directory is until its name goes.
"""

import errno
import functools
import pwd
import socket
import stat
from bisect import bisect_right
from operator import itemgetter
from typing import Final

import pyfuse3
from pyfuse3 import EntryAttributes, FUSEError, RequestContext

from helios_fs.errors import (
    ColdObject,
    CrossesView,
    EntryExists,
    InvalidArgument,
    NameTooLong,
    NoSuchAttribute,
    NoSuchEntry,
    NotPermitted,
    NotSupported,
    ReadOnly,
)
from helios_fs.fuse import attributes
from helios_fs.fuse.branches_dir import BranchesDir
from helios_fs.fuse.durability import Durability
from helios_fs.fuse.nodes import VIEW_SHIFT, Nodes, ShownView
from helios_fs.fuse.place import Place
from helios_fs.objects.entry import name_hash
from helios_fs.objects.ids import ROOT_INO
from helios_fs.objects.snapshot import Snapshot
from helios_fs.worktree.inode import MAX_NAME_BYTES
from helios_fs.worktree.snapshots import LATEST
from helios_fs.worktree.worktree import Worktree

BRANCHES: Final = b".branches"
_DIRECTORY_MODE: Final = stat.S_IFDIR | 0o755
_SYMLINK_MODE: Final = stat.S_IFLNK | 0o777
_DOT: Final = 1
_DOT_DOT: Final = 2
_LAST_COOKIE: Final = (1 << 63) - 1


class HistoryDir:
    """The control directory of one mount."""

    def __init__(
        self,
        worktree: Worktree,
        nodes: Nodes,
        durability: Durability,
        snapshots_name: bytes,
        listed: bool,
        read_only: bool,
        place: Place | None = None,
        branches_name: bytes = BRANCHES,
    ) -> None:
        """`listed` shows the control directories at the root; `place` is where the branch's tree is in the mount."""
        self._worktree = worktree
        self._snapshots = worktree.snapshots
        self._nodes = nodes
        self._durability = durability
        self._read_only = read_only
        self._place = place if place is not None else Place(worktree.index)
        self._branches: BranchesDir | None = None
        self._listed: tuple[int, list[tuple[int, bytes, Snapshot]]] = (-1, [])
        self.snapshots_name = snapshots_name
        self.control_nodeids = (nodes.snapshots_nodeid, nodes.branches_nodeid)
        self.hidden_names = frozenset({snapshots_name, branches_name})
        self.listed_names: tuple[bytes, ...] = (snapshots_name,) if listed else ()

    def show_branches(self, branches: BranchesDir) -> None:
        """Let `.branches` be there."""
        self._branches = branches
        if self.listed_names:
            self.listed_names = (*self.listed_names, *(self.hidden_names - set(self.listed_names)))

    def branches_at(self, nodeid: int) -> BranchesDir | None:
        """Return the directory of branches, if this is its nodeid."""
        return self._branches if nodeid == self._nodes.branches_nodeid else None

    # -- Finding -----------------------------------------------------------------------------------------------------

    def is_control(self, nodeid: int) -> bool:
        """Whether this is the directory in which `mkdir` makes snapshots."""
        return nodeid == self._nodes.snapshots_nodeid

    def lookup(self, parent: int, name: bytes) -> EntryAttributes:
        """Answer a lookup of one of our own names at the root, in `.snapshots` or in a snapshot."""
        if parent == self._place.root_nodeid:
            if name == self.snapshots_name:
                return self._directory_attributes()
            if self._branches is None:
                raise NoSuchEntry("this mount shows no branches")
            return self._branches.directory_attributes()
        if parent == self._nodes.snapshots_nodeid:
            return self._lookup_snapshot(name)
        shown, directory = self._nodes.locate(parent)
        node = shown.view.find(directory, name)
        if node is None:
            if len(name) > MAX_NAME_BYTES:
                raise NameTooLong("a name may have 255 bytes")
            return attributes.absent()
        node.holds += 1
        return attributes.viewed(node, shown.nodeid(node), shown.generation)

    def _lookup_snapshot(self, name: bytes) -> EntryAttributes:
        if name == LATEST:
            latest = self._snapshots.latest()
            if latest is None:
                raise NoSuchEntry("there is no snapshot yet")
            return self._latest_attributes(latest)
        snapshot = self._snapshots.find(name)
        if snapshot is None:
            raise NoSuchEntry("no such snapshot")
        if snapshot.name and name != snapshot.name:
            return self._alias_attributes(snapshot)
        return self._root_attributes(snapshot)

    def _directory_attributes(self) -> EntryAttributes:
        reply = attributes.made_up(self._nodes.snapshots_nodeid, _DIRECTORY_MODE, self._worktree.index.root)
        reply.st_nlink = 2 + len(self._snapshots)
        newest = self._snapshots.newest
        if newest is not None:
            reply.st_mtime_ns = reply.st_ctime_ns = newest.time_ns
        return reply

    def _root_attributes(self, snapshot: Snapshot) -> EntryAttributes:
        shown = self._nodes.show(snapshot.id)
        root = shown.view.current(shown.view.root)
        reply = attributes.viewed(root, self._nodes.snapshot_nodeid(snapshot.id), 0)
        self._nodes.release(shown.nodeid(root), 0)
        return reply

    def _alias_attributes(self, snapshot: Snapshot) -> EntryAttributes:
        nodeid = self._nodes.alias_nodeid(snapshot.id)
        return attributes.made_up(nodeid, _SYMLINK_MODE, self._worktree.index.root, len(snapshot.name))

    def _latest_attributes(self, snapshot: Snapshot) -> EntryAttributes:
        target = snapshot.name or snapshot.id.encode()
        return attributes.made_up(self._nodes.latest_nodeid, _SYMLINK_MODE, self._worktree.index.root, len(target))

    def getattr(self, nodeid: int) -> EntryAttributes:
        """Return the attributes of a node that is not in the working tree."""
        if nodeid == self._nodes.snapshots_nodeid:
            return self._directory_attributes()
        branches = self.branches_at(nodeid)
        if branches is not None:
            return branches.directory_attributes()
        if nodeid == self._nodes.latest_nodeid:
            latest = self._snapshots.latest()
            if latest is None:
                raise NoSuchEntry("there is no snapshot any more")
            return self._latest_attributes(latest)
        alias = self._nodes.alias_of(nodeid)
        if alias is not None:
            return self._alias_attributes(self._snapshots.get(alias))
        shown, node = self._nodes.locate(nodeid)
        reply = attributes.viewed(node, nodeid, shown.generation)
        if node.ino == ROOT_INO:
            self._nodes.release(shown.nodeid(node), 0)
        return reply

    def readlink(self, nodeid: int) -> bytes:
        """Return the target of a symlink in a snapshot, or of one of our own."""
        if nodeid == self._nodes.latest_nodeid:
            latest = self._snapshots.latest()
            if latest is None:
                raise NoSuchEntry("there is no snapshot any more")
            return latest.name or latest.id.encode()
        alias = self._nodes.alias_of(nodeid)
        if alias is not None:
            return self._snapshots.get(alias).name
        return self._nodes.locate(nodeid)[1].base

    def xattrs(self, nodeid: int) -> dict[bytes, bytes] | None:
        """Return the extended attributes of a node that is not in the working tree."""
        if self._is_made_up(nodeid):
            return None
        return self._nodes.locate(nodeid)[1].xattrs

    def _is_made_up(self, nodeid: int) -> bool:
        nodes = self._nodes
        ours = (nodes.snapshots_nodeid, nodes.latest_nodeid, nodes.branches_nodeid)
        return nodeid in ours or nodes.alias_of(nodeid) is not None

    def getxattr(self, nodeid: int, name: bytes) -> bytes:
        """Return one of them. Raises NoSuchAttribute."""
        value = (self.xattrs(nodeid) or {}).get(name)
        if value is None:
            raise NoSuchAttribute("no such attribute")
        return value

    # -- Reading -----------------------------------------------------------------------------------------------------

    def _hold(self, nodeid: int) -> None:
        if nodeid not in (self._nodes.snapshots_nodeid, self._nodes.branches_nodeid):
            self._nodes.locate(nodeid)[1].holds += 1

    def open_file(self, nodeid: int) -> None:
        """Keep a file of a snapshot while it is open."""
        self._hold(nodeid)

    def open_directory(self, nodeid: int) -> None:
        """Keep a directory of a snapshot while it is open."""
        self._hold(nodeid)

    def release_directory(self, nodeid: int) -> None:
        """Give back what `open_directory` took."""
        snapshot_id = self._nodes.snapshot_of(nodeid)
        if snapshot_id is not None:
            shown = self._nodes.show(snapshot_id)
            self._nodes.release(shown.nodeid(shown.view.root), 1)
        else:
            self._nodes.release(nodeid, 1)

    def release(self, nodeid: int, count: int) -> None:
        """Give back lookups, or an open file."""
        self._nodes.release(nodeid, count)

    def read(self, nodeid: int, offset: int, size: int) -> bytes:
        """Read from a file of a snapshot."""
        shown, node = self._nodes.locate(nodeid)
        return shown.view.read(node, offset, size)

    def readdir(self, nodeid: int, start: int, token: pyfuse3.ReaddirToken) -> None:
        """List `.snapshots` or a directory of a snapshot from a cookie on."""
        if nodeid == self._nodes.snapshots_nodeid:
            self._list_snapshots(start, token)
            return
        branches = self.branches_at(nodeid)
        if branches is not None:
            branches.list(start, token)
            return
        shown, directory = self._nodes.locate(nodeid)
        own = attributes.viewed(directory, nodeid, shown.generation)
        if start < _DOT and not _reply(token, b".", own, _DOT):
            return
        if start < _DOT_DOT and not _reply(token, b"..", own, _DOT_DOT):
            return
        view = shown.view
        sent = start < _DOT_DOT
        try:
            for cookie, name in view.listing(directory, max(start, _DOT_DOT)):
                node = view.get(directory, name)
                node.holds += 1
                if not _reply(token, name, attributes.viewed(node, shown.nodeid(node), shown.generation), cookie):
                    self._nodes.release(shown.nodeid(node), 1)
                    return
                sent = True
        except ColdObject:
            if not sent:
                raise
            # What was sent must not be sent again: the kernel asks for the rest, and what is cold is warmed then.

    def _list_snapshots(self, start: int, token: pyfuse3.ReaddirToken) -> None:
        own = self._directory_attributes()
        if start < _DOT and not _reply(token, b".", own, _DOT):
            return
        if start < _DOT_DOT and not _reply(token, b"..", own, _DOT_DOT):
            return
        rows = self._rows()
        for cookie, name, snapshot in rows[bisect_right(rows, start, key=itemgetter(0)) :]:
            if name == LATEST:
                reply = self._latest_attributes(snapshot)
            elif snapshot.name and name != snapshot.name:
                reply = self._alias_attributes(snapshot)
            else:
                # Without looking into the snapshot: the kernel asks again before it uses these attributes.
                reply = attributes.to_be_asked(self._nodes.snapshot_nodeid(snapshot.id), self._worktree.index.root)
            if not _reply(token, name, reply, cookie):
                return

    def _rows(self) -> list[tuple[int, bytes, Snapshot]]:
        """Return (hash, name, snapshot) of all that `.snapshots` lists; one listing asks for them many times."""
        version, rows = self._listed
        if version != self._snapshots.version:
            rows = []
            for snapshot in self._snapshots.all():
                names = [snapshot.id.encode()] + ([snapshot.name] if snapshot.name else [])
                rows.extend([(name_hash(name), name, snapshot) for name in names])
            latest = self._snapshots.latest()
            if latest is not None:
                rows.append((name_hash(LATEST), LATEST, latest))
            rows.sort(key=itemgetter(0, 1))
            self._listed = (self._snapshots.version, rows)
        return rows

    def list_at_root(self, names: tuple[bytes, ...] | tuple[()], start: int, token: pyfuse3.ReaddirToken) -> None:
        """List our own directories behind the root's entries, where the mount was asked to show them."""
        for cookie, name in enumerate(names, _LAST_COOKIE + 1 - len(names)):
            if start < cookie and not _reply(token, name, self.lookup(self._place.root_nodeid, name), cookie):
                return

    # -- Changing ----------------------------------------------------------------------------------------------------

    def refuse_change(self, nodeid: int) -> None:
        """Raise what changing this node deserves."""
        if self._is_made_up(nodeid):
            raise NotPermitted("only mkdir, rmdir and mv of snapshots and branches work here")
        if nodeid >> VIEW_SHIFT:
            raise ReadOnly("snapshots are read-only")
        raise NoSuchEntry(f"nothing is known of node {nodeid:#x}")

    async def mkdir(self, parent: int, name: bytes, ctx: RequestContext) -> EntryAttributes:
        """Take a snapshot named `name`: all that was answered before is in it, and what mappings had stored."""
        if self._read_only:
            raise FUSEError(errno.EROFS)
        self._snapshots.check_name(name)
        if self._durability.has_mappable:
            await self._durability.write_back()
        snapshot = self._worktree.snapshot(name, user=user_name(ctx.uid), host=_HOST, command="mkdir")
        return attributes.viewed(self._worktree.index.root, self._nodes.snapshot_nodeid(snapshot.id), 0)

    def rmdir(self, parent: int, name: bytes) -> None:
        """Delete a snapshot."""
        self._worktree.delete_snapshot(self._named(name).id)
        self._nodes.drop_idle()

    def rename(self, old_parent: int, old_name: bytes, new_parent: int, new_name: bytes, flags: int) -> None:
        """Rename a snapshot, or say why nothing else can be moved."""
        if old_parent != self._nodes.snapshots_nodeid or new_parent != self._nodes.snapshots_nodeid:
            old_view, new_view = self._tree_of(old_parent), self._tree_of(new_parent)
            if old_view == new_view:
                raise ReadOnly("snapshots are read-only")
            raise CrossesView("nothing moves between the working tree and a snapshot")
        if flags & ~1:
            raise InvalidArgument("snapshots cannot be exchanged")
        snapshot = self._named(old_name)
        if self._snapshots.find(new_name) is not None:
            raise EntryExists("a snapshot of that name exists")
        self._worktree.describe_snapshot(snapshot.id, name=new_name)

    def _tree_of(self, nodeid: int) -> str | int:
        snapshot_id = self._nodes.snapshot_of(nodeid)
        if snapshot_id is not None:
            return snapshot_id
        if self._place.get(nodeid) is not None:
            return "the working tree"
        if nodeid == self._nodes.snapshots_nodeid:
            return nodeid
        shown: ShownView = self._nodes.locate(nodeid)[0]
        return shown.snapshot_id

    def _named(self, name: bytes) -> Snapshot:
        snapshot = self._snapshots.latest() if name == LATEST else self._snapshots.find(name)
        if snapshot is None:
            raise NoSuchEntry("no such snapshot")
        if self._read_only:
            raise FUSEError(errno.EROFS)
        if name == LATEST or (snapshot.name and name != snapshot.name):
            raise NotSupported("this is another name of a snapshot; use the directory itself")
        return snapshot


_HOST: Final = socket.gethostname()


@functools.lru_cache
def user_name(uid: int) -> str:
    """Return who a user is, by name where the system knows one."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _reply(token: pyfuse3.ReaddirToken, name: bytes, attr: EntryAttributes, cookie: int) -> bool:
    return pyfuse3.readdir_reply(token, name, attr, cookie)
