"""The journal of one branch: append, read back, replay, drop.

Knows segments and frames, never what a record means. One process owns it for writing (the caller holds the branch's
lock); any number may read below a position that the owner has told them.

J1. `end` is behind the last whole frame. A failed or short append is cut back to it before anything else is written;
    where the cut fails too, the journal is broken and takes nothing more.
J2. What `sync` covers: every frame appended before it was called, and the names of the segments that hold them.
J3. A sync that failed is final: the kernel may have dropped the pages, so the journal is broken from then on.
J4. A record that leads to free space is appended on a full disk too, out of the reserve.
J5. A segment goes only when all of it lies below the sealed position: it becomes a spare, to be used again, or is
    unlinked. Where somebody may still read it, it is unlinked and its descriptor stays open.
J6. A segment that another journal shares (forks.py) is never used again.
"""

import os
from bisect import bisect_right
from collections.abc import Iterator
from typing import Final, NamedTuple

from helios_fs.errors import CorruptObject, HeliosError, InvalidArgument, ReadOnly, StoreFault, StoreFull
from helios_fs.journal.frame import (
    BLOCK_BYTES,
    HEADER_BYTES,
    MAX_DATA_BYTES,
    MAX_PAYLOAD_BYTES,
    block_count,
    data_is_whole,
    encode_head,
    head_is_whole,
    parse_header,
)
from helios_fs.journal.reserve import RESERVE_BYTES, Reserve
from helios_fs.journal.segment import SPARE_SUFFIX, SUFFIX, Segment
from helios_fs.store import files

SEGMENT_BYTES: Final = 32 << 20
_SMALL_SEGMENT_BYTES: Final = 4 << 20
MAX_SPARES: Final = 8
"""Segments kept to be used again while the journal is busy; `drop_spares` lets go of them."""
_SMALL_BYTES: Final = 4096
_NEAR_BYTES: Final = 1024
_READ_AHEAD_BYTES: Final = 64 * 1024
_WINDOW_BYTES: Final = 4 << 20


class Frame(NamedTuple):
    """One record as replay hands it out; `data_position` is where its data can be read back."""

    position: int
    kind: int
    flags: int
    time_ns: int
    payload: bytes
    data_position: int
    data_bytes: int
    next_position: int


class Journal:
    """The segments of one branch, the last of them open for appending."""

    def __init__(self, directory: str, segments: list[Segment], reserve_bytes: int = RESERVE_BYTES) -> None:
        self._directory = directory
        self._segments = segments
        self._starts = [segment.start for segment in segments]
        self._spares: list[str] = []
        self._syncing = False
        self._window: tuple[int, bytes] = (0, b"")
        self._last_read = 0
        # What a former owner wrote, and did not live to sync, counts too.
        self._unsynced: list[Segment] = list(segments)
        self._names_unsynced = True
        self._reserve = Reserve(directory, reserve_bytes)
        self._is_tight = False
        """Whether the disk was full since the reserve was last whole."""
        self.broken: HeliosError | None = None
        self.in_group = False
        """Frames that belong together are being appended, all of them to one segment."""
        self.end = segments[-1].end
        self.synced = segments[0].start

    @classmethod
    def create(cls, directory: str, start: int, reserve_bytes: int = RESERVE_BYTES) -> "Journal":
        """Make a journal whose first frame will stand at `start`. Durable after the first `sync`."""
        os.makedirs(directory, mode=0o700, exist_ok=True)
        journal = cls(directory, [Segment.create(directory, start)], reserve_bytes)
        journal._reserve.take()
        return journal

    @classmethod
    def open(cls, directory: str, start: int, writable: bool = True, reserve_bytes: int = RESERVE_BYTES) -> "Journal":
        """Open the journal that holds everything from `start` on.

        The owner (`writable`) drops segments that end before `start`, and a journal without segments begins at
        `start`. Call `recover` before appending. Raises CorruptObject where a segment is missing in the middle.
        """
        try:
            present = os.listdir(directory)
            names = sorted(name for name in present if name.endswith(SUFFIX))
            for name in present if writable else ():
                if name.endswith(SPARE_SUFFIX):
                    files.remove(os.path.join(directory, name))
        except FileNotFoundError:
            names = []
        segments: list[Segment] = []
        for name in names:
            try:
                segments.append(Segment.open(directory, name, writable))
            except CorruptObject:
                # A segment that is being made, or was when the power went, has no frames yet; only the last can be one.
                if name != names[-1]:
                    raise
                if writable:
                    files.remove(os.path.join(directory, name))
            except FileNotFoundError:
                # A reader raced with the owner, who dropped what is sealed; the checks below tell if it was needed.
                continue
        if segments and not segments[0].start <= start <= segments[-1].end:
            raise CorruptObject(f"{directory}: the journal does not reach position {start:#x}")
        while len(segments) > 1 and segments[1].start <= start:
            gone = segments.pop(0)
            gone.close()
            if writable:
                files.remove(gone.path)
        for before, after in zip(segments, segments[1:], strict=False):
            if before.end < after.start:
                raise CorruptObject(f"{directory}: the journal has a gap before position {after.start:#x}")
            before.end = after.start
        if not segments:
            if not writable:
                raise CorruptObject(f"{directory}: the journal has no segments")
            return cls.create(directory, start, reserve_bytes)
        journal = cls(directory, segments, reserve_bytes)
        if writable:
            journal._reserve.take()
        return journal

    @classmethod
    def refusing(cls, error: HeliosError) -> "Journal":
        """Return a journal that holds and takes nothing: every append and sync raises ReadOnly, naming `error`."""
        journal = cls("", [Segment("", files.open_file(os.devnull, os.O_RDONLY), 0, 0, 0)], 0)
        journal.broken = error
        return journal

    # -- Writing -----------------------------------------------------------------------------------------------------

    def append(
        self, kind: int, flags: int, time_ns: int, payload: bytes, data: bytes = b"", frees: bool = False
    ) -> int:
        """Append one frame by one system call and return the position of its data (its end, where it has none).

        On return it survives the death of this process; a power cut only after `sync`. `frees` says that the record
        leads to free space, and may be paid from the reserve. Raises StoreFull or StoreFault with nothing appended,
        ReadOnly once the journal is broken, InvalidArgument where no frame can hold the record.
        """
        if self.broken is not None:
            raise ReadOnly(f"the journal takes no more changes: {self.broken}")
        if len(payload) > MAX_PAYLOAD_BYTES or len(data) > MAX_DATA_BYTES:
            raise InvalidArgument("a record may have a payload of 1 MiB and data of 16 MiB")
        end = self.end
        while True:
            segment = self._segments[-1]
            try:
                if end - segment.start >= SEGMENT_BYTES and not self.in_group:
                    segment = self._roll()
                head = encode_head(segment.seed(end), kind, flags, time_ns, payload, data)
                length = len(head) + len(data)
                files.append_at(segment.fd, (head, data) if data else (head,), length, segment.offset(end))
            except HeliosError as error:
                self._cut_back(segment)
                if not isinstance(error, StoreFull) or self.broken is not None or not self._make_room(frees):
                    raise
            else:
                self.end = segment.end = end + length
                return end + len(head)

    def reserve_room(self, count: int) -> None:
        """Take disk space for `count` bytes of frames to come; a segment that is full ends here.

        It is there for them alone while `in_group` says so. Raises StoreFull, StoreFault with nothing appended.
        """
        if self.broken is not None:
            raise ReadOnly(f"the journal takes no more changes: {self.broken}")
        while True:
            segment = self._segments[-1]
            try:
                if self.end - segment.start >= SEGMENT_BYTES:
                    segment = self._roll()
                files.allocate(segment.fd, segment.offset(self.end), count)
                return
            except HeliosError as error:
                self._cut_back(segment)
                if not isinstance(error, StoreFull) or self.broken is not None or not self._make_room(frees=False):
                    raise

    def _make_room(self, frees: bool) -> bool:
        """Give the full disk something back; False where there is nothing to give."""
        self._is_tight = True
        if self._spares:
            self.drop_spares()
            return True
        return frees and self._reserve.spend()

    def _cut_back(self, segment: Segment) -> None:
        try:
            segment.cut(self.end)
        except HeliosError as error:
            self.broken = error

    def _roll(self) -> Segment:
        spare = self._spares.pop() if self._spares else None
        segment = Segment.create(self._directory, self.end, spare)
        self._segments.append(segment)
        self._starts.append(segment.start)
        self._unsynced.append(segment)
        self._names_unsynced = True
        return segment

    def end_segment(self) -> None:
        """Let the next frame begin a new segment, unless this one is still small: what is sealed can go sooner."""
        if self.end - self._segments[-1].start >= _SMALL_SEGMENT_BYTES:
            try:
                self._roll()
            except StoreFull:
                # Without a new segment this one could not go, and on a full disk it must.
                if self._make_room(frees=True):
                    self._roll()

    def sync(self) -> int:
        """Make durable what was appended before the call; return the position up to which it is. May run in a thread.

        Raises StoreFault, after which the journal is broken: what the kernel failed to write may be gone.
        """
        if self.broken is not None:
            raise ReadOnly(f"the journal takes no more changes: {self.broken}")
        end = self.end
        if self.synced >= end:
            return end
        self._syncing = True
        pending = list(self._unsynced)
        names = self._names_unsynced
        self._names_unsynced = False
        try:
            for segment in pending:
                files.sync_data(segment.fd)
            if names:
                files.sync_directory(self._directory)
        except HeliosError as error:
            self.broken = error
            raise StoreFault(f"fsync failed, and is final: {error}") from error
        finally:
            self._syncing = False
        # The last one takes more appends, so it stays in the list.
        for segment in pending:
            if segment is not self._segments[-1] and segment in self._unsynced:
                self._unsynced.remove(segment)
        self.synced = max(self.synced, end)
        return end

    # -- Reading -----------------------------------------------------------------------------------------------------

    def _segment_at(self, position: int) -> Segment:
        index = bisect_right(self._starts, position) - 1
        if index < 0:
            raise CorruptObject(f"{self._directory}: position {position:#x} is no longer in the journal")
        return self._segments[index]

    def read_data(self, position: int, data_bytes: int, start: int, end: int) -> bytes:
        """Return bytes `start`..`end` of the data, `data_bytes` long, of the frame whose data is at `position`.

        Verified against the frame's checksums: raises CorruptObject, never returns wrong bytes.
        """
        if data_bytes <= _SMALL_BYTES:
            return self._read_small(position, data_bytes, start, end)
        segment = self._segment_at(position)
        first = start // BLOCK_BYTES
        sums_position = position - 8 * block_count(data_bytes) + 8 * first
        block_start = first * BLOCK_BYTES
        block_end = min(data_bytes, (end + BLOCK_BYTES - 1) // BLOCK_BYTES * BLOCK_BYTES)
        sums_bytes = 8 * block_count(block_end - block_start)
        if first == 0 and block_end == data_bytes:
            raw = segment.read(sums_bytes + data_bytes, sums_position)
            sums, blocks = raw[:sums_bytes], raw[sums_bytes:]
        else:
            sums = segment.read(sums_bytes, sums_position)
            blocks = segment.read(block_end - block_start, position + block_start)
        if len(blocks) != block_end - block_start or not data_is_whole(sums, blocks):
            raise CorruptObject(f"{segment.path}: data at position {position:#x} does not match its checksum")
        if start == block_start and end == block_end:
            return blocks
        return blocks[start - block_start : end - block_start]

    def _read_small(self, position: int, data_bytes: int, start: int, end: int) -> bytes:
        """Read from a frame of one block, with what follows it where frames are read one after the other.

        A file that was written in small pieces has many of them side by side. What lies below `end` never changes, so
        the window that was read stays true.
        """
        low, high = position - 8, position + data_bytes
        window_start, window = self._window
        if not window_start <= low <= high <= window_start + len(window):
            segment = self._segment_at(position)
            in_order = 0 <= low - self._last_read < _NEAR_BYTES
            want = min(_READ_AHEAD_BYTES, segment.end - low) if in_order else high - low
            window_start, window = self._window = low, segment.read(max(want, high - low), low)
        self._last_read = high
        raw = window[low - window_start : high - window_start]
        data = raw[8:]
        if len(data) != data_bytes or not data_is_whole(raw[:8], data):
            raise CorruptObject(f"{self._directory}: data at position {position:#x} does not match its checksum")
        return data if end - start == data_bytes else data[start:end]

    def frames(self, start: int, end: int | None = None, check_data: bool = False) -> Iterator[Frame]:
        """Yield the whole frames from `start` up to `end`; stop at the first that is not whole.

        `check_data` also verifies each frame's data, which recovery needs: a power cut can tear a frame anywhere.
        """
        position = start
        limit = self.end if end is None else end
        window = b""
        window_start = start
        while position < limit:
            segment = self._segment_at(position)
            if position >= segment.end:
                return
            offset = position - window_start
            if offset < 0 or offset + HEADER_BYTES > len(window):
                window_start, offset = position, 0
                window = segment.read(min(_WINDOW_BYTES, segment.end - position), position)
            header = parse_header(window[offset : offset + HEADER_BYTES])
            if header is None:
                return
            body_end = HEADER_BYTES + header.body_bytes
            if offset + body_end > len(window):
                window_start, offset = position, 0
                window = segment.read(max(body_end, _WINDOW_BYTES), position)
            head = window[offset : offset + body_end]
            data_position = position + body_end
            next_position = data_position + header.data_bytes
            if (
                len(head) < body_end
                or not head_is_whole(header, head, segment.seed(position))
                or next_position > segment.end
            ):
                return
            payload = head[HEADER_BYTES : HEADER_BYTES + header.payload_bytes]
            if check_data and header.data_bytes:
                data = segment.read(header.data_bytes, data_position)
                if not data_is_whole(head[HEADER_BYTES + header.payload_bytes :], data):
                    return
            yield Frame(
                position,
                header.kind,
                header.flags,
                header.time_ns,
                payload,
                data_position,
                header.data_bytes,
                next_position,
            )
            position = next_position
            if position >= segment.end:
                window, window_start = b"", position

    def recovered_to(self, position: int) -> None:
        """Take `position` as the end: everything behind it is the torn tail of an unfinished append, and is cut off.

        Raises CorruptObject where whole segments would be lost: that is damage, not a torn tail.
        """
        last = self._segments[-1]
        if position < last.start:
            raise CorruptObject(
                f"{self._directory}: the journal is damaged at position {position:#x}, before its last segment"
            )
        if position < last.end:
            last.cut(position)
        self.end = last.end = position

    # -- Dropping ----------------------------------------------------------------------------------------------------

    def drop_below(self, position: int, keep_open: bool) -> None:
        """Unlink the segments that end at or before `position`.

        With `keep_open` they can still be read through their descriptors, for files that are unlinked but open. While
        a sync runs in a thread nothing goes: it uses the descriptors. The next call makes up for it.
        """
        if self._syncing:
            return
        if keep_open:
            for index, segment in enumerate(self._segments[:-1]):
                if self._segments[index + 1].start <= position:
                    segment.unlink()
            return
        while len(self._segments) > 1 and self._segments[1].start <= position:
            gone = self._segments.pop(0)
            self._starts.pop(0)
            if gone in self._unsynced:
                self._unsynced.remove(gone)
            is_ours = gone.is_ours
            gone.close()
            if is_ours and not self._is_tight and len(self._spares) < MAX_SPARES:
                spare = gone.path.removesuffix(SUFFIX) + SPARE_SUFFIX
                files.replace(gone.path, spare)
                self._spares.append(spare)
            else:
                gone.unlink()
        if self._is_tight:
            self._reserve.take()
            self._is_tight = not self._reserve.is_whole

    def files_between(self, start: int, end: int) -> list[str]:
        """Return the paths of the segments that hold something of these positions. They stay until the next drop."""
        segments = list(self._segments)
        following = [segment.start for segment in segments[1:]]
        spans = zip(segments, [*following, end], strict=True)
        return [segment.path for segment, behind in spans if segment.start < end and behind > start]

    def drop_spares(self) -> None:
        """Give the space of the spares back: nobody has needed one for a while, or somebody else needs it."""
        while self._spares:
            files.remove(self._spares.pop())

    @property
    def start(self) -> int:
        """Position of the oldest byte that can be read."""
        return self._segments[0].start

    def close(self) -> None:
        """Close all segments."""
        self.drop_spares()
        for segment in self._segments:
            segment.close()
        self._segments.clear()
