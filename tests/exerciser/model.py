"""What a file must contain, byte for byte, and what it may contain after the daemon was killed."""

from typing import Final

PAGE: Final = 4096


class Difference(Exception):
    """The mount shows something else than the model."""


class Content:
    """The content of one file, by whatever names and descriptors it is reached."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.history: list[tuple[int, str, int, int]] = []
        """(number of the operation, what it did, first byte, end): all that has changed it."""
        self._unsettled: dict[int, list[bytearray]] = {}
        """Page -> what the daemon may have of it, where a mapping has stored into it since it was last written back."""

    @property
    def size(self) -> int:
        """Its size in bytes."""
        return len(self.data)

    def write(self, number: int, what: str, offset: int, data: bytes) -> None:
        """Let bytes be written by a system call: the daemon has them."""
        end = offset + len(data)
        if offset > self.size:
            self.data.extend(bytes(offset - self.size))
        self.data[offset:end] = data
        self.history.append((number, what, offset, end))
        for page in self._pages(offset, end):
            start = page * PAGE
            low, high = max(offset, start), min(end, start + PAGE)
            for version in self._unsettled[page]:
                version[low - start : high - start] = data[low - offset : high - offset]

    def store(self, number: int, offset: int, data: bytes) -> None:
        """Let bytes be stored through a mapping: the daemon has them once they are written back."""
        end = offset + len(data)
        assert end <= self.size, "a store beyond the end changes nothing"
        pages = range(offset // PAGE, (end - 1) // PAGE + 1)
        for page in pages:
            if page not in self._unsettled:
                self._unsettled[page] = [self._page(page)]
        self.data[offset:end] = data
        self.history.append((number, "stored", offset, end))
        for page in pages:
            self._unsettled[page].append(self._page(page))

    def truncate(self, number: int, size: int) -> None:
        """Cut it, or let it grow by zeros."""
        self.history.append((number, "truncated", min(size, self.size), max(size, self.size)))
        if size < self.size:
            del self.data[size:]
            for page in list(self._unsettled):
                keep = size - page * PAGE
                if keep <= 0:
                    del self._unsettled[page]
                    continue
                for version in self._unsettled[page]:
                    version[keep:] = bytes(max(0, PAGE - keep))
        else:
            self.data.extend(bytes(size - self.size))

    def is_unsettled(self, offset: int) -> bool:
        """Tell whether a mapping has stored into the page of this byte since it was written back."""
        return offset // PAGE in self._unsettled

    def settle(self, offset: int = 0, end: int = 1 << 62) -> None:
        """What mappings have stored into the pages of these bytes has been written back."""
        for page in self._pages(offset, end):
            del self._unsettled[page]

    def adopt(self, found: bytes) -> None:
        """Take over what was found after the daemon was killed, as far as it may be so. Raises Difference."""
        if len(found) == self.size:
            for page, versions in self._unsettled.items():
                start = page * PAGE
                kept = found[start : start + PAGE]
                for at, byte in enumerate(kept):
                    if byte != self.data[start + at] and any(version[at] == byte for version in versions):
                        self.data[start + at] = byte
        self.settle()
        self.compare(0, found, "after the daemon was killed", whole=True)

    def compare(self, offset: int, found: bytes, how: str, whole: bool = False, length: int | None = None) -> None:
        """Raise Difference where bytes found at `offset` are not what must be there."""
        expected = self.data[offset:] if whole or length is None else self.data[offset : offset + length]
        if found == expected:
            return
        raise Difference(self.explain(offset, found, bytes(expected), how))

    def explain(self, offset: int, found: bytes, expected: bytes, how: str) -> str:
        """Return where bytes differ first and last, and which operations should have written them."""
        wrong = [at for at in range(min(len(found), len(expected))) if found[at] != expected[at]]
        first = wrong[0] if wrong else min(len(found), len(expected))
        last = wrong[-1] if wrong else max(len(found), len(expected)) - 1
        at = offset + first
        writers = [entry for entry in self.history if entry[2] <= at < entry[3]]
        return (
            f"{how}: {len(found)} bytes found at {offset}, {len(expected)} expected; {len(wrong)} of them differ, "
            f"the first at {at}, the last at {offset + last}\n"
            f"  found    {found[first : first + 32].hex(' ')}\n"
            f"  expected {expected[first : first + 32].hex(' ')}\n"
            f"  byte {at} was changed by (number, what, from, to): {writers[-6:]}\n"
            f"  the file by: {self.history[-8:]}"
        )

    def _page(self, page: int) -> bytearray:
        kept = self.data[page * PAGE : (page + 1) * PAGE]
        kept.extend(bytes(PAGE - len(kept)))
        return kept

    def _pages(self, offset: int, end: int) -> list[int]:
        if not self._unsettled or end <= offset:
            return []
        first, last = offset // PAGE, (end - 1) // PAGE
        return [page for page in self._unsettled if first <= page <= last]
