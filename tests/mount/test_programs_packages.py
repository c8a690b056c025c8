"""Package managers in the mount: Python's venv and pip, npm; hundreds of small files made, moved, linked, removed."""

import base64
import hashlib
import io
import json
import os
import shutil
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from tests.mount.mounted import Workspace
from tests.mount.programs import TORTURE, need, run

pytestmark = [pytest.mark.fuse, pytest.mark.slow]

MODULES = 500
NODE_PACKAGES = 30
NODE_FILES = 20
REAL_NODE_PACKAGES = ("express", "eslint", "typescript")


def make_wheel(folder: Path) -> Path:
    """Make a package of many modules, the whole format: a manifest with checksums and a script to be installed."""
    folder.mkdir()
    wheel = folder / "manymodules-1.0-py3-none-any.whl"
    info = "manymodules-1.0.dist-info"
    files = {f"manymodules/part{n // 50}/m{n}.py": f"value = {n}\n" for n in range(MODULES)}
    files |= {f"manymodules/part{n}/__init__.py": "" for n in range(-(-MODULES // 50))}
    imports = "".join(f"from manymodules.part{n // 50}.m{n} import value as v{n}\n" for n in range(MODULES))
    total = " + ".join(f"v{n}" for n in range(MODULES))
    files["manymodules/__init__.py"] = ""
    files["manymodules/total.py"] = f"{imports}\ndef main() -> None:\n    print({total})\n"
    files[f"{info}/METADATA"] = "Metadata-Version: 2.1\nName: manymodules\nVersion: 1.0\n"
    files[f"{info}/WHEEL"] = "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    files[f"{info}/entry_points.txt"] = "[console_scripts]\ntotal = manymodules.total:main\n"
    record = "".join(f"{name},sha256={_checksum(text)},{len(text)}\n" for name, text in files.items())
    files[f"{info}/RECORD"] = f"{record}{info}/RECORD,,\n"
    with zipfile.ZipFile(wheel, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return wheel


def _checksum(text: str) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()


def test_venv_and_pip(shared: Workspace, folder: Path, tmp_path: Path) -> None:
    python = folder / "venv/bin/python"
    run(sys.executable, "-m", "venv", folder / "venv")
    install = (python, "-m", "pip", "install", "-q", "--disable-pip-version-check", "--no-cache-dir")
    run(*install, "--no-index", "--no-deps", make_wheel(tmp_path / "wheels"))
    printed = f"{sum(range(MODULES))}\n"
    assert run(folder / "venv/bin/total") == printed
    run(python, "-m", "pip", "check")
    package = next(folder.glob("venv/lib/python*/site-packages/manymodules"))
    compiled = {path: path.stat().st_mtime_ns for path in package.rglob("*.pyc")}
    assert len(compiled) > MODULES
    shared.remount()
    assert run(folder / "venv/bin/total") == printed
    assert {path: path.stat().st_mtime_ns for path in package.rglob("*.pyc")} == compiled
    if TORTURE:
        run(*install, "sympy")
        code = "import sympy; print(sympy.integrate(sympy.Symbol('x') ** 2))"
        assert run(python, "-c", code) == "x**3/3\n"
    # Uninstalling moves each file away first, and removes it when all are moved.
    run(python, "-m", "pip", "uninstall", "-q", "-y", "manymodules")
    assert not package.exists()
    run("rm", "-rf", folder / "venv")
    assert os.listdir(folder) == []


def test_npm_from_archives(shared: Workspace, folder: Path, tmp_path: Path) -> None:
    npm = need("npm", "npm")  # brings node
    manifest = make_node_packages(tmp_path / "archives")
    installed = []
    for place in (folder / "project", tmp_path / "project"):
        place.mkdir()
        (place / "package.json").write_text(json.dumps(manifest))
        run(npm, "install", "--offline", "--no-audit", "--no-fund", "--cache", tmp_path / "cache", where=place)
        run(npm, "ls", "--all", where=place)
        assert run(place / "node_modules/.bin/total") == f"{sum(range(NODE_PACKAGES)) + NODE_FILES}\n"
        installed.append(place / "node_modules")
    shared.remount()
    # npm's own notes on what it has installed name the archives by their way from here.
    run("diff", "-r", "--no-dereference", "-x", ".package-lock.json", *installed)
    assert os.readlink(installed[0] / ".bin/total") == os.readlink(installed[1] / ".bin/total")
    run("rm", "-rf", installed[0])
    assert sorted(os.listdir(folder / "project")) == ["package-lock.json", "package.json"]


def make_node_packages(folder: Path) -> dict[str, object]:
    """Make archives of packages that need each other; return the package.json of a project that needs all of them."""
    folder.mkdir()
    dependencies = {}
    for number in range(NODE_PACKAGES):
        name = f"package{number}"
        manifest: dict[str, object] = {"name": name, "version": "1.0.0", "main": "index.js"}
        before = f"require('package{number - 1}')" if number else str(NODE_FILES)
        files = {f"lib/deep/file{n}.js": f"module.exports = {n};\n" * 30 for n in range(NODE_FILES)}
        files["index.js"] = f"module.exports = {before} + {number};\n"
        if number == NODE_PACKAGES - 1:
            manifest["bin"] = {"total": "total.js"}
            files["total.js"] = "#!/usr/bin/env node\nconsole.log(require('./index.js'));\n"
        files["package.json"] = json.dumps(manifest)
        dependencies[name] = f"file:{_archive(folder / f'{name}.tgz', files)}"
    return {"name": "project", "version": "1.0.0", "dependencies": dependencies}


def _archive(path: Path, files: dict[str, str]) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for name, text in files.items():
            entry = tarfile.TarInfo(f"package/{name}")
            entry.size = len(text)
            archive.addfile(entry, io.BytesIO(text.encode()))
    return path


@pytest.mark.skipif(not TORTURE, reason="needs the npm registry; make torture runs it")
def test_npm_from_the_registry(shared: Workspace, folder: Path, tmp_path: Path) -> None:
    npm, options = need("npm", "npm"), ("--no-audit", "--no-fund", "--cache", str(tmp_path / "cache"))
    (folder / "package.json").write_text('{"name": "project", "version": "1.0.0"}')
    run(npm, "install", *options, *REAL_NODE_PACKAGES, where=folder, seconds=300)
    shared.remount()
    run(npm, "ls", "--all", where=folder)
    (folder / "typed.ts").write_text("const answer: number = 6 * 7;\nconsole.log(answer);\n")
    run(folder / "node_modules/.bin/tsc", "--skipLibCheck", "--types", "", "typed.ts", where=folder)
    assert run("node", "typed.js", where=folder) == "42\n"
    run("node", "-e", "require('express')().disable('etag')", where=folder)
    plain = tmp_path / "plain"
    plain.mkdir()
    for name in ("package.json", "package-lock.json"):
        shutil.copy(folder / name, plain / name)
    run(npm, "ci", *options, where=plain, seconds=300)
    run("diff", "-r", "--no-dereference", folder / "node_modules", plain / "node_modules")
    run("rm", "-rf", folder / "node_modules")
    run(npm, "ci", *options, where=folder, seconds=300)
    run("diff", "-r", "--no-dereference", folder / "node_modules", plain / "node_modules")
