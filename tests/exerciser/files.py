"""The files of one process: their model, and the descriptors and mappings that are open."""

import os
from pathlib import Path

from tests.exerciser.model import PAGE, Content, Difference
from tests.exerciser.opened import Descriptor, Mapping
from tests.exerciser.operations import MAPPINGS, NAMES, SLOTS, Operation
from tests.exerciser.past import Past
from tests.exerciser.place import Place
from tests.exerciser.shared import Shared


class Files:
    """A folder with some names, and how to compare all that can be seen of them."""

    def __init__(self, place: Place, process: int, seed: str, shared: Shared | None = None) -> None:
        """`seed` is what the data of writes come from; `shared` what the process has done to the files of all."""
        folder = f"w{process}"
        self._folder = place.root / folder
        self._folder.mkdir()
        self._place = place
        self._seed = seed
        self._names: dict[str, Content] = {}
        self._slots: list[Descriptor | None] = [None] * SLOTS
        self._mappings: list[Mapping | None] = [None] * MAPPINGS
        self._past = Past(place, folder)
        self.shared = shared or Shared(place, process)

    # -- Finding what an operation is about --------------------------------------------------------------------------

    def _path(self, name: str) -> Path:
        return self._folder / name

    def _slot(
        self,
        op: Operation,
        read: bool = False,
        write: bool = False,
        plain: bool = False,
        content: Content | None = None,
    ) -> Descriptor:
        """Return a descriptor that can do this: the operation's, the next that can, or a new one.

        `plain`: neither O_APPEND nor O_DIRECT. `content`: not of this file.
        """
        for step in range(SLOTS):
            found = self._slots[(op.slot + step) % SLOTS]
            if (
                found is not None
                and not (read and not found.readable)
                and not (write and not found.writable)
                and not (plain and found.flags & (os.O_APPEND | os.O_DIRECT))
                and found.content is not content
            ):
                return found
        names = [op.name]
        if content is not None:
            names = [name for name in (op.name, *NAMES) if self._names.get(name) is not content] or names
        self._open_slot(op.slot, names[0], os.O_RDWR)
        found = self._slots[op.slot]
        assert found is not None
        return found

    def _open_slot(self, slot: int, name: str, flags: int) -> None:
        self._close_slot(slot)
        fd = os.open(self._path(name), flags | os.O_CREAT, 0o644)
        content = self._names.setdefault(name, Content())
        if flags & os.O_TRUNC:
            content.truncate(0, 0)
        self._slots[slot] = Descriptor(fd, flags, content)
        self._check_size(fd, content)

    def _close_slot(self, slot: int) -> None:
        descriptor = self._slots[slot]
        if descriptor is not None:
            self._slots[slot] = None
            os.close(descriptor.fd)

    def _existing(self, name: str) -> Content:
        """Return a file, made where there was none."""
        if name not in self._names:
            os.close(os.open(self._path(name), os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644))
            self._names[name] = Content()
        return self._names[name]

    @staticmethod
    def _check_size(fd: int, content: Content) -> None:
        size = os.fstat(fd).st_size
        if size != content.size:
            raise Difference(f"the file has {size} bytes, not {content.size}; changed by {content.history[-8:]}")

    def _check_around(self, descriptor: Descriptor, offset: int, end: int) -> None:
        """Compare what was changed and a page on both sides, through another descriptor where one can be had."""
        self._check_size(descriptor.fd, descriptor.content)
        reader = descriptor if descriptor.readable else None
        for other in self._slots:
            if other is not None and other.content is descriptor.content and other.readable:
                reader = other
        low = max(0, offset - offset % PAGE - PAGE)
        length = end - low + 2 * PAGE
        length -= length % PAGE
        if reader is not None:
            found = reader.pread(length, low)
            descriptor.content.compare(low, found, f"read back through {oct(reader.flags)}", length=length)

    # -- Comparing ---------------------------------------------------------------------------------------------------

    def _check_path(self, name: str, offset: int = 0) -> None:
        """Compare a file through its name, from `offset` on."""
        content = self._names[name]
        fd = os.open(self._path(name), os.O_RDONLY)
        try:
            self._check_size(fd, content)
            length = content.size - offset + PAGE
            content.compare(offset, os.pread(fd, length, offset), f"{name} opened anew", length=length)
        finally:
            os.close(fd)

    def _check_files(self) -> None:
        found = sorted(os.listdir(self._folder))
        if found != sorted(self._names):
            raise Difference(f"the folder holds {found}, not {sorted(self._names)}")
        for name in self._names:
            self._check_path(name)
        for descriptor in self._slots:
            if descriptor is not None and descriptor.readable:
                content = descriptor.content
                length = content.size + PAGE
                length += -length % PAGE
                content.compare(0, descriptor.pread(length, 0), f"all through {oct(descriptor.flags)}", whole=True)
        for mapping in self._mappings:
            self._check_mapping(mapping)

    @staticmethod
    def _check_mapping(mapping: Mapping | None) -> None:
        if mapping is not None:
            length = mapping.reach()
            mapping.content.compare(mapping.offset, mapping.memory[:length], "all of a mapping", length=length)
