"""Pages in memory, for tests of sorted maps."""

from helios_fs.objects.ids import KIND_PAGE, ObjectId, object_id
from helios_fs.objects.pages import Page, decode_page


class Pages:
    """Pages in memory, with a count of what was read and written."""

    def __init__(self) -> None:
        self.payloads: dict[bytes, bytes] = {}
        self.read: list[bytes] = []
        self.written: list[bytes] = []

    def page(self, name: bytes) -> Page:
        self.read.append(name)
        return decode_page(self.payloads[name])

    def put(self, kind: int, payload: bytes) -> ObjectId:
        assert kind == KIND_PAGE
        name = object_id(kind, payload)
        self.written.append(name)
        self.payloads[name] = payload
        return name
