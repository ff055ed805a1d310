"""Each module imports only what stands above it in the list of layers (docs/design.md §5)."""

import ast
import re
from pathlib import Path

import emergent_alignment

PACKAGE = Path(emergent_alignment.__file__).parent
PAGES = {"README.md": "## Layers", "docs/design.md": "## 5. Layers"}


def layers_of(page: str) -> list[str]:
    """The layers in their order, as the picture under a page's heading shows them."""
    text = (PACKAGE.parent / page).read_text("utf-8")
    picture = text.split(f"\n{PAGES[page]}\n", 1)[1].split("```")[1]
    return re.findall(r"^(\w+) ", picture, re.MULTILINE)


LAYERS = ["__init__", *layers_of("docs/design.md"), "__main__"]


def imported_layers(path: Path):
    """(line, layer) of every import of our own package, inside functions too."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        names = []
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        for name in names:
            parts = name.split(".")
            if parts[0] == "emergent_alignment":
                yield node.lineno, parts[1] if len(parts) > 1 else "__init__"


def test_modules_import_upwards_only():
    wrong = []
    for path in sorted(PACKAGE.rglob("*.py")):
        layer = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        for line, imported in imported_layers(path):
            if LAYERS.index(imported) > LAYERS.index(layer):
                wrong.append(f"{path.relative_to(PACKAGE)}:{line} ({layer}) imports {imported}")
    assert not wrong, "\n".join(wrong)


def test_every_layer_is_in_both_pictures_and_nothing_else_is():
    assert layers_of("README.md") == layers_of("docs/design.md")
    there = {path.stem for path in PACKAGE.iterdir() if path.suffix == ".py"}
    there |= {path.name for path in PACKAGE.iterdir() if (path / "__init__.py").is_file()}
    assert sorted(LAYERS) == sorted(there)


def test_the_losses_import_no_other_module_of_ours():
    assert not list(imported_layers(PACKAGE / "losses.py"))


def test_config_dicts_are_met_in_the_command_line_alone():
    wrong = [
        str(path.relative_to(PACKAGE))
        for path in sorted(PACKAGE.rglob("*.py"))
        if path.parent.name != "cli" and "ml_collections" in path.read_text("utf-8")
    ]
    assert not wrong, wrong
