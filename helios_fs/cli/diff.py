"""`helios diff`: what differs between two of snapshot, branch and working tree."""

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import click

from helios_fs.cli import exit_codes, output, revisions, workspace
from helios_fs.cli.paths import Wanted
from helios_fs.errors import NoSuchEntry, UsageError

if TYPE_CHECKING:
    from helios_fs.cli.revisions import Revision
    from helios_fs.cli.workspace import Workspace
    from helios_fs.history.diff import Change
    from helios_fs.history.patch import Counts, LeftOut, Step
    from helios_fs.objects.entry import Entry
    from helios_fs.store.objects import Objects

_AFTER_DASHES: Final = "helios.diff.paths"
_GRAPH_WIDTH: Final = 40


class _Command(click.Command):
    """A command that knows which arguments stood behind `--`: those are paths, whatever they look like."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Keep what stands behind `--` aside."""
        if "--" in args:
            at = args.index("--")
            ctx.meta[_AFTER_DASHES] = args[at + 1 :]
            args = args[:at]
        return super().parse_args(ctx, args)


@click.command("diff", cls=_Command)
@click.argument("words", nargs=-1, metavar="[A[..B]] [--] [PATH]…")
@click.option("--name-status", "form", flag_value="name-status", help="One line for each path (default).")
@click.option("--stat", "form", flag_value="stat", help="How many lines each file gained and lost.")
@click.option("-p", "--patch", "form", flag_value="patch", help="A patch that `git apply` takes.")
@click.option("--json", "as_json", is_flag=True, help="Write the result as JSON.")
@workspace.options
@click.pass_context
def verb(
    ctx: click.Context,
    words: tuple[str, ...],
    form: str | None,
    as_json: bool,
    directory: str | None,
    store: str | None,
) -> int:
    """Show what differs from A to B, or from A to the working tree; without A, since the newest snapshot.

    A and B are each a snapshot (id, unique start of an id, name, `latest`, `~N`), a branch by its whole name, which
    means its newest state, or BRANCH:SNAPSHOT. A snapshot of this branch wins where a name means both. A PATH is a
    path with all below it, or a glob as in .gitignore; put `--` before PATHs that could be taken for A.

    Lines say A added, M modified, D deleted, T of another type. A patch holds content, the execute bit, symlinks
    and renames of files that stay the same; what it cannot hold is counted on stderr.

    Exit code 0: no difference; 1: there is one.
    """
    if as_json and form == "patch":
        raise UsageError("a patch is no JSON: choose --patch or --json")
    where = workspace.find(ctx, directory, store)
    base = directory if directory is not None else (ctx.find_root().obj or {}).get("directory")
    asked = _understood(where, words, ctx.meta.get(_AFTER_DASHES), base or ".")
    from helios_fs.history.diff import diff_trees

    a, b = bytes.fromhex(asked.a.tree), bytes.fromhex(asked.b.tree)
    with workspace.open_store(where) as opened:
        _require_paths(asked, opened.objects, (a, b))
        found = (one for one in diff_trees(opened.objects, a, b) if asked.wanted.takes(one.path, _is_directory(one)))
        if form in (None, "name-status"):
            return _show_names(where, asked, found, as_json)
        return _show_contents(where, asked, found, opened.objects, form == "patch", as_json)


# -- What was asked --------------------------------------------------------------------------------------------------


class _Asked(NamedTuple):
    a: "Revision"
    b: "Revision"
    wanted: Wanted
    no_revision: NoSuchEntry | None
    """Why the first argument was taken for a path."""


def _understood(where: "Workspace", words: Sequence[str], behind: Sequence[str] | None, base: str) -> _Asked:
    """Return the two states and the paths that the arguments mean. Raises UsageError, NoSuchEntry."""
    if behind is not None and len(words) > 1:
        raise UsageError(f"{words[1]}: only one A or A..B may stand before `--`")
    first, paths = words[:1], [*words[1:], *(behind or ())]
    no_revision = None
    if first:
        try:
            ends = revisions.resolve_range(where, first[0])
        except NoSuchEntry as error:
            if behind is not None:
                raise
            no_revision = error
        else:
            if behind is None and _is_there(where, first[0], base):
                raise UsageError(f"{first[0]} is a file here too: say `{first[0]} --`, or `-- {first[0]}` for the file")
            return _Asked(*ends, Wanted(paths, where.mountpoint, base), None)
    ends = revisions.newest_snapshot(where), revisions.working_tree(where)
    return _Asked(*ends, Wanted([*first, *paths], where.mountpoint, base), no_revision)


def _require_paths(asked: _Asked, objects: "Objects", trees: tuple[bytes, bytes]) -> None:
    """Raise NoSuchEntry for a path that was given and is in neither tree."""
    missing = asked.wanted.find_missing(objects, trees)
    if missing is None:
        return
    if asked.no_revision is not None and str(asked.no_revision).startswith(f"{missing}: "):
        raise NoSuchEntry(f"{asked.no_revision}; nor is there such a path")
    raise NoSuchEntry(f"{missing}: no such path, neither in {asked.a.label} nor in {asked.b.label}")


def _is_there(where: "Workspace", text: str, base: str) -> bool:
    """Tell whether a file in the mount has this path."""
    from helios_fs.cli.restore import paths_in_tree

    if where.mountpoint is None:
        return False
    try:
        found = paths_in_tree([text], where.mountpoint, base)
    except UsageError:
        return False
    return any(os.path.lexists(os.path.join(os.fsencode(where.mountpoint), path)) for path in found)


def _is_directory(change: "Change") -> bool:
    return any(entry is not None and entry.is_directory for entry in (change.a, change.b))


# -- Names -----------------------------------------------------------------------------------------------------------


def _show_names(where: "Workspace", asked: _Asked, found: "Iterator[Change]", as_json: bool) -> int:
    if as_json:
        changes = [
            {
                "kind": one.kind,
                "path": os.fsdecode(one.path),
                "old": _entry_as_dict(one.a),
                "new": _entry_as_dict(one.b),
            }
            for one in found
        ]
        output.write_json({**_ends_as_dict(where, asked), "changes": changes})
        return exit_codes.DIFFERENT if changes else 0
    seen = _Seen()
    output.write_bytes(f"{one.kind} {output.shown(one.path) or '.'}\n".encode() for one in seen.through(found))
    return exit_codes.DIFFERENT if seen.anything else 0


class _Seen:
    """Whether anything came through."""

    anything = False

    def through(self, found: "Iterable[Change]") -> "Iterator[Change]":
        """Yield the same, and remember that there was something."""
        for one in found:
            self.anything = True
            yield one


def _ends_as_dict(where: "Workspace", asked: _Asked) -> dict[str, Any]:
    return {
        side: {
            "label": end.label,
            "branch": revisions.branch_name(where, end.branch),
            "snapshot": end.snapshot.id if end.snapshot else None,
            "tree": end.tree,
        }
        for side, end in (("a", asked.a), ("b", asked.b))
    }


def _entry_as_dict(entry: "Entry | None") -> dict[str, Any] | None:
    return None if entry is None else {"mode": f"{entry.mode:06o}", "size_bytes": entry.size}


# -- Contents --------------------------------------------------------------------------------------------------------


def _show_contents(
    where: "Workspace", asked: _Asked, found: "Iterator[Change]", objects: "Objects", as_patch: bool, as_json: bool
) -> int:
    from helios_fs.history import patch

    seen = _Seen()
    planned = patch.plan(seen.through(found))
    if as_patch:
        for step in planned.steps:
            output.write_bytes(patch.write_patch(objects, step))
    else:
        counted = [(step, patch.count(objects, step)) for step in planned.steps]
        if as_json:
            left_out = [{"path": os.fsdecode(one.path), "reason": one.reason} for one in planned.left_out]
            files = [_counts_as_dict(step, counts) for step, counts in counted]
            output.write_json({**_ends_as_dict(where, asked), "files": files, "left_out": left_out})
        else:
            output.write_bytes(line.encode() + b"\n" for line in _stat_lines(counted))
    if not as_json:
        _tell_left_out(planned.left_out)
    return exit_codes.DIFFERENT if seen.anything else 0


def _tell_left_out(left_out: "Sequence[LeftOut]") -> None:
    counts = Counter(one.reason for one in left_out)
    for reason, number in counts.items():
        example = next(one.path for one in left_out if one.reason == reason)
        more = f" and {number - 1:,} more" if number > 1 else ""
        output.note(f"not shown: {reason}: {output.shown(example) or '.'}{more}")


def _counts_as_dict(step: "Step", counts: "Counts") -> dict[str, Any]:
    return {
        "path": os.fsdecode(step.path),
        "renamed_from": os.fsdecode(step.old.path) if step.is_rename and step.old else None,
        "old_size_bytes": step.old.entry.size if step.old else None,
        "new_size_bytes": step.new.entry.size if step.new else None,
        "added_lines": counts.added,
        "removed_lines": counts.removed,
    }


def _stat_lines(counted: "Sequence[tuple[Step, Counts]]") -> Iterator[str]:
    """Yield the lines of --stat as git draws them, then the totals."""
    if not counted:
        return
    names = [_stat_name(step) for step, _ in counted]
    width = min(max(map(len, names)), 100)
    most = max(((counts.added or 0) + (counts.removed or 0) for _, counts in counted), default=0)
    digits = len(str(most))
    for name, (step, counts) in zip(names, counted, strict=True):
        if counts.added is None or counts.removed is None:
            sizes = [side.entry.size if side else 0 for side in step]
            yield f" {name:{width}} | {'Bin':>{digits}} {sizes[0]:,} -> {sizes[1]:,} bytes"
            continue
        # At least one mark for what is there, however small beside the rest.
        scale = min(1.0, _GRAPH_WIDTH / max(most, 1))
        graph = "".join(
            mark * (max(1, int(n * scale)) if n else 0) for mark, n in (("+", counts.added), ("-", counts.removed))
        )
        yield f" {name:{width}} | {counts.added + counts.removed:>{digits}} {graph}".rstrip()
    added, removed = (sum(getattr(counts, field) or 0 for _, counts in counted) for field in ("added", "removed"))
    files = f"{len(counted):,} file{'s' * (len(counted) != 1)} changed"
    yield f" {files}, {added:,} line{'s' * (added != 1)} added, {removed:,} removed"


def _stat_name(step: "Step") -> str:
    if step.is_rename and step.old:
        return f"{output.shown(step.old.path)} => {output.shown(step.path)}"
    return output.shown(step.path)
