import os
from pathlib import Path

import pytest

from helios_fs.errors import NotAStore, StoreFault, StoreFull
from helios_fs.store import reflog
from helios_fs.store.reflog import HEADER_BYTES, BranchTaken, Extent, InosReserved, LogRecord, Published, RefLog
from tests.unit.store.faults import Faults

_STORE = b"s" * 16
_RECORDS: list[LogRecord] = [
    InosReserved(500),
    BranchTaken("main", 3),
    Published("main", 3, [Extent(1, 64, 900)], b"\x90"),
]


@pytest.fixture
def path(tmp_path: Path) -> str:
    found = tmp_path / "refs"
    found.write_bytes(reflog.header(_STORE))
    return str(found)


@pytest.fixture
def log(path: str) -> RefLog:
    return RefLog(path, _STORE)


def _fill(log: RefLog) -> list[int]:
    ends = [HEADER_BYTES]
    for record in _RECORDS:
        ends.append(log.append(record, ends[-1]))
    return ends


def test_records_come_back_with_their_ends(log: RefLog) -> None:
    ends = _fill(log)
    assert log.size() == ends[-1]
    assert list(log.records(HEADER_BYTES)) == list(zip(_RECORDS, ends[1:], strict=True))
    assert [record for record, _ in log.records(ends[1])] == _RECORDS[1:]
    assert list(log.records(ends[-1])) == []


def test_a_torn_tail_is_no_record_wherever_it_is_torn(log: RefLog, path: str) -> None:
    ends = _fill(log)
    for length in range(ends[-1] - 1, HEADER_BYTES, -1):
        os.truncate(path, length)
        whole = sum(end <= length for end in ends[1:])
        assert [record for record, _ in log.records(HEADER_BYTES)] == _RECORDS[:whole]


def test_damage_in_the_middle_costs_one_record(log: RefLog, path: str) -> None:
    ends = _fill(log)
    for at in range(ends[1], ends[2]):
        data = bytearray(Path(path).read_bytes())
        data[at] ^= 1
        Path(path).write_bytes(data)
        assert [record for record, _ in log.records(HEADER_BYTES)] == [_RECORDS[0], _RECORDS[2]]
        data[at] ^= 1
        Path(path).write_bytes(data)


def test_a_record_is_valid_only_where_it_was_written(log: RefLog, path: str) -> None:
    ends = _fill(log)
    data = Path(path).read_bytes()
    Path(path).write_bytes(data + data[ends[0] : ends[1]])
    assert len(list(log.records(HEADER_BYTES))) == 3


@pytest.mark.parametrize("failing", ["append", "sync"])
def test_an_append_that_fails_is_taken_back(log: RefLog, faults: Faults, failing: str) -> None:
    ends = _fill(log)
    faults.fail_all = {failing}
    with pytest.raises(StoreFault):
        log.append(_RECORDS[0], ends[-1])
    assert log.size() == ends[-1]


def test_a_short_append_is_taken_back(log: RefLog, faults: Faults) -> None:
    faults.fail_at, faults.short = len(faults.seen), 9
    with pytest.raises(StoreFull):
        log.append(_RECORDS[0], HEADER_BYTES)
    assert log.size() == HEADER_BYTES


def test_a_record_that_cannot_be_taken_back_stays_whole(log: RefLog, faults: Faults) -> None:
    faults.fail_all = {"sync", "cut"}
    with pytest.raises(StoreFault):
        log.append(_RECORDS[0], HEADER_BYTES)
    assert [record for record, _ in log.records(HEADER_BYTES)] == _RECORDS[:1]


def test_a_log_of_another_store_or_none_is_refused(path: str) -> None:
    with pytest.raises(NotAStore, match="does not begin"):
        RefLog(path, b"t" * 16)
    os.truncate(path, 10)
    with pytest.raises(NotAStore, match="does not begin"):
        RefLog(path, _STORE)
    os.unlink(path)
    with pytest.raises(NotAStore, match="missing"):
        RefLog(path, _STORE)
