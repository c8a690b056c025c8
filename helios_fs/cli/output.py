"""How results are written: names that may be any bytes, times, JSON.

Data goes to stdout, status and progress to stderr. Loads neither rich nor the json module before they are needed.
"""

import sys
import time
from collections.abc import Iterable

import click


def shown(name: bytes) -> str:
    """Return a name as people read it: itself, or quoted as git does where it is not printable UTF-8."""
    try:
        text = name.decode()
        if text.isprintable() and not text.startswith('"'):
            return text
    except UnicodeDecodeError:
        pass
    quoted = "".join(chr(b) if 32 <= b < 127 and b not in b'"\\' else f"\\{b:03o}" for b in name)
    return f'"{quoted}"'


def say(text: str) -> None:
    """Write a line of data to stdout."""
    click.echo(text)


def write_bytes(parts: Iterable[bytes]) -> None:
    """Write data to stdout as it is: names and contents that may be any bytes. Collected into larger writes."""
    sys.stdout.flush()
    sys.stdout.buffer.writelines(parts)


def note(text: str) -> None:
    """Write a line of status to stderr."""
    click.echo(text, err=True)


def write_json(value: object) -> None:
    """Write a value as JSON to stdout; names that are not UTF-8 appear as Python's surrogate escapes (\\udcXX)."""
    import json

    sys.stdout.write(json.dumps(value, indent=2) + "\n")


def local_time(time_ns: int) -> str:
    """Return a time as people here read it."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(time_ns // 1_000_000_000))


def iso_time(time_ns: int) -> str:
    """Return a time in UTC as ISO 8601, with nanoseconds."""
    seconds, rest = divmod(time_ns, 1_000_000_000)
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{rest:09d}Z"


def human_size(size_bytes: float) -> str:
    """Return a size in units of 1024."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size_bytes < 1024:
            return f"{size_bytes:.0f} {unit}" if unit == "B" else f"{size_bytes:.1f} {unit}"
        size_bytes /= 1024
    return f"{size_bytes:.1f} TiB"
