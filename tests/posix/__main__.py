"""`python -m tests.posix DIR [--json]` puts every question to the filesystem of a directory.

`--compare` does so on ext4, overlayfs, fuse-overlayfs, bindfs and HeliosFS, which it makes and mounts (as root), and
prints a Markdown table; `--write` puts it into docs/posix.md.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path

from tests.posix import answers
from tests.posix.probe import PROBES, ask_all


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.posix", description=__doc__)
    parser.add_argument("directory", nargs="?", type=Path, help="any directory")
    parser.add_argument("--json", action="store_true", help="print the answers as JSON")
    parser.add_argument("--compare", action="store_true", help="mount all filesystems and print a table (root)")
    parser.add_argument("--write", action="store_true", help="with --compare: write the table into docs/posix.md")
    asked = parser.parse_args()
    if asked.compare:
        text = answers.compare()
        if asked.write:
            answers.write(text)
        else:
            print(text)
        return
    if asked.directory is None:
        parser.error("a directory, or --compare")
    with tempfile.TemporaryDirectory(prefix="posix-probes-", dir=asked.directory, ignore_cleanup_errors=True) as folder:
        seen = ask_all(Path(folder).resolve())
    if asked.json:
        json.dump(seen, sys.stdout, indent=1)
        return
    for name, answer in seen.items():
        print(f"{PROBES[name].group}.{name}: {PROBES[name].question}: {answer}")


if __name__ == "__main__":
    main()
