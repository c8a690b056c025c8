import pytest
from blake3 import blake3

from helios_fs.objects import ids
from helios_fs.objects.ids import (
    KIND_BLOB,
    KIND_PAGE,
    SnapshotId,
    SnapshotIds,
    looks_like_snapshot_id,
    next_snapshot_id,
)

_EPOCH_NS = 1_767_225_600 * 10**9
_SECOND = 10**9


def test_an_object_id_is_blake3_over_kind_and_payload() -> None:
    assert ids.object_id(KIND_BLOB, b"data") == blake3(b"\x01data").digest()
    assert ids.object_id(KIND_PAGE, b"data") == blake3(b"\x02data").digest()
    assert ids.object_id(KIND_BLOB, memoryview(b"data")) == ids.object_id(KIND_BLOB, b"data")


def test_snapshot_ids_sort_by_time_and_look_like_ids() -> None:
    made = [next_snapshot_id(None, _EPOCH_NS + seconds * _SECOND) for seconds in (0, 1, 60, 10**6, 10**9, 3 * 10**9)]
    assert made == sorted(made)
    assert all(looks_like_snapshot_id(one) for one in made)
    assert all(len(one) == 10 and one[0].isdigit() for one in made)


def test_a_clock_that_stands_still_or_runs_back_gives_the_successor() -> None:
    now = _EPOCH_NS + 10**6 * _SECOND
    last = next_snapshot_id(None, now)
    for later in (now - 5 * _SECOND, 0):
        follower = next_snapshot_id(last, later)
        assert follower > last
        assert ids.snapshot_number(follower) == ids.snapshot_number(last) + 1
        last = follower


def test_two_ids_of_one_tick_ascend() -> None:
    now = _EPOCH_NS + 5 * _SECOND
    last = next_snapshot_id(None, now)
    for _ in range(3000):
        follower = next_snapshot_id(last, now)
        assert follower > last
        last = follower


def test_the_real_clock_is_the_default() -> None:
    assert next_snapshot_id(None) > next_snapshot_id(None, _EPOCH_NS + _SECOND)


def test_ids_run_out_with_an_error_not_with_a_letter_in_front() -> None:
    with pytest.raises(OverflowError):
        next_snapshot_id(SnapshotId("9zzzzzzzzz"), _EPOCH_NS)
    last = next_snapshot_id(SnapshotId("9zzzzzzzzy"), _EPOCH_NS)
    assert last == "9zzzzzzzzz"


@pytest.mark.parametrize(
    "text",
    ["", "0", "012345678", "01234567890", "a123456789", "012345678i", "012345678L", "012345678A", "\u0661123456789"],
)
def test_what_is_no_id_does_not_look_like_one(text: str) -> None:
    assert not looks_like_snapshot_id(text)


def test_no_two_ids_of_a_process_are_the_same() -> None:
    """Whatever each branch's newest snapshot is: many branches are made of one state within one tick of the clock."""
    ids = SnapshotIds()
    before = next_snapshot_id(None)
    made = [ids.take(after) for after in ["", before, before, "", before] * 200]
    assert len(set(made)) == 1000
    assert made == sorted(made)
    assert made[1] > before
    later = SnapshotId("9" + before[1:])
    assert ids.take(later) > later
