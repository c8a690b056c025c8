"""Build a real C project from Debian's sources in a directory, and run what was built.

`python tests/mount/build_project.py DIRECTORY [lua5.4|sqlite3]`, with DIRECTORY in a mounted workspace. The sources are
fetched by apt-get, without root and without a change to its settings, and kept in $XDG_CACHE_HOME/helios-tests.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

BUILDS = {
    "lua5.4": (["make", "-j2", "linux"], ["src/lua", "-e", "print(string.rep('ok ', 2) .. 2^10)"], "ok ok 1024.0\n"),
    "sqlite3": (
        ["sh", "-c", "./configure --disable-tcl --disable-readline >configure.log && make -j2 sqlite3"],
        ["./sqlite3", ":memory:", "select sum(value) from generate_series(1, 4)"],
        "10\n",
    ),
}
_SUITE = "bookworm"


class SourcesMissing(Exception):
    """The sources cannot be fetched here; the text says why."""


def fetch(project: str) -> Path:
    """Return the original source archive of a Debian source package."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "helios-tests"
    found = sorted(cache.glob(f"{project}_*.orig.tar.*"))
    if found:
        return found[0]
    if shutil.which("apt-get") is None:
        raise SourcesMissing("there is no apt-get")
    for folder in ("lists/partial", "apt/archives/partial"):
        (cache / folder).mkdir(parents=True, exist_ok=True)
    (cache / "sources.list").write_text(f"deb-src http://deb.debian.org/debian {_SUITE} main\n")
    options = [
        f"-oDir::Etc::sourcelist={cache}/sources.list",
        "-oDir::Etc::sourceparts=/dev/null",
        f"-oDir::State::lists={cache}/lists",
        f"-oDir::Cache={cache}/apt",
        "-oAPT::Sandbox::User=",
    ]
    for command in (["update"], ["source", "--download-only", project]):
        done = subprocess.run(
            ["apt-get", "-q", *options, *command], cwd=cache, capture_output=True, text=True, timeout=300
        )
        if done.returncode != 0:
            raise SourcesMissing(f"apt-get {' '.join(command)}: {done.stderr.strip()}")
    found = sorted(cache.glob(f"{project}_*.orig.tar.*"))
    if not found:
        raise SourcesMissing(f"{project}: apt-get has brought no sources")
    return found[0]


def build(project: str, archive: Path, where: Path) -> Path:
    """Unpack, build and try a project below `where`; return its directory. Raises RuntimeError."""
    make, program, expected = BUILDS[project]
    tree = where / project
    tree.mkdir()
    _run(["tar", "-xf", str(archive), "--strip-components=1", "--no-same-owner"], tree)
    _run(make, tree)
    printed = _run(program, tree)
    if printed != expected:
        raise RuntimeError(f"{program}: {printed!r}, not {expected!r}")
    return tree


def _run(command: list[str], where: Path) -> str:
    done = subprocess.run(command, cwd=where, capture_output=True, text=True, timeout=1800)
    if done.returncode != 0:
        raise RuntimeError(f"{command}: exit {done.returncode}: {done.stdout[-2000:]}{done.stderr[-2000:]}")
    return done.stdout


def main() -> None:
    project = sys.argv[2] if len(sys.argv) > 2 else "lua5.4"
    print(build(project, fetch(project), Path(sys.argv[1])))


if __name__ == "__main__":
    main()
