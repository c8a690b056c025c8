"""`./mount.py`: what it finds missing, when it has nothing to do, and the whole way to a mount."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[3]


@pytest.fixture
def script(tmp_path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("mount_script", ROOT / "mount.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.LOG = tmp_path / "log"
    return module


def test_missing_commands(script: ModuleType) -> None:
    assert script.missing_commands({"sh": "dash", "no-such-command-here": "its-package"}) == ["its-package"]


def test_without_root_it_names_the_command(script: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(script, "privilege", lambda: None)
    with pytest.raises(script.CannotSetUp, match=r"sudo apt-get update && sudo apt-get install -y .* fuse3"):
        script.install_system_packages(["fuse3"])
    script.install_system_packages([])


def test_python_is_new_enough_and_the_systems_where_it_can(script: ModuleType) -> None:
    python = script.find_python()
    probe = [python, "-c", "import sys; print(sys.version_info >= (3, 11))"]
    assert subprocess.run(probe, capture_output=True, text=True, check=True).stdout == "True\n"


def test_sources_count_only_where_they_are_copied(
    script: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(script, "ROOT", tmp_path)
    (tmp_path / "pyproject.toml").write_text("a")
    (tmp_path / "helios_fs").mkdir()
    (tmp_path / "helios_fs" / "x.py").write_text("1")
    copied, linked = script.fingerprint(False), script.fingerprint(True)
    (tmp_path / "helios_fs" / "x.py").write_text("2")
    assert script.fingerprint(False) != copied
    assert script.fingerprint(True) == linked
    (tmp_path / "pyproject.toml").write_text("b")
    assert script.fingerprint(True) != linked


def test_output_of_what_it_runs_is_kept(script: ModuleType) -> None:
    assert script.run_quietly(["sh", "-c", "echo said; exit 5"]) == 5
    assert script.run_quietly(["no-such-command-here"]) == 127
    assert "said\n" in script.LOG.read_text() and "$ sh -c" in script.LOG.read_text()


def test_it_runs_on_the_standard_library_alone() -> None:
    done = subprocess.run([sys.executable, "-I", "-S", ROOT / "mount.py"], capture_output=True, text=True, check=False)
    assert done.returncode == 2 and "say where to mount" in done.stderr


@pytest.mark.fuse
@pytest.mark.skipif(not (ROOT / ".venv" / ".helios-setup").exists(), reason="`make setup` has not run in this checkout")
def test_from_a_checkout_to_a_mount_and_again(environment: dict[str, str], tmp_path: Path) -> None:
    place = tmp_path / "new folder" / "ws"

    def run() -> subprocess.CompletedProcess[str]:
        command = [sys.executable, ROOT / "mount.py", place]
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)

    first = run()
    assert first.returncode == 0, first.stderr
    tries = first.stdout.splitlines()
    assert len(tries) == 3
    try:
        # What it says to try works as it is written.
        said = subprocess.run("\n".join(tries[:2]), shell=True, capture_output=True, text=True, check=True).stdout
        assert said == "hello\n"
        assert sorted(os.listdir(place / ".snapshots" / "first")) == ["a.txt"]
        again = run()
        assert again.returncode == 0 and "mounted already" in again.stderr
        assert again.stdout == first.stdout
    finally:
        last = subprocess.run(tries[2], shell=True, capture_output=True, text=True, env=environment, check=False)
    assert last.returncode == 0 and "first" in last.stdout
    assert not os.path.ismount(place)
