"""The journal: what is appended is read back, torn tails are cut off, faults lose nothing, files are used again."""

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from helios_fs.errors import CorruptObject, ReadOnly, StoreFault, StoreFull, WrongVersion
from helios_fs.journal import journal as module
from helios_fs.journal.forks import fork
from helios_fs.journal.frame import HEADER_BYTES, MAX_PAYLOAD_BYTES, parse_header
from helios_fs.journal.journal import Frame, Journal
from helios_fs.journal.segment import HEADER_BYTES as SEGMENT_HEADER_BYTES
from helios_fs.store import files


def segments(directory: str | Path) -> list[str]:
    return [name for name in os.listdir(directory) if name.endswith(".seg")]


@pytest.fixture
def directory(tmp_path: Path) -> str:
    """Return where a journal may be made."""
    return str(tmp_path / "journal")


@pytest.fixture(autouse=True)
def no_faults() -> Iterator[None]:
    """Take back any fault that a test has installed."""
    yield
    files.set_fault(None)


@pytest.fixture
def small_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let segments end after 200 bytes."""
    monkeypatch.setattr(module, "SEGMENT_BYTES", 200)
    monkeypatch.setattr(module, "_SMALL_SEGMENT_BYTES", 1)


def payloads(frames: Iterator[Frame]) -> list[bytes]:
    """Return what frames say."""
    return [frame.payload for frame in frames]


def reopened(directory: str, start: int = 0) -> tuple[Journal, list[bytes]]:
    """Open a journal as recovery does; return it with the payloads of what it holds."""
    journal = Journal.open(directory, start)
    found = []
    position = start
    for frame in journal.frames(start, check_data=True):
        found.append(frame.payload)
        position = frame.next_position
    journal.recovered_to(position)
    return journal, found


def test_frames_come_back_with_their_data(directory: str) -> None:
    """Payload, time, flags and data of each size around a block are what was appended."""
    journal = Journal.create(directory, 0)
    sizes = [0, 1, 32767, 32768, 32769, 200_000]
    places = []
    for number, size in enumerate(sizes):
        data = os.urandom(size)
        places.append((journal.append(7, number, 1000 + number, b"p%d" % number, data), data))
    frames = list(journal.frames(0, check_data=True))
    assert [frame.payload for frame in frames] == [b"p%d" % n for n in range(len(sizes))]
    assert [(frame.kind, frame.flags, frame.time_ns) for frame in frames] == [(7, n, 1000 + n) for n in range(6)]
    for (position, data), frame in zip(places, frames, strict=True):
        assert (frame.data_position, frame.data_bytes) == (position, len(data))
        if data:
            assert journal.read_data(position, len(data), 0, len(data)) == data
            middle = len(data) // 2
            assert journal.read_data(position, len(data), middle, len(data)) == data[middle:]
            assert journal.read_data(position, len(data), 0, 1) == data[:1]
    assert frames[-1].next_position == journal.end
    journal.close()


def test_frames_run_on_over_segments(directory: str, small_segments: None) -> None:
    """Many small segments read as one journal, and a reader may begin anywhere in it."""
    journal = Journal.create(directory, 0)
    for number in range(50):
        journal.append(1, 0, 0, b"%03d" % number, b"x" * number)
    assert len(segments(directory)) > 10
    everything = list(journal.frames(0))
    assert [f.payload for f in everything] == [b"%03d" % n for n in range(50)]
    assert payloads(journal.frames(everything[20].position)) == [b"%03d" % n for n in range(20, 50)]
    assert payloads(journal.frames(0, everything[10].position)) == [b"%03d" % n for n in range(10)]
    journal.close()
    again, found = reopened(directory)
    assert len(found) == 50
    again.append(1, 0, 0, b"after")
    assert payloads(again.frames(everything[49].position)) == [b"049", b"after"]
    again.close()


@pytest.mark.parametrize("lost", range(1, 60))
def test_a_torn_tail_is_cut_off(directory: str, lost: int) -> None:
    """Whatever part of the last frame is missing, all before it is there and appending goes on."""
    journal = Journal.create(directory, 0)
    journal.append(1, 0, 0, b"first", b"data")
    second = journal.end
    journal.append(1, 0, 0, b"second", b"more data")
    end = journal.end
    journal.close()
    (name,) = segments(directory)
    os.truncate(os.path.join(directory, name), end + SEGMENT_HEADER_BYTES - lost)
    again, found = reopened(directory)
    assert found == ([b"first"] if lost <= end - second else [])
    again.append(1, 0, 0, b"third")
    assert payloads(again.frames(0))[-1] == b"third"
    again.close()


def test_every_flipped_byte_is_noticed(directory: str) -> None:
    """No damage to the last frame, wherever it is, passes for a frame."""
    journal = Journal.create(directory, 0)
    journal.append(1, 0, 0, b"first")
    start = journal.end
    journal.append(1, 0, 5, b"second", b"some data")
    end = journal.end
    journal.close()
    (name,) = segments(directory)
    path = os.path.join(directory, name)
    whole = Path(path).read_bytes()
    for offset in range(start + SEGMENT_HEADER_BYTES, end + SEGMENT_HEADER_BYTES):
        damaged = bytearray(whole)
        damaged[offset] ^= 0x41
        Path(path).write_bytes(damaged)
        again, found = reopened(directory)
        again.close()
        assert found == [b"first"], offset


def test_damaged_data_is_never_returned(directory: str) -> None:
    """A flipped byte makes reads of its block fail, and those of other blocks not."""
    journal = Journal.create(directory, 0)
    data = os.urandom(100_000)
    position = journal.append(1, 0, 0, b"", data)
    (name,) = segments(directory)
    with open(os.path.join(directory, name), "r+b") as file:
        file.seek(SEGMENT_HEADER_BYTES + position + 40_000)
        file.write(bytes([data[40_000] ^ 1]))
    assert journal.read_data(position, len(data), 0, 32768) == data[:32768]
    assert journal.read_data(position, len(data), 70_000, 80_000) == data[70_000:80_000]
    with pytest.raises(CorruptObject):
        journal.read_data(position, len(data), 39_000, 39_001)
    with pytest.raises(CorruptObject):
        journal.read_data(position, len(data), 0, len(data))
    journal.close()


def test_a_failed_append_leaves_nothing(directory: str) -> None:
    """After a short or a failed append the next one stands right behind the last whole frame."""
    journal = Journal.create(directory, 0)
    journal.append(1, 0, 0, b"first")
    end = journal.end

    def full(operation: str, path: str, length: int) -> int | None:
        return 20 if operation == "append" else None

    files.set_fault(full)
    with pytest.raises(StoreFull):
        journal.append(1, 0, 0, b"lost", b"x" * 1000)
    files.set_fault(None)
    assert journal.end == end
    journal.append(1, 0, 0, b"second")
    journal.close()
    again, found = reopened(directory)
    assert found == [b"first", b"second"]
    again.close()


def test_a_journal_that_cannot_be_cut_back_takes_no_more(directory: str) -> None:
    """Where even the cut fails, every later append is refused, and reading goes on."""
    journal = Journal.create(directory, 0)
    journal.append(1, 0, 0, b"first")

    def failing(operation: str, path: str, length: int) -> int | None:
        if operation in ("append", "cut"):
            raise OSError(errno.EIO, "broken disk")
        return None

    files.set_fault(failing)
    with pytest.raises(StoreFault):
        journal.append(1, 0, 0, b"lost")
    files.set_fault(None)
    with pytest.raises(ReadOnly):
        journal.append(1, 0, 0, b"also lost")
    with pytest.raises(ReadOnly):
        journal.sync()
    assert payloads(journal.frames(0)) == [b"first"]
    journal.close()


def test_a_failed_sync_is_final(directory: str) -> None:
    """The kernel may have dropped the pages: trying again would lie."""
    journal = Journal.create(directory, 0)
    journal.append(1, 0, 0, b"first")

    def failing(operation: str, path: str, length: int) -> int | None:
        if operation == "sync":
            raise OSError(errno.EIO, "broken disk")
        return None

    files.set_fault(failing)
    with pytest.raises(StoreFault, match="final"):
        journal.sync()
    files.set_fault(None)
    with pytest.raises(ReadOnly):
        journal.sync()
    with pytest.raises(ReadOnly):
        journal.append(1, 0, 0, b"second")
    journal.close()


def test_sync_covers_every_segment(directory: str, small_segments: None) -> None:
    """A sync reaches each file that holds something new, and the directory; a second one has nothing to do."""
    journal = Journal.create(directory, 0)
    for number in range(20):
        journal.append(1, 0, 0, b"%03d" % number, b"x" * 50)
    synced: list[str] = []

    def counting(operation: str, path: str, length: int) -> None:
        if operation == "sync":
            synced.append(path)

    files.set_fault(counting)
    assert journal.sync() == journal.end
    assert len(synced) == len(segments(directory)) + 1
    assert synced[-1] == directory
    synced.clear()
    assert journal.sync() == journal.end
    assert synced == []
    journal.append(1, 0, 0, b"one more")
    journal.sync()
    assert journal.synced == journal.end
    journal.close()


def test_sealed_segments_are_used_again(directory: str, small_segments: None) -> None:
    """What a file held before never shows, and the files do not grow in number."""
    journal = Journal.create(directory, 0)
    for number in range(30):
        journal.append(1, 0, 0, b"old %03d" % number, b"x" * 50)
    middle = journal.end
    journal.end_segment()
    journal.drop_below(middle, keep_open=False)
    assert journal.start >= middle - 200
    spares = [name for name in os.listdir(directory) if name.endswith(".spare")]
    assert 0 < len(spares) <= module.MAX_SPARES
    first_new = journal.end
    for number in range(12):
        journal.append(1, 0, 0, b"new %03d" % number, b"y" * number)
    end = journal.end
    journal.close()
    again, found = reopened(directory, first_new)
    assert found == [b"new %03d" % n for n in range(12)]
    assert again.end == end
    with pytest.raises(CorruptObject):
        list(again.frames(0))
    again.close()
    assert not [name for name in os.listdir(directory) if name.endswith(".spare")]


def test_a_dropped_segment_can_still_be_read_where_it_must(directory: str, small_segments: None) -> None:
    """Files that are unlinked but open keep their bytes; the space comes back with them."""
    journal = Journal.create(directory, 0)
    position = journal.append(1, 0, 0, b"a", b"z" * 5000)
    journal.append(1, 0, 0, b"b", b"z" * 300)
    journal.end_segment()
    before = len(segments(directory))
    journal.drop_below(journal.end, keep_open=True)
    assert len(segments(directory)) == before - 2
    assert journal.read_data(position, 5000, 0, 5000) == b"z" * 5000
    journal.drop_below(journal.end, keep_open=False)
    with pytest.raises(CorruptObject):
        journal.read_data(position, 5000, 0, 5000)
    journal.close()


def test_a_shared_segment_that_lost_our_name_stays_the_other_journal_s(
    directory: str, tmp_path: Path, small_segments: None
) -> None:
    """Dropped while something was open, a file that a branch shares has one name left, which is not ours."""
    journal = Journal.create(directory, 0)
    journal.append(1, 0, 0, b"a", b"z" * 5000)
    journal.sync()
    fork(journal, str(tmp_path / "branch"), 0, journal.end)
    journal.end_segment()
    journal.append(1, 0, 0, b"b", b"z" * 300)
    journal.drop_below(journal.end, keep_open=True)
    journal.drop_below(journal.end, keep_open=False)
    assert not [name for name in os.listdir(directory) if name.endswith(".spare")]
    journal.close()
    branch = Journal.open(str(tmp_path / "branch"), 0)
    assert payloads(branch.frames(0)) == [b"a"]
    branch.close()


def test_a_reader_sees_what_the_owner_has_told(directory: str) -> None:
    """A second process reads below a position while the owner goes on."""
    journal = Journal.create(directory, 0)
    journal.append(1, 0, 0, b"first")
    told = journal.end
    reader = Journal.open(directory, 0, writable=False)
    journal.append(1, 0, 0, b"second")
    assert payloads(reader.frames(0, told)) == [b"first"]
    reader.close()
    journal.close()


def test_what_is_not_a_journal_is_refused(directory: str, small_segments: None) -> None:
    """Missing segments, foreign headers, other versions and impossible starts each say what is wrong."""
    with pytest.raises(CorruptObject):
        Journal.open(directory, 0, writable=False)
    journal = Journal.create(directory, 0)
    for number in range(20):
        journal.append(1, 0, 0, b"%03d" % number, b"x" * 50)
    end = journal.end
    journal.close()
    with pytest.raises(CorruptObject, match="does not reach"):
        Journal.open(directory, end + 10_000)
    names = sorted(segments(directory))
    path = Path(directory, names[1])
    whole = path.read_bytes()
    path.write_bytes(whole[:10] + b"!" + whole[11:])
    with pytest.raises(CorruptObject, match="header"):
        Journal.open(directory, 0)
    path.unlink()
    with pytest.raises(CorruptObject, match="gap"):
        Journal.open(directory, 0)
    path.write_bytes(Path(directory, names[2]).read_bytes())
    with pytest.raises(CorruptObject, match="does not belong"):
        Journal.open(directory, 0)


def test_damage_before_the_last_segment_is_not_a_torn_tail(directory: str, small_segments: None) -> None:
    """Whole segments are never thrown away as if a crash had torn them."""
    journal = Journal.create(directory, 0)
    for number in range(20):
        journal.append(1, 0, 0, b"%03d" % number, b"x" * 50)
    journal.close()
    first = Path(directory, min(segments(directory)))
    damaged = bytearray(first.read_bytes())
    damaged[SEGMENT_HEADER_BYTES + HEADER_BYTES] ^= 1
    first.write_bytes(damaged)
    with pytest.raises(CorruptObject, match="damaged"):
        reopened(directory)


def test_a_segment_that_was_being_made_is_no_loss(directory: str, small_segments: None) -> None:
    """The power went between making the next file and its first frame."""
    journal = Journal.create(directory, 0)
    journal.append(1, 0, 0, b"first")
    end = journal.end
    journal.close()
    Path(directory, f"{end:016x}.seg").write_bytes(b"HELI")
    again, found = reopened(directory)
    assert found == [b"first"]
    again.close()


def test_another_format_is_refused(directory: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A journal of another version is neither read nor touched."""
    monkeypatch.setattr("helios_fs.journal.segment.FORMAT_VERSION", 99)
    Journal.create(directory, 0).close()
    monkeypatch.undo()
    with pytest.raises(WrongVersion, match="99"):
        Journal.open(directory, 0)


def test_absurd_headers_are_no_headers() -> None:
    """Lengths that nobody writes are not believed."""
    assert parse_header(b"short") is None
    assert parse_header(bytes(HEADER_BYTES)) is None
    huge = (MAX_PAYLOAD_BYTES + 1).to_bytes(4, "little")
    assert parse_header(bytes(8) + huge + bytes(4) + b"\1" + bytes(15)) is None


def test_small_pieces_read_in_order_share_one_read(directory: str) -> None:
    """Thousands of small records side by side are read in large strides, each still checked."""
    journal = Journal.create(directory, 0)
    places = [journal.append(1, 0, 0, b"", b"%05d" % number) for number in range(1000)]
    reads: list[int] = []

    def counting(operation: str, path: str, length: int) -> None:
        if operation == "read":
            reads.append(length)

    files.set_fault(counting)
    assert [journal.read_data(place, 5, 0, 5) for place in places] == [b"%05d" % n for n in range(1000)]
    assert len(reads) < 5
    assert journal.read_data(places[3], 5, 1, 3) == b"00"
    journal.close()
