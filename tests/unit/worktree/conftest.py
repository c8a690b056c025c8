"""A branch without a mount."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.model.harness import Branch


@pytest.fixture
def branch(tmp_path: Path) -> Iterator[Branch]:
    """An empty branch, driven step by step."""
    opened = Branch(str(tmp_path / "store"))
    yield opened
    opened.close()
