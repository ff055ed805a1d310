"""setup.py says what the package holds and needs."""

import ast
import functools
import importlib.metadata
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import emergent_alignment
from emergent_alignment import __version__

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "emergent_alignment"


@pytest.fixture(scope="module")
def package_data() -> list[str]:
    return _setup_argument("package_data")["emergent_alignment"]


def test_every_bundled_file_goes_into_the_wheel(package_data: list[str]) -> None:
    bundled = {
        path
        for path in PACKAGE.rglob("*")
        if path.is_file() and path.suffix not in (".py", ".pyc", ".so")
    }
    named = {path for pattern in package_data for path in PACKAGE.glob(pattern)}
    assert bundled == named


def test_every_pattern_of_bundled_files_names_one(package_data: list[str]) -> None:
    for pattern in package_data:
        assert any(PACKAGE.glob(pattern)), f"setup.py, package_data: nothing fits {pattern}"


def test_every_folder_with_modules_is_a_package() -> None:
    for folder in {path.parent for path in PACKAGE.rglob("*.py")}:
        assert (folder / "__init__.py").exists(), f"{folder} has no __init__.py"


def test_every_import_is_declared() -> None:
    """In install_requires or in an extra for users: what comes along with another package today
    may not tomorrow."""
    extras = [line for name, lines in _extras().items() if name != "dev" for line in lines]
    declared = _names(_setup_argument("install_requires") + extras)
    for path, name in _imports(PACKAGE):
        assert _distributions(name) & declared, f"{path} imports {name}, which setup.py lacks"


def test_every_declared_package_is_imported() -> None:
    imported = {name for _, module in _imports(PACKAGE) for name in _distributions(module)}
    assert _names(_setup_argument("install_requires")) <= imported


def test_every_import_of_the_tests_is_declared() -> None:
    """But of the scripts in tests/golden: each says what it was run with."""
    with_torch = {"torch", "peft", "trl"}  # `make parity` installs them
    extras = [line for lines in _extras().values() for line in lines]
    declared = _names(_setup_argument("install_requires") + extras) | with_torch
    of_the_tests = {path.stem for path in (ROOT / "tests").rglob("*")}
    for path, name in _imports(ROOT / "tests"):
        if name not in of_the_tests and "golden" not in path.parts:
            assert _distributions(name) & declared, f"{path} imports {name}, which setup.py lacks"


def test_the_version_is_the_same_wherever_it_is_said() -> None:
    """setup.py reads it where it stands; the citation and the changelog are for people."""
    citation = (ROOT / "CITATION.cff").read_text("utf-8")
    assert re.search(r"^version: (.*)$", citation, re.MULTILINE)[1] == __version__
    changes = (ROOT / "CHANGELOG.md").read_text("utf-8")
    versions = re.findall(r"^## (\d.*)$", changes, re.MULTILINE)
    assert versions[0] == __version__


def test_type_checkers_find_every_public_name_where_it_is() -> None:
    stub = ast.parse((PACKAGE / "__init__.pyi").read_text("utf-8"))
    named = {
        alias.asname: f"{node.module}.{alias.name}"
        for node in stub.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert named == {
        name: f"{PACKAGE.name}.{module}.{name}"
        for name, module in emergent_alignment._PUBLIC.items()
    }


def test_what_a_wheel_holds_beside_the_modules_is_there() -> None:
    """A folder or file of the project that setup.py copies into the package."""
    (copied,) = (
        ast.literal_eval(node.value)
        for node in ast.parse((ROOT / "setup.py").read_text()).body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "WITHIN_THE_PACKAGE"
    )
    assert all((ROOT / source).exists() for source in copied)
    assert not any((PACKAGE / within).exists() for within in copied.values())


def _imports(folder: Path) -> Iterator[tuple[Path, str]]:
    """(file, top-level name) of every import of what neither Python nor this package brings, inside
    functions too."""
    for path in sorted(folder.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            modules = []
            if isinstance(node, ast.Import):
                modules = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                modules = [node.module or ""]
            for module in modules:
                name = module.partition(".")[0]
                if name not in sys.stdlib_module_names and name != PACKAGE.name:
                    yield path.relative_to(ROOT), name


def _distributions(module: str) -> set[str]:
    """The names under which a module is installed, `orbax-checkpoint` for `orbax`."""
    return {canonicalize_name(name) for name in _installed().get(module, [module])}


_installed = functools.cache(importlib.metadata.packages_distributions)


def _names(requirements: list[str]) -> set[str]:
    return {canonicalize_name(Requirement(line).name) for line in requirements}


def _extras() -> dict[str, list[str]]:
    (value,) = (
        node.value
        for node in ast.parse((ROOT / "setup.py").read_text()).body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "EXTRAS"
    )
    return ast.literal_eval(value)


def _setup_argument(name: str) -> Any:
    """A literal that setup.py hands to setuptools, read without running it."""
    (value,) = (
        keyword.value
        for node in ast.walk(ast.parse((ROOT / "setup.py").read_text()))
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "setup"
        for keyword in node.keywords
        if keyword.arg == name
    )
    return ast.literal_eval(value)
