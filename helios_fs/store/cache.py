"""A cache of decoded objects, bounded by the bytes that they took in the store."""

import threading
from collections import OrderedDict
from typing import Generic, TypeVar

Value = TypeVar("Value")


class ByteCache(Generic[Value]):
    """The least recently used goes first. Safe to use from several threads."""

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self.size_bytes = 0
        self._items: OrderedDict[bytes, tuple[Value, int]] = OrderedDict()
        self._touch = self._items.move_to_end
        self._find = self._items.get
        self._lock = threading.Lock()

    def find(self, key: bytes) -> Value | None:
        """Return what is cached under `key`, or None."""
        item = self._find(key)
        if item is None:
            return None
        try:
            self._touch(key)
        except KeyError:
            pass  # Another thread has evicted it meanwhile; what we hold is still right.
        return item[0]

    def add(self, key: bytes, value: Value, size_bytes: int) -> None:
        """Cache `value`; one that is larger than an eighth of the cache is not kept."""
        if size_bytes > self.limit_bytes // 8:
            return
        with self._lock:
            former = self._items.pop(key, None)
            if former is not None:
                self.size_bytes -= former[1]
            self._items[key] = (value, size_bytes)
            self.size_bytes += size_bytes
            while self.size_bytes > self.limit_bytes:
                _, (_, freed) = self._items.popitem(last=False)
                self.size_bytes -= freed

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._items.clear()
            self.size_bytes = 0
