"""What a patch says is what git makes of it: applied to one tree it gives the other, and back."""

import errno
import hashlib
import itertools
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from helios_fs.history.diff import diff_trees
from helios_fs.history.ingest import ingest
from helios_fs.history.patch import count, plan, write_patch
from helios_fs.store.store import Store

Leaf = tuple[str, bytes, bool]
Tree = dict[bytes, "Leaf | Tree"]

_NOISE = hashlib.shake_128(b"patch").digest(900_000)
_TEXT = b"".join(b"line %d\n" % n for n in range(40))
# Named in a strategy by short bytes, so that a failing example can be read.
_LARGE = {
    b"(noise)": _NOISE,
    b"(noise with one byte more)": _NOISE[:150_000] + b"!" + _NOISE[150_000:],
    b"(noise moved)": _NOISE[200_000:] + bytes(70_000) + _NOISE[:200_000],
    b"(noise, some of it changed)": _NOISE[:100_000] + b"?" * 300 + _NOISE[100_300:],
    b"(zeros)": bytes(140_000),
    b"(long text)": _TEXT * 400,
    b"(longer text)": _TEXT * 200 + b"!\n" + _TEXT * 201,
}

_names = st.sampled_from(
    [
        *(
            b"a",
            b"b",
            b"c",
            b"sp ace",
            b"tab\tbed",
            b'quo"ted',
            b"back\\slash",
            b"new\nline",
            "ü€".encode(),
            b"\xff\xfe",
        ),
        *(b" lead", b"trail ", b"-p", b".gitignore", b"\x01\x7f", b"b b", b"two\\\\", b"x" * 200),
    ]
)
_edited = st.tuples(st.integers(0, 39), st.sampled_from([b"", b"new\n", b"two\nlines\n", b"\r\n"])).map(
    lambda edit: b"".join([*_TEXT.splitlines(True)[: edit[0]], edit[1], *_TEXT.splitlines(True)[edit[0] + 1 :]])
)
_contents = st.one_of(
    st.sampled_from([b"", b"\n", b"text\n", b"no newline", b"text\r\nwith cr\r\n", b"--- a/x\n+++ b/x\n@@ -1 +1 @@\n"]),
    st.sampled_from(
        [_TEXT, _TEXT + b"no newline", b"\xff\xfe latin", b"\0", b"bin\0ary\n", bytes(5000), b" \t \n" * 3]
    ),
    st.sampled_from(list(_LARGE)),
    _edited,
    st.binary(max_size=60),
)
_targets = st.sampled_from([b"a", b"b/c", b"/nowhere", b"odd\xff\nname", b"x y"])
_leaves: st.SearchStrategy[Leaf] = st.one_of(
    st.tuples(st.just("file"), _contents, st.booleans()), st.tuples(st.just("link"), _targets, st.just(False))
)
_trees: st.SearchStrategy[Tree] = st.recursive(
    st.dictionaries(_names, _leaves, max_size=4),
    lambda inner: st.dictionaries(_names, st.one_of(_leaves, inner), max_size=4),
    max_leaves=6,
)


@st.composite
def _pairs(draw: st.DrawFn) -> tuple[Tree, Tree]:
    """Two trees, alike more often than not: some leaves kept, some moved, some made or removed."""
    a, b = draw(_trees), draw(_trees)

    def mixed(one: Tree, other: Tree) -> Tree:
        made: Tree = {}
        for name, value in one.items():
            fate = draw(st.sampled_from(["keep", "keep", "drop", "move", "mode"]))
            if isinstance(value, dict):
                value = mixed(value, {}) if fate == "keep" else value  # noqa: PLW2901 - what becomes of it
            elif fate == "mode" and value[0] == "file":
                value = (value[0], value[1], not value[2])  # noqa: PLW2901 - what becomes of it
            if fate != "drop":
                made[draw(_names) if fate == "move" else name] = value
        return {**other, **made}

    return a, draw(st.sampled_from([b, mixed(a, b), mixed(a, {})]))


def _build(root: bytes, tree: Tree) -> None:
    os.makedirs(root, exist_ok=True)
    for name, value in tree.items():
        path = root + b"/" + name
        if isinstance(value, dict):
            _build(path, value)
        elif value[0] == "link":
            os.symlink(value[1], path)
            # git itself gives up where one that runs in a circle becomes a directory.
            assume(not _runs_in_a_circle(path))
        else:
            with open(path, "wb") as file:
                file.write(_LARGE.get(value[1], value[1]))
            os.chmod(path, 0o755 if value[2] else 0o644)


def _without_empty_directories(tree: Tree) -> Tree:
    """Return what git would check out."""
    pruned = {
        name: _without_empty_directories(value) if isinstance(value, dict) else value for name, value in tree.items()
    }
    return {name: value for name, value in pruned.items() if value}


def _runs_in_a_circle(path: bytes) -> bool:
    try:
        os.stat(path)
    except OSError as error:
        return error.errno == errno.ELOOP
    return False


def _found(root: bytes) -> dict[bytes, tuple[str, bytes, bool]]:
    """What a directory holds, without git's own and without empty directories."""
    found = {}
    for directory, directories, files in os.walk(root):
        if directory == root and b".git" in directories:
            directories.remove(b".git")
        for name in files + [name for name in directories if os.path.islink(os.path.join(directory, name))]:
            path = os.path.join(directory, name)
            if os.path.islink(path):
                found[os.path.relpath(path, root)] = ("link", os.readlink(path), False)
            else:
                with open(path, "rb") as file:
                    content = file.read()
                found[os.path.relpath(path, root)] = ("file", content, bool(os.stat(path).st_mode & 0o100))
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("patch")


@pytest.fixture(scope="module")
def store(folder: Path) -> Iterator[Store]:
    Store.create(str(folder / "store"))
    with Store.open(str(folder / "store")) as opened:
        yield opened


_numbers = itertools.count()


def _git(where: Path, *arguments: str) -> None:
    environment = {"PATH": os.environ["PATH"], "HOME": str(where), "GIT_CONFIG_NOSYSTEM": "1"}
    done = subprocess.run(["git", *arguments], cwd=where, env=environment, capture_output=True, timeout=60)
    assert done.returncode == 0, done.stderr.decode(errors="replace")


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(pair=_pairs())
def test_git_applies_it_forth_and_back(folder: Path, store: Store, pair: tuple[Tree, Tree]) -> None:
    number = next(_numbers)
    place = folder / str(number)
    sides = [place / "a", place / "b"]
    ids = []
    for side, tree in zip(sides, pair, strict=True):
        _build(bytes(side), tree)
        ids.append(ingest(store, str(side), f"b{number}{side.name}").tree)
    done = plan(diff_trees(store.objects, *ids))
    patch = place / "patch"
    patch.write_bytes(b"".join(part for step in done.steps for part in write_patch(store.objects, step)))
    for step in done.steps:
        added, removed = count(store.objects, step)
        assert (added is None) == (removed is None)

    before, after = _found(bytes(sides[0])), _found(bytes(sides[1]))
    assert (before == after) == (patch.stat().st_size == 0)
    checkout = place / "checkout"
    _build(bytes(checkout), _without_empty_directories(pair[0]))
    _git(place, "init", "-q", "checkout")
    if before != after:
        _git(checkout, "apply", str(patch))
        assert _found(bytes(checkout)) == after
        _git(checkout, "apply", "-R", str(patch))
        assert _found(bytes(checkout)) == before
        _git(checkout, "add", "-A", "-f")
        _git(checkout, "apply", "--index", str(patch))
        assert _found(bytes(checkout)) == after
    shutil.rmtree(place)
