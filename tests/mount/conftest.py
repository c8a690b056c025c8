"""Fixtures for tests on a real mount."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.mount.mounted import Helios, Workspace, mounted_workspace


@pytest.fixture
def mounted(helios: Helios, tmp_path: Path) -> Iterator[Workspace]:
    """A mounted, empty workspace that can be unmounted, killed and mounted again."""
    with mounted_workspace(helios, tmp_path) as workspace:
        yield workspace
