"""A program of its own around `run_over`, for tests that send it signals or give it a terminal.

Usage: calling.py DIRECTORY SHOWN_AT BELOW CMD… (an empty SHOWN_AT for none). Prints what `Ended` says on stderr.
"""

import json
import os
import sys

from helios_fs.cli import child


def main() -> int:
    directory, shown_at, below, *command = sys.argv[1:]
    mask = child.hold_signals()
    told: list[str] = []
    ended = child.run_over(directory, shown_at or None, below, command, lambda _: os.environ, mask, told.append)
    left = len(child.left_behind(ended.others))
    remaining = child.end_left_behind(ended.others)
    sys.stderr.write(json.dumps([*ended[:-1], told, left, remaining]) + "\n")
    return ended.code


if __name__ == "__main__":
    sys.exit(main())
