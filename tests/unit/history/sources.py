"""Directories with everything in them, for what takes trees in and writes them out."""

import os
import stat
import subprocess
from pathlib import Path

NOISE = b"".join(i.to_bytes(4, "big") for i in range(100_000))


def make_source(root: Path) -> None:
    """Fill `root` with every type, names that are not UTF-8, links, holes, xattrs, odd modes and times."""
    for directory in ("src/deep/er", "empty", ".snapshots/old"):
        (root / directory).mkdir(parents=True)
    (root / "src/a.c").write_bytes(b"int main;\n")
    (root / "src/a.o").write_bytes(bytes(3000))
    (root / "src/large.bin").write_bytes(NOISE)
    (root / "src/deep/er/b.c").write_bytes(b"b")
    (root / "none").write_bytes(b"")
    with (root / "sparse").open("wb") as file:
        for offset in (1 << 20, 5 << 30):
            file.seek(offset)
            file.write(b"data")
        file.truncate(6 << 30)
    Path(os.fsdecode(bytes(root) + b"/not\xffutf8")).write_bytes(b"?")
    Path(os.fsdecode(bytes(root) + b"/" + b"\xfe" * 255)).write_bytes(b"long")
    (root / "link").symlink_to("src/a.c")
    (root / "loop").symlink_to("loop")
    os.symlink(b"/nowhere/\xff", root / "dangling")
    os.link(root / "src/a.c", root / "src/deep/hard.c")
    os.link(root / "src/a.c", root / "hard")
    os.mkfifo(root / "fifo", 0o640)
    os.link(root / "fifo", root / "src/fifo2")
    os.mknod(root / "sock", stat.S_IFSOCK | 0o755)  # bind(2) takes no path of more than 107 bytes
    for path, mode in (("none", 0), ("src/a.o", 0o4755), ("src/deep", 0o2750), ("empty", 0o1777), ("hard", 0o444)):
        (root / path).chmod(mode)
    (root / "src/deep/er").chmod(0o500)
    os.setxattr(root / "src/a.o", b"user.note", b"\0x")
    os.setxattr(root / "src", b"user.empty", b"")
    for path in ("src/a.c", "sparse", "src/deep", "empty", "fifo"):
        os.utime(root / path, ns=(1_000_000_001, -5 if path == "empty" else 1_234_567_890_123_456_789))
    os.utime(root / "link", ns=(7, 77_000_000_007), follow_symlinks=False)


def make_root_only(root: Path) -> None:
    """Add what only root can make."""
    os.mknod(root / "device", 0o020600, os.makedev(1, 3))
    os.mknod(root / "disk", 0o060640, os.makedev(250, 7))
    (root / "owned").write_bytes(b"theirs")
    os.chown(root / "owned", 12345, 54321)
    (root / "owned").chmod(0o6755)
    os.chown(root / "link", 12345, 54321, follow_symlinks=False)
    os.setxattr(root / "owned", b"trusted.t", b"1")
    # A capability: VFS_CAP_REVISION_2, cap_net_raw (linux/capability.h).
    os.setxattr(root / "owned", b"security.capability", bytes.fromhex("0100000200200000000000000000000000000000"))
    os.setxattr(root / "link", b"trusted.l", b"on a symlink", follow_symlinks=False)


def rsync_differences(a: Path, b: Path) -> str:
    """Return what `rsync -aHAXn` would change in `b` to make it `a`."""
    done = subprocess.run(
        ["rsync", "-aHAXn", "--delete", "--itemize-changes", f"{a}/", f"{b}/"],
        capture_output=True, text=True, errors="surrogateescape", check=True,
    )  # fmt: skip
    return done.stdout
