"""The request loop by itself: one request that no cache answers, on daemons that do next to nothing.

The same filesystem in memory (tests/unit/fuse/tiny_mount.py) runs on our loop and on pyfuse3's own, so that the
difference is the loop's alone. The other targets are beside them because a request there is the same system call.
"""

import subprocess
import sys
from pathlib import Path

from benchmarks.report import Report
from benchmarks.run import Options
from benchmarks.statx import forced_statx
from benchmarks.targets import PATIENCE_SECONDS, Target, mounted

_DAEMON = Path(__file__).parents[1] / "tests" / "unit" / "fuse" / "tiny_mount.py"


class StockLoop(Target):
    """The tiny filesystem on pyfuse3's own loop."""

    name = "pyfuse3's loop"
    options: tuple[str, ...] = ("--stock",)

    def mount(self) -> None:
        """Start the daemon and wait for its mount."""
        command = [sys.executable, str(_DAEMON), str(self.path), *self.options]
        environment = {"PYTHONPATH": str(Path(__file__).parents[1])}
        self._process = subprocess.Popen(
            command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        assert self._process.stdout is not None
        if self._process.stdout.readline() != b"ready\n":
            raise RuntimeError(f"{command}: no mount")

    def unmount(self) -> None:
        """Unmount and wait for the daemon to end."""
        super().unmount()
        self._process.wait(PATIENCE_SECONDS)
        for stream in (self._process.stdin, self._process.stdout):
            assert stream is not None
            stream.close()


class OurLoop(StockLoop):
    """The tiny filesystem on our loop."""

    name = "our loop"
    options = ()


def measure(options: Options) -> None:
    """Print how long one forced statx takes."""
    rounds, count = (3, 1000) if options.quick else (10, 3000)
    report = Report("loop", "µs", options.json_file)
    targets: list[type[Target]] = [*(target for target in options.targets if target.name != "disk"), StockLoop, OurLoop]
    with mounted(targets, options.scratch) as daemons:
        for target in daemons:
            (target.path / "steady").touch()
        for _ in range(rounds):
            for target in daemons:
                report.add("forced statx", target.name, forced_statx(target.path / "steady", count))
    report.show()
