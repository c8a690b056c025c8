"""Fixtures for tests on a real mount."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.mount.mounted import Helios, Workspace, mounted_workspace
from tests.mount.one_mount import one_workspace


@pytest.fixture
def mounted(helios: Helios, tmp_path: Path) -> Iterator[Workspace]:
    """A mounted, empty workspace that can be unmounted, killed and mounted again."""
    with mounted_workspace(helios, tmp_path) as workspace:
        yield workspace


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workspace]:
    """A mounted workspace for all tests of a module; each works below its own `folder`."""
    with one_workspace(tmp_path_factory.mktemp("shared")) as workspace:
        yield workspace


@pytest.fixture
def folder(shared: Workspace, tmp_path: Path) -> Path:
    """An empty directory of the test's own in the shared mount."""
    directory = shared.path / tmp_path.name
    directory.mkdir()
    return directory
