"""Progress bars, drawn on stderr where that is a terminal. The only module that loads rich."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

Report = Callable[[int, int, int], None]
"""Called as report(entries done, entries in all, bytes done)."""


@contextmanager
def bar(title: str) -> Iterator[Report | None]:
    """Draw a bar while the block runs, if anybody watches; yield the function that moves it, or None."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from helios_fs.cli.output import human_size

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[size]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(title, total=None, size="")

        def report(done: int, total: int, data_bytes: int) -> None:
            progress.update(task, completed=done, total=total or None, size=human_size(data_bytes))

        yield report
