"""Programs that move files about: editors, tar, rsync, cp, the byte-code compiler, find, rm."""

import compileall
import filecmp
import os
import shutil
import sysconfig
from pathlib import Path

import pytest

from tests.mount.mounted import Workspace
from tests.mount.programs import differences, run

pytestmark = pytest.mark.fuse

STANDARD_LIBRARY = Path(sysconfig.get_path("stdlib"))
PACKAGES = ("json", "email", "importlib", "xml")


def make_sources(folder: Path) -> Path:
    """Make a tree with one of everything that an ordinary user can make."""
    tree = folder / "sources"
    for package in PACKAGES:
        shutil.copytree(STANDARD_LIBRARY / package, tree / package, ignore=shutil.ignore_patterns("__pycache__"))
    (tree / "empty").mkdir()
    (tree / "hard1").write_text("one inode, two names\n")
    os.link(tree / "hard1", tree / "json" / "hard2")
    os.symlink("../json/hard2", tree / "xml" / "soft")
    os.symlink("nowhere", tree / "dangling")
    os.mkfifo(tree / "fifo")
    Path(os.fsdecode(bytes(tree) + b"/n\xe4me \xff\n")).write_bytes(b"a name that is not UTF-8\n")
    (tree / ("n" * 255)).write_text("the longest name\n")
    (tree / "mode").write_text("x")
    (tree / "mode").chmod(0o4751)
    os.setxattr(tree / "mode", "user.comment", b"kept \0 whole")
    with open(tree / "sparse", "wb") as sparse:
        sparse.seek(8 << 20)
        sparse.write(b"the end")
    os.utime(tree / "hard1", ns=(1_234_567_890_123_456_789, 987_654_321_987_654_321))
    return tree


def test_rsync_copies_everything_both_ways(mounted: Workspace, tmp_path: Path) -> None:
    sources = make_sources(tmp_path)
    inside, back = mounted.path / "inside", tmp_path / "back"
    run("rsync", "-aHAX", f"{sources}/", f"{inside}/")
    assert differences(sources, inside) == ""
    mounted.remount()
    assert differences(sources, inside) == ""
    run("rsync", "-aHAX", f"{inside}/", f"{back}/")
    assert differences(sources, back) == ""
    assert (inside / "hard1").stat().st_ino == (inside / "json" / "hard2").stat().st_ino


def test_tar_in_and_out(mounted: Workspace, tmp_path: Path) -> None:
    sources = make_sources(tmp_path)
    archive = tmp_path / "sources.tar"
    run("tar", "--xattrs", "-cpf", archive, "-C", sources, ".")
    inside = mounted.path / "inside"
    inside.mkdir()
    run("tar", "--xattrs", "-xpf", archive, "-C", inside)
    assert differences(sources, inside) == ""
    run("tar", "--compare", "-f", archive, "-C", inside)
    packed = mounted.path / "packed.tar.gz"
    run("tar", "-czf", packed, "-C", inside, ".")
    run("tar", "--compare", "-zf", packed, "-C", inside)


def test_cp_sparse_and_reflink_fall_back(mounted: Workspace, tmp_path: Path) -> None:
    sources = make_sources(tmp_path)
    run("cp", "-a", sources, mounted.path / "one")
    run("cp", "-a", "--reflink=auto", "--sparse=always", mounted.path / "one", mounted.path / "two")
    assert differences(mounted.path / "one", mounted.path / "two") == ""
    assert (mounted.path / "two" / "sparse").stat().st_blocks < 100


@pytest.mark.parametrize("editor", ["vim", "ed", "sed", "move"])
def test_an_editor_saves(mounted: Workspace, editor: str) -> None:
    file = mounted.path / "text"
    file.write_text("first\nsecond\n")
    file.chmod(0o640)
    if editor == "vim":
        run("vim", "-es", "-u", "NONE", "-c", "set backup writebackup", "-c", "%s/second/third/", "-c", "wq", file)
    elif editor == "ed":
        run("ed", "-s", file, stdin="2s/second/third/\nw\nq\n")
    elif editor == "sed":
        run("sed", "-i", "s/second/third/", file)
    else:
        with open(mounted.path / ".text.new", "w") as new:
            new.write("first\nthird\n")
            os.fchmod(new.fileno(), 0o640)
            new.flush()
            os.fsync(new.fileno())
        os.replace(mounted.path / ".text.new", file)
    assert file.read_text() == "first\nthird\n"
    mounted.kill()
    mounted.mount()
    assert file.read_text() == "first\nthird\n"
    assert file.stat().st_mode & 0o777 == 0o640
    assert set(os.listdir(mounted.path)) <= {"text", "text~"}


def test_byte_code_is_compiled_once(mounted: Workspace) -> None:
    for package in PACKAGES:
        shutil.copytree(STANDARD_LIBRARY / package, mounted.path / package)
    assert compileall.compile_dir(str(mounted.path), quiet=2, force=True)
    compiled = {path: path.stat().st_mtime_ns for path in mounted.path.rglob("*.pyc")}
    assert len(compiled) > 50
    mounted.remount()
    # The byte code names the source's mtime and size: after a remount nothing is out of date.
    assert compileall.compile_dir(str(mounted.path), quiet=2)
    assert {path: path.stat().st_mtime_ns for path in mounted.path.rglob("*.pyc")} == compiled


def test_find_and_rm_see_no_history(mounted: Workspace) -> None:
    shutil.copytree(STANDARD_LIBRARY / "json", mounted.path / "json")
    os.mkdir(mounted.path / ".snapshots" / "before")
    listed = run("find", ".", where=mounted.path).split()
    assert listed == [name for name in listed if ".snapshots" not in name]
    assert len(listed) > 5
    run("rm", "-rf", mounted.path / "json")
    assert os.listdir(mounted.path) == []
    kept = mounted.path / ".snapshots" / "before" / "json"
    assert filecmp.cmp(kept / "decoder.py", STANDARD_LIBRARY / "json" / "decoder.py", shallow=False)


def test_a_tree_of_many_names_is_removed_while_it_is_listed(mounted: Workspace) -> None:
    names = [f"name{number}" for number in range(3000)]
    directory = mounted.path / "many"
    directory.mkdir()
    for name in names:
        (directory / name).touch()
    assert sorted(os.listdir(directory)) == sorted(names)
    run("rm", "-r", directory)
    assert not directory.exists()
