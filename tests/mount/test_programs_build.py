"""Building C programs in the mount: make depends on times, the linker on mmap and odd writes."""

import hashlib
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.mount import build_project
from tests.mount.mounted import PATIENCE_SECONDS, Workspace

pytestmark = [
    pytest.mark.fuse,
    pytest.mark.skipif(
        shutil.which("make") is None or shutil.which("cc") is None, reason="needs cc and make (build-essential)"
    ),
]

PARTS = 12

MAKEFILE = """
objects = main.o $(patsubst %,part%.o,{numbers})
program: $(objects) libparts.a
\t$(CC) -o $@ main.o libparts.a
libparts.a: $(filter part%,$(objects))
\tar rcs $@ $^
%.o: %.c parts.h
\t$(CC) -g -c -o $@ $<
"""


def make_project(folder: Path, parts: int = PARTS) -> None:
    numbers = range(parts)
    folder.mkdir()
    (folder / "Makefile").write_text(MAKEFILE.format(numbers=" ".join(map(str, numbers))))
    (folder / "parts.h").write_text("#include <stdio.h>\n" + "".join(f"int part{n}(int);\n" for n in numbers))
    for number in numbers:
        (folder / f"part{number}.c").write_text(
            f'#include "parts.h"\nint part{number}(int x) {{ return x + {number}; }}\n'
        )
    calls = "".join(f"x = part{number}(x);" for number in numbers)
    (folder / "main.c").write_text(
        f'#include "parts.h"\nint main(void) {{ int x = 0; {calls} printf("%d\\n", x); return 0; }}\n'
    )


def make(folder: Path) -> str:
    done = subprocess.run(
        ["make", "-j2"],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
        env=os.environ | {"LC_ALL": "C"},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Clock skew" not in done.stderr
    return done.stdout


@pytest.mark.parametrize("parts", [PARTS, pytest.param(100, marks=pytest.mark.slow)])
def test_make_builds_what_is_out_of_date_and_no_more(shared: Workspace, folder: Path, parts: int) -> None:
    project = folder / "project"
    make_project(project, parts)
    make(project)
    total = sum(range(parts))
    assert subprocess.run([project / "program"], capture_output=True, text=True).stdout == f"{total}\n"
    assert "up to date" in make(project)
    shared.remount()
    assert "up to date" in make(project)
    (project / "part3.c").write_text('#include "parts.h"\nint part3(int x) { return x + 100; }\n')
    built = make(project)
    assert "part3.o" in built
    assert "-o part4.o" not in built
    assert subprocess.run([project / "program"], capture_output=True, text=True).stdout == f"{total - 3 + 100}\n"
    if parts > PARTS:
        return
    # A header that everything includes: all of it once more, and then nothing.
    (project / "parts.h").touch()
    assert make(project).count("-g -c -o") == parts + 1
    shared.remount()
    assert "up to date" in make(project)


def test_the_same_program_as_on_a_plain_directory(folder: Path, tmp_path: Path) -> None:
    built = []
    for where in (folder, tmp_path):
        make_project(where / "project")
        for number in range(PARTS):
            # -g writes the directory into the program; the same for both.
            source = where / "project" / f"part{number}.c"
            source.write_text(f'#line 1 "part{number}.c"\n' + source.read_text())
        flags = f"-ffile-prefix-map={where}=/same"
        subprocess.run(["make", f"CC=cc {flags}"], cwd=where / "project", check=True, capture_output=True)
        built.append(hashlib.sha256((where / "project" / "program").read_bytes()).hexdigest())
    assert built[0] == built[1]


@pytest.mark.slow
@pytest.mark.parametrize("project", ["lua5.4", "sqlite3"])
def test_a_real_project(shared: Workspace, folder: Path, project: str) -> None:
    if project == "sqlite3" and not os.environ.get("HELIOS_TORTURE"):
        pytest.skip("a minute and a half; make torture builds it")
    if project == "sqlite3" and shutil.which("tclsh") is None:
        pytest.skip("SQLite's own sources need tclsh to build (apt-get install tcl)")
    try:
        archive = build_project.fetch(project)
    except build_project.SourcesMissing as error:
        pytest.skip(str(error))
    tree = build_project.build(project, archive, folder)
    shared.remount()
    done = subprocess.run(build_project.BUILDS[project][1], cwd=tree, capture_output=True, text=True)
    assert done.stdout == build_project.BUILDS[project][2]
