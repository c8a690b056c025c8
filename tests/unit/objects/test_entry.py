import stat

import pytest

from helios_fs.errors import CorruptObject
from helios_fs.objects import entry
from helios_fs.objects.entry import ChunkRef, Entry, Tree


def _entry(mode: int, **more: object) -> Entry:
    fields: dict[str, object] = {"ino": 7, "mode": mode, "uid": 1, "gid": 2, "nlink": 1, "rdev": 0, "size": 3}
    fields |= {"allocated": 3, "atime_ns": -1, "mtime_ns": 2**62, "ctime_ns": 5, "content": b"\x01" * 32, **more}
    return Entry(**fields)  # type: ignore[arg-type]  # as the test says


def test_types() -> None:
    assert _entry(stat.S_IFDIR | 0o755).is_directory and not _entry(stat.S_IFDIR | 0o755).is_file
    assert _entry(stat.S_IFREG | 0o644).is_file and not _entry(stat.S_IFREG | 0o644).is_directory
    link = _entry(stat.S_IFLNK | 0o777)
    assert not link.is_file and not link.is_directory


def test_equal_entries_have_equal_bytes_whatever_the_order_of_their_xattrs() -> None:
    one = _entry(stat.S_IFREG, xattrs={b"user.a": b"1", b"user.b": b"2"})
    other = _entry(stat.S_IFREG, xattrs={b"user.b": b"2", b"user.a": b"1"})
    assert entry.encode_entry(one) == entry.encode_entry(other)
    assert entry.decode_entry(entry.encode_entry(other)) == one


def test_an_entry_may_be_only_a_number() -> None:
    assert entry.decode_entry(entry.encode_entry(2**48 - 1)) == 2**48 - 1


def test_a_chunk_and_an_entry_never_decode_as_each_other() -> None:
    with pytest.raises(CorruptObject):
        entry.decode_chunk(entry.encode_entry(_entry(stat.S_IFREG)))
    with pytest.raises(CorruptObject):
        entry.decode_entry(entry.encode_chunk(ChunkRef(5, b"\x02" * 32)))


def test_trees() -> None:
    tree = Tree(_entry(stat.S_IFDIR), b"links")
    assert entry.decode_tree(entry.encode_tree(tree)) == tree
    with pytest.raises(CorruptObject):
        entry.decode_tree(b"\x92\x01\x02")


def test_name_hashes_leave_room_for_the_first_cookies() -> None:
    hashes = {entry.name_hash(b"%d" % number) for number in range(2000)}
    assert min(hashes) > 2
    assert max(hashes) < 2**63
    assert len(hashes) == 2000


def test_keys_sort_as_their_numbers() -> None:
    assert entry.directory_key(b"name") == entry.name_hash(b"name").to_bytes(8, "big") + b"name"
    numbers = [0, 1, 255, 256, 2**40, 2**63]
    assert sorted(map(entry.ino_key, reversed(numbers))) == list(map(entry.ino_key, numbers))
    assert sorted(map(entry.offset_key, reversed(numbers))) == list(map(entry.offset_key, numbers))
