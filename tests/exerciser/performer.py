"""Carries operations out on real files and on the model, and looks at every difference."""

import os
from pathlib import Path
from typing import Final

from tests.exerciser import opened
from tests.exerciser.files import Files
from tests.exerciser.model import PAGE, Content
from tests.exerciser.opened import Descriptor, Mapping, map_pages
from tests.exerciser.operations import MAPPINGS, MOST_BYTES, SLOTS, Operation, data

_MOST_STORED: Final = 65_536
DROP_CACHES: Final = Path("/proc/sys/vm/drop_caches")


class Performer(Files):
    """Does to the files of one process what an operation says."""

    def perform(self, operation: Operation) -> None:
        """Carry out an operation. Raises Difference, or what the system call raised."""
        getattr(self, f"_{operation.kind}")(operation)

    # -- Opening and closing -----------------------------------------------------------------------------------------

    def _open(self, op: Operation) -> None:
        self._open_slot(op.slot, op.name, op.flags)

    def _close(self, op: Operation) -> None:
        self._close_slot(op.slot)

    # -- Writing -----------------------------------------------------------------------------------------------------

    def _where(self, descriptor: Descriptor, offset: int, length: int) -> tuple[int, int]:
        if descriptor.direct:
            offset -= offset % PAGE
            length += -length % PAGE
        return offset, length

    def _pwrite(self, op: Operation) -> None:
        descriptor = self._slot(op, write=True)
        offset, length = self._where(descriptor, op.offset, op.length)
        if descriptor.appends:
            offset = descriptor.content.size
            if offset > MOST_BYTES:
                return
        payload = data(self._seed, op, length)
        if descriptor.appends and descriptor.direct and offset % PAGE:
            return
        self._settle_before_growth(descriptor, offset + length)
        descriptor.pwrite(payload, offset)
        descriptor.content.write(op.number, f"pwrite {oct(descriptor.flags)}", offset, payload)
        self._check_around(descriptor, offset, offset + length)

    @staticmethod
    def _settle_before_growth(descriptor: Descriptor, end: int) -> None:
        """Write back what a mapping has stored into the last page before a write makes the file longer.

        Linux 6.18's FUSE may lose such a write (tests/posix/lost_growth.py shows it on any FUSE filesystem).
        """
        content = descriptor.content
        if end > content.size and content.is_unsettled(content.size):
            os.fsync(descriptor.fd)
            content.settle()

    def _write(self, op: Operation) -> None:
        """Write at the position, which an operation in three moves first."""
        descriptor = self._slot(op, write=True)
        if descriptor.direct:
            return self._pwrite(op)
        if op.choice % 3 == 0 or descriptor.position > MOST_BYTES:
            descriptor.position = os.lseek(descriptor.fd, op.offset, os.SEEK_SET)
        offset = descriptor.content.size if descriptor.appends else descriptor.position
        if offset > MOST_BYTES:
            return None
        payload = data(self._seed, op, op.length)
        os.lseek(descriptor.fd, descriptor.position, os.SEEK_SET)
        self._settle_before_growth(descriptor, offset + op.length)
        assert os.write(descriptor.fd, payload) == len(payload)
        descriptor.position = offset + len(payload)
        assert os.lseek(descriptor.fd, 0, os.SEEK_CUR) == descriptor.position
        descriptor.content.write(op.number, f"write {oct(descriptor.flags)}", offset, payload)
        self._check_around(descriptor, offset, descriptor.position)
        return None

    def _writev(self, op: Operation) -> None:
        descriptor = self._slot(op, write=True, plain=True)
        payload = memoryview(data(self._seed, op, op.length))
        cuts = sorted({0, op.length, *(op.length * part // 7 for part in range(op.choice % 7))})
        pieces = [payload[low:high] for low, high in zip(cuts, cuts[1:], strict=False)]
        self._settle_before_growth(descriptor, op.offset + op.length)
        assert os.pwritev(descriptor.fd, pieces, op.offset) == op.length
        descriptor.content.write(op.number, f"writev {oct(descriptor.flags)}", op.offset, bytes(payload))
        self._check_around(descriptor, op.offset, op.offset + op.length)

    def _burst(self, op: Operation) -> None:
        """Write many small pieces beside each other, or over each other, and read all of it now and then."""
        descriptor = self._slot(op, write=True, plain=True)
        pieces = 10 + op.choice % 40
        payload = data(self._seed, op, 64 * pieces)
        for number in range(pieces):
            start = op.offset + (number * (1 + op.choice % 90) * 7) % 8192
            piece = payload[64 * number : 64 * number + 1 + (number * op.choice) % 64]
            self._settle_before_growth(descriptor, start + len(piece))
            descriptor.pwrite(piece, start)
            descriptor.content.write(op.number, f"burst {oct(descriptor.flags)}", start, piece)
            if number % 19 == 18:
                self._check_around(descriptor, op.offset, op.offset + 8192)
        self._check_around(descriptor, op.offset, op.offset + 8192)

    def _truncate(self, op: Operation) -> None:
        content = self._existing(op.name)
        os.truncate(self._path(op.name), op.offset)
        content.truncate(op.number, op.offset)
        self._check_path(op.name, max(0, op.offset - 2 * PAGE))

    def _ftruncate(self, op: Operation) -> None:
        descriptor = self._slot(op, write=True)
        os.ftruncate(descriptor.fd, op.offset)
        descriptor.content.truncate(op.number, op.offset)
        self._check_around(descriptor, max(0, op.offset - PAGE), op.offset)

    # -- Reading -----------------------------------------------------------------------------------------------------

    def _pread(self, op: Operation) -> None:
        descriptor = self._slot(op, read=True)
        offset, length = self._where(descriptor, op.offset % (descriptor.content.size + 2), op.length)
        found = descriptor.pread(length, offset)
        descriptor.content.compare(offset, found, f"pread {oct(descriptor.flags)}", length=length)

    def _read(self, op: Operation) -> None:
        descriptor = self._slot(op, read=True)
        if descriptor.direct:
            return self._pread(op)
        if op.choice % 2 == 0:
            descriptor.position = op.offset % (descriptor.content.size + 2)
        os.lseek(descriptor.fd, descriptor.position, os.SEEK_SET)
        found = os.read(descriptor.fd, op.length)
        descriptor.content.compare(descriptor.position, found, f"read {oct(descriptor.flags)}", length=op.length)
        descriptor.position += len(found)
        return None

    def _check_all(self, op: Operation) -> None:
        self._check_files()

    def _seek_holes(self, op: Operation) -> None:
        """The kernel's own answer where a filesystem has none: all is data, and the hole is the end."""
        descriptor = self._slot(op, read=True)
        size = descriptor.content.size
        if size:
            at = op.offset % size
            assert os.lseek(descriptor.fd, at, os.SEEK_DATA) == at
            assert os.lseek(descriptor.fd, at, os.SEEK_HOLE) == size
        try:
            assert os.lseek(descriptor.fd, size, os.SEEK_DATA) is None, "there is nothing behind the end"
        except OSError:
            pass
        os.lseek(descriptor.fd, descriptor.position, os.SEEK_SET)

    # -- Mappings ----------------------------------------------------------------------------------------------------

    def _map(self, op: Operation) -> None:
        number = op.choice % MAPPINGS
        self._unmap(op)
        shared = op.choice % 4 != 0
        descriptor = self._slot(op, read=True, write=shared and op.choice % 5 != 0)
        writable = shared and descriptor.writable
        offset = op.offset % max(1, descriptor.content.size)
        self._mappings[number] = map_pages(descriptor, offset, max(op.length, PAGE), shared, writable)

    def _unmap(self, op: Operation) -> None:
        mapping = self._mappings[op.choice % MAPPINGS]
        self._mappings[op.choice % MAPPINGS] = None
        if mapping is not None:
            mapping.memory.close()

    def _store(self, op: Operation) -> None:
        for step in range(MAPPINGS):
            mapping = self._mappings[(op.choice + step) % MAPPINGS]
            if mapping is not None and mapping.writable and mapping.reach():
                low = op.offset % mapping.reach()
                length = min(op.length, mapping.reach() - low, _MOST_STORED)
                payload = data(self._seed, op, length)
                mapping.memory[low : low + length] = payload
                mapping.content.store(op.number, mapping.offset + low, payload)
                self._check_after_store(mapping, op)
                return

    def _check_after_store(self, mapping: Mapping, op: Operation) -> None:
        """Read what was stored through a descriptor, which no msync must be needed for."""
        for descriptor in self._slots:
            if descriptor is not None and descriptor.content is mapping.content and descriptor.readable:
                return (
                    self._pread(op)
                    if op.choice % 2
                    else self._check_around(descriptor, mapping.offset, mapping.offset + 1)
                )
        return None

    def _load(self, op: Operation) -> None:
        mapping = self._mappings[op.choice % MAPPINGS]
        if mapping is not None and mapping.reach():
            low = op.offset % mapping.reach()
            length = min(op.length, mapping.reach() - low)
            found = mapping.memory[low : low + length]
            mapping.content.compare(mapping.offset + low, found, "in a mapping", length=length)

    def _msync(self, op: Operation) -> None:
        mapping = self._mappings[op.choice % MAPPINGS]
        if mapping is not None and mapping.writable:
            mapping.memory.flush()
            mapping.content.settle(mapping.offset, mapping.offset + len(mapping.memory))
            if op.choice % 2:
                self._check_mapping(mapping)

    # -- Syncing and forgetting --------------------------------------------------------------------------------------

    def _fsync(self, op: Operation) -> None:
        descriptor = self._slot(op)
        os.fsync(descriptor.fd)
        descriptor.content.settle()

    def _fdatasync(self, op: Operation) -> None:
        descriptor = self._slot(op)
        os.fdatasync(descriptor.fd)
        descriptor.content.settle()

    def _forget_pages(self, op: Operation) -> None:
        """Let the kernel forget what it has cached of a file; of everything, now and then."""
        if op.choice < 20 and os.access(DROP_CACHES, os.W_OK):
            DROP_CACHES.write_text("3")
        descriptor = self._slot(op)
        os.posix_fadvise(descriptor.fd, 0, 0, os.POSIX_FADV_DONTNEED)
        self._check_around(descriptor, op.offset % (descriptor.content.size + 1), descriptor.content.size)

    def _seal(self, op: Operation) -> None:
        self._place.seal()
        self._check_files()

    # -- From file to file -------------------------------------------------------------------------------------------

    def _copy_range(self, op: Operation) -> None:
        self._copy(op, opened.copy_range)

    def _sendfile(self, op: Operation) -> None:
        self._copy(op, opened.send)

    def _splice(self, op: Operation) -> None:
        self._copy(op, opened.splice)

    def _copy(self, op: Operation, how: "opened.Copying") -> None:
        source = self._slot(op, read=True, plain=True)
        target = self._slot(op, write=True, plain=True, content=source.content)
        if source.content is target.content or source not in self._slots or not source.content.size:
            return  # opening the one has closed the other, or there is nothing to copy
        offset = op.offset % source.content.size
        length = min(op.length, source.content.size - offset)
        self._settle_before_growth(target, op.target + length)
        how(source.fd, target.fd, offset, op.target, length)
        target.content.write(op.number, how.__name__, op.target, bytes(source.content.data[offset : offset + length]))
        self._check_around(target, op.target, op.target + length)

    # -- Names -------------------------------------------------------------------------------------------------------

    def _replace(self, op: Operation) -> None:
        """Write a new file and rename it over the old, with and without fsync."""
        content = Content()
        payload = data(self._seed, op, op.length)
        fd = os.open(self._path("new"), os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
        try:
            os.write(fd, payload)
            if op.choice % 2:
                os.fsync(fd)
        finally:
            os.close(fd)
        os.rename(self._path("new"), self._path(op.name))
        content.write(op.number, "replaced", 0, payload)
        self._names[op.name] = content
        self._check_path(op.name)

    def _unlink(self, op: Operation) -> None:
        if op.name in self._names:
            os.unlink(self._path(op.name))
            del self._names[op.name]

    def _link(self, op: Operation) -> None:
        if op.name == op.other or op.name not in self._names:
            return
        if op.other in self._names:
            os.unlink(self._path(op.other))
        os.link(self._path(op.name), self._path(op.other))
        self._names[op.other] = self._names[op.name]

    def _rename(self, op: Operation) -> None:
        """Rename over another file; two names of one file stay as they are (rename(2))."""
        if op.name not in self._names:
            return
        os.rename(self._path(op.name), self._path(op.other))
        if self._names.get(op.other) is not self._names[op.name]:
            self._names[op.other] = self._names.pop(op.name)
        self._check_path(op.other)

    # -- Snapshots and branches --------------------------------------------------------------------------------------

    def _snapshot(self, op: Operation) -> None:
        self._past.take(op.number, self._names)
        self._settle_named()

    def _settle_named(self) -> None:
        for content in self._names.values():
            content.settle()

    def _look_back(self, op: Operation) -> None:
        self._past.look(op.choice)

    def _forget_snapshot(self, op: Operation) -> None:
        self._past.forget(op.choice)

    def _branch(self, op: Operation) -> None:
        self._past.branch(op.number, self._names)
        self._settle_named()

    def _change_branch(self, op: Operation) -> None:
        self._past.change_branch(op.number, op.choice, op.offset, data(self._seed, op, op.length))

    def _look_into_branch(self, op: Operation) -> None:
        self._past.look_into_branch(op.choice)

    def _forget_branch(self, op: Operation) -> None:
        self._past.forget_branch(op.choice)

    def _append_shared(self, op: Operation) -> None:
        self.shared.append(op.length, os.O_WRONLY if op.choice % 2 else os.O_RDWR)

    def _change_part(self, op: Operation) -> None:
        self.shared.change_part(op.number, op.offset, data(self._seed, op, op.length), mapped=op.choice % 3 == 0)

    # -- When the mount goes -----------------------------------------------------------------------------------------

    def let_go(self) -> None:
        """Close everything, so that the mount can be unmounted; what mappings stored is written back by that."""
        for mapping in self._mappings:
            if mapping is not None:
                mapping.memory.close()
        self._mappings = [None] * MAPPINGS
        for slot in range(SLOTS):
            self._close_slot(slot)
        self.shared.let_go()

    def clear(self) -> None:
        """Remove all that there is: another performer begins anew."""
        self.let_go()
        self._past.forget_all()
        for name in self._names:
            os.unlink(self._path(name))
        self._folder.rmdir()

    def survive(self, killed: bool) -> None:
        """Look at everything on the new mount; `killed`: the daemon died while descriptors and mappings were open."""
        for descriptor in self._slots:
            if descriptor is not None:
                try:
                    os.close(descriptor.fd)
                except OSError:
                    pass  # the mount that it belonged to is gone
        self._slots = [None] * SLOTS
        for mapping in self._mappings:
            if mapping is not None:
                mapping.memory.close()
        self._mappings = [None] * MAPPINGS
        self.shared.let_go()
        self.shared.check_part()
        # A file with two names is adopted once.
        for content, name in {id(content): (content, name) for name, content in self._names.items()}.values():
            if killed:
                content.adopt(self._path(name).read_bytes())
            content.settle()
        self._check_files()
        self._past.look_at_all()
