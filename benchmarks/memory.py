"""Memory of the daemon (RssAnon: what it allocated itself): after a walk, and while a large file is written."""

import os
import sys

from benchmarks.report import Report
from benchmarks.run import Options
from benchmarks.targets import Target, make_tree, mounted

_PIECE = os.urandom(1 << 20)


def measure(options: Options) -> None:
    """Print the daemon's memory in MiB; the plain directory has none and is left out."""
    files, mebibytes = (2_000, 64) if options.quick else (100_000, 4096)
    tree = options.scratch / "tree"
    make_tree(tree, files)
    report = Report("memory", "MiB of RssAnon", options.json_file)
    for kind in options.targets:
        with mounted([kind], options.scratch, tree) as [target]:
            daemon = target.daemon()
            if daemon is None:
                continue
            report.add("mounted", target.name, [rss_anon(daemon)])
            found = sum(1 for _, _, names in os.walk(target.path) for _ in names)
            if found != files:
                raise RuntimeError(f"{target.name}: {found} files, not {files}")
            report.add(f"after a walk of {files} files", target.name, [rss_anon(daemon)])
            _stat_all(target)
            report.add("after a stat of each", target.name, [rss_anon(daemon)])
            report.add(f"while writing {mebibytes} MiB", target.name, _write(target, daemon, mebibytes))
    report.show()


def rss_anon(process: int) -> float:
    """Return a process's RssAnon in MiB, see proc(5)."""
    with open(f"/proc/{process}/status", encoding="ascii") as status:
        for line in status:
            if line.startswith("RssAnon:"):
                return int(line.split()[1]) / 1024
    raise RuntimeError(f"process {process} has ended")


def _stat_all(target: Target) -> None:
    for directory, _, names in os.walk(target.path):
        for name in names:
            os.stat(os.path.join(directory, name))


def _write(target: Target, daemon: int, mebibytes: int) -> list[float]:
    path = target.path / "large"
    samples = []
    with open(path, "wb", buffering=0) as file:
        for number in range(mebibytes):
            # Never the same bytes twice, so that nothing can be shared.
            file.write(number.to_bytes(8, "big") + _PIECE[8:])
            if number % 16 == 0:
                samples.append(rss_anon(daemon))
    samples.append(rss_anon(daemon))
    print(f"{target.name}: at most {max(samples):.0f} MiB while writing", file=sys.stderr)
    path.unlink()
    return samples
