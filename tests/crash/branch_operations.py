"""A program that makes, fills, snapshots and renames branches of a mount, and writes down each step that has returned.

    branch_operations.py MOUNT LOG NAME FIRST

Each line of LOG is one step, as JSON; the line is there only after the step's last system call has returned.
"""

import json
import os
import sys


def main() -> None:
    mount, log, name, first = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])
    with open(log, "a", buffering=1) as done:

        def returned(*step: str) -> None:
            done.write(json.dumps(step) + "\n")

        number = first
        while True:
            turn(mount, f"{name}-{number}", returned)
            number += 1


def turn(mount: str, name: str, returned) -> None:  # type: ignore[no-untyped-def]
    """Make a branch and use it."""
    write(f"{mount}/{name}", f"parent {name}")
    returned("write", name, f"parent {name}")
    branch = f"{mount}/.branches/{name}"
    os.mkdir(branch)
    returned("branch", name)
    write(f"{branch}/own", f"own {name}" * 100)
    returned("write", f".branches/{name}/own", f"own {name}" * 100)
    write(f"{mount}/{name}", f"later {name}")
    returned("write", name, f"later {name}")
    os.mkdir(f"{branch}/.snapshots/{name}")
    returned("snapshot", name)
    os.mkdir(f"{branch}/.branches/below")
    returned("below", name)
    write(f"{branch}/.branches/below/own", f"below {name}")
    returned("write", f".branches/{name}/.branches/below/own", f"below {name}")
    if name.endswith("3"):
        os.rename(branch, f"{branch}-moved")
        returned("rename", name, f"{name}-moved")


def write(path: str, text: str) -> None:
    """Replace a file as editors do."""
    with open(f"{path}.new", "w") as file:
        file.write(text)
    os.rename(f"{path}.new", path)


if __name__ == "__main__":
    main()
