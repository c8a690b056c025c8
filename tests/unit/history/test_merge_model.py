"""Merging against a model in plain Python, and what holds for every merge, on small random trees."""

import tempfile
from typing import NamedTuple

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from helios_fs.errors import HeliosError
from helios_fs.history.restore import Restore
from helios_fs.objects import record
from tests.model.harness import Branch
from tests.unit.history.merging import check_tree, fork, head, merged, shown
from tests.unit.worktree.trees import directory, make, remove, rename, rewrite

NAMES = ["a", "b", "c"]
PATHS = st.lists(st.sampled_from(NAMES), min_size=1, max_size=3).map(lambda parts: "/" + "/".join(parts))


class Step(NamedTuple):
    """One change; those that make no sense where they meet are passed over."""

    verb: str
    path: str
    other: str
    number: int


STEPS = st.builds(
    Step, st.sampled_from(["make", "edit", "chmod", "mkdir", "remove", "clear"]), PATHS, PATHS, st.integers(0, 2)
)
MOVING = st.builds(
    Step,
    st.sampled_from(
        ["make", "edit", "chmod", "mkdir", "remove", "clear", "rename", "rename", "link", "replace", "swap"]
    ),
    PATHS,
    PATHS,
    st.integers(0, 2),
)


def take(branch: Branch, step: Step) -> None:
    try:
        # The kernel sees to this.
        assert branch.walk(step.path.rpartition("/")[0]).is_directory
        assert branch.walk(step.other.rpartition("/")[0]).is_directory
        match step.verb:
            case "make":
                make(branch, step.path, b"new %d\n" % step.number)
            case "edit":
                if branch.walk(step.path).is_file:
                    rewrite(branch, step.path, b"edited %d\n" % step.number)
            case "chmod":
                branch.worktree.setattr(branch.walk(step.path), record.SET_MODE, mode=0o700 + step.number)
            case "mkdir":
                directory(branch, step.path)
            case "remove":
                remove(branch, step.path)
            case "clear":
                clear(branch, step.path)
            case "rename":
                rename(branch, step.path, step.other)
            case "swap":
                rename(branch, step.path, step.other, exchange=True)
            case "replace":
                make(branch, "/temporary", b"replaced %d\n" % step.number)
                try:
                    rename(branch, "/temporary", step.path)
                finally:
                    clear(branch, "/temporary")
            case "link":
                above, _, name = step.other.rpartition("/")
                branch.worktree.link(branch.walk(step.path), branch.walk(above), name.encode())
    except (HeliosError, AssertionError):
        pass


def clear(branch: Branch, path: str) -> None:
    below = [one for one in branch.dump() if one == path or one.startswith(path + "/")]
    for one in sorted(below, reverse=True):
        remove(branch, one)


def three(path: str, start: list[Step], ours: list[Step], theirs: list[Step]) -> tuple[bytes, Branch, Branch]:
    main = Branch(path)
    for step in start:
        take(main, step)
    base = head(main)
    agent = fork(main, "agent")
    for step in ours:
        take(main, step)
    for step in theirs:
        take(agent, step)
    return base, main, agent


def _is_directory(row: object) -> bool:
    return row[0] == 0o040000  # type: ignore[index,no-any-return]  # rows are tuples


def expected(base: dict[str, object], ours: dict[str, object], theirs: dict[str, object]) -> dict[str, object] | None:
    """The same by paths, in plain Python; None where there is a conflict. Right where nothing is renamed or linked."""
    result = {}
    for path in base.keys() | ours.keys() | theirs.keys():
        b, o, t = base.get(path), ours.get(path), theirs.get(path)
        if o in (b, t):
            value = t
        elif t == b:
            value = o
        elif b is not None and (o is None) != (t is None) and _is_directory(b) != _is_directory(o or t):
            # A directory is never what was a file: one side removed it, the other did too, and made something new.
            value = o or t
        elif b is None or o is None or t is None:
            return None
        else:
            # Type, permissions and content are merged each by itself.
            parts = []
            for x, y, z in zip(b, o, t, strict=True):  # type: ignore[call-overload]  # rows are tuples
                if len({x, y, z}) == 3:
                    return None
                parts.append(z if y == x else y)
            if (b[0], b[4]) != (o[0], o[4]) and (b[0], b[4]) != (t[0], t[4]) and (o[0], o[4]) != (t[0], t[4]):  # type: ignore[index]  # rows are tuples
                return None
            value = tuple(parts)
        if value is not None:
            result[path] = value
    for path in result:
        above = path.rpartition("/")[0]
        if path and (above not in result or result[above][0] != 0o040000):  # type: ignore[index]  # rows are tuples
            return None
    return result


FULL = [
    *(Step("mkdir", path, "/a", 0) for path in ("/a", "/a/b", "/b", "/b/c")),
    *(Step("make", path, "/a", number) for number, path in enumerate(("/a/a", "/a/b/c", "/b/a", "/b/c/a", "/c"))),
    Step("link", "/c", "/a/c", 0),
]


def live(main: Branch, base: bytes, agent: Branch) -> None:
    """A merged tree that is applied shows, holds and recovers the same; whoever holds an inode keeps it."""
    before = head(main)
    held = [main.walk(path) for path in main.dump()]
    for inode in held:
        inode.holds += 1
    decided = merged(base, main, agent, "markers")
    objects = main.store.objects
    restore = Restore(main.worktree, objects)
    restore.apply(restore.plan(before, decided.tree_id), main.worktree.snapshot)
    wanted = shown(objects, decided.tree_id)
    assert shown(objects, head(main)) == wanted
    check_tree(objects, head(main))
    for inode in held:
        main.worktree.index.release(inode, 1)
    main.reopen()
    assert shown(main.store.objects, head(main)) == wanted
    undo = Restore(main.worktree, main.store.objects)
    undo.apply(undo.plan(head(main), before))
    assert shown(main.store.objects, head(main)) == shown(main.store.objects, before)


LISTS = st.lists(STEPS, max_size=6)
MOVES = st.lists(MOVING, max_size=6)
MANY = settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))


@MANY
@given(st.lists(STEPS, max_size=3), LISTS, LISTS)
def test_a_merge_is_what_the_paths_say(start: list[Step], ours: list[Step], theirs: list[Step]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        base, main, agent = three(folder + "/store", FULL[:-1] + start, ours, theirs)
        try:
            result = merged(base, main, agent)
            objects = main.store.objects
            states = [shown(objects, tree) for tree in (base, head(main), head(agent))]
            wanted = expected(*states)  # type: ignore[arg-type]  # rows are tuples
            assert (wanted is None) == bool(result.conflicts), result.conflicts
            if wanted is not None:
                assert shown(objects, result.tree_id) == wanted
            for favour in ("ours", "theirs", "markers"):
                merged(base, main, agent, favour)  # type: ignore[arg-type]  # a literal
        finally:
            agent.close()
            main.close()


@MANY
@given(st.lists(MOVING, max_size=3), MOVES, MOVES)
def test_every_merge_is_sound(start: list[Step], ours: list[Step], theirs: list[Step]) -> None:
    """With renames, links and replaced files: sound trees, the same from either side, and nothing where nothing is."""
    with tempfile.TemporaryDirectory() as folder:
        base, main, agent = three(folder + "/store", FULL + start, ours, theirs)
        try:
            objects = main.store.objects
            one = merged(base, main, agent)
            other = merged(base, agent, main)
            assert bool(one.conflicts) == bool(other.conflicts), (one.conflicts, other.conflicts)
            if not one.conflicts:
                assert shown(objects, one.tree_id) == shown(objects, other.tree_id)
            for favour in ("ours", "theirs", "markers"):
                decided = merged(base, main, agent, favour)  # type: ignore[arg-type]  # a literal
                assert decided.tree_id
                assert bool(decided.conflicts) == bool(one.conflicts)
            if head(main) == base:
                assert shown(objects, one.tree_id) == shown(objects, head(agent))
            if head(agent) == base:
                assert one.tree_id == head(main)
            live(main, base, agent)
        finally:
            agent.close()
            main.close()
