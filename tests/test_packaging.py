"""setup.py says what the package holds and needs."""

import ast
from pathlib import Path
from typing import Any

import pytest

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
