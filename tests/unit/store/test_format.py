"""The store as docs/format.md describes it, read by code that shares nothing with the program's own."""

import os
import re
import struct
from pathlib import Path

import msgspec
import xxhash
import zstandard
from blake3 import blake3

from helios_fs.objects.entry import INLINE_LIMIT, directory_key
from helios_fs.objects.pages import boundary_level
from helios_fs.objects.snapshot import Head, HeadMoved, Snapshot, SnapshotSealed
from helios_fs.store.gc import collect
from helios_fs.store.store import Store
from tests.unit.store.trees import store_tree

_MASK = (1 << 64) - 1


def _xxh3(data: bytes, seed: int = 0) -> int:
    return xxhash.xxh3_64_intdigest(data, seed)


def _read_pack(path: Path, store_id: bytes) -> dict[bytes, tuple[int, bytes]]:
    data = path.read_bytes()
    magic, version, zero, number, owner, _, salt = struct.unpack_from("<8sIIQ16s16sQ", data)
    assert (magic, version, zero, owner) == (b"HELPACK\n", 0, 0, store_id)
    assert path.name == f"{number:08x}.pack"
    assert salt == _xxh3(data[:56])
    objects, at = {}, 64
    while at < len(data):
        magic, kind, codec, zero, size, stored, name, check = struct.unpack_from("<4sBBHII32sQ", data, at)
        payload = data[at + 56 : at + 56 + stored]
        assert (magic, zero) == (b"HREC", 0)
        assert check == _xxh3(payload, _xxh3(data[at : at + 48], (salt + at) & _MASK))
        if codec == 1:
            payload = zstandard.ZstdDecompressor().decompress(payload)
        assert len(payload) == size
        assert name == blake3(bytes([kind]) + payload).digest()
        objects[name] = (kind, payload)
        at += 56 + stored
    return objects


def _read_refs(data: bytes, store_id: bytes) -> list[object]:
    assert struct.unpack_from("<8sII16s", data) == (b"HELREFS\n", 0, 0, store_id)
    records, at = [], 32
    while at < len(data):
        magic, size, check = struct.unpack_from("<4sIQ", data, at)
        payload = data[at + 16 : at + 16 + size]
        assert magic == b"HREF"
        assert check == _xxh3(payload, ((at << 32) ^ size) & _MASK)
        records.append(msgspec.msgpack.decode(payload))
        at += 16 + size
    return records


def _read_map(objects: dict[bytes, tuple[int, bytes]], root: bytes) -> dict[bytes, bytes]:
    kind, payload = objects[root]
    level, keys, values = msgspec.msgpack.decode(payload)
    assert kind == 2
    if level == 0:
        return dict(zip(keys, values, strict=True))
    return {key: value for child in values for key, value in _read_map(objects, child).items()}


def test_a_store_is_what_the_document_says(path: str) -> None:
    files = {b"%d" % number: b"%d" % number * 60 for number in range(300)}
    with Store.open(path) as store, store.writer() as writer:
        store.reserve_inos(10)
        fence = store.take_branch("main")
        tree = store_tree(writer, files, linked=b"linked", large=b"l" * 300)
        snapshot = Snapshot(
            "0123456789", "main", tree, ["0000000000"], 5, 3, b"name", "message", "me", "here", "helios snapshot", True
        )
        head = Head("main", tree, 9, 2)
        writer.publish([SnapshotSealed(snapshot), HeadMoved(head)], "main", fence)

    first, second = Path(path, "format").read_text().splitlines()
    assert first == "helios-store 0"
    store_id = bytes.fromhex(second.removeprefix("id "))
    objects = _read_pack(Path(path, "packs", "00000000.pack"), store_id)
    size = os.path.getsize(f"{path}/packs/00000000.pack")

    inos, taken, published = _read_refs(Path(path, "refs").read_bytes(), store_id)
    assert inos == ["inos", 12]
    assert taken == ["fence", "main", fence]
    assert published[:4] == ["publish", "main", fence, [[0, 64, size]]]  # type: ignore[index]  # a list
    assert msgspec.msgpack.decode(published[4]) == [  # type: ignore[index]  # a list
        [
            "snapshot",
            [
                "0123456789",
                "main",
                tree,
                ["0000000000"],
                5,
                3,
                b"name",
                "message",
                "me",
                "here",
                "helios snapshot",
                True,
            ],
        ],
        ["head", ["main", tree, 9, 2]],
    ]

    root, links = msgspec.msgpack.decode(objects[tree][1])
    (below,) = _read_map(objects, root[11]).values()
    entries = _read_map(objects, msgspec.msgpack.decode(below)[11])
    for name, data in files.items():
        entry = msgspec.msgpack.decode(entries[((_xxh3(name) >> 1) | 4).to_bytes(8, "big") + name])
        assert entry[6] == len(data) <= INLINE_LIMIT
        assert objects[entry[11]] == (1, data)
        assert entry[12] is None
    assert msgspec.msgpack.decode(entries[directory_key(b"link")]) == 7
    linked = msgspec.msgpack.decode(_read_map(objects, links)[(7).to_bytes(8, "big")])
    assert objects[linked[11]] == (1, b"linked")
    large = msgspec.msgpack.decode(entries[directory_key(b"large")])
    chunks = {int.from_bytes(key, "big"): msgspec.msgpack.decode(v) for key, v in _read_map(objects, large[11]).items()}
    assert {offset: (length, objects[blob][1]) for offset, (length, blob) in chunks.items()} == {
        0: (100, b"l" * 100),
        100: (200, b"l" * 200),
    }


def test_boundaries_are_where_the_document_says() -> None:
    for number in range(5000):
        key = b"%d" % number
        bits = f"{xxhash.xxh3_64_intdigest(key, seed=0x48454C494F53):064b}"
        assert boundary_level(key) == (len(bits) - len(bits.rstrip("0"))) // 6


def test_the_index_is_what_the_document_says(path: str) -> None:
    with Store.open(path) as store, store.writer() as writer:
        tree = store_tree(writer, {b"a": b"a"})
        writer.publish([HeadMoved(Head("main", tree, 9, 2))], "main", store.take_branch("main"))
        environment = store.index.environment
        raw: dict[str, dict[bytes, bytes]] = {}
        with environment._env.begin() as txn:
            for name in ("meta", "objects", "heads", "snapshots", "fences"):
                raw[name] = dict(txn.cursor(db=environment.handle(name.encode())))
    for database in raw.values():
        for key, value in database.items():
            assert int.from_bytes(value[-8:], "little") == _xxh3(value[:-8], _xxh3(key))
    meta = {key.decode(): int.from_bytes(value[:-8], "big") for key, value in raw["meta"].items()}
    assert meta.pop("store").to_bytes(16, "big").hex() in Path(path, "format").read_text()
    assert meta == {
        "version": 1,
        "ref_log": os.path.getsize(path + "/refs"),
        "next_ino": 2,
        "next_pack": 1,
        "fence": 1,
    }
    branch = blake3(b"main").digest(length=16)
    assert msgspec.msgpack.decode(raw["heads"][branch][:-8]) == ["main", tree, 9, 2]
    assert raw["fences"][branch][:-8] == (1).to_bytes(8, "big")
    pack, offset, stored, size, kind, codec = struct.unpack("<IQIIBB", raw["objects"][tree][:-8])
    assert (pack, kind) == (0, 3) and offset >= 64 and stored == size and codec == 0


def test_the_document_names_every_database_and_lock(path: str) -> None:
    text = Path(__file__).parents[3].joinpath("docs", "format.md").read_text()
    with Store.open(path) as store:
        store.lock_branch("main").release()
        with store.writer() as writer:
            writer.put(1, b"x")
        collect(store)
        locks = set(os.listdir(path + "/run"))
        top = set(os.listdir(path))
    documented = set(re.findall(r"`([a-z]+\.lock)`", text))
    assert locks == documented | {"main.lock"}
    assert all(re.search(rf"^      {name}", text, re.MULTILINE) for name in top)
