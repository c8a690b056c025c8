"""House rules that no linter knows: the size of files and functions, names that say nothing, docstrings."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MAX_FILE_LINES = 450
MAX_FUNCTION_LINES = 75
NAMELESS = {"utils", "util", "helpers", "helper", "common", "manager", "managers", "misc"}

SOURCES = [*sorted((ROOT / "helios_fs").rglob("*.py")), ROOT / "mount.py"]


def _name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def _functions(tree: ast.AST) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
    return [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]


def test_there_is_something_to_check() -> None:
    assert len(SOURCES) > 40


@pytest.mark.parametrize("path", SOURCES, ids=_name)
def test_a_file_is_one_idea(path: Path) -> None:
    lines = path.read_text().count("\n")
    assert lines <= MAX_FILE_LINES, f"{_name(path)} has {lines} lines"


@pytest.mark.parametrize("path", SOURCES, ids=_name)
def test_a_function_is_one_step(path: Path) -> None:
    long = {
        node.name: (node.end_lineno or node.lineno) - node.lineno + 1
        for node in _functions(ast.parse(path.read_text()))
        if (node.end_lineno or node.lineno) - node.lineno + 1 > MAX_FUNCTION_LINES
    }
    assert not long


@pytest.mark.parametrize("path", SOURCES, ids=_name)
def test_a_module_has_a_name_and_says_what_it_is_for(path: Path) -> None:
    assert not NAMELESS & {part.removesuffix(".py") for part in path.relative_to(ROOT).parts}
    docstring = ast.get_docstring(ast.parse(path.read_text()))
    assert docstring, f"{_name(path)} has no docstring"
    assert len(docstring) > 20


def test_every_package_has_an_init() -> None:
    packages = {path.parent for path in SOURCES if path.parent != ROOT}
    assert not [str(package) for package in packages if not (package / "__init__.py").exists()]


@pytest.mark.parametrize("path", SOURCES, ids=_name)
def test_what_is_public_says_what_it_does(path: Path) -> None:
    bare = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Module | ast.ClassDef):
            bare += [
                child.name
                for child in node.body
                if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
                and not child.name.startswith("_")
                and not ast.get_docstring(child)
            ]
    assert not bare


@pytest.mark.parametrize("path", SOURCES, ids=_name)
def test_a_check_that_is_switched_off_says_why(path: Path) -> None:
    silent = [
        number
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if ("# type: ignore" in line and line.count("#") < 2) or ("# noqa" in line and " - " not in line)
    ]
    assert not silent, f"{_name(path)}: a bare `type: ignore` or `noqa` in lines {silent}"
