"""Small whole trees, as a sealer would store them."""

import stat

from helios_fs.objects.entry import (
    ChunkRef,
    Entry,
    Tree,
    directory_key,
    encode_chunk,
    encode_entry,
    encode_tree,
    ino_key,
    offset_key,
)
from helios_fs.objects.ids import KIND_BLOB, KIND_TREE, ObjectId
from helios_fs.store import maps
from helios_fs.store.writer import Writer


def directory_entry(content: bytes, ino: int = 1) -> Entry:
    return Entry(ino, stat.S_IFDIR | 0o755, 0, 0, 2, 0, 0, 0, 1, 1, 1, content)


def file_entry(content: bytes, size: int, ino: int) -> Entry:
    return Entry(ino, stat.S_IFREG | 0o644, 0, 0, 1, 0, size, size, 1, 1, 1, content)


def store_directory(writer: Writer, entries: dict[bytes, Entry | int]) -> bytes:
    return maps.edit(writer, b"", {directory_key(name): encode_entry(entry) for name, entry in entries.items()})


def store_large_file(writer: Writer, chunks: list[bytes], ino: int) -> Entry:
    """A file with a chunk list, whatever the chunks' length; its size says that it has one."""
    offset, items = 0, {}
    for chunk in chunks:
        items[offset_key(offset)] = encode_chunk(ChunkRef(len(chunk), writer.put(KIND_BLOB, chunk)))
        offset += len(chunk)
    return file_entry(maps.edit(writer, b"", items), max(offset, 1 << 20), ino)


def store_tree(writer: Writer, files: dict[bytes, bytes], linked: bytes = b"", large: bytes = b"") -> ObjectId:
    """A tree with small files in a subdirectory, a hard link where `linked` is given, a chunked file for `large`."""
    entries: dict[bytes, Entry | int] = {}
    for ino, (name, data) in enumerate(files.items(), 10):
        entries[name] = file_entry(writer.put(KIND_BLOB, data) if data else b"", len(data), ino)
    entries[b"symlink"] = Entry(5, stat.S_IFLNK | 0o777, 0, 0, 1, 0, 6, 0, 1, 1, 1, b"target")
    links = b""
    if linked:
        entries[b"link"] = entries[b"link2"] = 7
        links = maps.edit(
            writer, b"", {ino_key(7): encode_entry(file_entry(writer.put(KIND_BLOB, linked), len(linked), 7))}
        )
    if large:
        entries[b"large"] = store_large_file(writer, [large[:100], large[100:]], 8)
    below = store_directory(writer, entries)
    root = store_directory(writer, {b"below": directory_entry(below, 2)})
    return writer.put(KIND_TREE, encode_tree(Tree(directory_entry(root), links)))
