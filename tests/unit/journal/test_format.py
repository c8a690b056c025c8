"""The journal as docs/format.md describes it, read by code that shares nothing with the program's own."""

import os
import stat
import struct
from pathlib import Path

import xxhash

from helios_fs.objects import record
from tests.model.harness import Branch


def frames_of(path: Path) -> list[tuple[int, int, bytes, bytes]]:
    """Return (kind, flags, payload, data) of each frame of one segment, by the document's tables."""
    raw = path.read_bytes()
    magic, version, zero, start, key, checksum = struct.unpack_from("<8sIIQQQ", raw)
    assert (magic, version, zero) == (b"HELIOSJ\0", 0, 0)
    assert checksum == xxhash.xxh3_64_intdigest(raw[:32])
    assert path.name == f"{start:016x}.seg"
    found = []
    at = 40
    while at < len(raw):
        checksum, payload_bytes, data_bytes, kind, flags = struct.unpack_from("<QIIBB", raw, at)
        assert raw[at + 18 : at + 24] == bytes(6)
        blocks = -(-data_bytes // 32768)
        body = at + 32 + payload_bytes + 8 * blocks
        assert checksum == xxhash.xxh3_64_intdigest(raw[at + 8 : body], (start + at - 40 + key) % 2**64)
        data = raw[body : body + data_bytes]
        sums = struct.unpack_from(f"<{blocks}Q", raw, at + 32 + payload_bytes)
        for block in range(blocks):
            assert sums[block] == xxhash.xxh3_64_intdigest(data[block * 32768 : (block + 1) * 32768])
        found.append((kind, flags, raw[at + 32 : at + 32 + payload_bytes], data))
        at = body + data_bytes
    return found


def test_a_journal_reads_as_documented(tmp_path: Path) -> None:
    """One record of each common kind, its bytes taken apart by hand."""
    branch = Branch(str(tmp_path / "store"))
    worktree, root = branch.worktree, branch.worktree.index.root
    made = worktree.create(root, b"file", stat.S_IFREG | 0o640, 7, 8)
    worktree.write(made, 5, b"x" * 40_000)
    worktree.setattr(made, record.SET_MODE | record.SET_SIZE, mode=0o600, size=9)
    worktree.setxattr(made, b"user.a", b"value")
    worktree.link(made, root, b"other")
    worktree.rename(root, b"file", root, b"moved", exchange=False, replace=True)
    worktree.unlink(root, b"other")
    worktree.snapshot(b"name")
    worktree.write(made, 0, b"bound")
    branch.close()
    name, reserve = sorted(os.listdir(tmp_path / "store" / "journals" / "main"))
    assert reserve == "reserve"
    found = frames_of(tmp_path / "store" / "journals" / "main" / name)
    assert [frame[0] for frame in found] == [2, 3, 4, 8, 7, 6, 5, 11, 1, 3]
    create, write, setattr_, setxattr, link, rename, unlink, _, bind, _ = (frame[2] for frame in found)
    ino = made.ino
    assert create == struct.pack("<QQIIIQB", 1, ino, stat.S_IFREG | 0o640, 7, 8, 0, 4) + b"file"
    assert (write, found[1][3]) == (struct.pack("<QQ", ino, 5), b"x" * 40_000)
    assert setattr_ == struct.pack("<QHIIIQqq", ino, 1 | 8, 0o600, 0, 0, 9, 0, 0)
    assert setxattr == struct.pack("<QB", ino, 6) + b"user.avalue"
    assert link == struct.pack("<QQ", 1, ino) + b"other"
    assert rename == struct.pack("<QQQQBB", 1, ino, 1, 0, 0, 4) + b"filemoved"
    assert unlink == struct.pack("<QQ", 1, ino) + b"other"
    assert bind == struct.pack("<QQB", ino, 0, 0)


def test_the_document_names_every_record() -> None:
    """The table of records has each kind, by number and name."""
    text = Path(__file__).parents[3].joinpath("docs", "format.md").read_text()
    kinds = {
        name: value
        for name, value in vars(record).items()
        if name.isupper() and isinstance(value, int) and f"\n| {value} | {name} |" in text
    }
    assert sorted(kinds.values()) == list(range(1, 19))
