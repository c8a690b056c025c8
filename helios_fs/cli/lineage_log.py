"""What `helios log` says of more than one branch, or of one path: lists and graphs along the snapshots' lineage."""

from collections.abc import Callable
from functools import cache
from itertools import islice

from helios_fs.cli import output, workspace
from helios_fs.cli.log import as_dict, line, note_if_none
from helios_fs.cli.workspace import Workspace
from helios_fs.control import messages
from helios_fs.errors import HeliosError, NoSuchEntry
from helios_fs.history.graph import draw, newest_first
from helios_fs.history.lineage import Lineage
from helios_fs.history.path_log import path_log
from helios_fs.journal.journal import Journal
from helios_fs.objects.snapshot import MAIN_BRANCH
from helios_fs.store.branches import Branches, journal_directory


def of_path(where: Workspace, path: bytes, count: int | None, every: bool, as_json: bool) -> None:
    """List the snapshots in which a path changed."""
    _settle(where, every)
    with workspace.open_store(where) as store:
        lineage = Lineage(store.refs.all_snapshots(), Branches(store.path).all(deleted=True))
        shown = [key for branch in _shown_branches(where, every) for key in lineage.of_branch(branch)]
        keys = sorted(shown, key=lambda key: (lineage.snapshots[key].time_ns, key.id), reverse=True)
        name_of = _namer(where)
        found = list(islice(path_log(store.objects, lineage, keys, path), count))
    rows = [(kind, messages.info(snapshot), name_of(snapshot.branch)) for snapshot, kind in found]
    if as_json:
        output.write_json([{**as_dict(one), "branch": branch, "kind": kind} for kind, one, branch in rows])
        return
    width = max((len(output.shown(one.name)) for _, one, _ in rows), default=0)
    for kind, one, branch in rows:
        output.say(f"{kind} {line(one, width)}{f'  ({branch})' if every else ''}")
    if not rows:
        output.note(f"{output.shown(path) or '.'}: changed in no snapshot")


def of_branches(where: Workspace, count: int | None, graph: bool, every: bool, as_json: bool) -> None:
    """List, or draw, the snapshots of all branches, or those that a branch goes back to."""
    _settle(where, every)
    with workspace.open_store(where) as store:
        lineage = Lineage(store.refs.all_snapshots(), Branches(store.path).all(deleted=True))
    shown = [key for branch in _shown_branches(where, every) for key in lineage.of_branch(branch)]
    parents = lineage.with_ancestors(shown)
    infos = {key: messages.info(lineage.snapshots[key]) for key in parents}
    order = newest_first(parents, {key: (one.time_ns, one.id) for key, one in infos.items()})[:count]
    name_of = _namer(where)
    if as_json:
        output.write_json([{**as_dict(infos[key]), "branch": name_of(key.branch)} for key in order])
        return
    newest = {keys[-1]: name_of(one) for one in _shown_branches(where, True) if (keys := lineage.of_branch(one))}
    if not graph:
        width = max((len(output.shown(infos[key].name)) for key in order), default=0)
        for key in order:
            output.say(f"{line(infos[key], width)}  ({name_of(key.branch)})")
    else:
        for row in draw((key, parents[key]) for key in order):
            branch = f" ({newest[row.node]})" if row.node in newest else ""
            label = "" if row.node is None else f"  {line(infos[row.node])}{branch}"
            output.say(row.text + label)
    note_if_none(order)


def _shown_branches(where: Workspace, every: bool) -> list[str]:
    """Return the ids of all branches that are not deleted, or of the one that was asked for."""
    return [MAIN_BRANCH, *(info.id for info in Branches(where.store).all())] if every else [where.branch]


def _namer(where: Workspace) -> Callable[[str], str]:
    """Return what gives a branch's name for its id, or the id where nothing is known of it any more."""
    branches = Branches(where.store)

    @cache
    def name_of(branch: str) -> str:
        try:
            return branches.name_of(branch)
        except NoSuchEntry:
            return branch

    return name_of


def _settle(where: Workspace, every: bool) -> None:
    """Have the store know all snapshots of the branch, or of all branches.

    One that cannot be sealed now, as its owner is stuck or it was never written to, is shown as far as it is sealed.
    """
    workspace.settle(where)
    if not every:
        return
    for branch in _shown_branches(where, True):
        if branch != where.branch and _is_behind(where, branch):
            try:
                workspace.settle(where._replace(branch=branch, mountpoint=None))
            except HeliosError as error:
                output.note(f"branch {_namer(where)(branch)}: its newest snapshots may be missing: {error}")


def _is_behind(where: Workspace, branch: str) -> bool:
    """Tell whether a branch's journal has what the store has not."""
    with workspace.open_store(where) as store:
        try:
            head = store.refs.head(branch)
            journal = Journal.open(journal_directory(store.path, branch), head.lsn, writable=False)
        except HeliosError:
            return True
    try:
        return next(journal.frames(head.lsn), None) is not None
    finally:
        journal.close()
