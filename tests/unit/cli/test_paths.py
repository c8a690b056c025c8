"""Which paths of a tree the arguments of a verb mean."""

from pathlib import Path

import pytest

from helios_fs.cli.paths import Wanted
from helios_fs.errors import UsageError

TREE = [
    *(b"a.c", b"a.h", b"[x].c", b"src", b"src/a.c", b"src/b.h", b"src/deep", b"src/deep/a.c", b"src2", b"src2/a.c"),
    *(b"odd *", b"odd *!", b"odd *!/a.c", b"odd *!/sub/b.c", b"build.c", b"build.c/obj", b"\xff.c"),
]
DIRECTORIES = {b"src", b"src/deep", b"src2", b"odd *!", b"build.c"}


def _taken(wanted: Wanted) -> list[bytes]:
    return [path for path in TREE if wanted.takes(path, path in DIRECTORIES)]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for directory in ("src/deep", "src2", "odd *!/sub"):
        (tmp_path / directory).mkdir(parents=True)
    return tmp_path


@pytest.mark.parametrize(
    ("base", "arguments", "expected"),
    [
        ("", [], TREE),
        ("", ["."], TREE),
        ("src", [".."], TREE),
        ("src", ["../src2", ".."], TREE),
        ("", ["src"], [b"src", b"src/a.c", b"src/b.h", b"src/deep", b"src/deep/a.c"]),
        ("", ["src/"], [b"src", b"src/a.c", b"src/b.h", b"src/deep", b"src/deep/a.c"]),
        ("src", ["a.c"], [b"src/a.c"]),
        ("src", ["../a.c", "deep"], [b"a.c", b"src/deep", b"src/deep/a.c"]),
        ("", ["*.h"], [b"a.h", b"src/b.h"]),
        ("", ["src/*.c"], [b"src/a.c"]),
        ("", ["./src/*.c"], [b"src/a.c"]),
        ("", ["src/**/*.c"], [b"src/a.c", b"src/deep/a.c"]),
        ("", ["src*/a.c"], [b"src/a.c", b"src2/a.c"]),
        ("src", ["*.c"], [b"src/a.c", b"src/deep/a.c"]),
        ("src", ["../src2/*"], [b"src2/a.c"]),
        ("src/deep", ["../*.h", "../../a.?"], [b"a.c", b"a.h", b"src/b.h"]),
        ("", ["src*/"], [b"src", b"src/a.c", b"src/b.h", b"src/deep", b"src/deep/a.c", b"src2", b"src2/a.c"]),
        ("odd *!", ["*.c"], [b"odd *!/a.c", b"odd *!/sub/b.c"]),
        ("", ["[x].c"], [b"[x].c"]),
        ("", ["odd *"], [b"odd *", b"odd *!", b"odd *!/a.c", b"odd *!/sub/b.c"]),
        ("", ["build*"], [b"build.c", b"build.c/obj"]),
        ("", ["?.c"], [b"a.c", b"src/a.c", b"src/deep/a.c", b"src2/a.c", b"odd *!/a.c", b"odd *!/sub/b.c", b"\xff.c"]),
        ("", ["src2", "*.h"], [b"a.h", b"src/b.h", b"src2", b"src2/a.c"]),
    ],
)
def test_paths_and_globs(root: Path, base: str, arguments: list[str], expected: list[bytes]) -> None:
    assert _taken(Wanted(arguments, str(root), str(root / base))) == expected


def test_absolute_ones(root: Path) -> None:
    assert _taken(Wanted([f"{root}/src/*.c"], str(root), "/")) == [b"src/a.c"]
    assert _taken(Wanted([f"{root}/src2"], str(root), "/")) == [b"src2", b"src2/a.c"]


def test_without_a_mount_they_count_from_the_root() -> None:
    assert _taken(Wanted(["src2", "/src/*.h"], None, "/somewhere/else")) == [b"src/b.h", b"src2", b"src2/a.c"]


@pytest.mark.parametrize("argument", ["../x", "../*.c", "/etc/*", "/etc/passwd"])
def test_what_lies_outside_is_refused(root: Path, argument: str) -> None:
    with pytest.raises(UsageError, match="not in the workspace"):
        Wanted([argument], str(root), str(root))
