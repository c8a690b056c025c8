"""The snapshots of a branch, by id and by name, as its journal and the store's refs give them.

Knows nothing of trees. Ids ascend in time; a name means at most one snapshot.
"""

import msgspec

from helios_fs.errors import EntryExists, InvalidArgument, NameTooLong, NoSuchEntry, NotPermitted
from helios_fs.objects.ids import looks_like_snapshot_id
from helios_fs.objects.snapshot import Snapshot, SnapshotChanged, changed

LATEST = b"latest"


class Snapshots:
    """Snapshots of one branch's history, in the order in which they were taken.

    Those from before the branch was made are its parent's: they are shown, and only the parent may change them.
    """

    def __init__(self, branch: str, origin: str = "") -> None:
        """`origin` is the snapshot with which the branch begins, if it was made from another."""
        self._branch = branch
        self._origin = origin
        self._by_id: dict[str, Snapshot] = {}
        self._by_name: dict[bytes, str] = {}
        self.version = 0
        """Another number after every change."""
        self.newest: Snapshot | None = None
        """The one taken last, deleted or not: the next one's parent."""

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self._by_id)

    def add(self, snapshot: Snapshot) -> None:
        """Take in a snapshot, or what is newly known of one."""
        self.version += 1
        former = self._by_id.get(snapshot.id)
        if former is not None and former.name:
            self._by_name.pop(former.name, None)
        self._by_id[snapshot.id] = snapshot
        if snapshot.name:
            self._by_name[snapshot.name] = snapshot.id
        if self.newest is None or snapshot.id >= self.newest.id:
            self.newest = snapshot

    def all(self) -> list[Snapshot]:
        """Return all of them, oldest first."""
        return list(self._by_id.values())

    def get(self, snapshot_id: str) -> Snapshot:
        """Return a snapshot by its whole id. Raises NoSuchEntry."""
        snapshot = self._by_id.get(snapshot_id)
        if snapshot is None:
            raise NoSuchEntry(f"there is no snapshot {snapshot_id}")
        return snapshot

    def latest(self) -> Snapshot | None:
        """Return the newest one that still exists."""
        return next(reversed(self._by_id.values()), None)

    def find(self, text: bytes) -> Snapshot | None:
        """Return the snapshot whose name or whole id `text` is."""
        snapshot_id = self._by_name.get(text)
        if snapshot_id is None:
            snapshot_id = text.decode("ascii", "replace")
        return self._by_id.get(snapshot_id)

    def change(self, change: SnapshotChanged) -> None:
        """Say anew what people say of a snapshot: name, message, protection. Raises NoSuchEntry."""
        self.add(changed(self.get(change.id), change))

    def delete(self, snapshot_id: str) -> None:
        """Forget a snapshot."""
        self.version += 1
        snapshot = self._by_id.pop(snapshot_id, None)
        if snapshot is not None and snapshot.name:
            self._by_name.pop(snapshot.name, None)

    def check_owned(self, snapshot_id: str) -> None:
        """Refuse a snapshot that this branch may not rename or delete. Raises NotPermitted, NoSuchEntry."""
        if self.get(snapshot_id).branch != self._branch:
            raise NotPermitted(f"{snapshot_id} belongs to the branch that this one was made from")

    def check_deletable(self, snapshot_id: str) -> None:
        """Refuse one that the branch needs, too. Raises NotPermitted, NoSuchEntry."""
        self.check_owned(snapshot_id)
        if snapshot_id == self._origin:
            raise NotPermitted(f"{snapshot_id} is where this branch begins, and stays as long as the branch")

    def sealed(self, snapshot_id: str, tree: bytes) -> None:
        """Say under which tree hash the store holds a snapshot now."""
        snapshot = self._by_id.get(snapshot_id)
        if snapshot is not None:
            self.add(msgspec.structs.replace(snapshot, tree=tree))

    def check_name(self, name: bytes) -> None:
        """Refuse what cannot name a new snapshot. Raises InvalidArgument, NameTooLong or EntryExists."""
        if len(name) > 255:
            raise NameTooLong(f"a snapshot name may have 255 bytes; this one has {len(name)}")
        if not name or name in (b".", b"..") or b"/" in name or b"\0" in name:
            raise InvalidArgument("a snapshot name must not be empty, '.' or '..', nor contain '/'")
        if name == LATEST:
            raise EntryExists("'latest' always means the newest snapshot; choose another name")
        if name.startswith(b"~"):
            raise InvalidArgument("a snapshot name must not begin with '~': ~N means the N-th before the newest")
        text = name.decode("utf-8", "surrogateescape")
        if looks_like_snapshot_id(text):
            if text in self._by_id:
                raise EntryExists(f"{text} is the id of a snapshot")
            raise InvalidArgument(f"'{text}' looks like a snapshot id; choose a name that does not")
        if name in self._by_name:
            raise EntryExists(f"a snapshot named '{text}' exists")
