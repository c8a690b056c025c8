"""Patches of two trees: what they look like, what they leave out, and that git takes the odd ones."""

import hashlib
import os
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from helios_fs.history import patch
from helios_fs.history.diff import diff_trees
from helios_fs.history.ingest import ingest
from helios_fs.history.patch import Counts, LeftOut, Plan, count, plan, quoted, write_patch
from helios_fs.store.store import Store

_NOISE = hashlib.shake_128(b"noise").digest(3 << 20)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    Store.create(str(tmp_path / "store"))
    with Store.open(str(tmp_path / "store")) as opened:
        yield opened


@pytest.fixture
def a(tmp_path: Path) -> Path:
    (tmp_path / "a").mkdir()
    return tmp_path / "a"


@pytest.fixture
def b(tmp_path: Path) -> Path:
    (tmp_path / "b").mkdir()
    return tmp_path / "b"


def _plan(store: Store, a: Path, b: Path) -> Plan:
    os.utime(a, (0, 0))
    os.utime(b, (0, 0))
    return plan(diff_trees(store.objects, ingest(store, str(a), "ba").tree, ingest(store, str(b), "bb").tree))


def _patch(store: Store, planned: Plan) -> bytes:
    return b"".join(part for step in planned.steps for part in write_patch(store.objects, step))


def _apply(where: Path, text: bytes) -> None:
    done = subprocess.run(["git", "apply"], input=text, cwd=where, capture_output=True, timeout=60)
    assert done.returncode == 0, done.stderr


def test_one_of_everything(store: Store, a: Path, b: Path) -> None:
    (a / "changed").write_bytes(b"".join(b"%d\n" % n for n in range(1, 21)))
    (b / "changed").write_bytes(b"".join(b"%d\n" % n for n in range(1, 20) if n != 10) + b"20")
    (a / "gone").write_bytes(b"x\n")
    (b / "sp ace\t").write_bytes(b"")
    (a / "old name").write_bytes(b"content")
    (b / "new").write_bytes(b"content")
    (b / "new").chmod(0o755)
    (a / "turns").write_bytes(b"file")
    (b / "turns").symlink_to("target")
    planned = _plan(store, a, b)
    assert planned.left_out == []
    assert [count(store.objects, step) for step in planned.steps] == [
        Counts(1, 2), Counts(0, 1), Counts(0, 0), Counts(0, 0), Counts(0, 1), Counts(1, 0),
    ]  # fmt: skip
    assert _patch(store, planned).decode() == (
        """\
diff --git a/changed b/changed
index 0ff3bbb9c8bba2291654cd64067fa417ff54c508..b7ce9ce10c39bc29f769e6709dc83050e2efca53 100644
--- a/changed
+++ b/changed
@@ -7,7 +7,6 @@
 7
 8
 9
-10
 11
 12
 13
@@ -17,4 +16,4 @@
 17
 18
 19
-20
+20
\\ No newline at end of file
diff --git a/gone b/gone
deleted file mode 100644
index 587be6b4c3f93f93c489c0111bba5596147a26cb..0000000000000000000000000000000000000000
--- a/gone
+++ /dev/null
@@ -1 +0,0 @@
-x
diff --git a/old name b/new
old mode 100644
new mode 100755
similarity index 100%
rename from old name
rename to new
diff --git "a/sp ace\\t" "b/sp ace\\t"
new file mode 100644
index 0000000000000000000000000000000000000000..e69de29bb2d1d6434b8b29ae775ad8c2e48c5391
diff --git a/turns b/turns
deleted file mode 100644
index 1a010b1c0f081b2e8901d55307a15c29ff30af0e..0000000000000000000000000000000000000000
--- a/turns
+++ /dev/null
@@ -1 +0,0 @@
-file
\\ No newline at end of file
diff --git a/turns b/turns
new file mode 120000
index 0000000000000000000000000000000000000000..1de565933b05f74c75ff9a6520af5f9f8a5a2f1d
--- /dev/null
+++ b/turns
@@ -0,0 +1 @@
+target
\\ No newline at end of file
"""
    )


def test_git_itself_says_the_same(store: Store, a: Path, b: Path) -> None:
    """The same two directories, compared by `git diff --no-index`."""
    for root, text in ((a, b"one\ntwo\nthree\n"), (b, b"one\n2\nthree")):
        (root / "text").write_bytes(text)
        (root / "dir").mkdir()
        (root / "dir" / "link").symlink_to(os.fsdecode(text[4:7].strip()))
    (a / "dir" / "gone").write_bytes(b"gone\n")
    (b / "dir" / "mode").write_bytes(b"")
    (a / "dir" / "mode").write_bytes(b"")
    (a / "dir" / "mode").chmod(0o755)
    theirs = subprocess.run(
        ["git", "diff", "--no-index", "--no-renames", "--full-index", "--no-prefix", "a", "b"],
        cwd=a.parent, capture_output=True, timeout=60,
    ).stdout  # fmt: skip
    ours = _patch(store, _plan(store, a, b))
    # Without an index, git's names in `diff --git` say which side a file is on, where there is only one.
    assert sorted(ours.splitlines()) == sorted(
        theirs.replace(b"a/dir/gone a/dir/gone", b"a/dir/gone b/dir/gone").splitlines()
    )


def test_what_git_cannot_say_is_left_out(store: Store, a: Path, b: Path) -> None:
    for root in (a, b):
        (root / ".git").mkdir()
        (root / "dir").mkdir()
        for name in (".git/config", "mode", "time", "xattr", "dir/in", "same"):
            (root / name).write_bytes(b"x")
            os.utime(root / name, (0, 0))
        (root / "dir").chmod(0o700 if root == a else 0o755)
        (root / "mode").chmod(0o600 if root == a else 0o640)
        (root / "sub").mkdir()
        (root / "sub" / ("GIT~1" if root == a else ".Git .")).write_bytes(root.name.encode())
    (b / ".git" / "config").write_bytes(b"y")
    os.utime(b / "time", (1, 1))
    os.setxattr(b / "xattr", "user.x", b"1")
    (a / "empty").mkdir()
    (b / "full").mkdir()
    (b / "full" / "of").mkdir()
    os.mkfifo(b / "fifo")
    (a / "file").write_bytes(b"a file")
    os.mknod(b / "file", stat.S_IFSOCK | 0o755)
    planned = _plan(store, a, b)
    assert planned.left_out == [
        LeftOut(b".git/config", patch.REFUSED_NAMES),
        LeftOut(b"dir", patch.ATTRIBUTES),
        LeftOut(b"empty", patch.EMPTY_DIRECTORIES),
        LeftOut(b"fifo", patch.SPECIAL_FILES),
        LeftOut(b"file", patch.SPECIAL_FILES),
        LeftOut(b"full/of", patch.EMPTY_DIRECTORIES),
        LeftOut(b"mode", patch.ATTRIBUTES),
        LeftOut(b"sub/.Git .", patch.REFUSED_NAMES),
        LeftOut(b"sub/GIT~1", patch.REFUSED_NAMES),
        LeftOut(b"time", patch.ATTRIBUTES),
        LeftOut(b"xattr", patch.ATTRIBUTES),
    ]
    text = _patch(store, planned)
    assert text.count(b"diff --git") == 1
    _apply(a, text)
    assert not (a / "file").exists()


def test_an_executable_that_changes_is_said_whole(store: Store, a: Path, b: Path) -> None:
    for root, mode in ((a, 0o644), (b, 0o755)):
        (root / "x").write_bytes(root.name.encode())
        (root / "x").chmod(mode)
    planned = _plan(store, a, b)
    assert planned.left_out == []
    assert _patch(store, planned).splitlines()[1:4] == [
        b"old mode 100644",
        b"new mode 100755",
        b"index 2e65efe2a145dda7ee51d1741299f848e5bf752e..63d8dbd40c23542e740659a7168a0ce3138ea748",
    ]


def test_a_rename_goes_to_the_like_name_and_takes_each_source_once(store: Store, a: Path, b: Path) -> None:
    for name in ("one", "two", "three"):
        (a / name).write_bytes(b"same")
    (a / "none").write_bytes(b"")
    (b / "dir").mkdir()
    (b / "other").write_bytes(b"")
    for name in ("dir/two", "four", "zfive", "zsix"):
        (b / name).write_bytes(b"same")
    planned = _plan(store, a, b)
    assert {(step.old and step.old.path, step.new and step.new.path) for step in planned.steps} == {
        (b"two", b"dir/two"),
        (b"one", b"four"),
        (b"three", b"zfive"),
        (None, b"zsix"),
        (b"none", None),
        (None, b"other"),
    }
    _apply(a, _patch(store, planned))
    assert sorted(path.name for path in a.iterdir()) == ["dir", "four", "other", "zfive", "zsix"]


def test_a_large_binary_file_says_only_what_is_new(store: Store, a: Path, b: Path) -> None:
    (a / "large").write_bytes(_NOISE)
    changed = _NOISE[:1_000_000] + b"!" + _NOISE[1_000_001:2_000_000] + bytes(300_000) + _NOISE[2_000_000:]
    with (b / "large").open("wb") as file:
        file.write(changed)
        file.seek(1 << 20, os.SEEK_CUR)
        file.write(_NOISE[:1_500_000])
        file.truncate(file.tell() + 50_000)
    planned = _plan(store, a, b)
    text = _patch(store, planned)
    assert text.count(b"\ndelta ") == 2
    assert len(text) < len(_NOISE)
    assert count(store.objects, planned.steps[0]) == Counts(None, None)
    _apply(a, text)
    assert (a / "large").read_bytes() == (b / "large").read_bytes()


def test_a_hole_and_zeros_are_one_content(store: Store, a: Path, b: Path) -> None:
    (a / "sparse").touch()
    os.truncate(a / "sparse", 1 << 20)
    (b / "sparse").write_bytes(bytes(1 << 20))
    assert _patch(store, _plan(store, a, b)) == b""


def test_a_hole_and_zeros_may_differ_in_mode(store: Store, a: Path, b: Path) -> None:
    (a / "sparse").touch()
    os.truncate(a / "sparse", 1 << 20)
    (b / "sparse").write_bytes(bytes(1 << 20))
    (b / "sparse").chmod(0o755)
    text = _patch(store, _plan(store, a, b))
    assert text == b"diff --git a/sparse b/sparse\nold mode 100644\nnew mode 100755\n"
    _apply(a, text)


def test_large_text_is_binary_and_huge_files_are_left_out(
    store: Store, a: Path, b: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(patch, "TEXT_LIMIT_BYTES", 1000)
    monkeypatch.setattr(patch, "FILE_LIMIT_BYTES", 100_000)
    for root in (a, b):
        (root / "text").write_bytes(b"line\n" * 300 + bytes(root)[-1:])
        (root / "huge").write_bytes(bytes(root)[-1:] * 100_001)
        (root / "renamed").mkdir()
        (root / "renamed" / root.name).write_bytes(b"r" * 100_000)
    planned = _plan(store, a, b)
    assert planned.left_out == [LeftOut(b"huge", patch.TOO_LARGE)]
    assert count(store.objects, planned.steps[-1]) == Counts(None, None)
    text = _patch(store, planned)
    assert text.count(b"GIT binary patch") == 1
    _apply(a, text)
    assert (a / "text").read_bytes() == (b / "text").read_bytes()
    assert (a / "renamed" / "b").exists()


@pytest.mark.parametrize(
    ("name", "said"),
    [
        (b"plain name", b"plain name"),
        ("übung".encode(), "übung".encode()),
        (b'say "x"', rb'"say \"x\""'),
        (b"back\\slash", rb'"back\\slash"'),
        (b"\a\b\t\n\v\f\r\x1b\x7f", rb'"\a\b\t\n\v\f\r\033\177"'),
        (b"\xff\xe4", rb'"\377\344"'),
        (b"ends in a space /x", b'"ends in a space /x"'),
    ],
)
def test_names_are_quoted_as_git_does(name: bytes, said: bytes) -> None:
    assert quoted(name) == said
