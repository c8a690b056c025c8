"""Purge: the paths are out of every tree, the bytes out of every file of the store, and nothing else has changed."""

import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from helios_fs.errors import Busy, UsageError
from helios_fs.history import purge as purge_module
from helios_fs.history.diff import find_entry
from helios_fs.history.purge import Plan, Purged, purging, read_request
from helios_fs.objects.snapshot import MAIN_BRANCH
from helios_fs.store.branches import Branches
from helios_fs.store.reach import Reach
from helios_fs.store.store import Store
from tests.model.harness import Branch, Dump
from tests.unit.sealer.test_collect import make_branch
from tests.unit.store.test_rewrite import count_operations, die_at
from tests.unit.worktree.trees import directory, make, remove, rewrite, seal

SMALL = os.urandom(600)
"""A secret that becomes one blob."""
LARGE = os.urandom(900_000)
"""One in chunks."""
JOURNALED = os.urandom(3000)
"""One that only the journal holds."""
_PROBES = {"small": SMALL[100:140], "large": LARGE[450_000:450_040], "journaled": JOURNALED[1000:1040]}
_ENDS = {"large": LARGE[-40:]}


def holders(path: str, *needles: bytes) -> list[str]:
    """Return the files of a store that hold any of these bytes."""
    found = []
    for above, _, names in os.walk(path):
        for name in names:
            data = Path(above, name).read_bytes()
            found += [os.path.join(above, name) for needle in needles if needle in data]
    return found


def fill(branch: Branch) -> None:
    """Three states: with the secrets, with them elsewhere and changed, and one that is not sealed."""
    directory(branch, "/d")
    directory(branch, "/d/keys")
    directory(branch, "/src")
    make(branch, "/d/keys/id", SMALL)
    make(branch, "/d/keys/pub", b"public")
    make(branch, "/d/large.bin", LARGE)
    make(branch, "/src/main.c", b"int main;\n" * 50)
    for number in range(80):
        make(branch, f"/src/f{number}.c", b"%d" % number)
    branch.worktree.snapshot(b"one")
    rewrite(branch, "/src/main.c", b"int main(void);\n")
    large = branch.walk("/d/large.bin")
    branch.worktree.write(large, 10, b"a little else")
    branch.worktree.snapshot(b"two")
    seal(branch)
    remove(branch, "/d/large.bin")
    make(branch, "/d/keys/new", JOURNALED)
    branch.worktree.write(branch.walk("/src/f1.c"), 0, b"unsealed")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[str]:
    path = str(tmp_path / "store")
    branch = Branch(path)
    fill(branch)
    branch.close()
    yield path


def run(path: str, *paths: str, same_content: bool = False) -> tuple[Plan, Purged]:
    with purging(path) as purge:
        plan = purge.plan(paths, same_content)
        return plan, purge.run(plan)


def states(path: str) -> dict[str, Dump]:
    """Everything that the working tree and each snapshot show."""
    branch = Branch(path)
    try:
        found = {snapshot.id: branch.dump_snapshot(snapshot.id) for snapshot in branch.worktree.snapshots.all()}
        return {"now": branch.dump(), **found}
    finally:
        branch.close()


def without(rows: Dump, *paths: str) -> Dump:
    """Rows as they must be when paths are gone: directories above them count fewer names, all else is as it was."""
    left = dict(rows)
    for path in paths:
        if path not in left:
            continue
        is_directory = left[path][1] == stat.S_IFDIR
        for below in [one for one in left if one == path or one.startswith(path + "/")]:
            del left[below]
        above = path.rpartition("/")[0]
        row = list(left[above])
        row[4] -= is_directory  # type: ignore[operator]  # the link count
        row[5] -= 1  # type: ignore[operator]  # the number of names
        left[above] = tuple(row)
    return left


def check(path: str, before: dict[str, Dump], *gone: str) -> None:
    """What is there is what was there, without the paths; all of it verifies."""
    after = states(path)
    assert after.keys() == before.keys()
    for name, rows in before.items():
        assert after[name] == without(rows, *gone), name
    with Store.open(path) as store:
        Reach(store).walk_all([])


# -- What goes -------------------------------------------------------------------------------------------------------


def test_secrets_leave_no_byte(store: str) -> None:
    assert {name: bool(holders(store, probe)) for name, probe in _PROBES.items()} == dict.fromkeys(_PROBES, True)
    before = states(store)
    plan, done = run(store, "d/keys", "/d/large.bin")
    assert holders(store, *_PROBES.values(), *_ENDS.values()) == []
    check(store, before, "/d/keys", "/d/large.bin")
    assert done.is_done and done.left == 0 and done.collected.dead_bytes == 0
    assert plan.excision.paths == {b"d/keys", b"d/large.bin"}
    assert (len(plan.snapshots), plan.branches, plan.missing) == (2, ["main"], [])
    assert plan.data_bytes == len(SMALL) + 6 + len(JOURNALED) + 2 * len(LARGE)
    with Store.open(store) as opened:
        for snapshot, tree in plan.snapshots:
            assert tree != snapshot.tree
            found = opened.refs.find_snapshot("main", snapshot.id)
            assert found == msgspec.structs.replace(snapshot, tree=tree)
    assert not os.path.exists(store + "/purge")
    shutil.rmtree(store + "/index")
    check(store, before, "/d/keys", "/d/large.bin")


def test_a_plan_changes_nothing(store: str) -> None:
    before = states(store)
    with purging(store) as purge:
        plan = purge.plan(["d"])
        assert not plan.is_empty
    assert states(store) == before
    assert holders(store, _PROBES["small"])


def test_what_nobody_holds(store: str) -> None:
    with purging(store) as purge:
        plan = purge.plan(["nowhere", "d/keys/id/below", "*.none", "src"])
        assert plan.missing == ["nowhere", "d/keys/id/below", "*.none"]
        assert purge.plan(["nowhere"]).is_empty
        for wrong in ("", "/", ".", "a/../b"):
            with pytest.raises(UsageError):
                purge.plan([wrong])


def test_globs_and_names_that_look_like_some(store: str) -> None:
    branch = Branch(store)
    make(branch, "/src/a[1].c", b"odd name" * 10)
    make(branch, "/src/a1.c", b"plain name" * 10)
    branch.close()
    before = states(store)
    plan, _ = run(store, "src/a[1].c", "f1*.c")
    gone = {f"/src/f{number}.c" for number in (1, *range(10, 20))}
    assert plan.excision.paths == {path[1:].encode() for path in gone} | {b"src/a[1].c"}
    check(store, before, "/src/a[1].c", *gone)


def test_a_path_that_was_a_file_and_then_a_directory(store: str) -> None:
    branch = Branch(store)
    remove(branch, "/d/keys/id")
    directory(branch, "/d/keys/id")
    make(branch, "/d/keys/id/below", b"below" * 100)
    branch.close()
    before = states(store)
    run(store, "d/keys/id")
    check(store, before, "/d/keys/id")
    assert not holders(store, _PROBES["small"])


def test_a_name_that_is_not_utf8(store: str) -> None:
    branch = Branch(store)
    name = b"caf\xe9"
    inode = branch.worktree.create(branch.walk("/"), name, stat.S_IFREG | 0o644, 0, 0)
    branch.worktree.write(inode, 0, SMALL[::-1])
    branch.close()
    plan, done = run(store, os.fsdecode(name))
    assert plan.excision.paths == {name} and done.is_done
    assert not holders(store, SMALL[::-1][:40])


# -- Other names, same content ---------------------------------------------------------------------------------------


def test_other_names_of_the_same_file_go_too(store: str) -> None:
    """In each state where it has one of the names; links to nothing that was asked for stay."""
    branch = Branch(store)
    secret = os.urandom(500)
    inode = make(branch, "/d/secret", secret)
    branch.worktree.link(inode, branch.walk("/src"), b"alias")
    branch.worktree.link(inode, branch.walk("/src"), b"alias2")
    other = make(branch, "/src/other", b"two names" * 9)
    branch.worktree.link(other, branch.walk("/d"), b"other2")
    empty = make(branch, "/d/empty", b"")
    branch.worktree.link(empty, branch.walk("/src"), b"empty2")
    branch.worktree.snapshot(b"linked")
    remove(branch, "/d/secret")
    branch.close()
    before = states(store)
    plan, done = run(store, "d/secret", "d/empty")
    assert plan.excision.links == {b"src/alias", b"src/alias2"} and done.is_done
    assert not holders(store, secret[:40])
    after = states(store)
    for name, rows in before.items():
        wanted = without(rows, "/d/secret", "/src/alias", "/src/alias2", "/d/empty")
        if "/d/empty" in rows:
            row = wanted["/src/empty2"]
            wanted["/src/empty2"] = (*row[:4], 1, *row[5:])
        assert after[name] == wanted
    branch = Branch(store)
    branch.check_link_table()
    branch.close()


def test_a_directory_with_one_of_two_names(store: str) -> None:
    branch = Branch(store)
    inode = make(branch, "/d/keys/linked", SMALL[::-1])
    branch.worktree.link(inode, branch.walk("/src"), b"alias")
    branch.close()
    before = states(store)
    plan, _ = run(store, "d/keys")
    assert plan.excision.links == {b"src/alias"}
    check(store, before, "/d/keys", "/src/alias")
    assert not holders(store, SMALL[::-1][:40])


def test_equal_bytes_elsewhere_stay_unless_they_are_asked_for(store: str) -> None:
    branch = Branch(store)
    make(branch, "/src/copy", SMALL)
    make(branch, "/src/longer", LARGE + b"and more")
    branch.close()
    before = states(store)
    plan, done = run(store, "d/keys/id", "d/large.bin")
    assert plan.excision.same == {b"src/copy"}
    assert plan.excision.parts == {b"src/longer"}
    assert done.is_done, "what is left is what was said to be left"
    check(store, before, "/d/keys/id", "/d/large.bin")
    assert holders(store, _PROBES["small"]) and holders(store, _PROBES["large"])
    plan, done = run(store, "src/copy", same_content=True)
    assert not holders(store, _PROBES["small"])
    plan, done = run(store, "src/longer")
    assert not holders(store, *_PROBES.values()) or holders(store, _PROBES["journaled"])
    check(store, before, "/d/keys/id", "/d/large.bin", "/src/copy", "/src/longer")


def test_same_content_in_files_with_several_names(store: str) -> None:
    branch = Branch(store)
    inode = make(branch, "/src/copy", SMALL)
    branch.worktree.link(inode, branch.walk("/src"), b"copy2")
    branch.close()
    before = states(store)
    plan, _ = run(store, "d/keys/id", same_content=True)
    assert plan.excision.same == {b"src/copy", b"src/copy2"} and plan.excision.links == set()
    check(store, before, "/d/keys/id", "/src/copy", "/src/copy2")
    assert not holders(store, _PROBES["small"])


# -- Branches, others at work ----------------------------------------------------------------------------------------


def test_every_branch_and_what_branches_begin_with(store: str) -> None:
    with Store.open(store) as opened:
        secret = os.urandom(5000)
        info = make_branch(opened, "side", secret)
        gone = make_branch(opened, "gone", os.urandom(50), deleted_ns=7)
    plan, done = run(store, "below/side", "below/base of side")
    assert done.is_done
    assert (plan.branches, [one.branch for one, _ in plan.snapshots]) == ([info.id], [info.id])
    assert not holders(store, secret[1000:1040], secret[::-1][1000:1040])
    with Store.open(store) as opened:
        after = Branches(store).get(info.id)
        assert msgspec.structs.replace(after, base=info.base) == info
        assert len(find_entry(opened.objects, after.base.tree, b"below").content) == 32
        snapshot = opened.refs.find_snapshot(info.id, "0000000001")
        assert snapshot is not None and snapshot.tree == after.base.tree
        Reach(opened).walk_all([])
    assert Branches(store).find(gone.id) is None, "deleted branches end with the collection"


def test_a_branch_in_use_is_refused(store: str) -> None:
    with Store.open(store) as opened:
        lock = opened.lock_branch(MAIN_BRANCH)
        with pytest.raises(Busy, match="in use by process"), purging(store):
            pass
        lock.release()
    with purging(store), Store.open(store) as opened, pytest.raises(Busy):
        opened.lock_branch(MAIN_BRANCH)
    with Store.open(store) as opened:
        opened.lock_branch(MAIN_BRANCH).release()


def test_what_somebody_reads_is_said_and_finished_later(store: str) -> None:
    with Store.open(store) as reader:
        (snapshot, *_) = reader.refs.snapshots("main")
        with reader.pins.held(snapshot.tree):
            _, done = run(store, "d/keys", "d/large.bin")
            assert not done.is_done and done.left > 0
            assert find_entry(reader.objects, snapshot.tree, b"d/keys/id").size == len(SMALL)
            assert read_request(store) is not None
    plan, done = run(store, "d/keys")
    assert plan.resumed and plan.is_empty and done.is_done
    assert not holders(store, *_PROBES.values())
    assert read_request(store) is None


def test_a_purge_may_die_at_any_call(tmp_path: Path) -> None:
    """Run again finishes it; whatever is left in between, nothing else is lost."""
    store = str(tmp_path / "store")
    branch = Branch(store)
    directory(branch, "/d")
    make(branch, "/d/key", SMALL)
    make(branch, "/other", b"other" * 40)
    branch.worktree.snapshot(b"one")
    remove(branch, "/d/key")
    seal(branch)
    make(branch, "/d/new", JOURNALED)
    branch.close()
    os.unlink(store + "/reserve")
    os.unlink(store + "/journals/main/reserve")
    with Store.open(store) as opened:
        make_branch(opened, "side", SMALL)
    before = states(store)
    gone = ("d", "below")
    rest = [f"/{path}" for path in gone]
    either = [before, {name: without(rows, *rest) for name, rows in before.items()}]

    def work(path: str) -> None:
        run(path, *gone)

    seen = count_operations(shutil.copytree(store, str(tmp_path / "counted")), work)
    # Reading changes nothing: between two reads a death is the same as at the next change.
    changing = [position for position, operation in enumerate(seen) if operation not in ("read", "open")]
    assert len(changing) > 60
    for position in changing:
        copy = shutil.copytree(store, str(tmp_path / "copy"))
        die_at(copy, position, work)
        after = states(copy)
        assert after in either, position
        plan, done = run(copy, *gone)
        assert done.is_done and (plan.resumed or not plan.is_empty or after == either[1])
        assert not holders(copy, *_PROBES.values())
        check(copy, before, *rest)
        shutil.rmtree(copy)


def test_the_file_of_an_interrupted_purge_is_checked(store: str) -> None:
    purge_module.write_request(store, purge_module.Request([b"a\xff", b"b"], True))
    found = read_request(store)
    assert found is not None and found.texts == ["a\udcff", "b"] and found.same_content
    raw = bytearray(Path(store, "purge").read_bytes())
    raw[-1] ^= 1
    Path(store, "purge").write_bytes(raw)
    with pytest.raises(purge_module.CorruptObject, match="damaged"), purging(store) as purge:
        purge.plan(["d"])
