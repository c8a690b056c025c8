"""The base of a merge: forks, siblings, nested branches, merges before, and snapshots deleted in between."""

from helios_fs.history.ancestry import History
from helios_fs.objects.snapshot import Head, Snapshot
from helios_fs.store.branches import BranchInfo


class World:
    """Snapshots and branches, in the order in which they were made."""

    def __init__(self) -> None:
        self.snapshots: dict[str, Snapshot] = {}
        self.branches: list[BranchInfo] = []
        self.count = 0

    def snapshot(self, branch: str, *others: str) -> str:
        self.count += 1
        name = f"0{self.count:09d}"
        own = [one.id for one in self.snapshots.values() if one.branch == branch]
        self.snapshots[name] = Snapshot(name, branch, name.encode(), [*own[-1:], *others], self.count, self.count)
        return name

    def fork(self, parent: str, name: str) -> str:
        own = [one.id for one in self.snapshots.values() if one.branch == parent]
        first = self.snapshot(name, *own[-1:])
        self.branches.append(BranchInfo(name, parent, name, Head(name, b"", 0, 1), 0, self.count, first, self.count))
        return first

    def base(self, ours: str, theirs: str) -> str | None:
        found = History(self.snapshots.values(), self.branches).base(ours, theirs)
        back = History(self.snapshots.values(), self.branches).base(theirs, ours)
        assert found == back
        assert found is None or found.tree == found.snapshot.encode()
        return found.snapshot if found is not None else None


def test_a_branch_and_its_parent_meet_where_it_began() -> None:
    world = World()
    world.snapshot("main")
    first = world.fork("main", "x")
    assert world.base("main", "x") == first
    world.snapshot("x")
    world.snapshot("main")
    assert world.base("main", "x") == first


def test_a_parent_without_snapshots() -> None:
    world = World()
    first = world.fork("main", "x")
    world.snapshot("x")
    assert world.base("main", "x") == first


def test_siblings_meet_where_the_older_began() -> None:
    world = World()
    world.snapshot("main")
    older = world.fork("main", "x")
    world.snapshot("main")
    world.fork("main", "y")
    assert world.base("x", "y") == older


def test_nested_branches() -> None:
    world = World()
    world.snapshot("main")
    x = world.fork("main", "x")
    world.snapshot("x")
    deep = world.fork("x", "x/y")
    world.snapshot("x/y")
    world.snapshot("main")
    assert world.base("x", "x/y") == deep
    assert world.base("main", "x/y") == x


def test_after_a_merge_the_source_s_snapshot_is_the_base() -> None:
    world = World()
    world.fork("main", "x")
    merged = world.snapshot("x")
    world.snapshot("main", merged)
    world.snapshot("x")
    world.snapshot("main")
    assert world.base("main", "x") == merged
    again = world.snapshot("x")
    world.snapshot("main", again)
    assert world.base("main", "x") == again


def test_after_a_merge_the_other_way() -> None:
    world = World()
    world.fork("main", "x")
    ours = world.snapshot("main")
    world.snapshot("x", ours)
    world.snapshot("main")
    assert world.base("main", "x") == ours


def test_what_a_sibling_got_through_the_parent() -> None:
    world = World()
    world.fork("main", "x")
    world.fork("main", "y")
    done = world.snapshot("x")
    world.snapshot("main", done)
    into_y = world.snapshot("main")
    world.snapshot("y", into_y)
    assert world.base("x", "y") == done


def test_a_deleted_snapshot_leads_to_an_older_one() -> None:
    world = World()
    first = world.fork("main", "x")
    merged = world.snapshot("x")
    world.snapshot("main", merged)
    del world.snapshots[merged]
    assert world.base("main", "x") == first
    del world.snapshots[first]
    assert world.base("main", "x") is None


def test_a_deleted_snapshot_of_the_parent_is_no_loss() -> None:
    world = World()
    kept = world.snapshot("main")
    gone = world.snapshot("main")
    first = world.fork("main", "x")
    del world.snapshots[gone]
    assert world.base("main", "x") == first
    del world.snapshots[first]
    assert world.base("main", "x") == kept


def test_a_deleted_branch_leaves_what_came_of_it() -> None:
    world = World()
    world.fork("main", "x")
    world.fork("main", "y")
    done = world.snapshot("x")
    world.snapshot("main", done)
    world.snapshot("y", done)
    world.branches = [info for info in world.branches if info.id != "x"]
    assert world.base("main", "y") == done
    world.snapshots = {name: one for name, one in world.snapshots.items() if one.branch != "x"}
    assert world.base("main", "y") is not None


def test_after_merges_both_ways_the_newest_is_taken() -> None:
    world = World()
    world.fork("main", "x")
    main, x = world.snapshot("main"), world.snapshot("x")
    world.snapshot("main", x)
    world.snapshot("x", main)
    assert world.base("main", "x") == x


def test_a_branch_from_an_old_snapshot() -> None:
    world = World()
    old = world.snapshot("main")
    world.snapshot("main")
    first = world.snapshot("x", old)
    epoch = world.snapshots[old].epoch + 1
    world.branches.append(BranchInfo("x", "main", "x", Head("x", b"", 0, 1), 0, epoch, first, world.count))
    world.snapshot("x")
    assert world.base("main", "x") == first
