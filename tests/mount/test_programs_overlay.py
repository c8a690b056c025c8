"""What containers' layers are made of: whiteouts, trusted attributes; the kernel's overlayfs over and in a mount."""

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.mount.mounted import Workspace
from tests.mount.programs import differences, run

pytestmark = [pytest.mark.fuse, pytest.mark.root]


def make_layer(layer: Path) -> None:
    """Make what docker's overlay2 driver leaves in an upper directory: removed names and a directory made anew."""
    (layer / "etc").mkdir(parents=True)
    (layer / "etc/changed").write_text("from the upper layer\n")
    os.mknod(layer / "etc/removed", stat.S_IFCHR, os.makedev(0, 0))
    (layer / "anew").mkdir()
    os.setxattr(layer / "anew", "trusted.overlay.opaque", b"y")
    os.setxattr(layer / "etc", "trusted.overlay.origin", b"\0\xfb\x1d\0\1\0\2")
    (layer / "anew/file").write_text("nothing of the lower directory shows\n")


def check_layer(layer: Path) -> None:
    status = (layer / "etc/removed").lstat()
    assert stat.S_ISCHR(status.st_mode)
    assert status.st_rdev == os.makedev(0, 0)
    assert os.getxattr(layer / "anew", "trusted.overlay.opaque") == b"y"
    assert os.getxattr(layer / "etc", "trusted.overlay.origin") == b"\0\xfb\x1d\0\1\0\2"


def test_whiteouts_are_kept(shared: Workspace, folder: Path, tmp_path: Path) -> None:
    layer = folder / "layer"
    make_layer(layer)
    check_layer(layer)
    shared.kill()
    shared.mount()
    check_layer(layer)
    (shared.path / ".snapshots/with-whiteouts").mkdir()
    shared.remount()
    check_layer(layer)
    check_layer(shared.path / ".snapshots/with-whiteouts" / layer.relative_to(shared.path))
    run("rm", "-rf", layer)
    shared.helios("restore", "-C", folder, "with-whiteouts", layer, check=True)
    check_layer(layer)
    shared.helios("materialize", "-C", folder, "with-whiteouts", tmp_path / "out", check=True)
    check_layer(tmp_path / "out" / layer.relative_to(shared.path))
    # What docker save and load do with a layer.
    tar = ("tar", "--xattrs", "--xattrs-include=*")
    run(*tar, "-cpf", tmp_path / "layer.tar", "-C", layer, ".")
    (folder / "again").mkdir()
    run(*tar, "-xpf", tmp_path / "layer.tar", "-C", folder / "again")
    check_layer(folder / "again")
    assert differences(layer, folder / "again") == ""


@contextmanager
def overlaid(at: Path, lower: Path, upper: Path, work: Path) -> Iterator[None]:
    """The kernel's overlayfs."""
    options = f"lowerdir={lower},upperdir={upper},workdir={work}"
    run("mount", "-t", "overlay", "overlay", "-o", options, at)
    try:
        yield
    finally:
        run("umount", at)


def test_the_kernels_overlayfs_over_a_mount(shared: Workspace, folder: Path, tmp_path: Path) -> None:
    """A working tree, or a snapshot of it, as the image that a container starts from."""
    image = folder / "image"
    (image / "etc").mkdir(parents=True)
    for name in ("changed", "removed", "kept"):
        (image / "etc" / name).write_text("from the lower layer\n")
    os.link(image / "etc/kept", image / "linked")
    (image / "moved").mkdir()
    (image / "moved/file").write_text("moved with its directory\n")
    (shared.path / ".snapshots/image").mkdir()
    frozen = shared.path / ".snapshots/image" / image.relative_to(shared.path)
    for number, lower in enumerate((image, frozen)):
        merged, upper, work = (tmp_path / f"{name}{number}" for name in ("merged", "upper", "work"))
        for directory in (merged, upper, work):
            directory.mkdir()
        with overlaid(merged, lower, upper, work):
            (merged / "etc/changed").write_text("from the upper layer\n")
            (merged / "etc/removed").unlink()
            run("mv", merged / "moved", merged / "elsewhere")
            run("sed", "-i", "s/lower/merged/", merged / "linked")
            assert sorted(os.listdir(merged)) == ["elsewhere", "etc", "linked"]
            assert (merged / "elsewhere/file").read_text() == "moved with its directory\n"
            assert (merged / "linked").read_text() == "from the merged layer\n"
            assert sorted(os.listdir(merged / "etc")) == ["changed", "kept"]
        assert stat.S_ISCHR((upper / "etc/removed").lstat().st_mode)
        assert (lower / "etc/changed").read_text() == "from the lower layer\n"
        # The layer that it has written goes into the mount, whole.
        run("cp", "-a", upper, folder / f"layer{number}")
        assert differences(upper, folder / f"layer{number}") == ""


def test_overlayfs_refuses_a_mount_as_its_upper_directory(folder: Path) -> None:
    """It wants RENAME_WHITEOUT there of every filesystem like FUSE (that revalidates names), and mounts nothing."""
    for name in ("lower", "upper", "work", "merged"):
        (folder / name).mkdir()
    options = f"lowerdir={folder}/lower,upperdir={folder}/upper,workdir={folder}/work"
    run("mount", "-t", "overlay", "overlay", "-o", options, folder / "merged", code=32)
    assert not os.path.ismount(folder / "merged")
    assert os.listdir(folder / "upper") == []
