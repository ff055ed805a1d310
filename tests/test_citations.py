"""What code and pages cite is there: files, tests, and sections of docs/design.md."""

import ast
import io
import json
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

import emergent_alignment

PACKAGE = Path(emergent_alignment.__file__).parent
ROOT = PACKAGE.parent
FOLDERS = ("docs", "emergent_alignment", "tests", "configs", "benchmarks", "launch", "notebooks")
KINDS = r"\.(?:py|md|ipynb|sh|sbatch|json|jsonl|yaml|html|svg|png)\b"
FROM_THE_ROOT = re.compile(rf"(?<![\w./-])(?:{'|'.join(FOLDERS)})/[\w./-]*\w{KINDS}")
# As the package's own docstrings say it: training/heads.py.
ROOMS = "|".join(path.name for path in PACKAGE.iterdir() if (path / "__init__.py").is_file())
FROM_THE_PACKAGE = re.compile(rf"(?<![\w./-])(?:{ROOMS})/[a-z0-9_/]*\w\.py\b")
BARE = re.compile(r"(?<![\w./*-])(?:[a-z0-9_]+\.py|[A-Za-z_]+\.md)\b")
TEST = re.compile(r"(tests/[\w/]+\.py)::(\w+)")
SECTION = re.compile(r"docs/design\.md §(\d+)")
LINK = re.compile(r"\]\(([^)\s#\"]*)(?:#([^)\s]+))?\)")
HEADING = re.compile(r"^#+ (.*)$", re.MULTILINE)


def cited_in(path: Path) -> str:
    """The text of a file in which citations stand: of Python, comments and docstrings, and pages
    that any text names; of a notebook, its cells."""
    text = path.read_text("utf-8")
    if path.suffix == ".ipynb":
        return "\n".join("".join(cell["source"]) for cell in json.loads(text)["cells"])
    if path.suffix != ".py":
        return text
    return "\n".join([*_comments_and_docstrings(text), *re.findall(r"docs/\w+\.md", text)])


def _comments_and_docstrings(text: str) -> Iterator[str]:
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            yield token.string
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
            yield ast.get_docstring(node) or ""


def files() -> list[Path]:
    """Everything that cites."""
    found = [path for folder in FOLDERS for path in (ROOT / folder).rglob("*")]
    found = [path for path in found if path.suffix in (".py", ".md", ".ipynb", ".sh", ".sbatch")]
    found = [path for path in found if not {"results", "__pycache__"} & {*path.parts}]
    return [*found, *ROOT.glob("*.md"), ROOT / "Makefile", ROOT / "setup.py"]


@pytest.fixture(scope="module")
def texts() -> dict[Path, str]:
    return {path: cited_in(path) for path in sorted(files())}


def missing(texts: dict[Path, str], pattern: re.Pattern, is_there) -> str:
    """The citations of a pattern that lead nowhere, a line each."""
    return "\n".join(
        f"{path.relative_to(ROOT)} cites {found[0]}"
        for path, text in texts.items()
        for found in pattern.finditer(text)
        if not is_there(path, found)
    )


def test_files_that_are_cited_exist(texts):
    names = {path.name for path in [*texts, *ROOT.glob("*.*")]}
    assert not missing(texts, FROM_THE_ROOT, lambda _, found: (ROOT / found[0]).exists())
    assert not missing(
        texts,
        FROM_THE_PACKAGE,
        lambda path, found: any((at / found[0]).exists() for at in (PACKAGE, ROOT / "tests")),
    )
    assert not missing(texts, BARE, lambda _, found: found[0] in names)


def test_links_lead_to_files_and_headings_that_exist(texts):
    def is_there(path, found):
        target = path.parent / found[1] if found[1] else path
        if found[1].startswith(("http", "mailto:")):
            return True
        return target.exists() and (not found[2] or found[2] in anchors(target))

    pages = {path: text for path, text in texts.items() if path.suffix in (".md", ".ipynb")}
    assert not missing(pages, LINK, is_there)


def test_every_page_has_a_place_in_the_site():
    named = (ROOT / "mkdocs.yml").read_text("utf-8")
    assert all(f": {page.name}\n" in named for page in (ROOT / "docs").glob("*.md"))


def anchors(page: Path) -> set[str]:
    """The headings of a page as links name them."""
    headings = HEADING.findall(page.read_text("utf-8").lower())
    return {re.sub(r"[^\w -]", "", heading).replace(" ", "-") for heading in headings}


def test_tests_that_are_cited_exist(texts):
    def is_there(path, found):
        return f"def {found[2]}(" in (ROOT / found[1]).read_text("utf-8")

    assert not missing(texts, TEST, is_there)


def test_sections_that_are_cited_exist(texts):
    design = (ROOT / "docs" / "design.md").read_text("utf-8")
    numbers = re.findall(r"^## (\d+)\. ", design, re.MULTILINE)
    assert numbers == [str(number) for number in range(1, 11)]
    assert not missing(texts, SECTION, lambda path, found: found[1] in numbers)
    assert any(SECTION.search(text) for text in texts.values())
