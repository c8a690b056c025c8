"""The command `helios`: finds the verb, and turns what it raises into one line and an exit code.

Imports click and nothing else of weight: the module of a verb is loaded when that verb is called.

Exit codes: 0 done, 1 a difference or problems found, 2 wrong usage, 3 not done, 130 interrupted.
"""

import gc
import importlib
import os
import sys
from collections.abc import Sequence
from typing import Final

import click

from helios_fs import __version__
from helios_fs.cli import exit_codes
from helios_fs.errors import HeliosError, UsageError

# verb -> (module, one line of help): the help lists all verbs without loading one.
VERBS: Final = {
    "init": ("init", "Make a store, empty or filled from a directory."),
    "mount": ("mount", "Mount a workspace; return when it is ready."),
    "unmount": ("unmount", "Write everything out, unmount, wait until all is done."),
    "status": ("status", "What has changed since the last snapshot."),
    "snapshot": ("snapshot", "Take a snapshot and print its id."),
    "commit": ("snapshot", "The same as snapshot."),
    "log": ("log", "The snapshots of this workspace, newest first, or those in which a path changed."),
    "show": ("log", "One snapshot."),
    "diff": ("diff", "What differs between two of snapshot, branch and working tree; as a patch too."),
    "branch": ("branch", "List branches, make one, rename or delete one."),
    "describe": ("describe", "Name a snapshot, say why it was taken, protect it from deletion."),
    "delete": ("describe", "Delete snapshots."),
    "prune": ("prune", "Delete the snapshots that no rule keeps, such as 7 daily and 4 weekly ones."),
    "restore": ("restore", "Bring back a snapshot's state, or some paths of it; can be undone."),
    "run": ("run", "Run a command in an instant branch; keep, merge or drop what it did."),
    "merge": ("merge", "Merge a branch into this one, all of it or nothing."),
    "materialize": ("materialize", "Write a snapshot out as a plain directory."),
    "gc": ("gc", "Give back the space that no snapshot and no branch needs."),
    "purge": ("purge", "Take paths out of all history and all branches, and every byte of them off the disk."),
    "stats": ("stats", "Figures of a running mount and its store."),
    "doctor": ("doctor", "What is wrong on this machine or with a store, and what to do."),
}


class Verbs(click.Group):
    """A group that imports the module of a verb when the verb is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the verbs in the order in which a newcomer meets them."""
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a verb's command, loading its module."""
        if cmd_name not in VERBS:
            return None
        module = importlib.import_module(f"helios_fs.cli.{VERBS[cmd_name][0]}")
        command = module.verb if VERBS[cmd_name][0] == cmd_name or cmd_name == "commit" else getattr(module, cmd_name)
        assert isinstance(command, click.Command)
        # `start` switched collection off while modules load; a verb may run for hours.
        gc.freeze()
        gc.enable()
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of verbs from the table above, so that `helios --help` loads none of them."""
        with formatter.section("Verbs"):
            formatter.write_dl([(name, text) for name, (_, text) in VERBS.items()])


@click.group(
    cls=Verbs,
    invoke_without_command=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Wherever an ID is asked: an id or a unique start of one, a name, `latest`, or `~N` (N before the newest).",
)
@click.version_option(__version__, prog_name="helios", message="%(prog)s %(version)s")
@click.option("-C", "directory", metavar="PATH", help="Act on the workspace that PATH is in (default: here).")
@click.option("--store", metavar="STORE", help="Act on this store, mounted or not.")
@click.pass_context
def cli(ctx: click.Context, directory: str | None, store: str | None) -> None:
    """A working tree that remembers every state of it: mount it, edit it, look back under .snapshots."""
    ctx.obj = {"directory": directory, "store": store}


def run(arguments: Sequence[str]) -> int:
    """Carry out one command line and return its exit code; errors are one line on stderr."""
    try:
        done = cli.main(args=list(arguments), prog_name="helios", standalone_mode=False)
        sys.stdout.flush()
    except (KeyboardInterrupt, click.Abort):
        complain("interrupted")
        return exit_codes.INTERRUPTED
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        return exit_codes.USAGE
    except click.UsageError as error:
        path = error.ctx.command_path if error.ctx else "helios"
        complain(f"{error.format_message()} (see `{path} --help`)")
        return exit_codes.USAGE
    except click.ClickException as error:
        complain(error.format_message())
        return exit_codes.NOT_DONE
    except UsageError as error:
        complain(str(error))
        return exit_codes.USAGE
    except HeliosError as error:
        complain(str(error))
        return exit_codes.NOT_DONE
    except BrokenPipeError:
        # Whoever read our output has had enough. Python would complain once more when it flushes stdout at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return exit_codes.NOT_DONE
    except OSError as error:
        where = f"{os.fsdecode(error.filename)}: " if error.filename else ""
        complain(f"{where}{error.strerror or error}")
        return exit_codes.NOT_DONE
    return done if isinstance(done, int) else 0


def complain(text: str) -> None:
    """Write one line to stderr, whatever line breaks or odd bytes are in the text."""
    line = "; ".join(part.strip() for part in text.splitlines() if part.strip())
    sys.stderr.write(f"helios: {line}\n".encode(errors="surrogateescape").decode(errors="backslashreplace"))
    sys.stderr.flush()


def main() -> None:
    """Carry out the command line and end the process; the installed command goes through `start`."""
    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
