"""`helios prune`: deletes the snapshots that no rule keeps, and remembers rules for a branch."""

import click

from helios_fs.cli import output, workspace
from helios_fs.cli.describe import delete_snapshots
from helios_fs.cli.log import as_dict, line
from helios_fs.errors import UsageError
from helios_fs.history import pruning
from helios_fs.history.retention import Rules, Verdict

_COUNT = click.IntRange(min=0)


@click.command("prune")
@click.option("--keep-last", "last", type=_COUNT, metavar="N", help="Keep the newest N.")
@click.option("--keep-hourly", "hourly", type=_COUNT, metavar="N", help="Keep the newest of each of N hours.")
@click.option("--keep-daily", "daily", type=_COUNT, metavar="N", help="Keep the newest of each of N days.")
@click.option("--keep-weekly", "weekly", type=_COUNT, metavar="N", help="Keep the newest of each of N weeks.")
@click.option("--keep-monthly", "monthly", type=_COUNT, metavar="N", help="Keep the newest of each of N months.")
@click.option("--keep-yearly", "yearly", type=_COUNT, metavar="N", help="Keep the newest of each of N years.")
@click.option("--named", is_flag=True, help="Let snapshots with a name go like others; else they stay.")
@click.option("--dry-run", is_flag=True, help="Change nothing; say what would go.")
@click.option("--save", is_flag=True, help="Keep these rules for the branch, and for `mount --prune`.")
@click.option("--forget", is_flag=True, help="Forget the rules kept for the branch; delete nothing.")
@click.option("--json", "as_json", is_flag=True, help="Write the result as JSON.")
@workspace.options
@click.pass_context
def verb(
    ctx: click.Context,
    /,
    named: bool,
    dry_run: bool,
    save: bool,
    forget: bool,
    as_json: bool,
    directory: str | None,
    store: str | None,
    **counts: int | None,
) -> None:
    """Delete the snapshots that no rule keeps, by the rules given or those that the branch keeps.

    What is protected, has a name or is a merge stays, and so does the newest. Hours, days, weeks, months and
    years without a snapshot do not count.
    """
    where = workspace.find(ctx, directory, store)
    given = {rule: count for rule, count in counts.items() if count is not None}
    if forget:
        if given or named or save or dry_run:
            raise UsageError("--forget goes with no other option")
        pruning.forget_rules(where.store, where.branch)
        return
    known = workspace.snapshots(where)
    if given:
        rules = Rules(**given, named=named)
    else:
        kept = pruning.find_rules(where.store, where.branch)
        if kept is None or named or save:
            raise UsageError("no rule given: --keep-last 10 --keep-daily 7, for example (see `helios prune --help`)")
        rules = kept
    if not rules.keeps_anything:
        raise UsageError("these rules would keep nothing but the newest: give a count above 0 (`--keep-last 1`)")
    with workspace.open_store(where) as opened:
        verdicts = pruning.plan(opened, where.branch, known, rules)
    gone = [verdict.id for verdict in verdicts if not verdict.reasons]
    if not dry_run:
        if save:
            pruning.save_rules(where.store, where.branch, rules)
        delete_snapshots(where, gone)
    infos = {one.id: one for one in known}
    if as_json:
        rows = [{**as_dict(infos[one.id]), "keep": bool(one.reasons), "reasons": one.reasons} for one in verdicts[::-1]]
        output.write_json({"dry_run": dry_run, "deleted": [] if dry_run else gone, "snapshots": rows})
        return
    for verdict in verdicts[::-1]:
        output.say(f"{_said(verdict)}  {line(infos[verdict.id])}{_why(verdict)}")
    what = "would go" if dry_run else "deleted"
    output.note(f"{len(gone)} {what}, {len(verdicts) - len(gone)} kept")


def _said(verdict: Verdict) -> str:
    return "keep" if verdict.reasons else "gone"


def _why(verdict: Verdict) -> str:
    return f"  ({', '.join(verdict.reasons)})" if verdict.reasons else ""
