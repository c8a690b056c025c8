"""Figures: collected while measuring, written as lines of JSON, shown as a table."""

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table


def percentile(ordered: Sequence[float], percent: float) -> float:
    """Return the value that `percent` of the sorted values do not exceed."""
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]


@dataclass
class Report:
    """The figures of one idea, row by row and target by target."""

    benchmark: str
    unit: str
    json_file: Path | None = None
    _samples: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    _notes: dict[str, dict[str, Any]] = field(default_factory=dict)

    def add(self, row: str, target: str, samples: Sequence[float]) -> None:
        """Add samples, in the report's unit."""
        self._samples.setdefault(row, {}).setdefault(target, []).extend(samples)

    def note(self, row: str, **facts: Any) -> None:
        """Say what else a reader of the JSON should know of a row."""
        self._notes.setdefault(row, {}).update(facts)

    def figures(self) -> list[dict[str, Any]]:
        """Return one line for each row and target: median, p95, p99, p99.9 and how many samples."""
        lines = []
        for row, targets in self._samples.items():
            for target, samples in targets.items():
                ordered = sorted(samples)
                line: dict[str, Any] = {"benchmark": self.benchmark, "row": row, "target": target, "unit": self.unit}
                line |= {
                    name: round(percentile(ordered, percent), 3)
                    for name, percent in (("median", 50), ("p95", 95), ("p99", 99), ("p999", 99.9))
                }
                lines.append(line | {"samples": len(ordered)} | self._notes.get(row, {}))
        return lines

    def show(self) -> None:
        """Append the figures to the JSON file and print the table: medians, p95, p99, and the last target's ratio."""
        figures = self.figures()
        if not figures:
            print(f"{self.benchmark}: none of the targets can be measured", file=sys.stderr)
            return
        if self.json_file is not None:
            with open(self.json_file, "a", encoding="utf-8") as file:
                file.writelines(json.dumps(line) + "\n" for line in figures)
        names = list(dict.fromkeys(str(line["target"]) for line in figures))
        table = Table(title=f"{self.benchmark}: {self.unit}, median / p95 / p99")
        table.add_column("")
        for name in names:
            table.add_column(name, justify="right")
        for name in names[:-1]:
            table.add_column(f"{names[-1]} : {name}", justify="right")
        for row in self._samples:
            found = {str(line["target"]): line for line in figures if line["row"] == row}
            cells = [_cell(found.get(name)) for name in names]
            table.add_row(row, *cells, *(_ratio(found.get(names[-1]), found.get(name)) for name in names[:-1]))
        Console(file=sys.stdout, width=None if sys.stdout.isatty() else 160).print(table)


def _cell(line: dict[str, Any] | None) -> str:
    if line is None:
        return ""
    return " / ".join(
        f"{line[name]:.3g}" if line[name] < 1000 else f"{line[name]:.0f}" for name in ("median", "p95", "p99")
    )


def _ratio(ours: dict[str, Any] | None, theirs: dict[str, Any] | None) -> str:
    if ours is None or theirs is None or not theirs["median"]:
        return ""
    return f"{ours['median'] / theirs['median']:.2f}"
