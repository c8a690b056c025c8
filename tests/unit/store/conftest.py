"""Stores to work on, and a way to make them fail."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from helios_fs.store import files
from helios_fs.store.store import Store
from tests.unit.store.faults import Faults


@pytest.fixture
def path(tmp_path: Path) -> str:
    """An empty store."""
    found = str(tmp_path / "store")
    Store.create(found)
    return found


@pytest.fixture
def store(path: str) -> Iterator[Store]:
    """An empty store, open."""
    with Store.open(path) as opened:
        yield opened


@pytest.fixture
def faults() -> Iterator[Faults]:
    """Faults that are in force while the test runs."""
    found = Faults()
    files.set_fault(found)
    try:
        yield found
    finally:
        files.set_fault(None)
