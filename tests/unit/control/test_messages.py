"""Messages: every one survives the way there and back, and what is wrong is refused by a class of ours."""

import typing

import pytest

from helios_fs import errors
from helios_fs.control import messages

ODD_NAME = bytes(range(1, 256)).replace(b"/", b"")

REQUESTS = [
    messages.Hello(),
    messages.TakeSnapshot(ODD_NAME, "a message\nof two lines", "me", True, "helios snapshot"),
    messages.ListSnapshots(),
    messages.DescribeSnapshot("0123456789", b"", None, True),
    messages.DeleteSnapshots(["0123456789"]),
    messages.Seal(),
    messages.Restore("0123456789", [ODD_NAME, b"a/b"], "me", "helios restore 0123456789"),
    messages.Merge("b0123", "0123456789", "ab" * 32, 77, ("main", "a/b"), "markers", True, "why", "me"),
    messages.OpenBranch("b0123"),
    messages.CloseBranch("b0123"),
    messages.ListBranches(),
    messages.MakeBranch("näme", 1000, "0123456789"),
    messages.RenameBranch("b0123", "new"),
    messages.DeleteBranch("b0123", True),
    messages.BringBackBranch("b0123"),
    messages.Collect(release_only=True),
    messages.Stats(),
    messages.Unmount(),
]
REPLIES = [
    messages.HelloReply(1, b"/s\xff", "main", b"/m", "0.1"),
    messages.SnapshotTaken("0123456789"),
    messages.Snapshots([messages.SnapshotInfo("0123456789", b"n\xfe", "m", 1, [], "u", "h", False, "")]),
    messages.SnapshotDescribed(
        messages.SnapshotInfo("0123456789", b"", "", -1, ["1"], "", "", True, "ab", "mkdir", True)
    ),
    messages.SnapshotsDeleted(),
    messages.Sealed("ab" * 32, 1 << 40, 7),
    messages.Restored("0123456789", 3),
    messages.Merged("0123456789", "", [messages.MergeConflict(b"\xff", "content")], 3, False),
    messages.Collected(1 << 40, 2, 1, 3, 4, 5, 6, ("pack 00000001 stays",)),
    messages.BranchOpened(b"/m/.branches/\xc3\xa4"),
    messages.BranchClosed(True),
    messages.BranchNames({"ä": "b0123"}),
    messages.BranchMade("b0123"),
    messages.BranchChanged(),
    messages.StatsReply({"requests_total": 1 << 50, "mean_us": 3.5}),
    messages.Unmounting(),
    messages.Failed("Busy", "later"),
]


def test_the_lists_above_are_complete() -> None:
    assert {type(one) for one in REQUESTS} == set(typing.get_args(messages.Request))
    assert {type(one) for one in REPLIES} == set(typing.get_args(messages.Reply))


@pytest.mark.parametrize("message", REQUESTS, ids=lambda one: type(one).__name__)
def test_request_round_trip(message: messages.Request) -> None:
    line = messages.encode(message)
    assert line.endswith(b"\n") and line.count(b"\n") == 1
    assert messages.decode_request(line) == message


@pytest.mark.parametrize("message", REPLIES, ids=lambda one: type(one).__name__)
def test_reply_round_trip(message: messages.Reply) -> None:
    line = messages.encode(message)
    assert line.endswith(b"\n") and line.count(b"\n") == 1
    assert messages.decode_reply(line) == message


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"\xff\xfe",
        b"{}",
        b"[]",
        b'{"type":"Nonsense"}',
        b'{"type":"Restore"}',
        b'{"type":"Restore","id":7}',
        b'{"type":"TakeSnapshot","sync":"yes"}',
        b'{"type":"TakeSnapshot","name":"no base64!"}',
        b'{"type":"HelloReply","pid":1}',
        b"[" * 100_000,
    ],
)
def test_what_is_wrong_is_refused(line: bytes) -> None:
    with pytest.raises(errors.InvalidArgument):
        messages.decode_request(line)
    with pytest.raises(errors.InvalidArgument):
        messages.decode_reply(line)


def test_a_field_from_a_newer_program_is_ignored() -> None:
    assert messages.decode_request(b'{"type":"Stats","since":4}') == messages.Stats()


def test_an_error_arrives_in_its_own_class() -> None:
    arrived = messages.raised(messages.failure(errors.SnapshotUnsealed("not yet")))
    assert type(arrived) is errors.SnapshotUnsealed
    assert str(arrived) == "not yet"


@pytest.mark.parametrize("name", ["NoSuchError", "ColdObject", "__name__", "HeliosError"])
def test_an_unknown_error_is_still_one_of_ours(name: str) -> None:
    arrived = messages.raised(messages.Failed(name, "text"))
    assert type(arrived) is errors.HeliosError
    assert str(arrived) == "text"


def test_an_error_about_a_name_that_is_not_utf8_can_be_sent() -> None:
    name = b"caf\xe9".decode(errors="surrogateescape")
    reply = messages.decode_reply(messages.encode(messages.failure(errors.NoSuchEntry(name))))
    assert isinstance(reply, messages.Failed)
    assert reply.message.startswith("caf")
